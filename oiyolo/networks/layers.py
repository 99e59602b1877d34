"""What each layer of a network gives on, and how many numbers it keeps in a weights file.

The arithmetic is darknet's (the ``make_*_layer`` functions in src/, ``load_weights_upto`` in
src/parser.c), so that a cfg can be judged and a weights file measured where there is no darknet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.networks.cfg import CfgError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.networks.cfg import Cfg, Section

HEADER_BYTES = 20
"""Three int32 of version and a uint64 of images seen, before the first number of a layer."""

FLOAT_BYTES = 4
HEAD_KINDS = ("yolo", "Gaussian_yolo", "region")
"""Sections that turn a layer's numbers into boxes."""

_COORDINATES = 4
_OBJECTNESS = 1
_MOST_ANCHORS = 1000

Whc = tuple[int, int, int]
"""Width and height in cells, and channels."""


@dataclass(frozen=True)
class Segment:
    """A run of numbers that a layer keeps in a weights file.

    Attributes:
        name: ``biases``, ``scales``, ``means``, ``variances`` or ``weights``.
        count: How many numbers.
    """

    name: str
    count: int


@dataclass(frozen=True)
class Layer:
    """One layer as darknet would make it.

    Attributes:
        index: Its place, from 0, as darknet prints it and ``[route]`` names it.
        section: The section that describes it.
        input_whc: What it is given: width, height, channels.
        output_whc: What it gives on: width, height, channels.
        filters: Filters of a convolution, outputs of a connected layer, else 0.
        sources: The layers that a route or shortcut names, counted from 0.
        segments: What it keeps in a weights file, in the order of the file.
    """

    index: int
    section: Section
    input_whc: Whc
    output_whc: Whc
    filters: int = 0
    sources: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = ()

    @property
    def kind(self) -> str:
        """The section's kind under its long name."""
        return self.section.kind

    @property
    def parameter_count(self) -> int:
        """How many numbers it keeps in a weights file."""
        return sum(segment.count for segment in self.segments)


def layers(cfg: Cfg) -> list[Layer]:
    """Work out every layer of a network.

    Raises:
        CfgError: A layer of a kind that is not known here, a route to a layer that is not there
            or of another size, an input or output without an extent.
    """
    whc = (*cfg.size_wh, cfg.net.integer("channels", 0))
    if min(whc) < 1:
        raise CfgError(
            "the network's input has no extent",
            path=cfg.path,
            line=cfg.net.line,
            expected="width, height and channels above 0 in [net]",
            found=f"{whc[0]}x{whc[1]}x{whc[2]}",
        )
    made: list[Layer] = []
    for section in cfg.layers:
        make = _MAKERS.get(section.kind)
        if make is None:
            raise CfgError(
                f"[{section.kind}] is no kind of layer that can be measured here",
                path=cfg.path,
                line=section.line,
                expected=f"one of {', '.join(sorted(_MAKERS))}",
            )
        layer = make(section, whc, made)
        if min(layer.output_whc) < 1:
            raise CfgError(
                f"nothing is left of the picture after layer {layer.index}, [{layer.kind}]",
                path=cfg.path,
                line=section.line,
                found=f"an input of {whc[0]}x{whc[1]}x{whc[2]}",
                remedy="Give the network a larger width and height",
            )
        made.append(layer)
        whc = layer.output_whc
    return made


def expected_weight_bytes(cfg: Cfg, layer_count: int | None = None) -> int:
    """Give the size of a weights file of a network, or of its first layers.

    Args:
        cfg: The network.
        layer_count: How many layers the file holds; all of them by default.

    Returns:
        Bytes: the header and four for each number.

    Raises:
        CfgError: As ``layers``.
    """
    held = layers(cfg)[:layer_count]
    return HEADER_BYTES + FLOAT_BYTES * sum(layer.parameter_count for layer in held)


def sources_of(section: Section, index: int) -> tuple[int, ...]:
    """Give the layers that a route or shortcut at place ``index`` names, counted from 0.

    Negative numbers count back from the layer itself. What is returned may lie outside of the
    network: whoever uses it looks first.

    Raises:
        CfgError: No layer is named.
    """
    key = "layers" if section.kind == "route" else "from"
    named = section.integers(key)
    if not named:
        raise CfgError(
            f"[{section.kind}] does not say from where",
            path=section.path,
            line=section.line,
            expected=f"{key}= with the index of a layer",
        )
    return tuple(number if number >= 0 else index + number for number in named)


def mask_of(head: Section) -> list[int]:
    """Give which of the anchors a head uses; all of them where it has no mask.

    Raises:
        CfgError: A value is no number, or no number of anchors.
    """
    count = head.integer("num", 1)
    if not 0 <= count <= _MOST_ANCHORS:
        raise CfgError(
            f"num of [{head.kind}] is no number of anchors",
            path=head.path,
            line=head.line_of("num"),
            expected=f"from 1 to {_MOST_ANCHORS}",
            found=str(count),
        )
    return head.integers("mask") or list(range(count))


def head_channels(head: Section) -> int:
    """Give how many channels a head needs from the layer before it.

    Each anchor has four coordinates (in [Gaussian_yolo] each with its uncertainty), objectness
    and the classes (make_yolo_layer, make_region_layer, make_gaussian_yolo_layer).
    """
    coordinates = {
        "yolo": _COORDINATES,
        "Gaussian_yolo": 2 * _COORDINATES,
        "region": head.integer("coords", _COORDINATES),
    }[head.kind]
    return len(mask_of(head)) * (coordinates + _OBJECTNESS + head.integer("classes", 20))


def _steps(section: Section) -> tuple[int, int]:
    stride = section.integer("stride", 1)
    step_x, step_y = section.integer("stride_x", stride), section.integer("stride_y", stride)
    if min(step_x, step_y) < 1:
        raise CfgError(
            f"[{section.kind}] does not move on",
            path=section.path,
            line=section.line_of("stride"),
            expected="a stride of 1 or more",
            found=str(min(step_x, step_y)),
        )
    return step_x, step_y


def _counts(section: Section, key: str, default: int) -> int:
    count = section.integer(key, default)
    if count < 1:
        raise CfgError(
            f"{key} of [{section.kind}] is below 1",
            path=section.path,
            line=section.line_of(key),
            expected="1 or more",
            found=str(count),
        )
    return count


def _batch_norm(count: int) -> tuple[Segment, ...]:
    return tuple(Segment(name, count) for name in ("scales", "means", "variances"))


def _convolutional(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    filters = _counts(section, "filters", 1)
    size = _counts(section, "size", 1)
    groups = _counts(section, "groups", 1)
    step_x, step_y = _steps(section)
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    out = (
        (whc[0] + 2 * padding - size) // step_x + 1,
        (whc[1] + 2 * padding - size) // step_y + 1,
        filters,
    )
    norm = _batch_norm(filters) if section.integer("batch_normalize", 0) else ()
    weights = Segment("weights", whc[2] // groups * filters * size * size)
    segments = (Segment("biases", filters), *norm, weights)
    # AlexeyAB's share_index borrows the numbers of another layer, so none are kept for this one.
    kept = () if section.has("share_index") else segments
    return Layer(len(made), section, whc, out, filters=filters, segments=kept)


def _connected(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    outputs = _counts(section, "output", 1)
    inputs = whc[0] * whc[1] * whc[2]
    norm = _batch_norm(outputs) if section.integer("batch_normalize", 0) else ()
    segments = (Segment("biases", outputs), Segment("weights", inputs * outputs), *norm)
    return Layer(len(made), section, whc, (1, 1, outputs), filters=outputs, segments=segments)


def _local(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    filters, size = _counts(section, "filters", 1), _counts(section, "size", 1)
    step_x, step_y = _steps(section)
    lost = 1 if section.integer("pad", 0) else size
    out = ((whc[0] - lost) // step_x + 1, (whc[1] - lost) // step_y + 1, filters)
    places = out[0] * out[1]
    segments = (
        Segment("biases", places * filters),
        Segment("weights", size * size * whc[2] * filters * places),
    )
    return Layer(len(made), section, whc, out, filters=filters, segments=segments)


def _batchnorm(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    segments = (Segment("biases", whc[2]), *_batch_norm(whc[2]))
    return Layer(len(made), section, whc, whc, segments=segments)


def _pool(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    step_x, step_y = _steps(section)
    size = section.integer("size", section.integer("stride", 1))
    padding = section.integer("padding", size - 1)
    out_w = (whc[0] + padding - size) // step_x + 1
    out_h = (whc[1] + padding - size) // step_y + 1
    return Layer(len(made), section, whc, (out_w, out_h, whc[2]))


def _average(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    return Layer(len(made), section, whc, (1, 1, whc[2]))


def _same(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    return Layer(len(made), section, whc, whc)


def _crop(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    out = (section.integer("crop_width", 1), section.integer("crop_height", 1), whc[2])
    return Layer(len(made), section, whc, out)


def _reorg(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    w, h, c = whc
    stride = _steps(section)[0]
    if section.integer("reverse", 0):
        out = (w * stride, h * stride, c // stride**2)
    else:
        out = (w // stride, h // stride, c * stride**2)
    return Layer(len(made), section, whc, out)


def _upsample(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    stride = section.integer("stride", 2)
    w, h, c = whc
    out = (w * stride, h * stride, c) if stride > 0 else (w // -stride, h // -stride, c)
    return Layer(len(made), section, whc, out)


def _existing_sources(section: Section, made: Sequence[Layer]) -> tuple[int, ...]:
    sources = sources_of(section, len(made))
    for source in sources:
        if not 0 <= source < len(made):
            raise CfgError(
                f"[{section.kind}] names layer {source}, which does not come before it",
                path=section.path,
                line=section.line_of("layers" if section.kind == "route" else "from"),
                expected=f"layers from 0 to {len(made) - 1}, or from -{len(made)} to -1",
            )
    return sources


def _route(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    sources = _existing_sources(section, made)
    sizes = {made[source].output_whc[:2] for source in sources}
    if len(sizes) > 1:
        raise CfgError(
            "[route] joins layers of different sizes",
            path=section.path,
            line=section.line_of("layers"),
            expected="one width and height",
            found=", ".join(f"{w}x{h}" for w, h in sorted(sizes)),
            remedy="Check width and height in [net] (multiples of 32), or the layers named",
        )
    w, h, _ = made[sources[0]].output_whc
    channels = sum(made[source].output_whc[2] for source in sources)
    out = (w, h, channels // _counts(section, "groups", 1))
    return Layer(len(made), section, whc, out, sources=sources)


def _shortcut(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    sources = _existing_sources(section, made)
    # Weighted shortcuts are AlexeyAB's (src/shortcut_layer.c): one number a source, or one each
    # for its channels.
    per_source = {"per_feature": 1, "per_layer": 1, "per_channel": whc[2]}
    count = per_source.get(section.text("weights_type"), 0) * (len(sources) + 1)
    segments = (Segment("weights", count),) if count else ()
    return Layer(len(made), section, whc, whc, sources=sources, segments=segments)


def _scaled(section: Section, whc: Whc, made: Sequence[Layer]) -> Layer:
    sources = _existing_sources(section, made)
    return Layer(len(made), section, whc, made[sources[0]].output_whc, sources=sources)


_MAKERS: dict[str, Callable[[Section, Whc, Sequence[Layer]], Layer]] = {
    "convolutional": _convolutional,
    "connected": _connected,
    "local": _local,
    "batchnorm": _batchnorm,
    "maxpool": _pool,
    "local_avgpool": _pool,
    "avgpool": _average,
    "crop": _crop,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "upsample": _upsample,
    "route": _route,
    "shortcut": _shortcut,
    "scale_channels": _scaled,
    "sam": _scaled,
    **dict.fromkeys(
        ("activation", "cost", "detection", "dropout", "empty", "normalization", "softmax"), _same
    ),
    **dict.fromkeys(HEAD_KINDS, _same),
}
