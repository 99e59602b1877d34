"""The dataset that a preview shows, as plain tables."""

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
    """Two images that are suspected duplicates.

    Attributes:
        first: Id of an image.
        second: Id of the other image.
        distance: Number of differing bits of their perceptual hashes.
    """

    first: str
    second: str
    distance: int


@dataclass(frozen=True, eq=False)
class PreviewDataset:
    """A split dataset.

    Attributes:
        boxes: All boxes in the prepared frame, as in ``data/dataset/boxes.csv``: the columns
            ``ImageID``, the corners, ``class_id`` and ``used`` are read.
        split_by_id: "train", "valid" or "test" for each image of the dataset. Boxes of other
            images are ignored.
        class_names: Class names in the order of their ids.
        images_folder: Folder of the prepared images, ``<ImageID>.jpg``.
        size_wh: Width and height of the network's input in pixels.
        rotation_by_id: Degrees by which preparation rotated images counter-clockwise; 0 may be
            omitted.
        duplicates: Suspected duplicates.
        original_sizes_wh: Width and height of the upright photographs, if preparation stretched
            them; images are shown with this aspect ratio.
        anchors_wh: Width and height of the network's anchors, in pixels of its input.
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
        """Return the path of an image's prepared file, which need not exist."""
        return self.images_folder / f"{image_id}.jpg"

    def class_name(self, class_id: int) -> str:
        """Return a class's name; "class" and the id if it has no name."""
        has_name = 0 <= class_id < len(self.class_names)
        return self.class_names[class_id] if has_name else f"class {class_id}"

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images."""
        return tuple(name for name in SPLITS if len(self.ids_by_split[name]))

    @cached_property
    def ids_by_split(self) -> Mapping[str, Sequence[str]]:
        """The ids of each split's images, sorted."""
        ids: dict[str, list[str]] = {name: [] for name in SPLITS}
        for image_id, split in sorted(self.split_by_id.items()):
            ids[split].append(image_id)
        return ids

    def rows_by_id(self, ids: Iterable[str]) -> Mapping[str, npt.NDArray[np.int64]]:
        """Return the rows in ``boxes`` of each of the images that has any, ``used`` or not."""
        rows = np.flatnonzero(self.boxes["ImageID"].isin(set(ids)).to_numpy())
        image_ids = self.boxes["ImageID"].iloc[rows].reset_index(drop=True)
        groups = image_ids.groupby(image_ids, sort=False).indices
        return {str(image_id): rows[positions] for image_id, positions in groups.items()}

    @cached_property
    def xyxy(self) -> Boxes:
        """The corners of all rows of ``boxes`` as fractions of the prepared image, shape (n, 4)."""
        return self.boxes[list(CORNERS)].to_numpy(dtype=np.float64)

    @cached_property
    def used(self) -> npt.NDArray[np.bool_]:
        """Whether each row of ``boxes`` is a label, shape (n,)."""
        return self.boxes["used"].to_numpy(dtype=np.bool_)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The labels of the dataset's images.

        The columns are ``image_id``, ``split``, ``class_id``, ``w_px`` and ``h_px`` in pixels of
        the network's input, ``cx``, ``cy`` (the centre) and ``area`` as fractions. The index is the
        row in ``boxes``.
        """
        import pandas as pd  # noqa: PLC0415  (large, and training does not need it)

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
    def label_count_by_id(self) -> pd.Series[int]:
        """Number of labels by image id; images without labels are missing."""
        return self.labels["image_id"].value_counts()

    def label_counts(self, split: str) -> npt.NDArray[np.int64]:
        """Return the number of labels of each image in a split, shape (images,)."""
        counts = self.label_count_by_id.reindex(list(self.ids_by_split[split]), fill_value=0)
        return np.asarray(counts.to_numpy(), dtype=np.int64)

    @property
    def class_count(self) -> int:
        """Number of classes, including class ids without a name."""
        highest = -1 if self.labels.empty else int(self.labels["class_id"].max())
        return max(len(self.class_names), highest + 1)

    def fingerprint(self) -> dict[str, object]:
        """Return the recipe of a preview (``core.staleness``), without the contents of images."""
        import pandas as pd  # noqa: PLC0415  (large, and training does not need it)

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
