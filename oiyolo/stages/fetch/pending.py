"""The images that are still to be fetched, read as they are needed."""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import os
import re
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.sources.image import WantedImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oiyolo.stages.select import Selection

_NAME_CHARACTERS: Final = len("0123456789abcdef.jpg")
_IS_ID: Final = re.compile("[0-9a-f]{16}")
_PAGE: Final = 10_000


def wanted_images(selection: Selection, ids: Iterable[str]) -> Iterator[WantedImage]:
    """Give these images' rows of the selection, in flat memory.

    Args:
        selection: Lists its images in order of their ids.
        ids: Some of them, in order.

    Raises:
        InputFormError: An image is not in the list.
    """
    path = selection.whole("images.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        for image_id in ids:
            row = next((row for row in rows if row["ImageID"] >= image_id), None)
            if row is None or row["ImageID"] != image_id:
                raise InputFormError(
                    f"the image {image_id} is in the ledger, but not in the selection",
                    where=str(path),
                    remedy="Move data/selection/selection.json away and run `oiyolo fetch`, which "
                    "selects anew",
                )
            yield _wanted(row)


def _wanted(row: Mapping[str, str]) -> WantedImage:
    size = row.get("OriginalSize") or ""
    rotation: float | None = None
    with contextlib.suppress(ValueError):
        rotation = float(row.get("Rotation") or "")
    return WantedImage(
        row["ImageID"],
        row["Subset"],
        row.get("OriginalURL") or "",
        int(size) if size.isdigit() else None,
        row.get("OriginalMD5") or "",
        row.get("Thumbnail300KURL") or "",
        None if rotation is None or math.isnan(rotation) else rotation,
    )


class OnDisk:
    """Which images lie in a folder, in 8 bytes each.

    Args:
        folder: Holds ``<ImageID>.jpg``; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np  # noqa: PLC0415  (an empty project needs none)

        entries = os.scandir(folder) if folder.is_dir() else ()
        names = (entry.name for entry in entries)
        ids = (name[:-4] for name in names if len(name) == _NAME_CHARACTERS and name[-4:] == ".jpg")
        pages = [_numbers(page) for page in _pages(ids)]
        self._here = np.sort(np.concatenate([np.empty(0, np.uint64), *pages]))

    def lacks(self, ids: Iterable[str]) -> Iterator[str]:
        """Give those of some images that are not here, in order."""
        import numpy as np  # noqa: PLC0415  (as above)

        for page in _pages(ids):
            asked = _numbers(page)
            at = np.searchsorted(self._here, asked)
            inside = at < len(self._here)
            found = inside.copy()
            found[inside] = self._here[at[inside]] == asked[inside]
            yield from (page[place] for place in np.flatnonzero(~found))


def _pages(ids: Iterable[str]) -> Iterator[list[str]]:
    left = iter(ids)
    while page := list(itertools.islice(left, _PAGE)):
        yield page


def _numbers(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Give ImageIDs as numbers; what is none is 0, which no image has."""
    import numpy as np  # noqa: PLC0415  (as above)

    try:
        return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype(np.uint64)
    except ValueError:
        return np.array([int(i, 16) if _IS_ID.fullmatch(i) else 0 for i in ids], np.uint64)
