"""Small tables of detections and ground truth, hand-made and random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.boxes import clip
from oiyolo.evaluation.tables import Detections, GroundTruth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.evaluation.tables import Verified

DetectionRow = tuple[str, int, float, tuple[float, float, float, float]]
"""Image, class, score, box."""
TruthRow = tuple[str, int, tuple[float, float, float, float], bool]
"""Image, class, box, group-of."""


@pytest.fixture(scope="session")  # hypothesis requires this scope
def tables() -> Callable[..., tuple[Detections, GroundTruth]]:
    return make_tables


@pytest.fixture(scope="session")  # hypothesis requires this scope
def random_tables() -> Callable[..., tuple[Detections, GroundTruth]]:
    return make_random_tables


def make_tables(
    detected: Sequence[DetectionRow],
    annotated: Sequence[TruthRow],
    *,
    images: str = "ab",
    verified: Verified | None = None,
) -> tuple[Detections, GroundTruth]:
    truth = GroundTruth.from_rows(
        images,
        box_image_ids=[row[0] for row in annotated],
        class_id=[row[1] for row in annotated],
        xyxy=[row[2] for row in annotated],
        is_region=[row[3] for row in annotated],
        verified=verified,
    )
    detections = Detections(
        tuple(images),
        np.array([images.index(row[0]) for row in detected], dtype=np.int64),
        np.array([row[1] for row in detected], dtype=np.int64),
        np.array([row[2] for row in detected], dtype=np.float64),
        np.array([row[3] for row in detected], dtype=np.float64).reshape(-1, 4),
    )
    return detections, truth


def make_random_tables(
    seed: int, *, images: int = 30, classes: int = 3, group_of: float = 0.0
) -> tuple[Detections, GroundTruth]:
    """Return random annotated boxes, with detections near most of them and false positives."""
    random = np.random.default_rng(seed)
    image_ids = tuple(f"{i:04x}" for i in range(images))
    count = images * 3
    image = random.integers(0, images, count)
    class_id = random.integers(0, classes, count)
    low = random.uniform(0.0, 0.7, (count, 2))
    xyxy = clip(np.concatenate((low, low + random.uniform(0.05, 0.4, (count, 2))), axis=1))
    truth = GroundTruth(image_ids, image, class_id, xyxy, random.random(count) < group_of)
    near = np.repeat(np.arange(count), 2)[random.random(2 * count) < 0.7]
    moved = clip(xyxy[near] + random.normal(0, 0.02, (len(near), 4)))
    stray_low = random.uniform(0.0, 0.8, (count, 2))
    stray = clip(
        np.concatenate((stray_low, stray_low + random.uniform(0.02, 0.3, (count, 2))), axis=1)
    )
    boxes = np.concatenate((moved, stray))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    detections = Detections(
        image_ids,
        np.concatenate((image[near], random.integers(0, images, count))),
        np.concatenate((class_id[near], random.integers(0, classes, count))),
        np.concatenate((random.beta(4, 2, len(near)), random.beta(2, 4, count))),
        boxes,
    )
    return detections, truth
