"""Write the YOLO format as ultralytics reads it: images, labels and ``data.yaml``.

The label of ``images/<split>/<id>.jpg`` is ``labels/<split>/<id>.txt``. ``data.yaml`` has no
``path``: its folders are then relative to the file, so the dataset can be moved
(https://docs.ultralytics.com/datasets/detect/).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.imagery import labels
from oiyolo.interchange.exported import SPLIT_NAMES, by_split, make_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedDataset, ExportedImage


def write(images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset) -> None:
    """Write ``images/<split>/``, ``labels/<split>/`` and ``data.yaml``.

    Only labels are written. An image without labels, a negative, gets an empty file.
    """
    for split, group in by_split(images):
        image_folder = make_folder(folder / "images" / SPLIT_NAMES[split])
        label_folder = make_folder(folder / "labels" / SPLIT_NAMES[split])
        for image in group:
            write_file(f"{image_folder}/{image.name}", image.content)
            text = _label_text(image)
            write_file(f"{label_folder}/{image.image_id}.txt", text.encode())
    (folder / "data.yaml").write_text(_yaml_text(dataset), encoding="utf-8")


def _label_text(image: ExportedImage) -> str:
    boxes = image.labels
    xyxy = np.array([box.xyxy for box in boxes], dtype=np.float64).reshape(-1, 4)
    return labels.render([box.class_id for box in boxes], xyxy)


def _yaml_text(dataset: ExportedDataset) -> str:
    """Return the YAML file; a JSON string is a valid YAML scalar."""
    folders = [f"{SPLIT_NAMES[split]}: images/{SPLIT_NAMES[split]}" for split in dataset.splits]
    names = [
        f"  {class_id}: {json.dumps(name, ensure_ascii=False)}"
        for class_id, name in enumerate(dataset.class_names)
    ]
    return "\n".join([*folders, "names:", *names]) + "\n"
