"""How long a network trains, in which batches, and at which rate.

The rules are the field's (https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects):
2,000 iterations a class but at least 6,000 and at least one for each image, and a tenth of the
rate after 80 % and again after 90 % of them. With several GPUs darknet multiplies the rate by their
number and counts an iteration for each; the same page divides the one and multiplies burn-in
accordingly (https://github.com/AlexeyAB/darknet#how-to-train-with-multi-gpu).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from oiyolo.core.errors import UsageError
from oiyolo.networks.cfg import CfgError

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg

ITERATIONS_PER_CLASS = 2000
MIN_ITERATIONS = 6000
STEP_FRACTIONS = (0.8, 0.9)
STEP_SCALES = (0.1, 0.1)
MAX_BURN_IN = 1000
BURN_IN_FRACTION = 0.1
"""The rate climbs with the fourth power through burn-in (get_current_rate in src/network.c), so
that next to nothing is learned in it: it has to stay a small part of the whole."""

MAX_BURN_IN_FRACTION = 0.2
"""Burn-in for several GPUs takes no more of the whole."""


@dataclass(frozen=True)
class Schedule:
    """The course of a training.

    Attributes:
        batch: Images an iteration.
        subdivisions: Parts that a batch is cut into; memory is needed for one part.
        learning_rate: The rate after burn-in.
        max_batches: Iterations.
        burn_in: Iterations in which the rate climbs from 0.
        steps: Iterations after which the rate changes.
        scales: What the rate is multiplied with at each step.

    Raises:
        UsageError: Numbers that darknet would misread: ``subdivisions`` that does not divide
            ``batch``, no iterations, a burn-in as long as all of them, not one scale for each step.
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
                    f"{name} has a wrong value",
                    expected="more than 0",
                    found=str(getattr(self, name)),
                )
        if not 0 <= self.burn_in < self.max_batches:
            raise UsageError(
                f"burn_in = {self.burn_in} leaves nothing of max_batches = {self.max_batches}",
                expected="less than max_batches; the rate climbs that long",
                remedy=f"Set burn_in = {ruled_burn_in(self.max_batches)}",
            )
        if self.batch % self.subdivisions:
            raise UsageError(
                f"subdivisions = {self.subdivisions} does not divide batch = {self.batch}",
                remedy=f"Set one of {', '.join(map(str, divisors(self.batch)))}",
            )
        if len(self.steps) != len(self.scales):
            raise UsageError(
                "a schedule needs one scale for each step",
                expected=f"{len(self.steps)} scales",
                found=str(len(self.scales)),
            )


def divisors(number: int) -> list[int]:
    """Give the whole numbers that divide ``number``, rising."""
    return [part for part in range(1, number + 1) if number % part == 0]


def ruled_iterations(class_count: int, image_count: int) -> int:
    """Give the iterations that suit a dataset."""
    return max(MIN_ITERATIONS, ITERATIONS_PER_CLASS * class_count, image_count)


def ruled_burn_in(max_batches: int) -> int:
    """Give the burn-in that suits a training of so many iterations."""
    return min(MAX_BURN_IN, int(max_batches * BURN_IN_FRACTION))


def schedule_for(
    class_count: int,
    image_count: int,
    *,
    max_batches: int | None = None,
    batch: int = 64,
    subdivisions: int = 16,
    learning_rate: float = 0.001,
) -> Schedule:
    """Give the schedule that suits a dataset.

    Args:
        class_count: Classes to tell apart.
        image_count: Images to train on.
        max_batches: Iterations, when they are given; by the module's rule otherwise.
        batch: Images an iteration.
        subdivisions: Parts that a batch is cut into.
        learning_rate: The rate after burn-in.

    Raises:
        UsageError: As ``Schedule``.
    """
    ruled = ruled_iterations(class_count, image_count)
    iterations = ruled if max_batches is None else max_batches
    return Schedule(
        batch=batch,
        subdivisions=subdivisions,
        learning_rate=learning_rate,
        max_batches=iterations,
        burn_in=ruled_burn_in(iterations),
        steps=tuple(max(1, int(iterations * fraction)) for fraction in STEP_FRACTIONS),
        scales=STEP_SCALES,
    )


def schedule_of(cfg: Cfg) -> Schedule:
    """Read the schedule that a network file has.

    A policy other than ``steps`` or ``constant`` is not kept: the rate then stays the same.

    Raises:
        CfgError: No ``max_batches``, a value that is no number, or what ``Schedule`` refuses.
    """
    net = cfg.net
    stepped = net.text("policy", "constant") == "steps"
    try:
        return Schedule(
            batch=net.integer("batch", 1),
            subdivisions=net.integer("subdivisions", 1),
            learning_rate=net.number("learning_rate", 0.001),
            max_batches=net.integer("max_batches", 0),
            burn_in=net.integer("burn_in", 0),
            steps=tuple(net.integers("steps")) if stepped else (),
            scales=tuple(net.numbers("scales")) if stepped else (),
        )
    except UsageError as error:
        raise CfgError(
            f"the schedule in [net] cannot be used: {error.what}",
            path=cfg.path,
            line=net.line,
            expected=error.expected,
            found=error.found,
            remedy=error.remedy,
        ) from None


def overridden(
    schedule: Schedule,
    *,
    max_batches: int | None = None,
    batch: int | None = None,
    subdivisions: int | None = None,
    learning_rate: float | None = None,
    burn_in: int | None = None,
) -> Schedule:
    """Give a schedule with some of its numbers replaced and the others still fitting.

    Burn-in and steps keep their share of ``max_batches``, unless ``burn_in`` is given. When only
    ``batch`` is given, ``subdivisions`` becomes the nearest divisor of it that asks for no more
    images at once.

    Raises:
        UsageError: As ``Schedule``.
    """
    new = schedule
    if max_batches is not None and max_batches > 0:
        ratio = max_batches / schedule.max_batches
        new = replace(
            new,
            max_batches=max_batches,
            burn_in=min(int(schedule.burn_in * ratio), max_batches - 1),
            steps=tuple(max(1, int(step * ratio)) for step in schedule.steps),
        )
    elif max_batches is not None:
        new = replace(new, max_batches=max_batches)
    if batch is not None:
        parts = subdivisions or _parts(batch, schedule.batch / schedule.subdivisions)
        new = replace(new, batch=batch, subdivisions=parts)
    elif subdivisions is not None:
        new = replace(new, subdivisions=subdivisions)
    if learning_rate is not None:
        new = replace(new, learning_rate=learning_rate)
    if burn_in is not None:
        new = replace(new, burn_in=burn_in)
    return new


def for_gpus(
    schedule: Schedule,
    gpu_count: int,
    *,
    keep_learning_rate: bool = False,
    keep_burn_in: bool = False,
) -> Schedule:
    """Give the schedule that several GPUs need to train as one would.

    Args:
        schedule: The schedule for one.
        gpu_count: How many there are.
        keep_learning_rate: The rate was given by the user: it stays.
        keep_burn_in: The same of burn-in.
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


def with_schedule(cfg: Cfg, schedule: Schedule) -> Cfg:
    """Give a copy of a network that trains by ``schedule``."""
    new = cfg.copy()
    net = new.net
    net.set("batch", schedule.batch)
    net.set("subdivisions", schedule.subdivisions)
    net.set("learning_rate", schedule.learning_rate)
    net.set("burn_in", schedule.burn_in)
    net.set("max_batches", schedule.max_batches)
    if schedule.steps:
        net.set("policy", "steps")
        net.set("steps", list(schedule.steps))
        net.set("scales", list(schedule.scales))
    else:
        net.set("policy", "constant")
        net.unset("steps")
        net.unset("scales")
    return new.copy()


def _parts(batch: int, images_at_once: float) -> int:
    """Give the fewest subdivisions of a batch that ask for no more than ``images_at_once``."""
    fitting = [parts for parts in divisors(batch) if batch / parts <= images_at_once]
    return fitting[0] if fitting else max(batch, 1)
