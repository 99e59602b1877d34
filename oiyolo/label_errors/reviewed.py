"""Apply decisions to the selected boxes, before they become labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from oiyolo.boxes import corners
from oiyolo.core.results import pluralize
from oiyolo.label_errors.decisions import (
    ADD,
    DROP,
    DROP_IMAGE,
    REPLACE,
    SAME_IOU,
    box_iou,
    changes_of,
)
from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from oiyolo.boxes import Corners
    from oiyolo.label_errors.decisions import ReviewRow

REASON: Final = "review"
"""Why a box is no label, or an image is excluded; and the ``Source`` of a box that was added."""


@dataclass(frozen=True, eq=False)
class ReviewedBoxes:
    """The selected boxes after review.

    Attributes:
        boxes: The boxes, as ``data/selection/boxes.csv`` has them, with dropped and added ones.
        rejected_ids: Images that are to be left out.
        changes: Number of dropped and added boxes by image: "dropped" and "added".
        not_applied: Decisions that match no image or box any more.
    """

    boxes: pd.DataFrame
    rejected_ids: frozenset[str] = frozenset()
    changes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    not_applied: Sequence[ReviewRow] = ()

    def note(self, image_id: str) -> str:
        """Return what the review changed in an image, in words; empty if nothing."""
        changes = self.changes.get(image_id, {})
        parts = [f"{pluralize(count, 'box')} {what}" for what, count in changes.items()]
        return f"{' and '.join(parts)} by review" if parts else ""


def apply(
    boxes: pd.DataFrame,
    image_ids: Sequence[str],
    class_names: Sequence[str],
    rows: Sequence[ReviewRow],
) -> ReviewedBoxes:
    """Return the selected boxes after review.

    Args:
        boxes: The selected boxes.
        image_ids: The selected images.
        class_names: Names of the classes in the order of their ids.
        rows: The rows of ``data/review.csv``.
    """
    rows = changes_of(rows)
    if not rows:
        return ReviewedBoxes(boxes)
    work = _Work(boxes.copy(), set(image_ids), {n: i for i, n in enumerate(class_names)})
    not_applied = [row for row in rows if not work.apply(row)]
    return ReviewedBoxes(work.result(), frozenset(work.rejected), dict(work.changes), not_applied)


class _Work:
    """The table while decisions are applied to it, one after the other."""

    def __init__(
        self, table: pd.DataFrame, image_ids: set[str], class_id_by_name: Mapping[str, int]
    ) -> None:
        self._table, self._image_ids, self._class_ids = table, image_ids, class_id_by_name
        self._rows_by_id = table.groupby("ImageID").indices
        self._reasons = table["dropped_because"].to_numpy(dtype=object, copy=True)
        self._xyxy = table[list(CORNERS)].to_numpy(dtype=float)
        self._classes = table["class"].to_numpy(dtype=object)
        self._added: dict[str, list[tuple[str, Corners]]] = defaultdict(list)
        self.rejected: set[str] = set()
        self.changes: dict[str, Counter[str]] = defaultdict(Counter)

    def apply(self, row: ReviewRow) -> bool:
        """Apply a decision; return whether it still applies to anything."""
        if row.image_id not in self._image_ids:
            return False
        if row.decision == DROP_IMAGE:
            self.rejected.add(row.image_id)
            return True
        if row.decision == ADD:
            return self._add(row.image_id, row.class_name, row.xyxy)
        if row.decision == DROP:
            return self._drop(row)
        if (
            row.decision == REPLACE
            and row.new_xyxy is not None
            and row.new_class in self._class_ids
            and self._drop(row)
        ):
            # If there is such a box already, dropping the other one is all that remains to do.
            self._add(row.image_id, row.new_class, row.new_xyxy)
            return True
        return False

    def _drop(self, row: ReviewRow) -> bool:
        """Drop the label that is most nearly the box of a row, if there is one."""
        labels = self._labels(row.image_id, row.class_name)
        shares = {at: box_iou(box, row.xyxy) for at, box in labels.items()}
        best = max(shares, key=shares.__getitem__, default=None)
        if best is None or shares[best] < SAME_IOU:
            return False
        self._reasons[best] = REASON
        self.changes[row.image_id]["dropped"] += 1
        return True

    def _add(self, image_id: str, class_name: str, xyxy: Corners) -> bool:
        """Add a box, unless its class is not selected or there is such a box already."""
        labels = list(self._labels(image_id, class_name).values())
        labels += [box for name, box in self._added[image_id] if name == class_name]
        is_there = any(box_iou(box, xyxy) >= SAME_IOU for box in labels)
        if is_there or class_name not in self._class_ids:
            return False
        self._added[image_id].append((class_name, xyxy))
        self.changes[image_id]["added"] += 1
        return True

    def _labels(self, image_id: str, class_name: str) -> dict[int, Corners]:
        """Return the labels of a class in an image, by their row of the table."""
        return {
            at: corners(self._xyxy[at])
            for at in self._rows_by_id.get(image_id, ())
            if self._reasons[at] == "" and self._classes[at] == class_name
        }

    def result(self) -> pd.DataFrame:
        """Return the table; added boxes follow those of their image."""
        import pandas as pd  # noqa: PLC0415  (large, and loaded already where there is a table)

        table = self._table.assign(
            dropped_because=self._reasons, used=self._reasons == "", _order=range(len(self._table))
        )
        new = [
            self._row(image_id, name, xyxy)
            for image_id, boxes in self._added.items()
            for name, xyxy in boxes
        ]
        if new:
            table = pd.concat([table, pd.DataFrame(new)], ignore_index=True)
            table = table.sort_values(["ImageID", "_order"], kind="stable", ignore_index=True)
        return table.drop(columns="_order")

    def _row(self, image_id: str, class_name: str, xyxy: Corners) -> dict[str, Any]:
        rows = list(self._rows_by_id.get(image_id, ()))
        flags = {column: -1 for column in FLAG_COLUMNS.values() if column in self._table}
        known = {
            "ImageID": image_id,
            "Subset": self._table["Subset"].iloc[rows[0]] if rows else "",
            "Source": REASON,
            "Confidence": 1.0,
            **dict(zip(CORNERS, xyxy, strict=True)),
            **flags,
            "class": class_name,
            "class_id": self._class_ids[class_name],
            "used": True,
            "dropped_because": "",
            "_order": len(self._table),
        }
        others = {str(name): "" for name in self._table.columns if name not in known}
        return {**others, **known}
