"""From the bytes of a file to 8-bit RGB pixels, whole or refused.

A JPEG is decoded by libjpeg-turbo itself (``simplejpeg``), for two reasons. It can leave out whole
eighths of the size while decoding, at no cost to what a later reduction keeps. And it reports every
warning: Pillow hears only that data ran out, and hands on a picture whose middle is damaged. All
else that may be called ``.jpg`` (PNG, WebP, GIF, BMP, TIFF, JPEGs of rare sampling) goes through
Pillow. The EXIF orientation is ignored, because boxes belong to the stored pixels.
"""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from oiyolo.imagery import jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Rgb = npt.NDArray[np.uint8]
    """A picture, shape (height, width, 3)."""

MAX_PIXELS: Final = 89_000_000
"""Far more than a photograph of Open Images has (the mirror's largest are of 20 million); from here
on Pillow, too, suspects a file that was made to fill the memory. Asked of the header alone."""
MAX_SIDE_PX: Final = 65_500
"""A JPEG cannot be longer."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What may be called .jpg by mistake. Not all that Pillow reads: it runs programs for some."""
_JPEG_START: Final = b"\xff\xd8\xff"
_DAMAGED: Final = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")
"""How libjpeg's warnings about the data begin (jerror.h). The others are about an unusual header,
or say that simplejpeg does not know a form that Pillow may know."""
_REFUSALS: Final = (ValueError, KeyError)
"""What simplejpeg raises; a header cut off in the middle is a KeyError of its own tables."""
_TOO_MANY_PIXELS: Final = f"absurd dimensions (over {MAX_PIXELS // 10**6} megapixels)"
_WHITE: Final = (255, 255, 255)


class UnreadableImageError(Exception):
    """A file that cannot be decoded whole; the text is a short reason that can be counted."""


@dataclass(frozen=True)
class Picture(ABC):
    """A file whose header was read.

    Attributes:
        stored_wh: Width and height as stored, in pixels.
    """

    stored_wh: tuple[int, int]

    @abstractmethod
    def pixels(self, enough_wh: tuple[int, int]) -> Rgb:
        """Decode to RGB, shape (height, width, 3).

        Args:
            enough_wh: It may come smaller than stored, but not below this width and height.

        Raises:
            UnreadableImageError: The data are damaged or end too early.
        """

    @property
    @abstractmethod
    def profile(self) -> bytes | None:
        """The ICC profile that its RGB values are to be understood by, if there is one."""


def open_picture(content: bytes) -> Picture:
    """Read a file's header.

    Args:
        content: The file as served.

    Raises:
        UnreadableImageError: It is no picture, or one of absurd dimensions.
    """
    picture = _open_jpeg(content) if content.startswith(_JPEG_START) else None
    if picture is None:
        picture = _open_other(content)
    width, height = picture.stored_wh
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(_TOO_MANY_PIXELS)
    if max(width, height) > MAX_SIDE_PX:
        raise UnreadableImageError(f"absurd dimensions (a side over {MAX_SIDE_PX:,} pixels)")
    return picture


@dataclass(frozen=True)
class _Jpeg(Picture):
    content: bytes
    is_cmyk: bool

    def pixels(self, enough_wh: tuple[int, int]) -> Rgb:
        width, height = np.minimum(enough_wh, self.stored_wh).tolist()
        try:
            found: Rgb = simplejpeg.decode_jpeg(
                self.content,
                "CMYK" if self.is_cmyk else "RGB",
                min_width=width,
                min_height=height,
            )
        except _REFUSALS as error:
            if str(error).startswith(_DAMAGED) or jpeg.what_is_wrong(self.content):
                raise UnreadableImageError("damaged or truncated JPEG") from error
            return _open_other(self.content).pixels(enough_wh)
        # Adobe's programs store CMYK inverted, and no others write it.
        return _rgb_of(Image.fromarray(~found, "CMYK")) if self.is_cmyk else found

    @property
    def profile(self) -> bytes | None:
        return None if self.is_cmyk else jpeg.icc_profile(self.content)


def _open_jpeg(content: bytes) -> Picture | None:
    """Read the header of a JPEG; ``None`` if it is of a form that simplejpeg does not know."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content, strict=False)
    except _REFUSALS:
        return None
    return _Jpeg((width, height), content, space in {"CMYK", "YCCK"})


@dataclass(frozen=True)
class _Other(Picture):
    opened: Image.Image

    def pixels(self, enough_wh: tuple[int, int]) -> Rgb:
        times = min(have // need for have, need in zip(self.stored_wh, enough_wh, strict=True))
        with _refusing():
            self.opened.load()
            return _rgb_of(self.opened, max(1, times))

    @property
    def profile(self) -> bytes | None:
        found = self.opened.info.get("icc_profile")
        return found if isinstance(found, bytes) and self.opened.mode.startswith("RGB") else None


def _open_other(content: bytes) -> Picture:
    with _refusing():
        opened = Image.open(io.BytesIO(content), formats=_FORMATS)
        return _Other(opened.size, opened)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever Pillow's many readers raise on a broken file into a short reason."""
    try:
        yield
    except (UnreadableImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError(_TOO_MANY_PIXELS) from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image") from None
    except Exception as error:
        raise UnreadableImageError("cannot be decoded") from error


def _rgb_of(picture: Image.Image, times: int = 1) -> Rgb:
    """Give a decoded picture of any mode as RGB, ``times`` smaller on each side.

    What is transparent becomes white, as on a page.

    Raises:
        UnreadableImageError: Its values have no known range.
    """
    if picture.mode.startswith("I"):
        picture = _upper_bytes(picture)
    elif picture.mode == "F":
        raise UnreadableImageError("values of an unknown range")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.new("RGB", picture.size, _WHITE)
        picture.paste(layer, mask=layer)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    return np.asarray(picture.reduce(times) if times > 1 else picture)


def _upper_bytes(picture: Image.Image) -> Image.Image:
    """Give 16-bit grey as 8-bit grey; Pillow would cut off at 255."""
    values = np.asarray(picture).astype(np.int64)
    return Image.fromarray((values.clip(0, 0xFFFF) >> 8).astype(np.uint8))
