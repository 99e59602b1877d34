"""Proof that a darknet works: it trains two iterations on pictures of ours, and writes weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.darknet.build import failures
from oiyolo.darknet.forks import FINAL_WEIGHTS
from oiyolo.darknet.paths import is_safe
from oiyolo.darknet.program import data_file, train_command
from oiyolo.core.errors import DarknetError
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.weights import check_weights

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet

_TIMEOUT_S: Final = 120.0
_PICTURES: Final = 4
_SIDE_PX: Final = 32
_ITERATIONS: Final = 2
_NETWORK: Final = f"""[net]
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


def prove(darknet: Darknet) -> None:
    """Let darknet train two iterations of a tiny network, and read its weights back.

    Raises:
        DarknetError: It did not write sound weights; the message has what it said.
    """
    from PIL import Image  # noqa: PLC0415  (only a new build is proved)

    with tempfile.TemporaryDirectory(prefix="oiyolo-proof-", dir=_safe_place()) as name:
        folder = Path(name)
        for number in range(_PICTURES):
            Image.new("RGB", (_SIDE_PX, _SIDE_PX), (60 * number, 90, 120)).save(
                folder / f"{number}.jpg"
            )
            (folder / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        pictures = "".join(f"{folder}/{number}.jpg\n" for number in range(_PICTURES))
        (folder / "list.txt").write_text(pictures)
        (folder / "obj.names").write_text("thing\n")
        (folder / "proof.cfg").write_text(_NETWORK)
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
        done = process.run(argv, cwd=folder, timeout_s=_TIMEOUT_S, typed=darknet.line.typed)
        weights = folder / f"proof{FINAL_WEIGHTS}"
        if not weights.is_file():
            known = failures.explain(done.output)
            raise DarknetError(
                f"this darknet starts but does not train ({done.ended})"
                + (f": {known.what}" if known else ""),
                where=str(darknet.executable),
                found=done.output.strip()[-500:],
                remedy=known.remedy
                if known
                else "Build it anew, or name another [darknet] executable",
            )
        check_weights(weights, cfgs.parse(_NETWORK, path="proof.cfg"))


def _safe_place() -> str | None:
    """Give a folder for temporary files whose path darknet does not mangle."""
    for place in (tempfile.gettempdir(), "/var/tmp", "/tmp"):  # noqa: S108  (a folder is made in it)
        if is_safe(place) and Path(place).is_dir():
            return place
    return None
