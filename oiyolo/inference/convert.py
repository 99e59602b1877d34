"""A darknet network as an ONNX model that ends in boxes and scores.

Batch normalization is folded into the convolutions. Its deviations are ``sqrt(variance + 1e-5)``,
as AlexeyAB's fork computes them (fuse_conv_batchnorm in src/network.c) and pjreddie's on the GPU
(normalize_kernel in src/blas_kernels.cu). For networks that pjreddie's fork trained on the CPU they
are ``sqrt(variance) + 1e-6`` (normalize_cpu in src/blas.c): that is how Debian's darknet trains and
detects. Only channels with a variance below 0.01 differ noticeably.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING, Any

import numpy as np

from oiyolo.core.errors import InputFormError
from oiyolo.inference import model_file
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
    heads_in,
)
from oiyolo.networks.parameters import read_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx

    from oiyolo.inference.facts import Layout, ModelFacts
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.graph import Node
    from oiyolo.networks.layers import Layer

OPSET = 17
"""Version of the operators, which onnxruntime 1.12 and later and OpenVINO compute."""

IR_VERSION = 8
"""Version of the file format, the oldest with this opset."""

INPUT = "images"
BOXES, SCORES = "boxes", "scores"
"""Outputs of the layout ``darknet``."""

YOLOV8_OUTPUT = "output0"
"""Output of the layout ``yolov8``."""

_EPSILON = 1e-5
_PJREDDIES_CPU_EPSILON = 1e-6
_CHANNELS = 3

_Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Attribute = int | float | str | list[int]
_Parameters = dict[str, "npt.NDArray[np.float32]"]


def convert(
    cfg: Cfg,
    weights: Path,
    facts: ModelFacts,
    *,
    layout: Layout = "darknet",
    half: bool = False,
) -> onnx.ModelProto:
    """Return a detector as an ONNX model.

    The input ``images`` is float32 (batch, 3, height, width), RGB from 0 to 1. The outputs contain
    every box of every head, whatever its score; a score is objectness times the class's score, as
    darknet computes it. In the layout ``darknet`` they are float32 ``boxes`` (batch, N, 4), centre
    x and y, width and height as fractions of the input, and ``scores`` (batch, N, classes). In the
    layout ``yolov8`` they are one float32 ``output0`` (batch, 4 + classes, N) with boxes in pixels
    of the input.

    Args:
        cfg: The network.
        weights: Its weights file.
        facts: What the model says about itself.
        layout: Layout of the outputs.
        half: Whether to compute the layers in float16; boxes are decoded in float32.

    Raises:
        UsageError: The weights file does not exist.
        InputFormError: The weights do not fit the network, the number of names is not its number
            of classes, or a parameter exceeds float16.
        CfgError: A layer or option that is not supported (``networks.graph``).
    """
    nodes = graph(cfg)
    _check_input(cfg, heads_in(nodes)[0][1], facts)
    writer = _Writer(half=half)
    size_wh = cfg.size_wh
    raw = _write_layers(writer, nodes, read_parameters(weights, cfg), facts)
    outputs = _write_outputs(writer, raw, heads_in(nodes), layout, size_wh)
    shape = ("batch", _CHANNELS, size_wh[1], size_wh[0])
    writer.declare({INPUT: shape}, outputs)
    model_file.attach(writer.model, cfg, facts, layout=layout, half=half)
    return writer.model


def _check_input(cfg: Cfg, head: Head, facts: ModelFacts) -> None:
    channels = cfg.net.integer("channels", 0)
    if channels != _CHANNELS:
        raise cfg.net.error(
            "a network for images that are not RGB", "channels", expected="3", found=str(channels)
        )
    if len(facts.names) != head.class_count:
        raise InputFormError(
            "the names do not fit the network",
            where=cfg.path,
            expected=f"{head.class_count} names, one per class",
            found=f"{len(facts.names)}",
            remedy="Use the names file that the network was trained with",
        )


class _Writer:
    """A model that is being written.

    Args:
        half: Whether constants become float16 unless they ask for float32.

    Attributes:
        half: As given.
        model: What is written so far; large constants are put in place, because every copy of a
            large network takes as long as its conversion.
    """

    def __init__(self, *, half: bool) -> None:
        import onnx  # noqa: PLC0415  (slow to import)
        from onnx import helper  # noqa: PLC0415

        self.half = half
        self.model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="oiyolo")
        self.model.opset_import.add(version=OPSET)
        self.model.graph.name = "detector"
        self._types, self._helper = onnx.TensorProto, helper
        self._constants: set[str] = set()

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: _Attribute) -> str:
        """Add a node with one output, and return its name."""
        name = name or f"{kind.lower()}_{len(self.model.graph.node)}"
        self._add(kind, inputs, [name], attributes)
        return name

    def split(self, of: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Add a node that cuts a tensor into parts, and return their names."""
        position = len(self.model.graph.node)
        names = [f"split_{position}_{part}" for part in range(len(sizes))]
        self._add("Split", [of, self.integers(sizes)], names, {"axis": axis})
        return names

    def cast(self, of: str, *, half: bool) -> str:
        """Add a conversion to float16 or float32, and return its name."""
        return self.add("Cast", of, to=self._types.FLOAT16 if half else self._types.FLOAT)

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a list of integers."""
        name = "integers_" + "_".join(map(str, values))
        return self._constant(name, np.array(values, np.int64))

    def floats(self, name: str, values: npt.ArrayLike, *, exact: bool = False) -> str:
        """Return the name of a constant; ``exact`` keeps it in float32.

        Raises:
            InputFormError: A value exceeds float16.
        """
        array: _Floats = np.asarray(values, np.float32)
        if self.half and not exact:
            with np.errstate(over="ignore"):
                array = array.astype(np.float16)
            if not np.isfinite(array).all():
                raise InputFormError(
                    "a parameter of this network exceeds the range of float16",
                    where=name,
                    expected="values up to 65,504",
                    remedy="Export it without half precision",
                )
        return self._constant(name, array)

    def declare(
        self,
        inputs: Mapping[str, Sequence[str | int]],
        outputs: Mapping[str, Sequence[str | int]],
    ) -> None:
        """Add the inputs and outputs of the model, float32 of these shapes."""
        body = self.model.graph
        for values, shapes in ((body.input, inputs), (body.output, outputs)):
            for name, shape in shapes.items():
                info = self._helper.make_tensor_value_info(name, self._types.FLOAT, shape)
                values.append(info)

    def _add(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, _Attribute],
    ) -> None:
        node = self.model.graph.node.add(
            op_type=kind, name=outputs[0], input=inputs, output=outputs
        )
        node.attribute.extend(starmap(self._helper.make_attribute, attributes.items()))

    def _constant(self, name: str, array: npt.NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants.add(name)
            self.model.graph.initializer.add(
                name=name,
                data_type=self._helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
                raw_data=array.tobytes(),
            )
        return name


@dataclass(frozen=True)
class _Place:
    """Where a layer is written.

    Attributes:
        writer: The model that is being written.
        layer: The layer.
        inputs: Names of the outputs that it reads.
        channels: Their numbers of channels.
        stored: Its parameters.
        facts: What is known about the network.
    """

    writer: _Writer
    layer: Layer
    inputs: tuple[str, ...]
    channels: tuple[int, ...]
    stored: Mapping[str, npt.NDArray[np.float32]]
    facts: ModelFacts

    @property
    def name(self) -> str:
        """Name of the layer in the model."""
        return f"layer_{self.layer.index}"


def _write_layers(
    writer: _Writer, nodes: Sequence[Node], parameters: Sequence[_Parameters], facts: ModelFacts
) -> dict[int, str]:
    """Write all layers but the heads, and return the names of their outputs by index."""
    names = {IMAGE: writer.cast(INPUT, half=True) if writer.half else INPUT}
    channels_of = {IMAGE: _CHANNELS}
    for node, stored in zip(nodes, parameters, strict=True):
        channels_of[node.layer.index] = node.layer.output_whc[2]
        if isinstance(node.operation, Head):
            continue
        inputs = tuple(names[source] for source in node.inputs)
        channels = tuple(channels_of[source] for source in node.inputs)
        place = _Place(writer, node.layer, inputs, channels, stored, facts)
        names[node.layer.index] = _WRITERS[type(node.operation)](place, node.operation)
    return names


def _write_convolution(place: _Place, operation: Convolution) -> str:
    writer, side = place.writer, operation.size
    weights, biases = place.stored["weights"], place.stored["biases"]
    filters = len(biases)
    if operation.has_norm:
        factors, biases = _norm_terms(place)
        weights = weights.reshape(filters, -1) * factors[:, None]
    channels = place.layer.input_whc[2] // operation.groups
    convolved = writer.add(
        "Conv",
        place.inputs[0],
        writer.floats(f"{place.name}_weights", weights.reshape(filters, channels, side, side)),
        writer.floats(f"{place.name}_biases", biases),
        name=place.name,
        kernel_shape=[side, side],
        strides=list(reversed(operation.stride_xy)),
        pads=[operation.padding * operation.dilation] * 4,
        dilations=[operation.dilation] * 2,
        group=operation.groups,
    )
    return _write_activation(writer, convolved, operation.activation)


def _norm_terms(place: _Place) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the factor and the addend per channel that normalization and biases amount to."""
    stored, facts = place.stored, place.facts
    variances = stored["variances"].astype(np.float64)
    if facts.fork == "pjreddie" and not facts.was_trained_on_gpu:
        deviations = np.sqrt(variances) + _PJREDDIES_CPU_EPSILON
    else:
        deviations = np.sqrt(variances + _EPSILON)
    factors = stored["scales"] / deviations
    addends = stored["biases"] - stored["means"] * factors
    return factors.astype(np.float32), addends.astype(np.float32)


def _write_norm(place: _Place, _: Norm) -> str:
    factors, addends = (terms.reshape(1, -1, 1, 1) for terms in _norm_terms(place))
    writer = place.writer
    scaled = writer.add("Mul", place.inputs[0], writer.floats(f"{place.name}_factors", factors))
    return writer.add("Add", scaled, writer.floats(f"{place.name}_addends", addends))


def _write_pool(place: _Place, operation: Pool) -> str:
    before_x, before_y = operation.before_xy
    after_x, after_y = operation.after_xy
    return place.writer.add(
        "MaxPool" if operation.reduction == "max" else "AveragePool",
        place.inputs[0],
        name=place.name,
        kernel_shape=[operation.size] * 2,
        strides=list(reversed(operation.stride_xy)),
        pads=[before_y, before_x, after_y, after_x],
    )


def _write_global_mean(place: _Place, _: GlobalMean) -> str:
    return place.writer.add("GlobalAveragePool", place.inputs[0], name=place.name)


def _write_upsample(place: _Place, operation: Upsample) -> str:
    writer, factor = place.writer, operation.factor
    scales = writer.floats(f"repeat_{factor}", [1, 1, factor, factor], exact=True)
    repeated = writer.add(
        "Resize",
        place.inputs[0],
        "",
        scales,
        name=place.name,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    if operation.scale == 1:
        return repeated
    return writer.add("Mul", repeated, writer.floats(f"{place.name}_scale", operation.scale))


def _write_concatenation(place: _Place, operation: Concatenation) -> str:
    writer, parts = place.writer, list(place.inputs)
    if operation.groups > 1:
        counts = [channels // operation.groups for channels in place.channels]
        parts = [
            _write_channels(writer, of, operation.group_id * count, count)
            for of, count in zip(parts, counts, strict=True)
        ]
    return parts[0] if len(parts) == 1 else writer.add("Concat", *parts, name=place.name, axis=1)


def _write_channels(writer: _Writer, of: str, first: int, count: int) -> str:
    """Add a node that returns ``count`` channels from ``first``."""
    starts, ends = writer.integers([first]), writer.integers([first + count])
    return writer.add("Slice", of, starts, ends, writer.integers([1]))


def _write_addition(place: _Place, operation: Addition) -> str:
    writer, total = place.writer, place.inputs[0]
    channels = place.layer.output_whc[2]
    for of, count in zip(place.inputs[1:], place.channels[1:], strict=True):
        surplus, addend = count - channels, of
        if surplus > 0:
            addend = _write_channels(writer, of, 0, channels)
        elif surplus < 0:
            addend = writer.add("Pad", of, writer.integers([0, 0, 0, 0, 0, -surplus, 0, 0]))
        total = writer.add("Add", total, addend)
    return _write_activation(writer, total, operation.activation)


def _write_product(place: _Place, operation: Product) -> str:
    product = place.writer.add("Mul", *place.inputs, name=place.name)
    return _write_activation(place.writer, product, operation.activation)


def _write_pointwise(place: _Place, operation: Activation) -> str:
    return _write_activation(place.writer, place.inputs[0], operation.activation)


def _write_blocks(place: _Place, operation: Blocks) -> str:
    writer, stride = place.writer, operation.stride
    channels, height, width = operation.seen_chw
    rows, columns = height // stride, width // stride
    cut = [0, channels, rows, stride, columns, stride]
    blocks = writer.add("Reshape", place.inputs[0], writer.integers(cut))
    moved = writer.add("Transpose", blocks, perm=[0, 3, 5, 1, 2, 4])
    w, h, c = place.layer.output_whc
    return writer.add("Reshape", moved, writer.integers([0, c, h, w]), name=place.name)


def _write_activation(writer: _Writer, of: str, activation: str) -> str:
    """Write an activation, and return the name of its output (src/activations.h)."""
    if activation == "linear":
        return of
    if activation in _OPERATORS:
        kind, attributes = _OPERATORS[activation]
        return writer.add(kind, of, **attributes)
    return _COMPOSED[activation](writer, of)


def _write_swish(writer: _Writer, of: str) -> str:
    return writer.add("Mul", of, writer.add("Sigmoid", of))


def _write_mish(writer: _Writer, of: str) -> str:
    """Write x tanh(log(1 + e^x)) as x (1 - r^2) / (1 + r^2), where r is the logistic of -x.

    Nothing overflows, and onnxruntime takes a fifth of the time that its Softplus needs.
    """
    one, root = writer.floats("one", 1), writer.add("Sigmoid", writer.add("Neg", of))
    square = writer.add("Mul", root, root)
    numerator = writer.add("Mul", of, writer.add("Sub", one, square))
    return writer.add("Div", numerator, writer.add("Add", one, square))


def _write_hard_mish(writer: _Writer, of: str) -> str:
    # x + min(x, 0)^2 / 2 for x above -2; below, both terms of min(max(x, -2), 0) cancel out.
    low = writer.add("Clip", of, writer.floats("minus_2", -2), writer.floats("zero", 0))
    square = writer.add("Mul", writer.add("Mul", low, low), writer.floats("a_half", 0.5))
    return writer.add("Add", writer.add("Max", of, writer.floats("minus_2", -2)), square)


def _write_relu6(writer: _Writer, of: str) -> str:
    return writer.add("Clip", of, writer.floats("zero", 0), writer.floats("six", 6))


def _write_hardtan(writer: _Writer, of: str) -> str:
    return writer.add("Clip", of, writer.floats("minus_1", -1), writer.floats("one", 1))


def _write_loggy(writer: _Writer, of: str) -> str:
    doubled = writer.add("Mul", writer.add("Sigmoid", of), writer.floats("two", 2))
    return writer.add("Sub", doubled, writer.floats("one", 1))


def _write_ramp(writer: _Writer, of: str) -> str:
    tenth = writer.add("Mul", of, writer.floats("a_tenth", 0.1))
    return writer.add("Add", writer.add("Relu", of), tenth)


def _write_gelu(writer: _Writer, of: str) -> str:
    """Write 0.5 x (1 + tanh(0.797885 x + 0.035677 x^3)), the approximation of darknet."""
    square = writer.add("Mul", of, of)
    cubic = writer.add("Mul", square, writer.floats("gelu_cubic", 0.035677))
    inner = writer.add("Add", cubic, writer.floats("gelu_linear", 0.797885))
    bent = writer.add("Tanh", writer.add("Mul", of, inner))
    share = writer.add("Add", bent, writer.floats("one", 1))
    return writer.add("Mul", writer.add("Mul", of, writer.floats("a_half", 0.5)), share)


_OPERATORS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "leaky": ("LeakyRelu", {"alpha": 0.1}),
    "relie": ("LeakyRelu", {"alpha": 0.01}),
    "relu": ("Relu", {}),
    "logistic": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "elu": ("Elu", {"alpha": 1.0}),
    "selu": ("Selu", {"alpha": 1.6732, "gamma": 1.0507}),
}
"""Activations that ONNX has, with their attributes."""

_COMPOSED: Mapping[str, Callable[[_Writer, str], str]] = {
    "swish": _write_swish,
    "mish": _write_mish,
    "hard_mish": _write_hard_mish,
    "relu6": _write_relu6,
    "hardtan": _write_hardtan,
    "loggy": _write_loggy,
    "ramp": _write_ramp,
    "gelu": _write_gelu,
}
_WRITERS: Mapping[type, Callable[..., str]] = {
    Convolution: _write_convolution,
    Norm: _write_norm,
    Pool: _write_pool,
    GlobalMean: _write_global_mean,
    Upsample: _write_upsample,
    Concatenation: _write_concatenation,
    Addition: _write_addition,
    Product: _write_product,
    Activation: _write_pointwise,
    Blocks: _write_blocks,
}
"""Functions that write a layer and return the name of its output, by its operation."""


@dataclass(frozen=True)
class _Grid:
    """Where the rows of a tensor of boxes are, as fractions of the input: arrays (rows, 2) of x, y.

    Attributes:
        corners: Where the range of each centre begins.
        ranges: Width and height of that range.
        anchors: Widths and heights of the anchors.
    """

    corners: npt.NDArray[np.float64]
    ranges: npt.NDArray[np.float64]
    anchors: npt.NDArray[np.float64]


def _grid(heads: Sequence[tuple[Node, Head]]) -> _Grid:
    """Return the grid of all heads' rows: by head, anchor, line and column."""
    corners, ranges, anchors = [], [], []
    for node, head in heads:
        cells_wh = np.array(node.layer.input_whc[:2])
        columns, lines = np.meshgrid(*(np.arange(count) for count in cells_wh))
        cells = np.stack([columns.ravel(), lines.ravel()], axis=1)
        count = len(head.anchors_wh)
        corners.append(np.tile((cells - (head.scale_xy - 1) / 2) / cells_wh, (count, 1)))
        ranges.append(np.tile(head.scale_xy / cells_wh, (count * len(cells), 1)))
        anchors.append(np.repeat(np.array(head.anchors_wh), len(cells), axis=0))
    return _Grid(*map(np.concatenate, (corners, ranges, anchors)))


def _write_outputs(
    writer: _Writer,
    names: Mapping[int, str],
    heads: Sequence[tuple[Node, Head]],
    layout: Layout,
    size_wh: tuple[int, int],
) -> dict[str, tuple[str | int, ...]]:
    """Write the decoding of all heads together, and return the outputs' shapes by name."""
    rows = _write_rows(writer, names, heads)
    head, grid = heads[0][1], _grid(heads)
    count, classes = len(grid.anchors), head.class_count
    numbers, scores = _write_scores(writer, rows, head, SCORES if layout == "darknet" else "")
    parts = _write_boxes(writer, numbers, head, grid)
    if layout == "darknet":
        writer.add("Concat", *parts, name=BOXES, axis=2)
        return {BOXES: ("batch", count, 4), SCORES: ("batch", count, classes)}
    size = writer.floats("input_size", size_wh, exact=True)
    pixels = [writer.add("Mul", part, size) for part in parts]
    joined = writer.add("Concat", *pixels, scores, axis=2)
    writer.add("Transpose", joined, name=YOLOV8_OUTPUT, perm=[0, 2, 1])
    return {YOLOV8_OUTPUT: ("batch", 4 + classes, count)}


def _write_rows(
    writer: _Writer, names: Mapping[int, str], heads: Sequence[tuple[Node, Head]]
) -> str:
    """Write the heads' inputs as (batch, rows, numbers per anchor), and return its name."""
    parts = []
    for node, head in heads:
        width, height, channels = node.layer.input_whc
        count, cells = len(head.anchors_wh), width * height
        each = channels // count
        anchors = writer.add(
            "Reshape", names[node.inputs[0]], writer.integers([0, count, each, cells])
        )
        moved = writer.add("Transpose", anchors, perm=[0, 1, 3, 2])
        parts.append(writer.add("Reshape", moved, writer.integers([0, count * cells, each])))
    rows = parts[0] if len(parts) == 1 else writer.add("Concat", *parts, axis=1)
    return writer.cast(rows, half=False) if writer.half else rows


def _write_scores(writer: _Writer, rows: str, head: Head, name: str) -> tuple[str, str]:
    """Write objectness times class scores, and return the names of the box numbers and of this.

    Sources: get_yolo_detections in src/yolo_layer.c, get_region_detections in src/region_layer.c,
    get_gaussian_yolo_detections in src/gaussian_yolo_layer.c.
    """
    box_numbers = 8 if head.form == "gaussian" else 4
    numbers, objectness, classes = writer.split(rows, [box_numbers, 1, head.class_count], axis=2)
    if not head.is_activated:
        objectness = writer.add("Sigmoid", objectness)
        if head.form == "region":
            classes = writer.add("Softmax", classes, axis=2)
        else:
            classes = writer.add("Sigmoid", classes)
    if head.form == "gaussian":
        uncertain = writer.add("Gather", numbers, writer.integers([1, 3, 5, 7]), axis=2)
        mean = writer.add("ReduceMean", writer.add("Sigmoid", uncertain), axes=[2], keepdims=1)
        certainty = writer.add("Sub", writer.floats("certain", 1, exact=True), mean)
        objectness = writer.add("Mul", objectness, certainty)
        numbers = writer.add("Gather", numbers, writer.integers([0, 2, 4, 6]), axis=2)
    return numbers, writer.add("Mul", objectness, classes, name=name)


def _write_boxes(writer: _Writer, numbers: str, head: Head, grid: _Grid) -> list[str]:
    """Write centres and sizes as fractions of the input, and return their names.

    Sources: get_yolo_box, get_region_box and get_gaussian_yolo_box in the same files.
    """
    positions, sizes = writer.split(numbers, [2, 2], axis=2)
    if head.is_activated:
        sizes = writer.add("Mul", sizes, sizes)
        anchors = 4 * grid.anchors
    else:
        positions, sizes = writer.add("Sigmoid", positions), writer.add("Exp", sizes)
        anchors = grid.anchors
    sizes = writer.add("Mul", sizes, writer.floats("anchors", anchors, exact=True))
    inside = writer.add("Mul", positions, writer.floats("ranges", grid.ranges, exact=True))
    centres = writer.add("Add", inside, writer.floats("corners", grid.corners, exact=True))
    if head.point != "center":
        halves = writer.add("Mul", sizes, writer.floats("half_of_size", 0.5, exact=True))
        centres = writer.add("Add" if head.point == "left_top" else "Sub", centres, halves)
    return [centres, sizes]
