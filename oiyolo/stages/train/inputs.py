"""The inputs of a training run: its plan, its recipe and the files that darknet reads."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, staleness
from oiyolo.core.errors import OiyoloError, UsageError
from oiyolo.darknet import lists
from oiyolo.darknet.gpus import gpus
from oiyolo.darknet.program import data_file
from oiyolo.networks import builders
from oiyolo.networks.cfg import read
from oiyolo.networks.weights import check_weights
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.train.call_options import option_words
from oiyolo.stages.train.engine import torch_program
from oiyolo.training import plan as training_plan
from oiyolo.training.balance import balance_images
from oiyolo.training.initial_weights import (
    find_file,
    plan_initial_weights,
    prepare_initial_weights,
)
from oiyolo.training.run import FINISHED, fingerprint_of_images, newest_with, runs_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.darknet.program import Darknet
    from oiyolo.project.project import Project
    from oiyolo.stages.split import SplitLists
    from oiyolo.training.balance import Balance
    from oiyolo.training.initial_weights import InitialWeights
    from oiyolo.training.plan import TrainingPlan
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_MAX_CHANGES: Final = 3
_LISTS: Final = ("train", "valid")
_OF_OPTIONS: Final = frozenset({"network", "weights", "balance"})
"""Parts of a run's recipe that options decide; the others are the dataset."""


@dataclass(frozen=True)
class TrainingTask:
    """Everything that a training run needs.

    Attributes:
        project: The project.
        split: The split dataset.
        darknet: The program that trains.
        revision: Its revision; empty if unknown.
        plan: The network, schedule and weights.
        balance: How often each training image is listed; ``None`` for once.
        recipe: What identifies the run: on any machine, a run with an equal recipe is resumed.
    """

    project: Project
    split: SplitLists
    darknet: Darknet
    revision: str
    plan: TrainingPlan
    balance: Balance | None
    recipe: dict[str, object]

    @property
    def has_valid_images(self) -> bool:
        """Whether there are images in the valid split."""
        return bool(self.split.ids("valid"))

    @property
    def gpus(self) -> tuple[str, ...]:
        """The numbers of the GPUs to train on; empty for the CPU and for darknet's default."""
        option = self.project.config.train.gpus if self.darknet.gpu else None
        return tuple(map(str, training_plan.gpu_indices(option))) if option else ()


def make_task(project: Project, split: SplitLists, darknet: Darknet, revision: str) -> TrainingTask:
    """Return everything that a training run needs (``make_training_plan``, ``run_recipe``)."""
    plan = make_training_plan(project, split, darknet)
    balance = make_balance(project, split)
    recipe = run_recipe(project, split, plan)
    return TrainingTask(project, split, darknet, revision, plan, balance, recipe)


def make_balance(project: Project, split: SplitLists) -> Balance | None:
    """Return how often each training image is listed; ``None`` if ``[train] balance`` is 0."""
    threshold = project.config.train.balance
    if not threshold:
        return None
    ids = list(dict.fromkeys(split.ids("train")))
    return balance_images(ids, prepare_stage.used_classes(project, set(ids)), threshold)


def following(task: TrainingTask, run: Run | None) -> TrainingTask:
    """Return the task with the fork of the run that is resumed, if its engine follows any fork."""
    if task.darknet.engine == "darknet" or run is None or not run.record:
        return task
    fork = run.started_record["darknet"]["fork"]
    if fork == task.darknet.fork.name:
        return task
    program = torch_program(task.project, fork)
    return replace(make_task(task.project, task.split, program, task.revision), recipe=task.recipe)


def make_training_plan(project: Project, split: SplitLists, darknet: Darknet) -> TrainingPlan:
    """Return the plan for the project's dataset and this machine (``training.plan.make_plan``).

    Raises:
        UsageError: The train split is empty, or an option is wrong.
    """
    train_ids = set(split.ids("train"))
    if not train_ids:
        raise UsageError(
            "there are no images to train on",
            where=str(split.list_path("train")),
            expected="at least one",
        )
    width, height = prepare_stage.prepared_options(project)["size"]
    return training_plan.make_plan(
        project.config.train,
        base=project.folder,
        darknet=darknet,
        class_count=len(split.class_names),
        image_count=len(train_ids),
        images_size_wh=(width, height),
        box_wh=prepare_stage.used_sizes(project, train_ids),
        gpus=gpus(),
    )


def run_recipe(project: Project, split: SplitLists, plan: TrainingPlan) -> dict[str, object]:
    """Return what identifies a training run; equal on all machines for the same run."""
    weights: object = plan.weights
    if (path := find_file(plan.weights, project.folder)) is not None:
        check_weights(path)
        weights = files.sha256_of(path)
    recipe = {**data_recipe(project, split), "network": plan.identity, "weights": weights}
    balance = project.config.train.balance
    return {**recipe, "balance": balance} if balance else recipe  # older runs have none


def data_recipe(project: Project, split: SplitLists) -> dict[str, object]:
    """Return the part of a run's recipe that identifies the data that it is trained on."""
    image_ids = {name: split.ids(name) for name in _LISTS}
    return {
        "dataset": staleness.fingerprint(
            [image_ids, files.sha256_of(split.folder / "boxes.csv"), list(split.class_names)]
        ),
        "images": prepare_stage.prepared_options(project),
    }


def find_same_run(
    project: Project, plan: TrainingPlan, recipe: dict[str, object], *, newest: bool = False
) -> Run | None:
    """Return the newest run with the same recipe, or log why the newest run differs.

    Of several, a run that is in training or has weights comes before one that was aborted earlier,
    unless the ``newest`` is wanted.
    """
    runs = runs_in(project.runs_folder, half=project.half)
    same_runs = [run for run in runs if _is_same(run, plan, recipe)]
    if same_runs:
        preferences = [] if newest else [lambda run: run.is_training or run.has_weights]
        return newest_with(same_runs, preferences)
    if runs:
        _log_changes(project, runs[-1], plan, recipe)
    return None


def _log_changes(project: Project, run: Run, plan: TrainingPlan, recipe: dict[str, object]) -> None:
    """Log why a new run is started; warn if other options of the call would resume the latest."""
    before = run.record.get("made_from") or {}
    names = [name for name in {**recipe, **before} if before.get(name) != recipe.get(name)]
    changed = " and ".join(_describe_change(name, run, plan) for name in names)
    text = f"train: starting a new run: the {changed} changed since {run.name}"
    options = run.record.get("options")  # older versions did not record them
    has_others = options is not None and options != option_words(project)
    is_open = not (run.state == FINISHED or run.is_training or run.half)
    if has_others and is_open and _OF_OPTIONS.issuperset(names):
        _log.warning("%s; to resume %s instead, run `%s`", text, run.name, run.train_command)
    else:
        _log.info(text)


def _is_same(run: Run, plan: TrainingPlan, recipe: dict[str, object]) -> bool:
    before = run.record.get("made_from")
    if before == recipe:
        return True
    if not isinstance(before, dict):
        return False
    # Older versions identified a network by the text of its file, and weights by their path too.
    # Their runs can still be resumed.
    weights = before.get("weights")
    if isinstance(weights, dict):
        weights = weights.get("sha256")
    if {**before, "weights": weights, "network": plan.identity} != recipe:
        return False
    try:
        return training_plan.identity_of(read(run.cfg_path)) == plan.identity
    except (OiyoloError, OSError):
        return False


def _describe_change(name: str, run: Run, plan: TrainingPlan) -> str:
    """Return the name of a changed input; for the network, with its changed lines if known."""
    if name != "network":
        return name
    try:
        lines = builders.diff(read(run.cfg_path), plan.cfg).splitlines()
    except (OiyoloError, OSError):
        return name
    added = [line[1:].strip() for line in lines if line[:1] == "+" and line[:3] != "+++"]
    changes = [line for line in added if line and line[0] not in "#;"]  # not comments
    text = ", ".join(changes[:_MAX_CHANGES])
    return f"{name} ({text}{', ...' if len(changes) > _MAX_CHANGES else ''})" if text else name


def write_inputs(task: TrainingTask, run: Run) -> None:
    """Write the run's own copies of everything that darknet reads, except the images.

    They are written again at each resume, because the lists contain absolute paths, and the project
    may have been moved or copied since.
    """
    split = task.split
    run.weights_folder.mkdir(parents=True, exist_ok=True)
    for name in _LISTS:
        paths = split_stage.image_paths(task.project, name)
        if name == "train" and split.train_ids is not None:
            by_id = zip(lists.ids_of(paths), paths, strict=True)
            paths = [path for image_id, path in by_id if image_id in split.train_ids]
        if name == "train" and task.balance is not None:
            # At the end, so that the lines of the images stay the same.
            paths = [*paths, *_repeated(paths, task.balance)]
        paths = lists.pad(paths)
        files.write_text(run.folder / f"{name}.txt", "".join(f"{path}\n" for path in paths))
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
    files.write_bytes(run.cfg_path, task.plan.cfg.encode())
    changes = task.plan.diff.encode("utf-8", "surrogateescape")
    files.write_bytes(run.folder / "network.diff", changes + b"\n" if changes else b"")


def _repeated(paths: Sequence[str], balance: Balance) -> list[str]:
    by_id = dict(zip(lists.ids_of(paths), paths, strict=True))
    return [by_id[image_id] for image_id in balance.repeated(by_id)]


def initial_weights_of(project: Project, plan: TrainingPlan) -> InitialWeights:
    """Return the plan's initial weights, downloaded if necessary (``prepare_initial_weights``)."""
    return prepare_initial_weights(
        plan.weights, plan.cfg, base=project.folder, cache_folder=project.cache_folder
    )


def planned_start(project: Project, plan: TrainingPlan) -> tuple[Path | None, str]:
    """Return the initial weights of a new run and what would be done for them, in words.

    Nothing is downloaded or written.
    """
    start, action = plan_initial_weights(
        plan.weights, plan.cfg, base=project.folder, cache_folder=project.cache_folder
    )
    if start.warning:
        _log.warning("train: %s", start.warning)
    return start.path, action


def _data_sources(project: Project) -> dict[str, Any]:
    """Return whether images are Open Images', and the stated licence of each import's images."""
    selection = select_stage.load(project)
    records = project.imports()
    return {
        "open_images": selection.has_open_images,
        "imports": {n: records[n].licence for n in selection.imports if n in records},
    }


def record_fields(task: TrainingTask) -> dict[str, Any]:
    """Return the fields of ``run.json`` that are known before training starts."""
    cfg = task.plan.cfg
    prepared = prepare_stage.prepared_options(task.project)
    return {
        "network": task.plan.network,
        **({"half": task.project.half} if task.project.half else {}),
        "max_batches": task.plan.schedule.max_batches,
        "weights": task.plan.weights,
        "fit": prepared["fit"],
        "images_size_wh": prepared["size"],
        "size_wh": list(cfg.size_wh),
        "classes": list(task.split.class_names),
        "cfg_sha256": hashlib.sha256(cfg.encode()).hexdigest(),
        "balance": None if task.balance is None else task.balance.as_dict(),
        "dataset_fingerprint": task.recipe["dataset"],
        "data_sources": _data_sources(task.project),
        "list_fingerprints": {name: fingerprint_of_images(task.split.ids(name)) for name in _LISTS},
    }
