"""A training that is charted while it goes on, as a part of plot.

The charts are written anew when the log has grown, and a line says how it goes: in place on a
terminal, with the overview in a notebook's cell, as plain lines elsewhere.
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
from oiyolo.core.results import shown
from oiyolo.stages.plot.outputs import draw, left_before, sign
from oiyolo.trainlog.follow import LogFollower
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.stages.plot.outputs import Plotted, Target

EVERY_S: Final = 10.0
IDLE_S: Final = 300.0
_POLL_S: Final = 0.5
_REST: Final = 4.0  # times what a refresh took: darknet may need the processor

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class Pace:
    """How often a log is looked at.

    Attributes:
        every_s: The least time between two refreshes.
        idle_s: A log that is no run's has ended when it has not grown for so long.
    """

    every_s: float
    idle_s: float

    @classmethod
    def of(cls, every_s: float | None, idle_s: float | None) -> Pace:
        """Take what was given, and the defaults for the rest.

        Raises:
            UsageError: A time is not above 0.
        """
        pace = cls(EVERY_S if every_s is None else every_s, IDLE_S if idle_s is None else idle_s)
        for name, value in (("every-s", pace.every_s), ("idle-s", pace.idle_s)):
            if not value > 0:
                raise UsageError(
                    f"--{name} is a time", expected="seconds above 0", found=str(value)
                )
        return pace

    @property
    def poll_s(self) -> float:
        """How often to look whether the log has grown."""
        return min(_POLL_S, self.every_s, self.idle_s)


def follow(target: Target, pace: Pace, *, events: Path | None) -> Plotted:
    """Chart a training until it ends or is no longer watched; see ``plot``.

    Raises:
        InputFormError: It ended without an iteration line.
        KeyboardInterrupt: It was no longer watched before there was a chart.
    """
    watch = _Watch(target, events)
    with _teller() as teller:
        try:
            _until_over(watch, pace, teller)
        except KeyboardInterrupt:
            if watch.plotted is None:
                raise
        teller.tell(watch, last=True)
    assert watch.plotted is not None  # noqa: S101  (it ends with a chart)
    return watch.plotted


class _Watch:
    """A training that is watched: what was drawn of it last."""

    def __init__(self, target: Target, events: Path | None) -> None:
        self.target = target
        self.events = events
        self.follower = LogFollower(target.log_path)
        self.plotted: Plotted | None = None
        self.new_events = 0

    @property
    def is_over(self) -> bool:
        """Nobody trains this run; unknown of a log that is no run's."""
        run = self.target.run
        return run is not None and not run.lives

    @property
    def line(self) -> str:
        """How it goes, in a line."""
        if self.plotted is None:
            return f"{self.target.name}: no iterations yet"
        last = self.plotted.numbers["last"]
        record = self.target.run.record if self.target.run is not None else {}
        of = f" of {record['max_batches']:,}" if "max_batches" in record else ""
        state = f" · {record.get('state', 'unknown')}" if self.is_over else ""
        where = f"{self.target.name}: iteration {last['iteration']:,}{of}"
        return f"{where} · {self.plotted.verdict}{state}"

    @property
    def kind(self) -> str:
        """The verdict's kind, by which news is known."""
        return "" if self.plotted is None else str(self.plotted.numbers["verdict"]["kind"])

    def refresh(self) -> None:
        """Draw what there is; leave all as it is before the first iteration."""
        log = self.follower.log
        if log.latest is not None:
            self.plotted = self._with_events(draw(self.target, log))

    def end(self) -> None:
        """Draw what came last, and say what it was made from."""
        if self.plotted is not None and not self.target.log_path.is_file():
            return  # somebody took it away
        made_from = self.target.made_from()
        if self.follower.update() or self.plotted is None:
            self.plotted = left_before(self.target, made_from) or draw(
                self.target, self.follower.log
            )
            self.plotted = self._with_events(self.plotted)
        if not _ends_whole(self.target.log_path):  # the follower waits for the rest in vain
            self.plotted = self._with_events(draw(self.target, read_log(self.target.log_path)))
        sign(self.plotted, self.target, made_from)

    def _with_events(self, plotted: Plotted) -> Plotted:
        if self.events is None:
            return plotted
        from oiyolo.trainlog.tensorboard import write_events  # noqa: PLC0415  (numpy)

        self.new_events += write_events(plotted.log, self.events, log_path=self.target.log_path)
        return replace(plotted, events=self.events, new_events=self.new_events)


def _until_over(watch: _Watch, pace: Pace, teller: _Teller) -> None:
    """Draw again and again until the training is over."""
    news = False
    grown_at_s = due_s = time.monotonic()
    while True:
        over = watch.is_over  # asked before the log is read: what it wrote last is in there
        if watch.follower.update():
            news = True
            grown_at_s = time.monotonic()
        idle = watch.target.run is None and time.monotonic() - grown_at_s >= pace.idle_s
        if over or idle:
            break
        if news and time.monotonic() >= due_s:
            began_s = time.monotonic()
            watch.refresh()
            news = False
            due_s = time.monotonic() + max(pace.every_s, _REST * (time.monotonic() - began_s))
            teller.tell(watch)
        time.sleep(pace.poll_s)
    if news and watch.plotted is not None:
        watch.refresh()
    watch.end()


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - 1))
        return file.read(1) in {b"", b"\n"}


class _Teller(Protocol):
    """Says how a training goes."""

    def tell(self, watch: _Watch, *, last: bool = False) -> None:
        """Say it as it is now."""


class _Silent:
    def tell(self, watch: _Watch, *, last: bool = False) -> None:
        """See ``_Teller``."""


class _InPlace:
    """One line of a terminal, written over."""

    def tell(self, watch: _Watch, *, last: bool = False) -> None:
        """See ``_Teller``."""
        width = shutil.get_terminal_size().columns
        sys.stderr.write(f"\r\x1b[K{watch.line[: width - 1]}" + ("\n" if last else ""))
        sys.stderr.flush()


class _Lines:
    """Plain lines: what is new at once, the rest every so often."""

    def __init__(self) -> None:
        self._kind: str | None = None
        self._said = ""
        self._next_s = 0.0

    def tell(self, watch: _Watch, *, last: bool = False) -> None:
        """See ``_Teller``."""
        due = time.monotonic() >= self._next_s
        if watch.line != self._said and (last or due or watch.kind != self._kind):
            self._kind, self._said = watch.kind, watch.line
            self._next_s = time.monotonic() + progress.PLAIN_LINE_EVERY_S
            _log.info("%s", watch.line)


class _Cell:
    """The cell of a notebook: the line, and the overview below it."""

    def __init__(self) -> None:
        from IPython import display  # noqa: PLC0415  (only notebooks have it)

        untyped: Any = display
        self._html = untyped.HTML
        self._display = untyped.display(self._html(""), display_id=True)

    def tell(self, watch: _Watch, *, last: bool = False) -> None:  # noqa: ARG002  (always anew)
        """See ``_Teller``."""
        charts = [] if watch.plotted is None else watch.plotted.charts
        overview = shown(path for path in charts if path.stem == "overview")
        self._display.update(self._html(f"<pre>{html.escape(watch.line)}</pre>{overview}"))


def _in_a_cell() -> bool:
    from IPython import get_ipython  # noqa: PLC0415  (only notebooks have it)

    return get_ipython() is not None


@contextlib.contextmanager
def _teller() -> Iterator[_Teller]:
    """Choose how to say it by who watches."""
    if "ipykernel" in sys.modules and _in_a_cell():
        yield _Cell()
    elif not progress.shown.get():
        yield _Silent()
    elif sys.stderr.isatty():
        yield _InPlace()
    else:
        yield _Lines()
