"""Staleness: why an artifact is stale, in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core import staleness
from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from pathlib import Path

RECIPE: dict[str, Any] = {
    "options": {"limit": 5, "size": (416, 416)},
    "version": "0.1.0",
    "count": 3,
    "flag": None,
}


def test_an_unchanged_recipe_means_up_to_date(tmp_path: Path) -> None:
    staleness.write_recipe(tmp_path / "s.json", RECIPE)
    assert staleness.stale_reason(tmp_path / "s.json", RECIPE) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": {"limit": 6, "size": [416, 416]}}, "options changed: limit from 5 to 6"),
        ({"options": {"limit": 5}}, "options changed: size from 416, 416 to nothing"),
        ({"options": {"limit": 5, "size": "a" * 64}}, "options changed: size"),
        ({"version": "0.2.0"}, "version changed"),
        ({"count": 4}, "count changed from 3 to 4"),
        ({"flag": 1}, "flag changed"),
        ({"new": 1}, "new was not recorded"),
    ],
)
def test_a_changed_recipe_is_explained_in_words(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    staleness.write_recipe(tmp_path / "s.json", RECIPE)
    assert staleness.stale_reason(tmp_path / "s.json", {**RECIPE, **change}) == reason


@pytest.mark.parametrize("content", [None, "", "[1]", "{", '"text"'])
def test_without_a_valid_recipe_there_is_no_earlier_output(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    assert staleness.stale_reason(tmp_path / "s.json", {}) == "no earlier output"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=15)
@given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON))
def test_a_fingerprint_depends_on_the_value_and_not_on_the_order_of_its_keys(
    value: dict[str, object], other: dict[str, object]
) -> None:
    reordered = dict(reversed(value.items()))
    assert staleness.fingerprint(value) == staleness.fingerprint(reordered)
    same_text = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (staleness.fingerprint(value) == staleness.fingerprint(other)) == same_text


def test_a_recipe_tells_whether_its_artifact_was_changed(tmp_path: Path) -> None:
    recipe, artifact = tmp_path / ".made-from.json", tmp_path / "table.csv"
    artifact.write_text("a\n1\n")
    assert staleness.is_intact(recipe, artifact)  # an older version recorded nothing
    staleness.write_recipe(recipe, {"rows": 1}, [artifact])
    assert staleness.stale_reason(recipe, {"rows": 1}) is None
    staleness.check_intact(recipe, artifact, remedy="Make it again")
    artifact.write_text("a\n2\n")
    with pytest.raises(InputFormError) as caught:
        staleness.check_intact(recipe, artifact, remedy="Make it again")
    assert (caught.value.where, caught.value.remedy) == (str(artifact), "Make it again")
    artifact.unlink()
    assert not staleness.is_intact(recipe, artifact)
