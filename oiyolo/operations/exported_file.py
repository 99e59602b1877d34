"""A file that a detector is exported to: its path, and whether it is up to date."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, records, staleness
from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.operations.detectors import DetectorFiles
    from oiyolo.training.run import Run

_FOLDER: Final = "export"


def path_for(name: str, run: Run | None, out: str | Path | None, *, suffix: str, what: str) -> Path:
    """Return the path of a file to write.

    Args:
        name: Its name without the suffix.
        run: The run whose detector it is; ``None`` for files from elsewhere.
        out: The file or a folder for it; ``None`` for the run's folder, or the current one.
        suffix: Its suffix.
        what: What it is, for messages.

    Raises:
        UsageError: ``out`` has another suffix.
    """
    if out is None:
        folder = Path.cwd() if run is None else run.folder / _FOLDER
        return folder / f"{name}{suffix}"
    path = Path(out)
    path = path / f"{name}{suffix}" if path.is_dir() else path
    if path.suffix != suffix:
        raise UsageError(f"invalid name for a {what}", where=str(path), expected=f"*{suffix}")
    files.check_regular(path)
    return path


def recipe_of(source: DetectorFiles) -> dict[str, object]:
    """Return what a file is made from that contains a detector of darknet."""
    return {
        "network": files.sha256_of(source.cfg_path),
        "weights": files.sha256_of(source.weights_path),
        "facts": asdict(source.facts),
    }


def recipe_path(path: Path) -> Path:
    """Return the path of the recipe that is stored next to a file."""
    return path.with_name(f".{path.name}-made-from.json")


def find_saved(path: Path, recipe: Mapping[str, object], form: object) -> dict[str, Any] | str:
    """Return the stored recipe of a file that is up to date, or why it must be written, in words.

    Args:
        path: The file.
        recipe: Its recipe now.
        form: The form of what was stored beyond the recipe (``records.find``).
    """
    if not path.is_file():
        return "the file does not exist yet"
    reason = staleness.stale_reason(recipe_path(path), recipe)
    if reason is not None:
        return reason
    saved = records.find_intact(recipe_path(path), form)
    if saved is None or not staleness.is_intact(recipe_path(path), path):
        return "the file is not as it was written"
    return saved
