"""Choose the images and boxes that a preview shows: deterministic, pure functions."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core.batches import batched
from oiyolo.dataset_preview.dataset import Pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from oiyolo.dataset_preview.dataset import PreviewDataset

CELLS_PER_SHEET: Final = 24
"""Maximum number of images on a contact sheet."""
MAX_ROTATED_SHEETS: Final = 8
"""Maximum number of sheets of rotated images; the last one states how many images are left out."""


@dataclass(frozen=True)
class Sample:
    """The images and boxes of each contact sheet.

    Attributes:
        grids: Ids of a random sample of images by split.
        rotated: Ids of rotated images by sheet.
        rotated_total: Number of all rotated images, shown or not.
        smallest: Rows of the smallest boxes in the table of boxes, the smallest first.
        largest: Rows of the largest boxes in the table of boxes, the largest first.
        duplicates: Suspected duplicates: pairs in two splits first, then the least similar.
        rows_by_id: Rows of the images of ``grids`` and ``rotated`` in the table of boxes; images
            without boxes are missing.
    """

    grids: Mapping[str, Sequence[str]]
    rotated: Sequence[Sequence[str]]
    rotated_total: int
    smallest: Sequence[int]
    largest: Sequence[int]
    duplicates: Sequence[Pair]
    rows_by_id: Mapping[str, npt.NDArray[np.int64]]

    @property
    def hidden_rotated(self) -> int:
        """Number of rotated images that are on no sheet."""
        return self.rotated_total - sum(map(len, self.rotated))

    def image_ids(self, dataset: PreviewDataset) -> set[str]:
        """Return the ids of all images on the sheets."""
        with_extreme_box = dataset.boxes["ImageID"].iloc[[*self.smallest, *self.largest]]
        in_pairs = ((pair.first, pair.second) for pair in self.duplicates)
        return {*itertools.chain(*self.grids.values(), *self.rotated, *in_pairs, with_extreme_box)}


def choose_sample(dataset: PreviewDataset) -> Sample:
    """Choose the images and boxes of all contact sheets."""
    rotated = sorted(
        i for i, degrees in dataset.rotation_by_id.items() if degrees and i in dataset.split_by_id
    )
    shown_ids = rotated[: CELLS_PER_SHEET * MAX_ROTATED_SHEETS]
    grids = {
        name: random_ids(dataset.ids_by_split[name], CELLS_PER_SHEET) for name in dataset.splits
    }
    return Sample(
        grids=grids,
        rotated=list(batched(shown_ids, CELLS_PER_SHEET)),
        rotated_total=len(rotated),
        smallest=extreme_boxes(dataset, CELLS_PER_SHEET),
        largest=extreme_boxes(dataset, CELLS_PER_SHEET, largest=True),
        duplicates=pairs_to_review(dataset, CELLS_PER_SHEET // 2),
        rows_by_id=dataset.rows_by_id(itertools.chain(shown_ids, *grids.values())),
    )


def random_ids(ids: Iterable[str], count: int) -> list[str]:
    """Return a random sample by a hash of the ids, in which a new image replaces at most one."""

    def random_key(image_id: str) -> bytes:
        return hashlib.sha256(image_id.encode(errors="surrogateescape")).digest()

    return sorted(ids, key=random_key)[:count]


def extreme_boxes(dataset: PreviewDataset, count: int, *, largest: bool = False) -> list[int]:
    """Return the rows of the smallest or largest boxes, at most one per image.

    Otherwise a single image with many tiny boxes could fill the sheet.

    Args:
        dataset: The dataset.
        count: Maximum number of boxes.
        largest: Whether to return the largest boxes.
    """
    area = dataset.labels["area"].to_numpy()
    order = np.argsort(-area if largest else area, kind="stable")
    first = dataset.labels.iloc[order].drop_duplicates("image_id").head(count)
    return [int(row) for row in first.index]


def pairs_to_review(dataset: PreviewDataset, count: int) -> list[Pair]:
    """Return at most ``count`` pairs: those in two splits first, then the least similar."""

    def sort_key(pair: Pair) -> tuple[bool, int, str, str]:
        is_leak = in_two_splits(dataset, pair)
        return not is_leak, -pair.distance, pair.first, pair.second

    return sorted((Pair(*pair) for pair in dataset.duplicates), key=sort_key)[:count]


def in_two_splits(dataset: PreviewDataset, pair: Pair) -> bool:
    """Return whether the images of a pair are in different splits, which is a leak."""
    splits = {dataset.split_by_id.get(i) for i in (pair.first, pair.second)} - {None}
    return len(splits) > 1
