"""The numbers behind the charts: sizes, boxes in an image, and each class's share of each split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from oiyolo.drawing.text import is_drawable_in_charts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.dataset_preview.facts import Facts

SIZES: Final = ((0, "small"), (32, "medium"), (96, "large"))
"""From which side of a square on a box is of a size (https://cocodataset.org/#detection-eval)."""

_SHOWN_LARGEST: Final = 12
_SHOWN_ASTRAY: Final = 8
_NAME_LETTERS: Final = 26


class Bucket(NamedTuple):
    """A number of boxes in an image, or several."""

    name: str
    first: int


BUCKETS: Final = tuple(
    Bucket(name, int(name.rstrip("+").split("-")[0]))
    for name in ("0", "1", "2", "3", "4", "5", "6-9", "10-19", "20-49", "50+")
)


class Row(NamedTuple):
    """A class, or all together, and its numbers in each split."""

    name: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class SplitShares:
    """How classes are divided over the splits.

    Attributes:
        images: Of all images, negatives and each class.
        objects: The same rows for objects; negatives have none.
        left_out: How many classes are not shown.
    """

    images: Sequence[Row]
    objects: Sequence[Row]
    left_out: int


def size_shares(labels: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Give the shares of small, medium and large boxes, shape (3,); 0 where there is no box."""
    area_px = labels["w_px"].to_numpy() * labels["h_px"].to_numpy()
    edges = [limit**2 for limit, _ in SIZES] + [np.inf]
    return np.asarray(np.histogram(area_px, bins=edges)[0] / max(len(labels), 1))


def in_buckets(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count how many of the numbers lie in each of ``BUCKETS``, shape (len(BUCKETS),)."""
    firsts = np.array([bucket.first for bucket in BUCKETS])
    places = np.searchsorted(firsts, numbers, side="right") - 1
    return np.bincount(places, minlength=len(BUCKETS))


def class_numbers(facts: Facts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count images and objects, each of shape (classes, splits)."""
    labels = facts.labels
    shape = (facts.class_count, len(facts.splits))
    counted = []
    for table in (labels.drop_duplicates(["image_id", "class_id"]), labels):
        numbers = np.zeros(shape, dtype=np.int64)
        columns = table["split"].map({name: at for at, name in enumerate(facts.splits)})
        np.add.at(numbers, (table["class_id"].to_numpy(), columns.to_numpy(dtype=np.int64)), 1)
        counted.append(numbers)
    return counted[0], counted[1]


def split_shares(facts: Facts) -> SplitShares:
    """Give how all images, negatives and the classes are divided over the splits.

    Of many classes the largest are shown, and those that are farthest from the share that they
    should have.
    """
    images, objects = class_numbers(facts)
    all_images = tuple(len(facts.ids_of[name]) for name in facts.splits)
    negatives = tuple(int((facts.label_counts(name) == 0).sum()) for name in facts.splits)
    all_objects = tuple(objects.sum(axis=0).tolist())
    shown = shown_classes(images, np.array(all_images))
    names = [chart_name(facts, class_id) for class_id in shown]
    none = tuple(0 for _ in facts.splits)
    has_negatives = any(negatives)
    return SplitShares(
        images=[
            Row("all", all_images),
            *([Row("negatives", negatives)] if has_negatives else []),
            *(Row(n, tuple(images[i].tolist())) for n, i in zip(names, shown, strict=True)),
        ],
        objects=[
            Row("all", all_objects),
            *([Row("negatives", none)] if has_negatives else []),
            *(Row(n, tuple(objects[i].tolist())) for n, i in zip(names, shown, strict=True)),
        ],
        left_out=facts.class_count - len(shown),
    )


def shown_classes(
    images: npt.NDArray[np.int64], all_images: npt.NDArray[np.int64]
) -> Sequence[int]:
    """Choose the classes that are shown.

    Args:
        images: Images of each class in each split, shape (classes, splits).
        all_images: Images in each split, shape (splits,).

    Returns:
        Class ids, the one with the most images first.
    """
    totals = images.sum(axis=1)
    by_size = np.argsort(-totals, kind="stable")
    if len(by_size) <= _SHOWN_LARGEST + _SHOWN_ASTRAY:
        return [int(i) for i in by_size]
    expected = totals[:, None] * all_images / max(int(all_images.sum()), 1)
    # In images, not in shares: a class of three images cannot be divided by 80, 10 and 10.
    astray = np.abs(images - expected).sum(axis=1) / np.sqrt(np.maximum(totals, 1))
    rest = by_size[_SHOWN_LARGEST:]
    farthest = set(rest[np.argsort(-astray[rest], kind="stable")][:_SHOWN_ASTRAY].tolist())
    largest = set(by_size[:_SHOWN_LARGEST].tolist())
    return [int(i) for i in by_size if int(i) in largest | farthest]


def chart_name(facts: Facts, class_id: int) -> str:
    """Give a class's name as a chart can write it: cut off, or its number."""
    name = facts.class_name(class_id)
    if not is_drawable_in_charts(name):
        return f"class {class_id}"
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…"
