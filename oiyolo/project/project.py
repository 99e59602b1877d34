"""A project: a folder with an ``oiyolo.toml``, and where everything in it lies."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.core import files, locks
from oiyolo.core.errors import UsageError
from oiyolo.net.urls import without_secrets
from oiyolo.project import config as options_of
from oiyolo.project import journals
from oiyolo.project.keys import KEYS_BY_NAME
from oiyolo.project.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from oiyolo.project.keys import Config

DEFAULT_CACHE_NAME = "oiyolo"

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class Project:
    """Paths and options of one project; nothing here changes the disk but ``create``."""

    folder: Path
    config: Config
    is_new: bool = False
    """Its ``oiyolo.toml`` was written when it was opened."""

    @property
    def options_path(self) -> Path:
        """The project's ``oiyolo.toml``."""
        return self.folder / options_of.FILE_NAME

    @property
    def data_folder(self) -> Path:
        """All that the data stages leave."""
        return self.folder / "data"

    @property
    def selection_folder(self) -> Path:
        """What select leaves: ``boxes.csv``, ``images.csv``, ``selection.json``, URL lists."""
        return self.data_folder / "selection"

    @property
    def images_folder(self) -> Path:
        """What fetch leaves: ``<ImageID>.jpg``, exactly as served."""
        return self.data_folder / "images"

    @property
    def dataset_folder(self) -> Path:
        """What prepare and split leave: ``obj/``, ``boxes.csv``, lists, names."""
        return self.data_folder / "dataset"

    @property
    def objects_folder(self) -> Path:
        """Prepared images with their labels beside them, in a folder darknet cannot mangle."""
        return self.dataset_folder / "obj"

    @property
    def runs_folder(self) -> Path:
        """One folder below for each training run."""
        return self.folder / "runs"

    @property
    def shards_folder(self) -> Path:
        """One folder below for each shard of a fetch on several machines."""
        return self.data_folder / journals.FOLDER

    @property
    def ledger_path(self) -> Path:
        """The project's one SQLite file."""
        return self.data_folder / "ledger.sqlite"

    @property
    def cache_folder(self) -> Path:
        """Where Open Images' files, builds and pretrained weights are kept for all projects."""
        configured = self.config.openimages.cache
        if configured is not None:
            return (self.folder / Path(configured).expanduser()).resolve()
        home = os.environ.get("XDG_CACHE_HOME")
        return (Path(home) if home else Path.home() / ".cache") / DEFAULT_CACHE_NAME

    def ledger(self, *, read_only: bool = False) -> Ledger:
        """Open the ledger.

        Raises:
            UsageError: It is to be read, and nothing was selected yet.
        """
        if read_only and not self.ledger_path.is_file():
            raise UsageError(
                "this project has no data yet",
                where=str(self.folder),
                remedy="Begin with `oiyolo fetch`",
            )
        return Ledger(self.ledger_path, read_only=read_only)

    def take_back(self) -> None:
        """Remove the options of a project that has only just begun, because they are wrong."""
        if self.is_new:
            self.options_path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def data_lock(self, doing: str) -> Iterator[None]:
        """Be the only one to change the dataset; ``LockedError`` if somebody else is.

        What shards did since is entered in the ledger first, so that nobody works on less.
        """
        with locks.exclusive(self.data_folder / ".lock", what="the dataset", doing=doing):
            self.merge_shards()
            yield

    def merge_shards(self) -> int:
        """Enter what shards did in the ledger; the caller holds the dataset's lock.

        Returns:
            How many images changed.
        """
        if not (self.shards_folder.is_dir() and self.ledger_path.is_file()):
            return 0
        with self.ledger() as ledger:
            return journals.merge(self.data_folder, ledger)


ProjectLike = Project | str | os.PathLike[str]
"""What a stage takes as its project: an open one, or the path of its folder."""


def open_project(
    project: ProjectLike = ".",
    options: Mapping[str, object] | None = None,
    *,
    may_create: bool = False,
    dry_run: bool = False,
) -> Project:
    """Open a project, with options that override its file for this call.

    Args:
        project: An open project (``options`` are not allowed then), or a folder.
        options: Keywords by key name; ``None`` values were not given.
        may_create: Where there is no ``oiyolo.toml`` but classes are given, write one that
            holds ``options``, as ``oiyolo init`` would.
        dry_run: Write nothing; a project that would be begun is given as it would be.

    Raises:
        UsageError: No project there, or a wrong option.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if isinstance(project, Project):
        if given:
            raise UsageError(
                "options were given beside an open project",
                remedy="Give them to open_project, or give the project's folder",
            )
        return project
    folder = Path(project).absolute()
    path = folder / options_of.FILE_NAME
    is_new = not path.is_file()
    if is_new:
        environment = options_of.read_environment(os.environ).get("dataset", {})
        named = {name: environment[name] for name in ("classes",) if name in environment} | given
        if not (may_create and "classes" in named):
            raise UsageError(
                f"no {options_of.FILE_NAME} here, so this is no project",
                where=str(folder),
                remedy="Begin one with `oiyolo init --class Boat`, or name its folder with "
                "--project",
            )
        if not dry_run:
            create(folder, named)
    config = options_of.load(path, given)
    if not is_new:
        _tell_overridden(path, given)
    return Project(folder, config, is_new)


def open_or_default(
    project: ProjectLike = ".", options: Mapping[str, object] | None = None
) -> Project:
    """Open a project; a folder that is none is given as one with defaults, and left alone.

    Args:
        project: See ``open_project``.
        options: See ``open_project``.

    Raises:
        UsageError: There is no such folder, or an option is wrong.
    """
    if isinstance(project, Project):
        return open_project(project, options)
    folder = Path(project).absolute()
    path = folder / options_of.FILE_NAME
    if path.is_file() or not folder.is_dir():
        return open_project(folder, options)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    return Project(folder, options_of.load(path, given))


def _tell_overridden(path: Path, given: Mapping[str, object]) -> None:
    """Say which options differ from the file, so that nobody takes them for kept."""
    in_file = options_of.read_file(path)
    for section, values in options_of.read_options(given).items():
        for name, value in values.items():
            kept = in_file.get(section, {}).get(name, KEYS_BY_NAME[name].default)
            if kept != value:
                _log.info(
                    "for this call only: [%s] %s is %s, where %s has %s",
                    section,
                    name,
                    without_secrets(str(value)),
                    path.name,
                    without_secrets(str(kept)),
                )


def create(folder: Path, options: Mapping[str, object]) -> Path:
    """Write a new project's ``oiyolo.toml``.

    Raises:
        UsageError: There is one already, or an option is wrong.
    """
    path = folder / options_of.FILE_NAME
    if path.exists():
        raise UsageError(
            "there is a project here already",
            where=str(path),
            remedy="Edit the file, or begin in another folder",
        )
    options_of.load(path, options, {})
    files.write_text(path, options_of.render(options))
    return path
