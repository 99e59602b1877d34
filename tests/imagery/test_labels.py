"""YOLO labels are formatted and parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError
from oiyolo.imagery import labels

if TYPE_CHECKING:
    from pathlib import Path

FRACTIONS = st.floats(0.0, 1.0)
BOXES = st.lists(st.tuples(st.integers(0, 600), FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS))


@given(BOXES)
def test_labels_are_parsed_back_to_a_millionth(rows: list[tuple[int, float, float, float, float]]
                                             ) -> None:  # fmt: skip
    class_ids = np.array([row[0] for row in rows], dtype=np.int64)
    xyxy = np.array(
        [[min(a, c), min(b, d), max(a, c), max(b, d)] for _, a, b, c, d in rows]
    ).reshape(-1, 4)
    text = labels.render(class_ids, xyxy)
    back_ids, back = labels.parse(text, where="here")
    assert back_ids.tolist() == class_ids.tolist()
    assert back.shape == xyxy.shape
    np.testing.assert_allclose(back, xyxy, atol=1e-6)
    assert text.count("\n") == len(rows)


def test_a_label_has_darknets_format() -> None:
    text = labels.render([3], np.array([[0.1, 0.2, 0.5, 0.4]]))
    assert text == "3 0.3000000 0.3000000 0.4000000 0.2000000\n"


def test_an_image_without_boxes_has_an_empty_label(tmp_path: Path) -> None:
    assert labels.render([], np.zeros((0, 4))) == ""
    (tmp_path / "a.txt").write_text("")
    class_ids, xyxy = labels.read(tmp_path / "a.txt")
    assert class_ids.shape == (0,)
    assert xyxy.shape == (0, 4)


def test_blank_lines_and_extra_spaces_are_ignored() -> None:
    class_ids, xyxy = labels.parse("\n 0  0.5 0.5\t1 1 \r\n\n", where="here")
    assert class_ids.tolist() == [0]
    assert xyxy.tolist() == [[0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    "line", ["0 0.5 0.5 1", "0 0.5 0.5 1 1 1", "Boat 0.5 0.5 1 1", "0.5 0.5 0.5 1 1", "0 a b c d",
             "<html>"],
)  # fmt: skip
def test_an_invalid_line_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"0 0.5 0.5 1 1\n\n{line}\n")
    with pytest.raises(InputFormError) as caught:
        labels.read(path)
    assert caught.value.where == f"{path}:3"
    assert caught.value.found == repr(line)


def test_boxes_and_classes_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        labels.render([1, 2], np.array([[0.0, 0.0, 1.0, 1.0]]))
