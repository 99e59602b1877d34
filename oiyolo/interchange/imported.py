"""Labelled images as the readers of all formats return them, and the problems that they report.

Boxes are fractions of the image as stored, ignoring any EXIF orientation, as in Open Images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Flag = Literal[-1, 0, 1]
"""An attribute of a box: 1 set, 0 not set, -1 unknown, as in Open Images' tables."""
PixelOrigin = Literal[0, 1]
Exif = Literal["stored", "upright"]
Split = Literal["", "train", "valid", "test"]
Rotation = Literal[0, 90, 180, 270]
Skipped = Literal["", "box", "image", "file"]


class LineError(ValueError):
    """A file does not have the form that it should have; ``line`` is where, or 0."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class ImportedBox:
    """A labelled box.

    Attributes:
        class_name: Name of its class in the source.
        xyxy: Left, top, right and bottom, as fractions of the stored image, from 0 to 1.
        occluded: Whether something hides a part of the object.
        truncated: Whether the object extends beyond the image.
        group_of: Whether the box contains a group of objects; COCO's ``iscrowd``.
        depiction: Whether the object is a drawing or the like.
        inside: Whether the picture was taken from the inside of the object.
        difficult: Whether VOC's scoring ignores the object.
        confidence: Confidence of a predicted box; 1 for one that a person drew.
        is_predicted: Whether a detector predicted the box and no person corrected the label.
        line: Line of the annotation in its file; 0 if the format has no lines.
    """

    class_name: str
    xyxy: tuple[float, float, float, float]
    occluded: Flag = -1
    truncated: Flag = -1
    group_of: Flag = -1
    depiction: Flag = -1
    inside: Flag = -1
    difficult: Flag = -1
    confidence: float = 1.0
    is_predicted: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True)
class ImportedImage:
    """An image and its boxes.

    Attributes:
        path: Absolute path of the image file.
        name: Its path relative to the source's folder, with slashes: its identity.
        size_wh: Width and height in pixels, as stored.
        rotation: Degrees counter-clockwise that make the stored image upright.
        split: Its split in the source; empty if it has none.
        boxes: Its boxes; an image without objects has none.
        image_id: Its ImageID in Open Images; empty if it is not one of Open Images'.
    """

    path: Path
    name: str
    size_wh: tuple[int, int]
    rotation: Rotation = 0
    split: Split = ""
    boxes: tuple[ImportedBox, ...] = ()
    image_id: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the source that was skipped, or read in a way that the user should know.

    Attributes:
        kind: What is wrong, in the words that problems are counted by.
        path: The file.
        line: The line in it; 0 if there is none.
        message: What exactly is wrong.
        skipped: What was not read because of it: "box", "image", "file" (an annotation that
            belongs to no image), or nothing.
    """

    kind: str
    path: Path
    line: int
    message: str
    skipped: Skipped = ""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a source whose files do not say it.

    Attributes:
        pixel_origin: Coordinates of the top left pixel in VOC files: 1 as in VOC, or 0.
        exif: What the boxes of a photograph refer to that its EXIF data turn, if its annotation
            does not say so: its stored pixels, or the upright image.
    """

    pixel_origin: PixelOrigin = 1
    exif: Exif = "stored"


class Reader(Protocol):
    """A reader of labelled images in one format."""

    @property
    def folder(self) -> Path:
        """Absolute path of the folder that the images' names are relative to."""

    def class_order(self) -> Sequence[str]:
        """Return the classes in the order of the source; empty if it lists none."""

    def read(self) -> Iterator[ImportedImage | Problem]:
        """Yield each image once, and the problems as they are found."""
