"""Watching a program that trains: its log whole, its progress live, stopped when a rule says so.

Knows nothing of what trains. A reader turns its lines into facts, rules turn facts and time into a
verdict (``watch``), and on a verdict the program is asked to end, then killed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.core.progress import progress
from oiyolo.training.monitors import Measured, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.core.progress import Progress
    from oiyolo.training.monitors import Fact, Rule, Verdict

    Reader = Callable[[bytes], Sequence[Fact]]

_LOOK_EVERY_S: Final = 1.0
_PACES: Final = 50
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


@dataclass(frozen=True)
class Ended:
    """How a part of a training ended.

    Attributes:
        exit_code: The program's, which says little: judge it by what it wrote.
        verdict: Why it was stopped; ``None`` if it ended by itself.
        iteration: The last one that was heard of; 0 if there was none.
        iterations: How many lines of iterations there were.
    """

    exit_code: int
    verdict: Verdict | None
    iteration: int
    iterations: int


def supervise(
    argv: Sequence[str],
    *,
    cwd: Path,
    log_path: Path,
    read: Reader,
    rules: Sequence[Rule] = (),
    total: int,
    done: int = 0,
    environment: Mapping[str, str] | None = None,
    typed: str = "",
) -> Ended:
    """Run a training to its end; append its lines to the log and show how it goes.

    Args:
        argv: The command.
        cwd: The folder it runs in.
        log_path: Both of its streams go there as whole lines, in the order they were written.
        read: Gives the facts of a line.
        rules: What watches it, in the order in which they are asked.
        total: Iterations in all.
        done: Iterations that were done before.
        environment: Variables to set beside ours.
        typed: What a person would have to type.
    """
    with (
        log_path.open("ab", buffering=0) as log,
        progress("train", total=total, unit="it", initial=done) as told,
    ):
        if log.tell() and not _ends_in_newline(log_path):
            log.write(b"\n")  # what a kill left of a line stays apart from what follows
        watched = _Watched(read, rules, _Shown(told, total, done))

        def on_line(_: str, line: bytes) -> None:
            log.write(line + b"\n")
            watched.take(line)

        exit_code = process.stream(
            argv,
            on_line,
            cwd=cwd,
            environment=environment,
            typed=typed,
            should_end=watched.should_end,
        )
        verdict = watched.verdict
        return Ended(exit_code, verdict, watched.shown.last.iteration, watched.iterations)


class _Watched:
    """What was heard of the program so far, and what the rules said to it."""

    def __init__(self, read: Reader, rules: Sequence[Rule], shown: _Shown) -> None:
        self.shown = shown
        self.verdict: Verdict | None = None
        self.iterations = 0
        self._read = read
        self._rules = rules
        self._next_look_s = 0.0

    def take(self, line: bytes) -> None:
        """Take a line; after a verdict nobody is asked any more, as the end is near."""
        facts = self._read(line)
        if not facts:
            return
        at_s = time.monotonic()
        for fact in facts:
            self.iterations += isinstance(fact, Point)
            self.shown.take(fact, at_s)
            if self.verdict is None:
                self._ask(lambda rule, fact=fact: rule.hear(fact, at_s))  # type: ignore[misc]

    def should_end(self, quiet_s: float) -> bool:
        """Tell whether the program has to end; asked all the time."""
        if self.verdict is None:
            at_s = time.monotonic()
            if at_s >= self._next_look_s:
                self._next_look_s = at_s + _LOOK_EVERY_S
                self._ask(lambda rule: rule.look(at_s, quiet_s))
        return self.verdict is not None

    def _ask(self, question: Callable[[Rule], Verdict | None]) -> None:
        """Ask all of them, as some only keep count; the first answer counts."""
        for rule in self._rules:
            answer = question(rule)
            self.verdict = self.verdict or answer


class _Shown:
    """The live progress."""

    def __init__(self, told: Progress, total: int, done: int) -> None:
        self.last = Point(0, math.nan, math.nan)
        self._told = told
        self._total = total
        self._done = done
        self._map = math.nan
        self._moments: deque[tuple[float, int]] = deque(maxlen=_PACES)

    def take(self, fact: Fact, at_s: float) -> None:
        """Show a fact."""
        if isinstance(fact, Measured):
            self._map = fact.map
        if isinstance(fact, Point):
            self.last = fact
            self._moments.append((at_s, fact.iteration))
            self._told.tell(**self._figures())
            self._told.advance(max(0, fact.iteration - self._done))
            self._done = max(self._done, fact.iteration)

    def _figures(self) -> dict[str, object]:
        point = self.last
        known = {
            "loss": f"{point.loss:.3f}",
            "avg": f"{point.avg_loss:.3f}",
            "IOU": "" if math.isnan(point.iou) else f"{point.iou:.2f}",
            "mAP": "" if math.isnan(self._map) else f"{self._map:.1%}",
            "img/s": "" if math.isnan(point.images_per_s) else f"{point.images_per_s:.0f}",
            "left": self._left(),
        }
        return {name: text for name, text in known.items() if text}

    def _left(self) -> str:
        """Give the time that is left at the pace of the last iterations."""
        (first_s, first), (last_s, last) = self._moments[0], self._moments[-1]
        if last <= first:
            return ""
        return told_time((last_s - first_s) / (last - first) * max(0, self._total - last))


def told_time(seconds: float) -> str:
    """Give a time as a person says it: "2 d 3 h", "1 h 5 min", "12 min", "40 s"."""
    whole = round(seconds)
    if whole >= _DAY_S:
        return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"
    if whole >= _HOUR_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _MINUTE_S} min" if whole >= _MINUTE_S else f"{whole} s"


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
