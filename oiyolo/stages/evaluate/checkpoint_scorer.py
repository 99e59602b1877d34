"""Score a checkpoint on the run's own valid list and on a fixed sample of its train list.

The scores are in ``runs/<run>/checkpoint_scores.json``. A process that scores while the run trains
and one that scores all checkpoints may both add to it at the same time.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict

import numpy as np

from oiyolo.core import files, locks, records, staleness
from oiyolo.core.errors import InputFormError
from oiyolo.core.results import pluralize
from oiyolo.darknet import lists
from oiyolo.evaluation.average_precision import average_precision, class_curve, mean_over_classes
from oiyolo.evaluation.bootstrap import image_weights, interval, resampled_map50
from oiyolo.evaluation.figures import (
    from_json,
    interval_from_json,
    interval_to_json,
    to_json,
)
from oiyolo.evaluation.matching import match
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.weights import check_weights
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages.evaluate import detect, inputs
from oiyolo.trainlog.scores import CheckpointScore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from oiyolo.evaluation.tables import Detections, Floats, GroundTruth
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

MAX_TRAIN_IMAGES: Final = 300
"""Number of images in the sample of the train list, at most."""
_METHOD: Final = 1
"""Number of the way of scoring: another one makes other scores."""
_MAX_EXAMPLES: Final = 3
_ENDS: Final = 2
"""Number of ends of an interval."""


class _ScoreForm(TypedDict):
    iteration: int
    path: str
    sha256: str
    valid_map50: float
    valid_map50_interval: list[float] | None
    train_map50: float | None
    seconds: float


class BestAgainstLast(TypedDict):
    """Interval by which the best checkpoint exceeds the last, in ``checkpoint_scores.json``."""

    best: str
    last: str
    interval: list[float] | None


class _OptionalForm(TypedDict, total=False):
    best_against_last: BestAgainstLast


class ScoresForm(_OptionalForm):
    """The form of ``checkpoint_scores.json``."""

    valid_images: int
    train_images: int
    made_from: dict[str, Any]
    checkpoints: list[_ScoreForm]


@dataclass(frozen=True)
class ScoredCheckpoint:
    """The scores of a checkpoint.

    Attributes:
        iteration: Its iteration.
        path: Its file when it was scored, relative to the project's folder if it is in it.
        sha256: SHA-256 of the file.
        valid_map50: mAP@0.5 on the valid list.
        valid_map50_interval: 95 % interval of it; NaN if there is none.
        train_map50: mAP@0.5 on the sample of the train list; NaN if these images have no boxes.
        seconds: Time that it took.
    """

    iteration: int
    path: str
    sha256: str
    valid_map50: float
    valid_map50_interval: tuple[float, float]
    train_map50: float
    seconds: float

    @property
    def plotted(self) -> CheckpointScore:
        """The scores for a chart."""
        return CheckpointScore(
            self.iteration, self.valid_map50, self.train_map50, self.valid_map50_interval
        )

    def to_json(self) -> dict[str, object]:
        """Return the entry of ``checkpoint_scores.json``."""
        return {
            "iteration": self.iteration,
            "path": self.path,
            "sha256": self.sha256,
            "valid_map50": self.valid_map50,
            "valid_map50_interval": interval_to_json(self.valid_map50_interval),
            "train_map50": to_json(self.train_map50),
            "seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ScoredCheckpoint:
        """Return the scores in an entry of ``checkpoint_scores.json``."""
        return cls(
            entry["iteration"],
            entry["path"],
            entry["sha256"],
            entry["valid_map50"],
            interval_from_json(entry["valid_map50_interval"]),
            from_json(entry["train_map50"]),
            entry["seconds"],
        )


@dataclass(frozen=True)
class ScoreRecord:
    """A scored checkpoint with the images that it was scored on.

    Attributes:
        score: The scores.
        valid_images: Number of images of the valid list.
        train_images: Number of images in the sample of the train list.
        made_from: What the scores depend on besides the checkpoint.
    """

    score: ScoredCheckpoint
    valid_images: int
    train_images: int
    made_from: Mapping[str, object]


class CheckedWeights(NamedTuple):
    """Valid weights of a run.

    Attributes:
        path: The file.
        iteration: Their iteration.
        identity: Changes if the file is written to.
    """

    path: Path
    iteration: int
    identity: tuple[int, int, int]


def train_sample_paths(project: Project, run: Run) -> list[str]:
    """Return the images of a fixed sample of the run's train list.

    It has as many images as the valid list, at most 300: those whose ids have the smallest hashes,
    so that it does not depend on the order of the list.
    """
    count = min(MAX_TRAIN_IMAGES, len(set(run.image_ids("valid"))))
    ids = sorted(set(run.image_ids("train")), key=_hash_of)
    return _paths(project, sorted(ids[:count]))


def _hash_of(image_id: str) -> bytes:
    return hashlib.sha256(image_id.encode()).digest()


def _paths(project: Project, ids: Sequence[str]) -> list[str]:
    return [f"{project.objects_folder}/{image_id}.jpg" for image_id in ids]


class CheckpointScorer:
    """Scores the checkpoints of a run.

    Args:
        project: The project.
        run: The run.
        threads: Number of the processor's threads that work at the same time; by default one per
            core.

    Attributes:
        truth: Ground truth of the valid list.

    Raises:
        UsageError: The classes of the dataset differ from those of the run.
        InputFormError: The valid list has no images or no boxes, or images do not exist any more.
    """

    def __init__(self, project: Project, run: Run, *, threads: int | None = None) -> None:
        self._project, self._run, self._threads = project, run, threads
        self._cfg = cfg_file.read(run.cfg_path)
        self._class_names = inputs.class_names(run)
        valid_paths = _paths(project, sorted(set(run.image_ids("valid"))))
        train_paths = train_sample_paths(project, run)
        _require_images(run, valid_paths, train_paths)
        self._paths = [*valid_paths, *train_paths]
        sizes_wh = inputs.sizes_wh(self._paths)
        truth = inputs.ground_truth(project, sizes_wh, self._class_names, labels=False)
        self.truth = truth.of_images(lists.ids_of(valid_paths))
        self._train_truth = truth.of_images(lists.ids_of(train_paths))
        _require_boxes(project, truth, self._paths)
        if self.truth.is_region.all():
            raise InputFormError(
                f"the valid list of the run {run.name} has no boxes to score",
                where=str(run.folder / "valid.txt"),
                expected="at least one box",
                found=f"none in {pluralize(len(valid_paths), 'image')}",
            )
        self.made_from: dict[str, object] = {
            "valid": _fingerprint(self.truth),
            "train": _fingerprint(self._train_truth),
            "classes": staleness.fingerprint(self._class_names),
            "images": prepare_stage.prepared_options(project),
            "method": _METHOD,
        }

    def check(self, weights_path: Path) -> CheckedWeights:
        """Return weights with their iteration.

        Raises:
            UsageError: The file was removed.
            InputFormError: It is not complete, finite weights of the run's network.
            OSError: The file was removed in the meantime.
        """
        identity = _identity(weights_path)
        report = check_weights(weights_path, self._cfg, complete=True)
        iteration = report.header.iteration(self._cfg.net.integer("batch", 1))
        return CheckedWeights(weights_path, iteration, identity)

    def score(
        self, weights: CheckedWeights, *, what: str = "evaluate"
    ) -> tuple[ScoreRecord, Floats]:
        """Return the scores of a checkpoint, and what ``resample`` returns of it.

        Args:
            weights: The checkpoint.
            what: What the progress is called.

        Raises:
            InputFormError: An image is damaged.
            OSError: The file was removed, or written to since it was checked.
        """
        started_s = time.monotonic()
        digest = files.sha256_of(weights.path)
        detections = self._detect(weights.path, self._paths, what)
        if _identity(weights.path) != weights.identity:
            why = "the weights were written to while they were scored"
            raise OSError(errno.EBUSY, why, str(weights.path))
        of_valid = detections.of_images(self.truth.image_ids)
        of_train = detections.of_images(self._train_truth.image_ids)
        valid_map50, values = self._map50(of_valid, self.truth), self._resample(of_valid)
        score = ScoredCheckpoint(
            iteration=weights.iteration,
            path=self.shown_path(weights.path),
            sha256=digest,
            valid_map50=valid_map50,
            valid_map50_interval=interval(values, valid_map50, images=self.images_with_boxes),
            train_map50=self._map50(of_train, self._train_truth),
            seconds=time.monotonic() - started_s,
        )
        return ScoreRecord(score, *self.image_counts, self.made_from), values

    def shown_path(self, path: Path) -> str:
        """Return a path as it is recorded: relative to the project's folder if it is in it."""
        is_inside = path.is_relative_to(self._project.folder)
        return str(path.relative_to(self._project.folder) if is_inside else path)

    @property
    def image_counts(self) -> tuple[int, int]:
        """Number of images of the valid list, and in the sample of the train list."""
        return len(self.truth.image_ids), len(self._train_truth.image_ids)

    @property
    def saved_scores(self) -> list[ScoredCheckpoint]:
        """The scores that were made from the same images and boxes, by iteration."""
        content = read_scores(self._run, self.made_from) or {}
        return [ScoredCheckpoint.from_json(entry) for entry in content.get("checkpoints", ())]

    def resample(self, weights_path: Path) -> Floats:
        """Return a checkpoint's mAP@0.5 on each bootstrap resample of valid, shape (resamples,).

        The resamples of all checkpoints are the same, so that differences can be computed.
        """
        paths = self._paths[: len(self.truth.image_ids)]
        return self._resample(self._detect(weights_path, paths, "comparison"))

    @property
    def images_with_boxes(self) -> int:
        """Number of images of the valid list that have boxes to find."""
        return len(np.unique(self.truth.image[~self.truth.is_region]))

    def _detect(self, weights_path: Path, paths: Sequence[str], what: str) -> Detections:
        return detect.detect(self._run, weights_path, paths, threads=self._threads, what=what)

    def _resample(self, detections: Detections) -> Floats:
        weights = image_weights(self.truth.image_ids)
        return resampled_map50(detections, self.truth, len(self._class_names), weights)

    def _map50(self, detections: Detections, truth: GroundTruth) -> float:
        matches = match(detections, truth)
        class_ids = range(len(self._class_names))
        curves = (class_curve(matches, detections, truth, class_id) for class_id in class_ids)
        return mean_over_classes(np.array([average_precision(*curve) for curve in curves]))


def score_checkpoint(
    project: Project, run: Run, weights_path: Path, *, threads: int | None = None
) -> ScoreRecord:
    """Return the scores of one checkpoint; arguments and errors as for ``CheckpointScorer``.

    Raises:
        InputFormError: The weights are not complete, finite weights of the run's network, or an
            image is damaged.
        OSError: The file was removed, or written to in the meantime.
    """
    scorer = CheckpointScorer(project, run, threads=threads)
    return scorer.score(scorer.check(weights_path))[0]


def add_score(run: Run, record: ScoreRecord) -> None:
    """Add scores to ``checkpoint_scores.json``; those of the same iteration are replaced.

    Scores that were made from other images or boxes are dropped, with a line in the log.
    """
    with _lock(run):
        content = read_scores(run, record.made_from)
        if content is None and run.scores_path.exists():
            _log.info("evaluate: %s", _why_dropped(run, record.made_from))
        entries = {entry["iteration"]: entry for entry in (content or {}).get("checkpoints", ())}
        entries[record.score.iteration] = record.score.to_json()
        new = {
            **(content or {}),
            "valid_images": record.valid_images,
            "train_images": record.train_images,
            "made_from": record.made_from,
            "checkpoints": [entries[iteration] for iteration in sorted(entries)],
        }
        files.write_json(run.scores_path, new)


def drop_later_scores(run: Run, iteration: int) -> None:
    """Drop the scores of checkpoints after an iteration, from which the run is trained again."""
    if not run.scores_path.exists():
        return
    with _lock(run):
        content = _find_intact(run)
        if content is None:
            return
        entries = [entry for entry in content["checkpoints"] if entry["iteration"] <= iteration]
        if len(entries) < len(content["checkpoints"]):
            files.write_json(run.scores_path, {**content, "checkpoints": entries})


def add_comparison(run: Run, made_from: Mapping[str, object], comparison: BestAgainstLast) -> None:
    """Add how the best checkpoint compares with the last to ``checkpoint_scores.json``."""
    with _lock(run):
        content = read_scores(run, made_from)
        if content is not None:
            files.write_json(run.scores_path, {**content, "best_against_last": comparison})


def _lock(run: Run) -> AbstractContextManager[None]:
    lock_path = run.folder / ".checkpoint_scores.lock"
    return locks.exclusive(lock_path, what="the scores", operation="evaluate", wait=True)


def read_scores(run: Run, made_from: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the content of ``checkpoint_scores.json`` (``ScoresForm``).

    Returns:
        The content; ``None`` if it is missing, damaged, or was made from other images or boxes.
    """
    content = _find_intact(run)
    return content if content is not None and content["made_from"] == made_from else None


def _find_intact(run: Run) -> dict[str, Any] | None:
    """Return the content of ``checkpoint_scores.json``; ``None`` if it is missing or damaged."""
    content = records.find_intact(run.scores_path, ScoresForm)
    if content is None:
        return None
    pairs = [entry["valid_map50_interval"] for entry in content["checkpoints"]]
    pairs.append(content.get("best_against_last", {}).get("interval"))
    return content if all(pair is None or len(pair) == _ENDS for pair in pairs) else None


def _why_dropped(run: Run, made_from: Mapping[str, object]) -> str:
    """Return why the saved scores cannot be used, in words."""
    content = _find_intact(run)
    if content is None:
        return f"{run.scores_path} is damaged; its scores are dropped"
    before = content["made_from"]
    changes = [change for key, change in _CHANGES.items() if before.get(key) != made_from[key]]
    count = pluralize(len(content["checkpoints"]), "checkpoint")
    return f"the scores of {count} are dropped, because they were made from different " + (
        " and ".join(changes)
    )


_CHANGES: Final = {
    "valid": "valid images or boxes",
    "train": "train images or boxes",
    "classes": "classes",
    "images": "options of prepare",
    "method": "definitions",
}
"""What a changed entry of ``made_from`` means."""


def _require_images(run: Run, valid_paths: Sequence[str], train_paths: Sequence[str]) -> None:
    """Raise InputFormError if the valid list is empty, or images do not exist any more."""
    if not valid_paths:
        raise InputFormError(
            f"the run {run.name} has no valid images to score its checkpoints on",
            where=str(run.folder / "valid.txt"),
            expected="at least one image",
            found="0 images",
            remedy="Set [split] valid above 0 and train a new run",
        )
    paths = [*valid_paths, *train_paths]
    missing = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113  (many paths)
    if missing:
        shown = ", ".join(Path(path).name for path in missing[:_MAX_EXAMPLES])
        raise InputFormError(
            f"images of the run {run.name} do not exist any more",
            where=str(Path(missing[0]).parent),
            expected=f"the {len(paths):,} images that its checkpoints are scored on",
            found=f"{len(missing):,} missing: {shown}" + ", ..." * (len(missing) > _MAX_EXAMPLES),
            remedy="Run `oiyolo prepare`, which makes them again, or train a new run",
        )


def _require_boxes(project: Project, truth: GroundTruth, paths: Sequence[str]) -> None:
    """Raise InputFormError if images have labels but no boxes: they are no longer selected.

    Without their boxes, every correct detection would count as a false positive.
    """
    has_boxes = np.zeros(len(paths), dtype=np.bool_)
    has_boxes[truth.image] = True
    without = [paths[i] for i in np.flatnonzero(~has_boxes).tolist()]
    labelled = [path for path in without if _has_content(lists.adjacent_label(path))]
    if labelled:
        raise InputFormError(
            "the boxes of images that checkpoints are scored on are missing",
            where=str(project.dataset_folder / "boxes.csv"),
            expected=f"boxes of {Path(labelled[0]).name}, for example, which has a label",
            found=f"none for {len(labelled):,} of {pluralize(len(paths), 'image')}",
            remedy="Select these images again, or train a new run on the present selection",
        )


def _has_content(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) > 0  # noqa: PTH113, PTH202  (many paths)


def _fingerprint(truth: GroundTruth) -> str:
    """Return the fingerprint of images and their boxes, whatever the order of the boxes."""
    columns = zip(
        (truth.image_ids[image] for image in truth.image.tolist()),
        truth.class_id.tolist(),
        truth.xyxy.tolist(),
        truth.is_region.tolist(),
        strict=True,
    )
    return staleness.fingerprint([truth.image_ids, sorted(columns)])


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
