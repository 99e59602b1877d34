"""Pixels and boxes stay aligned through rotation, EXIF, resizing and letterboxing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from oiyolo import boxes as geometry
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.imagery.placement import place_boxes
from oiyolo.imagery.upright import decode_upright, make_upright

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.imagery.upright import UprightImage

RED = (230, 30, 30)
BLUE = (30, 60, 200)
SIZES = [(416, 416), (96, 64), (64, 320)]
SOURCES = [(640, 360), (120, 300), (50, 50), (1500, 900)]


def marked_image(wh: tuple[int, int], region: tuple[int, int, int, int]) -> Image.Image:
    result = Image.new("RGB", wh, BLUE)
    result.paste(RED, region)
    return result


def save_jpeg(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, "JPEG", quality=97, subsampling=0, **options)
    return path


def decoded(result: UprightImage) -> Image.Image:
    return Image.open(io.BytesIO(result.jpeg))


def is_red(image: Image.Image) -> npt.NDArray[np.bool_]:
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.asarray((pixels[..., 0] > 140) & (pixels[..., 2] < 110))


def bounds(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)
    return np.asarray(edges / np.array([mask.shape[1], mask.shape[0]] * 2))


@pytest.mark.parametrize("rotation", geometry.RIGHT_ANGLES)
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "none"])
@pytest.mark.parametrize("size_wh", SIZES, ids=str)
@pytest.mark.parametrize("source_wh", SOURCES, ids=str)
def test_a_coloured_region_lies_in_its_placed_box(
    tmp_path: Path, rotation: int, fit: str, size_wh: tuple[int, int], source_wh: tuple[int, int]
) -> None:
    w, h = source_wh
    region = (w // 5, h // 8, w // 2, h // 3)  # near one corner, so that all rotations differ
    path = save_jpeg(tmp_path / "a.jpg", marked_image(source_wh, region))
    result = make_upright(path, rotation, size_wh, fit)
    image = decoded(result)
    upright_wh = source_wh if rotation in {0, 180} else source_wh[::-1]
    assert result.source_wh == upright_wh
    assert image.size == (upright_wh if fit == "none" else size_wh)
    assert image.mode == "RGB"

    xyxy = np.array([region], dtype=float) / np.array([w, h, w, h])
    placed = place_boxes(
        xyxy,
        np.array([0]),
        np.array([""], dtype=object),
        rotation=rotation,
        source_wh=result.source_wh,
        size_wh=image.size,
        fit=fit,
    )
    assert placed.used.all()
    seen = bounds(is_red(image))
    pixel = 1 / np.array([*image.size, *image.size])
    assert (np.abs(seen - placed.xyxy[0]) <= 1.6 * pixel).all()


def test_the_border_of_a_letterbox_is_darknets_grey(tmp_path: Path) -> None:
    path = save_jpeg(tmp_path / "a.jpg", Image.new("RGB", (200, 100), RED))
    pixels = np.asarray(decoded(make_upright(path, 0, (96, 96), "letterbox"))).astype(int)
    border = np.concatenate([pixels[:20], pixels[-20:]])
    assert np.abs(border - 127).max() <= 6
    assert is_red(Image.fromarray(pixels[28:68].astype(np.uint8))).all()


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("rotation", [0, 90])
def test_an_exif_orientation_is_neither_applied_nor_copied(
    tmp_path: Path, orientation: int, rotation: int
) -> None:
    image = marked_image((120, 80), (10, 10, 50, 30))
    plain = save_jpeg(tmp_path / "plain.jpg", image)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A camera"
    turned = save_jpeg(tmp_path / "turned.jpg", image, exif=exif.tobytes())
    assert b"Exif" in turned.read_bytes()
    result = make_upright(turned, rotation, (64, 64), "stretch")
    assert result == make_upright(plain, rotation, (64, 64), "stretch")
    assert b"Exif" not in result.jpeg
    assert b"A camera" not in result.jpeg
    assert len(decoded(result).getexif()) == 0


def test_profiles_and_comments_are_not_copied(tmp_path: Path) -> None:
    path = save_jpeg(
        tmp_path / "a.jpg",
        marked_image((64, 64), (0, 0, 9, 9)),
        icc_profile=b"profile" * 99,
        comment=b"a secret",
    )
    result = make_upright(path, 0, (32, 32), "stretch")
    assert b"profile" not in result.jpeg
    assert b"secret" not in result.jpeg


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
        ("I;16", "PNG"),
        ("P", "GIF"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
    ],
)
@pytest.mark.parametrize("rotation", [0, 90])
def test_every_format_that_may_be_called_jpg_becomes_an_rgb_jpeg(
    tmp_path: Path, mode: str, file_format: str, rotation: int
) -> None:
    image = marked_image((120, 80), (0, 0, 60, 80))
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    path = tmp_path / "a.jpg"
    image.save(path, file_format)
    upright = make_upright(path, rotation, (64, 96), "stretch")
    result = decoded(upright)
    assert (result.mode, result.size, result.format) == ("RGB", (64, 96), "JPEG")
    assert upright.source_wh == ((120, 80) if rotation == 0 else (80, 120))
    if mode in {"CMYK", "P", "RGBA", "RGB"} and rotation == 0:
        red = is_red(result)
        assert red[:, :30].mean() > 0.9
        assert red[:, 34:].mean() < 0.1


@pytest.mark.parametrize("rotation", geometry.RIGHT_ANGLES)
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "none"])
def test_a_masked_region_is_filled_with_grey_at_its_placed_box(
    tmp_path: Path, rotation: int, fit: str
) -> None:
    path = save_jpeg(tmp_path / "a.jpg", marked_image((200, 120), (0, 0, 200, 120)))
    masked = np.array([[0.1, 0.25, 0.4, 0.75]])
    result = make_upright(path, rotation, (128, 96), fit, masked)
    image = decoded(result)
    (box,) = place_boxes(
        masked, np.array([0]), np.array([""], dtype=object), rotation=rotation,
        source_wh=result.source_wh, size_wh=image.size, fit=fit,
    ).xyxy  # fmt: skip
    grey = np.abs(np.asarray(image).astype(int) - 127).max(axis=2) < 25
    rows, columns = np.mgrid[0 : image.height, 0 : image.width]
    x, y = (columns + 0.5) / image.width, (rows + 0.5) / image.height
    margin = 0.03
    inside = (x > box[0] + margin) & (x < box[2] - margin)
    inside &= (y > box[1] + margin) & (y < box[3] - margin)
    outside = (x < box[0] - margin) | (x > box[2] + margin)
    outside |= (y < box[1] - margin) | (y > box[3] + margin)
    red = is_red(image)
    assert grey[inside].all()
    if fit == "letterbox":
        left, top, w, h = geometry.letterbox_frame(result.source_wh, (128, 96))
        outside &= (columns > left + 2) & (columns < left + w - 3)
        outside &= (rows > top + 2) & (rows < top + h - 3)
    assert red[outside].all()


def content(damage: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG" if "PNG" in damage else "JPEG")
    whole = file.getvalue()
    return {
        "empty": b"",
        "HTML": b"<!DOCTYPE html><html><body>not found</body></html>",
        "truncated": whole[: len(whole) // 2],
        "truncated head": whole[:30],
        "truncated PNG": whole[: len(whole) // 2],
        "PNG head": whole[:20],
        "broken PNG": whole[:200] + b"\0" * 50 + whole[250:],
        "video": b"\0\0\0\x18ftypmp42" + b"\0" * 100,
    }[damage]


@pytest.mark.parametrize(
    "damage",
    [
        *("empty", "HTML", "truncated", "truncated head"),
        *("truncated PNG", "PNG head", "broken PNG", "video"),
    ],
)
@pytest.mark.parametrize("fit", ["stretch", "none"])
def test_a_file_that_cannot_be_decoded_is_rejected_with_a_short_reason(
    tmp_path: Path, damage: str, fit: str
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content(damage))
    with pytest.raises(UnreadableImageError) as caught:
        make_upright(path, 0, (32, 32), fit)
    assert str(caught.value) in {
        "not an image", "cannot be decoded", "damaged or truncated JPEG",
    }  # fmt: skip


def test_a_missing_file_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_upright(tmp_path / "a.jpg", 0, (32, 32), "stretch")


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = save_jpeg(tmp_path / "a.jpg", marked_image((300, 200), (9, 9, 99, 99)))
    result = [make_upright(path, 90, (64, 64), "letterbox") for _ in range(2)]
    assert result[0] == result[1]


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photograph_is_upright_as_exif_says_unless_its_rotation_is_known(
    file_format: str, orientation: int
) -> None:
    image = marked_image((64, 40), (8, 8, 16, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, file_format, exif=exif, quality=97, subsampling=0)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))

    def region(**options: Any) -> list[float]:
        pixels = decode_upright(file.getvalue(), **options)
        corners: list[float] = bounds(is_red(Image.fromarray(pixels))).tolist()
        return corners

    assert region() == bounds(is_red(upright)).tolist()
    if file_format != "TIFF":  # Pillow itself turns it
        assert region(use_exif=False) == bounds(is_red(image)).tolist()
        turned = image.transpose(Image.Transpose.ROTATE_90)  # counter-clockwise
        assert region(rotation=90) == bounds(is_red(turned)).tolist()


def test_a_photograph_with_a_damaged_exif_block_is_decoded_as_stored() -> None:
    file = io.BytesIO()
    marked_image((64, 40), (8, 8, 16, 32)).save(file, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff")
    assert decode_upright(file.getvalue()).shape == (40, 64, 3)
