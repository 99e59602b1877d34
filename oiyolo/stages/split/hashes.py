"""Add perceptual hashes of images that were prepared by a version that did not compute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from oiyolo.core.batches import batched
from oiyolo.core.progress import progress
from oiyolo.imagery.duplicates import hash_to_text, perceptual_hash
from oiyolo.imagery.placement import place_image
from oiyolo.project.ledger import EXCLUDED, PREPARED_STATES
from oiyolo.stages import prepare as prepare_stage

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

_HASHES_PER_TRANSACTION: Final = 256
_SIDE_PX: Final = 128
"""Minimum side of a decoded image: fast to decode, and enough for a hash."""


def add_missing(project: Project, ledger: Ledger) -> None:
    """Compute and record the missing hashes of prepared images, without changing their states.

    An image that cannot be read gets none.
    """
    hash_by_id = ledger.column("phash")
    prepared_ids = [*ledger.ids(*PREPARED_STATES), *ledger.ids(EXCLUDED, stage="split")]
    missing = [image_id for image_id in prepared_ids if not hash_by_id[image_id]]
    if not missing:
        return
    letterboxed = prepare_stage.prepared_options(project)["fit"] == "letterbox"
    sizes_wh = prepare_stage.source_sizes_wh(ledger)

    def hash_of(image_id: str) -> str:
        if letterboxed and image_id not in sizes_wh:
            return ""
        source_wh = sizes_wh[image_id] if letterboxed else None
        return _hash_of(project.objects_folder / f"{image_id}.jpg", source_wh)

    with progress("hash", total=len(missing), unit="img") as bar:
        for batch in batched(missing, _HASHES_PER_TRANSACTION):
            texts = {image_id: hash_of(image_id) for image_id in batch}
            ledger.set_facts(
                {image_id: {"phash": text} for image_id, text in texts.items() if text}
            )
            bar.advance(len(batch))


def _hash_of(path: Path, source_wh: tuple[int, int] | None) -> str:
    """Return the hash of a prepared image without its letterbox border; "" if it is unreadable."""
    try:
        with Image.open(path) as image:
            size_wh = image.size
            image.draft("L", (_SIDE_PX, _SIDE_PX))
            grey = np.asarray(image.convert("L"))
    except (OSError, SyntaxError):  # includes Pillow's own errors
        return ""
    if source_wh is not None:
        frame = place_image(source_wh, size_wh, "letterbox")
        x_scale, y_scale = grey.shape[1] / size_wh[0], grey.shape[0] / size_wh[1]
        rows = slice(round(frame.top * y_scale), round((frame.top + frame.wh[1]) * y_scale))
        columns = slice(round(frame.left * x_scale), round((frame.left + frame.wh[0]) * x_scale))
        grey = grey[rows, columns]
    return hash_to_text(perceptual_hash(grey)) if grey.size else ""
