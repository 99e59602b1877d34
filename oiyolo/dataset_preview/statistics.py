"""The numbers in the charts: box sizes, boxes per image, and the share of each class by split."""

from __future__ import annotations

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


COUNT_BINS: Final = {
    **{str(count): count for count in range(6)},
    "6-9": 6,
    "10-19": 10,
    "20-49": 20,
    "50+": 50,
}
"""Bins of the histogram of boxes per image: the smallest count in each, by its label."""


class ClassRows(NamedTuple):
    """Number of images and objects of each class by split: the bars of the chart of classes.

    Attributes:
        names: Name of each row: "all", "negatives" (if there are any) and classes.
        images: Number of images, shape (rows, splits).
        objects: Number of objects, shape (rows, splits).
        left_out: Number of classes that are not shown.
    """

    names: Sequence[str]
    images: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    left_out: int


def size_shares(labels: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the shares of small, medium and large boxes, shape (3,); 0 if there are no boxes."""
    area_px = labels["w_px"].to_numpy() * labels["h_px"].to_numpy()
    edges = [limit**2 for limit, _ in SIZES] + [np.inf]
    return np.asarray(np.histogram(area_px, bins=edges)[0] / max(len(labels), 1))


def count_per_bin(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many of the counts are in each of ``COUNT_BINS``, shape (len(COUNT_BINS),)."""
    bins = np.searchsorted(list(COUNT_BINS.values()), counts, side="right") - 1
    return np.bincount(bins, minlength=len(COUNT_BINS))


def class_counts(dataset: PreviewDataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the number of images and of objects, each of shape (classes, splits)."""
    column_by_split = {name: column for column, name in enumerate(dataset.splits)}

    def count(labels: pd.DataFrame) -> npt.NDArray[np.int64]:
        counts = np.zeros((dataset.class_count, len(dataset.splits)), dtype=np.int64)
        columns = labels["split"].map(column_by_split).to_numpy(dtype=np.int64)
        np.add.at(counts, (labels["class_id"].to_numpy(), columns), 1)
        return counts

    return count(dataset.labels.drop_duplicates(["image_id", "class_id"])), count(dataset.labels)


def class_rows(dataset: PreviewDataset) -> ClassRows:
    """Return the number of images and objects by split: all, negatives and each class.

    Of many classes, only the largest are included, and those that are furthest from their shares.
    """
    images, objects = class_counts(dataset)
    all_images = np.array([len(dataset.ids_by_split[name]) for name in dataset.splits])
    negatives = np.array([(dataset.label_counts(name) == 0).sum() for name in dataset.splits])
    class_ids = classes_to_show(images, all_images)
    totals = [("all", all_images, objects.sum(axis=0))]
    if negatives.any():
        totals.append(("negatives", negatives, np.zeros_like(negatives)))
    names, images_of_totals, objects_of_totals = zip(*totals, strict=True)
    return ClassRows(
        [*names, *(chart_name(dataset, class_id) for class_id in class_ids)],
        np.vstack([*images_of_totals, images[class_ids]]),
        np.vstack([*objects_of_totals, objects[class_ids]]),
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
        return [*by_size.tolist()]
    expected = totals[:, None] * all_images / max(int(all_images.sum()), 1)
    # In images, not in shares: a class of 3 images cannot be split into 80, 10 and 10 %.
    deviation = np.abs(images - expected).sum(axis=1) / np.sqrt(np.maximum(totals, 1))
    rest = by_size[_MAX_LARGEST:]
    most_uneven = rest[np.argsort(-deviation[rest], kind="stable")][:_MAX_UNEVEN]
    return [*by_size[:_MAX_LARGEST].tolist(), *rest[np.isin(rest, most_uneven)].tolist()]


def chart_name(dataset: PreviewDataset, class_id: int) -> str:
    """Return a class's name for a chart: shortened; "class" and the id if it cannot be drawn."""
    name = dataset.class_name(class_id)
    if not is_drawable_in_charts(name):
        return f"class {class_id}"
    return name if len(name) <= _MAX_NAME_CHARS else name[: _MAX_NAME_CHARS - 1] + "…"
