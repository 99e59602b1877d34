"""Plan a run: fit the network to the dataset and the machine, and record why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import numpy as np

from oiyolo.core import staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import pluralize
from oiyolo.networks import builders, lint, memory
from oiyolo.networks.anchors import AnchorChoice, choose_anchors
from oiyolo.networks.cfg import CfgError
from oiyolo.networks.layers import GRID_PX, size_multiple
from oiyolo.networks.partial import pretrained_for
from oiyolo.networks.schedule import (
    ITERATIONS_PER_CLASS,
    MIN_ITERATIONS,
    for_gpus,
    parts_on_gpus,
    schedule_of,
    with_schedule,
)
from oiyolo.networks.torch_limits import check_trainable
from oiyolo.project.value_types import AUTO
from oiyolo.training.initial_weights import NO_WEIGHTS, find_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from oiyolo.darknet.gpus import Gpu
    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.anchors import AnchorPreference
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.schedule import Schedule
    from oiyolo.project.keys import TrainOptions

Number = TypeVar("Number", int, float)

_GIB: Final = 1 << 30
_MACHINE_OPTIONS: Final = ("subdivisions", "mosaic")
"""Options of [net] that depend on the machine and not on what is trained."""


_SIZE: Final = "the size of the prepared images; it must be a multiple of the network's stride"
_LATER: Final = "the learning rate falls when 80 % and 90 % of the iterations are done"
_WHY: Final = {
    "width": _SIZE,
    "height": _SIZE,
    "batch": "images per iteration; with few, a step is fast but its direction is noisy",
    "subdivisions": "parts into which a batch is split; more parts need less memory",
    "max_batches": "the number of iterations: 2,000 per class, at least 6,000 and one per image",
    "steps": _LATER,
    "scales": _LATER,
    "learning_rate": "how far one step changes the weights; divided among several GPUs",
    "burn_in": "iterations in which the learning rate rises from 0; a small part of all iterations",
    "filters": "(classes + 5) for each anchor of the head: the scores, four corners, objectness",
    "classes": "the number of lines in obj.names",
    "anchors": "typical sizes of the boxes, in pixels; the network predicts how boxes differ",
    "random": "1 trains at several input sizes; needs many large square images",
    "mosaic": "1 joins four images into one; needs a darknet built with OpenCV",
    "max": "the number of boxes per image that darknet reads",
}
"""Why the options of a network file are changed, for readers of a plan."""


@dataclass(frozen=True)
class TrainingPlan:
    """The network, schedule and initial weights of a run.

    Attributes:
        network: The network's name: a stock network, or the stem of the user's file.
        stock: The network before it was fitted to the dataset.
        cfg: The network to train.
        anchors: The chosen anchors and the figures behind the choice.
        weights: "none", the name of pretrained weights, or an absolute path.
        warnings: The linter's warnings about the network, each with file and line.
        identity: Fingerprint of network and schedule, equal on all machines: a run can be resumed
            if it has the same identity.
        reasons: Why each number has its value, one sentence each without a full stop.
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
        """The schedule in the network file."""
        return schedule_of(self.cfg)

    @property
    def diff(self) -> str:
        """The changes to the stock network as a unified diff; empty if there are none."""
        return builders.diff(self.stock, self.cfg)

    @property
    def changes(self) -> list[dict[str, str]]:
        """The changed options of the stock network, each with the reason for its value."""
        return [
            {**change._asdict(), "why": _WHY.get(change.key, "set by an option of [train]")}
            for change in builders.changes(self.stock, self.cfg)
        ]

    @property
    def summary(self) -> str:
        """The plan in one line."""
        schedule = self.schedule
        width, height = self.cfg.size_wh
        return (
            f"{self.network} at {width}x{height}, {schedule.max_batches:,} iterations of "
            f"{schedule.batch} images; {self.anchors.summary}"
        )


def identity_of(cfg: Cfg) -> str:
    """Return a fingerprint of a network and its schedule that ignores how the file is formatted.

    It also ignores the options that depend on the machine: subdivisions, and mosaic, which a
    darknet without OpenCV does not support.
    """
    bare = cfg.copy()
    for key in _MACHINE_OPTIONS:
        bare.net.unset(key)
    # As ASCII, because bytes that are not UTF-8 are kept as surrogates.
    return staleness.fingerprint(json.dumps(bare.canonical()))


def make_plan(
    options: TrainOptions,
    *,
    base: Path,
    darknet: Darknet,
    class_count: int,
    image_count: int,
    images_size_wh: tuple[int, int],
    box_wh: npt.NDArray[np.float64],
    gpus: Sequence[Gpu] = (),
) -> TrainingPlan:
    """Return the plan for the configured network, a dataset and a machine, without writing files.

    Args:
        options: ``[train]``.
        base: The folder that relative paths in the options start from.
        darknet: The program that will train the network.
        class_count: Number of classes in the dataset.
        image_count: Number of images to train on.
        images_size_wh: Size of the prepared images in pixels.
        box_wh: Widths and heights of the training boxes, fractions of the image, shape (n, 2).
        gpus: The GPUs of this machine.

    Raises:
        UsageError: There is no such network or GPU, this fork of darknet cannot train the network,
            or options contradict each other.
        InputFormError: The user's network file is invalid, or has something that the engine does
            not support; the message has the line.
    """
    network = options.network
    network = builders.network_path(network, base)
    named = builders.find_network(network)
    if named is not None and darknet.fork.name not in named.forks:
        raise UsageError(
            f"{darknet.fork.title} cannot train {named.name}",
            where=str(darknet.executable),
            expected=f"one of the forks {', '.join(named.forks)}",
            remedy="Choose yolov3 or yolov3-tiny, or build AlexeyAB's darknet",
        )
    if options.batch == 1:
        raise UsageError(
            "batch = 1 is a setting for testing, with which darknet does not learn",
            where="[train] batch",
            remedy="Set a larger batch; to save memory, set [train] subdivisions instead",
        )
    size_wh = images_size_wh if isinstance(options.size_wh, str) else options.size_wh
    fitted = builders.build(network, class_count=class_count, size_wh=size_wh)
    choice = _anchors(options, fitted, box_wh * size_wh)
    schedule = builders.default_schedule(
        network,
        class_count=class_count,
        image_count=image_count,
        max_batches=_unless_auto(options.max_batches),
        batch=_unless_auto(options.batch),
        subdivisions=_unless_auto(options.subdivisions),
        learning_rate=_unless_auto(options.learning_rate),
        burn_in=_unless_auto(options.burn_in),
    )
    cfg = builders.build(
        network,
        class_count=class_count,
        size_wh=size_wh,
        schedule=schedule,
        anchors=None if choice.source == "stock" else choice.anchors,
        multi_scale=builders.suits_multi_scale(size_wh, image_count),
    )
    adapted, machine_reasons = _adapt_to_machine(cfg, options, darknet, gpus)
    stock = builders.stock(network)
    is_darknet = darknet.engine == "darknet"
    # An adaptation may hide what is odd in the file, such as filters copied from its head.
    findings = dict.fromkeys(
        [
            *lint.check_own(stock),
            *lint.check(
                adapted, class_count=class_count, fork=darknet.fork.name, is_darknet=is_darknet
            ),
        ]
    )
    if not is_darknet:
        check_trainable(adapted, darknet.fork.name)
    weights = options.weights
    if weights == AUTO:
        weights = (named.pretrained if named else pretrained_for(cfg)) or NO_WEIGHTS
    weights = str(find_file(weights, base) or weights)
    return TrainingPlan(
        network=Path(network).stem,
        stock=stock,
        cfg=adapted,
        anchors=choice,
        weights=weights,
        warnings=tuple(f"{adapted.path}, {finding}" for finding in findings),
        identity=identity_of(cfg),
        reasons=(
            _max_batches_reason(options, schedule, class_count, image_count, stock),
            *_rate_reasons(options, schedule),
            f"{choice.summary}: {choice.reason}",
            *_multi_scale_reasons(stock, cfg, image_count),
            *machine_reasons,
            *_weights_reasons(options, weights, is_named=named is not None),
        ),
    )


def _anchors(options: TrainOptions, fitted: Cfg, box_wh: npt.NDArray[np.float64]) -> AnchorChoice:
    """Return the chosen anchors; a network whose heads do not share anchors keeps its own."""
    option = options.anchors
    try:
        stock = builders.anchors_of(fitted)
    except CfgError as error:
        if option not in {AUTO, "stock"}:
            raise
        nan = float("nan")
        return AnchorChoice(np.empty((0, 2)), nan, nan, "stock", error.what)
    if isinstance(option, tuple):
        configured = np.array(option, dtype=np.float64).reshape(-1, 2)
        return choose_anchors(box_wh, stock, preference=configured)
    return choose_anchors(box_wh, stock, preference=cast("AnchorPreference", option))


def _adapt_to_machine(
    cfg: Cfg, options: TrainOptions, darknet: Darknet, gpus: Sequence[Gpu]
) -> tuple[Cfg, list[str]]:
    """Return a network adapted to GPU memory, GPU count and darknet's build, with the reasons."""
    gpu_count = len(gpu_indices(options.gpus))
    if not darknet.gpu:
        return (builders.without_mosaic(cfg) if darknet.engine == "darknet" else cfg), []
    reasons = []
    selected = _selected_gpus(options.gpus, gpus)
    if gpu_count > 1 and darknet.engine == "darknet":
        schedule = for_gpus(
            schedule_of(cfg),
            gpu_count,
            keep_learning_rate=options.learning_rate != AUTO,
            keep_burn_in=options.burn_in != AUTO,
        )
        reasons.append(
            f"learning_rate={schedule.learning_rate:g} and burn_in={schedule.burn_in} for "
            f"{gpu_count} GPUs: darknet multiplies the rate by their number, and counts one "
            "iteration per GPU"
        )
        cfg = with_schedule(cfg, schedule)
    if selected:
        cfg, why = _fit_to_memory(cfg, options, darknet, selected)
        reasons.append(why)
    if gpu_count > 1 and darknet.engine == "torch":
        cfg, why = _divide_among(cfg, gpu_count)
        reasons.append(why)
    return cfg, reasons


def _divide_among(cfg: Cfg, gpu_count: int) -> tuple[Cfg, str]:
    """Return a network whose batch several GPUs share, as the torch engine trains it."""
    new = cfg.copy()
    batch, subdivisions = (cfg.net.integer(key, 1) for key in ("batch", "subdivisions"))
    parts = parts_on_gpus(batch, subdivisions, gpu_count)
    new.net.set("subdivisions", parts)
    why = (
        f"subdivisions={parts} for {gpu_count} GPUs, which share a batch: each computes "
        f"{parts // gpu_count} of {pluralize(batch // parts, 'image')}"
    )
    return new, why


def _fit_to_memory(
    cfg: Cfg, options: TrainOptions, darknet: Darknet, selected: Sequence[Gpu]
) -> tuple[Cfg, str]:
    """Return a network whose subdivisions fit into the free GPU memory, or that the user set."""
    fork, torch = darknet.fork.name, darknet.engine == "torch"
    smallest = min(selected, key=lambda gpu: gpu.free_bytes)
    subdivisions = _unless_auto(options.subdivisions) or memory.choose_subdivisions(
        cfg, free_bytes=smallest.free_bytes, fork=fork, cudnn=darknet.cudnn, torch=torch
    )
    new = cfg.copy()
    new.net.set("subdivisions", subdivisions)
    needed = memory.estimate_memory(new, fork=fork, cudnn=darknet.cudnn, torch=torch)
    images = new.net.integer("batch", 1) // subdivisions
    width, height = needed.size_wh
    why = (
        f"subdivisions={subdivisions}: {pluralize(images, 'image')} at once of "
        f"{width}x{height}, the largest training size, take "
        f"{needed.bytes_for(images) / _GIB:.1f} GiB of the "
        f"{smallest.free_bytes / _GIB:.1f} GiB free on GPU {smallest.index} ({smallest.name})"
    )
    return new, why


def gpu_indices(gpus: str | None) -> list[int]:
    """Return the GPU indices in "0,1"; the first GPU if ``None``, which is darknet's default.

    Raises:
        UsageError: It is not such a list.
    """
    numbers = [part.strip() for part in (gpus or "0").split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(
            "not a list of GPU numbers",
            where="[train] gpus",
            expected='such as "0" or "0,1"',
            found=repr(gpus),
        )
    return [int(number) for number in dict.fromkeys(numbers)]


def _selected_gpus(option: str | None, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs to train on; empty if the driver reports no GPUs.

    Raises:
        UsageError: A GPU in the option does not exist.
    """
    by_index = {gpu.index: gpu for gpu in gpus}
    indices = gpu_indices(option)
    missing = [index for index in indices if index not in by_index]
    if gpus and missing and option is not None:
        raise UsageError(
            f"there is no GPU {missing[0]}",
            where="[train] gpus",
            expected=", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus),
            found=option,
        )
    return [by_index[index] for index in indices if index in by_index]


def _max_batches_reason(
    options: TrainOptions, schedule: Schedule, class_count: int, image_count: int, stock: Cfg
) -> str:
    iterations = schedule.max_batches
    steps = " and ".join(f"{step:,}" for step in schedule.steps)
    parts = f"max_batches={iterations}, steps at {steps}" if steps else f"max_batches={iterations}"
    if options.max_batches != AUTO:
        return f"{parts}: set by [train] max_batches"
    if stock.net.integer("max_batches", 0) == iterations:
        return f"{parts}: as in the network's own file"
    return (
        f"{parts}: the largest of {MIN_ITERATIONS:,}, {ITERATIONS_PER_CLASS:,} per class "
        f"({pluralize(class_count, 'class')}) and 1 per image "
        f"({pluralize(image_count, 'image')})"
    )


def _rate_reasons(options: TrainOptions, schedule: Schedule) -> list[str]:
    reasons = [
        f"{key}={getattr(schedule, key):g}: set by [train] {key}"
        for key in ("learning_rate", "burn_in")
        if getattr(options, key) != AUTO
    ]
    if options.burn_in == AUTO:
        reasons.append(f"burn_in={schedule.burn_in}: a small part of training, at most 1,000")
    return reasons


def _multi_scale_reasons(stock: Cfg, cfg: Cfg, image_count: int) -> list[str]:
    """Return why ``random`` was switched off; empty if it was not."""
    before, now = (net.layers[-1].number("random", 0) for net in (stock, cfg))
    if not before or now:
        return []
    width, height = cfg.size_wh
    if (multiple := size_multiple(cfg)) != GRID_PX:
        return [f"random=0: this network needs multiples of {multiple} pixels, not of {GRID_PX}"]
    why = (
        f"random=0: multi-scale training needs a square size of {lint.MULTI_SCALE_MIN_PX} "
        f"to {lint.MULTI_SCALE_MAX_PX} pixels and at least {builders.MULTI_SCALE_MIN_IMAGES:,} "
        f"images, not {width}x{height} and {pluralize(image_count, 'image')}"
    )
    return [why]


def _weights_reasons(options: TrainOptions, weights: str, *, is_named: bool) -> list[str]:
    if options.weights != AUTO or is_named or weights == NO_WEIGHTS:
        return []
    return [f"weights={weights}: they match the first layers of the network file"]


def _unless_auto(value: Number | str) -> Number | None:
    return None if isinstance(value, str) else value
