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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import files, staleness
from oiyolo.core.errors import DarknetError, UnavailableError
from oiyolo.core.results import Plan, Result
from oiyolo.darknet import program
from oiyolo.darknet.build import builder, flags, toolchain, tree
from oiyolo.darknet.build.clone import PINNED_COMMIT, clone, clone_folder
from oiyolo.darknet.build.proof import verify
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.program import Darknet, probe
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_or_default

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.darknet.build.builder import BuildOutput, BuildSpec
    from oiyolo.project.keywords import DarknetKeywords
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

STAGE: Final = "build"
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
        build_output: Its build; ``None`` if it was not built from sources.
        unverified_reason: Why it could not be verified on this machine; empty if it was.
    """

    darknet: Darknet
    verified_now: bool
    revision: str = ""
    build_output: BuildOutput | None = None
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
            "flags": None if self.build_output is None else self.build_output.flags.as_dict(),
            "log": None if self.build_output is None else str(self.build_output.log),
            "built_because": None if self.build_output is None else self.build_output.reason,
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
        if self.build_output is not None:
            facts += [str(self.build_output.flags), f"log: {self.build_output.log}"]
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
    return _run(opened, may_fetch=True)


def run(project: Project) -> Built:
    """Find or build a darknet for another stage and verify it; no sources are fetched.

    Raises:
        DarknetError: As for ``build``, or the darknet cannot be run on this machine.
    """
    built = _run(project, may_fetch=False)
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


def rebuild_reason(project: Project) -> str | None:
    """Return why darknet must be compiled before it can be used; ``None`` if it need not be."""
    source = source_folder(project)
    if project.config.darknet.executable or source is None:
        return None
    spec, _ = _build_spec(project, source)
    return spec.stale_reason


def inspect(project: Project) -> tuple[Built | None, str | None]:
    """Return the darknet that ``train`` would use now, without building or verifying one.

    Returns:
        The darknet, or ``None`` if none exists yet; and why it would be built (again), or
        ``None``.

    Raises:
        DarknetError: The configured or built program cannot be used.
    """
    options = project.config.darknet
    source = None if options.executable is not None else source_folder(project)
    if source is None:
        if options.executable is not None:
            return _with_verification(
                project, _configured_darknet(project, options.executable)
            ), None
        darknet = _without_sources(project)
        return None if darknet is None else _with_verification(project, darknet), None
    spec, _ = _build_spec(project, source)
    executable, origin = spec.folder / builder.EXECUTABLE, f"built from {source}"
    if not executable.is_file():
        return None, spec.stale_reason
    if spec.flags.gpu and not spec.toolchain.has_driver:
        darknet = Darknet(executable, FORKS[spec.fork], gpu=True, origin=origin)
        return Built(darknet, verified_now=False, unverified_reason=_NO_DRIVER), spec.stale_reason
    return _with_verification(project, probe(executable, origin)), spec.stale_reason


def _with_verification(project: Project, darknet: Darknet) -> Built:
    """Return a darknet with the result of its earlier verification, if there is one."""
    path, recipe = _verification_record(project, darknet)
    if staleness.stale_reason(path, recipe) is not None:
        revision = program.revision(darknet)
        return Built(
            darknet, verified_now=False, revision=revision, unverified_reason=_NOT_VERIFIED
        )
    revision = str(files.read_json(path).get("revision", ""))
    return Built(darknet, verified_now=False, revision=revision)


def _configured_darknet(project: Project, executable: str) -> Darknet:
    path = Path(shutil.which(executable) or project.folder / Path(executable).expanduser())
    return probe(path, "[darknet] executable")


def _planned_action(project: Project) -> str:
    """Return what ``build`` would do, in words."""
    options = project.config.darknet
    if options.executable:
        return f"use {options.executable}"
    source = source_folder(project)
    if source is None and options.source_url:
        return f"fetch {options.source_url} at {PINNED_COMMIT[:12]} and build it"
    if source is None:
        return f"use {shutil.which('darknet') or 'no darknet, because none was found'}"
    spec, _ = _build_spec(project, source)
    reason = spec.stale_reason
    return (
        f"build {source}: {spec.flags} ({reason})"
        if reason
        else f"use {source}, which is already built"
    )


def _build_spec(project: Project, source: Path) -> tuple[BuildSpec, tuple[str, ...]]:
    """Return the specification of the build, and notes for the user."""
    options = project.config.darknet
    tools = toolchain.find()
    fork = tree.fork_of(source) or "alexeyab"
    arch = () if isinstance(options.arch, str) else options.arch
    choice = flags.choose(tools, fork, build_gpu=options.build_gpu, arch=arch)
    folder = project.cache_folder / _BUILD_FOLDER / staleness.fingerprint(str(source))
    return builder.build_spec(source, folder, choice.flags, tools), choice.notes


def _run(project: Project, *, may_fetch: bool) -> Built:
    options = project.config.darknet
    if options.executable is not None:
        return _verify_once(project, _configured_darknet(project, options.executable))
    source = source_folder(project)
    fetch_error = None
    if source is None and may_fetch and options.source_url:
        try:
            source = clone(options.source_url, project.cache_folder)
        except UnavailableError as error:
            fetch_error = error
            _log.warning("build: %s", error)
    if source is not None:
        return _from_sources(project, source)
    darknet = _without_sources(project)
    if darknet is None:
        raise _not_found_error(fetch_error)
    return _verify_once(project, darknet)


def _from_sources(project: Project, source: Path) -> Built:
    spec, notes = _build_spec(project, source)
    for note in notes:
        _log.info("build: %s", note)
    build_output = builder.build(spec)
    origin = f"built from {source}"
    unverified_reason = _NO_DRIVER
    if not build_output.flags.gpu or spec.toolchain.has_driver:
        try:
            return _verify_once(project, probe(build_output.executable, origin), build_output)
        except DarknetError as error:
            # Without nvidia-smi no GPUs are listed, but the program may still find one.
            if not build_output.flags.gpu or spec.toolchain.gpus:
                raise
            unverified_reason = error.what
    return Built(
        Darknet(build_output.executable, FORKS[build_output.fork], gpu=True, origin=origin),
        verified_now=False,
        revision=build_output.revision,
        build_output=build_output,
        unverified_reason=unverified_reason,
    )


def _without_sources(project: Project) -> Darknet | None:
    builds = (project.cache_folder / _BUILD_FOLDER).glob(f"*/{builder.EXECUTABLE}")
    builds_by_age = sorted(builds, key=lambda path: path.stat().st_mtime)
    if builds_by_age:
        return probe(builds_by_age[-1], "built earlier on this machine")
    on_path = shutil.which("darknet")
    return None if on_path is None else probe(Path(on_path), "on PATH")


def _not_found_error(fetch_error: UnavailableError | None) -> DarknetError:
    return DarknetError(
        "no darknet found",
        expected="[darknet] executable, sources in darknet/, or darknet on PATH",
        found="" if fetch_error is None else f"{fetch_error.what} ({fetch_error.where})",
        remedy="Run `oiyolo build` with a network connection to fetch and build the sources (CPU "
        "or CUDA); or `apt-get install darknet` (Debian and Ubuntu, CPU); or `git submodule update "
        "--init darknet` in the checkout, then `oiyolo build`; or set [darknet] executable to an "
        "existing darknet",
    )


def _verify_once(
    project: Project, darknet: Darknet, build_output: BuildOutput | None = None
) -> Built:
    """Verify a darknet unless this executable file has been verified before."""
    path, recipe = _verification_record(project, darknet)
    if staleness.stale_reason(path, recipe) is None:
        revision = str(files.read_json(path).get("revision", ""))
        return Built(darknet, verified_now=False, revision=revision, build_output=build_output)
    verify(darknet)
    revision = build_output.revision if build_output is not None else program.revision(darknet)
    staleness.write_recipe(path, {**recipe, "revision": revision})
    return Built(darknet, verified_now=True, revision=revision, build_output=build_output)


def _verification_record(project: Project, darknet: Darknet) -> tuple[Path, dict[str, object]]:
    """Return the file that records a darknet's verification, and the identity of its executable."""
    status = darknet.executable.stat()
    path = (
        project.cache_folder
        / _PROOF_FOLDER
        / f"{staleness.fingerprint(str(darknet.executable))}.json"
    )
    return path, {
        "executable": str(darknet.executable),
        "size": status.st_size,
        "time": status.st_mtime_ns,
    }
