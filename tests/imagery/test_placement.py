"""Boxes are converted to the prepared frame, and the invalid ones are not used as labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.imagery.placement import place_boxes

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.imagery.placement import PlacedBoxes


def placed(
    rows: list[tuple[float, ...]],
    *,
    class_ids: list[int] | None = None,
    drop_reasons: list[str] | None = None,
    rotation: int = 0,
    source_wh: tuple[int, int] = (100, 100),
    size_wh: tuple[int, int] = (416, 416),
    fit: str = "stretch",
) -> PlacedBoxes:
    xyxy: npt.NDArray[np.float64] = np.array(rows, dtype=float).reshape(-1, 4)
    return place_boxes(
        xyxy,
        np.array(class_ids or [0] * len(rows), dtype=np.int64),
        np.array(drop_reasons or [""] * len(rows), dtype=object),
        rotation=rotation,
        source_wh=source_wh,
        size_wh=size_wh,
        fit=fit,
    )


@pytest.mark.parametrize(
    ("rotation", "fit", "expected"),
    [
        (0, "stretch", (0.1, 0.2, 0.3, 0.6)),
        (0, "none", (0.1, 0.2, 0.3, 0.6)),
        (90, "stretch", (0.2, 0.7, 0.6, 0.9)),
        (180, "stretch", (0.7, 0.4, 0.9, 0.8)),
        (270, "stretch", (0.4, 0.1, 0.8, 0.3)),
        # 200 x 100 in a square: a quarter of it above and below.
        (0, "letterbox", (0.1, 0.35, 0.3, 0.55)),
        (90, "letterbox", (0.35, 0.7, 0.55, 0.9)),
    ],
)
def test_a_box_is_rotated_and_fitted_like_its_image(
    rotation: int, fit: str, expected: tuple[float, ...]
) -> None:
    source_wh = (200, 100) if rotation in {0, 180} else (100, 200)
    result = placed([(0.1, 0.2, 0.3, 0.6)], rotation=rotation, fit=fit, source_wh=source_wh)
    np.testing.assert_allclose(result.xyxy, [expected], atol=1e-9)
    assert result.used.tolist() == [True]


def test_a_box_is_clipped_before_the_letterbox_is_applied() -> None:
    result = placed([(-0.5, 0.5, 1.5, 2.0)], fit="letterbox", source_wh=(200, 100))
    np.testing.assert_allclose(result.xyxy, [[0.0, 0.5, 1.0, 0.75]])


@pytest.mark.parametrize(
    "box",
    [(0.5, 0.5, 0.5, 0.9), (0.5, 0.5, 0.9, 0.5), (1.2, 0.1, 1.5, 0.5), (0.6, 0.1, 0.4, 0.5),
     (0.5, 0.5, 0.50009, 0.9)],
)  # fmt: skip
def test_a_box_without_area_is_not_a_label(box: tuple[float, ...]) -> None:
    result = placed([box, (0.1, 0.1, 0.2, 0.2)])
    assert result.drop_reasons.tolist() == ["no area", ""]
    assert result.used.tolist() == [False, True]


def test_a_box_that_repeats_another_of_its_class_is_not_a_label() -> None:
    box = (0.1, 0.1, 0.5, 0.5)
    near = (0.1, 0.1, 0.5, 0.5000001)
    result = placed([box, box, near, box, box], class_ids=[0, 0, 0, 1, 1])
    assert result.drop_reasons.tolist() == ["", "repeated", "repeated", "", "repeated"]


def test_a_box_dropped_by_the_selection_keeps_its_reason() -> None:
    box = (0.1, 0.1, 0.5, 0.5)
    result = placed(
        [box, (0.5, 0.5, 0.5, 0.5), box, box], drop_reasons=["group_of", "inside", "", ""]
    )
    assert result.drop_reasons.tolist() == ["group_of", "inside", "", "repeated"]


def test_the_input_reasons_are_not_modified() -> None:
    drop_reasons = np.array([""], dtype=object)
    place_boxes(np.zeros((1, 4)), np.array([0]), drop_reasons, rotation=0, source_wh=(9, 9),
                size_wh=(32, 32), fit="stretch")  # fmt: skip
    assert drop_reasons.tolist() == [""]


def test_without_boxes_there_are_no_labels() -> None:
    result = placed([])
    assert result.xyxy.shape == (0, 4)
    assert result.used.tolist() == []
