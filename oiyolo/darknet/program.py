"""A program that trains as darknet does: its fork, whether it uses a GPU, its command lines."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from oiyolo.core import process
from oiyolo.core.errors import DarknetError
from oiyolo.darknet.build import failures
from oiyolo.darknet.forks import identify_fork

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.darknet.forks import Fork

Engine = Literal["darknet", "torch"]

_TIMEOUT_S: Final = 30.0
_USAGE_COMMAND: Final = "detector"
"""With this argument alone, every fork prints its usage and exits."""
_GPU_LIBRARIES: Final = ("libcudart", "libcublas", "libamdhip64", "libhipblas")
_BUILT: Final = "built "
_UNKNOWN_FAILURE: Final = failures.Failure(
    "this program does not respond as darknet does",
    "If a library is missing, install it; or set [darknet] executable to another darknet",
)
ENVIRONMENT: Final = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Number GPUs as nvidia-smi does; by default CUDA begins with the fastest."""


@dataclass(frozen=True)
class Darknet:
    """A darknet executable that was probed, or another program with the same command line.

    Attributes:
        executable: Its absolute path.
        fork: Its fork of darknet; for another program, the one that it follows.
        gpu: Whether it is linked with GPU libraries.
        origin: How it was found, in a few words; "built ..." if oiyolo built it.
        cudnn: Whether it is linked with cuDNN.
        engine: Key of the training engine.
        arguments: Arguments between the executable and darknet's.
        options: Options of this program alone.
    """

    executable: Path
    fork: Fork
    gpu: bool
    origin: str
    cudnn: bool = False
    engine: Engine = "darknet"
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def is_built(self) -> bool:
        """Whether oiyolo built it."""
        return self.origin.startswith(_BUILT)

    def __str__(self) -> str:
        where = "GPU" if self.gpu else "CPU"
        if self.engine == "torch":
            return f"{self.origin} ({where}; rules of {self.fork.title})"
        return f"{self.executable} ({self.fork.title}, {where}; {self.origin})"

    def as_dict(self) -> dict[str, object]:
        """Return the record of this darknet in ``run.json`` and ``--json`` output."""
        return {
            "engine": self.engine,
            "executable": str(self.executable),
            "fork": self.fork.name,
            "gpu": self.gpu,
            "origin": self.origin,
        }


def probe(executable: Path, origin: str) -> Darknet:
    """Run an executable and return which fork of darknet it is and how it is linked.

    Args:
        executable: Path of the program.
        origin: How it was found, in a few words.

    Raises:
        DarknetError: It cannot be started or is not a darknet.
    """
    if not os.access(executable, os.X_OK) or not executable.is_file():
        raise DarknetError(
            "not an executable file",
            where=str(executable),
            remedy="Set [darknet] executable to the path of the program itself",
        )
    executable = executable.absolute()  # a name without a folder would be searched for on PATH
    finished = process.run([str(executable), _USAGE_COMMAND], timeout_s=_TIMEOUT_S)
    fork = identify_fork(finished.output)
    if fork is None:
        is_built = origin.startswith(_BUILT)
        failure = failures.explain(finished.output, finished.exit_code, is_built=is_built)
        failure = failure or _UNKNOWN_FAILURE
        raise DarknetError(
            failure.what,
            where=str(executable),
            expected="the usage of `darknet detector`",
            found=": ".join(
                filter(None, [finished.exit_description, failures.complaint(finished.output)])
            ),
            remedy=failure.remedy,
        )
    libraries = ""
    if shutil.which("ldd"):
        libraries = process.run(["ldd", str(executable)], timeout_s=_TIMEOUT_S).output
    gpu = any(name in libraries for name in _GPU_LIBRARIES)
    return Darknet(executable, fork, gpu, origin, cudnn="libcudnn" in libraries)


def revision(darknet: Darknet) -> str:
    """Return a darknet's revision; empty if unknown.

    hank-ai's darknet prints it; for the others it is the version of the Debian package that
    contains the program.
    """
    finished = process.run([str(darknet.executable), _USAGE_COMMAND], timeout_s=_TIMEOUT_S)
    revision_text = darknet.fork.parse_revision(finished.output)
    return revision_text or _package_version(darknet.executable)


def _package_version(executable: Path) -> str:
    """Return the version of the Debian package that contains an executable; empty if none does."""
    if shutil.which("dpkg-query") is None:
        return ""
    owner = process.run(["dpkg-query", "-S", str(executable)], timeout_s=_TIMEOUT_S)
    if owner.exit_code != 0:
        return ""
    package = owner.output.partition(":")[0]
    argv = ["dpkg-query", "-W", "-f", "${Version}", "--", package]
    finished = process.run(argv, timeout_s=_TIMEOUT_S)
    return finished.output.strip() if finished.exit_code == 0 else ""


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
    """Return the training command.

    Args:
        darknet: The program.
        data: Path of the ``.data`` file.
        cfg: Path of the network.
        weights: Weights to start from or to resume; ``None`` for random initial weights.
        resume: Whether to resume at the iteration of the weights; otherwise the image count in
            them is reset.
        gpus: GPU numbers, such as "0,1".
        measure_map: Whether to measure mAP on the valid list during training, if the fork can.
        colours: Whether darknet may print colour codes.
    """
    argv = [str(darknet.executable), *darknet.arguments, "detector", "train", data, cfg]
    if weights is not None:
        argv.append(weights)
        if not resume:
            argv.append("-clear")
    if gpus is not None:
        argv += ["-gpus", gpus]
    omitted = darknet.fork.no_colour_flags if colours else ()
    argv += [flag for flag in darknet.fork.train_flags if flag not in omitted]
    if measure_map:
        argv += darknet.fork.map_flags
    return (*argv, *darknet.options)


def valid_command(
    darknet: Darknet, *, data: str, cfg: str, weights: str, prefix: str
) -> tuple[str, ...]:
    """Return the command that detects objects in the images of the valid list.

    It writes ``<results>/<prefix><class name>.txt``, where ``results`` is a key of the data file.
    """
    return (
        str(darknet.executable),
        *("detector", "valid", data, cfg, weights),
        *("-out", prefix),
    )


def data_file(
    *, class_count: int, train: str, valid: str, names: str, backup: str, results: str
) -> str:
    """Return the text of a ``.data`` file.

    Darknet removes all spaces from its lines (src/option_list.c, read_data_cfg), so the paths must
    contain none. oiyolo's are relative to the folder in which darknet runs.
    """
    return (
        f"classes = {class_count}\n"
        f"train = {train}\n"
        f"valid = {valid}\n"
        f"names = {names}\n"
        f"backup = {backup}\n"
        f"results = {results}\n"
    )
