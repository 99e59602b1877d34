"""Read the tables of one subset: boxes and human labels of some classes, and images by their ids.

The tables have Open Images' own columns, numbers as numbers, and a column ``Subset``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core import image_ids
from oiyolo.core.errors import InputFormError
from oiyolo.core.results import pluralize
from oiyolo.openimages.csvscan.scan import ScanResult, matching_rows
from oiyolo.openimages.csvscan.schema import BOXES, IMAGES, LABELS, REFETCH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pandas as pd

    from oiyolo.openimages.csvscan.scan import Readable
    from oiyolo.openimages.csvscan.schema import CsvSchema

BOX_COLUMNS: Final = (*BOXES.required, *BOXES.numbers[5:])
"""All columns except the four points at which an annotator clicked."""
IMAGE_COLUMNS: Final = (
    *("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL"),
    *("Author", "Title", "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation"),
)
_CORNERS: Final = ("XMin", "XMax", "YMin", "YMax")
_ROTATIONS: Final = ("", "0", "0.0", "90", "90.0", "180", "180.0", "270", "270.0")


@dataclass(frozen=True)
class TableSource:
    """One official table, and how to read it.

    Attributes:
        file: The CSV file.
        subset: Name of the subset that it belongs to.
        check_all: Whether to check the number of fields of every row (see ``matching_rows``).
        skip_bad_rows: Whether to skip malformed rows and count them instead of raising an error.
    """

    file: Readable
    subset: str
    check_all: bool = True
    skip_bad_rows: bool = False

    def search(
        self, schema: CsvSchema, column: str, values: Iterable[str], keep: Collection[str]
    ) -> ScanResult:
        """Return the rows whose value in ``column`` is one of ``values``."""
        return matching_rows(
            *(self.file, schema, column, values),
            keep=keep,
            check_all=self.check_all,
            skip_bad_rows=self.skip_bad_rows,
        )

    def result(self, rows: pd.DataFrame, bad_rows: int) -> ScanResult:
        """Return rows with the column ``Subset``."""
        return ScanResult(rows.assign(Subset=self.subset), bad_rows)

    def drop_invalid(
        self,
        rows: pd.DataFrame,
        schema: CsvSchema,
        column: str,
        is_valid: Iterable[bool],
        valid: str,
    ) -> pd.DataFrame:
        """Return the valid rows; raise unless malformed rows are to be skipped.

        Args:
            rows: Rows of the table.
            schema: Schema of the table.
            column: Column that was validated.
            is_valid: Whether each row is valid.
            valid: What a valid value is, for the message.
        """
        mask = np.fromiter(is_valid, bool, len(rows))
        if not (mask.all() or self.skip_bad_rows):
            row = rows.iloc[int(mask.argmin())]
            image = "" if column == "ImageID" else f" of {row['ImageID']}"
            raise InputFormError(
                f"{schema.name}: invalid {column}{image}",
                where=self.file.where,
                expected=valid,
                found=repr(row[column]),
                remedy=f"{REFETCH}, or skip such rows with --skip-bad-rows",
            )
        return rows[mask].reset_index(drop=True)

    def with_valid_ids(self, rows: pd.DataFrame, schema: CsvSchema, bad_rows: int) -> ScanResult:
        """Return the rows whose ImageID, which becomes a file name, is valid."""
        is_valid = image_ids.are_valid(rows["ImageID"].tolist())
        good = self.drop_invalid(rows, schema, "ImageID", is_valid, image_ids.FORM)
        return self.result(good, bad_rows + len(rows) - len(good))


def read_boxes(source: TableSource, mids: Iterable[str]) -> ScanResult:
    """Read the boxes of some labels; corners are fractions of the image as stored.

    Raises:
        InputFormError: The header is not that of a box file, a row is malformed, or an ImageID is
            invalid.
    """
    scan = source.search(BOXES, "LabelName", mids, BOX_COLUMNS)
    rows = scan.rows.astype(dict.fromkeys(_CORNERS, float))
    return source.with_valid_ids(rows, BOXES, scan.bad_rows)


def read_labels(source: TableSource, mids: Iterable[str]) -> ScanResult:
    """Read the human-verified image labels; ``Confidence`` is 1 for present, 0 for absent.

    Raises:
        InputFormError: The header is not that of a label file, a row is malformed, or an ImageID is
            invalid.
    """
    scan = source.search(LABELS, "LabelName", mids, LABELS.required)
    rows = scan.rows[scan.rows["Source"] != "machine"]
    return source.with_valid_ids(rows, LABELS, scan.bad_rows)


def read_images(source: TableSource, ids: Collection[str]) -> ScanResult:
    """Read the rows of some images, one per image, all columns as text.

    A column that an older list lacks is empty. ``Rotation`` is in degrees counter-clockwise, or
    empty.

    Raises:
        InputFormError: The header is not that of an image list, or an image's row is malformed, is
            missing, or has an invalid Rotation. With ``skip_bad_rows``, images without a valid row
            are left out instead.
    """
    scan = source.search(IMAGES, "ImageID", ids, IMAGE_COLUMNS)
    rows = scan.rows.reindex(columns=list(IMAGE_COLUMNS), fill_value="")
    rows["Rotation"] = rows["Rotation"].replace("nan", "")
    is_valid = rows["Rotation"].isin(_ROTATIONS)
    valid = "0.0, 90.0, 180.0, 270.0, or nothing"
    good = source.drop_invalid(rows, IMAGES, "Rotation", is_valid, valid)
    bad_rows = scan.bad_rows + len(rows) - len(good)
    good = good.drop_duplicates("ImageID", ignore_index=True)
    missing = set(ids).difference(good["ImageID"].tolist())
    # A skipped row may be the missing one. If no row was skipped, this is the wrong file.
    if missing and not (source.skip_bad_rows and bad_rows):
        raise InputFormError(
            f"{IMAGES.name}: {pluralize(len(missing), 'image')} with boxes or labels missing",
            where=source.file.where,
            expected=f"a row for {min(missing)}",
            found="no such row",
            remedy=REFETCH,
        )
    return source.result(good, bad_rows)
