"""select: choose images and boxes by class.

Reads Open Images' official files and the tables of imports, writes ``data/selection/{boxes.csv,
images.csv, selection.json, url-list-0001.tsv, ...}`` and records the images in the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypedDict, overload

import numpy as np

from oiyolo import __version__
from oiyolo.core import files, records, staleness
from oiyolo.core.errors import InputFormError, NewerVersionError, UsageError
from oiyolo.core.image_ids import parse_ids
from oiyolo.core.results import Plan, Result, format_table, pluralize, table_html, text_html
from oiyolo.net.urls import display_url, without_secrets
from oiyolo.openimages import selection, tables
from oiyolo.openimages.cache import Cache, CachedFile
from oiyolo.openimages.classes import read_hierarchy, read_names
from oiyolo.openimages.releases import TABLES, check_subsets, release
from oiyolo.project import config as options_of
from oiyolo.project import imports as imports_of
from oiyolo.project.keywords import takes_keys
from oiyolo.project.ledger import SelectionChange
from oiyolo.project.project import open_project
from oiyolo.stages.select.imported import (
    COLUMNS,
    COPY_COLUMN,
    ImportedTables,
    add_flags,
    classes_of,
    describe_places,
    names_in,
    with_copies,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import pandas as pd
    from typing_extensions import Unpack

    from oiyolo.core.results import Picture
    from oiyolo.openimages.cache import StreamedFile
    from oiyolo.openimages.classes import SelectedClass
    from oiyolo.openimages.csvscan.scan import ScanResult
    from oiyolo.openimages.releases import OfficialFile, SubsetFiles
    from oiyolo.project.keys import OpenImagesOptions
    from oiyolo.project.keywords import SelectKeywords
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_RECIPE_FILE: Final = ".made-from.json"
_TABLES: Final = ("boxes.csv", "images.csv")
SELECT_AGAIN: Final = "Delete data/selection/selection.json and run `oiyolo select`"
_FIRST_ROW: Final = 2
"""Row of the first image in a table: the header is row 1."""
_URL_LIST_BYTES: Final = 128_000_000
"""Maximum size of a URL list for Google's Storage Transfer Service."""
_QUOTED_CHARACTERS: Final = ',"\n\r'
_FLAG_COLUMNS: Final = tuple(selection.FLAG_COLUMNS.values())
_BOX_COLUMNS: Final = (
    *("ImageID", "Subset", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *_FLAG_COLUMNS,
    *("class", "class_id", "used", "dropped_because"),
)


class _Summary(TypedDict):
    """The fields of ``selection.json`` without which it cannot be used."""

    images: int
    boxes: int
    classes: dict[str, dict[str, int]]
    folded_in: dict[str, dict[str, int]]
    excluded: dict[str, int]
    labels: dict[str, list[str]]
    tables: dict[str, dict[str, Any]]
    fingerprint: str


@dataclass(frozen=True)
class Selection(Result):
    """The selected images and boxes in ``data/selection``.

    Attributes:
        folder: The folder with the tables.
        summary: Content of ``selection.json``: images, boxes, classes, merged subclasses,
            exclusions.
    """

    folder: Path
    summary: Mapping[str, Any]

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """Every box of the selected classes in the selected images, including dropped ones.

        Has Open Images' columns (corners are fractions of the image as stored), then ``class``,
        ``class_id``, ``used`` and ``dropped_because``.
        """
        return self._table("boxes.csv", dict.fromkeys(("ImageID", "dropped_because"), str))

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row per image: Open Images' columns, then ``negative``, ``present``, ``absent``."""
        names = (*tables.IMAGE_COLUMNS, *COLUMNS, COPY_COLUMN, "present", "absent")
        return self._table("images.csv", dict.fromkeys(names, str) | {"Rotation": float})

    @cached_property
    def rotation_by_id(self) -> dict[str, int]:
        """Degrees counter-clockwise that make each stored image upright, from 0 to 359."""
        turns = (self.images["Rotation"].fillna(0) % 360).astype(int)
        return dict(zip(self.images["ImageID"].tolist(), turns.tolist(), strict=True))

    def _table(self, name: str, types: Mapping[str, type]) -> pd.DataFrame:
        import pandas as pd  # noqa: PLC0415  (half a second, not needed if nothing changed)

        path = self.verified_path(name)
        table = pd.read_csv(
            path,
            dtype=dict(types),
            keep_default_na=False,
            na_values={"Rotation": ["", "nan"]},
        )
        ids = table["ImageID"].tolist()
        parse_ids(ids, where=str(path), first_row=_FIRST_ROW, remedy=SELECT_AGAIN)
        subsets = filter(None, table["Subset"].unique())  # imported images need not have one
        check_subsets(subsets, where=str(path), remedy=SELECT_AGAIN)
        return table

    def damage(self, name: str) -> str:
        """Return why a table is not the one that select wrote; "" if it is intact."""
        path = self.folder / name
        if not path.is_file():
            return "no such file"
        if files.sha256_of(path) == self._written(name).get("sha256"):
            return ""
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        return f"{lines} lines with different content"

    def _written(self, name: str) -> Any:  # noqa: ANN401  (a JSON object)
        return self.summary.get("tables", {}).get(name, {})

    def verified_path(self, name: str) -> Path:
        """Return the path of a table after verifying that it is as select wrote it.

        Raises:
            InputFormError: The table is missing or was changed.
        """
        path = self.folder / name
        if damage := self.damage(name):
            raise InputFormError(
                "the table is missing or was changed after `oiyolo select` wrote it",
                where=str(path),
                expected=f"its {self._written(name).get('lines', '?')} original lines",
                found=damage,
                remedy="Run `oiyolo select`, which writes it again",
            )
        return path

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the tables' contents."""
        return str(self.summary["fingerprint"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of their class ids.

        Raises:
            InputFormError: A name is not one line of text, as darknet's list of names needs it.
        """
        names = tuple(self.summary["classes"])
        if bad := [name for name in names if not (name and name.isprintable())]:
            raise InputFormError(
                "invalid class name",
                where=str(self.folder / "selection.json"),
                expected="one line of text",
                found=ascii(bad[0])[:60],
                remedy=SELECT_AGAIN,
            )
        return names

    def as_dict(self) -> dict[str, object]:
        """Return the content of ``selection.json``."""
        return dict(self.summary)

    def photographs(self, count: int = 12) -> Picture:
        """Return a picture of fetched photographs as they are stored, with all of their boxes.

        Args:
            count: Maximum number of photographs, which are chosen at random, but always the same.

        Raises:
            UsageError: No selected image has been fetched.
        """
        from oiyolo.dataset_preview.photographs import draw_photographs  # noqa: PLC0415  (Pillow)

        return draw_photographs(self.boxes, self.folder.parent / "images", count)

    def __str__(self) -> str:
        return "\n".join([self._headline, format_table(self._class_rows()), *self._notes()])

    def _repr_html_(self) -> str:
        table = table_html(self._class_rows())
        return text_html(self._headline) + table + text_html(*self._notes())

    @property
    def _headline(self) -> str:
        images, boxes = self.summary["images"], self.summary["boxes"]
        return f"selected {pluralize(images, 'image')}, {pluralize(boxes, 'box')}"

    def _class_rows(self) -> list[Sequence[object]]:
        rows: list[Sequence[object]] = [("class", "images", "boxes", "merged subclasses")]
        for name, numbers in self.summary["classes"].items():
            merged = ", ".join(self.summary["folded_in"].get(name, ())) or "-"
            rows.append((name, f"{numbers['images']:,}", f"{numbers['boxes']:,}", merged))
        return rows

    def _notes(self) -> list[str]:
        """Return what imports add, and what is excluded, line by line."""
        lines = [
            f"from the import {name}: {pluralize(numbers['images'], 'image')}, "
            f"{pluralize(numbers['boxes'], 'box')}"
            for name, numbers in self.imports.items()
        ]
        lines += [
            f"{pluralize(count, 'image')} of Open Images copied from the import {name}"
            for name, count in self.summary.get("copies", {}).items()
        ]
        lines += [
            f"excluded: {n:,} {why}"
            for why, n in self.summary["excluded"].items()
            if why != selection.BEYOND_LIMIT
        ]
        return lines + ([self.limit_note] if self.limit_note else [])

    @property
    def imports(self) -> Mapping[str, Mapping[str, int]]:
        """Number of selected images and used boxes of each import; empty without imports."""
        numbers: Mapping[str, Mapping[str, int]] = self.summary.get("imports", {})
        return numbers

    @property
    def has_open_images(self) -> bool:
        """Whether some of the images are Open Images' and not imported."""
        imported = sum(numbers["images"] for numbers in self.imports.values())
        return int(self.summary.get("images", 0)) > imported

    @property
    def limit_note(self) -> str:
        """How many more images there are than ``[dataset] limit``; empty if it excludes none."""
        beyond = self.summary.get("excluded", {}).get(selection.BEYOND_LIMIT, 0)
        positives = self.summary.get("images", 0) - self.summary.get("negatives", 0)
        note = f"limited to {positives:,} by [dataset] limit; {beyond:,} more are available"
        return note if beyond else ""


@overload
def select(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[SelectKeywords]
) -> Selection: ...


@overload
def select(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[SelectKeywords]
) -> Plan: ...


@overload
def select(
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[SelectKeywords]
) -> Selection | Plan: ...


@takes_keys("dataset", "openimages")
def select(
    project: ProjectLike = ".", *, dry_run: bool = False, **options: Unpack[SelectKeywords]
) -> Selection | Plan:
    """Select images and boxes by class.

    If the selection is up to date, this only asks the site, once per official file, whether the
    file changed.

    Args:
        project: An open project or its folder; with ``classes``, a new project is created there.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[dataset]`` and ``[openimages]``.

    Raises:
        UsageError: An unknown class or option.
        UnavailableError: The site is unreachable, and an official file is not in the cache.
        InputFormError: An official file is damaged.
        LockedError: Another process is changing the dataset.
    """
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    if dry_run:
        before, planned = _find_intact(opened), preview(opened)
        facts: dict[str, object] = {"selected_before": before.summary if before else None}
        if planned.change is not None:
            facts |= asdict(planned.change)
        return Plan("select", planned.actions, facts)
    with opened.data_lock("select"):
        return run(opened)


def find(project: Project) -> Selection | None:
    """Return the project's selection, even if it is stale; ``None`` if there is none.

    Raises:
        InputFormError: ``selection.json`` is damaged.
    """
    path = project.selection_folder / "selection.json"
    summary = records.find(path, _Summary, remedy="Run `oiyolo select`, which writes it again")
    return None if summary is None else Selection(project.selection_folder, summary)


def _find_intact(project: Project) -> Selection | None:
    """Return the project's selection; ``None`` if there is none, or ``selection.json`` is damaged.

    A command that can write it again does so.
    """
    try:
        return find(project)
    except NewerVersionError:
        raise
    except InputFormError as error:
        _log.warning("select: %s", error)
        return None


def load(project: Project) -> Selection:
    """Return the project's selection, even if it is stale.

    Raises:
        UsageError: Nothing has been selected yet.
    """
    selected = find(project)
    if selected is None:
        raise UsageError(
            "nothing has been selected yet",
            where=str(project.folder),
            remedy="Run `oiyolo fetch` first",
        )
    return selected


def load_current(project: Project) -> Selection:
    """Return the project's selection if it was made with the project's current options.

    Does not ask the site whether the official files changed.

    Raises:
        UsageError: There is no selection, or it was made with different options.
    """
    selected = find(project)
    reason = staleness.stale_reason(project.selection_folder / _RECIPE_FILE, _local_recipe(project))
    if selected is None or reason is not None or not project.ledger_path.is_file():
        raise UsageError(
            "the selection is not up to date",
            where=str(project.selection_folder),
            found=reason or "nothing has been selected yet",
            remedy="Run `oiyolo select` first, once for all shards",
        )
    return selected


def imported_classes(project: Project) -> tuple[set[str], bool]:
    """Return the names of the imported classes whose boxes the project uses.

    The site is not asked.

    Returns:
        The names, and whether they are complete: without Open Images' hierarchy, subclasses of its
        classes are missing.
    """
    imported = ImportedTables.of(project, {})
    names = names_in(imported, project.config.dataset.classes)
    if not project.uses_open_images:
        return names, True
    options = project.config.openimages
    official = release(options.release)
    with contextlib.closing(Cache(project.cache_folder, options.base_url)) as cache:
        found = [cache.find(file) for file in (official.classes, official.hierarchy)]
    paths = [file.path for file in found if file is not None]
    if len(paths) < len(found):
        return names, False
    official_names, descendants = read_names(paths[0]), read_hierarchy(paths[1])
    imported = ImportedTables.of(project, official_names)
    with contextlib.suppress(UsageError):  # select names the wrong class
        classes = _classes_of(project, imported, official_names, descendants)
        mids = {mid for chosen in classes for mid in chosen.mids}
        return {name for name, mid in imported.mid_by_class.items() if mid in mids}, True
    return names, False


class _SavedRecipe(TypedDict):
    options: dict[str, Any]
    files: dict[str, str]


def recorded_inputs(project: Project) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the selection was made with, which may differ from the project's options.

    Returns:
        The options of ``[dataset]`` by name, and the MD5 of each official file by its URL; both are
        empty if they are not recorded.
    """
    saved = records.find_intact(project.selection_folder / _RECIPE_FILE, _SavedRecipe)
    if saved is None:
        return {}, {}
    # Older versions recorded URLs with credentials.
    return saved["options"], {display_url(url): md5 for url, md5 in saved["files"].items()}


def _local_recipe(project: Project) -> dict[str, object]:
    """Return the part of a selection's recipe that is known without asking the site."""
    options = options_of.as_dict(project.config.dataset)
    imported = {name: record.fingerprint for name, record in project.imports().items()}
    if not imported:
        del options["difficult"]  # no box of Open Images is marked as difficult
    if project.frozen is not None:
        options["frozen"] = project.frozen.fingerprint
    recipe: dict[str, object] = {
        "options": options,
        "skip_bad_rows": project.config.openimages.skip_bad_rows,
        "version": __version__,
    }
    if project.withdrawn_path.is_file():  # also a list that is empty now
        recipe["the list of withdrawn images"] = staleness.fingerprint(
            sorted(project.withdrawals())
        )
    if imported:
        recipe["imports"] = imported
    return recipe


Guard = Callable[[SelectionChange], None]
"""Function that is called with what a new selection changes, before it is written; may raise."""


@dataclass(frozen=True)
class SelectPreview:
    """What select would do.

    Attributes:
        actions: What it would do, in words; empty if the selection is up to date.
        ids: Ids of the images that would be selected; ``None`` if the selection is up to date, or
            if official files must be downloaded first.
        change: What would change; ``None`` as for ``ids``.
    """

    actions: Sequence[str]
    ids: Sequence[str] | None = None
    change: SelectionChange | None = None


def preview(
    project: Project, *, guard: Guard | None = None, needs_site: bool = False
) -> SelectPreview:
    """Return what ``run`` would do; nothing is downloaded or written.

    Args:
        project: The project.
        guard: As for ``run``.
        needs_site: As for ``run``.

    Raises:
        OiyoloError: As ``run`` would raise.
    """
    options = project.config.openimages
    cache = Cache(project.cache_folder, options.base_url, needs_site=needs_site)
    with contextlib.closing(cache):
        official = release(options.release)
        subsets = [official.subsets[subset] for subset in project.config.dataset.subsets]
        tables_of = [getattr(subset, kind) for subset in subsets for kind in TABLES]
        required = [official.classes, official.hierarchy] if subsets else []
        missing = [
            file
            for file in (required if options.stream else [*required, *tables_of])
            if not cache.is_current(file)
        ]
        site, names = display_url(options.base_url), ", ".join(project.config.dataset.classes)
        if missing:
            _check_available(cache, missing)
            files_text = pluralize(len(missing), "annotation file")
            return SelectPreview([f"download {files_text} from {site}, and search for {names}"])
        inputs = _Inputs(project, cache)
        reason = inputs.stale_reason()
        if reason is None:
            return SelectPreview([])
        if options.stream and subsets:
            _check_available(cache, tables_of)
            return SelectPreview([f"stream the annotations from {site}, and search for {names}"])
        chosen = inputs.choose()
    ids = chosen.images["ImageID"].tolist()
    change = _preview_change(project, chosen)
    chosen.check(guard, change)
    text = f"select {pluralize(len(ids), 'image')}: {_describe(change)}"
    return SelectPreview([text], ids, change)


def run(project: Project, *, guard: Guard | None = None, needs_site: bool = False) -> Selection:
    """Select images and boxes if the selection is stale; the caller holds the dataset lock.

    Args:
        project: The project.
        guard: Function that may reject the new selection before anything is changed.
        needs_site: Whether it is an error that the site cannot be reached, even if all of its files
            are cached.

    Raises:
        UsageError: An unknown class, or nothing is selected.
        UnavailableError: The site is unreachable, and an official file is not in the cache.
        InputFormError: An official file is damaged.
    """
    base_url = project.config.openimages.base_url
    imports_of.recover(project.imports_folder)
    with contextlib.closing(Cache(project.cache_folder, base_url, needs_site=needs_site)) as cache:
        inputs = _Inputs(project, cache)
        reason = inputs.stale_reason()
        if reason is None and (current := find(project)) is not None:
            known = "the cached annotations; the site was not reached" if cache.is_offline else ""
            _log.info("select: up to date%s", f" with {known}" if known else "")
            return current
        # Older versions recorded URLs with credentials.
        _log.info("select: %s", without_secrets(reason or "selection.json is missing"))
        selected = _write(project, inputs, inputs.choose(), guard)
        inputs.write_recipe()
        return selected


def _check_available(cache: Cache, official_files: Iterable[OfficialFile]) -> None:
    """Raise if one of the files is neither cached nor on the site."""
    for file in official_files:
        cache.check_available(file)


class _Inputs:
    """The official files of a selection, in their current versions.

    Args:
        project: The project.
        cache: Where the files are.

    Raises:
        UsageError: An unknown class.
        UnavailableError: The site is unreachable, and an official file is not in the cache.
    """

    def __init__(self, project: Project, cache: Cache) -> None:
        options = project.config.openimages
        official = release(options.release)
        self._project = project
        self._recipe_path = project.selection_folder / _RECIPE_FILE
        self._class_files: tuple[CachedFile, ...] = ()
        official_names: Mapping[str, str] = {}
        descendants: Mapping[str, frozenset[str]] = {}
        if project.uses_open_images:
            self._class_files = cache.get(official.classes), cache.get(official.hierarchy)
            names_path, hierarchy_path = (file.path for file in self._class_files)
            official_names, descendants = read_names(names_path), read_hierarchy(hierarchy_path)
        self.imported = ImportedTables.of(project, official_names)
        self.classes = _classes(project, self.imported, official_names, descendants)
        self._tables_of = {
            subset: _SubsetTables(cache, official.subsets[subset], subset, options)
            for subset in project.config.dataset.subsets
        }

    def _recipe(self) -> dict[str, object]:
        versions = {used.url: used.version for used in self._class_files}
        for subset_tables in self._tables_of.values():
            versions |= subset_tables.versions()
        return {**_local_recipe(self._project), "files": versions}

    def stale_reason(self) -> str | None:
        """Return why the selection is stale; ``None`` if it is up to date."""
        reason = staleness.stale_reason(self._recipe_path, self._recipe())
        current = _find_intact(self._project)
        if reason is not None or current is None:
            return reason or "selection.json is missing"
        if not self._project.ledger_path.is_file():
            return "the ledger is missing"
        return next((f"{n}: {bad}" for n in _TABLES if (bad := current.damage(n))), None)

    def forget_recipe(self) -> None:
        """Mark the selection as stale while it is being written."""
        self._recipe_path.unlink(missing_ok=True)

    def write_recipe(self) -> None:
        """Mark the selection as complete."""
        staleness.write_recipe(self._recipe_path, self._recipe())

    def choose(self) -> _Choice:
        """Read the official tables, and choose images and boxes."""
        return _choose(self._project, self.classes, self._tables_of, self.imported)


def _classes(
    project: Project,
    imported: ImportedTables,
    official_names: Mapping[str, str],
    descendants: Mapping[str, frozenset[str]],
) -> tuple[SelectedClass, ...]:
    try:
        return _classes_of(project, imported, official_names, descendants)
    except UsageError:
        project.discard_if_new()  # do not leave a new project with a misspelt class
        raise


def _classes_of(
    project: Project,
    imported: ImportedTables,
    official_names: Mapping[str, str],
    descendants: Mapping[str, frozenset[str]],
) -> tuple[SelectedClass, ...]:
    return classes_of(
        project.config.dataset.classes,
        imported,
        official_names,
        descendants,
        include_descendants=project.config.dataset.include_descendants,
    )


class _SubsetTables:
    """The three official tables of one subset, read from the cache or streamed from the site."""

    def __init__(
        self, cache: Cache, official: SubsetFiles, subset: str, options: OpenImagesOptions
    ) -> None:
        self.bad_rows: dict[str, int] = {}
        self._cache, self._subset, self._options = cache, subset, options
        self._official = {kind: getattr(official, kind) for kind in TABLES}
        self._opened: dict[str, CachedFile | StreamedFile] = {}
        if not options.stream:
            self._opened = {kind: cache.get(file) for kind, file in self._official.items()}

    def versions(self) -> dict[str, str]:
        """Return each table's version by its URL; empty where a stream has not been read yet."""
        return {
            self._url(kind): (
                self._opened[kind].version
                if kind in self._opened
                else self._cache.current_version(file)
            )
            for kind, file in self._official.items()
        }

    def _url(self, kind: str) -> str:
        return display_url(f"{self._cache.base_url}/{self._official[kind].path}")

    def read(
        self,
        kind: str,
        reader: Callable[[tables.TableSource, Sequence[str]], ScanResult],
        keys: Sequence[str],
    ) -> pd.DataFrame:
        """Return the rows with some keys: MIDs, or ImageIDs for the kind "images"."""
        file = self._opened.get(kind)
        if file is None:
            file = self._opened[kind] = self._cache.open_stream(self._official[kind])
        check_all, skip_bad_rows = not file.rows_checked, self._options.skip_bad_rows
        result = reader(tables.TableSource(file, self._subset, check_all, skip_bad_rows), keys)
        if result.bad_rows:
            self.bad_rows[self._url(kind)] = result.bad_rows
        elif isinstance(file, CachedFile) and check_all:
            self._cache.mark_checked(file)
        return result.rows


@dataclass(frozen=True)
class _Choice:
    """A selection that is not written yet.

    Attributes:
        tables: The selected images and boxes.
        images: The images' rows of the image list.
        bad_rows: Number of skipped rows by URL.
        why_empty: Why no image is selected; empty if some are.
        names: Name in the ledger of each imported image, withdrawn ones included.
    """

    tables: selection.SelectionTables
    images: pd.DataFrame
    bad_rows: Mapping[str, int]
    why_empty: str
    names: Mapping[str, str]

    @property
    def subset_by_id(self) -> dict[str, str]:
        """The subset of each image that matches the options, withdrawn ones included."""
        chosen = self.images["ImageID"].tolist(), self.images["Subset"].tolist()
        return {**self.tables.withdrawn, **dict(zip(*chosen, strict=True))}

    @property
    def import_counts(self) -> dict[str, dict[str, int]]:
        """Number of images and used boxes of each import."""
        if "Import" not in self.images:
            return {}
        import_by_id = self.images.set_index("ImageID")["Import"]
        images = import_by_id.value_counts()
        used = self.tables.boxes.loc[self.tables.boxes["used"], "ImageID"]
        boxes = used.map(import_by_id).value_counts()
        return {
            str(name): {"images": int(count), "boxes": int(boxes.get(name, 0))}
            for name, count in sorted(images.items(), key=str)
            if name != ""
        }

    def check(self, guard: Guard | None, change: SelectionChange | None) -> None:
        """Raise if the guard, if any, rejects the change, or if no image is selected."""
        if guard is not None and change is not None:
            guard(change)
        if self.why_empty:
            raise UsageError(
                "no image is selected",
                expected="at least one box that passes all filters",
                found=self.why_empty,
                remedy="Nothing was changed. Choose other classes, more subsets "
                "(--subset) or weaker filters",
            )


@dataclass(frozen=True)
class _Rows:
    """What the official tables and the imports have for the selected labels.

    Attributes:
        boxes: All boxes.
        labels: All human-verified labels.
        imported: The imports, without the images that count as Open Images' own.
        copies: The import and the name of the copy of each of those, by ImageID.
    """

    boxes: pd.DataFrame
    labels: pd.DataFrame
    imported: ImportedTables
    copies: Mapping[str, tuple[str, str]]


def _read_rows(
    classes: tuple[SelectedClass, ...],
    tables_of: Mapping[str, _SubsetTables],
    imported: ImportedTables,
) -> _Rows:
    mids = [mid for chosen in classes for mid in chosen.mids]
    subset_boxes = [t.read("boxes", tables.read_boxes, mids) for t in tables_of.values()]
    # Half a second, not needed if nothing changed; streams have started to download by now.
    import pandas as pd  # noqa: PLC0415

    copies: dict[str, tuple[str, str]] = {}
    if imported.records and subset_boxes:
        official_ids = {image_id for table in subset_boxes for image_id in table["ImageID"]}
        imported, copies = imported.without_copies(official_ids, mids)
    boxes = pd.concat([*subset_boxes, *imported.boxes(mids)], ignore_index=True)
    del subset_boxes
    subset_labels = [t.read("labels", tables.read_labels, mids) for t in tables_of.values()]
    if imported.records:  # an imported image is not selected a second time as a negative
        imported_ids = imported.official_ids()
        subset_labels = [rows[~rows["ImageID"].isin(imported_ids)] for rows in subset_labels]
    labels = pd.concat([*subset_labels, *imported.labels(classes)], ignore_index=True)
    if imported.records:
        boxes = add_flags(boxes)
        _check_ids(imported, boxes, labels)
    return _Rows(boxes, labels, imported, copies)


def _choose(
    project: Project,
    classes: tuple[SelectedClass, ...],
    tables_of: Mapping[str, _SubsetTables],
    imported: ImportedTables,
) -> _Choice:
    """Read the official tables and those of imports, and choose images and boxes."""
    rows = _read_rows(classes, tables_of, imported)
    import pandas as pd  # noqa: PLC0415  (half a second, not needed if nothing changed)

    boxes, imported = rows.boxes, rows.imported
    options = project.config.dataset
    frozen = None if project.frozen is None else project.frozen.split_by_id.keys()
    limits = selection.SelectionLimits(project.withdrawals().keys(), frozen)
    chosen = selection.select_images(boxes, rows.labels, classes, options, limits)
    why_empty = ""
    if chosen.images.empty:
        places = describe_places(options.subsets, imported)
        why_empty = selection.explain_empty(boxes, chosen.excluded, classes, options, places)
    groups = chosen.images.groupby("Subset")["ImageID"]
    ids_of: dict[str, list[str]] = {str(subset): ids.tolist() for subset, ids in groups}
    image_rows: list[pd.DataFrame] = [
        subset_tables.read("images", tables.read_images, ids_of.get(subset, []))
        for subset, subset_tables in tables_of.items()
    ]
    images = pd.concat([*image_rows, *imported.images(ids_of)]).merge(
        chosen.images.drop(columns="Subset"), on="ImageID"
    )
    images = images.sort_values("ImageID").reset_index(drop=True)
    images = with_copies(images, rows.copies)
    if len(images) < len(chosen.images):  # rows that were malformed and skipped
        chosen = selection.restrict_to(
            chosen, set(images["ImageID"]), "no whole row in the image list"
        )
    bad_rows = {url: n for t in tables_of.values() for url, n in t.bad_rows.items()}
    if not imported.records:
        return _Choice(chosen, images, bad_rows, why_empty, {})
    return _with_own_subsets(_Choice(chosen, images, bad_rows, why_empty, {}), imported)


def _check_ids(imported: ImportedTables, boxes: pd.DataFrame, labels: pd.DataFrame) -> None:
    """Raise if an imported image has the id of another one, in the import or in Open Images."""
    pairs = [
        pair
        for table in (boxes, labels)
        for pair in zip(table["ImageID"].tolist(), table["Subset"].tolist(), strict=True)
    ]
    imported.check_ids(pair for pair in pairs if not imports_of.is_import_source(pair[1]))


def _with_own_subsets(choice: _Choice, imported: ImportedTables) -> _Choice:
    """Return a choice in which imported images have the subset of their source, and names."""
    ids = [*choice.images["ImageID"].tolist(), *choice.tables.withdrawn]
    found = imported.subset_and_name(ids)
    subset_by_id = {image_id: subset for image_id, (subset, _) in found.items()}
    boxes = choice.tables.boxes
    pairs = zip(boxes["ImageID"].tolist(), boxes["Subset"].tolist(), strict=True)
    boxes = boxes.assign(Subset=[subset_by_id.get(i, subset) for i, subset in pairs])
    withdrawn = {i: subset_by_id.get(i, subset) for i, subset in choice.tables.withdrawn.items()}
    return replace(
        choice,
        tables=replace(choice.tables, boxes=boxes, withdrawn=withdrawn),
        images=choice.images.fillna(dict.fromkeys(COLUMNS, "")),
        names={image_id: name for image_id, (_, name) in found.items()},
    )


def _write(project: Project, inputs: _Inputs, choice: _Choice, guard: Guard | None) -> Selection:
    """Write a selection's files, and record its images in the ledger."""
    chosen, images, classes = choice.tables, choice.images, inputs.classes
    try:
        choice.check(guard, None if guard is None else _preview_change(project, choice))
    except UsageError:
        project.discard_if_new()
        raise
    with project.ledger():  # one of a newer version stops this before anything is written
        inputs.forget_recipe()
    folder = project.selection_folder
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_parts(folder)
    # Written last, so that no stage mistakes a half-written selection for a complete one.
    (folder / "selection.json").unlink(missing_ok=True)
    box_columns = [name for name in _BOX_COLUMNS if name in chosen.boxes]
    written = {}
    for name, table in zip(_TABLES, (chosen.boxes[box_columns], images), strict=True):
        content = _csv_text(table).encode()
        files.write_bytes(folder / name, content)
        sha256 = hashlib.sha256(content).hexdigest()
        written[name] = {"lines": content.count(b"\n"), "sha256": sha256}
    _write_url_lists(folder, images)
    summary = _summary(choice, classes, written)
    withdrawn = {i: row.message for i, row in project.withdrawals().items()}
    with project.ledger() as ledger:
        changed = ledger.reselect(choice.subset_by_id, withdrawn, choice.names)
    files.write_json(folder / "selection.json", summary)
    selected = Selection(folder, summary)
    places = describe_places(project.config.dataset.subsets, inputs.imported)
    _log_changes(selected, changed, places)
    return selected


def _summary(
    choice: _Choice, classes: Sequence[SelectedClass], written: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the content of ``selection.json``.

    Args:
        choice: The selection.
        classes: The classes.
        written: Number of lines and SHA-256 of each table that was written.
    """
    chosen, images = choice.tables, choice.images
    summary: dict[str, Any] = {
        "images": len(images),
        "boxes": int(chosen.boxes["used"].sum()),
        "classes": selection.count_per_class(chosen, classes),
        "negatives": int(images["negative"].sum()),
        "folded_in": _count_merged_boxes(chosen.boxes, classes),
        # An imported class that Open Images lacks has its name in place of a MID.
        "labels": {c.name: [mid for mid in c.mids if mid != c.name] for c in classes},
        "excluded": chosen.excluded,
        "bad_rows": choice.bad_rows,
        "tables": written,
        "fingerprint": staleness.fingerprint({name: t["sha256"] for name, t in written.items()}),
    }
    if counts := choice.import_counts:
        summary["imports"] = counts
    if COPY_COLUMN in images:
        copied = images.loc[images[COPY_COLUMN] != "", COPY_COLUMN].value_counts()
        summary["copies"] = {str(name): int(count) for name, count in copied.items()}
    return summary


def _preview_change(project: Project, choice: _Choice) -> SelectionChange:
    """Return what a selection would change."""
    if not project.ledger_path.is_file():
        return SelectionChange(len(choice.images), 0, 0)
    with project.ledger(read_only=True) as ledger:
        return ledger.preview(choice.subset_by_id, choice.tables.withdrawn)


def _describe(change: SelectionChange) -> str:
    added = pluralize(change.added, "image")
    return f"{added} added, {change.kept:,} unchanged, {change.dropped:,} removed"


def _log_changes(selected: Selection, changed: SelectionChange, places: str) -> None:
    _log.info("select: %s", _describe(changed))
    if selected.limit_note:
        _log.info("select: %s", selected.limit_note)
    empty = [name for name, count in selected.summary["classes"].items() if not count["boxes"]]
    if empty:
        _log.warning(
            "select: no box of %s is selected from %s",
            ", ".join(empty),
            places,
        )


def _csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV text, equal to ``to_csv`` but ten times as fast."""
    columns_of = [[*_quoted([str(name)]), *_field_texts(table[name])] for name in table]
    return "\n".join(map(",".join, zip(*columns_of, strict=True))) + "\n"


def _field_texts(column: pd.Series) -> list[str]:
    """Return a column's CSV fields; missing values, as where a subset lacks it, become empty."""
    if column.dtype.kind == "O":
        return _quoted(column.fillna("").tolist())
    # Corners and flags have few distinct values, and formatting numbers is slow.
    codes, values = column.factorize()
    # The code of a missing value is -1, which indexes the last text.
    texts = np.array([*map(str, values.tolist()), ""], dtype=object)
    fields: list[str] = texts[codes].tolist()
    return fields


def _quoted(texts: list[str]) -> list[str]:
    """Return CSV fields, quoted and escaped where necessary."""
    joined = "".join(texts)
    if not any(mark in joined for mark in _QUOTED_CHARACTERS):
        return texts
    needs_quotes = re.compile(f"[{_QUOTED_CHARACTERS}]").search  # faster on short texts only
    return ['"' + text.replace('"', '""') + '"' if needs_quotes(text) else text for text in texts]


def _count_merged_boxes(
    boxes: pd.DataFrame, classes: Sequence[SelectedClass]
) -> dict[str, dict[str, int]]:
    """Return, for each class, the number of boxes of each subclass that was merged into it."""
    merged: dict[str, dict[str, int]] = {}
    for chosen in classes:
        labels = boxes.loc[boxes["class_id"] == chosen.class_id, "LabelName"].value_counts()
        merged[chosen.name] = {
            name: int(labels[mid])
            for mid, name in chosen.merged_subclasses.items()
            if mid in labels
        }
    return merged


def _write_url_lists(folder: Path, images: pd.DataFrame) -> None:
    """Write URL lists in the format of Google's Storage Transfer Service.

    The first line is ``TsvHttpData-1.0``; each further line has URL, size and base64 MD5. The lines
    are sorted by the URL's UTF-8 bytes.
    Format: https://cloud.google.com/storage-transfer/docs/create-url-list
    """
    for old in folder.glob("url-list-*.tsv"):
        old.unlink()
    header = b"TsvHttpData-1.0\n"
    with_url = images[images["OriginalURL"] != ""]
    columns_of = (with_url[n].tolist() for n in ("OriginalURL", "OriginalSize", "OriginalMD5"))
    # Python sorts strings by code point, which is also the order of their UTF-8 bytes.
    rows = sorted(map("\t".join, zip(*columns_of, strict=True)))
    lines = "".join(f"{row}\n" for row in rows).encode()
    pieces = _split_lines(lines, _URL_LIST_BYTES - len(header) - 1)
    for number, piece in enumerate(pieces, start=1):
        files.write_bytes(folder / f"url-list-{number:04}.tsv", header + piece)


def _split_lines(lines: bytes, max_bytes: int) -> list[bytes]:
    """Split text at line ends into at least one piece of at most ``max_bytes`` each.

    Every line must be shorter than ``max_bytes``.
    """
    pieces = []
    while len(lines) > max_bytes:
        end = lines.rindex(b"\n", 0, max_bytes) + 1
        pieces.append(lines[:end])
        lines = lines[end:]
    return [*pieces, lines]
