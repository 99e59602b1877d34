"""Write TensorBoard event files of a run, without TensorFlow or TensorBoard.

An event file is a sequence of records, each ``length (8 bytes), masked CRC-32C of the length, data,
masked CRC-32C of the data`` (TFRecord; tensorflow/core/lib/io/record_writer.cc). The data of each
record is a protocol buffer ``Event`` message (tensorflow/core/util/event.proto) with a time, a step
and values. Only the few fields below are needed.

An event file can only grow, so iterations that a resume replaces stay in it. A ``SessionLog`` with
``START`` before the first iteration of the resumed run makes TensorBoard drop the data that it read
for that step and later ones.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.trainlog.lineage import build_lineage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

_WRITER: Final = "oiyolo"
_STATE_FILE: Final = ".oiyolo-events.json"
_SCALARS: Final = ("loss", "avg_loss", "rate", "images_per_s", "iou")
_NAN_TAGS: Final = frozenset({"loss", "avg_loss", "rate"})
"""Tags that are also written when their value is NaN; other tags are omitted."""

# Fields of Event, Summary, Summary.Value and SessionLog: field number and wire type in one byte.
_WALL_TIME: Final = b"\x09"  # 1, 64 bits
_STEP: Final = b"\x10"  # 2, varint
_FILE_VERSION: Final = b"\x1a"  # 3, bytes
_SUMMARY: Final = b"\x2a"  # 5, bytes
_SESSION_LOG: Final = b"\x3a"  # 7, bytes
_VALUE: Final = b"\x0a"  # Summary: 1, bytes
_TAG: Final = b"\x0a"  # Summary.Value: 1, bytes
_SIMPLE_VALUE: Final = b"\x15"  # Summary.Value: 2, 32 bits
_STATUS_START: Final = b"\x08\x01"  # SessionLog: 1, varint, START

_VERSION: Final = b"brain.Event:2"
_DOUBLE: Final = struct.Struct("<d")
_MAX_FLOAT32: Final = 3.4028234e38
_POLYNOMIAL: Final = 0x82F63B78  # of CRC-32C, reversed
_MASK_DELTA: Final = 0xA282EAD8


class Step(NamedTuple):
    """The values to write for one iteration.

    Attributes:
        line: 1-based line number in the log.
        iteration: The step.
        wall_time_s: Time in seconds since 1970.
        values: Values by tag.
        is_session_start: Whether earlier values for this step and later ones are invalid.
    """

    line: int
    iteration: int
    wall_time_s: float
    values: Mapping[str, float]
    is_session_start: bool = False


@dataclass(frozen=True)
class _State:
    """The state of an event file after the last write.

    Attributes:
        file: Name of the event file.
        size_bytes: Size of its complete part.
        line: Last line of the log that was written.
        head: First iteration of the log, which identifies the log.
        wall_time_s: Latest time in the file.
        highest: Highest step in the file.
    """

    file: str
    size_bytes: int
    line: int
    head: list[float]
    wall_time_s: float
    highest: int


class EventWriter:
    """Appends new iterations of a log to an event file.

    Args:
        folder: Folder of the event file; TensorBoard uses its name as the name of the run.

    Raises:
        UsageError: The path exists and is not a folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise UsageError(
                "cannot write event files: not a folder", where=str(folder), remedy="Name a folder"
            )

    @property
    def path(self) -> Path | None:
        """The event file; ``None`` before the first write."""
        state = self._state()
        return None if state is None else self.folder / state.file

    def write(self, log: TrainLog, *, written_at_s: float) -> int:
        """Write the iterations and mAP points that are not in the event file yet.

        Args:
            log: The log so far.
            written_at_s: Time of its last line, in seconds since 1970. The times of earlier
                iterations are computed from their durations.

        Returns:
            Number of steps written.
        """
        lineage = build_lineage(log)
        if not len(lineage):
            return 0
        state = self._resume_state(lineage)
        steps = list(_steps(lineage, state, written_at_s))
        if not steps:
            return 0
        head = [] if state.size_bytes else [_file_version(steps[0].wall_time_s)]
        self._append(state, [*head, *_events(steps)], steps)
        return len(steps)

    def _state(self) -> _State | None:
        state = files.read_json(self.folder / _STATE_FILE)
        try:
            return _State(**state)
        except TypeError:
            return None

    def _resume_state(self, lineage: Lineage) -> _State:
        """Return the state to resume from; that of a new file if none fits this log."""
        head = _head(lineage)
        state = self._state()
        if state is not None and state.head == head:
            path = self.folder / state.file
            if path.is_file() and path.stat().st_size >= state.size_bytes:
                return state
        for old_path in self.folder.glob(f"events.out.tfevents.*.{_WRITER}"):
            old_path.unlink()  # of another log, or of unknown size
        return _State("", 0, 0, head, 0.0, -1)

    def _append(self, state: _State, events: Sequence[bytes], steps: Sequence[Step]) -> None:
        # TensorBoard keeps reading the file as it grows, so this file alone is not replaced
        # atomically. Bytes after its complete part, left by a killed process, are removed first.
        self.folder.mkdir(parents=True, exist_ok=True)
        name = state.file or f"events.out.tfevents.{steps[0].wall_time_s:010.0f}.{_WRITER}"
        path = self.folder / name
        with path.open("r+b" if state.size_bytes else "wb") as file:
            file.truncate(state.size_bytes)
            file.seek(state.size_bytes)
            file.write(frame_records(events))
            size_bytes = file.tell()
        files.write_json(
            self.folder / _STATE_FILE,
            {
                "file": name,
                "size_bytes": size_bytes,
                "line": max(step.line for step in steps),
                "head": state.head,
                "wall_time_s": max(step.wall_time_s for step in steps),
                "highest": max(state.highest, *(step.iteration for step in steps)),
            },
        )


def _head(lineage: Lineage) -> list[float]:
    """Return numbers that identify a log: its first iteration line, which never changes."""
    first = lineage.log.iterations.iloc[0]
    values = [float(first[name]) for name in ("line", "iteration", "loss", "seconds")]
    return [value if math.isfinite(value) else -1.0 for value in values]


def _steps(lineage: Lineage, state: _State, written_at_s: float) -> Iterator[Step]:
    """Return the new iterations in log order, each mAP after its iteration."""
    table = lineage.table[lineage.table["line"] > state.line]
    times = _wall_times(lineage, table.index.to_numpy(), written_at_s, state.wall_time_s)
    tags = [*_SCALARS, *lineage.layers]
    columns = [table[tag].to_numpy(float).tolist() for tag in tags]
    first_lines = set(lineage.log.iterations.drop_duplicates("run")["line"])
    steps = [
        Step(
            line,
            iteration,
            time_s,
            {
                tag: value
                for tag, value in zip(tags, values, strict=True)
                if value == value or tag in _NAN_TAGS  # noqa: PLR0124  (nan)
            },
            is_session_start=line in first_lines and iteration <= state.highest,
        )
        for line, iteration, time_s, values in zip(
            table["line"].tolist(),
            table["iteration"].tolist(),
            times.tolist(),
            zip(*columns, strict=True),
            strict=True,
        )
    ]
    times_by_iteration = dict(zip(table["iteration"].tolist(), times.tolist(), strict=True))
    points = lineage.maps[lineage.maps["line"] > state.line]
    for line, iteration, value in zip(
        points["line"].tolist(), points["iteration"].tolist(), points["map"].tolist(), strict=True
    ):
        time_s = times_by_iteration.get(
            iteration,
            max(state.wall_time_s, min(times_by_iteration.values(), default=written_at_s)),
        )
        steps.append(Step(line, iteration, time_s, {"map": value}))
    return iter(sorted(steps, key=lambda step: step.line))


def _wall_times(
    lineage: Lineage, rows: npt.NDArray[np.int64], written_at_s: float, not_before_s: float
) -> npt.NDArray[np.float64]:
    """Return the times of iterations, counted back from the log's last line by their durations."""
    seconds = lineage.column("seconds")
    durations_s = np.where(np.isfinite(seconds) & (seconds > 0), seconds, 0.0)
    remaining_s = (
        np.concatenate([np.cumsum(durations_s[::-1])[::-1][1:], [0.0]])
        if len(durations_s)
        else durations_s
    )
    times: npt.NDArray[np.float64] = np.maximum(written_at_s - remaining_s[rows], not_before_s)
    return np.maximum(times, 0.0)


def _events(steps: Sequence[Step]) -> Iterator[bytes]:
    """Yield the messages of each step: a session start if needed, then the values."""
    packers: dict[tuple[str, ...], tuple[struct.Struct, list[bytes]]] = {}
    for step in steps:
        tags = tuple(step.values)
        if tags not in packers:
            packers[tags] = _packer(tags)
        packer, prefixes = packers[tags]
        parts = [
            part
            for pair in zip(prefixes, map(_clip_to_float32, step.values.values()), strict=True)
            for part in pair
        ]
        head = _WALL_TIME + _DOUBLE.pack(step.wall_time_s) + _STEP + _varint(step.iteration)
        if step.is_session_start:
            yield head + _SESSION_LOG + _length_prefixed(_STATUS_START)
        yield head + packer.pack(*parts)


def _packer(tags: Sequence[str]) -> tuple[struct.Struct, list[bytes]]:
    """Return the structure of a summary with these tags, and the bytes before each value."""
    prefixes = [_TAG + _length_prefixed(tag.encode()) + _SIMPLE_VALUE for tag in tags]
    prefixes = [_VALUE + _varint(len(text) + 4) + text for text in prefixes]
    size = sum(len(text) + 4 for text in prefixes)
    prefixes[0] = _SUMMARY + _varint(size) + prefixes[0]
    return struct.Struct("<" + "".join(f"{len(text)}sf" for text in prefixes)), prefixes


def _file_version(wall_time_s: float) -> bytes:
    return _WALL_TIME + _DOUBLE.pack(wall_time_s) + _FILE_VERSION + _length_prefixed(_VERSION)


def _clip_to_float32(value: float) -> float:
    """Return a value as infinity if it exceeds 32-bit floats, as sums that darknet prints can."""
    return math.copysign(math.inf, value) if abs(value) > _MAX_FLOAT32 else value


def _length_prefixed(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004  (seven bits per byte)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def frame_records(events: Sequence[bytes]) -> bytes:
    """Return events as records with their lengths and checksums."""
    lengths = [struct.pack("<Q", len(event)) for event in events]
    length_crcs, event_crcs = masked_crcs(lengths), masked_crcs(events)
    return b"".join(
        part
        for fields in zip(lengths, length_crcs, events, event_crcs, strict=True)
        for part in fields
    )


def masked_crcs(texts: Sequence[bytes]) -> list[bytes]:
    """Return the masked CRC-32C of each text as 4 bytes, little-endian.

    All texts of one length are processed together, byte by byte, because pure Python would take a
    microsecond per byte.
    """
    out: list[bytes] = [b""] * len(texts)
    for length, indices in _group_by_length(texts):
        data = np.frombuffer(b"".join(texts[i] for i in indices), np.uint8)
        crc = np.full(len(indices), 0xFFFFFFFF, np.uint32)
        for column in np.ascontiguousarray(data.reshape(len(indices), length).T):
            crc = _CRC_TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
        crc ^= np.uint32(0xFFFFFFFF)
        masked = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(_MASK_DELTA)
        packed = masked.astype("<u4").tobytes()
        for row, i in enumerate(indices):
            out[i] = packed[4 * row : 4 * row + 4]
    return out


def _group_by_length(texts: Iterable[bytes]) -> Iterable[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(len(text), []).append(i)
    return groups.items()


def _crc_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_CRC_TABLE: Final = _crc_table()


def write_events(log: TrainLog, folder: Path, *, log_path: Path) -> int:
    """Append new iterations of a log to the event file in ``folder``; return the number of steps.

    The modification time of ``log_path`` is used as the time of the log's last line.
    """
    return EventWriter(folder).write(log, written_at_s=log_path.stat().st_mtime)
