"""The numbers in the charts: box sizes, boxes per image, and the share of each class by split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from oiyolo.drawing.text import is_drawable_in_charts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.dataset_preview.dataset import PreviewDataset

SIZES: Final = ((0, "small"), (32, "medium"), (96, "large"))
"""Box sizes by their minimum area, as the side of a square in pixels, as in COCO
(https://cocodataset.org/#detection-eval)."""

_MAX_LARGEST: Final = 12
_MAX_UNEVEN: Final = 8
_MAX_NAME_CHARS: Final = 26


class CountBin(NamedTuple):
    """A bin of the histogram of boxes per image: its label, and the smallest count in it."""

    name: str
    first: int


COUNT_BINS: Final = tuple(
    CountBin(name, int(name.rstrip("+").split("-")[0]))
    for name in ("0", "1", "2", "3", "4", "5", "6-9", "10-19", "20-49", "50+")
)


class Row(NamedTuple):
    """A bar of the chart of classes.

    Attributes:
        name: A class, "all" or "negatives".
        counts: Number of images or objects in each split.
    """

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ClassRows:
    """Number of images and objects of each class by split.

    Attributes:
        images: Number of images: all, negatives and each class.
        objects: The same rows for objects; negatives have none.
        left_out: Number of classes that are not shown.
    """

    images: Sequence[Row]
    objects: Sequence[Row]
    left_out: int


def size_shares(labels: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the shares of small, medium and large boxes, shape (3,); 0 if there are no boxes."""
    area_px = labels["w_px"].to_numpy() * labels["h_px"].to_numpy()
    edges = [limit**2 for limit, _ in SIZES] + [np.inf]
    return np.asarray(np.histogram(area_px, bins=edges)[0] / max(len(labels), 1))


def count_per_bin(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many of the counts are in each of ``COUNT_BINS``, shape (len(COUNT_BINS),)."""
    first_counts = np.array([count_bin.first for count_bin in COUNT_BINS])
    bins = np.searchsorted(first_counts, counts, side="right") - 1
    return np.bincount(bins, minlength=len(COUNT_BINS))


def class_counts(dataset: PreviewDataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the number of images and of objects, each of shape (classes, splits)."""
    labels = dataset.labels
    shape = (dataset.class_count, len(dataset.splits))
    counts = []
    for table in (labels.drop_duplicates(["image_id", "class_id"]), labels):
        table_counts = np.zeros(shape, dtype=np.int64)
        columns = table["split"].map({name: column for column, name in enumerate(dataset.splits)})
        np.add.at(table_counts, (table["class_id"].to_numpy(), columns.to_numpy(dtype=np.int64)), 1)
        counts.append(table_counts)
    return counts[0], counts[1]


def class_rows(dataset: PreviewDataset) -> ClassRows:
    """Return the number of images and objects by split: all, negatives and each class.

    Of many classes, only the largest are included, and those that are furthest from their shares.
    """
    images, objects = class_counts(dataset)
    all_images = tuple(len(dataset.ids_by_split[name]) for name in dataset.splits)
    negatives = tuple(int((dataset.label_counts(name) == 0).sum()) for name in dataset.splits)
    all_objects = tuple(objects.sum(axis=0).tolist())
    class_ids = classes_to_show(images, np.array(all_images))
    names = [chart_name(dataset, class_id) for class_id in class_ids]
    zeros = tuple(0 for _ in dataset.splits)
    has_negatives = any(negatives)
    return ClassRows(
        images=[
            Row("all", all_images),
            *([Row("negatives", negatives)] if has_negatives else []),
            *(Row(n, tuple(images[i].tolist())) for n, i in zip(names, class_ids, strict=True)),
        ],
        objects=[
            Row("all", all_objects),
            *([Row("negatives", zeros)] if has_negatives else []),
            *(Row(n, tuple(objects[i].tolist())) for n, i in zip(names, class_ids, strict=True)),
        ],
        left_out=dataset.class_count - len(class_ids),
    )


def classes_to_show(
    images: npt.NDArray[np.int64], all_images: npt.NDArray[np.int64]
) -> Sequence[int]:
    """Return the classes to show.

    Args:
        images: Number of images of each class in each split, shape (classes, splits).
        all_images: Number of images in each split, shape (splits,).

    Returns:
        Class ids by number of images, the largest first.
    """
    totals = images.sum(axis=1)
    by_size = np.argsort(-totals, kind="stable")
    if len(by_size) <= _MAX_LARGEST + _MAX_UNEVEN:
        return [int(i) for i in by_size]
    expected = totals[:, None] * all_images / max(int(all_images.sum()), 1)
    # In images, not in shares: a class of 3 images cannot be split into 80, 10 and 10 %.
    deviation = np.abs(images - expected).sum(axis=1) / np.sqrt(np.maximum(totals, 1))
    rest = by_size[_MAX_LARGEST:]
    most_uneven = set(rest[np.argsort(-deviation[rest], kind="stable")][:_MAX_UNEVEN].tolist())
    largest = set(by_size[:_MAX_LARGEST].tolist())
    return [int(i) for i in by_size if int(i) in largest | most_uneven]


def chart_name(dataset: PreviewDataset, class_id: int) -> str:
    """Return a class's name for a chart: shortened; "class" and the id if it cannot be drawn."""
    name = dataset.class_name(class_id)
    if not is_drawable_in_charts(name):
        return f"class {class_id}"
    return name if len(name) <= _MAX_NAME_CHARS else name[: _MAX_NAME_CHARS - 1] + "…"
