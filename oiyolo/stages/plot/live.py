"""The part of plot that follows a training run in progress.

The charts are drawn again each time the log has grown or a checkpoint has been scored, and a status
line reports progress: in place on a terminal, with the overview chart in a notebook cell, as plain
lines elsewhere.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from oiyolo.core import progress
from oiyolo.core.results import images_html, text_html
from oiyolo.stages.plot.outputs import draw, load_outputs, with_events, write_recipe
from oiyolo.trainlog.follow import LogFollower

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.stages.plot.outputs import Plotted, Target
    from oiyolo.tracking.tensorboard import EventWriter
    from oiyolo.trainlog.tables import TrainLog

_POLL_S: Final = 0.5
_REST_RATIO: Final = 4.0  # idle time per refresh time, because darknet may need the CPU

_log = logging.getLogger("oiyolo")


def follow(target: Target, writer: EventWriter | None, *, every_s: float, idle_s: float) -> Plotted:
    """Draw the charts of a training run until it ends or Ctrl-C is pressed; return the last ones.

    Args:
        target: The log of the run.
        writer: Writer of its TensorBoard event file, if requested.
        every_s: Minimum time between two refreshes, in seconds.
        idle_s: Time in seconds without growth after which a log outside a run has ended.

    Raises:
        InputFormError: The training ended without an iteration line.
        KeyboardInterrupt: Ctrl-C was pressed before the first chart.
    """
    training = _LiveTraining(target, writer)
    report = _choose_reporter()
    try:
        _follow_until_over(training, report, every_s=every_s, idle_s=idle_s)
    except KeyboardInterrupt:
        if training.plotted is None:
            raise
    report(training, is_last=True)
    assert training.plotted is not None  # noqa: S101  (following ends with a chart)
    return training.plotted


class _LiveTraining:
    """A training run that is followed, with its latest charts."""

    def __init__(self, target: Target, writer: EventWriter | None) -> None:
        self.target = target
        self.writer = writer
        self.follower = LogFollower(target.log_path)
        self.plotted: Plotted | None = None
        self._scores_id: tuple[int, ...] = ()

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

    @property
    def log(self) -> TrainLog:
        """The log so far, with the present scores."""
        return self.target.with_scores(self.follower.log)

    def update(self) -> bool:
        """Read what was appended to the log; return whether the log or the scores have changed."""
        before, self._scores_id = self._scores_id, _file_id(self.target.scores_path)
        return self.follower.update() or self._scores_id != before

    def refresh(self) -> None:
        """Draw the charts again, unless the log has no iterations yet."""
        log = self.log
        if log.latest is not None:
            self.plotted = with_events(draw(self.target, log), self.target, self.writer)

    def finish(self) -> None:
        """Draw the final charts and write their recipe."""
        plotted = self.plotted
        if plotted is not None and not self.target.log_path.is_file():
            return  # the log was deleted
        recipe = self.target.recipe()
        if self.update() or plotted is None:
            plotted = load_outputs(self.target, recipe)[0] or draw(self.target, self.log)
        if not _ends_with_newline(self.target.log_path):  # which the follower has not read
            plotted = draw(self.target, self.target.read_log())
        self.plotted = with_events(plotted, self.target, self.writer)
        write_recipe(plotted, self.target, recipe)


def _follow_until_over(
    training: _LiveTraining, report: _Reporter, *, every_s: float, idle_s: float
) -> None:
    """Draw the charts each time log or scores have changed, until the training is over."""
    is_changed = False
    grown_at_s = due_s = time.monotonic()
    while True:
        is_over = training.is_over  # checked before reading, so that the last lines are read
        if training.update():
            is_changed = True
            grown_at_s = time.monotonic()
        is_idle = training.target.run is None and time.monotonic() - grown_at_s >= idle_s
        if is_over or is_idle:
            break
        if is_changed and time.monotonic() >= due_s:
            started_s = time.monotonic()
            training.refresh()
            is_changed = False
            due_s = time.monotonic() + max(every_s, _REST_RATIO * (time.monotonic() - started_s))
            report(training)
        time.sleep(min(_POLL_S, every_s, idle_s))
    if is_changed and training.plotted is not None:
        training.refresh()
    training.finish()


def _file_id(path: Path | None) -> tuple[int, ...]:
    """Return numbers that differ once a file was replaced; none if it does not exist."""
    try:
        status = None if path is None else path.stat()
    except FileNotFoundError:
        return ()
    return () if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - 1))
        return file.read(1) in {b"", b"\n"}


class _Reporter(Protocol):
    """Reports the status of a training run; ``is_last`` marks the final report."""

    def __call__(self, training: _LiveTraining, *, is_last: bool = False) -> None: ...


def _choose_reporter() -> _Reporter:
    """Return the reporter for the current output: notebook, terminal, log or none."""
    if progress.is_notebook():
        return _NotebookReporter()
    if not progress.enabled.get():
        return _report_nothing
    return _report_on_terminal if sys.stderr.isatty() else _PlainReporter()


def _report_nothing(training: _LiveTraining, *, is_last: bool = False) -> None:
    pass


def _report_on_terminal(training: _LiveTraining, *, is_last: bool = False) -> None:
    """Rewrite the line of a terminal; end it after the final report."""
    width = shutil.get_terminal_size().columns
    sys.stderr.write(f"\r\x1b[K{training.status_line[: width - 1]}" + ("\n" if is_last else ""))
    sys.stderr.flush()


class _PlainReporter:
    """Logs plain lines: a new kind of verdict at once, other changes at intervals."""

    def __init__(self) -> None:
        self._last_kind: str | None = None
        self._last_line = ""
        self._next_s = 0.0

    def __call__(self, training: _LiveTraining, *, is_last: bool = False) -> None:
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

    def __call__(self, training: _LiveTraining, *, is_last: bool = False) -> None:  # noqa: ARG002  (every report replaces the cell)
        charts = [] if training.plotted is None else training.plotted.charts
        overview = images_html(path for path in charts if path.stem == "overview")
        self._display.update(self._html(text_html(training.status_line) + overview))
