"""``data/refresh.json``: the dataset as the last refresh left it, with which the next compares it.

So the changes that successive refreshes report add up, whatever happened between them: a refresh
that failed half way, ``oiyolo withdraw``, or stages that someone ran by hand.
"""

from __future__ import annotations

import csv
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from oiyolo.core import files, records
from oiyolo.core.clock import utc_now
from oiyolo.project.ledger import EXCLUDED, SPLITS
from oiyolo.stages.prepare import boxes_csv

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

NAME: Final = "refresh.json"


@dataclass(frozen=True)
class ImageState:
    """An image of the dataset.

    Attributes:
        split: Its split.
        boxes: Number of its boxes that are labels.
        checksum: Checksum of these boxes.
    """

    split: str
    boxes: int
    checksum: int

    @classmethod
    def parse(cls, text: str) -> ImageState:
        """Return the state that ``str`` returned a text of, or raise ``ValueError``."""
        split, boxes, checksum = text.split(" ")
        if split not in SPLITS:
            raise ValueError(text)
        return cls(split, int(boxes), int(checksum, 16))

    def __str__(self) -> str:
        return f"{self.split} {self.boxes} {self.checksum:08x}"


@dataclass(frozen=True)
class DatasetState:
    """The dataset at one moment.

    Attributes:
        images: Every image that has a split, by id.
        excluded: Number of excluded images.
        stamp: What the last complete refresh depended on (``current.stamp``); empty if none did.
        waiting: Number of images that are to be changed when no training run uses them.
    """

    images: Mapping[str, ImageState]
    excluded: int
    stamp: Mapping[str, object] = field(default_factory=dict)
    waiting: int = 0

    @property
    def splits(self) -> dict[str, int]:
        """Number of images by split."""
        counts = dict.fromkeys(SPLITS, 0)
        for image in self.images.values():
            counts[image.split] += 1
        return counts


class _Saved(TypedDict):
    """The fields of ``refresh.json``; the images are checked when they are needed."""

    at: str
    stamp: dict[str, Any]
    excluded: int
    waiting: int
    splits: dict[str, int]
    images: Any


@dataclass(frozen=True)
class SavedState:
    """The content of ``refresh.json``, of which the images are read only if they are needed.

    Attributes:
        fields: The content.
    """

    fields: _Saved

    def load(self) -> DatasetState | None:
        """Return the dataset; ``None`` if the file is damaged."""
        fields = self.fields
        try:
            images = {i: ImageState.parse(text) for i, text in fields["images"].items()}
        except (AttributeError, ValueError):
            return None
        return DatasetState(images, fields["excluded"], fields["stamp"], fields["waiting"])


@dataclass(frozen=True)
class Changes:
    """How a dataset differs from an earlier one.

    ``images - withdrawn - left_out`` is the difference between the numbers of images.

    Attributes:
        images: Number of images that it did not have before.
        boxes: Difference between the numbers of boxes that are labels.
        withdrawn: Number of images that it lost because they are not selected any more.
        left_out: Number of images that it lost for other reasons: they cannot be prepared.
        changed_boxes: Number of images in both whose boxes differ.
        moved: Number of images in both whose split differs.
    """

    images: int
    boxes: int
    withdrawn: int
    left_out: int
    changed_boxes: int
    moved: int


def compare(before: DatasetState, after: DatasetState, unselected: frozenset[str]) -> Changes:
    """Return how the dataset changed.

    Args:
        before: The dataset before.
        after: The dataset now.
        unselected: Ids of the images that are not selected any more.
    """
    old, new = before.images, after.images
    lost, kept = old.keys() - new.keys(), old.keys() & new.keys()
    withdrawn = len(lost & unselected)
    return Changes(
        images=len(new) - len(kept),
        boxes=sum(i.boxes for i in new.values()) - sum(i.boxes for i in old.values()),
        withdrawn=withdrawn,
        left_out=len(lost) - withdrawn,
        changed_boxes=sum(old[i].checksum != new[i].checksum for i in kept),
        moved=sum(old[i].split != new[i].split for i in kept),
    )


def observe(project: Project, ledger: Ledger) -> DatasetState:
    """Return the dataset as it is now; without boxes if their table is missing or damaged."""
    is_intact = boxes_csv.is_intact(project.dataset_folder)
    labels = _labels(project.dataset_folder / boxes_csv.NAME) if is_intact else {}
    splits = ledger.column("state", *SPLITS).items()
    images = {i: ImageState(str(split), *labels.get(i, (0, 0))) for i, split in splits}
    return DatasetState(images, len(ledger.ids(EXCLUDED)))


def _labels(path: Path) -> dict[str, tuple[int, int]]:
    """Return the number and the checksum of the boxes of each image that are labels."""
    labels: dict[str, tuple[int, int]] = {}
    for image_id, row in _used_rows(path):
        count, checksum = labels.get(image_id, (0, 0))
        labels[image_id] = count + 1, zlib.crc32(row.encode(), checksum)
    return labels


def _used_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the image and the content of each row of ``boxes.csv`` that is a label."""
    remedy = "Run `oiyolo prepare`, which writes it again"
    with records.convert_damage(path, remedy), files.open_text(path) as file:
        rows = csv.reader(file)
        header = next(rows, [])
        key, used, name = (header.index(column) for column in ("ImageID", "used", "class"))
        corners = [header.index(column) for column in ("XMin", "YMin", "XMax", "YMax")]
        for row in rows:
            if row[used] == "True":
                yield row[key], ",".join((row[name], *(row[i] for i in corners)))


def read(project: Project) -> SavedState | None:
    """Return the dataset as the last refresh left it; ``None`` if that is unknown.

    Raises:
        NewerVersionError: A newer version wrote the file.
    """
    saved = records.find_intact(_path(project), _Saved)
    return None if saved is None else SavedState(cast("_Saved", saved))


def write(project: Project, baseline: DatasetState) -> None:
    """Write the dataset as this refresh leaves it."""
    content = {
        "at": utc_now(),
        "stamp": dict(baseline.stamp),
        "excluded": baseline.excluded,
        "waiting": baseline.waiting,
        "splits": baseline.splits,
        "images": {image_id: str(image) for image_id, image in baseline.images.items()},
    }
    files.write_json(_path(project), content)


def _path(project: Project) -> Path:
    return project.data_folder / NAME
