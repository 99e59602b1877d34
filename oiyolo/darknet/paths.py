"""Paths that darknet does not mangle.

Darknet derives a label's path from its image's, each line in its own way (``lines.py``): pjreddie's
replaces words like ``images`` and ``raw`` anywhere in it, AlexeyAB's some folders of COCO and VOC,
hank-ai's the ending only. A label beside its image, below a folder whose path holds none of these
words, is found by all three.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.darknet.forks import LINES
from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MANGLED: Final = frozenset(
    word
    for line in LINES.values()
    for word in (*(old for old, _ in line.replaced), *(line.endings or ()))
)
_LONGEST: Final = 2000
"""Darknet copies paths into buffers of 4,096 bytes and appends to them."""


def is_safe(folder: str) -> bool:
    """Tell whether every darknet finds labels beside images in a folder of this path."""
    return (
        not any(word in folder for word in _MANGLED)
        and folder == folder.strip()
        and folder.isprintable()
        and len(folder.encode()) <= _LONGEST
    )


def safe_alias(folder: Path, cache_folder: Path) -> Path:
    """Give a path to a folder that darknet does not mangle: its own, or a symbolic link to it.

    Args:
        folder: The folder, as an absolute path.
        cache_folder: Where links are kept if its own path is safe.

    Raises:
        UsageError: No place for a link has a safe path.
    """
    if is_safe(str(folder)):
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    for place in _places(cache_folder):
        link = place / name
        if is_safe(str(link)) and _made(link, folder):
            return link
    raise UsageError(
        "darknet would look for labels in a wrong place, because of a word in the path",
        where=str(folder),
        expected="a path without images, JPEGImages, raw or an image ending",
        remedy="Move the project, or set [openimages] cache to a folder with a plain path",
    )


def _places(cache_folder: Path) -> Iterable[Path]:
    yield cache_folder / "paths"
    yield Path("/var/tmp") / f"oiyolo-{os.getuid()}"  # noqa: S108  (made with mode 700 below)
    yield Path(tempfile.gettempdir()) / f"oiyolo-{os.getuid()}"


def _made(link: Path, folder: Path) -> bool:
    try:
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if link.parent.stat().st_uid != os.getuid():
            return False
        if link.is_symlink() and link.readlink() == folder:
            return True
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder, target_is_directory=True)
        fresh.replace(link)
    except OSError:
        return False
    return True
