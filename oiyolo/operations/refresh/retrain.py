"""refresh --retrain: train on a changed dataset, and publish the detector if it is better.

Each step is done only if its result does not exist yet, so a refresh that was killed is continued
by the next one: the training is resumed, scores and comparisons that are up to date are read, and a
publication is completed (``publish``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from oiyolo.core import locks, records
from oiyolo.core.errors import InputFormError, OiyoloError
from oiyolo.core.results import Result, pluralize
from oiyolo.darknet import lists
from oiyolo.operations.refresh import publish
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import evaluate
from oiyolo.stages.report import report
from oiyolo.stages.train import train
from oiyolo.stages.train.inputs import data_recipe
from oiyolo.training.run import CURRENT, FINISHED, INTERRUPTED, Run, current_run, runs_in
from oiyolo.training.run_detector import weights_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.project.project import Project

_log = logging.getLogger("oiyolo")

MIN_IMAGES: Final = 10
"""Fewest test images on which detectors are compared: with fewer, the false positives of the
comparison were not measured (``evaluation.comparison``)."""
_UNCHANGED: Final = "the dataset has not changed since it was trained"


@dataclass(frozen=True)
class Retrained(Result):
    """What became of the current detector.

    Attributes:
        run: Name of the run that was trained, or would have been; empty if the current detector
            was trained on this dataset.
        before: Name of the current detector's run before; empty if there was none.
        current: Name of its run now; empty if there is none.
        published: Whether ``run`` is a new detector that was published.
        reason: Why it was published or not, with the scores.
        comparison: The comparison with the current detector, as in ``comparison-<run>.json``;
            empty if there was none.
        published_to: Folder in the bucket that a detector was copied to; empty if none was.
    """

    run: str
    before: str
    current: str
    published: bool
    reason: str
    comparison: Mapping[str, Any]
    published_to: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "run": self.run or None,
            "before": self.before or None,
            "current": self.current or None,
            "published": self.published,
            "reason": self.reason,
            "comparison": dict(self.comparison) or None,
            "published_to": self.published_to or None,
        }

    def __str__(self) -> str:
        if self.published:
            return f"{self.run} published: {self.reason}"
        copied = f"; copied to {self.published_to}" if self.published_to else ""
        return f"{self.current or self.run} {'kept' if self.current else 'not published'}: " + (
            self.reason + copied
        )


@dataclass(frozen=True)
class Decision:
    """Whether a new detector is published.

    Attributes:
        publishes: Whether it is.
        reason: Why, with the scores.
    """

    publishes: bool
    reason: str


def retrain(project: Project) -> Retrained:
    """Train a run if the dataset changed since the current detector was trained, and publish it.

    It is published if its mAP@0.5 exceeds that of the current detector beyond chance, on the test
    images that neither has seen, or if there is no current detector and it has a score.

    Args:
        project: The project. Its dataset is split, and the caller does not hold its lock.

    Raises:
        InputFormError: ``runs/current`` is not a link to a run, or its detector cannot be compared
            with a new one.
        UsageError: ``[refresh] publish_to`` is not a bucket, or an option of the training is wrong.
        DarknetError: The training failed; the current detector stays.
        UnavailableError: The bucket does not respond, or refuses this user.
        LockedError: Another process is retraining.
    """
    publish.bucket_folder(project)  # before anything is trained
    runs_folder = project.runs_folder
    lock = locks.exclusive(
        runs_folder / ".retrain.lock", what="the current detector", operation="refresh --retrain"
    )
    with lock:
        before = current_run(runs_folder)
        if before is not None and not _is_outdated(project, before):
            return _keep(project, before, None, _UNCHANGED, {})
        if before is not None:
            check_comparable(project, before)
        return _replace(project, before)


def _replace(project: Project, before: Run | None) -> Retrained:
    """Train a run or resume one, score it, and publish it if it is better."""
    run = train(_with_initial_weights(project, before)).run
    evaluated = evaluate(project, run=run.name)
    report(project, run=run.name)
    comparison: Mapping[str, Any] = {}
    if before is None:
        evaluation = evaluated.evaluation.to_json()
        decision = decide_first(evaluation["map50"], evaluation["map50_interval"])
    else:
        compared = cast("Any", evaluate(project, [before.name, run.name]))
        comparison = compared.content
        decision = decide(comparison)
    if not decision.publishes:
        return _keep(project, before, run, decision.reason, comparison)
    copied_to = publish.publish(project, run)
    name = before.name if before else ""
    return Retrained(
        run=run.name,
        before=name,
        current=run.name,
        published=True,
        reason=decision.reason,
        comparison=comparison,
        published_to=copied_to or "",
    )


def _keep(
    project: Project,
    current: Run | None,
    run: Run | None,
    reason: str,
    comparison: Mapping[str, Any],
) -> Retrained:
    """Keep the current detector, and complete its own publication."""
    copied_to = publish.publish(project, current) if current else None
    name = current.name if current else ""
    new = run.name if run else ""
    return Retrained(
        run=new,
        before=name,
        current=name,
        published=False,
        reason=reason,
        comparison=comparison,
        published_to=copied_to or "",
    )


def decide_first(map50: float | None, interval: list[float] | None) -> Decision:
    """Return whether a detector is published if there is no current one: if it has a score.

    Args:
        map50: Its mAP@0.5; ``None`` if the test images have no true boxes.
        interval: The 95 % interval; ``None`` if there is none.
    """
    if map50 is None:
        return Decision(
            publishes=False, reason="it has no score, because the test images have no boxes"
        )
    bounds = " ({:.3f} to {:.3f})".format(*interval) if interval else ""
    return Decision(publishes=True, reason=f"mAP {map50:.3f}{bounds}, the first detector")


def decide(comparison: Mapping[str, Any]) -> Decision:
    """Return whether the second of two compared detectors replaces the first, and why.

    Args:
        comparison: The content of ``comparison-<second>.json``.

    Raises:
        InputFormError: Too few test images can be compared.
    """
    first, second = (comparison[side]["run"] for side in ("first", "second"))
    row, images = comparison["map50"], comparison["images"]
    if images < MIN_IMAGES or row["interval"] is None:
        raise _too_few_error(first, f"{pluralize(images, 'image')}, {comparison['boxes']} boxes")
    low, high = row["interval"]
    score = f"mAP {row['second']:.3f}, {row['difference']:+.3f} ({low:.3f} to {high:.3f})"
    if comparison["better"] == second:
        return Decision(publishes=True, reason=score)
    if comparison["better"] == first:
        return Decision(publishes=False, reason=f"{second} is worse: {score}")
    reason = f"{second} is not better beyond chance: {score} on {pluralize(images, 'image')}"
    further = comparison["further_images"]
    if further is None or row["difference"] < 0:
        return Decision(publishes=False, reason=reason)
    return Decision(
        publishes=False, reason=f"{reason}; about {pluralize(further, 'more image')} would show it"
    )


def check_comparable(project: Project, current: Run) -> None:
    """Raise InputFormError if no new detector could be compared with the current one.

    This is known before a training: a new run has seen no image of test.
    """
    names = list(split_stage.load_lists(project).class_names)
    has = records.read_lines(current.folder / "obj.names", remedy=_way_out(current.name))
    if has != names:
        raise InputFormError(
            f"the classes of the current detector {current.name} differ from the dataset's",
            where=str(current.folder / "obj.names"),
            expected=", ".join(names),
            found=", ".join(has),
            remedy=_way_out(current.name),
        )
    if weights_of(current) is None:
        raise InputFormError(
            f"the current detector {current.name} has no valid weights",
            where=str(current.weights_folder),
            remedy=f"Restore them from a copy. {_way_out(current.name)}",
        )
    test = set(lists.ids_of(split_stage.image_paths(project, "test")))
    unseen = test.difference(current.image_ids("train"), current.image_ids("valid"))
    if len(unseen) < MIN_IMAGES:
        found = f"{len(unseen)} of the {pluralize(len(test), 'image')} of test"
        raise _too_few_error(current.name, found)


def _too_few_error(current: str, found: str) -> InputFormError:
    return InputFormError(
        f"there are too few test images to compare a new detector with {current}",
        where=f"runs/{CURRENT}",
        expected=f"at least {MIN_IMAGES} images that neither has seen in training, with boxes in "
        "several of them",
        found=found,
        remedy=_way_out(current),
    )


def _way_out(current: str) -> str:
    return (
        f"Nothing was published, and {current} stays. To publish without a comparison, delete "
        f"runs/{CURRENT}, and the next detector is published; or choose a run with "
        f"`ln -sfn RUN runs/{CURRENT}`"
    )


def _is_outdated(project: Project, run: Run) -> bool:
    """Return whether the dataset changed since a run was trained."""
    made_from = run.record.get("made_from") or {}
    now = data_recipe(project, split_stage.load_lists(project))
    return any(made_from.get(name) != value for name, value in now.items())


def _with_initial_weights(project: Project, current: Run | None) -> Project:
    """Return the project with the initial weights that ``[refresh] retrain_from`` names."""
    if project.config.refresh.retrain_from != "last":
        return project
    chosen = weights_of(current) if current else None
    if chosen is None:
        _log.info("refresh: there is no current detector yet, so [train] weights applies")
        return project
    options = replace(project.config.train, weights=str(chosen.path.absolute()))
    return replace(project, config=replace(project.config, train=options))


def continue_unfinished(project: Project) -> tuple[Retrained | None, OiyoloError | None]:
    """Complete what an earlier refresh began with this dataset, before the dataset changes.

    A dataset that changes more often than a training ends would otherwise never get a detector.

    Returns:
        What became of the current detector; ``None`` if nothing was left unfinished. And the error
        if it failed, for the caller to raise when the dataset is up to date.
    """
    try:
        return (retrain(project) if _unfinished_run(project) else None), None
    except OiyoloError as error:
        return None, error


def _unfinished_run(project: Project) -> Run | None:
    """Return the run whose training, scores or publication are not complete, if there is one."""
    if not runs_in(project.runs_folder) or split_stage.find(project) is None:
        return None
    current = current_run(project.runs_folder)
    if current is not None and not _is_outdated(project, current):
        return None
    plan = train(_with_initial_weights(project, current), dry_run=True)
    name = plan.facts.get("run")
    if name is None:  # darknet has to be built before it is known which run would be resumed
        open_runs = [run for run in runs_in(project.runs_folder) if run.state == INTERRUPTED]
        return next((run for run in reversed(open_runs) if not _is_outdated(project, run)), None)
    run = Run(project.runs_folder / str(name))
    if run.state != FINISHED:
        return run if run.state == INTERRUPTED else None
    path = current and current.folder / f"comparison-{run.name}.json"
    compared = path and records.find_intact(path, publish.ComparisonFields)
    return run if not compared or compared["better"] == run.name else None


def plan_retraining(project: Project, *, data_changes: bool) -> list[str]:
    """Return what ``retrain`` would do, in words.

    Args:
        project: The project.
        data_changes: Whether the refresh would change the dataset before.

    Raises:
        OiyoloError: As for ``retrain``, as far as that can be known before.
    """
    folder = publish.bucket_folder(project)
    current = current_run(project.runs_folder)
    if not data_changes and current is not None and not _is_outdated(project, current):
        return publish.pending_actions(project, current)
    if current is not None and not data_changes:
        check_comparable(project, current)
    where = f"runs/{CURRENT}" + (f" and {folder}" if folder else "")
    if data_changes:
        source = f"{current.name}'s weights" if current else "[train] weights"
        if project.config.refresh.retrain_from != "last":
            source = "[train] weights"
        unfinished = _unfinished_run(project)
        actions = [f"complete {unfinished.name} first"] if unfinished else []
        actions.append(f"train a new run from {source}, if the dataset changes")
    else:
        actions = list(train(_with_initial_weights(project, current), dry_run=True).actions[:2])
    if current is None:
        return [*actions, f"publish it as {where} if it has a score: there is no detector yet"]
    images = f"the test images that neither has seen ({MIN_IMAGES} at least)"
    return [
        *actions,
        f"compare it with {current.name} on {images}",
        f"publish it as {where} if it is better beyond chance",
    ]
