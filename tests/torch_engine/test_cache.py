"""Decoded images in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from PIL import Image

from oiyolo.torch_engine.cache import ImageCache

if TYPE_CHECKING:
    from pathlib import Path


def test_an_image_that_is_listed_twice_is_kept_once(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{name}.jpg") for name in "ab"]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 8), (100 * number, 0, 0)).save(path)
    cache = ImageCache([*paths, paths[1]], limit_bytes=2 * 8 * 8 * 3)
    with ThreadPoolExecutor(1) as threads:
        images = cache.get_many([0, 1, 2], threads)
    assert images[2] is images[1]
    assert cache.get(2) is cache.get(1)
    assert images[0][0, 0, 0] < 50 < images[1][0, 0, 0]
