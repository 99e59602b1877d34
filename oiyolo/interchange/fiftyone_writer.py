"""Write FiftyOneImageDetectionDataset, which FiftyOne loads in all versions since 2020.

A split is a dataset of its own: ``labels.json`` and a folder ``data``. FiftyOneDataset, which would
hold all splits as tags, has the form of FiftyOne's database, which changes from version to version
(https://docs.voxel51.com/user_guide/import_datasets.html).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from oiyolo.interchange.exported import SUBSET_NAMES, by_split, make_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedBox, ExportedDataset, ExportedImage

_ATTRIBUTES: Final = {
    "occluded": "IsOccluded",
    "truncated": "IsTruncated",
    "group_of": "IsGroupOf",
    "depiction": "IsDepiction",
    "inside": "IsInside",
    "difficult": "IsDifficult",
}
"""The names that FiftyOne's own Open Images has, and one in their style."""


def write(images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset) -> None:
    """Write ``<split>/labels.json`` and ``<split>/data/<id>.jpg``.

    Labels have the attributes that are known; a box that was dropped because it is difficult or a
    group is written with this attribute.
    """
    for split, group in by_split(images):
        pixels = make_folder(folder / SUBSET_NAMES[split] / "data")
        with (pixels.parent / "labels.json").open("w", encoding="utf-8") as file:
            classes = json.dumps(list(dataset.class_names), ensure_ascii=False)
            file.write(f'{{"classes": {classes}, "labels": {{')
            comma = "\n"
            for image in group:
                write_file(f"{pixels}/{image.name}", image.content)
                boxes = [_detection(box, dataset.class_names[box.class_id]) for box in image.boxes]
                file.write(f'{comma}"{image.image_id}": {json.dumps(boxes, ensure_ascii=False)}')
                comma = ",\n"
            file.write("}}\n")


def _detection(box: ExportedBox, class_name: str) -> dict[str, object]:
    x1, y1, x2, y2 = box.xyxy
    flags = {name: getattr(box, attribute) for attribute, name in _ATTRIBUTES.items()}
    return {
        "label": class_name,
        "bounding_box": [x1, y1, x2 - x1, y2 - y1],
        "attributes": {name: value == 1 for name, value in flags.items() if value >= 0},
    }
