"""Score new weights on the valid split while darknet trains.

One process at a time does this, in the lowest priority (``core.process.BackgroundProcess``). It
gets as many threads as darknet leaves processors unused. Where none is unused, it hardly advances
until darknet waits, or has ended. Its scores are in ``checkpoint_scores.json``; the best weights
are kept. Nothing that happens to it stops the training.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core import process
from oiyolo.training.monitors import Monitor, ScoringEnded, WeightsScored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.core.process import ProcessResult
    from oiyolo.darknet.forks import Fork
    from oiyolo.training.checkpoints import CheckpointKeeper, Checkpoints
    from oiyolo.training.monitors import TrainingEvent
    from oiyolo.training.run import MapSource, Run

_log = logging.getLogger("oiyolo")

MAX_FAILURES: Final = 3
"""Failures in a row after which no more weights are scored: the next would fail, too."""
_OWN_MAP: Final = 'set [train] map = "own" and start a new run'
_POLL_S: Final = 0.1
_MAX_REASON: Final = 300
_ROUNDING: Final = 0.25
"""Part of a processor that darknet may use in addition to whole ones without taking another."""
_PROGRAM: Final = "from oiyolo.stages.evaluate.background import score; print(score(*sys.argv[1:]))"
_ENVIRONMENT: Final = {
    "CUDA_VISIBLE_DEVICES": "",  # the GPU's memory is darknet's
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def map_text(
    source: MapSource, fork: Fork, engine: str = "darknet", *, has_valid: bool = True
) -> str:
    """Return how mAP will be measured during a training, in words that follow "will" or "would".

    Args:
        source: Who measures it.
        fork: The fork of darknet.
        engine: Key of the training engine.
        has_valid: Whether there are images in the valid split.
    """
    if not has_valid:
        return "not measure mAP, because the valid split has no images"
    if source == "own":
        return "score new weights on valid during the training, in the lowest priority"
    if engine == "torch":
        return f"not measure mAP: the torch engine cannot ({_OWN_MAP})"
    if fork.map_flags:
        return f"let darknet measure mAP on valid ({' '.join(fork.map_flags)})"
    return f"not measure mAP: {fork.title} cannot ({_OWN_MAP})"


class Scoring(Protocol):  # a BackgroundProcess
    """The process that scores weights; it prints ``iteration`` and ``valid_map50`` as JSON last."""

    def poll(self) -> ProcessResult | None:
        """Return how it ended; ``None`` while it runs."""

    def kill(self) -> None:
        """End it at once."""


class StartScoring(Protocol):
    """A function that starts to score weights."""

    def __call__(self, weights_path: Path, threads: int, *, is_idle: bool) -> Scoring:
        """Score weights with a number of threads; in the lowest priority if ``is_idle``."""


def scoring_process(project_folder: Path, run: Run, environment: Mapping[str, str]) -> StartScoring:
    """Return a function that starts to score weights.

    Args:
        project_folder: The run's project.
        run: The run.
        environment: Variables with the options that differ from the project's file.
    """

    def start(weights_path: Path, threads: int, *, is_idle: bool) -> Scoring:
        words = (project_folder, run.name, weights_path, threads)
        return process.BackgroundProcess(
            [*process.python_command(_PROGRAM), *map(str, words)],
            environment={**environment, **_ENVIRONMENT},
            is_idle=is_idle,
        )

    return start


@dataclass(frozen=True)
class _Current:
    """The weights that are being scored."""

    scoring: Scoring
    path: Path
    iteration: int


class ScoreMonitor(Monitor):
    """A monitor that has the newest complete weights scored; it never stops a run.

    Attributes:
        has_ended: Whether nothing more is scored, because it fails again and again.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        keeper: CheckpointKeeper,
        start: StartScoring,
        *,
        scored: Iterable[int] = (),
        on_score: Callable[[], None] = lambda: None,
        on_end: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Create the monitor.

        Args:
            checkpoints: The weights of the run.
            keeper: The monitor that keeps the weights; its count shows when there are new ones.
            start: Function that starts to score weights.
            scored: Iterations whose weights have a score already.
            on_score: Called when new weights have a score, and the best ones are kept.
            on_end: Called with the reason when nothing more will be scored.
        """
        self.has_ended = False
        self._checkpoints = checkpoints
        self._keeper = keeper
        self._start = start
        self._on_score = on_score
        self._on_end = on_end
        self._scored = set(scored)
        self._seen_count = -1
        self._current: _Current | None = None
        self._next: tuple[Path, int] | None = None
        self._events: list[TrainingEvent] = []
        self._failures = 0
        self._has_warned = False
        self._use = _ProcessorUse()

    def on_start(self, process_id: int) -> None:
        """Measure from now on how much of the processors darknet uses."""
        self._use = _ProcessorUse(process_id)

    def on_tick(self, at_s: float, quiet_s: float) -> None:  # noqa: ARG002  (time does not matter)
        """Take the score of weights, and start with the newest ones that have none."""
        self._collect()
        if self._keeper.kept_count != self._seen_count:
            self._seen_count = self._keeper.kept_count
            self._choose_next()
        if self._current is None and self._next is not None:
            self._start_next()

    def new_events(self) -> Sequence[TrainingEvent]:
        """Return the scores since the last call."""
        events, self._events = self._events, []
        return events

    def roll_back(self, iteration: int) -> None:
        """Forget the weights with more iterations, which were rejected."""
        self._scored = {scored for scored in self._scored if scored <= iteration}
        if self._current is not None and self._current.iteration > iteration:
            self._drop_current()
        if self._next is not None and self._next[1] > iteration:
            self._drop_next()

    def finish(self, path: Path, iteration: int, is_stopped: Callable[[], bool]) -> None:
        """Score the final weights, after darknet has ended, and wait for that.

        Weights that are being scored are scored first, from the beginning: a process cannot leave
        the lowest priority, in which other programs on the machine could hold it up for hours.

        Args:
            path: The final weights.
            iteration: Their iteration.
            is_stopped: Whether to wait no longer.
        """
        self._collect()
        self._drop_next()
        waiting = [(path, iteration)]
        if self._current is not None:
            waiting.insert(0, (self._current.path, self._current.iteration))
            self._current.scoring.kill()
            self._current = None
        self._use = _ProcessorUse()
        for weights in waiting:
            self._next = weights
            if not (self.has_ended or weights[1] in self._scored or is_stopped()):
                _log.info("train: scoring the weights of iteration %s", f"{weights[1]:,}")
                self._start_next(is_idle=False)
                self._wait(is_stopped)
            self._drop_next()

    def close(self) -> None:
        """End the process that scores, and remove the links to weights."""
        self._drop_current()
        self._drop_next()

    def _wait(self, is_stopped: Callable[[], bool]) -> None:
        while self._current is not None and not is_stopped():
            self._collect()
            time.sleep(_POLL_S)

    def _choose_next(self) -> None:
        """Link the newest weights, unless they are scored already, instead of the ones before."""
        try:
            newest = None if self.has_ended else self._checkpoints.link_for_scoring()
        except OSError as error:
            _log.warning("train: cannot keep weights to score them: %s", error)
            return
        if newest is None or newest == self._next:
            return
        path, iteration = newest
        if self._current is not None and self._current.path == path:
            return
        self._drop_next()
        if iteration in self._scored:
            self._checkpoints.remove_link(path)
        else:
            self._next = newest

    def _start_next(self, *, is_idle: bool = True) -> None:
        if self._next is None:
            return
        (path, iteration), self._next = self._next, None
        try:
            threads = self._use.unused_processors()
            scoring = self._start(path, threads, is_idle=is_idle)
        except OSError as error:  # too many processes, for example
            self._checkpoints.remove_link(path)
            self._fail(str(error))
        else:
            self._current = _Current(scoring, path, iteration)

    def _collect(self) -> None:
        """Take the score of the current weights if their process has ended."""
        current = self._current
        result = None if current is None else current.scoring.poll()
        if current is None or result is None:
            return
        self._current = None
        current.scoring.kill()
        value = _score_in(result)
        if value is None:
            self._checkpoints.remove_link(current.path)
            self._fail(_reason_of(result))
            return
        self._failures = 0
        self._scored.add(current.iteration)
        self._events.append(WeightsScored(current.iteration, value))
        try:
            self._checkpoints.keep_scored(current.path, value, current.iteration)
        except OSError as error:
            _log.warning("train: cannot keep the best weights: %s", error)
        self._on_score()

    def _fail(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.has_ended = True
            self._drop_next()
            message = f"new weights are not scored any more, after {self._failures} failures in a "
            message += f"row: {reason}"
            self._events.append(ScoringEnded(message))
            _log.warning(
                "train: %s (`oiyolo evaluate --all-checkpoints` scores all saved weights)", message
            )
            self._on_end(message)
        elif not self._has_warned:
            self._has_warned = True
            _log.warning("train: cannot score new weights: %s", reason)

    def _drop_current(self) -> None:
        if self._current is not None:
            current, self._current = self._current, None
            current.scoring.kill()
            self._checkpoints.remove_link(current.path)

    def _drop_next(self) -> None:
        if self._next is not None:
            (path, _), self._next = self._next, None
            self._checkpoints.remove_link(path)


def _score_in(result: ProcessResult) -> float | None:
    """Return the mAP that a process printed; ``None`` if it failed."""
    if result.exit_code:
        return None
    try:
        value = json.loads(result.output.strip().rpartition("\n")[2])["valid_map50"]
    except (ValueError, TypeError, KeyError):
        return None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _reason_of(result: ProcessResult) -> str:
    """Return why a process failed: its last line, without the class of the exception."""
    last = result.output.strip().rpartition("\n")[2][:_MAX_REASON]
    name, separator, message = last.partition(": ")
    words = message if separator and name.startswith("oiyolo.") else last
    if result.exit_code < 0 or not words:
        return f"{result.exit_description}{words and f' ({words})'}"
    return words


class _ProcessorUse:
    """How much of the processors a program uses.

    Args:
        session_id: Its session; 0 if none runs.
    """

    def __init__(self, session_id: int = 0) -> None:
        self._session_id = session_id
        self._measured = self._now()

    def unused_processors(self) -> int:
        """Return how many processors were left since the last call or the start; at least 1."""
        (before_cpu_s, before_s), self._measured = self._measured, self._now()
        cpu_s, now_s = self._measured
        used = max(0.0, cpu_s - before_cpu_s) / max(now_s - before_s, 1e-3)
        return max(1, int(len(os.sched_getaffinity(0)) - used + _ROUNDING))

    def _now(self) -> tuple[float, float]:
        session_id = self._session_id
        return process.session_cpu_s(session_id) if session_id else 0.0, time.monotonic()
