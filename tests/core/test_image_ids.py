"""ImageIDs: exactly 16 hexadecimal digits, alone and by the million."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core import image_ids
from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Sequence

GOOD = "0123456789abcdef"
BAD = [
    "",
    "../../../../victim",
    GOOD[:-1],
    f"{GOOD}0",
    GOOD.upper(),
    f"{GOOD}\n",
    "g" * 16,
    "\uff10" * 16,
]


@pytest.mark.parametrize("text", [*BAD, None, 7, b"0123456789abcdef"])
def test_anything_else_is_refused_with_its_source_and_row(text: object) -> None:
    assert not image_ids.is_image_id(text)
    with pytest.raises(InputFormError) as caught:
        image_ids.parse_id(text, where="boxes.csv", row=7)
    assert caught.value.where == "boxes.csv"
    assert "row 7" in caught.value.found


def test_a_valid_id_is_returned() -> None:
    assert image_ids.parse_id(GOOD, where="x") == GOOD
    assert image_ids.parse_ids([GOOD] * 3, where="x") == [GOOD] * 3
    assert image_ids.parse_ids([], where="x") == []


def test_a_long_value_is_shown_in_short() -> None:
    with pytest.raises(InputFormError) as caught:
        image_ids.parse_id("x" * 200_000, where="x")
    assert len(str(caught.value)) < 300


@given(st.lists(st.sampled_from([GOOD, "f" * 16, *BAD])))
def test_many_are_judged_as_each_one_is(texts: Sequence[str]) -> None:
    each = [image_ids.is_image_id(text) for text in texts]
    assert list(image_ids.are_valid(texts)) == each
    if all(each):
        assert image_ids.parse_ids(texts, where="x") == texts
    else:
        with pytest.raises(InputFormError) as caught:
            image_ids.parse_ids(texts, where="x", first_row=2)
        assert f"row {each.index(False) + 2}" in caught.value.found
