"""Overlaps of boxes and their gradients, as AlexeyAB's fork computes them (src/box.c).

Boxes are centre x and y, width and height, in the last dimension of a tensor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

OverlapKind = Literal["mse", "iou", "giou", "diou", "ciou"]

_ASPECT_FACTOR = 4 / math.pi**2
_ASPECT_EPSILON = 1e-6
_DIOU_POWER = 0.6
_LOW_SIDES = 2
"""Left and top; right and bottom follow."""


class _Sides(NamedTuple):
    """Left, top, right and bottom of boxes."""

    left: Tensor
    top: Tensor
    right: Tensor
    bottom: Tensor


def _sides(boxes: Tensor) -> _Sides:
    centres, halves = boxes[..., :2], boxes[..., 2:] / 2
    return _Sides(*(centres - halves).unbind(-1), *(centres + halves).unbind(-1))


def ious(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of boxes, 0 where they do not overlap (box_iou)."""
    a, b = _sides(boxes), _sides(others)
    width = torch.minimum(a.right, b.right) - torch.maximum(a.left, b.left)
    height = torch.minimum(a.bottom, b.bottom) - torch.maximum(a.top, b.top)
    inside = width.clamp_min(0) * height.clamp_min(0)
    union = boxes[..., 2] * boxes[..., 3] + others[..., 2] * others[..., 3] - inside
    return torch.where(inside == 0, inside, inside / union)


def overlaps(boxes: Tensor, others: Tensor, kind: OverlapKind) -> Tensor:
    """Return the overlap of boxes by a kind of measure; ``mse`` is IoU, as in box_iou_kind."""
    iou = ious(boxes, others)
    if kind in ("mse", "iou"):
        return iou
    a, b = _sides(boxes), _sides(others)
    width = torch.maximum(a.right, b.right) - torch.minimum(a.left, b.left)
    height = torch.maximum(a.bottom, b.bottom) - torch.minimum(a.top, b.top)
    if kind == "giou":
        hull = width * height
        areas = boxes[..., 2] * boxes[..., 3] + others[..., 2] * others[..., 3]
        union = areas / (1 + iou)  # because the intersection is IoU times the union
        return torch.where(hull == 0, iou, iou - (hull - union) / hull)
    diagonal = width**2 + height**2
    distance = ((boxes[..., :2] - others[..., :2]) ** 2).sum(-1) / diagonal
    if kind == "diou":
        return torch.where(diagonal == 0, iou, iou - distance**_DIOU_POWER)
    aspect = _ASPECT_FACTOR * _aspect_difference(boxes, others) ** 2
    weight = aspect / (1 - iou + aspect + _ASPECT_EPSILON)
    return torch.where(diagonal == 0, iou, iou - distance - weight * aspect)


def _aspect_difference(boxes: Tensor, truths: Tensor) -> Tensor:
    return torch.atan(truths[..., 2] / truths[..., 3]) - torch.atan(boxes[..., 2] / boxes[..., 3])


class _Pair:
    """Boxes, the truths they should become, and what the gradients of their overlaps consist of.

    Gradients by sides are tensors of left, top, right and bottom, in the last dimension.
    """

    def __init__(self, boxes: Tensor, truths: Tensor) -> None:
        self.boxes, self.truths = boxes, truths
        box, truth = torch.stack(_sides(boxes), -1), torch.stack(_sides(truths), -1)
        is_low = torch.arange(2 * _LOW_SIDES, device=boxes.device) < _LOW_SIDES
        self.is_inside = torch.where(is_low, box > truth, box < truth)
        self.is_outside = torch.where(is_low, box < truth, box > truth)
        inner = torch.where(is_low, torch.maximum(box, truth), torch.minimum(box, truth))
        outer = torch.where(is_low, torch.minimum(box, truth), torch.maximum(box, truth))
        self.inner_wh = inner[..., 2:] - inner[..., :2]  # negative where the boxes are apart
        self.outer_wh = outer[..., 2:] - outer[..., :2]
        self.intersection = self.inner_wh.prod(-1, keepdim=True)
        areas = boxes[..., 2:].prod(-1, keepdim=True) + truths[..., 2:].prod(-1, keepdim=True)
        self.union = areas - self.intersection
        self.are_apart = (self.inner_wh <= 0).any(-1, keepdim=True)

    @staticmethod
    def by_sides(wh: Tensor) -> Tensor:
        """Return the gradient of an area with respect to its sides."""
        w, h = wh[..., 0], wh[..., 1]
        return torch.stack([-h, -w, h, w], -1)


def overlap_gradients(boxes: Tensor, truths: Tensor, kind: OverlapKind) -> Tensor:
    """Return darknet's gradient of an overlap with respect to boxes (dx_box_iou).

    It is not the derivative: that with respect to width and height is not halved, the weight of the
    aspect ratio is constant, and the terms of the distance are those of darknet.

    Args:
        boxes: Predicted boxes, shape (E, 4); sides of 0 become 1 (delta_yolo_box).
        truths: True boxes, shape (E, 4).
        kind: ``iou``, ``giou``, ``diou`` or ``ciou``.

    Returns:
        Gradients of x, y, width and height, shape (E, 4); NaN or infinite for impossible boxes.
    """
    sizes = boxes[:, 2:]
    pair = _Pair(torch.cat([boxes[:, :2], torch.where(sizes == 0, 1.0, sizes)], 1), truths)
    sides = _side_gradients(pair, is_giou=kind == "giou")
    low, high = sides[:, :2], sides[:, 2:]
    gradients = torch.cat([low + high, high - low], 1)
    if kind in ("iou", "giou"):
        return gradients
    terms = _distance_terms(pair)
    if kind == "ciou":
        terms = terms + _aspect_terms(pair)
    return torch.where(pair.are_apart, terms, gradients + terms)


def _side_gradients(pair: _Pair, *, is_giou: bool) -> Tensor:
    union, intersection = pair.union, pair.intersection
    of_intersection = pair.by_sides(pair.inner_wh) * pair.is_inside
    of_union = pair.by_sides(pair.boxes[:, 2:]) - of_intersection
    iou_part = (union * of_intersection - intersection * of_union) / union**2
    iou_part = torch.where(union > 0, iou_part, 0.0)
    if not is_giou:
        return iou_part
    hull = pair.outer_wh.prod(-1, keepdim=True)
    of_hull = pair.by_sides(pair.outer_wh) * pair.is_outside
    hull_part = (hull * of_union - union * of_hull) / hull**2
    return torch.where(pair.are_apart, hull_part, iou_part + hull_part)


def _distance_terms(pair: _Pair) -> Tensor:
    """Return the gradient of the squared distance of the centres over that of the corners.

    In x and y it is that of the negative ratio, in width and height that of the ratio.
    """
    offset = pair.truths[:, :2] - pair.boxes[:, :2]
    distance = (offset**2).sum(-1, keepdim=True)
    diagonal = (pair.outer_wh**2).sum(-1, keepdim=True)
    low, high = pair.is_outside[:, :2].float(), pair.is_outside[:, 2:].float()
    of_centre = 2 * pair.outer_wh * (high - low)
    of_size = 2 * pair.outer_wh * (high + low) / 2
    centres = (2 * offset * diagonal - of_centre * distance) / diagonal**2
    sizes = of_size * distance / diagonal**2
    return torch.cat([centres, sizes], 1)


def _aspect_terms(pair: _Pair) -> Tensor:
    difference = _aspect_difference(pair.boxes, pair.truths)
    aspect = _ASPECT_FACTOR * difference**2
    iou = (pair.intersection / pair.union)[:, 0]
    weight = aspect / (1 - iou + aspect + _ASPECT_EPSILON)
    slope = 2 * _ASPECT_FACTOR * difference * weight
    zero = torch.zeros_like(slope)
    return torch.stack([zero, zero, slope * pair.boxes[:, 3], -slope * pair.boxes[:, 2]], 1)
