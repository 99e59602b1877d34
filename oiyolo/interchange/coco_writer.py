"""Write COCO's format: a JSON file per split, and a folder with its images.

Boxes are left, top, width and height in pixels (https://cocodataset.org/#format-data). A group-of
box has ``iscrowd`` 1, so that detections in it are ignored. Other attributes that are known are in
``attributes``, as CVAT writes them.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from typing import TYPE_CHECKING, Final

from oiyolo.interchange.coco_json import ATTRIBUTES
from oiyolo.interchange.exported import SPLIT_NAMES, by_split, make_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedBox, ExportedDataset, ExportedImage

_DECIMALS: Final = 6


def write(images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset) -> None:
    """Write ``annotations/instances_<split>.json`` and ``<split>/<id>.jpg``.

    Ids of images, boxes and categories count from 1, in all splits together.
    """
    numbers = itertools.count(1), itertools.count(1)
    for split, group in by_split(images):
        _write_split(folder, SPLIT_NAMES[split], group, dataset, *numbers)


def _write_split(
    folder: Path,
    split: str,
    images: Iterable[ExportedImage],
    dataset: ExportedDataset,
    *numbers: Iterator[int],
) -> None:
    """Write a file whose annotations precede its images, which are collected on the disk.

    The last arguments are the numbers of images, and those of boxes.
    """
    image_numbers, box_numbers = numbers
    image_folder = make_folder(folder / split)
    path = make_folder(folder / "annotations") / f"instances_{split}.json"
    head = {"info": {"description": "exported by oiyolo"}, "licenses": []}
    categories = [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in enumerate(dataset.class_names, start=1)
    ]
    with (
        path.open("w", encoding="utf-8") as file,
        tempfile.TemporaryFile("w+", encoding="utf-8") as listed,
    ):
        file.write(json.dumps({**head, "categories": categories}, ensure_ascii=False)[:-1])
        file.write(', "annotations": [')
        comma = ""
        for image, image_number in zip(images, image_numbers, strict=False):
            write_file(f"{image_folder}/{image.name}", image.content)
            listed.write(",\n" * bool(listed.tell()) + _image_text(image, image_number))
            for box in image.boxes:
                number = next(box_numbers)
                file.write(comma + _box_text(box, number, image_number, image.size_wh))
                comma = ",\n"
        file.write('],\n"images": [')
        listed.seek(0)
        shutil.copyfileobj(listed, file)
        file.write("]}\n")


def _image_text(image: ExportedImage, number: int) -> str:
    width, height = image.size_wh
    return f'{{"id": {number}, "file_name": "{image.name}", "width": {width}, "height": {height}}}'


def _box_text(box: ExportedBox, number: int, image_number: int, size_wh: tuple[int, int]) -> str:
    x1, y1, x2, y2 = box.xyxy_px(size_wh)
    bbox = ", ".join(f"{round(value, _DECIMALS)}" for value in (x1, y1, x2 - x1, y2 - y1))
    flags = [(name, getattr(box, name)) for name in ATTRIBUTES]
    attributes = ", ".join(
        f'"{name}": {"true" if value else "false"}' for name, value in flags if value >= 0
    )
    return (
        f'{{"id": {number}, "image_id": {image_number}, "category_id": {box.class_id + 1}, '
        f'"bbox": [{bbox}], "area": {round((x2 - x1) * (y2 - y1), _DECIMALS)}, '
        f'"iscrowd": {int(box.group_of == 1)}, "segmentation": [], '
        f'"attributes": {{{attributes}}}}}'
    )
