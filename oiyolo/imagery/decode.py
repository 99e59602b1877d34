"""Decode image files to 8-bit RGB pixels; reject damaged files.

A JPEG is decoded by libjpeg-turbo itself (``simplejpeg``), for two reasons. It can decode at a
reduced size, in steps of an eighth, which saves time and loses nothing that a later reduction would
keep. And it reports every warning, whereas Pillow reports only truncated data and returns an image
with a damaged middle. All other files that may be called ``.jpg`` (PNG, WebP, GIF, BMP, TIFF, JPEGs
with rare sampling) are decoded by Pillow. The EXIF orientation is ignored, because boxes refer to
the stored pixels.
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
    """An image, shape (height, width, 3)."""

MAX_PIXELS: Final = 89_000_000
"""Far more than a photograph of Open Images has (at most 20 million on the mirror). Above about
this size Pillow, too, suspects a decompression bomb. Checked before decoding."""
MAX_SIDE_PX: Final = 65_500
"""Longest side that a JPEG can have."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that may be called .jpg by mistake. Pillow reads more, some with external programs."""
IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
)
"""Suffixes of these formats, by which images are found in a folder."""
_DAMAGE_WARNINGS: Final = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")
"""Beginnings of libjpeg's warnings about damaged data (jerror.h). Its other messages concern an
unusual header or a variant that simplejpeg does not support and Pillow may support."""
_DECODE_ERRORS: Final = (ValueError, KeyError)
"""Exceptions of simplejpeg; a truncated header raises KeyError."""
_TOO_MANY_PIXELS: Final = f"absurd dimensions (over {MAX_PIXELS // 10**6} megapixels)"
_WHITE: Final = (255, 255, 255)


class UnreadableImageError(Exception):
    """An image file cannot be decoded completely; the message is a short reason, for counting."""


@dataclass(frozen=True)
class EncodedImage(ABC):
    """An image file whose header was read and whose pixels are not decoded yet.

    Attributes:
        stored_wh: Width and height as stored, in pixels.
    """

    stored_wh: tuple[int, int]

    @abstractmethod
    def decode(self, min_wh: tuple[int, int]) -> Rgb:
        """Decode to RGB, shape (height, width, 3).

        Args:
            min_wh: Minimum width and height, in pixels. The result may be smaller than stored, but
                not smaller than this.

        Raises:
            UnreadableImageError: The data are damaged or truncated.
        """

    @property
    @abstractmethod
    def is_cmyk(self) -> bool:
        """Whether its pixels are CMYK, which few programs read."""

    @property
    @abstractmethod
    def icc_profile(self) -> bytes | None:
        """ICC profile of the RGB values; ``None`` without one."""


def open_image(content: bytes) -> EncodedImage:
    """Read the header of an image file.

    Args:
        content: Content of the file.

    Raises:
        UnreadableImageError: The file is not an image, or exceeds ``MAX_PIXELS`` or
            ``MAX_SIDE_PX``.
    """
    image = _open_jpeg(content) if content.startswith(jpeg.START) else None
    if image is None:
        image = _open_with_pillow(content)
    check_size(image.stored_wh)
    return image


def check_size(stored_wh: tuple[int, int]) -> None:
    """Raise UnreadableImageError if an image exceeds ``MAX_PIXELS`` or ``MAX_SIDE_PX``."""
    width, height = stored_wh
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(_TOO_MANY_PIXELS)
    if max(width, height) > MAX_SIDE_PX:
        raise UnreadableImageError(f"absurd dimensions (a side over {MAX_SIDE_PX:,} pixels)")


@dataclass(frozen=True)
class _Jpeg(EncodedImage):
    content: bytes
    space: str

    def decode(self, min_wh: tuple[int, int]) -> Rgb:
        width, height = np.minimum(min_wh, self.stored_wh).tolist()
        try:
            rgb: Rgb = simplejpeg.decode_jpeg(
                self.content,
                "CMYK" if self.is_cmyk else "RGB",
                min_width=width,
                min_height=height,
            )
        except _DECODE_ERRORS as error:
            if str(error).startswith(_DAMAGE_WARNINGS) or jpeg.find_defect(self.content):
                raise UnreadableImageError("damaged or truncated JPEG") from error
            return _open_with_pillow(self.content).decode(min_wh)
        # Adobe's programs store CMYK inverted, and only they write CMYK JPEGs.
        return to_rgb(Image.fromarray(~rgb, "CMYK")) if self.is_cmyk else rgb

    @property
    def is_cmyk(self) -> bool:
        return self.space in {"CMYK", "YCCK"}

    @property
    def icc_profile(self) -> bytes | None:
        return None if self.is_cmyk else jpeg.icc_profile(self.content)


def _open_jpeg(content: bytes) -> EncodedImage | None:
    """Read the header of a JPEG; return ``None`` if simplejpeg does not support its variant."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content, strict=False)
    except _DECODE_ERRORS:
        return None
    return _Jpeg((width, height), content, space)


@dataclass(frozen=True)
class _PillowImage(EncodedImage):
    image: Image.Image

    def decode(self, min_wh: tuple[int, int]) -> Rgb:
        reduction = min(
            stored // minimum for stored, minimum in zip(self.stored_wh, min_wh, strict=True)
        )
        with _as_unreadable():
            self.image.load()
            return to_rgb(self.image, max(1, reduction))

    @property
    def is_cmyk(self) -> bool:
        return self.image.mode == "CMYK"

    @property
    def icc_profile(self) -> bytes | None:
        profile = self.image.info.get("icc_profile")
        return profile if isinstance(profile, bytes) and self.image.mode.startswith("RGB") else None


def _open_with_pillow(content: bytes) -> EncodedImage:
    with _as_unreadable():
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        return _PillowImage(image.size, image)


@contextlib.contextmanager
def _as_unreadable() -> Iterator[None]:
    """Convert whatever Pillow's decoders raise for a damaged file to UnreadableImageError."""
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


def to_rgb(image: Image.Image, reduction: int = 1) -> Rgb:
    """Convert a decoded image of any mode to RGB, and divide its sides by ``reduction``.

    Transparent pixels become white.

    Raises:
        UnreadableImageError: The range of the values is unknown.
    """
    if image.mode.startswith("I"):
        image = _to_8_bit(image)
    elif image.mode == "F":
        raise UnreadableImageError("values of an unknown range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, _WHITE)
        image.paste(rgba, mask=rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image.reduce(reduction) if reduction > 1 else image)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8-bit grey; Pillow would clip at 255 instead."""
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray((values.clip(0, 0xFFFF) >> 8).astype(np.uint8))
