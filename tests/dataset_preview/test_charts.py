"""The numbers in the charts, and the charts themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oiyolo.charts.canvas import new_figure
from oiyolo.dataset_preview import charts
from oiyolo.dataset_preview.statistics import (
    COUNT_BINS,
    class_counts,
    class_rows,
    classes_to_show,
    count_per_bin,
    size_shares,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.charts.canvas import Axes
    from oiyolo.dataset_preview.dataset import PreviewDataset

ROWS = [
    ("a", 0, (0.0, 0.0, 0.05, 0.05), True),  # sides of 20.8 px
    ("a", 0, (0.0, 0.0, 0.2, 0.2), True),  # 83.2 px
    ("a", 1, (0.5, 0.5, 0.6, 0.9), True),
    ("b", 1, (0.0, 0.0, 1.0, 1.0), True),
    ("b", 1, (0.0, 0.0, 0.5, 1.0), False),
]
SPLITS = {"a": "train", "b": "valid", "c": "train"}


@pytest.fixture
def dataset(make_dataset: Callable[..., PreviewDataset], tmp_path: Path) -> PreviewDataset:
    return make_dataset(tmp_path, ROWS, SPLITS, anchors_wh=[(10, 13), (116, 90)])


def bar_groups(ax: Axes) -> list[Any]:
    return list(ax.containers)


def test_a_class_is_counted_by_image_and_by_object(dataset: PreviewDataset) -> None:
    images, objects = class_counts(dataset)
    assert dataset.splits == ("train", "valid")
    assert images.tolist() == [[1, 0], [1, 1]]
    assert objects.tolist() == [[2, 0], [1, 1]]
    rows = class_rows(dataset)
    assert rows.names == ["all", "negatives", "Oar", "Boat"]
    assert rows.images.tolist() == [[2, 1], [1, 0], [1, 1], [1, 0]]
    assert rows.objects.tolist() == [[3, 1], [0, 0], [1, 1], [2, 0]]
    assert rows.left_out == 0


def test_a_class_id_without_a_name_is_a_separate_class(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path, [("a", 7, (0, 0, 1, 1), True)], {"a": "train"})
    assert class_counts(dataset)[1].sum(axis=1).tolist() == [0] * 7 + [1]
    assert "class 7" in class_rows(dataset).names


def test_box_sizes_are_those_of_coco(dataset: PreviewDataset) -> None:
    assert size_shares(dataset.labels).tolist() == [0.25, 0.5, 0.25]
    assert size_shares(dataset.labels.head(0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("count", "count_bin"),
    [(0, "0"), (1, "1"), (5, "5"), (6, "6-9"), (9, "6-9"), (10, "10-19"), (49, "20-49"),
     (50, "50+"), (7000, "50+")],
)  # fmt: skip
def test_each_number_of_boxes_is_counted_in_its_bin(count: int, count_bin: str) -> None:
    counts = count_per_bin(np.array([count, count]))
    assert {b: n for b, n in zip(COUNT_BINS, counts.tolist(), strict=True) if n} == {count_bin: 2}


def test_of_many_classes_the_largest_and_the_most_uneven_are_shown() -> None:
    images = np.array([[80, 10, 10]] * 40) * np.arange(60, 20, -1)[:, None]
    images[33] = [0, 0, 500]
    shown = classes_to_show(images, images.sum(axis=0))
    assert len(shown) == 20
    assert 33 in shown
    assert set(range(12)) <= set(shown)
    totals = images.sum(axis=1)[list(shown)].tolist()
    assert totals == sorted(totals, reverse=True)


def test_the_chart_of_box_sizes_counts_every_box(dataset: PreviewDataset) -> None:
    ax = charts.plot_box_sizes(dataset)
    (mesh,) = ax.collections
    assert float((np.ma.filled(np.ma.asarray(mesh.get_array()), 0) ** 2).sum()) == pytest.approx(4)
    anchors = next(line for line in ax.lines if line.get_label() == "anchors")
    assert np.asarray(anchors.get_xydata()).tolist() == [[10, 13], [116, 90]]
    low, high = ax.get_xlim()
    assert low < 10
    assert high > 416


def test_the_aspect_ratios_of_each_split_sum_to_one(dataset: PreviewDataset) -> None:
    ax = charts.plot_aspect_ratios(dataset)
    handles, labels = ax.get_legend_handles_labels()
    assert labels == ["train (3 boxes)", "valid (1 box)"]
    for stairs in handles:
        values = stairs.get_data().values  # type: ignore[attr-defined]
        assert values.sum() == pytest.approx(1)


def test_the_chart_of_positions_counts_box_centres_at_their_positions(
    dataset: PreviewDataset,
) -> None:
    ax = charts.plot_positions(dataset, "valid")
    (image,) = ax.images
    counts = np.asarray(image.get_array())
    assert counts.sum() == 1
    assert counts[counts.shape[0] // 2, counts.shape[1] // 2] == 1
    top_left = np.asarray(charts.plot_positions(dataset, "train").images[0].get_array())
    assert top_left[0, 0] == 2


def test_the_chart_of_boxes_per_image_shows_shares_of_each_split(dataset: PreviewDataset) -> None:
    ax = charts.plot_boxes_per_image(dataset)
    heights = [[bar.get_height() for bar in bars] for bars in bar_groups(ax)]
    assert heights == [[0.5, 0, 0, 0.5], [0, 1, 0, 0]]


def test_the_bar_of_a_class_is_divided_by_its_shares(dataset: PreviewDataset) -> None:
    rows = class_rows(dataset)
    ax = charts.plot_classes(rows.names, rows.images, dataset.splits)
    widths = np.array([[bar.get_width() for bar in bars] for bars in bar_groups(ax)]).T
    np.testing.assert_allclose(widths, [[2 / 3, 1 / 3], [1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "all", "negatives", "Oar", "Boat"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "plot", [charts.plot_box_sizes, charts.plot_size_shares, charts.plot_aspect_ratios]
)
def test_a_chart_without_boxes_says_so(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path, plot: Callable[..., Axes]
) -> None:
    empty = make_dataset(tmp_path, [], {"a": "train"})
    ax = new_figure().subplots()
    assert plot(empty, ax) is ax
    assert "no boxes" in [text.get_text() for text in ax.texts]
