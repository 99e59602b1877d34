"""Write what a reader yields into the tables of an import, one image at a time, and count it."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.output import is_utf8
from oiyolo.interchange.imported import Problem
from oiyolo.openimages.selection import SEPARATOR
from oiyolo.project import imports
from oiyolo.project.imports import collision_error, image_id_of, is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

    from oiyolo.interchange.imported import ImportedBox, ImportedImage

_SUBSET_OF_SPLIT: Final = {"": "", "train": "train", "valid": "validation", "test": "test"}
_PROBLEM_COLUMNS: Final = ("kind", "file", "line", "skipped", "message")
_SHOWN_PROBLEMS: Final = 5
_DRAWN: Final = "imported"
_NAME_PROBLEM: Final = "name of an image that cannot be used"


@dataclass
class ReadCounts:
    """What was read.

    Attributes:
        images: Number of images.
        boxes: Number of boxes.
        predicted_boxes: Number of those that a detector predicted.
        without_boxes: Number of images without a box.
        image_counts: Number of images by class, after the class map.
        box_counts: Number of boxes by class.
        other_boxes: Number of boxes by class that was not to be imported.
        source_names: The classes' names in the source.
        splits: Number of images by their split in the source.
        problems: Number of problems by kind.
        skipped: Number of boxes, images and files that were skipped because of problems.
        first_problems: The first problems.
    """

    images: int = 0
    boxes: int = 0
    predicted_boxes: int = 0
    without_boxes: int = 0
    image_counts: Counter[str] = field(default_factory=Counter)
    box_counts: Counter[str] = field(default_factory=Counter)
    other_boxes: Counter[str] = field(default_factory=Counter)
    source_names: set[str] = field(default_factory=set)
    splits: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    first_problems: list[Problem] = field(default_factory=list)

    def add_image(self, image: ImportedImage, class_names: Sequence[str]) -> None:
        """Count an image, and the classes of its boxes, of which those without a name are left out.

        Args:
            image: The image.
            class_names: Name of the class of each box that is imported.
        """
        self.images += 1
        self.boxes += len(class_names)
        self.without_boxes += not class_names
        self.predicted_boxes += sum(box.is_predicted for box in image.boxes)
        if image.split:
            self.splits[image.split] += 1
        self.box_counts.update(class_names)
        self.image_counts.update(set(class_names))

    def add_problem(self, problem: Problem) -> None:
        """Count a problem."""
        self.problems[problem.kind] += 1
        if problem.skipped:
            self.skipped[problem.skipped] += 1
        if len(self.first_problems) < _SHOWN_PROBLEMS:
            self.first_problems.append(problem)

    @property
    def unusable_classes(self) -> list[str]:
        """The names that no class can have."""
        return sorted(name for name in self.box_counts if not _is_usable(name))


def _is_usable(name: str) -> bool:
    is_one_line = name == name.strip() and name.isprintable()
    return bool(name) and is_one_line and SEPARATOR not in name


def location(problem: Problem) -> str:
    """Return where a problem is: the file, and the line if there is one."""
    return f"{problem.path}:{problem.line}" if problem.line else str(problem.path)


class Sink:
    """The tables of a new import.

    Args:
        folder: An empty folder.
        import_name: Name of the import.
        class_map: New name by the name in the source.
        only: Names of the classes to import, after the class map; empty for all.
    """

    def __init__(
        self,
        folder: Path,
        import_name: str,
        class_map: Mapping[str, str],
        only: Sequence[str],
    ) -> None:
        self.tally = ReadCounts()
        self._import_name, self._class_map, self._only = import_name, class_map, set(only)
        self._name_by_id: dict[str, str] = {}
        self._files: list[TextIO] = []
        columns = {
            imports.IMAGES: imports.IMAGE_COLUMNS,
            imports.BOXES: imports.BOX_COLUMNS,
            imports.PROBLEMS: _PROBLEM_COLUMNS,
        }
        self._writers = {name: self._open(folder, name, names) for name, names in columns.items()}

    def _open(self, folder: Path, name: str, columns: Sequence[str]) -> Any:  # noqa: ANN401  (csv has no public type)
        # Closed by ``close``; a new folder is renamed only after that.
        file = (folder / name).open("w", encoding="utf-8", newline="")
        self._files.append(file)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        return writer

    def close(self) -> None:
        """Flush the tables to the disk and close them."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()

    @property
    def image_ids(self) -> Mapping[str, str]:
        """The name of each image by its id."""
        return self._name_by_id

    def write_all(self, records: Iterable[ImportedImage | Problem]) -> Iterator[None]:
        """Write records, and yield after each of them."""
        for record in records:
            problem = record if isinstance(record, Problem) else self._write_image(record)
            if problem is not None:
                self._write_problem(problem)
            yield

    def _write_problem(self, problem: Problem) -> None:
        self.tally.add_problem(problem)
        row = (problem.kind, problem.path, problem.line or "", problem.skipped, problem.message)
        self._writers[imports.PROBLEMS].writerow(
            [str(value).encode(errors="backslashreplace").decode() for value in row]
        )

    def _write_image(self, image: ImportedImage) -> Problem | None:
        """Write an image and its boxes; return why it is not imported, if it is not."""
        if not is_inside(image.name) or not is_utf8(image.name):
            message = "the name is not UTF-8, or it leads out of the folder"
            return Problem(_NAME_PROBLEM, image.path, 0, message, "image")
        image_id = image_id_of(self._import_name, image.name)
        if (first := self._name_by_id.get(image_id)) is not None:
            if first != image.name:
                raise collision_error(image_id, first, image.name)
            return Problem("image listed twice", image.path, 0, "only the first is read", "image")
        self._name_by_id[image_id] = image.name
        try:
            status = image.path.stat()
        except OSError as error:
            kind = "image that cannot be read"
            return Problem(kind, image.path, 0, error.strerror or str(error), "image")
        (width, height), subset = image.size_wh, _SUBSET_OF_SPLIT[image.split]
        file = (status.st_size, status.st_mtime_ns, width, height)
        self._writers[imports.IMAGES].writerow(
            (image_id, subset, image.name, image.rotation, *file, image.image_id)
        )
        names = list(self._write_boxes(image_id, image.boxes))
        self.tally.add_image(image, names)
        return None

    def _write_boxes(self, image_id: str, boxes: Iterable[ImportedBox]) -> Iterator[str]:
        """Write the boxes that are imported, and yield the class of each."""
        writer = self._writers[imports.BOXES]
        for box in boxes:
            self.tally.source_names.add(box.class_name)
            name = self._class_map.get(box.class_name, box.class_name)
            if self._only and name not in self._only:
                self.tally.other_boxes[name] += 1
                continue
            left, top, right, bottom = box.xyxy
            source = imports.PREDICTED if box.is_predicted else _DRAWN
            flags = (box.occluded, box.truncated, box.group_of, box.depiction, box.inside)
            row = (image_id, source, name, box.confidence, left, right, top, bottom)
            writer.writerow((*row, *flags, box.difficult))
            yield name


def read_states(path: Path) -> dict[str, tuple[str, str]]:
    """Return the size and the time of the last change of each image in a table, by its id."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return {row["ImageID"]: (row["OriginalSize"], row["Modified"]) for row in rows}
