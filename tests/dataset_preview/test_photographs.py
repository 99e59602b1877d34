"""Photographs as they were fetched, with their boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from oiyolo.core.errors import UsageError
from oiyolo.dataset_preview.photographs import draw_photographs
from oiyolo.drawing.marks import ORANGE, PURPLE

if TYPE_CHECKING:
    from pathlib import Path

IDS = ("00000000000000aa", "00000000000000bb", "00000000000000cc")


@pytest.fixture
def boxes(tmp_path: Path) -> pd.DataFrame:
    """Write a green image, one that lies on its side according to EXIF, and a broken one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for image_id, size_wh in zip(IDS[:2], ((400, 300), (300, 400)), strict=True):
        Image.new("RGB", size_wh, (0, 128, 0)).save(tmp_path / f"{image_id}.jpg", exif=exif)
    (tmp_path / f"{IDS[2]}.jpg").write_bytes(b"no image")
    rows = [(image_id, 0.25, 0.75, 0.25, 0.75, int(image_id == IDS[1])) for image_id in IDS]
    return pd.DataFrame(rows, columns=["ImageID", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"])


def has_colour(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    legend_px = 60
    pixels = np.asarray(image.convert("RGB"))[legend_px:]
    return bool((np.abs(pixels.astype(int) - colour).max(axis=2) < 8).sum() > 100)


def test_boxes_are_drawn_on_the_stored_pixels(boxes: pd.DataFrame, tmp_path: Path) -> None:
    single = draw_photographs(boxes[boxes["ImageID"] == IDS[0]], tmp_path, 4).image
    group = draw_photographs(boxes[boxes["ImageID"] == IDS[1]], tmp_path, 4).image
    assert has_colour(single, ORANGE)
    assert not has_colour(single, PURPLE)
    assert has_colour(group, PURPLE)
    red, green_level, _ = np.moveaxis(np.asarray(group).astype(int), -1, 0)
    green = green_level > red + 60
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    assert np.ptp(rows) > np.ptp(columns), "EXIF is not applied"


def test_broken_photographs_are_skipped_and_the_number_is_limited(
    boxes: pd.DataFrame, tmp_path: Path
) -> None:
    assert draw_photographs(boxes, tmp_path, 9).title == "2 photographs as fetched"
    assert draw_photographs(boxes, tmp_path, 1).title == "1 photograph as fetched"
    with pytest.raises(UsageError):
        draw_photographs(boxes[boxes["ImageID"] == IDS[2]], tmp_path, 9)
