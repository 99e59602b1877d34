"""The dataset that the records describe: what is known about its images, boxes and tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from oiyolo.label_errors.reviewed import REASON as REVIEWED
from oiyolo.openimages.releases import OFFICIAL_BASE_URL, RELEASES, release
from oiyolo.openimages.selection import FLAG_COLUMNS
from oiyolo.project.imports import PREDICTED, is_import_source, original_name
from oiyolo.project.keys import PUBLIC_SOURCES
from oiyolo.project.ledger import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.project.imports import Import
    from oiyolo.project.keys import SplitOptions

NOT_STATED: Final = "not stated"
_FULL_TURN: Final = 360


@dataclass(frozen=True, eq=False)
class Dataset:
    """A split dataset, and how it came about.

    Attributes:
        folder: ``data/dataset``, for the checksums of its files.
        selected: The selected images, as in ``data/selection/images.csv``.
        split_by_id: "train", "valid" or "test" for each image of the dataset.
        boxes: All boxes in the prepared frame, as in ``data/dataset/boxes.csv``; those of other
            images are ignored.
        summary: Content of ``selection.json``.
        options: Options of ``[dataset]`` with which the images were selected, by name.
        release: Open Images release.
        tables: MD5 of each official file that was read, in hexadecimal, by its URL.
        size_wh: Width and height of the prepared images; ``None`` if each kept its own.
        fit: How they were fitted to it.
        fetched_from: Where each image was fetched from, by id.
        fetched_size_wh: Width and height of each image before it was resized, upright, by id.
        size_bytes: Size of all prepared images; ``None`` if it is not known of all.
        split_options: Options of ``[split]`` with which the images were assigned.
        group_by_id: Group of each image, whose images stay together in a split.
        not_used: Number of selected images that are not in the dataset, by reason.
        selected_at: First and last day on which its images were selected, in ISO 8601; empty if
            unknown.
        fetched_at: First and last day on which its images were fetched, likewise.
        version: Version of oiyolo.
        imports: The project's imports by name.
    """

    folder: Path
    selected: pd.DataFrame
    split_by_id: Mapping[str, str]
    boxes: pd.DataFrame
    summary: Mapping[str, Any]
    options: Mapping[str, Any]
    release: str
    tables: Mapping[str, str]
    size_wh: tuple[int, int] | None
    fit: str
    fetched_from: Mapping[str, str]
    fetched_size_wh: Mapping[str, tuple[int, int]]
    size_bytes: int | None
    split_options: SplitOptions
    group_by_id: Mapping[str, str]
    not_used: Mapping[str, int]
    selected_at: tuple[str, ...]
    fetched_at: tuple[str, ...]
    version: str
    imports: Mapping[str, Import] = field(default_factory=dict)

    @cached_property
    def images(self) -> pd.DataFrame:
        """The rows of ``selected`` that are in the dataset, in order of ids, with ``split``."""
        images = self.selected[self.selected["ImageID"].isin(self.split_by_id.keys())]
        images = images.sort_values("ImageID").reset_index(drop=True)
        images["split"] = images["ImageID"].map(self.split_by_id)
        return images

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The boxes of the dataset's images that are labels, with ``split``."""
        labels = self.boxes[self.boxes["used"] & self.boxes["ImageID"].isin(self.split_by_id)]
        return labels.assign(split=labels["ImageID"].map(self.split_by_id))

    @property
    def class_names(self) -> Sequence[str]:
        """Class names in the order of their ids."""
        return tuple(self.summary["classes"])

    @property
    def mids(self) -> Mapping[str, Sequence[str]]:
        """The MIDs that count as each class, by its name, its own first."""
        labels: dict[str, list[str]] = self.summary["labels"]
        return labels

    @cached_property
    def image_counts(self) -> dict[str, int]:
        """Number of images by split."""
        counts = self.images["split"].value_counts()
        return {name: int(counts.get(name, 0)) for name in SPLITS}

    @cached_property
    def negative_count(self) -> int:
        """Number of images without labels."""
        return len(self.images) - self.labels["ImageID"].nunique()

    @cached_property
    def rotations(self) -> list[int]:
        """Degrees by which each of ``images`` was rotated, counter-clockwise."""
        turns = self.images["Rotation"].fillna(0) % _FULL_TURN
        return [int(turn) for turn in turns]

    @cached_property
    def masked_counts(self) -> Mapping[str, int]:
        """Number of regions that were filled with grey, by the id of an image that has any."""
        column = FLAG_COLUMNS["group_of"]
        if self.options.get("group_of") != "mask" or column not in self.boxes:
            return {}
        masked = self.boxes.loc[self.boxes[column] == 1, "ImageID"].value_counts()
        return {str(image_id): int(count) for image_id, count in masked.items()}

    def prepared_size_wh(self, image_id: str) -> tuple[int, int] | None:
        """Return an image's width and height in pixels; ``None`` if unknown."""
        return self.size_wh or self.fetched_size_wh.get(image_id)

    @cached_property
    def image_counts_by_import(self) -> Mapping[str, int]:
        """Number of images by the name of their import; empty for those of Open Images."""
        return Counter(self._imports_of(self.images))

    @property
    def imported_names(self) -> Sequence[str]:
        """Names of the imports that have images in the dataset."""
        return [name for name in self.imports if self.image_counts_by_import.get(name)]

    @cached_property
    def box_counts_by_import(self) -> Mapping[str, int]:
        """Number of labels by the name of their import; empty for those of Open Images."""
        import_by_id = dict(zip(self.images["ImageID"], self._imports_of(self.images), strict=True))
        return Counter(self.labels["ImageID"].map(import_by_id))

    @cached_property
    def predicted_count(self) -> int:
        """Number of labels that a detector predicted and nobody checked."""
        return int((self.labels["Source"] == PREDICTED).sum()) if "Source" in self.labels else 0

    @cached_property
    def titles(self) -> Sequence[str]:
        """Title of each of ``images``: of an imported image its name; empty if there is none."""
        titles: list[str] = self.images["Title"].tolist()
        if "Name" not in self.images:
            return titles
        names = zip(titles, self._imports_of(self.images), self.images["Name"], strict=True)
        return [title or (original_name(own, name) if own else "") for title, own, name in names]

    @property
    def review_counts(self) -> tuple[int, int]:
        """Number of boxes that the review of suspected label errors added, and dropped."""
        own = self.boxes[self.boxes["ImageID"].isin(self.split_by_id)]
        added = (own["Source"] == REVIEWED).sum() if "Source" in own else 0
        return int(added), int((own["dropped_because"] == REVIEWED).sum())

    @cached_property
    def official_images(self) -> pd.DataFrame:
        """The rows of ``images`` that are not imported."""
        return self.images[self.images["Import"] == ""] if "Import" in self.images else self.images

    @staticmethod
    def _imports_of(images: pd.DataFrame) -> list[str]:
        return images["Import"].tolist() if "Import" in images else [""] * len(images)

    def source_of(self, image_id: str) -> str:
        """Return what kind of place an image was fetched from: no name of a bucket or folder."""
        source = self.fetched_from.get(image_id, "")
        if source in {*PUBLIC_SOURCES, ""}:
            return source
        if is_import_source(source):
            return "import"
        return "bucket" if source.startswith("gs://") else "folder"

    @cached_property
    def is_open_images(self) -> bool:
        """Whether the annotations are Open Images' own: by the tables' address or checksums."""
        official_md5s = {
            subset.boxes.md5
            for name in RELEASES
            for subset in release(name).subsets.values()
            if subset.boxes.md5
        }
        are_official = [url.startswith(f"{OFFICIAL_BASE_URL}/") for url in self.tables]
        has_official = not official_md5s.isdisjoint(self.tables.values())
        return has_official or (bool(are_official) and all(are_official))
