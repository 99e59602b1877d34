"""``keep_originals = false``: an original goes when its prepared files are on the disk for good."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from oiyolo.project.ledger import HAS_PREPARED, Change

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

STAGE: Final = "prepare"
FREED: Final = "its original was freed, because keep_originals is false"


def ids_in(folder: Path) -> set[str]:
    """Give the images that have a file of their own name in a folder."""
    if not folder.is_dir():
        return set()
    names = (entry.name for entry in os.scandir(folder))
    return {name.removesuffix(".jpg") for name in names if name.endswith(".jpg")}


def free(project: Project, ledger: Ledger, image_ids: Iterable[str]) -> None:
    """Remove the originals of prepared images, and enter that they are gone.

    It is entered first: what a kill leaves behind is freed by the next run.

    Args:
        project: An open project.
        ledger: Its ledger.
        image_ids: Images whose prepared files are written; others are left alone.
    """
    state_by_id = ledger.facts("state", *HAS_PREPARED)
    going = [i for i in image_ids if i in state_by_id and _original(project, i).exists()]
    if not going:
        return
    for image_id in going:
        for suffix in (".txt", ".jpg"):
            _sync(project.objects_folder / f"{image_id}{suffix}")
    _sync(project.objects_folder)  # the names themselves
    ledger.record(STAGE, [Change(i, str(state_by_id[i]), FREED) for i in going])
    for image_id in going:
        _original(project, image_id).unlink(missing_ok=True)


def _original(project: Project, image_id: str) -> Path:
    return project.images_folder / f"{image_id}.jpg"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
