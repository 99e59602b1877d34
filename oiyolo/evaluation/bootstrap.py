"""Intervals of scores by the bootstrap over images, with bias-corrected percentiles.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 14. Bias is corrected
because average precision is higher on average in resamples than in the images they are drawn from:
plain percentiles of mAP@0.5:0.95 would contain the true value in about 85 % of cases. With few
images, percentiles are also too narrow, as an interval of a mean by the normal distribution instead
of Student's t would be; they are widened accordingly (Hesterberg, What Teachers Should Know About
the Bootstrap, The American Statistician 69, 2015, section 5.3: the expanded percentile interval).

A resample draws as many images as there are, with replacement. Detections are matched within an
image, so that a resample only changes how often each image counts: everything is matched once, and
a resample is a column of weights. The draws depend only on the ids of the images, not on their
order, so that two detectors that were run on the same images are resampled in pairs.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from oiyolo.evaluation.coco import IOU_THRESHOLDS, MAX_DETECTIONS, RECALLS
from oiyolo.evaluation.matching import best_of_each, match, match_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, Flags, Floats, GroundTruth, Ints

Weights = npt.NDArray[np.float32]
"""How often each image counts in each resample, shape (images, resamples)."""

RESAMPLES = 1000
COVERAGE = 0.95
_SEED = 2020
_MIN_IMAGES = 2
"""A resample of a single image is that image, which would look like certainty."""
_CHUNK = 1 << 19
"""Number of weights that are gathered at once, so that they fit into the processor's cache."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """The matched detections of a class, in descending order of score.

    Attributes:
        image: Position of each detection's image, shape (n,).
        level: Ascending numbers, equal for detections that share a threshold, shape (n,).
        true_positive: Whether a detection matches a true box at each IoU threshold, shape (t, n).
        ignored: Whether it is neither a true nor a false positive, shape (t, n).
        box_count: Number of true boxes in each image, shape (images,).
        recalls: Recalls at which precision is sampled; ``None`` for the exact area.
    """

    image: Ints
    level: Ints
    true_positive: Flags
    ignored: Flags
    box_count: Floats
    recalls: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ResampledScores:
    """Average precision of each class in each resample, NaN without true boxes.

    Attributes:
        map50: Shape (classes, resamples).
        map50_95: Shape (classes, resamples).
        openimages_map: Shape (classes, resamples).
        images: Number of images with true boxes of each class, shape (classes,).
        images_with_boxes: Number of images with true boxes of any class.
    """

    map50: Floats
    map50_95: Floats
    openimages_map: Floats
    images: Ints
    images_with_boxes: int

    def interval(self, score: str, estimate: float) -> tuple[float, float]:
        """Return the interval of a score's mean over the classes, which contains ``estimate``."""
        values = mean_over_resampled_classes(getattr(self, score))
        return interval(values, estimate, images=self.images_with_boxes)

    def map50_interval(self, class_id: int, estimate: float) -> tuple[float, float]:
        """Return the interval of a class's ``map50``, which contains ``estimate``."""
        return interval(self.map50[class_id], estimate, images=int(self.images[class_id]))


def image_weights(image_ids: Sequence[str], resamples: int = RESAMPLES) -> Weights:
    """Return how often each image is drawn in each resample, shape (images, resamples)."""
    count = len(image_ids)
    if not count:
        return np.zeros((0, resamples), dtype=np.float32)
    random = np.random.default_rng(_SEED)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    rank = np.unique(np.array(image_ids, dtype=str), return_inverse=True)[1]
    return np.ascontiguousarray(drawn.T, dtype=np.float32)[rank]


def resampled_scores(
    detections: Detections, truth: GroundTruth, class_count: int, weights: Weights
) -> ResampledScores:
    """Score a detector in every resample, by three definitions of average precision.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth, with its verified labels.
        class_count: Number of classes.
        weights: How often each image counts, shape (images, resamples).

    Raises:
        ValueError: The tables have different ``image_ids``.
    """
    verified = detections.where(truth.is_verified(detections.image, detections.class_id))
    per_class = best_of_each(detections, detections.class_id, MAX_DETECTIONS)
    matched = [(detections, match(detections, truth))]
    is_same = len(verified) == len(detections)
    matched.append(matched[0] if is_same else (verified, match(verified, truth)))
    box, ignored = match_at(per_class, truth, IOU_THRESHOLDS)
    scores = np.empty((3, class_count, weights.shape[1]))
    images = np.zeros(class_count, dtype=np.int64)
    for class_id in range(class_count):
        boxes = _boxes_per_image(truth, class_id)
        images[class_id] = np.count_nonzero(boxes)
        voc, openimages = (_ranking(t, m, boxes, class_id) for t, m in matched)
        coco = _coco_ranking(per_class, box >= 0, ignored, boxes, class_id)
        for row, ranking in enumerate((voc, coco, openimages)):
            scores[row, class_id] = resampled_average_precision(ranking, weights)
    images_with_boxes = len(np.unique(truth.image[~truth.is_region]))
    return ResampledScores(scores[0], scores[1], scores[2], images, images_with_boxes)


def resampled_map50(
    detections: Detections, truth: GroundTruth, class_count: int, weights: Weights
) -> Floats:
    """Return mAP@0.5, the mean over the classes, in every resample, shape (resamples,).

    Arguments and errors are those of ``resampled_scores``, which also has two other scores and
    takes several times as long.
    """
    matches = match(detections, truth)
    values = np.empty((class_count, weights.shape[1]))
    for class_id in range(class_count):
        boxes = _boxes_per_image(truth, class_id)
        ranking = _ranking(detections, matches, boxes, class_id)
        values[class_id] = resampled_average_precision(ranking, weights)
    return mean_over_resampled_classes(values)


def resampled_average_precision(ranking: Ranking, weights: Weights) -> Floats:
    """Return the average precision of a class in every resample.

    Args:
        ranking: The class.
        weights: How often each image counts, shape (images, resamples).

    Returns:
        The mean over the IoU thresholds, shape (resamples,); NaN where no true box was drawn.
    """
    size = max(1, _CHUNK // max(1, len(ranking.image)))
    starts = range(0, weights.shape[1], size)
    parts = [_weighted(ranking, weights[:, start : start + size]) for start in starts]
    return np.concatenate(parts) if parts else np.empty(0)


def mean_over_resampled_classes(values: Floats) -> Floats:
    """Return the mean over the classes with a value, shape (resamples,); NaN if none has one."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    mean: Floats = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def interval(values: Floats, estimate: float, *, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a score.

    Args:
        values: The score in every resample, shape (resamples,); NaN is skipped.
        estimate: The score of all images. The interval is widened to contain it.
        images: Number of images with true boxes.

    Returns:
        The lower and the upper bound; NaN if the estimate is, or with fewer than two images.
    """
    defined = values[~np.isnan(values)]
    if np.isnan(estimate) or images < _MIN_IMAGES or not len(defined):
        return float("nan"), float("nan")
    # Efron's bias correction: the share of resamples below the estimate, as a normal deviate.
    below = (defined < estimate).mean() + (defined == estimate).mean() / 2
    margin = 0.5 / len(defined)
    normal = NormalDist()
    bias = 2 * normal.inv_cdf(float(np.clip(below, margin, 1 - margin)))
    deviate = math.sqrt(images / (images - 1)) * student_deviate(images - 1)
    shares = normal.cdf(bias - deviate), normal.cdf(bias + deviate)
    low, high = np.quantile(defined, shares)
    return min(float(low), estimate), max(float(high), estimate)


def student_deviate(freedom: float) -> float:
    """Return the deviate of Student's t that bounds the coverage, for the degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5: exact to 0.01 from 4 on.
    """
    z = NormalDist().inv_cdf((1 + COVERAGE) / 2)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _boxes_per_image(truth: GroundTruth, class_id: int) -> Floats:
    of_class = (truth.class_id == class_id) & ~truth.is_region
    return np.bincount(truth.image[of_class], minlength=len(truth.image_ids)).astype(np.float64)


def _ranking(detections: Detections, matches: Matches, box_count: Floats, class_id: int) -> Ranking:
    """Return a class for the exact area; detections of equal score share a threshold."""
    rows = np.flatnonzero((detections.class_id == class_id) & ~matches.ignored)
    rows = rows[np.argsort(-detections.score[rows], kind="stable")]
    level = np.unique(-detections.score[rows], return_inverse=True)[1]
    true_positive = matches.true_positive[None, rows]
    return Ranking(
        detections.image[rows], level, true_positive, np.zeros_like(true_positive), box_count
    )


def _coco_ranking(
    detections: Detections, matched: Flags, ignored: Flags, box_count: Floats, class_id: int
) -> Ranking:
    """Return a class for COCO's metric; each detection is a threshold of its own."""
    rows = np.flatnonzero(detections.class_id == class_id)
    # COCO orders equal scores by image.
    rows = rows[np.lexsort((detections.image[rows], -detections.score[rows]))]
    return Ranking(
        detections.image[rows],
        np.arange(len(rows)),
        matched[:, rows],
        ignored[:, rows],
        box_count,
        RECALLS,
    )


def _weighted(ranking: Ranking, weights: Weights) -> Floats:
    """Return the mean average precision over the IoU thresholds for some resamples.

    Precision is computed where recall rises, which is at true positives only. Of the other
    detections only their sum between two such rows is needed.
    """
    boxes = ranking.box_count @ weights
    events = np.flatnonzero((ranking.true_positive | ranking.ignored).any(axis=0))
    total = np.zeros(weights.shape[1])
    if len(events):
        levels, row = np.unique(ranking.level[events], return_inverse=True)
        end = np.searchsorted(ranking.level, levels, side="right")
        begin = np.concatenate(([0], end[:-1]))
        seen = np.add.reduceat(weights[ranking.image[: end[-1]]], begin, axis=0).cumsum(axis=0)
        of_events = weights[ranking.image[events]]
        for hit, skipped in zip(ranking.true_positive, ranking.ignored, strict=True):
            hits, at = _cumulated(of_events, hit[events], row)
            counted = seen[at] - _cumulated_at(of_events, skipped[events], row, at)
            total += _area(hits, counted, boxes, ranking.recalls)
    mean = total / len(ranking.true_positive)
    return np.where(boxes > 0, mean, np.nan)


def _cumulated(weights: Weights, chosen: Flags, row: Ints) -> tuple[Weights, Ints]:
    """Return the cumulated weights of the chosen detections at each row that has one; the rows."""
    rows = row[chosen]
    last_of_row = np.append(rows[1:] != rows[:-1], True)[: len(rows)]
    return weights[chosen].cumsum(axis=0)[last_of_row], rows[last_of_row]


def _cumulated_at(weights: Weights, chosen: Flags, row: Ints, at: Ints) -> Weights | np.float32:
    """Return the cumulated weights of the chosen detections at given rows."""
    if not chosen.any():
        return np.float32(0)
    sums, rows = _cumulated(weights, chosen, row)
    padded = np.concatenate((np.zeros_like(sums[:1]), sums))
    return padded[np.searchsorted(rows, at, side="right")]


def _area(hits: Weights, counted: Weights, boxes: Floats, recalls: Floats | None) -> Floats:
    """Return the area under the envelope for each resample.

    Args:
        hits: True positives down to each row, shape (rows, resamples).
        counted: True and false positives down to each row, shape (rows, resamples).
        boxes: True boxes, shape (resamples,).
        recalls: Recalls at which precision is sampled; ``None`` for the exact area.
    """
    precision = hits / np.maximum(counted, 1)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    boxes = np.maximum(boxes, 1)
    if recalls is None:
        # Steps are whole numbers, so that a perfect curve has an area of exactly 1.
        steps = np.diff(hits, axis=0, prepend=np.float32(0))
    else:
        reached = np.searchsorted(recalls, hits / boxes, side="right")
        steps = np.diff(reached, axis=0, prepend=0)
    area = np.einsum("rb,rb->b", steps.astype(np.float64), envelope)
    return np.asarray(area / (boxes if recalls is None else len(recalls)))
