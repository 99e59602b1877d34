"""Convert images with an ICC profile to sRGB.

A tenth of the mirror's photographs have a profile other than sRGB (most often Adobe RGB). Without
conversion their colours are too pale. The image is converted after resizing: that is cheaper.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    import numpy.typing as npt

_RGB_SPACE: Final = "RGB"
_CACHED_PROFILES: Final = 32
"""Enough for all, because cameras and programs write the same few profiles."""


def to_srgb(rgb: npt.NDArray[np.uint8], profile: bytes) -> npt.NDArray[np.uint8]:
    """Return an image of shape (height, width, 3) converted to sRGB.

    With an sRGB profile, or one that is damaged or not RGB, the image is returned unchanged.
    """
    transform = _transform(profile)
    if transform is None:
        return rgb
    return np.asarray(transform.apply(Image.fromarray(rgb)))


@lru_cache(_CACHED_PROFILES)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB; ``None`` if it is sRGB, not RGB, or damaged."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _RGB_SPACE:
            return None
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
