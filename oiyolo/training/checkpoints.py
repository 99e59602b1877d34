"""The weights that a training saves: what it can go on from, what is kept, what is evidence.

Darknet overwrites its last weights in place every hundred iterations, so that a kill in that
moment leaves none; and its best ones too, with whatever it measures first after a break, because
it begins with no best mAP. So copies stand in ``weights/kept/``: of the last weights two
(``last-1200``), of the best one, with its mAP (``best-0.8125-1200``). Only whole files have those
names. What a training was taken back from is moved to ``evidence/``, not removed.
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
from oiyolo.darknet.forks import FINAL_WEIGHTS
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.networks.weights import check_weights, read_header
from oiyolo.training.monitors import Measured, Point, Rule, Saved
from oiyolo.training.run import BASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from oiyolo.darknet.forks import Line
    from oiyolo.networks.cfg import Cfg
    from oiyolo.training.monitors import Fact
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_SUFFIX: Final = ".weights"
_KEPT_MOST: Final = 2
_KEPT_LAST: Final = re.compile(r"last-(\d+)\.weights")
_KEPT_BEST: Final = re.compile(r"best-([\d.]+)-(\d+)\.weights")


@dataclass(frozen=True)
class Best:
    """The weights with the best mAP of a run.

    Attributes:
        path: Where they are kept.
        map: The mAP, 0 to 1.
        iteration: When it was measured.
    """

    path: Path
    map: float
    iteration: int


@dataclass(frozen=True)
class Checkpoints:
    """The weights of one run.

    Attributes:
        run: The run.
        line: The line of darknet that saves them.
        cfg: The network they fill.
    """

    run: Run
    line: Line
    cfg: Cfg
    _examined: dict[tuple[Path, int, int, int], int | None] = field(default_factory=dict)

    @property
    def final_path(self) -> Path:
        """The weights of the last iteration."""
        return self.run.weights_folder / f"{BASE}{FINAL_WEIGHTS}"

    @property
    def last_path(self) -> Path:
        """Those that darknet overwrites."""
        return self.run.weights_folder / f"{BASE}{self.line.last_weights}"

    @property
    def best_path(self) -> Path | None:
        """Darknet's own best ones; ``None`` where it keeps none."""
        if not self.line.best_weights:
            return None
        return self.run.weights_folder / f"{BASE}{self.line.best_weights}"

    @property
    def kept_folder(self) -> Path:
        """Where copies are."""
        return self.run.weights_folder / "kept"

    @property
    def size_bytes(self) -> int:
        """The size of one file of them."""
        return expected_weight_bytes(self.cfg)

    @property
    def needed_bytes(self) -> int:
        """What is written at once at most: the last, numbered and best ones, and two copies."""
        return (4 if self.best_path is None else 5) * self.size_bytes

    def has_right_size(self, path: Path) -> bool:
        """Tell whether a file is as large as weights of this network are."""
        return path.stat().st_size == self.size_bytes

    def iteration_of(self, path: Path) -> int | None:
        """Give how many iterations weights have seen; ``None``, with a warning, if not sound."""
        if not path.is_file():
            return None
        found = path.stat()
        key = (path, found.st_mtime_ns, found.st_size, found.st_ino)
        if key not in self._examined:
            self._examined[key] = self._examine(path)
        return self._examined[key]

    def _examine(self, path: Path) -> int | None:
        try:
            report = check_weights(path, self.cfg)
        except (OiyoloError, OSError) as error:
            _log.warning("train: %s", error)
            return None
        if not report.whole:
            _log.warning("train: %s is not whole and is passed over", path)
            return None
        return report.header.iteration(self._batch)

    def newest(self, until: int | None = None) -> tuple[Path | None, int]:
        """Find the sound weights with the most iterations; ``None`` and 0 if there are none.

        Args:
            until: Pass over those with more iterations.
        """
        claims = sorted(self._claims(), key=lambda claim: claim[0] or 0, reverse=True)
        for claimed, path in claims:
            if claimed and (until is None or claimed <= until):
                iteration = self.iteration_of(path)
                if iteration is not None:
                    return path, iteration
        return None, 0

    def move_aside(self, after: int, name: str) -> Path | None:
        """Move weights with more iterations than ``after`` to ``evidence/<name>``; tell where."""
        moved = [path for claimed, path in self._claims() if claimed is None or claimed > after]
        if not moved:
            return None
        folder = self.run.folder / "evidence" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in moved:
            path.replace(folder / path.name)
        return folder

    def keep_last(self) -> None:
        """Keep a copy of the last weights, which have just become whole."""
        iteration = self._claim_of(self.last_path)
        if not iteration or not self.has_right_size(self.last_path):
            return
        self._copy(self.last_path, self.kept_folder / f"last-{iteration}{_SUFFIX}")
        kept = sorted(self._kept(_KEPT_LAST), key=lambda found: int(found[1][1]), reverse=True)
        for path, _ in kept[_KEPT_MOST:]:
            path.unlink(missing_ok=True)

    @property
    def newest_kept(self) -> Path | None:
        """The newest copy of last weights; ``None`` before there is one."""
        kept = [(int(match[1]), path) for path, match in self._kept(_KEPT_LAST)]
        return max(kept)[1] if kept else None

    @property
    def best(self) -> Best | None:
        """The best weights that were kept."""
        found = [
            Best(path, float(match[1]), int(match[2])) for path, match in self._kept(_KEPT_BEST)
        ]
        return max(found, key=lambda best: (best.map, best.iteration), default=None)

    def keep_best(self, value: float) -> None:
        """Keep darknet's new best weights if they are; otherwise give it back the better ones.

        Args:
            value: Their mAP.
        """
        new, before = self.best_path, self.best
        if new is None or not new.is_file():
            return
        if before is not None and before.map > value:
            self._restore_best(before)
            return
        iteration = self._claim_of(new)
        if not iteration or not self.has_right_size(new):
            return
        self._copy(new, self.kept_folder / f"best-{value:.6f}-{iteration}{_SUFFIX}")
        self._remove_older_best()

    def mend(self, measured: Mapping[int, float]) -> None:
        """Bring in order what a kill may have left: half copies, and a worse best over a better.

        Args:
            measured: The mAP of iterations, as the log has it.
        """
        files.remove_parts(self.kept_folder)
        self._remove_older_best()
        best, path = self.best, self.best_path
        if path is None:
            return
        claim = self._claim_of(path) if path.is_file() else None
        if best is not None and (claim == best.iteration and self.has_right_size(path)):
            return
        value = None if claim is None else measured.get(claim)
        if value is not None and self.has_right_size(path):
            self.keep_best(value)
        elif best is not None:
            self._restore_best(best)

    def _restore_best(self, best: Best) -> None:
        if self.best_path is not None:
            _log.info(
                "train: the best weights stay those of iteration %s with mAP %.2f %%",
                f"{best.iteration:,}",
                best.map * 100,
            )
            self._copy(best.path, self.best_path)

    def _remove_older_best(self) -> None:
        best = self.best
        for path, _ in list(self._kept(_KEPT_BEST)):
            if best is not None and path != best.path:
                path.unlink(missing_ok=True)

    @property
    def _batch(self) -> int:
        return self.cfg.net.integer("batch", 1)

    def _claims(self) -> Iterator[tuple[int | None, Path]]:
        """Give all weights that one can go on from, with the iteration that their header says."""
        numbered = self.run.weights_folder.glob(f"{BASE}_*{_SUFFIX}")
        others = {self.last_path, self.best_path}
        kept = (path for path, _ in self._kept(_KEPT_LAST))
        for path in [self.last_path, *sorted(p for p in numbered if p not in others), *kept]:
            if path.is_file():
                yield self._claim_of(path), path

    def _claim_of(self, path: Path) -> int | None:
        with contextlib.suppress(OiyoloError):
            return read_header(path).iteration(self._batch)
        return None

    def _kept(self, pattern: re.Pattern[str]) -> Iterable[tuple[Path, re.Match[str]]]:
        if not self.kept_folder.is_dir():
            return []
        found = [(path, pattern.fullmatch(path.name)) for path in self.kept_folder.iterdir()]
        return [(path, match) for path, match in found if match]

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with files.whole_file(target, durable=False) as part:
            shutil.copyfile(source, part)


class Keeper(Rule):
    """Keeps copies of weights as soon as they are whole; a training never ends by it."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        """Begin."""
        self.kept = 0
        self.iteration = 0
        self._checkpoints = checkpoints
        self._saved: set[str] = set()
        self._map = math.nan

    def hear(self, fact: Fact, at_s: float) -> None:  # noqa: ARG002  (any time)
        """See ``Rule``."""
        if isinstance(fact, Saved):
            self._saved.add(fact.path.rpartition("/")[2])
        elif isinstance(fact, Measured):
            self._map = fact.map
        elif isinstance(fact, Point):
            self.iteration = fact.iteration
            self.settle()

    def settle(self) -> None:
        """Keep what has become whole; a disk that is full stops nothing here."""
        saved, self._saved = self._saved, set()
        try:
            if self._checkpoints.last_path.name in saved:
                self._checkpoints.keep_last()
                self.kept += 1
            best = self._checkpoints.best_path
            if best is not None and best.name in saved and math.isfinite(self._map):
                self._checkpoints.keep_best(self._map)
        except OSError as error:
            _log.warning("train: weights were not copied: %s", error)
