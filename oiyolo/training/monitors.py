"""Monitors that decide from the log and the clock when a run must be stopped.

A monitor receives each event (``on_event``) and, about once a second, the time (``on_tick``). When
it returns a ``StopReason``, the caller stops the run. Monitors start, stop and read nothing
themselves, and do not depend on which program trains.

They assume that a loss that is not a number for several iterations in a row stays so, that a loss
that rises far above all earlier values after burn-in does not recover, and that a program that has
been silent for much longer than ever before hangs.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from oiyolo.core.units import format_bytes
from oiyolo.trainlog.verdict import (
    MIN_CHANGE,
    NAN_MIN_ITERATIONS,
    WINDOW_MIN,
    WINDOW_SHARE,
    window_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

StopKind = Literal[
    "nan", "explosion", "stall", "disk", "memory", "map", "patience", "warm-up", "stop"
]

EXPLOSION_RATIO: Final = 20.0
"""A loss this many times the lowest earlier median has exploded. ``plot`` reports a run as
diverging from three times on, and some of those recover; none that reached this ratio did."""

EXPLOSION_TAIL: Final = 5
"""Iterations whose median must reach the ratio; a single image can raise the loss tenfold."""

STALL_FLOOR_S: Final = 900.0
STALL_START_S: Final = 1800.0
"""Limit before the first iteration: CUDA may compile for minutes, and weights may come from a slow
disk."""

MAP_TOLERANCE: Final = 0.005
"""Rise of the mAP up to which it has not improved, for early stopping."""

STOPPED_BY_USER: Final = "stopped by `oiyolo stop`"

_STALL_RATIO: Final = 20.0
_MAP_TIME_RATIO: Final = 5.0
_EXPLOSION_WINDOW: Final = 50
_DISK_CHECK_INTERVAL_S: Final = 10.0


class IterationStats(NamedTuple):
    """The figures of a completed iteration.

    Attributes:
        iteration: Its number.
        loss: The loss of this iteration alone.
        avg_loss: The running average that the program prints.
        images_per_s: Training speed; NaN if unknown.
        iou: Mean IOU of the objects in this iteration; NaN if unknown.
    """

    iteration: int
    loss: float
    avg_loss: float
    images_per_s: float = math.nan
    iou: float = math.nan


class MapMeasured(NamedTuple):
    """A mean average precision on the validation images, 0 to 1."""

    map: float


class WeightsScored(NamedTuple):
    """The mean average precision that oiyolo measured for earlier weights.

    Attributes:
        iteration: The iteration of these weights.
        map: Their mAP on the validation images, 0 to 1.
    """

    iteration: int
    map: float


class ScoringEnded(NamedTuple):
    """Weights are not scored any more.

    Attributes:
        reason: Why not, in words.
    """

    reason: str


class WeightsSaved(NamedTuple):
    """The program began to save weights; the file is complete when the next iteration ends.

    Attributes:
        path: The weights file.
        resumable: Whether a run can resume from these weights.
    """

    path: str
    resumable: bool = True


class ErrorReported(NamedTuple):
    """A line in which the program reports an error.

    Attributes:
        text: The line.
        out_of_memory: Whether the line says that the GPU is out of memory.
    """

    text: str
    out_of_memory: bool = False


TrainingEvent = (
    IterationStats | MapMeasured | WeightsScored | ScoringEnded | WeightsSaved | ErrorReported
)


@dataclass(frozen=True)
class StopReason:
    """Why a run is stopped.

    Attributes:
        kind: nan, explosion, stall, disk, memory, map (darknet died while it measured mAP),
            patience, warm-up or stop (a user's request).
        message: The reason in words, with the figures.
        iteration: The latest iteration that was logged.
        last_good_iteration: The last iteration before the fault.
    """

    kind: StopKind
    message: str
    iteration: int
    last_good_iteration: int


class Monitor:
    """The base of all monitors, which never stops a run."""

    def on_start(self, process_id: int) -> None:
        """Process the start of the program, which leads a session of its own."""

    def new_events(self) -> Sequence[TrainingEvent]:
        """Return what other monitors must know and the program does not print."""
        return ()

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:  # noqa: ARG002  (for subclasses)
        """Process an event that arrived at ``at_s`` (``time.monotonic``)."""
        return None

    def on_tick(self, at_s: float, quiet_s: float) -> StopReason | None:  # noqa: ARG002  (for subclasses)
        """Check the time ``at_s``, after ``quiet_s`` seconds without any output of the program."""
        return None


class _IterationMonitor(Monitor):
    """A monitor that knows the iteration."""

    _iteration = 0

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:  # noqa: ARG002  (time does not matter)
        """Note the iteration."""
        if isinstance(event, IterationStats):
            self._iteration = event.iteration
        return None


class _CheckpointMonitor(Monitor):
    """A monitor that stops a run only right after a complete checkpoint."""

    def __init__(self) -> None:
        self._is_saved = False

    def checkpoint_completed(self, event: TrainingEvent) -> bool:
        """Return whether resumable weights are complete as of this event."""
        if isinstance(event, WeightsSaved):
            self._is_saved |= event.resumable
        elif isinstance(event, IterationStats):
            was_saved, self._is_saved = self._is_saved, False
            return was_saved
        return False


class NanLoss(Monitor):
    """Stop when the average loss is not a number, from which pjreddie's darknet never recovers.

    Region lines without an object contain a harmless NaN too; they yield no event.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:  # noqa: ARG002  (time does not matter)
        """Count iterations in a row whose average loss is not a number."""
        if not isinstance(event, IterationStats):
            return None
        self._in_a_row = 0 if math.isfinite(event.avg_loss) else self._in_a_row + 1
        if self._in_a_row < NAN_MIN_ITERATIONS:
            return None
        since = event.iteration - self._in_a_row + 1
        message = f"the average loss has been NaN since iteration {since:,}"
        return StopReason("nan", message, event.iteration, since - 1)


class Explosion(Monitor):
    """Stop when the loss rises far above its lowest median since burn-in."""

    def __init__(self, burn_in: int) -> None:
        """Create the monitor.

        Args:
            burn_in: Iterations during which the learning rate rises; their loss is ignored.
        """
        self._burn_in = burn_in
        self._tail: deque[IterationStats] = deque(maxlen=EXPLOSION_TAIL)
        self._history: deque[float] = deque(maxlen=_EXPLOSION_WINDOW)
        self._since_median = 0
        self._lowest = math.inf

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:  # noqa: ARG002  (time does not matter)
        """Compare the median loss of the latest iterations with the earlier medians."""
        if not isinstance(event, IterationStats) or event.iteration <= self._burn_in:
            return None
        if not math.isfinite(event.loss):
            return None
        if len(self._tail) == EXPLOSION_TAIL:
            self._add_to_history(self._tail[0].loss)
        self._tail.append(event)
        if len(self._history) < WINDOW_MIN:
            return None
        now = statistics.median(point.loss for point in self._tail)
        window = statistics.median(self._history)
        lowest = min(self._lowest, window)
        if not (
            lowest > 0 and now >= EXPLOSION_RATIO * lowest and now >= EXPLOSION_RATIO / 2 * window
        ):
            return None
        message = (
            f"the loss exploded to {now:,.6g} over the last {EXPLOSION_TAIL} iterations, "
            f"{now / lowest:,.0f} times its lowest earlier median ({lowest:.6g})"
        )
        return StopReason("explosion", message, event.iteration, self._tail[0].iteration - 1)

    def replay(self, events: Iterable[TrainingEvent], until: int) -> None:
        """Add the losses of earlier iterations, up to and including iteration ``until``.

        Without them, a loss that explodes right after a resume has nothing to be compared with.
        """
        for event in events:
            if not isinstance(event, IterationStats) or not math.isfinite(event.loss):
                continue
            if self._burn_in < event.iteration <= until:
                self._add_to_history(event.loss)

    def _add_to_history(self, loss: float) -> None:
        self._history.append(loss)
        self._since_median += 1
        if self._since_median >= WINDOW_MIN <= len(self._history):
            self._since_median = 0
            self._lowest = min(self._lowest, statistics.median(self._history))


class OutOfMemory(_IterationMonitor):
    """Stop when the program reports that the GPU is out of memory."""

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:
        """Note the iteration, or stop if the event reports a lack of GPU memory."""
        super().on_event(event, at_s)
        if isinstance(event, ErrorReported) and event.out_of_memory:
            message = f"the GPU is out of memory ({event.text.strip()})"
            return StopReason("memory", message, self._iteration, self._iteration)
        return None


class Stall(Monitor):
    """Stop when the program has been silent for much longer than ever before.

    The limit adapts: 20 times the slowest of the latest iterations or 5 times the time that
    measuring mAP takes, whichever is longer, but at least 15 minutes. While the speed is unknown,
    the limit assumes 30 minutes.
    """

    def __init__(self, limit_s: float | None = None, map_image_count: int = 0) -> None:
        """Create the monitor.

        Args:
            limit_s: A fixed limit instead of the adaptive one.
            map_image_count: Images that the program processes silently to measure mAP.
        """
        self._limit_s = limit_s
        self._map_image_count = map_image_count
        self._iteration = 0
        self._last_s: float | None = None
        self._iteration_times_s: deque[float] = deque(maxlen=20)
        self._images_per_s = math.nan

    @property
    def limit_s(self) -> float:
        """The current limit on silence, in seconds."""
        if self._limit_s is not None:
            return self._limit_s
        if not self._iteration_times_s:
            return STALL_START_S
        map_s = self._map_image_count / self._images_per_s if self._images_per_s > 0 else 0.0
        if self._map_image_count and not self._images_per_s > 0:
            map_s = STALL_START_S
        return max(
            STALL_FLOOR_S, _STALL_RATIO * max(self._iteration_times_s), _MAP_TIME_RATIO * map_s
        )

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:
        """Note how long the iteration took and how fast it was."""
        if isinstance(event, IterationStats):
            if self._last_s is not None:
                self._iteration_times_s.append(at_s - self._last_s)
            self._last_s = at_s
            self._iteration = event.iteration
            self._images_per_s = event.images_per_s
        return None

    def on_tick(self, at_s: float, quiet_s: float) -> StopReason | None:  # noqa: ARG002  (only silence matters)
        """Stop if the silence has reached the limit."""
        limit_s = self.limit_s
        if quiet_s < limit_s:
            return None
        message = (
            f"no output from the training program for {quiet_s:,.0f} s after iteration "
            f"{self._iteration:,} (limit {limit_s:,.0f} s)"
        )
        return StopReason("stall", message, self._iteration, self._iteration)


class DiskFull(_IterationMonitor):
    """Stop when the disk has no room for the next weights."""

    def __init__(self, needed_bytes: int, free_bytes: Callable[[], int]) -> None:
        """Create the monitor.

        Args:
            needed_bytes: Size of the weights that are written next, all files together.
            free_bytes: Function that returns the free space on the disk, in bytes.
        """
        self._needed_bytes = needed_bytes
        self._free_bytes = free_bytes
        self._next_s = -math.inf

    def on_tick(self, at_s: float, quiet_s: float) -> StopReason | None:  # noqa: ARG002  (silence does not matter)
        """Check the free space on the disk, at most every ten seconds."""
        if at_s < self._next_s:
            return None
        self._next_s = at_s + _DISK_CHECK_INTERVAL_S
        free = self._free_bytes()
        if free >= self._needed_bytes:
            return None
        message = (
            f"the disk is nearly full: {format_bytes(free)} are free, but the next weights need "
            f"{format_bytes(self._needed_bytes)}"
        )
        return StopReason("disk", message, self._iteration, self._iteration)


class EarlyStopping(_CheckpointMonitor):
    """Stop when mAP, or the loss if mAP is not measured, has stopped improving.

    mAP improves when it exceeds the best one by half a point; the loss, when its median over a
    window is 3 % below the lowest earlier one. ``plot`` uses the same thresholds. The run stops at
    the next complete checkpoint.
    """

    def __init__(self, patience: int, *, measures_map: bool) -> None:
        """Create the monitor.

        Args:
            patience: Iterations without an improvement after which the run stops.
            measures_map: Whether mAP is measured; the loss is then ignored.
        """
        super().__init__()
        self._patience = patience
        self._measures_map = measures_map
        self._losses: list[float] = []
        self._window = window_size(patience * WINDOW_SHARE)
        self._measurements: list[tuple[int, float]] = []
        self._latest = 0
        self._plateau_message: str | None = None

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:  # noqa: ARG002  (time does not matter)
        """Note mAP or loss, and stop at a complete checkpoint once neither improves."""
        checkpoint_completed = self.checkpoint_completed(event)
        if checkpoint_completed and self._plateau_message is not None:
            return StopReason("patience", self._plateau_message, self._latest, self._latest)
        if isinstance(event, IterationStats):
            self._on_iteration(event)
        elif isinstance(event, ScoringEnded) and self._measures_map:
            self._measures_map = False
            self._measurements.clear()
            self._plateau_message = None
        elif self._measures_map:
            self._on_map(event)
        return None

    def replay(self, events: Iterable[TrainingEvent]) -> None:
        """Process the events of earlier attempts, which do not stop the run."""
        for event in events:
            if not isinstance(event, WeightsSaved):
                self.on_event(event, 0.0)

    def _on_map(self, event: TrainingEvent) -> None:
        if isinstance(event, MapMeasured):
            self._add_measurement(self._latest, event.map)
        elif isinstance(event, WeightsScored):
            self._add_measurement(event.iteration, event.map)

    def _on_iteration(self, point: IterationStats) -> None:
        if point.iteration <= self._latest:  # resumed from an older checkpoint
            self._losses.clear()
            self._measurements = [row for row in self._measurements if row[0] < point.iteration]
            self._plateau_message = None
        self._latest = point.iteration
        if not self._measures_map:
            self._losses.append(point.loss)
            if len(self._losses) >= self._window:
                self._add_measurement(self._latest, statistics.median(self._losses))
                self._losses.clear()

    def _add_measurement(self, iteration: int, value: float) -> None:
        self._measurements.append((iteration, value))
        best_at, best = self._best()
        self._plateau_message = None
        if best is not None and iteration - best_at >= self._patience:
            best_text = f"mAP {best:.2%}" if self._measures_map else f"loss {best:.4g}"
            self._plateau_message = (
                f"no improvement over {best_text} at iteration {best_at:,} for "
                f"{iteration - best_at:,} iterations"
            )

    def _best(self) -> tuple[int, float | None]:
        best_at, best = 0, None
        for iteration, value in self._measurements:
            if math.isfinite(value) and (best is None or self._is_better(value, best)):
                best_at, best = iteration, value
        return best_at, best

    def _is_better(self, value: float, best: float) -> bool:
        return (
            value > best + MAP_TOLERANCE if self._measures_map else value < best * (1 - MIN_CHANGE)
        )


class WarmUp(_CheckpointMonitor):
    """Stop at the first complete checkpoint after the warm-up, so that all GPUs can take over."""

    def __init__(self, until: int) -> None:
        """Create the monitor.

        Args:
            until: The last iteration of the warm-up.
        """
        super().__init__()
        self._until = until

    def on_event(self, event: TrainingEvent, at_s: float) -> StopReason | None:  # noqa: ARG002  (time does not matter)
        """Stop at the first complete checkpoint after the warm-up."""
        checkpoint_completed = self.checkpoint_completed(event)
        if not (
            isinstance(event, IterationStats)
            and checkpoint_completed
            and event.iteration > self._until
        ):
            return None
        message = f"the warm-up of {self._until:,} iterations is complete"
        return StopReason("warm-up", message, event.iteration, event.iteration)


class StopRequest(_IterationMonitor):
    """Stop when a user asks for it."""

    def __init__(self, is_requested: Callable[[], bool]) -> None:
        """Create the monitor.

        Args:
            is_requested: Function that returns whether the run must stop.
        """
        self._is_requested = is_requested

    def on_tick(self, at_s: float, quiet_s: float) -> StopReason | None:  # noqa: ARG002  (time does not matter)
        """Stop if it is requested."""
        if not self._is_requested():
            return None
        return StopReason("stop", STOPPED_BY_USER, self._iteration, self._iteration)
