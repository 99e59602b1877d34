"""Compare two detectors on the same images: differences of scores, and whether they are chance.

A difference has a 95 % interval by the paired bootstrap: both detectors are scored in the same
resamples of the images, so that images which are hard for both do not add to the uncertainty. It is
beyond chance if the interval excludes 0.

In simulations of two equally good detectors (``benchmarks/comparison.py --repeats 300``), 5.7 to
6.3 % of the intervals excluded 0 with 10 to 300 images; exact would be 5 %. Of detectors that
differed by 0.12, 94 % of the intervals contained the difference; 35 % excluded 0 with 20 images,
85 % with 100. Simulations of other detectors gave up to 8 % instead of 5 %.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from oiyolo.evaluation.average_precision import average_precisions, mean_over_classes
from oiyolo.evaluation.bootstrap import (
    COVERAGE,
    image_weights,
    interval,
    mean_over_resampled_classes,
    resampled_scores,
)
from oiyolo.evaluation.coco import coco_precision
from oiyolo.evaluation.figures import SCORES, interval_to_json, to_json
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.openimages_metric import openimages_average_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.bootstrap import ResampledScores, Weights
    from oiyolo.evaluation.figures import Interval
    from oiyolo.evaluation.panels import ImageResult
    from oiyolo.evaluation.tables import Detections, Floats, GroundTruth

_MAX_FACTOR = 100
"""Where more than a hundred times as many images would be needed, no number is given."""


class ResampledScore(NamedTuple):
    """A score of a detector.

    Attributes:
        estimate: The score on all images.
        values: The score in every resample of ``image_weights``, shape (resamples,).
    """

    estimate: float
    values: Floats


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much a second detector's score exceeds that of a first one, on the same images.

    Attributes:
        first: Score of the first detector; NaN without true boxes.
        second: Score of the second detector.
        interval: 95 % interval of the difference; NaN if there is none.
    """

    first: float
    second: float
    interval: Interval

    @property
    def value(self) -> float:
        """The difference; negative if the first detector is better."""
        return self.second - self.first

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the interval excludes 0."""
        return self.better != 0

    @property
    def better(self) -> int:
        """1 if the second is better beyond chance, -1 if the first is, 0 if neither."""
        return int(self.interval[0] > 0) - int(self.interval[1] < 0)

    def further_images(self, images: int) -> int | None:
        """Return how many further images would show this difference to be beyond chance.

        The width of an interval falls with the square root of the number of images.

        Args:
            images: Number of images that were scored.

        Returns:
            The number, if the difference stays as it is; ``None`` if it is beyond chance already,
            is 0 or undefined, or if it is so small that the number would say nothing.
        """
        low, high = self.interval
        if self.is_beyond_chance or not self.value or math.isnan(low):
            return None
        margin = self.value - low if self.value > 0 else high - self.value
        factor = (margin / self.value) ** 2
        return max(1, round((factor - 1) * images)) if factor <= _MAX_FACTOR else None

    def to_json(self) -> dict[str, Any]:
        """Return the scores and their difference as JSON-compatible values: NaN as null."""
        return {
            "first": to_json(self.first),
            "second": to_json(self.second),
            "difference": to_json(self.value),
            "interval": interval_to_json(self.interval),
            "beyond_chance": self.is_beyond_chance,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDifference:
    """An image with the errors of both detectors, each at its own score thresholds.

    Attributes:
        first: Boxes of the first detector and the true boxes that it misses.
        second: The same of the second.
    """

    first: ImageResult
    second: ImageResult

    @property
    def image_id(self) -> str:
        """Id of the image."""
        return self.first.image_id

    @property
    def fewer_errors(self) -> int:
        """How many errors fewer the second detector makes; negative if it makes more."""
        return self.first.error_count - self.second.error_count

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of false positives and false negatives."""
        counts = {
            name: {
                "false_positives": len(result.false_positives),
                "false_negatives": len(result.false_negatives),
            }
            for name, result in (("first", self.first), ("second", self.second))
        }
        return {"image_id": self.image_id, **counts}


@dataclasses.dataclass(frozen=True, eq=False)
class PairedComparison:
    """Two detectors, compared on the same images.

    Attributes:
        scores: Difference of each score in ``SCORES``, the mean over the classes.
        classes: Difference of ``map50`` of each class, by name.
        images: Number of images.
        boxes: Number of true boxes, without group-of boxes.
    """

    scores: dict[str, Difference]
    classes: dict[str, Difference]
    images: int
    boxes: int

    @property
    def further_images(self) -> int | None:
        """Number of further images that would show the difference of ``map50`` beyond chance."""
        return self.scores["map50"].further_images(self.images)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-compatible values: NaN as null."""
        return {
            "images": self.images,
            "boxes": self.boxes,
            "further_images": self.further_images,
            **{name: difference.to_json() for name, difference in self.scores.items()},
            "classes": {name: row.to_json() for name, row in self.classes.items()},
        }


def compare_scores(first: ResampledScore, second: ResampledScore, *, images: int) -> Difference:
    """Return by how much the second of two scores exceeds the first, and whether beyond chance.

    Args:
        first: Score of the first detector.
        second: Score of the second, in the same resamples.
        images: Number of images with true boxes.
    """
    estimate = second.estimate - first.estimate
    bounds = interval(second.values - first.values, estimate, images=images)
    return Difference(first.estimate, second.estimate, bounds)


def widen_for_choice(difference: Difference, candidates: int) -> Difference:
    """Return a difference whose interval allows for the second detector's choice among several.

    The best of several detectors that are equally good exceeds another by chance more often than
    one of them does. By Bonferroni's inequality, the interval is widened from the normal quantile
    for 1 candidate to that for all.

    Args:
        difference: The difference of the chosen detector.
        candidates: Number of detectors that it was chosen from, which could all have been chosen.
    """
    tail = (1 - COVERAGE) / 2
    normal = NormalDist()
    factor = normal.inv_cdf(1 - tail / max(1, candidates)) / normal.inv_cdf(1 - tail)
    low, high = (
        difference.value + (bound - difference.value) * factor for bound in difference.interval
    )
    return dataclasses.replace(difference, interval=(low, high))


def compare_detections(
    first: Detections, second: Detections, truth: GroundTruth, class_names: Sequence[str]
) -> PairedComparison:
    """Compare two detectors on the same images.

    Args:
        first: Detections of the first detector, down to the lowest score.
        second: The same of the second.
        truth: Ground truth, with the ``image_ids`` of both.
        class_names: Names of the classes; ``class_id`` is a position in them.

    Raises:
        ValueError: The tables have different ``image_ids``.
    """
    weights = image_weights(truth.image_ids)
    scored = [
        _score(detections, truth, len(class_names), weights) for detections in (first, second)
    ]
    images = scored[0].resampled.images
    return PairedComparison(
        scores={
            score: compare_scores(
                *(one.mean(score) for one in scored), images=scored[0].resampled.images_with_boxes
            )
            for score in SCORES
        },
        classes={
            name: compare_scores(
                *(one.of_class("map50", class_id) for one in scored), images=int(images[class_id])
            )
            for class_id, name in enumerate(class_names)
        },
        images=len(truth.image_ids),
        boxes=int((~truth.is_region).sum()),
    )


def differing_images(
    first: Sequence[ImageResult], second: Sequence[ImageResult]
) -> list[ImageDifference]:
    """Return the images on which one detector makes more errors than the other.

    Args:
        first: Results of the first detector by ``evaluate_images``.
        second: Those of the second, on the same images in the same order.

    Returns:
        The images, by descending difference, then by descending number of errors, then by id.
    """
    pairs = map(ImageDifference, first, second)
    return sorted((pair for pair in pairs if pair.fewer_errors), key=_most_different_first)


def _most_different_first(pair: ImageDifference) -> tuple[int, int, str]:
    errors = pair.first.error_count + pair.second.error_count
    return -abs(pair.fewer_errors), -errors, pair.image_id


@dataclasses.dataclass(frozen=True, eq=False)
class _Scores:
    """The scores in ``SCORES`` of a detector: by class, shape (3, classes), and resampled."""

    estimates: Floats
    resampled: ResampledScores

    def mean(self, score: str) -> ResampledScore:
        """Return the mean of a score over the classes."""
        values = mean_over_resampled_classes(getattr(self.resampled, score))
        return ResampledScore(mean_over_classes(self.estimates[SCORES.index(score)]), values)

    def of_class(self, score: str, class_id: int) -> ResampledScore:
        """Return a score of a class."""
        estimate = float(self.estimates[SCORES.index(score), class_id])
        return ResampledScore(estimate, getattr(self.resampled, score)[class_id])


def _score(
    detections: Detections, truth: GroundTruth, class_count: int, weights: Weights
) -> _Scores:
    matches = match(detections, truth)
    map50 = average_precisions(matches, detections, truth, class_count)
    map50_95 = coco_precision(detections, truth, class_count).mean(axis=(0, 1))
    openimages = openimages_average_precision(detections, truth, class_count)
    return _Scores(
        np.array([map50, map50_95, openimages]),
        resampled_scores(detections, truth, class_count, weights),
    )
