"""Add perceptual hashes of images that were prepared by a version that did not compute them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from oiyolo.core.progress import progress
from oiyolo.imagery.duplicates import hash_to_text, perceptual_hash
from oiyolo.imagery.placement import place_image
from oiyolo.project.ledger import EXCLUDED, PREPARED_STATES
from oiyolo.stages import prepare as prepare_stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

_HASHES_PER_TRANSACTION: Final = 256
_SIDE_PX: Final = 128
"""Minimum side of a decoded image: fast to decode, and enough for a hash."""


def add_missing(project: Project, ledger: Ledger, stage: str) -> int:
    """Compute and record the missing hashes of prepared images, without changing their states.

    Args:
        project: The project, whose ``data/dataset/obj`` contains the prepared images.
        ledger: The ledger that records the hashes.
        stage: The stage whose excluded images also have a prepared image.

    Returns:
        Number of new hashes; an image that cannot be read gets none.
    """
    hash_by_id = ledger.column("phash")
    prepared_ids = [*ledger.ids(*PREPARED_STATES), *ledger.ids(EXCLUDED, stage=stage)]
    missing = [image_id for image_id in prepared_ids if not hash_by_id[image_id]]
    if not missing:
        return 0
    widths, heights = ledger.column("width_px"), ledger.column("height_px")
    letterboxed = prepare_stage.prepared_options(project)["fit"] == "letterbox"

    def hashes() -> Iterator[tuple[str, dict[str, object]]]:
        for image_id in missing:
            source_wh = (widths[image_id], heights[image_id]) if letterboxed else None
            text = _hash_of(project.objects_folder / f"{image_id}.jpg", source_wh)
            bar.advance(1)
            if text:
                yield image_id, {"phash": text}

    count = 0
    with progress("hash", total=len(missing), unit="img") as bar:
        pending = hashes()
        while batch := dict(itertools.islice(pending, _HASHES_PER_TRANSACTION)):
            ledger.set_facts(batch)
            count += len(batch)
    return count


def _hash_of(path: Path, source_wh: tuple[object, object] | None) -> str:
    """Return the hash of a prepared image without its letterbox border; "" if it is unreadable."""
    try:
        with Image.open(path) as image:
            size_wh = image.size
            image.draft("L", (_SIDE_PX, _SIDE_PX))
            grey = np.asarray(image.convert("L"))
    except (OSError, SyntaxError):  # includes Pillow's own errors
        return ""
    if source_wh is not None:
        width, height = source_wh
        if not (isinstance(width, int) and isinstance(height, int)):
            return ""
        frame = place_image((width, height), size_wh, "letterbox")
        x_scale, y_scale = grey.shape[1] / size_wh[0], grey.shape[0] / size_wh[1]
        rows = slice(round(frame.top * y_scale), round((frame.top + frame.wh[1]) * y_scale))
        columns = slice(round(frame.left * x_scale), round((frame.left + frame.wh[0]) * x_scale))
        grey = grey[rows, columns]
    return hash_to_text(perceptual_hash(grey)) if grey.size else ""
