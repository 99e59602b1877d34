"""The networks that oiyolo can train, and any network made to fit a dataset.

The published ones are written out by ``stock``; ``demo`` is a file of ours in ``cfg/``; a user's
own file is adapted, and what changed can be shown as a diff.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.core.errors import UsageError
from oiyolo.networks.anchors import rounded
from oiyolo.networks.cfg import CfgError, parse, read
from oiyolo.networks.layers import HEAD_KINDS, head_channels
from oiyolo.networks.lint import GRID_PX, MULTI_SCALE_MAX_PX, MULTI_SCALE_MIN_PX
from oiyolo.networks.schedule import overridden, schedule_for, schedule_of, with_schedule
from oiyolo.networks.stock import TEXTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.networks.anchors import Sizes
    from oiyolo.networks.cfg import Cfg, Section
    from oiyolo.networks.lint import DarknetLine
    from oiyolo.networks.schedule import Schedule

CFG_SUFFIX = ".cfg"
MULTI_SCALE_MIN_IMAGES = 1000
_DEFAULT_BATCH = 64
_DEFAULT_SUBDIVISIONS = 16
_ALL_LINES: tuple[DarknetLine, ...] = ("pjreddie", "alexeyab", "hank")
_V4_LINES: tuple[DarknetLine, ...] = ("alexeyab", "hank")


@dataclass(frozen=True)
class Network:
    """A network that oiyolo can write.

    Attributes:
        name: What ``[train] network`` calls it.
        pretrained: The weights it starts from, by their name in ``weights.PRETRAINED``; ``None``
            where it learns from nothing.
        lines: The lines of darknet that can train it. YOLOv4's need more than pjreddie's has:
            mish, scale_x_y and CIoU loss, routes that take a part of the channels.
        size_wh: The input size when none is asked for, in pixels.
        batch: Images an iteration.
        subdivisions: Parts that a batch is cut into; memory is needed for one of them.
        anchors_side_px: From and to which input side the stock anchors are used as they are. Their
            authors fitted them at the first and used them up to the second.
    """

    name: str
    pretrained: str | None
    lines: tuple[DarknetLine, ...]
    size_wh: tuple[int, int]
    batch: int
    subdivisions: int
    anchors_side_px: tuple[int, int]


_416 = (416, 416)
NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            Network("yolov3", "darknet53.conv.74", _ALL_LINES, _416, 64, 16, (416, 608)),
            Network("yolov3-tiny", "yolov3-tiny.conv.15", _ALL_LINES, _416, 64, 4, _416),
            Network("yolov4", "yolov4.conv.137", _V4_LINES, _416, 64, 16, (512, 608)),
            Network("yolov4-tiny", "yolov4-tiny.conv.29", _V4_LINES, _416, 64, 4, _416),
            Network("demo", None, _ALL_LINES, (96, 96), 4, 1, (96, 96)),
        )
    }
)


def cfg_folder() -> Path:
    """Find the folder of network files: inside an installed wheel, else in the checkout.

    Raises:
        UsageError: There is neither; the installation is broken.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "cfg", package.parent / "cfg"):
        if folder.is_dir():
            return folder
    raise UsageError(
        "the network files that come with oiyolo are missing",
        where=str(package / "cfg"),
        remedy="Install oiyolo again",
    )


def network_named(network: str) -> Network | None:
    """Give the network of a name; ``None`` when it is the path of a ``.cfg``.

    Raises:
        UsageError: It is neither.
    """
    if network in NETWORKS:
        return NETWORKS[network]
    if network.endswith(CFG_SUFFIX):
        return None
    near = difflib.get_close_matches(network, NETWORKS, n=1)
    raise UsageError(
        f"there is no network {network!r}",
        expected=f"one of {', '.join(NETWORKS)}, or the path of a .cfg",
        remedy=f"Did you mean {near[0]}?" if near else "",
    )


def stock(network: str) -> Cfg:
    """Give a network as its authors published it, or the user's file as it is.

    Args:
        network: A name in ``NETWORKS``, or the path of a ``.cfg``.

    Raises:
        UsageError: No such name, no such file.
        CfgError: The file is no ``.cfg``.
    """
    named = network_named(network)
    if named is None:
        return read(Path(network))
    if named.name in TEXTS:
        return parse(TEXTS[named.name](), path=f"{named.name}{CFG_SUFFIX}")
    return read(cfg_folder() / f"{named.name}{CFG_SUFFIX}")


def build(
    network: str,
    *,
    class_count: int,
    size_wh: tuple[int, int],
    schedule: Schedule | None = None,
    anchors: Sizes | None = None,
    multi_scale: bool | None = None,
) -> Cfg:
    """Give a network that is ready to train on a dataset.

    Args:
        network: A name in ``NETWORKS``, or the path of a ``.cfg``, which is adapted.
        class_count: Classes of the dataset.
        size_wh: Width and height of the input in pixels, multiples of 32.
        schedule: The course of the training; the network's own when not given.
        anchors: Sizes in pixels at ``size_wh``, shape (k, 2), smallest first; the network's own,
            scaled to ``size_wh`` where that is needed, when not given.
        multi_scale: As ``adapt``.

    Raises:
        UsageError: As ``stock`` and ``adapt``.
        CfgError: As ``stock`` and ``adapt``.
    """
    base = stock(network)
    named = network_named(network)
    if named is not None and anchors is None:
        anchors = _stock_anchors_at(base, named, size_wh)
    elif named is not None and named.name == "yolov4-tiny":
        # Its second head skips the smallest anchor and shares one with the first, a slip that
        # its published weights were trained with. Anchors of our own had better all be used.
        base.layers[-1].set("mask", [0, 1, 2])
    return adapt(
        base,
        class_count=class_count,
        size_wh=size_wh,
        schedule=schedule,
        anchors=anchors,
        multi_scale=multi_scale,
    )


def adapt(
    cfg: Cfg,
    *,
    class_count: int,
    size_wh: tuple[int, int],
    schedule: Schedule | None = None,
    anchors: Sizes | None = None,
    multi_scale: bool | None = None,
) -> Cfg:
    """Give a copy of a network that fits a dataset; comments and everything else stay.

    Changed are classes and the filters before each head, width and height, anchors, schedule, and
    ``random``. ``random=1`` trains at changing sizes. In pjreddie's line those are squares from
    320 to 608 pixels whatever width says, 608 for the last 200 iterations
    (examples/detector.c:63-79): good for a network of such a size, ruinous for a small or oblong
    one. So it is switched off unless ``size_wh`` is a square in that range; a caller with few
    images switches it off too (``multi_scale_suits``).

    Args:
        cfg: The network; not changed.
        class_count: Classes of the dataset.
        size_wh: Width and height of the input in pixels, multiples of 32.
        schedule: The course of the training; the file's own when not given.
        anchors: Sizes in pixels at ``size_wh``, shape (k, 2), as many as the heads share; when
            not given, the file's own, scaled with the input.
        multi_scale: Train at changing sizes, or not; when not given, as the file has it where
            ``size_wh`` allows.

    Raises:
        UsageError: A size that is no multiple of 32, no class, another number of anchors than the
            network has, anchors for a [region] head.
        CfgError: There is no head, or none of the layers that a head needs before it.
    """
    _check_request(class_count, size_wh)
    new = cfg.copy()
    before_wh = new.size_wh
    new.net.set("width", size_wh[0])
    new.net.set("height", size_wh[1])
    for index, head in _heads(new):
        head.set("classes", class_count)
        _layer_before(new, index, head).set("filters", head_channels(head))
    if anchors is not None:
        _set_anchors(new, anchors)
    elif before_wh != size_wh and min(before_wh) > 0:
        scale = np.array(size_wh) / np.array(before_wh)
        for _, head in _heads(new):
            sizes = np.array(head.numbers("anchors")).reshape(-1, 2)
            head.set("anchors", _anchor_text(rounded(sizes * scale)))
    _set_random(new, size_wh, multi_scale)
    return with_schedule(new, schedule) if schedule else new.copy()


def anchors_of(cfg: Cfg) -> Sizes:
    """Give the anchors that a network's heads share.

    Returns:
        Shape (k, 2), pixels at the network's size, in the order of the file.

    Raises:
        CfgError: No head, heads that differ, an odd count, or a [region] head, whose anchors are
            in cells.
    """
    heads = [head for _, head in _heads(cfg)]
    first = heads[0].numbers("anchors")
    for head in heads:
        if head.kind == "region" or head.numbers("anchors") != first or len(first) % 2:
            raise CfgError(
                f"the anchors of this [{head.kind}] cannot be fitted to a dataset",
                path=cfg.path,
                line=head.line_of("anchors"),
                expected="[yolo] heads that all list the same pairs",
                remedy="Keep the anchors as they are, or use one of oiyolo's networks",
            )
    return np.array(first, dtype=np.float64).reshape(-1, 2)


def default_schedule(
    network: str,
    *,
    class_count: int,
    image_count: int,
    max_batches: int | None = None,
    batch: int | None = None,
    subdivisions: int | None = None,
    learning_rate: float | None = None,
    burn_in: int | None = None,
) -> Schedule:
    """Give the schedule for a network on a dataset, with the user's numbers where there are any.

    The demo network has its own, tried out on its own pictures: it is kept, and stretched to
    ``max_batches``. All others follow ``schedule.schedule_for``, with the rate, and in a user's
    file also the batch, that they have.

    Args:
        network: A name in ``NETWORKS``, or the path of a ``.cfg``.
        class_count: Classes of the dataset.
        image_count: Images to train on.
        max_batches: Iterations.
        batch: Images an iteration.
        subdivisions: Parts that a batch is cut into.
        learning_rate: The rate after burn-in.
        burn_in: Iterations in which the rate climbs from 0.

    Raises:
        UsageError: As ``stock`` and ``Schedule``.
        CfgError: As ``stock``.
    """
    named = network_named(network)
    base = stock(network)
    if named is not None and named.name not in TEXTS:
        ruled = schedule_of(base)
    else:
        usual_batch, usual_parts = _usual_batch(base, named)
        ruled = schedule_for(
            class_count,
            image_count,
            batch=usual_batch,
            subdivisions=usual_parts,
            learning_rate=base.net.number("learning_rate", 0.001),
        )
    return overridden(
        ruled,
        max_batches=max_batches,
        batch=batch,
        subdivisions=subdivisions,
        learning_rate=learning_rate,
        burn_in=burn_in,
    )


def multi_scale_suits(size_wh: tuple[int, int], image_count: int) -> bool:
    """Tell whether training at changing sizes does more good than harm.

    It needs a square input of 320 to 608 pixels (see ``adapt``), and images enough that each is
    seen at many sizes within the schedule: below 1,000 the iterations are better spent at the
    size that will be used, at which they also take half the time of those at 608.

    Args:
        size_wh: Width and height of the input in pixels.
        image_count: Images to train on.
    """
    return _multi_scale_possible(size_wh) and image_count >= MULTI_SCALE_MIN_IMAGES


def diff(before: Cfg, after: Cfg) -> str:
    """Give the changes between two networks as a unified diff; empty when there are none."""
    lines = difflib.unified_diff(
        before.render().splitlines(), after.render().splitlines(), before.path, "adapted", "", ""
    )
    return "\n".join(line.rstrip() for line in lines)


def without_mosaic(cfg: Cfg) -> Cfg:
    """Give a copy that does not join pictures into mosaics.

    AlexeyAB's darknet ends at the first batch when ``mosaic=1`` meets a build without OpenCV
    (load_data_detection in src/data.c).
    """
    new = cfg.copy()
    if new.net.has("mosaic"):
        new.net.set("mosaic", 0)
    return new


def _usual_batch(cfg: Cfg, network: Network | None) -> tuple[int, int]:
    """Give batch and subdivisions: a network's own, else those of the user's file."""
    if network is not None:
        return network.batch, network.subdivisions
    batch = cfg.net.integer("batch", 1)
    if batch <= 1:  # left from testing
        return _DEFAULT_BATCH, _DEFAULT_SUBDIVISIONS
    return batch, cfg.net.integer("subdivisions", 1)


def _check_request(class_count: int, size_wh: tuple[int, int]) -> None:
    if class_count < 1:
        raise UsageError("a network needs a class to find", found=f"{class_count} classes")
    if min(size_wh) < GRID_PX or any(side % GRID_PX for side in size_wh):
        near = [max(GRID_PX, round(side / GRID_PX) * GRID_PX) for side in size_wh]
        raise UsageError(
            f"the network cannot have the size {size_wh[0]}x{size_wh[1]}",
            expected=f"multiples of {GRID_PX} pixels",
            remedy=f"Set size_wh = [{near[0]}, {near[1]}]",
        )


def _heads(cfg: Cfg) -> list[tuple[int, Section]]:
    heads = [(i, layer) for i, layer in enumerate(cfg.layers) if layer.kind in HEAD_KINDS]
    if not heads:
        raise CfgError(
            "this network finds no boxes",
            path=cfg.path,
            line=cfg.net.line,
            expected="a [yolo] section",
            remedy="Take the .cfg of a detector, not of a classifier",
        )
    return heads


def _layer_before(cfg: Cfg, index: int, head: Section) -> Section:
    before = cfg.layers[index - 1] if index else cfg.net
    if before.kind != "convolutional":
        raise CfgError(
            f"[{head.kind}] does not stand behind a convolution",
            path=cfg.path,
            line=head.line,
            expected="[convolutional] before it",
            found=f"[{before.kind}]",
        )
    return before


def _set_anchors(cfg: Cfg, anchors: Sizes) -> None:
    for _, head in _heads(cfg):
        num = head.integer("num", 1)
        if head.kind == "region" or len(anchors) != num:
            raise UsageError(
                f"these anchors do not fit the [{head.kind}] of {cfg.path}",
                expected=f"{num} anchors for [yolo] heads",
                found=f"{len(anchors)} anchors for a [{head.kind}] head",
            )
        head.set("anchors", _anchor_text(anchors))


def _anchor_text(anchors: Sizes) -> str:
    return ",  ".join(f"{w:.6g},{h:.6g}" for w, h in anchors.tolist())


def _stock_anchors_at(cfg: Cfg, network: Network, size_wh: tuple[int, int]) -> Sizes:
    """Scale a stock network's anchors to a size outside of what they were made for."""
    low_px, high_px = network.anchors_side_px
    made_for = np.clip(np.array(size_wh), low_px, high_px)
    scale = np.array(size_wh) / made_for
    sizes = anchors_of(cfg)
    return sizes if (scale == 1).all() else rounded(sizes * scale)


def _multi_scale_possible(size_wh: tuple[int, int]) -> bool:
    width, height = size_wh
    return width == height and MULTI_SCALE_MIN_PX <= width <= MULTI_SCALE_MAX_PX


def _set_random(cfg: Cfg, size_wh: tuple[int, int], wanted: bool | None) -> None:
    heads = [head for _, head in _heads(cfg)]
    if wanted is False or (wanted is None and not _multi_scale_possible(size_wh)):
        for head in heads:
            if head.number("random", 0):
                head.set("random", 0)
    elif wanted:
        # Darknet asks the last head only (examples/detector.c:63, src/detector.c).
        heads[-1].set("random", heads[-1].number("random", 0) or 1)
