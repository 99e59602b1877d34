"""How often two equally good detectors differ "beyond chance", and whether intervals are right.

Both detectors miss boxes at random, more in images that are hard for both, and both find boxes that
do not exist. With equal detectors, 5 % of the differences should exclude 0, and 95 % of all
intervals should contain the difference on 20,000 other images.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from _measure import layout

from oiyolo.boxes import clip
from oiyolo.evaluation.average_precision import average_precisions, mean_over_classes
from oiyolo.evaluation.bootstrap import image_weights, resampled_map50
from oiyolo.evaluation.comparison import ResampledScore, compare_scores
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.tables import Detections, GroundTruth

if TYPE_CHECKING:
    from oiyolo.evaluation.tables import Floats

CLASSES = 2
BOXES = 3
CASES = (
    *((images, 0.6, 0.6) for images in (10, 20, 50, 100, 300)),
    *((images, 0.6, 0.7) for images in (20, 100)),
    (100, 0.9, 0.9),
)
"""Number of images, and share of the boxes that each detector finds."""


def make_truth(random: np.random.Generator, images: int) -> tuple[GroundTruth, Floats]:
    """Return true boxes, and how hard each image is."""
    count = images * BOXES
    low = random.uniform(0, 0.7, (count, 2))
    boxes = clip(np.concatenate((low, low + random.uniform(0.05, 0.4, (count, 2))), axis=1))
    image = np.sort(random.integers(0, images, count))
    class_id = random.integers(0, CLASSES, count)
    ids = tuple(f"{number:06x}" for number in range(images))
    return GroundTruth(ids, image, class_id, boxes, np.zeros(count, bool)), random.random(images)


def detect(
    random: np.random.Generator, truth: GroundTruth, hard: Floats, share: float
) -> Detections:
    """Return detections of a share of the boxes, and half as many of nothing."""
    chance = np.clip(1.6 * share - hard[truth.image], 0.02, 0.98)
    near = np.flatnonzero(random.random(len(truth)) < chance)
    strays = random.poisson(len(truth) / 2)
    low = random.uniform(0, 0.8, (strays, 2))
    stray = np.concatenate((low, low + random.uniform(0.02, 0.2, (strays, 2))), axis=1)
    moved = clip(truth.xyxy[near] + random.normal(0, 0.02, (len(near), 4)))
    boxes = np.concatenate((moved, stray))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    return Detections(
        truth.image_ids,
        np.concatenate((truth.image[near], random.integers(0, len(hard), strays))),
        np.concatenate((truth.class_id[near], random.integers(0, CLASSES, strays))),
        np.concatenate((random.beta(4, 2, len(near)), random.beta(2, 4, strays))),
        boxes,
    )


def map50(detections: Detections, truth: GroundTruth) -> float:
    """Return mAP@0.5."""
    matches = match(detections, truth)
    return mean_over_classes(average_precisions(matches, detections, truth, CLASSES))


def simulate(images: int, shares: tuple[float, float], repeats: int) -> tuple[float, float, float]:
    """Return the true difference, how often intervals contain it, and how often they exclude 0."""
    random = np.random.default_rng(1)
    truth, hard = make_truth(random, 20_000)
    first, second = (map50(detect(random, truth, hard, share), truth) for share in shares)
    expected = second - first if shares[0] != shares[1] else 0.0
    contained = beyond = 0
    for _ in range(repeats):
        truth, hard = make_truth(random, images)
        weights = image_weights(truth.image_ids)
        found = [detect(random, truth, hard, share) for share in shares]
        scores = [
            ResampledScore(map50(one, truth), resampled_map50(one, truth, CLASSES, weights))
            for one in found
        ]
        counted = len(np.unique(truth.image))
        difference = compare_scores(scores[0], scores[1], images=counted)
        contained += difference.interval[0] <= expected <= difference.interval[1]
        beyond += difference.is_beyond_chance
    return expected, contained / repeats, beyond / repeats


def main() -> None:
    """Print a table of the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    rows = [("images", "difference", "interval contains it", "beyond chance")]
    for images, *shares in CASES:
        expected, contained, beyond = simulate(images, (shares[0], shares[1]), repeats)
        rows.append((str(images), f"{expected:.3f}", f"{contained:.1%}", f"{beyond:.1%}"))
    print(layout(rows))


if __name__ == "__main__":
    main()
