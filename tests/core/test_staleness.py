"""Stamps: why an artifact is stale, in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core import staleness

if TYPE_CHECKING:
    from pathlib import Path

MADE_FROM: dict[str, Any] = {
    "options": {"limit": 5, "size": (416, 416)},
    "version": "0.1.0",
    "count": 3,
    "flag": None,
}


def test_what_was_stamped_and_did_not_change_is_up_to_date(tmp_path: Path) -> None:
    staleness.write(tmp_path / "s.json", MADE_FROM)
    assert staleness.stale_reason(tmp_path / "s.json", MADE_FROM) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": {"limit": 6, "size": [416, 416]}}, "options changed: limit from 5 to 6"),
        ({"options": {"limit": 5}}, "options changed: size from [416, 416] to None"),
        ({"version": "0.2.0"}, "version changed"),
        ({"count": 4}, "count changed from 3 to 4"),
        ({"flag": 1}, "flag changed"),
        ({"new": 1}, "new was not recorded"),
    ],
)
def test_a_change_is_told_in_words(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    staleness.write(tmp_path / "s.json", MADE_FROM)
    assert staleness.stale_reason(tmp_path / "s.json", {**MADE_FROM, **change}) == reason


@pytest.mark.parametrize("content", [None, "", "[1]", "{", '"text"'])
def test_no_stamp_or_a_damaged_one_means_that_it_was_not_made(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    assert staleness.stale_reason(tmp_path / "s.json", {}) == "it was not made yet"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON))
def test_a_fingerprint_is_that_of_the_value_whatever_the_order_of_its_names(
    value: dict[str, object], other: dict[str, object]
) -> None:
    turned = dict(reversed(value.items()))
    assert staleness.fingerprint(value) == staleness.fingerprint(turned)
    same_text = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (staleness.fingerprint(value) == staleness.fingerprint(other)) == same_text
