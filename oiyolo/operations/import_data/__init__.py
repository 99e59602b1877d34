"""import: take labelled images of other programs into a project.

Writes ``data/imports/<name>/``: the images and boxes in tables like Open Images' own, the problems,
and a record of where they come from.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

from oiyolo.core import files, staleness
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan
from oiyolo.operations.import_data.result import (
    Imported,
    exceeds,
    first_problems,
    notes,
    problem_lines,
    sizes,
)
from oiyolo.operations.import_data.tables import Sink, read_states
from oiyolo.project import config as project_config
from oiyolo.project import imports
from oiyolo.project.imports import Import, collision_error
from oiyolo.project.ledger import PENDING, Change
from oiyolo.project.project import Project, create, open_project
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike
    from typing import Literal

    from oiyolo.interchange.imported import Reader
    from oiyolo.operations.import_data.tables import ReadCounts
    from oiyolo.project.project import ProjectLike

_log = logging.getLogger("oiyolo")

Guard = Callable[[str, int, int], None]
"""Function that may reject an import that loses images: its name, the images before, the lost."""

_OPTIONS: Final = ("pixel_origin", "exif", "classes", "class_map", "keep_splits")


@overload
def import_images(
    format_name: str,
    path: str | PathLike[str],
    project: ProjectLike = ...,
    *,
    classes: str | Sequence[str] | None = ...,
    class_map: Mapping[str, str] | Sequence[str] | None = ...,
    name: str | None = ...,
    pixel_origin: Literal[0, 1] = ...,
    exif: Literal["stored", "upright"] = ...,
    keep_splits: bool = ...,
    licence: str | None = ...,
    credit: str | None = ...,
    tolerance: float | None = ...,
    dry_run: Literal[False] = ...,
) -> Imported: ...


@overload
def import_images(
    format_name: str,
    path: str | PathLike[str],
    project: ProjectLike = ...,
    *,
    classes: str | Sequence[str] | None = ...,
    class_map: Mapping[str, str] | Sequence[str] | None = ...,
    name: str | None = ...,
    pixel_origin: Literal[0, 1] = ...,
    exif: Literal["stored", "upright"] = ...,
    keep_splits: bool = ...,
    licence: str | None = ...,
    credit: str | None = ...,
    tolerance: float | None = ...,
    dry_run: Literal[True],
) -> Plan: ...


@overload
def import_images(
    format_name: str,
    path: str | PathLike[str],
    project: ProjectLike = ...,
    *,
    classes: str | Sequence[str] | None = ...,
    class_map: Mapping[str, str] | Sequence[str] | None = ...,
    name: str | None = ...,
    pixel_origin: Literal[0, 1] = ...,
    exif: Literal["stored", "upright"] = ...,
    keep_splits: bool = ...,
    licence: str | None = ...,
    credit: str | None = ...,
    tolerance: float | None = ...,
    dry_run: bool,
) -> Imported | Plan: ...


def import_images(  # the command is called import, which is a keyword of Python
    format_name: str,
    path: str | PathLike[str],
    project: ProjectLike = ".",
    *,
    classes: str | Sequence[str] | None = None,
    class_map: Mapping[str, str] | Sequence[str] | None = None,
    name: str | None = None,
    pixel_origin: Literal[0, 1] = 1,
    exif: Literal["stored", "upright"] = "stored",
    keep_splits: bool = False,
    licence: str | None = None,
    credit: str | None = None,
    tolerance: float | None = None,
    dry_run: bool = False,
) -> Imported | Plan:
    """Import labelled images; in a project without Open Images, copy them into it as well.

    A folder without a project gets one with the imported classes and no image of Open Images. If
    nothing has changed since the last import, nothing is written. Problems do not end the import:
    they are listed in ``data/imports/<name>/problems.csv``.

    Args:
        format_name: "voc", "yolo", "coco" or "openimages".
        path: Folder of the images and labels, or the file that describes them.
        project: An open project or its folder.
        classes: The classes to import, in the order of their ids in a new project; all by default.
        class_map: New names of classes by their name in the source; or texts "theirs=ours".
        name: Name of the import; that of the folder by default. With its path in the import, it
            identifies an image.
        pixel_origin: Coordinates of the top left pixel in VOC files.
        exif: What the boxes of a photograph refer to that its EXIF data turn, where its labels do
            not say so.
        keep_splits: Whether images keep the splits of the source.
        licence: Licence of the images, a URL or a name; not stated by default.
        credit: Whom to credit for the images; not stated by default.
        tolerance: Share of the images, and of the boxes, that may be skipped because of problems;
            ``[images] tolerance`` by default. The result says whether more were.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: An unknown format, class or option; or the name belongs to another import.
        InputFormError: There is nothing to import, or two images have the same id.
        UnavailableError: The disk is full, or the images cannot be copied.
        LockedError: Another process is changing the dataset.
    """
    source = Path(path).absolute()
    job = _Job(
        _open(project, tolerance),
        format_name,
        source,
        imports.default_name(source) if name is None else name,
        {
            "pixel_origin": pixel_origin,
            "exif": exif,
            "classes": _names(classes),
            "class_map": _parse_map(class_map or {}),
            "keep_splits": keep_splits,
        },
        licence or "",
        credit or "",
    )
    job.check()
    if dry_run:
        return job.plan()
    with job.project.data_lock("import"):
        return job.run()


def read_again(project: Project, guard: Guard | None = None) -> list[Imported]:
    """Import the folders of all imports again, with their options; the caller holds the lock.

    An import whose folder is not on this machine stays as it is.

    Args:
        project: The project.
        guard: Function that may reject an import that loses images.

    Returns:
        The imports that changed.

    Raises:
        OiyoloError: As for ``import_images``.
    """
    imports.recover(project.imports_folder)
    read = [job.read(guard) for job in _recorded_jobs(project)]
    return [result for result in read if result.changed]


def changed_names(project: Project) -> list[str]:
    """Return the names of the imports whose source has changed, without changing anything."""
    return [job.name for job in _recorded_jobs(project) if job.is_stale()]


def _recorded_jobs(project: Project) -> Iterator[_Job]:
    for record in project.imports().values():
        if not Path(record.path).exists():
            _log.warning(
                "import %s: %s is not on this machine; its images stay as they are",
                record.name,
                record.path,
            )
            continue
        options = {name: record.options[name] for name in _OPTIONS}
        yield _Job(
            project,
            record.format,
            Path(record.path),
            record.name,
            options,
            record.licence,
            record.credit,
        )


def _open(project: ProjectLike, tolerance: float | None) -> Project:
    """Open a project; return a new one without Open Images for a folder that has none."""
    options = {"tolerance": tolerance}
    if isinstance(project, Project):
        return open_project(project, options)
    path = Path(project).absolute() / project_config.FILE_NAME
    if path.is_file():
        return open_project(project, options)
    config = project_config.load(path, {"subsets": (), **options})
    return Project(path.parent, config, is_new=True)


def _names(classes: str | Sequence[str] | None) -> list[str]:
    """Return class names, each once; a text may list several, with commas in between."""
    texts = [classes] if isinstance(classes, str) else list(classes or ())
    names = [name.strip() for text in texts for name in text.split(",")]
    return list(dict.fromkeys(filter(None, names)))


def _parse_map(class_map: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return new names by old ones.

    Raises:
        UsageError: A text is not of the form "theirs=ours", or a name has two new ones.
    """
    if not isinstance(class_map, (list, tuple)):
        return dict(class_map)  # type: ignore[arg-type]  # a mapping
    renamed: dict[str, str] = {}
    for text in class_map:
        theirs, _, ours = (part.strip() for part in text.partition("="))
        if not (theirs and ours) or renamed.setdefault(theirs, ours) != ours:
            raise UsageError(
                "invalid value for --map",
                expected="theirs=ours, each name of the source once",
                found=repr(text),
            )
    return renamed


@dataclass(frozen=True)
class _Job:
    """One import.

    Attributes:
        project: The project, which need not exist yet.
        format_name: Format of the source.
        path: What is imported.
        name: Name of the import.
        options: How it is read.
        licence: Licence of the images.
        credit: Whom to credit for them.
    """

    project: Project
    format_name: str
    path: Path
    name: str
    options: Mapping[str, Any]
    licence: str
    credit: str

    def check(self) -> None:
        """Raise UsageError if the job cannot work, before anything is read."""
        imports.check_name(self.name)
        if not self.path.exists():
            raise UsageError("nothing to import: no such file or folder", where=str(self.path))
        if self.path.is_dir() and self.project.folder.resolve().is_relative_to(self.path.resolve()):
            raise UsageError(
                "the project is inside the folder that is to be imported, which would then contain "
                "the project's own copies",
                where=str(self.path),
                found=f"the project in {self.project.folder}",
                remedy="Use a folder elsewhere for the project (--project)",
            )
        before = self._before()
        if before is not None and Path(before.path) != self.path and Path(before.path).exists():
            raise UsageError(
                f"the name {self.name} belongs to another import",
                where=str(self.path),
                found=f"{self.name} was imported from {before.path}",
                remedy="Choose another name (--name)",
            )

    def _before(self) -> Import | None:
        return imports.find(self.project.imports_folder, self.name)

    def _reader(self) -> Reader:
        from oiyolo.interchange.imported import ReadOptions  # noqa: PLC0415  (as below)
        from oiyolo.interchange.readers import READERS  # noqa: PLC0415  (reads XML, JSON...)

        if self.format_name not in READERS:
            raise UsageError(
                f"unknown format {self.format_name!r}", expected=", ".join(sorted(READERS))
            )
        options = ReadOptions(self.options["pixel_origin"], self.options["exif"])
        return READERS[self.format_name](self.path, options)

    def run(self) -> Imported:
        """Import, create the project if it is new, and copy the images if they are all imported."""
        result = self.read()
        project = self.project
        if project.is_new:
            project = open_project(project.folder, {"tolerance": project.config.images.tolerance})
        used, is_complete = select_stage.imported_classes(project)
        others = {n: c["boxes"] for n, c in result.record.classes.items() if n not in used}
        result = replace(result, other_classes=others, may_be_subclasses=not is_complete)
        if not project.uses_open_images:
            excluded = select_stage.run(project).summary["excluded"]
            fetched = fetch_stage.run(project)
            result = replace(result, excluded=excluded, fetched=fetched)
        return result

    def read(self, guard: Guard | None = None) -> Imported:
        """Read the source, and replace the import's tables if they changed."""
        imports_folder = self.project.imports_folder
        reader, before = self._reader(), self._before()
        folder = imports.new_folder(imports_folder, self.name)
        try:
            sink = self._read_into(folder, reader)
            record = self._record(sink, reader, folder)
            changes = _Changes.between(imports_folder / self.name, folder, before, record)
            if guard is not None and before is not None:
                guard(self.name, before.images, len(changes.removed))
            _log_problems(sink.tally)
            if changes.is_any:
                self._check_ids(sink.image_ids)
                self._create_project(record)
                self._mark_changed(changes.updated)
                imports.install(imports_folder, self.name, record)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if self.project.is_new and not self.project.options_path.is_file():
            self._create_project(record)
        return Imported(
            record,
            imports_folder / self.name,
            sink.tally,
            changed=changes.is_any,
            new=changes.new,
            updated=len(changes.updated),
            removed=len(changes.removed),
            tolerance=self.project.config.images.tolerance,
        )

    def is_stale(self) -> bool:
        """Return whether the source differs from what was imported; writes nothing permanent."""
        return self._differs(self._read_aside()[1])

    def _read_aside(self) -> tuple[Sink, Import]:
        """Read the source as an import would, into tables that are not kept."""
        import tempfile  # noqa: PLC0415  (for a dry run only)

        with tempfile.TemporaryDirectory(prefix="oiyolo-import-") as folder:
            reader = self._reader()
            sink = self._read_into(Path(folder), reader)
            return sink, self._record(sink, reader, Path(folder))

    def _has_missing_images(self) -> bool:
        """Return whether images of the project have not been copied."""
        if not self.project.ledger_path.is_file():
            return True
        with self.project.ledger(read_only=True) as ledger:
            return bool(ledger.missing("fetch"))

    def _differs(self, record: Import) -> bool:
        before = self._before()
        return before is None or before.fingerprint != record.fingerprint

    def plan(self) -> Plan:
        """Return what ``run`` would do."""
        sink, record = self._read_aside()
        actions = []
        if self._differs(record):
            actions.append(f"import {sizes(record)} as {self.name}: {', '.join(record.classes)}")
        if self.project.is_new:
            actions.append(f"write {self.project.options_path} with these classes")
        if not self.project.uses_open_images and (actions or self._has_missing_images()):
            actions.append("copy the images into data/images")
        for line in [*notes(record, sink.tally), *problem_lines(sink.tally)]:
            _log.info("import: %s", line)
        _log_problems(sink.tally)
        facts = Imported(record, self.project.imports_folder / self.name, sink.tally, changed=True)
        left_out = ("changed", "new", "updated", "removed", "fetched", "problems_file")
        content = {key: value for key, value in facts.as_dict().items() if key not in left_out}
        exceeds_tolerance = exceeds(sink.tally, self.project.config.images.tolerance)
        return Plan("import", actions, {**content, "exceeds_tolerance": exceeds_tolerance})

    def _read_into(self, folder: Path, reader: Reader) -> Sink:
        """Read the source into tables."""
        sink = Sink(folder, self.name, self.options["class_map"], self.options["classes"])
        try:
            with progress("import", unit="img", delay_s=1.0) as bar:
                for _ in sink.write_all(reader.read()):
                    bar.advance(1)
        finally:
            sink.close()
        self._check_content(sink.tally, reader)
        return sink

    def _check_content(self, tally: ReadCounts, reader: Reader) -> None:
        """Raise if the source has nothing to import, or names that do not fit the options."""
        if not tally.images:
            lines = first_problems(tally)
            raise InputFormError(
                f"no image with labels in the format {self.format_name}",
                where=str(self.path),
                found="; ".join([*problem_lines(tally), *lines[:1]]),
                remedy="Nothing was imported. docs/import.md shows what each format consists of",
            )
        if unusable := tally.unusable_classes:
            raise InputFormError(
                "a class cannot have this name",
                where=str(self.path),
                expected="one line of text without |, not blank",
                found=ascii(unusable[0])[:60],
                remedy="Nothing was imported. Rename it with --map theirs=ours",
            )
        theirs = {*tally.source_names, *reader.class_order()}
        ours = {self.options["class_map"].get(name, name) for name in theirs}
        for option, names, known in (
            ("--map", self.options["class_map"], theirs),
            ("--classes", self.options["classes"], ours),
        ):
            if missing := [name for name in names if name not in known]:
                raise UsageError(
                    f"{option}: the source has no class {missing[0]!r}",
                    where=str(self.path),
                    expected=f"one of {', '.join(sorted(known)) or 'none: it has no boxes'}",
                    remedy="Nothing was imported",
                )

    def _record(self, sink: Sink, reader: Reader, folder: Path) -> Import:
        """Return the record of tables."""
        tally, class_map = sink.tally, self.options["class_map"]
        listed = [class_map.get(name, name) for name in reader.class_order()]
        names = list(dict.fromkeys([*listed, *sorted(tally.box_counts)]))
        if only := self.options["classes"]:
            names = only
        tables = {n: files.sha256_of(folder / n) for n in (imports.IMAGES, imports.BOXES)}
        record = Import(
            name=self.name,
            format=self.format_name,
            path=str(self.path),
            folder=str(reader.folder),
            options=self.options,
            class_names=names,
            class_map={n: class_map[n] for n in sorted(tally.source_names) if n in class_map},
            images=tally.images,
            boxes=tally.boxes,
            predicted_boxes=tally.predicted_boxes,
            classes={
                name: {"images": tally.image_counts[name], "boxes": tally.box_counts[name]}
                for name in names
                if tally.box_counts[name]
            },
            problems=dict(tally.problems.most_common()),
            skipped=dict(tally.skipped),
            tables=tables,
            licence=self.licence,
            credit=self.credit,
        )
        decisive = ("folder", "options", "class_names", "tables", "licence", "credit")
        content = {name: record.as_dict()[name] for name in decisive}
        return replace(record, fingerprint=staleness.fingerprint(content))

    def _check_ids(self, names: Mapping[str, str]) -> None:
        """Raise if another image of the project has the id of an imported one."""
        if not self.project.ledger_path.is_file():
            return
        with self.project.ledger(read_only=True) as ledger:
            own_names = ledger.original_names()
            for image_id in ledger.known_ids(names):
                ours = imports.original_name(self.name, names[image_id])
                theirs = own_names.get(image_id, "an image of Open Images")
                if theirs != ours:
                    raise collision_error(image_id, ours, theirs)

    def _create_project(self, record: Import) -> None:
        """Write the ``oiyolo.toml`` of a new project."""
        if self.project.is_new and not self.project.options_path.is_file():
            if not record.classes:
                raise InputFormError(
                    "no image has a box, so there is no class to train",
                    where=str(self.path),
                    remedy="Nothing was imported. Create a project with `oiyolo init --class NAME`"
                    " first to import images without objects",
                )
            create(self.project.folder, {"classes": list(record.classes), "subsets": []})

    def _mark_changed(self, image_ids: Sequence[str]) -> None:
        """Have the images whose files changed copied again.

        This precedes the new tables. After a kill in between, they are copied once too often.
        """
        if not image_ids or not self.project.ledger_path.is_file():
            return
        with self.project.ledger() as ledger:
            withdrawn, states = ledger.withdrawn_ids(), ledger.column("state")
            ids = [i for i in image_ids if states.get(i, PENDING) != PENDING]
            message = "its file in the import has changed"
            changes = [Change(i, PENDING, message) for i in ids if i not in withdrawn]
            ledger.record(fetch_stage.STAGE, changes)


@dataclass(frozen=True)
class _Changes:
    """How an import differs from the one before.

    Attributes:
        is_any: Whether it differs at all.
        new: Number of new images.
        updated: Ids of the images whose files changed.
        removed: Ids of the images that are gone.
    """

    is_any: bool
    new: int
    updated: Sequence[str]
    removed: Sequence[str]

    @classmethod
    def between(
        cls, old_folder: Path, new_folder: Path, before: Import | None, record: Import
    ) -> _Changes:
        now = read_states(new_folder / imports.IMAGES)
        if before is None:
            return cls(True, len(now), (), ())
        old_path = old_folder / imports.IMAGES
        old = read_states(old_path) if old_path.is_file() else {}
        return cls(
            before.as_dict() != record.as_dict() or not (old_folder / imports.BOXES).is_file(),
            len(now.keys() - old.keys()),
            sorted(i for i in now.keys() & old.keys() if now[i] != old[i]),
            sorted(old.keys() - now.keys()),
        )


def _log_problems(tally: ReadCounts) -> None:
    """Print the first problems, and how many there are."""
    count = tally.problems.total()
    shown = first_problems(tally)
    for line in shown:
        _log.warning("import: %s", line)
    if count > len(shown):
        _log.warning("import: %s problems in all; %d are shown", f"{count:,}", len(shown))
