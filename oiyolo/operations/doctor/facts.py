"""Data classes for the facts about a machine and for the results of checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.darknet.program import Darknet

State = Literal["ok", "warning", "missing"]

DARKNET_SOURCES: Final = "darknet's sources"
"""The ``Endpoint.what`` of the URL that provides them."""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check: a row of the doctor's table.

    Attributes:
        topic: What was checked.
        state: "ok", "warning" (present but with a problem) or "missing".
        found: What was found.
        remedy: What to do about it; a sentence without a full stop.
        exit_code: The command's exit code if the problem prevents any training; else 0.
    """

    topic: str
    state: State
    found: str
    remedy: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "topic": self.topic,
            "state": self.state,
            "found": self.found,
            "remedy": self.remedy,
            "stops_training": bool(self.exit_code),
        }


@dataclass(frozen=True)
class Package:
    """A package that oiyolo depends on.

    Attributes:
        name: Its name for pip.
        needed: The minimum version; empty for any.
        found: The installed version; empty if it is not installed.
        extra: The extra that requires it; empty if it is always required.
    """

    name: str
    needed: str
    found: str
    extra: str = ""


@dataclass(frozen=True)
class OnnxRuntime:
    """The onnxruntime that runs a detector.

    Attributes:
        packages: Version of each installed package that provides it, by the package's name.
        providers: What it can compute on, without "ExecutionProvider", as in "CUDA".
        problem: Why it cannot be imported; empty if it can.
    """

    packages: Mapping[str, str]
    providers: Sequence[str] = ()
    problem: str = ""


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver, as ``nvidia-smi`` describes it.

    Attributes:
        present: Whether ``nvidia-smi`` is installed.
        version: The driver's version; empty if not reported.
        cuda: The newest CUDA version that the driver supports; empty if not reported.
        failure: Its output if it reports no driver.
    """

    present: bool = False
    version: str = ""
    cuda: str = ""
    failure: str = ""


@dataclass(frozen=True)
class DarknetStatus:
    """The darknet that ``train`` would use.

    Attributes:
        darknet: The program; ``None`` if none exists yet.
        revision: Its revision; empty if unknown.
        verified: Whether it has trained two iterations on this machine.
        problem: Why the configured program or source cannot be used; empty if it can.
        remedy: What to do about the problem; empty if unknown.
        source: Folder or URL of the sources that it can be built from, without credentials; empty
            if none.
        is_local: Whether the sources are on this machine; otherwise they must be fetched.
        rebuild_reason: Why it has to be built again; empty if it is up to date.
    """

    darknet: Darknet | None = None
    revision: str = ""
    verified: bool = False
    problem: str = ""
    remedy: str = ""
    source: str = ""
    is_local: bool = False
    rebuild_reason: str = ""


@dataclass(frozen=True)
class EngineStatus:
    """What ``train`` would train with.

    Attributes:
        engine: Its key; empty if it cannot be used.
        reason: Why it trains, or why it cannot.
        gpu: Whether it is PyTorch on a GPU.
        remedy: What to do if it cannot be used.
        exit_code: The exit code of ``train`` if it cannot be used.
    """

    engine: str
    reason: str
    gpu: bool = False
    remedy: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Disk:
    """The disk of a folder.

    Attributes:
        what: What the folder contains.
        path: The folder.
        free_bytes: Free space.
        needed_bytes: Minimum free space to start.
        remedy: What to do if there is less.
    """

    what: str
    path: Path
    free_bytes: int
    needed_bytes: float
    remedy: str


@dataclass(frozen=True)
class Endpoint:
    """A URL, bucket or folder that provides images, labels, weights or sources.

    Attributes:
        what: What it provides.
        place: The URL, without credentials, the bucket or the folder.
        answer: What its response means, in words; empty without a response.
        problem: Why it cannot be used; empty if it can.
        remedy: What to do if it cannot.
    """

    what: str
    place: str
    answer: str = ""
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class MachineFacts:
    """The facts about a machine.

    Attributes:
        python: Python's version and path.
        machine: System, processors and memory, in words.
        project: The project, in words.
        project_problem: Why its options are invalid, with the exit code; ``None`` if they are
            valid.
        packages: Required packages; ``None`` if unknown (oiyolo is not installed as a package).
        onnxruntime: The onnxruntime; ``None`` if it did not respond in time.
        toolchain: Compilers, CUDA and GPUs; ``None`` if they did not respond in time.
        driver: NVIDIA's driver; ``None`` if it did not respond in time.
        darknet_status: The darknet that would be used; ``None`` if it did not respond in time.
        engine: What would train; ``None`` if it was not found in time.
        disks: The disks of the project and the cache.
        endpoints: Sources of images, labels and weights; ``None`` if they were not checked.
        failed_checks: Facts that could not be collected, each with the reason.
    """

    python: str
    machine: str
    project: str
    project_problem: tuple[str, int] | None = None
    packages: Sequence[Package] | None = None
    onnxruntime: OnnxRuntime | None = None
    toolchain: Toolchain | None = None
    driver: Driver | None = None
    darknet_status: DarknetStatus | None = None
    engine: EngineStatus | None = None
    disks: Sequence[Disk] = ()
    endpoints: Sequence[Endpoint] | None = None
    failed_checks: Sequence[tuple[str, str]] = ()
