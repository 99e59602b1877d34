"""Colours as they were meant: an ICC profile other than sRGB is applied, and not kept.

A tenth of the mirror's photographs have one (Adobe RGB above all); read as sRGB they are too pale.
It is applied to the resized picture, where it costs little.
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
_KEPT_PROFILES: Final = 32
"""Cameras and programs write the same few."""


def to_srgb(rgb: npt.NDArray[np.uint8], profile: bytes) -> npt.NDArray[np.uint8]:
    """Convert a picture of shape (height, width, 3) to sRGB; a broken profile is left out."""
    transform = _transform(profile)
    if transform is None:
        return rgb
    return np.asarray(transform.apply(Image.fromarray(rgb)))


@lru_cache(_KEPT_PROFILES)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Give the way from a profile to sRGB; ``None`` if there is nothing to do or it is broken."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _RGB_SPACE:
            return None
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
