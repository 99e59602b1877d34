"""What the doctor looks at on this machine: thin reading, judged elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.operations.doctor.cuda import parse_driver
from oiyolo.operations.doctor.facts import Disk, Driver, Package
from oiyolo.planning import estimates
from oiyolo.planning.disks import free_bytes
from oiyolo.planning.official import official_files
from oiyolo.planning.units import told_bytes
from oiyolo.stages.fetch import SPARE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.project.project import Project

_PACKAGE: Final = "oiyolo"
_ANSWER_S: Final = 10.0
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?(?:>=\s*(?P<needed>[\w.]+))?[^;]*"
    r"(?:;(?P<marker>.*))?"
)
_EXTRA: Final = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")
_ONLY_BELOW: Final = re.compile(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]")


def python() -> str:
    """Give Python's version and place, in words."""
    return f"{platform.python_version()} ({sys.executable})"


def machine() -> str:
    """Give system, processors and memory, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus = len(os.sched_getaffinity(0))
    cores = "1 processor" if cpus == 1 else f"{cpus} processors"
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return f"{system}, {cores}, {told_bytes(memory)} of memory"


def packages() -> list[Package] | None:
    """Give what we depend on, by what our own package says; ``None`` if it is not installed."""
    try:
        required = importlib.metadata.requires(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return [found for text in required or () if (found := package_of(text)) is not None]


def package_of(requirement: str) -> Package | None:
    """Read a requirement; ``None`` for one that is not meant for this Python."""
    found = _REQUIREMENT.match(requirement)
    if found is None:
        return None
    marker = found["marker"] or ""
    below = _ONLY_BELOW.search(marker)
    if below and sys.version_info >= (int(below[1]), int(below[2])):
        return None
    extra = _EXTRA.search(marker)
    try:
        version = importlib.metadata.version(found["name"])
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return Package(found["name"], found["needed"] or "", version or "", extra[1] if extra else "")


def driver() -> Driver:
    """Ask NVIDIA's driver."""
    if shutil.which("nvidia-smi") is None:
        return Driver()
    answer = process.run(["nvidia-smi"], timeout_s=_ANSWER_S)
    return parse_driver(answer.output, answer.exit_code)


def disks(project: Project) -> list[Disk]:
    """Give the room where the project and the cache lie."""
    return list(_disks(project))


def _disks(project: Project) -> Iterator[Disk]:
    yield Disk(
        "project",
        project.folder,
        free_bytes(project.folder),
        SPARE_BYTES,
        "Make room, or move the project to a larger disk",
    )
    official = official_files(project)
    kept_bytes = 0 if official.streamed else official.known_bytes
    yield Disk(
        "cache",
        project.cache_folder,
        free_bytes(project.cache_folder),
        estimates.with_margin(kept_bytes, SPARE_BYTES) or SPARE_BYTES,
        "Make room, name another folder with [openimages] cache, or keep no annotation files "
        "with --stream",
    )
