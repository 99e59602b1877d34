"""The tables of one subset: boxes and human labels of some classes, and images by their ids.

Columns are Open Images' own, with numbers as numbers, and ``Subset``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import count
from oiyolo.openimages.csvscan.scan import matching_rows
from oiyolo.openimages.csvscan.schema import BOXES, IMAGES, LABELS, REFETCH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pandas as pd

    from oiyolo.openimages.csvscan.scan import Found, Readable
    from oiyolo.openimages.csvscan.schema import CsvForm

BOX_COLUMNS: Final = (*BOXES.required, *BOXES.numbers[5:])
"""Without the four points at which an annotator clicked."""
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
) -> Found:
    """Give the boxes of some labels, corners as fractions of the image as stored.

    Raises:
        InputFormError: The file is no box file, a row is broken, or an ImageID is none.
    """
    found = matching_rows(
        *(file, BOXES, "LabelName", mids),
        keep=BOX_COLUMNS,
        check_all=check_all,
        skip_bad_rows=skip_bad_rows,
    )
    rows = found.rows.astype(dict.fromkeys(_CORNERS, float))
    good = _with_ids(rows, file, BOXES, skip_bad_rows=skip_bad_rows)
    return _result(good.assign(Subset=subset), found, len(rows) - len(good))


def read_labels(
    file: Readable,
    subset: str,
    mids: Iterable[str],
    *,
    check_all: bool = True,
    skip_bad_rows: bool = False,
) -> Found:
    """Give what people said of some labels: ``Confidence`` 1 is present, 0 absent.

    Raises:
        InputFormError: The file is no label file, a row is broken, or an ImageID is none.
    """
    found = matching_rows(
        *(file, LABELS, "LabelName", mids),
        keep=LABELS.required,
        check_all=check_all,
        skip_bad_rows=skip_bad_rows,
    )
    rows = found.rows[found.rows["Source"] != "machine"].reset_index(drop=True)
    good = _with_ids(rows, file, LABELS, skip_bad_rows=skip_bad_rows)
    return _result(good.assign(Subset=subset), found, len(rows) - len(good))


def read_images(
    file: Readable,
    subset: str,
    ids: Collection[str],
    *,
    check_all: bool = True,
    skip_bad_rows: bool = False,
) -> Found:
    """Give the rows of some images, one each, all columns as text.

    A column that an older list lacks is empty. ``Rotation`` is degrees counter-clockwise, or empty.

    Raises:
        InputFormError: The file is no image list, a row is broken, has a wrong Rotation, or is not
            there. With ``skip_bad_rows``, images without a good row are left out.
    """
    found = matching_rows(
        *(file, IMAGES, "ImageID", ids),
        keep=IMAGE_COLUMNS,
        check_all=check_all,
        skip_bad_rows=skip_bad_rows,
    )
    rows = found.rows.reindex(columns=list(IMAGE_COLUMNS), fill_value="")
    rows["Rotation"] = rows["Rotation"].replace("nan", "")
    wrong = ~rows["Rotation"].isin(_ROTATIONS)
    if wrong.any() and not skip_bad_rows:
        row = rows[wrong].iloc[0]
        raise InputFormError(
            f"{IMAGES.name}: wrong Rotation of {row['ImageID']}",
            where=file.where,
            expected="0.0, 90.0, 180.0, 270.0, or nothing",
            found=repr(row["Rotation"]),
            remedy=f"{REFETCH}, or pass over such rows with --skip-bad-rows",
        )
    good = rows[~wrong].drop_duplicates("ImageID").reset_index(drop=True)
    missing = set(ids).difference(good["ImageID"].tolist())
    # A row that was passed over may be the one that is missing; without one, the file is another's.
    if missing and not (skip_bad_rows and (found.bad_rows or wrong.any())):
        raise InputFormError(
            f"{IMAGES.name}: {count(len(missing), 'image')} with boxes or labels not in it",
            where=file.where,
            expected=f"a row for {min(missing)}",
            found="none",
            remedy=REFETCH,
        )
    return _result(good.assign(Subset=subset), found, int(wrong.sum()))


def _with_ids(
    rows: pd.DataFrame, file: Readable, form: CsvForm, *, skip_bad_rows: bool
) -> pd.DataFrame:
    """Refuse or leave out rows whose ImageID is none: it becomes a file's name."""
    joined = "\n".join([*rows["ImageID"].tolist(), ""])
    if joined.count("\n") == len(rows) and _IDS.fullmatch(joined):  # at once: the usual case
        return rows
    is_id = rows["ImageID"].str.fullmatch(r"[0-9a-f]{16}").astype(bool)
    if not skip_bad_rows:
        raise InputFormError(
            f"{form.name}: wrong ImageID",
            where=file.where,
            expected="16 hexadecimal digits",
            found=repr(rows.loc[~is_id, "ImageID"].iloc[0]),
            remedy=f"{REFETCH}, or pass over such rows with --skip-bad-rows",
        )
    return rows[is_id].reset_index(drop=True)


def _result(rows: pd.DataFrame, found: Found, more_bad: int) -> Found:
    return dataclasses.replace(found, rows=rows, bad_rows=found.bad_rows + more_bad)
