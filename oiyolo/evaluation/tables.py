"""What is compared: a detector's output and the ground truth, as tables of arrays.

Both hold one row per box. ``image`` is a position in the table's own ``image_ids``, ``class_id``
a position in ``obj.names``, ``xyxy`` fractions of the image (see ``oiyolo.boxes``). Everything
here is pure and needs numpy only.
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
"""A person has confirmed that the class is in the image."""
UNKNOWN = 0
"""Nobody has looked for the class in the image."""
ABSENT = -1
"""A person has confirmed that the class is not in the image."""

_CORNERS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """What a detector claims to see.

    Attributes:
        image_ids: The images that the detector was shown, each once. Images without a detection
            belong here too.
        image: Position in ``image_ids`` of each detection's image, shape (n,).
        class_id: Position in ``obj.names`` of each detection's class, shape (n,).
        score: How sure the detector is, shape (n,), larger is surer.
        xyxy: Boxes, shape (n, 4), fractions of the image.
        duplicates: How many detections a reader left out because they were there already.
        not_finite: How many detections a reader left out because a number was nan or infinite.

    Raises:
        ValueError: Shapes, positions or boxes do not fit; the message gives both sides.
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
    def none(cls, image_ids: Iterable[str] = ()) -> Detections:
        """Give the table of a detector that saw ``image_ids`` and found nothing."""
        empty = np.zeros(0)
        return cls(
            tuple(image_ids), empty.astype(np.int64), empty.astype(np.int64), empty, _no_boxes()
        )

    def where(self, keep: Flags) -> Detections:
        """Give the detections whose flag is set, over the same images."""
        return dataclasses.replace(
            self,
            image=self.image[keep],
            class_id=self.class_id[keep],
            score=self.score[keep],
            xyxy=self.xyxy[keep],
        )

    def over(self, image_ids: Sequence[str]) -> Detections:
        """Give the same detections with positions in another list of images.

        Raises:
            ValueError: A detection lies on an image that is not in ``image_ids``.
        """
        if self.image_ids == tuple(image_ids):
            return self
        ids = np.array(self.image_ids, dtype=object)[self.image]
        return dataclasses.replace(self, image_ids=tuple(image_ids), image=places(image_ids, ids))


@dataclasses.dataclass(frozen=True, eq=False)
class GroundTruth:
    """What people drew and confirmed.

    Attributes:
        image_ids: The images that are scored, each once, those without boxes too.
        image: Position in ``image_ids`` of each box's image, shape (n,).
        class_id: Position in ``obj.names`` of each box's class, shape (n,).
        xyxy: Boxes, shape (n, 4), fractions of the image.
        group_of: Whether a box is drawn around more than five touching objects (Open Images'
            ``IsGroupOf``), shape (n,).
        verified: ``PRESENT``, ``UNKNOWN`` or ``ABSENT`` for each image and class, shape
            (images, classes); ``None`` means that every image was searched for every class.

    Raises:
        ValueError: Shapes, positions or boxes do not fit; the message gives both sides.
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
                raise ValueError(f"verified must hold {PRESENT}, {UNKNOWN} or {ABSENT} only")
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
        """Make the table out of columns that name each box's image by its id.

        Args:
            image_ids: The images that are scored, each once.
            box_image_ids: The image of each box, length n.
            class_id: The class of each box, length n.
            xyxy: Boxes, shape (n, 4), fractions of the image.
            group_of: Group-of flags, length n; ``None``: no box is one.
            verified: See the class; ``verification`` makes it.

        Raises:
            ValueError: A box lies on an image that is not in ``image_ids``, or the columns do
                not fit together.
        """
        ids = tuple(image_ids)
        image = places(ids, box_image_ids)
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

    def has_verified(self, image: Ints, class_id: Ints) -> Flags:
        """Tell for pairs of image and class whether anybody knows if the class is there.

        A box says that its class is there, whatever ``verified`` says.

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
        known = np.zeros((len(self.image_ids), class_count), dtype=np.bool_)
        known[:, : self.verified.shape[1]] = self.verified != UNKNOWN
        known[self.image, self.class_id] = True
        return np.asarray(known[image, class_id])


def verification(
    image_ids: Sequence[str],
    class_count: int,
    *,
    present: Iterable[tuple[str, int]] = (),
    absent: Iterable[tuple[str, int]] = (),
) -> Verified:
    """Make ``GroundTruth.verified`` out of pairs of image id and class id.

    Args:
        image_ids: The images that are scored, each once.
        class_count: How many classes there are.
        present: Pairs that a person has confirmed.
        absent: Pairs that a person has ruled out. Where both are given, present wins.

    Returns:
        Shape (images, classes); pairs on images that are not scored are passed over.
    """
    table = np.full((len(image_ids), class_count), UNKNOWN, dtype=np.int8)
    place = {image_id: index for index, image_id in enumerate(image_ids)}
    for pairs, value in ((absent, ABSENT), (present, PRESENT)):
        for image_id, class_id in pairs:
            if image_id in place:
                table[place[image_id], class_id] = value
    return table


def places(image_ids: Sequence[str], wanted: Iterable[str]) -> Ints:
    """Give the position of each wanted id in ``image_ids``.

    Raises:
        ValueError: An id is not in the list.
    """
    place = {image_id: index for index, image_id in enumerate(image_ids)}
    try:
        return np.array([place[image_id] for image_id in wanted], dtype=np.int64)
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is not among the {len(place)} images") from None


def _set(table: object, name: str, value: object) -> None:
    """Replace a field of a frozen dataclass while it is being made."""
    object.__setattr__(table, name, value)


def _no_boxes() -> Boxes:
    return np.zeros((0, _CORNERS))


def _array(
    name: str, value: npt.ArrayLike, dtype: npt.DTypeLike, axes: tuple[str, ...]
) -> npt.NDArray[np.generic]:
    array = np.asarray(value)
    if array.ndim != len(axes):
        raise ValueError(f"{name} must have shape ({', '.join(axes)}), not {array.shape}")
    # An empty list arrives as float64: nothing in it can be lost.
    if array.size and not np.can_cast(array.dtype, np.dtype(dtype), casting="same_kind"):
        raise ValueError(f"{name} must hold {np.dtype(dtype)}, not {array.dtype}")
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
        raise ValueError("image_ids must hold each image once")
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
