"""A run's folder: what lies where, and what its ``run.json`` says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, locks
from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

BASE: Final = "network"
"""Darknet names weights after its cfg: ``network.cfg`` gives ``network_final.weights``."""
FINISHED: Final = "finished"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
RUNNING: Final = "running"
_NUMBERED: Final = re.compile(r"(.+)-(\d{3,})")


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: ``runs/<name>``. Darknet runs in it, so that its files have short, plain names.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def cfg_path(self) -> Path:
        """The network as it is trained."""
        return self.folder / f"{BASE}.cfg"

    @property
    def log_path(self) -> Path:
        """Every line that darknet wrote."""
        return self.folder / "train_log.txt"

    @property
    def weights_folder(self) -> Path:
        """Where darknet saves weights."""
        return self.folder / "weights"

    @property
    def charts_folder(self) -> Path:
        """What plot leaves."""
        return self.folder / "charts"

    @property
    def panels_folder(self) -> Path:
        """The pictures that evaluate leaves."""
        return self.folder / "panels"

    @property
    def evaluation_path(self) -> Path:
        """The scores that evaluate leaves."""
        return self.folder / "evaluation.json"

    @property
    def record_path(self) -> Path:
        """What the run was made from, and how it stands."""
        return self.folder / "run.json"

    @property
    def record(self) -> dict[str, Any]:
        """Read ``run.json``; empty if there is none."""
        found = files.read_json(self.record_path)
        return found if isinstance(found, dict) else {}

    def write_record(self, **changes: object) -> None:
        """Change some of ``run.json``."""
        files.write_json(self.record_path, {**self.record, **changes})

    def lock(self, doing: str) -> AbstractContextManager[None]:
        """Be the only one to train this run; ``LockedError`` if somebody else does."""
        return locks.exclusive(self._lock_path, what=f"the run {self.name}", doing=doing)

    @property
    def lives(self) -> bool:
        """It is being trained at this moment."""
        return locks.is_held(self._lock_path)

    @property
    def _lock_path(self) -> Path:
        return self.folder / ".lock"

    def image_ids(self, split: str) -> list[str]:
        """Give the ids in the run's own copy of a list (``train`` or ``valid``)."""
        return ids_in((self.folder / f"{split}.txt").read_text(encoding="utf-8"))


def ids_in(list_text: str) -> list[str]:
    """Give the image ids of a list of paths."""
    return [line.rpartition("/")[2].rpartition(".")[0] for line in list_text.splitlines()]


def runs_in(folder: Path) -> list[Run]:
    """Give the runs below ``runs/``, the oldest first."""
    if not folder.is_dir():
        return []
    found = [Run(path.parent) for path in folder.glob("*/run.json")]
    return sorted(found, key=lambda run: (str(run.record.get("began_at", "")), run.name))


def ids_in_use(folder: Path) -> set[str]:
    """Give the images that live runs below ``runs/`` read."""
    live = [run for run in runs_in(folder) if run.lives]
    return {i for run in live for split in ("train", "valid") for i in run.image_ids(split)}


def next_name(folder: Path, network: str) -> str:
    """Give the name of a new run: the network's name and the next free number.

    A folder without ``run.json`` is what a killed process left before it began; it is used.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", network).strip("-") or BASE
    taken = [_NUMBERED.fullmatch(path.parent.name) for path in folder.glob("*/run.json")]
    numbers = [int(match[2]) for match in taken if match]
    return f"{plain}-{max(numbers, default=0) + 1:03}"


def find_run(folder: Path, name: str | None) -> Run:
    """Give a run by its name, or the latest one.

    Raises:
        UsageError: There is none.
    """
    runs = runs_in(folder)
    if not runs:
        raise UsageError(
            "there is no training run yet", where=str(folder), remedy="Run `oiyolo train` first"
        )
    if name is None:
        return runs[-1]
    for run in runs:
        if run.name == name:
            return run
    raise UsageError(
        f"there is no run {name!r}",
        where=str(folder),
        expected=", ".join(run.name for run in runs),
    )
