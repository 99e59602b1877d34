"""The size and the orientation of an image are read without its pixels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from PIL import ExifTags, Image

from oiyolo.imagery import decode, header
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.imagery.exif import read_orientation
from oiyolo.imagery.header import read_header

if TYPE_CHECKING:
    from pathlib import Path


def save(path: Path, orientation: int, *, extra: int = 0, **options: Any) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageDescription] = "x" * extra
    Image.new("RGB", (30, 20), "red").save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_the_header_is_what_decoding_finds(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = save(tmp_path / f"a{suffix}", orientation)
    assert read_header(path) == ((30, 20), orientation)
    assert read_orientation(path.read_bytes()) == orientation


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 10}, {"extra": 20_000}])
def test_variants_of_jpeg(tmp_path: Path, options: dict[str, int]) -> None:
    assert read_header(save(tmp_path / "a.jpg", 6, **options)) == ((30, 20), 6)


def test_metadata_that_fill_the_beginning_of_the_file(tmp_path: Path) -> None:
    content = save(tmp_path / "a.jpg", 8).read_bytes()
    comment = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
    (tmp_path / "a.jpg").write_bytes(content[:2] + comment * 3 + content[2:])
    assert read_header(tmp_path / "a.jpg") == ((30, 20), 8)


def test_both_byte_orders_and_xmp(tmp_path: Path) -> None:
    content = Image.Exif()
    content.endian = "<"
    content[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=content)
    assert read_header(tmp_path / "a.jpg").orientation == 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    Image.new("RGB", (30, 20)).save(tmp_path / "b.jpg", xmp=xmp)
    expected = read_orientation((tmp_path / "b.jpg").read_bytes())
    assert read_header(tmp_path / "b.jpg").orientation == expected


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\x10JFIF"])
def test_a_file_that_is_not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError):
        read_header(tmp_path / "a.jpg")


def test_absurd_dimensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableImageError):
        read_header(save(tmp_path / "a.jpg", 1))


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(OSError, match="FIFO"):
        header.read_header(tmp_path / "a.jpg")
