"""A training's numbers as TensorBoard's event files, written without TensorFlow or TensorBoard.

An event file is a row of records, each ``length (8 bytes), masked CRC-32C of it, data, masked
CRC-32C of the data`` (TFRecord; tensorflow/core/lib/io/record_writer.cc), and each record's data is
an ``Event`` message of protocol buffers (tensorflow/core/util/event.proto) with a time, a step and
values. Only the handful of fields below is needed.

An event file can only grow. What a resume takes the place of stays in it: before the first
iteration of the run that goes on stands a ``SessionLog`` with ``START``, at which TensorBoard's
readers drop what they read for that step and later ones.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.trainlog.lineage import lineage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

_WRITER: Final = "oiyolo"
_STATE: Final = ".oiyolo-events.json"
_SCALARS: Final = ("loss", "avg_loss", "rate", "images_per_s", "iou")
_ALWAYS: Final = frozenset({"loss", "avg_loss", "rate"})
"""Tags that are written as nan where they are nan; the others are left out there."""

# Fields of Event, Summary, Summary.Value and SessionLog: number and wire type in one byte.
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
_LARGEST_FLOAT32: Final = 3.4028234e38
_POLYNOMIAL: Final = 0x82F63B78  # of CRC-32C, reversed
_MASK_DELTA: Final = 0xA282EAD8


class Step(NamedTuple):
    """What is written for one iteration.

    Attributes:
        line: 1-based line in the log.
        iteration: The step.
        wall_time_s: Seconds since 1970.
        values: By tag.
        starts: What was written for this step and later ones no longer holds.
    """

    line: int
    iteration: int
    wall_time_s: float
    values: Mapping[str, float]
    starts: bool = False


@dataclass(frozen=True)
class _State:
    """How far an event file goes.

    Attributes:
        file: Its name.
        size_bytes: Its size when it was complete.
        line: The log's last line that is in it.
        head: The log's first iteration, by which another log is known.
        wall_time_s: The latest time in it.
        highest: The highest step in it.
    """

    file: str
    size_bytes: int
    line: int
    head: list[float]
    wall_time_s: float
    highest: int


class EventWriter:
    """Writes what is new in a log to an event file; nothing where nothing is.

    Args:
        folder: Where the event file lies; TensorBoard takes the folder's name for the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise UsageError(
                "this is no folder for event files", where=str(folder), remedy="Name another one"
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
            written_at_s: When its last line was written, in seconds since 1970. Earlier
                iterations get their times from the seconds that each took.

        Returns:
            How many steps were written.
        """
        led = lineage(log)
        if not len(led):
            return 0
        state = self._continued(led)
        steps = list(_steps(led, state, written_at_s))
        if not steps:
            return 0
        head = [] if state.size_bytes else [_file_version(steps[0].wall_time_s)]
        self._append(state, [*head, *_events(steps)], steps)
        return len(steps)

    def _state(self) -> _State | None:
        found = files.read_json(self.folder / _STATE)
        try:
            return _State(**found)
        except TypeError:
            return None

    def _continued(self, led: Lineage) -> _State:
        """Give the state to go on from; a new event file's where there is none, or another's."""
        head = _head(led)
        state = self._state()
        if state is not None and state.head == head:
            path = self.folder / state.file
            if path.is_file() and path.stat().st_size >= state.size_bytes:
                return state
        for old in self.folder.glob(f"events.out.tfevents.*.{_WRITER}"):
            old.unlink()  # another log's, or of unknown extent
        return _State("", 0, 0, head, 0.0, -1)

    def _append(self, state: _State, events: Sequence[bytes], steps: Sequence[Step]) -> None:
        # TensorBoard reads a file on as it grows, so this is the one file that is not replaced
        # as a whole; what a kill left behind its complete part is cut off first.
        self.folder.mkdir(parents=True, exist_ok=True)
        name = state.file or f"events.out.tfevents.{steps[0].wall_time_s:010.0f}.{_WRITER}"
        path = self.folder / name
        with path.open("r+b" if state.size_bytes else "wb") as file:
            file.truncate(state.size_bytes)
            file.seek(state.size_bytes)
            file.write(records(events))
            size_bytes = file.tell()
        files.write_json(
            self.folder / _STATE,
            {
                "file": name,
                "size_bytes": size_bytes,
                "line": max(step.line for step in steps),
                "head": state.head,
                "wall_time_s": max(step.wall_time_s for step in steps),
                "highest": max(state.highest, *(step.iteration for step in steps)),
            },
        )


def _head(led: Lineage) -> list[float]:
    """Tell a log from another: by its first iteration line, which no longer changes."""
    first = led.log.iterations.iloc[0]
    values = [float(first[name]) for name in ("line", "iteration", "loss", "seconds")]
    return [value if math.isfinite(value) else -1.0 for value in values]


def _steps(led: Lineage, state: _State, written_at_s: float) -> Iterator[Step]:
    """Give what is new: iterations in their order, and mAP after its iteration."""
    table = led.table[led.table["line"] > state.line]
    times = _wall_times(led, table.index.to_numpy(), written_at_s, state.wall_time_s)
    tags = [*_SCALARS, *led.layers]
    columns = [table[tag].to_numpy(float).tolist() for tag in tags]
    first_lines = set(led.log.iterations.drop_duplicates("run")["line"])
    steps = [
        Step(
            line,
            iteration,
            time_s,
            {
                tag: value
                for tag, value in zip(tags, values, strict=True)
                if value == value or tag in _ALWAYS  # noqa: PLR0124  (nan)
            },
            starts=line in first_lines and iteration <= state.highest,
        )
        for line, iteration, time_s, values in zip(
            table["line"].tolist(),
            table["iteration"].tolist(),
            times.tolist(),
            zip(*columns, strict=True),
            strict=True,
        )
    ]
    at = dict(zip(table["iteration"].tolist(), times.tolist(), strict=True))
    points = led.maps[led.maps["line"] > state.line]
    for line, iteration, value in zip(
        points["line"].tolist(), points["iteration"].tolist(), points["map"].tolist(), strict=True
    ):
        time_s = at.get(iteration, max(state.wall_time_s, min(at.values(), default=written_at_s)))
        steps.append(Step(line, iteration, time_s, {"map": value}))
    return iter(sorted(steps, key=lambda step: step.line))


def _wall_times(
    led: Lineage, rows: npt.NDArray[np.int64], written_at_s: float, not_before_s: float
) -> npt.NDArray[np.float64]:
    """Count back from the time of the log's last line by what the iterations took."""
    seconds = led.column("seconds")
    took = np.where(np.isfinite(seconds) & (seconds > 0), seconds, 0.0)
    after = np.concatenate([np.cumsum(took[::-1])[::-1][1:], [0.0]]) if len(took) else took
    times: npt.NDArray[np.float64] = np.maximum(written_at_s - after[rows], not_before_s)
    return np.maximum(times, 0.0)


def _events(steps: Sequence[Step]) -> Iterator[bytes]:
    """Give each step's messages: one with its values, and before it one that takes others back."""
    packers: dict[tuple[str, ...], tuple[struct.Struct, list[bytes]]] = {}
    for step in steps:
        tags = tuple(step.values)
        if tags not in packers:
            packers[tags] = _packer(tags)
        packer, between = packers[tags]
        parts = [
            part
            for pair in zip(between, map(_in_float32, step.values.values()), strict=True)
            for part in pair
        ]
        head = _WALL_TIME + _DOUBLE.pack(step.wall_time_s) + _STEP + _varint(step.iteration)
        if step.starts:
            yield head + _SESSION_LOG + _sized(_STATUS_START)
        yield head + packer.pack(*parts)


def _packer(tags: Sequence[str]) -> tuple[struct.Struct, list[bytes]]:
    """Prepare a summary: a way to pack it, and what stands before each value."""
    before = [_TAG + _sized(tag.encode()) + _SIMPLE_VALUE for tag in tags]
    before = [_VALUE + _varint(len(text) + 4) + text for text in before]
    size = sum(len(text) + 4 for text in before)
    before[0] = _SUMMARY + _varint(size) + before[0]
    return struct.Struct("<" + "".join(f"{len(text)}sf" for text in before)), before


def _file_version(wall_time_s: float) -> bytes:
    return _WALL_TIME + _DOUBLE.pack(wall_time_s) + _FILE_VERSION + _sized(_VERSION)


def _in_float32(value: float) -> float:
    """Give a value that 32 bits can hold: darknet prints sums that they cannot."""
    return math.copysign(math.inf, value) if abs(value) > _LARGEST_FLOAT32 else value


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004  (seven bits a byte)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def records(events: Sequence[bytes]) -> bytes:
    """Frame events as records, with their lengths and checksums."""
    lengths = [struct.pack("<Q", len(event)) for event in events]
    of_lengths, of_events = masked_crcs(lengths), masked_crcs(events)
    return b"".join(
        part
        for framed in zip(lengths, of_lengths, events, of_events, strict=True)
        for part in framed
    )


def masked_crcs(texts: Sequence[bytes]) -> list[bytes]:
    """Give the masked CRC-32C of each text: 4 bytes, little-endian.

    A byte at a time for all texts of one length at once: Python alone takes a microsecond a byte.
    """
    out: list[bytes] = [b""] * len(texts)
    for length, places in _by_length(texts):
        data = np.frombuffer(b"".join(texts[i] for i in places), np.uint8)
        crc = np.full(len(places), 0xFFFFFFFF, np.uint32)
        for column in np.ascontiguousarray(data.reshape(len(places), length).T):
            crc = _TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
        crc ^= np.uint32(0xFFFFFFFF)
        masked = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(_MASK_DELTA)
        packed = masked.astype("<u4").tobytes()
        for place, i in enumerate(places):
            out[i] = packed[4 * place : 4 * place + 4]
    return out


def _by_length(texts: Iterable[bytes]) -> Iterable[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(len(text), []).append(i)
    return groups.items()


def _table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE: Final = _table()


def write_events(log: TrainLog, folder: Path, *, log_path: Path) -> int:
    """Write what is new in a log; see ``EventWriter.write``. The file's time is its last line's."""
    return EventWriter(folder).write(log, written_at_s=log_path.stat().st_mtime)
