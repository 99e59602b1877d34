"""Images with a profile are converted to sRGB; an sRGB or damaged profile changes nothing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageCms

from oiyolo.imagery.colour import to_srgb
from oiyolo.imagery.jpeg import icc_profile

if TYPE_CHECKING:
    from pathlib import Path

GREEN = np.full((2, 2, 3), (60, 180, 60), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize(
    "profile",
    [SRGB, LAB, b"", b"junk", SRGB[:200], SRGB[:-40] + b"\0" * 40],
    # A profile contains the time of its creation, so it cannot be an id.
    ids=["sRGB", "Lab", "empty", "junk", "truncated", "zeros at the end"],
)
def test_an_srgb_or_damaged_profile_changes_nothing(profile: bytes) -> None:
    assert to_srgb(GREEN, profile).tolist() == GREEN.tolist()


def test_adobe_rgb_is_converted(real: Path) -> None:
    profiles = (icc_profile(p.read_bytes()) for p in (real / "alpaca" / "images").glob("*.jpg"))
    adobe = next(p for p in profiles if p is not None and b"Adobe RGB" in p)
    (red, green, _), grey = to_srgb(GREEN, adobe)[0, 0], to_srgb(GREEN * 0 + 128, adobe)
    assert red < 20  # a green at the edge of sRGB's gamut
    assert 170 < green < 190
    assert np.abs(grey.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("size_bytes", [1, 3000, 65_000, 200_000])
def test_a_profile_is_read_completely_however_many_parts_it_has(size_bytes: int) -> None:
    profile = np.random.default_rng(0).integers(0, 256, size_bytes, dtype=np.uint8).tobytes()
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", icc_profile=profile)
    assert icc_profile(file.getvalue()) == profile


def test_a_jpeg_without_profile_yields_none() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", comment=b"ICC_PROFILE\0 is not here")
    assert icc_profile(file.getvalue()) is None
