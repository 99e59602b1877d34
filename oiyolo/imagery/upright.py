"""From a file as served to the picture that darknet reads: upright, of one size, without EXIF.

Boxes belong to the stored pixels with any EXIF orientation ignored; ``Rotation`` turns pixels and
boxes together (https://storage.googleapis.com/openimages/web/2018-05-17-rotation-information.html).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image, UnidentifiedImageError

from oiyolo import boxes as geometry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

JPEG_QUALITY: Final = 90
_BORDER_GREY: Final = (127, 127, 127)
"""What darknet itself fills a letterbox with (src/image.c, letterbox_image: 0.5)."""
_TURNS: Final = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
Fit = str
"""How an image is brought to a size: "stretch", "letterbox" or "none"."""


class UnreadableImageError(Exception):
    """A file that cannot be decoded whole; the text is a short reason that can be counted."""


@dataclass(frozen=True)
class UprightImage:
    """A picture ready for darknet.

    Attributes:
        jpeg: The file to write.
        source_wh: Width and height of the upright picture before it was resized, in pixels.
    """

    jpeg: bytes
    source_wh: tuple[int, int]


def make_upright(
    path: Path,
    rotation: int,
    size_wh: tuple[int, int],
    fit: Fit,
    masked_xyxy: Sequence[Sequence[float]] = (),
) -> UprightImage:
    """Decode, turn, mask, resize and encode one image.

    Args:
        path: The file as served.
        rotation: Degrees counter-clockwise that make it upright.
        size_wh: Width and height of the result in pixels, unless ``fit`` is "none".
        fit: "stretch" ignores the aspect ratio, "letterbox" keeps it on a grey border, "none"
            leaves the size alone.
        masked_xyxy: Regions of the stored picture to grey out, fractions, shape (n, 4).

    Raises:
        UnreadableImageError: The file cannot be decoded whole.
        FileNotFoundError: There is no such file.
    """
    picture = _open(path)
    source_wh = picture.size if rotation in {0, 180} else picture.size[::-1]
    inner = _inner_frame(source_wh, size_wh, fit)
    picture = _decode(
        picture, (inner[2], inner[3]) if rotation in {0, 180} else (inner[3], inner[2])
    )
    width, height = picture.size
    for x1, y1, x2, y2 in masked_xyxy:
        region = (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
        picture.paste(_BORDER_GREY, region)
    if rotation:
        picture = picture.transpose(_TURNS[rotation])
    if picture.size != inner[2:]:
        picture = picture.resize(inner[2:], Image.Resampling.LANCZOS)
    if fit == "letterbox":
        framed = Image.new("RGB", size_wh, _BORDER_GREY)
        framed.paste(picture, inner[:2])
        picture = framed
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=JPEG_QUALITY, comment=b"")  # Pillow would keep it
    return UprightImage(encoded.getvalue(), source_wh)


def _inner_frame(
    source_wh: tuple[int, int], size_wh: tuple[int, int], fit: Fit
) -> tuple[int, int, int, int]:
    """Give where the picture comes to lie in the result: left, top, width, height in pixels."""
    if fit == "letterbox":
        return geometry.letterbox_frame(source_wh, size_wh)
    return (0, 0, *(source_wh if fit == "none" else size_wh))


def _open(path: Path) -> Image.Image:
    content = path.read_bytes()
    try:
        return Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:
        raise UnreadableImageError("absurd dimensions") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image") from None
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow's many readers raise
        raise UnreadableImageError("cannot be decoded") from error


def _decode(picture: Image.Image, needed_wh: tuple[int, int]) -> Image.Image:
    """Decode to 8-bit RGB, at a fraction of the size where a JPEG allows it without loss."""
    try:
        if picture.mode in {"RGB", "L"}:
            # libjpeg scales by whole eighths while decoding, never below what is asked for.
            picture.draft("RGB", needed_wh)
        return picture if picture.mode == "RGB" and picture.load() else picture.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError("cannot be decoded") from error
