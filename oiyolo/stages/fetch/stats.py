"""Running totals of all fetches of a project, kept in ``data/fetch.json``."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, records
from oiyolo.stages.fetch.downloader import Timer

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from oiyolo.project.project import Project
    from oiyolo.stages.fetch.downloader import Tally

WRITE_EVERY_S: Final = 5.0


@dataclass(frozen=True)
class FetchStats:
    """Totals of all fetches of a project, including interrupted ones.

    Attributes:
        seconds: Time spent fetching images.
        images: Number of images fetched.
        size_bytes: Total size of these images.
        network_bytes: The part of ``size_bytes`` that was downloaded over the network.
    """

    seconds: float = 0.0
    images: int = 0
    size_bytes: int = 0
    network_bytes: int = 0

    @property
    def bandwidth_bytes_s(self) -> float | None:
        """Network bytes per second; ``None`` if nothing was downloaded over the network."""
        return self.network_bytes / self.seconds if self.network_bytes and self.seconds else None


def read_stats(project: Project) -> FetchStats:
    """Return the totals of all fetches so far; all zero if there are none, or no valid file.

    A running fetch updates the file every few seconds.
    """
    return records.load(_path(project), FetchStats) or FetchStats()


def _path(project: Project) -> Path:
    return project.data_folder / "fetch.json"


class StatsWriter:
    """Adds a running fetch to the project's totals, often enough that a kill loses little.

    As a context manager it also writes them at the end, even of an interrupted fetch.

    Args:
        project: The project.
        tally: The counts of the running fetch; what they contain already was written before.
    """

    def __init__(self, project: Project, tally: Tally) -> None:
        self._path, self._tally = _path(project), tally
        before = read_stats(project)
        self._before = FetchStats(
            before.seconds,
            before.images - tally.new,
            before.size_bytes - tally.size_bytes,
            before.network_bytes - tally.network_bytes,
        )
        self._started_s, self._timer = time.monotonic(), Timer(WRITE_EVERY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk has been reported already
            self.write()

    def write_if_due(self) -> None:
        """Write the totals if the last write is more than ``WRITE_EVERY_S`` ago."""
        if self._timer.is_due():
            self.write()

    def write(self) -> None:
        """Write the current totals."""
        before, tally = self._before, self._tally
        now = FetchStats(
            seconds=round(before.seconds + time.monotonic() - self._started_s, 3),
            images=before.images + tally.new,
            size_bytes=before.size_bytes + tally.size_bytes,
            network_bytes=before.network_bytes + tally.network_bytes,
        )
        files.write_json(self._path, asdict(now))
