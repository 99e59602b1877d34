"""Output shape and parameter count of every layer of a network.

The arithmetic is darknet's (the ``make_*_layer`` functions in src/, ``load_weights_upto`` in
src/parser.c), so a cfg and its weights files can be checked without darknet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.networks.cfg import Cfg, Section

HEADER_BYTES = 20
"""Three int32 of version and a uint64 of images seen, before the first parameter."""

FLOAT_BYTES = 4
HEAD_KINDS = ("yolo", "Gaussian_yolo", "region")
"""Sections that decode a layer's output into boxes."""

GRID_PX = 32
"""Darknet expects sides that are multiples of this (parse_network_cfg_custom in AlexeyAB's
src/parser.c), and trains at such sizes if they vary: the common networks halve an image five
times."""

UNMEASURED_KINDS = ("contrastive", "crnn")
"""Sections that are passed on to darknet although their memory is unknown: they process several
images of a sequence at once."""

_COORDINATES = 4
_OBJECTNESS = 1
_MAX_ANCHORS = 1000
_MAX_MULTIPLE = 1 << 16

Whc = tuple[int, int, int]
"""Width and height in cells, and number of channels."""


@dataclass(frozen=True)
class Segment:
    """A block of parameters that a layer stores in a weights file.

    Attributes:
        name: ``biases``, ``scales``, ``means``, ``variances`` or ``weights``.
        count: Number of parameters.
    """

    name: str
    count: int


@dataclass(frozen=True)
class Layer:
    """A layer as darknet would build it.

    Attributes:
        index: Index from 0, as darknet prints it and ``[route]`` refers to it.
        section: Section of the cfg that describes the layer.
        input_whc: Width, height and channels of the input.
        output_whc: Width, height and channels of the output.
        sources: Indices of the layers that a route or shortcut refers to, from 0.
        segments: Parameters that the layer stores in a weights file, in the order of the file.
    """

    index: int
    section: Section
    input_whc: Whc
    output_whc: Whc
    sources: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = ()

    @property
    def kind(self) -> str:
        """Long name of the section's kind."""
        return self.section.kind

    @property
    def parameter_count(self) -> int:
        """Number of parameters that the layer stores in a weights file."""
        return sum(segment.count for segment in self.segments)


def layers(cfg: Cfg) -> list[Layer]:
    """Return every layer of a network, with its shapes and parameters.

    Raises:
        CfgError: A layer of an unsupported type, a route to a missing layer or to layers of
            different sizes, or an empty input or output.
    """
    whc = (*cfg.size_wh, cfg.net.integer("channels", 0))
    if min(whc) < 1:
        raise cfg.net.error(
            "the network's input is empty",
            expected="width, height and channels above 0 in [net]",
            found=f"{whc[0]}x{whc[1]}x{whc[2]}",
        )
    computed: list[Layer] = []
    for section in cfg.layers:
        build = _BUILDERS.get(section.kind)
        if build is None:
            raise section.error(
                f"unsupported layer type [{section.kind}]",
                remedy="Use a network of the layers that darknet's own detectors consist of",
            )
        layer = build(section, whc, computed)
        if min(layer.output_whc) < 1:
            raise section.error(
                f"the output of layer {layer.index}, [{layer.kind}], is empty",
                found=f"an input of {whc[0]}x{whc[1]}x{whc[2]}",
                remedy="Increase the width and height of the network",
            )
        computed.append(layer)
        whc = layer.output_whc
    return computed


def expected_weight_bytes(cfg: Cfg, layer_count: int | None = None) -> int:
    """Return the size of a weights file for a network, or for its first layers.

    Args:
        cfg: The network.
        layer_count: Number of layers that the file contains; by default all of them.

    Returns:
        Size in bytes: the header and four bytes per parameter.

    Raises:
        CfgError: As for ``layers``.
    """
    stored = layers(cfg)[:layer_count]
    return HEADER_BYTES + FLOAT_BYTES * sum(layer.parameter_count for layer in stored)


def size_multiple(cfg: Cfg) -> int:
    """Return the number of pixels whose multiples width and height must be.

    With other sizes the layers that a route or shortcut combines would differ by a cell, because
    strides round down. It is at least ``GRID_PX``, which is enough for the common networks.

    Raises:
        CfgError: A stride is below 1 or implausible, or a source layer is missing.
    """
    strides: list[tuple[Fraction, Fraction]] = []  # of each layer's output, in pixels of the input
    xy, multiple = (Fraction(1), Fraction(1)), GRID_PX
    for section in cfg.layers:
        if section.kind in {"route", "scale_channels", "sam"}:
            xy = strides[_sources(section, len(strides))[0]]
        factor_x, factor_y = _stride_factors(section)
        xy = (xy[0] * factor_x, xy[1] * factor_y)
        strides.append(xy)
        multiple = math.lcm(multiple, xy[0].numerator, xy[1].numerator)
        if multiple > _MAX_MULTIPLE:
            raise section.error(
                f"the strides up to this [{section.kind}] reduce the image too much",
                expected=f"a total stride up to {_MAX_MULTIPLE:,}",
                found=f"{multiple:,}",
            )
    return multiple


def _stride_factors(section: Section) -> tuple[Fraction, Fraction]:
    """Return by how much a layer reduces width and height."""
    if section.kind == "upsample":
        stride = _upsample_stride(section)
        factor = Fraction(1, stride) if stride > 0 else Fraction(-stride)
        return factor, factor
    if section.kind not in _STRIDED_KINDS:
        return Fraction(1), Fraction(1)
    stride_x, stride_y = _strides(section)
    if section.kind in _REORG_KINDS and section.integer("reverse", 0):
        return Fraction(1, stride_x), Fraction(1, stride_x)
    return Fraction(stride_x), Fraction(stride_x if section.kind in _REORG_KINDS else stride_y)


def heads_of(cfg: Cfg) -> list[Section]:
    """Return the sections that decode a layer's output into boxes."""
    return [head for _, head in heads_with_previous(cfg)]


def heads_with_previous(cfg: Cfg) -> list[tuple[Section, Section]]:
    """Return each head after the section before it."""
    pairs = zip([cfg.net, *cfg.layers], cfg.layers, strict=False)
    return [(before, head) for before, head in pairs if head.kind in HEAD_KINDS]


def mask_of(head: Section) -> list[int]:
    """Return the indices of the anchors that a head uses; all of them if it has no mask.

    Raises:
        CfgError: A value is not an integer, or ``num`` is out of range.
    """
    count = head.integer("num", 1)
    if not 0 <= count <= _MAX_ANCHORS:
        raise head.error(
            f"num of [{head.kind}] is out of range",
            "num",
            expected=f"from 1 to {_MAX_ANCHORS}",
            found=str(count),
        )
    return head.integers("mask") or list(range(count))


def head_channels(head: Section) -> int:
    """Return how many channels a head needs from the layer before it.

    Each anchor has four coordinates (in [Gaussian_yolo] each with an uncertainty), objectness
    and the class scores (make_yolo_layer, make_region_layer, make_gaussian_yolo_layer).
    """
    coordinates = {
        "yolo": _COORDINATES,
        "Gaussian_yolo": 2 * _COORDINATES,
        "region": head.integer("coords", _COORDINATES),
    }[head.kind]
    return len(mask_of(head)) * (coordinates + _OBJECTNESS + head.integer("classes", 20))


def _strides(section: Section) -> tuple[int, int]:
    stride = section.integer("stride", 1)
    stride_x, stride_y = section.integer("stride_x", stride), section.integer("stride_y", stride)
    if min(stride_x, stride_y) < 1:
        raise section.error(
            f"[{section.kind}] has a stride below 1",
            "stride",
            expected="a stride of 1 or more",
            found=str(min(stride_x, stride_y)),
        )
    return stride_x, stride_y


def _positive_integer(section: Section, key: str, default: int) -> int:
    count = section.integer(key, default)
    if count < 1:
        what = f"{key} of [{section.kind}] is below 1"
        raise section.error(what, key, expected="1 or more", found=str(count))
    return count


def _batch_norm(count: int) -> tuple[Segment, ...]:
    return tuple(Segment(name, count) for name in ("scales", "means", "variances"))


def _convolutional(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    filters = _positive_integer(section, "filters", 1)
    size = _positive_integer(section, "size", 1)
    groups = _positive_integer(section, "groups", 1)
    stride_x, stride_y = _strides(section)
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    out = (
        (whc[0] + 2 * padding - size) // stride_x + 1,
        (whc[1] + 2 * padding - size) // stride_y + 1,
        filters,
    )
    norm = _batch_norm(filters) if section.integer("batch_normalize", 0) else ()
    weights = Segment("weights", whc[2] // groups * filters * size * size)
    segments = (Segment("biases", filters), *norm, weights)
    # AlexeyAB's share_index reuses the parameters of another layer, so this one stores none.
    stored = () if section.has("share_index") else segments
    return Layer(len(previous), section, whc, out, segments=stored)


def _crnn(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    """Return a recurrent layer: three convolutions, of the input, the state and the output.

    Sources: parse_crnn and save_weights_upto in src/parser.c, make_crnn_layer in src/crnn_layer.c.
    pjreddie's fork has other names for two options.
    """
    hidden = _positive_integer(section, _first_key(section, "hidden", "hidden_filters"), 1)
    filters = _positive_integer(section, _first_key(section, "output", "output_filters"), 1)
    size = _positive_integer(section, "size", 3)
    groups = _positive_integer(section, "groups", 1)
    has_norm = section.integer("batch_normalize", 0)
    segments: list[Segment] = []
    for inputs, outputs in ((whc[2], hidden), (hidden, hidden), (hidden, filters)):
        norm = _batch_norm(outputs) if has_norm else ()
        weights = Segment("weights", inputs // groups * outputs * size * size)
        segments += [Segment("biases", outputs), *norm, weights]
    out = (whc[0], whc[1], filters)
    return Layer(len(previous), section, whc, out, segments=tuple(segments))


def _first_key(section: Section, key: str, other: str) -> str:
    return other if section.has(other) and not section.has(key) else key


def _connected(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    outputs = _positive_integer(section, "output", 1)
    inputs = whc[0] * whc[1] * whc[2]
    norm = _batch_norm(outputs) if section.integer("batch_normalize", 0) else ()
    segments = (Segment("biases", outputs), Segment("weights", inputs * outputs), *norm)
    return Layer(len(previous), section, whc, (1, 1, outputs), segments=segments)


def _local(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    filters, size = _positive_integer(section, "filters", 1), _positive_integer(section, "size", 1)
    stride_x, stride_y = _strides(section)
    border = 1 if section.integer("pad", 0) else size
    out = ((whc[0] - border) // stride_x + 1, (whc[1] - border) // stride_y + 1, filters)
    cells = out[0] * out[1]
    segments = (
        Segment("biases", cells * filters),
        Segment("weights", size * size * whc[2] * filters * cells),
    )
    return Layer(len(previous), section, whc, out, segments=segments)


def _batchnorm(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    segments = (Segment("biases", whc[2]), *_batch_norm(whc[2]))
    return Layer(len(previous), section, whc, whc, segments=segments)


def _maxpool(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    stride_x, stride_y = _strides(section)
    size = section.integer("size", section.integer("stride", 1))
    padding = section.integer("padding", size - 1)
    out_w = (whc[0] + padding - size) // stride_x + 1
    out_h = (whc[1] + padding - size) // stride_y + 1
    return Layer(len(previous), section, whc, (out_w, out_h, whc[2]))


def _avgpool(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    return Layer(len(previous), section, whc, (1, 1, whc[2]))


def _same_shape(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    return Layer(len(previous), section, whc, whc)


def _crop(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    out = (section.integer("crop_width", 1), section.integer("crop_height", 1), whc[2])
    return Layer(len(previous), section, whc, out)


def _reorg(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    w, h, c = whc
    stride = _strides(section)[0]
    if section.integer("reverse", 0):
        out = (w * stride, h * stride, c // stride**2)
    else:
        out = (w // stride, h // stride, c * stride**2)
    return Layer(len(previous), section, whc, out)


def _upsample(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    stride = _upsample_stride(section)
    w, h, c = whc
    out = (w * stride, h * stride, c) if stride > 0 else (w // -stride, h // -stride, c)
    return Layer(len(previous), section, whc, out)


def _upsample_stride(section: Section) -> int:
    """Return the stride of [upsample]; a negative one reduces the image."""
    stride = section.integer("stride", 2)
    if not stride:
        raise section.error("[upsample] has the stride 0", "stride", expected="1 or more")
    return stride


def _sources(section: Section, count: int) -> tuple[int, ...]:
    """Return the indices of a section's source layers among the ``count`` layers before it.

    Negative numbers in the section count back from it.
    """
    key = "layers" if section.kind == "route" else "from"
    numbers = section.integers(key)
    if not numbers:
        raise section.error(
            f"[{section.kind}] has no source layer", expected=f"{key}= with the index of a layer"
        )
    sources = tuple(number if number >= 0 else count + number for number in numbers)
    for source in sources:
        if not 0 <= source < count:
            raise section.error(
                f"[{section.kind}] refers to layer {source}, which does not precede it",
                key,
                expected=f"layers from 0 to {count - 1}, or from -{count} to -1",
            )
    return sources


def _route(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    sources = _sources(section, len(previous))
    sizes = {previous[source].output_whc[:2] for source in sources}
    if len(sizes) > 1:
        raise section.error(
            "[route] concatenates layers of different sizes",
            "layers",
            expected="one width and height",
            found=", ".join(f"{w}x{h}" for w, h in sorted(sizes)),
            remedy="List layers of one size; width and height must suit the network's strides",
        )
    w, h, _ = previous[sources[0]].output_whc
    channels = sum(previous[source].output_whc[2] for source in sources)
    out = (w, h, channels // _positive_integer(section, "groups", 1))
    return Layer(len(previous), section, whc, out, sources=sources)


def _shortcut(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    sources = _sources(section, len(previous))
    # Weighted shortcuts are AlexeyAB's (src/shortcut_layer.c): one weight per source, or one per
    # source and channel.
    per_source = {"per_feature": 1, "per_layer": 1, "per_channel": whc[2]}
    count = per_source.get(section.text("weights_type"), 0) * (len(sources) + 1)
    segments = (Segment("weights", count),) if count else ()
    return Layer(len(previous), section, whc, whc, sources=sources, segments=segments)


def _scale_channels(section: Section, whc: Whc, previous: Sequence[Layer]) -> Layer:
    sources = _sources(section, len(previous))
    return Layer(len(previous), section, whc, previous[sources[0]].output_whc, sources=sources)


_REORG_KINDS = ("reorg", "reorg3d")
_STRIDED_KINDS = ("convolutional", "local", "maxpool", "local_avgpool", *_REORG_KINDS)

_BUILDERS: dict[str, Callable[[Section, Whc, Sequence[Layer]], Layer]] = {
    "convolutional": _convolutional,
    "crnn": _crnn,
    "connected": _connected,
    "local": _local,
    "batchnorm": _batchnorm,
    "maxpool": _maxpool,
    "local_avgpool": _maxpool,
    "avgpool": _avgpool,
    "crop": _crop,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "upsample": _upsample,
    "route": _route,
    "shortcut": _shortcut,
    "scale_channels": _scale_channels,
    "sam": _scale_channels,
    **dict.fromkeys(
        ("activation", "contrastive", "cost", "detection", "dropout", "empty", "normalization"),
        _same_shape,
    ),
    "softmax": _same_shape,
    **dict.fromkeys(HEAD_KINDS, _same_shape),
}
