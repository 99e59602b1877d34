"""Back up a run's weights to a bucket, so that losing the machine loses no weights."""

from __future__ import annotations

import logging
import shutil
import threading
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, progress
from oiyolo.core.errors import OiyoloError
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.training.monitors import Monitor
from oiyolo.transfer.upload import upload_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.training.checkpoints import CheckpointKeeper, Checkpoints

_log = logging.getLogger("oiyolo")

_INTERVAL_S: Final = 900.0
"""Minimum time between two uploads."""


class Backup(Monitor):
    """A monitor that uploads the last and the best weights in the background; it never stops a run.

    A failed upload is logged and repeated with the next weights.
    """

    def __init__(
        self, checkpoints: Checkpoints, keeper: CheckpointKeeper, destination: str
    ) -> None:
        """Create the monitor.

        Args:
            checkpoints: The weights of the run.
            keeper: The monitor that keeps the weights; its count shows when there are new ones.
            destination: ``gs://bucket/prefix``; files go to a folder with the run's name below it.
        """
        self._run = checkpoints.run
        self._checkpoints = checkpoints
        self._keeper = keeper
        self._destination = f"{destination.rstrip('/')}/{self._run.name}"
        self._copied_count = 0
        self._next_s = 0.0
        self._thread: threading.Thread | None = None

    def on_tick(self, at_s: float, quiet_s: float) -> None:  # noqa: ARG002  (silence does not matter)
        """Upload the kept weights in a thread if there are new ones and no upload is running."""
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or at_s < self._next_s or self._keeper.kept_count == self._copied_count:
            return
        self._copied_count = self._keeper.kept_count
        self._next_s = at_s + _INTERVAL_S
        paths = self._stage_files()
        self._thread = threading.Thread(target=self._send, args=(paths,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Upload all files a last time, with the log, and wait until that is done."""
        if self._thread is not None:
            self._thread.join()
        log = self._run.log_path
        self._send([*self._stage_files(), *([log] if log.is_file() else [])])

    def _stage_files(self) -> list[Path]:
        """Return links to the weights under darknet's own names, and to the record and the scores.

        Darknet overwrites its own files during an upload, so the kept copies are linked instead;
        the record and the scores are replaced during an upload, which leaves their links as they
        were.
        """
        folder = self._run.weights_folder / "kept" / "to_copy"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        weights, best = self._checkpoints, self._checkpoints.best
        sources = {
            weights.last_path.name: weights.newest_kept,
            weights.final_path.name: weights.final_path,
            self._run.record_path.name: self._run.record_path,
            self._run.scores_path.name: self._run.scores_path,
        }
        if best is not None:
            sources[weights.best_name] = best.path
        links = []
        for name, source in sources.items():
            if source is not None and source.is_file():
                files.link_or_copy(source, folder / name)
                links.append(folder / name)
        return links

    def _send(self, paths: Sequence[Path]) -> None:
        try:
            with progress.no_progress():  # the run's progress bar is shown already
                upload_files(
                    {path.name: path for path in paths}, parse_bucket_url(self._destination)
                )
        except (OiyoloError, OSError) as error:
            _log.warning("train: cannot copy the weights to %s: %s", self._destination, error)
        else:
            _log.info("train: copied %s files to %s", len(paths), self._destination)
