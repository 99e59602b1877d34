"""The truths of a batch, and which boxes of a [yolo] head they are assigned to.

An assignment depends on the truths and anchors alone, so it is computed on the CPU while the device
is busy with something else.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from oiyolo.torch_engine.box_math import overlaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from oiyolo.torch_engine.head_options import YoloOptions

_TRUTH_NUMBERS = 5
_ALIGNMENT_BYTES = 16
_MAX_ANCHORS = 256


class Truths(NamedTuple):
    """The truths of a batch.

    Attributes:
        boxes: Centres and sizes as fractions of the input, shape (N, T, 4).
        classes: Classes, shape (N, T).
        valid: Whether there is a truth, shape (N, T).
        places: Image and column of each truth, image by image, shape (2, E). A device could find
            them only while the host waits for it.
    """

    boxes: Tensor
    classes: Tensor
    valid: Tensor
    places: Tensor

    def to(self, device: torch.device) -> Truths:
        """Return the same on a device."""
        return Truths(*_sent(self, device))


class Cells(NamedTuple):
    """Where boxes are: per box the image, the anchor's place in the mask, the row and the column.

    It indexes a tensor of shape (N, anchors, rows, columns).
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor


@dataclass(frozen=True)
class BoxAssignment:
    """Truths that are assigned to boxes, in the order in which darknet processes them.

    Attributes:
        entries: Where each assigned box is; E of them.
        places: Where each distinct box is; U of them.
        boxes: The truths' boxes, shape (E, 4).
        classes: The truths' classes, shape (E,).
        anchors_wh: Anchors of the boxes, as fractions of the input, shape (E, 2).
        row_of: Index of each entry's box among the distinct ones, shape (E,).
        first: Index of the first entry of each distinct box, shape (U,).
        last: Index of its last entry, shape (U,).
        later: Indices of the entries that are not the first of their box.
        corners: Column and row of each entry's cell, shape (E, 2).
        is_extra: Whether an entry is an unassigned box that overlaps a truth by more than
            ``truth_thresh``; such entries count in no statistics. ``None`` if there are none.
    """

    entries: Cells
    places: Cells
    boxes: Tensor
    classes: Tensor
    anchors_wh: Tensor
    row_of: Tensor
    first: Tensor
    last: Tensor
    later: Tensor
    corners: Tensor
    is_extra: Tensor | None = None

    def to(self, device: torch.device) -> BoxAssignment:
        """Return the same on a device."""
        sent = iter(_sent(self.tensors(), device))
        entries, places = (Cells(*itertools.islice(sent, len(Cells._fields))) for _ in range(2))
        return BoxAssignment(entries, places, **dict(zip(self._names(), sent, strict=True)))

    def tensors(self) -> list[Tensor]:
        """Return the tensors that it consists of."""
        return [*self.entries, *self.places, *(getattr(self, name) for name in self._names())]

    def _names(self) -> list[str]:
        """Return the names of the tensors after the cells."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return [name for name in names if name not in ("entries", "places")]


def _sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors on a device; a GPU gets all of them in one transfer, and nothing waits."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    return unpacked(packed(tensors, pinned=True).to(device, non_blocking=True), tensors)


def packed(tensors: Sequence[Tensor], *, pinned: bool) -> Tensor:
    """Return the bytes of tensors of the CPU, one after the other."""
    ends = _ends(tensors)
    buffer = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=pinned)
    content = buffer.numpy()
    for tensor, end in zip(tensors, ends, strict=True):
        values = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
        start = end - _padded(tensor)
        content[start : start + len(values)] = values
    return buffer


def unpacked(buffer: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return what ``packed`` has packed, given tensors of the same shapes and types."""
    return [
        buffer[end - _padded(tensor) :][: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for tensor, end in zip(tensors, _ends(tensors), strict=True)
    ]


def _ends(tensors: Sequence[Tensor]) -> list[int]:
    return list(itertools.accumulate(_padded(tensor) for tensor in tensors))


def _padded(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def read_truths(rows: Tensor, class_count: int, max_truths: int) -> Truths:
    """Return truths as a head reads them, without columns that are empty for all images.

    Darknet stops at the first truth whose x is 0 and skips classes that the network does not have.

    Args:
        rows: x, y, width, height and class of each truth, in fractions of the input and padded with
            zeros, shape (N, T, 5), on the CPU.
        class_count: Number of the network's classes.
        max_truths: Number of truths per image that are used.
    """
    rows = rows[:, :max_truths].float()
    is_there = (rows[..., 0] != 0).cumprod(1).bool()
    longest = max(int(is_there.sum(1).max()) if is_there.numel() else 0, 1)
    if rows.shape[1] < longest:
        rows = rows.new_zeros(len(rows), longest, _TRUTH_NUMBERS)
        is_there = rows[..., 0] != 0
    rows, is_there = rows[:, :longest], is_there[:, :longest]
    classes = rows[..., 4].long()
    valid = is_there & (classes >= 0) & (classes < class_count)
    places = torch.stack(valid.nonzero(as_tuple=True))
    return Truths(rows[..., :4].contiguous(), classes.clamp(0, class_count - 1), valid, places)


def assign(
    truths: Truths, options: YoloOptions, size_wh: tuple[int, int], cells_wh: tuple[int, int]
) -> BoxAssignment:
    """Return which boxes of a head learn which truths (forward_yolo_layer in src/yolo_layer.c).

    A truth is assigned to the anchor with the best IoU of all heads' anchors, if this head has it,
    and with ``iou_thresh`` below 1 also to the head's other anchors whose overlap is larger.

    Args:
        truths: The truths, on the CPU.
        options: Options of the head.
        size_wh: Width and height of the input in pixels.
        cells_wh: Columns and rows of the head.
    """
    anchors, mask = _anchors(options.anchors_px, options.mask, size_wh)
    shapes = torch.cat([torch.zeros_like(truths.boxes[..., :2]), truths.boxes[..., 2:]], -1)
    centred = torch.cat([torch.zeros_like(anchors), anchors], -1)
    ious = overlaps(centred, shapes[:, :, None], "iou")
    best = ious.argmax(2, keepdim=True)  # the first of equal ones, as in darknet
    is_assigned = mask == best
    if options.iou_thresh < 1:
        others = overlaps(centred, shapes[:, :, None], options.iou_thresh_kind)
        is_assigned |= others[..., mask] > options.iou_thresh
    image, truth, place = (is_assigned & truths.valid[..., None]).nonzero(as_tuple=True)
    boxes = truths.boxes[image, truth]
    corner = _first_point(boxes, options) * torch.tensor(cells_wh)
    limit = torch.tensor(cells_wh) - 1
    column, row = torch.minimum(corner.long().clamp_min(0), limit).unbind(1)
    entries = Cells(image, place, row, column)
    return group(entries, boxes, truths.classes[image, truth], anchors[mask[place]])


@functools.lru_cache(maxsize=_MAX_ANCHORS)
def _anchors(
    anchors_px: tuple[tuple[float, float], ...], mask: tuple[int, ...], size_wh: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return all heads' anchors as fractions of the input, shape (A, 2), and which a head has."""
    return torch.tensor(anchors_px) / torch.tensor(size_wh), torch.tensor(mask)


def _first_point(boxes: Tensor, options: YoloOptions) -> Tensor:
    """Return the points of boxes that decide about their cells: the centre, or a corner."""
    signs = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}
    return boxes[:, :2] + signs[options.head.point] * boxes[:, 2:]


def group(
    entries: Cells,
    boxes: Tensor,
    classes: Tensor,
    anchors_wh: Tensor,
    is_extra: Tensor | None = None,
) -> BoxAssignment:
    """Return an assignment, given its entries in the order of darknet, on the CPU."""
    places = np.stack([tensor.numpy() for tensor in entries])
    # np.unique along an axis is several times slower.
    numbers = np.ravel_multi_index(tuple(places), tuple(places.max(1, initial=0) + 1))
    _, first, row_of = np.unique(numbers, return_index=True, return_inverse=True)
    last = np.zeros(len(first), np.int64)
    last[row_of] = np.arange(len(row_of))  # later entries overwrite earlier ones
    is_later = np.ones(len(row_of), np.bool_)
    is_later[first] = False
    return BoxAssignment(
        entries=entries,
        places=Cells(*torch.from_numpy(places[:, first]).unbind(0)),
        boxes=boxes,
        classes=classes,
        anchors_wh=anchors_wh,
        row_of=torch.from_numpy(row_of),
        first=torch.from_numpy(first),
        last=torch.from_numpy(last),
        later=torch.from_numpy(np.flatnonzero(is_later)),
        corners=torch.stack([entries.column, entries.row], 1),
        is_extra=is_extra,
    )
