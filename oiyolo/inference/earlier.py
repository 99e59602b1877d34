"""The outputs of earlier predictions, which are recorded in their folder.

Only these are replaced, unless they were changed since, as corrected labels are. They are not
predicted on when a folder is searched.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.staleness import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_RECORD_NAME: Final = ".made-by-predict"
"""Names of outputs and their digests, separated by NUL: names of files need not be valid text."""


def read_record(folder: Path) -> dict[str, str]:
    """Return the outputs recorded in a folder; empty if there is no record.

    Returns:
        The digest of each as it was written, by its name relative to the folder; an empty text if
        the prediction has not ended.
    """
    try:
        parts = files.read_bytes(folder / _RECORD_NAME).split(b"\0")
    except OSError:
        return {}
    texts = list(map(os.fsdecode, parts))
    return dict(zip(texts[::2], texts[1::2], strict=False))


def has_record(folder: Path) -> bool:
    """Return whether a folder contains outputs of a prediction."""
    return (folder / _RECORD_NAME).is_file()


def write_record(folder: Path, names: Iterable[str], *, complete: bool = True) -> None:
    """Record outputs, in addition to those that are still in the folder.

    Args:
        folder: Their folder.
        names: Their names, relative to it; those of folders end in a slash.
        complete: Whether they are written already.
    """
    record = {n: d for n, d in read_record(folder).items() if os.path.lexists(folder / n)}
    record |= {name: _digest_of(folder / name) if complete else "" for name in names}
    texts = [text for item in sorted(record.items()) for text in item]
    files.write_bytes(folder / _RECORD_NAME, b"\0".join(map(os.fsencode, texts)))


def replaceable(folder: Path, names: Iterable[str]) -> set[str]:
    """Return which outputs an earlier prediction wrote, and nothing has changed since."""
    record = read_record(folder)
    return {n for n in names if n in record and record[n] in {"", _digest_of(folder / n)}}


def _digest_of(path: Path) -> str:
    """Return a digest of a file, or of all in a folder, that a copy of the project keeps."""
    is_folder = path.is_dir() and not path.is_symlink()
    paths = sorted(path.iterdir()) if is_folder else [path]
    return fingerprint([_digest_of_file(each) for each in paths if os.path.lexists(each)])


def _digest_of_file(path: Path) -> str:
    is_regular = path.is_file() and not path.is_symlink()
    return files.sha256_of(path) if is_regular else "not a regular file"


class EarlierOutputs:
    """All outputs of earlier predictions; records are read as they are needed."""

    def __init__(self) -> None:
        self._folders: set[Path] = set()
        self._paths: set[str] = set()

    def __contains__(self, path: Path) -> bool:
        """Return whether an earlier prediction wrote the file."""
        path = path.absolute()
        for folder in path.parents:
            if folder in self._folders:  # and so are its parents
                break
            self._folders.add(folder)
            self._paths.update(str(folder / name) for name in read_record(folder))
        return str(path) in self._paths
