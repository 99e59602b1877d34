"""What is exported: the images of a split dataset, with their boxes in the exported pixels."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from oiyolo import boxes as geometry
from oiyolo.core import files, staleness
from oiyolo.core.batches import map_ahead
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.imagery.decode import UnreadableImageError, open_image
from oiyolo.imagery.upright_file import UprightFile, make_upright_file
from oiyolo.interchange.exported import (
    UNKNOWN,
    ExportedBox,
    ExportedDataset,
    ExportedImage,
    SplitSize,
)
from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS, SEPARATOR
from oiyolo.openimages.tables import IMAGE_COLUMNS
from oiyolo.project.ledger import SPLITS
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.boxes import Boxes
    from oiyolo.project.project import Project

Pixels = Literal["original", "prepared"]
"""Which images are exported: the originals, or those that darknet reads."""

PREPARED: Final = "prepared"
MISSING: Final = "missing"
"""The original does not exist, so the prepared image is exported."""
UNREADABLE: Final = "unreadable"
"""The original cannot be decoded, so the prepared image is exported."""
AS_STORED: Final = ""
_EXCEPTIONS: Final = frozenset({"group_of", "masked", "difficult"})
"""Reasons for which a box is no label although it shows an object that scores have to know."""
_NO_ROWS: Final = np.zeros(0, dtype=np.int64)
_MAX_THREADS: Final = 4
_REMEDY: Final = "Run `oiyolo split` first"


@dataclass
class Contents:
    """The images and boxes to export.

    Attributes:
        project: The project.
        splits: The splits to export.
        pixels: Which images to export.
        upright: Whether originals are turned upright; otherwise they are exported as stored.
        changes: What happened to the images so far: numbers by ``UprightFile.change``, or by
            ``PREPARED``, ``MISSING`` or ``UNREADABLE``.

    Raises:
        UsageError: The dataset is not split, is out of date, or these splits are empty.
        InputFormError: A file of the dataset is damaged.
    """

    project: Project
    splits: Sequence[str]
    pixels: Pixels
    upright: bool = True
    changes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.class_names = split_stage.load_lists(self.project).class_names
        self.selection = select_stage.load(self.project)
        recipe_path = self.project.dataset_folder / prepare_stage.RECIPE_FILE
        recipe = {"selection": self.selection.fingerprint}
        if reason := staleness.stale_reason(recipe_path, recipe):
            raise _stale_error(self.project, f"the prepared images are out of date: {reason}")
        with self.project.ledger(read_only=True) as ledger:
            self._split_by_id = ledger.column("state", *self.splits)
            self._fingerprint = ledger.fingerprint_of_dataset()
        if not self._split_by_id:
            raise UsageError(
                "there are no images to export",
                where=str(self.project.dataset_folder),
                expected=f"images in {', '.join(self.splits)}",
                remedy="Choose other splits with --split",
            )

    @cached_property
    def ids_by_split(self) -> dict[str, list[str]]:
        """The ids of the images of each split that has some, in order."""
        ids: dict[str, list[str]] = {split: [] for split in SPLITS}
        for image_id, split in self._split_by_id.items():
            ids[str(split)].append(image_id)
        return {split: own for split, own in ids.items() if own}

    @cached_property
    def _original_bytes(self) -> dict[str, int]:
        """The sizes of the originals that are to be exported and exist, by id."""
        folder = self.project.images_folder
        if self.pixels == "prepared" or not folder.is_dir():
            return {}
        entries = [(entry.name.removesuffix(".jpg"), entry) for entry in os.scandir(folder)]
        return {
            name: entry.stat(follow_symlinks=False).st_size
            for name, entry in entries
            if name in self._split_by_id and entry.is_file(follow_symlinks=False)
        }

    @property
    def recipe(self) -> dict[str, object]:
        """What the exported images and boxes are made from."""
        prepared = files.read_json(self.project.dataset_folder / prepare_stage.RECIPE_FILE)
        return {
            "splits": list(self.splits),
            "images": self.pixels,
            "the dataset": self._fingerprint,
            "the boxes": staleness.fingerprint(prepared),
            "the number of originals": len(self._original_bytes),
        }

    @cached_property
    def dataset(self) -> ExportedDataset:
        """What is known before the images are read."""
        prepared = prepare_stage.prepared_bytes(self.project)
        sizes = {i: self._original_bytes.get(i, prepared.get(i, 0)) for i in self._split_by_id}
        labels = self.selection.summary["labels"]
        boxes = self._boxes
        counts = boxes.loc[boxes["used"], "ImageID"].value_counts()
        return ExportedDataset(
            class_names=self.class_names,
            label_names=tuple((*labels.get(name, ()), name)[0] for name in self.class_names),
            splits={
                split: SplitSize(len(ids), sum(sizes[i] for i in ids))
                for split, ids in self.ids_by_split.items()
            },
            max_boxes=int(counts.max()) if len(counts) else 0,
        )

    @cached_property
    def _all_boxes(self) -> pd.DataFrame:
        """All boxes of the images to export, in the prepared frame."""
        boxes = prepare_stage.boxes_table(self.project)
        return boxes[boxes["ImageID"].isin(self._split_by_id.keys())]

    @cached_property
    def _is_exported(self) -> npt.NDArray[np.bool_]:
        """Which of ``_all_boxes`` are exported: the labels, and others that scores need."""
        boxes = self._all_boxes
        return np.asarray(boxes["used"] | boxes["dropped_because"].isin(_EXCEPTIONS))

    @cached_property
    def _boxes(self) -> pd.DataFrame:
        """The boxes to export, in the prepared frame."""
        return self._all_boxes[self._is_exported].reset_index(drop=True)

    def _stored_corners(self) -> Boxes:
        """Return the corners of ``_boxes`` in the stored frame, shape (n, 4), not clipped."""
        table = prepare_stage.review_boxes(self.project, self.selection).boxes
        boxes = self._boxes
        table = table[table["ImageID"].isin(self._split_by_id.keys())]
        if len(table) == len(self._is_exported):
            table = table[self._is_exported]
            if table["ImageID"].tolist() == boxes["ImageID"].tolist():
                return table[list(CORNERS)].to_numpy(dtype=np.float64)
        raise _stale_error(
            self.project, "the boxes in the table of prepared boxes differ from the selected ones"
        )

    @cached_property
    def _original_corners(self) -> Boxes:
        """The corners of ``_boxes`` in the frame of the exported originals, shape (n, 4)."""
        corners = self._stored_corners()
        if self.upright:
            turns = self._boxes["ImageID"].map(self.selection.rotation_by_id).to_numpy()
            for degrees in set(np.unique(turns).tolist()) - {0}:
                rows = turns == degrees
                corners[rows] = geometry.rotate_ccw(corners[rows], degrees)
        return geometry.clip(corners)

    def images(self) -> Iterator[ExportedImage]:
        """Yield the images, those of each split in one run, in the order of ids."""
        rows_by_id = {
            image_id: np.asarray(rows, dtype=np.int64)
            for image_id, rows in self._boxes.groupby("ImageID").indices.items()
        }
        prepared = _BoxRecords(self._boxes, self._boxes[list(CORNERS)].to_numpy(dtype=np.float64))
        original = prepared
        if self._original_bytes:
            original = _BoxRecords(self._boxes, self._original_corners)
        facts = _Facts(self.selection, self.class_names)
        turns = self.selection.rotation_by_id
        for split, ids in self.ids_by_split.items():
            files_of = map_ahead(self._read, ids, _threads())
            for image_id, (file, change) in zip(ids, files_of, strict=True):
                is_original = change not in {PREPARED, MISSING, UNREADABLE}
                boxes = original if is_original else prepared
                self.changes[change] += 1
                present, absent, row = facts.of(image_id)
                yield ExportedImage(
                    image_id=image_id,
                    suffix=file.suffix,
                    content=file.content,
                    size_wh=file.size_wh,
                    split=split,
                    boxes=boxes.of(rows_by_id.get(image_id, _NO_ROWS)),
                    rotation=turns[image_id] if is_original and not self.upright else 0,
                    present=present,
                    absent=absent,
                    facts=row,
                )

    def _read(self, image_id: str) -> tuple[UprightFile, str]:
        """Return the file to export and what it is: a change, or why it is the prepared image."""
        change = PREPARED
        if self.pixels == "original":
            change = MISSING
            if image_id in self._original_bytes:
                content = files.read_bytes(self.project.images_folder / f"{image_id}.jpg")
                try:
                    file = self._original(content, self.selection.rotation_by_id[image_id])
                except UnreadableImageError:
                    change = UNREADABLE
                else:
                    return file, file.change
        path, _ = prepare_stage.prepared_paths(self.project, image_id)
        try:
            content = files.read_bytes(path)
            return UprightFile(content, ".jpg", open_image(content).stored_wh, ""), change
        except (FileNotFoundError, UnreadableImageError) as error:
            raise InputFormError(
                "a prepared image is missing or damaged",
                where=str(path),
                found=str(error),
                remedy="Run `oiyolo prepare`, which writes it again",
            ) from None

    def _original(self, content: bytes, rotation: int) -> UprightFile:
        if self.upright:
            return make_upright_file(content, rotation)
        return UprightFile(content, ".jpg", open_image(content).stored_wh, AS_STORED)


def _threads() -> int:
    """Return the number of threads that read and rotate images."""
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))


class _BoxRecords:
    """The boxes to export as records, which are made image by image to save memory.

    Args:
        table: The boxes.
        corners: Their corners in the exported frame, shape (n, 4).
    """

    def __init__(self, table: pd.DataFrame, corners: Boxes) -> None:
        self._corners = corners
        self._class_ids = table["class_id"].to_numpy()
        self._used = table["used"].to_numpy()
        flags = table.reindex(columns=list(FLAG_COLUMNS.values()))
        self._flags = flags.fillna(UNKNOWN).to_numpy(dtype=np.int8)
        sources = table.reindex(columns=["Source"])["Source"].fillna("").astype("category")
        self._sources, self._source_names = (
            sources.cat.codes.to_numpy(),
            list(sources.cat.categories),
        )
        confidences = table.reindex(columns=["Confidence"])["Confidence"]
        self._confidences = confidences.fillna(1.0).to_numpy(dtype=float)

    def of(self, rows: npt.NDArray[np.int64]) -> tuple[ExportedBox, ...]:
        """Return the boxes in some rows."""
        return tuple(
            ExportedBox(
                class_id,
                tuple(xyxy),
                used,
                **dict(zip(FLAG_COLUMNS, own, strict=True)),
                source=str(self._source_names[source]),
                confidence=confidence,
            )
            for class_id, xyxy, used, own, source, confidence in zip(
                self._class_ids[rows].tolist(),
                self._corners[rows].tolist(),
                self._used[rows].tolist(),
                self._flags[rows].tolist(),
                self._sources[rows].tolist(),
                self._confidences[rows].tolist(),
                strict=True,
            )
        )


class _Facts:
    """What the selection says about each image: its verified classes, and its row."""

    def __init__(self, selection: select_stage.Selection, class_names: Sequence[str]) -> None:
        self._id_by_name = {name: class_id for class_id, name in enumerate(class_names)}
        table = selection.images
        self._row_by_id = {image_id: row for row, image_id in enumerate(table["ImageID"])}
        self._columns = {
            name: table[name].tolist()
            for name in (*IMAGE_COLUMNS, "present", "absent")
            if name in table and name != "Rotation"
        }

    def of(self, image_id: str) -> tuple[tuple[int, ...], tuple[int, ...], Mapping[str, str]]:
        """Return the classes that are present and absent, and Open Images' columns."""
        row = self._row_by_id[image_id]
        values = {name: column[row] for name, column in self._columns.items()}
        present, absent = (self._class_ids(values.pop(key, "")) for key in ("present", "absent"))
        return present, absent, values

    def _class_ids(self, names: str) -> tuple[int, ...]:
        return tuple(self._id_by_name[name] for name in names.split(SEPARATOR) if name)


def _stale_error(project: Project, found: str) -> UsageError:
    return UsageError(
        "the dataset is not up to date, so it cannot be exported",
        where=str(project.dataset_folder),
        found=found,
        remedy=_REMEDY,
    )
