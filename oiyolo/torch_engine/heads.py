"""The loss of a network's heads, whose gradients are darknet's deltas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch.autograd.function import FunctionCtx

from oiyolo.networks.graph import heads_in
from oiyolo.torch_engine.head_options import RegionOptions, YoloOptions, head_options
from oiyolo.torch_engine.log_lines import HeadFigures
from oiyolo.torch_engine.region_deltas import region_deltas
from oiyolo.torch_engine.targets import assign, read_truths
from oiyolo.torch_engine.yolo_deltas import yolo_deltas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from oiyolo.torch_engine.network import TorchNetwork
    from oiyolo.torch_engine.rules import Rules
    from oiyolo.torch_engine.targets import BoxAssignment, Truths
    from oiyolo.torch_engine.yolo_deltas import Deltas


class HeadTarget(NamedTuple):
    """What a head should learn from a part of a batch.

    Attributes:
        truths: The truths.
        assignment: Their boxes; ``None`` in [region], where predictions decide about them.
    """

    truths: Truths
    assignment: BoxAssignment | None

    def tensors(self) -> list[Tensor]:
        """Return the tensors that it consists of."""
        return [*self.truths, *(self.assignment.tensors() if self.assignment else [])]


@dataclass(frozen=True)
class HeadResult:
    """What a head reports about a part of a batch.

    Attributes:
        layer: Index of its layer.
        loss_kind: Kind of its box loss.
        image_count: Number of images.
        count: Number of boxes with an object.
        object_factor: Factor of what is reported as the loss of objectness and classes: AlexeyAB's
            fork multiplies it with ``obj_normalizer`` once more.
        sums: As in ``yolo_deltas.Deltas``, on the device.
        normalizers: Factors of the losses of boxes, objectness and classes.
    """

    layer: int
    loss_kind: str
    image_count: int
    count: int
    object_factor: float
    sums: Tensor
    normalizers: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def figures(self) -> HeadFigures:
        """Return the figures of the log; waits for the device."""
        sums = self.sums.tolist()
        means = [total / self.count if self.count else math.nan for total in sums[:5]]
        iou, score, objectness, above_50, above_75 = means
        total = (sums[6] + sums[7]) / self.image_count
        class_loss = self.object_factor * sums[6] / self.image_count
        return HeadFigures(
            layer=self.layer,
            loss_kind=self.loss_kind,
            iou=iou,
            class_score=score,
            obj=objectness,
            no_obj=sums[5],
            recall50=above_50,
            recall75=above_75,
            count=self.count,
            class_loss=class_loss,
            iou_loss=total - class_loss,
            total_loss=total,
        )


class Heads:
    """The heads of a network.

    Args:
        network: The network.

    Raises:
        CfgError: An option of a head that is not supported.
    """

    def __init__(self, network: TorchNetwork) -> None:
        self._rules: Rules = network.rules
        self._layers: list[int] = []
        self._options: list[YoloOptions | RegionOptions] = []
        for node, head in heads_in(network.nodes(network.cfg.size_wh)):
            self._layers.append(node.layer.index)
            self._options.append(head_options(node.layer.section, head, network.rules))
        self._network = network

    @property
    def max_truths(self) -> int:
        """Number of truths per image that are used: that of the last head, as in darknet."""
        return self._options[-1].max_truths

    def targets(
        self, rows: Tensor, size_wh: tuple[int, int], device: torch.device
    ) -> list[HeadTarget]:
        """Return what the heads should learn, on a device.

        Args:
            rows: Truths, padded with zeros, shape (N, T, 5), on the CPU: x, y, width, height in
                fractions of the input, and the class.
            size_wh: Width and height of the input in pixels.
            device: Where the raw outputs will be.
        """
        nodes = heads_in(self._network.nodes(size_wh))
        classes = nodes[0][1].class_count
        truths = read_truths(rows.cpu(), classes, self.max_truths)
        targets = []
        on_device = truths.to(device)
        for (node, _), options in zip(nodes, self._options, strict=True):
            assignment = None
            if isinstance(options, YoloOptions):
                cells = node.layer.input_whc[:2]
                assignment = assign(truths, options, size_wh, cells).to(device)
            targets.append(HeadTarget(on_device, assignment))
        return targets

    def loss(
        self,
        raws: Sequence[Tensor],
        targets: Sequence[HeadTarget],
        size_wh: tuple[int, int],
        seen: int,
    ) -> tuple[Tensor, list[HeadResult]]:
        """Return the loss of a part of a batch, and what each head reports.

        The loss is the mean of the heads' losses as darknet prints them, summed over the images.
        Its gradients are the negative deltas, not the derivative of that value. Darknet divides
        both by the images of the whole batch.

        Args:
            raws: Raw outputs of the heads (``TorchNetwork.forward``).
            targets: What they should learn (``targets``).
            size_wh: Width and height of the input in pixels.
            seen: Images that the network has seen, those of this part included.
        """
        losses, results = [], []
        for raw, target, layer, options in zip(
            raws, targets, self._layers, self._options, strict=True
        ):
            deltas = self._deltas(raw, target, options, size_wh, seen)
            kind, factor, object_factor = "mse", 1.0, 1.0
            normalizers = (1.0, 1.0, 1.0)
            if isinstance(options, YoloOptions):
                normalizers = options.box_factor, options.object_factor, options.class_factor
                kind, factor = options.loss, options.gradient_factor
                object_factor = options.object_factor if options.has_details else 1.0
            value = deltas.cost / len(raws)
            losses.append(_with_gradient(raw, -factor * deltas.deltas, value))
            results.append(
                HeadResult(
                    layer,
                    kind,
                    len(raw),
                    deltas.truth_count,
                    object_factor,
                    deltas.sums,
                    normalizers,
                )
            )
        return torch.stack(losses).sum(), results

    @torch.no_grad()
    def _deltas(
        self,
        raw: Tensor,
        target: HeadTarget,
        options: YoloOptions | RegionOptions,
        size_wh: tuple[int, int],
        seen: int,
    ) -> Deltas:
        if isinstance(options, RegionOptions):
            return region_deltas(raw, target.truths, options, self._rules, seen)
        assignment = cast("BoxAssignment", target.assignment)
        return yolo_deltas(
            raw, target.truths, assignment, options, rules=self._rules, size_wh=size_wh
        )


def _with_gradient(raw: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
    """Return a value whose gradient with respect to a raw output is given."""
    result: Tensor = _WithGradient.apply(raw, gradient, value)  # type: ignore[no-untyped-call]
    return result


class _Context(FunctionCtx):
    """What the forward pass keeps: a gradient, and the number type that it should have."""

    saved_tensors: tuple[Tensor]
    dtype: torch.dtype


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is given."""

    @staticmethod
    def forward(ctx: _Context, raw: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
        """Return the value."""
        ctx.save_for_backward(gradient)
        ctx.dtype = raw.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: _Context, factor: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the raw output."""
        (gradient,) = ctx.saved_tensors
        return (factor * gradient).to(ctx.dtype), None, None
