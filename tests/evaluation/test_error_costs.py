"""What each kind of error costs, against tidecv on the same boxes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.evaluation.error_costs import KINDS, classify_errors, error_costs

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.tables import Detections, GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]

BOX = (0.0, 0.0, 0.4, 0.4)
HALF = (0.0, 0.0, 0.4, 0.16)  # IoU 0.4 with BOX
LOW = (0.0, 0.0, 0.4, 0.12)  # IoU 0.3 with BOX
FAR = (0.6, 0.6, 1.0, 1.0)
TOP = (0.6, 0.0, 1.0, 0.4)

ALL_KINDS = [
    ("a", 0, 0.95, BOX),  # right
    ("a", 0, 0.90, BOX),  # duplicate
    ("a", 1, 0.85, FAR),  # class: the box is of class 0
    ("b", 0, 0.80, HALF),  # localisation
    ("b", 0, 0.75, LOW),  # localisation of a box for which a better one exists
    ("b", 0, 0.70, FAR),  # background
    ("b", 1, 0.65, LOW),  # both
    ("c", 1, 0.60, BOX),  # right
    ("c", 1, 0.55, FAR),  # ignored in a group-of box
    ("d", 1, 0.50, TOP),  # background in an image without boxes
    ("c", 0, 0.45, BOX),  # class: the box is matched already
    ("c", 0, 0.40, TOP),  # right
]
TRUE_BOXES = [
    ("a", 0, BOX, False),
    ("a", 0, FAR, False),
    ("b", 0, BOX, False),
    ("b", 1, TOP, False),  # missed
    ("c", 1, BOX, False),
    ("c", 1, FAR, True),
    ("c", 0, TOP, False),
]
BY_TIDECV = {
    "localisation": 10.90288,
    "class": 14.22678,
    "both": 4.20792,
    "duplicate": 0.58934,
    "background": 0.58934,
    "missed": 8.25083,
}
"""Its figures, in hundredths, with images of 1000 x 1000 pixels (tidecv 1.0.1)."""


def test_each_detection_has_the_first_error_that_applies(tables: Tables) -> None:
    detections, truth = tables(ALL_KINDS, TRUE_BOXES, images="abcd")
    errors = classify_errors(detections, truth)
    kinds = ["", "duplicate", "class", *["localisation"] * 2, "background", "both", ""]
    assert errors.kind.tolist() == [*kinds, "background", "background", "class", ""]
    assert errors.ignored.tolist() == [False] * 8 + [True] + [False] * 3
    assert errors.corrected.tolist() == [-1, -1, 1, 2, *[-1] * 8]
    assert errors.missed.tolist() == [False, False, False, True, False, False, False]


def test_costs_equal_those_of_tidecv(tables: Tables) -> None:
    costs = error_costs(*tables(ALL_KINDS, TRUE_BOXES, images="abcd"), 2)
    assert {kind: 100 * cost for kind, cost in costs.items()} == pytest.approx(BY_TIDECV, abs=1e-4)


def test_a_loose_box_costs_what_a_tight_one_would_gain(tables: Tables) -> None:
    costs = error_costs(*tables([("a", 0, 0.9, HALF)], [("a", 0, BOX, False)]), 1)
    assert costs == {**dict.fromkeys(KINDS, 0.0), "localisation": 1.0}


def test_a_detector_that_finds_nothing_only_misses(tables: Tables) -> None:
    costs = error_costs(*tables([], [("a", 0, BOX, False)]), 1)
    assert costs == {**dict.fromkeys(KINDS, 0.0), "missed": 1.0}


def test_costs_without_true_boxes_are_undefined(tables: Tables) -> None:
    costs = error_costs(*tables([("a", 0, 0.9, BOX)], [("a", 0, FAR, True)]), 1)
    assert list(costs) == list(KINDS)
    assert all(map(math.isnan, costs.values()))


def test_only_the_hundred_best_detections_of_an_image_take_part(tables: Tables) -> None:
    first = [("a", 0, 0.5 + i / 1000, FAR) for i in range(100)]
    detections, truth = tables([("a", 0, 0.1, BOX), *first], [("a", 0, BOX, False)])
    errors = classify_errors(detections, truth)
    assert len(errors.detections) == 100
    assert errors.missed.all()
    assert np.unique(errors.kind).tolist() == ["background"]
