"""Anchor boxes fitted to a dataset by k-means.

Redmon and Farhadi, YOLO9000 (https://arxiv.org/abs/1612.08242), section 2, "Dimension Clusters":
k-means over the widths and heights of the boxes, with 1 - IoU of boxes that share a corner as the
distance, because large boxes would dominate a Euclidean distance.

Sizes are in pixels at network size, arrays of shape (n, 2), width before height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.float64]
"""Widths and heights in pixels at network size, shape (n, 2)."""

AnchorPreference = Literal["auto", "own", "stock"]
MARGIN = 0.02
MIN_BOXES_PER_ANCHOR = 10
"""With fewer boxes than this, the clusters would overfit."""

_SEED = 0
_RESTARTS = 5
_MAX_SEARCH_BOXES = 10_000
_MAX_ITERATIONS = 100
_WHOLE_PIXELS_FROM = 10.0
_FALLBACK_SIZE_PX = 32.0
_PADDING_FACTOR = 1.25


@dataclass(frozen=True, eq=False)
class AnchorChoice:
    """The chosen anchors, and the figures behind the choice.

    Attributes:
        anchors: Shape (k, 2), in pixels at network size, smallest area first.
        average_iou: Average IoU of the dataset's own anchors, after rounding, or of those that
            the user configured; NaN if there are too few boxes to fit anchors.
        stock_average_iou: Average IoU of the network's stock anchors; NaN without boxes.
        source: Whether ``anchors`` are the dataset's own, the stock anchors, or those that the user
            configured.
        reason: Reason for the choice, in a few words.
    """

    anchors: Sizes
    average_iou: float
    stock_average_iou: float
    source: Literal["own", "stock", "configured"]
    reason: str = ""

    @property
    def summary(self) -> str:
        """The choice and its figures, in a few words."""
        first = "configured" if self.source == "configured" else "own"
        figures = [(first, self.average_iou), ("stock", self.stock_average_iou)]
        available = ", ".join(f"{name} {figure:.3f}" for name, figure in figures if figure >= 0)
        return f"{self.source} anchors" + (f" (average IOU: {available})" if available else "")


def average_iou(box_wh: Sizes, anchors: Sizes) -> float:
    """Return the mean IoU of the boxes with their best anchors.

    Args:
        box_wh: Box sizes, shape (n, 2), in the unit of ``anchors``; boxes without area are ignored.
        anchors: Anchor sizes, shape (k, 2).

    Returns:
        A value from 0 to 1; NaN without boxes.
    """
    boxes = _valid_boxes(box_wh)
    return float(_shape_iou(boxes, anchors).max(axis=1).mean()) if len(boxes) else float("nan")


def kmeans(box_wh: Sizes, k: int) -> Sizes:
    """Return the ``k`` sizes with the highest average IoU with the boxes.

    Initial centres are drawn as in k-means++ (Arthur and Vassilvitskii, 2007). Several restarts
    are compared on at most 10,000 random boxes, and the best is then refined on all boxes. The
    result is deterministic.

    Args:
        box_wh: Box sizes, shape (n, 2), in pixels at network size; boxes without area are ignored.
        k: Number of sizes.

    Returns:
        Shape (k, 2), smallest area first. With fewer than ``k`` distinct boxes, the rest are
        copies of them, enlarged and reduced by powers of 1.25.

    Raises:
        ValueError: ``k`` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    boxes = _valid_boxes(box_wh)
    distinct = np.unique(boxes, axis=0)
    if len(distinct) <= k:
        return _sort_by_area(_pad(distinct, k))
    # Sorted, so that the random draws do not depend on the order of the input.
    boxes = _sort_by_area(boxes)
    rng = np.random.default_rng(_SEED)
    sample = boxes
    if len(boxes) > _MAX_SEARCH_BOXES:
        sample = boxes[rng.choice(len(boxes), _MAX_SEARCH_BOXES, replace=False)]
    candidates = [_refine(sample, _initial_centres(sample, k, rng)) for _ in range(_RESTARTS)]
    best = max(candidates, key=lambda centres: average_iou(sample, centres))
    return _sort_by_area(best if sample is boxes else _refine(boxes, best))


def choose_anchors(
    box_wh: Sizes,
    stock: Sizes,
    *,
    preference: AnchorPreference | Sizes = "auto",
) -> AnchorChoice:
    """Choose between the dataset's own anchors and the network's stock anchors.

    Stock anchors were fitted to a much larger dataset, and pretrained heads are trained for them.
    They are kept unless the average IoU of the dataset's own anchors is better by ``MARGIN``.

    Args:
        box_wh: Sizes of the training boxes, shape (n, 2), in pixels at network size.
        stock: The network's anchors at that size, shape (k, 2).
        preference: "auto" compares both, "own" and "stock" decide without comparing, and sizes
            of shape (k, 2) are used as they are.

    Returns:
        The choice. Stock anchors keep their order. With fewer than ten boxes per anchor "auto"
        keeps the stock anchors; without any box "own" keeps them too.
    """
    boxes = _valid_boxes(box_wh)
    stock_iou = average_iou(boxes, stock)
    if not isinstance(preference, str):
        return AnchorChoice(
            preference, average_iou(boxes, preference), stock_iou, "configured", "as configured"
        )
    needed = MIN_BOXES_PER_ANCHOR * len(stock) if preference == "auto" else 1
    if len(boxes) < needed:
        reason = f"{len(boxes)} boxes, but fitting anchors needs {needed}"
        return AnchorChoice(stock, float("nan"), stock_iou, "stock", reason)
    own = _sort_by_area(round_anchors(kmeans(boxes, len(stock))))
    own_iou = average_iou(boxes, own)
    if preference == "auto":
        is_better = own_iou > stock_iou + MARGIN
        comparison = "more" if is_better else "not more"
        reason = f"own anchors gain {own_iou - stock_iou:.3f} IOU, {comparison} than {MARGIN:g}"
    else:
        is_better, reason = preference == "own", "as configured"
    if is_better:
        return AnchorChoice(own, own_iou, stock_iou, "own", reason)
    return AnchorChoice(stock, own_iou, stock_iou, "stock", reason)


def round_anchors(anchors: Sizes) -> Sizes:
    """Round sizes as in published network files: to pixels, below 10 px to tenths."""
    tenths = np.maximum(np.round(anchors, 1), 0.1)
    return np.where(anchors < _WHOLE_PIXELS_FROM, tenths, np.round(anchors))


def _valid_boxes(box_wh: Sizes) -> Sizes:
    boxes = np.asarray(box_wh, dtype=np.float64).reshape(-1, 2)
    valid = np.isfinite(boxes).all(axis=1) & (boxes > 0).all(axis=1)
    return np.asarray(boxes[valid])


def _sort_by_area(sizes: Sizes) -> Sizes:
    # Ties are broken by width, so that the order does not depend on the search.
    return np.asarray(sizes[np.lexsort((sizes[:, 0], sizes.prod(axis=1)))])


def _shape_iou(boxes: Sizes, anchors: Sizes) -> npt.NDArray[np.float64]:
    """Return the IoU of boxes and anchors that share a corner, shape (boxes, anchors)."""
    shared = np.minimum(boxes[:, :1], anchors[:, 0]) * np.minimum(boxes[:, 1:], anchors[:, 1])
    return np.asarray(shared / (boxes.prod(axis=1)[:, None] + anchors.prod(axis=1) - shared))


def _initial_centres(boxes: Sizes, k: int, rng: np.random.Generator) -> Sizes:
    """Draw k boxes, with probabilities proportional to the squared distance (k-means++)."""
    centres: Sizes = boxes[rng.integers(len(boxes))][None]
    while len(centres) < k:
        distance = 1 - _shape_iou(boxes, centres).max(axis=1)
        weight = np.maximum(distance, 0) ** 2
        # All distinct boxes of the sample may be drawn already, though the full set has more.
        probabilities = weight / weight.sum() if weight.sum() > 0 else None
        new_centre = boxes[rng.choice(len(boxes), p=probabilities)]
        centres = np.vstack((centres, new_centre))
    return centres


def _refine(boxes: Sizes, centres: Sizes) -> Sizes:
    """Move centres to the means of their boxes until no assignment changes (Lloyd's algorithm)."""
    nearest = np.full(len(boxes), -1)
    for _ in range(_MAX_ITERATIONS):
        previous, nearest = nearest, _shape_iou(boxes, centres).argmax(axis=1)
        if np.array_equal(previous, nearest):
            break
        count = np.bincount(nearest, minlength=len(centres))[:, None]
        total = np.stack(
            [np.bincount(nearest, boxes[:, side], len(centres)) for side in (0, 1)], axis=1
        )
        # A centre without boxes stays where it is.
        centres = np.where(count > 0, total / np.maximum(count, 1), centres)
    return centres


def _pad(distinct: Sizes, k: int) -> Sizes:
    """Fill up to k sizes with copies of ``distinct``, scaled by 1.25, 1/1.25, 1.25^2, ..."""
    seeds = distinct if len(distinct) else np.full((1, 2), _FALLBACK_SIZE_PX)
    sizes = [seeds]
    power = 1
    while sum(map(len, sizes)) < k:
        sizes += [seeds * _PADDING_FACTOR**power, seeds / _PADDING_FACTOR**power]
        power += 1
    return np.asarray(np.concatenate(sizes)[:k])
