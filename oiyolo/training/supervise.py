"""Run a training program: write its log, show its progress and stop it when a monitor says so.

Any program can be supervised. ``read`` converts its lines to events, and the monitors decide from
the events and the time whether it must stop; it is then asked to terminate, and killed if it does
not.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, process
from oiyolo.core.progress import progress
from oiyolo.training.monitors import IterationStats, MapMeasured, WeightsScored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.core.progress import Progress
    from oiyolo.training.monitors import Monitor, StopReason, TrainingEvent

    ReadLine = Callable[[bytes], Sequence[TrainingEvent]]

_TICK_INTERVAL_S: Final = 1.0


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt to train ended.

    Attributes:
        exit_code: The program's exit code, which is no proof of success: check what it wrote.
        stop_reason: Why it was stopped; ``None`` if it ended by itself.
        last_iteration: The last iteration that was logged; 0 if there was none.
        iteration_count: How many iterations were logged.
    """

    exit_code: int
    stop_reason: StopReason | None
    last_iteration: int
    iteration_count: int


def supervise(
    argv: Sequence[str],
    *,
    cwd: Path,
    log_path: Path,
    read: ReadLine,
    monitors: Sequence[Monitor] = (),
    total: int,
    start_iteration: int = 0,
    environment: Mapping[str, str] | None = None,
    stdin_text: str = "",
) -> AttemptResult:
    """Run a training program to its end, append its output to the log and show its progress.

    Args:
        argv: The command.
        cwd: Its working folder.
        log_path: The log of stdout and stderr, in whole lines and in the order they were written.
        read: Function that returns the events of a line.
        monitors: The monitors, in the order in which they are called.
        total: Iterations of the whole run.
        start_iteration: Iterations of earlier attempts.
        environment: Variables to set in addition to those of this process.
        stdin_text: Content of its stdin.
    """
    with (
        files.open_append(log_path) as log,
        progress("train", total=total, unit="it", initial=start_iteration) as bar,
    ):
        if log.tell() and not _ends_in_newline(log_path):
            log.write(b"\n")  # end a line that was cut off when darknet was killed
        output = _MonitoredOutput(read, monitors, ProgressDisplay(bar, start_iteration))

        def on_line(_: str, line: bytes) -> None:
            log.write(line + b"\n")
            output.add(line)

        exit_code = process.stream(
            argv,
            on_line,
            cwd=cwd,
            environment=environment,
            stdin_text=stdin_text,
            should_end=output.should_end,
            on_start=output.on_start,
        )
        last_iteration = output.display.last.iteration
        return AttemptResult(exit_code, output.stop_reason, last_iteration, output.iteration_count)


class _MonitoredOutput:
    """The output of the program, passed on to the progress display and the monitors."""

    def __init__(
        self, read: ReadLine, monitors: Sequence[Monitor], display: ProgressDisplay
    ) -> None:
        self.display = display
        self.stop_reason: StopReason | None = None
        self.iteration_count = 0
        self._read = read
        self._monitors = monitors
        self._next_tick_s = 0.0

    def on_start(self, process_id: int) -> None:
        """Pass on that the program was started."""
        for monitor in self._monitors:
            monitor.on_start(process_id)

    def add(self, line: bytes) -> None:
        """Process a line; once there is a stop reason, the monitors are not called any more."""
        events = self._read(line)
        if events:
            self._pass_on(events, time.monotonic())

    def _pass_on(self, events: Sequence[TrainingEvent], at_s: float) -> None:
        for event in events:
            self.iteration_count += isinstance(event, IterationStats)
            self.display.add(event)
            if self.stop_reason is None:
                self._call(lambda monitor, event=event: monitor.on_event(event, at_s))  # type: ignore[misc]

    def should_end(self, quiet_s: float) -> bool:
        """Return whether the program must stop, after ``quiet_s`` seconds without output."""
        if self.stop_reason is None:
            at_s = time.monotonic()
            if at_s >= self._next_tick_s:
                self._next_tick_s = at_s + _TICK_INTERVAL_S
                self._call(lambda monitor: monitor.on_tick(at_s, quiet_s))
                self._pass_on([e for monitor in self._monitors for e in monitor.new_events()], at_s)
        return self.stop_reason is not None

    def _call(self, method: Callable[[Monitor], StopReason | None]) -> None:
        """Call all monitors, because some only collect figures; the first stop reason counts."""
        for monitor in self._monitors:
            reason = method(monitor)
            self.stop_reason = self.stop_reason or reason


class ProgressDisplay:
    """The progress bar and its figures."""

    def __init__(self, bar: Progress, start_iteration: int) -> None:
        self.last = IterationStats(0, math.nan, math.nan)
        self._bar = bar
        self._done = start_iteration
        self._map = math.nan

    def add(self, event: TrainingEvent) -> None:
        """Show the figures of an event."""
        if isinstance(event, (MapMeasured, WeightsScored)):
            self._map = event.map
        if isinstance(event, IterationStats):
            self.last = event
            self._bar.set_postfix(**self._figures())
            self._bar.advance(max(0, event.iteration - self._done))
            self._done = max(self._done, event.iteration)

    def _figures(self) -> dict[str, object]:
        point = self.last
        figures = {  # the most important first: a narrow terminal has no room for all
            "avg": f"{point.avg_loss:.3f}",
            "mAP": "" if math.isnan(self._map) else f"{self._map:.1%}",
            "IOU": "" if math.isnan(point.iou) else f"{point.iou:.2f}",
            "img/s": "" if math.isnan(point.images_per_s) else f"{point.images_per_s:.0f}",
            "loss": f"{point.loss:.3f}",
        }
        return {name: text for name, text in figures.items() if text}


def release_memory() -> None:
    """Free the memory that planning used and make the C library return it to the system.

    A training runs for days, and needs little memory in this process.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
