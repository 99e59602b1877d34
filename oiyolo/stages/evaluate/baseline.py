"""The baseline: a detector that was not trained for this task, scored on the same images.

It says what training gained or, before any training, what can be had without. Its detections do not
depend on a run, so they are kept in ``data/baseline/<split>/``: later evaluations on the same
images compare with them without running it again.
"""

from __future__ import annotations

import itertools
import logging
import math
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import files, locks, records, staleness
from oiyolo.core.results import TERMINAL_WIDTH, Result, pluralize, text_html
from oiyolo.core.units import format_bytes
from oiyolo.evaluation.coco_results import read_results, write_results
from oiyolo.evaluation.comparison import Difference, compare_detections
from oiyolo.evaluation.figures import (
    HEADLINES,
    from_json,
    interval_from_json,
    interval_to_json,
    to_json,
)
from oiyolo.evaluation.summary import (
    evaluate_detections,
    format_score,
    images_to_halve,
    is_small_sample,
    small_sample_note,
)
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import inputs
from oiyolo.stages.evaluate.baseline_detector import (
    detect_as,
    known_digests,
    match_dataset,
    open_detector,
)
from oiyolo.stages.evaluate.kept_detections import Images
from oiyolo.training.published_detectors import find_detector, missing_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.evaluation.figures import Interval
    from oiyolo.evaluation.tables import Detections, GroundTruth
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate.kept_detections import Scored

    _Found = tuple["Baseline", Detections]
    """A baseline and what it detects, with the classes of the dataset."""

_log = logging.getLogger("oiyolo")

_FOLDER: Final = "baseline"
_NAME: Final = "baseline.json"
_DETECTIONS: Final = "detections.json"
_RECIPE: Final = ".detected-from.json"


class _Form(TypedDict):
    """The form of ``baseline.json`` that is relied on."""

    name: str
    source: str
    sha256: str
    classes: dict[str, list[str]]
    nearest: list[str]


@dataclass(frozen=True)
class Baseline(Result):
    """The scores of a detector that was not trained for this task.

    Attributes:
        name: Its name.
        source: URL of its weights, or path of the model.
        sha256: SHA-256 of its weights.
        split: The split on which it was scored.
        images: Number of images.
        boxes: Number of true boxes.
        classes: Its classes that count as each class of the dataset.
        nearest: Classes of the dataset that it does not know; those that count as them are the
            nearest in Open Images' hierarchy.
        scores: ``map50``, ``map50_95`` and ``openimages_map``; NaN if undefined, likewise below.
        intervals: 95 % interval of each score.
        class_map50: ``map50`` of each class of the dataset.
        path: The file with the scores.
        difference: By how much the mAP@0.5 of a run's detector exceeds it; ``None`` without one.
    """

    name: str
    source: str
    sha256: str
    split: str
    images: int
    boxes: int
    classes: Mapping[str, Sequence[str]]
    nearest: Sequence[str]
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    class_map50: Mapping[str, float]
    path: Path
    difference: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the value of ``baseline`` in ``evaluation.json``: NaN as null."""
        value: dict[str, Any] = {
            "name": self.name,
            "source": self.source,
            "sha256": self.sha256,
            "classes": {name: list(theirs) for name, theirs in self.classes.items()},
            "nearest": list(self.nearest),
        }
        for _, key in HEADLINES:
            value[key] = to_json(self.scores[key])
            value[f"{key}_interval"] = interval_to_json(self.intervals[key])
        value["class_map50"] = {name: to_json(score) for name, score in self.class_map50.items()}
        if self.difference is not None:
            value["difference"] = {
                "map50": to_json(self.difference.value),
                "interval": interval_to_json(self.difference.interval),
                "beyond_chance": self.difference.is_beyond_chance,
            }
        return value

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        counts = {"images": self.images, "boxes": self.boxes}
        return {"split": self.split, **counts, **self.to_json()}

    def _lines(self) -> list[str]:
        """Return the result line by line, on its own or for use below the scores of a run."""
        width = max(len(label) for label, _ in HEADLINES)
        lines = [f"baseline {self.name}, which was not trained for this task:"]
        lines += [f"{label:<{width}}  {self._score_text(key)}" for label, key in HEADLINES]
        if self.difference is not None:
            lines.append(_difference_text(self.difference))
        else:
            images = pluralize(self.images, "image")
            lines.append(f"on {images} of {self.split} with {pluralize(self.boxes, 'box')}")
            if self._is_small_sample:
                further = images_to_halve(self.images)
                lines.append(small_sample_note(self.intervals["map50"], further))
        lines += self._mapping_lines()
        return lines if self.difference is not None else [*lines, f"see {self.path}"]

    def __str__(self) -> str:
        filled = (
            textwrap.wrap(line, TERMINAL_WIDTH, subsequent_indent="  ", break_long_words=False)
            for line in self._lines()
        )
        return "\n".join(itertools.chain.from_iterable(filled))

    def _mapping_lines(self) -> list[str]:
        """Return what counts as each class of the dataset, in words."""
        lines = []
        for name, theirs in self.classes.items():
            if list(theirs) == [name.casefold()]:
                continue
            why = " (the nearest classes that it knows)" if name in self.nearest else ""
            lines.append(
                f"counted as {name}: {', '.join(theirs) or 'nothing'}{why if theirs else ''}"
            )
        owners: dict[str, list[str]] = {}
        for name, theirs in self.classes.items():
            for other in theirs:
                owners.setdefault(other, []).append(name)
        shared = {other: names for other, names in owners.items() if len(names) > 1}
        if shared:
            listed = "; ".join(f"{other} as {' and '.join(n)}" for other, n in shared.items())
            lines.append(f"counted more than once: {listed}")
        return lines

    def _score_text(self, key: str) -> str:
        return format_score(
            self.scores[key], self.intervals[key], is_small_sample=self._is_small_sample
        )

    @property
    def _is_small_sample(self) -> bool:
        return is_small_sample(self.images, self.boxes, self.intervals["map50"])

    def _repr_html_(self) -> str:
        return text_html(*(" ".join(line.split()) for line in self._lines()))


@dataclass(frozen=True)
class _Task:
    """What a baseline is scored on.

    Attributes:
        images: The images of a split.
        truth: Their boxes.
        class_names: Names of the classes.
    """

    images: Images
    truth: GroundTruth
    class_names: Sequence[str]

    @classmethod
    def on_split(cls, project: Project, split: str) -> _Task:
        """Return the task for a split of the dataset."""
        paths = inputs.split_paths(project, split)
        images = Images(split, paths, inputs.sizes_wh(paths))
        names = list(split_stage.load(project).class_names)
        return cls(images, inputs.ground_truth(project, images.sizes_wh, names), names)

    @classmethod
    def of(cls, scored: Scored) -> _Task:
        """Return the task for the images of a run's detections."""
        return cls(scored.images, scored.truth, scored.class_names)


def plan(project: Project, choice: str | Path, split: str) -> list[str]:
    """Return what scoring a baseline would do, in words; nothing is downloaded.

    Raises:
        UsageError: There is no such baseline or file.
        InputFormError: An image or a label is missing or damaged.
    """
    digests = known_digests(project, choice)
    task = _Task.on_split(project, split)
    record = _kept_record(project, task)
    if record is not None and record["sha256"] in digests:
        return []
    actions = []
    if isinstance(choice, str):
        missing = missing_files(find_detector(choice), project.cache_folder)
        if missing:
            size = format_bytes(sum(file.size_bytes for file in missing))
            names = ", ".join(file.name for file in missing)
            actions.append(f"download {names} ({size}) for the baseline {choice}")
    counted = pluralize(len(task.images.paths), "image")
    return [*actions, f"score the baseline {choice} on {counted} of {split}"]


def score_baseline(project: Project, scored: Scored, choice: str | Path) -> Baseline:
    """Score a detector that was not trained for this task, and compare a run's detector with it.

    Args:
        project: The project.
        scored: The run's detections.
        choice: Name of a published detector, or the path of a model in ONNX.

    Raises:
        UsageError: There is no such baseline or file, or it detects nothing near to the classes.
        UnavailableError: A file of it is not in the cache and cannot be downloaded.
        InputFormError: A file or an image is damaged.
    """
    return _compare(_score(project, _Task.of(scored), choice), scored)


def find_baseline(project: Project, scored: Scored) -> Baseline | None:
    """Return the baseline that was scored last, if it was on the same images; else ``None``.

    Args:
        project: The project.
        scored: Detections of a run, with which it is compared.
    """
    found = _find(project, _Task.of(scored))
    return None if found is None else _compare(found, scored)


def score_alone(project: Project, choice: str | Path, split: str) -> Baseline:
    """Score a detector that was not trained for this task, without a run to compare with.

    Arguments and errors are those of ``score_baseline``.
    """
    return _score(project, _Task.on_split(project, split), choice)[0]


def saved_baseline(project: Project, evaluation: Mapping[str, Any]) -> Baseline | None:
    """Return the baseline in a valid ``evaluation.json``; ``None`` if it has none."""
    value = evaluation.get("baseline")
    if value is None:
        return None
    map50 = from_json(value["map50"])
    difference = value["difference"]
    interval = interval_from_json(difference["interval"])
    return Baseline(
        **{key: value[key] for key in ("name", "source", "sha256", "classes", "nearest")},
        split=evaluation["split"],
        images=evaluation["images"],
        boxes=evaluation["boxes"],
        scores={key: from_json(value[key]) for _, key in HEADLINES},
        intervals={key: interval_from_json(value[f"{key}_interval"]) for _, key in HEADLINES},
        class_map50={name: from_json(score) for name, score in value["class_map50"].items()},
        path=project.data_folder / _FOLDER / evaluation["split"] / _NAME,
        difference=Difference(map50, map50 + from_json(difference["map50"]), interval),
    )


def is_choice(project: Project, baseline: Baseline | None, choice: str | Path | None) -> bool:
    """Return whether a baseline is the chosen one; any is, and none, without a choice.

    Raises:
        UsageError: There is no such baseline or file.
    """
    if choice is None:
        return True
    digests = known_digests(project, choice)
    return baseline is not None and baseline.sha256 in digests


def _compare(found: _Found, scored: Scored) -> Baseline:
    """Return a baseline with its difference to a run's detections in the same images."""
    baseline, detections = found
    comparison = compare_detections(detections, scored.detections, scored.truth, scored.class_names)
    return replace(baseline, difference=comparison.scores["map50"])


def _score(project: Project, task: _Task, choice: str | Path) -> _Found:
    """Return the scores of a baseline, whose detections are kept, after detecting if need be."""
    digests = known_digests(project, choice)
    folder = _folder(project, task)
    lock = folder / ".lock"
    with locks.exclusive(lock, what="the baseline", operation="evaluate", wait=True):
        files.remove_abandoned_parts(folder, _NAME, _DETECTIONS, _RECIPE)
        found = _find(project, task)
        if found is None or found[0].sha256 not in digests:
            return _detect(project, task, choice)
    _log.info("evaluate: the detections of the baseline are up to date")
    return found


def _find(project: Project, task: _Task) -> _Found | None:
    """Return the baseline whose detections are kept; ``None`` if they are stale or damaged."""
    record = _kept_record(project, task)
    return None if record is None else _read(_folder(project, task), record, task)


def _kept_record(project: Project, task: _Task) -> dict[str, Any] | None:
    """Return the content of ``baseline.json`` if it and the detections are up to date."""
    folder = _folder(project, task)
    record = records.find_intact(folder / _NAME, _Form)
    recipe_path = folder / _RECIPE
    if record is None or staleness.stale_reason(recipe_path, _recipe(project, task)):
        return None
    is_intact = (staleness.is_intact(recipe_path, folder / name) for name in (_NAME, _DETECTIONS))
    return record if all(is_intact) else None


def _folder(project: Project, task: _Task) -> Path:
    return project.data_folder / _FOLDER / task.images.split


def _detect(project: Project, task: _Task, choice: str | Path) -> _Found:
    """Run the detector of a baseline, and write what it finds and its scores."""
    opened = open_detector(project, choice)
    names = opened.detector.names
    matches = match_dataset(project, task.class_names, names)
    detections = detect_as(opened.detector, [*matches.values()], task.images.paths)
    record = {
        "name": opened.name,
        "source": opened.source,
        "sha256": opened.sha256,
        "classes": {own: [names[i] for i in match.class_ids] for own, match in matches.items()},
        "nearest": [own for own, match in matches.items() if not match.is_same],
    }
    folder = _folder(project, task)
    # From here on, what an earlier call wrote is replaced.
    (folder / _RECIPE).unlink(missing_ok=True)
    write_results(folder / _DETECTIONS, detections, task.images.sizes_wh)
    found = _read(folder, record, task)
    path = folder / _NAME
    files.write_json(path, found[0].as_dict())
    written = [path, folder / _DETECTIONS]
    staleness.write_recipe(folder / _RECIPE, _recipe(project, task), written)
    return found


def _recipe(project: Project, task: _Task) -> dict[str, object]:
    """Return what the detections of a baseline are made from, besides the detector."""
    labels = select_stage.load(project).summary["labels"]
    return {
        "the set of images": task.images.fingerprint,
        "the preparation": prepare_stage.prepared_options(project),
        "boxes.csv": files.sha256_of(project.dataset_folder / "boxes.csv"),
        "the labels of the classes": [labels.get(name) for name in task.class_names],
        "version": __version__,
    }


def _read(folder: Path, record: Mapping[str, Any], task: _Task) -> _Found:
    """Return the scores of the detections that are kept in a folder, and these."""
    detections = read_results(folder / _DETECTIONS, list(task.images.sizes_wh))
    evaluation = evaluate_detections(detections, task.truth, task.class_names)
    baseline = Baseline(
        **{key: record[key] for key in ("name", "source", "sha256", "classes", "nearest")},
        split=task.images.split,
        images=evaluation.images,
        boxes=evaluation.boxes,
        scores={key: getattr(evaluation, key) for _, key in HEADLINES},
        intervals={key: getattr(evaluation, f"{key}_interval") for _, key in HEADLINES},
        class_map50={row.name: row.map50 for row in evaluation.classes},
        path=folder / _NAME,
    )
    return baseline, detections


def _difference_text(difference: Difference) -> str:
    if math.isnan(difference.value):
        return "the difference to the run's detector is undefined"
    is_better = difference.value >= 0
    which = "better" if is_better else "worse"
    text = f"the run's detector is {which} by {abs(difference.value):.3f} mAP@0.5"
    low, high = difference.interval if is_better else (-x for x in reversed(difference.interval))
    if math.isnan(low):
        return text
    chance = "beyond chance" if difference.is_beyond_chance else "which may be chance"
    return f"{text} (95 % interval {low:.3f} to {high:.3f}), {chance}"
