"""A project: a folder with an ``oiyolo.toml``, and the paths of the files in it."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.core import files, locks
from oiyolo.core.errors import UsageError
from oiyolo.core.results import format_value
from oiyolo.net.urls import without_secrets
from oiyolo.project import config as project_config
from oiyolo.project import imports, journals, withdrawn
from oiyolo.project.keys import KEYS_BY_NAME
from oiyolo.project.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from oiyolo.project.frozen import FrozenDataset
    from oiyolo.project.imports import Import
    from oiyolo.project.keys import Config
    from oiyolo.project.withdrawn import Withdrawal

DEFAULT_CACHE_NAME = "oiyolo"

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class Project:
    """Paths and options of one project."""

    folder: Path
    config: Config = field(repr=False)
    is_new: bool = False
    """Whether its ``oiyolo.toml`` was created when it was opened."""
    frozen: FrozenDataset | None = field(default=None, repr=False)
    """The frozen dataset that this call rebuilds."""
    half: int = 0
    """The half of train that this call trains on, 1 or 2; 0 for all of train."""

    @property
    def options_path(self) -> Path:
        """The project's ``oiyolo.toml``."""
        return self.folder / project_config.FILE_NAME

    @property
    def data_folder(self) -> Path:
        """The output of the data stages."""
        return self.folder / "data"

    @property
    def selection_folder(self) -> Path:
        """The output of select: ``boxes.csv``, ``images.csv``, ``selection.json``, URL lists."""
        return self.data_folder / "selection"

    @property
    def plan_path(self) -> Path:
        """The estimates of the last ``oiyolo plan``."""
        return self.data_folder / "plan.json"

    @property
    def review_path(self) -> Path:
        """The suspected label errors, and the decisions about them."""
        return self.data_folder / "review.csv"

    @property
    def review_folder(self) -> Path:
        """The page of suspected label errors, and which images were searched for them."""
        return self.data_folder / "review"

    @property
    def imports_folder(self) -> Path:
        """The imported tables of labelled images, in a subfolder for each import."""
        return self.data_folder / imports.FOLDER

    def imports(self) -> dict[str, Import]:
        """Return the imports of labelled images by name.

        Raises:
            InputFormError: A record of an import is damaged.
        """
        return imports.read_all(self.imports_folder)

    @property
    def uses_open_images(self) -> bool:
        """Whether images are selected from Open Images, and not only from imports."""
        return bool(self.config.dataset.subsets)

    @property
    def images_folder(self) -> Path:
        """The output of fetch: ``<ImageID>.jpg``, exactly as served."""
        return self.data_folder / "images"

    @property
    def dataset_folder(self) -> Path:
        """The output of prepare and split: ``obj/``, ``boxes.csv``, lists, names."""
        return self.data_folder / "dataset"

    @property
    def objects_folder(self) -> Path:
        """Prepared images and their labels.

        Darknet derives the path of a label from that of its image; this folder name is safe.
        """
        return self.dataset_folder / "obj"

    @property
    def runs_folder(self) -> Path:
        """The folder of all training runs, which have a subfolder each."""
        return self.folder / "runs"

    @property
    def shards_folder(self) -> Path:
        """The folder of all shards of a fetch on several machines, which have a subfolder each."""
        return self.data_folder / journals.FOLDER

    @property
    def ledger_path(self) -> Path:
        """The ledger, a SQLite file."""
        return self.data_folder / "ledger.sqlite"

    @property
    def withdrawn_path(self) -> Path:
        """The list of the images that are never to be selected again."""
        return self.data_folder / withdrawn.NAME

    def withdrawals(self) -> dict[str, Withdrawal]:
        """Return the withdrawn images by id.

        Raises:
            InputFormError: The list of withdrawn images is invalid.
        """
        return withdrawn.read(self.withdrawn_path)

    @property
    def cache_folder(self) -> Path:
        """The folder of Open Images' files, builds and pretrained weights, which projects share.

        A user without a home folder, as some system users are, gets a cache in the project.
        """
        configured = self.config.openimages.cache
        if configured is not None:
            return (self.folder / Path(configured).expanduser()).resolve()
        caches = _user_caches()
        return self.data_folder / "cache" if caches is None else caches / DEFAULT_CACHE_NAME

    def ledger(self, *, read_only: bool = False) -> Ledger:
        """Open the ledger.

        Raises:
            UsageError: ``read_only`` is true, and the project has no ledger yet.
        """
        if read_only and not self.ledger_path.is_file():
            raise UsageError(
                "this project has no data yet",
                where=str(self.folder),
                remedy="Run `oiyolo fetch` first",
            )
        return Ledger(self.ledger_path, read_only=read_only)

    def discard_if_new(self) -> None:
        """Remove the ``oiyolo.toml`` if opening the project created it: its options are invalid."""
        if self.is_new:
            self.options_path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def data_lock(self, operation: str) -> Iterator[None]:
        """Hold the dataset's lock while the block runs, after merging the journals of shards.

        Args:
            operation: What the caller is doing, for the error message in another process.

        Raises:
            LockedError: Another process holds the lock.
        """
        with locks.exclusive(self.data_folder / ".lock", what="the dataset", operation=operation):
            self.merge_shards()
            yield

    def merge_shards(self) -> int:
        """Merge the journals of shards into the ledger; the caller holds the dataset's lock.

        Returns:
            Number of images that changed.
        """
        if not (self.shards_folder.is_dir() and self.ledger_path.is_file()):
            return 0
        with self.ledger() as ledger:
            return journals.merge(self.data_folder, ledger)


def _user_caches() -> Path | None:
    """Return the folder of the user's caches; ``None`` if the user has no usable home folder.

    A relative ``XDG_CACHE_HOME`` is ignored (https://specifications.freedesktop.org/basedir-spec).
    Where ``HOME`` is missing, as under some schedulers, the user database has the home folder.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if folder.is_absolute():
        return folder
    home = Path(os.environ.get("HOME", ""))
    with contextlib.suppress(KeyError):  # the user is not in the database
        home = home if home.is_absolute() else Path(pwd.getpwuid(os.getuid()).pw_dir)
    caches = home / ".cache"
    is_usable = (caches / DEFAULT_CACHE_NAME).is_dir() or os.access(
        caches if caches.is_dir() else home, os.W_OK | os.X_OK
    )
    return caches if home.is_absolute() and is_usable else None


ProjectLike = Project | str | os.PathLike[str]
"""An open project, or the path of its folder."""


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
        options: Values by key name; ``None`` means that the option is not set.
        may_create: Whether to create a missing ``oiyolo.toml`` from ``options``, as
            ``oiyolo init`` would, if they or the environment name classes.
        dry_run: Whether to return a new project without creating its ``oiyolo.toml``.

    Raises:
        UsageError: There is no project, or an option is invalid.
    """
    overrides = {name: value for name, value in (options or {}).items() if value is not None}
    if isinstance(project, Project):
        if overrides:
            raise UsageError(
                "options cannot be combined with an open project",
                remedy="Pass them to open_project, or pass the project's folder",
            )
        return project
    folder = Path(project).absolute()
    path = folder / project_config.FILE_NAME
    is_new = not path.is_file()
    if is_new:
        environment = project_config.read_environment(os.environ).get("dataset", {})
        initial = {n: environment[n] for n in ("classes",) if n in environment} | overrides
        if not (may_create and "classes" in initial):
            raise UsageError(
                f"not an oiyolo project: it has no {project_config.FILE_NAME}",
                where=str(folder),
                remedy="Create one with `oiyolo init --class Boat`, or pass a project's folder "
                "with --project",
            )
        if not dry_run:
            create(folder, initial)
    config = project_config.load(path, overrides)
    if not is_new:
        _log_overrides(path, overrides)
    return Project(folder, config, is_new)


def open_or_default(
    project: ProjectLike = ".", options: Mapping[str, object] | None = None
) -> Project:
    """Open a project; return one with defaults for a folder without ``oiyolo.toml``.

    Nothing is written to such a folder.

    Args:
        project: An open project (``options`` are not allowed then), or a folder.
        options: Values by key name; ``None`` means that the option is not set.

    Raises:
        UsageError: There is no such folder, or an option is invalid.
    """
    if not isinstance(project, Project):
        folder = Path(project).absolute()
        path = folder / project_config.FILE_NAME
        if folder.is_dir() and not path.is_file():
            return Project(folder, project_config.load(path, options or {}))
    return open_project(project, options)


def _log_overrides(path: Path, overrides: Mapping[str, object]) -> None:
    """Log the options that differ from the file, to show that they are not saved."""
    in_file = project_config.read_file(path)
    for section, values in project_config.read_options(overrides).items():
        for name, value in values.items():
            saved = in_file.get(section, {}).get(name, KEYS_BY_NAME[name].default)
            if saved != value:
                _log.info(
                    "for this call only: [%s] %s is %s (%s has %s)",
                    section,
                    name,
                    without_secrets(format_value(value)),
                    path.name,
                    without_secrets(format_value(saved)),
                )


def create(folder: Path, options: Mapping[str, object]) -> Path:
    """Write a new project's ``oiyolo.toml``; return its path.

    Raises:
        UsageError: The folder has one already, or an option is invalid.
    """
    path = folder / project_config.FILE_NAME
    if path.exists():
        raise UsageError(
            "this folder already contains a project",
            where=str(path),
            remedy="Edit the file, or use another folder",
        )
    project_config.load(path, options, {})
    files.write_text(path, project_config.render(options))
    return path
