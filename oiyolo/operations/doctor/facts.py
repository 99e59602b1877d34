"""What the doctor finds out about a machine, and what is thought of it; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.darknet.program import Darknet

State = Literal["ok", "warning", "missing"]

DARKNET_SOURCES: Final = "darknet's sources"
"""What ``Reached`` calls the address that they are fetched from."""


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    Attributes:
        topic: What was looked at.
        state: "missing" is what is not there; "warning" is there and does not serve as it should.
        found: What was found.
        remedy: What to do about it; a sentence without its full stop.
        exit_code: Above 0 where no training could start because of it: the command's exit code.
    """

    topic: str
    state: State
    found: str
    remedy: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {
            "topic": self.topic,
            "state": self.state,
            "found": self.found,
            "remedy": self.remedy,
            "stops_training": bool(self.exit_code),
        }


@dataclass(frozen=True)
class Package:
    """A package that we depend on.

    Attributes:
        name: As an installer takes it.
        needed: The oldest version that will do; empty: any.
        found: The version that is installed; empty: none.
        extra: The extra that it belongs to; empty: everybody needs it.
    """

    name: str
    needed: str
    found: str
    extra: str = ""


@dataclass(frozen=True)
class Driver:
    """What ``nvidia-smi`` says of NVIDIA's driver.

    Attributes:
        present: There is such a program.
        version: The driver's version; empty if it does not tell.
        cuda: The newest CUDA that the driver serves; empty if it does not tell.
        failure: What it says instead of all this.
    """

    present: bool = False
    version: str = ""
    cuda: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Seen:
    """The darknet that would be used.

    Attributes:
        darknet: The program; ``None`` if there is none yet.
        revision: Its revision; empty if nobody knows it.
        proved: It has trained its proof here.
        problem: Why the program that is named cannot be used; empty if nothing is wrong.
        source: A folder or an address with sources that it can be built from; empty: none.
        is_here: They lie on this machine; else they would have to be fetched.
        outdated: Why it would be built anew; empty if it would not.
    """

    darknet: Darknet | None = None
    revision: str = ""
    proved: bool = False
    problem: str = ""
    source: str = ""
    is_here: bool = False
    outdated: str = ""


@dataclass(frozen=True)
class Disk:
    """Room where something is kept.

    Attributes:
        what: What is kept there.
        path: Where.
        free_bytes: What is free.
        needed_bytes: What has to be free before anything can begin.
        remedy: What helps where there is less.
    """

    what: str
    path: Path
    free_bytes: int
    needed_bytes: float
    remedy: str


@dataclass(frozen=True)
class Reached:
    """A place that images, labels or weights come from.

    Attributes:
        what: What comes from there.
        place: Its address or folder.
        answer: What it answered; empty if it did not.
        problem: Why it is of no use; empty if it is of use.
        remedy: What to do then.
    """

    what: str
    place: str
    answer: str = ""
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Facts:
    """All that was looked at.

    Attributes:
        python: Python's version and place.
        machine: System, processors and memory, in words.
        project: The project, in words.
        project_problem: Why its options cannot be used, with the exit code; ``None``: they can.
        packages: What we depend on; ``None`` where nobody knows (not installed as a package).
        toolchain: Compilers, CUDA and GPUs; ``None``: they did not answer in time.
        driver: NVIDIA's driver; ``None``: it did not answer in time.
        seen: The darknet that would be used; ``None``: it did not answer in time.
        disks: Room where things are kept.
        reached: Places that things come from; ``None``: nobody asked.
        trouble: What could not be looked at, and why.
    """

    python: str
    machine: str
    project: str
    project_problem: tuple[str, int] | None = None
    packages: Sequence[Package] | None = None
    toolchain: Toolchain | None = None
    driver: Driver | None = None
    seen: Seen | None = None
    disks: Sequence[Disk] = ()
    reached: Sequence[Reached] | None = None
    trouble: Sequence[tuple[str, str]] = field(default=())
