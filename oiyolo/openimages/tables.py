"""Read the tables of one subset: boxes and human labels of some classes, and images by their ids.

The tables have Open Images' own columns, numbers as numbers, and a column ``Subset``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import pluralize
from oiyolo.openimages.csvscan.scan import matching_rows
from oiyolo.openimages.csvscan.schema import BOXES, IMAGES, LABELS, REFETCH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pandas as pd

    from oiyolo.openimages.csvscan.scan import Readable, ScanResult
    from oiyolo.openimages.csvscan.schema import CsvSchema

BOX_COLUMNS: Final = (*BOXES.required, *BOXES.numbers[5:])
"""All columns except the four points at which an annotator clicked."""
IMAGE_COLUMNS: Final = (
    *("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL"),
    *("Author", "Title", "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation"),
)
_IDS: Final = re.compile(r"(?:[0-9a-f]{16}\n)*")
_CORNERS: Final = ("XMin", "XMax", "YMin", "YMax")
_ROTATIONS: Final = ("", "0", "0.0", "90", "90.0", "180", "180.0", "270", "270.0")


def read_boxes(
    file: Readable,
    subset: str,
    mids: Iterable[str],
    *,
    check_all: bool = True,
    skip_bad_rows: bool = False,
) -> ScanResult:
    """Read the boxes of some labels; corners are fractions of the image as stored.

    Raises:
        InputFormError: The header is not that of a box file, a row is malformed, or an ImageID is
            invalid.
    """
    scan = matching_rows(
        *(file, BOXES, "LabelName", mids),
        keep=BOX_COLUMNS,
        check_all=check_all,
        skip_bad_rows=skip_bad_rows,
    )
    rows = scan.rows.astype(dict.fromkeys(_CORNERS, float))
    good = _with_valid_ids(rows, file, BOXES, skip_bad_rows=skip_bad_rows)
    return _result(good.assign(Subset=subset), scan, len(rows) - len(good))


def read_labels(
    file: Readable,
    subset: str,
    mids: Iterable[str],
    *,
    check_all: bool = True,
    skip_bad_rows: bool = False,
) -> ScanResult:
    """Read the human-verified image labels; ``Confidence`` is 1 for present, 0 for absent.

    Raises:
        InputFormError: The header is not that of a label file, a row is malformed, or an ImageID is
            invalid.
    """
    scan = matching_rows(
        *(file, LABELS, "LabelName", mids),
        keep=LABELS.required,
        check_all=check_all,
        skip_bad_rows=skip_bad_rows,
    )
    rows = scan.rows[scan.rows["Source"] != "machine"].reset_index(drop=True)
    good = _with_valid_ids(rows, file, LABELS, skip_bad_rows=skip_bad_rows)
    return _result(good.assign(Subset=subset), scan, len(rows) - len(good))


def read_images(
    file: Readable,
    subset: str,
    ids: Collection[str],
    *,
    check_all: bool = True,
    skip_bad_rows: bool = False,
) -> ScanResult:
    """Read the rows of some images, one per image, all columns as text.

    A column that an older list lacks is empty. ``Rotation`` is in degrees counter-clockwise, or
    empty.

    Raises:
        InputFormError: The header is not that of an image list, or an image's row is malformed, is
            missing, or has an invalid Rotation. With ``skip_bad_rows``, images without a valid row
            are left out instead.
    """
    scan = matching_rows(
        *(file, IMAGES, "ImageID", ids),
        keep=IMAGE_COLUMNS,
        check_all=check_all,
        skip_bad_rows=skip_bad_rows,
    )
    rows = scan.rows.reindex(columns=list(IMAGE_COLUMNS), fill_value="")
    rows["Rotation"] = rows["Rotation"].replace("nan", "")
    is_wrong = ~rows["Rotation"].isin(_ROTATIONS)
    if is_wrong.any() and not skip_bad_rows:
        row = rows[is_wrong].iloc[0]
        raise InputFormError(
            f"{IMAGES.name}: invalid Rotation of {row['ImageID']}",
            where=file.where,
            expected="0.0, 90.0, 180.0, 270.0, or nothing",
            found=repr(row["Rotation"]),
            remedy=f"{REFETCH}, or skip such rows with --skip-bad-rows",
        )
    good = rows[~is_wrong].drop_duplicates("ImageID").reset_index(drop=True)
    missing = set(ids).difference(good["ImageID"].tolist())
    # A skipped row may be the missing one. If no row was skipped, this is the wrong file.
    if missing and not (skip_bad_rows and (scan.bad_rows or is_wrong.any())):
        raise InputFormError(
            f"{IMAGES.name}: {pluralize(len(missing), 'image')} with boxes or labels missing",
            where=file.where,
            expected=f"a row for {min(missing)}",
            found="no such row",
            remedy=REFETCH,
        )
    return _result(good.assign(Subset=subset), scan, int(is_wrong.sum()))


def _with_valid_ids(
    rows: pd.DataFrame, file: Readable, schema: CsvSchema, *, skip_bad_rows: bool
) -> pd.DataFrame:
    """Return the rows whose ImageID, which becomes a file name, is valid; raise or drop others."""
    joined = "\n".join([*rows["ImageID"].tolist(), ""])
    if joined.count("\n") == len(rows) and _IDS.fullmatch(joined):  # the usual case, all at once
        return rows
    is_id = rows["ImageID"].str.fullmatch(r"[0-9a-f]{16}").astype(bool)
    if not skip_bad_rows:
        raise InputFormError(
            f"{schema.name}: invalid ImageID",
            where=file.where,
            expected="16 hexadecimal digits",
            found=repr(rows.loc[~is_id, "ImageID"].iloc[0]),
            remedy=f"{REFETCH}, or skip such rows with --skip-bad-rows",
        )
    return rows[is_id].reset_index(drop=True)


def _result(rows: pd.DataFrame, scan: ScanResult, further_bad_rows: int) -> ScanResult:
    return dataclasses.replace(scan, rows=rows, bad_rows=scan.bad_rows + further_bad_rows)
