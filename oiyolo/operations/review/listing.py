"""Suspected label errors of splits, as rows of ``data/review.csv`` and where they are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.boxes import corners
from oiyolo.core.errors import UsageError
from oiyolo.imagery.placement import to_stored
from oiyolo.label_errors.candidates import find_candidates
from oiyolo.label_errors.decisions import ReviewRow, to_file_precision
from oiyolo.openimages.selection import CORNERS
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from oiyolo.boxes import Boxes, Corners
    from oiyolo.label_errors.candidates import Candidate
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate import Scored
    from oiyolo.stages.select import Selection


@dataclass(frozen=True)
class Shape:
    """Where a suspected error is in the prepared image.

    Attributes:
        split: Split of the image.
        old: The box in question, as fractions; ``None`` if it is missing.
        new: The suggested box; ``None`` if there is none.
        others: The other labels of the image: name of the class and box.
    """

    split: str
    old: Corners | None
    new: Corners | None
    others: Sequence[tuple[str, Corners]]


def suspected_rows(
    project: Project, parts: Sequence[Scored], limit: int
) -> list[tuple[ReviewRow, Shape]]:
    """Return the suspected errors of some splits as rows of the file, and where they are.

    Args:
        project: The project.
        parts: What a detector finds in the images of each split, and their labels.
        limit: Maximum number of rows; the most certain ones are first.

    Raises:
        UsageError: The selection or the review changed after the images were prepared.
    """
    selection = select_stage.load(project)
    boxes = prepare_stage.review_boxes(project, selection).boxes
    found: list[tuple[ReviewRow, Shape]] = []
    for scored in parts:
        frames = _Frames(project, selection, boxes, scored)
        found += itertools.islice(_rows_of(scored, frames), limit)
    found.sort(key=lambda pair: (-pair[0].score, pair[0].image_id, pair[0].kind))
    return found[:limit]


def _rows_of(scored: Scored, frames: _Frames) -> Iterator[tuple[ReviewRow, Shape]]:
    """Yield the suspected errors of a split, the most certain first."""
    truth, names = scored.truth, scored.class_names
    for candidate in find_candidates(scored.detections, truth, names):
        row = frames.row(candidate, names)
        if row is None:
            continue
        own = np.flatnonzero(truth.image == truth.image_ids.index(candidate.image_id))
        others = [
            (names[int(truth.class_id[box])], corners(truth.xyxy[box]))
            for box in own.tolist()
            if box != candidate.box
        ]
        old = None if candidate.box is None else corners(truth.xyxy[candidate.box])
        yield row, Shape(scored.images.split, old, candidate.new_xyxy, others)


class _Frames:
    """Converts boxes of the images of a split to the stored frame."""

    def __init__(
        self, project: Project, selection: Selection, boxes: pd.DataFrame, scored: Scored
    ) -> None:
        ids = list(scored.images.sizes_wh)
        stored = boxes[boxes["ImageID"].isin(ids)]
        placed = prepare_stage.boxes_table(project, ids)
        if stored["ImageID"].tolist() != placed["ImageID"].tolist():
            raise UsageError(
                "the prepared images are out of date",
                where=str(project.dataset_folder),
                remedy="Run `oiyolo split` first",
            )
        rows = evaluate_stage.true_rows(placed)
        self._stored: Boxes = stored[list(CORNERS)].to_numpy(dtype=float)[rows]
        self._rotations = selection.rotation_by_id
        options = prepare_stage.prepared_options(project)
        self._fit, self._size_wh = options["fit"], tuple(options["size"])
        with project.ledger(read_only=True) as ledger:
            self._source_wh = prepare_stage.source_sizes_wh(ledger)

    def row(self, candidate: Candidate, class_names: Sequence[str]) -> ReviewRow | None:
        """Return a suspected error as a row of the file; ``None`` if it is outside the photograph.

        A detection may be in the border of an image that was fitted with ``letterbox``.
        """
        new = None if candidate.new_xyxy is None else self._to_stored(candidate)
        box = candidate.box
        old = new if box is None else to_file_precision(corners(self._stored[box]))
        if old is None or (candidate.new_xyxy is not None and new is None):
            return None
        is_missing = box is None
        new_class = "" if candidate.new_class_id is None else class_names[candidate.new_class_id]
        return ReviewRow(
            candidate.image_id,
            class_names[candidate.class_id],
            old,
            kind=candidate.kind,
            score=round(candidate.score, 4),
            new_class="" if is_missing else new_class,
            new_xyxy=None if is_missing else new,
            reason=candidate.reason,
        )

    def _to_stored(self, candidate: Candidate) -> Corners | None:
        stored = to_stored(
            np.array([candidate.new_xyxy]),
            rotation=self._rotations[candidate.image_id],
            source_wh=self._source_wh[candidate.image_id],
            size_wh=self._size_wh,
            fit=self._fit,
        )
        return to_file_precision(corners(stored[0]))
