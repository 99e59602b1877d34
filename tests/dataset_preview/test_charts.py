"""The numbers behind the charts, and that each chart shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oiyolo.charts.canvas import new_figure
from oiyolo.dataset_preview import charts
from oiyolo.dataset_preview.statistics import (
    BUCKETS,
    class_numbers,
    in_buckets,
    shown_classes,
    size_shares,
    split_shares,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.charts.canvas import Axes
    from oiyolo.dataset_preview.facts import Facts

ROWS = [
    ("a", 0, (0.0, 0.0, 0.05, 0.05), True),  # 20.8 px a side
    ("a", 0, (0.0, 0.0, 0.2, 0.2), True),  # 83.2 px
    ("a", 1, (0.5, 0.5, 0.6, 0.9), True),
    ("b", 1, (0.0, 0.0, 1.0, 1.0), True),
    ("b", 1, (0.0, 0.0, 0.5, 1.0), False),
]
SPLITS = {"a": "train", "b": "valid", "c": "train"}


@pytest.fixture
def facts(facts_of: Callable[..., Facts], tmp_path: Path) -> Facts:
    return facts_of(tmp_path, ROWS, SPLITS, anchors_wh=[(10, 13), (116, 90)])


def bars_of(ax: Axes) -> list[Any]:
    return list(ax.containers)


def test_a_class_is_counted_by_image_and_by_object(facts: Facts) -> None:
    images, objects = class_numbers(facts)
    assert facts.splits == ("train", "valid")
    assert images.tolist() == [[1, 0], [1, 1]]
    assert objects.tolist() == [[2, 0], [1, 1]]
    found = split_shares(facts)
    assert [tuple(row) for row in found.images] == [
        ("all", (2, 1)),
        ("negatives", (1, 0)),
        ("Oar", (1, 1)),
        ("Boat", (1, 0)),
    ]
    assert [row.numbers for row in found.objects] == [(3, 1), (0, 0), (1, 1), (2, 0)]
    assert found.left_out == 0


def test_a_class_id_beyond_the_names_is_a_class_of_its_own(
    facts_of: Callable[..., Facts], tmp_path: Path
) -> None:
    facts = facts_of(tmp_path, [("a", 7, (0, 0, 1, 1), True)], {"a": "train"})
    assert class_numbers(facts)[1].sum(axis=1).tolist() == [0] * 7 + [1]
    assert "class 7" in [row.name for row in split_shares(facts).images]


def test_boxes_are_small_medium_and_large_as_coco_has_it(facts: Facts) -> None:
    assert size_shares(facts.labels).tolist() == [0.25, 0.5, 0.25]
    assert size_shares(facts.labels.head(0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("number", "bucket"),
    [(0, "0"), (1, "1"), (5, "5"), (6, "6-9"), (9, "6-9"), (10, "10-19"), (49, "20-49"),
     (50, "50+"), (7000, "50+")],
)  # fmt: skip
def test_a_number_of_boxes_falls_into_its_bucket(number: int, bucket: str) -> None:
    counts = in_buckets(np.array([number, number]))
    assert [(b.name, n) for b, n in zip(BUCKETS, counts.tolist(), strict=True) if n] == [
        (bucket, 2)
    ]


def test_of_many_classes_the_largest_and_the_worst_divided_are_shown() -> None:
    images = np.array([[80, 10, 10]] * 40) * np.arange(60, 20, -1)[:, None]
    images[33] = [0, 0, 500]
    shown = shown_classes(images, images.sum(axis=0))
    assert len(shown) == 20
    assert 33 in shown
    assert set(range(12)) <= set(shown)
    totals = images.sum(axis=1)[list(shown)].tolist()
    assert totals == sorted(totals, reverse=True)


def test_the_density_counts_every_box(facts: Facts) -> None:
    ax = charts.plot_box_sizes(facts)
    (mesh,) = ax.collections
    assert float((np.ma.filled(np.ma.asarray(mesh.get_array()), 0) ** 2).sum()) == pytest.approx(4)
    anchors = next(line for line in ax.lines if line.get_label() == "anchors")
    assert np.asarray(anchors.get_xydata()).tolist() == [[10, 13], [116, 90]]
    low, high = ax.get_xlim()
    assert low < 10
    assert high > 416


def test_the_aspect_ratios_of_each_split_sum_to_one(facts: Facts) -> None:
    ax = charts.plot_aspect_ratios(facts)
    handles, labels = ax.get_legend_handles_labels()
    assert labels == ["train (3 boxes)", "valid (1 box)"]
    for stairs in handles:
        values = stairs.get_data().values  # type: ignore[attr-defined]
        assert values.sum() == pytest.approx(1)


def test_centres_are_counted_where_they_are(facts: Facts) -> None:
    ax = charts.plot_positions(facts, "valid")
    (image,) = ax.images
    numbers = np.asarray(image.get_array())
    assert numbers.sum() == 1
    assert numbers[numbers.shape[0] // 2, numbers.shape[1] // 2] == 1
    top_left = np.asarray(charts.plot_positions(facts, "train").images[0].get_array())
    assert top_left[0, 0] == 2


def test_the_bars_of_boxes_in_an_image_are_shares_of_the_split(facts: Facts) -> None:
    ax = charts.plot_boxes_per_image(facts)
    heights = [[bar.get_height() for bar in bars] for bars in bars_of(ax)]
    assert heights == [[0.5, 0, 0, 0.5], [0, 1, 0, 0]]


def test_a_class_s_bar_is_cut_by_its_shares(facts: Facts) -> None:
    ax = charts.plot_classes(split_shares(facts).images, facts.splits)
    widths = np.array([[bar.get_width() for bar in bars] for bars in bars_of(ax)]).T
    np.testing.assert_allclose(widths, [[2 / 3, 1 / 3], [1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "all", "negatives", "Oar", "Boat"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "plot", [charts.plot_box_sizes, charts.plot_size_shares, charts.plot_aspect_ratios]
)
def test_a_chart_without_boxes_says_so(
    facts_of: Callable[..., Facts], tmp_path: Path, plot: Callable[..., Axes]
) -> None:
    empty = facts_of(tmp_path, [], {"a": "train"})
    ax = new_figure().subplots()
    assert plot(empty, ax) is ax
    assert "There is no box." in [words.get_text() for words in ax.texts]
