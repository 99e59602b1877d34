"""Progress: a bar on a terminal and in notebooks, else a plain line at intervals.

A terminal's bar and plain lines go to stderr. In a notebook, the bar is a line in the output of the
cell that is updated in place, and one short line remains of it. A widget would leave its state in
the notebook's file even after it was closed (nbclient/client.py, ``handle_comm_msg``), and GitHub
shows no widgets.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import io
import itertools
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import output
from oiyolo.core.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tqdm.std import tqdm

PLAIN_LINE_EVERY_S = 15.0
_ESTIMATE_AFTER_S = 10.0
_NARROW: Final = "{desc}: {percentage:.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_WIDE: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""The formats of a bar with figures, which tqdm's own format cuts off in a narrow terminal."""
_BAR_COLUMNS: Final = 12
_NOTEBOOK_COLUMNS: Final = 100

enabled: contextvars.ContextVar[bool] = contextvars.ContextVar("enabled", default=True)
"""``False`` hides all progress (``--quiet``)."""

_log = logging.getLogger("oiyolo")


class Progress:
    """How a stage reports its progress; this class shows nothing."""

    def advance(self, count: int = 1) -> None:
        """Add ``count`` to the work that is done."""

    def set_postfix(self, **figures: object) -> None:
        """Set the figures that are shown after the count, such as ``loss=1.2``.

        In a narrow terminal, the last ones are left out.
        """

    def close(self) -> None:
        """End the display; a bar stays on the screen."""


NO_PROGRESS: Final = Progress()
"""For work whose progress is not reported."""


class _Bar(Progress):
    """A tqdm bar. A bar of bytes appears with the first byte, so an unchanged file shows none."""

    def __init__(
        self, what: str, total: int | None, unit: str, initial: int, delay_s: float
    ) -> None:
        scale = unit == "B"
        self._create_bar = functools.partial(
            self._bar_class(),
            desc=what,
            total=total,
            unit=unit,
            unit_scale=scale,
            unit_divisor=1024 if scale else 1000,
            initial=initial,
            delay=delay_s,
            **self._display_options(),
        )
        self.tqdm: tqdm[None] | None = None if scale else self._create_bar()

    @classmethod
    def _bar_class(cls) -> Callable[..., tqdm[None]]:
        from tqdm.std import tqdm as bar  # noqa: PLC0415  (slow to import, needed only here)

        bar.monitor_interval = 0  # tqdm's monitor thread would outlive the bar
        return bar

    @staticmethod
    def _display_options() -> dict[str, Any]:
        return {"dynamic_ncols": True, "file": output.lossy(sys.stderr)}

    def advance(self, count: int = 1) -> None:
        self._bar().update(count)

    def set_postfix(self, **figures: object) -> None:
        bar = self._bar()
        state = {**bar.format_dict, "postfix": "", "bar_format": _NARROW}
        room = (state["ncols"] or 0) - len(bar.format_meter(**state))
        shown = _fitting(figures, room) if state["ncols"] else figures
        left = room - sum(map(len, _figure_texts(shown)))
        is_wide = not state["ncols"] or (len(shown) == len(figures) and left >= _BAR_COLUMNS)
        bar.bar_format = _WIDE if is_wide else _NARROW
        bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        if self.tqdm is not None:
            self.tqdm.close()

    def _bar(self) -> tqdm[None]:
        if self.tqdm is None:
            self.tqdm = self._create_bar()
        return self.tqdm


class _NotebookBar(_Bar):
    """A tqdm bar in the output of a notebook's cell, of which one line remains."""

    @classmethod
    def _bar_class(cls) -> Callable[..., tqdm[None]]:
        class CellBar(super()._bar_class()):  # type: ignore[misc]  # tqdm is imported on demand
            @staticmethod
            def status_printer(_file: object) -> Callable[[str], None]:
                return _CellLine()

        return CellBar

    @staticmethod
    def _display_options() -> dict[str, Any]:
        return {"ncols": _NOTEBOOK_COLUMNS, "file": io.StringIO()}  # it gets only line feeds

    def close(self) -> None:
        if self.tqdm is not None:
            # The share and the remaining time are of use only while the bar moves.
            amount = "{n_fmt}/{total_fmt}" if self.tqdm.total else "{n_fmt}"
            amount += "B" if self.tqdm.unit == "B" else ""
            self.tqdm.bar_format = "{desc}: " + amount + " [{elapsed}{postfix}]"
            self.tqdm.close()


class _CellLine:
    """A line in the output of a notebook's cell, updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, text: str) -> None:
        """Show the text in place of the last one."""
        from IPython import display  # noqa: PLC0415  (installed only with notebooks)

        cell: Any = display
        content = {"text/plain": text}
        if self._handle is None:
            self._handle = cell.display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _figure_texts(figures: Mapping[str, object]) -> list[str]:
    """Return each figure as tqdm shows it."""
    return [f", {name}={value}" for name, value in figures.items()]


def _fitting(figures: Mapping[str, object], columns: int) -> dict[str, object]:
    """Return the first figures that fit into the columns of a terminal."""
    ends = itertools.accumulate(map(len, _figure_texts(figures)))
    return {name: figures[name] for name, end in zip(figures, ends, strict=True) if end <= columns}


class _LogLines(Progress):
    """A plain log line every ``PLAIN_LINE_EVERY_S``; none for work that is quick."""

    def __init__(
        self, what: str, total: int | None, unit: str, initial: int, delay_s: float
    ) -> None:
        del delay_s  # the first line comes later
        self.what, self.total, self.unit = what, total, unit
        self.done = self.first = initial
        self.started_s = time.monotonic()
        self.figures: dict[str, object] = {}
        self.next_s = time.monotonic() + PLAIN_LINE_EVERY_S

    def advance(self, count: int = 1) -> None:
        self.done += count
        if time.monotonic() >= self.next_s:
            self.next_s = time.monotonic() + PLAIN_LINE_EVERY_S
            _log.info("%s", str(self))  # formatted now: a handler may format the record later

    def set_postfix(self, **figures: object) -> None:
        self.figures = figures

    def __str__(self) -> str:
        shown = format_bytes if self.unit == "B" else str
        amount = shown(self.done) + (f" of {shown(self.total)}" if self.total else "")
        details = [f"{name} {value}" for name, value in self.figures.items()]
        details += [f"{left} left"] if (left := self._remaining_time()) else []
        return f"{self.what}: {amount}" + (f" ({', '.join(details)})" if details else "")

    def _remaining_time(self) -> str:
        """Return the remaining time at the rate so far, as h:mm:ss; empty without an estimate."""
        elapsed_s, new = time.monotonic() - self.started_s, self.done - self.first
        if not self.total or new <= 0 or elapsed_s < _ESTIMATE_AFTER_S or self.done >= self.total:
            return ""
        left_s = round(elapsed_s * (self.total - self.done) / new)
        return f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02}"


def is_notebook() -> bool:
    """Return whether the code of this process is run in the cells of a notebook."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython  # noqa: PLC0415  (installed only with notebooks)

    return hasattr(get_ipython(), "kernel")


def _display_class() -> type[_Bar | _LogLines]:
    """Return how progress is shown on the present output."""
    if is_notebook():
        return _NotebookBar
    return _Bar if getattr(sys.stderr, "isatty", bool)() else _LogLines


@contextlib.contextmanager
def progress(
    what: str,
    *,
    total: int | None = None,
    unit: str = "",
    initial: int = 0,
    delay_s: float = 0.0,
) -> Iterator[Progress]:
    """Show the progress of ``what`` while the block runs.

    Args:
        what: The work, in a word or two.
        total: The amount of work in all, if it is known.
        unit: What is counted; "B" is bytes.
        initial: The amount that was done before.
        delay_s: Time in seconds after which a bar appears, for work that is usually quick.
    """
    if not enabled.get() or total == 0:
        display = NO_PROGRESS
    else:
        display = _display_class()(what, total, unit, initial, delay_s)
    try:
        yield display
    finally:
        display.close()


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Show no progress in the block, whose caller shows its own."""
    token = enabled.set(False)
    try:
        yield
    finally:
        enabled.reset(token)
