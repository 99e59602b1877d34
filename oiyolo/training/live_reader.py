"""Convert darknet's lines to training events, one at a time.

``trainlog`` reads the lines. Its rows are dropped after each iteration, because this reader runs
alongside training for days.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oiyolo.core.files import open_binary
from oiyolo.training.monitors import ErrorReported, IterationStats, MapMeasured, WeightsSaved
from oiyolo.trainlog.cuda_errors import spell_out
from oiyolo.trainlog.dialects import OUT_OF_MEMORY
from oiyolo.trainlog.line_reader import LineReader
from oiyolo.trainlog.records import Records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.training.monitors import TrainingEvent
    from oiyolo.trainlog.rows import Event

_OUT_OF_MEMORY: Final = re.compile(OUT_OF_MEMORY)
_MAX_WAITING_LINES: Final = 1000
_TAIL_BYTES: Final = 1 << 20


class LiveReader:
    """A callable that converts lines of any fork of darknet to training events."""

    def __init__(self, *, not_resumable: Sequence[str] = ()) -> None:
        """Create the reader.

        Args:
            not_resumable: Suffixes of weights files from which a run cannot resume.
        """
        self._not_resumable = tuple(not_resumable)
        self._waiting_lines: list[bytes] = []
        self._records = Records()
        self._reader = LineReader(self._records)

    def __call__(self, line: bytes) -> Sequence[TrainingEvent]:
        """Return the events of a line (bytes without the newline); most lines have none.

        Lines that cannot have any wait for the next other line: many are read faster at once.
        """
        self._waiting_lines.append(line)
        if self._reader.has_known_kind(line) and len(self._waiting_lines) < _MAX_WAITING_LINES:
            return ()
        records = self._records
        iterations, maps, events = len(records.iterations), len(records.maps), len(records.events)
        self._reader.read_lines(self._waiting_lines)
        self._waiting_lines.clear()
        training_events: list[TrainingEvent] = []
        for row in range(iterations, len(records.iterations)):
            point = records.iteration(row)
            training_events.append(
                IterationStats(
                    point.iteration, point.loss, point.avg_loss, point.images_per_s, point.iou
                )
            )
        training_events += [MapMeasured(point.map) for point in records.maps[maps:]]
        for event in records.events[events:]:
            training_events += self._training_events(event)
        if len(records.iterations):
            self._reader.forget_rows()
        return training_events

    def _training_events(self, event: Event) -> Sequence[TrainingEvent]:
        if event.kind == "saved":
            path = event.text.removeprefix("Saving weights to").strip()
            return [WeightsSaved(path, resumable=not path.endswith(self._not_resumable))]
        if event.kind == "error":
            is_memory = _OUT_OF_MEMORY.search(spell_out(event.text)) is not None
            return [ErrorReported(event.text, out_of_memory=is_memory)]
        return []


def latest_stats(log_path: Path) -> IterationStats | None:
    """Return the last iteration in a run's log; ``None`` if the last 1 MiB has none.

    Args:
        log_path: The log, which may be missing.
    """
    try:
        with open_binary(log_path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    read = LiveReader()
    events = [event for line in lines for event in read(line)]
    return next((e for e in reversed(events) if isinstance(e, IterationStats)), None)
