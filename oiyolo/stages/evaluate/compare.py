"""evaluate RUN RUN: which of two runs' detectors is better, and whether that is beyond chance.

Writes ``comparison-<second>.json`` and ``comparison-<second>.png`` to the folder of the first run.
"""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import files, records, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import (
    TERMINAL_WIDTH,
    Plan,
    Result,
    format_table,
    format_value,
    images_html,
    pluralize,
)
from oiyolo.darknet import lists
from oiyolo.evaluation.comparison import compare_detections, differing_images
from oiyolo.evaluation.figures import HEADLINES
from oiyolo.evaluation.panels import evaluate_images, save_pairs
from oiyolo.evaluation.summary import choose_thresholds
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import inputs
from oiyolo.stages.evaluate.kept_detections import (
    Images,
    choose_weights,
    find_or_detect,
    has_kept,
    keep_detections,
)
from oiyolo.stages.evaluate.pictures import pictures_of
from oiyolo.stages.evaluate.run_scores import lock_of, remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.evaluation.comparison import ImageDifference
    from oiyolo.evaluation.tables import Detections, GroundTruth
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate.detect import Scorer
    from oiyolo.stages.evaluate.kept_detections import ChosenWeights
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_LISTED_IMAGES: Final = 20
_SHOWN_IMAGES: Final = 5
_DRAWN_IMAGES: Final = 8
_MAX_NAME: Final = 16
"""Longer names of runs are shortened in tables."""


class _Row(TypedDict):
    first: float | None
    second: float | None
    difference: float | None
    interval: list[float] | None
    beyond_chance: bool


class _Side(TypedDict):
    run: str
    weights: dict[str, Any]
    thresholds_from: str
    trained_on: dict[str, Any] | None
    other_classes: list[str]


class _Errors(TypedDict):
    false_positives: int
    false_negatives: int


class _ImageRow(TypedDict):
    image_id: str
    first: _Errors
    second: _Errors


class _Form(TypedDict):
    """The form of ``comparison-<second>.json``."""

    first: _Side
    second: _Side
    better: str | None
    split: str
    scored_with: str
    prepared: dict[str, Any]
    images: int
    images_seen: int
    boxes: int
    further_images: int | None
    map50: _Row
    map50_95: _Row
    openimages_map: _Row
    classes: dict[str, _Row]
    differing_images: int
    most_different: list[_ImageRow]


@dataclass(frozen=True)
class RunsCompared(Result):
    """Two runs' detectors, compared on the same images.

    Attributes:
        path: ``comparison-<second>.json``.
        content: Its content.
        picture: The images on which the detectors differ most; ``None`` if there are none.
    """

    path: Path
    content: Mapping[str, Any]
    picture: Path | None

    def as_dict(self) -> dict[str, object]:
        """Return the content of the file and the paths as JSON-compatible values."""
        picture = None if self.picture is None else str(self.picture)
        return {**self.content, "path": str(self.path), "picture": picture}

    @property
    def verdict(self) -> str:
        """Which run is better, by how much, and whether that is beyond chance."""
        first, second = (self.content[side]["run"] for side in ("first", "second"))
        row = self.content["map50"]
        if row["difference"] is None:
            return f"{first} and {second} cannot be compared: the images have no true boxes."
        by: float = row["difference"]
        low, high = row["interval"] or (math.nan, math.nan)
        if by == low == high == 0:
            return f"{first} and {second} have the same mAP@0.5, {row['first']:.3f}."
        worse, better, score = first, second, row["second"]
        if by < 0:
            worse, better, score = second, first, row["first"]
            low, high, by = -high, -low, -by
        gain = f"mAP@0.5 {score:.3f}, {by:.3f} more"
        if math.isnan(low):
            return (
                f"{better} has the higher score ({gain}), but too few images have boxes to judge."
            )
        gain = f"{gain} (95 % interval of the difference {low:.3f} to {high:.3f})"
        if row["beyond_chance"]:
            return f"{better} is better than {worse} beyond chance: {gain}."
        text = f"{better} scores higher than {worse}, but not beyond chance: {gain}."
        further = self.content["further_images"]
        if further is None:
            return text
        return (
            f"{text} About {pluralize(further, 'more image')} would show a difference of this size."
        )

    def __str__(self) -> str:
        content = self.content
        images, boxes = pluralize(content["images"], "image"), pluralize(content["boxes"], "box")
        paths = ", ".join(str(path) for path in (self.path, self.picture) if path is not None)
        head = (
            f"on {images} of {content['split']} with {boxes}, scored with {content['scored_with']}"
        )
        parts = [self.verdict, head, *self.notes(), "", self._score_table(), ""]
        return "\n".join([*parts, self._image_table(), f"see {paths}"])

    def notes(self) -> list[str]:
        """Return what was scored, and what was left out, line by line."""
        content, notes = self.content, []
        for side in (content["first"], content["second"]):
            weights = side["weights"]
            reason = f" ({weights['reason']})" if weights.get("reason") else ""
            notes.append(
                f"{side['run']}: {weights['path']} of iteration {weights['iteration']:,}{reason}"
            )
            if side["thresholds_from"] != "valid":
                notes.append(f"{side['run']}: score thresholds chosen on these images")
            if side["other_classes"]:
                notes.append(f"{side['run']}: not compared: {', '.join(side['other_classes'])}")
            if side["trained_on"] not in (None, content["prepared"]):
                notes.append(
                    f"{side['run']}: trained on images prepared as "
                    f"{format_value(side['trained_on'])}; these were prepared as "
                    f"{format_value(content['prepared'])}"
                )
        if content["images_seen"]:
            seen = pluralize(content["images_seen"], "image")
            notes.append(f"left out: {seen} of {content['split']} that a run has seen in training")
        return notes

    def _score_table(self) -> str:
        content = self.content
        names = (_shortened(content[side]["run"]) for side in ("first", "second"))
        rows = {label: content[score] for label, score in HEADLINES}
        if len(content["classes"]) > 1:
            rows |= {f"  {name}": row for name, row in content["classes"].items()}
        table = format_table(
            [
                ("", *names, "difference", "95 % interval", ""),
                *((label, *_cells(row)) for label, row in rows.items()),
            ],
            max_width=TERMINAL_WIDTH,
        )
        is_marked = any(row["beyond_chance"] for row in rows.values())
        return table + ("\n* beyond chance: the interval excludes 0" if is_marked else "")

    def _image_table(self) -> str:
        content = self.content
        if not content["differing_images"]:
            return "At their score thresholds, both make the same number of errors in every image."
        first, second = (_shortened(content[side]["run"]) for side in ("first", "second"))
        headings = ("image", f"{first} FP", "FN", f"{second} FP", "FN")
        rows = [
            (
                row["image_id"],
                *(
                    row[side][kind]
                    for side in ("first", "second")
                    for kind in _Errors.__annotations__
                ),
            )
            for row in content["most_different"][:_SHOWN_IMAGES]
        ]
        return (
            f"At their score thresholds, they differ in the number of errors in "
            f"{content['differing_images']:,} of {pluralize(content['images'], 'image')}, most "
            f"in:\n{format_table([headings, *rows])}"
        )

    def _repr_html_(self) -> str:
        pictures = [] if self.picture is None else [self.picture]
        return super()._repr_html_() + images_html(pictures)


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 5]}…{name[-4:]}"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a score: of both runs, their difference, its interval, and a mark."""
    scores = ("-" if row[side] is None else f"{row[side]:.3f}" for side in ("first", "second"))
    difference = "-" if row["difference"] is None else f"{row['difference']:+.3f}"
    interval = "-"
    if row["interval"] is not None:
        interval = "{:+.3f} to {:+.3f}".format(*row["interval"])
    return (*scores, difference, interval, "*" if row["beyond_chance"] else "")


@dataclass(frozen=True)
class _Contestant:
    """One of the compared runs.

    Attributes:
        run: The run.
        weights: Its weights.
        class_names: Names of its classes.
        images: The images of the split that it has not seen in training.
        valid: The images of valid that it has not seen in training, if another split is scored.
    """

    run: Run
    weights: ChosenWeights
    class_names: Sequence[str]
    images: Images
    valid: Images

    @property
    def for_thresholds(self) -> Images:
        """The images on which its score thresholds are chosen: valid, if it has any."""
        return self.valid if self.valid.paths else self.images

    def keep(self, project: Project, scorer: Scorer) -> None:
        """Run the network once on all images whose detections are not kept."""
        keep_detections(project, self.run, self.weights, [self.for_thresholds, self.images], scorer)

    def detect(
        self, project: Project, images: Images, scorer: Scorer, shared: Sequence[str]
    ) -> Detections:
        """Return the detections of the shared classes, numbered by their place in the list."""
        detections = find_or_detect(project, self.run, self.weights, images, scorer)
        return detections.of_classes([self.class_names.index(name) for name in shared])

    def side(self, shared: Sequence[str]) -> dict[str, object]:
        """Return what ``comparison-<second>.json`` says about the run."""
        made_from = self.run.record.get("made_from") or {}
        return {
            "run": self.run.name,
            "weights": dict(self.weights.record),
            "thresholds_from": self.for_thresholds.split,
            "trained_on": made_from.get("images"),
            "other_classes": [name for name in self.class_names if name not in shared],
        }


@dataclass(frozen=True)
class _Task:
    """What is to be compared.

    Attributes:
        project: The project.
        sides: Both runs.
        shared: The compared classes.
        image_ids: The images that neither run has seen in training.
        images_seen: Number of images of the split that one of them has seen.
        split: The split.
        scorer: The program that runs the networks.
    """

    project: Project
    sides: tuple[_Contestant, _Contestant]
    shared: Sequence[str]
    image_ids: Sequence[str]
    images_seen: int
    split: str
    scorer: Scorer

    @property
    def path(self) -> Path:
        """The file of the result."""
        first, second = self.sides
        return first.run.folder / f"comparison-{second.run.name}.json"

    @property
    def recipe_path(self) -> Path:
        """The file that says what the result was made from."""
        return self.path.with_name(f".{self.path.stem}-made-from.json")

    @cached_property
    def recipe(self) -> dict[str, object]:
        """What the result is made from."""
        return {
            "split": self.split,
            "weights": [side.weights.record["sha256"] for side in self.sides],
            "the program that runs the networks": self.scorer,
            "the set of images": staleness.fingerprint(list(self.image_ids)),
            "the sizes of the images": [side.images.fingerprint for side in self.sides],
            "the images of valid": [side.valid.fingerprint for side in self.sides],
            "the classes": list(self.shared),
            "the preparation": prepare_stage.prepared_options(self.project),
            "boxes.csv": files.sha256_of(self.project.dataset_folder / "boxes.csv"),
            "version": __version__,
        }

    def truth(self, images: Images) -> GroundTruth:
        """Return the true boxes of the shared classes."""
        names = list(split_stage.load_lists(self.project).class_names)
        truth = inputs.ground_truth(self.project, images.sizes_wh, names)
        return truth.of_classes([names.index(name) for name in self.shared])


def compare_runs(
    project: Project,
    first: Run,
    second: Run,
    *,
    split: str = "test",
    scorer: Scorer = "onnxruntime",
    dry_run: bool = False,
) -> RunsCompared | Plan:
    """Compare the detectors of two runs on the images that neither has seen in training.

    Both are given the images as they are prepared now. Classes that only one of them has are left
    out.

    Args:
        project: The project.
        first: The first run, in whose folder the result is saved.
        second: The second run.
        split: ``test`` or ``valid``.
        scorer: The program that runs the networks.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: It is one run, a run has no weights, the runs have no class in common, or all
            images were seen in training.
        InputFormError: Weights, images or labels are invalid, or the split is empty.
        DarknetError: With darknet: there is none, or it wrote no detections.
    """
    task = _plan(project, first, second, split, scorer)
    found = _find_saved(task)
    if dry_run:
        return Plan("evaluate", [] if found else _actions(task))
    if found is not None:
        _log.info("evaluate: the comparison is up to date")
        return found
    with contextlib.ExitStack() as stack:
        for side in task.sides:
            stack.enter_context(lock_of(side.run))
        for side in task.sides:
            remove_leftovers(side.run)
        written = (task.path, task.path.with_suffix(".png"), task.recipe_path)
        files.remove_abandoned_parts(first.folder, *(path.name for path in written))
        return _compare(task)


def _plan(project: Project, first: Run, second: Run, split: str, scorer: Scorer) -> _Task:
    if first.folder == second.folder:
        raise UsageError("a run cannot be compared with itself", found=first.name)
    of_dataset = split_stage.load_lists(project).class_names
    names = {run.name: inputs.class_names(run) for run in (first, second)}
    shared = [n for n in names[first.name] if n in names[second.name] and n in of_dataset]
    if not shared:
        raise UsageError(
            "the runs and the dataset have no class in common",
            found="; ".join(f"{name}: {', '.join(has)}" for name, has in names.items())
            + f"; dataset: {', '.join(of_dataset)}",
            remedy="Name two runs that detect the same classes",
        )
    paths = inputs.split_paths(project, split)
    has_valid = split != "valid" and bool(split_stage.image_paths(project, "valid"))
    valid_paths = inputs.split_paths(project, "valid") if has_valid else []
    sizes_wh = inputs.sizes_wh([*paths, *valid_paths])
    sides = [
        _Contestant(
            run,
            choose_weights(project, run, None),
            names[run.name],
            _unseen(run, split, paths, sizes_wh),
            _unseen(run, "valid", valid_paths, sizes_wh),
        )
        for run in (first, second)
    ]
    unseen = set(sides[0].images.sizes_wh) & set(sides[1].images.sizes_wh)
    if not unseen:
        raise UsageError(
            f"the runs have seen all images of {split} in training",
            where=str(split_stage.load_lists(project).list_path(split)),
            found=f"{len(paths):,} images, each of which {first.name} or {second.name} has seen",
            remedy="The dataset was split again after training; train new runs for a fair score",
        )
    image_ids = [image_id for image_id in lists.ids_of(paths) if image_id in unseen]
    seen = len(paths) - len(image_ids)
    return _Task(project, (sides[0], sides[1]), shared, image_ids, seen, split, scorer)


def _unseen(
    run: Run, split: str, paths: Sequence[str], sizes_wh: Mapping[str, tuple[int, int]]
) -> Images:
    """Return the images of a split that a run has not seen in training."""
    seen = inputs.seen_ids(run, split)
    kept = [path for path, i in zip(paths, lists.ids_of(paths), strict=True) if i not in seen]
    return Images(split, kept, {image_id: sizes_wh[image_id] for image_id in lists.ids_of(kept)})


def _find_saved(task: _Task) -> RunsCompared | None:
    """Return the saved result; ``None``, with a log line, if it is stale or damaged."""
    reason = staleness.stale_reason(task.recipe_path, task.recipe)
    content = records.find_intact(task.path, _Form)
    picture = task.path.with_suffix(".png")
    if reason is None and content is not None:
        drawn = picture if content["differing_images"] else None
        written = [task.path] if drawn is None else [task.path, drawn]
        if all(staleness.is_intact(task.recipe_path, path) for path in written):
            return RunsCompared(task.path, content, drawn)
    _log.info("evaluate: %s", reason or "the comparison or its picture is missing or damaged")
    return None


def _actions(task: _Task) -> list[str]:
    """Return what ``_compare`` would do, in words."""
    actions = []
    for side in task.sides:
        for images in dict.fromkeys((side.for_thresholds.split, side.images.split)):
            chosen = side.images if images == side.images.split else side.valid
            if not has_kept(task.project, side.run, side.weights, chosen, task.scorer):
                actions.append(
                    f"run {side.weights.path} with {task.scorer} on "
                    f"{pluralize(len(chosen.paths), 'image')} of {chosen.split}"
                )
    first, second = (side.run.name for side in task.sides)
    counted = pluralize(len(task.image_ids), "image")
    return [*actions, f"compare {first} with {second} on {counted}, and write {task.path}"]


def _compare(task: _Task) -> RunsCompared:
    """Compare the detectors, and write the result and the picture."""
    results, detections = [], []
    truth = task.truth(task.sides[0].images).of_images(task.image_ids)
    for side in task.sides:
        chosen = side.for_thresholds
        side.keep(task.project, task.scorer)
        found = side.detect(task.project, chosen, task.scorer, task.shared)
        thresholds = choose_thresholds(found, task.truth(chosen), len(task.shared))
        found = side.detect(task.project, side.images, task.scorer, task.shared)
        detections.append(found.of_images(task.image_ids))
        results.append(evaluate_images(detections[-1], truth, task.shared, thresholds))
    compared = compare_detections(detections[0], detections[1], truth, task.shared)
    differing = differing_images(*results)
    first, second = (side.side(task.shared) for side in task.sides)
    better = {1: second["run"], -1: first["run"]}.get(compared.scores["map50"].better)
    content = {
        "first": first,
        "second": second,
        "better": better,
        "split": task.split,
        "scored_with": task.scorer,
        "prepared": prepare_stage.prepared_options(task.project),
        "images_seen": task.images_seen,
        **compared.to_json(),
        "differing_images": len(differing),
        "most_different": [pair.to_json() for pair in differing[:_LISTED_IMAGES]],
    }
    # From here on, what an earlier call wrote is replaced.
    task.recipe_path.unlink(missing_ok=True)
    picture = _draw(task, differing[:_DRAWN_IMAGES])
    files.write_json(task.path, content)
    written = [task.path] if picture is None else [task.path, picture]
    staleness.write_recipe(task.recipe_path, task.recipe, written)
    return RunsCompared(task.path, content, picture)


def _draw(task: _Task, differing: Sequence[ImageDifference]) -> Path | None:
    """Draw the images on which the detectors differ most; without any, delete an older picture."""
    path = task.path.with_suffix(".png")
    if not differing:
        path.unlink(missing_ok=True)
        return None
    first, second = task.sides
    save_pairs(
        path,
        title=f"{first.run.name} and {second.run.name} differ most on these images",
        names=(first.run.name, second.run.name),
        pairs=[(pair.first, pair.second) for pair in differing],
        pictures=pictures_of(task.project, first.images.paths),
    )
    return path
