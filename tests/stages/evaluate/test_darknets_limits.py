"""What AlexeyAB's ``detector valid`` keeps, although its ``detector map`` would not."""

from __future__ import annotations

import numpy as np

from oiyolo.evaluation.tables import Detections
from oiyolo.stages.evaluate.detect import suppressed

BOX = (0.2, 0.2, 0.6, 0.6)
HALF = (0.2, 0.2, 0.6, 0.4)  # IoU 0.5 with BOX
FAR = (0.7, 0.7, 0.9, 0.9)


def test_repeated_boxes_and_low_scores_are_dropped_by_class_and_image() -> None:
    rows = [
        (1, 0, 0.5, HALF),
        (1, 0, 0.9, BOX),
        (1, 1, 0.4, HALF),  # of another class
        (0, 0, 0.3, HALF),  # in another image
        (1, 0, 0.004, FAR),
        (1, 0, 0.006, FAR),
    ]
    image, class_id, score, xyxy = (np.array(column) for column in zip(*rows, strict=True))
    detections = Detections(("a", "b", "c"), image, class_id, score, xyxy)
    sizes_wh = {"a": (40, 30), "b": (50, 60), "c": (70, 80)}
    kept = suppressed(detections, sizes_wh, 2, ("greedy", 0.6))
    assert kept.image_ids == ("a", "b", "c")
    found = zip(kept.image.tolist(), kept.class_id.tolist(), kept.score.round(6), strict=True)
    assert sorted(found) == [(0, 0, 0.3), (1, 0, 0.006), (1, 0, 0.9), (1, 1, 0.4)]
    best = kept.score.argmax()
    np.testing.assert_allclose(kept.xyxy[best], BOX, atol=1e-6)


def test_no_detections_stay_none() -> None:
    none = np.empty(0, dtype=np.int64)
    detections = Detections(("a",), none, none, np.empty(0), np.empty((0, 4)))
    assert len(suppressed(detections, {"a": (4, 4)}, 1, ("greedy", 0.6))) == 0
