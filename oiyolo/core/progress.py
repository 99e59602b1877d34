"""Progress to stderr: a bar where a person watches, one plain line every so often elsewhere."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tqdm.std import tqdm

PLAIN_LINE_EVERY_S = 15.0
_KNOWN_AFTER_S = 10.0

shown: contextvars.ContextVar[bool] = contextvars.ContextVar("shown", default=True)
"""False silences all progress (``--quiet``)."""

_log = logging.getLogger("oiyolo")


class Progress(Protocol):
    """What a stage tells about its work."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""

    def tell(self, **figures: object) -> None:
        """Figures to show beside the count, such as ``loss=1.2``."""


class _Bar:
    """A tqdm bar; a download's begins with its first bytes, so an unchanged file has none."""

    def __init__(self, what: str, total: int | None, unit: str, initial: int) -> None:
        from tqdm.std import tqdm as bar  # noqa: PLC0415  (cron and pipes never need it)

        bar.monitor_interval = 0  # its watching thread would outlive the bar
        scale = unit == "B"
        self._begin = functools.partial(
            bar,
            desc=what,
            total=total,
            unit=unit,
            unit_scale=scale,
            unit_divisor=1024 if scale else 1000,
            initial=initial,
            dynamic_ncols=True,
            file=sys.stderr,
        )
        self.tqdm: tqdm[None] | None = None if scale else self._begin()

    def advance(self, count: int = 1) -> None:
        """See ``Progress``."""
        self._begun().update(count)

    def tell(self, **figures: object) -> None:
        """See ``Progress``."""
        self._begun().set_postfix(figures, refresh=False)

    def close(self) -> None:
        """Leave the finished bar standing."""
        if self.tqdm is not None:
            self.tqdm.close()

    def _begun(self) -> tqdm[None]:
        if self.tqdm is None:
            self.tqdm = self._begin()
        return self.tqdm


class _Lines:
    """One plain log line every ``PLAIN_LINE_EVERY_S``, and none for quick work."""

    def __init__(self, what: str, total: int | None, unit: str, initial: int) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self.first = initial
        self.began_s = time.monotonic()
        self.figures: dict[str, object] = {}
        self.next_s = time.monotonic() + PLAIN_LINE_EVERY_S

    def advance(self, count: int = 1) -> None:
        """See ``Progress``."""
        self.done += count
        if time.monotonic() >= self.next_s:
            self.next_s = time.monotonic() + PLAIN_LINE_EVERY_S
            _log.info("%s", str(self))  # as it stands now, whenever the record is formatted

    def tell(self, **figures: object) -> None:
        """See ``Progress``."""
        self.figures = figures

    def close(self) -> None:
        """Nothing stays open."""

    def __str__(self) -> str:
        if self.unit == "B":
            amount = f"{self.done / 1e6:.0f} MB"
            if self.total:
                amount = f"{self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB"
        else:
            amount = f"{self.done} of {self.total}" if self.total else str(self.done)
        told = [f"{name} {value}" for name, value in self.figures.items()]
        told += [f"{left} left"] if (left := self._left()) else []
        return f"{self.what}: {amount}" + (f" ({', '.join(told)})" if told else "")

    def _left(self) -> str:
        """Give how long the rest will take at the pace so far; nothing while nobody can know."""
        passed_s, came = time.monotonic() - self.began_s, self.done - self.first
        if not self.total or came <= 0 or passed_s < _KNOWN_AFTER_S or self.done >= self.total:
            return ""
        left = round(passed_s * (self.total - self.done) / came)
        return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"


class _Silent:
    def advance(self, count: int = 1) -> None:
        """See ``Progress``."""

    def tell(self, **figures: object) -> None:
        """See ``Progress``."""

    def close(self) -> None:
        """Nothing stays open."""


NO_PROGRESS: Progress = _Silent()
"""For work that nobody watches."""


def _somebody_watches() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextlib.contextmanager
def progress(
    what: str, *, total: int | None = None, unit: str = "", initial: int = 0
) -> Iterator[Progress]:
    """Show the progress of ``what`` while the block runs.

    Args:
        what: The work, in a word or two.
        total: How many there are in all, where it is known.
        unit: What is counted; "B" counts bytes.
        initial: How many were done before.
    """
    if not shown.get() or total == 0:
        chosen: _Bar | _Lines | _Silent = _Silent()
    elif _somebody_watches():
        chosen = _Bar(what, total, unit, initial)
    else:
        chosen = _Lines(what, total, unit, initial)
    try:
        yield chosen
    finally:
        chosen.close()
