"""build: a darknet executable that has proved that it runs.

In this order: ``[darknet] executable``; the sources in ``[darknet] source``, in ``darknet/`` below
the project or below the checkout (built once, rebuilt when they change); one that was built here
before; ``darknet`` on PATH.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo import stamps
from oiyolo.darknet import make
from oiyolo.darknet.program import ask
from oiyolo.darknet.proof import prove
from oiyolo.errors import DarknetError
from oiyolo.project import open_project
from oiyolo.results import Plan, Result

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet
    from oiyolo.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

STAGE: Final = "build"
_PROOFS: Final = "proofs"
_BUILDS: Final = "builds"


@dataclass(frozen=True)
class Built(Result):
    """The darknet to use.

    Attributes:
        darknet: The program.
        proved_now: It was proved by this call; else by an earlier one.
    """

    darknet: Darknet
    proved_now: bool

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {**self.darknet.as_dict(), "proved_now": self.proved_now}

    def __str__(self) -> str:
        proof = "trained two iterations as a proof" if self.proved_now else "proved before"
        return f"darknet: {self.darknet}, {proof}"


def build(project: ProjectLike = ".", *, dry_run: bool = False, **options: object) -> Built | Plan:
    """Find a darknet, or build one from its sources, and prove that it trains.

    Args:
        project: An open project or its folder.
        dry_run: Only tell what would be done.
        **options: Keys of ``[darknet]``.

    Raises:
        DarknetError: None was found, or it cannot be built, or does not train.
    """
    opened = open_project(project, options)
    if dry_run:
        source = source_folder(opened)
        if opened.config.darknet.executable:
            action = f"use {opened.config.darknet.executable}"
        elif source is not None:
            reason = needs_building(opened)
            flags = " ".join(_flags(opened).arguments())
            action = f"build {source} with {flags} ({reason})" if reason else f"use {source}, built"
        else:
            action = f"use {shutil.which('darknet') or 'no darknet: none was found'}"
        return Plan("build", [action])
    return run(opened)


def source_folder(project: Project) -> Path | None:
    """Give the folder with darknet's sources; ``None`` if there is none.

    Raises:
        DarknetError: ``[darknet] source`` names a folder without them.
    """
    configured = project.config.darknet.source
    if configured is not None:
        folder = (project.folder / Path(configured).expanduser()).resolve()
        if not make.has_sources(folder):
            raise DarknetError(
                "[darknet] source holds no sources of darknet that make could build",
                where=str(folder),
                expected="a Makefile and src/gemm.c",
            )
        return folder
    checkout = Path(__file__).resolve().parents[2]
    for folder in (project.folder / "darknet", checkout / "darknet"):
        if make.has_sources(folder):
            return folder
    return None


def needs_building(project: Project) -> str | None:
    """Tell why darknet would have to be compiled before it can be used; ``None`` if not."""
    source = source_folder(project)
    if project.config.darknet.executable or source is None:
        return None
    return make.stale_reason(source, _build_folder(project, source), _flags(project))


def _build_folder(project: Project, source: Path) -> Path:
    return project.cache_folder / _BUILDS / stamps.fingerprint(str(source))


def _flags(project: Project) -> make.Flags:
    return make.choose_flags(project.config.darknet.build_gpu)


def run(project: Project) -> Built:
    """Find or build, and prove."""
    darknet = _find(project)
    status = darknet.executable.stat()
    proof = {
        "executable": str(darknet.executable),
        "size": status.st_size,
        "time": status.st_mtime_ns,
    }
    path = project.cache_folder / _PROOFS / f"{stamps.fingerprint(str(darknet.executable))}.json"
    if stamps.stale_reason(path, proof) is None:
        return Built(darknet, proved_now=False)
    prove(darknet)
    stamps.write(path, proof)
    return Built(darknet, proved_now=True)


def _find(project: Project) -> Darknet:
    configured = project.config.darknet.executable
    if configured is not None:
        path = Path(shutil.which(configured) or project.folder / Path(configured).expanduser())
        return ask(path, "[darknet] executable")
    source = source_folder(project)
    if source is not None:
        executable = make.build(source, _build_folder(project, source), _flags(project))
        return ask(executable, f"built from {source}")
    builds = (project.cache_folder / _BUILDS).glob("*/darknet")
    earlier = sorted(builds, key=lambda path: path.stat().st_mtime)
    if earlier:
        return ask(earlier[-1], "built here before")
    on_path = shutil.which("darknet")
    if on_path is not None:
        return ask(Path(on_path), "on PATH")
    raise DarknetError(
        "no darknet was found",
        expected="[darknet] executable, sources in darknet/, or darknet on PATH",
        remedy="Three ways to get one: `apt-get install darknet` (Debian and Ubuntu, CPU); "
        "`git submodule update --init darknet` in the checkout and then `oiyolo build` (CPU or "
        "CUDA); or set [darknet] executable to one that you have",
    )
