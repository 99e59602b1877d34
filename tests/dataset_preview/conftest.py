"""Fixtures: synthetic datasets with generated images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from oiyolo.dataset_preview.dataset import PreviewDataset
from oiyolo.openimages.selection import CORNERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Row = tuple[str, int, tuple[float, float, float, float], bool]
"""Image id, class id, box, and whether it is used."""
BACKGROUND = (70, 90, 110)


def create_dataset(
    folder: Path, rows: Sequence[Row], split_by_id: dict[str, str], **options: Any
) -> PreviewDataset:
    """Return a dataset of the rows; missing images are created, 64x64 and of one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in split_by_id:
        path = folder / f"{image_id}.jpg"
        if not path.exists():
            Image.new("RGB", (64, 64), BACKGROUND).save(path)
    table = pd.DataFrame({
        "ImageID": pd.Series([row[0] for row in rows], dtype=str),
        "class_id": np.array([row[1] for row in rows], dtype=np.int64),
        "used": np.array([row[3] for row in rows], dtype=np.bool_),
    })  # fmt: skip
    table[list(CORNERS)] = np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4)
    defaults: dict[str, Any] = {"class_names": ["Boat", "Oar"], "size_wh": (416, 416)}
    return PreviewDataset(table, split_by_id, images_folder=folder, **{**defaults, **options})


def random_rows(images: int, seed: int = 1, classes: int = 2) -> list[Row]:
    """Return random boxes for images "0000", "0001" and so on; some images have none."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(images):
        for _ in range(random.poisson(1.5)):
            corner = random.uniform(0, 0.6, 2)
            x2, y2 = corner + random.uniform(0.01, 0.4, 2)
            box = (float(corner[0]), float(corner[1]), float(x2), float(y2))
            rows.append((f"{number:04}", int(random.integers(classes)), box, random.random() < 0.9))
    return rows


def default_splits(images: int) -> dict[str, str]:
    """Return a split for each of these images: of ten, eight train, one valid and one test."""
    pattern = ("valid", "test", *["train"] * 8)
    return {f"{number:04}": pattern[number % 10] for number in range(images)}


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., PreviewDataset]:
    """Return a function that creates a dataset of given rows."""
    return create_dataset


@pytest.fixture(scope="session")
def make_random_dataset() -> Callable[..., PreviewDataset]:
    """Return a function that creates a dataset of a given number of images."""

    def make(
        folder: Path, images: int, *, seed: int = 1, classes: int = 2, **options: Any
    ) -> PreviewDataset:
        names = [f"Class {number}" for number in range(classes)]
        rows = random_rows(images, seed, classes)
        return create_dataset(
            folder, rows, default_splits(images), **{"class_names": names, **options}
        )

    return make
