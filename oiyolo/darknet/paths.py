"""Folder paths in which every fork of darknet finds its labels.

Darknet derives a label's path from its image's, and each fork does so differently (``forks.py``):
pjreddie's replaces words such as ``images`` and ``raw`` anywhere in the path, AlexeyAB's some
folder names of COCO and VOC, hank-ai's only the extension. A label next to its image is found by
all three if the path contains none of these words.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.darknet.forks import FORKS

if TYPE_CHECKING:
    from collections.abc import Iterable

_REPLACED_WORDS: Final = frozenset(
    word
    for fork in FORKS.values()
    for word in (*(old for old, _ in fork.path_replacements), *(fork.image_extensions or ()))
)
_MAX_BYTES: Final = 2000
"""Darknet copies paths into buffers of 4,096 bytes and appends to them, so this leaves room."""


def is_safe(folder: str) -> bool:
    """Return whether every fork of darknet finds labels next to images in a folder of this path."""
    return (
        not any(word in folder for word in _REPLACED_WORDS)
        and folder == folder.strip()
        and folder.isprintable()
        and len(folder.encode()) <= _MAX_BYTES
    )


def safe_alias(folder: Path, cache_folder: Path) -> Path:
    """Return a path to a folder that is safe for darknet: its own path, or a symbolic link.

    Args:
        folder: The folder, as an absolute path.
        cache_folder: The cache folder, which holds the links if its own path is safe.

    Raises:
        UsageError: Neither the folder nor any location for a link has a safe path.
    """
    if is_safe(str(folder)):
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    for link_folder in _link_folders(cache_folder):
        link = link_folder / name
        if is_safe(str(link)) and _create_link(link, folder):
            return link
    raise UsageError(
        "darknet would look for labels in the wrong place because of a word in the path",
        where=str(folder),
        expected="a path without images, JPEGImages, raw or an image extension",
        remedy="Move the project, or set [openimages] cache to a folder without these words in "
        "its path",
    )


def _link_folders(cache_folder: Path) -> Iterable[Path]:
    yield cache_folder / "paths"
    yield Path("/var/tmp") / f"oiyolo-{os.getuid()}"  # noqa: S108  (created with mode 700 below)
    yield Path(tempfile.gettempdir()) / f"oiyolo-{os.getuid()}"


def _create_link(link: Path, folder: Path) -> bool:
    try:
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if link.parent.stat().st_uid != os.getuid():
            return False
        if link.is_symlink() and link.readlink() == folder:
            return True
        new_link = link.with_name(f"{link.name}.{os.getpid()}")
        new_link.unlink(missing_ok=True)
        new_link.symlink_to(folder, target_is_directory=True)
        new_link.replace(link)
    except OSError:
        return False
    return True
