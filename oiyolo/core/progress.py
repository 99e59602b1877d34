"""Progress on stderr: a bar on a terminal and in notebooks, else a plain line at intervals."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import logging
import sys
import time
from typing import TYPE_CHECKING, Final

from oiyolo.core import output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tqdm.std import tqdm

PLAIN_LINE_EVERY_S = 15.0
_ESTIMATE_AFTER_S = 10.0
_NARROW: Final = "{desc}: {percentage:.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_WIDE: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""The formats of a bar with figures, which tqdm's own format cuts off in a narrow terminal."""
_BAR_COLUMNS: Final = 12

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
        from tqdm.std import tqdm as bar  # noqa: PLC0415  (slow to import, needed only here)

        bar.monitor_interval = 0  # tqdm's monitor thread would outlive the bar
        scale = unit == "B"
        self._create_bar = functools.partial(
            bar,
            desc=what,
            total=total,
            unit=unit,
            unit_scale=scale,
            unit_divisor=1024 if scale else 1000,
            initial=initial,
            delay=delay_s,
            dynamic_ncols=True,
            file=output.lossy(sys.stderr),
        )
        self.tqdm: tqdm[None] | None = None if scale else self._create_bar()

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
        if self.unit == "B":
            amount = f"{self.done / 1e6:.0f} MB"
            if self.total:
                amount = f"{self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB"
        else:
            amount = f"{self.done} of {self.total}" if self.total else str(self.done)
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


def _is_interactive() -> bool:
    return getattr(sys.stderr, "isatty", bool)() or "ipykernel" in sys.modules


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
        display = (_Bar if _is_interactive() else _LogLines)(what, total, unit, initial, delay_s)
    try:
        yield display
    finally:
        display.close()
