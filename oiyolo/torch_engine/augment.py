"""Darknet's augmentation: what becomes of the images and boxes of one batch.

Follows ``load_data_detection`` (src/data.c) of pjreddie's darknet and of AlexeyAB's, with
``place_image``, ``crop_image``, ``resize_image`` and ``distort_image`` (src/image.c). This module
decides, for all images of a batch at once; ``render`` computes the pixels. What differs from
darknet: colours are not rounded to 8 bits, as OpenCV builds do; whether an image is mixed is drawn
for each image rather than for a loading thread's share of the batch; boxes are shuffled evenly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from oiyolo.inference.placement import placed_wh
from oiyolo.torch_engine import samples

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.networks.cfg import Cfg, Section
    from oiyolo.torch_engine.rules import Rules
    from oiyolo.torch_engine.samples import Samples

    Floats = npt.NDArray[np.float64]
    AnyFloats = npt.NDArray[np.floating]
    Ints = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

Geometry = Literal["place", "crop", "crop_mean", "stretch", "letterbox"]
"""``place``: the whole image, with another aspect ratio, on grey (pjreddie). ``crop``: a part,
whose outside repeats the image's edge (AlexeyAB). ``crop_mean``: a part, whose outside has the
image's mean colour (a build with OpenCV). ``stretch`` and ``letterbox``: no augmentation."""
Mix = Literal["", "mixup", "mosaic"]

HEAD_KINDS: Final = frozenset({"yolo", "Gaussian_yolo", "region"})
MAX_SOURCES: Final = 4
"""Images that a mosaic consists of."""

_MIXES: Final[dict[int, Mix]] = {1: "mixup", 3: "mosaic", 4: "mosaic"}
_SOURCE_COUNTS: Final[dict[Mix, int]] = {"": 1, "mixup": 2, "mosaic": 4}
_MIN_CUT: Final = 0.2
_HALF: Final = 0.5
_SIDES: Final = 2
"""Parts of a mosaic in a row: left and right."""
_BOX_SLOT: Final = 32
_SLOTS: Final = 19
(
    _IMAGE,
    _LEFT,
    _RIGHT,
    _TOP,
    _BOTTOM,
    _RESIZE_1,
    _RESIZE_2,
    _FLIP,
    _HUE,
    _SATURATION,
    _DESATURATE,
    _EXPOSURE,
    _DARKEN,
    _CORNER,
    _PLACE_X,
    _PLACE_Y,
    _MIX,
    _CUT_X,
    _CUT_Y,
) = range(_SLOTS)
"""Purposes of an image's random numbers; those of its boxes follow from ``_BOX_SLOT`` on."""


@dataclass(frozen=True)
class Augmentation:
    """What a network's .cfg requests.

    Attributes:
        geometry: How an image is fitted to the input.
        max_boxes: Boxes of an image that a detection layer takes; others are left out.
        jitter: Largest change of each side, as a fraction of the image.
        resize: Largest factor by which an image is reduced or enlarged.
        hue: Largest change of the hue, as a fraction of the circle.
        saturation: Largest factor of the saturation and its inverse.
        exposure: The same for the brightness.
        flip: Whether half of the images are mirrored.
        mix: Whether half of the images are mixed with others, and how.
        keeps_aspect: Whether a crop has the aspect ratio of the image (``letter_box``).
        bounds_boxes: Whether boxes end at their part of a mosaic (``mosaic_bound``).
        min_side: Smallest side of a box as a fraction; ``None`` for one pixel of the input.
    """

    geometry: Geometry
    max_boxes: int
    jitter: float = 0.0
    resize: float = 1.0
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    flip: bool = False
    mix: Mix = ""
    keeps_aspect: bool = False
    bounds_boxes: bool = False
    min_side: float | None = None

    def off(self) -> Augmentation:
        """Return how images are fitted to the input without augmentation, as for detection."""
        is_letterboxed = self.geometry == "place" or self.keeps_aspect
        return Augmentation(
            "letterbox" if is_letterboxed else "stretch", self.max_boxes, min_side=self.min_side
        )


def augmentation_of(cfg: Cfg, rules: Rules) -> Augmentation:
    """Return the augmentation that a .cfg requests from a fork of darknet.

    Args:
        cfg: The network.
        rules: The fork's rules; pjreddie's fork ignores the options that it does not have.
    """
    head = head_of(cfg)
    net = cfg.net
    limit = rules.max_region_truths if head.kind == "region" else rules.max_truths
    common = Augmentation(
        "place",
        limit if rules.fork == "pjreddie" and head.kind == "region" else head.integer("max", limit),
        jitter=head.number("jitter", 0.2),
        hue=net.number("hue", 0.0),
        saturation=net.number("saturation", 1.0) or 1.0,
        exposure=net.number("exposure", 1.0) or 1.0,
        flip=True,
        min_side=0.001,
    )
    if rules.fork == "pjreddie":
        return common
    mix = _mix_of(net)
    return replace(
        common,
        geometry="crop_mean" if rules.fork == "hank" or mix == "mosaic" else "crop",
        resize=head.number("resize", 1.0) or 1.0,
        flip=bool(net.integer("flip", 1)),
        mix=mix,
        keeps_aspect=bool(net.integer("letter_box", 0)),
        bounds_boxes=bool(net.integer("mosaic_bound", 0)),
        min_side=None,
    )


def head_of(cfg: Cfg) -> Section:
    """Return the detection layer whose options rule the loading of images: the last one."""
    return next(layer for layer in reversed(cfg.layers) if layer.kind in HEAD_KINDS)


def _mix_of(net: Section) -> Mix:
    """Return how images are mixed; ``cutmix`` has no effect on detectors, as in darknet."""
    if net.integer("mosaic", 0):
        return "mosaic"
    return "" if net.integer("cutmix", 0) else _MIXES.get(net.integer("mixup", 0), "")


class Axis(NamedTuple):
    """Where the pixels of one axis of the input come from, each of shape (sources, pixels).

    Attributes:
        low: Index of a pixel of the source.
        high: Index of the pixel to mix it with.
        weight: Weight of the latter, from 0 to 1.
        mass: Factor of the mixture: the weights that fall on the source.
        cover: Share of the pixel that is not filled with the fill colour.
    """

    low: Ints
    high: Ints
    weight: npt.NDArray[np.float32]
    mass: npt.NDArray[np.float32]
    cover: npt.NDArray[np.float32]


@dataclass(frozen=True)
class BatchPlan:
    """All decisions about a batch; a source is an image of the list as a part of a batch's image.

    Attributes:
        size_wh: Width and height of the input in pixels.
        images: Index of each source in the list, shape (s,).
        owners: Image of the batch that each source belongs to, ascending, shape (s,).
        numbers: Number of the source in that image, shape (s,).
        mix: How each image of the batch is mixed: its number of sources, shape (n,).
        cuts: Where a mosaic is divided, in pixels from left and top, shape (n, 2).
        colours: Change of the hue, factors of saturation and exposure, shape (s, 3).
        x: Horizontal axis of each source.
        y: Vertical axis of each source.
        truths: Centre x, y, width, height as fractions, and class, shape (n, max_boxes, 5).
        counts: Boxes of each image, shape (n,).
    """

    size_wh: tuple[int, int]
    images: Ints
    owners: Ints
    numbers: Ints
    mix: Ints
    cuts: Ints
    colours: npt.NDArray[np.float32]
    x: Axis
    y: Axis
    truths: npt.NDArray[np.float32]
    counts: Ints


class Sources(NamedTuple):
    """The images that are drawn for a batch, with their random numbers.

    Attributes:
        keys: Position of each source in the stream, shape (s,).
        images: Index in the list, shape (s,).
        owners: Image of the batch, ascending, shape (s,).
        numbers: Number in the image of the batch, shape (s,).
        mix: Number of sources of each image of the batch, shape (n,).
        random: Numbers from 0 to 1, shape (s, slots).
    """

    keys: Ints
    images: Ints
    owners: Ints
    numbers: Ints
    mix: Ints
    random: Floats

    def is_low(self) -> Flags:
        """Return whether each source would be on the left, and at the top, of a mosaic, (s, 2)."""
        return np.stack([self.numbers % _SIDES == 0, self.numbers < _SIDES], axis=1)


def draw(options: Augmentation, seed: int, positions: Ints, image_count: int) -> Sources:
    """Return what is drawn for some positions of the stream.

    Args:
        options: The augmentation.
        seed: Seed of the stream.
        positions: Positions of the batch's images in the stream, shape (n,).
        image_count: Number of images in the list.
    """
    is_mixed = samples.uniform(seed, positions * MAX_SOURCES, _MIX) < _HALF
    mix = np.where(is_mixed, _SOURCE_COUNTS[options.mix], 1)
    owners = np.repeat(np.arange(len(positions)), mix)
    numbers = np.arange(len(owners)) - np.repeat(np.cumsum(mix) - mix, mix)
    keys = positions[owners] * MAX_SOURCES + numbers
    random = samples.uniform(seed, keys[:, None], np.arange(_SLOTS))
    images = (random[:, _IMAGE] * image_count).astype(np.int64)
    return Sources(keys, images, owners, numbers, mix, random)


def plan(
    options: Augmentation,
    data: Samples,
    sources: Sources,
    *,
    image_wh: Ints,
    size_wh: tuple[int, int],
    seed: int,
) -> BatchPlan:
    """Return the decisions about a batch.

    Args:
        options: The augmentation.
        data: The list of images and their boxes.
        sources: The images that were drawn.
        image_wh: Width and height of each source in pixels, shape (s, 2).
        size_wh: Width and height of the input in pixels.
        seed: Seed of the stream.
    """
    size = np.array(size_wh)
    random = sources.random
    cuts = _cuts(random[sources.numbers == 0], size)
    is_mosaic = (sources.mix == MAX_SOURCES)[sources.owners]
    is_flipped = random[:, _FLIP] < _HALF if options.flip else np.zeros(len(random), np.bool_)
    view = _view(options, sources, image_wh, size, is_flipped)
    shift = np.zeros((len(random), 2), np.int64)
    if is_mosaic.any():
        moved = _mosaic_shift(view, sources, cuts=cuts, wh=image_wh, size=size)
        shift[is_mosaic] = moved[is_mosaic]
    truths, counts = _truths(
        options, data, sources, view, cuts=cuts, shift=shift, size=size, seed=seed
    )
    x, y = (
        _axis(options.geometry, view, axis, last=image_wh[:, axis] - 1, shift=shift, size=size)
        for axis in (0, 1)
    )
    return BatchPlan(
        size_wh,
        sources.images,
        sources.owners,
        sources.numbers,
        sources.mix,
        cuts,
        _colours(options, random),
        x,
        y,
        truths,
        counts,
    )


class _View(NamedTuple):
    """The part of each source, and where on the input it appears, shape (s, 2) each: x and y.

    Attributes:
        start: Left and top of the part in pixels of the source; negative outside.
        end: Distance of its right and bottom from those of the source; negative outside.
        extent: Width and height of the part.
        target: Left and top on the input, in pixels.
        target_extent: Width and height there.
        scale: Factor from fractions of the source to fractions of the input, before mirroring.
        offset: What is added to them.
        is_flipped: Whether the input is mirrored afterwards, shape (s,).
    """

    start: Ints
    end: Ints
    extent: Ints
    target: Ints
    target_extent: Ints
    scale: Floats
    offset: Floats
    is_flipped: Flags


def _view(
    options: Augmentation, sources: Sources, image_wh: Ints, size: Ints, is_flipped: Flags
) -> _View:
    wh = image_wh.astype(np.float64)
    if options.geometry == "place":
        return _place(options.jitter, sources.random, wh, size, is_flipped)
    if options.geometry in {"stretch", "letterbox"}:
        return _fit(options.geometry, wh, size, is_flipped)
    start, end = _crop(options, sources.random, wh, size)
    _move_to_corner(start, end, sources, is_flipped)
    extent = wh - start - end
    is_invalid = ((extent <= 0) | (wh - start <= 0)).any(axis=1, keepdims=True)
    start, extent = np.where(is_invalid, 0, start), np.where(is_invalid, wh, extent)
    scale = wh / extent
    whole = np.broadcast_to(size, wh.shape)
    return _View(
        start=_int(start),
        end=_int(end),
        extent=_int(extent),
        target=whole * 0,
        target_extent=whole,
        scale=scale,
        offset=-start / wh * scale,
        is_flipped=is_flipped,
    )


def _place(jitter: float, random: Floats, wh: Floats, size: Ints, is_flipped: Flags) -> _View:
    """Return pjreddie's view: the whole image with a changed aspect ratio, somewhere on the input.

    An aspect ratio below 1 fills the height, another the width, whatever that of the input is.
    """
    width, height = size
    change = _between(-jitter * wh, jitter * wh, random[:, [_LEFT, _TOP]])
    aspect = (wh + change)[:, 0] / (wh + change)[:, 1]
    is_tall = aspect < 1
    placed_w = np.where(is_tall, height * aspect, width)
    placed = np.stack([placed_w, np.where(is_tall, height, width / aspect)], axis=1)
    free = size - placed
    target = _between(np.minimum(0, free), np.maximum(0, free), random[:, [_PLACE_X, _PLACE_Y]])
    zero = np.zeros(wh.shape, np.int64)
    extent = np.maximum(1, _int(placed))
    scale, offset = placed / size, target / size
    return _View(zero, zero, _int(wh), _int(target), extent, scale, offset, is_flipped)


def _fit(geometry: Geometry, wh: Floats, size: Ints, is_flipped: Flags) -> _View:
    """Return the view without augmentation: the whole image, stretched or with grey borders."""
    fit: Literal["stretch", "letterbox"] = "stretch" if geometry == "stretch" else "letterbox"
    width, height = size.tolist()
    placed = np.array([placed_wh((int(w), int(h)), (width, height), fit) for w, h in wh])
    target = (size - placed) // 2
    zero = np.zeros(wh.shape, np.int64)
    scale, offset = placed / size, target / size
    return _View(zero, zero, _int(wh), target, placed, scale, offset, is_flipped)


def _crop(options: Augmentation, random: Floats, wh: Floats, size: Ints) -> tuple[Floats, Floats]:
    """Return left and top, and right and bottom, that are cut off, in whole pixels."""
    # Sides are C floats in darknet, and 108 * (1 - 1.5) / 2 is -27 only if 1.5 is exact.
    sides, one = wh.astype(np.float32), np.float32(1)
    largest = np.trunc(sides * np.float32(options.jitter))
    start = np.trunc(_between(-largest, largest, random[:, [_LEFT, _TOP]]))
    end = np.trunc(_between(-largest, largest, random[:, [_RIGHT, _BOTTOM]]))
    resize = np.float32(options.resize)
    down, up = min(resize, one / resize), max(resize, one / resize)
    outward = np.trunc(sides * (one - one / down) / 2)
    inward = np.trunc(sides * (one - one / up) / 2) if options.resize >= 1 else outward * 0
    start = np.trunc(start + _between(outward, inward, random[:, [_RESIZE_1]]))
    end = np.trunc(end + _between(outward, inward, random[:, [_RESIZE_2]]))
    if options.keeps_aspect:
        aspect = np.float32(size[0]) / np.float32(size[1])
        other = np.stack([sides[:, 1] * aspect, sides[:, 0] / aspect], axis=1)
        border = np.maximum(0, (other - sides) / 2)
        start, end = np.trunc(start - border), np.trunc(end - border)
    return start, end


def _move_to_corner(start: Floats, end: Floats, sources: Sources, is_flipped: Flags) -> None:
    """Move half of a mosaic's views so that the visible corner of the view is in the image."""
    is_mosaic = (sources.mix == MAX_SOURCES)[sources.owners]
    is_moved = is_mosaic & (sources.random[:, _CORNER] < _HALF)
    to_start = sources.is_low()
    to_start[:, 0] ^= is_flipped
    at_start, at_end = is_moved[:, None] & to_start, is_moved[:, None] & ~to_start
    both = start + end
    end[at_start], start[at_end] = both[at_start], both[at_end]
    start[at_start] = end[at_end] = 0


def _cuts(random: Floats, size: Ints) -> Ints:
    """Return where mosaics are divided, at least 20 % from each side, shape (n, 2)."""
    low, high = _int(size * _MIN_CUT), _int(size * (1 - _MIN_CUT))
    return low + _int(random[:, [_CUT_X, _CUT_Y]] * (high - low + 1))


def _mosaic_shift(view: _View, sources: Sources, *, cuts: Ints, wh: Ints, size: Ints) -> Ints:
    """Return the pixel of each source's own picture that appears at the input's origin, (s, 2).

    A part on the left shows the right of its picture, without what is outside the source there,
    and so on (the copying loop of load_data_detection, and ``left_shift`` and others before it).
    """
    start, end = view.start.copy(), view.end.copy()
    mirrored = view.is_flipped
    start[mirrored, 0], end[mirrored, 0] = view.end[mirrored, 0], view.start[mirrored, 0]
    cut = cuts[sources.owners]
    hidden_start = np.minimum(cut, np.maximum(0, -start * size // wh))
    hidden_end = np.minimum(size - cut, np.maximum(0, -end * size // wh))
    return np.asarray(np.where(sources.is_low(), size - cut - hidden_end, hidden_start - cut))


def _colours(options: Augmentation, random: Floats) -> npt.NDArray[np.float32]:
    """Return hue, saturation and exposure of each source (``rand_scale``, src/utils.c)."""
    hue = _between(-options.hue, options.hue, random[:, _HUE])
    saturation = 1 + (options.saturation - 1) * random[:, _SATURATION]
    exposure = 1 + (options.exposure - 1) * random[:, _EXPOSURE]
    saturation = np.where(random[:, _DESATURATE] < _HALF, saturation, 1 / saturation)
    exposure = np.where(random[:, _DARKEN] < _HALF, exposure, 1 / exposure)
    return np.stack([hue, saturation, exposure], axis=1).astype(np.float32)


def _axis(
    geometry: Geometry, view: _View, axis: int, *, last: Ints, shift: Ints, size: Ints
) -> Axis:
    """Return where the pixels of one axis of the input come from.

    Args:
        geometry: How an image is fitted to the input.
        view: The part of each source.
        axis: 0 for columns, 1 for rows.
        last: Index of each source's last pixel, shape (s,).
        shift: Pixel of each source's picture that appears at the input's origin, shape (s, 2).
        size: Width and height of the input.
    """
    last = last[:, None]
    pixels = np.arange(size[axis]) + shift[:, axis, None]
    if axis == 0:
        pixels = np.where(view.is_flipped[:, None], size[axis] - 1 - pixels, pixels)
    pixels = pixels - view.target[:, axis, None]
    placed = view.target_extent[:, axis, None]
    is_inside = (pixels >= 0) & (pixels < placed)
    extent = last + 1 if geometry == "place" else view.extent[:, axis, None]
    position = _position(geometry, pixels, placed, extent)
    low = np.floor(position).astype(np.int64)
    weight = (position - low).astype(np.float32)
    low += view.start[:, axis, None]
    mass = np.ones_like(weight)
    cover = is_inside.astype(np.float32)
    if geometry in {"place", "crop_mean"}:
        has_low, has_high = (low >= 0) & (low <= last), (low >= -1) & (low < last)
        mass = (1 - weight) * has_low + weight * has_high
        weight *= has_high / np.where(mass > 0, mass, 1)
        cover = mass if geometry == "crop_mean" else cover
    elif axis == 1:
        # resize_image omits the second term from its last row, which is black if rounding left
        # the first one little weight.
        is_last = (pixels == placed - 1) & (weight > 0)
        mass[is_last] = np.where(weight[is_last] < _HALF, 1, 1 - weight[is_last])
        weight[is_last] = 0
    parts = (part.astype(np.float32) for part in (weight, mass * is_inside, cover))
    return Axis(np.clip(low, 0, last), np.clip(low + 1, 0, last), *parts)


def _position(geometry: Geometry, pixels: Ints, placed: Ints, extent: Ints) -> Floats:
    """Return where pixels of the placed image lie in the part of the source, in pixels."""
    if geometry == "place":
        fraction = pixels.astype(np.float32) / placed.astype(np.float32)
        return np.asarray(fraction * extent.astype(np.float32), np.float64)
    if geometry == "crop_mean":
        return np.clip((pixels + 0.5) * (extent / placed) - 0.5, 0, extent - 1)
    step = (extent - 1).astype(np.float32) / np.maximum(1, placed - 1).astype(np.float32)
    return np.clip(pixels.astype(np.float32) * step, 0, extent - 1).astype(np.float64)


def _truths(
    options: Augmentation,
    data: Samples,
    sources: Sources,
    view: _View,
    *,
    cuts: Ints,
    shift: Ints,
    size: Ints,
    seed: int,
) -> tuple[npt.NDArray[np.float32], Ints]:
    """Return boxes that moved with their images, shuffled, and their numbers.

    See ``randomize_boxes``, ``correct_boxes``, ``fill_truth_detection``, ``blend_truth`` and
    ``blend_truth_mosaic`` (src/data.c).
    """
    rows, owners, numbers = data.rows_of(sources.images)
    order = np.lexsort((samples.uniform(seed, sources.keys[owners], numbers + _BOX_SLOT), owners))
    rows, owners = rows[order], owners[order]
    boxes = data.boxes[rows].astype(np.float64)
    is_kept = (numbers < options.max_boxes) & (boxes[:, :2] != 0).any(axis=1)
    xyxy = _moved(boxes, view, owners)
    min_side = 1 / size if options.min_side is None else options.min_side
    is_kept &= (xyxy[:, 2:] - xyxy[:, :2] >= min_side).all(axis=1)
    if (sources.mix == MAX_SOURCES).any():
        moved = xyxy - np.tile(shift[owners] / size, 2)
        xyxy, is_visible = _in_mosaic(
            options, moved, sources, owners, cuts=cuts / size, min_side=1 / size
        )
        is_kept &= is_visible
    boxes[:, :2], boxes[:, 2:4] = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    return _by_image(boxes[is_kept], sources.owners[owners[is_kept]], len(cuts), options.max_boxes)


def _moved(boxes: Floats, view: _View, owners: Ints) -> Floats:
    """Return the corners of boxes on their sources' pictures, clipped to them, shape (k, 4)."""
    half = boxes[:, 2:4] / 2
    scale, offset = view.scale[owners], view.offset[owners]
    low, high = (boxes[:, :2] - half) * scale + offset, (boxes[:, :2] + half) * scale + offset
    mirrored = view.is_flipped[owners]
    low[mirrored, 0], high[mirrored, 0] = 1 - high[mirrored, 0], 1 - low[mirrored, 0]
    return np.clip(np.concatenate((low, high), axis=1), 0, 1)


def _in_mosaic(
    options: Augmentation,
    moved: Floats,
    sources: Sources,
    owners: Ints,
    *,
    cuts: Floats,
    min_side: Floats,
) -> tuple[Floats, Flags]:
    """Return the corners of boxes in their mosaics, and whether they are there; (k, 4) and (k,).

    Boxes of images that are not mosaics stay as they are. Without ``mosaic_bound`` a box is cut
    off at the edge of the input only, so it may be covered by another part, as in darknet.
    """
    images = sources.owners[owners]
    low, high = np.zeros((len(moved), 2)), np.ones((len(moved), 2))
    if options.bounds_boxes:
        is_low = sources.is_low()[owners]
        low, high = np.where(is_low, low, cuts[images]), np.where(is_low, cuts[images], high)
    bounded = np.clip(moved, np.tile(low, 2), np.tile(high, 2))
    sides = bounded[:, 2:] - bounded[:, :2]
    is_mosaic = sources.mix[images] == MAX_SOURCES
    is_visible = ((sides > min_side) & (sides < 1)).all(axis=1) | ~is_mosaic
    return np.where(is_mosaic[:, None], bounded, moved), is_visible


def _by_image(
    boxes: Floats, owners: Ints, image_count: int, max_boxes: int
) -> tuple[npt.NDArray[np.float32], Ints]:
    """Return boxes as a table per image, and their numbers; ``owners`` is ascending."""
    counts = np.bincount(owners, minlength=image_count)
    columns = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    fits = columns < max_boxes
    truths = np.zeros((image_count, max_boxes, 5), np.float32)
    truths[owners[fits], columns[fits]] = boxes[fits]
    return truths, np.minimum(counts, max_boxes)


def _between(low: AnyFloats | float, high: AnyFloats | float, random: Floats) -> Floats:
    return np.asarray(low + (high - low) * random)


def _int(values: AnyFloats) -> Ints:
    return values.astype(np.int64)
