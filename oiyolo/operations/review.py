"""review: list the labels that a run's detector contradicts, for a person to decide.

Writes ``data/review.csv`` and a page that shows each suspected error. ``prepare`` applies the
decisions in the file.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from oiyolo import __version__
from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result, format_table, pluralize
from oiyolo.imagery.placement import to_stored
from oiyolo.label_errors import decisions
from oiyolo.label_errors.candidates import find_candidates
from oiyolo.label_errors.decisions import ReviewRow
from oiyolo.openimages.selection import CORNERS
from oiyolo.pages import template
from oiyolo.pages.gallery import Item, Overlay, filters_of, kinds_of
from oiyolo.project.project import open_project
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.training.run import find_run
from oiyolo.training.run_detector import weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from oiyolo.boxes import Boxes
    from oiyolo.label_errors.candidates import Candidate, Corners
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.stages.evaluate import Scored

_log = logging.getLogger("oiyolo")

_FOLDER: Final = "review"
_PAGE: Final = "index.html"
_LIMIT: Final = 500
_SHOWN: Final = 300
"""Maximum number of pictures on the page."""
_DRAWN_PX: Final = 640
_WORDS: Final = {
    "missing": "object without a box",
    "spurious": "box without an object",
    "location": "badly placed box",
    "wrong_class": "wrong class",
    "duplicate": "duplicate box",
    "group_of": "several objects in one box",
    "": "your own",
}


@dataclass(frozen=True)
class ReviewList(Result):
    """Suspected label errors.

    Attributes:
        path: ``data/review.csv``.
        page: The page that shows them.
        run: Name of the run whose detector was asked.
        images: Number of images that were searched.
        kinds: Number of suspected errors by kind, the most frequent first.
        decided: Number of rows with a decision.
    """

    path: Path
    page: Path
    run: str
    images: int
    kinds: Mapping[str, int]
    decided: int

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "path": str(self.path),
            "page": str(self.page),
            "run": self.run,
            "images": self.images,
            "kinds": dict(self.kinds),
            "decided": self.decided,
        }

    def __str__(self) -> str:
        found = sum(self.kinds.values())
        images = f"{pluralize(self.images, 'image')} of valid and test"
        lines = [
            f"{pluralize(found, 'suspected label error')} in {images}, according to {self.run}"
        ]
        lines += [f"decided so far: {self.decided:,}"] if self.decided else []
        rows = [(_WORDS.get(kind, kind), f"{n:,}") for kind, n in self.kinds.items()]
        lines += [format_table(rows)] if rows else []
        lines.append(f"look at {self.page}")
        lines.append(f"decide in {self.path}, then run `oiyolo split`")
        return "\n".join(lines)


@overload
def review(
    project: ProjectLike = ...,
    *,
    run: str | None = ...,
    limit: int = ...,
    dry_run: Literal[False] = ...,
) -> ReviewList: ...


@overload
def review(
    project: ProjectLike = ...,
    *,
    run: str | None = ...,
    limit: int = ...,
    dry_run: Literal[True],
) -> Plan: ...


@overload
def review(
    project: ProjectLike = ..., *, run: str | None = ..., limit: int = ..., dry_run: bool
) -> ReviewList | Plan: ...


def review(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    limit: int = _LIMIT,
    dry_run: bool = False,
) -> ReviewList | Plan:
    """List the labels of valid and test that a detector contradicts, the most certain first.

    Decisions that the file has already are kept.

    Args:
        project: An open project or its folder.
        run: Name of the run; by default the latest one with weights.
        limit: Maximum number of suspected errors.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run or no weights, or the run has seen the images.
        InputFormError: ``data/review.csv`` or a file of the dataset is damaged.
        LockedError: Another process is changing the dataset.
    """
    if limit < 1:
        raise UsageError("--limit is out of range", expected="1 or more", found=str(limit))
    opened = open_project(project)
    target = find_run(opened.runs_folder, run, lambda run: weights_of(run) is not None)
    page = opened.data_folder / _FOLDER / _PAGE
    if dry_run:
        decisions.read(opened.review_path)
        action = f"search valid and test with {target.name}, and write {opened.review_path}, {page}"
        return Plan("review", [action])
    with opened.data_lock("review"):
        before = decisions.read(opened.review_path)
        scored = evaluate_stage.scored_splits(opened, target)
        found = [pair for part in scored for pair in _rows(opened, part)]
        found.sort(key=lambda pair: (-pair[0].score, pair[0].image_id, pair[0].kind))
        rows = decisions.with_decisions([row for row, _ in found[:limit]], before)
        decisions.write(opened.review_path, rows)
        shown = [(row, shape) for row, (_, shape) in zip(rows, found[:limit], strict=False)]
        files.remove_abandoned_parts(page.parent)
        files.write_text(page, _render(opened, target.name, shown[:_SHOWN]))
    kinds = Counter(row.kind for row in rows)
    return ReviewList(
        opened.review_path,
        page,
        target.name,
        sum(len(part.images.paths) for part in scored),
        dict(kinds.most_common()),
        sum(row.decision != "" for row in rows),
    )


@dataclass(frozen=True)
class _Shape:
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


def _rows(project: Project, scored: Scored) -> Iterator[tuple[ReviewRow, _Shape]]:
    """Yield the suspected errors of a split as rows of the file, and where they are."""
    frames, truth, names = _Frames(project, scored), scored.truth, scored.class_names
    for candidate in find_candidates(scored.detections, truth, names):
        own = np.flatnonzero(truth.image == truth.image_ids.index(candidate.image_id))
        others = [
            (names[int(truth.class_id[box])], _corners(truth.xyxy[box]))
            for box in own.tolist()
            if box != candidate.box
        ]
        old = None if candidate.box is None else _corners(truth.xyxy[candidate.box])
        shape = _Shape(scored.images.split, old, candidate.new_xyxy, others)
        yield frames.row(candidate, names), shape


class _Frames:
    """Converts boxes of the images of a split to the stored frame."""

    def __init__(self, project: Project, scored: Scored) -> None:
        ids = list(scored.images.sizes_wh)
        selection = select_stage.load(project)
        stored = prepare_stage.reviewed_boxes(project, selection)
        stored = stored[stored["ImageID"].isin(ids)]
        placed = prepare_stage.boxes_table(project, ids)
        if stored["ImageID"].tolist() != placed["ImageID"].tolist():
            raise UsageError(
                "the prepared images are out of date",
                where=str(project.dataset_folder),
                remedy="Run `oiyolo split` first",
            )
        rows = evaluate_stage.true_rows(placed)
        self._stored: Boxes = stored[list(CORNERS)].to_numpy(dtype=float)[rows]
        images = selection.images[selection.images["ImageID"].isin(ids)]
        turns = (images["Rotation"].fillna(0) % 360).astype(int).tolist()
        self._rotations = dict(zip(images["ImageID"].tolist(), turns, strict=True))
        options = prepare_stage.prepared_options(project)
        self._fit, self._size_wh = options["fit"], tuple(options["size"])
        with project.ledger(read_only=True) as ledger:
            self._source_wh = prepare_stage.source_sizes_wh(ledger)

    def row(self, candidate: Candidate, class_names: Sequence[str]) -> ReviewRow:
        """Return a suspected error as a row of the file."""
        new = None if candidate.new_xyxy is None else self._to_stored(candidate)
        box = candidate.box
        old = new if box is None else _corners(np.clip(self._stored[box], 0.0, 1.0))
        if old is None:
            raise ValueError("a candidate without any box")
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

    def _to_stored(self, candidate: Candidate) -> Corners:
        stored = to_stored(
            np.array([candidate.new_xyxy]),
            rotation=self._rotations[candidate.image_id],
            source_wh=self._source_wh[candidate.image_id],
            size_wh=self._size_wh,
            fit=self._fit,
        )
        return _corners(stored[0])


def _corners(xyxy: Any) -> Corners:  # noqa: ANN401  (an array of four numbers)
    x1, y1, x2, y2 = xyxy.tolist()
    return x1, y1, x2, y2


def _render(project: Project, run: str, shown: Sequence[tuple[ReviewRow, _Shape]]) -> str:
    with project.ledger(read_only=True) as ledger:
        source_wh = prepare_stage.source_sizes_wh(ledger)
    size_wh = tuple(prepare_stage.prepared_options(project)["size"])
    is_stretched = prepare_stage.prepared_options(project)["fit"] == "stretch"
    items = [
        _item(row, shape, source_wh[row.image_id] if is_stretched else size_wh)
        for row, shape in shown
    ]
    return template.render(
        "oiyolo.label_errors",
        "review.html.j2",
        local_images=True,
        run=run,
        items=items,
        filters=filters_of(items),
        kinds=kinds_of(items),
        version=__version__,
    )


def _item(row: ReviewRow, shape: _Shape, shown_wh: tuple[int, int]) -> Item:
    """Return the picture of a suspected error."""
    overlays = [Overlay("label", name, box) for name, box in shape.others]
    if shape.old is not None:
        overlays.append(Overlay("old", row.class_name, shape.old))
    if shape.new is not None:
        overlays.append(Overlay("new", row.new_class or row.class_name, shape.new))
    scale = _DRAWN_PX / max(shown_wh)
    return Item(
        row.image_id,
        f"../dataset/obj/{row.image_id}.jpg",
        (max(1, round(shown_wh[0] * scale)), max(1, round(shown_wh[1] * scale))),
        f"{_WORDS.get(row.kind, row.kind)} ({row.score:.2f}): {row.reason}",
        overlays,
        {
            "kind": [_WORDS.get(row.kind, row.kind)],
            "class": [row.class_name],
            "split": [shape.split],
            "decision": [row.decision or "none"],
        },
    )
