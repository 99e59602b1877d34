"""evaluate: score the detector on images that were not used in training.

Writes ``runs/<run>/evaluation.json``, ``runs/<run>/detections.json`` and ``runs/<run>/panels/``. It
also compares two runs, scores all checkpoints of a run, and scores a detector that was not trained
for the task.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.project.keywords import DarknetKeywords, takes_keys
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import baseline as baseline_scores
from oiyolo.stages.evaluate import checkpoints, compare, inputs, run_scores
from oiyolo.stages.evaluate.inputs import seen_ids as seen_ids  # for other commands
from oiyolo.stages.evaluate.inputs import true_rows as true_rows  # likewise
from oiyolo.stages.evaluate.kept_detections import Scored as Scored  # for other commands
from oiyolo.stages.evaluate.kept_detections import choose_weights
from oiyolo.stages.evaluate.run_scores import scored_splits as scored_splits  # likewise
from oiyolo.stages.evaluate.run_scores import scored_splits_actions as scored_splits_actions
from oiyolo.stages.evaluate.run_scores import scored_unseen as scored_unseen
from oiyolo.stages.evaluate.run_scores import scored_unseen_action as scored_unseen_action
from oiyolo.training.run import find_run, runs_in
from oiyolo.training.run_detector import has_valid_weights
from oiyolo.training.tracking import send_news

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.stages.evaluate.baseline import Baseline
    from oiyolo.stages.evaluate.checkpoints import CheckpointsScored
    from oiyolo.stages.evaluate.compare import RunsCompared
    from oiyolo.stages.evaluate.detect import Scorer
    from oiyolo.stages.evaluate.run_scores import Evaluated
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_MAX_RUNS = 2
_SCORERS = ("onnxruntime", "darknet")


class _Options(DarknetKeywords, total=False):
    """Options of ``evaluate`` that do not change the type of its result."""

    run: str | None
    split: Literal["test", "valid"]
    weights: str | Path | None
    scorer: Scorer
    baseline: str | None
    baseline_model: str | Path | None


@overload
def evaluate(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[_Options]
) -> Evaluated: ...


@overload
def evaluate(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[_Options]
) -> Plan: ...


@overload
def evaluate(
    project: ProjectLike = ...,
    runs: str | Sequence[str] | None = ...,
    *,
    all_checkpoints: bool = ...,
    dry_run: bool = ...,
    **options: Unpack[_Options],
) -> Evaluated | RunsCompared | CheckpointsScored | Baseline | Plan: ...


@takes_keys("darknet")
def evaluate(
    project: ProjectLike = ".",
    runs: str | Sequence[str] | None = None,
    *,
    run: str | None = None,
    split: Literal["test", "valid"] = "test",
    weights: str | Path | None = None,
    scorer: Scorer = "onnxruntime",
    all_checkpoints: bool = False,
    baseline: str | None = None,
    baseline_model: str | Path | None = None,
    dry_run: bool = False,
    **options: Unpack[DarknetKeywords],
) -> Evaluated | RunsCompared | CheckpointsScored | Baseline | Plan:
    """Score a run's detector on a split that it was not trained on, or compare two runs.

    Args:
        project: An open project or its folder.
        runs: Names of one or two runs; two are compared on the images that neither has seen. By
            default the newest run with weights.
        run: The name of one run, in place of ``runs``.
        split: "test" or "valid".
        weights: A weights file of the run's network; by default its final weights, or the best
            ones so far if its training has not ended.
        scorer: The program that runs the network. "darknet" also computes mAP with onnxruntime,
            and reports the difference.
        all_checkpoints: Whether to score all saved weights of the run on valid and on a sample of
            train, and the best of them on test.
        baseline: Name of a published detector to score on the same images, also before any
            training.
        baseline_model: A detector in ONNX to score in place of ``baseline``.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[darknet]``.

    Raises:
        UsageError: There is no such run or file, the options do not go together, or the run has
            seen images of the split.
        InputFormError: The split is empty, an image or label is missing or damaged, or the weights
            are not valid, complete weights of the run's network.
        DarknetError: With darknet: there is none, or it wrote no detections.
    """
    names = [runs] if isinstance(runs, str) else list(runs or ())
    _check_options(
        names, run=run, split=split, scorer=scorer, weights=weights, all_checkpoints=all_checkpoints
    )
    opened = open_project(project, options)
    choice = _baseline_choice(baseline, baseline_model)
    if choice is not None and (all_checkpoints or len(names) > 1):
        raise UsageError(
            "a baseline is scored next to one run",
            remedy="Omit --baseline, or name one run without --all-checkpoints",
        )
    names = [run] if run is not None else names
    if len(names) > 1:
        first, second = (find_run(opened.runs_folder, name) for name in names)
        return compare.compare_runs(
            opened, first, second, split=split, scorer=scorer, dry_run=dry_run
        )
    if choice is not None and not (names or weights) and not _any_weights(opened):
        return _score_baseline_alone(opened, choice, split, dry_run=dry_run)
    needs = () if weights is not None else (lambda run: run.has_final_weights, has_valid_weights)
    target = find_run(opened.runs_folder, names[0] if names else None, *needs)
    evaluated: Evaluated | CheckpointsScored | Plan
    if all_checkpoints:
        evaluated = _score_checkpoints(opened, target, scorer, dry_run=dry_run)
    else:
        chosen = choose_weights(opened, target, weights)
        task = run_scores.plan_task(opened, target, split, chosen, scorer)
        evaluated = _evaluate_run(task, choice, dry_run=dry_run)
    if not dry_run:
        send_news(target)
    return evaluated


def _check_options(
    runs: Sequence[str],
    *,
    run: str | None,
    split: str,
    scorer: str,
    weights: str | Path | None,
    all_checkpoints: bool,
) -> None:
    """Raise UsageError if an option is invalid or options do not go together."""
    if split not in SPLITS[1:]:
        raise UsageError(
            f"cannot evaluate on {split!r}",
            expected=" or ".join(SPLITS[1:]),
            remedy="Choose a split that was not used in training",
        )
    if scorer not in _SCORERS:
        raise UsageError(f"cannot score with {scorer!r}", expected=" or ".join(_SCORERS))
    if runs and run is not None:
        raise UsageError("a run was named twice", found=f"{run}, {runs[0]}", remedy="Omit --run")
    if len(runs) > _MAX_RUNS:
        raise UsageError("too many runs", expected="at most two", found=", ".join(runs))
    alone = "--all-checkpoints" if all_checkpoints else "two runs"
    if (all_checkpoints or len(runs) > 1) and weights is not None:
        raise UsageError(f"--weights cannot be combined with {alone}", remedy="Omit --weights")
    if all_checkpoints and (len(runs) > 1 or split != "test"):
        raise UsageError(
            "--all-checkpoints scores one run, on valid, and its best weights on test",
            remedy="Name one run, without --split",
        )


def _baseline_choice(name: str | None, model: str | Path | None) -> str | Path | None:
    if name is not None and model is not None:
        raise UsageError(
            "--baseline cannot be combined with --baseline-model", remedy="Omit one of them"
        )
    return name if model is None else Path(model).absolute()


def _any_weights(project: Project) -> bool:
    return any(map(has_valid_weights, runs_in(project.runs_folder)))


def _score_baseline_alone(
    project: Project, choice: str | Path, split: str, *, dry_run: bool
) -> Baseline | Plan:
    """Score a baseline in a project without a run."""
    if dry_run:
        return Plan("evaluate", baseline_scores.plan(project, choice, split))
    return baseline_scores.score_alone(project, choice, split)


def _score_checkpoints(
    project: Project, run: Run, scorer: Scorer, *, dry_run: bool
) -> CheckpointsScored | Plan:
    def evaluate_on_test(path: Path) -> Evaluated | Plan:
        chosen = choose_weights(project, run, path, reason=checkpoints.REASON)
        task = run_scores.plan_task(project, run, "test", chosen, scorer)
        return _evaluate_run(task, None, dry_run=dry_run)

    # Before anything is scored: images of test that cannot be used would waste the time.
    has_test = bool(split_stage.image_paths(project, "test"))
    return checkpoints.score_all(
        project,
        run,
        test_images=len(inputs.unseen_paths(project, run, "test")) if has_test else 0,
        evaluate_on_test=evaluate_on_test,
        dry_run=dry_run,
    )


def _baseline_actions(task: run_scores.ScoringTask, choice: str | Path | None) -> list[str]:
    if choice is None:
        return []
    planned = baseline_scores.plan(task.project, choice, task.images.split)
    return planned or ["compare with the baseline, which is scored already"]


def _evaluate_run(
    task: run_scores.ScoringTask, choice: str | Path | None, *, dry_run: bool
) -> Evaluated | Plan:
    """Score a run's detector, unless that is up to date, and the baseline if one is chosen."""
    evaluated = run_scores.find_saved(task)
    has_baseline = evaluated is not None and baseline_scores.is_choice(
        task.project, evaluated.baseline, choice
    )
    if dry_run:
        actions = [] if evaluated else task.actions
        missing = None if has_baseline else choice
        return Plan("evaluate", [*actions, *_baseline_actions(task, missing)])
    run_scores.remove_leftovers(task.run)
    if evaluated is not None and has_baseline:
        _log.info("evaluate: up to date")
        return evaluated
    with run_scores.lock_of(task.run):
        if evaluated is None:
            evaluated, scored = run_scores.score(task)
        else:
            scored = run_scores.scored_again(task)
        if choice is not None:
            found: Baseline | None = baseline_scores.score_baseline(task.project, scored, choice)
        else:
            found = baseline_scores.find_baseline(task.project, scored)
        if found is not None:
            evaluated = replace(evaluated, baseline=found)
            run_scores.save(evaluated)
        return evaluated
