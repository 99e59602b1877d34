"""build: find or build a darknet executable and verify that it trains.

A darknet is taken from the first of these: ``[darknet] executable``; sources, which are built once
and again after a change (``[darknet] source``, ``darknet/`` in the project, ``darknet/`` in the
checkout, or sources that were fetched before); an earlier build on this machine; ``darknet`` on
PATH. Without sources, ``oiyolo build`` first fetches them (``[darknet] source_url``, one pinned
commit) and uses the last two only if that fails. Other commands never fetch sources.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

from oiyolo.core import records, staleness
from oiyolo.core.errors import DarknetError, UnavailableError
from oiyolo.core.results import Plan, Result
from oiyolo.darknet import program
from oiyolo.darknet.build import builder, flags, toolchain, tree
from oiyolo.darknet.build.clone import PINNED_COMMIT, clone, clone_folder
from oiyolo.darknet.build.proof import verify
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.program import Darknet, probe
from oiyolo.net.urls import display_url
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_or_default

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.darknet.build.builder import BuildSpec
    from oiyolo.project.keywords import DarknetKeywords
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_PROOF_FOLDER: Final = "proofs"
_BUILD_FOLDER: Final = "builds"
_NOT_VERIFIED: Final = "it has not trained two iterations on this machine yet"
_NO_DRIVER: Final = "it is built for CUDA, and this machine has no NVIDIA driver"


@dataclass(frozen=True)
class Built(Result):
    """The darknet to use.

    Attributes:
        darknet: The program.
        verified_now: Whether this call verified it; otherwise an earlier one did, or none.
        revision: Its revision; empty if unknown.
        spec: How it was built, and its log; ``None`` if it was not built from sources.
        build_reason: Why this call built it; ``None`` if it did not.
        unverified_reason: Why it could not be verified on this machine; empty if it was.
    """

    darknet: Darknet
    verified_now: bool
    revision: str = ""
    spec: BuildSpec | None = None
    build_reason: str | None = None
    unverified_reason: str = ""

    @property
    def verified(self) -> bool:
        """Whether it has trained two iterations on this machine."""
        return not self.unverified_reason

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            **self.darknet.as_dict(),
            "revision": self.revision,
            "flags": self.spec and self.spec.flags.as_dict(),
            "log": self.spec and str(self.spec.log_path),
            "built_because": self.build_reason,
            "proved": self.verified,
            "proved_now": self.verified_now,
            "why_unproved": self.unverified_reason,
        }

    def __str__(self) -> str:
        state = "verified by training two iterations" if self.verified_now else "verified before"
        if not self.verified:
            state = f"not verified: {self.unverified_reason}"
        text = f"darknet: {self.darknet}, {state}"
        facts = [f"revision {self.revision}"] if self.revision else []
        if self.spec is not None:
            facts += [str(self.spec.flags), f"log: {self.spec.log_path}"]
        return "\n".join([text, *(["; ".join(facts)] if facts else [])])


@overload
def build(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[DarknetKeywords]
) -> Built: ...


@overload
def build(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[DarknetKeywords]
) -> Plan: ...


@overload
def build(
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[DarknetKeywords]
) -> Built | Plan: ...


@takes_keys("darknet")
def build(
    project: ProjectLike = ".", *, dry_run: bool = False, **options: Unpack[DarknetKeywords]
) -> Built | Plan:
    """Find a darknet, or build one from its sources, and verify that it trains.

    A CUDA build cannot be verified on a machine without the NVIDIA driver. The result says so, and
    stages that need darknet refuse to use it there.

    Args:
        project: An open project or its folder; the default options apply in any other folder.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[darknet]``.

    Raises:
        DarknetError: No darknet was found, or it cannot be built or does not train.
    """
    opened = open_or_default(project, options)
    if dry_run:
        return Plan("build", [_planned_action(opened)])
    return _run(opened, prefers_sources=True)


def run(project: Project, *, alternative: str = "") -> Built:
    """Find or build a darknet for another stage and verify it.

    Sources are fetched only if there is no other darknet.

    Args:
        project: The project.
        alternative: What else the user can do where there is none, for the error's remedy.

    Raises:
        DarknetError: As for ``build``, or the darknet cannot be run on this machine.
    """
    built = _run(project, prefers_sources=False, alternative=alternative)
    if not built.verified:
        raise DarknetError(
            "this darknet cannot train on this machine",
            where=str(built.darknet.executable),
            found=built.unverified_reason,
            remedy="Install the NVIDIA driver, or set [darknet] build_gpu to no",
        )
    return built


def source_folder(project: Project) -> Path | None:
    """Return the folder with darknet's sources, or ``None``.

    Raises:
        DarknetError: ``[darknet] source`` names a folder without sources.
    """
    configured = project.config.darknet.source
    if configured is not None:
        folder = (project.folder / Path(configured).expanduser()).resolve()
        if not tree.has_sources(folder):
            raise DarknetError(
                "[darknet] source contains no darknet sources",
                where=str(folder),
                expected="AlexeyAB's, pjreddie's or hank-ai's source tree, with its Makefile or "
                "CMakeLists.txt",
            )
        return folder
    checkout = Path(__file__).resolve().parents[2]
    candidates = (
        project.folder / "darknet",
        checkout / "darknet",
        clone_folder(project.cache_folder),
    )
    return next((folder for folder in candidates if tree.has_sources(folder)), None)


def planned_build(project: Project) -> str | None:
    """Return what ``run`` would do before there is a darknet, in words; ``None`` if there is one.

    It is also ``None`` where there can be none, which is the error of ``run``.
    """
    if project.config.darknet.executable:
        return None
    source = source_folder(project)
    if source is not None:
        spec, _ = _build_spec(project, source)
        return spec.stale_reason and f"build darknet ({spec.stale_reason})"
    if _found_program(project) is not None or not project.config.darknet.source_url:
        return None
    return _planned_fetch(project.config.darknet.source_url)


def inspect(project: Project) -> tuple[Built | None, str | None]:
    """Return the darknet that ``train`` would use now, without building or verifying one.

    Returns:
        The darknet, or ``None`` if none exists yet; and why it would be built (again), or
        ``None``.

    Raises:
        DarknetError: The configured or built program cannot be used.
    """
    darknet = _configured_darknet(project)
    source = None if darknet is not None else source_folder(project)
    if source is None:
        if darknet is None and (found := _found_program(project)) is not None:
            darknet = probe(*found)
        return None if darknet is None else _check(project, darknet, verifies=False), None
    spec, _ = _build_spec(project, source)
    if not spec.executable.is_file():
        return None, spec.stale_reason
    if spec.flags.gpu and not spec.toolchain.has_driver:
        built = Built(_unprobed(spec), verified_now=False, unverified_reason=_NO_DRIVER)
        return built, spec.stale_reason
    darknet = probe(spec.executable, _origin(spec))
    return _check(project, darknet, verifies=False), spec.stale_reason


def _configured_darknet(project: Project) -> Darknet | None:
    executable = project.config.darknet.executable
    if executable is None:
        return None
    path = Path(shutil.which(executable) or project.folder / Path(executable).expanduser())
    return probe(path, "[darknet] executable")


def _origin(spec: BuildSpec) -> str:
    return f"built from {spec.source}"


def _unprobed(spec: BuildSpec) -> Darknet:
    """Return a CUDA build that cannot be started on this machine."""
    return Darknet(spec.executable, FORKS[spec.fork], gpu=True, origin=_origin(spec))


def _planned_action(project: Project) -> str:
    """Return what ``build`` would do, in words."""
    options = project.config.darknet
    if options.executable:
        return f"use {options.executable}"
    source = source_folder(project)
    if source is None and options.source_url:
        return _planned_fetch(options.source_url)
    if source is None:
        found = _found_program(project)
        return f"use {found[0] if found else 'no darknet, because none was found'}"
    spec, _ = _build_spec(project, source)
    reason = spec.stale_reason
    return (
        f"build {source}: {spec.flags} ({reason})"
        if reason
        else f"use {source}, which is already built"
    )


def _planned_fetch(url: str) -> str:
    return f"fetch {display_url(url)} at {PINNED_COMMIT[:12]} and build it"


def _build_spec(project: Project, source: Path) -> tuple[BuildSpec, tuple[str, ...]]:
    """Return the specification of the build, and notes for the user."""
    options = project.config.darknet
    tools = toolchain.find()
    fork = tree.fork_of(source) or "alexeyab"
    arch = () if isinstance(options.arch, str) else options.arch
    choice = flags.choose(tools, fork, build_gpu=options.build_gpu, arch=arch)
    folder = project.cache_folder / _BUILD_FOLDER / staleness.fingerprint(str(source))
    return builder.build_spec(source, folder, choice.flags, tools), choice.notes


def _run(project: Project, *, prefers_sources: bool, alternative: str = "") -> Built:
    """Find or build a darknet and verify it.

    Args:
        project: The project.
        prefers_sources: Whether to fetch sources even if there is a darknet without sources.
        alternative: As for ``run``.
    """
    darknet = _configured_darknet(project)
    if darknet is not None:
        return _check(project, darknet, verifies=True)
    source, url = source_folder(project), project.config.darknet.source_url
    found = _found_program(project) if source is None else None
    fetch_error = None
    if source is None and url and (prefers_sources or found is None):
        try:
            source = clone(url, project.cache_folder)
        except UnavailableError as error:
            fetch_error = error
            _log.warning("build: %s", error)
    if source is not None:
        return _from_sources(project, source)
    if found is None:
        raise _not_found_error(url, fetch_error, alternative)
    return _check(project, probe(*found), verifies=True)


def _from_sources(project: Project, source: Path) -> Built:
    spec, notes = _build_spec(project, source)
    for note in notes:
        _log.info("build: %s", note)
    build_reason = builder.build(spec)
    unverified_reason = _NO_DRIVER
    if not spec.flags.gpu or spec.toolchain.has_driver:
        try:
            darknet = probe(spec.executable, _origin(spec))
            built = _check(project, darknet, spec, verifies=True)
            return replace(built, spec=spec, build_reason=build_reason)
        except DarknetError as error:
            # Without nvidia-smi no GPUs are listed, but the program may still find one.
            if not spec.flags.gpu or spec.toolchain.gpus:
                raise
            unverified_reason = error.what
    return Built(
        _unprobed(spec),
        verified_now=False,
        revision=spec.revision.name,
        spec=spec,
        build_reason=build_reason,
        unverified_reason=unverified_reason,
    )


def _found_program(project: Project) -> tuple[Path, str] | None:
    """Return the darknet that can be used without sources, and where it is from."""
    builds = (project.cache_folder / _BUILD_FOLDER).glob(f"*/{builder.EXECUTABLE}")
    builds_by_age = sorted(builds, key=lambda path: path.stat().st_mtime)
    if builds_by_age:
        return builds_by_age[-1], "built earlier on this machine"
    on_path = shutil.which("darknet")
    return None if on_path is None else (Path(on_path), "on PATH")


def _not_found_error(
    url: str | None, fetch_error: UnavailableError | None, alternative: str
) -> DarknetError:
    places = ["[darknet] executable", "sources in darknet/", "darknet on PATH"]
    ways = ["Install darknet (`apt-get install darknet` on Debian and Ubuntu, CPU)"]
    if url:
        places.append(f"sources from {display_url(url)}")
        ways.append(
            "or what fetching and building it needs (`apt-get install build-essential git`, and a "
            "network connection)"
        )
    ways += [alternative] if alternative else []
    ways.append("or set [darknet] executable to an existing darknet")
    return DarknetError(
        "no darknet found",
        expected=f"{', '.join(places[:-1])}, or {places[-1]}",
        found="" if fetch_error is None else f"{fetch_error.what} ({fetch_error.where})",
        remedy="; ".join(ways),
    )


def _check(
    project: Project, darknet: Darknet, spec: BuildSpec | None = None, *, verifies: bool
) -> Built:
    """Return a darknet with the result of its verification: an earlier one, or else one now."""
    path, recipe = _verification_record(project, darknet)
    if staleness.stale_reason(path, recipe) is None:
        saved = records.find_intact(path, dict[str, Any]) or {}
        revision = str(saved.get("revision", ""))
        return Built(darknet, verified_now=False, revision=revision)
    if not verifies:
        revision = program.revision(darknet)
        return Built(
            darknet, verified_now=False, revision=revision, unverified_reason=_NOT_VERIFIED
        )
    verify(darknet)
    revision = spec.revision.name if spec is not None else program.revision(darknet)
    staleness.write_recipe(path, {**recipe, "revision": revision})
    return Built(darknet, verified_now=True, revision=revision)


def _verification_record(project: Project, darknet: Darknet) -> tuple[Path, dict[str, object]]:
    """Return the file that records a darknet's verification, and the identity of its executable."""
    executable, status = str(darknet.executable), darknet.executable.stat()
    path = project.cache_folder / _PROOF_FOLDER / f"{staleness.fingerprint(executable)}.json"
    return path, {"executable": executable, "size": status.st_size, "time": status.st_mtime_ns}
