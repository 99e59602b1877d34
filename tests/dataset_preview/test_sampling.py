"""Which images and boxes are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.dataset_preview.facts import Pair
from oiyolo.dataset_preview.sampling import (
    CELLS,
    SHEETS_OF_ROTATED,
    by_lot,
    choose,
    doubtful_pairs,
    extreme_boxes,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.dataset_preview.facts import Facts

BOX = (0.1, 0.1, 0.5, 0.5)


@given(st.sets(st.text(max_size=8), max_size=60), st.text(max_size=8), st.integers(1, 30))
def test_the_lot_is_the_same_in_any_order_and_a_new_image_displaces_one(
    ids: set[str], new: str, count: int
) -> None:
    chosen = by_lot(ids, count)
    assert by_lot(sorted(ids, reverse=True), count) == chosen
    assert len(chosen) == len(set(chosen)) == min(count, len(ids))
    assert len(set(chosen) - set(by_lot(ids | {new}, count))) <= 1


def test_a_grid_has_images_of_its_split_only(many: Callable[..., Facts], tmp_path: Path) -> None:
    facts = many(tmp_path, 300)
    grids = choose(facts).grids
    assert {name: len(ids) for name, ids in grids.items()} == dict.fromkeys(
        ("train", "valid", "test"), CELLS
    )
    assert all(facts.split_by_id[i] == name for name, ids in grids.items() for i in ids)


@pytest.mark.parametrize("rotated", [0, 1, CELLS, CELLS + 1, CELLS * SHEETS_OF_ROTATED + 5])
def test_every_rotated_image_is_shown_until_there_are_too_many(
    many: Callable[..., Facts], tmp_path: Path, rotated: int
) -> None:
    facts = many(tmp_path, 240)
    turns = {i: 90 * (1 + n % 3) for n, i in enumerate(list(facts.split_by_id)[:rotated])}
    straight = dict.fromkeys(list(facts.split_by_id)[rotated:], 0)
    facts = many(tmp_path, 240, rotation_by_id={**turns, **straight, "in no split": 90})
    chosen = choose(facts)
    shown = [i for sheet in chosen.rotated for i in sheet]
    assert chosen.rotated_total == rotated
    assert len(shown) == len(set(shown)) == min(rotated, CELLS * SHEETS_OF_ROTATED)
    assert set(shown) <= set(turns)
    assert all(0 < len(sheet) <= CELLS for sheet in chosen.rotated)


def test_extreme_boxes_are_labels_of_the_dataset_one_of_an_image(
    facts_of: Callable[..., Facts], tmp_path: Path
) -> None:
    facts = facts_of(
        tmp_path,
        [
            ("a", 0, (0, 0, 0.5, 0.5), True),
            ("a", 0, (0, 0, 0.1, 0.1), True),
            ("a", 0, (0, 0, 0.01, 0.01), False),  # no label
            ("b", 0, (0, 0, 0.2, 0.2), True),
            ("c", 0, (0, 0, 0.05, 0.05), True),
            ("elsewhere", 0, (0, 0, 1, 1), True),
        ],
        {"a": "train", "b": "valid", "c": "test"},
    )
    assert extreme_boxes(facts, 9) == [4, 1, 3]
    assert extreme_boxes(facts, 9, largest=True) == [0, 3, 4]
    assert extreme_boxes(facts, 1) == [4]


def test_pairs_in_two_splits_come_first_and_then_the_least_alike(
    facts_of: Callable[..., Facts], tmp_path: Path
) -> None:
    splits = {"a": "train", "b": "train", "c": "valid", "d": "train"}
    pairs = [Pair("a", "b", 1), Pair("a", "d", 6), Pair("b", "c", 2), Pair("d", "left out", 4)]
    facts = facts_of(tmp_path, [("a", 0, BOX, True)], splits, duplicates=pairs)
    assert doubtful_pairs(facts, 9) == [pairs[2], pairs[1], pairs[3], pairs[0]]
    assert doubtful_pairs(facts, 2) == [pairs[2], pairs[1]]
