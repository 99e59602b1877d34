"""Read the pending images lazily, and find recorded images whose files are missing."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from typing import TYPE_CHECKING, Final

from oiyolo.core.batches import batched
from oiyolo.core.errors import InputFormError
from oiyolo.core.image_ids import is_image_id
from oiyolo.openimages.releases import check_subsets
from oiyolo.sources.image import ImageRequest
from oiyolo.stages.select import SELECT_AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oiyolo.stages.select import Selection

_FILE_NAME_LENGTH: Final = len("0123456789abcdef.jpg")
_BATCH_SIZE: Final = 10_000


def pending_images(selection: Selection, ids: Iterable[str]) -> Iterator[ImageRequest]:
    """Yield the selection's rows of some images, reading ``images.csv`` row by row.

    Args:
        selection: The selection; its ``images.csv`` is sorted by image id.
        ids: Ids of selected images, in ascending order.

    Raises:
        InputFormError: An image is not in ``images.csv``, or the file is damaged.
    """
    path = selection.verified_path("images.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        for image_id in ids:
            row = next((row for row in rows if row["ImageID"] >= image_id), None)
            if row is None or row["ImageID"] != image_id:
                raise InputFormError(
                    f"image {image_id} is in the ledger, but not in the selection",
                    where=str(path),
                    remedy="Delete data/selection/selection.json and run `oiyolo fetch`, which "
                    "selects again",
                )
            if not row.get("Import"):
                check_subsets([row["Subset"]], where=str(path), remedy=SELECT_AGAIN)
            yield _pending_image(row)


def _pending_image(row: Mapping[str, str]) -> ImageRequest:
    size = row.get("OriginalSize") or ""
    rotation: float | None = None
    with contextlib.suppress(ValueError):
        rotation = float(row.get("Rotation") or "")
    return ImageRequest(
        row["ImageID"],
        row["Subset"],
        row.get("OriginalURL") or "",
        int(size) if size.isdigit() else None,
        row.get("OriginalMD5") or "",
        row.get("Thumbnail300KURL") or "",
        None if rotation is None or math.isnan(rotation) else rotation,
        import_name=row.get("Import") or row.get("CopyIn") or "",
        name=row.get("Name") or "",
        is_copy=bool(row.get("CopyIn")),
    )


class ImageFolderIndex:
    """Index of the images in a folder, which takes 8 bytes of memory per image.

    Args:
        folder: The folder with ``<ImageID>.jpg``; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np  # noqa: PLC0415  (slow to import; a new project does not need it)

        entries = os.scandir(folder) if folder.is_dir() else ()
        names = (entry.name for entry in entries)
        ids = (
            name[:-4] for name in names if len(name) == _FILE_NAME_LENGTH and name[-4:] == ".jpg"
        )
        batches = [_ids_as_integers(batch) for batch in batched(ids, _BATCH_SIZE)]
        self._sorted_ids = np.sort(np.concatenate([np.empty(0, np.uint64), *batches]))

    def missing(self, ids: Iterable[str]) -> Iterator[str]:
        """Yield those of the given images that have no file in the folder, in their order."""
        import numpy as np  # noqa: PLC0415  (as above)

        for batch in batched(ids, _BATCH_SIZE):
            queried = _ids_as_integers(batch)
            positions = np.searchsorted(self._sorted_ids, queried)
            in_range = positions < len(self._sorted_ids)
            present = in_range.copy()
            present[in_range] = self._sorted_ids[positions[in_range]] == queried[in_range]
            yield from (batch[index] for index in np.flatnonzero(~present))


def _ids_as_integers(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return image ids as integers; a malformed id becomes 0, which no image has."""
    import numpy as np  # noqa: PLC0415  (as above)

    try:
        return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype(np.uint64)
    except ValueError:
        return np.array([int(i, 16) if is_image_id(i) else 0 for i in ids], np.uint64)
