"""Delete originals (``keep_originals = false``) once their prepared files are safely on disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from oiyolo.project.ledger import PREPARED_STATES, Change

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

STAGE: Final = "prepare"
ORIGINAL_MISSING: Final = "original missing, to be fetched again"
FREED_MESSAGE: Final = "original deleted, because keep_originals is false"


def image_ids_in(folder: Path) -> set[str]:
    """Return the ids of the images that have a ``.jpg`` file in a folder."""
    if not folder.is_dir():
        return set()
    names = (entry.name for entry in os.scandir(folder))
    return {name.removesuffix(".jpg") for name in names if name.endswith(".jpg")}


def free(project: Project, ledger: Ledger, image_ids: Iterable[str]) -> None:
    """Delete the originals of prepared images, and record this in the ledger.

    The deletion is recorded first; if the process is killed, the next ``prepare`` deletes the rest.

    Args:
        project: An open project.
        ledger: The project's ledger.
        image_ids: Ids of images; those that are not prepared keep their originals.
    """
    state_by_id = ledger.column("state", *PREPARED_STATES)
    freed_ids = [i for i in image_ids if i in state_by_id and _original(project, i).is_file()]
    if not freed_ids:
        return
    for image_id in freed_ids:
        for suffix in (".txt", ".jpg"):
            _fsync(project.objects_folder / f"{image_id}{suffix}")
    _fsync(project.objects_folder)  # the directory entries
    ledger.record(STAGE, [Change(i, str(state_by_id[i]), FREED_MESSAGE) for i in freed_ids])
    for image_id in freed_ids:
        _original(project, image_id).unlink(missing_ok=True)


def _original(project: Project, image_id: str) -> Path:
    return project.images_folder / f"{image_id}.jpg"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
