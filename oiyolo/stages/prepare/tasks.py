"""What each image is prepared from, and a fingerprint that tells whether that changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.boxes import Boxes
    from oiyolo.imagery.placement import Fit
    from oiyolo.project.keys import Config
    from oiyolo.stages.select import Selection

METHOD: Final = 2
"""Raised when the same inputs are to give other files, so that all images are made anew."""
_FULL_TURN: Final = 360


@dataclass(frozen=True)
class Task:
    """One image to prepare.

    Attributes:
        image_id: The image.
        rotation: Degrees counter-clockwise that make it upright, from 0 to 359.
        negative: It was selected for having none of the classes.
        xyxy: Its boxes in the stored frame, fractions, shape (n, 4).
        class_ids: Their classes, shape (n,).
        because: Why a box is no label ("" if it is one), shape (n,).
        masked: Which boxes are to be greyed out, shape (n,).
        made_from: Fingerprint of all of this, of the file and of the options.
    """

    image_id: str
    rotation: int
    negative: bool
    xyxy: Boxes
    class_ids: npt.NDArray[np.int64]
    because: npt.NDArray[np.object_]
    masked: npt.NDArray[np.bool_]
    made_from: str


def options_of(config: Config) -> dict[str, Any]:
    """Give the options that decide what a prepared image looks like, as JSON knows them."""
    size_wh: list[int] = list(config.images.size)
    fit: Fit = config.images.fit
    return {"size": size_wh, "fit": fit, "mask_group_of": config.dataset.group_of == "mask"}


def rotations(images: pd.DataFrame) -> dict[str, int]:
    """Give each image's ``Rotation`` in degrees from 0 to 359; where there is none, it is 0."""
    turns = images["Rotation"].fillna(0) % _FULL_TURN
    return dict(zip(images["ImageID"], turns.astype(int), strict=True))


def reasons(boxes: pd.DataFrame, *, mask_group_of: bool) -> npt.NDArray[np.object_]:
    """Give why each box is no label before it is placed, "masked" for those that are greyed out."""
    because: npt.NDArray[np.object_] = boxes["dropped_because"].to_numpy(dtype=object, copy=True)
    because[masked(boxes, mask_group_of=mask_group_of) & (because == "")] = "masked"
    return because


def masked(boxes: pd.DataFrame, *, mask_group_of: bool) -> npt.NDArray[np.bool_]:
    """Tell which boxes are to be greyed out; machine-made tables have no flags."""
    column = FLAG_COLUMNS["group_of"]
    if not mask_group_of or column not in boxes:
        return np.zeros(len(boxes), dtype=bool)
    return np.asarray(boxes[column].to_numpy() == 1, dtype=bool)


def tasks(
    selection: Selection, options: Mapping[str, Any], md5_by_id: Mapping[str, object]
) -> Iterator[Task]:
    """Give every selected image as a task.

    Args:
        selection: The wanted images and boxes.
        options: See ``options_of``.
        md5_by_id: MD5 of each fetched file.
    """
    boxes = selection.boxes
    xyxy = boxes[list(CORNERS)].to_numpy(dtype=np.float64)
    class_ids = boxes["class_id"].to_numpy(dtype=np.int64)
    because = reasons(boxes, mask_group_of=options["mask_group_of"])
    greyed = masked(boxes, mask_group_of=options["mask_group_of"])
    rows_of = boxes.groupby("ImageID").indices
    none = np.array([], dtype=np.int64)
    turn_by_id = rotations(selection.images)
    for image_id, is_negative in zip(
        selection.images["ImageID"], selection.images["negative"], strict=True
    ):
        rows = rows_of.get(image_id, none)
        turn = turn_by_id[image_id]
        whole = (METHOD, options, turn, md5_by_id.get(image_id), bool(is_negative))
        digest = hashlib.sha256(repr(whole).encode())
        for part in (xyxy[rows], class_ids[rows], greyed[rows]):
            digest.update(part.tobytes())
        digest.update("|".join(because[rows]).encode())
        yield Task(
            image_id,
            turn,
            bool(is_negative),
            xyxy[rows],
            class_ids[rows],
            because[rows],
            greyed[rows],
            digest.hexdigest()[:16],
        )
