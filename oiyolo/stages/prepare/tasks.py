"""Build a task for each selected image, with a fingerprint of everything it is prepared from."""

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

METHOD_VERSION: Final = 2
"""Increased when the same inputs yield different files, so that all images are prepared again."""
_FULL_TURN: Final = 360


@dataclass(frozen=True)
class Task:
    """One image to prepare.

    Attributes:
        image_id: The image's id.
        rotation: Degrees counter-clockwise that make it upright, from 0 to 359.
        negative: Whether it was selected because it contains none of the classes.
        xyxy: Its boxes in the stored frame, as fractions, shape (n, 4).
        class_ids: Class of each box, shape (n,).
        drop_reasons: Why each box is not a label; "" if it is one. Shape (n,).
        is_masked: Whether each box is to be filled with grey, shape (n,).
        fingerprint: Digest of all of the above, of the original file and of the options.
    """

    image_id: str
    rotation: int
    negative: bool
    xyxy: Boxes
    class_ids: npt.NDArray[np.int64]
    drop_reasons: npt.NDArray[np.object_]
    is_masked: npt.NDArray[np.bool_]
    fingerprint: str


def image_options(config: Config) -> dict[str, Any]:
    """Return the options that determine what a prepared image looks like, JSON-compatible."""
    size_wh: list[int] = list(config.images.size)
    fit: Fit = config.images.fit
    return {"size": size_wh, "fit": fit, "mask_group_of": config.dataset.group_of == "mask"}


def rotations(images: pd.DataFrame) -> dict[str, int]:
    """Return each image's ``Rotation`` by image id, in degrees from 0 to 359; 0 if it is empty."""
    turns = images["Rotation"].fillna(0) % _FULL_TURN
    return dict(zip(images["ImageID"], turns.astype(int), strict=True))


def initial_drop_reasons(boxes: pd.DataFrame, *, mask_group_of: bool) -> npt.NDArray[np.object_]:
    """Return why each box is not a label before it is placed; "masked" for boxes to be greyed."""
    drop_reasons: npt.NDArray[np.object_] = boxes["dropped_because"].to_numpy(
        dtype=object, copy=True
    )
    drop_reasons[are_masked(boxes, mask_group_of=mask_group_of) & (drop_reasons == "")] = "masked"
    return drop_reasons


def are_masked(boxes: pd.DataFrame, *, mask_group_of: bool) -> npt.NDArray[np.bool_]:
    """Return which boxes are to be filled with grey; none if the table has no flag columns."""
    column = FLAG_COLUMNS["group_of"]
    if not mask_group_of or column not in boxes:
        return np.zeros(len(boxes), dtype=bool)
    return np.asarray(boxes[column].to_numpy() == 1, dtype=bool)


def iter_tasks(
    selection: Selection, options: Mapping[str, Any], md5_by_id: Mapping[str, object]
) -> Iterator[Task]:
    """Yield a task for every selected image.

    Args:
        selection: The selected images and boxes.
        options: The options from ``image_options``.
        md5_by_id: MD5 of each fetched file, by image id.
    """
    boxes = selection.boxes
    xyxy = boxes[list(CORNERS)].to_numpy(dtype=np.float64)
    class_ids = boxes["class_id"].to_numpy(dtype=np.int64)
    drop_reasons = initial_drop_reasons(boxes, mask_group_of=options["mask_group_of"])
    is_masked = are_masked(boxes, mask_group_of=options["mask_group_of"])
    rows_by_id = boxes.groupby("ImageID").indices
    none = np.array([], dtype=np.int64)
    rotation_by_id = rotations(selection.images)
    for image_id, is_negative in zip(
        selection.images["ImageID"], selection.images["negative"], strict=True
    ):
        rows = rows_by_id.get(image_id, none)
        rotation = rotation_by_id[image_id]
        inputs = (METHOD_VERSION, options, rotation, md5_by_id.get(image_id), bool(is_negative))
        digest = hashlib.sha256(repr(inputs).encode())
        for array in (xyxy[rows], class_ids[rows], is_masked[rows]):
            digest.update(array.tobytes())
        digest.update("|".join(drop_reasons[rows]).encode())
        yield Task(
            image_id,
            rotation,
            bool(is_negative),
            xyxy[rows],
            class_ids[rows],
            drop_reasons[rows],
            is_masked[rows],
            digest.hexdigest()[:16],
        )
