"""Non-maximum suppression by darknet's rules (src/box.c).

Within a class, boxes are visited by falling score, and each box that remains removes the later ones
that overlap it by more than a limit. ``greedy`` measures overlap as IoU (do_nms_sort). ``diou``
subtracts a term for the distance of the centres (diounms_sort, only in AlexeyAB's darknet).
Darknet compares all boxes in every class; here, the pairs that overlap are found once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from oiyolo.networks.layers import heads_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.inference.facts import NmsKind
    from oiyolo.networks.cfg import Cfg

    Floats = npt.NDArray[np.float32]
    Indices = npt.NDArray[np.intp]

DEFAULT_BETA: Final = 0.6
_PAIRS_AT_ONCE: Final = 1 << 18
"""About how many pairs are compared in one step; their numbers stay in the processor's cache."""


class Kept(NamedTuple):
    """Detections that remain, by falling confidence.

    Attributes:
        class_id: Class of each detection, shape (n,).
        confidence: Score of each detection, shape (n,).
        cxcywh: Box of each detection, in the units in which boxes were passed, shape (n, 4).
    """

    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    cxcywh: Boxes

    def of(self, rows: Indices) -> Kept:
        """Return some of the detections."""
        return Kept(self.class_id[rows], self.confidence[rows], self.cxcywh[rows])


class _Pairs(NamedTuple):
    """Pairs of boxes that overlap too much; each pair once, as indices of the boxes."""

    one: Indices
    other: Indices


def nms_rule(cfg: Cfg, *, fork: str = "") -> tuple[NmsKind, float]:
    """Return the rule by which darknet suppresses boxes of a network, and ``beta``.

    AlexeyAB's darknet and hank-ai's read it in the last head (src/parser.c). Their ``greedynms``
    compares with box_diou, which subtracts a distance term with the exponent 0.6, and only without
    ``nms_kind`` do they compare plain IoU. pjreddie's darknet does not know the option.

    Args:
        cfg: The network file.
        fork: Name of the fork that trained the network; empty if unknown.

    Raises:
        CfgError: ``beta_nms`` is not a number.
    """
    heads = heads_of(cfg)
    if fork == "pjreddie" or not heads or heads[-1].kind == "region":
        return "greedy", DEFAULT_BETA
    if heads[-1].text("nms_kind") == "diounms":
        return "diou", heads[-1].number("beta_nms", DEFAULT_BETA)
    return ("diou" if heads[-1].text("nms_kind") == "greedynms" else "greedy"), DEFAULT_BETA


def suppress(
    cxcywh: npt.NDArray[np.floating],
    scores: npt.NDArray[np.floating],
    *,
    threshold: float,
    nms_iou: float,
    kind: NmsKind = "greedy",
    beta: float = DEFAULT_BETA,
    unit_wh: tuple[float, float] = (1.0, 1.0),
) -> Kept:
    """Return the detections of an image: boxes under each class above a threshold, without repeats.

    A box is returned once for each class whose score is above the threshold, as darknet does.

    Args:
        cxcywh: Centres and sizes of all boxes, shape (N, 4).
        scores: Score of each box in each class, shape (N, C).
        threshold: Score that a detection exceeds.
        nms_iou: Overlap above which the less confident of two boxes of a class is removed; 0
            removes none (darknet's ``if (nms)``).
        kind: How overlap is measured.
        beta: Exponent of the distance term of ``diou`` (see ``nms_rule``).
        unit_wh: Factors to the units in which distances are measured; only ``diou`` depends on
            their ratio. Darknet's ``valid`` measures in pixels of the image
            (``placement.unit_wh``), its ``test`` and ``map`` in fractions of it.
    """
    above = scores > np.float32(threshold)
    hits = np.flatnonzero(above) // max(1, scores.shape[1])
    used = hits[np.diff(hits, prepend=-1) > 0]  # np.unique would import numpy.ma
    boxes = cxcywh[used]
    scores = np.where(above[used], scores[used], 0).astype(np.float32)
    pairs = _repeats(boxes * np.array([*unit_wh, *unit_wh]), nms_iou, kind, beta)
    rows: list[Indices] = []
    class_ids = np.flatnonzero(scores.any(axis=0))
    for class_id in class_ids.tolist():
        visited = _visiting_order(scores, class_id)
        rows.append(visited[_remaining(visited, pairs, len(boxes))])
    row = np.concatenate([np.empty(0, np.intp), *rows])
    column = np.repeat(class_ids, [len(part) for part in rows])
    order = np.argsort(-scores[row, column], kind="stable")
    row, column = row[order], column[order]
    return Kept(
        column.astype(np.int64),
        scores[row, column].astype(np.float64),
        boxes[row].astype(np.float64),
    )


def _visiting_order(scores: Floats, class_id: int) -> Indices:
    """Return the boxes with a score in a class, in the order in which darknet visits them.

    Darknet sorts one array for class after class, and its sort is stable (glibc's qsort merges).
    Boxes of equal score are therefore still in the order of the previous classes' scores.
    """
    rows = np.flatnonzero(scores[:, class_id])
    if len(rows) == 1:
        return rows
    own = -scores[rows, class_id]
    order = np.argsort(own, kind="stable")
    if np.any(np.diff(own[order]) == 0):
        order = np.lexsort(-scores[rows, : class_id + 1].T)
    return rows[order]


def _remaining(visited: Indices, pairs: _Pairs, count: int) -> npt.NDArray[np.bool_]:
    """Return which of the boxes remain if each removes the later ones that it overlaps.

    Args:
        visited: The boxes of a class in the order of the visit.
        pairs: Boxes that overlap, whatever their classes.
        count: Number of all boxes.
    """
    remains = np.ones(len(visited), bool)
    if len(visited) == 1 or not len(pairs.one):
        return remains
    place = np.full(count, -1, np.int32)
    place[visited] = np.arange(len(visited))
    one, other = place[pairs.one], place[pairs.other]
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    earlier, later = np.minimum(one, other), np.maximum(one, other)
    order = np.argsort(earlier, kind="stable")
    visits, starts = np.unique(earlier[order], return_index=True)
    groups = np.split(later[order], starts[1:])
    for visit, removed in zip(visits.tolist(), groups, strict=False):
        if remains[visit]:
            remains[removed] = False
    return remains


def _repeats(cxcywh: npt.NDArray[np.floating], limit: float, kind: NmsKind, beta: float) -> _Pairs:
    """Return the pairs of boxes that overlap by more than a limit.

    Boxes are sorted by their left sides, and each is compared with the next ones up to the last
    that begins before it ends. The arithmetic is that of C floats, in darknet's order.
    """
    boxes: Floats = cxcywh.astype(np.float32)
    order = np.argsort(boxes[:, 0] - boxes[:, 2] / 2, kind="stable")
    boxes = boxes[order]
    half = boxes[:, 2:] / 2
    corners: Floats = np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)
    stops = np.maximum.accumulate(np.searchsorted(corners[:, 0], corners[:, 2], side="right"))
    parts = [np.empty((2, 0), np.intp)]
    start = 0 if limit > 0 else len(boxes)
    while start < len(boxes):
        end = min(len(boxes), start + max(1, _PAIRS_AT_ONCE // int(stops[start] - start + 1)))
        block, others = slice(start, end), slice(start, int(stops[end - 1]))
        overlap = _iou(boxes, corners, block, others)
        one, other = np.nonzero(overlap > limit)
        if kind == "diou":
            term = _distance_term(boxes, corners, one + start, other + start, beta)
            repeats = overlap[one, other] - term > limit
            one, other = one[repeats], other[repeats]
        parts.append(np.stack((one, other))[:, one < other] + start)
        start = end
    one, other = np.concatenate(parts, axis=1)
    return _Pairs(order[one], order[other])


def _iou(cxcywh: Floats, xyxy: Floats, block: slice, others: slice) -> Floats:
    """Return the IoU of each box of a block with each of others (box_iou)."""
    low = [np.maximum(xyxy[block, axis, None], xyxy[others, axis]) for axis in (0, 1)]
    sides = [
        np.minimum(xyxy[block, axis + 2, None], xyxy[others, axis + 2]) - low[axis]
        for axis in (0, 1)
    ]
    shared = np.maximum(sides[0], 0) * np.maximum(sides[1], 0)
    area = cxcywh[:, 2] * cxcywh[:, 3]
    union = area[block, None] + area[others] - shared
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return iou


def _distance_term(
    cxcywh: Floats, xyxy: Floats, one: Indices, other: Indices, beta: float
) -> Floats:
    """Return what box_diounms subtracts from the IoU of pairs of boxes that overlap.

    It is the squared distance of the centres, divided by the squared diagonal of the smallest
    rectangle around both, to the power of ``beta``.
    """
    low = np.minimum(xyxy[one, :2], xyxy[other, :2])
    diagonal = np.maximum(xyxy[one, 2:], xyxy[other, 2:]) - low
    distance = cxcywh[one, :2] - cxcywh[other, :2]
    share = (distance**2).sum(axis=1) / (diagonal**2).sum(axis=1)
    term: Floats = np.power(share, beta, dtype=np.float64).astype(np.float32)
    return term
