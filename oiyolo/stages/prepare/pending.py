"""Find the images that have to be prepared, and check that it is allowed, before any change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import staleness
from oiyolo.core.errors import LockedError
from oiyolo.core.results import pluralize
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, PREPARED_STATES
from oiyolo.stages.prepare.originals import STAGE, image_ids_in
from oiyolo.stages.prepare.tasks import SelectedBoxes, image_options
from oiyolo.training.run import ids_in_use, runs_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.stages.prepare.tasks import Task
    from oiyolo.stages.select import Selection

RECIPE_FILE: Final = ".prepared-from.json"
"""File in ``data/dataset`` that records what the prepared images were made from."""


@dataclass(frozen=True)
class PendingImages:
    """Images that are not up to date.

    Attributes:
        tasks: Tasks of the images to prepare.
        restored_ids: Images that lost their original, but whose prepared files are up to date.
        boxes: The boxes of all selected images, not placed yet.
    """

    tasks: Sequence[Task]
    restored_ids: Sequence[str]
    boxes: SelectedBoxes

    def __bool__(self) -> bool:
        return bool(self.tasks or self.restored_ids)


def find_images(project: Project, selection: Selection, ledger: Ledger) -> PendingImages:
    """Find the images whose prepared files are missing or out of date.

    Raises:
        LockedError: A training run in progress uses images that would change.
    """
    complete_ids = complete_ids_in(project.objects_folder)
    prepared_ids = {*ledger.ids(*PREPARED_STATES), *ledger.ids(EXCLUDED, stage="split")}
    ids_without_original = set(ledger.ids(PENDING, stage=STAGE))
    ids_with_original = prepared_ids.union(ledger.ids(FETCHED))
    excluded_ids = set(ledger.ids(EXCLUDED, stage=STAGE))
    previous_fingerprints = ledger.column("prepared_from")
    boxes = SelectedBoxes(selection, project.config)
    pending_tasks, restored_ids = [], []
    for task in boxes.iter_tasks(ledger.column("md5")):
        image_id = task.image_id
        is_unchanged = previous_fingerprints.get(image_id) == task.fingerprint
        has_files = image_id in prepared_ids or image_id in ids_without_original
        if has_files and is_unchanged and image_id in complete_ids:
            if image_id in ids_without_original:
                restored_ids.append(image_id)
        elif image_id in ids_with_original or (image_id in excluded_ids and not is_unchanged):
            pending_tasks.append(task)
    _check_runs_in_progress(project, pending_tasks, previous_fingerprints)
    return PendingImages(pending_tasks, restored_ids, boxes)


def complete_ids_in(folder: Path) -> set[str]:
    """Return the ids of the images that have both a prepared image and a label in a folder."""
    return image_ids_in(folder) & image_ids_in(folder, ".txt")


def _check_runs_in_progress(
    project: Project, pending_tasks: Sequence[Task], previous_fingerprints: Mapping[str, object]
) -> None:
    """Raise if a run in progress uses images that would change; new images are harmless."""
    used_ids = ids_in_use(project.runs_folder)
    changed_ids = [
        task.image_id
        for task in pending_tasks
        if task.image_id in used_ids
        and previous_fingerprints.get(task.image_id) not in {None, task.fingerprint}
    ]
    if not changed_ids:
        return
    running = ", ".join(run.name for run in runs_in(project.runs_folder) if run.is_training)
    recipe_path = project.dataset_folder / RECIPE_FILE
    stale_reason = staleness.stale_reason(recipe_path, {"options": image_options(project.config)})
    raise LockedError(
        f"{pluralize(len(changed_ids), 'image')} used by a training run in progress would "
        "have to be prepared again with different options or boxes",
        where=str(project.runs_folder),
        expected="no run in progress that uses them",
        found=f"{running}; "
        + (stale_reason or f"the boxes or the file of {changed_ids[0]} changed"),
        remedy="Wait until it ends, or use the options with which the images were prepared; new "
        "images can be added meanwhile",
    )
