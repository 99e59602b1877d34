"""Resized images are close to LANCZOS and not shifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oiyolo.imagery.decode import open_image
from oiyolo.imagery.resize import min_decode_size, resize

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


def psnr_db(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    error = float(np.mean((a.astype(float) - b) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


SIDES = st.integers(1, 200)


@settings(max_examples=100, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_an_image_of_one_colour_keeps_it_at_any_size(
    have_wh: tuple[int, int], wh: tuple[int, int]
) -> None:
    rgb = np.full((have_wh[1], have_wh[0], 3), (10, 128, 250), dtype=np.uint8)
    result = resize(rgb, wh)
    assert result.shape == (wh[1], wh[0], 3)
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - (10, 128, 250)).max() <= 1


@pytest.mark.parametrize("have", [80, 96, 100, 150, 200, 230, 300, 700])
@pytest.mark.parametrize("want", [80, 40, 161])
def test_an_edge_stays_where_it_is(have: int, want: int) -> None:
    rgb = np.zeros((have, have, 3), dtype=np.uint8)
    rgb[:, : have // 2] = 255
    row = resize(rgb, (want, want))[want // 2, :, 0].astype(float)
    assert abs(row.sum() / 255 - want * (have // 2) / have) < 0.35


def test_the_finest_pattern_does_not_alias() -> None:
    stripes = np.zeros((200, 200, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    result = resize(stripes, (90, 90))[20:70, 20:70]
    assert result.std() < 25
    assert abs(result.mean() - 127.5) < 3


@pytest.mark.parametrize(
    ("size_wh", "least_db"),
    [((416, 416), 39), ((416, 312), 39), ((608, 608), 39), ((320, 320), 38.5), ((96, 96), 37.5)],
)
def test_photographs_are_nearly_the_same_as_with_lanczos(
    real: Path, size_wh: tuple[int, int], least_db: float
) -> None:
    found = []
    for path in sorted((real / "alpaca" / "images").glob("*.jpg"))[:12]:
        with Image.open(path) as image:
            if image.mode != "RGB" or image.size[0] < image.size[1]:
                continue
            expected = np.asarray(image.resize(size_wh, Image.Resampling.LANCZOS))
        result = resize(open_image(path.read_bytes()).decode(min_decode_size(size_wh)), size_wh)
        found.append(psnr_db(result, expected))
    assert len(found) > 5
    assert np.mean(found) > least_db
