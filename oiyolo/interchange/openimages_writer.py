"""Write Open Images' own CSV formats: boxes and verified labels per split, images as stored.

Boxes are fractions of the image as stored, and the column ``Rotation`` of the image list says how
many degrees counter-clockwise make it upright
(https://storage.googleapis.com/openimages/web/download_v7.html).
"""

from __future__ import annotations

import contextlib
import csv
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.interchange.exported import SUBSET_NAMES, by_split, make_folder, write_file
from oiyolo.openimages.tables import IMAGE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedDataset, ExportedImage

    class _Rows(Protocol):
        """What ``csv.writer`` returns."""

        def writerow(self, row: Iterable[object], /) -> object: ...
        def writerows(self, rows: Iterable[Iterable[object]], /) -> object: ...


CLASSES: Final = "class-descriptions-boxable.csv"
_BOX_COLUMNS: Final = (
    *("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"),
)
_LABEL_COLUMNS: Final = ("ImageID", "Source", "LabelName", "Confidence")
_VERIFIED: Final = "verification"
_DRAWN: Final = "xclick"
"""The source of a box that does not state one: drawn by a person."""


def write(images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset) -> None:
    """Write the tables of each split, its images, and the names of the classes.

    The files of the subset "train" are ``train-annotations-bbox.csv``,
    ``train-annotations-human-imagelabels-boxable.csv``, ``train-images-boxable-with-rotation.csv``
    and ``train/<id>.jpg``. A difficult box that was dropped is left out, because the format has no
    such attribute.
    """
    with (folder / CLASSES).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            zip(dataset.label_names, dataset.class_names, strict=True)
        )
    for split, group in by_split(images):
        _write_subset(folder, SUBSET_NAMES[split], group, dataset.label_names)


def _write_subset(
    folder: Path, subset: str, images: Iterable[ExportedImage], label_names: Sequence[str]
) -> None:
    boxable = "boxable-" if subset == "train" else ""  # as in the official names
    pixels = make_folder(folder / subset)
    with (
        _table(folder / f"{subset}-annotations-bbox.csv", _BOX_COLUMNS) as boxes,
        _table(
            folder / f"{subset}-annotations-human-imagelabels-boxable.csv", _LABEL_COLUMNS
        ) as labels,
        _table(folder / f"{subset}-images-{boxable}with-rotation.csv", IMAGE_COLUMNS) as listed,
    ):
        for image in images:
            write_file(f"{pixels}/{image.name}", image.content)
            facts = {**image.facts, "ImageID": image.image_id, "Subset": subset}
            facts["Rotation"] = f"{float(image.rotation)}"
            listed.writerow([facts.get(column, "") for column in IMAGE_COLUMNS])
            boxes.writerows(_box_rows(image, label_names))
            for class_ids, confidence in ((image.present, 1), (image.absent, 0)):
                for class_id in class_ids:
                    row = (image.image_id, _VERIFIED, label_names[class_id], confidence)
                    labels.writerow(row)


def _box_rows(image: ExportedImage, label_names: Sequence[str]) -> Iterator[Sequence[object]]:
    for box in image.boxes:
        if not (box.is_label or box.group_of == 1):
            continue
        x1, y1, x2, y2 = (round(value, 7) for value in box.xyxy)
        yield (
            *(image.image_id, box.source or _DRAWN, label_names[box.class_id]),
            *(f"{box.confidence:g}", x1, x2, y1, y2),
            *(box.occluded, box.truncated, box.group_of, box.depiction, box.inside),
        )


@contextlib.contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[_Rows]:
    """Yield a writer of the rows of a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer
