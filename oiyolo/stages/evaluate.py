"""evaluate: score the detector on images that were not used in training.

Writes ``runs/<run>/evaluation.json`` and ``runs/<run>/panels/``. The detections come from ``darknet
detector valid`` on the test split.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, overload

import numpy as np

from oiyolo import __version__
from oiyolo.core import files, locks, process, records, staleness
from oiyolo.core.errors import DarknetError, InputFormError, UsageError
from oiyolo.core.results import Plan, Result, format_value, images_html
from oiyolo.darknet import lists
from oiyolo.darknet.build import failures
from oiyolo.darknet.detections import read_detections
from oiyolo.darknet.forks import FINAL_WEIGHTS
from oiyolo.darknet.lists import ImageCheck
from oiyolo.darknet.program import ENVIRONMENT, data_file, valid_command
from oiyolo.evaluation.panels import evaluate_images, save_panels
from oiyolo.evaluation.plots import plot_confusion
from oiyolo.evaluation.summary import Evaluation, evaluate_detections
from oiyolo.evaluation.tables import GroundTruth, verification
from oiyolo.networks.cfg import read
from oiyolo.networks.schedule import schedule_of
from oiyolo.networks.weights import check_weights
from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS, SEPARATOR
from oiyolo.project.keywords import DarknetKeywords, takes_keys
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import build as build_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage
from oiyolo.training.run import BASE_NAME, find_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Unpack

    from oiyolo.darknet.program import Darknet
    from oiyolo.evaluation.tables import Detections, Verified
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

STAGE: Final = "evaluate"
_PREFIX: Final = "found_"
_RESULTS: Final = "results"
_TRAIN_AGAIN: Final = "Restore it from a copy, or train a new run with `oiyolo train --again`"
_RECIPE_NAME: Final = ".evaluated-from.json"
_LOG_NAME: Final = "valid_log.txt"
_WORK_PREFIX: Final = ".evaluate-"
_TIMEOUT_S: Final = 24 * 3600.0


@dataclass(frozen=True)
class Evaluated(Result):
    """A scored detector.

    Attributes:
        run: The run that trained it.
        split: The split on which it was scored.
        weights: The scored weights.
        scored: Record of the scored weights, as in ``evaluation.json``: ``path``, ``sha256`` and
            ``iteration``.
        evaluation: The scores.
        panels: Pictures of the detections, by file name.
    """

    run: Run
    split: str
    weights: Path
    scored: Mapping[str, object]
    evaluation: Evaluation
    panels: Mapping[str, Path]

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "run": self.run.name,
            "split": self.split,
            "weights": dict(self.scored),
            **self.evaluation.to_json(),
            "panels": {name: str(path) for name, path in self.panels.items()},
        }

    def __str__(self) -> str:
        paths = ", ".join(str(p) for p in [self.run.evaluation_path, *self.panels.values()])
        return (
            f"{self.run.name} on {self.split}, {self.scored['path']} of iteration "
            f"{self.scored['iteration']:,}:\n{self.evaluation}\nsee {paths}"
        )

    def _repr_html_(self) -> str:
        return self.evaluation._repr_html_() + images_html(self.panels.values())


class _Options(DarknetKeywords, total=False):
    """Options of ``evaluate`` that do not change the type of its result."""

    run: str | None
    split: Literal["test", "valid"]
    weights: str | Path | None


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
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[_Options]
) -> Evaluated | Plan: ...


@takes_keys("darknet")
def evaluate(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    split: Literal["test", "valid"] = "test",
    weights: str | Path | None = None,
    dry_run: bool = False,
    **options: Unpack[DarknetKeywords],
) -> Evaluated | Plan:
    """Score a run's detector on a split that it was not trained on.

    Args:
        project: An open project or its folder.
        run: The name of a run; by default the latest one.
        split: "test" or "valid".
        weights: A weights file of the run's network; by default the run's final weights.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[darknet]``.

    Raises:
        UsageError: There is no such run or file, the split is empty, or the run has seen its
            images.
        InputFormError: The file is not valid, complete weights of the run's network.
        DarknetError: There is no darknet, or it wrote no detections.
    """
    if split not in SPLITS[1:]:
        raise UsageError(
            f"cannot evaluate on {split!r}",
            expected=" or ".join(SPLITS[1:]),
            remedy="Choose a split that was not used in training",
        )
    opened = open_project(project, options)
    needs = () if weights is not None else (lambda run: run.has_final_weights,)
    target = find_run(opened.runs_folder, run, *needs)
    weights_path, scored = _check_weights(opened, target, weights)
    paths = _unseen_paths(opened, target, split)
    recipe = _recipe(opened, split, scored, paths)
    evaluated = _find_saved(target, split, weights_path, recipe)
    if dry_run:
        action = f"score {weights_path} on {len(paths)} images of {split}"
        return Plan("evaluate", [] if evaluated else [action])
    files.remove_abandoned_parts(target.panels_folder)
    own_names = (_RECIPE_NAME, _LOG_NAME, target.evaluation_path.name)
    files.remove_abandoned_parts(target.folder, *own_names)
    if evaluated is not None:
        _log.info("evaluate: up to date")
        return evaluated
    darknet = build_stage.run(opened).darknet
    # A lock of its own, because weights can be scored while the run is training.
    lock = locks.exclusive(target.folder / ".evaluate.lock", what="the evaluation", operation=STAGE)
    with lock:
        for leftover in target.folder.glob(f"{_WORK_PREFIX}*"):  # of a killed evaluation
            shutil.rmtree(leftover, ignore_errors=True)
        sizes_wh = _sizes_wh(paths)
        detections = _detect(darknet, target, weights_path, paths, sizes_wh)
        # From here on, what an earlier call wrote is replaced.
        (target.folder / _RECIPE_NAME).unlink(missing_ok=True)
        evaluation, panels = _score(opened, target, paths, detections, sizes_wh)
        saved = {"split": split, "weights": scored, **evaluation.to_json()}
        files.write_json(target.evaluation_path, saved)
        staleness.write_recipe(target.folder / _RECIPE_NAME, recipe)
        return Evaluated(target, split, weights_path, scored, evaluation, panels)


def _check_weights(
    project: Project, run: Run, weights: str | Path | None
) -> tuple[Path, dict[str, object]]:
    """Return the weights to score and their record, after validating them for the run's network.

    Raises:
        UsageError: There is no such file.
        InputFormError: The file is not valid, complete weights of the run's network.
    """
    own = run.weights_folder / f"{BASE_NAME}{FINAL_WEIGHTS}"
    path = own if weights is None else Path(weights).absolute()
    retrain = "Run `oiyolo train`, which resumes the run, or choose others with --weights"
    if not path.is_file():
        raise UsageError(
            f"the run {run.name} has no weights to evaluate" if path == own else "no such file",
            where=str(path),
            expected="" if path == own else f"a weights file of the network of {run.name}",
            remedy=retrain if path == own else f"See {run.weights_folder} for the run's own files",
        )
    cfg = read(run.cfg_path)
    try:
        report = check_weights(path, cfg, complete=True)
    except InputFormError as error:
        other = f"Choose complete weights of the network of {run.name}"
        error.remedy = retrain if path == own else other
        raise
    if report.warning:
        _log.warning("evaluate: %s", report.warning)
    shown = path.relative_to(project.folder) if path.is_relative_to(project.folder) else path
    return path, {
        "path": str(shown),
        "sha256": files.sha256_of(path),
        "iteration": report.header.iteration(schedule_of(cfg).batch),
    }


def _recipe(
    project: Project, split: str, scored: Mapping[str, object], paths: Sequence[str]
) -> dict[str, object]:
    return {
        "split": split,
        "weights": scored["sha256"],
        "the set of images": staleness.fingerprint(lists.ids_of(paths)),
        "boxes.csv": files.sha256_of(project.dataset_folder / "boxes.csv"),
        "version": __version__,
    }


def _find_saved(
    run: Run, split: str, weights: Path, recipe: Mapping[str, object]
) -> Evaluated | None:
    """Return the scores saved in the run's folder; ``None``, with a log line, if they are stale."""
    saved = files.read_json(run.evaluation_path)
    reason = staleness.stale_reason(run.folder / _RECIPE_NAME, recipe)
    panels = {path.name: path for path in sorted(run.panels_folder.glob("*.png"))}
    if reason is None and saved is not None and panels:
        try:
            evaluation = Evaluation.from_json(saved)
        except ValueError as error:
            reason = f"{run.evaluation_path.name} is damaged: {error}"
        else:
            scored = saved.get("weights")
            if isinstance(scored, dict) and "map50_interval" in saved:
                return Evaluated(run, split, weights, scored, evaluation, panels)
            reason = "an older version left out figures"
    _log.info("evaluate: %s", reason or "scores or panels are missing")
    return None


def _class_names(run: Run) -> list[str]:
    return records.read_lines(run.folder / "obj.names", remedy=_TRAIN_AGAIN)


def _unseen_paths(project: Project, run: Run, split: str) -> list[str]:
    """Return the paths of the split's images.

    Raises:
        UsageError: The split is empty, the classes differ from the run's, or the run has seen
            some of the images.
        InputFormError: An image or a label is missing or damaged.
    """
    dataset = split_stage.load(project)
    names = _class_names(run)
    if names != list(dataset.class_names):
        raise UsageError(
            f"the classes of the dataset differ from those of the run {run.name}",
            where=str(run.folder / "obj.names"),
            expected=", ".join(names),
            found=", ".join(dataset.class_names),
            remedy="Train a new run, or restore the classes of this one",
        )
    list_path = dataset.list_path(split)
    paths = split_stage.image_paths(project, split)
    if not paths:
        raise UsageError(
            f"the {split} split has no images",
            where=str(list_path),
            remedy=f"Set [split] {split} above 0, or fetch more images",
        )
    seen = set(run.image_ids("train"))
    if split == "test":
        seen |= set(run.image_ids("valid"))
    if overlap := seen.intersection(lists.ids_of(paths)):
        raise UsageError(
            f"the run {run.name} has seen {len(overlap)} images of {split}",
            where=str(list_path),
            found=f"for example {min(overlap)}",
            remedy="The dataset was split again after training; train a new run for a fair score",
        )
    image_bytes = prepare_stage.prepared_bytes(project)
    ImageCheck(len(names), image_bytes=image_bytes).require(paths, list_path)
    trained_on = (run.record.get("made_from") or {}).get("images")
    if trained_on != (now := prepare_stage.prepared_options(project)):
        _log.warning(
            "evaluate: %s was trained on images prepared as %s, but these were prepared as %s",
            run.name,
            format_value(trained_on),
            format_value(now),
        )
    return paths


def _detect(
    darknet: Darknet,
    run: Run,
    weights: Path,
    paths: Sequence[str],
    sizes_wh: Mapping[str, tuple[int, int]],
) -> Detections:
    """Return darknet's detections, which it writes to a temporary folder in the run's folder."""
    class_count = len(_class_names(run))
    with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=run.folder) as name:
        folder = Path(name)
        # Debian's darknet crashes if the results folder is missing.
        (folder / _RESULTS).mkdir()
        (folder / "list.txt").write_text("".join(f"{path}\n" for path in lists.pad(paths)))
        # Numbers instead of names, because darknet uses them as file names.
        (folder / "numbers.names").write_text("".join(f"{n}\n" for n in range(class_count)))
        (folder / "obj.data").write_text(
            data_file(
                class_count=class_count,
                train="list.txt",
                valid="list.txt",
                names="numbers.names",
                backup=_RESULTS,
                results=_RESULTS,
            )
        )
        shutil.copyfile(run.cfg_path, folder / run.cfg_path.name)
        argv = valid_command(
            darknet,
            data="obj.data",
            cfg=run.cfg_path.name,
            weights=os.path.relpath(weights, folder),
            prefix=_PREFIX,
        )
        finished = process.run(argv, cwd=folder, environment=ENVIRONMENT, timeout_s=_TIMEOUT_S)
        files.write_text(run.folder / _LOG_NAME, finished.output)
        try:
            return read_detections(
                folder / _RESULTS,
                class_count=class_count,
                prefix=_PREFIX,
                image_sizes_wh=sizes_wh,
            )
        except DarknetError as error:
            raise failures.explained_error(
                f"darknet wrote no detections ({finished.exit_description})",
                finished.output,
                where=str(run.folder / _LOG_NAME),
                remedy="Read this log, and check that the weights belong to the run's network",
                exit_code=finished.exit_code,
                is_built=darknet.is_built,
            ) from error


def _sizes_wh(paths: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the width and height of each image in pixels, by its id."""
    from PIL import Image  # noqa: PLC0415  (only sizes are read)

    sizes_wh = {}
    for path in paths:
        with Image.open(path) as image:
            sizes_wh[Path(path).stem] = image.size
    return sizes_wh


def _score(
    project: Project,
    run: Run,
    paths: Sequence[str],
    detections: Detections,
    sizes_wh: Mapping[str, tuple[int, int]],
) -> tuple[Evaluation, dict[str, Path]]:
    """Compute the scores and write the panels; return both."""
    image_ids, class_names = detections.image_ids, _class_names(run)
    truth = _truth(project, sizes_wh, class_names)
    evaluation = evaluate_detections(detections, truth, class_names)
    original_sizes_wh = {}
    if prepare_stage.prepared_options(project)["fit"] == "stretch":
        with project.ledger(read_only=True) as ledger:
            original_sizes_wh = prepare_stage.source_sizes_wh(ledger, *SPLITS)
    panels = save_panels(
        run.panels_folder,
        image_paths=dict(zip(image_ids, map(Path, paths), strict=True)),
        results=evaluate_images(detections, truth, class_names, evaluation.score_thresholds),
        original_sizes_wh=original_sizes_wh,
    )
    panels = {**panels, **_save_confusion(run, evaluation)}
    return evaluation, panels


def _save_confusion(run: Run, evaluation: Evaluation) -> dict[str, Path]:
    """Draw the confusion matrix; return its file by name."""
    from oiyolo.charts import canvas  # noqa: PLC0415  (slow to import)

    side_px = min(800 + 60 * len(evaluation.classes), 2000)
    figure = canvas.new_figure((side_px, side_px))
    plot_confusion(evaluation, ax=figure.subplots())
    png, _ = canvas.save(figure, run.panels_folder, "confusion")
    return {png.name: png}


def _truth(
    project: Project, sizes_wh: Mapping[str, tuple[int, int]], class_names: Sequence[str]
) -> GroundTruth:
    """Return the true boxes of images, which are given with their width and height in pixels."""
    image_ids = tuple(sizes_wh)
    boxes = prepare_stage.boxes_table(project)
    boxes = boxes[boxes["ImageID"].isin(image_ids)]
    group_of = np.zeros(len(boxes), dtype=bool)
    if FLAG_COLUMNS["group_of"] in boxes:
        group_of = boxes[FLAG_COLUMNS["group_of"]].to_numpy() == 1
    # A group box that was not used in training still counts, so that a detection there is no false
    # positive.
    counted = boxes["used"].to_numpy(dtype=bool) | group_of
    boxes, group_of = boxes[counted], group_of[counted]
    return GroundTruth.from_rows(
        image_ids,
        box_image_ids=boxes["ImageID"],
        class_id=boxes["class_id"],
        xyxy=boxes[list(CORNERS)],
        group_of=group_of,
        verified=_verified(project, image_ids, class_names),
        sizes_wh=[*sizes_wh.values()],
        # Group-of boxes are regions, which are not scored one by one.
        attributes={
            name: boxes[column].to_numpy() == 1
            for name, column in FLAG_COLUMNS.items()
            if column in boxes and name != "group_of"
        },
    )


def _verified(project: Project, image_ids: Sequence[str], class_names: Sequence[str]) -> Verified:
    images = select_stage.load(project).images
    images = images[images["ImageID"].isin(image_ids)]

    def pairs(column: str) -> list[tuple[str, int]]:
        rows = zip(images["ImageID"], images[column], strict=True)
        return [(i, class_names.index(n)) for i, names in rows for n in names.split(SEPARATOR) if n]

    return verification(
        image_ids, len(class_names), present=pairs("present"), absent=pairs("absent")
    )
