"""What all fetches of a project took together, those that were interrupted too."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.project.project import Project
    from oiyolo.stages.fetch.downloader import Tally

NOTE_EVERY_S: Final = 5.0


@dataclass(frozen=True)
class Effort:
    """What all fetches of a project took together, those that were interrupted too.

    Attributes:
        seconds: Time spent on fetching images.
        images: Images that arrived.
        size_bytes: Their bytes.
        network_bytes: Those of them that came over the network.
    """

    seconds: float = 0.0
    images: int = 0
    size_bytes: int = 0
    network_bytes: int = 0

    @property
    def bandwidth_bytes_s(self) -> float | None:
        """Bytes a second over the network; ``None`` if nothing came so."""
        return self.network_bytes / self.seconds if self.network_bytes and self.seconds else None


def effort(project: Project) -> Effort:
    """Read what the fetches so far took; a fetch at work writes it every few seconds."""
    noted = files.read_json(_path(project))
    known: dict[str, Any] = noted if isinstance(noted, dict) else {}
    names = {declared.name for declared in fields(Effort)}
    usable = known.keys() == names and all(isinstance(n, (int, float)) for n in known.values())
    return Effort(**known) if usable else Effort()


def _path(project: Project) -> Path:
    return project.data_folder / "fetch.json"


class Notes:
    """Adds a fetch to the project's effort, every few seconds, so that a kill loses few."""

    def __init__(self, project: Project, tally: Tally) -> None:
        self._path, self._tally = _path(project), tally
        self._before = effort(project)
        self._began_s = self._noted_s = time.monotonic()

    def note_now_and_then(self) -> None:
        """Write, if some time has passed since."""
        if time.monotonic() - self._noted_s > NOTE_EVERY_S:
            self.note()

    def note(self) -> None:
        """Write what it is by now."""
        self._noted_s = time.monotonic()
        before, tally = self._before, self._tally
        now = Effort(
            seconds=round(before.seconds + self._noted_s - self._began_s, 3),
            images=before.images + tally.new,
            size_bytes=before.size_bytes + tally.size_bytes,
            network_bytes=before.network_bytes + tally.network_bytes,
        )
        files.write_json(self._path, asdict(now))
