"""What there is to look at, as plain tables."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo.boxes import area
from oiyolo.core import staleness
from oiyolo.openimages.selection import CORNERS
from oiyolo.project.ledger import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.boxes import Boxes

_READ_COLUMNS = ("ImageID", *CORNERS, "class_id", "used")


class Pair(NamedTuple):
    """Two images that are suspected to show the same.

    Attributes:
        first: An image's id.
        second: The other's.
        distance: How far apart their fingerprints are; 0 is the least.
    """

    first: str
    second: str
    distance: int


@dataclass(frozen=True, eq=False)
class Facts:
    """A split dataset.

    Attributes:
        boxes: Every box in the prepared frame, as ``data/dataset/boxes.csv`` has them: the columns
            ``ImageID``, the corners, ``class_id`` and ``used`` are read.
        split_by_id: "train", "valid" or "test" for each image of the dataset. Boxes of other
            images are passed over.
        class_names: Names in the order of their class ids.
        images_folder: Where ``<ImageID>.jpg`` lie, prepared.
        size_wh: Width and height that the network sees, in pixels.
        rotation_by_id: Degrees counter-clockwise that images were turned by; 0 may be left out.
        duplicates: Suspected duplicates.
        original_sizes_wh: Width and height of the upright photographs, where preparation
            stretched them; pictures are shown in their shape.
        anchors_wh: Anchors of the network that will be trained, in its pixels.
    """

    boxes: pd.DataFrame
    split_by_id: Mapping[str, str]
    class_names: Sequence[str]
    images_folder: Path
    size_wh: tuple[int, int]
    rotation_by_id: Mapping[str, int] = field(default_factory=dict)
    duplicates: Sequence[Pair] = ()
    original_sizes_wh: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    anchors_wh: Sequence[tuple[float, float]] = ()

    def image_path(self, image_id: str) -> Path:
        """Give where an image's prepared file should be."""
        return self.images_folder / f"{image_id}.jpg"

    def class_name(self, class_id: int) -> str:
        """Give a class's name."""
        known = 0 <= class_id < len(self.class_names)
        return self.class_names[class_id] if known else f"class {class_id}"

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that have an image."""
        return tuple(name for name in SPLITS if len(self.ids_of[name]))

    @cached_property
    def ids_of(self) -> Mapping[str, Sequence[str]]:
        """The images of each split, sorted."""
        ids: dict[str, list[str]] = {name: [] for name in SPLITS}
        for image_id, split in sorted(self.split_by_id.items()):
            ids[split].append(image_id)
        return ids

    def rows_of(self, ids: Iterable[str]) -> Mapping[str, npt.NDArray[np.int64]]:
        """Give the rows of some images in ``boxes``, used or not, if there are any."""
        shown = np.flatnonzero(self.boxes["ImageID"].isin(set(ids)).to_numpy())
        found = self.boxes["ImageID"].iloc[shown].reset_index(drop=True)
        groups = found.groupby(found, sort=False).indices
        return {str(image_id): shown[places] for image_id, places in groups.items()}

    @cached_property
    def xyxy(self) -> Boxes:
        """All rows of ``boxes``, shape (n, 4), fractions of the prepared image."""
        return self.boxes[list(CORNERS)].to_numpy(dtype=np.float64)

    @cached_property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which rows of ``boxes`` are labels."""
        return self.boxes["used"].to_numpy(dtype=np.bool_)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The labels of the dataset's images.

        Columns: ``image_id``, ``split``, ``class_id``, ``w_px`` and ``h_px`` as the network sees
        them; ``cx``, ``cy`` (centre) and ``area`` as fractions. The index is the row in ``boxes``.
        """
        import pandas as pd  # noqa: PLC0415  (heavy, and a training runs for days without it)

        split = self.boxes["ImageID"].map(self.split_by_id)
        rows = np.flatnonzero(self.used & split.notna().to_numpy())
        xyxy = self.xyxy[rows]
        sides = (xyxy[:, 2:] - xyxy[:, :2]) * np.array(self.size_wh)
        centres = (xyxy[:, 2:] + xyxy[:, :2]) / 2
        return pd.DataFrame(
            {
                "image_id": self.boxes["ImageID"].to_numpy()[rows],
                "split": split.to_numpy()[rows],
                "class_id": self.boxes["class_id"].to_numpy(dtype=np.int64)[rows],
                "w_px": sides[:, 0],
                "h_px": sides[:, 1],
                "cx": centres[:, 0],
                "cy": centres[:, 1],
                "area": area(xyxy),
            },
            index=rows,
        )

    @cached_property
    def labels_in(self) -> pd.Series[int]:
        """How many labels each image with any has, by its id."""
        return self.labels["image_id"].value_counts()

    def label_counts(self, split: str) -> npt.NDArray[np.int64]:
        """Give how many labels each image of a split has, shape (images,); 0 is a negative."""
        counts = self.labels_in.reindex(list(self.ids_of[split]), fill_value=0)
        return np.asarray(counts.to_numpy(), dtype=np.int64)

    @property
    def class_count(self) -> int:
        """How many classes there are, those that only have a number among them."""
        highest = -1 if self.labels.empty else int(self.labels["class_id"].max())
        return max(len(self.class_names), highest + 1)

    def fingerprint(self) -> dict[str, object]:
        """Give what all this is made from, as ``stamps`` compares it; not the images' pixels."""
        import pandas as pd  # noqa: PLC0415  (heavy, and a training runs for days without it)

        table = self.boxes[list(_READ_COLUMNS)]
        digest = hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
        return {
            "the boxes": digest.hexdigest()[:16],
            "the splits": staleness.fingerprint(dict(self.split_by_id)),
            "classes": list(self.class_names),
            "size": list(self.size_wh),
            "rotations": staleness.fingerprint(
                {i: int(n) for i, n in self.rotation_by_id.items() if n}
            ),
            "duplicates": staleness.fingerprint([[a, b, int(n)] for a, b, n in self.duplicates]),
            "original sizes": staleness.fingerprint(
                {i: [int(w), int(h)] for i, (w, h) in self.original_sizes_wh.items()}
            ),
            "anchors": [[float(w), float(h)] for w, h in self.anchors_wh],
        }
