"""Send what is new in a run to a tracker, each value once, whenever a process is killed.

What was sent is recorded after each request, in ``tracking/<tracker>.json`` in the run's folder.
Errors of a tracker are recorded there too; nothing is lost, as the next update sends it.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core import files, records
from oiyolo.net.urls import without_secrets
from oiyolo.tracking.outbox import Outbox
from oiyolo.tracking.tracker import TrackerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.tracking.outbox import Row
    from oiyolo.tracking.points import PointFile, Scores
    from oiyolo.tracking.tracker import RunFacts, Tracker
    from oiyolo.trainlog.tables import TrainLog

FOLDER: Final = "tracking"
"""Folder of the records in a run's folder."""
_MAX_PROBLEM: Final = 300


def status_path(run_folder: Path, tracker: str) -> Path:
    """Return the path of a tracker's record in a run's folder."""
    return run_folder / FOLDER / f"{tracker}.json"


def read_status(run_folder: Path, tracker: str) -> TrackerRecord | None:
    """Return what a tracker has of a run; ``None`` if it has nothing, or that is unknown."""
    return records.load(status_path(run_folder, tracker), TrackerRecord)


class Delivery(Protocol):
    """Keeps a tracker up to date with a run."""

    status: TrackerRecord

    def update(
        self, facts: RunFacts, log: TrainLog, *, written_at_s: float, results: Scores, seen: str
    ) -> bool:
        """Send what is new; return whether that succeeded.

        Args:
            facts: What is known about the run.
            log: Its log, with the scores of its weights.
            written_at_s: Time of the log's last line, in seconds since 1970.
            results: Results of evaluations, by iteration.
            seen: Fingerprint of what the arguments were read from.
        """

    def close(self) -> None:
        """Disconnect."""


class _Recorded:
    """A delivery with its record."""

    def __init__(self, run_folder: Path, tracker: str) -> None:
        self._path = status_path(run_folder, tracker)
        self.status = read_status(run_folder, tracker) or TrackerRecord()

    def _save(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        files.write_json(self._path, asdict(self.status))

    def _record(self, send: Callable[[], None], seen: str) -> bool:
        """Call a function and record its error, if any; return whether there was none."""
        try:
            send()
        except Exception as error:  # noqa: BLE001  (of any library; the training must not care)
            self.status.problem = _describe(error)
        else:
            self.status.problem, self.status.seen = "", seen
        self._save()
        return not self.status.problem


class FileDelivery(_Recorded):
    """Writes a file that the tracker reads: TensorBoard."""

    def __init__(self, run_folder: Path, tracker: str, file: PointFile) -> None:
        super().__init__(run_folder, tracker)
        self.status.address = str(file.folder)
        self._file = file

    def update(
        self, facts: RunFacts, log: TrainLog, *, written_at_s: float, results: Scores, seen: str
    ) -> bool:
        """Append what is new; return whether that succeeded."""
        self.status.state = facts.state
        return self._record(
            lambda: self._file.write(log, written_at_s=written_at_s, results=results), seen
        )

    def close(self) -> None:
        """Do nothing: the file is closed."""


class ServerDelivery(_Recorded):
    """Sends to a server."""

    def __init__(self, run_folder: Path, tracker: str, client: Tracker) -> None:
        super().__init__(run_folder, tracker)
        self._outbox = Outbox(run_folder / FOLDER, tracker)
        self._client = client
        self._is_open = False

    def update(
        self, facts: RunFacts, log: TrainLog, *, written_at_s: float, results: Scores, seen: str
    ) -> bool:
        """Send what is new; return whether that succeeded."""
        self._outbox.write(log, written_at_s=written_at_s, results=results)
        return self._record(lambda: self._send(facts), seen)

    def close(self) -> None:
        """Disconnect, and record an error, if any."""
        if self._is_open:
            self._is_open = False
            self._record(lambda: self._client.close(self.status.state), self.status.seen)

    def _send(self, facts: RunFacts) -> None:
        if not self._is_open:
            self._open(facts)
        if not self.status.has_parameters:
            self._client.send_parameters(facts)
            self.status.has_parameters = True
            self._save()
        self._send_points()
        self._send_files(facts)
        if facts.state != self.status.state:
            self._client.send_state(facts.state)
            self.status.state = facts.state

    def _open(self, facts: RunFacts) -> None:
        if not self.status.key:
            self.status.key = secrets.token_hex(4)
            self._save()  # before the run exists, so that it is found again
        known = self._client.open(facts, self.status)
        self._is_open = True
        if known is not None:
            self.status.sent = self.status.sending = known
        self._save()

    def _send_points(self) -> None:
        for batch in _batches(self._outbox.rows(self.status.sent), self._client.batch_values):
            first, may_repeat = self.status.sent, self.status.sending > self.status.sent
            self.status.sending = max(self.status.sending, first + len(batch))
            self._save()
            self._client.send_points(batch, first, may_repeat=may_repeat)
            self.status.sent = first + len(batch)
            self._save()

    def _send_files(self, facts: RunFacts) -> None:
        prints = {name: fingerprint_of(path) for name, path in facts.files.items()}
        new = [name for name, value in prints.items() if self.status.files.get(name) != value]
        if new:
            self._client.send_files(new, facts)
            self.status.files |= {name: prints[name] for name in new}
            self._save()


def fingerprint_of(path: Path) -> str:
    """Return a text that changes when a file is replaced or grows; empty if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _batches(rows: Iterator[Row], max_values: int) -> Iterator[Sequence[Row]]:
    """Yield the points in batches of at most ``max_values`` values, but at least one point."""
    batch: list[Row] = []
    count = 0
    for row in rows:
        if batch and count + len(row.values) > max_values:
            yield batch
            batch, count = [], 0
        batch.append(row)
        count += len(row.values)
    if batch:
        yield batch


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return without_secrets(f"{type(error).__name__}: {text}")[:_MAX_PROBLEM]
