"""Copies of a run's weights in a bucket: a machine that is taken away takes nothing with it."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from typing import TYPE_CHECKING, Final

from oiyolo.core import progress
from oiyolo.core.errors import OiyoloError
from oiyolo.training.monitors import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from oiyolo.training.checkpoints import Checkpoints, Keeper
    from oiyolo.training.run import Run

    Upload = Callable[[Sequence[Path], str], None]

_log = logging.getLogger("oiyolo")

EVERY_S: Final = 900.0


def upload(paths: Sequence[Path], place: str) -> None:
    """Copy files to a ``gs://`` place."""
    from oiyolo.net import gcs  # noqa: PLC0415  (heavy, and most trainings need none)

    gcs.upload(paths, place)


class Backup(Rule):
    """Copies the last and the best weights on the way, beside the training; never ends it.

    What fails is told, and tried again with the next weights.
    """

    def __init__(
        self,
        run: Run,
        checkpoints: Checkpoints,
        keeper: Keeper,
        *,
        place: str,
        every_s: float = EVERY_S,
        copy: Upload = upload,
    ) -> None:
        """Begin.

        Args:
            run: The run.
            checkpoints: Its weights.
            keeper: Tells when there are new ones.
            place: ``gs://bucket/prefix``; a folder with the run's name lies below it.
            every_s: Seconds between two copies at least.
            copy: Copies files to a place.
        """
        self._run = run
        self._checkpoints = checkpoints
        self._keeper = keeper
        self._place = f"{place.rstrip('/')}/{run.name}"
        self._every_s = every_s
        self._copy = copy
        self._copied = 0
        self._next_s = 0.0
        self._thread: threading.Thread | None = None

    def look(self, at_s: float, quiet_s: float) -> None:  # noqa: ARG002  (talking or not)
        """See ``Rule``."""
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or at_s < self._next_s or self._keeper.kept == self._copied:
            return
        self._copied = self._keeper.kept
        self._next_s = at_s + self._every_s
        paths = self._staged()
        self._thread = threading.Thread(target=self._send, args=(paths,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Copy what there is now, the log last, and wait for it: the training has ended."""
        if self._thread is not None:
            self._thread.join()
        log = self._run.log_path
        self._send([*self._staged(), *([log] if log.is_file() else [])])

    def _staged(self) -> list[Path]:
        """Give the files under the names that darknet gives them, none of which changes any more.

        Those that darknet writes into would be torn: their copies are linked instead.
        """
        folder = self._run.weights_folder / "kept" / "to_copy"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        known, best = self._checkpoints, self._checkpoints.best
        sources = {known.last_path.name: known.newest_kept, known.final_path.name: known.final_path}
        if best is not None and known.best_path is not None:
            sources[known.best_path.name] = best.path
        staged = []
        for name, source in sources.items():
            if source is not None and source.is_file():
                staged.append(_linked(source, folder / name))
        return [*staged, self._run.record_path]

    def _send(self, paths: Sequence[Path]) -> None:
        token = progress.shown.set(False)  # the bar of the training stands there already
        try:
            self._copy(paths, self._place)
        except (OiyoloError, OSError) as error:
            _log.warning("train: the weights were not copied to %s: %s", self._place, error)
        else:
            _log.info("train: copied %s files to %s", len(paths), self._place)
        finally:
            progress.shown.reset(token)


def _linked(source: Path, target: Path) -> Path:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
    return target
