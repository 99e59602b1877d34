"""A darknet network as a PyTorch module that can be trained.

The layers are those of ``networks.graph``, so the module computes what the converted ONNX model
does. A batch normalization follows a fork's rules; everything else is common to all forks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from oiyolo.networks.graph import (
    IMAGE,
    Activation,
    Addition,
    Blocks,
    Concatenation,
    Convolution,
    GlobalMean,
    Head,
    Norm,
    Pool,
    Product,
    Upsample,
    graph,
)
from oiyolo.networks.torch_limits import check_trainable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.graph import Node, Operation
    from oiyolo.networks.layers import Layer
    from oiyolo.torch_engine.rules import Defects, NormRules, Rules

_TINY = 1e-12
"""Stands for a variance epsilon of 0, which would divide 0 by 0 in a constant channel."""


class TorchNetwork(nn.Module):
    """A network whose forward pass returns the raw outputs of its heads.

    Args:
        cfg: The network.
        rules: Rules of a fork.
        seed: Seed of the initial weights.

    Attributes:
        cfg: As given.
        rules: As given.
        layers: Parameters by layer, named as the segments of a weights file.
        stored: The same as a list.

    Raises:
        CfgError: A layer or option that is not supported.
    """

    def __init__(self, cfg: Cfg, rules: Rules, *, seed: int = 0) -> None:
        super().__init__()
        check_trainable(cfg, rules.fork)
        self.cfg, self.rules = cfg, rules
        nodes = graph(cfg)
        self._nodes_of = {cfg.size_wh: nodes}
        self._needed_until = _last_uses(nodes)
        self._frozen_until = _last_frozen(nodes)
        generator = torch.Generator().manual_seed(seed)
        self.stored = [Stored(node, rules, generator) for node in nodes]
        self.layers = nn.ModuleList(self.stored)
        for stored in self.stored[: self._frozen_until + 1]:
            stored.requires_grad_(requires_grad=False)

    def nodes(self, size_wh: tuple[int, int]) -> list[Node]:
        """Return the layers for images of a size.

        Raises:
            CfgError: The layers do not fit together at this size.
        """
        if size_wh not in self._nodes_of:
            cfg = self.cfg.copy()
            cfg.net.set("width", size_wh[0])
            cfg.net.set("height", size_wh[1])
            self._nodes_of[size_wh] = graph(cfg)
        return self._nodes_of[size_wh]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the raw outputs of all heads, in the order of the cfg.

        Args:
            images: RGB from 0 to 1, shape (N, 3, height, width), of any size that fits the layers.

        Returns:
            Per head a tensor (N, anchors * numbers, rows, columns): for each anchor x, y, width,
            height (in ``gaussian`` an uncertainty after each), objectness and the classes, before
            any activation.
        """
        outputs: dict[int, Tensor] = {IMAGE: images}
        heads = []
        for node, stored in zip(
            self.nodes((images.shape[3], images.shape[2])), self.stored, strict=True
        ):
            index = node.layer.index
            inputs = [outputs[source] for source in node.inputs]
            if isinstance(node.operation, Head):
                heads.append(inputs[0])
                output = inputs[0]
            else:
                output = _COMPUTE[type(node.operation)](node.operation, inputs, stored)
            outputs[index] = output.detach() if index <= self._frozen_until else output
            if _overwrites(node.operation, self.rules):
                outputs[node.inputs[0]] = inputs[0].detach()
            for source in self._needed_until[index]:
                del outputs[source]
        return heads


def _overwrites(operation: Operation, rules: Rules) -> bool:
    """Return whether a layer discards the gradient which its input has from later layers."""
    return isinstance(operation, Convolution) and operation.size in rules.defects.overwriting_sizes


class Stored(nn.Module):
    """The parameters that a layer stores in a weights file, each under its name there."""

    weights: nn.Parameter
    biases: nn.Parameter
    scales: nn.Parameter
    means: Tensor
    variances: Tensor

    def __init__(self, node: Node, rules: Rules, generator: torch.Generator) -> None:
        super().__init__()
        self.norm_rules, self.defects = rules.norm, rules.defects
        self.dropout = 0.0
        layer = node.layer
        if layer.kind == "dropout":
            self.dropout = layer.section.number("probability", 0.5)
        for segment in layer.segments:
            if segment.name == "weights":
                self.weights = nn.Parameter(_initial_weights(layer, rules, generator))
            elif segment.name in ("means", "variances"):
                self.register_buffer(segment.name, torch.zeros(segment.count))
            else:
                start = torch.ones if segment.name == "scales" else torch.zeros
                self.register_parameter(segment.name, nn.Parameter(start(segment.count)))


def _initial_weights(layer: Layer, rules: Rules, generator: torch.Generator) -> Tensor:
    """Return random kernels: normal in pjreddie's fork, uniform in the others.

    Source: make_convolutional_layer in src/convolutional_layer.c.
    """
    section = layer.section
    size, channels = section.integer("size", 1), layer.input_whc[2]
    groups = section.integer("groups", 1)
    shape = (layer.output_whc[2], channels // groups, size, size)
    scale = math.sqrt(2 / (size * size * channels / groups))
    if rules.fork == "pjreddie":
        return scale * torch.randn(shape, generator=generator)
    return scale * (2 * torch.rand(shape, generator=generator) - 1)


def _last_uses(nodes: Sequence[Node]) -> list[list[int]]:
    """Return for each layer which outputs no later layer reads."""
    last = {source: node.layer.index for node in nodes for source in node.inputs}
    ends: list[list[int]] = [[] for _ in nodes]
    for source, index in last.items():
        ends[index].append(source)
    for node in nodes:
        if node.layer.index not in last:
            ends[node.layer.index].append(node.layer.index)
    return ends


def _last_frozen(nodes: Sequence[Node]) -> int:
    """Return the index of the last layer that stays as it is; -1 if all are trained.

    It is the last one with ``stopbackward`` (backward_network in src/network.c). Darknet still lets
    the weights of that layer decay, pjreddie's also those of the layers before it.
    """
    stops = [
        node.layer.index for node in nodes if node.layer.section.integer("stopbackward", 0) == 1
    ]
    return max(stops, default=-1)


class _NormContext(FunctionCtx):
    """What the forward pass of a normalization keeps."""

    saved_tensors: tuple[Tensor, Tensor, Tensor, Tensor]
    rules: NormRules
    defects: Defects


class _Normalize(torch.autograd.Function):
    """A batch normalization whose variance has the divisor n - 1, in both directions.

    The kernels of PyTorch divide by n, so the forward pass scales their result, and the backward
    pass gives them the deviations of darknet (backward_batchnorm_layer in src/batchnorm_layer.c).
    """

    @staticmethod
    def forward(
        ctx: _NormContext,
        values: Tensor,
        stored: Stored,
        scales: Tensor,
        biases: Tensor,
    ) -> Tensor:
        """Return the normalized values, and update the rolling statistics."""
        rules = stored.norm_rules
        count = values.numel() // values.shape[1]
        ratio = (count - 1) / count
        epsilon = ratio * rules.epsilon if not rules.deviation_epsilon else _TINY
        output, mean, inverse = torch.native_batch_norm(
            values,
            scales * math.sqrt(ratio),
            biases,
            stored.means,
            stored.variances,
            training=True,
            momentum=rules.momentum,
            eps=epsilon,
        )
        variance = (inverse**-2 - epsilon).clamp_min(0) / ratio
        ctx.save_for_backward(values, scales, mean, variance)
        ctx.rules, ctx.defects = rules, stored.defects
        return output

    @staticmethod
    def backward(ctx: _NormContext, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Return the gradients of the values, scales and biases."""
        values, scales, mean, variance = ctx.saved_tensors
        rules, defects = ctx.rules, ctx.defects
        inverse = torch.rsqrt(variance + rules.epsilon)
        to_values, to_scales, to_biases = torch.ops.aten.native_batch_norm_backward(
            gradient,
            values,
            scales,
            None,
            None,
            mean,
            inverse,
            True,
            rules.epsilon,
            [True, True, True],
        )
        if rules.deviation_epsilon:
            to_scales = to_scales / (inverse * (variance.sqrt() + rules.deviation_epsilon))
        if defects.deviation_epsilon:
            direct = 1 / (variance.sqrt() + defects.deviation_epsilon)
            surplus = (scales * (direct - inverse)).view(1, -1, 1, 1).to(gradient.dtype)
            to_values = torch.addcmul(to_values, gradient, surplus)
        if defects.keeps_norm_biases:
            to_biases = torch.zeros_like(to_biases)
        return to_values, None, to_scales, to_biases


def _normalize(values: Tensor, stored: Stored) -> Tensor:
    rules = stored.norm_rules
    if stored.training and not rules.divides_by_count:
        normalized: Tensor = _Normalize.apply(  # type: ignore[no-untyped-call]
            values, stored, stored.scales, stored.biases
        )
        return normalized
    variances, epsilon = stored.variances, rules.epsilon
    if not stored.training and rules.deviation_epsilon:
        variances, epsilon = (variances.sqrt() + rules.deviation_epsilon) ** 2, 0.0
    return functional.batch_norm(
        values,
        stored.means,
        variances,
        stored.scales,
        stored.biases,
        training=stored.training,
        momentum=rules.momentum,
        eps=epsilon,
    )


def _convolve(operation: Convolution, inputs: Sequence[Tensor], stored: Stored) -> Tensor:
    stride_x, stride_y = operation.stride_xy
    values = functional.conv2d(
        inputs[0],
        stored.weights,
        None if operation.has_norm else stored.biases,
        stride=(stride_y, stride_x),
        padding=operation.padding * operation.dilation,
        dilation=operation.dilation,
        groups=operation.groups,
    )
    if operation.has_norm:
        values = _normalize(values, stored)
    return _activate(values, operation.activation)


def _norm(_: Norm, inputs: Sequence[Tensor], stored: Stored) -> Tensor:
    return _normalize(inputs[0], stored)


def _pool(operation: Pool, inputs: Sequence[Tensor], _: Stored) -> Tensor:
    values = inputs[0]
    before, after = operation.before_xy, operation.after_xy
    size, stride = operation.size, (operation.stride_xy[1], operation.stride_xy[0])
    pads = [before[0], after[0], before[1], after[1]]
    if operation.reduction == "mean":
        total = _window_sums(values, pads, size, stride)
        counts = _window_sums(torch.ones_like(values[:1, :1]), pads, size, stride)
        # The gradient has the full windows' count everywhere (backward_local_avgpool_layer).
        full = total / size**2
        return full + (total / counts - full).detach()
    padding = (before[1], before[0])
    if before == after and max(before) <= size // 2:
        return functional.max_pool2d(values, size, stride, padding)
    return functional.max_pool2d(functional.pad(values, pads, value=-math.inf), size, stride)


def _window_sums(values: Tensor, pads: list[int], size: int, stride: tuple[int, int]) -> Tensor:
    padded = functional.pad(values, pads)
    return functional.avg_pool2d(padded, size, stride, divisor_override=1)


def _global_mean(_: GlobalMean, inputs: Sequence[Tensor], __: Stored) -> Tensor:
    return inputs[0].mean((2, 3), keepdim=True)


def _upsample(operation: Upsample, inputs: Sequence[Tensor], _: Stored) -> Tensor:
    repeated = functional.interpolate(inputs[0], scale_factor=operation.factor, mode="nearest")
    return repeated if operation.scale == 1 else repeated * operation.scale


def _concatenate(operation: Concatenation, inputs: Sequence[Tensor], _: Stored) -> Tensor:
    parts = list(inputs)
    if operation.groups > 1:
        parts = [part.chunk(operation.groups, 1)[operation.group_id] for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _add(operation: Addition, inputs: Sequence[Tensor], _: Stored) -> Tensor:
    total = inputs[0]
    channels = total.shape[1]
    for part in inputs[1:]:
        surplus = part.shape[1] - channels
        # A negative padding drops channels.
        total = total + (functional.pad(part, [0, 0, 0, 0, 0, -surplus]) if surplus else part)
    return _activate(total, operation.activation)


def _multiply(operation: Product, inputs: Sequence[Tensor], _: Stored) -> Tensor:
    return _activate(inputs[0] * inputs[1], operation.activation)


def _pointwise(operation: Activation, inputs: Sequence[Tensor], stored: Stored) -> Tensor:
    if stored.dropout:
        return functional.dropout(inputs[0], stored.dropout, stored.training)
    # The input is read by its own layer's gradient, so it is not changed in place.
    return _activate(inputs[0], operation.activation, in_place=False)


def _blocks(operation: Blocks, inputs: Sequence[Tensor], _: Stored) -> Tensor:
    stride = operation.stride
    channels, height, width = operation.seen_chw
    rows, columns = height // stride, width // stride
    count = len(inputs[0])
    cut = inputs[0].reshape(count, channels, rows, stride, columns, stride)
    moved = cut.permute(0, 3, 5, 1, 2, 4).contiguous()
    if inputs[0].shape[1:] == (channels, height, width):
        return moved.reshape(count, channels * stride**2, rows, columns)
    # [reorg] sees a larger image than its input, and its output has the input's cells over stride.
    output_width, output_height = inputs[0].shape[3] // stride, inputs[0].shape[2] // stride
    return moved.reshape(count, -1, output_height, output_width)


def _activate(values: Tensor, name: str, *, in_place: bool = True) -> Tensor:
    """Return the activation of values (src/activations.h), which it may change."""
    if name == "linear":
        return values
    if name in _LEAKS:
        return functional.leaky_relu(values, _LEAKS[name], inplace=in_place)
    return _ACTIVATIONS[name](values)


def _hard_mish(values: Tensor) -> Tensor:
    low = values.clamp(-2, 0)
    return values.clamp_min(-2) + low * low / 2


def _selu(values: Tensor) -> Tensor:
    return 1.0507 * functional.elu(values, 1.6732)


def _loggy(values: Tensor) -> Tensor:
    return 2 * torch.sigmoid(values) - 1


def _ramp(values: Tensor) -> Tensor:
    return functional.relu(values) + 0.1 * values


def _gelu(values: Tensor) -> Tensor:
    """Return GELU's approximation; darknet computes its slope at the output (gelu_gradient)."""
    before = values.detach()
    output = 0.5 * before * (1 + torch.tanh(0.797885 * before + 0.035677 * before**3))
    bend = 0.797885 * output + 0.0356774 * output**3
    inner = (0.398942 * output + 0.0535161 * output**3) / torch.cosh(bend) ** 2
    return output + (0.5 + 0.5 * torch.tanh(bend) + inner) * (values - before)


_LEAKS: Mapping[str, float] = {"leaky": 0.1, "relie": 0.01, "relu": 0.0}
"""Slopes below 0 of the activations that are the input above it."""

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": functional.elu,
    "selu": _selu,
    "swish": functional.silu,
    "mish": functional.mish,
    "hard_mish": _hard_mish,
    "relu6": functional.relu6,
    "hardtan": functional.hardtanh,
    "loggy": _loggy,
    "ramp": _ramp,
    "gelu": _gelu,
}
_COMPUTE: Mapping[type, Callable[[Any, Sequence[Tensor], Stored], Tensor]] = {
    Convolution: _convolve,
    Norm: _norm,
    Pool: _pool,
    GlobalMean: _global_mean,
    Upsample: _upsample,
    Concatenation: _concatenate,
    Addition: _add,
    Product: _multiply,
    Activation: _pointwise,
    Blocks: _blocks,
}
"""Functions of a layer's operation, inputs and parameters, by the operation."""
