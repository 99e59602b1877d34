"""``data/dataset/boxes.csv``: every box in the prepared frame, whether it is a label or not."""

from __future__ import annotations

import csv
from array import array
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.core.errors import InputFormError
from oiyolo.imagery.placement import place_boxes
from oiyolo.openimages.selection import CORNERS
from oiyolo.project.ledger import HAS_PREPARED
from oiyolo.stages.prepare.tasks import reasons, rotations

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
        InputFormError: It is missing or damaged.
    """
    import pandas as pd  # noqa: PLC0415  (heavy, and a training runs for days without it)

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
        raise _unreadable(path, error) from None


def used_sizes(folder: Path, image_ids: Container[str]) -> npt.NDArray[np.float64]:
    """Read widths and heights of the used boxes of some images, in little memory.

    Args:
        folder: ``data/dataset``.
        image_ids: The images.

    Returns:
        Fractions of the image, shape (n, 2).

    Raises:
        InputFormError: The table is missing or damaged.
    """
    path = folder / NAME
    sizes = array("d")
    try:
        for size in _used_sizes(path, image_ids):
            sizes.extend(size)
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, error) from None
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


def _unreadable(path: Path, error: Exception) -> InputFormError:
    return InputFormError(
        "the table of prepared boxes cannot be read",
        where=str(path),
        expected="the table that prepare wrote",
        found=str(error),
        remedy="Remove it, if it is there, and run `oiyolo prepare`, which writes it anew",
    )


def render(selection: Selection, ledger: Ledger, options: Mapping[str, Any]) -> str:
    """Give the table of the prepared images' boxes as CSV.

    Args:
        selection: The wanted images and boxes.
        ledger: It knows which are prepared, and how large they were.
        options: See ``prepare_tasks.options_of``.
    """
    widths = ledger.facts("width_px", *HAS_PREPARED)
    heights = ledger.facts("height_px", *HAS_PREPARED)
    table = selection.boxes[selection.boxes["ImageID"].isin(widths.keys())].copy()
    xyxy = table[list(CORNERS)].to_numpy(dtype=np.float64, copy=True)
    because = reasons(table, mask_group_of=options["mask_group_of"])
    class_ids = table["class_id"].to_numpy(dtype=np.int64)
    rotation_by_id = rotations(selection.images)
    for key, rows in table.groupby("ImageID").indices.items():
        image_id = str(key)
        placed = place_boxes(
            xyxy[rows],
            class_ids[rows],
            because[rows],
            rotation=rotation_by_id[image_id],
            source_wh=(_whole(widths[image_id]), _whole(heights[image_id])),
            size_wh=(options["size"][0], options["size"][1]),
            fit=options["fit"],
        )
        xyxy[rows], because[rows] = placed.xyxy, placed.because
    table[list(CORNERS)] = xyxy
    table["dropped_because"] = because
    table["used"] = because == ""
    return table.to_csv(index=False, float_format="%.7f")


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"the ledger holds {value!r} where a number of pixels should be")
    return value
