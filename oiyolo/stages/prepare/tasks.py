"""The images to prepare and their boxes, with a fingerprint of everything an image depends on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.imagery.placement import place_boxes
from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.imagery.placement import Fit
    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.label_errors.reviewed import ReviewedBoxes
    from oiyolo.project.keys import Config
    from oiyolo.project.ledger import Ledger
    from oiyolo.stages.select import Selection

    ClassIds = npt.NDArray[np.int64]

METHOD_VERSION: Final = 2
"""Increased when the same inputs yield different files, so that all images are prepared again."""


@dataclass(frozen=True)
class Task:
    """One image to prepare.

    Attributes:
        image_id: The image's id.
        rotation: Degrees counter-clockwise that make it upright, from 0 to 359.
        negative: Whether it was selected because it contains none of the classes.
        is_rejected: Whether a reviewer decided to leave it out.
        fingerprint: Digest of these, of its boxes, of the original file and of the options.
    """

    image_id: str
    rotation: int
    negative: bool
    is_rejected: bool
    fingerprint: str


def image_options(config: Config) -> dict[str, Any]:
    """Return the options that determine what a prepared image looks like, JSON-compatible."""
    size_wh: list[int] = list(config.images.size)
    fit: Fit = config.images.fit
    return {"size": size_wh, "fit": fit, "mask_group_of": config.dataset.group_of == "mask"}


def source_sizes_wh(ledger: Ledger, *states: str) -> dict[str, tuple[int, int]]:
    """Return the width and height in pixels of the upright originals of prepared images, by id."""
    heights = ledger.column("height_px", *states)
    return {
        image_id: (width, height)
        for image_id, width in ledger.column("width_px", *states).items()
        if isinstance(width, int) and isinstance(height := heights[image_id], int)
    }


class SelectedBoxes:
    """The boxes of the selected images. Each image's are placed once, and kept."""

    def __init__(self, selection: Selection, config: Config, reviewed: ReviewedBoxes) -> None:
        self._table, self._images, self._config = reviewed.boxes, selection.images, config
        self._reviewed = reviewed
        self._rows_by_id = self._table.groupby("ImageID").indices
        self._rotation_by_id = selection.rotation_by_id
        self._placed_ids: set[str] = set()
        self._class_ids = self._table["class_id"].to_numpy(dtype=np.int64)
        self._xyxy = self._table[list(CORNERS)].to_numpy(dtype=np.float64, copy=True)
        self._drop_reasons: npt.NDArray[np.object_] = self._table["dropped_because"].to_numpy(
            dtype=object, copy=True
        )
        self._is_masked = np.zeros(len(self._table), dtype=bool)
        if config.dataset.group_of == "mask" and (flag := FLAG_COLUMNS["group_of"]) in self._table:
            self._is_masked = np.asarray(self._table[flag].to_numpy() == 1)
        self._drop_reasons[self._is_masked & (self._drop_reasons == "")] = "masked"

    def iter_tasks(self, md5_by_id: Mapping[str, object]) -> Iterator[Task]:
        """Yield a task for every selected image.

        Args:
            md5_by_id: MD5 of each fetched file, by image id.
        """
        options = image_options(self._config)
        are_negative = self._images["negative"].astype(bool)
        for image_id, negative in zip(self._images["ImageID"], are_negative, strict=True):
            rotation, rows = self._rotation_by_id[image_id], self._rows(image_id)
            inputs = (METHOD_VERSION, options, rotation, md5_by_id.get(image_id), negative)
            digest = hashlib.sha256(repr(inputs).encode())
            for column in (self._xyxy, self._class_ids, self._is_masked):
                digest.update(column[rows].tobytes())
            digest.update("|".join(self._drop_reasons[rows]).encode())
            is_rejected = image_id in self._reviewed.rejected_ids
            if is_rejected:
                digest.update(b"rejected")
            yield Task(image_id, rotation, negative, is_rejected, digest.hexdigest()[:16])

    def review_note(self, image_id: str) -> str:
        """Return what the review changed in an image, in words; empty if nothing."""
        return self._reviewed.note(image_id)

    @property
    def review_not_applied(self) -> Sequence[ReviewRow]:
        """A reviewer's decisions that match no image or box."""
        return self._reviewed.not_applied

    def _rows(self, image_id: str) -> npt.NDArray[np.int64]:
        return np.asarray(self._rows_by_id.get(image_id, ()), dtype=np.int64)

    def masked(self, image_id: str) -> Boxes:
        """Return an image's boxes that are to be filled with grey, before they are placed."""
        rows = self._rows(image_id)
        return self._xyxy[rows[self._is_masked[rows]]]

    def place(self, image_id: str, source_wh: tuple[int, int]) -> tuple[ClassIds, Boxes]:
        """Place an image's boxes in the prepared frame.

        Args:
            image_id: The image.
            source_wh: Width and height of the upright original in pixels.

        Returns:
            The class and the corners of each box that is a label, shapes (n,) and (n, 4).
        """
        rows = self._rows(image_id)
        placed = place_boxes(
            self._xyxy[rows],
            self._class_ids[rows],
            self._drop_reasons[rows],
            rotation=self._rotation_by_id[image_id],
            source_wh=source_wh,
            size_wh=self._config.images.size,
            fit=self._config.images.fit,
        )
        self._placed_ids.add(image_id)
        self._xyxy[rows], self._drop_reasons[rows] = placed.xyxy, placed.drop_reasons
        return self._class_ids[rows[placed.used]], placed.xyxy[placed.used]

    def to_csv(self, source_wh_by_id: Mapping[str, tuple[int, int]]) -> str:
        """Return ``boxes.csv`` of the prepared images, placing the boxes that are not placed yet.

        Args:
            source_wh_by_id: Width and height in pixels of the upright original of each image.
        """
        for image_id, source_wh in source_wh_by_id.items():
            if image_id not in self._placed_ids:
                self.place(image_id, source_wh)
        are_included = self._table["ImageID"].isin(source_wh_by_id.keys())
        table = self._table[are_included].copy()
        table[list(CORNERS)] = self._xyxy[are_included]
        table["dropped_because"] = self._drop_reasons[are_included]
        table["used"] = table["dropped_because"] == ""
        return table.to_csv(index=False, float_format="%.7f")
