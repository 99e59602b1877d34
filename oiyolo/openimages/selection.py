"""What to select: pure decisions on tables of boxes and image labels.

A flag (group of, occluded, ...) is judged on the selected classes' boxes only, and -1 (unknown)
does not count as set. A dropped box stays in the table with ``used`` false, because scoring needs
it; an image left without a used box is not selected.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo import boxes as geometry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import pandas as pd
    from numpy.typing import NDArray

    from oiyolo.openimages.classes import SelectedClass
    from oiyolo.project.keys import DatasetOptions

FLAG_COLUMNS: Final = {
    "group_of": "IsGroupOf",
    "occluded": "IsOccluded",
    "truncated": "IsTruncated",
    "depiction": "IsDepiction",
    "inside": "IsInside",
}
CORNERS: Final = ("XMin", "YMin", "XMax", "YMax")
"""The corner columns in xyxy order (the files have them in another)."""
SEPARATOR: Final = "|"
"""Between class names in the columns ``present`` and ``absent``; no class name holds it."""


@dataclass(frozen=True)
class Selected:
    """The outcome of a selection.

    Attributes:
        boxes: Every box of the selected classes in the selected images, in order of ids.
        images: One row an image: ``ImageID``, ``Subset``, ``negative``, ``present``, ``absent``.
        excluded: Images that hold a selected class but were not selected, by reason.
    """

    boxes: pd.DataFrame
    images: pd.DataFrame
    excluded: dict[str, int]


def decide(
    boxes: pd.DataFrame,
    labels: pd.DataFrame,
    classes: Sequence[SelectedClass],
    options: DatasetOptions,
) -> Selected:
    """Select images and boxes.

    Args:
        boxes: Rows of the selected labels, corners as numbers, with a column ``Subset``.
        labels: Human-verified image labels of the same, ``Confidence`` 0 or 1, with ``Subset``.
        classes: The selected classes.
        options: What to keep.
    """
    marked = _mark(boxes, classes, options)
    images = _Images.of(marked, labels, classes)
    boxed = images.among(np.ones(len(marked), dtype=bool))
    dropped = images.among(marked["drops_image"].to_numpy())
    with_used = images.among(marked["used"].to_numpy())
    candidates = boxed & ~dropped & with_used
    excluded = {
        "dropped by a flag": int(dropped.sum()),
        "no box left": int((boxed & ~dropped & ~with_used).sum()),
    }
    if options.require_verified:
        complete = images.verified_for_all()
        excluded["not verified for every class"] = int((candidates & ~complete).sum())
        candidates &= complete
    positives = images.first_by_hash(candidates, options.limit)
    excluded["beyond the limit"] = int(candidates.sum()) - len(positives)

    wanted = round(options.negatives * len(positives))
    # Boxed here means any box of a selected class, also a dropped one.
    clean = images.with_pair(images.absent) & ~images.with_pair(images.present) & ~boxed
    negatives = images.first_by_hash(clean, wanted) if wanted else positives[:0]

    chosen = np.sort(np.concatenate([positives, negatives]))
    is_positive = np.isin(images.box_codes, positives)
    order = np.argsort(images.box_codes[is_positive], kind="stable")
    kept = marked[is_positive].drop(columns="drops_image").iloc[order]
    return Selected(
        kept.reset_index(drop=True),
        images.table(chosen, negatives, classes),
        {reason: n for reason, n in excluded.items() if n},
    )


def _mark(
    boxes: pd.DataFrame, classes: Sequence[SelectedClass], options: DatasetOptions
) -> pd.DataFrame:
    """Add ``class``, ``class_id``, ``used``, ``dropped_because`` and ``drops_image``."""
    marked = boxes.reset_index(drop=True)
    marked["class_id"] = _class_ids(marked, classes)
    marked["class"] = np.array([c.name for c in classes], dtype=object)[marked["class_id"]]
    because = np.full(len(marked), "", dtype=object)
    drops_image = np.zeros(len(marked), dtype=bool)
    for option, column in FLAG_COLUMNS.items():
        choice = getattr(options, option)
        if choice in {"keep", "mask"} or column not in marked:
            continue
        is_set = (marked[column] == 1).to_numpy()
        because[is_set & (because == "")] = option
        if choice == "drop-image":
            drops_image |= is_set
    area = geometry.area(marked[list(CORNERS)].to_numpy(dtype=float))
    because[(area < options.min_box_area) & (because == "")] = "min_box_area"
    because[(area > options.max_box_area) & (because == "")] = "max_box_area"
    marked["used"] = because == ""
    marked["dropped_because"] = because
    marked["drops_image"] = drops_image
    return marked


def _class_ids(table: pd.DataFrame, classes: Sequence[SelectedClass]) -> NDArray[np.int64]:
    """Give the class id that each row's ``LabelName`` counts as."""
    id_by_mid = {mid: selected.class_id for selected in classes for mid in selected.mids}
    codes, mids = table["LabelName"].factorize()
    of_mids = np.array([id_by_mid[mid] for mid in mids], dtype=np.int64)
    class_ids: NDArray[np.int64] = of_mids[codes]
    return class_ids


@dataclass(frozen=True)
class _Images:
    """All images in question, each as a number: its place among their sorted ids.

    Attributes:
        ids: Sorted ImageIDs.
        subsets: The subset of each.
        box_codes: The number of each box's image.
        classes: How many classes are selected.
        present: Pairs of image and class that humans found present, as sorted
            ``image * classes + class_id``.
        absent: Pairs that humans found absent, and never present.
    """

    ids: NDArray[np.object_]
    subsets: NDArray[np.object_]
    box_codes: NDArray[np.int64]
    classes: int
    present: NDArray[np.int64]
    absent: NDArray[np.int64]

    @classmethod
    def of(
        cls, boxes: pd.DataFrame, labels: pd.DataFrame, classes: Sequence[SelectedClass]
    ) -> _Images:
        """Number the images of boxes and labels, and say what humans found in them.

        A box says present; so does a label of the class or of a descendant. Absent needs a label
        of the class itself (no canoe does not mean no boat).
        """
        both = np.concatenate([_texts(boxes["ImageID"]), _texts(labels["ImageID"])])
        codes, ids = _numbered(both)
        box_codes, label_codes = codes[: len(boxes)], codes[len(boxes) :]
        subsets = np.full(len(ids), "", dtype=object)
        subsets[label_codes] = _texts(labels["Subset"])
        subsets[box_codes] = _texts(boxes["Subset"])

        label_classes = _class_ids(labels, classes)
        label_pairs = label_codes * len(classes) + label_classes
        is_present = labels["Confidence"].to_numpy(dtype=float) > 0
        own_mids = np.array([c.mid for c in classes], dtype=object)
        is_own = own_mids[label_classes] == _texts(labels["LabelName"])
        present = np.unique(
            np.concatenate(
                [box_codes * len(classes) + boxes["class_id"].to_numpy(), label_pairs[is_present]]
            )
        )
        absent = np.setdiff1d(label_pairs[is_own & ~is_present], present)
        return cls(ids, subsets, box_codes, len(classes), present, absent)

    def among(self, boxes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which images hold one of the boxes that a mask names."""
        return np.bincount(self.box_codes[boxes], minlength=len(self.ids)).astype(bool)

    def with_pair(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which images stand in one of these pairs."""
        return np.bincount(pairs // self.classes, minlength=len(self.ids)).astype(bool)

    def verified_for_all(self) -> NDArray[np.bool_]:
        """Tell for which images humans said present or absent of every class."""
        said = np.concatenate([self.present, self.absent]) // self.classes
        is_complete: NDArray[np.bool_] = np.bincount(said, minlength=len(self.ids)) == self.classes
        return is_complete

    def first_by_hash(self, candidates: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
        """Give the first ``limit`` candidates (0: all) in the order of a hash of their ids.

        The order is the same on every machine and day, and 100 images are part of 200.
        """
        codes = np.flatnonzero(candidates)
        if not limit or limit >= len(codes):
            return codes
        hashes = [hashlib.sha256(image_id.encode()).digest() for image_id in self.ids[codes]]
        return codes[sorted(range(len(codes)), key=hashes.__getitem__)[:limit]]

    def table(
        self,
        chosen: NDArray[np.int64],
        negatives: NDArray[np.int64],
        classes: Sequence[SelectedClass],
    ) -> pd.DataFrame:
        """Give one row for each chosen image."""
        import pandas as pd  # noqa: PLC0415  (half a second, which nothing new need not take)

        names = [selected.name for selected in classes]
        return pd.DataFrame(
            {
                "ImageID": self.ids[chosen],
                "Subset": self.subsets[chosen],
                "negative": np.isin(chosen, negatives),
                "present": self._names(self.present, chosen, names),
                "absent": self._names(self.absent, chosen, names),
            }
        )

    def _names(
        self, pairs: NDArray[np.int64], chosen: NDArray[np.int64], names: Sequence[str]
    ) -> NDArray[np.object_]:
        """Give the classes that stand in a pair with each chosen image, in order of their ids."""
        is_chosen = np.zeros(len(self.ids), dtype=bool)
        is_chosen[chosen] = True
        images, class_ids = np.divmod(pairs[is_chosen[pairs // self.classes]], self.classes)
        texts = np.full(len(self.ids), "", dtype=object)
        # Most images have one, or there is but one class: the loop is for the others.
        is_next = np.diff(images, prepend=-1) == 0
        texts[images[~is_next]] = np.array(names, dtype=object)[class_ids[~is_next]]
        for image, class_id in zip(
            images[is_next].tolist(), class_ids[is_next].tolist(), strict=True
        ):
            texts[image] += SEPARATOR + names[class_id]
        return texts[chosen]


def _numbered(texts: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Give the place of each text among the sorted distinct ones, and these."""
    import pandas as pd  # noqa: PLC0415  (half a second, which nothing new need not take)

    codes, found = pd.factorize(texts)
    order = np.argsort(found.astype(str))  # a fifth of the time that Python's own texts take
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places[codes], found[order]


def _texts(column: pd.Series[str]) -> NDArray[np.object_]:
    return column.to_numpy(dtype=object)


def only(selected: Selected, image_ids: AbstractSet[str], reason: str) -> Selected:
    """Keep the images of these ids; count the others as excluded for a reason."""
    images = selected.images[selected.images["ImageID"].isin(image_ids)].reset_index(drop=True)
    boxes = selected.boxes[selected.boxes["ImageID"].isin(image_ids)].reset_index(drop=True)
    lost = len(selected.images) - len(images)
    return Selected(boxes, images, selected.excluded | ({reason: lost} if lost else {}))


def per_class(
    selected: Selected, classes: Sequence[SelectedClass]
) -> Mapping[str, Mapping[str, int]]:
    """Count the images and used boxes of each class."""
    used = selected.boxes[selected.boxes["used"]]
    return {
        chosen.name: {
            "images": int(used.loc[used["class_id"] == chosen.class_id, "ImageID"].nunique()),
            "boxes": int((used["class_id"] == chosen.class_id).sum()),
        }
        for chosen in classes
    }
