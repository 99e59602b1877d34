"""Read ``data/dataset/boxes.csv``: all boxes in the prepared frame, used or not."""

from __future__ import annotations

import csv
import io
from array import array
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core import csv_rows, files, staleness
from oiyolo.core.errors import InputFormError
from oiyolo.core.image_ids import parse_ids
from oiyolo.openimages.selection import CORNERS

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt
    import pandas as pd

NAME: Final = "boxes.csv"
RECIPE_FILE: Final = ".prepared-from.json"
"""What the images and the table were made from."""
_REMEDY: Final = "Run `oiyolo prepare`, which writes it again"
_USED: Final = {"True": True, "False": False}


def is_intact(folder: Path) -> bool:
    """Return whether the table in ``data/dataset`` exists and is as ``prepare`` wrote it."""
    return staleness.is_intact(folder / RECIPE_FILE, folder / NAME)


def _check_intact(folder: Path) -> None:
    staleness.check_intact(folder / RECIPE_FILE, folder / NAME, remedy=_REMEDY)


def remove(folder: Path, image_ids: Collection[str]) -> None:
    """Remove the rows of some images, if there is a table."""
    path, ids = folder / NAME, {image_id.encode() for image_id in image_ids}
    if path.is_file():
        with files.open_binary(path) as file:
            content = b"".join(csv_rows.without(file, ids))
        staleness.replace_file(folder / RECIPE_FILE, path, content)


def read(folder: Path, image_ids: Collection[str] | None = None) -> pd.DataFrame:
    """Read the table.

    Args:
        folder: ``data/dataset``.
        image_ids: Ids of the images whose boxes are returned; ``None`` for all. A part of a large
            table takes a tenth of the time, and little memory.

    Raises:
        InputFormError: The table is missing or damaged.
    """
    import pandas as pd  # noqa: PLC0415  (large, and training does not need it)

    _check_intact(folder)
    path = folder / NAME
    types: dict[str, type[object]] = {
        **dict.fromkeys(("ImageID", "class", "dropped_because"), str),
        **dict.fromkeys(CORNERS, float),
        "class_id": int,
        "used": bool,
    }
    try:
        with files.open_binary(path) as file:
            rows = file if image_ids is None else _rows_of(file, image_ids)
            table = pd.read_csv(rows, dtype=types, keep_default_na=False)
        ids = table[[*types]]["ImageID"].tolist()  # a KeyError names the missing columns
    except (FileNotFoundError, ValueError, KeyError) as error:  # pandas' own are ValueErrors
        raise _unreadable_error(path, error) from None
    parse_ids(ids, where=str(path), first_row=2, remedy=_REMEDY)
    return table


def _rows_of(file: BinaryIO, image_ids: Collection[str]) -> BinaryIO:
    """Return the header and the rows of some images; everything if the id is not the first column.

    No field that ``prepare`` writes contains a line break.
    """
    header = file.readline()
    if not header.startswith(b"ImageID,"):
        return io.BytesIO(header + file.read())
    ids = {image_id.encode() for image_id in image_ids}
    rows = (row for row in file if row.partition(b",")[0] in ids)
    return io.BytesIO(header + b"".join(rows))


def used_sizes(folder: Path, image_ids: Container[str]) -> npt.NDArray[np.float64]:
    """Read the widths and heights of the used boxes of some images, row by row to save memory.

    Args:
        folder: ``data/dataset``.
        image_ids: Ids of the images.

    Returns:
        Widths and heights as fractions of the image, shape (n, 2).

    Raises:
        InputFormError: The table is missing or damaged.
    """
    sizes = array("d")
    for _, *corners in _used_boxes(folder, image_ids, CORNERS):
        x_min, y_min, x_max, y_max = map(float, corners)
        sizes.extend((x_max - x_min, y_max - y_min))
    return np.array(sizes).reshape(-1, 2)


def used_classes(folder: Path, image_ids: Container[str]) -> dict[str, set[str]]:
    """Return the names of the classes of the used boxes in each of some images that has any.

    Args:
        folder: ``data/dataset``.
        image_ids: Ids of the images.

    Raises:
        InputFormError: The table is missing or damaged.
    """
    classes: dict[str, set[str]] = {}
    for image_id, name in _used_boxes(folder, image_ids, ("class",)):
        classes.setdefault(image_id, set()).add(name)
    return classes


def _used_boxes(
    folder: Path, image_ids: Container[str], columns: Sequence[str]
) -> Iterator[list[str]]:
    """Yield the image id and some columns of the used boxes of some images."""
    _check_intact(folder)
    path = folder / NAME
    try:
        with files.open_text(path) as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            key, used, *others = (header.index(name) for name in ("ImageID", "used", *columns))
            for row in rows:
                _check_row(row, header, used, rows.line_num)
                if _USED[row[used]] and row[key] in image_ids:
                    yield [row[key], *(row[column] for column in others)]
    except (FileNotFoundError, ValueError, csv.Error) as error:
        raise _unreadable_error(path, error) from None


def _check_row(row: Sequence[str], header: Sequence[str], used: int, number: int) -> None:
    if len(row) != len(header) or row[used] not in _USED:
        raise ValueError(f"row {number}: {','.join(row)[:80]}")


def _unreadable_error(path: Path, error: Exception) -> InputFormError:
    return InputFormError(
        "cannot read the table of prepared boxes",
        where=str(path),
        expected="the table that prepare wrote",
        found=str(error),
        remedy=_REMEDY,
    )
