"""The perceptual hash of images that were prepared before there was one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from oiyolo.core.progress import progress
from oiyolo.imagery.duplicates import as_text, perceptual_hash
from oiyolo.imagery.placement import inner_frame
from oiyolo.project.ledger import EXCLUDED, HAS_PREPARED
from oiyolo.stages import prepare as prepare_stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

_NOTED_AT_ONCE: Final = 256
_SIDE_PX: Final = 128
"""Pictures are decoded at this size or a little above, which is quick and enough for a hash."""


def fill_in(project: Project, ledger: Ledger, stage: str) -> int:
    """Hash the prepared pictures that have no hash yet; no image changes its state by that.

    Args:
        project: Whose ``data/dataset/obj`` holds them.
        ledger: What is to know the hashes.
        stage: The stage whose exclusions still have a prepared picture.

    Returns:
        How many were hashed; a picture that cannot be read is not.
    """
    known = ledger.facts("phash")
    here = [*ledger.ids(*HAS_PREPARED), *ledger.ids(EXCLUDED, stage=stage)]
    missing = [image_id for image_id in here if not known[image_id]]
    if not missing:
        return 0
    widths, heights = ledger.facts("width_px"), ledger.facts("height_px")
    letterboxed = prepare_stage.prepared_as(project)["fit"] == "letterbox"

    def hashes() -> Iterator[tuple[str, dict[str, object]]]:
        for image_id in missing:
            source_wh = (widths[image_id], heights[image_id]) if letterboxed else None
            text = _hash_of(project.objects_folder / f"{image_id}.jpg", source_wh)
            told.advance(1)
            if text:
                yield image_id, {"phash": text}

    done = 0
    with progress("hash", total=len(missing), unit="img") as told:
        waiting = hashes()
        while batch := dict(itertools.islice(waiting, _NOTED_AT_ONCE)):
            ledger.note(batch)
            done += len(batch)
    return done


def _hash_of(path: Path, source_wh: tuple[object, object] | None) -> str:
    """Hash a prepared picture, without the border of a letterbox; "" if it cannot be read."""
    try:
        with Image.open(path) as picture:
            size_wh = picture.size
            picture.draft("L", (_SIDE_PX, _SIDE_PX))
            grey = np.asarray(picture.convert("L"))
    except (OSError, SyntaxError):  # Pillow's own errors are among these
        return ""
    if source_wh is not None:
        width, height = source_wh
        if not (isinstance(width, int) and isinstance(height, int)):
            return ""
        frame = inner_frame((width, height), size_wh, "letterbox")
        across, down = grey.shape[1] / size_wh[0], grey.shape[0] / size_wh[1]
        rows = slice(round(frame.top * down), round((frame.top + frame.wh[1]) * down))
        columns = slice(round(frame.left * across), round((frame.left + frame.wh[0]) * across))
        grey = grey[rows, columns]
    return as_text(perceptual_hash(grey)) if grey.size else ""
