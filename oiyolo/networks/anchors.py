"""Anchors: the box sizes a network starts from, fitted to the dataset's own boxes.

Redmon and Farhadi, YOLO9000 (https://arxiv.org/abs/1612.08242), section 2, "Dimension Clusters":
k-means over the boxes' widths and heights, with 1 - IoU of boxes laid on one corner as the
distance, because a Euclidean one would care for large boxes only.

Sizes are pixels at network size, arrays of shape (n, 2), width before height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.float64]
"""Widths and heights in pixels at network size, shape (n, 2)."""

MARGIN = 0.02
MIN_BOXES_PER_ANCHOR = 10
"""With fewer boxes than this, clusters would learn the boxes by heart."""

_SEARCH_BOXES = 10_000
_MAX_ROUNDS = 100
_WHOLE_PIXELS_FROM = 10.0
_FALLBACK_SIZE_PX = 32.0
_SPREAD = 1.25


@dataclass(frozen=True, eq=False)
class AnchorChoice:
    """Which anchors to use, and the two figures that decided it.

    Attributes:
        anchors: Shape (k, 2), pixels at network size, the smallest area first.
        average_iou: What the dataset's own anchors reach, rounded as they would be written, or
            those that the user gave; NaN when there were too few boxes to fit any.
        stock_average_iou: What the network's own reach; NaN without a box.
        used: Which of them ``anchors`` are.
        why: The reason, in a few words.
    """

    anchors: Sizes
    average_iou: float
    stock_average_iou: float
    used: Literal["own", "stock", "given"]
    why: str = ""

    @property
    def told(self) -> str:
        """The choice and its figures in half a line."""
        mine = "given" if self.used == "given" else "own"
        figures = [(mine, self.average_iou), ("stock", self.stock_average_iou)]
        known = ", ".join(f"{name} {figure:.3f}" for name, figure in figures if figure >= 0)
        return f"{self.used} anchors" + (f" (average IOU: {known})" if known else "")


def average_iou(box_wh: Sizes, anchors: Sizes) -> float:
    """Give the mean over boxes of the IoU with the anchor that fits best.

    Args:
        box_wh: Shape (n, 2), in the units of ``anchors``; boxes without an area are left out.
        anchors: Shape (k, 2).

    Returns:
        0 to 1; NaN when there is no box.
    """
    boxes = _usable(box_wh)
    return float(_shape_iou(boxes, anchors).max(axis=1).mean()) if len(boxes) else float("nan")


def kmeans(box_wh: Sizes, k: int, *, seed: int = 0, restarts: int = 5) -> Sizes:
    """Find the ``k`` sizes that fit the boxes best, by average IoU.

    Starts are drawn as in k-means++ (Arthur and Vassilvitskii, 2007). They are compared on
    10,000 boxes at most, drawn with ``seed``; the best one is then refined on all. The same input
    gives the same sizes.

    Args:
        box_wh: Shape (n, 2), pixels at network size; boxes without an area are left out.
        k: How many sizes.
        seed: Of the random starts.
        restarts: How many starts to compare.

    Returns:
        Shape (k, 2), the smallest area first. Where there are fewer than ``k`` different boxes,
        the rest are copies of them, made larger and smaller by a quarter, and again.

    Raises:
        ValueError: ``k`` or ``restarts`` is below 1.
    """
    if k < 1 or restarts < 1:
        raise ValueError(f"k and restarts must be 1 or more, not {k} and {restarts}")
    boxes = _usable(box_wh)
    distinct = np.unique(boxes, axis=0)
    if len(distinct) <= k:
        return _by_area(_padded(distinct, k))
    # In one order, so that the draws do not depend on that of the boxes.
    boxes = _by_area(boxes)
    rng = np.random.default_rng(seed)
    sample = boxes
    if len(boxes) > _SEARCH_BOXES:
        sample = boxes[rng.choice(len(boxes), _SEARCH_BOXES, replace=False)]
    found = [_refined(sample, _start(sample, k, rng)) for _ in range(restarts)]
    best = max(found, key=lambda centres: average_iou(sample, centres))
    return _by_area(best if sample is boxes else _refined(boxes, best))


def choose(
    box_wh: Sizes,
    stock: Sizes,
    *,
    wanted: Literal["auto", "own", "stock"] | Sizes = "auto",
    margin: float = MARGIN,
    seed: int = 0,
) -> AnchorChoice:
    """Choose between the dataset's own anchors and the network's.

    The stock ones have seen a far larger dataset, and pretrained heads are used to them: they
    stay unless the dataset's own are better by ``margin``.

    Args:
        box_wh: The training boxes, shape (n, 2), pixels at network size.
        stock: The network's anchors at that size, shape (k, 2).
        wanted: "auto" decides as told; "own" and "stock" are taken whatever they reach; sizes are
            taken as they are.
        margin: By how much of average IoU the own anchors must be better.
        seed: Of the random starts.

    Returns:
        The choice. Stock anchors keep their order; without ten boxes for each anchor "auto" keeps
        them, and without a single box "own" does.
    """
    boxes = _usable(box_wh)
    stock_iou = average_iou(boxes, stock)
    if not isinstance(wanted, str):
        return AnchorChoice(wanted, average_iou(boxes, wanted), stock_iou, "given", "as given")
    needed = MIN_BOXES_PER_ANCHOR * len(stock) if wanted == "auto" else 1
    if len(boxes) < needed:
        why = f"{len(boxes)} boxes, where {needed} are needed to fit others"
        return AnchorChoice(stock, float("nan"), stock_iou, "stock", why)
    own = _by_area(rounded(kmeans(boxes, len(stock), seed=seed)))
    own_iou = average_iou(boxes, own)
    if wanted == "auto":
        is_better = own_iou > stock_iou + margin
        compared = "more" if is_better else "no more"
        why = f"own ones are better by {own_iou - stock_iou:.3f}, {compared} than {margin:g}"
    else:
        is_better, why = wanted == "own", "as asked for"
    if is_better:
        return AnchorChoice(own, own_iou, stock_iou, "own", why)
    return AnchorChoice(stock, own_iou, stock_iou, "stock", why)


def rounded(anchors: Sizes) -> Sizes:
    """Round sizes as network files have them: to whole pixels, below 10 px to tenths."""
    tenths = np.maximum(np.round(anchors, 1), 0.1)
    return np.where(anchors < _WHOLE_PIXELS_FROM, tenths, np.round(anchors))


def _usable(box_wh: Sizes) -> Sizes:
    boxes = np.asarray(box_wh, dtype=np.float64).reshape(-1, 2)
    usable = np.isfinite(boxes).all(axis=1) & (boxes > 0).all(axis=1)
    return np.asarray(boxes[usable])


def _by_area(sizes: Sizes) -> Sizes:
    # Equal areas fall back on the width, so that the order never depends on the search.
    return np.asarray(sizes[np.lexsort((sizes[:, 0], sizes.prod(axis=1)))])


def _shape_iou(boxes: Sizes, anchors: Sizes) -> npt.NDArray[np.float64]:
    """Give the IoU of each box with each anchor on one corner, shape (len(boxes), len(anchors))."""
    shared = np.minimum(boxes[:, :1], anchors[:, 0]) * np.minimum(boxes[:, 1:], anchors[:, 1])
    return np.asarray(shared / (boxes.prod(axis=1)[:, None] + anchors.prod(axis=1) - shared))


def _start(boxes: Sizes, k: int, rng: np.random.Generator) -> Sizes:
    """Draw k boxes, each with the greater probability the farther it is from those drawn before."""
    centres: Sizes = boxes[rng.integers(len(boxes))][None]
    while len(centres) < k:
        distance = 1 - _shape_iou(boxes, centres).max(axis=1)
        weight = np.maximum(distance, 0) ** 2
        # All boxes of the sample may be taken already, though the whole set has others.
        chance = weight / weight.sum() if weight.sum() > 0 else None
        drawn = boxes[rng.choice(len(boxes), p=chance)]
        centres = np.vstack((centres, drawn))
    return centres


def _refined(boxes: Sizes, centres: Sizes) -> Sizes:
    """Move centres to the mean of their boxes until no box changes its centre."""
    nearest = np.full(len(boxes), -1)
    for _ in range(_MAX_ROUNDS):
        before, nearest = nearest, _shape_iou(boxes, centres).argmax(axis=1)
        if np.array_equal(before, nearest):
            break
        count = np.bincount(nearest, minlength=len(centres))[:, None]
        total = np.stack(
            [np.bincount(nearest, boxes[:, side], len(centres)) for side in (0, 1)], axis=1
        )
        # A centre that lost all its boxes stays where it is.
        centres = np.where(count > 0, total / np.maximum(count, 1), centres)
    return centres


def _padded(distinct: Sizes, k: int) -> Sizes:
    """Fill up to k sizes with copies of the given ones, scaled 1.25, 1/1.25, 1.25^2, ..."""
    seeds = distinct if len(distinct) else np.full((1, 2), _FALLBACK_SIZE_PX)
    sizes = [seeds]
    power = 1
    while sum(map(len, sizes)) < k:
        sizes += [seeds * _SPREAD**power, seeds / _SPREAD**power]
        power += 1
    return np.asarray(np.concatenate(sizes)[:k])
