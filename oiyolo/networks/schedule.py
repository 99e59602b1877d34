"""Training schedules: iterations, batch size, and learning rate.

The defaults are AlexeyAB's (https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects):
2,000 iterations per class, but at least 6,000 and at least one per image, and a tenth of the
learning rate after 80 % and again after 90 % of them. With several GPUs darknet multiplies the rate
by their number and counts one iteration per GPU; the same page therefore divides the rate and
multiplies burn-in (https://github.com/AlexeyAB/darknet#how-to-train-with-multi-gpu).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from oiyolo.networks.cfg import Cfg

ITERATIONS_PER_CLASS = 2000
MIN_ITERATIONS = 6000
STEP_FRACTIONS = (0.8, 0.9)
STEP_SCALES = (0.1, 0.1)
MAX_BATCH = 1 << 20
MAX_BURN_IN = 1000
BURN_IN_FRACTION = 0.1
"""The learning rate rises with the fourth power during burn-in (get_current_rate in
src/network.c). The network learns next to nothing then, so burn-in must stay short."""

MAX_BURN_IN_FRACTION = 0.2
"""Limit of burn-in for several GPUs, as a fraction of all iterations."""


@dataclass(frozen=True)
class Schedule:
    """A training schedule.

    Attributes:
        batch: Images per iteration.
        subdivisions: Parts into which a batch is split; memory is needed for one part.
        learning_rate: Learning rate after burn-in.
        max_batches: Number of iterations.
        burn_in: Iterations during which the learning rate rises from 0.
        steps: Iterations after which the learning rate changes.
        scales: Factor of the learning rate at each step.

    Raises:
        UsageError: A combination that darknet would misread: ``subdivisions`` that does not divide
            ``batch``, no iterations, burn-in that covers all of them, or scales that do not match
            the steps.
    """

    batch: int
    subdivisions: int
    learning_rate: float
    max_batches: int
    burn_in: int
    steps: tuple[int, ...]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("batch", "subdivisions", "learning_rate", "max_batches"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    f"invalid value for {name}",
                    expected="more than 0",
                    found=str(getattr(self, name)),
                )
        check_batch(self.batch)
        if not 0 <= self.burn_in < self.max_batches:
            raise UsageError(
                f"burn_in = {self.burn_in} covers all of max_batches = {self.max_batches}",
                expected="less than max_batches, because the learning rate rises during burn-in",
                remedy=f"Set burn_in = {recommended_burn_in(self.max_batches)}",
            )
        if self.batch % self.subdivisions:
            raise UsageError(
                f"subdivisions = {self.subdivisions} does not divide batch = {self.batch}",
                remedy=f"Set one of {', '.join(map(str, divisors(self.batch)))}",
            )
        if len(self.steps) != len(self.scales):
            raise UsageError(
                "a schedule needs one scale per step",
                expected=f"{len(self.steps)} scales",
                found=str(len(self.scales)),
            )


def divisors(number: int) -> list[int]:
    """Return the divisors of ``number`` in ascending order."""
    low = [part for part in range(1, math.isqrt(number) + 1) if number % part == 0]
    return sorted({*low, *(number // part for part in low)})


def check_batch(batch: int) -> None:
    """Raise UsageError if a batch has too many images."""
    if batch > MAX_BATCH:
        raise UsageError(
            "invalid value for batch",
            expected=f"at most {MAX_BATCH:,} images per iteration",
            found=str(batch),
            remedy="Set [train] batch, usually to 64",
        )


def recommended_burn_in(max_batches: int) -> int:
    """Return the recommended burn-in for a run of ``max_batches`` iterations."""
    return min(MAX_BURN_IN, int(max_batches * BURN_IN_FRACTION))


def schedule_for(
    class_count: int,
    image_count: int,
    *,
    batch: int = 64,
    subdivisions: int = 16,
    learning_rate: float = 0.001,
) -> Schedule:
    """Return the recommended schedule for a dataset.

    Args:
        class_count: Number of classes.
        image_count: Number of training images.
        batch: Images per iteration.
        subdivisions: Parts into which a batch is split.
        learning_rate: Learning rate after burn-in.

    Raises:
        UsageError: As for ``Schedule``.
    """
    iterations = max(MIN_ITERATIONS, ITERATIONS_PER_CLASS * class_count, image_count)
    return Schedule(
        batch=batch,
        subdivisions=subdivisions,
        learning_rate=learning_rate,
        max_batches=iterations,
        burn_in=recommended_burn_in(iterations),
        steps=tuple(max(1, int(iterations * fraction)) for fraction in STEP_FRACTIONS),
        scales=STEP_SCALES,
    )


def schedule_of(cfg: Cfg) -> Schedule:
    """Return the schedule of a network file; a policy other than ``steps`` is read as ``constant``.

    Raises:
        CfgError: No ``max_batches``, a value that is not a number, or an invalid schedule.
    """
    net = cfg.net
    has_steps = net.text("policy", "constant") == "steps"
    try:
        return Schedule(
            batch=net.integer("batch", 1),
            subdivisions=net.integer("subdivisions", 1),
            learning_rate=net.number("learning_rate", 0.001),
            max_batches=net.integer("max_batches", 0),
            burn_in=net.integer("burn_in", 0),
            steps=tuple(net.integers("steps")) if has_steps else (),
            scales=tuple(net.numbers("scales")) if has_steps else (),
        )
    except UsageError as error:
        raise net.error(
            f"invalid schedule in [net]: {error.what}",
            expected=error.expected,
            found=error.found,
            remedy=error.remedy,
        ) from None


class ScheduleOverrides(TypedDict, total=False):
    """Values of a ``Schedule`` that the user set; ``None`` for those that the user did not set."""

    max_batches: int | None
    batch: int | None
    subdivisions: int | None
    learning_rate: float | None
    burn_in: int | None


def with_overrides(schedule: Schedule, **overrides: Unpack[ScheduleOverrides]) -> Schedule:
    """Return a schedule with some values replaced and the others adjusted to them.

    Burn-in and steps keep their share of ``max_batches``, unless ``burn_in`` is given. If only
    ``batch`` is given, ``subdivisions`` becomes the smallest divisor of it that needs no more
    memory than before.

    Raises:
        UsageError: As for ``Schedule``.
    """
    changes: dict[str, Any] = {key: value for key, value in overrides.items() if value is not None}
    end, batch = changes.get("max_batches", 0), changes.get("batch")
    if end > 0:
        ratio = end / schedule.max_batches
        changes.setdefault("burn_in", min(int(schedule.burn_in * ratio), end - 1))
        changes["steps"] = tuple(max(1, int(step * ratio)) for step in schedule.steps)
    if batch is not None and not changes.get("subdivisions"):
        check_batch(batch)
        # The fewest parts with at most as many images at once as before.
        images = schedule.batch / schedule.subdivisions
        fitting = (parts for parts in divisors(batch) if batch / parts <= images)
        changes["subdivisions"] = next(fitting, max(batch, 1))
    return replace(schedule, **changes)


def for_gpus(
    schedule: Schedule,
    gpu_count: int,
    *,
    keep_learning_rate: bool = False,
    keep_burn_in: bool = False,
) -> Schedule:
    """Return the schedule with which several GPUs train as a single one would.

    Args:
        schedule: Schedule for one GPU.
        gpu_count: Number of GPUs.
        keep_learning_rate: Whether to keep the learning rate, because the user set it.
        keep_burn_in: Whether to keep burn-in, because the user set it.
    """
    if gpu_count <= 1:
        return schedule
    rate, burn_in = schedule.learning_rate, schedule.burn_in
    longest = max(burn_in, int(schedule.max_batches * MAX_BURN_IN_FRACTION))
    return replace(
        schedule,
        learning_rate=rate if keep_learning_rate else rate / gpu_count,
        burn_in=burn_in if keep_burn_in else min(burn_in * gpu_count, longest),
    )


def parts_on_gpus(batch: int, subdivisions: int, gpu_count: int) -> int:
    """Return in how many parts a batch is computed that several GPUs share equally.

    The torch engine trains so. Each of darknet's GPUs has a batch of its own instead.

    Args:
        batch: Images of a batch.
        subdivisions: The least number of parts.
        gpu_count: Number of GPUs.

    Raises:
        UsageError: The batch cannot be divided among the GPUs.
    """
    counts = (n for n in range(subdivisions, batch + 1) if n % gpu_count == 0 and batch % n == 0)
    found = next(counts, 0)
    if not found:
        raise UsageError(
            f"{gpu_count} GPUs cannot share a batch of {batch} images equally",
            where="[train] gpus",
            expected=f"a batch that is divisible by {gpu_count}",
            remedy="Use another number of GPUs, or set [train] batch",
        )
    return found


def with_schedule(cfg: Cfg, schedule: Schedule) -> Cfg:
    """Return a copy of a network with another schedule."""
    new = cfg.copy()
    net = new.net
    for key in ("batch", "subdivisions", "learning_rate", "burn_in", "max_batches"):
        net.set(key, getattr(schedule, key))
    if schedule.steps:
        net.set("policy", "steps")
        net.set("steps", list(schedule.steps))
        net.set("scales", list(schedule.scales))
    else:
        net.set("policy", "constant")
        net.unset("steps")
        net.unset("scales")
    return new
