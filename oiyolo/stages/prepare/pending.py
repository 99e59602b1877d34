"""Find the images that have to be prepared, and check that it is allowed, before any change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core import staleness
from oiyolo.core.errors import LockedError
from oiyolo.core.results import pluralize
from oiyolo.label_errors import decisions, reviewed
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, PREPARED_STATES
from oiyolo.stages.prepare.boxes_csv import RECIPE_FILE
from oiyolo.stages.prepare.originals import STAGE, image_ids_in
from oiyolo.stages.prepare.tasks import SelectedBoxes, image_options
from oiyolo.training.run import ids_in_use, running_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.label_errors.reviewed import ReviewedBoxes
    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.stages.prepare.tasks import Task
    from oiyolo.stages.select import Selection


@dataclass(frozen=True)
class PendingImages:
    """Images that are not up to date.

    Attributes:
        tasks: Tasks of the images to prepare.
        restored_ids: Images that lost their original, but whose prepared files are up to date.
        boxes: The boxes of all selected images, not placed yet.
        fetched_ids: Images that are recorded as fetched, so that their originals have to exist.
        postponed_ids: Images that would change, but that a training run in progress uses.
    """

    tasks: Sequence[Task]
    restored_ids: Sequence[str]
    boxes: SelectedBoxes
    fetched_ids: frozenset[str]
    postponed_ids: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.tasks or self.restored_ids)


def find_images(
    project: Project, selection: Selection, ledger: Ledger, *, postpones: bool = False
) -> PendingImages:
    """Find the images whose prepared files are missing or out of date.

    Args:
        project: The project.
        selection: Its selection.
        ledger: Its ledger.
        postpones: Whether images with other boxes that a training run in progress uses are left as
            they are, instead of being an error.

    Raises:
        LockedError: A training run in progress uses images that would change.
    """
    complete_ids = complete_ids_in(project, ledger)
    prepared_ids = set(ids_with_files(ledger))
    fetched_ids = frozenset(ledger.ids(FETCHED))
    postponed_ids = set(ledger.ids(PENDING, stage=STAGE))
    ids_with_original = prepared_ids | fetched_ids | retryable_ids(project, ledger)
    excluded_ids = set(ledger.ids(EXCLUDED, stage=STAGE))
    previous_fingerprints = ledger.column("prepared_from")
    boxes = SelectedBoxes(selection, project.config, review_boxes(project, selection))
    pending_tasks, restored_ids = [], []
    for task in boxes.iter_tasks(ledger.column("md5")):
        image_id = task.image_id
        is_unchanged = previous_fingerprints.get(image_id) == task.fingerprint
        has_files = image_id in prepared_ids or image_id in postponed_ids
        if has_files and is_unchanged and image_id in complete_ids:
            if image_id in postponed_ids:
                restored_ids.append(image_id)
        elif image_id in ids_with_original or (image_id in excluded_ids and not is_unchanged):
            pending_tasks.append(task)
    in_use = _changed_in_use(project, pending_tasks, previous_fingerprints)
    if in_use and not (postpones and _options_change(project) is None):
        raise _in_use_error(project, in_use)
    tasks = [task for task in pending_tasks if task.image_id not in in_use]
    return PendingImages(tasks, restored_ids, boxes, fetched_ids, frozenset(in_use))


def review_boxes(project: Project, selection: Selection) -> ReviewedBoxes:
    """Return the selected boxes after the decisions in ``data/review.csv``.

    They are in the order of ``data/dataset/boxes.csv``.

    Raises:
        InputFormError: That file is damaged.
    """
    rows = decisions.read(project.review_path)
    ids = selection.images["ImageID"].tolist()
    return reviewed.apply(selection.boxes, ids, selection.class_names, rows)


def ids_with_files(ledger: Ledger) -> list[str]:
    """Return the ids of the images that are recorded as prepared."""
    return [*ledger.ids(*PREPARED_STATES), *ledger.ids(EXCLUDED, stage="split")]


def complete_ids_in(project: Project, ledger: Ledger) -> set[str]:
    """Return the ids of the images that have a prepared image and a label.

    An image of another size than recorded was cut off or replaced, and does not count.
    """
    folder = project.objects_folder
    if not folder.is_dir():
        return set()
    recorded_bytes = ledger.column("prepared_bytes")
    images, labels = set(), set()
    with os.scandir(folder) as entries:
        for entry in entries:
            image_id, suffix = entry.name[:-4], entry.name[-4:]
            if suffix == ".txt" and entry.is_file():
                labels.add(image_id)
            elif suffix == ".jpg" and entry.is_file():
                size = recorded_bytes.get(image_id)
                if size is None or entry.stat().st_size == size:
                    images.add(image_id)
    return images & labels


def retryable_ids(project: Project, ledger: Ledger) -> set[str]:
    """Return the ids of the images that this stage left pending and whose originals exist now."""
    postponed_ids = set(ledger.ids(PENDING, stage=STAGE))
    return postponed_ids & image_ids_in(project.images_folder) if postponed_ids else set()


def _changed_in_use(
    project: Project, pending_tasks: Sequence[Task], previous_fingerprints: Mapping[str, object]
) -> dict[str, None]:
    """Return the images in use by a run in progress that would change; new ones are harmless."""
    used_ids = ids_in_use(project.runs_folder)
    return {
        task.image_id: None
        for task in pending_tasks
        if task.image_id in used_ids
        and previous_fingerprints.get(task.image_id) not in {None, task.fingerprint}
    }


def _options_change(project: Project) -> str | None:
    """Return how the options differ from those of the existing images; ``None`` if equal."""
    recipe_path = project.dataset_folder / RECIPE_FILE
    return staleness.stale_reason(recipe_path, {"options": image_options(project.config)})


def _in_use_error(project: Project, changed_ids: Mapping[str, None]) -> LockedError:
    running = ", ".join(run.name for run in running_runs(project.runs_folder))
    changed = f"the boxes or the file of {next(iter(changed_ids))} changed"
    return LockedError(
        f"{pluralize(len(changed_ids), 'image')} used by a training run in progress would "
        "have to be prepared again with different options or boxes",
        where=str(project.runs_folder),
        expected="no run in progress that uses them",
        found=f"{running}; {_options_change(project) or changed}",
        remedy="Wait until it ends, or use the options with which the images were prepared; new "
        "images can be added meanwhile",
    )
