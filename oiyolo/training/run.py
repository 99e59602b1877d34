"""A run's folder: the paths in it and its record, ``run.json``."""

from __future__ import annotations

import logging
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from oiyolo.core import files, locks, records, staleness
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.darknet import lists
from oiyolo.darknet.forks import FINAL_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

_log = logging.getLogger("oiyolo")

BASE_NAME: Final = "network"
"""Darknet names weights after its cfg: ``network.cfg`` yields ``network_final.weights``."""
FINISHED: Final = "finished"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
RUNNING: Final = "running"
CURRENT: Final = "current"
"""The name of the link in ``runs/`` to the run of the published detector."""
MapSource = Literal["own", "darknet"]
"""Who measures mAP during a training: oiyolo, for every fork, or darknet, if it can."""
_NUMBERED: Final = re.compile(r"(.+)-(\d{3,})")


class _DarknetFields(TypedDict, total=False):
    fork: str
    line: str  # older name of ``fork``
    gpu: bool


class _Event(TypedDict, total=False):
    message: str


class _EarlyStop(_Event):
    iteration: int


class _Attempt(TypedDict, total=False):
    to_iteration: int | None
    iterations_lost: int | None


class _Tuning(TypedDict, total=False):
    rate_factor: float
    subdivisions: int
    rollbacks: int
    measures_map: bool


class RecordFields(TypedDict, total=False):
    """The fields of ``run.json`` on whose type the program relies."""

    state: str
    network: str
    half: int
    max_batches: int
    map: str
    options: list[str]
    seconds: float
    resumed_at_iteration: int
    began_at: str
    ended_at: str | None
    outcome: str | None
    command: list[str]
    classes: list[str]
    host: str
    process: int
    made_from: dict[str, Any] | None
    list_fingerprints: dict[str, str]
    darknet: _DarknetFields
    events: list[_Event]
    attempts: list[_Attempt]
    stopped_early: _EarlyStop | None
    tuning: _Tuning | None


class _StartedFields(TypedDict):
    """The fields that the record of every run has from its start."""

    network: str
    max_batches: int
    darknet: _DarknetFields


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
    def scores_path(self) -> Path:
        """The scores of its checkpoints (``stages.evaluate.checkpoint_scorer``)."""
        return self.folder / "checkpoint_scores.json"

    @property
    def record_path(self) -> Path:
        """The record of the run: its inputs, state and events."""
        return self.folder / "run.json"

    @property
    def final_weights_path(self) -> Path:
        """The weights that darknet writes at the end."""
        return self.weights_folder / f"{BASE_NAME}{FINAL_WEIGHTS}"

    @property
    def has_final_weights(self) -> bool:
        """Whether the file of the final weights exists."""
        return self.final_weights_path.is_file()

    @property
    def has_weights(self) -> bool:
        """Whether there are any weights in its folder, final or not."""
        return any(self.weights_folder.glob("**/*.weights")) or any(
            self.weights_folder.glob(f"{BASE_NAME}.backup")
        )

    @property
    def stop_path(self) -> Path:
        """The file that asks the process that trains this run to stop."""
        return self.folder / ".stop"

    @property
    def output_path(self) -> Path:
        """What ``oiyolo train --detach`` prints in the background."""
        return self.folder / "detached.log"

    @property
    def record(self) -> dict[str, Any]:
        """The content of ``run.json``; empty if it is missing.

        Raises:
            InputFormError: The file is damaged.
        """
        return records.find(self.record_path, RecordFields, remedy=self._remedy) or {}

    @property
    def half(self) -> int:
        """The half of train that it is trained on, 1 or 2; 0 for all of train."""
        return int(self.record.get("half", 0))

    @property
    def train_command(self) -> str:
        """The command that trains it, and resumes it if it is not finished.

        It has the options that are not in the project's file: without them, another run would be
        trained.
        """
        if self.half:
            return "oiyolo review --cross-fit"
        return shlex.join(["oiyolo", "train", *self.record.get("options", [])])

    @property
    def started_record(self) -> dict[str, Any]:
        """The record with network, max_batches and darknet, which every run has from its start.

        Raises:
            InputFormError: The file is missing or damaged.
        """
        record = self.record
        if problem := records.mismatch(record, _StartedFields):
            raise records.damaged_error(self.record_path, problem, self._remedy)
        return record

    @property
    def _remedy(self) -> str:
        return (
            f"Restore it from a copy, or move the folder {self.folder} out of runs/, after which "
            "the other runs can be used"
        )

    def write_record(self, **changes: object) -> None:
        """Change the given keys of ``run.json``."""
        files.write_json(self.record_path, {**self.record, **changes})

    def lock(self, operation: str) -> AbstractContextManager[None]:
        """Return a context that locks the run for training.

        Raises:
            LockedError: Another process is training this run.
        """
        return locks.exclusive(self._lock_path, what=f"the run {self.name}", operation=operation)

    def map_source(self, option: str = "own") -> MapSource:
        """Return who measures mAP while this run is trained.

        A run keeps the source with which it began: their figures cannot be compared. Older
        versions, which did not record it, left it to darknet.

        Args:
            option: ``[train] map``, which counts for a new run.
        """
        source = self.record.get("map", "darknet") if self.record else option
        return "own" if source == "own" else "darknet"

    @property
    def is_training(self) -> bool:
        """Whether a process is training this run now."""
        return locks.is_held(self._lock_path)

    @property
    def state(self) -> str:
        """The state now; unlike the record's, it is right after a kill too. Empty if unknown."""
        if self.is_training:
            return RUNNING
        recorded = str(self.record.get("state") or "")
        return INTERRUPTED if recorded == RUNNING else recorded

    @property
    def _lock_path(self) -> Path:
        return self.folder / ".lock"

    def image_ids(self, split: str) -> list[str]:
        """Return the image ids in the run's own copy of a list (``train`` or ``valid``).

        Raises:
            InputFormError: The list is missing or damaged, or has other images than when it was
                written (which older versions did not record).
        """
        path = self.folder / f"{split}.txt"
        remedy = f"Run `{self.train_command}`, which writes the list again"
        if self.half:
            remedy = f"Delete {self.folder}, and run `{self.train_command}` again"
        ids = lists.read_ids(path, remedy=remedy)
        expected = self.record.get("list_fingerprints", {}).get(split)
        if expected is not None and expected != fingerprint_of_images(ids):
            found = f"images that differ from those it was written with ({len(ids):,} lines)"
            raise records.damaged_error(path, found, remedy)
        return ids


def fingerprint_of_images(ids: Iterable[str]) -> str:
    """Return the fingerprint of a list's images, wherever their files are."""
    return staleness.fingerprint(sorted(set(ids)))


def event_message(event: Mapping[str, Any]) -> str:
    """Return the message of an event, or of ``stopped_early``, in ``run.json``."""
    return str(event.get("message", event.get("told", "")))  # older: "told"


def is_rollback(event: Mapping[str, Any]) -> bool:
    """Return whether an event in ``run.json`` is a rollback to earlier weights, or a restart.

    Whoever resumes without measuring mAP, or with more subdivisions, rolls nothing back.
    """
    return "back_to" in event and event.get("kind") not in {"map", "memory"}


def runs_in(folder: Path, *, half: int | None = 0) -> list[Run]:
    """Return the runs below ``runs/``, the oldest first.

    Args:
        folder: The folder of all runs.
        half: The half of train that they were trained on, 1 or 2; 0 for runs on all of train, as
            commands use them; ``None`` for every run.

    Raises:
        InputFormError: The ``run.json`` of a run is damaged.
    """
    runs, errors = survey_runs(folder)
    if errors:
        raise errors[0]
    return [run for run in runs if half is None or run.half == half]


def survey_runs(folder: Path) -> tuple[list[Run], list[InputFormError]]:
    """Return the runs below ``runs/``, the oldest first, and the errors of damaged ``run.json``."""
    runs = _run_folders(folder)
    errors = {run: error for run in runs if (error := _damage(run)) is not None}
    intact = [run for run in runs if run not in errors]
    return sorted(intact, key=_age), list(errors.values())


def _run_folders(folder: Path) -> list[Run]:
    paths = sorted(folder.glob("*/run.json"))
    return [Run(path.parent) for path in paths if not _is_current_link(path.parent)]


def _is_current_link(path: Path) -> bool:
    """Return whether a path below ``runs/`` is the link, under which a run would appear twice."""
    return path.name == CURRENT and path.is_symlink()


def current_run(folder: Path) -> Run | None:
    """Return the run that ``runs/current`` names; ``None`` if there is no such link.

    Raises:
        InputFormError: It is not a link, or not one to a run in this folder.
    """
    link = folder / CURRENT
    if not link.is_symlink():
        if link.exists():
            raise _bad_link_error(link, "something that is not a symbolic link")
        return None
    path = Path(os.path.realpath(link))
    run, found = Run(folder / path.name), f"a link to {path}"
    if path.parent != Path(os.path.realpath(folder)):
        raise _bad_link_error(link, f"{found}, outside of this folder")
    if not run.record_path.is_file():
        raise _bad_link_error(link, f"{found}, which has no {run.record_path.name}")
    return run


def run_at(folder: Path) -> Run:
    """Return the run in a folder; for the link ``runs/current``, the run that it names."""
    current = current_run(folder.parent) if _is_current_link(folder) else None
    return current or Run(folder)


def _bad_link_error(link: Path, found: str) -> InputFormError:
    return InputFormError(
        "the current detector is unknown",
        where=str(link),
        expected="a symbolic link to a run in this folder",
        found=found,
        remedy=f"Name a run with `ln -sfn RUN {CURRENT}` in this folder, or delete {CURRENT}",
    )


def set_current_run(run: Run) -> None:
    """Make ``runs/current`` a link to a run, in one step: readers see the old or the new one.

    It is relative, so that it is right in a copy of the project, too.

    Raises:
        InputFormError: What is there now is not a link to a run, and is left as it is.
    """
    folder = run.folder.parent
    current_run(folder)
    link = folder / CURRENT
    with files.part_path(link) as part:
        part.symlink_to(run.name)
        part.replace(link)


def _damage(run: Run) -> InputFormError | None:
    try:
        _ = run.record
    except InputFormError as error:
        return error
    return None


def _age(run: Run) -> tuple[str, str]:
    return str(run.record.get("began_at", "")), run.name


def ids_in_use(folder: Path) -> set[str]:
    """Return the ids of the images that runs below ``runs/`` are training on now."""
    running = running_runs(folder)
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


def running_runs(folder: Path) -> list[Run]:
    """Return the runs below ``runs/`` that are being trained now, the oldest first.

    The records of other runs are not read, so their damage stops nothing.

    Raises:
        InputFormError: The ``run.json`` of a run that is being trained is damaged.
    """
    return sorted((run for run in _run_folders(folder) if run.is_training), key=_age)


def find_run(
    folder: Path,
    name: str | None,
    *preferences: Callable[[Run], bool],
) -> Run:
    """Return the run with a name, or the newest suitable run if the name is ``None``.

    Args:
        folder: The folder of all runs.
        name: Name of the run, or "current" for the run of the published detector.
        *preferences: What the caller needs, the best first: the newest run that has it is chosen.
            If no run has any of it, the newest of all is.

    Raises:
        UsageError: There is no such run.
        InputFormError: The ``run.json`` of a run is damaged, so that the newest is unknown; or
            ``runs/current`` is not a link to a run.
    """
    if name == CURRENT and (current := current_run(folder)) is not None:
        return current
    if name in {run.name for run in _run_folders(folder)}:
        return Run(folder / str(name))  # whatever the state of the others
    runs = runs_in(folder)
    if not runs:
        raise UsageError(
            "there is no training run yet", where=str(folder), remedy="Run `oiyolo train` first"
        )
    by_name = {run.name: run for run in runs}
    if name is not None and name not in by_name:
        expected = ", ".join(by_name)
        remedy = "`oiyolo refresh --retrain` makes a run the current one" if name == CURRENT else ""
        raise UsageError(
            f"there is no run {name!r}", where=str(folder), expected=expected, remedy=remedy
        )
    return newest_with(runs, preferences) if name is None else by_name[name]


def newest_with(runs: Sequence[Run], preferences: Sequence[Callable[[Run], bool]]) -> Run:
    """Return the newest run with the first preference that any run has; else the newest run.

    Args:
        runs: At least one run, the oldest first.
        preferences: What the caller needs, the best first.
    """
    for has_it in preferences:
        for run in reversed(runs):
            if has_it(run):
                if run != runs[-1]:
                    _log.info(
                        "using %s: the newer run %s (%s) does not have what this command needs yet",
                        run.name,
                        runs[-1].name,
                        runs[-1].state,
                    )
                return run
    return runs[-1]
