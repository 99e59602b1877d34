"""Tables of detections and of ground truth, the input of an evaluation.

Both have one row per box. ``image`` is a position in the table's own ``image_ids``, ``class_id`` a
position in ``obj.names``, and ``xyxy`` in fractions of the image (see ``oiyolo.boxes``). Everything
here is pure and needs only numpy.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oiyolo.boxes import Boxes

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Verified = npt.NDArray[np.int8]

PRESENT = 1
"""An annotator confirmed that the class is in the image."""
UNKNOWN = 0
"""No annotator looked for the class in the image."""
ABSENT = -1
"""An annotator confirmed that the class is not in the image."""

_CORNERS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The output of a detector.

    Attributes:
        image_ids: Ids of all images that the detector processed, without repetition, including
            those without detections.
        image: Position in ``image_ids`` of each detection's image, shape (n,).
        class_id: Position in ``obj.names`` of each detection's class, shape (n,).
        score: Confidence of each detection, shape (n,).
        xyxy: Boxes, shape (n, 4), fractions of the image.
        duplicates: Number of repeated detections that a reader dropped.
        not_finite: Number of detections that a reader dropped because of a NaN or an infinity.

    Raises:
        ValueError: Shapes, positions or boxes are inconsistent.
    """

    image_ids: tuple[str, ...]
    image: Ints
    class_id: Ints
    score: Floats
    xyxy: Boxes
    duplicates: int = 0
    not_finite: int = 0

    def __post_init__(self) -> None:
        _set(self, "image_ids", tuple(self.image_ids))
        _set(self, "image", _array("image", self.image, np.int64, ("n",)))
        _set(self, "class_id", _array("class_id", self.class_id, np.int64, ("n",)))
        _set(self, "score", _array("score", self.score, np.float64, ("n",)))
        _set(self, "xyxy", _boxes(self.xyxy))
        _validate_rows(self.image_ids, self.image, self.class_id, self.xyxy)
        _validate_length("score", self.score, len(self.image))
        if not np.isfinite(self.score).all():
            raise ValueError("score must be finite")

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def empty(cls, image_ids: Iterable[str] = ()) -> Detections:
        """Return a table without detections on ``image_ids``."""
        zeros = np.zeros(0)
        return cls(
            tuple(image_ids), zeros.astype(np.int64), zeros.astype(np.int64), zeros, _no_boxes()
        )

    def where(self, keep: Flags) -> Detections:
        """Return the detections whose flag is set, with the same ``image_ids``."""
        return dataclasses.replace(
            self,
            image=self.image[keep],
            class_id=self.class_id[keep],
            score=self.score[keep],
            xyxy=self.xyxy[keep],
        )

    def reindex(self, image_ids: Sequence[str]) -> Detections:
        """Return the same detections with positions in another list of images.

        Raises:
            ValueError: The image of a detection is not in ``image_ids``.
        """
        if self.image_ids == tuple(image_ids):
            return self
        ids = np.array(self.image_ids, dtype=object)[self.image]
        return dataclasses.replace(
            self, image_ids=tuple(image_ids), image=positions(image_ids, ids)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class GroundTruth:
    """The annotations of a set of images.

    Attributes:
        image_ids: Ids of the evaluated images, without repetition, including those without boxes.
        image: Position in ``image_ids`` of each box's image, shape (n,).
        class_id: Position in ``obj.names`` of each box's class, shape (n,).
        xyxy: Boxes, shape (n, 4), fractions of the image.
        group_of: Whether a box contains a group of more than five touching objects (Open Images'
            ``IsGroupOf``), shape (n,).
        verified: ``PRESENT``, ``UNKNOWN`` or ``ABSENT`` for each image and class, shape
            (images, classes); ``None`` if every image was searched for every class.

    Raises:
        ValueError: Shapes, positions or boxes are inconsistent.
    """

    image_ids: tuple[str, ...]
    image: Ints
    class_id: Ints
    xyxy: Boxes
    group_of: Flags
    verified: Verified | None = None

    def __post_init__(self) -> None:
        _set(self, "image_ids", tuple(self.image_ids))
        _set(self, "image", _array("image", self.image, np.int64, ("n",)))
        _set(self, "class_id", _array("class_id", self.class_id, np.int64, ("n",)))
        _set(self, "xyxy", _boxes(self.xyxy))
        _set(self, "group_of", _array("group_of", self.group_of, np.bool_, ("n",)))
        _validate_rows(self.image_ids, self.image, self.class_id, self.xyxy)
        _validate_length("group_of", self.group_of, len(self.image))
        if self.verified is not None:
            verified = _array("verified", self.verified, np.int8, ("images", "classes"))
            _validate_length("verified", verified, len(self.image_ids))
            if not np.isin(verified, (PRESENT, UNKNOWN, ABSENT)).all():
                raise ValueError(f"verified must contain only {PRESENT}, {UNKNOWN} or {ABSENT}")
            _set(self, "verified", verified)

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def from_rows(
        cls,
        image_ids: Iterable[str],
        *,
        box_image_ids: Iterable[str],
        class_id: npt.ArrayLike,
        xyxy: npt.ArrayLike,
        group_of: npt.ArrayLike | None = None,
        verified: Verified | None = None,
    ) -> GroundTruth:
        """Build the table from columns that refer to images by id.

        Args:
            image_ids: Ids of the evaluated images, without repetition.
            box_image_ids: Id of each box's image, length n.
            class_id: Class of each box, length n.
            xyxy: Boxes, shape (n, 4), fractions of the image.
            group_of: Group-of flags, length n; ``None`` if no box is group-of.
            verified: Verified labels, as in the class; ``verification`` builds them.

        Raises:
            ValueError: The image of a box is not in ``image_ids``, or the columns are
                inconsistent.
        """
        ids = tuple(image_ids)
        image = positions(ids, box_image_ids)
        return cls(
            image_ids=ids,
            image=image,
            class_id=np.asarray(class_id, dtype=np.int64),
            xyxy=np.asarray(xyxy, dtype=np.float64).reshape(-1, _CORNERS),
            group_of=np.asarray(
                np.zeros(len(image)) if group_of is None else group_of, dtype=np.bool_
            ),
            verified=verified,
        )

    def is_verified(self, image: Ints, class_id: Ints) -> Flags:
        """Return whether the presence of a class in an image was verified, for pairs of both.

        A box verifies its class, whatever ``verified`` says.

        Args:
            image: Positions in ``image_ids``, shape (k,).
            class_id: Positions in ``obj.names``, shape (k,).

        Returns:
            Flags, shape (k,).
        """
        if self.verified is None:
            return np.ones(len(image), dtype=np.bool_)
        class_count = max(
            self.verified.shape[1],
            int(class_id.max(initial=-1)) + 1,
            int(self.class_id.max(initial=-1)) + 1,
        )
        verified = np.zeros((len(self.image_ids), class_count), dtype=np.bool_)
        verified[:, : self.verified.shape[1]] = self.verified != UNKNOWN
        verified[self.image, self.class_id] = True
        return np.asarray(verified[image, class_id])


def verification(
    image_ids: Sequence[str],
    class_count: int,
    *,
    present: Iterable[tuple[str, int]] = (),
    absent: Iterable[tuple[str, int]] = (),
) -> Verified:
    """Build ``GroundTruth.verified`` from pairs of image id and class id.

    Args:
        image_ids: Ids of the evaluated images, without repetition.
        class_count: Number of classes.
        present: Pairs that an annotator confirmed.
        absent: Pairs that an annotator ruled out. If a pair is in both, present wins.

    Returns:
        Shape (images, classes); pairs of other images are ignored.
    """
    table = np.full((len(image_ids), class_count), UNKNOWN, dtype=np.int8)
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    for pairs, value in ((absent, ABSENT), (present, PRESENT)):
        for image_id, class_id in pairs:
            if image_id in position:
                table[position[image_id], class_id] = value
    return table


def positions(image_ids: Sequence[str], selected_ids: Iterable[str]) -> Ints:
    """Return the position of each of ``selected_ids`` in ``image_ids``.

    Raises:
        ValueError: An id is not in the list.
    """
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    try:
        return np.array([position[image_id] for image_id in selected_ids], dtype=np.int64)
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is not among the {len(position)} images") from None


def _set(table: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass during its initialisation."""
    object.__setattr__(table, name, value)


def _no_boxes() -> Boxes:
    return np.zeros((0, _CORNERS))


def _array(
    name: str, value: npt.ArrayLike, dtype: npt.DTypeLike, axes: tuple[str, ...]
) -> npt.NDArray[np.generic]:
    array = np.asarray(value)
    if array.ndim != len(axes):
        raise ValueError(f"{name} must have shape ({', '.join(axes)}), not {array.shape}")
    # An empty list arrives as float64, but can be cast without loss.
    if array.size and not np.can_cast(array.dtype, np.dtype(dtype), casting="same_kind"):
        raise ValueError(f"{name} must be {np.dtype(dtype)}, not {array.dtype}")
    return array.astype(dtype, copy=False)


def _boxes(value: npt.ArrayLike) -> Boxes:
    xyxy = np.asarray(value, dtype=np.float64)
    if xyxy.ndim != 2 or xyxy.shape[1] != _CORNERS:  # noqa: PLR2004  (rows and corners)
        raise ValueError(f"xyxy must have shape (n, {_CORNERS}), not {xyxy.shape}")
    return xyxy


def _validate_length(name: str, array: npt.NDArray[np.generic], length: int) -> None:
    if len(array) != length:
        raise ValueError(f"{name} must have length {length}, not {len(array)}")


def _validate_rows(image_ids: tuple[str, ...], image: Ints, class_id: Ints, xyxy: Boxes) -> None:
    if len(set(image_ids)) != len(image_ids):
        raise ValueError("image_ids must contain each image once")
    _validate_length("class_id", class_id, len(image))
    _validate_length("xyxy", xyxy, len(image))
    if image.size and not (image.min() >= 0 and image.max() < len(image_ids)):
        raise ValueError(
            f"image must be positions in {len(image_ids)} image_ids, "
            f"not {image.min()} to {image.max()}"
        )
    if class_id.size and class_id.min() < 0:
        raise ValueError(f"class_id must be 0 or more, not {class_id.min()}")
    if not np.isfinite(xyxy).all():
        raise ValueError("xyxy must be finite")
    if (xyxy[:, :2] > xyxy[:, 2:]).any():
        row = int(np.flatnonzero((xyxy[:, :2] > xyxy[:, 2:]).any(axis=1))[0])
        raise ValueError(f"xyxy must be left, top, right, bottom; row {row} is {xyxy[row]}")
