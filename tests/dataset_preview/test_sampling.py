"""The choice of images and boxes to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.dataset_preview.dataset import Pair
from oiyolo.dataset_preview.sampling import (
    CELLS_PER_SHEET,
    MAX_ROTATED_SHEETS,
    choose_sample,
    extreme_boxes,
    pairs_to_review,
    random_ids,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.dataset_preview.dataset import PreviewDataset

BOX = (0.1, 0.1, 0.5, 0.5)


@given(st.sets(st.text(max_size=8), max_size=60), st.text(max_size=8), st.integers(1, 30))
def test_a_random_sample_is_reproducible_and_a_new_image_replaces_at_most_one(
    ids: set[str], new: str, count: int
) -> None:
    chosen = random_ids(ids, count)
    assert random_ids(sorted(ids, reverse=True), count) == chosen
    assert len(chosen) == len(set(chosen)) == min(count, len(ids))
    assert len(set(chosen) - set(random_ids(ids | {new}, count))) <= 1


def test_a_grid_has_only_images_of_its_split(
    make_random_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    dataset = make_random_dataset(tmp_path, 300)
    grids = choose_sample(dataset).grids
    assert {name: len(ids) for name, ids in grids.items()} == dict.fromkeys(
        ("train", "valid", "test"), CELLS_PER_SHEET
    )
    assert all(dataset.split_by_id[i] == name for name, ids in grids.items() for i in ids)


@pytest.mark.parametrize(
    "rotated",
    [0, 1, CELLS_PER_SHEET, CELLS_PER_SHEET + 1, CELLS_PER_SHEET * MAX_ROTATED_SHEETS + 5],
)
def test_every_rotated_image_is_shown_up_to_the_limit(
    make_random_dataset: Callable[..., PreviewDataset], tmp_path: Path, rotated: int
) -> None:
    dataset = make_random_dataset(tmp_path, 240)
    rotations = {i: 90 * (1 + n % 3) for n, i in enumerate(list(dataset.split_by_id)[:rotated])}
    unrotated = dict.fromkeys(list(dataset.split_by_id)[rotated:], 0)
    dataset = make_random_dataset(
        tmp_path, 240, rotation_by_id={**rotations, **unrotated, "in no split": 90}
    )
    sample = choose_sample(dataset)
    shown = [i for sheet in sample.rotated for i in sheet]
    assert sample.rotated_total == rotated
    assert len(shown) == len(set(shown)) == min(rotated, CELLS_PER_SHEET * MAX_ROTATED_SHEETS)
    assert set(shown) <= set(rotations)
    assert all(0 < len(sheet) <= CELLS_PER_SHEET for sheet in sample.rotated)


def test_extreme_boxes_are_labels_at_most_one_per_image(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    dataset = make_dataset(
        tmp_path,
        [
            ("a", 0, (0, 0, 0.5, 0.5), True),
            ("a", 0, (0, 0, 0.1, 0.1), True),
            ("a", 0, (0, 0, 0.01, 0.01), False),  # not a label
            ("b", 0, (0, 0, 0.2, 0.2), True),
            ("c", 0, (0, 0, 0.05, 0.05), True),
            ("elsewhere", 0, (0, 0, 1, 1), True),
        ],
        {"a": "train", "b": "valid", "c": "test"},
    )
    assert extreme_boxes(dataset, 9) == [4, 1, 3]
    assert extreme_boxes(dataset, 9, largest=True) == [0, 3, 4]
    assert extreme_boxes(dataset, 1) == [4]


def test_pairs_in_two_splits_come_first_then_the_least_similar(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    splits = {"a": "train", "b": "train", "c": "valid", "d": "train"}
    pairs = [Pair("a", "b", 1), Pair("a", "d", 6), Pair("b", "c", 2), Pair("d", "left out", 4)]
    dataset = make_dataset(tmp_path, [("a", 0, BOX, True)], splits, duplicates=pairs)
    assert pairs_to_review(dataset, 9) == [pairs[2], pairs[1], pairs[3], pairs[0]]
    assert pairs_to_review(dataset, 2) == [pairs[2], pairs[1]]
