"""What the writers of other formats receive: a dataset, and its images with their boxes.

A writer is a function ``write(images, folder, dataset)``. It takes one image at a time, so memory
use does not depend on the number of images, and it writes into an empty folder, which the caller
renames when it is complete.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNKNOWN: Final = -1
"""The value of an attribute that nobody stated."""
SPLIT_NAMES: Final = {"train": "train", "valid": "val", "test": "test"}
"""The names of the splits in most formats."""
SUBSET_NAMES: Final = {"train": "train", "valid": "validation", "test": "test"}
"""The names of the splits in Open Images and FiftyOne."""


class ExportedBox(NamedTuple):
    """A box of an exported image.

    Attributes:
        class_id: Position in ``ExportedDataset.class_names``.
        xyxy: Left, top, right and bottom as fractions of the exported image, from 0 to 1.
        is_label: Whether it is a label. Others are difficult or a group, and were dropped because
            of it; formats that cannot say so leave them out.
        occluded: 1, 0 or ``UNKNOWN``, like the following attributes.
        truncated: Whether the object extends beyond the image.
        group_of: Whether the box contains several objects.
        difficult: Whether it is hard to recognize, so that scores ignore it.
        depiction: Whether it is a drawing or a model.
        inside: Whether the picture was taken from inside the object.
        source: How the box was made, as in Open Images.
        confidence: Its confidence, 1 if a person drew it.
    """

    class_id: int
    xyxy: tuple[float, float, float, float]
    is_label: bool = True
    occluded: int = UNKNOWN
    truncated: int = UNKNOWN
    group_of: int = UNKNOWN
    difficult: int = UNKNOWN
    depiction: int = UNKNOWN
    inside: int = UNKNOWN
    source: str = ""
    confidence: float = 1.0

    def xyxy_px(self, size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the edges in pixels of an image of this size, counted from its top-left corner."""
        (width, height), (x1, y1, x2, y2) = size_wh, self.xyxy
        return x1 * width, y1 * height, x2 * width, y2 * height


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """An image to export.

    Attributes:
        image_id: Its id.
        suffix: Suffix of its file, with the dot.
        content: Content of its file.
        size_wh: Width and height in pixels.
        split: "train", "valid" or "test".
        boxes: Its boxes.
        rotation: Degrees counter-clockwise that make it upright; 0 unless it is exported as stored.
        present: Classes that are verified to be in the image, as ids.
        absent: Classes that are verified not to be in it, as ids.
        facts: Further facts by the name of their column in Open Images' list of images.
    """

    image_id: str
    suffix: str
    content: bytes
    size_wh: tuple[int, int]
    split: str
    boxes: tuple[ExportedBox, ...]
    rotation: int = 0
    present: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.image_id + self.suffix

    @property
    def labels(self) -> list[ExportedBox]:
        """The boxes that are labels."""
        return [box for box in self.boxes if box.is_label]


class SplitSize(NamedTuple):
    """Size of a split: the number of its images, and their bytes, which may be an estimate."""

    images: int
    bytes: int


@dataclass(frozen=True)
class ExportedDataset:
    """What is known about a dataset before its images are read.

    Attributes:
        class_names: Names of the classes in the order of their ids.
        label_names: For each class, its MID in Open Images, or its name if it has none.
        splits: Sizes of the splits that are exported, none of which is empty, in order.
        max_boxes: Largest number of labels in one image.
    """

    class_names: tuple[str, ...]
    label_names: tuple[str, ...]
    splits: Mapping[str, SplitSize]
    max_boxes: int = 0


Writer = Callable[[Iterable[ExportedImage], Path, ExportedDataset], None]
"""Function that writes images, those of each split in one run, into a new folder."""


def by_split(images: Iterable[ExportedImage]) -> Iterator[tuple[str, Iterator[ExportedImage]]]:
    """Yield each split with its images."""
    return itertools.groupby(images, key=attrgetter("split"))


def write_file(path: Path | str, content: bytes) -> None:
    """Write a new file with as few system calls as possible: most of the time is spent in them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> Path:
    """Create a folder, with its parents, and return it."""
    path.mkdir(parents=True, exist_ok=True)
    return path
