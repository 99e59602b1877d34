"""Write Pascal VOC's format: an XML file per image, in the tree of VOC2012.

Pixels are integers, because common readers call ``int`` on them. They count from 1 and include the
last one: a box that covers an image of 100 pixels reads 1 to 100. Edges therefore differ by up to
half a pixel from the original, and by one for a box that would be thinner than two pixels, which
readers that ignore the convention would take for empty
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from oiyolo.interchange.exported import SPLIT_NAMES, by_split, make_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedBox, ExportedDataset, ExportedImage

ROOT: Final = "VOCdevkit/VOC2012"
"""The name that readers of VOC2012 look for, whatever the dataset is."""
_TRAINVAL: Final = ("train", "valid")
_POSITIVE, _DIFFICULT, _NEGATIVE = "1", "0", "-1"


def write(images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset) -> None:
    """Write ``Annotations/``, ``JPEGImages/`` and ``ImageSets/Main/`` in ``VOCdevkit/VOC2012/``.

    A box that was dropped because it is difficult is written as difficult; one that was dropped
    because it is a group is left out.
    """
    root = folder / ROOT
    annotations, pixels = make_folder(root / "Annotations"), make_folder(root / "JPEGImages")
    sets = _ImageSets(make_folder(root / "ImageSets" / "Main"), dataset.class_names)
    for split, group in by_split(images):
        ids: list[str] = []
        marks = _Marks(len(dataset.class_names))
        for image in group:
            boxes = [box for box in image.boxes if box.is_label or box.difficult == 1]
            write_file(f"{pixels}/{image.name}", image.content)
            text = _xml_text(image, boxes, dataset.class_names)
            write_file(f"{annotations}/{image.image_id}.xml", text.encode())
            marks.add(len(ids), boxes)
            ids.append(image.image_id)
        sets.write(split, ids, marks)


class _Marks:
    """Which images of a split have which classes: only difficult objects, or others too."""

    def __init__(self, class_count: int) -> None:
        self._by_class: list[dict[int, str]] = [{} for _ in range(class_count)]

    def add(self, index: int, boxes: Iterable[ExportedBox]) -> None:
        """Add the boxes of an image by its position in the split."""
        is_easy = defaultdict[int, bool](bool)
        for box in boxes:
            is_easy[box.class_id] |= box.difficult != 1
        for class_id, has_easy in is_easy.items():
            self._by_class[class_id][index] = _POSITIVE if has_easy else _DIFFICULT

    def of(self, class_id: int, index: int) -> str:
        """Return the mark of a class in an image."""
        return self._by_class[class_id].get(index, _NEGATIVE)


class _ImageSets:
    """The lists of images, and for each class the lists with its marks."""

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._folder = folder
        self._file_names = [name.replace("/", "_") for name in class_names]

    def write(self, split: str, ids: Sequence[str], marks: _Marks) -> None:
        """Write the lists of a split; train and val are also in the lists ``trainval``."""
        texts = {"": "".join(f"{image_id}\n" for image_id in ids)}
        for class_id, name in enumerate(self._file_names):
            lines = (f"{i} {marks.of(class_id, n):>2}\n" for n, i in enumerate(ids))
            texts[f"{name}_"] = "".join(lines)
        for prefix, text in texts.items():
            for set_name in (SPLIT_NAMES[split], *(["trainval"] if split in _TRAINVAL else [])):
                path = self._folder / f"{prefix}{set_name}.txt"
                with path.open("a", encoding="utf-8") as file:
                    file.write(text)


def _xml_text(
    image: ExportedImage, boxes: Iterable[ExportedBox], class_names: Sequence[str]
) -> str:
    width, height = image.size_wh
    objects = "".join(_object_text(box, class_names[box.class_id], image.size_wh) for box in boxes)
    return (
        "<annotation>\n"
        "\t<folder>VOC2012</folder>\n"
        f"\t<filename>{image.name}</filename>\n"
        "\t<source>\n\t\t<database>exported by oiyolo</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n"
        "\t\t<depth>3</depth>\n\t</size>\n"
        "\t<segmented>0</segmented>\n"
        f"{objects}</annotation>\n"
    )


def _object_text(box: ExportedBox, class_name: str, size_wh: tuple[int, int]) -> str:
    x1, y1, x2, y2 = box.xyxy_px(size_wh)
    x_min, x_max = _inclusive(x1, x2, size_wh[0])
    y_min, y_max = _inclusive(y1, y2, size_wh[1])
    occluded = f"\t\t<occluded>{box.occluded}</occluded>\n" if box.occluded >= 0 else ""
    return (
        f"\t<object>\n\t\t<name>{escape(class_name)}</name>\n\t\t<pose>Unspecified</pose>\n"
        f"\t\t<truncated>{max(box.truncated, 0)}</truncated>\n{occluded}"
        f"\t\t<difficult>{max(box.difficult, 0)}</difficult>\n"
        f"\t\t<bndbox>\n\t\t\t<xmin>{x_min}</xmin>\n\t\t\t<ymin>{y_min}</ymin>\n"
        f"\t\t\t<xmax>{x_max}</xmax>\n\t\t\t<ymax>{y_max}</ymax>\n\t\t</bndbox>\n\t</object>\n"
    )


def _inclusive(low: float, high: float, size: int) -> tuple[int, int]:
    """Return the first and the last pixel of an interval, counted from 1; two if there are two."""
    first, last = round(low) + 1, round(high)
    first = max(1, min(first, size - 1, last))
    return first, min(size, max(last, first + 1))
