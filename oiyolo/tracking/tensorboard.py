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

import fnmatch
import io
from typing import TYPE_CHECKING, Final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from oiyolo.core.errors import UsageError
from oiyolo.tracking.points import PointFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.tracking.points import Point

_WRITER: Final = "oiyolo"
_PATTERN: Final = f"events.out.tfevents.*.{_WRITER}"
_FILE_VERSION: Final = "brain.Event:2"


class EventWriter(PointFile):
    """Appends new iterations of a log to an event file.

    Args:
        folder: Folder of the event file; TensorBoard uses its name as the name of the run.

    Raises:
        UsageError: The folder or its parent exists and is not a folder.
    """

    state_name = ".oiyolo-events.json"

    def __init__(self, folder: Path) -> None:
        for path in (folder.parent, folder):
            if path.exists() and not path.is_dir():
                raise UsageError(
                    "cannot write event files: not a folder",
                    where=str(path),
                    remedy="Name a folder",
                )
        super().__init__(folder)

    def new_name(self, begun_at_s: float) -> str:
        """Return a name that contains the time, as TensorBoard's own names do."""
        return f"events.out.tfevents.{begun_at_s:010.0f}.{_WRITER}"

    def has_own_name(self, name: str) -> bool:
        """Return whether this is the name of an event file of this class."""
        return fnmatch.fnmatch(name, _PATTERN)

    def encode(self, points: Sequence[Point], *, is_new: bool) -> bytes:
        """Return the records of points, with the version of a new file."""
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        if is_new:
            head = Event(wall_time=points[0].time_s, file_version=_FILE_VERSION)
            writer.write(head.SerializeToString())
        for point in points:
            if point.restarts:
                writer.write(_event(point, session_log=SessionLog(status=SessionLog.START)))
            values = [Summary.Value(tag=tag, simple_value=v) for tag, v in point.values.items()]
            writer.write(_event(point, summary=Summary(value=values)))
        return buffer.getvalue()


def _event(point: Point, **content: object) -> bytes:
    event = Event(wall_time=point.time_s, step=point.iteration, **content)
    encoded: bytes = event.SerializeToString()
    return encoded
