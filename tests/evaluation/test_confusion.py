"""The confusion matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from oiyolo.evaluation.confusion import confusion_matrix
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.plots import plot_confusion
from oiyolo.evaluation.summary import Evaluation, evaluate_detections

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.tables import Detections, GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]

BOX = (0.0, 0.0, 0.4, 0.4)
FAR = (0.6, 0.6, 1.0, 1.0)
TOP = (0.6, 0.0, 1.0, 0.4)


def test_boxes_are_counted_by_true_and_detected_class(tables: Tables) -> None:
    detections, truth = tables(
        [
            ("a", 1, 0.95, BOX),  # taken for class 1, but a right detection is left
            ("a", 0, 0.90, BOX),  # right
            ("a", 0, 0.85, FAR),  # the box is of class 1
            ("a", 1, 0.20, FAR),  # right, below the threshold
            ("b", 1, 0.80, TOP),  # ignored in a group-of box
            ("b", 0, 0.75, TOP),  # background
        ],
        [
            ("a", 0, BOX, False),
            ("a", 1, FAR, False),
            ("b", 1, BOX, False),  # missed
            ("b", 1, TOP, True),
        ],
    )
    matrix = confusion_matrix(detections, truth, match(detections, truth), [0.5, 0.5])
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]
    none = confusion_matrix(detections, truth, match(detections, truth), [math.nan, math.nan])
    assert none.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]


def test_rows_add_up_to_the_true_boxes_and_the_chart_shows_them(
    random_tables: RandomTables,
) -> None:
    evaluation = evaluate_detections(*random_tables(3, group_of=0.1), ["x", "y", "z"])
    confusion = evaluation.confusion
    assert [sum(row) for row in confusion[:-1]] == [row.boxes for row in evaluation.classes]
    for number, row in enumerate(evaluation.classes):
        assert confusion[number][number] == row.true_positives
        shown = sum(counts[number] for counts in confusion)
        assert shown == row.true_positives + row.false_positives
    assert Evaluation.from_json(evaluation.to_json()).confusion == confusion
    axes = plot_confusion(evaluation)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z", "background"]
    shown_counts = {text.get_text() for text in axes.texts}
    assert str(confusion[0][0]) in shown_counts
    assert plot_confusion(evaluation, ax=axes) is axes
