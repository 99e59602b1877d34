"""Watchdogs over a training: pure rules over what its log says and over the clock.

A rule is told facts (``hear``) and, about once a second, the time (``look``); it answers with a
verdict, and the training is stopped for it. Nothing here starts, stops or reads anything, and
nothing knows what trains.

What the rules take for granted: a loss that is no number for some iterations in a row stays so; one
that leaves all that was before it by far, after burn-in, does not come back; and a program that has
said nothing for much longer than it ever has hangs.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from oiyolo.trainlog.verdict import (
    CHANGE,
    MAP_SAME,
    NAN_LEAST,
    WINDOW_LEAST,
    WINDOW_SHARE,
    window_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Kind = Literal["nan", "explosion", "stall", "disk", "memory", "patience", "warm-up"]

EXPLODED_RATIO: Final = 20.0
"""So many times the lowest median before it, the loss has left everything behind. ``plot`` calls a
training diverging from three times on, which may mend; this is what never did."""

EXPLODED_TAIL: Final = 5
"""Iterations whose median has to be so high: single images stand out tenfold."""

STALL_FLOOR_S: Final = 900.0
STALL_START_S: Final = 1800.0
"""Before the first iteration CUDA may compile for minutes, and weights come off a slow disk."""

_STALL_RATIO: Final = 20.0
_QUIET_RATIO: Final = 5.0
_EXPLOSION_WINDOW: Final = 50
_DISK_EVERY_S: Final = 10.0


class Point(NamedTuple):
    """An iteration that ended.

    Attributes:
        iteration: Its number.
        loss: Its own loss.
        avg_loss: The running average as the program has it.
        images_per_s: nan where it is not told.
        iou: nan where it is not told.
    """

    iteration: int
    loss: float
    avg_loss: float
    images_per_s: float = math.nan
    iou: float = math.nan


class Measured(NamedTuple):
    """A mean average precision on the validation images, 0 to 1."""

    map: float


class Saved(NamedTuple):
    """The program began to save weights; they are whole when the next point comes.

    Attributes:
        path: Where.
        to_go_on: A training can go on from them.
    """

    path: str
    to_go_on: bool = True


class Complaint(NamedTuple):
    """The program's own words for what went wrong.

    Attributes:
        words: A line.
        out_of_memory: It says that the GPU's memory is full.
    """

    words: str
    out_of_memory: bool = False


Fact = Point | Measured | Saved | Complaint


@dataclass(frozen=True)
class Verdict:
    """Why a training is stopped.

    Attributes:
        kind: nan, explosion, stall, disk, memory, patience or warm-up.
        sentence: The same for a person, with the figures.
        iteration: The last one that was heard of.
        good_until: The last iteration that nothing is wrong with.
    """

    kind: Kind
    sentence: str
    iteration: int
    good_until: int


class Rule:
    """A rule that finds nothing; the others say what they look for."""

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:  # noqa: ARG002  (for others)
        """Take a fact that came at this moment of ``time.monotonic``."""
        return None

    def look(self, at_s: float, quiet_s: float) -> Verdict | None:  # noqa: ARG002  (the same)
        """Take the time, and for how long the program has not said anything at all."""
        return None


class _AtWeights(Rule):
    """A rule that ends a training only when weights to go on from have just become whole."""

    def __init__(self) -> None:
        self._is_saved = False

    def has_weights(self, fact: Fact) -> bool:
        """Tell whether weights have just become whole."""
        if isinstance(fact, Saved):
            self._is_saved |= fact.to_go_on
        elif isinstance(fact, Point):
            was_saved, self._is_saved = self._is_saved, False
            return was_saved
        return False


class NotANumber(Rule):
    """The average loss is no number: pjreddie's darknet never recovers.

    Region lines without an object have a nan too, which is harmless; no fact is made of them.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:  # noqa: ARG002  (any time)
        """See ``Rule``."""
        if not isinstance(fact, Point):
            return None
        self._in_a_row = 0 if math.isfinite(fact.avg_loss) else self._in_a_row + 1
        if self._in_a_row < NAN_LEAST:
            return None
        since = fact.iteration - self._in_a_row + 1
        told = f"the average loss is no number since iteration {since:,}"
        return Verdict("nan", told, fact.iteration, since - 1)


class Explosion(Rule):
    """The loss has left everything behind that it ever was since burn-in."""

    def __init__(self, burn_in: int) -> None:
        """Begin.

        Args:
            burn_in: Iterations in which the rate climbs; the loss may do anything.
        """
        self._burn_in = burn_in
        self._tail: deque[Point] = deque(maxlen=EXPLODED_TAIL)
        self._before: deque[float] = deque(maxlen=_EXPLOSION_WINDOW)
        self._since_median = 0
        self._lowest = math.inf

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:  # noqa: ARG002  (any time)
        """See ``Rule``."""
        if not isinstance(fact, Point) or fact.iteration <= self._burn_in:
            return None
        if not math.isfinite(fact.loss):
            return None
        if len(self._tail) == EXPLODED_TAIL:
            self._leave_behind(self._tail[0].loss)
        self._tail.append(fact)
        if len(self._before) < WINDOW_LEAST:
            return None
        now = statistics.median(point.loss for point in self._tail)
        window = statistics.median(self._before)
        lowest = min(self._lowest, window)
        if not (
            lowest > 0 and now >= EXPLODED_RATIO * lowest and now >= EXPLODED_RATIO / 2 * window
        ):
            return None
        told = (
            f"the loss exploded to {now:,.6g} over the last {EXPLODED_TAIL} iterations, "
            f"{now / lowest:,.0f} times the lowest before ({lowest:.6g})"
        )
        return Verdict("explosion", told, fact.iteration, self._tail[0].iteration - 1)

    def replay(self, facts: Iterable[Fact], until: int) -> None:
        """Take what an earlier part of the training told of iterations up to ``until``.

        Without it, a loss that explodes just after a break would be all that was ever known.
        """
        for fact in facts:
            if not isinstance(fact, Point) or not math.isfinite(fact.loss):
                continue
            if self._burn_in < fact.iteration <= until:
                self._leave_behind(fact.loss)

    def _leave_behind(self, loss: float) -> None:
        self._before.append(loss)
        self._since_median += 1
        if self._since_median >= WINDOW_LEAST <= len(self._before):
            self._since_median = 0
            self._lowest = min(self._lowest, statistics.median(self._before))


class OutOfMemory(Rule):
    """The program said that the GPU's memory is full."""

    def __init__(self) -> None:
        self._iteration = 0

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:  # noqa: ARG002  (any time)
        """See ``Rule``."""
        if isinstance(fact, Point):
            self._iteration = fact.iteration
        if isinstance(fact, Complaint) and fact.out_of_memory:
            told = f"the GPU's memory is full ({fact.words.strip()})"
            return Verdict("memory", told, self._iteration, self._iteration)
        return None


class Stall(Rule):
    """Nothing was heard for much longer than ever.

    How long that is adapts: twenty of the latest iterations, or the time that the validation images
    take several times over, but never under a quarter of an hour. What is not known yet is given
    half an hour.
    """

    def __init__(self, limit_s: float | None = None, quiet_images: int = 0) -> None:
        """Begin.

        Args:
            limit_s: A fixed limit instead.
            quiet_images: So many images may be gone through without a word (to measure mAP).
        """
        self._limit_s = limit_s
        self._quiet_images = quiet_images
        self._iteration = 0
        self._last_s: float | None = None
        self._paces: deque[float] = deque(maxlen=20)
        self._images_per_s = math.nan

    @property
    def limit_s(self) -> float:
        """How long it may say nothing now."""
        if self._limit_s is not None:
            return self._limit_s
        if not self._paces:
            return STALL_START_S
        quiet = self._quiet_images / self._images_per_s if self._images_per_s > 0 else 0.0
        if self._quiet_images and not self._images_per_s > 0:
            quiet = STALL_START_S
        return max(STALL_FLOOR_S, _STALL_RATIO * max(self._paces), _QUIET_RATIO * quiet)

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:
        """See ``Rule``."""
        if isinstance(fact, Point):
            if self._last_s is not None:
                self._paces.append(at_s - self._last_s)
            self._last_s = at_s
            self._iteration = fact.iteration
            self._images_per_s = fact.images_per_s
        return None

    def look(self, at_s: float, quiet_s: float) -> Verdict | None:  # noqa: ARG002  (how long says it)
        """See ``Rule``."""
        limit_s = self.limit_s
        if quiet_s < limit_s:
            return None
        told = (
            f"nothing was heard for {quiet_s:,.0f} s after iteration {self._iteration:,}, "
            f"where {limit_s:,.0f} s are much"
        )
        return Verdict("stall", told, self._iteration, self._iteration)


class DiskFull(Rule):
    """There is no room for the next weights."""

    def __init__(self, needed_bytes: int, free_bytes: Callable[[], int]) -> None:
        """Begin.

        Args:
            needed_bytes: What is written the next time.
            free_bytes: Tells how much room there is.
        """
        self._needed_bytes = needed_bytes
        self._free_bytes = free_bytes
        self._next_s = -math.inf
        self._iteration = 0

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:  # noqa: ARG002  (any time)
        """See ``Rule``."""
        if isinstance(fact, Point):
            self._iteration = fact.iteration
        return None

    def look(self, at_s: float, quiet_s: float) -> Verdict | None:  # noqa: ARG002  (talking or not)
        """See ``Rule``."""
        if at_s < self._next_s:
            return None
        self._next_s = at_s + _DISK_EVERY_S
        free = self._free_bytes()
        if free >= self._needed_bytes:
            return None
        told = (
            f"the disk is nearly full: {free / 1e6:,.0f} MB are free, and the next weights need "
            f"{self._needed_bytes / 1e6:,.0f} MB"
        )
        return Verdict("disk", told, self._iteration, self._iteration)


class Patience(_AtWeights):
    """It does not get better any more: by mAP where it is measured, by the loss where it is not.

    mAP is better by half a point, the loss if its median over a window is lower by 3 % than the
    lowest before (the figures that ``plot`` judges by). The training ends at the next weights.
    """

    def __init__(self, patience: int, *, measures_map: bool) -> None:
        """Begin.

        Args:
            patience: Iterations without a better one.
            measures_map: The program measures mAP, so that the loss says nothing here.
        """
        super().__init__()
        self._patience = patience
        self._measures_map = measures_map
        self._losses: list[float] = []
        self._window = window_of(patience * WINDOW_SHARE)
        self._measures: list[tuple[int, float]] = []
        self._latest = 0
        self._impatient: str | None = None

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:  # noqa: ARG002  (any time)
        """See ``Rule``."""
        has_weights = self.has_weights(fact)
        if has_weights and self._impatient is not None:
            return Verdict("patience", self._impatient, self._latest, self._latest)
        if isinstance(fact, Measured) and self._measures_map:
            self._measure(fact.map)
        elif isinstance(fact, Point):
            self._take(fact)
        return None

    def replay(self, facts: Iterable[Fact]) -> None:
        """Take what an earlier part of the training told."""
        for fact in facts:
            if not isinstance(fact, Saved):
                self.hear(fact, 0.0)

    def _take(self, point: Point) -> None:
        if point.iteration <= self._latest:  # it went back to older weights
            self._losses.clear()
            self._measures = [known for known in self._measures if known[0] < point.iteration]
            self._impatient = None
        self._latest = point.iteration
        if not self._measures_map:
            self._losses.append(point.loss)
            if len(self._losses) >= self._window:
                self._measure(statistics.median(self._losses))
                self._losses.clear()

    def _measure(self, value: float) -> None:
        self._measures.append((self._latest, value))
        best_at, best = self._best()
        self._impatient = None
        if best is not None and self._latest - best_at >= self._patience:
            told = f"mAP {best:.2%}" if self._measures_map else f"loss {best:.4g}"
            self._impatient = (
                f"no better than {told} of iteration {best_at:,} for "
                f"{self._latest - best_at:,} iterations"
            )

    def _best(self) -> tuple[int, float | None]:
        best_at, best = 0, None
        for iteration, value in self._measures:
            if math.isfinite(value) and (best is None or self._is_better(value, best)):
                best_at, best = iteration, value
        return best_at, best

    def _is_better(self, value: float, best: float) -> bool:
        return value > best + MAP_SAME if self._measures_map else value < best * (1 - CHANGE)


class WarmUp(_AtWeights):
    """The part of a training that has to run by itself is over: some weights of it were saved."""

    def __init__(self, until: int) -> None:
        """Begin.

        Args:
            until: Iterations.
        """
        super().__init__()
        self._until = until

    def hear(self, fact: Fact, at_s: float) -> Verdict | None:  # noqa: ARG002  (any time)
        """See ``Rule``."""
        has_weights = self.has_weights(fact)
        if not (isinstance(fact, Point) and has_weights and fact.iteration > self._until):
            return None
        told = f"the warm-up of {self._until:,} iterations is over"
        return Verdict("warm-up", told, fact.iteration, fact.iteration)
