"""Published detectors in the cache: download them once, and read their networks and names."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import locks, records
from oiyolo.core.errors import UsageError
from oiyolo.core.files import sha256_of
from oiyolo.net.client import HttpClient
from oiyolo.networks.published import DETECTORS, FILES
from oiyolo.networks.weights import check_weights
from oiyolo.openimages.coco_classes import COCO_CLASSES
from oiyolo.training.pretrained import is_cached, obtain, origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.published import PublishedDetector
    from oiyolo.networks.weights import Pretrained

_FOLDER: Final = "weights"


@dataclass(frozen=True)
class ReadyDetector:
    """A published detector whose files are in the cache.

    Attributes:
        name: Its name in ``DETECTORS``.
        cfg: Its network.
        weights_path: Its weights.
        names: Names of its classes.
        sha256: SHA-256 of the weights.
    """

    name: str
    cfg: Cfg
    weights_path: Path
    names: tuple[str, ...]
    sha256: str


def find_detector(name: str) -> PublishedDetector:
    """Return the published detector with a name.

    Raises:
        UsageError: There is none.
    """
    if name in DETECTORS:
        return DETECTORS[name]
    close = difflib.get_close_matches(name, DETECTORS, n=1)
    is_file = Path(name).exists()
    raise UsageError(
        f"unknown baseline {name!r}",
        expected=f"one of {', '.join(DETECTORS)}",
        remedy="Name the file of a detector in ONNX with --baseline-model"
        if is_file
        else f"Did you mean {close[0]}?"
        if close
        else "A run's name belongs before --baseline",
    )


def missing_files(detector: PublishedDetector, cache_folder: Path) -> list[Pretrained]:
    """Return the files of a detector that have to be downloaded."""
    folder = cache_folder / _FOLDER
    return [file for file in detector.files if not is_cached(folder / file.name, file)]


def cached_digest(file: Pretrained, cache_folder: Path) -> str:
    """Return the SHA-256 of a downloaded file; empty if it is not in the cache."""
    return str(origin(cache_folder / _FOLDER / file.name).get("sha256", ""))


def obtain_detector(
    detector: PublishedDetector,
    *,
    cache_folder: Path,
    files: Mapping[str, Pretrained] = FILES,
    client: HttpClient | None = None,
) -> ReadyDetector:
    """Return a published detector, downloading those of its files that are not in the cache.

    Args:
        detector: The detector.
        cache_folder: The cache folder, which all projects share.
        files: The files of all detectors, by name.
        client: The HTTP client to use; by default a new one.

    Raises:
        UnavailableError: A file cannot be downloaded.
        InputFormError: The weights are not complete weights of the network.
    """
    folder = cache_folder / _FOLDER
    wanted = [files[file.name] for file in detector.files]
    if not all(is_cached(folder / file.name, file) for file in wanted):
        with contextlib.ExitStack() as stack:
            if client is None:
                client = stack.enter_context(contextlib.closing(HttpClient()))
            lock = folder / f"{detector.name}.lock"
            stack.enter_context(
                locks.exclusive(lock, what=detector.name, operation="fetch", wait=True)
            )
            for file in wanted:
                remedy = (
                    f"download {file.mirrors[0].url} by other means to {folder / file.name}; "
                    "or name a detector in ONNX with --baseline-model"
                )
                obtain(file.name, cache=folder, client=client, pretrained=files, remedy=remedy)
    path = folder / detector.weights
    cfg = detector.read_cfg(folder)
    check_weights(path, cfg, complete=True, checksum=None)  # obtain compared it
    names = tuple(COCO_CLASSES)
    if detector.names:
        names = tuple(records.read_lines(folder / detector.names, remedy="Delete the file"))
    sha256 = origin(path).get("sha256") or sha256_of(path)  # put there by hand
    return ReadyDetector(detector.name, cfg, path, names, str(sha256))
