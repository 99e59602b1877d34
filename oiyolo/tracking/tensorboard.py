"""Write TensorBoard event files of a run with tensorboard's messages and record writer.

Records are appended to one file. tensorboard's ``EventFileWriter`` would start a new file at each
call, named after the second and the process: TensorBoard skips a new file whose name sorts before
one that it has read, and nothing removes the incomplete record of a killed process. Where
TensorFlow is installed, it would also import TensorFlow.

An event file can only grow, so iterations that a resume replaces stay in it. A ``SessionLog`` with
``START`` before the first iteration of the resumed run makes TensorBoard drop the data that it read
for that step and later ones.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import operator
from io import BufferedWriter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from oiyolo.core import files, records
from oiyolo.core.errors import UsageError
from oiyolo.trainlog.lineage import build_lineage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

    Values = npt.NDArray[np.float64]

_WRITER: Final = "oiyolo"
_PATTERN: Final = f"events.out.tfevents.*.{_WRITER}"
_STATE_FILE: Final = ".oiyolo-events.json"
_FILE_VERSION: Final = "brain.Event:2"
_SCALARS: Final = ("loss", "avg_loss", "rate", "images_per_s", "iou")
_SCORE_TAGS: Final = ("valid_map50", "train_map50")
_NAN_TAGS: Final = frozenset({"loss", "avg_loss", "rate"})
"""Tags that are also written when their value is NaN; other tags are omitted."""


@dataclasses.dataclass(frozen=True)
class _State:
    """The state of an event file after the last write.

    Attributes:
        head: First iteration of the log, which identifies the log.
        file: Name of the event file.
        size_bytes: Size of its complete part.
        line: Last line of the log that was written.
        wall_time_s: Latest time in the file.
        highest: Highest step in the file.
        scores: The values of scores in the file that readers do not drop, by iteration.
    """

    head: list[float]
    file: str = ""
    size_bytes: int = 0
    line: int = 0
    wall_time_s: float = 0.0
    highest: int = -1
    scores: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)


class EventWriter:
    """Appends new iterations of a log to an event file.

    Args:
        folder: Folder of the event file; TensorBoard uses its name as the name of the run.

    Attributes:
        folder: The folder.
        new_steps: Number of steps written so far.

    Raises:
        UsageError: The folder or its parent exists and is not a folder.
    """

    def __init__(self, folder: Path) -> None:
        for path in (folder.parent, folder):
            if path.exists() and not path.is_dir():
                raise UsageError(
                    "cannot write event files: not a folder",
                    where=str(path),
                    remedy="Name a folder",
                )
        self.folder = folder
        self.new_steps = 0

    def write(self, log: TrainLog, *, written_at_s: float) -> None:
        """Write the iterations, mAP points and scores that are not in the event file yet.

        Args:
            log: The log so far.
            written_at_s: Time of its last line, in seconds since 1970. The times of earlier
                iterations are computed from their durations.
        """
        lineage = build_lineage(log)
        if not len(lineage):
            return
        state = self._resume_state(lineage)
        times_s = _wall_times(lineage, written_at_s)
        events = _new_events(lineage, state, times_s)
        written = _remaining_scores(state, events)
        new_scores = {key: row for key, row in _scores(lineage).items() if written.get(key) != row}
        events += _score_events(
            lineage, new_scores, events[-1][0] if events else state.line, times_s
        )
        if events:
            self._append(dataclasses.replace(state, scores=written | new_scores), events)
            self.new_steps += sum(event.HasField("summary") for _, event in events)

    def _resume_state(self, lineage: Lineage) -> _State:
        """Return the state to resume from; that of a new file if none fits this log."""
        new = _State(_head(lineage))
        state = records.load(self.folder / _STATE_FILE, _State) or new
        # Only a file of this folder: the record may have been edited.
        is_own = fnmatch.fnmatch(state.file, _PATTERN) and "/" not in state.file
        if is_own and state.head == new.head:
            path = self.folder / state.file
            if path.is_file() and path.stat().st_size >= state.size_bytes:
                return state
        for old_path in self.folder.glob(_PATTERN):
            old_path.unlink()  # of another log, or of unknown size
        return new

    def _append(self, state: _State, events: Sequence[tuple[int, Event]]) -> None:
        # TensorBoard keeps reading the file as it grows, so this file alone is not replaced
        # atomically. Bytes after its complete part, left by a killed process, are removed first.
        self.folder.mkdir(parents=True, exist_ok=True)
        begun_at_s = events[0][1].wall_time
        path = self.folder / (state.file or f"events.out.tfevents.{begun_at_s:010.0f}.{_WRITER}")
        with BufferedWriter(files.open_append(path)) as file:
            file.truncate(state.size_bytes)
            writer = RecordWriter(file)
            if not state.size_bytes:
                head = Event(wall_time=begun_at_s, file_version=_FILE_VERSION)
                writer.write(head.SerializeToString())
            for _, event in events:
                writer.write(event.SerializeToString())
        state = dataclasses.replace(
            state,
            file=path.name,
            size_bytes=path.stat().st_size,
            line=events[-1][0],
            wall_time_s=max(event.wall_time for _, event in events),
            highest=max(state.highest, *(event.step for _, event in events)),
        )
        files.write_json(self.folder / _STATE_FILE, dataclasses.asdict(state))


def _head(lineage: Lineage) -> list[float]:
    """Return numbers that identify a log: its first iteration line, which never changes."""
    first = lineage.log.iterations.iloc[0]
    values = [float(first[name]) for name in ("line", "iteration", "loss", "seconds")]
    return [value if math.isfinite(value) else -1.0 for value in values]


def _new_events(lineage: Lineage, state: _State, times_s: Values) -> list[tuple[int, Event]]:
    """Return the events of new iterations and measurements, each with its line, in log order."""
    table = lineage.table.assign(time_s=np.maximum(times_s, state.wall_time_s))
    table = table[table["line"] > state.line]
    tags = [*_SCALARS, *lineage.layers]
    first_lines = set(lineage.log.iterations.drop_duplicates("run")["line"])
    events: list[tuple[int, Event]] = []
    for row in table.to_dict("records"):
        at = {"wall_time": row["time_s"], "step": row["iteration"]}
        if row["line"] in first_lines and row["iteration"] <= state.highest:
            start = SessionLog(status=SessionLog.START)
            events.append((row["line"], Event(session_log=start, **at)))
        values = {tag: row[tag] for tag in tags if tag in _NAN_TAGS or not math.isnan(row[tag])}
        events.append((row["line"], Event(summary=_summary(values), **at)))
    times_by_iteration = dict(zip(table["iteration"], table["time_s"], strict=True))
    # For what was measured after an iteration that an earlier call wrote.
    earlier_s = max(state.wall_time_s, min(times_by_iteration.values(), default=float(times_s[-1])))
    for tag, point in _measurements(lineage):
        if point["line"] > state.line:
            time_s = times_by_iteration.get(point["iteration"], earlier_s)
            event = Event(
                summary=_summary({tag: point["value"]}), wall_time=time_s, step=point["iteration"]
            )
            events.append((point["line"], event))
    return sorted(events, key=operator.itemgetter(0))


def _measurements(lineage: Lineage) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the tag, and the iteration, value and line, of what has log lines of its own."""
    for tag, table in (
        ("map", lineage.maps.rename(columns={"map": "value"})),
        ("valid_loss", lineage.valid_losses.rename(columns={"loss": "value"})),
    ):
        for row in table[["iteration", "value", "line"]].to_dict("records"):
            yield tag, row


def _remaining_scores(
    state: _State, events: Sequence[tuple[int, Event]]
) -> dict[str, dict[str, float]]:
    """Return the scores in the file that readers do not drop when they read the new events."""
    starts = [event.step for _, event in events if event.HasField("session_log")]
    end = min(starts, default=state.highest + 1)
    return {key: row for key, row in state.scores.items() if key.isdecimal() and int(key) < end}


def _scores(lineage: Lineage) -> dict[str, dict[str, float]]:
    """Return the finite values of all scores, by iteration."""
    values = {
        str(score.iteration): {tag: getattr(score, tag) for tag in _SCORE_TAGS}
        for score in lineage.scores
    }
    return {
        key: {tag: value for tag, value in row.items() if math.isfinite(value)}
        for key, row in values.items()
    }


def _score_events(
    lineage: Lineage, scores: Mapping[str, Mapping[str, float]], line: int, times_s: Values
) -> list[tuple[int, Event]]:
    """Return the events of scores, at the times of their iterations."""
    rows = np.searchsorted(lineage.column("iteration"), [int(key) for key in scores], side="right")
    return [
        (line, Event(summary=_summary(values), wall_time=times_s[max(row - 1, 0)], step=int(key)))
        for (key, values), row in zip(scores.items(), rows.tolist(), strict=True)
    ]


def _summary(values: Mapping[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])


def _wall_times(lineage: Lineage, written_at_s: float) -> Values:
    """Return the times of iterations, counted back from the log's last line by their durations."""
    seconds = lineage.column("seconds")
    durations_s = np.where(seconds > 0, seconds, 0.0)
    remaining_s = np.cumsum(np.append(0.0, durations_s[:0:-1]))[::-1]
    times: Values = np.maximum(written_at_s - remaining_s, 0.0)
    return times
