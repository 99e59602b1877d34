"""Detections in the format of COCO's results (https://cocodataset.org/#format-results).

The file is a JSON list with one detection on each line: ``image_id``, ``category_id`` (the class,
from 0), ``bbox`` (left, top, width and height in pixels) and ``score``. Each also has ``image_wh``,
the width and height of the image in whose pixels the box is given; COCO's tools ignore it.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core import files
from oiyolo.evaluation.tables import Detections

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_ROWS_PER_BLOCK: Final = 10_000
_PIXEL_DECIMALS: Final = 4
_SCORE_DECIMALS: Final = 6
_CORNERS: Final = 4


def write_results(
    path: Path, detections: Detections, sizes_wh: Mapping[str, tuple[int, int]]
) -> None:
    """Write detections, which appear complete or not at all.

    Args:
        path: The file.
        detections: The detections.
        sizes_wh: Width and height of each image in pixels, by its id.
    """
    with files.atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for row in _rows(detections, sizes_wh):
            file.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n"
        file.write("\n]\n")


def _rows(
    detections: Detections, sizes_wh: Mapping[str, tuple[int, int]]
) -> Iterator[dict[str, object]]:
    sizes = np.array([sizes_wh[image_id] for image_id in detections.image_ids]).reshape(-1, 2)
    for start in range(0, len(detections), _ROWS_PER_BLOCK):  # keeps the memory flat
        block = slice(start, start + _ROWS_PER_BLOCK)
        image = detections.image[block]
        corners = detections.xyxy[block] * np.tile(sizes[image], 2)
        corners[:, 2:] -= corners[:, :2]
        for index, class_id, score, bbox in zip(
            image.tolist(),
            detections.class_id[block].tolist(),
            detections.score[block].round(_SCORE_DECIMALS).tolist(),
            corners.round(_PIXEL_DECIMALS).tolist(),
            strict=True,
        ):
            yield {
                "image_id": detections.image_ids[index],
                "category_id": class_id,
                "bbox": bbox,
                "score": score,
                "image_wh": sizes[index].tolist(),
            }


def read_results(path: Path, image_ids: Sequence[str]) -> Detections:
    """Return the detections that ``write_results`` wrote for some of the images.

    Args:
        path: The file, known to be intact.
        image_ids: Ids of the images, with and without detections.
    """
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    image, class_id, score, xyxy = array("q"), array("q"), array("d"), array("d")
    with files.open_text(path) as file:
        for line in file:
            if not line.startswith("{"):
                continue
            row = json.loads(line.rstrip().rstrip(","))
            index = position.get(row["image_id"])
            if index is None:
                continue
            width, height = row["image_wh"]
            left, top, box_width, box_height = row["bbox"]
            image.append(index)
            class_id.append(row["category_id"])
            score.append(row["score"])
            right, bottom = left + box_width, top + box_height
            xyxy.extend((left / width, top / height, right / width, bottom / height))
    return Detections(
        image_ids=tuple(image_ids),
        image=np.array(image, dtype=np.int64),
        class_id=np.array(class_id, dtype=np.int64),
        score=np.array(score, dtype=np.float64),
        xyxy=np.clip(np.array(xyxy, dtype=np.float64).reshape(-1, _CORNERS), 0.0, 1.0),
    )
