"""Cross-fitting: two detectors, each trained on a half of train, judge each other's half."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.results import pluralize
from oiyolo.darknet import lists
from oiyolo.networks import builders
from oiyolo.project.ledger import SPLITS
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages import train as train_stage
from oiyolo.stages.split.halves import HALVES
from oiyolo.training.run import FINISHED, runs_in
from oiyolo.training.run_detector import weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.core.results import Plan
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate import Scored
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_MAX_NEW: Final = 0.1
"""Share of train that neither detector was trained on, above which they are trained again."""


def train_halves(project: Project, *, judge: Run | None) -> list[Run]:
    """Return two finished runs, each trained on the half of train that the other has not seen.

    Earlier ones are used again while they have the network and the number of iterations of
    ``[train]``, no image was seen by both, and at most a tenth of train is new. Unfinished ones
    are resumed.

    Args:
        project: The project.
        judge: The run that judges valid and test; ``None`` if the first of these runs does.

    Raises:
        UsageError: Train cannot be divided, or an option of the training is wrong.
        DarknetError: A training failed.
        LockedError: Another process trains a half.
    """
    if runs := _usable_runs(project, judge):
        _log.info("review: %s have not seen the images that they judge", _names(runs))
        return runs
    runs = []
    for half in HALVES:
        _log.info("review: training on half %d of train", half)
        runs.append(train_stage.train(replace(project, half=half)).run)
    return runs


def planned_actions(project: Project, *, judge: Run | None) -> list[str]:
    """Return what ``train_halves`` and ``scored_train`` would do, in words."""
    if runs := _usable_runs(project, judge):
        scored = [
            evaluate_stage.scored_unseen_action(project, run, "train", ids)
            for run, ids in _judged_ids(project, runs)
        ]
        return [f"use {_names(runs)} again", *scored]
    plans = {h: train_stage.train(replace(project, half=h), dry_run=True) for h in HALVES}
    count = pluralize(len(split_stage.image_paths(project, "train")), "image")
    return [
        *(_training_action(half, plan) for half, plan in plans.items()),
        f"run both on the {count} of train, each on those it has not seen",
    ]


def _training_action(half: int, plan: Plan) -> str:
    if not plan.actions:
        return f"use {plan.facts['run']} again"
    start, _, summary = plan.actions[0].partition(": ")
    # The number in the name of a new run is not certain yet: the other half may take it.
    return f"train on half {half} of train: {summary if start.startswith('start ') else start}"


def scored_train(project: Project, runs: Sequence[Run]) -> list[Scored]:
    """Return what each of two runs finds in the images of train that it has not seen.

    Args:
        project: The project.
        runs: The runs of ``train_halves``.

    Raises:
        UsageError: The dataset changed since, so that both runs have seen some images.
        InputFormError: Weights, images or labels are missing or damaged.
    """
    return [
        evaluate_stage.scored_unseen(project, run, "train", ids)
        for run, ids in _judged_ids(project, runs)
    ]


def _judged_ids(project: Project, runs: Sequence[Run]) -> list[tuple[Run, set[str]]]:
    """Return which images of train each of two runs judges, if any."""
    first, second = runs
    ids = set(lists.ids_of(split_stage.image_paths(project, "train")))
    unseen = ids - evaluate_stage.seen_ids(first, "train")
    return [(run, part) for run, part in ((first, unseen), (second, ids - unseen)) if part]


def _usable_runs(project: Project, judge: Run | None) -> list[Run] | None:
    """Return two earlier runs that can judge train; ``None`` if some must be trained."""
    runs = []
    for half in HALVES:
        finished = [r for r in runs_in(project.runs_folder, half=half) if _is_usable(project, r)]
        if not finished:
            return None
        runs.append(finished[-1])
    first, second = (evaluate_stage.seen_ids(run, "train") for run in runs)
    ids = set(lists.ids_of(split_stage.image_paths(project, "train")))
    is_new = len(ids - first - second) > _MAX_NEW * len(ids)
    if is_new or ids & first & second:
        return None
    if judge is None:
        for name in SPLITS[1:]:
            own = lists.ids_of(split_stage.image_paths(project, name))
            if evaluate_stage.seen_ids(runs[0], name).intersection(own):
                return None
    return runs


def _is_usable(project: Project, run: Run) -> bool:
    """Return whether a half is finished, and is as ``[train]`` and the dataset would make it."""
    record, weights = run.record, weights_of(run)
    made_from = record.get("made_from") or {}
    return (
        record.get("state") == FINISHED
        and record.get("network") == Path(project.config.train.network).stem
        and record.get("classes") == list(split_stage.load_lists(project).class_names)
        and made_from.get("images") == prepare_stage.prepared_options(project)
        and _is_long_enough(project, run, record.get("max_batches", 0))
        and weights is not None
        and weights.path == run.final_weights_path  # intact, or else it is resumed
    )


def _is_long_enough(project: Project, run: Run, iterations: int) -> bool:
    """Return whether a half has the number of iterations that ``[train]`` gives it.

    With ``auto``, that number depends on the number of images, and a few less are no reason to
    train again.
    """
    wanted = project.config.train.max_batches
    if isinstance(wanted, int):
        return iterations == wanted
    schedule = builders.default_schedule(
        builders.network_path(project.config.train.network, project.folder),
        class_count=len(split_stage.load_lists(project).class_names),
        image_count=len(set(run.image_ids("train"))),
    )
    return iterations >= (1 - _MAX_NEW) * schedule.max_batches


def _names(runs: Sequence[Run]) -> str:
    return " and ".join(run.name for run in runs)
