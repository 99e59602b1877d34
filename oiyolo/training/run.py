"""A run's folder: the paths in it and its record, ``run.json``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, locks
from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

BASE_NAME: Final = "network"
"""Darknet names weights after its cfg: ``network.cfg`` yields ``network_final.weights``."""
FINISHED: Final = "finished"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
RUNNING: Final = "running"
_NUMBERED: Final = re.compile(r"(.+)-(\d{3,})")


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: ``runs/<name>``. Darknet runs in it, so that relative paths stay short and simple.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def cfg_path(self) -> Path:
        """The network file that darknet trains."""
        return self.folder / f"{BASE_NAME}.cfg"

    @property
    def log_path(self) -> Path:
        """The log: every line that darknet wrote."""
        return self.folder / "train_log.txt"

    @property
    def weights_folder(self) -> Path:
        """The folder in which darknet saves weights."""
        return self.folder / "weights"

    @property
    def charts_folder(self) -> Path:
        """The folder of the charts that ``plot`` draws."""
        return self.folder / "charts"

    @property
    def panels_folder(self) -> Path:
        """The folder of the pictures that ``evaluate`` draws."""
        return self.folder / "panels"

    @property
    def evaluation_path(self) -> Path:
        """The scores that ``evaluate`` writes."""
        return self.folder / "evaluation.json"

    @property
    def record_path(self) -> Path:
        """The record of the run: its inputs, state and events."""
        return self.folder / "run.json"

    @property
    def record(self) -> dict[str, Any]:
        """The content of ``run.json``; empty if it is missing or invalid."""
        content = files.read_json(self.record_path)
        return content if isinstance(content, dict) else {}

    def write_record(self, **changes: object) -> None:
        """Change the given keys of ``run.json``."""
        files.write_json(self.record_path, {**self.record, **changes})

    def lock(self, operation: str) -> AbstractContextManager[None]:
        """Return a context that locks the run for training.

        Raises:
            LockedError: Another process is training this run.
        """
        return locks.exclusive(self._lock_path, what=f"the run {self.name}", operation=operation)

    @property
    def is_training(self) -> bool:
        """Whether a process is training this run now."""
        return locks.is_held(self._lock_path)

    @property
    def _lock_path(self) -> Path:
        return self.folder / ".lock"

    def image_ids(self, split: str) -> list[str]:
        """Return the image ids in the run's own copy of a list (``train`` or ``valid``)."""
        return ids_in((self.folder / f"{split}.txt").read_text(encoding="utf-8"))


def event_message(event: Mapping[str, Any]) -> str:
    """Return the message of an event, or of ``stopped_early``, in ``run.json``."""
    return str(event["message"] if "message" in event else event["told"])  # older: "told"


def ids_in(list_text: str) -> list[str]:
    """Return the image ids in the text of a list of paths."""
    return [line.rpartition("/")[2].rpartition(".")[0] for line in list_text.splitlines()]


def runs_in(folder: Path) -> list[Run]:
    """Return the runs below ``runs/``, the oldest first."""
    if not folder.is_dir():
        return []
    runs = [Run(path.parent) for path in folder.glob("*/run.json")]
    return sorted(runs, key=lambda run: (str(run.record.get("began_at", "")), run.name))


def ids_in_use(folder: Path) -> set[str]:
    """Return the ids of the images that runs below ``runs/`` are training on now."""
    running = [run for run in runs_in(folder) if run.is_training]
    return {i for run in running for split in ("train", "valid") for i in run.image_ids(split)}


def next_name(folder: Path, network: str) -> str:
    """Return the name of a new run: the network's name and the next free number.

    The name of a folder without ``run.json`` is free: a process was killed before it started to
    train there.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", network).strip("-") or BASE_NAME
    matches = [_NUMBERED.fullmatch(path.parent.name) for path in folder.glob("*/run.json")]
    numbers = [int(match[2]) for match in matches if match]
    return f"{plain}-{max(numbers, default=0) + 1:03}"


def find_run(folder: Path, name: str | None) -> Run:
    """Return the run with a name, or the latest run if the name is ``None``.

    Raises:
        UsageError: There is no such run.
    """
    runs = runs_in(folder)
    if not runs:
        raise UsageError(
            "there is no training run yet", where=str(folder), remedy="Run `oiyolo train` first"
        )
    by_name = {run.name: run for run in runs}
    if name is not None and name not in by_name:
        expected = ", ".join(by_name)
        raise UsageError(f"there is no run {name!r}", where=str(folder), expected=expected)
    return runs[-1] if name is None else by_name[name]
