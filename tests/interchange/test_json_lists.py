"""Long lists in JSON are read in pieces, as ``json.loads`` would read the whole."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.interchange import json_lists

LISTS = ("images", "boxes")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)
CONTENTS = st.dictionaries(
    st.sampled_from([*LISTS, "info", ""]), VALUES | st.lists(VALUES, max_size=8)
)


def load(text: bytes) -> Any:
    return json_lists.load(io.BytesIO(text), LISTS, dict)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lists, "_PIECE_BYTES", 7)


@given(
    CONTENTS | VALUES,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from([None, 2, "\t"]),
    st.booleans(),
)
def test_the_content_is_that_of_the_whole_file(
    content: object, encoding: str, indent: int | str | None, ascii_only: bool
) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode(encoding)
    assert load(text) == json.loads(text)


@pytest.mark.parametrize("piece_bytes", range(4, 60))
def test_a_piece_may_end_anywhere(monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr(json_lists, "_PIECE_BYTES", piece_bytes)
    content = {"images": [0.25, -1e-05, 12, "\u00e9\\", [1.5, {"a": None}]], "x": 10.75}
    for text in (json.dumps(content), json.dumps(content, ensure_ascii=False, indent=1)):
        assert load(text.encode()) == content


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1, 2", '{"images": [1, 2}', '{"images": [1 2]}', '{"images": [1,]}',
        '{"images": [1]} x', '{"images"}', "{images: 1}", '{"a": 1,}', '{"a": 1 "b": 2}',
        '{"images": [{"a": nope}]}', '{"images": ["open]}', "\n\n  \n}", '{"a": 12x}',
        '{\n"images": [\n1,\n2,\n3,\n?\n]\n}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_an_error_with_the_same_line(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json_lists.JsonError) as found:
        load(text.encode())
    assert found.value.line == expected.value.lineno


def test_objects_are_replaced_as_soon_as_they_are_read() -> None:
    text = json.dumps({"images": [{"id": 1, "more": {"x": 2}}], "info": {"id": 3}}).encode()
    found = json_lists.load(io.BytesIO(text), LISTS, tuple)
    assert found == {"images": [("id", "more")], "info": ("id",)}


def test_a_key_that_is_repeated_has_its_last_value() -> None:
    assert load(b'{"images": [1], "images": [2, 3]}') == {"images": [2, 3]}
    assert load(b'{"images": [1], "images": null}') == {"images": None}
