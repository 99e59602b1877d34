"""Is a JPEG whole? Its markers alone tell."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oiyolo.imagery.jpeg import what_is_wrong

REAL = Path(__file__).parents[3] / "shared" / "real" / "alpaca" / "images"


def encoded(mode: str = "RGB", form: str = "JPEG", **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, form, **options)
    return file.getvalue()


VARIANTS = {
    "colour": encoded(),
    "grey": encoded("L"),
    "CMYK": encoded("CMYK"),
    "progressive": encoded(progressive=True),
    "restarts": encoded(restart_marker_rows=1),
    "comment": encoded(comment=b"\xff\xd9 is the end"),
}
WHOLE = VARIANTS["progressive"]


@pytest.mark.parametrize("content", VARIANTS.values(), ids=list(VARIANTS))
def test_a_whole_jpeg_is_whole(content: bytes) -> None:
    assert what_is_wrong(content) is None


@pytest.mark.parametrize("content", VARIANTS.values(), ids=list(VARIANTS))
def test_a_jpeg_cut_off_anywhere_is_not(content: bytes) -> None:
    assert all(what_is_wrong(content[:end]) is not None for end in range(len(content)))


def test_what_follows_the_end_does_not_matter() -> None:
    assert what_is_wrong(WHOLE + b"\0" * 100) is None
    assert what_is_wrong(WHOLE + WHOLE[:50]) is None


def test_fill_bytes_before_a_marker_are_allowed() -> None:
    assert what_is_wrong(WHOLE[:2] + b"\xff\xff" + WHOLE[2:]) is None


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "not a JPEG"),
        (encoded("P", "PNG"), "not a JPEG"),
        (encoded("P", "GIF"), "not a JPEG"),
        (WHOLE[:2], "not a JPEG"),
        (WHOLE[:3], "truncated JPEG"),
        (WHOLE[:-1], "truncated JPEG"),
        (WHOLE[: len(WHOLE) // 2], "truncated JPEG"),
        (WHOLE[:20] + b"\0" * 500, "broken JPEG"),
    ],
)
def test_what_is_wrong_is_told_in_a_few_words(content: bytes, wrong: str) -> None:
    assert what_is_wrong(content) == wrong


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_have_an_answer(content: bytes, is_begun: bool) -> None:
    assert what_is_wrong((b"\xff\xd8\xff" if is_begun else b"") + content) in {
        None, "empty", "not a JPEG", "broken JPEG", "truncated JPEG",
    }  # fmt: skip


def test_real_photographs_are_whole_and_their_halves_are_not() -> None:
    if not REAL.is_dir():
        pytest.skip("the real photographs are not here")
    contents = [path.read_bytes() for path in sorted(REAL.glob("*.jpg"))[:30]]
    assert contents
    assert [what_is_wrong(content) for content in contents] == [None] * len(contents)
    halves = {what_is_wrong(content[: len(content) // 2]) for content in contents}
    assert halves == {"truncated JPEG"}
