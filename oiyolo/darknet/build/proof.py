"""Verify that a darknet works: train two iterations on generated images and read the weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.darknet.build import failures
from oiyolo.darknet.forks import FINAL_WEIGHTS
from oiyolo.darknet.paths import is_safe
from oiyolo.darknet.program import data_file, train_command
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.weights import check_weights

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet

_TIMEOUT_S: Final = 120.0
_IMAGES: Final = 4
_SIDE_PX: Final = 32
_ITERATIONS: Final = 2
TINY_NETWORK: Final = f"""[net]
batch=4
subdivisions=1
width={_SIDE_PX}
height={_SIDE_PX}
channels=3
learning_rate=0.001
max_batches={_ITERATIONS}
policy=constant

[convolutional]
batch_normalize=1
filters=4
size=3
stride=8
pad=1
activation=leaky

[convolutional]
filters=6
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=0
anchors=16,16
classes=1
num=1
jitter=.1
random=0
"""


def verify(darknet: Darknet) -> None:
    """Train a tiny network for two iterations with a darknet and check the weights it writes.

    Raises:
        DarknetError: It wrote no weights; the message quotes its output.
        InputFormError: The weights do not fit the network.
    """
    from PIL import Image  # noqa: PLC0415  (needed for a new darknet only)

    with tempfile.TemporaryDirectory(prefix="oiyolo-proof-", dir=_safe_temporary_folder()) as name:
        folder = Path(name)
        for number in range(_IMAGES):
            Image.new("RGB", (_SIDE_PX, _SIDE_PX), (60 * number, 90, 120)).save(
                folder / f"{number}.jpg"
            )
            (folder / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        image_list = "".join(f"{folder}/{number}.jpg\n" for number in range(_IMAGES))
        (folder / "list.txt").write_text(image_list)
        (folder / "obj.names").write_text("thing\n")
        (folder / "proof.cfg").write_text(TINY_NETWORK)
        (folder / "obj.data").write_text(
            data_file(
                class_count=1,
                train="list.txt",
                valid="list.txt",
                names="obj.names",
                backup=".",
                results=".",
            )
        )
        argv = train_command(darknet, data="obj.data", cfg="proof.cfg", weights=None, resume=False)
        finished = process.run(
            argv, cwd=folder, timeout_s=_TIMEOUT_S, stdin_text=darknet.fork.confirmation
        )
        weights = folder / f"proof{FINAL_WEIGHTS}"
        if not weights.is_file():
            raise failures.explained_error(
                f"this darknet starts but does not train ({finished.exit_description})",
                finished.output,
                where=str(darknet.executable),
                remedy="Build it again, or set [darknet] executable to another darknet",
                exit_code=finished.exit_code,
                is_built=darknet.is_built,
            )
        check_weights(weights, cfgs.parse(TINY_NETWORK, path="proof.cfg"), complete=True)


def _safe_temporary_folder() -> str | None:
    """Return a folder for temporary files whose path is safe for darknet, or ``None``."""
    for folder in (tempfile.gettempdir(), "/var/tmp", "/tmp"):  # noqa: S108  (a folder is created in it)
        if is_safe(folder) and Path(folder).is_dir():
            return folder
    return None
