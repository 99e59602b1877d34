"""Read and write ``data/dataset/boxes.csv``: all boxes in the prepared frame, used or not."""

from __future__ import annotations

import csv
from array import array
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.core.errors import InputFormError
from oiyolo.imagery.placement import place_boxes
from oiyolo.openimages.selection import CORNERS
from oiyolo.project.ledger import PREPARED_STATES
from oiyolo.stages.prepare.tasks import initial_drop_reasons, rotations

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.project.ledger import Ledger
    from oiyolo.stages.select import Selection

NAME = "boxes.csv"
_USED: Final = {"True": True, "False": False}


def read(folder: Path) -> pd.DataFrame:
    """Read the table.

    Args:
        folder: ``data/dataset``.

    Raises:
        InputFormError: The table is missing or damaged.
    """
    import pandas as pd  # noqa: PLC0415  (large, and training does not need it)

    path = folder / NAME
    types: dict[str, type[object]] = {
        **dict.fromkeys(("ImageID", "class", "dropped_because"), str),
        **dict.fromkeys(CORNERS, float),
        "class_id": int,
        "used": bool,
    }
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise _unreadable_error(path, error) from None


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
    path = folder / NAME
    sizes = array("d")
    try:
        for size in _used_sizes(path, image_ids):
            sizes.extend(size)
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable_error(path, error) from None
    return np.array(sizes).reshape(-1, 2)


def _used_sizes(path: Path, image_ids: Container[str]) -> Iterator[tuple[float, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        key, used, *corners = (header.index(name) for name in ("ImageID", "used", *CORNERS))
        for row in rows:
            if len(row) != len(header) or row[used] not in _USED:
                raise ValueError(f"row {rows.line_num}: {','.join(row)[:80]}")
            if _USED[row[used]] and row[key] in image_ids:
                x_min, y_min, x_max, y_max = (float(row[corner]) for corner in corners)
                yield x_max - x_min, y_max - y_min


def _unreadable_error(path: Path, error: Exception) -> InputFormError:
    return InputFormError(
        "cannot read the table of prepared boxes",
        where=str(path),
        expected="the table that prepare wrote",
        found=str(error),
        remedy="Delete the file, if it exists, and run `oiyolo prepare` to write it again",
    )


def render(selection: Selection, ledger: Ledger, options: Mapping[str, Any]) -> str:
    """Return the table of the prepared images' boxes as CSV.

    Args:
        selection: The selected images and boxes.
        ledger: The project's ledger, with the prepared images and their original sizes.
        options: The options from ``tasks.image_options``.
    """
    widths = ledger.column("width_px", *PREPARED_STATES)
    heights = ledger.column("height_px", *PREPARED_STATES)
    table = selection.boxes[selection.boxes["ImageID"].isin(widths.keys())].copy()
    xyxy = table[list(CORNERS)].to_numpy(dtype=np.float64, copy=True)
    drop_reasons = initial_drop_reasons(table, mask_group_of=options["mask_group_of"])
    class_ids = table["class_id"].to_numpy(dtype=np.int64)
    rotation_by_id = rotations(selection.images)
    for key, rows in table.groupby("ImageID").indices.items():
        image_id = str(key)
        placed = place_boxes(
            xyxy[rows],
            class_ids[rows],
            drop_reasons[rows],
            rotation=rotation_by_id[image_id],
            source_wh=(_pixels(widths[image_id]), _pixels(heights[image_id])),
            size_wh=(options["size"][0], options["size"][1]),
            fit=options["fit"],
        )
        xyxy[rows], drop_reasons[rows] = placed.xyxy, placed.drop_reasons
    table[list(CORNERS)] = xyxy
    table["dropped_because"] = drop_reasons
    table["used"] = drop_reasons == ""
    return table.to_csv(index=False, float_format="%.7f")


def _pixels(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"the ledger has {value!r} instead of a number of pixels")
    return value
