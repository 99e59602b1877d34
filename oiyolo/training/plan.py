"""What a training will be: the network fitted to the dataset and the machine, and why so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from oiyolo.core import staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import count
from oiyolo.networks import builders, lint, memory
from oiyolo.networks.anchors import AnchorChoice, choose
from oiyolo.networks.cfg import CfgError
from oiyolo.networks.partial import pretrained_for
from oiyolo.networks.schedule import (
    ITERATIONS_PER_CLASS,
    MIN_ITERATIONS,
    for_gpus,
    schedule_of,
    with_schedule,
)
from oiyolo.project.value_types import AUTO
from oiyolo.training.initial_weights import NO_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from oiyolo.darknet.gpus import Gpu
    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.schedule import Schedule
    from oiyolo.project.keys import TrainOptions

__all__ = ["NO_WEIGHTS", "Course", "identity_of", "plan"]

_GIB: Final = 1 << 30
_OF_THE_MACHINE: Final = ("subdivisions", "mosaic")
"""Options of [net] that say how a machine trains, and not what is trained."""


@dataclass(frozen=True)
class Course:
    """What a training will be.

    Attributes:
        network: A plain name for it.
        stock: The network before it was fitted to the dataset.
        cfg: The network that is trained.
        anchors: How its anchors were chosen.
        weights: "none", the name of pretrained weights, or a path.
        warnings: What the linter finds odd but not wrong.
        identity: The same for trainings of which one can go on with the other, on whatever machine.
        reasons: Why each number is what it is, a sentence each without its full stop.
    """

    network: str
    stock: Cfg
    cfg: Cfg
    anchors: AnchorChoice
    weights: str
    warnings: tuple[str, ...]
    identity: str
    reasons: tuple[str, ...] = ()

    @property
    def schedule(self) -> Schedule:
        """The schedule that stands in the network's file."""
        return schedule_of(self.cfg)

    @property
    def diff(self) -> str:
        """What was changed in the network, as a unified diff; empty where nothing was."""
        return builders.diff(self.stock, self.cfg)

    @property
    def told(self) -> str:
        """The course in a line."""
        schedule = self.schedule
        width, height = self.cfg.size_wh
        return (
            f"{self.network} at {width}x{height}, {schedule.max_batches:,} iterations of "
            f"{schedule.batch} images; {self.anchors.told}"
        )


def identity_of(cfg: Cfg) -> str:
    """Give what tells a network and its schedule from others, however its file is written.

    Left out is what only suits a machine: how often a batch is cut, and mosaics, which a darknet
    without OpenCV cannot make.
    """
    bare = cfg.copy()
    for key in _OF_THE_MACHINE:
        bare.net.unset(key)
    # As ASCII, because bytes that are no UTF-8 are kept as they are.
    return staleness.fingerprint(json.dumps(bare.meaning()))


def plan(
    options: TrainOptions,
    *,
    base: Path,
    darknet: Darknet,
    class_count: int,
    image_count: int,
    images_size_wh: tuple[int, int],
    box_wh: npt.NDArray[np.float64],
    gpus: Sequence[Gpu] = (),
) -> Course:
    """Fit the configured network to a dataset and a machine; changes nothing on the disk.

    Args:
        options: ``[train]``.
        base: Relative paths in the options lie below it.
        darknet: What will train it.
        class_count: Classes of the dataset.
        image_count: Images to train on.
        images_size_wh: Size of the prepared images in pixels.
        box_wh: Widths and heights of the training boxes, fractions of the image, shape (n, 2).
        gpus: The GPUs of this machine.

    Raises:
        UsageError: No such network, or one that this line of darknet cannot train; numbers that
            do not go together.
        InputFormError: The user's network file is not in order; the message has the line.
    """
    network = options.network
    if network.endswith(builders.CFG_SUFFIX):
        network = str(base / Path(network).expanduser())
    named = builders.network_named(network)
    if named is not None and darknet.line.name not in named.lines:
        raise UsageError(
            f"{darknet.line.title} cannot train {named.name}",
            where=str(darknet.executable),
            expected=f"one of the lines {', '.join(named.lines)}",
            remedy="Choose yolov3 or yolov3-tiny, or build AlexeyAB's darknet",
        )
    size_wh = images_size_wh if isinstance(options.size_wh, str) else options.size_wh
    fitted = builders.build(network, class_count=class_count, size_wh=size_wh)
    choice = _anchors(options, fitted, box_wh * size_wh)
    schedule = builders.default_schedule(
        network,
        class_count=class_count,
        image_count=image_count,
        max_batches=_whole(options.max_batches),
        batch=_whole(options.batch),
        subdivisions=_whole(options.subdivisions),
        learning_rate=_number(options.learning_rate),
        burn_in=_whole(options.burn_in),
    )
    cfg = builders.build(
        network,
        class_count=class_count,
        size_wh=size_wh,
        schedule=schedule,
        anchors=None if choice.used == "stock" else choice.anchors,
        multi_scale=None if builders.multi_scale_suits(size_wh, image_count) else False,
    )
    here, reasons_here = _for_machine(cfg, options, darknet, gpus)
    findings = lint.check(here, class_count=class_count, line=darknet.line.name)
    weights = options.weights
    if weights == AUTO:
        weights = (named.pretrained if named else pretrained_for(cfg)) or NO_WEIGHTS
    stock = builders.stock(network)
    return Course(
        network=Path(network).stem,
        stock=stock,
        cfg=here,
        anchors=choice,
        weights=weights,
        warnings=tuple(str(finding) for finding in findings),
        identity=identity_of(cfg),
        reasons=(
            _why_so_long(options, schedule, class_count, image_count, stock),
            *_why_this_rate(options, schedule),
            f"{choice.told}: {choice.why}",
            *_why_one_size(stock, cfg, image_count),
            *reasons_here,
            *_why_these_weights(options, weights, is_named=named is not None),
        ),
    )


def _anchors(options: TrainOptions, fitted: Cfg, box_wh: npt.NDArray[np.float64]) -> AnchorChoice:
    """Choose anchors; those of a network whose heads do not share any stay as they are."""
    asked = options.anchors
    wanted: Literal["auto", "own", "stock"] | npt.NDArray[np.float64]
    if isinstance(asked, tuple):
        wanted = np.array(asked, dtype=np.float64).reshape(-1, 2)
    else:
        wanted = "own" if asked == "own" else "stock" if asked == "stock" else "auto"
    try:
        stock = builders.anchors_of(fitted)
    except CfgError as error:
        if asked not in {AUTO, "stock"}:
            raise
        nan = float("nan")
        return AnchorChoice(np.empty((0, 2)), nan, nan, "stock", error.what)
    return choose(box_wh, stock, wanted=wanted)


def _for_machine(
    cfg: Cfg, options: TrainOptions, darknet: Darknet, gpus: Sequence[Gpu]
) -> tuple[Cfg, list[str]]:
    """Fit a network to what will train it: memory, number of GPUs, what darknet was built with."""
    reasons = []
    schedule = schedule_of(cfg)
    if not darknet.gpu:
        cfg = builders.without_mosaic(cfg)
    used = _used(options.gpus, gpus) if darknet.gpu else []
    gpu_count = len(_indices(options.gpus))
    if darknet.gpu and gpu_count > 1:
        schedule = for_gpus(
            schedule,
            gpu_count,
            keep_learning_rate=_number(options.learning_rate) is not None,
            keep_burn_in=_whole(options.burn_in) is not None,
        )
        reasons.append(
            f"learning_rate={schedule.learning_rate:g} and burn_in={schedule.burn_in} for "
            f"{gpu_count} GPUs: darknet multiplies the rate by their number, and counts an "
            "iteration for each"
        )
        cfg = with_schedule(cfg, schedule)
    if used:
        cfg, why = _fitting(cfg, options, darknet, used)
        reasons.append(why)
    return cfg, reasons


def _fitting(
    cfg: Cfg, options: TrainOptions, darknet: Darknet, used: Sequence[Gpu]
) -> tuple[Cfg, str]:
    """Cut batches so that they fit into the memory that is free, unless the user said how."""
    line = darknet.line.name
    smallest = min(used, key=lambda gpu: gpu.free_bytes)
    parts = _whole(options.subdivisions) or memory.choose_subdivisions(
        cfg, free_bytes=smallest.free_bytes, line=line, cudnn=darknet.cudnn
    )
    new = cfg.copy()
    new.net.set("subdivisions", parts)
    needed = memory.need(new, line=line, cudnn=darknet.cudnn)
    images = new.net.integer("batch", 1) // parts
    width, height = needed.size_wh
    why = (
        f"subdivisions={parts}: {count(images, 'image')} at once of {width}x{height}, the largest "
        f"size it trains at, take {needed.bytes_for(images) / _GIB:.1f} GiB of the "
        f"{smallest.free_bytes / _GIB:.1f} that are free on GPU {smallest.index} ({smallest.name})"
    )
    return new, why


def _indices(gpus: str | None) -> list[int]:
    """Read "0,1"; darknet's own choice without it is the first."""
    numbers = [part.strip() for part in (gpus or "0").split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(
            "these are no numbers of GPUs",
            where="[train] gpus",
            expected='such as "0" or "0,1"',
            found=repr(gpus),
        )
    return [int(number) for number in dict.fromkeys(numbers)]


def _used(asked: str | None, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Give the GPUs that will train; none where the driver does not tell of any.

    Raises:
        UsageError: One that was asked for is not there.
    """
    by_index = {gpu.index: gpu for gpu in gpus}
    indices = _indices(asked)
    missing = [index for index in indices if index not in by_index]
    if gpus and missing and asked is not None:
        raise UsageError(
            f"there is no GPU {missing[0]}",
            where="[train] gpus",
            expected=", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus),
            found=asked,
        )
    return [by_index[index] for index in indices if index in by_index]


def _why_so_long(
    options: TrainOptions, schedule: Schedule, class_count: int, image_count: int, stock: Cfg
) -> str:
    iterations = schedule.max_batches
    steps = " and ".join(f"{step:,}" for step in schedule.steps)
    parts = f"max_batches={iterations}, steps at {steps}" if steps else f"max_batches={iterations}"
    if _whole(options.max_batches) is not None:
        return f"{parts}: as [train] max_batches says"
    if stock.net.integer("max_batches", 0) == iterations:
        return f"{parts}: as the network's own file has it"
    return (
        f"{parts}: the most of {MIN_ITERATIONS:,}, {ITERATIONS_PER_CLASS:,} for each of "
        f"{count(class_count, 'class')} and one for each of "
        f"{count(image_count, 'image')}"
    )


def _why_this_rate(options: TrainOptions, schedule: Schedule) -> list[str]:
    said = [
        f"{key}={getattr(schedule, key):g}: as [train] {key} says"
        for key in ("learning_rate", "burn_in")
        if getattr(options, key) != AUTO
    ]
    if options.burn_in == AUTO:
        said.append(f"burn_in={schedule.burn_in}: a small part of the whole, 1,000 at most")
    return said


def _why_one_size(stock: Cfg, cfg: Cfg, image_count: int) -> list[str]:
    """Tell why ``random`` was switched off, where it was."""
    was, now = (net.layers[-1].number("random", 0) for net in (stock, cfg))
    if not was or now:
        return []
    width, height = cfg.size_wh
    why = (
        f"random=0: changing sizes are for squares of {lint.MULTI_SCALE_MIN_PX} to "
        f"{lint.MULTI_SCALE_MAX_PX} pixels and {builders.MULTI_SCALE_MIN_IMAGES:,} images or more, "
        f"not for {width}x{height} and {count(image_count, 'image')}"
    )
    return [why]


def _why_these_weights(options: TrainOptions, weights: str, *, is_named: bool) -> list[str]:
    if options.weights != AUTO or is_named or weights == NO_WEIGHTS:
        return []
    return [f"weights={weights}: the first layers of the file are those that they fill"]


def _whole(value: int | str) -> int | None:
    return value if isinstance(value, int) else None


def _number(value: float | str) -> float | None:
    return None if isinstance(value, str) else float(value)
