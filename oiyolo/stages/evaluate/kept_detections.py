"""The detections of a run, kept in ``detections.json`` so that the network runs once.

The file holds the detections of one weights file, in the images of one split or of both test and
valid, whose images differ. Its recipe says which weights, program and images it was made from.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.core import files, records, staleness
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.evaluation.coco_results import read_results, write_results
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.schedule import schedule_of
from oiyolo.networks.weights import check_weights
from oiyolo.stages import build as build_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages.evaluate import inputs
from oiyolo.stages.evaluate.detect import MIN_SCORE, NMS_IOU, detect, detect_with_darknet
from oiyolo.training.run_detector import FINAL_REASON, weights_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from oiyolo.evaluation.tables import Detections, GroundTruth
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate.detect import Scorer
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

DETECTIONS_NAME: Final = "detections.json"
RECIPE_NAME: Final = ".detected-from.json"


@dataclass(frozen=True)
class ChosenWeights:
    """Weights of a run that are scored.

    Attributes:
        path: The file.
        record: ``path``, ``sha256``, ``iteration`` and ``reason``, as in ``evaluation.json``.
    """

    path: Path
    record: Mapping[str, object]


@dataclass(frozen=True)
class Images:
    """Images of a split that a run has not been trained on.

    Attributes:
        split: The split.
        paths: Their files.
        sizes_wh: Width and height in pixels, by image id.
    """

    split: str
    paths: Sequence[str]
    sizes_wh: Mapping[str, tuple[int, int]]

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the ids and sizes."""
        return staleness.fingerprint(sorted((i, *wh) for i, wh in self.sizes_wh.items()))


@dataclass(frozen=True)
class Scored:
    """What a run's detector found in images.

    Attributes:
        run: The run.
        weights: Its weights.
        images: The images.
        detections: The detections.
        truth: The true boxes.
        class_names: Names of the classes.
        scorer: The program that ran the network.
    """

    run: Run
    weights: ChosenWeights
    images: Images
    detections: Detections
    truth: GroundTruth
    class_names: Sequence[str]
    scorer: Scorer


class _Recipe(TypedDict):
    weights: str
    scorer: str
    limits: list[float]
    preparation: dict[str, Any]
    splits: dict[str, str]
    sizes_wh: dict[str, list[int]]


def choose_weights(
    project: Project, run: Run, weights: str | Path | None, *, reason: str = "named by the user"
) -> ChosenWeights:
    """Return the weights to score, after validating them for the run's network.

    Args:
        project: The project.
        run: The run.
        weights: A weights file of the run's network; by default those of ``weights_of``.
        reason: Why this file was chosen, in a few words.

    Raises:
        UsageError: There is no such file, or the run has no weights yet.
        InputFormError: The file is not valid, complete weights of the run's network.
    """
    if weights is None:
        path, reason = _own_weights(run)
    else:
        path = Path(weights).absolute()
        if not path.is_file():
            raise UsageError(
                "no such file",
                where=str(path),
                expected=f"a weights file of the network of {run.name}",
                remedy=f"See {run.weights_folder} for the run's own files",
            )
    cfg = cfg_file.read(run.cfg_path)
    try:
        report = check_weights(path, cfg, complete=True)
    except InputFormError as error:
        other = f"Choose complete weights of the network of {run.name}"
        error.remedy = _resume_advice(run) if weights is None else other
        raise
    if report.warning:
        _log.warning("evaluate: %s", report.warning)
    shown = path.relative_to(project.folder) if path.is_relative_to(project.folder) else path
    return ChosenWeights(
        path,
        {
            "path": str(shown),
            "sha256": files.sha256_of(path),
            "iteration": report.header.iteration(schedule_of(cfg).batch),
            "reason": reason,
        },
    )


def _own_weights(run: Run) -> tuple[Path, str]:
    """Return the weights of ``weights_of`` and why, or final weights that are damaged.

    Those are not passed over: older ones would be scored in their place.
    """
    chosen = weights_of(run)
    if run.has_final_weights and (chosen is None or chosen.path != run.final_weights_path):
        return run.final_weights_path, FINAL_REASON
    if chosen is not None:
        return chosen.path, chosen.reason
    raise UsageError(
        f"the run {run.name} has no weights to evaluate",
        where=str(run.weights_folder),
        remedy=_resume_advice(run),
    )


def unseen_images(
    project: Project, run: Run, split: str, among: Collection[str] | None = None
) -> Images:
    """Return the images of a split; arguments and errors are those of ``inputs.unseen_paths``."""
    paths = inputs.unseen_paths(project, run, split, among)
    return Images(split, paths, inputs.sizes_wh(paths))


def score_images(
    project: Project,
    run: Run,
    weights: ChosenWeights,
    images: Images,
    scorer: Scorer,
    *,
    labels: bool = True,
) -> Scored:
    """Return what weights find in images, and the true boxes.

    The caller holds the run's lock of evaluations. Errors are those of ``keep_detections``.

    Args:
        project: The project.
        run: The run.
        weights: Its weights.
        images: The images.
        scorer: The program that runs the network if the detections are not kept.
        labels: Whether the classes verified in each image are needed, for Open Images' metric.
    """
    names = inputs.class_names(run)
    return Scored(
        run=run,
        weights=weights,
        images=images,
        detections=find_or_detect(project, run, weights, images, scorer),
        truth=inputs.ground_truth(project, images.sizes_wh, names, labels=labels),
        class_names=names,
        scorer=scorer,
    )


def has_kept(
    project: Project, run: Run, weights: ChosenWeights, images: Images, scorer: Scorer
) -> bool:
    """Return whether the detections of these weights in these images are kept, and intact."""
    kept = _kept_recipe(run, _made_from(project, weights, scorer))
    return kept is not None and kept["splits"].get(images.split) == images.fingerprint


def _made_from(project: Project, weights: ChosenWeights, scorer: Scorer) -> dict[str, Any]:
    """Return what detections are made from, besides the images."""
    return {
        "weights": weights.record["sha256"],
        "scorer": scorer,
        "limits": [MIN_SCORE, NMS_IOU],
        "preparation": prepare_stage.prepared_options(project),
    }


def _kept_recipe(run: Run, made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the recipe of the kept detections if they were made from this and are intact."""
    path = run.folder / RECIPE_NAME
    kept = records.find_intact(path, _Recipe)
    if kept is None or any(kept[name] != value for name, value in made_from.items()):
        return None
    return kept if staleness.is_intact(path, run.folder / DETECTIONS_NAME) else None


def find_or_detect(
    project: Project, run: Run, weights: ChosenWeights, images: Images, scorer: Scorer
) -> Detections:
    """Return the detections as the file has them, after writing it if need be."""
    keep_detections(project, run, weights, [images], scorer)
    return read_results(run.folder / DETECTIONS_NAME, list(images.sizes_wh))


def keep_detections(
    project: Project, run: Run, weights: ChosenWeights, splits: Sequence[Images], scorer: Scorer
) -> None:
    """Run the network once, on the images of those splits whose detections are not kept yet.

    Raises:
        InputFormError: The weights were replaced or removed meanwhile by the training of the run,
            or they or an image are damaged.
        DarknetError: With darknet: there is none, or it wrote no detections.
    """
    made_from = _made_from(project, weights, scorer)
    kept = _kept_recipe(run, made_from) or {"splits": {}, "sizes_wh": {}}
    missing = [part for part in splits if kept["splits"].get(part.split) != part.fingerprint]
    if not missing:
        return
    images = Images(
        " and ".join(part.split for part in missing),
        [path for part in missing for path in part.paths],
        {image_id: wh for part in missing for image_id, wh in part.sizes_wh.items()},
    )
    detections = _detect(project, run, weights, images, scorer)
    # Those in other splits were made from the same, and stay.
    path, recipe_path = run.folder / DETECTIONS_NAME, run.folder / RECIPE_NAME
    others = {i: (w, h) for i, (w, h) in kept["sizes_wh"].items() if i not in images.sizes_wh}
    if others:
        detections = detections.joined_with(read_results(path, list(others)))
    recipe_path.unlink(missing_ok=True)
    sizes_wh = {**images.sizes_wh, **others}
    write_results(path, detections, sizes_wh)
    recipe = {
        **made_from,
        "splits": {**kept["splits"], **{part.split: part.fingerprint for part in missing}},
        "sizes_wh": sizes_wh,
    }
    staleness.write_recipe(recipe_path, recipe, [path])


def _resume_advice(run: Run) -> str:
    return f"Run `{run.train_command}`, which resumes the run, or choose others with --weights"


def _detect(
    project: Project, run: Run, weights: ChosenWeights, images: Images, scorer: Scorer
) -> Detections:
    """Run the network; errors as for ``keep_detections``."""
    try:
        if scorer == "darknet":
            darknet = build_stage.run(project).darknet
            detections = detect_with_darknet(
                darknet, run, weights.path, images.paths, images.sizes_wh
            )
        else:
            detections = detect(run, weights.path, images.paths)
        is_same = files.sha256_of(weights.path) == weights.record["sha256"]
    except FileNotFoundError:
        if weights.path.exists():
            raise
        is_same = False
    if not is_same:
        raise InputFormError(
            "the weights were replaced while they were scored",
            where=str(weights.path),
            remedy=f"Evaluate again, or wait until the training of {run.name} has ended",
        )
    return detections
