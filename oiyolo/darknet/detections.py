"""What ``darknet detector valid`` writes, read into a table.

One file per class, ``<folder>/<prefix><class>.txt``, one detection per line::

    <image> <score> <left> <top> <right> <bottom>

in pixels of the image that darknet read. All three lines of darknet print it alike:
``print_detector_detections``, examples/detector.c:191 in pjreddie/darknet (f6afaabc),
src/detector.c:499 in AlexeyAB/darknet (59596d78).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.core.errors import DarknetError, InputFormError
from oiyolo.evaluation.tables import Detections

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from oiyolo.boxes import Boxes
    from oiyolo.evaluation.tables import Flags, Floats

_NUMBERS = ("score", "x1", "y1", "x2", "y2")
_COLUMNS = ("image", *_NUMBERS)
_NOT_A_NUMBER = ("nan", "-nan", "nan(ind)", "-nan(ind)")
_FORM = "image, score, left, top, right, bottom"


def read_detections(
    folder: Path,
    *,
    class_count: int,
    prefix: str,
    image_sizes_wh: Mapping[str, tuple[int, int]],
) -> Detections:
    """Read the files of all classes.

    Darknet names the files after the classes, and a class name may hold a slash: give it a names
    file of its own with the lines 0, 1, 2 ... It shortens an image's name at the first full stop;
    the ids of ``image_sizes_wh`` are found again nevertheless.

    Args:
        folder: The ``results`` folder of the ``.data`` file.
        class_count: How many classes, so how many files.
        prefix: What ``-out`` was given; the files are ``<prefix>0.txt``, ``<prefix>1.txt`` ...
        image_sizes_wh: Width and height in pixels of every image that darknet was shown, by id:
            its file name without folder and ending.

    Returns:
        The detections as fractions of the image, over all images of ``image_sizes_wh``. A
        detection that is there twice is kept once (a list shorter than darknet's four loading
        threads is padded by repeating an image), one with a nan or an infinity is dropped; both
        are counted in the table.

    Raises:
        DarknetError: A class has no file.
        InputFormError: A line is not in the form, or names an image that was not shown.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    image_ids = tuple(image_sizes_wh)
    place = _places_by_printed_name(image_ids)
    tables = []
    for class_id in range(class_count):
        path = folder / f"{prefix}{class_id}.txt"
        table = _read_class(path)
        table["place"] = table["image"].map(place).astype("float64")
        if table["place"].isna().any():
            row = int(np.flatnonzero(table["place"].isna())[0])
            raise InputFormError(
                "a detection on an image that darknet was not shown",
                where=f"{path}:{row + 1}",
                expected=f"one of {len(image_ids)} images",
                found=repr(table["image"].iloc[row]),
                remedy="Give darknet an empty results folder",
            )
        tables.append(table.assign(class_id=class_id))
    if not tables:
        return Detections.none(image_ids)
    merged = pd.concat(tables, ignore_index=True)
    finite = np.isfinite(merged[list(_NUMBERS)].to_numpy()).all(axis=1)
    repeated = merged.duplicated(["class_id", *_COLUMNS]).to_numpy() & finite
    kept = merged[finite & ~repeated]
    image = kept["place"].to_numpy(dtype=np.int64)
    sizes_wh = np.array([*image_sizes_wh.values()], dtype=np.float64).reshape(-1, 2)[image]
    return Detections(
        image_ids=image_ids,
        image=image,
        class_id=kept["class_id"].to_numpy(dtype=np.int64),
        score=kept["score"].to_numpy(dtype=np.float64),
        xyxy=to_fractions(kept[["x1", "y1", "x2", "y2"]].to_numpy(dtype=np.float64), sizes_wh),
        duplicates=int(repeated.sum()),
        not_finite=int((~finite).sum()),
    )


def to_fractions(printed_xyxy: Floats, sizes_wh: Floats) -> Boxes:
    """Undo what darknet does to a box before it prints it.

    It adds 1 to all four sides, as PASCAL VOC counts pixels from 1, then raises left and top to
    1 and lowers right and bottom to the image's width and height. So a printed right side that
    equals the width stands for any true one from ``width - 1`` on: it is taken as the image's
    edge, which is where a box is cut off that the network made larger than the image.

    Args:
        printed_xyxy: Boxes as printed, shape (n, 4), pixels counted from 1.
        sizes_wh: Width and height of each box's image in pixels, shape (n, 2).

    Returns:
        Boxes, shape (n, 4), fractions of the image. A box that lay beside the image has no area.
    """
    low = np.clip((printed_xyxy[:, :2] - 1) / sizes_wh, 0.0, 1.0)
    at_the_edge: Flags = printed_xyxy[:, 2:] >= sizes_wh
    high = np.where(at_the_edge, 1.0, np.clip((printed_xyxy[:, 2:] - 1) / sizes_wh, 0.0, 1.0))
    return np.concatenate((low, np.maximum(low, high)), axis=1)


def _places_by_printed_name(image_ids: tuple[str, ...]) -> dict[str, int]:
    """Map what darknet prints (``basecfg``, src/utils.c: up to the first full stop) to positions.

    Raises:
        InputFormError: Two images would be printed alike.
    """
    place: dict[str, int] = {}
    for index, image_id in enumerate(image_ids):
        printed = image_id.split(".", 1)[0]
        if printed in place:
            raise InputFormError(
                f"darknet prints the images {image_ids[place[printed]]!r} and {image_id!r} alike",
                expected="names that differ before the first full stop",
                remedy="Rename one of them",
            )
        place[printed] = index
    return place


def _read_class(path: Path) -> pd.DataFrame:
    """Read one class's file into the columns image, score, x1, y1, x2, y2.

    Raises:
        DarknetError: There is no such file.
        InputFormError: A line is not in the form.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DarknetError(
            "darknet detector valid wrote no file for a class",
            where=str(path),
            remedy="Look at darknet's output: it may have stopped, although it returned 0",
        ) from None
    if not data:
        return _table([])
    try:
        table = pd.read_csv(
            io.BytesIO(data),
            sep=" ",
            header=None,
            names=list(_COLUMNS),
            index_col=False,
            dtype={"image": str} | dict.fromkeys(_NUMBERS, np.float64),
            keep_default_na=False,
            na_values={name: list(_NOT_A_NUMBER) for name in _NUMBERS},
            on_bad_lines="error",
            quoting=3,
            encoding_errors="surrogateescape",
            skip_blank_lines=False,
        )
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning):
        return _read_line_by_line(path, data)
    # A line of too few fields is filled up with nan, which darknet may also have printed.
    if not data.endswith(b"\n") or data.count(b" ") != (len(_COLUMNS) - 1) * len(table):
        return _read_line_by_line(path, data)
    return table


def _read_line_by_line(path: Path, data: bytes) -> pd.DataFrame:
    """Read what the quick reader refuses: names with spaces; or say which line is broken.

    Raises:
        InputFormError: A line is not in the form.
    """
    rows: list[tuple[str | float, ...]] = []
    lines = data.decode("utf-8", errors="surrogateescape").split("\n")
    unfinished = lines.pop()
    for number, line in enumerate(lines, start=1):
        image, *numbers = line.rstrip("\r").rsplit(" ", len(_NUMBERS))
        try:
            row: tuple[str | float, ...] = (image, *(_number(text) for text in numbers))
        except ValueError:
            row = ()
        if len(row) != len(_COLUMNS):
            raise InputFormError(
                "a broken line among darknet's detections",
                where=f"{path}:{number}",
                expected=_FORM,
                found=repr(line[:80]),
                remedy="Evaluate again",
            )
        rows.append(row)
    if unfinished:
        raise InputFormError(
            "darknet's detections end within a line",
            where=f"{path}:{len(lines) + 1}",
            expected=_FORM,
            found=repr(unfinished[:80]),
            remedy="Darknet was stopped while it wrote, or the disk is full; evaluate again",
        )
    return _table(rows)


def _number(text: str) -> float:
    """Read a number as C prints it, ``-nan(ind)`` of Windows among them."""
    return float("nan") if text in _NOT_A_NUMBER else float(text)


def _table(rows: list[tuple[str | float, ...]]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  (slow to import)

    columns = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
    table: pd.DataFrame = pd.DataFrame(
        {
            name: pd.Series(list(column), dtype="float64" if name in _NUMBERS else "object")
            for name, column in zip(_COLUMNS, columns, strict=True)
        }
    )
    return table
