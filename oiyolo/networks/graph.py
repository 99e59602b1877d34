"""The computation of a network, layer by layer, as darknet does it when it detects.

``graph`` reads every option of a ``.cfg`` that affects detections and checks it; whatever computes
the network (``inference.convert``, for example) needs no other knowledge of the file. Options that
concern only training are ignored by name (``_INERT``). All others are refused, because a network
computed without them would detect something else than darknet.

Sources: the ``parse_*`` functions (src/parser.c) and ``forward_*_layer`` functions of pjreddie
f6afaabc and AlexeyAB 59596d78.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from oiyolo.core.results import pluralize
from oiyolo.networks.layers import HEAD_KINDS, head_channels, layers, mask_of
from oiyolo.networks.vocabulary import ACTIVATIONS as DARKNET_ACTIVATIONS
from oiyolo.networks.vocabulary import ALEXEYAB_ACTIVATIONS, ALEXEYAB_KEYS, PJREDDIE_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oiyolo.networks.cfg import Cfg, Section
    from oiyolo.networks.layers import Layer

IMAGE = -1
"""The network's input, as an index of a layer."""

ACTIVATIONS = (DARKNET_ACTIVATIONS | ALEXEYAB_ACTIVATIONS) - {
    *("lhtan", "plse", "revleaky", "stair"),
    *("normalize_channels", "normalize_channels_softmax", "normalize_channels_softmax_maxval"),
}
"""Activations of the operations, by their names in darknet (src/activations.h)."""


@dataclass(frozen=True)
class Convolution:
    """A convolution, its batch normalization or biases, and its activation.

    Attributes:
        size: Width and height of the kernels.
        stride_xy: Strides.
        padding: Zeros around the input, in cells.
        dilation: Distance between the cells of a kernel.
        groups: Number of groups of channels that are convolved separately.
        has_norm: Whether its output is normalized before the biases are added.
        activation: One of ``ACTIVATIONS``.
    """

    size: int
    stride_xy: tuple[int, int]
    padding: int
    dilation: int
    groups: int
    has_norm: bool
    activation: str


@dataclass(frozen=True)
class Norm:
    """A batch normalization of its own, with scales and biases."""


@dataclass(frozen=True)
class Pool:
    """The maximum or mean of each window, of the cells inside the input.

    Attributes:
        reduction: What is computed.
        size: Width and height of the windows.
        stride_xy: Strides.
        before_xy: Cells by which the first windows extend beyond the left and upper edge.
        after_xy: Cells by which the last windows extend beyond the right and lower edge.
    """

    reduction: Literal["max", "mean"]
    size: int
    stride_xy: tuple[int, int]
    before_xy: tuple[int, int]
    after_xy: tuple[int, int]


@dataclass(frozen=True)
class GlobalMean:
    """The mean of each channel."""


@dataclass(frozen=True)
class Upsample:
    """Each cell repeated ``factor`` times in both directions, and multiplied by ``scale``."""

    factor: int
    scale: float


@dataclass(frozen=True)
class Concatenation:
    """The channels of all inputs, one after another.

    Attributes:
        groups: Number of groups into which each input's channels are divided.
        group_id: The group that is used, from 0.
    """

    groups: int
    group_id: int


@dataclass(frozen=True)
class Addition:
    """The sum of all inputs, then an activation.

    The result has the channels of the first input: surplus channels of the others are dropped, and
    missing ones count as 0.
    """

    activation: str


@dataclass(frozen=True)
class Product:
    """The product of two inputs, of which the first may have one cell or channel for all."""

    activation: str


@dataclass(frozen=True)
class Activation:
    """An activation alone."""

    activation: str


@dataclass(frozen=True)
class Blocks:
    """Each block of ``stride`` x ``stride`` cells becomes one cell with all their channels.

    The new channels are ordered by the position in the block, from the upper left: first all
    channels of its first cell. The input's memory is read in the shape ``seen_chw``. For [reorg3d]
    that is the input's own; [reorg] computes its indices as if it undid such a layer (reorg_cpu in
    src/blas.c), so it reads fewer channels and a larger image.

    Attributes:
        stride: Width and height of the blocks.
        seen_chw: Channels, height and width, of which height and width are multiples of
            ``stride``.
    """

    stride: int
    seen_chw: tuple[int, int, int]


@dataclass(frozen=True)
class Head:
    """The decoding of a layer's channels into boxes, class scores and objectness.

    The channels are, for each anchor: x, y, width, height (in ``gaussian``, an uncertainty after
    each), objectness and the classes' scores.

    Attributes:
        form: ``yolo`` and ``gaussian`` have independent class scores, ``region`` a distribution
            (softmax).
        class_count: Number of classes.
        anchors_wh: Widths and heights of the anchors, as fractions of the network's input.
        scale_xy: ``scale_x_y``: the range of a centre, in cells.
        is_activated: ``new_coords``: the layer before applied the logistic function, and sizes are
            (2 x)^2 anchors instead of exp(x) anchors.
        point: The point of the box that x and y are.
    """

    form: Literal["yolo", "gaussian", "region"]
    class_count: int
    anchors_wh: tuple[tuple[float, float], ...]
    scale_xy: float = 1.0
    is_activated: bool = False
    point: Literal["center", "left_top", "right_bottom"] = "center"


Operation = (
    Convolution
    | Norm
    | Pool
    | GlobalMean
    | Upsample
    | Concatenation
    | Addition
    | Product
    | Activation
    | Blocks
    | Head
)


@dataclass(frozen=True)
class Node:
    """A layer, what it computes, and from what.

    Attributes:
        layer: The layer with its shapes and parameters.
        operation: What it computes.
        inputs: Indices of the layers whose outputs it reads; ``IMAGE`` is the network's input.
    """

    layer: Layer
    operation: Operation
    inputs: tuple[int, ...]


def graph(cfg: Cfg) -> list[Node]:
    """Return what every layer of a detector computes.

    Raises:
        CfgError: A layer or option that is not supported or not valid, inputs whose shapes do not
            fit, no head, or heads that differ in form or classes; the error names the line.
    """
    _check_options(cfg.net)
    computed = layers(cfg)
    nodes = [_node(layer, computed, cfg.size_wh) for layer in computed]
    heads = heads_in(nodes)
    if not heads:
        raise cfg.net.error("the network has no detection head", expected="[yolo] or [region]")
    for node, head in heads[1:]:
        if _form(head) != _form(heads[0][1]):
            raise node.layer.section.error(
                "the heads of this network differ",
                expected="the same kind, classes and new_coords in all heads",
            )
    return nodes


def heads_in(nodes: Sequence[Node]) -> list[tuple[Node, Head]]:
    """Return the nodes that decode boxes, and how."""
    return [(node, node.operation) for node in nodes if isinstance(node.operation, Head)]


def _form(head: Head) -> tuple[object, ...]:
    return head.form, head.class_count, head.is_activated, head.point


def _node(layer: Layer, computed: Sequence[Layer], size_wh: tuple[int, int]) -> Node:
    build = _BUILDERS.get(layer.kind)
    if build is None:
        raise layer.section.error(
            f"[{layer.kind}] is not supported",
            expected="the layers of which darknet's detectors consist",
            remedy="Only darknet itself can compute this network",
        )
    _check_options(layer.section)
    previous = layer.index - 1  # IMAGE for the first layer
    inputs = layer.sources if layer.kind == "route" else (previous, *layer.sources)
    for source in inputs:
        if source != IMAGE and computed[source].kind in HEAD_KINDS:
            raise layer.section.error(
                f"[{layer.kind}] reads the output of [{computed[source].kind}]",
                expected="heads whose output is not processed further",
            )
    operation = build(layer, [computed[source] for source in inputs if source != IMAGE], size_wh)
    return Node(layer, operation, inputs)


def _convolution(layer: Layer, _: Sequence[Layer], __: tuple[int, int]) -> Operation:
    section = layer.section
    size = section.integer("size", 1)
    groups = section.integer("groups", 1)
    channels, filters = layer.input_whc[2], layer.output_whc[2]
    if channels % groups or filters % groups:
        raise section.error(
            f"groups={groups} does not divide {channels} channels and {filters} filters evenly",
            "groups",
        )
    operation = Convolution(
        size=size,
        stride_xy=_stride_xy(section),
        padding=size // 2 if section.integer("pad", 0) else section.integer("padding", 0),
        # As in parse_convolutional of AlexeyAB's src/parser.c.
        dilation=1 if size == 1 else section.integer("dilation", 1),
        groups=groups,
        has_norm=bool(section.integer("batch_normalize", 0)),
        activation=_activation(section, "logistic"),
    )
    if operation.padding < 0:
        raise section.error("[convolutional] has a padding below 0", "padding")
    # Darknet computes the shape of the output without dilation.
    is_same_shape = operation.size - 1 == 2 * operation.padding
    if operation.dilation < 1 or (operation.dilation > 1 and not is_same_shape):
        raise section.error(
            f"dilation={operation.dilation} changes the shape of the output",
            "dilation",
            expected="an odd size with pad=1",
        )
    return operation


def _stride_xy(section: Section) -> tuple[int, int]:
    stride = section.integer("stride", 1)
    return section.integer("stride_x", stride), section.integer("stride_y", stride)


def _activation(section: Section, default: str) -> str:
    name = section.text("activation", default).partition("#")[0]
    if name not in ACTIVATIONS:
        raise section.error(
            f"unsupported activation {name}",
            "activation",
            expected=", ".join(sorted(ACTIVATIONS)),
        )
    return name


def _norm(_: Layer, __: Sequence[Layer], ___: tuple[int, int]) -> Operation:
    return Norm()


def _pool(layer: Layer, _: Sequence[Layer], __: tuple[int, int]) -> Operation:
    """Return a pooling; darknet's padding is the total of both sides, more of it at the end."""
    section = layer.section
    size = section.integer("size", section.integer("stride", 1))
    padding = section.integer("padding", size - 1)
    stride_xy, before = _stride_xy(section), padding // 2
    after_x, after_y = (
        max((cells - 1) * stride + size - before - side, 0)
        for cells, stride, side in zip(layer.output_whc, stride_xy, layer.input_whc, strict=False)
    )
    if padding < 0 or max(before, after_x, after_y) >= size:  # a window without any cell
        raise section.error(f"padding={padding} of [{layer.kind}] exceeds its size", "padding")
    return Pool(
        reduction="max" if layer.kind == "maxpool" else "mean",
        size=size,
        stride_xy=stride_xy,
        before_xy=(before, before),
        after_xy=(after_x, after_y),
    )


def _global_mean(_: Layer, __: Sequence[Layer], ___: tuple[int, int]) -> Operation:
    return GlobalMean()


def _upsample(layer: Layer, _: Sequence[Layer], __: tuple[int, int]) -> Operation:
    section = layer.section
    factor = section.integer("stride", 2)
    if factor < 1:
        raise section.error("[upsample] with a stride below 1 is not supported", "stride")
    return Upsample(factor, section.number("scale", 1))


def _concatenation(layer: Layer, inputs: Sequence[Layer], _: tuple[int, int]) -> Operation:
    section = layer.section
    groups, group_id = section.integer("groups", 1), section.integer("group_id", 0)
    if not 0 <= group_id < groups:
        raise section.error(f"group_id={group_id} is not one of {groups} groups", "group_id")
    for source in inputs:
        if source.output_whc[2] % groups:
            raise section.error(
                f"groups={groups} does not divide the channels of layer {source.index} evenly",
                "groups",
                found=f"{source.output_whc[2]} channels",
            )
    return Concatenation(groups, group_id)


def _addition(layer: Layer, inputs: Sequence[Layer], _: tuple[int, int]) -> Operation:
    for source in inputs:
        if source.output_whc[:2] != layer.output_whc[:2]:
            w, h, _c = source.output_whc
            raise layer.section.error(
                f"[shortcut] adds layer {source.index}, which has another size",
                "from",
                expected=f"{layer.output_whc[0]}x{layer.output_whc[1]}",
                found=f"{w}x{h}",
            )
    return Addition(_activation(layer.section, "linear"))


def _product(layer: Layer, inputs: Sequence[Layer], _: tuple[int, int]) -> Operation:
    """Return a multiplication: of all cells (sam), per channel, or per cell (scale_wh)."""
    section = layer.section
    w, h, channels = inputs[-1].output_whc
    expected = (w, h, channels)
    if layer.kind == "scale_channels":
        expected = (w, h, 1) if section.integer("scale_wh", 0) else (1, 1, channels)
    if layer.input_whc != expected:
        raise section.error(
            f"[{layer.kind}] multiplies layers whose shapes do not fit",
            "from",
            expected="{}x{}x{}".format(*expected),
            found="{}x{}x{}".format(*layer.input_whc),
        )
    return Product(_activation(section, "linear"))


def _pointwise(layer: Layer, _: Sequence[Layer], __: tuple[int, int]) -> Operation:
    # [dropout] changes nothing when darknet detects.
    return Activation("linear" if layer.kind == "dropout" else _activation(layer.section, "linear"))


def _blocks(layer: Layer, _: Sequence[Layer], __: tuple[int, int]) -> Operation:
    section = layer.section
    stride = section.integer("stride", 1)
    w, h, channels = layer.input_whc
    seen = (channels, h, w)
    if layer.kind == "reorg":
        seen = (channels // stride**2, h * stride, w * stride)
    if w % stride or h % stride or (layer.kind == "reorg" and channels % stride**2):
        raise section.error(
            f"stride={stride} of [{layer.kind}] does not divide {w}x{h}x{channels} evenly",
            "stride",
        )
    return Blocks(stride, seen)


def _head(layer: Layer, _: Sequence[Layer], size_wh: tuple[int, int]) -> Operation:
    section = layer.section
    expected, classes = head_channels(section), section.integer("classes", 20)
    if layer.input_whc[2] != expected:
        raise section.error(
            f"[{layer.kind}] does not fit the layer before it",
            expected=f"{expected} channels for {pluralize(classes, 'class')}",
            found=f"{layer.input_whc[2]}",
        )
    if layer.kind == "region":
        if not section.has("softmax"):
            raise section.error("[region] without softmax=1 is not supported")
        return Head("region", classes, _anchors_wh(section, layer.input_whc[:2]))
    return Head(
        form="yolo" if layer.kind == "yolo" else "gaussian",
        class_count=classes,
        anchors_wh=_anchors_wh(section, size_wh),
        scale_xy=section.number("scale_x_y", 1),
        is_activated=layer.kind == "yolo" and bool(section.integer("new_coords", 0)),
        point=_POINTS.get(section.text("yolo_point"), "center"),
    )


def _anchors_wh(section: Section, unit_wh: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Return the anchors of a head's mask, as fractions of a size in the same unit."""
    numbers, mask = section.numbers("anchors"), mask_of(section)
    count = min(len(numbers) // 2, section.integer("num", 1))
    if not mask or not 0 <= min(mask) <= max(mask) < count:
        raise section.error(
            f"[{section.kind}] uses anchors that it does not have",
            "mask" if section.has("mask") else "anchors",
            expected=f"anchors 0 to {count - 1}",
            found=", ".join(map(str, mask)),
        )
    return tuple((numbers[2 * i] / unit_wh[0], numbers[2 * i + 1] / unit_wh[1]) for i in mask)


def _check_options(section: Section) -> None:
    """Raise if a section has an option that is neither read nor without effect on detections."""
    known = _INERT[""].union(_INERT.get(section.kind, ()), _READ.get(section.kind, ()))
    off = _OFF[""] | _OFF.get(section.kind, {})
    for key in section.option_keys():
        if key in known or section.text(key).partition("#")[0] == off.get(key):
            continue
        what = f"{key} of [{section.kind}] is not supported"
        if key in off:
            raise section.error(
                what, key, expected=f"{key}={off[key]}", found=f"{key}={section.text(key)}"
            )
        remedy = "Remove it if darknet ignores it; if not, only darknet can compute this network"
        raise section.error(what, key, remedy=remedy)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_POINTS: Mapping[str, Literal["left_top", "right_bottom"]] = {
    "left_top": "left_top",
    "right_bottom": "right_bottom",
}
_BUILDERS: Mapping[str, Callable[[Layer, Sequence[Layer], tuple[int, int]], Operation]] = {
    "convolutional": _convolution,
    "batchnorm": _norm,
    "maxpool": _pool,
    "local_avgpool": _pool,
    "avgpool": _global_mean,
    "upsample": _upsample,
    "route": _concatenation,
    "shortcut": _addition,
    "scale_channels": _product,
    "sam": _product,
    "activation": _pointwise,
    "dropout": _pointwise,
    "reorg": _blocks,
    "reorg3d": _blocks,
    **dict.fromkeys(HEAD_KINDS, _head),
}
"""Functions of a layer, the layers it reads, and the width and height of the network's input."""

_READ: Mapping[str, frozenset[str]] = {
    "net": _words("width height channels"),
    "convolutional": _words(
        "filters size stride stride_x stride_y pad padding groups dilation activation "
        "batch_normalize"
    ),
    "maxpool": _words("stride stride_x stride_y size padding"),
    "local_avgpool": _words("stride stride_x stride_y size padding"),
    "upsample": _words("stride scale"),
    "route": _words("layers groups group_id"),
    "shortcut": _words("from activation"),
    "scale_channels": _words("from activation scale_wh"),
    "sam": _words("from activation"),
    "activation": _words("activation"),
    "reorg": _words("stride"),
    "reorg3d": _words("stride"),
    "yolo": _words("classes num mask anchors scale_x_y new_coords"),
    "Gaussian_yolo": _words("classes num mask anchors scale_x_y yolo_point"),
    "region": _words("classes num anchors"),
}
"""Options that the operations describe, by kind of section."""

_LOSS = (
    "max max_delta counters_per_class label_smooth_eps objectness_smooth iou_normalizer "
    "obj_normalizer cls_normalizer delta_normalizer iou_loss iou_thresh_kind jitter resize "
    "ignore_thresh truth_thresh iou_thresh random map"
)
_INERT: Mapping[str, frozenset[str]] = {
    "": _words(
        "clip dont_update burnin_update onlyforward stopbackward train_only_bn learning_rate "
        "smooth truth"
    ),
    # The whole section but the input's shape: batch, schedule, augmentation, memory.
    # No fork reads the last two, but published files contain them, like uc_normalizer of [yolo].
    "net": (PJREDDIE_KEYS["net"] | ALEXEYAB_KEYS["net"]).union(("max_epochs", "seen")) - {"inputs"},
    # angle belongs to sway and rotate, dot to a term of the loss; streams are the GPU's queues.
    "convolutional": _words("assisted_excitation angle dot grad_centr reverse stream wait_stream"),
    "maxpool": _words("out_channels"),  # of maxpool_depth
    "route": _words("stream wait_stream"),
    "shortcut": _words("weights_normalization"),  # of weights_type
    "dropout": _words("probability dropblock dropblock_size_rel dropblock_size_abs"),
    # nms_kind and beta_nms concern what is done with the boxes; tracking does not change them.
    "yolo": _words(
        f"{_LOSS} uc_normalizer nms_kind beta_nms show_details focal_loss track_history_size "
        "sim_thresh dets_for_track dets_for_show track_ciou_norm embedding_layer"
    ),
    "Gaussian_yolo": _words(f"{_LOSS} uc_normalizer nms_kind beta_nms"),
    "region": _words(
        "absolute bias_match class_scale classfix coord_scale focal_loss jitter log map "
        "mask_scale max noobject_scale object_scale random rescore resize sqrt thresh"
    ),
}
"""Options without effect on detections, by kind of section; those under "" in any layer."""

_OFF: Mapping[str, dict[str, str]] = {
    "": {"dontload": "0", "dontloadscales": "0", "dontsave": "0", "numload": "0"},
    "convolutional": dict.fromkeys(
        _words(
            "antialiasing cbn binary xnor bin_output sway rotate stretch stretch_sway flipped "
            "coordconv"
        ),
        "0",
    ),
    "maxpool": {"maxpool_depth": "0", "antialiasing": "0", "maxpool_zero_nonmax": "0"},
    "shortcut": {"alpha": "1", "beta": "1", "weights_type": "none"},
    "reorg": {"reverse": "0", "flatten": "0", "extra": "0"},
    "reorg3d": {"reverse": "0"},
    # Without softmax, the forks disagree: pjreddie's applies the logistic function, AlexeyAB's
    # nothing.
    "region": {"softmax": "1", "coords": "4", "background": "0"},
}
"""Options that are only supported at this value, which is darknet's default except for softmax."""
