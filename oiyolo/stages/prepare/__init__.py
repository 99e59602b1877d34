"""prepare: write upright, resized images and their labels.

Writes ``data/dataset/obj/<ImageID>.jpg`` and ``.txt``, and ``data/dataset/boxes.csv``. An image is
prepared again only if its file, boxes or options changed; the ledger has a fingerprint of these.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypedDict, get_args, overload

from oiyolo import __version__
from oiyolo.core import files, records, staleness
from oiyolo.core.batches import batched
from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Picture, Plan, Result, format_table, pluralize
from oiyolo.dataset_preview.contact_sheets import SheetKind, draw_sheet
from oiyolo.dataset_preview.dataset import PreviewDataset
from oiyolo.label_errors import decisions
from oiyolo.project.keys import ImagesOptions
from oiyolo.project.keywords import takes_keys
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, PREPARED, PREPARED_STATES, Change
from oiyolo.project.project import open_project
from oiyolo.stages import select as select_stage
from oiyolo.stages.prepare import boxes_csv, originals, pending
from oiyolo.stages.prepare.boxes_csv import RECIPE_FILE as RECIPE_FILE  # for other stages
from oiyolo.stages.prepare.failures import Failures
from oiyolo.stages.prepare.pending import review_boxes as review_boxes  # for other commands
from oiyolo.stages.prepare.tasks import METHOD_VERSION as METHOD_VERSION  # for other commands
from oiyolo.stages.prepare.tasks import image_options
from oiyolo.stages.prepare.tasks import source_sizes_wh as source_sizes_wh  # for other stages
from oiyolo.training.run import ids_in_use

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from typing_extensions import Unpack

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.project.keywords import ImagesKeywords
    from oiyolo.project.ledger import Counts, Ledger
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.stages.prepare.tasks import SelectedBoxes

STAGE: Final = originals.STAGE
_RECORD_EVERY: Final = 32
_SHOWN_IMAGES: Final = 8
_SHOWN_DECISIONS: Final = 5
_REVIEW: Final = "the review"


@dataclass(frozen=True)
class Prepared(Result):
    """Result of ``oiyolo prepare``.

    Attributes:
        folder: ``data/dataset``.
        new: Number of images prepared by this call.
        failed: Number of images that could not be prepared, by reason.
        dropped_boxes: Number of boxes of prepared images that are not labels, by reason.
        counts: Number of images in each state afterwards.
        seconds: Duration in seconds.
        missing_originals: Number of images whose originals have to be fetched again.
        postponed: Number of images with other boxes that wait until no training run uses them.
        review_not_applied: Decisions in ``data/review.csv`` that match no image or box.
    """

    folder: Path
    new: int
    failed: Mapping[str, int]
    dropped_boxes: Mapping[str, int]
    counts: Counts
    seconds: float
    missing_originals: int = 0
    postponed: int = 0
    review_not_applied: Sequence[ReviewRow] = ()

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """All boxes in the prepared frame, ``used`` or not."""
        return boxes_csv.read(self.folder)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the network's input in pixels, for which the images are prepared."""
        saved = records.find_intact(self.folder / RECIPE_FILE, _SavedRecipe)
        width, height = saved["options"]["size"] if saved else ImagesOptions().size
        return width, height

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "prepared": self.new,
            "failed": dict(self.failed),
            "dropped_boxes": dict(self.dropped_boxes),
            "review_not_applied": [
                {"ImageID": row.image_id, "class": row.class_name, "decision": row.decision}
                for row in self.review_not_applied
            ],
            "seconds": round(self.seconds, 3),
            **self.counts.as_dict(),
        }

    def __str__(self) -> str:
        with_labels = sum(self.counts.states[state] for state in PREPARED_STATES)
        if not (self.new or self.failed or self.missing_originals):
            text = f"prepared: nothing to do; {pluralize(with_labels, 'image')} with labels"
            return "\n".join([text, *self._review_lines()])
        rate = self.new / self.seconds if self.seconds else 0.0
        duration = f"in {self.seconds:.1f} s ({rate:.0f} per second)"
        lines = [f"prepared {pluralize(self.new, 'image')} {duration}; {with_labels:,} with labels"]
        rows = [(f"not prepared: {reason}", n) for reason, n in self.failed.items()]
        rows += [
            (f"boxes not used as labels: {reason}", n) for reason, n in self.dropped_boxes.items()
        ]
        lines += [format_table(rows)] if rows else []
        if self.missing_originals:
            lines.append(
                f"{pluralize(self.missing_originals, 'original')} needed again (deleted because "
                "keep_originals is false, or lost): run `oiyolo fetch`, then `oiyolo prepare`"
            )
        return "\n".join([*lines, *self._review_lines()])

    def _review_lines(self) -> list[str]:
        """Return lines about the decisions of a review that no longer apply, if there are any."""
        rows = self.review_not_applied
        if not rows:
            return []
        decided = f"{pluralize(len(rows), 'decision')} in data/review.csv no longer"
        verb = "applies" if len(rows) == 1 else "apply"
        lines = [f"{decided} {verb}: the image or the box is not there"]
        lines += [
            f"  {row.image_id} {row.class_name}: {row.decision}" for row in rows[:_SHOWN_DECISIONS]
        ]
        more = len(rows) - _SHOWN_DECISIONS
        return [*lines, f"  and {more:,} more (--json lists all)"] if more > 0 else lines

    def contact_sheet(self, kind: SheetKind = "random", count: int = 24) -> Picture:
        """Return a picture of prepared images with their boxes, as darknet will see them.

        Args:
            kind: Which images: "random", or those with the "smallest" or "largest" boxes.
            count: Maximum number of images.

        Raises:
            UsageError: No image is prepared, or the kind is unknown.
        """
        if kind not in get_args(SheetKind):
            expected = f"one of {', '.join(get_args(SheetKind))}"
            raise UsageError("unknown kind of contact sheet", expected=expected, found=kind)
        boxes, objects = self.boxes, self.folder / "obj"
        names = dict(zip(boxes["class_id"].tolist(), boxes["class"].tolist(), strict=True))
        if not names:
            raise UsageError("no image is prepared", where=str(self.folder))
        dataset = PreviewDataset(
            boxes=boxes,
            split_by_id={path.stem: PREPARED for path in objects.glob("*.txt")},
            class_names=[names.get(number, "") for number in range(max(names) + 1)],
            images_folder=objects,
            size_wh=self.size_wh,
        )
        return Picture(draw_sheet(dataset, kind, count), f"{kind} prepared images")

    def _repr_html_(self) -> str:
        sheet = self.contact_sheet(count=_SHOWN_IMAGES).html if len(self.boxes) else ""
        return super()._repr_html_() + sheet


@overload
def prepare(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[ImagesKeywords]
) -> Prepared: ...


@overload
def prepare(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[ImagesKeywords]
) -> Plan: ...


@overload
def prepare(
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[ImagesKeywords]
) -> Prepared | Plan: ...


@takes_keys("images")
def prepare(
    project: ProjectLike = ".", *, dry_run: bool = False, **options: Unpack[ImagesKeywords]
) -> Prepared | Plan:
    """Prepare the fetched images for darknet.

    Args:
        project: An open project or its folder.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[images]`` (``size``, ``fit``, ``jobs``, ``keep_originals``).

    Raises:
        UsageError: Nothing was selected yet, or an option is unknown.
        UnavailableError: The disk is full, or more images than ``[images] tolerance`` allows could
            not be read or written. They stay pending, and the next call tries them again.
        LockedError: Another process is changing the dataset, or a training run in progress uses
            images that would have to be prepared again with different options.
    """
    opened = open_project(project, options)
    if dry_run:
        return make_plan(opened)[0]
    with opened.data_lock(STAGE):
        return run(opened)


def make_plan(project: Project) -> tuple[Plan, set[str]]:
    """Return what ``prepare`` would do, and the ids of the images that it would prepare.

    Raises:
        UsageError, LockedError: As for ``prepare``.
    """
    selection = select_stage.load(project)
    with project.ledger(read_only=True) as ledger:
        reason = _stale_reason(project, selection, ledger)
        work = pending.find_images(project, selection, ledger)
        freed_ids = _ids_to_free(project, ledger)
        excluded_ids = set(ledger.ids(EXCLUDED, stage=STAGE))
    pending_ids = {task.image_id for task in work.tasks}
    missing_originals = pending_ids - originals.image_ids_in(project.images_folder)
    missing = pluralize(len(missing_originals), "original")
    prepared_ids = pending_ids - missing_originals - excluded_ids
    retried_ids = pending_ids & excluded_ids - missing_originals
    if not project.config.images.keep_originals:
        freed_ids |= prepared_ids
    possible_actions = {
        f"prepare {pluralize(len(prepared_ids), 'image')} ({reason})": prepared_ids,
        f"try {pluralize(len(retried_ids), 'excluded image')} again": retried_ids,
        f"need {missing} again from `oiyolo fetch`": missing_originals,
        f"mark {pluralize(len(work.restored_ids), 'image')} as prepared again": work.restored_ids,
        f"delete {pluralize(len(freed_ids), 'original')} (keep_originals is false)": freed_ids,
    }
    facts = {
        "images": len(pending_ids),
        "lacking": len(missing_originals),
        "back": len(work.restored_ids),
    }
    actions = [action for action, ids in possible_actions.items() if ids]
    if reason and not work:
        actions.append(f"write {boxes_csv.NAME} again ({reason})")
    return Plan("prepare", actions, facts), prepared_ids


def stale_reason(project: Project) -> str | None:
    """Return why the prepared images are out of date; ``None`` if they are up to date."""
    selection = select_stage.load(project)
    with project.ledger(read_only=True) as ledger:
        return _stale_reason(project, selection, ledger)


def _stale_reason(
    project: Project, selection: select_stage.Selection, ledger: Ledger
) -> str | None:
    """Return why the prepared images are out of date, without examining each image's boxes."""
    if waiting := _waiting(project, ledger):
        return waiting
    recipe = _recipe(project, selection, ledger)
    if reason := staleness.stale_reason(project.dataset_folder / RECIPE_FILE, recipe):
        return reason
    if not boxes_csv.is_intact(project.dataset_folder):
        return f"{boxes_csv.NAME} is missing or damaged"
    if lost := len(lost_ids(project, ledger)):
        return f"the image or label of {pluralize(lost, 'prepared image')} is missing or damaged"
    return None


def _waiting(project: Project, ledger: Ledger) -> str:
    """Return which images wait for ``prepare``; empty if none do."""
    if waiting := len(ledger.ids(FETCHED)):
        return f"{pluralize(waiting, 'image')} fetched but not prepared"
    if postponed := len(pending.retryable_ids(project, ledger)):
        return f"{pluralize(postponed, 'image')} to be tried again"
    withdrawn_ids = ledger.withdrawn_ids()
    in_use = ids_in_use(project.runs_folder) if withdrawn_ids else set()
    left = len(_paths_to_delete(project, withdrawn_ids, in_use))
    return f"the files of {pluralize(left, 'withdrawn image')} are to be deleted" if left else ""


def lost_ids(project: Project, ledger: Ledger) -> list[str]:
    """Return the ids of prepared images whose file or label is missing or has another size."""
    complete_ids = pending.complete_ids_in(project, ledger)
    return [i for i in pending.ids_with_files(ledger) if i not in complete_ids]


def prepared_bytes(project: Project) -> dict[str, int]:
    """Return the size of each prepared image's file by id; older versions did not record it."""
    with project.ledger(read_only=True) as ledger:
        sizes = ledger.column("prepared_bytes", *PREPARED_STATES)
    return {image_id: size for image_id, size in sizes.items() if isinstance(size, int)}


class _SavedOptions(TypedDict):
    size: list[int]
    fit: str


class _SavedRecipe(TypedDict):
    options: _SavedOptions


def prepared_options(project: Project) -> dict[str, Any]:
    """Return how the existing images were prepared: ``size`` (width, height) and ``fit``.

    These are the options that the last ``prepare`` recorded; they may differ from ``oiyolo.toml``.
    """
    saved = records.find_intact(project.dataset_folder / RECIPE_FILE, _SavedRecipe)
    options: dict[str, Any] = saved["options"] if saved else image_options(project.config)
    return {"size": list(options["size"]), "fit": options["fit"]}


def _recipe(
    project: Project, selection: select_stage.Selection, ledger: Ledger
) -> dict[str, object]:
    return {
        "options": image_options(project.config),
        "selection": selection.fingerprint,
        _REVIEW: _review_fingerprint(project),
        "the set of prepared images": staleness.fingerprint(ledger.ids(*PREPARED_STATES)),
        "the way of preparing": METHOD_VERSION,
        "version": __version__,
    }


def _review_fingerprint(project: Project) -> str:
    """Return the digest of the decisions in ``data/review.csv``; empty without any."""
    rows = decisions.effective(decisions.read(project.review_path))
    return staleness.fingerprint([decisions.to_cells(row) for row in rows]) if rows else ""


def is_review_applied(project: Project) -> bool:
    """Return whether the labels are those that the decisions in ``data/review.csv`` lead to."""
    saved = records.find_intact(project.dataset_folder / RECIPE_FILE, dict[str, Any]) or {}
    return bool(saved.get(_REVIEW, "") == _review_fingerprint(project))


def run(project: Project, *, postpones: bool = False) -> Prepared:
    """Prepare the fetched images; the caller holds the dataset lock.

    Args:
        project: The project.
        postpones: Whether images with other boxes that a training run in progress uses are left as
            they are, for a later call, instead of being an error.

    Raises:
        UnavailableError, LockedError: As for ``prepare``.
    """
    selection = select_stage.load(project)
    project.objects_folder.mkdir(parents=True, exist_ok=True)
    files.remove_parts(project.objects_folder)
    files.remove_parts(project.dataset_folder)
    started_s = time.monotonic()
    tally = Counter[str]()
    with project.ledger() as ledger:
        work = None
        failures = Failures()
        if _stale_reason(project, selection, ledger) is not None:
            work = pending.find_images(project, selection, ledger, postpones=postpones)
            tally = _prepare_pending(project, ledger, work, failures)
        if not project.config.images.keep_originals:
            originals.free(project, ledger, sorted(_ids_to_free(project, ledger)))
        _remove_excluded(project, ledger)
        if work is not None:
            recipe = _recipe(project, selection, ledger)
            if work.postponed_ids:  # an incomplete recipe is stale, so the next call goes on
                del recipe["selection"]
                (project.dataset_folder / RECIPE_FILE).unlink(missing_ok=True)
            _write_boxes(project, recipe, ledger, work.boxes)
        counts = ledger.counts()
        missing_originals = _count_missing_originals(ledger)
    failures.check_tolerance(project, counts.selected)
    return Prepared(
        folder=project.dataset_folder,
        new=tally.pop("", 0),
        failed=dict(tally.most_common()),
        dropped_boxes=_count_dropped(project),
        counts=counts,
        seconds=time.monotonic() - started_s,
        missing_originals=missing_originals,
        postponed=len(work.postponed_ids) if work is not None else 0,
        review_not_applied=_not_applied(project, selection, work),
    )


def _not_applied(
    project: Project, selection: select_stage.Selection, work: pending.PendingImages | None
) -> Sequence[ReviewRow]:
    """Return the decisions of a review that match nothing, without reading boxes needlessly."""
    if work is not None:
        return work.boxes.review_not_applied
    if not decisions.changes_of(decisions.read(project.review_path)):
        return ()
    return review_boxes(project, selection).not_applied


def _ids_to_free(project: Project, ledger: Ledger) -> set[str]:
    """Return the ids of prepared images whose originals exist and are not to be kept."""
    if project.config.images.keep_originals:
        return set()
    return originals.image_ids_in(project.images_folder).intersection(ledger.ids(*PREPARED_STATES))


def _count_missing_originals(ledger: Ledger) -> int:
    reasons = ledger.column("reason", PENDING)
    return sum(reason == originals.ORIGINAL_MISSING for reason in reasons.values())


def _prepare_pending(
    project: Project, ledger: Ledger, work: pending.PendingImages, failures: Failures
) -> Counter[str]:
    """Prepare the pending images; return their number by reason of failure, "" for success."""
    if work:
        (project.dataset_folder / RECIPE_FILE).unlink(missing_ok=True)
    message = "the existing prepared files are up to date again"
    ledger.record(STAGE, [Change(image_id, PREPARED, message) for image_id in work.restored_ids])
    tally = Counter[str]()
    if not work.tasks:
        return tally
    from oiyolo.stages.prepare.workers import prepare_all  # noqa: PLC0415  (OpenCV)

    with progress("prepare", total=len(work.tasks), unit="img") as bar:
        for batch in batched(prepare_all(project, work), _RECORD_EVERY):
            ledger.record(STAGE, batch)
            if not project.config.images.keep_originals:
                originals.free(project, ledger, [change.image_id for change in batch])
            bar.advance(len(batch))
            tally.update(change.reason for change in batch)
            failures.add(batch, work.fetched_ids)
    return tally


def boxes_table(project: Project, image_ids: Collection[str] | None = None) -> pd.DataFrame:
    """Read ``data/dataset/boxes.csv``: all boxes in the prepared frame, ``used`` or not.

    Args:
        project: The project.
        image_ids: Ids of the images whose boxes are returned; ``None`` for all.
    """
    return boxes_csv.read(project.dataset_folder, image_ids)


def remove_boxes(project: Project, image_ids: Collection[str]) -> None:
    """Remove the boxes of some images from ``data/dataset/boxes.csv``."""
    boxes_csv.remove(project.dataset_folder, image_ids)


def used_sizes(project: Project, image_ids: Container[str]) -> npt.NDArray[np.float64]:
    """Read the widths and heights of the used boxes of some images, as fractions, shape (n, 2)."""
    return boxes_csv.used_sizes(project.dataset_folder, image_ids)


def used_classes(project: Project, image_ids: Container[str]) -> dict[str, set[str]]:
    """Return the names of the classes of the used boxes in each of some images that has any."""
    return boxes_csv.used_classes(project.dataset_folder, image_ids)


def _remove_excluded(project: Project, ledger: Ledger) -> None:
    """Delete the prepared files of excluded images, except those that a run in progress uses.

    Of withdrawn images, the originals are deleted as well.
    """
    in_use = ids_in_use(project.runs_folder)
    for image_id in ledger.ids(EXCLUDED, stage=STAGE):
        if image_id not in in_use:
            _remove(prepared_paths(project, image_id))
    remove_files_of(project, ledger.withdrawn_ids(), in_use)


def remove_files_of(project: Project, image_ids: Iterable[str], in_use: Container[str]) -> int:
    """Delete the files of images that are not in use; return of how many images."""
    left = _paths_to_delete(project, image_ids, in_use)
    for paths in left.values():
        _remove(paths)
    return len(left)


def _paths_to_delete(
    project: Project, image_ids: Iterable[str], in_use: Container[str]
) -> dict[str, list[Path]]:
    """Return the existing files of each withdrawn image that has some and is not in use."""
    paths_by_id = {i: image_paths(project, i) for i in image_ids if i not in in_use}
    return {i: paths for i, paths in paths_by_id.items() if paths}


def image_paths(project: Project, image_id: str) -> list[Path]:
    """Return the files of an image that exist: its original, and what was prepared from it."""
    original = project.images_folder / f"{image_id}.jpg"
    return [p for p in (original, *prepared_paths(project, image_id)) if p.is_file()]


def prepared_paths(project: Project, image_id: str) -> tuple[Path, Path]:
    """Return the paths of a prepared image and its label."""
    path = project.objects_folder / f"{image_id}.jpg"
    return path, path.with_suffix(".txt")


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(IsADirectoryError):
            path.unlink(missing_ok=True)


def _write_boxes(
    project: Project, recipe: Mapping[str, object], ledger: Ledger, boxes: SelectedBoxes
) -> None:
    """Write ``boxes.csv`` and the recipe if they are out of date."""
    folder = project.dataset_folder
    path, recipe_path = folder / boxes_csv.NAME, folder / boxes_csv.RECIPE_FILE
    if staleness.stale_reason(recipe_path, recipe) or not boxes_csv.is_intact(folder):
        files.write_text(path, boxes.to_csv(source_sizes_wh(ledger, *PREPARED_STATES)))
        staleness.write_recipe(recipe_path, recipe, [path])


def _count_dropped(project: Project) -> dict[str, int]:
    """Return the number of boxes of prepared images that are not labels, by reason."""
    drop_reasons = boxes_table(project)["dropped_because"]
    return dict(Counter(drop_reasons[drop_reasons != ""]).most_common())
