"""Score a run's detector on one split, and write the scores and pictures."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import files, locks, records, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result, find_picture, images_html, pluralize, text_html
from oiyolo.evaluation import panel_files
from oiyolo.evaluation.average_precision import average_precisions, mean_over_classes
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.panels import choose_panels, evaluate_images, save_panels
from oiyolo.evaluation.plots import plot_confusion
from oiyolo.evaluation.summary import Evaluation, choose_thresholds, evaluate_detections
from oiyolo.project.ledger import SPLITS
from oiyolo.stages import build as build_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import checkpoint_panel, inputs
from oiyolo.stages.evaluate.baseline import saved_baseline
from oiyolo.stages.evaluate.detect import LOG_NAME, WORK_PREFIX, detect
from oiyolo.stages.evaluate.kept_detections import (
    DETECTIONS_NAME,
    choose_weights,
    has_kept,
    keep_detections,
    score_images,
    unseen_images,
)
from oiyolo.stages.evaluate.kept_detections import RECIPE_NAME as DETECTED_NAME
from oiyolo.stages.evaluate.pictures import pictures_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from oiyolo.core.results import Picture
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate.baseline import Baseline
    from oiyolo.stages.evaluate.detect import Scorer
    from oiyolo.stages.evaluate.kept_detections import (
        ChosenWeights,
        Images,
        Scored,
    )
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

STAGE: Final = "evaluate"
_RECIPE_NAME: Final = ".evaluated-from.json"
_AGREEMENT: Final = 0.01
"""Difference of mAP@0.5 up to which two programs agree."""


class _Details(TypedDict):
    """What ``evaluation.json`` says about the evaluation itself."""

    split: str
    weights: dict[str, Any]
    scored_with: str
    thresholds_from: str
    cross_check: dict[str, Any] | None


@dataclass(frozen=True)
class Evaluated(Result):
    """A scored detector.

    Attributes:
        run: The run that trained it.
        split: The split on which it was scored.
        weights: The scored weights.
        scored: Record of the scored weights, as in ``evaluation.json``: ``path``, ``sha256``,
            ``iteration``, and ``reason``, why they were chosen.
        scored_with: The program that ran the network, ``onnxruntime`` or ``darknet``.
        thresholds_from: The split on which the score thresholds were chosen; ``test`` if the valid
            split has no images.
        evaluation: The scores.
        panels: Pictures of the detections, by file name.
        cross_check: mAP@0.5 with the other program (``scored_with``, ``map50``, ``difference``);
            empty unless darknet was asked for.
        baseline: A detector that was not trained for this task; ``None`` if none was scored on
            these images.
    """

    run: Run
    split: str
    weights: Path
    scored: Mapping[str, object]
    scored_with: str
    thresholds_from: str
    evaluation: Evaluation
    panels: Mapping[str, Path]
    cross_check: Mapping[str, Any]
    baseline: Baseline | None = None

    def details(self) -> dict[str, object]:
        """Return what ``evaluation.json`` holds."""
        return {
            "split": self.split,
            "weights": dict(self.scored),
            "scored_with": self.scored_with,
            "thresholds_from": self.thresholds_from,
            "cross_check": dict(self.cross_check) or None,
            **self.evaluation.to_json(),
            "baseline": None if self.baseline is None else self.baseline.to_json(),
        }

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        panels = {name: str(path) for name, path in self.panels.items()}
        return {"run": self.run.name, **self.details(), "panels": panels}

    def _notes(self) -> list[str]:
        """Return how the scores were made, line by line."""
        where = "valid" if self.thresholds_from == "valid" else "these images: valid has none"
        notes = [f"scored with {self.scored_with}; score thresholds chosen on {where}"]
        if self.cross_check:
            difference = self.cross_check["difference"]
            if difference is not None:
                agrees = "which agrees" if abs(difference) <= _AGREEMENT else "which differs"
                notes.append(
                    f"{self.cross_check['scored_with']} gives mAP@0.5 "
                    f"{self.cross_check['map50']:.3f}, {agrees} ({difference:+.4f})"
                )
        return notes

    def __str__(self) -> str:
        pictures = f"{pluralize(len(self.panels), 'picture')} in {self.run.panels_folder}"
        reason = f" ({self.scored['reason']})" if self.scored.get("reason") else ""
        head = (
            f"{self.run.name} on {self.split}, {self.scored['path']} of iteration "
            f"{self.scored['iteration']:,}{reason}:"
        )
        parts = [head, str(self.evaluation), "", *self._notes()]
        if self.baseline is not None:
            parts += ["", str(self.baseline)]
        return "\n".join([*parts, f"see {self.run.evaluation_path}, and {pictures}"])

    def _repr_html_(self) -> str:
        baseline = "" if self.baseline is None else self.baseline._repr_html_()
        overview = [path for path in self.panels.values() if path.stem == "overview"]
        scores = self.evaluation._repr_html_() + text_html(*self._notes())
        return scores + baseline + images_html(overview)

    def picture(self, name: str) -> Picture:
        """Return one of ``panels``, such as "confusion", for a notebook.

        Raises:
            UsageError: There is no such picture.
        """
        return find_picture(self.panels.values(), name)


@dataclass(frozen=True)
class ScoringTask:
    """What is to be scored.

    Attributes:
        project: The project.
        run: The run.
        weights: The weights.
        images: The images.
        valid: The images on which thresholds are chosen; ``None`` if these are ``images``.
        scorer: The program that runs the network.
    """

    project: Project
    run: Run
    weights: ChosenWeights
    images: Images
    valid: Images | None
    scorer: Scorer

    @cached_property
    def recipe(self) -> dict[str, object]:
        """What the scores are made from."""
        return {
            "split": self.images.split,
            "weights": dict(self.weights.record),
            "the program that runs the network": self.scorer,
            "the set of images": self.images.fingerprint,
            "the images of valid": self.valid.fingerprint if self.valid else None,
            "the preparation": prepare_stage.prepared_options(self.project),
            "boxes.csv": files.sha256_of(self.project.dataset_folder / "boxes.csv"),
            "version": __version__,
        }

    @property
    def actions(self) -> list[str]:
        """What ``score`` would do, in words."""
        both = ((self.valid, ", to choose thresholds"), (self.images, ""))
        parts = [(images, purpose) for images, purpose in both if images is not None]
        of_run = self.project, self.run, self.weights
        actions = [
            f"{_detect_action(*of_run, images, self.scorer)}{purpose}" for images, purpose in parts
        ]
        if self.scorer == "darknet":
            count = pluralize(len(self.images.paths), "image")
            actions.append(f"run onnxruntime on {count} as a check")
            is_kept = all(has_kept(*of_run, images, self.scorer) for images, _ in parts)
            if not is_kept and (work := build_stage.planned_build(self.project)):
                actions.insert(0, work)
        folder = self.run.folder
        return [*actions, f"write {self.run.evaluation_path} and pictures to {folder}/panels"]


def _detect_action(
    project: Project, run: Run, weights: ChosenWeights, images: Images, scorer: Scorer
) -> str:
    """Return where the detections in some images come from, in words."""
    counted = f"{pluralize(len(images.paths), 'image')} of {images.split}"
    if has_kept(project, run, weights, images, scorer):
        return f"read the kept detections in {counted}"
    facts = f"iteration {weights.record['iteration']:,}; {weights.record['reason']}"
    return f"run {weights.path} ({facts}) with {scorer} on {counted}"


def plan_task(
    project: Project, run: Run, split: str, weights: ChosenWeights, scorer: Scorer
) -> ScoringTask:
    """Return what is to be scored.

    Raises:
        UsageError: The run has seen images of the split, or the dataset has other classes.
        InputFormError: The split is empty, or images or labels are missing or damaged.
    """
    inputs.warn_of_preparation(project, run)
    images = unseen_images(project, run, split)
    valid = None
    if split != "valid" and split_stage.image_paths(project, "valid"):
        valid = unseen_images(project, run, "valid")
    return ScoringTask(project, run, weights, images, valid, scorer)


def lock_of(run: Run) -> AbstractContextManager[None]:
    """Return a context that locks the run for evaluation; it may be training."""
    return locks.exclusive(run.folder / ".evaluate.lock", what="the evaluation", operation=STAGE)


def find_saved(task: ScoringTask) -> Evaluated | None:
    """Return the scores saved in the run's folder; ``None``, with a log line, if they are stale."""
    run = task.run
    saved = files.read_json(run.evaluation_path)
    reason = staleness.stale_reason(run.folder / _RECIPE_NAME, task.recipe)
    pictures = [*run.panels_folder.glob("*.png"), *run.panels_folder.glob("*.jpg")]
    panels = {path.name: path for path in sorted(pictures)}
    if reason is None and panel_files.find(run.panels_folder) is None:
        reason = f"{panel_files.NAME} is missing"
    if reason is None and isinstance(saved, dict) and panels:
        try:
            evaluation = Evaluation.from_json(saved)
        except ValueError as error:
            reason = f"{run.evaluation_path.name} is damaged: {error}"
        else:
            if not records.mismatch(saved, _Details):
                return Evaluated(
                    run,
                    task.images.split,
                    task.weights.path,
                    saved["weights"],
                    saved["scored_with"],
                    saved["thresholds_from"],
                    evaluation,
                    panels,
                    saved["cross_check"] or {},
                    saved_baseline(task.project, saved),
                )
            reason = "an older version left out figures"
    _log.info("evaluate: %s", reason or "scores or panels are missing")
    return None


def remove_leftovers(run: Run) -> None:
    """Remove what killed evaluations left."""
    files.remove_abandoned_parts(run.panels_folder)
    files.remove_abandoned_parts(run.panels_folder / panel_files.FOLDER)
    names = (_RECIPE_NAME, LOG_NAME, run.evaluation_path.name, DETECTIONS_NAME, DETECTED_NAME)
    files.remove_abandoned_parts(run.folder, *names)


def score(task: ScoringTask) -> tuple[Evaluated, Scored]:
    """Score a detector and write its scores and pictures; the caller holds ``lock_of(run)``.

    Raises:
        InputFormError: Weights, images or labels are invalid.
        DarknetError: With darknet: there is none, or it wrote no detections.
    """
    run = task.run
    for leftover in run.folder.glob(f"{WORK_PREFIX}*"):  # of a killed evaluation
        shutil.rmtree(leftover, ignore_errors=True)
    needed = [images for images in (task.valid, task.images) if images is not None]
    keep_detections(task.project, run, task.weights, needed, task.scorer)
    thresholds = None if task.valid is None else _thresholds_on(task, task.valid)
    scored = score_images(task.project, run, task.weights, task.images, task.scorer)
    evaluation = evaluate_detections(
        scored.detections, scored.truth, scored.class_names, thresholds
    )
    cross_check = _cross_check(scored, evaluation.map50) if task.scorer == "darknet" else {}
    # From here on, what an earlier call wrote is replaced.
    (run.folder / _RECIPE_NAME).unlink(missing_ok=True)
    evaluated = Evaluated(
        run,
        task.images.split,
        task.weights.path,
        task.weights.record,
        task.scorer,
        task.images.split if task.valid is None else "valid",
        evaluation,
        {**_save_panels(task.project, scored, evaluation), **_save_confusion(run, evaluation)},
        cross_check,
    )
    save(evaluated)
    staleness.write_recipe(run.folder / _RECIPE_NAME, task.recipe)
    return evaluated, scored


def scored_again(task: ScoringTask) -> Scored:
    """Return the detections of a task, which are kept unless they were damaged."""
    return score_images(task.project, task.run, task.weights, task.images, task.scorer)


def scored_splits(project: Project, run: Run) -> list[Scored]:
    """Return what a run's detector finds in valid and test, whose images it has not learned.

    The network runs where its detections are not kept.

    Raises:
        UsageError: The run has no weights yet, or has seen the images.
        InputFormError: Weights, images or labels are missing or damaged.
    """
    weights, images = _unseen_splits(project, run)
    return _scored(project, run, weights, images)


def scored_unseen(project: Project, run: Run, split: str, image_ids: Collection[str]) -> Scored:
    """Return what a run's detector finds in some images of a split, which it has not seen.

    The network runs if its detections are not kept. Errors are those of ``scored_splits``.
    """
    weights, images = _unseen_part(project, run, split, image_ids)
    return _scored(project, run, weights, [images])[0]


def scored_unseen_action(project: Project, run: Run, split: str, image_ids: Collection[str]) -> str:
    """Return what ``scored_unseen`` would do, in words; it raises the same errors."""
    weights, images = _unseen_part(project, run, split, image_ids)
    return _detect_action(project, run, weights, images, "onnxruntime")


def _unseen_part(
    project: Project, run: Run, split: str, image_ids: Collection[str]
) -> tuple[ChosenWeights, Images]:
    weights = choose_weights(project, run, None)
    return weights, unseen_images(project, run, split, image_ids)


def _scored(
    project: Project, run: Run, weights: ChosenWeights, images: Sequence[Images]
) -> list[Scored]:
    with lock_of(run):
        keep_detections(project, run, weights, images, "onnxruntime")
        return [score_images(project, run, weights, part, "onnxruntime") for part in images]


def scored_splits_actions(project: Project, run: Run) -> list[str]:
    """Return what ``scored_splits`` would do, in words; it raises the same errors."""
    weights, images = _unseen_splits(project, run)
    return [_detect_action(project, run, weights, part, "onnxruntime") for part in images]


def _unseen_splits(project: Project, run: Run) -> tuple[ChosenWeights, list[Images]]:
    """Return the weights of a run, and the images of valid and test."""
    weights = choose_weights(project, run, None)
    splits = [name for name in SPLITS[1:] if split_stage.image_paths(project, name)]
    if not splits:
        raise UsageError(
            "valid and test have no images, and the detector has learned those of train",
            where=str(project.dataset_folder),
            remedy="Give them a share with [split], and run `oiyolo split`",
        )
    return weights, [unseen_images(project, run, name) for name in splits]


def _thresholds_on(task: ScoringTask, images: Images) -> tuple[float, ...]:
    """Return the score threshold of each class with the highest F1 in some images."""
    scored = score_images(task.project, task.run, task.weights, images, task.scorer, labels=False)
    return choose_thresholds(scored.detections, scored.truth, len(scored.class_names))


def save(evaluated: Evaluated) -> None:
    """Write ``evaluation.json``."""
    files.write_json(evaluated.run.evaluation_path, evaluated.details())


def _cross_check(scored: Scored, map50: float) -> dict[str, Any]:
    """Return mAP@0.5 with onnxruntime, and by how much it exceeds that with darknet."""
    detections = detect(scored.run, scored.weights.path, scored.images.paths)
    matches = match(detections, scored.truth)
    by_class = average_precisions(matches, detections, scored.truth, len(scored.class_names))
    other = mean_over_classes(by_class)
    is_known = math.isfinite(other) and math.isfinite(map50)
    return {
        "scored_with": "onnxruntime",
        "map50": other if is_known else None,
        "difference": other - map50 if is_known else None,
    }


def _save_panels(project: Project, scored: Scored, evaluation: Evaluation) -> dict[str, Path]:
    """Draw pictures of the detections at the score thresholds; return their files by name."""
    results = evaluate_images(
        scored.detections, scored.truth, scored.class_names, evaluation.score_thresholds
    )
    panels = choose_panels(results, scored.class_names)
    pictures = pictures_of(project, scored.images.paths)
    folder, split = scored.run.panels_folder, scored.images.split
    panel_files.save(
        folder, panels, results, split=split, class_names=scored.class_names, pictures=pictures
    )
    by_checkpoint = checkpoint_panel.draw(scored, results, evaluation.score_thresholds, pictures)
    return {**save_panels(folder, panels, pictures), **by_checkpoint}


def _save_confusion(run: Run, evaluation: Evaluation) -> dict[str, Path]:
    """Draw the confusion matrix; return its file by name."""
    from oiyolo.charts import canvas  # noqa: PLC0415  (slow to import)

    side_px = min(800 + 60 * len(evaluation.classes), 2000)
    figure = canvas.new_figure((side_px, side_px))
    plot_confusion(evaluation, ax=figure.subplots())
    png, _ = canvas.save(figure, run.panels_folder, "confusion")
    return {png.name: png}
