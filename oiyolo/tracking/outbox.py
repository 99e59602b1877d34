"""Points that are to be sent to a tracker, in the order in which they are sent.

A tracker cannot replace what it received, so each value of an iteration is in the file once: when
training is resumed, the iterations that it repeats keep their first values. Scores of weights and
results are added again when they change. The number of points sent so far says where to resume, and
a point never changes, so sending it again is harmless where the tracker ignores equal points.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from oiyolo.core.files import open_binary
from oiyolo.tracking.points import PointFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.tracking.points import FileState, Point, Scores


class Row(NamedTuple):
    """A point to send.

    Attributes:
        iteration: Its iteration.
        time_s: Its time, in seconds since 1970.
        values: Its values by tag.
    """

    iteration: int
    time_s: float
    values: Mapping[str, float]


class Outbox(PointFile):
    """The points of a run for one tracker.

    Args:
        folder: Folder of the file.
        tracker: Name of the tracker.
    """

    def __init__(self, folder: Path, tracker: str) -> None:
        super().__init__(folder)
        self._name = f"{tracker}.jsonl"
        self.state_name = f"{tracker}-points.json"

    def new_name(self, begun_at_s: float) -> str:  # noqa: ARG002  (of the base)
        """Return the name of the file."""
        return self._name

    def has_own_name(self, name: str) -> bool:
        """Return whether this is the name of the file."""
        return name == self._name

    def encode(self, points: Sequence[Point], *, is_new: bool) -> bytes:  # noqa: ARG002  (of the base)
        """Return one line of JSON for each point."""
        rows = ([p.iteration, round(p.time_s, 3), dict(p.values)] for p in points)
        return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()

    def select(self, points: Sequence[Point], state: FileState) -> Sequence[Point]:
        """Return the points without the values that their iterations have already."""
        return [new for point in points if (new := _unsent(point, state)).values]

    def remaining_scores(self, state: FileState, points: Sequence[Point]) -> Scores:  # noqa: ARG002
        """Return all scores in the file: a tracker drops none."""
        return state.scores

    def rows(self, first: int) -> Iterator[Row]:
        """Yield the points from number ``first`` on, counted from 0."""
        path = self.folder / self._name
        if not path.is_file():
            return
        with open_binary(path) as file:
            for line in islice(file, first, None):
                iteration, time_s, values = json.loads(line)
                yield Row(iteration, time_s, values)


def _unsent(point: Point, state: FileState) -> Point:
    if not point.is_measured:
        return point if point.iteration > state.highest else replace(point, values={})
    values = {
        tag: value
        for tag, value in point.values.items()
        if point.iteration > state.measured.get(tag, -1)
    }
    return replace(point, values=values)
