"""Which images prepare has to make, and whether it may: decided before anything is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import staleness
from oiyolo.core.errors import LockedError
from oiyolo.core.results import count
from oiyolo.project.ledger import EXCLUDED, FETCHED, HAS_PREPARED, PENDING
from oiyolo.stages.prepare.originals import STAGE
from oiyolo.stages.prepare.tasks import options_of, tasks
from oiyolo.training.run import ids_in_use, runs_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.stages.prepare.tasks import Task
    from oiyolo.stages.select import Selection

STAMP: Final = ".prepared-from.json"
"""In ``data/dataset``: what all of it was made from."""


@dataclass(frozen=True)
class Todo:
    """What is not as it would be now.

    Attributes:
        tasks: Images to make.
        back: Images that lack only their original, and whose prepared files are right (again).
    """

    tasks: Sequence[Task]
    back: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.tasks or self.back)


def find(project: Project, selection: Selection, ledger: Ledger) -> Todo:
    """Compare each image with what it was made from.

    Raises:
        LockedError: A live training reads images that would become others.
    """
    complete = complete_in(project.objects_folder)
    fetched = set(ledger.ids(FETCHED))
    made = {*ledger.ids(*HAS_PREPARED), *ledger.ids(EXCLUDED, stage="split")}
    refused = set(ledger.ids(EXCLUDED, stage=STAGE))
    lacking = set(ledger.ids(PENDING, stage=STAGE))
    before = ledger.facts("prepared_from")
    todo, back = [], []
    for task in tasks(selection, options_of(project.config), ledger.facts("md5")):
        image_id = task.image_id
        same = before.get(image_id) == task.made_from
        whole = same and image_id in complete
        if image_id in lacking and whole:
            back.append(image_id)
        elif (
            image_id in fetched
            or (image_id in made and not whole)
            or (image_id in refused and not same)
        ):
            todo.append(task)
    _refuse_under_live_runs(project, todo, before)
    return Todo(todo, back)


def complete_in(folder: Path) -> set[str]:
    """Give the images that have both their prepared files."""
    here = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    ids = (name.removesuffix(".jpg") for name in here if name.endswith(".jpg"))
    return {image_id for image_id in ids if f"{image_id}.txt" in here}


def _refuse_under_live_runs(
    project: Project, todo: Sequence[Task], before: Mapping[str, object]
) -> None:
    """Leave the files alone that a training reads; new images beside them do it no harm."""
    in_use = ids_in_use(project.runs_folder)
    changed = [
        task.image_id
        for task in todo
        if task.image_id in in_use and before.get(task.image_id) not in {None, task.made_from}
    ]
    if not changed:
        return
    live = ", ".join(run.name for run in runs_in(project.runs_folder) if run.lives)
    saved = project.dataset_folder / STAMP
    reason = staleness.stale_reason(saved, {"options": options_of(project.config)})
    raise LockedError(
        f"a training reads {count(len(changed), 'image')} that would be made anew, as others",
        where=str(project.runs_folder),
        expected="no live run that reads them",
        found=live + (f", and {reason}" if reason else f", and new boxes or file of {changed[0]}"),
        remedy="Wait until it ends, or give the options that the images were prepared with; new "
        "images can be added meanwhile",
    )
