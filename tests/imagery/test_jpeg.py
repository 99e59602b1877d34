"""A JPEG's markers show whether it is complete."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oiyolo.imagery.jpeg import find_defect

REAL = Path(__file__).parents[3] / "shared" / "real" / "alpaca" / "images"


def encoded(mode: str = "RGB", file_format: str = "JPEG", **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, file_format, **options)
    return file.getvalue()


VARIANTS = {
    "colour": encoded(),
    "grey": encoded("L"),
    "CMYK": encoded("CMYK"),
    "progressive": encoded(progressive=True),
    "restarts": encoded(restart_marker_rows=1),
    "comment": encoded(comment=b"\xff\xd9 is the end"),
}
COMPLETE = VARIANTS["progressive"]


@pytest.mark.parametrize("content", VARIANTS.values(), ids=list(VARIANTS))
def test_a_complete_jpeg_has_no_defect(content: bytes) -> None:
    assert find_defect(content) is None


@pytest.mark.parametrize("content", VARIANTS.values(), ids=list(VARIANTS))
def test_a_jpeg_truncated_anywhere_has_a_defect(content: bytes) -> None:
    assert all(find_defect(content[:end]) is not None for end in range(len(content)))


def test_bytes_after_the_end_are_ignored() -> None:
    assert find_defect(COMPLETE + b"\0" * 100) is None
    assert find_defect(COMPLETE + COMPLETE[:50]) is None


def test_fill_bytes_before_a_marker_are_allowed() -> None:
    assert find_defect(COMPLETE[:2] + b"\xff\xff" + COMPLETE[2:]) is None


@pytest.mark.parametrize(
    ("content", "defect"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "not a JPEG"),
        (encoded("P", "PNG"), "not a JPEG"),
        (encoded("P", "GIF"), "not a JPEG"),
        (COMPLETE[:2], "not a JPEG"),
        (COMPLETE[:3], "truncated JPEG"),
        (COMPLETE[:-1], "truncated JPEG"),
        (COMPLETE[: len(COMPLETE) // 2], "truncated JPEG"),
        (COMPLETE[:20] + b"\0" * 500, "broken JPEG"),
    ],
)
def test_a_defect_is_described_in_a_few_words(content: bytes, defect: str) -> None:
    assert find_defect(content) == defect


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_yield_a_known_result(content: bytes, has_start: bool) -> None:
    assert find_defect((b"\xff\xd8\xff" if has_start else b"") + content) in {
        None, "empty", "not a JPEG", "broken JPEG", "truncated JPEG",
    }  # fmt: skip


def test_real_photographs_are_complete_and_their_halves_are_truncated() -> None:
    if not REAL.is_dir():
        pytest.skip("the real photographs are missing")
    contents = [path.read_bytes() for path in sorted(REAL.glob("*.jpg"))[:30]]
    assert contents
    assert [find_defect(content) for content in contents] == [None] * len(contents)
    halves = {find_defect(content[: len(content) // 2]) for content in contents}
    assert halves == {"truncated JPEG"}
