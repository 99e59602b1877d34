"""The deltas of a [region] head (YOLOv2), which darknet uses as gradients.

Sources: forward_region_layer, delta_region_box and delta_region_class in src/region_layer.c of both
forks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from oiyolo.torch_engine.box_math import ious
from oiyolo.torch_engine.yolo_deltas import Deltas, best_overlaps, grid, matches

if TYPE_CHECKING:
    from torch import Tensor

    from oiyolo.torch_engine.head_options import RegionOptions
    from oiyolo.torch_engine.rules import Rules
    from oiyolo.torch_engine.targets import Truths
    from oiyolo.torch_engine.yolo_deltas import Grid

_EARLY_IMAGES = 12_800
"""Images until which every box is also drawn to its anchor."""

_EARLY_FACTOR = 0.01
_BOX_NUMBERS = 4


class _Raw(NamedTuple):
    """A raw output by box: (N, anchors, rows, columns, numbers), with activation except of sizes.

    Attributes:
        positions: Centres within the cells, shape (..., 2).
        sizes: Logarithms of sizes over anchors, shape (..., 2).
        objectness: Shape (N, anchors, rows, columns).
        scores: Distribution of the classes, shape (..., classes).
        boxes: Decoded boxes, shape (..., 4).
        grid: Where they are.
    """

    positions: Tensor
    sizes: Tensor
    objectness: Tensor
    scores: Tensor
    boxes: Tensor
    grid: Grid


def region_deltas(
    raw: Tensor, truths: Truths, options: RegionOptions, rules: Rules, seen: int
) -> Deltas:
    """Return the deltas of a head.

    Args:
        raw: Its raw output, shape (N, anchors * numbers, rows, columns).
        truths: The truths, on the same device.
        options: Options of the head.
        rules: Rules of the fork.
        seen: Images that the network has seen, this part of the batch included.
    """
    read = _read(raw, options)
    of_boxes, of_objects = _unassigned(read, truths, options, seen)
    of_classes = torch.zeros_like(read.scores)
    places, found, last = _assigned(read, truths, options)
    true_boxes, classes = (part[tuple(truths.places)] for part in truths[:2])
    iou = ious(found, true_boxes)
    objectness, scores = read.objectness[places], read.scores[places]
    wanted = torch.zeros_like(scores).scatter(1, classes[:, None], 1.0)
    goal = iou if options.rescores else torch.ones_like(iou)
    rows = (
        _box_rows(read, places, true_boxes, options, rules),
        options.object_factor * (goal - objectness),
        options.class_factor * (wanted - scores),
    )
    for target, values in zip((of_boxes, of_objects, of_classes), rows, strict=True):
        target[places] = values[last]  # what several truths write to one box is equal
    plain = _squares(of_boxes, of_objects, of_classes)
    of_boxes[..., :2] *= read.positions * (1 - read.positions)
    of_objects *= read.objectness * (1 - read.objectness)
    squares = _squares(of_boxes, of_objects, of_classes) if rules.counts_region_slopes else plain
    joined = torch.cat([of_boxes, of_objects[..., None], of_classes], -1)
    deltas = joined.permute(0, 1, 4, 2, 3).reshape(raw.shape)
    own = scores.gather(1, classes[:, None])[:, 0]
    by_truth = matches(iou, own, objectness).sum(1)
    sums = torch.cat([by_truth, read.objectness.mean()[None], squares])
    return Deltas(deltas, squares.sum(), len(true_boxes), sums)


def _squares(of_boxes: Tensor, of_objects: Tensor, of_classes: Tensor) -> Tensor:
    """Return the squares of the objectness and class deltas, and of the box deltas."""
    return torch.stack([(of_objects**2).sum() + (of_classes**2).sum(), (of_boxes**2).sum()])


def _read(raw: Tensor, options: RegionOptions) -> _Raw:
    count, _, rows, columns = raw.shape
    shape = (count, len(options.anchors_cells), -1, rows, columns)
    numbers = raw.detach().float().reshape(shape).permute(0, 1, 3, 4, 2)
    positions, sizes = numbers[..., :2].sigmoid(), numbers[..., 2:_BOX_NUMBERS]
    where = grid((columns, rows), options.anchors_cells, (columns, rows), raw.device)
    centres = (where.corners + positions) / where.cells_wh
    boxes = torch.cat([centres, sizes.exp() * where.anchors_wh[:, None, None]], -1)
    scores = numbers[..., _BOX_NUMBERS + 1 :].softmax(-1)
    return _Raw(positions, sizes, numbers[..., _BOX_NUMBERS].sigmoid(), scores, boxes, where)


def _unassigned(
    read: _Raw, truths: Truths, options: RegionOptions, seen: int
) -> tuple[Tensor, Tensor]:
    """Return the box and objectness deltas of all boxes before any truth is assigned."""
    best, _ = best_overlaps(read.boxes.flatten(1, 3), truths)
    is_spared = best.view_as(read.objectness) > options.thresh
    of_objects = torch.where(is_spared, 0.0, options.no_object_factor * (0 - read.objectness))
    of_boxes = torch.zeros_like(read.boxes)
    if seen < _EARLY_IMAGES:
        of_boxes = _EARLY_FACTOR * torch.cat([0.5 - read.positions, -read.sizes], -1)
    return of_boxes, of_objects


def _assigned(
    read: _Raw, truths: Truths, options: RegionOptions
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Return where the box of each truth is, its decoded box, and the last truth that has it."""
    image = truths.places[0]
    boxes = truths.boxes[tuple(truths.places)]
    rows, columns = read.objectness.shape[2:]
    cells = read.grid.cells_wh
    corner = torch.minimum((boxes[:, :2] * cells).clamp_min(0), cells - 1)
    column, row = corner.long().unbind(1)
    candidates = read.boxes[image, :, row, column]
    sizes = read.grid.anchors_wh.expand_as(candidates[..., 2:])
    if not options.matches_anchors:
        sizes = candidates[..., 2:]
    centred = torch.cat([torch.zeros_like(sizes), sizes], -1)
    shapes = torch.cat([torch.zeros_like(boxes[:, :2]), boxes[:, 2:]], 1)
    anchor = ious(centred, shapes[:, None]).argmax(1)
    place = ((image * sizes.shape[1] + anchor) * rows + row) * columns + column
    order = torch.arange(len(anchor), device=anchor.device)
    same = order[None] * (place[:, None] == place)
    last = torch.cat([same, order[:, None]], 1).amax(1)
    return (image, anchor, row, column), candidates[order, anchor], last


def _box_rows(
    read: _Raw,
    places: tuple[Tensor, ...],
    boxes: Tensor,
    options: RegionOptions,
    rules: Rules,
) -> Tensor:
    _, anchor, row, column = places
    positions = boxes[:, :2] * read.grid.cells_wh - torch.stack([column, row], 1)
    sizes = (boxes[:, 2:] / read.grid.anchors_wh[anchor]).log()
    wanted = torch.cat([positions, sizes], 1)
    rows = options.box_factor * (
        wanted - torch.cat([read.positions[places], read.sizes[places]], 1)
    )
    if rules.weighs_small_regions:
        rows = rows * (2 - boxes[:, 2:3] * boxes[:, 3:4])
    return rows
