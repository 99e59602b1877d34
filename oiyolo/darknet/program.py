"""A darknet executable: which line it is, whether it computes on a GPU, what to call it with."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.darknet.build import failures
from oiyolo.darknet.forks import line_of
from oiyolo.core.errors import DarknetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.darknet.forks import Line

_ANSWER_TIMEOUT_S: Final = 30.0
_ASKED: Final = "detector"
"""Asked for this alone, every line prints its usage, and nothing else happens."""
_GPU_LIBRARIES: Final = ("libcudart", "libcublas", "libamdhip64", "libhipblas")
_SHOWN_CHARACTERS: Final = 300
ENVIRONMENT: Final = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""GPUs are numbered as nvidia-smi numbers them; CUDA itself would begin with the fastest."""


@dataclass(frozen=True)
class Darknet:
    """A darknet that answered.

    Attributes:
        executable: Its absolute path.
        line: The line of darknet that it is.
        gpu: It is linked with a GPU's libraries.
        origin: How it was found, in a few words.
        cudnn: It is linked with cuDNN.
    """

    executable: Path
    line: Line
    gpu: bool
    origin: str
    cudnn: bool = False

    def __fspath__(self) -> str:
        return str(self.executable)

    def __str__(self) -> str:
        where = "GPU" if self.gpu else "CPU"
        return f"{self.executable} ({self.line.title}, {where}; {self.origin})"

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {
            "executable": str(self.executable),
            "line": self.line.name,
            "gpu": self.gpu,
            "origin": self.origin,
        }


def ask(executable: Path, origin: str) -> Darknet:
    """Start an executable and find out which line of darknet it is.

    Raises:
        DarknetError: It does not start, or is no darknet.
    """
    if not os.access(executable, os.X_OK) or not executable.is_file():
        raise DarknetError(
            "this is no executable file",
            where=str(executable),
            remedy="Give [darknet] executable the path of the program itself",
        )
    answer = process.run([str(executable), _ASKED], timeout_s=_ANSWER_TIMEOUT_S)
    line = line_of(answer.output)
    if line is None:
        known = failures.explain(answer.output)
        raise DarknetError(
            known.what if known else "this program does not answer as darknet does",
            where=str(executable),
            expected="the usage of `darknet detector`",
            found=f"{answer.ended}: {answer.output.strip()[:_SHOWN_CHARACTERS]!r}",
            remedy=known.remedy
            if known
            else "If a library is missing, install it; or name another [darknet] executable",
        )
    libraries = ""
    if shutil.which("ldd"):
        libraries = process.run(["ldd", str(executable)], timeout_s=_ANSWER_TIMEOUT_S).output
    gpu = any(name in libraries for name in _GPU_LIBRARIES)
    return Darknet(executable.absolute(), line, gpu, origin, cudnn="libcudnn" in libraries)


def revision(darknet: Darknet) -> str:
    """Give a darknet's revision; empty if nobody knows it.

    hank-ai's tells it itself; for others the package that the program belongs to has one.
    """
    answer = process.run([str(darknet.executable), _ASKED], timeout_s=_ANSWER_TIMEOUT_S)
    told = darknet.line.revision_in(answer.output)
    return told or _package_version(darknet.executable)


def _package_version(executable: Path) -> str:
    """Give the version of the Debian package that an executable came with; empty if none did."""
    if shutil.which("dpkg-query") is None:
        return ""
    owner = process.run(["dpkg-query", "-S", str(executable)], timeout_s=_ANSWER_TIMEOUT_S)
    if owner.exit_code != 0:
        return ""
    package = owner.output.partition(":")[0]
    asked = ["dpkg-query", "-W", "-f", "${Version}", package]
    answer = process.run(asked, timeout_s=_ANSWER_TIMEOUT_S)
    return answer.output.strip() if answer.exit_code == 0 else ""


def train_command(
    darknet: Darknet,
    *,
    data: str,
    cfg: str,
    weights: str | None,
    resume: bool,
    gpus: str | None = None,
    measure_map: bool = False,
    colours: bool = False,
) -> tuple[str, ...]:
    """Give the command that trains; pure.

    Args:
        darknet: The program.
        data: Path of the ``.data`` file.
        cfg: Path of the network.
        weights: Weights to start from or go on with; ``None`` starts from noise.
        resume: Go on where the weights ended; else the count of images in them is cleared.
        gpus: GPU numbers, as "0,1".
        measure_map: Measure mAP on the valid list while training, where the line can.
        colours: Let it write colour codes.
    """
    argv = [str(darknet.executable), "detector", "train", data, cfg]
    if weights is not None:
        argv.append(weights)
        if not resume:
            argv.append("-clear")
    if gpus is not None:
        argv += ["-gpus", gpus]
    unwanted = darknet.line.plain_flags if colours else ()
    argv += [flag for flag in darknet.line.train_flags if flag not in unwanted]
    if measure_map:
        argv += darknet.line.map_flags
    return tuple(argv)


def valid_command(
    darknet: Darknet, *, data: str, cfg: str, weights: str, prefix: str
) -> tuple[str, ...]:
    """Give the command that writes detections on the valid list; pure.

    It writes ``<results>/<prefix><class name>.txt``, where ``results`` stands in the data file.
    """
    return (
        str(darknet.executable),
        *("detector", "valid", data, cfg, weights),
        *("-out", prefix),
    )


def data_file(
    *, class_count: int, train: str, valid: str, names: str, backup: str, results: str
) -> str:
    """Give the text of a ``.data`` file.

    Darknet strips all blanks from its lines (src/option_list.c, read_data_cfg), so the paths must
    have none: ours are relative to the folder that darknet runs in.
    """
    rows: Sequence[tuple[str, object]] = (
        ("classes", class_count),
        ("train", train),
        ("valid", valid),
        ("names", names),
        ("backup", backup),
        ("results", results),
    )
    return "".join(f"{key} = {value}\n" for key, value in rows)
