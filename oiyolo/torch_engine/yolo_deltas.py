"""The deltas of a [yolo] or [Gaussian_yolo] head, which darknet uses as gradients.

A delta is what is added to a raw output, so it is a negative gradient. Most are not the derivative
of any loss. Sources: forward_yolo_layer, delta_yolo_box and delta_yolo_class in src/yolo_layer.c of
both forks, and their counterparts in AlexeyAB's src/gaussian_yolo_layer.c.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from oiyolo.torch_engine.box_math import ious, overlap_gradients, overlaps
from oiyolo.torch_engine.targets import Cells, group

if TYPE_CHECKING:
    from torch import Tensor

    from oiyolo.torch_engine.head_options import YoloOptions
    from oiyolo.torch_engine.rules import Rules
    from oiyolo.torch_engine.targets import BoxAssignment, Truths

_BOX_NUMBERS = {"yolo": 4, "gaussian": 8}
_SURE_CLASS = 0.25
_RAW_SURE_CLASS = math.log(_SURE_CLASS / (1 - _SURE_CLASS))
"""The same before the logistic function, which is monotonic."""

_CHUNK = 1 << 24
"""Pairs of boxes and truths that are compared at a time, for each device."""

_CPU_CHUNK = 1 << 18
_MAX_GRIDS = 256
_RECALL_IOUS = (0.5, 0.75)
_FOCAL_ALPHA = 0.5
_FOCAL_EPSILON = 1e-15
_SIGMA_OFFSET = 0.3
_DENSITY_EPSILON = 1e-9


class Deltas(NamedTuple):
    """What a head computes from a part of a batch.

    Attributes:
        deltas: The deltas, in the shape of the raw output.
        cost: The loss as darknet prints it, for the whole part, a scalar.
        truth_count: Number of boxes with an object.
        sums: Sums over them of the IoU, the score of the true class, objectness, IoUs above 0.5 and
            IoUs above 0.75; then the mean objectness of all boxes, and of the squared deltas those
            of objectness and classes and those of the boxes. Shape (8,).
    """

    deltas: Tensor
    cost: Tensor
    truth_count: int
    sums: Tensor


class Grid(NamedTuple):
    """What is known about the boxes of a head before it predicts anything, on its device.

    Attributes:
        cells_wh: Columns and rows, shape (2,).
        corners: Column and row of each cell, shape (rows, columns, 2).
        anchors_wh: The head's own anchors as fractions of the input, shape (anchors, 2).
    """

    cells_wh: Tensor
    corners: Tensor
    anchors_wh: Tensor


@functools.lru_cache(maxsize=_MAX_GRIDS)
def grid(
    cells_wh: tuple[int, int],
    anchors: tuple[tuple[float, float], ...],
    unit_wh: tuple[int, int],
    device: torch.device,
) -> Grid:
    """Return the grid of a head.

    It is kept, since the host has to wait for a device to receive numbers from it.

    Args:
        cells_wh: Columns and rows.
        anchors: The head's own anchors, in any unit.
        unit_wh: Width and height of the input in that unit.
        device: Where the head computes.
    """
    columns, rows = cells_wh
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    sizes = torch.tensor(anchors) / torch.tensor(unit_wh)
    tensors = torch.tensor(cells_wh).float(), torch.stack([column, row], -1), sizes
    return Grid(*(tensor.to(device) for tensor in tensors))


@functools.lru_cache(maxsize=_MAX_GRIDS)
def _class_weights(weights: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(weights, device=device)


class _Raw(NamedTuple):
    """A raw output in float32, of shape (N, anchors, numbers, rows, columns), and its boxes.

    Attributes:
        numbers: The raw output.
        objectness: Objectness of all boxes, shape (N, anchors, rows, columns).
        box_numbers: How many numbers a box has before its objectness.
        grid: Where its boxes are.
    """

    numbers: Tensor
    objectness: Tensor
    box_numbers: int
    grid: Grid


class _Predictions(NamedTuple):
    """The boxes that are assigned to truths, by entry.

    Attributes:
        values: Positions and sizes (``_values``), shape (E, 4).
        sigmas: Uncertainties of the same in [Gaussian_yolo], otherwise ``None``.
        boxes: The decoded boxes, shape (E, 4).
        objectness: Shape (E,).
        scores: Class scores, shape (E, classes).
        classes: The true classes, shape (E, 1).
        weights: Weights of the true classes, shape (E, 1).
    """

    values: Tensor
    sigmas: Tensor | None
    boxes: Tensor
    objectness: Tensor
    scores: Tensor
    classes: Tensor
    weights: Tensor


def yolo_deltas(
    raw: Tensor,
    truths: Truths,
    assignment: BoxAssignment,
    options: YoloOptions,
    *,
    rules: Rules,
    size_wh: tuple[int, int],
) -> Deltas:
    """Return the deltas of a head.

    Args:
        raw: Its raw output, shape (N, anchors * numbers, rows, columns).
        truths: The truths, on the device of ``raw``.
        assignment: Their assignment (``targets.assign``), on the same device.
        options: Options of the head.
        rules: Rules of the fork.
        size_wh: Width and height of the network's input in pixels.
    """
    read = _read(raw, options, size_wh)
    of_objects, assignment = _unassigned(read, truths, assignment, options, rules)
    found = _predictions(read, assignment, options)
    box_rows = _box_rows(found, assignment, options, rules, read.grid.cells_wh)
    object_rows = _object_rows(found, assignment, options, of_objects)
    class_rows = _class_rows(found, assignment, options)
    if options.iou_thresh < 1 or options.head.form == "gaussian":
        positive = (class_rows > 0).sum(1, keepdim=True).clamp_min(1)
        is_silent = (object_rows == 0)[:, None] & (options.head.form == "yolo")
        box_rows = torch.where(is_silent, box_rows, box_rows / positive)
    deltas = torch.zeros_like(read.numbers)
    deltas[:, :, read.box_numbers] = of_objects
    deltas.permute(0, 1, 3, 4, 2)[assignment.places] = torch.cat(
        [box_rows, object_rows[:, None], class_rows], 1
    )
    sums = _sums(read, found, assignment, deltas)
    count = len(assignment.boxes)
    if assignment.is_extra is not None:
        count -= int(assignment.is_extra.sum())
    cost = _cost(found, assignment, options, sums, count)
    return Deltas(deltas.view(raw.shape), cost, count, sums)


def _read(raw: Tensor, options: YoloOptions, size_wh: tuple[int, int]) -> _Raw:
    count, _, rows, columns = raw.shape
    anchors = len(options.mask)
    numbers = raw.detach().float().reshape(count, anchors, -1, rows, columns)
    box_numbers = _BOX_NUMBERS[options.head.form]
    objectness = numbers[:, :, box_numbers]
    if not options.head.is_activated:
        objectness = objectness.sigmoid()
    own = tuple(options.anchors_px[place] for place in options.mask)
    where = grid((columns, rows), own, size_wh, raw.device)
    return _Raw(numbers, objectness, box_numbers, where)


def _values(numbers: Tensor, options: YoloOptions) -> tuple[Tensor, Tensor]:
    """Return the positions of boxes in their cells, and their sizes before any activation.

    Args:
        numbers: The raw numbers of boxes, shape (..., 4 or 8).
        options: Options of the head.

    Returns:
        Two tensors of shape (..., 2).
    """
    head = options.head
    step = 2 if head.form == "gaussian" else 1
    positions, sizes = numbers[..., 0 : 2 * step : step], numbers[..., 2 * step :: step]
    if not head.is_activated:
        positions = positions.sigmoid()
    if head.scale_xy != 1:
        positions = positions * head.scale_xy - (head.scale_xy - 1) / 2
    return positions, sizes


def _decoded(
    values: tuple[Tensor, Tensor],
    corners: Tensor,
    anchors_wh: Tensor,
    raw: _Raw,
    options: YoloOptions,
) -> Tensor:
    """Return boxes as fractions of the input, shape (..., 4).

    Args:
        values: Their positions and sizes (``_values``).
        corners: Columns and rows of their cells, shape (..., 2).
        anchors_wh: Their anchors as fractions of the input, shape (..., 2).
        raw: The raw output that they are part of.
        options: Options of the head.
    """
    head, (positions, sizes) = options.head, values
    centres = (corners + positions) / raw.grid.cells_wh
    factors = 4 * sizes**2 if head.is_activated else sizes.exp()
    sizes = factors * anchors_wh
    if head.point != "center":
        centres = centres + {"left_top": 0.5, "right_bottom": -0.5}[head.point] * sizes
    return torch.cat([centres, sizes], -1)


def _all_boxes(raw: _Raw, options: YoloOptions) -> Tensor:
    """Return all boxes of a head, shape (N, anchors * rows * columns, 4)."""
    # With channels last, a CPU would compute the numbers of each box one by one.
    numbers = raw.numbers[:, :, : raw.box_numbers].contiguous().permute(0, 1, 3, 4, 2)
    anchors = raw.grid.anchors_wh[:, None, None]
    boxes = _decoded(_values(numbers, options), raw.grid.corners, anchors, raw, options)
    return boxes.reshape(len(boxes), -1, 4)


def best_overlaps(boxes: Tensor, truths: Truths) -> tuple[Tensor, Tensor]:
    """Return the best IoU of each box with a truth of its image, and which truth that is.

    Args:
        boxes: Boxes, shape (N, M, 4).
        truths: The truths, T per image.

    Returns:
        IoUs, and the truths' indices, of any truth where none overlaps; both of shape (N, M).
    """
    limit = _CHUNK if boxes.is_cuda else _CPU_CHUNK
    chunk = max(1, limit // max(1, boxes.shape[:2].numel()))
    # Where the numbers of a kind are next to each other, a CPU computes several at once.
    boxes = boxes.permute(2, 0, 1).contiguous().permute(1, 2, 0)[:, None]
    targets = truths.boxes.masked_fill(~truths.valid[..., None], 0.0)[:, :, None]
    best, which = ious(boxes, targets[:, :chunk]).max(1)
    for start in range(chunk, targets.shape[1], chunk):
        highest, index = ious(boxes, targets[:, start : start + chunk]).max(1)
        is_better = highest > best
        best = torch.where(is_better, highest, best)
        which = torch.where(is_better, index + start, which)
    return best, which


def _unassigned(
    raw: _Raw, truths: Truths, assignment: BoxAssignment, options: YoloOptions, rules: Rules
) -> tuple[Tensor, BoxAssignment]:
    """Return the objectness deltas of all boxes before any truth is assigned.

    With ``truth_thresh`` below 1, boxes that overlap a truth by more come first in the assignment.
    """
    shape = raw.objectness.shape
    best, which = (part.view(shape) for part in best_overlaps(_all_boxes(raw, options), truths))
    deltas = raw.objectness * -options.object_factor
    matching = best
    if rules.ignores_by_class:
        highest = raw.numbers[:, :, raw.box_numbers + 1 :].amax(2)
        sure = _SURE_CLASS if options.head.is_activated else _RAW_SURE_CLASS
        matching = best.masked_fill(~(highest > sure), 0.0)  # NaN is not sure
    is_spared = matching > options.ignore_thresh
    if options.has_smooth_objects:
        spared = torch.maximum(deltas, options.object_factor * (matching - raw.objectness))
        deltas = torch.where(is_spared, spared, deltas)
    else:
        deltas.masked_fill_(is_spared, 0.0)
    if options.truth_thresh >= 1:
        return deltas, assignment
    extra = Cells(*(best > options.truth_thresh).nonzero(as_tuple=True))
    added = (truths.boxes[extra.image, which[extra]], truths.classes[extra.image, which[extra]])
    assignment = _with_extra(assignment, extra, added, raw)
    deltas[extra] = options.object_factor * (1 - raw.objectness[extra])
    return deltas, assignment


def _with_extra(
    assignment: BoxAssignment,
    extra: Cells,
    truths: tuple[Tensor, Tensor],
    raw: _Raw,
) -> BoxAssignment:
    """Return an assignment that begins with further boxes, given their truths and classes."""
    device = raw.numbers.device
    parts = (*truths, raw.grid.anchors_wh[extra.anchor])
    own = (assignment.boxes, assignment.classes, assignment.anchors_wh)
    joined = [torch.cat(pair).cpu() for pair in zip(parts, own, strict=True)]
    entries = Cells(
        *(torch.cat(pair).cpu() for pair in zip(extra, assignment.entries, strict=True))
    )
    is_extra = torch.arange(len(joined[0])) < len(extra.image)
    return group(entries, joined[0], joined[1], joined[2], is_extra).to(device)


def _predictions(raw: _Raw, assignment: BoxAssignment, options: YoloOptions) -> _Predictions:
    numbers = raw.numbers.permute(0, 1, 3, 4, 2)[assignment.entries]
    box, objectness, scores = numbers.tensor_split([raw.box_numbers, raw.box_numbers + 1], 1)
    if not options.head.is_activated:
        objectness, scores = objectness.sigmoid(), scores.sigmoid()
    values = _values(box, options)
    sigmas = box[:, 1::2].sigmoid() if options.head.form == "gaussian" else None
    boxes = _decoded(values, assignment.corners, assignment.anchors_wh, raw, options)
    classes = assignment.classes[:, None]
    weights = torch.ones_like(objectness)
    if options.class_weights:
        of_classes = _class_weights(options.class_weights, numbers.device)
        weights = of_classes[assignment.classes][:, None]
    return _Predictions(
        torch.cat(values, 1), sigmas, boxes, objectness[:, 0], scores, classes, weights
    )


def _box_rows(
    found: _Predictions,
    assignment: BoxAssignment,
    options: YoloOptions,
    rules: Rules,
    cells: Tensor,
) -> Tensor:
    """Return the box deltas of each distinct box: of all its truths, or of the last."""
    factor = options.box_factor * found.weights
    truths = assignment.boxes
    if found.sigmas is not None:
        deltas = _gaussian_deltas(found, found.sigmas, assignment, options, cells)
    elif options.loss == "mse":
        weights = 2 - truths[:, 2:3] * truths[:, 3:4]
        wanted = _wanted(assignment, options, cells)
        deltas = weights * (wanted - found.values) * factor
    else:
        deltas = overlap_gradients(found.boxes, truths, options.loss)
        if not options.head.is_activated:
            deltas = deltas * torch.cat(
                [torch.ones_like(deltas[:, :2]), found.values[:, 2:].exp()], 1
            )
        deltas = deltas * factor
    if found.sigmas is not None or options.loss != "mse":
        deltas = torch.nan_to_num(deltas, nan=0.0, posinf=0.0, neginf=0.0)
        deltas = deltas.clamp(-options.max_delta, options.max_delta)
    if not rules.sums_boxes:
        return deltas[assignment.last]
    rows = deltas.new_zeros(len(assignment.first), deltas.shape[1])
    return rows.index_add(0, assignment.row_of, deltas)


def _wanted(assignment: BoxAssignment, options: YoloOptions, cells: Tensor) -> Tensor:
    """Return the numbers with which boxes would equal their truths, shape (E, 4)."""
    truths, head = assignment.boxes, options.head
    shift = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}[head.point]
    positions = (truths[:, :2] + shift * truths[:, 2:]) * cells - assignment.corners
    ratios = truths[:, 2:] / assignment.anchors_wh
    return torch.cat([positions, (ratios / 4).sqrt() if head.is_activated else ratios.log()], 1)


def _gaussian_deltas(
    found: _Predictions,
    sigmas: Tensor,
    assignment: BoxAssignment,
    options: YoloOptions,
    cells: Tensor,
) -> Tensor:
    """Return the deltas of x, y, width and height, each followed by that of its uncertainty."""
    truths = assignment.boxes
    errors = (_wanted(assignment, options, cells) - found.values) / sigmas
    density = torch.exp(-(errors**2) / 2) / (math.sqrt(2 * math.pi) * (sigmas + _SIGMA_OFFSET))
    weights = 0.5 * density / (density + _DENSITY_EPSILON) * (2 - truths[:, 2:3] * truths[:, 3:4])
    of_values = weights * errors / sigmas
    of_sigmas = weights * (errors**2 / sigmas - 1 / (sigmas + _SIGMA_OFFSET))
    if options.loss != "mse":
        of_values = overlap_gradients(found.boxes, truths, options.loss)
        centres, sizes = of_values[:, :2], of_values[:, 2:]
        shift = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}[options.head.point]
        of_values = torch.cat([centres + shift * sizes, sizes * found.values[:, 2:].exp()], 1)
    of_values = of_values * options.box_factor * found.weights
    return torch.stack([of_values, of_sigmas * options.uncertainty_factor], 2).flatten(1)


def _object_rows(
    found: _Predictions, assignment: BoxAssignment, options: YoloOptions, of_objects: Tensor
) -> Tensor:
    """Return the objectness deltas of each distinct box."""
    weights = found.weights[:, 0]
    if assignment.is_extra is not None:
        weights = torch.where(assignment.is_extra, 1.0, weights)
    rows = (weights * options.object_factor * (1 - found.objectness))[assignment.last]
    if not options.has_smooth_objects:
        return rows
    before = of_objects[assignment.places]
    return torch.where(before == 0, rows, before)


def _class_rows(found: _Predictions, assignment: BoxAssignment, options: YoloOptions) -> Tensor:
    """Return the class deltas of each distinct box (delta_yolo_class).

    Its first truth sets the deltas of all classes, further ones only those of their own classes.
    """
    smoothing = options.label_smoothing
    present, absent = 1 - smoothing / 2, smoothing / 2
    own = found.scores.gather(1, found.classes)
    first, classes = assignment.first, found.classes[assignment.first]
    scores = found.scores[first]
    if options.has_focal_loss:
        certainty = own[first] + _FOCAL_EPSILON
        slope = -(1 - certainty) * (2 * certainty * certainty.log() + certainty - 1)
        wanted = torch.zeros_like(scores).scatter(1, classes, 1.0)
        rows = (wanted - scores) * _FOCAL_ALPHA * slope
    else:
        rows = absent - scores
        of_own = present - own[first]
        if options.class_weights:
            of_own = of_own * found.weights[first] * options.class_factor
        rows = rows.scatter(1, classes, of_own)
    later = assignment.later
    if not len(later):
        return rows
    of_later = ((present - own) * found.weights)[later, 0]
    return rows.index_put((assignment.row_of[later], assignment.classes[later]), of_later)


def _sums(raw: _Raw, found: _Predictions, assignment: BoxAssignment, deltas: Tensor) -> Tensor:
    iou = ious(found.boxes, assignment.boxes)
    own = found.scores.gather(1, found.classes)[:, 0]
    by_entry = matches(iou, own, found.objectness)
    if assignment.is_extra is not None:
        by_entry = torch.where(assignment.is_extra, 0.0, by_entry)
    of_boxes = deltas[:, :, : raw.box_numbers].square().sum()
    of_others = deltas[:, :, raw.box_numbers :].square().sum()
    rest = torch.stack([raw.objectness.mean(), of_others, of_boxes])
    return torch.cat([by_entry.sum(1), rest])


def matches(iou: Tensor, scores: Tensor, objectness: Tensor) -> Tensor:
    """Return the first five rows of ``Deltas.sums`` before they are summed, shape (5, E)."""
    passed = [(iou > threshold).float() for threshold in _RECALL_IOUS]
    return torch.stack([iou, scores, objectness, *passed])


def _cost(
    found: _Predictions,
    assignment: BoxAssignment,
    options: YoloOptions,
    sums: Tensor,
    count: int,
) -> Tensor:
    """Return the loss that darknet prints: the squared deltas, or the overlap's and the others'."""
    of_others, of_boxes = sums[6], sums[7]
    if not options.has_details or options.loss == "mse":
        return of_others + of_boxes
    losses = 1 - overlaps(
        found.boxes, assignment.boxes, "giou" if options.loss == "giou" else "iou"
    )
    if assignment.is_extra is not None:
        losses = torch.where(assignment.is_extra, 0.0, losses)
    mean = options.box_factor * losses.sum() / max(count, 1)
    return mean + options.object_factor * of_others
