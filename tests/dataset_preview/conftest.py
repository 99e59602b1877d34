"""Made-up datasets with drawn images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from oiyolo.dataset_preview.facts import Facts
from oiyolo.openimages.selection import CORNERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Row = tuple[str, int, tuple[float, float, float, float], bool]
"""Image, class, box, used."""
GROUND = (70, 90, 110)


def make_facts(
    folder: Path, rows: Sequence[Row], split_by_id: dict[str, str], **more: Any
) -> Facts:
    """Make a dataset of the rows; each image of it is a plain one of 64x64 unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in split_by_id:
        path = folder / f"{image_id}.jpg"
        if not path.exists():
            Image.new("RGB", (64, 64), GROUND).save(path)
    table = pd.DataFrame({
        "ImageID": pd.Series([row[0] for row in rows], dtype=str),
        "class_id": np.array([row[1] for row in rows], dtype=np.int64),
        "used": np.array([row[3] for row in rows], dtype=np.bool_),
    })  # fmt: skip
    table[list(CORNERS)] = np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4)
    usual: dict[str, Any] = {"class_names": ["Boat", "Oar"], "size_wh": (416, 416)}
    return Facts(table, split_by_id, images_folder=folder, **{**usual, **more})


def many_rows(images: int, seed: int = 1, classes: int = 2) -> list[Row]:
    """Make up boxes for images "0000", "0001" and so on; some have none."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(images):
        for _ in range(random.poisson(1.5)):
            low = random.uniform(0, 0.6, 2)
            x2, y2 = low + random.uniform(0.01, 0.4, 2)
            box = (float(low[0]), float(low[1]), float(x2), float(y2))
            rows.append((f"{number:04}", int(random.integers(classes)), box, random.random() < 0.9))
    return rows


def many_splits(images: int) -> dict[str, str]:
    """Deal them: eight, one and one of ten."""
    dealt = ("valid", "test", *["train"] * 8)
    return {f"{number:04}": dealt[number % 10] for number in range(images)}


@pytest.fixture(scope="session")
def facts_of() -> Callable[..., Facts]:
    return make_facts


@pytest.fixture(scope="session")
def many() -> Callable[..., Facts]:
    """Make a dataset of so many images."""

    def make(folder: Path, images: int, *, seed: int = 1, classes: int = 2, **more: Any) -> Facts:
        names = [f"Class {number}" for number in range(classes)]
        rows = many_rows(images, seed, classes)
        return make_facts(folder, rows, many_splits(images), **{"class_names": names, **more})

    return make
