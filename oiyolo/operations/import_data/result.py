"""What an import did, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import Result, format_table, pluralize
from oiyolo.operations.import_data.tables import location

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.operations.import_data.tables import ReadCounts
    from oiyolo.project.imports import Import
    from oiyolo.stages.fetch import Fetched

_SKIPPED_NOUNS: Final = {"image": "image", "file": "label file", "box": "box"}


@dataclass(frozen=True)
class Imported(Result):
    """Result of ``oiyolo import``.

    Attributes:
        record: The import.
        folder: Its folder, with ``problems.csv``.
        tally: What was read.
        changed: Whether the project's tables were written, because the source is new or changed.
        new: Number of images that are new in this import.
        updated: Number of images whose file has changed.
        removed: Number of images that the source no longer has.
        other_classes: Number of boxes by class that ``[dataset] classes`` lacks.
        may_be_subclasses: Whether some of ``other_classes`` may be subclasses of the project's.
        excluded: Number of images that were not selected, by reason.
        tolerance: Share of the images or boxes that may be skipped.
        fetched: The result of copying the images; ``None`` if ``oiyolo fetch`` is still to do it.
    """

    record: Import
    folder: Path
    tally: ReadCounts
    changed: bool
    new: int = 0
    updated: int = 0
    removed: int = 0
    other_classes: Mapping[str, int] = field(default_factory=dict)
    may_be_subclasses: bool = False
    excluded: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = 0.0
    fetched: Fetched | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 3 if more was skipped than the tolerance allows."""
        return InputFormError.exit_code if self.exceeds_tolerance else 0

    @property
    def exceeds_tolerance(self) -> bool:
        """Whether more images or boxes were skipped than the tolerance allows."""
        return exceeds(self.tally, self.tolerance)

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        names = ("name", "format", "path", "images", "boxes", "predicted_boxes", "class_map")
        record = self.record.as_dict()
        return {
            **{name: record[name] for name in names},
            "classes": {name: dict(n) for name, n in self.record.classes.items()},
            "without_boxes": self.tally.without_boxes,
            "changed": self.changed,
            "new": self.new,
            "updated": self.updated,
            "removed": self.removed,
            "not_imported": dict(self.tally.other_boxes),
            "not_in_classes": dict(self.other_classes),
            "problems": dict(self.tally.problems.most_common()),
            "skipped": dict(self.tally.skipped),
            "problems_file": str(self.folder / "problems.csv"),
            "fetched": None if self.fetched is None else self.fetched.as_dict(),
        }

    def __str__(self) -> str:
        lines = [self._headline(), class_table(self.record)]
        lines += notes(self.record, self.tally)
        lines += problem_lines(self.tally)
        if self.tally.problems:
            lines.append(f"all problems: {self.folder / 'problems.csv'}")
        lines += self._next_steps()
        return "\n".join(lines)

    def _headline(self) -> str:
        record, content = self.record, sizes(self.record)
        if not self.changed:
            return f"import: nothing to do; {record.name} has {content}, as in {record.path}"
        changes = {"new": self.new, "changed": self.updated, "removed": self.removed}
        counts = ", ".join(f"{n:,} {what}" for what, n in changes.items() if n)
        is_first = self.new == record.images
        detail = "" if is_first or not counts else f" ({counts})"
        return f"imported {content}{detail} from {record.path} ({record.format}) as {record.name}"

    def _next_steps(self) -> list[str]:
        lines = []
        if self.other_classes:
            names = ", ".join(f"{name} ({n:,})" for name, n in self.other_classes.items())
            unless = " unless as subclasses" if self.may_be_subclasses else ""
            lines.append(
                f"not in [dataset] classes, so not used{unless}: {names}; add these names to "
                "oiyolo.toml to use their boxes, or pass --map"
            )
        lines += [f"not selected: {n:,} {why}" for why, n in self.excluded.items()]
        if self.fetched is None:
            lines.append("next: oiyolo fetch, then oiyolo split")
        else:
            lines += [str(self.fetched), "next: oiyolo split"]
        return lines


def exceeds(tally: ReadCounts, tolerance: float) -> bool:
    """Return whether more images or boxes were skipped than a tolerance allows."""
    images = tally.skipped["image"] + tally.skipped["file"]
    boxes = tally.skipped["box"]
    allowed = tolerance * (tally.images + images), tolerance * (tally.boxes + boxes)
    return images > allowed[0] or boxes > allowed[1]


def sizes(record: Import) -> str:
    """Return the number of images and boxes of an import, in words."""
    return f"{pluralize(record.images, 'image')} with {pluralize(record.boxes, 'box')}"


def class_table(record: Import) -> str:
    """Return a table of the classes, with their names in the source where these differ."""
    names_of: dict[str, list[str]] = {}
    for theirs, ours in record.class_map.items():
        names_of.setdefault(ours, []).append(theirs)
    header: Sequence[object] = ("class", "images", "boxes")
    rows: list[Sequence[object]] = [
        (name, f"{numbers['images']:,}", f"{numbers['boxes']:,}")
        for name, numbers in record.classes.items()
    ]
    if names_of:
        header = (*header, "from")
        rows = [(*row, ", ".join(names_of.get(str(row[0]), ())) or "-") for row in rows]
    return format_table([header, *rows])


def notes(record: Import, tally: ReadCounts) -> list[str]:
    """Return what a user should know about what was read, a line each."""
    lines = []
    if tally.without_boxes:
        images = pluralize(tally.without_boxes, "image")
        lines.append(f"{images} without a box: [dataset] negatives selects them as negatives")
    if tally.predicted_boxes:
        boxes = pluralize(tally.predicted_boxes, "box")
        lines.append(f"pre-labels: {boxes} predicted by a detector and not checked by anyone")
    if splits := ", ".join(f"{name} {n:,}" for name, n in tally.splits.items() if n):
        fate = "kept" if record.keeps_splits else "--keep-splits keeps them"
        lines.append(f"splits in the source: {splits} ({fate})")
    if tally.other_boxes:
        names = ", ".join(f"{name} ({n:,})" for name, n in tally.other_boxes.most_common())
        lines.append(f"boxes of other classes, not imported: {names}")
    return lines


def problem_lines(tally: ReadCounts) -> list[str]:
    """Return the number of problems of each kind, and what was skipped, a line each."""
    lines = [f"problem: {n:,} {kind}" for kind, n in tally.problems.most_common()]
    skipped = ", ".join(
        pluralize(tally.skipped[what], noun)
        for what, noun in _SKIPPED_NOUNS.items()
        if tally.skipped[what]
    )
    return [*lines, f"skipped: {skipped}"] if skipped else lines


def first_problems(tally: ReadCounts) -> list[str]:
    """Return where the first problems are and what they are, a line each."""
    return [
        f"{location(problem)}: {problem.kind}: {problem.message}"
        for problem in tally.first_problems
    ]
