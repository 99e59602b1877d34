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
import pandas as pd

from oiyolo import boxes as geometry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oiyolo.config import DatasetOptions
    from oiyolo.openimages.classes import SelectedClass

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
    dropped_images = set(marked.loc[marked["drops_image"], "ImageID"])
    with_used = set(marked.loc[marked["used"], "ImageID"])
    excluded: dict[str, int] = {}

    subset_by_id = dict(zip(marked["ImageID"], marked["Subset"], strict=True))
    candidates = [i for i in subset_by_id if i not in dropped_images and i in with_used]
    _count(excluded, "dropped by a flag", dropped_images)
    _count(excluded, "no box left", subset_by_id.keys() - dropped_images - with_used)

    verified = _verified(marked, labels, classes)
    if options.require_verified:
        names = {selected.name for selected in classes}
        complete = {i for i in candidates if names <= set().union(*verified.get(i, (set(), set())))}
        _count(excluded, "not verified for every class", set(candidates) - complete)
        candidates = [i for i in candidates if i in complete]

    positives = _first_by_hash(candidates, options.limit)
    _count(excluded, "beyond the limit", set(candidates) - set(positives))

    negatives: list[str] = []
    if options.negatives:
        subset_of_label = dict(zip(labels["ImageID"], labels["Subset"], strict=True))
        clean = [
            image_id
            for image_id, (present, absent) in verified.items()
            if absent and not present and image_id not in subset_by_id
        ]
        wanted = round(options.negatives * len(positives))
        negatives = _first_by_hash(clean, wanted) if wanted else []
        subset_by_id |= {i: subset_of_label[i] for i in negatives}

    ids = sorted([*positives, *negatives])
    negative_ids = set(negatives)
    images = pd.DataFrame(
        {
            "ImageID": ids,
            "Subset": [subset_by_id[i] for i in ids],
            "negative": [i in negative_ids for i in ids],
            "present": [_names(classes, verified.get(i, (set(), set()))[0]) for i in ids],
            "absent": [_names(classes, verified.get(i, (set(), set()))[1]) for i in ids],
        }
    )
    kept = marked[marked["ImageID"].isin(set(positives))].drop(columns="drops_image")
    kept = kept.sort_values(["ImageID"], kind="stable").reset_index(drop=True)
    return Selected(kept, images, {reason: n for reason, n in excluded.items() if n})


def _mark(
    boxes: pd.DataFrame, classes: Sequence[SelectedClass], options: DatasetOptions
) -> pd.DataFrame:
    """Add ``class``, ``class_id``, ``used``, ``dropped_because`` and ``drops_image``."""
    marked = boxes.copy()
    class_by_mid = {mid: selected for selected in classes for mid in selected.mids}
    marked["class"] = [class_by_mid[mid].name for mid in marked["LabelName"]]
    marked["class_id"] = [class_by_mid[mid].class_id for mid in marked["LabelName"]]
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


def _verified(
    boxes: pd.DataFrame, labels: pd.DataFrame, classes: Sequence[SelectedClass]
) -> dict[str, tuple[set[str], set[str]]]:
    """Give, for each image, the classes that humans found present and those found absent.

    A box says present; so does a label of the class or of a descendant. Absent needs a label of
    the class itself (no canoe does not mean no boat).
    """
    found: dict[str, tuple[set[str], set[str]]] = {}
    pairs = boxes[["ImageID", "class"]].drop_duplicates()
    for image_id, name in zip(pairs["ImageID"], pairs["class"], strict=True):
        found.setdefault(image_id, (set(), set()))[0].add(name)
    class_by_mid = {mid: selected for selected in classes for mid in selected.mids}
    columns = (labels[name] for name in ("ImageID", "LabelName", "Confidence"))
    for image_id, mid, confidence in zip(*columns, strict=True):
        selected = class_by_mid[mid]
        present, absent = found.setdefault(image_id, (set(), set()))
        if confidence > 0:
            present.add(selected.name)
        elif mid == selected.mid:
            absent.add(selected.name)
    return {image_id: (present, absent - present) for image_id, (present, absent) in found.items()}


def _names(classes: Sequence[SelectedClass], chosen: set[str]) -> str:
    return SEPARATOR.join(selected.name for selected in classes if selected.name in chosen)


def _first_by_hash(image_ids: Iterable[str], limit: int) -> list[str]:
    """Give the first ``limit`` ids (0: all) in the order of their hashes.

    The order is the same on every machine and day, and 100 images are part of 200.
    """
    ordered = sorted(image_ids, key=lambda i: hashlib.sha256(i.encode()).digest())
    return ordered[:limit] if limit else ordered


def _count(excluded: dict[str, int], reason: str, ids: Iterable[str]) -> None:
    excluded[reason] = excluded.get(reason, 0) + len(set(ids))


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
