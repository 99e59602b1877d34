"""Reading the detections that ``darknet detector valid`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import DarknetError, InputFormError
from oiyolo.darknet.detections import read_detections, to_fractions

if TYPE_CHECKING:
    from pathlib import Path

SIZES_WH = {"0a": (100, 50), "1e5": (200, 100), "nan": (10, 10)}


def write(folder: Path, *classes: str) -> Path:
    for class_id, text in enumerate(classes):
        (folder / f"d_{class_id}.txt").write_text(text)
    return folder


def test_pixels_counted_from_one_become_fractions(tmp_path: Path) -> None:
    write(tmp_path, "0a 0.9 11 6 61 26\n1e5 0.500000 1.000000 1.000000 200.000000 100.0\n", "")
    table = read_detections(tmp_path, class_count=2, prefix="d_", image_sizes_wh=SIZES_WH)
    assert table.image_ids == ("0a", "1e5", "nan")
    assert table.image.tolist() == [0, 1]
    assert table.class_id.tolist() == [0, 0]
    assert table.score.tolist() == [0.9, 0.5]
    np.testing.assert_allclose(table.xyxy, [[0.1, 0.1, 0.6, 0.5], [0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("true_px", "back"),
    [
        ((0.0, 0.0, 96.0, 96.0), (0.0, 0.0, 1.0, 1.0)),
        ((-20.0, -3.0, 120.0, 400.0), (0.0, 0.0, 1.0, 1.0)),  # larger than the image
        ((24.0, 48.0, 72.0, 90.0), (0.25, 0.5, 0.75, 0.9375)),
        ((48.0, 48.0, 95.5, 94.0), (0.5, 0.5, 1.0, 94 / 96)),  # the last pixel is the edge
        ((-30.0, 10.0, -12.0, 20.0), (0.0, 10 / 96, 0.0, 20 / 96)),  # outside the image
        ((110.0, 10.0, 130.0, 20.0), (1.0, 10 / 96, 1.0, 20 / 96)),
    ],
)
def test_printed_boxes_are_converted_back_to_fractions(
    true_px: tuple[float, ...], back: tuple[float, ...]
) -> None:
    printed = np.array(true_px) + 1
    printed[:2] = np.maximum(printed[:2], 1)
    printed[2:] = np.minimum(printed[2:], 96)
    np.testing.assert_allclose(to_fractions(printed[None], np.array([[96.0, 96.0]])), [back])


def test_an_image_repeated_to_pad_the_list_counts_once(tmp_path: Path) -> None:
    line = "0a 0.9 11 6 61 26\n"
    write(tmp_path, line + line + "0a 0.8 11 6 61 26\n" + line, line)
    table = read_detections(tmp_path, class_count=2, prefix="d_", image_sizes_wh=SIZES_WH)
    assert table.score.tolist() == [0.9, 0.8, 0.9]
    assert table.class_id.tolist() == [0, 0, 1]


def test_detections_with_nan_or_infinity_are_dropped(tmp_path: Path) -> None:
    write(
        tmp_path,
        "0a 0.9 11 6 61 26\n0a nan 1 2 3 4\n0a 0.5 -nan 2 3 4\n0a 0.5 1 -inf inf 4\n"
        "0a 0.5 1 -nan(ind) 3 4\nnan 0.7 1 1 5 5\n",
    )
    table = read_detections(tmp_path, class_count=1, prefix="d_", image_sizes_wh=SIZES_WH)
    assert table.score.tolist() == [0.9, 0.7]
    assert table.image.tolist() == [0, 2]


def test_without_detections_the_table_is_empty(tmp_path: Path) -> None:
    table = read_detections(
        write(tmp_path, "", ""), class_count=2, prefix="d_", image_sizes_wh=SIZES_WH
    )
    assert len(table) == 0
    assert table.xyxy.shape == (0, 4)
    assert table.image_ids == ("0a", "1e5", "nan")


def test_image_names_may_contain_spaces_and_full_stops(tmp_path: Path) -> None:
    sizes = {"my boat (2).final": (10, 10), 'a "b"': (10, 10)}
    write(tmp_path, 'my boat (2) 0.5 1 1 5 5\na "b" 0.25 1 1 5 5\n')
    table = read_detections(tmp_path, class_count=1, prefix="d_", image_sizes_wh=sizes)
    assert [table.image_ids[i] for i in table.image] == ["my boat (2).final", 'a "b"']


def test_names_that_are_equal_up_to_the_first_full_stop_are_refused(tmp_path: Path) -> None:
    sizes = {"boat.1": (10, 10), "boat.2": (10, 10)}
    with pytest.raises(InputFormError) as caught:
        read_detections(write(tmp_path, ""), class_count=1, prefix="d_", image_sizes_wh=sizes)
    assert "'boat.1' and 'boat.2'" in str(caught.value)


@pytest.mark.parametrize(
    "broken",
    [
        "0a 0.9 11 6 61\n",  # too few fields
        "0a 0.9 11 6 61 26 7 8\n",  # too many: a name that is not in the list
        "0a 0.9 11 six 61 26\n",
        "0a 0.9 11 6 61 2",  # cut off within a number
        "\n",
        "0b 0.9 11 6 61 26\n",  # an image that is not in the list
        "0a 0.9 11 6 61 \n",
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, broken: str) -> None:
    good = "0a 0.9 11 6 61 26\n"
    write(tmp_path, good, good + good + broken)
    with pytest.raises(InputFormError) as caught:
        read_detections(tmp_path, class_count=2, prefix="d_", image_sizes_wh=SIZES_WH)
    assert caught.value.where == f"{tmp_path / 'd_1.txt'}:3"


def test_a_missing_file_of_a_class_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(DarknetError) as caught:
        read_detections(tmp_path, class_count=2, prefix="d_", image_sizes_wh=SIZES_WH)
    assert caught.value.where == str(tmp_path / "d_1.txt")
