"""The networks that oiyolo can train, and their adaptation to a dataset.

The module ``stock`` generates the published networks, ``demo`` is a file in ``cfg/``, and a user's
own ``.cfg`` is adapted. ``diff`` shows what an adaptation changed.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo.core.errors import UsageError
from oiyolo.core.packaged import packaged_folder
from oiyolo.networks.anchors import round_anchors
from oiyolo.networks.cfg import parse, read
from oiyolo.networks.layers import (
    GRID_PX,
    head_channels,
    heads_of,
    heads_with_previous,
    size_multiple,
)
from oiyolo.networks.lint import allows_multi_scale, check_own, nearest_multiple
from oiyolo.networks.schedule import (
    MAX_BATCH,
    schedule_for,
    schedule_of,
    with_overrides,
    with_schedule,
)
from oiyolo.networks.stock import TEXTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from typing_extensions import Unpack

    from oiyolo.networks.anchors import Sizes
    from oiyolo.networks.cfg import Cfg, Section
    from oiyolo.networks.lint import ForkName
    from oiyolo.networks.schedule import Schedule, ScheduleOverrides

CFG_SUFFIX = ".cfg"
MULTI_SCALE_MIN_IMAGES = 1000
_DEFAULT_BATCH = 64
_DEFAULT_SUBDIVISIONS = 16
_ALL_FORKS: tuple[ForkName, ...] = ("pjreddie", "alexeyab", "hank")
_V4_FORKS: tuple[ForkName, ...] = ("alexeyab", "hank")


@dataclass(frozen=True)
class Network:
    """A network that ships with oiyolo.

    Attributes:
        name: Value of ``[train] network``.
        pretrained: Name in ``weights.PRETRAINED`` of the initial weights; ``None`` if it is trained
            from scratch.
        forks: Forks of darknet that can train it. The YOLOv4 networks need features that
            pjreddie's lacks: mish, scale_x_y, CIoU loss, and routes with groups.
        size_wh: Default input size in pixels.
        batch: Images per iteration.
        subdivisions: Parts into which a batch is split; memory is needed for one part.
        anchors_side_px: Smallest and largest input side at which the stock anchors are not scaled.
            Their authors fitted them at the first and used them up to the second.
    """

    name: str
    pretrained: str | None
    forks: tuple[ForkName, ...]
    size_wh: tuple[int, int]
    batch: int
    subdivisions: int
    anchors_side_px: tuple[int, int]


_416 = (416, 416)
NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            Network("yolov3", "darknet53.conv.74", _ALL_FORKS, _416, 64, 16, (416, 608)),
            Network("yolov3-tiny", "yolov3-tiny.conv.15", _ALL_FORKS, _416, 64, 4, _416),
            Network("yolov4", "yolov4.conv.137", _V4_FORKS, _416, 64, 16, (512, 608)),
            Network("yolov4-tiny", "yolov4-tiny.conv.29", _V4_FORKS, _416, 64, 4, _416),
            Network("demo", None, _ALL_FORKS, (96, 96), 4, 1, (96, 96)),
        )
    }
)


def cfg_folder() -> Path:
    """Return the folder of network files: in the installed package, else in the checkout.

    Raises:
        UsageError: Neither exists; the installation is broken.
    """
    return packaged_folder("cfg")


def find_network(network: str) -> Network | None:
    """Return the network with a name; ``None`` if ``network`` is the path of a ``.cfg``.

    Raises:
        UsageError: ``network`` is neither.
    """
    if network in NETWORKS:
        return NETWORKS[network]
    if network.endswith(CFG_SUFFIX):
        return None
    close = difflib.get_close_matches(network, NETWORKS, n=1)
    raise UsageError(
        f"unknown network {network!r}",
        expected=f"one of {', '.join(NETWORKS)}, or the path of a .cfg",
        remedy=f"Did you mean {close[0]}?" if close else "",
    )


def stock(network: str) -> Cfg:
    """Return a network as its authors published it, or the user's file unchanged.

    Args:
        network: Name in ``NETWORKS``, or path of a ``.cfg``.

    Raises:
        UsageError: Unknown name, or missing file.
        InputFormError: The file is not a valid ``.cfg``, or has errors (``lint.check_own``).
    """
    published = find_network(network)
    if published is None:
        cfg = read(Path(network))
        check_own(cfg)
        return cfg
    if published.name in TEXTS:
        return parse(TEXTS[published.name](), path=f"{published.name}{CFG_SUFFIX}")
    return read(cfg_folder() / f"{published.name}{CFG_SUFFIX}")


def build(
    network: str,
    *,
    class_count: int,
    size_wh: tuple[int, int],
    schedule: Schedule | None = None,
    anchors: Sizes | None = None,
    multi_scale: bool = True,
) -> Cfg:
    """Return a network (a name in ``NETWORKS``, or the path of a ``.cfg``) adapted to a dataset.

    The parameters are those of ``adapt``; by default the anchors are the network's own, scaled to
    ``size_wh`` if necessary.

    Raises:
        UsageError: As for ``stock`` and ``adapt``.
        CfgError: As for ``stock`` and ``adapt``.
    """
    base = stock(network)
    published = find_network(network)
    if published is not None and anchors is None:
        anchors = _scaled_stock_anchors(base, published, size_wh)
    elif published is not None and published.name == "yolov4-tiny":
        # Its second head skips the smallest anchor and shares one with the first: a mistake, but
        # the published weights were trained with it. Other anchors should all be used.
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
    multi_scale: bool = True,
) -> Cfg:
    """Return a copy of a network that fits a dataset; comments and other options are preserved.

    The copy has other classes, filters before each head, width and height, anchors, schedule and
    ``random``. ``random=1`` trains at varying sizes. In pjreddie's fork these are squares from 320
    to 608 pixels whatever the width, and 608 for the last 200 iterations
    (examples/detector.c:63-79). That suits a network of such a size, but ruins a small or oblong
    one, so it is disabled unless ``size_wh`` is a square in that range and the network can have any
    multiple of 32. Callers with few images should disable it too (``suits_multi_scale``).

    Args:
        cfg: The network; not modified.
        class_count: Number of classes in the dataset.
        size_wh: Width and height of the input in pixels, multiples of
            ``layers.size_multiple(cfg)``.
        schedule: Training schedule; by default the file's own.
        anchors: Sizes in pixels at ``size_wh``, shape (k, 2), with k as in the heads; by default
            the file's own, scaled with the input.
        multi_scale: Whether to train at varying sizes if the file says so and ``size_wh`` allows
            it.

    Raises:
        UsageError: A size that the network cannot have, no class, a number of anchors that
            differs from the network's, or anchors for a [region] head.
        CfgError: The network has no head, a head does not follow a convolution, or its anchors
            are not pairs.
    """
    multiple = size_multiple(cfg)
    _check_arguments(cfg, class_count, size_wh, multiple)
    new = cfg.copy()
    old_wh = new.size_wh
    new.net.set("width", size_wh[0])
    new.net.set("height", size_wh[1])
    heads = _heads(new)
    for before, head in heads_with_previous(new):
        if before.kind != "convolutional":
            raise head.error(
                f"[{head.kind}] does not follow a convolution",
                expected="[convolutional] before it",
                found=f"[{before.kind}]",
            )
        head.set("classes", class_count)
        before.set("filters", head_channels(head))
    if anchors is not None:
        _set_anchors(new, anchors)
    elif old_wh != size_wh and min(old_wh) > 0:
        for head in heads:
            _scale_anchors(head, np.array(size_wh) / np.array(old_wh))
    if not (multi_scale and allows_multi_scale(size_wh) and multiple == GRID_PX):
        _disable_multi_scale(new)
    return with_schedule(new, schedule) if schedule else new


def anchors_of(cfg: Cfg) -> Sizes:
    """Return the anchors that the heads of a network share.

    Returns:
        Shape (k, 2), in pixels at network size, in the order of the file.

    Raises:
        CfgError: No head, heads with different anchors, an odd count of numbers, or a [region]
            head, whose anchors are in cells.
    """
    heads = _heads(cfg)
    first = heads[0].numbers("anchors")
    for head in heads:
        if head.kind == "region" or head.numbers("anchors") != first or len(first) % 2:
            raise head.error(
                f"the anchors of this [{head.kind}] cannot be fitted to a dataset",
                "anchors",
                expected="[yolo] heads that all list the same anchors",
                remedy="Keep the anchors as they are, or use one of oiyolo's networks",
            )
    return np.array(first, dtype=np.float64).reshape(-1, 2)


def network_path(network: str, base: Path) -> str:
    """Return ``[train] network`` as the functions here take it: a name, or an absolute path.

    Args:
        network: A network's name, or the path of a ``.cfg``.
        base: Folder that a relative path starts from.
    """
    return str(base / Path(network).expanduser()) if network.endswith(CFG_SUFFIX) else network


def default_schedule(
    network: str,
    *,
    class_count: int,
    image_count: int,
    **overrides: Unpack[ScheduleOverrides],
) -> Schedule:
    """Return the schedule for a network on a dataset, with the user's overrides.

    The demo network keeps its own schedule, which was tuned on the demo images, scaled to
    ``max_batches``. All other networks follow ``schedule.schedule_for``, with the learning rate of
    their file; a user's file also keeps its batch size.

    Args:
        network: Name in ``NETWORKS``, or path of a ``.cfg``.
        class_count: Number of classes in the dataset.
        image_count: Number of training images.
        **overrides: The values that the user set, as for ``schedule.with_overrides``.

    Raises:
        UsageError: As for ``stock`` and ``Schedule``.
        CfgError: As for ``stock``.
    """
    published = find_network(network)
    base = stock(network)
    if published is not None and published.name not in TEXTS:
        return with_overrides(schedule_of(base), **overrides)
    if published is not None:
        batch, subdivisions = published.batch, published.subdivisions
    else:
        batch, subdivisions = _own_batch(base.net, overrides)
    schedule = schedule_for(
        class_count,
        image_count,
        batch=batch,
        subdivisions=subdivisions,
        learning_rate=_own_learning_rate(base.net, overrides),
    )
    return with_overrides(schedule, **overrides)


def suits_multi_scale(size_wh: tuple[int, int], image_count: int) -> bool:
    """Return whether training at varying sizes helps.

    It needs a square input of 320 to 608 pixels (see ``adapt``) and at least 1,000 images. With
    fewer, the iterations are better spent at the final size, where they also take half the time
    of those at 608.

    Args:
        size_wh: Width and height of the input in pixels.
        image_count: Number of training images.
    """
    return allows_multi_scale(size_wh) and image_count >= MULTI_SCALE_MIN_IMAGES


class CfgChange(NamedTuple):
    """An option of a network file that differs.

    Attributes:
        section: The section: "[net]", or with its layers, "[yolo] of layers 82, 94, 106".
        key: The option.
        before: Its value before, lists with blanks; empty if it was not set.
        after: Its value after, likewise; empty if it is not set any more.
    """

    section: str
    key: str
    before: str
    after: str


def changes(before: Cfg, after: Cfg) -> list[CfgChange]:
    """Return the options that differ between two networks with the same sections.

    A change that is the same in several layers is one item.
    """
    layers: dict[CfgChange, list[str]] = {}
    for number, (old, new) in enumerate(zip(before.sections, after.sections, strict=True), -1):
        for key in dict.fromkeys((*old.option_keys(), *new.option_keys())):
            values = (section.text(key).replace(",", ", ") for section in (old, new))
            change = CfgChange(f"[{new.kind}]", key, *values)
            if change.before != change.after:
                layers.setdefault(change, []).extend([str(number)] * (number >= 0))
    return [
        change._replace(section=f"{change.section}{_of_layers(numbers)}")
        for change, numbers in layers.items()
    ]


def _of_layers(numbers: Sequence[str]) -> str:
    return f" of layer{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else ""


def diff(before: Cfg, after: Cfg) -> str:
    """Return the changes between two networks as a unified diff; empty without changes."""
    lines = difflib.unified_diff(
        before.render().splitlines(), after.render().splitlines(), before.path, "adapted", "", ""
    )
    return "\n".join(line.rstrip() for line in lines)


def without_mosaic(cfg: Cfg) -> Cfg:
    """Return a copy with mosaic augmentation disabled.

    With ``mosaic=1`` AlexeyAB's darknet exits at the first batch if it is built without OpenCV
    (load_data_detection in src/data.c).
    """
    new = cfg.copy()
    if new.net.has("mosaic"):
        new.net.set("mosaic", 0)
    return new


def _own_batch(net: Section, overrides: ScheduleOverrides) -> tuple[int, int]:
    """Return the batch and the subdivisions of a file; raise if its own are used but invalid."""
    batch, subdivisions = net.integer("batch", 1), net.integer("subdivisions", 1)
    if batch <= 1:  # a setting for testing
        return _DEFAULT_BATCH, _DEFAULT_SUBDIVISIONS
    if batch > MAX_BATCH:
        raise net.error(f"batch={batch} is too large", "batch", expected=f"up to {MAX_BATCH:,}")
    if overrides.get("subdivisions") is not None:
        return batch, 1
    if subdivisions < 1 or batch % subdivisions:
        raise net.error(
            f"subdivisions={subdivisions} does not divide batch={batch}",
            "subdivisions",
            remedy="Correct the line, or set [train] subdivisions to a divisor of the batch",
        )
    return batch, subdivisions


def _own_learning_rate(net: Section, overrides: ScheduleOverrides) -> float:
    """Return the learning rate of a file; raise if it is used but invalid."""
    rate = overrides.get("learning_rate")
    if rate is not None:
        return rate
    rate = net.number("learning_rate", 0.001)
    if not rate > 0:
        raise net.error(
            f"a network cannot learn with learning_rate={rate:g}",
            "learning_rate",
            remedy="Correct the line, or set [train] learning_rate, for example to 0.001",
        )
    return rate


def _check_arguments(cfg: Cfg, class_count: int, size_wh: tuple[int, int], multiple: int) -> None:
    if class_count < 1:
        raise UsageError("a network needs at least one class", found=f"{class_count} classes")
    if min(size_wh) < multiple or any(side % multiple for side in size_wh):
        width, height = (nearest_multiple(side, multiple) for side in size_wh)
        raise UsageError(
            f"invalid network size {size_wh[0]}x{size_wh[1]}",
            where=cfg.path,
            expected=f"multiples of {multiple} pixels, which this network needs",
            remedy=f"Set [train] size_wh = [{width}, {height}] (--size-wh {width}x{height})",
        )


def _heads(cfg: Cfg) -> list[Section]:
    heads = heads_of(cfg)
    if not heads:
        raise cfg.net.error(
            "this network does not detect boxes",
            expected="a [yolo] section",
            remedy="Use the .cfg of a detector, not of a classifier",
        )
    return heads


def _set_anchors(cfg: Cfg, anchors: Sizes) -> None:
    for head in _heads(cfg):
        num = head.integer("num", 1)
        if head.kind == "region" or len(anchors) != num:
            raise UsageError(
                f"these anchors do not fit [{head.kind}] in {cfg.path}",
                expected=f"{num} anchors for [yolo] heads",
                found=f"{len(anchors)} anchors for a [{head.kind}] head",
            )
        head.set("anchors", _format_anchors(anchors))


def _scale_anchors(head: Section, scale: npt.NDArray[np.float64]) -> None:
    numbers = head.numbers("anchors")
    if len(numbers) % 2:
        raise head.error(
            f"anchors of [{head.kind}] are not pairs of width and height",
            "anchors",
            found=f"{len(numbers)} numbers",
        )
    if not numbers:  # darknet's default for [region], half a cell, does not depend on the size
        return
    sizes = np.array(numbers).reshape(-1, 2) * scale
    # Those of [region] are in cells and often below 1, so they are not rounded as pixels are.
    head.set("anchors", _format_anchors(sizes if head.kind == "region" else round_anchors(sizes)))


def _format_anchors(anchors: Sizes) -> str:
    return ",  ".join(f"{w:.6g},{h:.6g}" for w, h in anchors.tolist())


def _scaled_stock_anchors(cfg: Cfg, network: Network, size_wh: tuple[int, int]) -> Sizes:
    """Return a stock network's anchors, scaled if the size is outside their range."""
    low_px, high_px = network.anchors_side_px
    fitted_wh = np.clip(np.array(size_wh), low_px, high_px)
    scale = np.array(size_wh) / fitted_wh
    sizes = anchors_of(cfg)
    return sizes if (scale == 1).all() else round_anchors(sizes * scale)


def _disable_multi_scale(cfg: Cfg) -> None:
    for head in _heads(cfg):
        if head.number("random", 0):
            head.set("random", 0)
