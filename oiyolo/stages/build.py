"""build: a darknet executable that has proved that it trains.

In this order: ``[darknet] executable``; sources, which are built once and again when they change
(``[darknet] source``, ``darknet/`` below the project, below the checkout, or what was fetched
before); a darknet that was built here before; ``darknet`` on PATH. ``oiyolo build`` itself, where
there are no sources, fetches them first (``[darknet] source_url``, one known commit) and only goes
on to the last two when that fails. The other commands fetch no sources.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, staleness
from oiyolo.core.errors import DarknetError, UnavailableError
from oiyolo.core.results import Plan, Result
from oiyolo.darknet import program
from oiyolo.darknet.build import builder, flags, toolchain, tree
from oiyolo.darknet.build.clone import PINNED_COMMIT, clone, folder_in
from oiyolo.darknet.build.proof import prove
from oiyolo.darknet.forks import LINES
from oiyolo.darknet.program import Darknet, ask
from oiyolo.project.project import open_or_default

if TYPE_CHECKING:
    from oiyolo.darknet.build.builder import Made, Order
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

STAGE: Final = "build"
_PROOFS: Final = "proofs"
_BUILDS: Final = "builds"
_NOT_YET: Final = "it has not trained its proof here yet"
_NO_DRIVER: Final = "it is built for CUDA, and this machine has no NVIDIA driver"


@dataclass(frozen=True)
class Built(Result):
    """The darknet to use.

    Attributes:
        darknet: The program.
        proved_now: It was proved by this call; else by an earlier one, or not at all.
        revision: Its revision; empty where nobody knows it.
        made: How it was built; ``None`` where it was found as it is.
        why_unproved: Why it could not be tried on this machine; empty: it was proved.
    """

    darknet: Darknet
    proved_now: bool
    revision: str = ""
    made: Made | None = None
    why_unproved: str = ""

    @property
    def proved(self) -> bool:
        """Whether it has trained on this machine."""
        return not self.why_unproved

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            **self.darknet.as_dict(),
            "revision": self.revision,
            "flags": None if self.made is None else self.made.flags.as_dict(),
            "log": None if self.made is None else str(self.made.log),
            "built_because": None if self.made is None else self.made.reason,
            "proved": self.proved,
            "proved_now": self.proved_now,
            "why_unproved": self.why_unproved,
        }

    def __str__(self) -> str:
        proof = "trained two iterations as a proof" if self.proved_now else "proved before"
        if not self.proved:
            proof = f"not proved: {self.why_unproved}"
        text = f"darknet: {self.darknet}, {proof}"
        facts = [f"revision {self.revision}"] if self.revision else []
        if self.made is not None:
            facts += [str(self.made.flags), f"log: {self.made.log}"]
        return "\n".join([text, *(["; ".join(facts)] if facts else [])])


def build(project: ProjectLike = ".", *, dry_run: bool = False, **options: object) -> Built | Plan:
    """Find a darknet, or build one from its sources, and prove that it trains.

    A build for CUDA on a machine without a driver cannot be tried; the result says so. Nothing
    trains with it here.

    Args:
        project: An open project or its folder; a folder that is none has the default options.
        dry_run: Only tell what would be done.
        **options: Keys of ``[darknet]``.

    Raises:
        DarknetError: None was found, or it cannot be built, or does not train.
    """
    opened = open_or_default(project, options)
    if dry_run:
        return Plan("build", [_action(opened)])
    return _run(opened, may_fetch=True)


def run(project: Project) -> Built:
    """Find or build for a stage that uses it, and prove; no sources are fetched.

    Raises:
        DarknetError: As ``build``; also where it cannot be tried on this machine.
    """
    built = _run(project, may_fetch=False)
    if not built.proved:
        raise DarknetError(
            "this darknet cannot train on this machine",
            where=str(built.darknet.executable),
            found=built.why_unproved,
            remedy="Install the driver, or set [darknet] build_gpu to no",
        )
    return built


def source_folder(project: Project) -> Path | None:
    """Give the folder with darknet's sources; ``None`` if there is none.

    Raises:
        DarknetError: ``[darknet] source`` names a folder without them.
    """
    configured = project.config.darknet.source
    if configured is not None:
        folder = (project.folder / Path(configured).expanduser()).resolve()
        if not tree.has_sources(folder):
            raise DarknetError(
                "[darknet] source holds no sources of darknet that could be built",
                where=str(folder),
                expected="AlexeyAB's, pjreddie's or hank-ai's tree, with its Makefile or "
                "CMakeLists.txt",
            )
        return folder
    checkout = Path(__file__).resolve().parents[2]
    places = (project.folder / "darknet", checkout / "darknet", folder_in(project.cache_folder))
    return next((folder for folder in places if tree.has_sources(folder)), None)


def needs_building(project: Project) -> str | None:
    """Tell why darknet would have to be compiled before it can be used; ``None`` if not."""
    source = source_folder(project)
    if project.config.darknet.executable or source is None:
        return None
    order, _ = _order(project, source)
    return order.stale_reason


def look(project: Project) -> tuple[Built | None, str | None]:
    """Give the darknet that a training would use as things stand; builds and proves nothing.

    Returns:
        It, or ``None`` where there is none; and why it would be built (anew), or ``None``.

    Raises:
        DarknetError: What is configured, or was built, cannot be used.
    """
    options = project.config.darknet
    source = None if options.executable is not None else source_folder(project)
    if source is None:
        if options.executable is not None:
            return _as_known(project, _configured(project, options.executable)), None
        darknet = _without_sources(project)
        return None if darknet is None else _as_known(project, darknet), None
    order, _ = _order(project, source)
    executable, origin = order.folder / builder.EXECUTABLE, f"built from {source}"
    if not executable.is_file():
        return None, order.stale_reason
    if order.flags.gpu and not order.toolchain.has_driver:
        darknet = Darknet(executable, LINES[order.line], gpu=True, origin=origin)
        return Built(darknet, proved_now=False, why_unproved=_NO_DRIVER), order.stale_reason
    return _as_known(project, ask(executable, origin)), order.stale_reason


def _as_known(project: Project, darknet: Darknet) -> Built:
    """Give a darknet with what is known of it from its proof."""
    path, proof = _proof_of(project, darknet)
    if staleness.stale_reason(path, proof) is not None:
        known = program.revision(darknet)
        return Built(darknet, proved_now=False, revision=known, why_unproved=_NOT_YET)
    known = str(files.read_json(path).get("revision", ""))
    return Built(darknet, proved_now=False, revision=known)


def _configured(project: Project, executable: str) -> Darknet:
    path = Path(shutil.which(executable) or project.folder / Path(executable).expanduser())
    return ask(path, "[darknet] executable")


def _action(project: Project) -> str:
    """Tell what ``build`` would do."""
    options = project.config.darknet
    if options.executable:
        return f"use {options.executable}"
    source = source_folder(project)
    if source is None and options.source_url:
        return f"fetch {options.source_url} at {PINNED_COMMIT[:12]} and build it"
    if source is None:
        return f"use {shutil.which('darknet') or 'no darknet: none was found'}"
    order, _ = _order(project, source)
    reason = order.stale_reason
    return f"build {source}: {order.flags} ({reason})" if reason else f"use {source}, built"


def _order(project: Project, source: Path) -> tuple[Order, tuple[str, ...]]:
    """Give what is to be built, and what to say about it."""
    options = project.config.darknet
    here = toolchain.find()
    line = tree.line_of(source) or "alexeyab"
    arch = () if isinstance(options.arch, str) else options.arch
    choice = flags.choose(here, line, build_gpu=options.build_gpu, arch=arch)
    folder = project.cache_folder / _BUILDS / staleness.fingerprint(str(source))
    return builder.order(source, folder, choice.flags, here), choice.notes


def _run(project: Project, *, may_fetch: bool) -> Built:
    options = project.config.darknet
    if options.executable is not None:
        return _proved(project, _configured(project, options.executable))
    source = source_folder(project)
    not_fetched = None
    if source is None and may_fetch and options.source_url:
        try:
            source = clone(options.source_url, project.cache_folder)
        except UnavailableError as error:
            not_fetched = error
            _log.warning("build: %s", error)
    if source is not None:
        return _from_sources(project, source)
    darknet = _without_sources(project)
    if darknet is None:
        raise _none_found(not_fetched)
    return _proved(project, darknet)


def _from_sources(project: Project, source: Path) -> Built:
    order, notes = _order(project, source)
    for note in notes:
        _log.info("build: %s", note)
    made = builder.build(order)
    origin = f"built from {source}"
    why = _NO_DRIVER
    if not made.flags.gpu or order.toolchain.has_driver:
        try:
            return _proved(project, ask(made.executable, origin), made)
        except DarknetError as error:
            # A GPU may be there and not answer nvidia-smi, which some machines do not have.
            if not made.flags.gpu or order.toolchain.gpus:
                raise
            why = error.what
    return Built(
        Darknet(made.executable, LINES[made.line], gpu=True, origin=origin),
        proved_now=False,
        revision=made.revision,
        made=made,
        why_unproved=why,
    )


def _without_sources(project: Project) -> Darknet | None:
    builds = (project.cache_folder / _BUILDS).glob(f"*/{builder.EXECUTABLE}")
    earlier = sorted(builds, key=lambda path: path.stat().st_mtime)
    if earlier:
        return ask(earlier[-1], "built here before")
    on_path = shutil.which("darknet")
    return None if on_path is None else ask(Path(on_path), "on PATH")


def _none_found(not_fetched: UnavailableError | None) -> DarknetError:
    return DarknetError(
        "no darknet was found",
        expected="[darknet] executable, sources in darknet/, or darknet on PATH",
        found="" if not_fetched is None else f"{not_fetched.what} ({not_fetched.where})",
        remedy="Ways to get one: `oiyolo build`, which fetches the sources where there is a "
        "network (CPU or CUDA); `apt-get install darknet` (Debian and Ubuntu, CPU); `git submodule "
        "update --init darknet` in the checkout and then `oiyolo build`; or set [darknet] "
        "executable to one that you have",
    )


def _proved(project: Project, darknet: Darknet, made: Made | None = None) -> Built:
    """Prove a darknet, once for as long as its file stays as it is."""
    path, proof = _proof_of(project, darknet)
    if staleness.stale_reason(path, proof) is None:
        known = str(files.read_json(path).get("revision", ""))
        return Built(darknet, proved_now=False, revision=known, made=made)
    prove(darknet)
    revision = made.revision if made is not None else program.revision(darknet)
    staleness.write(path, {**proof, "revision": revision})
    return Built(darknet, proved_now=True, revision=revision, made=made)


def _proof_of(project: Project, darknet: Darknet) -> tuple[Path, dict[str, object]]:
    """Give where the proof of a darknet is noted, and what it was proved as."""
    status = darknet.executable.stat()
    path = project.cache_folder / _PROOFS / f"{staleness.fingerprint(str(darknet.executable))}.json"
    return path, {
        "executable": str(darknet.executable),
        "size": status.st_size,
        "time": status.st_mtime_ns,
    }
