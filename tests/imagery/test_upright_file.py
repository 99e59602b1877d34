"""Image files turned upright for other programs: which bytes stay, and what is encoded again."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.imagery.exif import read_orientation
from oiyolo.imagery.upright_file import make_upright_file

SIDEWAYS = 6


def encoded(kind: str, orientation: int | None = None, mode: str = "RGB") -> bytes:
    """Return an image of 60x40 pixels whose left third is bright."""
    pixels = np.full((40, 60, 3), 40, dtype=np.uint8)
    pixels[:, :20] = (200, 180, 160)
    options: dict[str, Any] = {}
    if orientation is not None:
        exif = Image.Exif()
        exif[ExifTags.Base.Make] = "Camera"
        exif[ExifTags.Base.Orientation] = orientation
        options = {"exif": exif}
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(content: bytes) -> Any:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png")])
@pytest.mark.parametrize("orientation", [None, 1])
def test_an_upright_file_keeps_its_bytes(kind: str, suffix: str, orientation: int | None) -> None:
    content = encoded(kind, orientation)
    upright = make_upright_file(content, 0)
    assert (upright.content, upright.suffix, upright.change) == (content, suffix, "")
    assert upright.size_wh == (60, 40)


def test_the_exif_orientation_of_a_jpeg_is_removed_without_encoding_it_again() -> None:
    content = encoded("JPEG", SIDEWAYS)
    upright = make_upright_file(content, 0)
    assert read_orientation(content) == SIDEWAYS
    assert (read_orientation(upright.content), upright.change) == (1, "orientation")
    assert len(upright.content) == len(content)
    assert sum(a != b for a, b in zip(content, upright.content, strict=True)) == 1
    np.testing.assert_array_equal(pixels_of(upright.content), pixels_of(content))


def test_the_exif_orientation_of_a_png_is_removed_without_loss() -> None:
    content = encoded("PNG", SIDEWAYS)
    upright = make_upright_file(content, 0)
    assert (read_orientation(upright.content), upright.change) == (1, "converted")
    np.testing.assert_array_equal(pixels_of(upright.content), pixels_of(content))


@pytest.mark.parametrize("orientation", [None, SIDEWAYS])
@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 3), ("PNG", 0)])
def test_a_rotation_turns_the_stored_pixels_counter_clockwise(
    kind: str, tolerance: int, orientation: int | None
) -> None:
    content = encoded(kind, orientation)
    upright = make_upright_file(content, 90)
    assert (upright.size_wh, upright.change) == ((40, 60), "rotated")
    difference = pixels_of(upright.content) - np.rot90(pixels_of(content))
    assert abs(difference).max() <= tolerance
    assert read_orientation(upright.content) == 1


@pytest.mark.parametrize(
    ("kind", "mode", "suffix", "tolerance"),
    [("WEBP", "RGB", ".png", 8), ("BMP", "RGB", ".png", 0), ("TIFF", "RGB", ".png", 0),
     ("JPEG", "CMYK", ".jpg", 8)],
)  # fmt: skip
def test_a_format_that_few_programs_read_is_converted(
    kind: str, mode: str, suffix: str, tolerance: int
) -> None:
    upright = make_upright_file(encoded(kind, mode=mode), 0)
    assert (upright.suffix, upright.change) == (suffix, "converted")
    assert abs(pixels_of(upright.content) - pixels_of(encoded("PNG"))).max() <= tolerance


@pytest.mark.parametrize("content", [b"", b"<html>", encoded("JPEG")[:80]])
def test_a_file_that_is_no_image_is_rejected(content: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        make_upright_file(content, 0)
