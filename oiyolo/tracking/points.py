"""What is new in a log since the last call, appended to a file.

A file only grows, and one append writes everything that is new. Its state, in a record next to it,
holds the size of its complete part: the rest, which a killed process left, is overwritten.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from abc import ABC, abstractmethod
from io import BufferedWriter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.core import files, records
from oiyolo.trainlog.lineage import build_lineage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

    Times = npt.NDArray[np.float64]
    Scores = Mapping[str, Mapping[str, float]]
    """Values by iteration (a text, as in JSON) and tag."""

_TAGS: Final = ("loss", "avg_loss", "rate", "images_per_s", "iou")
_SCORE_TAGS: Final = ("valid_map50", "train_map50")
_NAN_TAGS: Final = frozenset({"loss", "avg_loss", "rate"})
"""Tags that are also written when their value is NaN; other tags are omitted."""


@dataclasses.dataclass(frozen=True)
class Point:
    """Values of one iteration.

    Attributes:
        line: Line of the log after which they are known.
        iteration: The iteration.
        time_s: Its time, in seconds since 1970.
        values: The values by tag, which is the column of ``metrics.csv`` if there is one.
        restarts: Whether a resume replaced this and all later iterations written before.
        is_measured: Whether they are not in the iteration's own line: mAP, scores.
    """

    line: int
    iteration: int
    time_s: float
    values: Mapping[str, float]
    restarts: bool = False
    is_measured: bool = False


@dataclasses.dataclass(frozen=True)
class FileState:
    """The state of a file after the last write.

    Attributes:
        head: First iteration of the log, which identifies the log.
        file: Name of the file.
        size_bytes: Size of its complete part.
        line: Last line of the log that was written.
        wall_time_s: Latest time in the file.
        highest: Highest iteration in the file.
        scores: The values of scores in the file that readers do not drop, by iteration.
        measured: Highest iteration in the file of each measured tag.
    """

    head: list[float]
    file: str = ""
    size_bytes: int = 0
    line: int = 0
    wall_time_s: float = 0.0
    highest: int = -1
    scores: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    measured: dict[str, int] = dataclasses.field(default_factory=dict)


class PointFile(ABC):
    """A file of points; subclasses say how it is encoded.

    Attributes:
        folder: Its folder.
        new_steps: Number of points written so far.
    """

    state_name: str
    """Name of the record with its state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.new_steps = 0

    @abstractmethod
    def new_name(self, begun_at_s: float) -> str:
        """Return the name of a new file, whose first point has this time."""

    @abstractmethod
    def has_own_name(self, name: str) -> bool:
        """Return whether ``new_name`` may have returned this name."""

    @abstractmethod
    def encode(self, points: Sequence[Point], *, is_new: bool) -> bytes:
        """Return the bytes to append to the file; ``is_new`` if it is empty."""

    def select(self, points: Sequence[Point], state: FileState) -> Sequence[Point]:  # noqa: ARG002
        """Return the points that are written, out of new ones."""
        return points

    def remaining_scores(self, state: FileState, points: Sequence[Point]) -> Scores:
        """Return the scores in the file that its readers do not drop when they read ``points``."""
        end = min((p.iteration for p in points if p.restarts), default=math.inf)
        return {key: row for key, row in state.scores.items() if key.isdecimal() and int(key) < end}

    def write(self, log: TrainLog, *, written_at_s: float, results: Scores | None = None) -> None:
        """Write the iterations, mAP points and scores that are not in the file yet.

        Args:
            log: The log so far.
            written_at_s: Time of its last line, in seconds since 1970. The times of earlier
                iterations are computed from their durations.
            results: Further values by iteration, written again when they change, as the scores of
                checkpoints are.
        """
        lineage = build_lineage(log)
        if not len(lineage):
            return
        state = self._resume_state(lineage)
        times_s = _wall_times(lineage, written_at_s)
        points = list(self.select(_new_points(lineage, state, times_s), state))
        written = self.remaining_scores(state, points)
        scores = _merge(_scores(lineage), results or {})
        new_scores = {key: row for key, row in scores.items() if written.get(key) != row}
        last_line = points[-1].line if points else state.line
        points += _score_points(lineage, new_scores, last_line, times_s)
        if points:
            all_scores = {key: dict(row) for key, row in (*written.items(), *new_scores.items())}
            self._append(dataclasses.replace(state, scores=all_scores), points)
            self.new_steps += len(points)

    def _resume_state(self, lineage: Lineage) -> FileState:
        """Return the state to resume from; that of a new file if none fits this log."""
        new = FileState(_head(lineage))
        state = records.load(self.folder / self.state_name, FileState) or new
        # Only a file of this folder: the record may have been edited.
        is_own = "/" not in state.file and self.has_own_name(state.file)
        if is_own and state.head == new.head:
            path = self.folder / state.file
            if path.is_file() and path.stat().st_size >= state.size_bytes:
                return state
        for old_path in self.folder.glob("*"):
            if self.has_own_name(old_path.name):
                old_path.unlink()  # of another log, or of unknown size
        return new

    def _append(self, state: FileState, points: Sequence[Point]) -> None:
        # Readers follow the file as it grows, so this file alone is not replaced atomically.
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / (state.file or self.new_name(points[0].time_s))
        with BufferedWriter(files.open_append(path)) as file:
            file.truncate(state.size_bytes)
            file.write(self.encode(points, is_new=not state.size_bytes))
        measured = {tag: p.iteration for p in points if p.is_measured for tag in p.values}
        state = dataclasses.replace(
            state,
            file=path.name,
            size_bytes=path.stat().st_size,
            line=points[-1].line,
            wall_time_s=max(point.time_s for point in points),
            highest=max(state.highest, *(p.iteration for p in points if not p.is_measured), -1),
            measured={
                tag: max(state.measured.get(tag, -1), measured.get(tag, -1))
                for tag in state.measured | measured
            },
        )
        files.write_json(self.folder / self.state_name, dataclasses.asdict(state))


def _head(lineage: Lineage) -> list[float]:
    """Return numbers that identify a log: its first iteration line, which never changes."""
    first = lineage.log.iterations.iloc[0]
    values = [float(first[name]) for name in ("line", "iteration", "loss", "seconds")]
    return [value if math.isfinite(value) else -1.0 for value in values]


def _new_points(lineage: Lineage, state: FileState, times_s: Times) -> list[Point]:
    """Return the points of new iterations and measurements, in log order."""
    table = lineage.table.assign(time_s=np.maximum(times_s, state.wall_time_s))
    table = table[table["line"] > state.line]
    tags = [*_TAGS, *lineage.layers]
    first_lines = set(lineage.log.iterations.drop_duplicates("run")["line"])
    points: list[Point] = []
    for row in table.to_dict("records"):
        values = {tag: row[tag] for tag in tags if tag in _NAN_TAGS or not math.isnan(row[tag])}
        restarts = row["line"] in first_lines and row["iteration"] <= state.highest
        points.append(Point(row["line"], row["iteration"], row["time_s"], values, restarts))
    times_by_iteration = dict(zip(table["iteration"], table["time_s"], strict=True))
    # For what was measured after an iteration that an earlier call wrote.
    earlier_s = max(state.wall_time_s, min(times_by_iteration.values(), default=float(times_s[-1])))
    for tag, found in _measurements(lineage):
        line, iteration = found["line"], found["iteration"]
        if line > state.line:
            time_s = times_by_iteration.get(iteration, earlier_s)
            points.append(Point(line, iteration, time_s, {tag: found["value"]}, is_measured=True))
    return sorted(points, key=operator.attrgetter("line"))


def _measurements(lineage: Lineage) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the tag, and the iteration, value and line, of what has log lines of its own."""
    for tag, table in (
        ("map", lineage.maps.rename(columns={"map": "value"})),
        ("valid_loss", lineage.valid_losses.rename(columns={"loss": "value"})),
    ):
        for row in table[["iteration", "value", "line"]].to_dict("records"):
            yield tag, row


def _scores(lineage: Lineage) -> Scores:
    """Return the values of all scores."""
    return {
        str(score.iteration): {tag: getattr(score, tag) for tag in _SCORE_TAGS}
        for score in lineage.scores
    }


def _merge(*all_scores: Scores) -> Scores:
    """Return the finite values of scores; of two values with the same tag, the later one."""
    merged: dict[str, dict[str, float]] = {}
    for scores in all_scores:
        for key, row in scores.items():
            finite = {tag: value for tag, value in row.items() if math.isfinite(value)}
            merged[key] = merged.get(key, {}) | finite
    return merged


def _score_points(lineage: Lineage, scores: Scores, line: int, times_s: Times) -> list[Point]:
    """Return the points of scores, at the times of their iterations."""
    rows = np.searchsorted(lineage.column("iteration"), [int(key) for key in scores], side="right")
    return [
        Point(line, int(key), float(times_s[max(row - 1, 0)]), values, is_measured=True)
        for (key, values), row in zip(scores.items(), rows.tolist(), strict=True)
    ]


def _wall_times(lineage: Lineage, written_at_s: float) -> Times:
    """Return the times of iterations, counted back from the log's last line by their durations."""
    seconds = lineage.column("seconds")
    durations_s = np.where(seconds > 0, seconds, 0.0)
    remaining_s = np.cumsum(np.append(0.0, durations_s[:0:-1]))[::-1]
    times: Times = np.maximum(written_at_s - remaining_s, 0.0)
    return times
