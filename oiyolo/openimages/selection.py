"""Select images and boxes from the tables of boxes and image labels.

Flags (group of, occluded, ...) are evaluated on the boxes of selected classes only, and -1
(unknown) does not count as set. A dropped box stays in the table with ``used`` false, because the
evaluation needs it. An image whose boxes are all dropped is not selected.
"""

from __future__ import annotations

import hashlib
from collections import Counter
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
    "difficult": "IsDifficult",
}
"""The column of each attribute of a box; ``IsDifficult`` is only in imported tables."""
CORNERS: Final = ("XMin", "YMin", "XMax", "YMax")
"""The corner columns in xyxy order, which differs from the order in the files."""
WITHDRAWN: Final = "withdrawn"
NOT_VERIFIED: Final = "not verified for every class"
BEYOND_LIMIT: Final = "beyond the limit"
NOT_FROZEN: Final = "not in the frozen dataset"
SEPARATOR: Final = "|"
"""Separates class names in the columns ``present`` and ``absent``; no class name contains it."""


@dataclass(frozen=True)
class SelectionTables:
    """The selected images and boxes.

    Attributes:
        boxes: Every box of the selected classes in the selected images, ordered by image id.
        images: One row per image: ``ImageID``, ``Subset``, ``negative``, ``present``, ``absent``.
        excluded: Number of images that contain a selected class but were not selected, by reason.
        withdrawn: Subset of each image that was not selected only because it was withdrawn.
    """

    boxes: pd.DataFrame
    images: pd.DataFrame
    excluded: dict[str, int]
    withdrawn: dict[str, str]


@dataclass(frozen=True)
class SelectionLimits:
    """Which of the matching images may be selected.

    Attributes:
        withdrawn: Ids of images that are never selected.
        frozen: Ids of the only images that are selected, whatever limits the options set; ``None``
            if the options decide.
    """

    withdrawn: AbstractSet[str] = frozenset()
    frozen: AbstractSet[str] | None = None


def select_images(
    boxes: pd.DataFrame,
    labels: pd.DataFrame,
    classes: Sequence[SelectedClass],
    options: DatasetOptions,
    limits: SelectionLimits | None = None,
) -> SelectionTables:
    """Select images and boxes.

    Args:
        boxes: Boxes of the selected classes, with numeric corners and a column ``Subset``.
        labels: Human-verified image labels of the same classes, with ``Confidence`` 0 or 1 and a
            column ``Subset``.
        classes: The selected classes.
        options: Options of ``[dataset]``.
        limits: Which of the images may be selected; all by default.
    """
    limits = limits or SelectionLimits()
    marked = _mark_boxes(boxes, classes, options)
    images = _Images.of(marked, labels, classes)
    is_withdrawn = images.among(limits.withdrawn)
    has_box = images.with_box(np.ones(len(marked), dtype=bool))
    is_dropped = images.with_box(marked["drops_image"].to_numpy())
    has_used_box = images.with_box(marked["used"].to_numpy())
    candidates = has_box & ~is_dropped & has_used_box
    excluded = {
        "dropped by a flag": int(is_dropped.sum()),
        "no box left": int((has_box & ~is_dropped & ~has_used_box).sum()),
    }
    if options.require_verified:
        is_verified = images.verified_for_all()
        excluded[NOT_VERIFIED] = int((candidates & ~is_verified).sum())
        candidates &= is_verified
    # An image with a box of a selected class is not a negative, even if that box is dropped.
    is_negative = images.with_pair(images.absent) & ~images.with_pair(images.present) & ~has_box
    withdrawn = images.subsets_of(
        is_withdrawn & (candidates | is_negative if options.negatives else candidates)
    )
    excluded[WITHDRAWN] = len(withdrawn)
    positives, negatives = _choose(
        images, candidates & ~is_withdrawn, is_negative & ~is_withdrawn, options, limits.frozen
    )
    beyond = BEYOND_LIMIT if limits.frozen is None else NOT_FROZEN
    excluded[beyond] = int((candidates & ~is_withdrawn).sum()) - len(positives)

    chosen = np.sort(np.concatenate([positives, negatives]))
    in_positive = np.isin(images.box_codes, positives)
    order = np.argsort(images.box_codes[in_positive], kind="stable")
    kept_boxes = marked[in_positive].drop(columns="drops_image").iloc[order]
    return SelectionTables(
        kept_boxes.reset_index(drop=True),
        images.table(chosen, negatives, classes),
        {reason: n for reason, n in excluded.items() if n},
        withdrawn,
    )


def _choose(
    images: _Images,
    candidates: NDArray[np.bool_],
    is_negative: NDArray[np.bool_],
    options: DatasetOptions,
    frozen: AbstractSet[str] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the positive and of the negative images to select."""
    if frozen is not None:
        is_frozen = images.among(frozen)
        return np.flatnonzero(candidates & is_frozen), np.flatnonzero(is_negative & is_frozen)
    positives = images.first_by_hash(candidates, options.limit)
    negative_count = round(options.negatives * len(positives))
    if not negative_count:
        return positives, positives[:0]
    return positives, images.first_by_hash(is_negative, negative_count)


def _mark_boxes(
    boxes: pd.DataFrame, classes: Sequence[SelectedClass], options: DatasetOptions
) -> pd.DataFrame:
    """Add ``class``, ``class_id``, ``used``, ``dropped_because`` and ``drops_image``."""
    marked = boxes.reset_index(drop=True)
    marked["class_id"] = _class_ids(marked, classes)
    marked["class"] = np.array([c.name for c in classes], dtype=object)[marked["class_id"]]
    reasons = np.full(len(marked), "", dtype=object)
    drops_image = np.zeros(len(marked), dtype=bool)
    for option, column in FLAG_COLUMNS.items():
        choice = getattr(options, option)
        if choice in {"keep", "mask"} or column not in marked:
            continue
        flag_is_set = (marked[column] == 1).to_numpy()
        reasons[flag_is_set & (reasons == "")] = option
        if choice == "drop-image":
            drops_image |= flag_is_set
    area = geometry.area(marked[list(CORNERS)].to_numpy(dtype=float))
    reasons[(area < options.min_box_area) & (reasons == "")] = "min_box_area"
    reasons[(area > options.max_box_area) & (reasons == "")] = "max_box_area"
    marked["used"] = reasons == ""
    marked["dropped_because"] = reasons
    marked["drops_image"] = drops_image
    return marked


def _class_ids(table: pd.DataFrame, classes: Sequence[SelectedClass]) -> NDArray[np.int64]:
    """Return the class id of each row's ``LabelName``."""
    id_by_mid = {mid: selected.class_id for selected in classes for mid in selected.mids}
    codes, mids = table["LabelName"].factorize()
    id_by_code = np.array([id_by_mid[mid] for mid in mids], dtype=np.int64)
    class_ids: NDArray[np.int64] = id_by_code[codes]
    return class_ids


@dataclass(frozen=True)
class _Images:
    """All images that have a box or a label, numbered in the order of their ids.

    Attributes:
        ids: ImageIDs, sorted.
        subsets: Subset of each image.
        box_codes: Image number of each box.
        classes: Number of selected classes.
        present: Pairs of image and class that humans verified as present, each as the number
            ``image * classes + class_id``, sorted.
        absent: Pairs that humans verified as absent and that are not in ``present``, sorted.
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
        """Number the images of boxes and labels, and collect the human-verified pairs.

        A class is present if there is a box or a positive label of it or of a descendant. It is
        absent only by a negative label of the class itself ("no canoe" does not mean "no boat").
        """
        both = np.concatenate([_texts(boxes["ImageID"]), _texts(labels["ImageID"])])
        codes, ids = _number_texts(both)
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

    def with_box(self, box_mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask of the images that contain one of the boxes in ``box_mask``."""
        return np.bincount(self.box_codes[box_mask], minlength=len(self.ids)).astype(bool)

    def among(self, ids: AbstractSet[str]) -> NDArray[np.bool_]:
        """Return a mask of the images with one of these ids."""
        return np.fromiter((i in ids for i in self.ids), dtype=bool, count=len(self.ids))

    def subsets_of(self, mask: NDArray[np.bool_]) -> dict[str, str]:
        """Return the subset of each image in a mask, by its id."""
        return dict(zip(self.ids[mask].tolist(), self.subsets[mask].tolist(), strict=True))

    def with_pair(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask of the images that occur in one of the pairs."""
        return np.bincount(pairs // self.classes, minlength=len(self.ids)).astype(bool)

    def verified_for_all(self) -> NDArray[np.bool_]:
        """Return a mask of the images for which every class is verified as present or absent."""
        image_codes = np.concatenate([self.present, self.absent]) // self.classes
        is_complete: NDArray[np.bool_] = (
            np.bincount(image_codes, minlength=len(self.ids)) == self.classes
        )
        return is_complete

    def first_by_hash(self, candidates: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
        """Return the first ``limit`` candidates (0: all) in the order of a hash of their ids.

        The order is the same on every machine, and a smaller limit selects a subset of a larger.
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
        """Return one row per chosen image."""
        import pandas as pd  # noqa: PLC0415  (half a second, not needed if nothing changed)

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
        """Return the names of the classes paired with each chosen image, in order of class ids."""
        is_chosen = np.zeros(len(self.ids), dtype=bool)
        is_chosen[chosen] = True
        images, class_ids = np.divmod(pairs[is_chosen[pairs // self.classes]], self.classes)
        texts = np.full(len(self.ids), "", dtype=object)
        # Most images have one class; the loop appends the further classes of the others.
        is_next = np.diff(images, prepend=-1) == 0
        texts[images[~is_next]] = np.array(names, dtype=object)[class_ids[~is_next]]
        for image, class_id in zip(
            images[is_next].tolist(), class_ids[is_next].tolist(), strict=True
        ):
            texts[image] += SEPARATOR + names[class_id]
        return texts[chosen]


def _number_texts(texts: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Return the index of each text in the sorted distinct texts, and the distinct texts."""
    import pandas as pd  # noqa: PLC0415  (half a second, not needed if nothing changed)

    codes, distinct = pd.factorize(texts)
    order = np.argsort(distinct.astype(str))  # five times as fast as sorting Python strings
    rank_of = np.empty_like(order)
    rank_of[order] = np.arange(len(order))
    return rank_of[codes], distinct[order]


def _texts(column: pd.Series[str]) -> NDArray[np.object_]:
    return column.to_numpy(dtype=object)


def explain_empty(
    boxes: pd.DataFrame,
    excluded: Mapping[str, int],
    classes: Sequence[SelectedClass],
    options: DatasetOptions,
    places: str,
) -> str:
    """Return why no image is selected: which classes have no box, or which filter drops them.

    Args:
        boxes: As for ``select_images``.
        excluded: The exclusions of the empty selection.
        classes: The selected classes.
        options: Options of ``[dataset]``.
        places: The subsets and imports that images are selected from, in words.
    """
    names = ", ".join(chosen.name for chosen in classes)
    if boxes.empty:
        return f"no box of {names} in {places}"
    reasons = _mark_boxes(boxes, classes, options)["dropped_because"].tolist()
    dropped = Counter(filter(None, reasons)).most_common()
    filters = [f"{n:,} boxes by [dataset] {name}" for name, n in dropped]
    if unverified := excluded.get(NOT_VERIFIED):
        filters.append(f"{unverified:,} images by [dataset] require_verified")
    present = f"{len(boxes):,} boxes of {names} in {places}"
    return f"{present}, and dropped {'; '.join(filters)}"


def restrict_to(
    tables: SelectionTables, image_ids: AbstractSet[str], reason: str
) -> SelectionTables:
    """Return only the images with these ids; count the others as excluded for ``reason``."""
    images = tables.images[tables.images["ImageID"].isin(image_ids)].reset_index(drop=True)
    boxes = tables.boxes[tables.boxes["ImageID"].isin(image_ids)].reset_index(drop=True)
    excluded_count = len(tables.images) - len(images)
    excluded = tables.excluded | ({reason: excluded_count} if excluded_count else {})
    return SelectionTables(boxes, images, excluded, tables.withdrawn)


def count_per_class(
    tables: SelectionTables, classes: Sequence[SelectedClass]
) -> Mapping[str, Mapping[str, int]]:
    """Return the number of images and used boxes of each class."""
    used = tables.boxes[tables.boxes["used"]]
    return {
        selected_class.name: {
            "images": int(
                used.loc[used["class_id"] == selected_class.class_id, "ImageID"].nunique()
            ),
            "boxes": int((used["class_id"] == selected_class.class_id).sum()),
        }
        for selected_class in classes
    }
