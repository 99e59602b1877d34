"""Which images and boxes are shown: pure, and the same every time."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.dataset_preview.facts import Pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from oiyolo.dataset_preview.facts import Facts

CELLS: Final = 24
"""Pictures on a sheet."""
SHEETS_OF_ROTATED: Final = 8
"""At most so many; the last one says how many images more there are."""


@dataclass(frozen=True)
class Chosen:
    """What is shown on each sheet.

    Attributes:
        grids: Images by split.
        rotated: Images sheet by sheet.
        rotated_total: How many rotated images there are, shown or not.
        smallest: Rows in the table of boxes, the smallest first.
        largest: Rows in the table of boxes, the largest first.
        duplicates: Pairs, the least alike first; before them those in two splits.
        rows_of: Rows of the shown images in the table of boxes; images without any are left out.
    """

    grids: Mapping[str, Sequence[str]]
    rotated: Sequence[Sequence[str]]
    rotated_total: int
    smallest: Sequence[int]
    largest: Sequence[int]
    duplicates: Sequence[Pair]
    rows_of: Mapping[str, npt.NDArray[np.int64]]

    def image_ids(self, facts: Facts) -> set[str]:
        """Give every image that is shown."""
        boxed = facts.boxes["ImageID"].to_numpy()[[*self.smallest, *self.largest]]
        paired = itertools.chain(*((pair.first, pair.second) for pair in self.duplicates))
        return {*itertools.chain(*self.grids.values(), *self.rotated, paired), *boxed.tolist()}


def choose(facts: Facts) -> Chosen:
    """Choose what is shown."""
    rotated = sorted(
        i for i, degrees in facts.rotation_by_id.items() if degrees and i in facts.split_by_id
    )
    shown = rotated[: CELLS * SHEETS_OF_ROTATED]
    grids = {name: by_lot(facts.ids_of[name], CELLS) for name in facts.splits}
    return Chosen(
        grids=grids,
        rotated=[shown[at : at + CELLS] for at in range(0, len(shown), CELLS)],
        rotated_total=len(rotated),
        smallest=extreme_boxes(facts, CELLS),
        largest=extreme_boxes(facts, CELLS, largest=True),
        duplicates=doubtful_pairs(facts, CELLS // 2),
        rows_of=facts.rows_of(itertools.chain(shown, *grids.values())),
    )


def by_lot(ids: Iterable[str], count: int) -> list[str]:
    """Draw by a hash of the ids, so that an image that comes in displaces one at most."""

    def lot(image_id: str) -> bytes:
        return hashlib.sha256(image_id.encode(errors="surrogateescape")).digest()

    return sorted(ids, key=lot)[:count]


def extreme_boxes(facts: Facts, count: int, *, largest: bool = False) -> list[int]:
    """Give the rows of the smallest boxes, or of the largest, at most one of each image.

    One picture full of tiny boxes would else be all that is seen.
    """
    labels = facts.labels
    order = np.argsort(
        -labels["area"].to_numpy() if largest else labels["area"].to_numpy(), kind="stable"
    )
    first = labels.iloc[order].drop_duplicates("image_id").head(count)
    return [int(row) for row in first.index]


def doubtful_pairs(facts: Facts, count: int) -> list[Pair]:
    """Give the pairs that most need a look."""

    def doubt(pair: Pair) -> tuple[bool, int, str, str]:
        straddles = in_two_splits(facts, pair)
        return not straddles, -pair.distance, pair.first, pair.second

    return sorted((Pair(*pair) for pair in facts.duplicates), key=doubt)[:count]


def in_two_splits(facts: Facts, pair: Pair) -> bool:
    """Tell whether a pair lies in two splits, which must not be."""
    splits = {facts.split_by_id.get(i) for i in (pair.first, pair.second)} - {None}
    return len(splits) > 1
