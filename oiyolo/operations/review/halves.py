"""Cross-fitting: two detectors, each trained on a half of train, judge each other's half."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.results import pluralize
from oiyolo.darknet import lists
from oiyolo.project.value_types import AUTO
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


def train_halves(project: Project) -> list[Run]:
    """Return two finished runs, each trained on the half of train that the other has not seen.

    Earlier ones are used again while they have the network and the number of iterations of
    ``[train]``, no image was learned by both, and at most a tenth of train is new. Unfinished ones
    are resumed.

    Raises:
        UsageError: Train cannot be divided, or an option of the training is wrong.
        DarknetError: A training failed.
        LockedError: Another process trains a half.
    """
    if runs := _usable_runs(project):
        _log.info("review: %s have not seen the images that they judge", _names(runs))
        return runs
    runs = []
    for half in HALVES:
        _log.info("review: training on half %d of train", half)
        runs.append(train_stage.train(replace(project, half=half)).run)
    return runs


def planned_actions(project: Project) -> list[str]:
    """Return what ``train_halves`` and ``scored_train`` would do, in words."""
    count = len(split_stage.image_paths(project, "train"))
    judge = f"run both on the {pluralize(count, 'image')} of train, each on those it has not seen"
    if runs := _usable_runs(project):
        return [f"use {_names(runs)} again", judge]
    plans = {h: train_stage.train(replace(project, half=h), dry_run=True) for h in HALVES}
    return [*(_training_action(half, plan) for half, plan in plans.items()), judge]


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
    first, second = runs
    ids = lists.ids_of(split_stage.image_paths(project, "train"))
    seen_by_first = set(first.image_ids("train"))
    parts = [
        (first, [i for i in ids if i not in seen_by_first]),
        (second, [i for i in ids if i in seen_by_first]),
    ]
    return [
        evaluate_stage.scored_unseen(project, run, "train", set(part))
        for run, part in parts
        if part
    ]


def _usable_runs(project: Project) -> list[Run] | None:
    """Return two earlier runs that can judge train; ``None`` if some must be trained."""
    runs = []
    for half in HALVES:
        finished = [
            run for run in runs_in(project.runs_folder, half=half) if _is_usable(project, run)
        ]
        if not finished:
            return None
        runs.append(finished[-1])
    first, second = (set(run.image_ids("train")) for run in runs)
    ids = set(lists.ids_of(split_stage.image_paths(project, "train")))
    is_new = len(ids - first - second) > _MAX_NEW * len(ids)
    return None if is_new or ids & first & second else runs


def _is_usable(project: Project, run: Run) -> bool:
    record, options = run.record, project.config.train
    made_from = record.get("made_from") or {}
    iterations = record.get("max_batches")
    return (
        record.get("state") == FINISHED
        and record.get("network") == Path(options.network).stem
        and options.max_batches in {iterations, AUTO}
        and record.get("classes") == list(split_stage.load_lists(project).class_names)
        and made_from.get("images") == prepare_stage.prepared_options(project)
        and weights_of(run) is not None
    )


def _names(runs: Sequence[Run]) -> str:
    return " and ".join(run.name for run in runs)
