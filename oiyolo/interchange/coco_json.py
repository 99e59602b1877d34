"""Parse COCO's instances files, keeping only what an import needs.

The file of COCO's train2017 has 860,000 boxes and takes 450 MB, most of which are segmentations. As
the parser completes each object, the object is replaced by a tuple, so that never more than one
segmentation is in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from oiyolo.core import files
from oiyolo.interchange import json_lists
from oiyolo.interchange.imported import ImportedBox, LineError
from oiyolo.interchange.json_lists import JsonError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from oiyolo.interchange.frames import Corners
    from oiyolo.interchange.imported import Flag

_LISTS: Final = ("images", "annotations", "categories")
_BBOX_VALUES: Final = 4
_CROWD: Final[tuple[tuple[str, Flag], ...]] = (("group_of", 1),)
_NO_CROWD: Final[tuple[tuple[str, Flag], ...]] = (("group_of", 0),)
ATTRIBUTES: Final = ("occluded", "truncated", "difficult", "depiction", "inside")
"""Attributes of an annotation beyond COCO's own, named as the fields of a box."""


class CocoError(LineError):
    """A file is not COCO's format."""


class CocoBox(NamedTuple):
    """An annotation.

    Attributes:
        number: Its id, for messages.
        image: Id of its image.
        category: Id of its category.
        bbox: Left, top, width and height in pixels; ``None`` if it has none.
        flags: Attributes of a box that are known.
    """

    number: object
    image: object
    category: object
    bbox: Corners | None
    flags: tuple[tuple[str, Flag], ...] = ()

    def to_box(self, class_name: str, xyxy: Corners) -> ImportedBox:
        """Return the box with its class and its corners as fractions of the stored image."""
        if not self.flags:
            return ImportedBox(class_name, xyxy)
        flags: dict[str, Any] = dict(self.flags)
        return ImportedBox(class_name, xyxy, **flags)


class CocoImage(NamedTuple):
    """An image: its id, its file, and the size that the file states."""

    number: object
    file_name: str
    stated_wh: tuple[int, int] | None


class _Category(NamedTuple):
    number: object
    name: str


@dataclass
class CocoFile:
    """The content of a file.

    Attributes:
        images: Its images in order.
        class_names: Names of the categories by their ids, in order.
        boxes: Annotations by the id of their image.
    """

    images: Sequence[CocoImage]
    class_names: dict[object, str]
    boxes: dict[object, list[CocoBox]] = field(default_factory=dict)


def is_coco(path: Path) -> bool:
    """Return whether a JSON file may be COCO's: the keys in its first MiB or at its end say so."""
    try:
        with files.open_binary(path) as file:
            head = file.read(1 << 20)
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            ends = head + file.read()
    except OSError:
        return False
    return head.lstrip()[:1] == b"{" and any(
        key in ends for key in (b'"annotations"', b'"categories"', b'"images"')
    )


def read_coco(path: Path) -> CocoFile:
    """Read a file.

    Raises:
        CocoError: It is not JSON, or has no images and categories.
        OSError: It cannot be read.
    """
    try:
        with files.open_binary(path) as file:
            content = json_lists.load(file, _LISTS, _slim)
    except JsonError as error:
        raise CocoError(f"not JSON: {error}", error.line) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise CocoError(f"not JSON: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise CocoError("not an object with images, annotations and categories")
    images, boxes, categories = (
        _items(content.get(key), kind)
        for key, kind in zip(_LISTS, (CocoImage, CocoBox, _Category), strict=True)
    )
    if images is None or categories is None or boxes is None:
        raise CocoError("no lists of images, annotations and categories")
    result = CocoFile(images, {item.number: item.name for item in categories})
    for box in boxes:
        result.boxes.setdefault(box.image, []).append(box)
    return result


def _items(value: object, kind: type[Any]) -> Any:  # noqa: ANN401  (a list of that type)
    """Return the items of a list that have a type; ``None`` if the value is not a list."""
    return [item for item in value if isinstance(item, kind)] if isinstance(value, list) else None


def _slim(value: dict[str, Any]) -> object:
    """Return the part of a JSON object that an import needs, as the type that says what it is."""
    if "image_id" in value and "category_id" in value:
        return _box(value)
    if "file_name" in value and "id" in value:
        size = (_number(value.get("width")), _number(value.get("height")))
        has_size = all(0 < side < math.inf for side in size)
        stated_wh = (int(size[0]), int(size[1])) if has_size else None
        return CocoImage(_key(value["id"]), str(value["file_name"]), stated_wh)
    if "name" in value and "id" in value:
        return _Category(_key(value["id"]), str(value["name"]).strip())
    return value


def _box(value: dict[str, Any]) -> CocoBox:
    numbers = value.get("bbox")
    bbox = None
    if isinstance(numbers, list) and len(numbers) == _BBOX_VALUES:
        x, y, width, height = map(_number, numbers)
        bbox = (x, y, width, height)
    flags: tuple[tuple[str, Flag], ...] = ()
    if "iscrowd" in value:
        flags = _CROWD if value["iscrowd"] in (1, "1") else _NO_CROWD
    if attributes := value.get("attributes"):
        flags = (*_flags(attributes), *flags)
    number, image, category = (_key(value.get(key)) for key in ("id", "image_id", "category_id"))
    return CocoBox(number, image, category, bbox, flags)


def _flags(attributes: object) -> Iterable[tuple[str, Flag]]:
    """Yield the attributes that CVAT and others add."""
    if isinstance(attributes, dict):
        for name in ATTRIBUTES:
            value = attributes.get(name)
            if isinstance(value, (bool, int)):
                yield name, 1 if value else 0


def _key(value: object) -> object:
    """Return an id that can be looked up; some tools write numbers as texts."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) else str(value)


def _number(value: object) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]  # a number
