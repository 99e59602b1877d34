"""Resized pixels: near to LANCZOS, and never moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oiyolo.imagery.decode import open_picture
from oiyolo.imagery.resize import enough_for, one_thread_each, resize

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


def psnr_db(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    error = float(np.mean((a.astype(float) - b) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


SIDES = st.integers(1, 200)


@settings(max_examples=100, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_any_size_becomes_any_other_and_a_plain_picture_stays_plain(
    have_wh: tuple[int, int], wh: tuple[int, int]
) -> None:
    rgb = np.full((have_wh[1], have_wh[0], 3), (10, 128, 250), dtype=np.uint8)
    made = resize(rgb, wh)
    assert made.shape == (wh[1], wh[0], 3)
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - (10, 128, 250)).max() <= 1


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
    made = resize(stripes, (90, 90))[20:70, 20:70]
    assert made.std() < 25
    assert abs(made.mean() - 127.5) < 3


@pytest.mark.parametrize(
    ("size_wh", "least_db"),
    [((416, 416), 39), ((416, 312), 39), ((608, 608), 39), ((320, 320), 38.5), ((96, 96), 37.5)],
)
def test_photographs_are_nearly_what_lanczos_makes_of_the_whole(
    real: Path, size_wh: tuple[int, int], least_db: float
) -> None:
    found = []
    for path in sorted((real / "alpaca" / "images").glob("*.jpg"))[:12]:
        with Image.open(path) as image:
            if image.mode != "RGB" or image.size[0] < image.size[1]:
                continue
            wanted = np.asarray(image.resize(size_wh, Image.Resampling.LANCZOS))
        made = resize(open_picture(path.read_bytes()).pixels(enough_for(size_wh)), size_wh)
        found.append(psnr_db(made, wanted))
    assert len(found) > 5
    assert np.mean(found) > least_db


def test_opencv_gets_its_threads_back() -> None:
    before = cv2.getNumThreads()
    with one_thread_each():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == before
