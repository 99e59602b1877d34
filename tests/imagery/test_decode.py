"""From bytes to pixels: whole, of every kind, or refused with a short reason."""

from __future__ import annotations

import io
import random
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oiyolo.imagery.decode import MAX_PIXELS, UnreadableImageError, open_picture

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

DAMAGED = "damaged or truncated JPEG"
REASONS = {
    *(DAMAGED, "cannot be decoded", "not an image", "values of an unknown range"),
    "absurd dimensions (over 89 megapixels)",
    "absurd dimensions (a side over 65,500 pixels)",
}
FULL = (10**6, 10**6)


def noise(wh: tuple[int, int] = (120, 80)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (wh[1] // 8, wh[0] // 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(wh, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decoded(content: bytes, enough_wh: tuple[int, int] = FULL) -> npt.NDArray[np.uint8]:
    return open_picture(content).pixels(enough_wh)


def as_pillow(content: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def refused(content: bytes) -> str | None:
    try:
        decoded(content)
    except UnreadableImageError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "options",
    [
        *({"subsampling": n} for n in (0, 1, 2)),
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"quality": 30},
        {"quality": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_has_the_pixels_that_pillow_sees(mode: str, options: dict[str, Any]) -> None:
    content = encoded(noise().convert(mode), **options)
    found, wanted = decoded(content), as_pillow(content)
    assert found.shape == wanted.shape == (80, 120, 3)
    assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("enough", [1, 10, 16, 35, 60, 79, 80, 200])
def test_a_jpeg_comes_smaller_but_never_below_what_is_enough(enough: int) -> None:
    height, width = decoded(encoded(noise()), (enough, enough)).shape[:2]
    assert min(enough, 80) <= height <= 80
    assert min(enough, 120) <= width <= 120
    assert abs(width / height - 1.5) < 0.2
    if enough <= 10:
        assert (width, height) == (15, 10)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    for form in ("PNG", "TIFF"):
        found = decoded(encoded(Image.fromarray(ramp), form))
        assert np.abs(found[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_what_is_transparent_becomes_white() -> None:
    image = Image.new("RGBA", (4, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    palette = Image.new("P", (4, 1))
    palette.putpalette([200, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    assert decoded(encoded(image, "PNG")).tolist()[0] == [
        [200, 0, 0], [255, 255, 255], [127, 127, 127], [200, 0, 0],
    ]  # fmt: skip
    for form in ("PNG", "GIF"):
        made = decoded(encoded(palette, form, transparency=1)).tolist()[0]
        assert made[:2] == [[200, 0, 0], [255, 255, 255]]


def test_values_of_unknown_range_are_refused() -> None:
    floats = Image.fromarray(np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8))
    assert refused(encoded(floats, "TIFF")) == "values of an unknown range"


def test_a_large_picture_of_another_kind_is_reduced_on_the_way() -> None:
    content = encoded(noise((800, 640)), "PNG")
    assert decoded(content, (100, 100)).shape == (107, 134, 3)
    assert decoded(content, (500, 100)).shape == (640, 800, 3)


def header_says(content: bytes, width: int, height: int) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[at + 4 :]


def png_says(width: int, height: int) -> bytes:
    content = encoded(noise(), "PNG")
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:29]
    return content[:12] + head + zlib.crc32(head).to_bytes(4, "big") + content[33:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header_says(encoded(noise()), 10_000, 9_000), "absurd dimensions (over 89 megapixels)"),
        (header_says(encoded(noise()), 65_000, 65_000), "absurd dimensions (over 89 megapixels)"),
        (png_says(10_000, 9_000), "absurd dimensions (over 89 megapixels)"),
        (png_says(100_000, 100_000), "absurd dimensions (over 89 megapixels)"),
        (png_says(70_000, 2), "absurd dimensions (a side over 65,500 pixels)"),
    ],
    ids=["JPEG", "large JPEG", "PNG", "large PNG", "long PNG"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_absurd_dimensions_are_refused_by_the_header(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        open_picture(content)
    assert str(caught.value) == reason


def test_no_photograph_is_too_large() -> None:
    assert MAX_PIXELS > 8256 * 5504


@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"restart_marker_rows": 2}], ids=str)
def test_a_jpeg_that_is_cut_off_anywhere_is_refused(kind: dict[str, Any]) -> None:
    whole = encoded(noise(), **kind)
    assert refused(whole) is None
    for end in range(3, len(whole) - 2, 7):
        assert refused(whole[:end]) in {DAMAGED, "cannot be decoded", "not an image"}, end


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_other_kinds_that_are_cut_off_are_refused(form: str) -> None:
    whole = encoded(noise(), form)
    assert refused(whole) is None
    for end in range(1, len(whole) * 9 // 10, max(1, len(whole) // 50)):
        assert refused(whole[:end]) is not None, end


@settings(max_examples=200, deadline=None)
@given(form=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]), data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_give_a_picture_or_a_reason_and_nothing_else(
    form: str, data: st.DataObject
) -> None:
    content = bytearray(encoded(noise((64, 48)), form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = open_picture(bytes(content))
        assert picture.profile is None or isinstance(picture.profile, bytes)
        pixels = picture.pixels((32, 24))
    except UnreadableImageError as error:
        told = str(error)
    else:
        told = f"{pixels.dtype} {pixels.ndim}"
    assert told == "uint8 3" or told in REASONS


def test_real_photographs_are_refused_wherever_they_are_cut_and_where_pillow_refuses(
    real: Path,
) -> None:
    paths = sorted((real / "alpaca" / "images").glob("*.jpg"))
    rng = random.Random(1)
    flipped = noticed = 0
    for path in rng.sample(paths, 12):
        whole = path.read_bytes()
        for _ in range(6):
            end = rng.randrange(3, len(whole) - 2)
            assert refused_small(whole[:end]), (path.name, end)
        for _ in range(4):
            content = bytearray(whole)
            for _ in range(rng.choice((1, 3, 10))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            flipped += 1
            noticed += refused_small(bytes(content))
            if not pillow_takes(bytes(content)):
                assert refused_small(bytes(content)), path.name
    # Many a flipped bit only makes another valid code; Pillow notices hardly any of the others.
    assert noticed > flipped / 5


def refused_small(content: bytes) -> bool:
    try:
        decoded(content, (478, 359))
    except UnreadableImageError:
        return True
    return False


def pillow_takes(content: bytes) -> bool:
    try:
        as_pillow(content)
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def test_real_photographs_are_all_taken(real: Path) -> None:
    for path in sorted((real / "alpaca" / "images").glob("*.jpg")):
        assert not refused_small(path.read_bytes()), path.name
