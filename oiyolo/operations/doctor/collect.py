"""Collect facts about this machine; ``checks`` evaluates them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.core.disks import free_bytes
from oiyolo.core.errors import DarknetError, OiyoloError
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.net.urls import display_url
from oiyolo.operations.doctor.cuda import parse_driver
from oiyolo.operations.doctor.facts import (
    DarknetStatus,
    Disk,
    Driver,
    EngineStatus,
    OnnxRuntime,
    Package,
)
from oiyolo.planning.official import official_files
from oiyolo.stages import build as build_stage
from oiyolo.stages.fetch import MIN_FREE_BYTES
from oiyolo.stages.train.engine import chosen_engine, torch_program

if TYPE_CHECKING:
    from oiyolo.project.project import Project

_PACKAGE: Final = "oiyolo"
_ONNXRUNTIME: Final = "onnxruntime"
_TIMEOUT_S: Final = 10.0
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?(?:>=\s*(?P<needed>[\w.]+))?[^;]*"
    r"(?:;(?P<marker>.*))?"
)
_EXTRA: Final = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")
_PYTHON_BELOW: Final = re.compile(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]")


def python() -> str:
    """Return Python's version and path, in words."""
    return f"{platform.python_version()} ({sys.executable})"


def machine() -> str:
    """Return system, processors and memory, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = pluralize(len(os.sched_getaffinity(0)), "processor")
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return f"{system}, {cores}, {format_bytes(memory)} of memory"


def packages() -> list[Package] | None:
    """Return the packages that oiyolo's metadata requires; ``None`` if it is not installed."""
    try:
        required = importlib.metadata.requires(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return [package for text in required or () if (package := parse_requirement(text)) is not None]


def parse_requirement(requirement: str) -> Package | None:
    """Parse a requirement; ``None`` if it does not apply to this version of Python."""
    match = _REQUIREMENT.match(requirement)
    if match is None:
        return None
    marker = match["marker"] or ""
    below = _PYTHON_BELOW.search(marker)
    if below and sys.version_info >= (int(below[1]), int(below[2])):
        return None
    extra = _EXTRA.search(marker)
    name = match["name"]
    versions = _onnxruntime_versions() if name == _ONNXRUNTIME else {}
    version = _version(name) or next(iter(versions.values()), "")
    return Package(name, match["needed"] or "", version, extra[1] if extra else "")


def _version(name: str) -> str:
    """Return the version of an installed package; empty if it is not installed."""
    try:
        return importlib.metadata.version(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _onnxruntime_versions() -> dict[str, str]:
    """Return the version of each package that provides the module, such as onnxruntime-gpu."""
    names = importlib.metadata.packages_distributions().get(_ONNXRUNTIME, [])
    return {name: _version(name) for name in sorted(set(names))}


def onnxruntime() -> OnnxRuntime:
    """Return the installed onnxruntime and what it can compute on."""
    from oiyolo.inference.session import available_providers  # noqa: PLC0415

    versions = _onnxruntime_versions()
    try:
        return OnnxRuntime(versions, available_providers())
    except (ImportError, AttributeError) as error:  # the latter if one of two was uninstalled
        return OnnxRuntime(versions, problem=str(error))


def driver() -> Driver:
    """Return NVIDIA's driver as ``nvidia-smi`` reports it."""
    if shutil.which("nvidia-smi") is None:
        return Driver()
    answer = process.run(["nvidia-smi"], timeout_s=_TIMEOUT_S)
    return parse_driver(answer.output, answer.exit_code)


def darknet_status(project: Project) -> DarknetStatus:
    """Return the darknet that ``train`` would use, or what it could be built from.

    It is found without building or verifying one.
    """
    try:
        built, rebuild_reason = build_stage.inspect(project)
        source = build_stage.source_folder(project)
    except DarknetError as error:
        parts = filter(None, [error.where, error.what, error.found])
        return DarknetStatus(problem=": ".join(parts), remedy=error.remedy)
    url = display_url(project.config.darknet.source_url or "")
    return DarknetStatus(
        darknet=built.darknet if built else None,
        revision=built.revision if built else "",
        verified=built is not None and built.verified,
        source=str(source) if source is not None else url,
        is_local=source is not None,
        rebuild_reason=rebuild_reason or "" if built else "",
    )


def engine_status(project: Project) -> EngineStatus:
    """Return what ``train`` would train with."""
    try:
        choice = chosen_engine(project)
        gpu = choice.engine == "torch" and torch_program(project).gpu
    except OiyoloError as error:
        found = ": ".join(filter(None, [error.what, error.found]))
        return EngineStatus("", found, remedy=error.remedy, exit_code=error.exit_code)
    return EngineStatus(choice.engine, choice.reason, gpu=gpu)


def disks(project: Project) -> list[Disk]:
    """Return the disks of the project and of the cache."""
    return [
        Disk(
            "project",
            project.folder,
            free_bytes(project.folder),
            MIN_FREE_BYTES,
            "Free some space, or move the project to a larger disk",
        ),
        Disk(
            "cache",
            project.cache_folder,
            free_bytes(project.cache_folder),
            official_files(project).needed_bytes or MIN_FREE_BYTES,
            "Free some space, set [openimages] cache to a folder on another disk, or use --stream "
            "to keep no annotation files",
        ),
    ]
