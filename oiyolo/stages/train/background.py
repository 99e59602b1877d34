"""Training in the background: start it independently of the terminal, and find it again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.core.errors import INTERRUPTED_EXIT_CODE, OiyoloError, error_of
from oiyolo.core.files import open_binary
from oiyolo.core.progress import progress
from oiyolo.core.results import Result, text_html
from oiyolo.stages.train.call_options import option_variables
from oiyolo.training.history import scores_in
from oiyolo.training.live_reader import LiveReader, latest_stats
from oiyolo.training.supervise import ProgressDisplay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.project.project import Project
    from oiyolo.training.monitors import WeightsScored
    from oiyolo.training.run import Run

_POLL_S: Final = 0.2
_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class Detached(Result):
    """A training run in progress that does not depend on this process or its terminal.

    Attributes:
        run: The run.
        process: The id of the process that trains it.
        host: The machine on which that process runs.
        project_folder: The run's project.
    """

    run: Run
    process: int
    host: str
    project_folder: Path

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "run": self.run.name,
            "folder": str(self.run.folder),
            "state": self.run.state,
            "process": self.process,
            "host": self.host,
            "output": str(self.run.output_path),
        }

    def _repr_html_(self) -> str:
        return text_html(
            f"training {self.run.name} in the background",
            "oiyolo.plot(follow=True) shows its progress; oiyolo.stop() ends it",
        )

    def __str__(self) -> str:
        here = self.project_folder == Path.cwd()
        option = "" if here else f" --project {shlex.quote(str(self.project_folder))}"
        return (
            f"training {self.run.name} in the background (process {self.process} on {self.host}, "
            f"output in {self.run.output_path})\n"
            f"follow it with: oiyolo train --attach{option}\n"
            f"stop it with: oiyolo stop{option}"
        )


def detached(project: Project, run: Run) -> Detached:
    """Return the training of a run that is in progress, as its record describes it."""
    record = run.record
    return Detached(run, record.get("process", 0), str(record.get("host", "")), project.folder)


def start(project: Project, run: Run, *, again: bool) -> Detached | None:
    """Start ``oiyolo train`` in the background and wait until darknet trains.

    Args:
        project: The project, with its options.
        run: The run that the new process will train; its folder exists.
        again: Whether the new process must not resume a run.

    Returns:
        The training; ``None`` if the new process found that the run is finished.

    Raises:
        LockedError: Another process is training this run.
        OiyoloError: Training did not start: the error of the new process.
    """
    words = ["train", "--project", str(project.folder), "--json", *(["--again"] if again else [])]
    with run.lock("train"):  # raises before anything is started
        attempts_before = _attempt_count(run)
    _log.info("train: starting %s in the background", run.name)
    with tempfile.TemporaryFile() as result:
        child = process.start_detached(
            [*process.python_command("from oiyolo.__main__ import main; main()"), *words],
            environment=option_variables(project),
            stdout=result.fileno(),
            stderr_path=run.output_path,
        )
        try:
            exit_code = None
            while exit_code is None and _attempt_count(run) == attempts_before:
                time.sleep(_POLL_S)
                exit_code = process.poll_detached(child)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            raise
        if exit_code is None:
            return detached(project, run)
        if exit_code:
            raise _error_of_start(run, result, exit_code)
        return None


def _attempt_count(run: Run) -> int:
    return len(run.record.get("attempts") or [])


def _error_of_start(run: Run, result: IO[bytes], exit_code: int) -> BaseException:
    """Return the error with which a process ended before it trained."""
    if exit_code == INTERRUPTED_EXIT_CODE:
        return KeyboardInterrupt()
    result.seek(0)
    parts = None
    with contextlib.suppress(ValueError):
        parts = json.loads(result.read().decode(errors="replace"))
    if isinstance(parts, dict):
        return error_of(parts, exit_code)
    return OiyoloError(
        "training did not start in the background",
        where=str(run.output_path),
        found=process.describe_exit(exit_code),
        remedy="Read this file, or run the same command without --detach",
    )


def follow(run: Run) -> bool:
    """Show the progress of a run in training.

    Returns:
        Whether the training has ended; ``False`` if the user stopped following it (Ctrl-C).
    """
    latest = latest_stats(run.log_path)
    done = latest.iteration if latest else 0
    total = int(run.record.get("max_batches") or 0) or None
    read, new_scores = LiveReader(), _NewScores(run)
    with progress("train", total=total, unit="it", initial=done) as bar:
        display = ProgressDisplay(bar, done)
        if latest is not None:
            display.add(latest)
        try:
            for line in _new_lines(run):
                for event in (*read(line), *new_scores()):
                    display.add(event)
        except KeyboardInterrupt:
            return False
    return True


class _NewScores:
    """A callable that returns the scores of weights that a run got since the last call."""

    def __init__(self, run: Run) -> None:
        self._path = run.scores_path
        self._seen_ns = 0

    def __call__(self) -> list[WeightsScored]:
        try:
            changed_ns = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        if changed_ns == self._seen_ns:
            return []
        self._seen_ns = changed_ns
        return scores_in(self._path)[-1:]


def _new_lines(run: Run) -> Iterator[bytes]:
    """Yield the lines that are added to a run's log, until no process trains the run any more."""
    offset = run.log_path.stat().st_size if run.log_path.exists() else 0
    rest = b""
    while True:
        is_training = run.is_training  # before reading, so that the last lines are read
        if run.log_path.exists():
            with open_binary(run.log_path) as log:
                log.seek(offset)
                block = log.read()
            offset += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if not is_training:
            return
        time.sleep(_POLL_S)
