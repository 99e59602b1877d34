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
    from collections.abc import Iterable, Mapping, Sequence

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

    Raises:
        ValueError: Shapes, positions or boxes are inconsistent.
    """

    image_ids: tuple[str, ...]
    image: Ints
    class_id: Ints
    score: Floats
    xyxy: Boxes

    def __post_init__(self) -> None:
        _validate(self, score=self.score)
        if not np.isfinite(self.score).all():
            raise ValueError("score must be finite")

    def __len__(self) -> int:
        return len(self.image)

    def where(self, keep: Flags) -> Detections:
        """Return the detections whose flag is set, with the same ``image_ids``."""
        return dataclasses.replace(
            self,
            image=self.image[keep],
            class_id=self.class_id[keep],
            score=self.score[keep],
            xyxy=self.xyxy[keep],
        )

    def of_images(self, image_ids: Sequence[str]) -> Detections:
        """Return the detections in some of the images, which become ``image_ids``."""
        image, keep = _positions_in(image_ids, self)
        return dataclasses.replace(self.where(keep), image_ids=tuple(image_ids), image=image)

    def of_classes(self, class_ids: Sequence[int]) -> Detections:
        """Return the detections of some classes, which are numbered by their place in the list."""
        new, keep = _positions_of(class_ids, self.class_id)
        return dataclasses.replace(self.where(keep), class_id=new)

    def joined_with(self, others: Detections) -> Detections:
        """Return these detections and others, which are in other images."""
        return Detections(
            image_ids=(*self.image_ids, *others.image_ids),
            image=np.concatenate([self.image, others.image + len(self.image_ids)]),
            class_id=np.concatenate([self.class_id, others.class_id]),
            score=np.concatenate([self.score, others.score]),
            xyxy=np.concatenate([self.xyxy, others.xyxy]),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class GroundTruth:
    """The annotations of a set of images.

    Attributes:
        image_ids: Ids of the evaluated images, without repetition, including those without boxes.
        image: Position in ``image_ids`` of each box's image, shape (n,).
        class_id: Position in ``obj.names`` of each box's class, shape (n,).
        xyxy: Boxes, shape (n, 4), fractions of the image.
        is_region: Whether a box is a region in which detections are neither right nor wrong, shape
            (n,): it contains a group of more than five touching objects (Open Images'
            ``IsGroupOf``), or a difficult object that is no label.
        verified: ``PRESENT``, ``UNKNOWN`` or ``ABSENT`` for each image and class, shape
            (images, classes); ``None`` if every image was searched for every class.
        sizes_wh: Width and height of each image in pixels, shape (images, 2), if known.
        attributes: Flags of the boxes by name ("occluded", for example), each of shape (n,).

    Raises:
        ValueError: Shapes, positions or boxes are inconsistent.
    """

    image_ids: tuple[str, ...]
    image: Ints
    class_id: Ints
    xyxy: Boxes
    is_region: Flags
    verified: Verified | None = None
    sizes_wh: Floats | None = None
    attributes: Mapping[str, Flags] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _validate(self, is_region=self.is_region, **self.attributes)
        for name, table in (("verified", self.verified), ("sizes_wh", self.sizes_wh)):
            if table is not None and len(table) != len(self.image_ids):
                raise ValueError(f"{name} must have length {len(self.image_ids)}, not {len(table)}")

    def __len__(self) -> int:
        return len(self.image)

    @property
    def regions(self) -> dict[str, Flags]:
        """Which boxes are regions of each kind, "group_of" or "difficult", shape (n,)."""
        difficult = self.is_region & self.attributes.get("difficult", np.bool_(False))
        return {"group_of": self.is_region & ~difficult, "difficult": difficult}

    @classmethod
    def from_rows(
        cls,
        image_ids: Iterable[str],
        *,
        box_image_ids: Iterable[str],
        class_id: npt.ArrayLike,
        xyxy: npt.ArrayLike,
        is_region: npt.ArrayLike,
        verified: Verified | None = None,
        sizes_wh: npt.ArrayLike | None = None,
        attributes: Mapping[str, npt.ArrayLike] | None = None,
    ) -> GroundTruth:
        """Build the table from columns that refer to images by id.

        Args:
            image_ids: Ids of the evaluated images, without repetition.
            box_image_ids: Id of each box's image, length n.
            class_id: Class of each box, length n.
            xyxy: Boxes, shape (n, 4), fractions of the image.
            is_region: Region flags, length n.
            verified: Verified labels, as in the class; ``verification`` builds them.
            sizes_wh: Sizes of the images, as in the class.
            attributes: Flags of the boxes by name, each of length n.

        Raises:
            ValueError: The image of a box is not in ``image_ids``, or the columns are
                inconsistent.
        """
        ids = tuple(image_ids)
        position = {image_id: index for index, image_id in enumerate(ids)}
        try:
            image = [position[image_id] for image_id in box_image_ids]
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is not among the {len(ids)} images") from None
        return cls(
            image_ids=ids,
            image=np.array(image, dtype=np.int64),
            class_id=np.asarray(class_id, dtype=np.int64),
            xyxy=np.asarray(xyxy, dtype=np.float64).reshape(-1, _CORNERS),
            is_region=np.asarray(is_region, dtype=np.bool_),
            verified=verified,
            sizes_wh=None if sizes_wh is None else np.asarray(sizes_wh, dtype=np.float64),
            attributes={
                name: np.asarray(flags, dtype=np.bool_)
                for name, flags in (attributes or {}).items()
            },
        )

    def of_images(self, image_ids: Sequence[str]) -> GroundTruth:
        """Return the annotations of some of the images, which become ``image_ids``."""
        image, keep = _positions_in(image_ids, self)
        position = {image_id: index for index, image_id in enumerate(self.image_ids)}
        rows = [position[image_id] for image_id in image_ids]
        return dataclasses.replace(
            self,
            image_ids=tuple(image_ids),
            image=image,
            class_id=self.class_id[keep],
            xyxy=self.xyxy[keep],
            is_region=self.is_region[keep],
            verified=None if self.verified is None else self.verified[rows],
            sizes_wh=None if self.sizes_wh is None else self.sizes_wh[rows],
            attributes={name: flags[keep] for name, flags in self.attributes.items()},
        )

    def of_classes(self, class_ids: Sequence[int]) -> GroundTruth:
        """Return the boxes of some classes, which are numbered by their place in the list."""
        new, keep = _positions_of(class_ids, self.class_id)
        return dataclasses.replace(
            self,
            image=self.image[keep],
            class_id=new,
            xyxy=self.xyxy[keep],
            is_region=self.is_region[keep],
            verified=None if self.verified is None else self.verified[:, list(class_ids)],
            attributes={name: flags[keep] for name, flags in self.attributes.items()},
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
        verified = self.verified != UNKNOWN
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


def _positions_in(image_ids: Sequence[str], table: Detections | GroundTruth) -> tuple[Ints, Flags]:
    """Return the new positions of the rows of some images, and which rows these are."""
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    new = np.array([position.get(image_id, -1) for image_id in table.image_ids], dtype=np.int64)
    image = new[table.image]
    keep = np.asarray(image >= 0)
    return image[keep], keep


def _positions_of(class_ids: Sequence[int], class_id: Ints) -> tuple[Ints, Flags]:
    """Return the new class ids of the rows of some classes, and which rows these are."""
    count = 1 + max((*class_ids, int(class_id.max(initial=0))))
    new = np.full(count, -1, dtype=np.int64)
    new[list(class_ids)] = np.arange(len(class_ids))
    of_rows = new[class_id]
    keep = np.asarray(of_rows >= 0)
    return of_rows[keep], keep


def _validate(table: Detections | GroundTruth, **columns: Floats | Flags) -> None:
    """Raise ``ValueError`` if columns differ in length, or positions or boxes are invalid."""
    for name, column in {"class_id": table.class_id, "xyxy": table.xyxy, **columns}.items():
        if len(column) != len(table.image):
            raise ValueError(f"{name} must have length {len(table.image)}, not {len(column)}")
    if len(set(table.image_ids)) != len(table.image_ids):
        raise ValueError("image_ids must contain each image once")
    if not np.isin(table.image, np.arange(len(table.image_ids))).all():
        raise ValueError(f"image must be positions in {len(table.image_ids)} image_ids")
    if (table.class_id < 0).any():
        raise ValueError(f"class_id must be 0 or more, not {table.class_id.min()}")
    wrong = ~np.isfinite(table.xyxy).all(axis=1) | (table.xyxy[:, :2] > table.xyxy[:, 2:]).any(
        axis=1
    )
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"xyxy must be left, top, right, bottom, and finite; row {row} is {table.xyxy[row]}"
        )
