"""Write the records of a dataset next to it: credits, dataset card and Croissant metadata."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, staleness
from oiyolo.provenance import credits as credits_of
from oiyolo.provenance import croissant, dataset_card

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oiyolo.provenance.dataset import Dataset

_log = logging.getLogger("oiyolo")

NAMES: Final = (
    credits_of.CSV_NAME,
    credits_of.MARKDOWN_NAME,
    dataset_card.NAME,
    croissant.NAME,
)
"""The files of the records."""
_RECIPE_FILE: Final = ".recorded-from.json"


def stale_reason(folder: Path, recipe: Mapping[str, object]) -> str | None:
    """Return why the records are out of date; ``None`` if they are not.

    Args:
        folder: ``data/dataset``.
        recipe: What they are made from (``core.staleness``).
    """
    path = folder / _RECIPE_FILE
    if reason := staleness.stale_reason(path, recipe):
        return reason
    lost = [name for name in NAMES if not staleness.is_intact(path, folder / name)]
    return f"{lost[0]} is missing or was changed" if lost else None


def update(
    folder: Path, recipe: Mapping[str, object], collect: Callable[[], Dataset]
) -> tuple[str, ...]:
    """Write the records if they are out of date; return the names of the files that changed.

    A file whose content is the same is not written again.

    Args:
        folder: ``data/dataset``.
        recipe: What they are made from.
        collect: Function that returns the dataset; called only if it is needed.
    """
    reason = stale_reason(folder, recipe)
    if reason is None:
        return ()
    texts = render(collect())
    changed = tuple(name for name, text in texts.items() if not _has(folder / name, text))
    path = folder / _RECIPE_FILE
    path.unlink(missing_ok=True)
    for name in changed:
        files.write_text(folder / name, texts[name])
    staleness.write_recipe(path, recipe, [folder / name for name in NAMES])
    if changed:
        _log.info("records: wrote %s (%s)", ", ".join(changed), reason)
    return changed


def render(dataset: Dataset) -> dict[str, str]:
    """Return the text of each record by the name of its file."""
    credits_csv = credits_of.render_csv(dataset)
    return {
        credits_of.CSV_NAME: credits_csv,
        credits_of.MARKDOWN_NAME: credits_of.render_markdown(dataset),
        dataset_card.NAME: dataset_card.render(dataset),
        croissant.NAME: croissant.render(dataset, credits_csv),
    }


def _has(path: Path, text: str) -> bool:
    """Return whether a file has this text."""
    try:
        return files.read_bytes(path) == text.encode()
    except OSError:
        return False
