"""What the scores of a detector mean, in plain words: how good it is, why, and what would help.

Every sentence follows from figures by the rules below; nothing is guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from oiyolo.core.results import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.evaluation.summary import ClassEvaluation, Evaluation

Level = Literal["unknown", "unusable", "weak", "usable", "good"]

HEADINGS: Final[Mapping[Level, str]] = {
    "unknown": "Not scored yet",
    "unusable": "Not usable yet",
    "weak": "Weak",
    "usable": "Usable, with limits",
    "good": "Good",
}
_GOOD: Final = 0.7
_USABLE: Final = 0.45
"""From these lower bounds of the 95 % interval of mAP@0.5 on; without one, from this score on."""
_WEAK: Final = 0.2
"""From this score on."""
_MIN_BOXES: Final = 5
"""Parts with fewer boxes are not judged."""
_MISSED_SHARE: Final = 0.6
"""A part is missed if its recall is below this share of that of all boxes."""
_FEW_IMAGES: Final = 300
"""TrainingFacts images per class below which more are likely to help most."""
_LARGEST_ERROR: Final = 0.02
_MAX_NAMED: Final = 4
_MAX_COUNTED: Final = 10
"""Up to this number of objects or detections, shares are given as counts; otherwise rounded."""
_ERROR_WORDS: Final = {
    "localisation": "boxes that are placed badly",
    "class": "objects taken for another class",
    "both": "boxes with a wrong class and place",
    "duplicate": "objects detected twice",
    "background": "detections where there is no object",
    "missed": "missed objects",
}


@dataclass(frozen=True)
class TrainingFacts:
    """What the verdict needs to know about a training run.

    Attributes:
        images: Number of training images; ``None`` if it is not known.
        is_finished: Whether it has trained all iterations.
        trend: How it went at the end, as in ``trainlog.verdict``; empty if it is not known.
        best_valid_map50: The best mAP@0.5 on the valid split; ``None`` if none was measured.
    """

    images: int | None = None
    is_finished: bool = True
    trend: str = ""
    best_valid_map50: float | None = None


@dataclass(frozen=True)
class DetectorVerdict:
    """How good a detector is.

    Attributes:
        level: How good, from "unusable" to "good"; "unknown" if it has not been scored.
        summary: What it finds and what not, in one sentence.
        reasons: The figures behind it, one sentence each.
        advice: What would help, one sentence each.
    """

    level: Level
    summary: str
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The level in words."""
        return HEADINGS[self.level]


def judge(
    evaluation: Evaluation | None,
    training: TrainingFacts,
    baseline: Mapping[str, float] | None = None,
) -> DetectorVerdict:
    """Return how good a detector is.

    Args:
        evaluation: Its scores; ``None`` if there are none.
        training: How it was trained.
        baseline: ``map50`` of a detector that was not trained for this task, and the bounds ``low``
            and ``high`` of the 95 % interval of the difference; ``None`` if none was scored.
    """
    if evaluation is None or math.isnan(evaluation.map50):
        what = "it has no scores" if evaluation is None else "the images have no boxes to find"
        return DetectorVerdict("unknown", f"Nothing can be said about this detector: {what}.")
    return DetectorVerdict(
        _level(evaluation),
        _summary(evaluation),
        tuple(_reasons(evaluation, training, baseline)),
        tuple(_advice(evaluation, training)),
    )


def _level(evaluation: Evaluation) -> Level:
    low, score = evaluation.map50_interval[0], evaluation.map50
    certain = score if math.isnan(low) else low
    if certain >= _GOOD:
        return "good"
    if certain >= _USABLE:
        return "usable"
    return "weak" if score >= _WEAK else "unusable"


def _summary(evaluation: Evaluation) -> str:
    """Return how many objects it finds, how many detections are wrong, and what it misses."""
    found = sum(row.true_positives for row in evaluation.classes)
    wrong = sum(row.false_positives for row in evaluation.classes)
    of_class = ""
    if len(evaluation.classes) == 1:
        of_class = f" of the class {evaluation.classes[0].name}"
    text = f"Finds {_share(found, evaluation.boxes, 'object', 'the')}"
    if evaluation.boxes == 1:
        text = f"{'Finds' if found else 'Misses'} the only object"
    text += of_class
    if found + wrong == 1:
        text += f"; its only detection is {'wrong' if wrong else 'right'}"
    elif found + wrong:
        share = _share(wrong, found + wrong, "detection", "its")
        verb = "is" if share.startswith(("none ", "1 ", "about 1 ")) else "are"
        text += f"; {share} {verb} wrong"
    missed = [f"{name} ones" for name in _missed_parts(evaluation, evaluation.by_size)]
    if missed:
        text += f"; {' and '.join(missed)} are often missed"
    return text + "."


def _share(part: int, whole: int, noun: str, article: str) -> str:
    """Return a share in words: "all 3 objects", "2 of the 3 objects", "about 9 in 10 objects".

    Args:
        part: Number of things that have a property.
        whole: Number of all things, at least 2.
        noun: What the things are, in the singular.
        article: Word before the number of all: "the" or "its".
    """
    counted = f"{article} {pluralize(whole, noun)}"
    if part == 0:
        return f"none of {counted}"
    if part == whole:
        return f"all {counted.removeprefix('the ')}"
    if whole > _MAX_COUNTED:
        for parts in (10, 100):
            rounded = round(parts * part / whole)
            if 0 < rounded < parts:
                return f"about {rounded} in {parts} {noun}s"
    return f"{part:,} of {counted}"


def _missed_parts(evaluation: Evaluation, parts: Mapping[str, object]) -> list[str]:
    """Return the names of the parts whose boxes are found far less often than all boxes."""
    found = sum(row.true_positives for row in evaluation.classes)
    limit = _MISSED_SHARE * found / evaluation.boxes if evaluation.boxes else 0.0
    scores = {**evaluation.by_size, **evaluation.by_attribute}
    return [
        name for name in parts if scores[name].boxes >= _MIN_BOXES and scores[name].recall < limit
    ]


def _reasons(
    evaluation: Evaluation, training: TrainingFacts, baseline: Mapping[str, float] | None
) -> list[str]:
    low, high = evaluation.map50_interval
    interval = "" if math.isnan(low) else f" (95 % interval {low:.2f} to {high:.2f})"
    on = f"on {pluralize(evaluation.images, 'image')} that were not used in training"
    lines = [f"mAP@0.5 is {evaluation.map50:.2f}{interval} {on}."]
    if weak := _weak_classes(evaluation):
        lines.append(f"Weaker than the others: {', '.join(weak)}.")
    for name in _missed_parts(evaluation, evaluation.by_attribute):
        score = evaluation.by_attribute[name]
        shown = name.replace("_", "-")
        lines.append(f"Of {score.boxes:,} {shown} boxes, {score.recall:.0%} are found.")
    costs = {kind: cost for kind, cost in evaluation.errors.items() if cost >= _LARGEST_ERROR}
    if costs:
        kind = max(costs, key=lambda kind: costs[kind])
        words = _ERROR_WORDS.get(kind, kind)
        gain = f"correcting them would raise mAP@0.5 by {costs[kind]:.2f}"
        lines.append(f"The costliest errors are {words}: {gain}.")
    if baseline is not None:
        lines.append(_baseline_sentence(evaluation.map50, baseline))
    best = training.best_valid_map50
    if best is not None and not math.isnan(high) and best > high:
        lines.append(
            f"On the validation images, by which the weights were chosen, it is {best:.2f}, which "
            "flatters the detector."
        )
    return lines


def _baseline_sentence(map50: float, baseline: Mapping[str, float]) -> str:
    gain = map50 - baseline["map50"]
    certain = baseline["low"] > 0 or baseline["high"] < 0
    if not certain:
        return (
            f"A detector that was not trained for this reaches {baseline['map50']:.2f}: the "
            f"difference ({gain:+.2f}) may be chance."
        )
    verb = "gained" if gain > 0 else "lost"
    return (
        f"Training {verb} {abs(gain):.2f} compared with a detector that was not trained for this "
        f"({baseline['map50']:.2f})."
    )


def _weak_classes(evaluation: Evaluation) -> list[str]:
    """Return the classes whose average precision is far below the mean, the worst first."""

    def is_weak(row: ClassEvaluation) -> bool:
        return row.boxes >= _MIN_BOXES and row.map50 < _MISSED_SHARE * evaluation.map50

    weak = sorted(filter(is_weak, evaluation.classes), key=lambda row: row.map50)
    names = [f"{row.name} ({row.map50:.2f})" for row in weak]
    more = len(names) - _MAX_NAMED
    return [*names[:_MAX_NAMED], f"{more:,} more classes"] if more > 0 else names


def _advice(evaluation: Evaluation, training: TrainingFacts) -> list[str]:
    lines = []
    classes = max(1, len(evaluation.classes))
    if training.images is not None and training.images < _FEW_IMAGES * classes:
        lines.append(
            f"Get more images: it was trained on {training.images:,}, and {_FEW_IMAGES:,} or more "
            "for each class usually help."
        )
    if training.trend == "overfitting":
        lines.append("Stop earlier or get more images: it overfits the training images.")
    elif not training.is_finished:
        lines.append("Let the training finish: the command that started it resumes it.")
    elif training.trend == "falling":
        lines.append("Train longer: the loss was still falling.")
    if "small" in _missed_parts(evaluation, evaluation.by_size):
        lines.append("Use larger images ([images] size): small objects have few pixels.")
    return lines
