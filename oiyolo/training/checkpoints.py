"""The checkpoints of a run: find the newest to resume from, keep copies, move bad ones aside.

Darknet overwrites its last weights in place every hundred iterations, so a kill at that moment
leaves no complete file. After a resume, darknet has forgotten the best mAP and overwrites its best
weights at the first measurement. Therefore ``weights/kept/`` holds copies: two of the last
weights (``last-1200``) and one of the best weights with their mAP (``best-0.8125-1200``). Weights
that are being scored, or will be next, are there too (``scoring-1200``). Only complete files have
those names. A rollback moves the rejected weights to ``evidence/``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import OiyoloError
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.networks.weights import check_weights, read_header
from oiyolo.training.monitors import IterationStats, MapMeasured, Monitor, WeightsSaved
from oiyolo.training.run import BASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from oiyolo.darknet.forks import Fork
    from oiyolo.darknet.program import Engine
    from oiyolo.networks.cfg import Cfg
    from oiyolo.training.monitors import TrainingEvent
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_SUFFIX: Final = ".weights"
_MAX_KEPT_LAST: Final = 2
_KEPT_LAST: Final = re.compile(r"last-(\d+)\.weights")
_SCORING: Final = re.compile(r"scoring-(\d+)\.weights")
_BEST_NAME: Final = f"{BASE_NAME}_best{_SUFFIX}"
"""How AlexeyAB's and hank-ai's darknet name their best weights."""
_KEPT_BEST: Final = re.compile(r"best-(\d+(?:\.\d+)?)-(\d+)\.weights")


def state_bytes(cfg: Cfg, engine: Engine) -> int:
    """Return the size of the state that an engine keeps next to the last weights, at most.

    The torch engine keeps as many values of momentum as weights and, with ``ema_alpha``, as many
    averages; it then saves these as weights, too.
    """
    if engine == "darknet":
        return 0
    return (3 if cfg.net.number("ema_alpha", 0) else 1) * expected_weight_bytes(cfg)


@dataclass(frozen=True)
class BestWeights:
    """The weights with the best mAP of a run.

    Attributes:
        path: The kept copy.
        map: Their mAP, 0 to 1.
        iteration: Their iteration.
    """

    path: Path
    map: float
    iteration: int


@dataclass(frozen=True)
class Checkpoints:
    """The weights files of one run.

    Attributes:
        run: The run.
        fork: The fork of darknet that saves them.
        cfg: The network that they belong to.
        own_map: Whether oiyolo measures their mAP, and not darknet.
        engine: The engine that saves them.
    """

    run: Run
    fork: Fork
    cfg: Cfg
    own_map: bool = False
    engine: Engine = "darknet"
    _iteration_cache: dict[tuple[Path, int, int, int], int | None] = field(default_factory=dict)

    @property
    def final_path(self) -> Path:
        """The weights that darknet writes after the last iteration."""
        return self.run.final_weights_path

    @property
    def last_path(self) -> Path:
        """The last weights, which darknet overwrites in place."""
        return self.run.weights_folder / f"{BASE_NAME}{self.fork.last_weights}"

    @property
    def best_path(self) -> Path | None:
        """Darknet's own best weights; ``None`` if it keeps none."""
        if self.own_map or not self.fork.best_weights:
            return None
        return self.run.weights_folder / f"{BASE_NAME}{self.fork.best_weights}"

    @property
    def best_name(self) -> str:
        """The name of the best weights outside the kept folder."""
        return _BEST_NAME if self.best_path is None else self.best_path.name

    @property
    def kept_folder(self) -> Path:
        """The folder for copies."""
        return self.run.weights_folder / "kept"

    @property
    def size_bytes(self) -> int:
        """The size of one weights file of this network."""
        return expected_weight_bytes(self.cfg)

    @property
    def needed_bytes(self) -> int:
        """The most bytes written at once: the last, numbered and best weights and two copies.

        The torch engine writes a state as well.
        """
        weights_bytes = (4 if self.best_path is None else 5) * self.size_bytes
        return weights_bytes + state_bytes(self.cfg, self.engine)

    def has_right_size(self, path: Path) -> bool:
        """Return whether a file is as large as weights of this network."""
        return path.stat().st_size == self.size_bytes

    def iteration_of(self, path: Path) -> int | None:
        """Return the iteration of weights; log a warning and return ``None`` if they are bad."""
        if not path.is_file():
            return None
        status = path.stat()
        key = (path, status.st_mtime_ns, status.st_size, status.st_ino)
        if key not in self._iteration_cache:
            self._iteration_cache[key] = self._check(path)
        return self._iteration_cache[key]

    def _check(self, path: Path) -> int | None:
        try:
            report = check_weights(path, self.cfg, complete=True)
        except OiyoloError as error:
            # Its remedy is for files that the user chose; here older weights are used instead.
            _log.warning("train: %s is ignored: %s", path, error.found or error.what)
            return None
        except OSError as error:
            _log.warning("train: %s is ignored: %s", path, error)
            return None
        return report.header.iteration(self._batch)

    def newest(self, max_iteration: int | None = None) -> tuple[Path | None, int]:
        """Return the valid weights with the most iterations; ``None`` and 0 if there are none.

        Args:
            max_iteration: Ignore weights with more iterations.
        """
        candidates = sorted(self._resumable_files(), key=lambda row: row[0] or 0, reverse=True)
        for header_iteration, path in candidates:
            if header_iteration and (max_iteration is None or header_iteration <= max_iteration):
                iteration = self.iteration_of(path)
                if iteration is not None:
                    return path, iteration
        return None, 0

    def move_aside(self, after: int, name: str) -> Path | None:
        """Move weights with more iterations than ``after`` to ``evidence/<name>``.

        Returns:
            That folder; ``None`` if there were no such weights.
        """
        moved = [
            path
            for header_iteration, path in self._resumable_files()
            if header_iteration is None or header_iteration > after
        ]
        if not moved:
            return None
        folder = self.run.folder / "evidence" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in moved:
            path.replace(folder / path.name)
        return folder

    def keep_last(self) -> None:
        """Copy the last weights, which have just been completed, to the kept folder."""
        iteration = self._header_iteration(self.last_path)
        if not iteration or not self.has_right_size(self.last_path):
            return
        self._copy(self.last_path, self.kept_folder / f"last-{iteration}{_SUFFIX}")
        kept = sorted(self._kept_files(_KEPT_LAST), key=lambda row: int(row[1][1]), reverse=True)
        for path, _ in kept[_MAX_KEPT_LAST:]:
            path.unlink(missing_ok=True)

    @property
    def newest_kept(self) -> Path | None:
        """The newest copy of the last weights; ``None`` if there is none yet."""
        kept = [(int(match[1]), path) for path, match in self._kept_files(_KEPT_LAST)]
        return max(kept)[1] if kept else None

    @property
    def best(self) -> BestWeights | None:
        """The kept weights with the best mAP; ``None`` if there are none yet."""
        kept = [
            BestWeights(path, float(match[1]), int(match[2]))
            for path, match in self._kept_files(_KEPT_BEST)
        ]
        return max(kept, key=lambda best: (best.map, best.iteration), default=None)

    def keep_best(self, value: float) -> None:
        """Keep darknet's new best weights, or restore the kept ones if those are better.

        Args:
            value: The mAP of the new weights, 0 to 1.
        """
        new, before = self.best_path, self.best
        if new is None or not new.is_file():
            return
        if before is not None and before.map > value:
            self._restore_best(before, new)
            return
        iteration = self._header_iteration(new)
        if not iteration or not self.has_right_size(new):
            return
        self._copy(new, self.kept_folder / f"best-{value:.6f}-{iteration}{_SUFFIX}")
        self._remove_older_best()

    def link_for_scoring(self) -> tuple[Path, int] | None:
        """Return the newest copy of the last weights under a name that stays, and its iteration.

        Returns:
            ``None`` if there is no copy yet.

        Raises:
            OSError: The file system has no hard links and is full.
        """
        source = self.newest_kept
        match = source and _KEPT_LAST.fullmatch(source.name)
        if source is None or not match:
            return None
        target = self.kept_folder / f"scoring-{match[1]}{_SUFFIX}"
        if not target.exists():
            files.link_or_copy(source, target)
        return target, int(match[1])

    def keep_scored(self, path: Path, value: float, iteration: int) -> None:
        """Keep weights that oiyolo has scored if they are the best, and remove their link if not.

        Of equally good ones, the latest are the best.

        Args:
            path: The link (``link_for_scoring``), or another file, which stays where it is.
            value: Their mAP, 0 to 1.
            iteration: Their iteration.
        """
        before = self.best
        if before is None or value >= before.map:
            target = self.kept_folder / f"best-{value:.6f}-{iteration}{_SUFFIX}"
            if _SCORING.fullmatch(path.name):
                path.replace(target)
            else:  # no link: darknet may write into its own files
                self._copy(path, target)
            self._remove_older_best()
        self.remove_link(path)

    @staticmethod
    def remove_link(path: Path) -> None:
        """Remove weights from the kept folder that are not to be scored any more."""
        if _SCORING.fullmatch(path.name):
            path.unlink(missing_ok=True)

    def _remove_links(self) -> None:
        """Remove links to other files: darknet would write its weights into those."""
        for path in self.run.weights_folder.glob("*"):
            if path.is_symlink() and not path.is_dir():
                _log.warning("train: removed %s, which is a link to another file", path)
                path.unlink()

    def repair(self, map_by_iteration: Mapping[int, float]) -> None:
        """Clean up after a kill: remove partial copies and restore overwritten best weights.

        Args:
            map_by_iteration: The mAP values measured so far.
        """
        self._remove_links()
        files.remove_parts(self.kept_folder)
        for link, _ in self._kept_files(_SCORING):
            self.remove_link(link)
        self._remove_older_best()
        best, path = self.best, self.best_path
        if path is None:
            self._adopt_best(map_by_iteration)
            return
        iteration = self._header_iteration(path) if path.is_file() else None
        if best is not None and (iteration == best.iteration and self.has_right_size(path)):
            return
        value = None if iteration is None else map_by_iteration.get(iteration)
        if value is not None and self.has_right_size(path):
            self.keep_best(value)
        elif best is not None:
            self._restore_best(best, path)

    def _adopt_best(self, map_by_iteration: Mapping[int, float]) -> None:
        """Keep best weights that were copied back from a backup, if their score is known."""
        path = self.run.weights_folder / _BEST_NAME
        iteration = self._header_iteration(path) if path.is_file() else None
        value = None if iteration is None else map_by_iteration.get(iteration)
        if iteration is not None and value is not None and self.has_right_size(path):
            self.keep_scored(path, value, iteration)
            path.unlink()

    def _restore_best(self, best: BestWeights, target: Path) -> None:
        message = "train: keeping the best weights of iteration %s (mAP %.2f %%)"
        _log.info(message, f"{best.iteration:,}", best.map * 100)
        self._copy(best.path, target)

    def _remove_older_best(self) -> None:
        best = self.best
        for path, _ in self._kept_files(_KEPT_BEST):
            if best is not None and path != best.path:
                path.unlink(missing_ok=True)

    @property
    def _batch(self) -> int:
        return self.cfg.net.integer("batch", 1)

    def _resumable_files(self) -> Iterator[tuple[int | None, Path]]:
        """Yield all weights to resume from, with the iteration in their header."""
        numbered = self.run.weights_folder.glob(f"{BASE_NAME}_*{_SUFFIX}")
        others = {self.last_path, self.best_path}
        kept = (path for path, _ in self._kept_files(_KEPT_LAST))
        for path in [self.last_path, *sorted(p for p in numbered if p not in others), *kept]:
            if path.is_file():
                yield self._header_iteration(path), path

    def _header_iteration(self, path: Path) -> int | None:
        with contextlib.suppress(OiyoloError):
            return read_header(path).iteration(self._batch)
        return None

    def _kept_files(self, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
        matches = [(path, pattern.fullmatch(path.name)) for path in self.kept_folder.glob("*")]
        return [(path, match) for path, match in matches if match]

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with files.atomic_write(target, durable=False) as part:
            shutil.copyfile(source, part)


class CheckpointKeeper(Monitor):
    """A monitor that keeps copies of weights once they are complete; it never stops a run.

    Attributes:
        kept_count: How often the last weights were kept.
        iteration: The latest iteration that was logged.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.kept_count = 0
        self.iteration = 0
        self._checkpoints = checkpoints
        self._saved: set[str] = set()
        self._map = math.nan

    def on_event(self, event: TrainingEvent, at_s: float) -> None:  # noqa: ARG002  (time does not matter)
        """Note saved weights and mAP, and copy completed weights after each iteration."""
        if isinstance(event, WeightsSaved):
            self._saved.add(event.path.rpartition("/")[2])
        elif isinstance(event, MapMeasured):
            self._map = event.map
        elif isinstance(event, IterationStats):
            self.iteration = event.iteration
            self.copy_completed()

    def copy_completed(self) -> None:
        """Copy the weights that are complete now; log a warning if the disk is full."""
        saved, self._saved = self._saved, set()
        try:
            if self._checkpoints.last_path.name in saved:
                self._checkpoints.keep_last()
                self.kept_count += 1
            best = self._checkpoints.best_path
            if best is not None and best.name in saved and math.isfinite(self._map):
                self._checkpoints.keep_best(self._map)
        except OSError as error:
            _log.warning("train: cannot copy weights: %s", error)
