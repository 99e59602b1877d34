"""The part of plot that follows a training run in progress.

The charts are drawn again each time the log has grown, and a status line reports progress: in place
on a terminal, with the overview chart in a notebook cell, as plain lines elsewhere.
"""

from __future__ import annotations

import contextlib
import html
import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from oiyolo.core import progress
from oiyolo.core.errors import UsageError
from oiyolo.core.results import images_html
from oiyolo.stages.plot.outputs import draw, load_outputs, write_recipe
from oiyolo.trainlog.follow import LogFollower
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.stages.plot.outputs import Plotted, Target

EVERY_S: Final = 10.0
IDLE_S: Final = 300.0
_POLL_S: Final = 0.5
_REST_RATIO: Final = 4.0  # idle time per refresh time, because darknet may need the CPU

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class FollowIntervals:
    """The time intervals of following a log.

    Attributes:
        every_s: Minimum time between two refreshes, in seconds.
        idle_s: Time in seconds without growth after which a log outside a run has ended.
    """

    every_s: float
    idle_s: float

    @classmethod
    def from_options(cls, every_s: float | None, idle_s: float | None) -> FollowIntervals:
        """Return the intervals, with defaults for options that are None.

        Raises:
            UsageError: An interval is not above 0.
        """
        intervals = cls(
            EVERY_S if every_s is None else every_s, IDLE_S if idle_s is None else idle_s
        )
        for name, value in (("every-s", intervals.every_s), ("idle-s", intervals.idle_s)):
            if not value > 0:
                raise UsageError(f"invalid --{name}", expected="seconds above 0", found=str(value))
        return intervals

    @property
    def poll_s(self) -> float:
        """Interval between checks of the log, in seconds."""
        return min(_POLL_S, self.every_s, self.idle_s)


def follow(target: Target, intervals: FollowIntervals, *, events: Path | None) -> Plotted:
    """Draw the charts of a training run until it ends or Ctrl-C is pressed; return the last ones.

    Args:
        target: The log of the run.
        intervals: The refresh and idle intervals.
        events: Folder for TensorBoard event files, if any.

    Raises:
        InputFormError: The training ended without an iteration line.
        KeyboardInterrupt: Ctrl-C was pressed before the first chart.
    """
    training = _LiveTraining(target, events)
    with _choose_reporter() as reporter:
        try:
            _follow_until_over(training, intervals, reporter)
        except KeyboardInterrupt:
            if training.plotted is None:
                raise
        reporter.report(training, is_last=True)
    assert training.plotted is not None  # noqa: S101  (following ends with a chart)
    return training.plotted


class _LiveTraining:
    """A training run that is followed, with its latest charts."""

    def __init__(self, target: Target, events: Path | None) -> None:
        self.target = target
        self.events = events
        self.follower = LogFollower(target.log_path)
        self.plotted: Plotted | None = None
        self.new_events = 0

    @property
    def is_over(self) -> bool:
        """Whether no process trains this run any more; ``False`` for a log outside a run."""
        run = self.target.run
        return run is not None and not run.is_training

    @property
    def status_line(self) -> str:
        """Iteration, verdict and state of the training in one line."""
        if self.plotted is None:
            return f"{self.target.name}: no iterations yet"
        latest = self.plotted.numbers["last"]
        record = self.target.run.record if self.target.run is not None else {}
        total = f" of {record['max_batches']:,}" if "max_batches" in record else ""
        state = f" · {record.get('state', 'unknown')}" if self.is_over else ""
        prefix = f"{self.target.name}: iteration {latest['iteration']:,}{total}"
        return f"{prefix} · {self.plotted.verdict}{state}"

    @property
    def verdict_kind(self) -> str:
        """Kind of the latest verdict; a change of it is reported at once."""
        return "" if self.plotted is None else str(self.plotted.numbers["verdict"]["kind"])

    def refresh(self) -> None:
        """Draw the charts again, unless the log has no iterations yet."""
        log = self.follower.log
        if log.latest is not None:
            self.plotted = self._with_events(draw(self.target, log))

    def finish(self) -> None:
        """Draw the final charts and write their recipe."""
        if self.plotted is not None and not self.target.log_path.is_file():
            return  # the log was deleted
        recipe = self.target.recipe()
        if self.follower.update() or self.plotted is None:
            self.plotted = load_outputs(self.target, recipe) or draw(self.target, self.follower.log)
            self.plotted = self._with_events(self.plotted)
        if not _ends_with_newline(self.target.log_path):  # which the follower has not read
            self.plotted = self._with_events(draw(self.target, read_log(self.target.log_path)))
        write_recipe(self.plotted, self.target, recipe)

    def _with_events(self, plotted: Plotted) -> Plotted:
        if self.events is None:
            return plotted
        from oiyolo.trainlog.tensorboard import write_events  # noqa: PLC0415  (numpy)

        self.new_events += write_events(plotted.log, self.events, log_path=self.target.log_path)
        return replace(plotted, events=self.events, new_events=self.new_events)


def _follow_until_over(
    training: _LiveTraining, intervals: FollowIntervals, reporter: _Reporter
) -> None:
    """Draw the charts each time the log has grown, until the training is over."""
    has_new_lines = False
    grown_at_s = due_s = time.monotonic()
    while True:
        is_over = training.is_over  # checked before reading, so that the last lines are read
        if training.follower.update():
            has_new_lines = True
            grown_at_s = time.monotonic()
        is_idle = training.target.run is None and time.monotonic() - grown_at_s >= intervals.idle_s
        if is_over or is_idle:
            break
        if has_new_lines and time.monotonic() >= due_s:
            started_s = time.monotonic()
            training.refresh()
            has_new_lines = False
            due_s = time.monotonic() + max(
                intervals.every_s, _REST_RATIO * (time.monotonic() - started_s)
            )
            reporter.report(training)
        time.sleep(intervals.poll_s)
    if has_new_lines and training.plotted is not None:
        training.refresh()
    training.finish()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - 1))
        return file.read(1) in {b"", b"\n"}


class _Reporter(Protocol):
    """Reports the status of a training run."""

    def report(self, training: _LiveTraining, *, is_last: bool = False) -> None:
        """Report the current status; ``is_last`` marks the final report."""


class _SilentReporter:
    def report(self, training: _LiveTraining, *, is_last: bool = False) -> None:
        """Report nothing."""


class _TerminalReporter:
    """Rewrites one line of a terminal."""

    def report(self, training: _LiveTraining, *, is_last: bool = False) -> None:
        """Rewrite the status line; end it after the final report."""
        width = shutil.get_terminal_size().columns
        sys.stderr.write(f"\r\x1b[K{training.status_line[: width - 1]}" + ("\n" if is_last else ""))
        sys.stderr.flush()


class _PlainReporter:
    """Logs plain lines: a new kind of verdict at once, other changes at intervals."""

    def __init__(self) -> None:
        self._last_kind: str | None = None
        self._last_line = ""
        self._next_s = 0.0

    def report(self, training: _LiveTraining, *, is_last: bool = False) -> None:
        """Log the status line if it has changed and is due."""
        is_due = time.monotonic() >= self._next_s
        if training.status_line != self._last_line and (
            is_last or is_due or training.verdict_kind != self._last_kind
        ):
            self._last_kind, self._last_line = training.verdict_kind, training.status_line
            self._next_s = time.monotonic() + progress.PLAIN_LINE_EVERY_S
            _log.info("%s", training.status_line)


class _NotebookReporter:
    """Shows the status line and the overview chart in a notebook cell."""

    def __init__(self) -> None:
        from IPython import display  # noqa: PLC0415  (installed only with notebooks)

        ipython_display: Any = display
        self._html = ipython_display.HTML
        self._display = ipython_display.display(self._html(""), display_id=True)

    def report(self, training: _LiveTraining, *, is_last: bool = False) -> None:  # noqa: ARG002  (every report replaces the cell)
        """Show the status line and the overview."""
        charts = [] if training.plotted is None else training.plotted.charts
        overview = images_html(path for path in charts if path.stem == "overview")
        self._display.update(
            self._html(f"<pre>{html.escape(training.status_line)}</pre>{overview}")
        )


def _in_notebook() -> bool:
    from IPython import get_ipython  # noqa: PLC0415  (installed only with notebooks)

    return get_ipython() is not None


@contextlib.contextmanager
def _choose_reporter() -> Iterator[_Reporter]:
    """Yield the reporter for the current output: notebook, terminal, log or none."""
    if "ipykernel" in sys.modules and _in_notebook():
        yield _NotebookReporter()
    elif not progress.enabled.get():
        yield _SilentReporter()
    elif sys.stderr.isatty():
        yield _TerminalReporter()
    else:
        yield _PlainReporter()
