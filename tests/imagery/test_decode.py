"""Image files of every format are decoded completely, or rejected with a short reason."""

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

from oiyolo.imagery.decode import MAX_PIXELS, UnreadableImageError, open_image

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


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def decoded(content: bytes, min_wh: tuple[int, int] = FULL) -> npt.NDArray[np.uint8]:
    return open_image(content).decode(min_wh)


def decode_with_pillow(content: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def rejection_reason(content: bytes) -> str | None:
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
def test_a_jpeg_has_the_same_pixels_as_with_pillow(mode: str, options: dict[str, Any]) -> None:
    content = encoded(noise().convert(mode), **options)
    found, expected = decoded(content), decode_with_pillow(content)
    assert found.shape == expected.shape == (80, 120, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("minimum", [1, 10, 16, 35, 60, 79, 80, 200])
def test_a_jpeg_may_be_decoded_smaller_but_not_below_the_minimum_size(minimum: int) -> None:
    height, width = decoded(encoded(noise()), (minimum, minimum)).shape[:2]
    assert min(minimum, 80) <= height <= 80
    assert min(minimum, 120) <= width <= 120
    assert abs(width / height - 1.5) < 0.2
    if minimum <= 10:
        assert (width, height) == (15, 10)


def test_sixteen_bit_values_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    for file_format in ("PNG", "TIFF"):
        found = decoded(encoded(Image.fromarray(ramp), file_format))
        assert np.abs(found[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_transparent_pixels_become_white() -> None:
    image = Image.new("RGBA", (4, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    palette = Image.new("P", (4, 1))
    palette.putpalette([200, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    assert decoded(encoded(image, "PNG")).tolist()[0] == [
        [200, 0, 0], [255, 255, 255], [127, 127, 127], [200, 0, 0],
    ]  # fmt: skip
    for file_format in ("PNG", "GIF"):
        pixels = decoded(encoded(palette, file_format, transparency=1)).tolist()[0]
        assert pixels[:2] == [[200, 0, 0], [255, 255, 255]]


def test_floating_point_values_are_rejected() -> None:
    floats = Image.fromarray(np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8))
    assert rejection_reason(encoded(floats, "TIFF")) == "values of an unknown range"


def test_a_large_image_of_another_format_is_reduced_while_decoding() -> None:
    content = encoded(noise((800, 640)), "PNG")
    assert decoded(content, (100, 100)).shape == (107, 134, 3)
    assert decoded(content, (500, 100)).shape == (640, 800, 3)


def sized(content: bytes, width: int, height: int) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[at + 4 :]


def sized_png(width: int, height: int) -> bytes:
    content = encoded(noise(), "PNG")
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:29]
    return content[:12] + head + zlib.crc32(head).to_bytes(4, "big") + content[33:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (sized(encoded(noise()), 10_000, 9_000), "absurd dimensions (over 89 megapixels)"),
        (sized(encoded(noise()), 65_000, 65_000), "absurd dimensions (over 89 megapixels)"),
        (sized_png(10_000, 9_000), "absurd dimensions (over 89 megapixels)"),
        (sized_png(100_000, 100_000), "absurd dimensions (over 89 megapixels)"),
        (sized_png(70_000, 2), "absurd dimensions (a side over 65,500 pixels)"),
    ],
    ids=["JPEG", "large JPEG", "PNG", "large PNG", "long PNG"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_absurd_dimensions_are_rejected_by_the_header(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        open_image(content)
    assert str(caught.value) == reason


def test_the_pixel_limit_allows_every_photograph() -> None:
    assert MAX_PIXELS > 8256 * 5504


@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"restart_marker_rows": 2}], ids=str)
def test_a_jpeg_truncated_anywhere_is_rejected(kind: dict[str, Any]) -> None:
    whole = encoded(noise(), **kind)
    assert rejection_reason(whole) is None
    for end in range(3, len(whole) - 2, 7):
        assert rejection_reason(whole[:end]) in {DAMAGED, "cannot be decoded", "not an image"}, end


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_other_formats_truncated_anywhere_are_rejected(file_format: str) -> None:
    whole = encoded(noise(), file_format)
    assert rejection_reason(whole) is None
    for end in range(1, len(whole) * 9 // 10, max(1, len(whole) // 50)):
        assert rejection_reason(whole[:end]) is not None, end


@settings(max_examples=200, deadline=None)
@given(file_format=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]), data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_altered_bytes_yield_an_image_or_a_reason_and_no_other_error(
    file_format: str, data: st.DataObject
) -> None:
    content = bytearray(encoded(noise((64, 48)), file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = open_image(bytes(content))
        assert image.icc_profile is None or isinstance(image.icc_profile, bytes)
        pixels = image.decode((32, 24))
    except UnreadableImageError as error:
        outcome = str(error)
    else:
        outcome = f"{pixels.dtype} {pixels.ndim}"
    assert outcome == "uint8 3" or outcome in REASONS


def test_truncated_photographs_are_rejected_and_so_are_those_that_pillow_rejects(
    real: Path,
) -> None:
    paths = sorted((real / "alpaca" / "images").glob("*.jpg"))
    rng = random.Random(1)
    flipped = detected = 0
    for path in rng.sample(paths, 12):
        whole = path.read_bytes()
        for _ in range(6):
            end = rng.randrange(3, len(whole) - 2)
            assert is_rejected(whole[:end]), (path.name, end)
        for _ in range(4):
            content = bytearray(whole)
            for _ in range(rng.choice((1, 3, 10))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            flipped += 1
            detected += is_rejected(bytes(content))
            if not pillow_accepts(bytes(content)):
                assert is_rejected(bytes(content)), path.name
    # Many flipped bits only yield another valid code. Pillow detects hardly any of the others.
    assert detected > flipped / 5


def is_rejected(content: bytes) -> bool:
    try:
        decoded(content, (478, 359))
    except UnreadableImageError:
        return True
    return False


def pillow_accepts(content: bytes) -> bool:
    try:
        decode_with_pillow(content)
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def test_all_real_photographs_are_accepted(real: Path) -> None:
    for path in sorted((real / "alpaca" / "images").glob("*.jpg")):
        assert not is_rejected(path.read_bytes()), path.name
