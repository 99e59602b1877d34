"""What a training is made of: its course, its fingerprints, and the files that darknet reads."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, staleness
from oiyolo.core.errors import OiyoloError, UsageError
from oiyolo.darknet import lists
from oiyolo.darknet.gpus import gpus
from oiyolo.darknet.program import data_file
from oiyolo.networks import builders
from oiyolo.networks.cfg import read
from oiyolo.networks.weights import PRETRAINED, check_weights
from oiyolo.stages import prepare as prepare_stage
from oiyolo.training import plan as course_of
from oiyolo.training.initial_weights import start_weights
from oiyolo.training.plan import NO_WEIGHTS
from oiyolo.training.run import ids_in, runs_in

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet
    from oiyolo.project.project import Project
    from oiyolo.stages.split import Listed
    from oiyolo.training.initial_weights import Start
    from oiyolo.training.plan import Course
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_SHOWN_CHANGES: Final = 3
_LISTS: Final = ("train", "valid")


@dataclass(frozen=True)
class Task:
    """All that a training needs.

    Attributes:
        project: The project.
        split: Its dataset.
        darknet: The program.
        course: What the training will be.
        made_from: What identifies it: the same again is the same run, on any machine.
    """

    project: Project
    split: Listed
    darknet: Darknet
    course: Course
    made_from: dict[str, object]

    @property
    def gpus(self) -> tuple[str, ...]:
        """The numbers of the GPUs to train on; empty on a CPU, and for darknet's own choice."""
        given = self.project.config.train.gpus if self.darknet.gpu else None
        numbers = (number.strip() for number in (given or "").split(","))
        return tuple(dict.fromkeys(number for number in numbers if number))


def course(project: Project, split: Listed, darknet: Darknet) -> Course:
    """Plan the training; see ``training.course.plan``.

    Raises:
        UsageError: There is nothing to train on.
    """
    trained_on = set(ids_in(list_text(split, "train")))
    if not trained_on:
        raise UsageError(
            "there is no image to train on", where=str(split.list_path("train")), expected="one"
        )
    width, height = prepare_stage.prepared_as(project)["size"]
    return course_of.plan(
        project.config.train,
        base=project.folder,
        darknet=darknet,
        class_count=len(split.class_names),
        image_count=len(trained_on),
        images_size_wh=(width, height),
        box_wh=prepare_stage.used_sizes(project, trained_on),
        gpus=gpus(),
    )


def made_from(project: Project, split: Listed, plan: Course) -> dict[str, object]:
    """Give what identifies a training: the same again is the same run, on whatever machine."""
    image_ids = {name: ids_in(list_text(split, name)) for name in _LISTS}
    weights: object = plan.weights
    if plan.weights not in {NO_WEIGHTS, *PRETRAINED}:
        path = project.folder / Path(plan.weights).expanduser()
        check_weights(path)
        weights = files.sha256_of(path)
    return {
        "dataset": staleness.fingerprint(
            [image_ids, files.sha256_of(split.folder / "boxes.csv"), list(split.class_names)]
        ),
        "images": prepare_stage.prepared_as(project),
        "network": plan.identity,
        "weights": weights,
    }


def same_run(project: Project, plan: Course, identity: dict[str, object]) -> Run | None:
    """Find the latest run of the same dataset and network; tell why the latest is another."""
    runs = runs_in(project.runs_folder)
    for run in reversed(runs):
        if _is_same(run, plan, identity):
            return run
    if runs:
        before = runs[-1].record.get("made_from") or {}
        changed = [
            _told_change(name, runs[-1], plan)
            for name, value in identity.items()
            if before.get(name) != value
        ]
        _log.info(
            "train: a new run, because %s changed since %s", " and ".join(changed), runs[-1].name
        )
    return None


def _is_same(run: Run, plan: Course, identity: dict[str, object]) -> bool:
    before = run.record.get("made_from")
    if before == identity:
        return True
    if not isinstance(before, dict):
        return False
    # Earlier versions told networks apart by the text of their files, and weights also by their
    # path; what they began is gone on with all the same.
    weights = before.get("weights")
    if isinstance(weights, dict):
        weights = weights.get("sha256")
    if {**before, "weights": weights, "network": plan.identity} != identity:
        return False
    try:
        return course_of.identity_of(read(run.cfg_path)) == plan.identity
    except (OiyoloError, OSError):
        return False


def _told_change(name: str, run: Run, plan: Course) -> str:
    """Tell what changed in the network's file, as far as it is still there."""
    if name != "network":
        return name
    try:
        lines = builders.diff(read(run.cfg_path), plan.cfg).splitlines()
    except (OiyoloError, OSError):
        return name
    changes = [line[1:].strip() for line in lines if line[:1] == "+" and line[:3] != "+++"]
    shown = ", ".join(changes[:_SHOWN_CHANGES])
    return f"{name} ({shown}{', ...' if len(changes) > _SHOWN_CHANGES else ''})" if shown else name


def list_text(split: Listed, name: str) -> str:
    """Give one of the dataset's lists."""
    return split.list_path(name).read_text(encoding="utf-8")


def write_inputs(task: Task, run: Run) -> None:
    """Give the run its own copies of all that darknet reads, but for the images.

    Lists hold the paths of this machine: a run may be gone on with on another.
    """
    split = task.split
    run.weights_folder.mkdir(parents=True, exist_ok=True)
    for name in _LISTS:
        lines = list_text(split, name).splitlines()
        files.write_text(run.folder / f"{name}.txt", "".join(f"{p}\n" for p in lists.padded(lines)))
    files.write_text(run.folder / "obj.names", "".join(f"{n}\n" for n in split.class_names))
    files.write_text(
        run.folder / "obj.data",
        data_file(
            class_count=len(split.class_names),
            train="train.txt",
            valid="valid.txt",
            names="obj.names",
            backup=run.weights_folder.name,
            results="results",
        ),
    )
    files.write_bytes(run.cfg_path, task.course.cfg.encode())
    changes = task.course.diff.encode("utf-8", "surrogateescape")
    files.write_bytes(run.folder / "network.diff", changes + b"\n" if changes else b"")


def start_of(project: Project, plan: Course) -> Start:
    """Give what to start from, fetched where it is not here yet; see ``training.start``."""
    return start_weights(
        plan.weights, plan.cfg, base=project.folder, cache_folder=project.cache_folder
    )


def facts(task: Task) -> dict[str, Any]:
    """Give what ``run.json`` says of a training before it begins."""
    cfg = task.course.cfg
    prepared = prepare_stage.prepared_as(task.project)
    return {
        "network": task.course.network,
        "max_batches": task.course.schedule.max_batches,
        "weights": task.course.weights,
        "fit": prepared["fit"],
        "images_size_wh": prepared["size"],
        "size_wh": list(cfg.size_wh),
        "classes": list(task.split.class_names),
        "cfg_sha256": hashlib.sha256(cfg.encode()).hexdigest(),
        "dataset_fingerprint": task.made_from["dataset"],
    }
