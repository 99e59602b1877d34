"""Read the detections that ``darknet detector valid`` writes.

One file per class, ``<folder>/<prefix><class>.txt``, one detection per line::

    <image> <score> <left> <top> <right> <bottom>

in pixels of the image that darknet read. All three forks of darknet use this format:
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

_NUMBER_COLUMNS = ("score", "x1", "y1", "x2", "y2")
_COLUMNS = ("image", *_NUMBER_COLUMNS)
_NOT_A_NUMBER = ("nan", "-nan", "nan(ind)", "-nan(ind)")
_LINE_FORMAT = "image, score, left, top, right, bottom"


def read_detections(
    folder: Path,
    *,
    class_count: int,
    prefix: str,
    image_sizes_wh: Mapping[str, tuple[int, int]],
) -> Detections:
    """Read the detection files of all classes.

    Darknet names the files after the classes, and a class name may contain a slash: run it with a
    names file whose lines are 0, 1, 2 ... It cuts an image's name at the first full stop; the ids
    of ``image_sizes_wh`` are matched accordingly.

    Args:
        folder: The ``results`` folder of the ``.data`` file.
        class_count: Number of classes, and of files.
        prefix: The value of ``-out``; the files are ``<prefix>0.txt``, ``<prefix>1.txt`` ...
        image_sizes_wh: Width and height in pixels of every image in darknet's list, by id: the
            file name without folder and extension.

    Returns:
        The detections as fractions of the image, for all images of ``image_sizes_wh``. Repeated
        detections are kept once (a list shorter than darknet's four loading threads is padded by
        repeating an image), and detections with a NaN or an infinity are dropped; the table counts
        both.

    Raises:
        DarknetError: The file of a class is missing.
        InputFormError: A line does not have this format, or names an image that was not in the
            list.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    image_ids = tuple(image_sizes_wh)
    index_by_name = _index_by_printed_name(image_ids)
    tables = []
    for class_id in range(class_count):
        path = folder / f"{prefix}{class_id}.txt"
        table = _read_class(path)
        table["image_index"] = table["image"].map(index_by_name).astype("float64")
        if table["image_index"].isna().any():
            row = int(np.flatnonzero(table["image_index"].isna())[0])
            raise InputFormError(
                "a detection on an image that is not in darknet's list",
                where=f"{path}:{row + 1}",
                expected=f"one of {len(image_ids)} images",
                found=repr(table["image"].iloc[row]),
                remedy="Run darknet with an empty results folder",
            )
        tables.append(table.assign(class_id=class_id))
    if not tables:
        return Detections.empty(image_ids)
    merged = pd.concat(tables, ignore_index=True)
    finite = np.isfinite(merged[list(_NUMBER_COLUMNS)].to_numpy()).all(axis=1)
    repeated = merged.duplicated(["class_id", *_COLUMNS]).to_numpy() & finite
    valid = merged[finite & ~repeated]
    image = valid["image_index"].to_numpy(dtype=np.int64)
    sizes_wh = np.array([*image_sizes_wh.values()], dtype=np.float64).reshape(-1, 2)[image]
    return Detections(
        image_ids=image_ids,
        image=image,
        class_id=valid["class_id"].to_numpy(dtype=np.int64),
        score=valid["score"].to_numpy(dtype=np.float64),
        xyxy=to_fractions(valid[["x1", "y1", "x2", "y2"]].to_numpy(dtype=np.float64), sizes_wh),
        duplicates=int(repeated.sum()),
        not_finite=int((~finite).sum()),
    )


def to_fractions(printed_xyxy: Floats, sizes_wh: Floats) -> Boxes:
    """Convert printed boxes to fractions of the image.

    Before it prints a box, darknet adds 1 to all four sides, as PASCAL VOC counts pixels from 1,
    then clips left and top to at least 1, and right and bottom to the image's width and height. A
    printed right side that equals the width can therefore stand for any value from ``width - 1``
    on. It is read as the image's edge, where boxes that exceed the image are clipped.

    Args:
        printed_xyxy: Boxes as printed, shape (n, 4), pixels counted from 1.
        sizes_wh: Width and height of each box's image in pixels, shape (n, 2).

    Returns:
        Boxes, shape (n, 4), fractions of the image. A box outside the image has no area.
    """
    low = np.clip((printed_xyxy[:, :2] - 1) / sizes_wh, 0.0, 1.0)
    at_the_edge: Flags = printed_xyxy[:, 2:] >= sizes_wh
    high = np.where(at_the_edge, 1.0, np.clip((printed_xyxy[:, 2:] - 1) / sizes_wh, 0.0, 1.0))
    return np.concatenate((low, np.maximum(low, high)), axis=1)


def _index_by_printed_name(image_ids: tuple[str, ...]) -> dict[str, int]:
    """Map the names that darknet prints (``basecfg``, src/utils.c) to positions in ``image_ids``.

    Raises:
        InputFormError: Two images have the same name up to the first full stop.
    """
    index_by_name: dict[str, int] = {}
    for index, image_id in enumerate(image_ids):
        printed = image_id.split(".", 1)[0]
        if printed in index_by_name:
            raise InputFormError(
                f"darknet prints the same name for the images "
                f"{image_ids[index_by_name[printed]]!r} and {image_id!r}",
                expected="names that differ before the first full stop",
                remedy="Rename one of them",
            )
        index_by_name[printed] = index
    return index_by_name


def _read_class(path: Path) -> pd.DataFrame:
    """Read one class's file into the columns image, score, x1, y1, x2, y2.

    Raises:
        DarknetError: The file is missing.
        InputFormError: A line does not have the expected format.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DarknetError(
            "darknet detector valid wrote no file for a class",
            where=str(path),
            remedy="Check darknet's output: it may have failed although it returned 0",
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
            dtype={"image": str} | dict.fromkeys(_NUMBER_COLUMNS, np.float64),
            keep_default_na=False,
            na_values={name: list(_NOT_A_NUMBER) for name in _NUMBER_COLUMNS},
            on_bad_lines="error",
            quoting=3,
            encoding_errors="surrogateescape",
            skip_blank_lines=False,
        )
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning):
        return _read_line_by_line(path, data)
    # pandas fills missing fields with NaN, which darknet may also have printed.
    if not data.endswith(b"\n") or data.count(b" ") != (len(_COLUMNS) - 1) * len(table):
        return _read_line_by_line(path, data)
    return table


def _read_line_by_line(path: Path, data: bytes) -> pd.DataFrame:
    """Read a file that pandas rejects, because of names with spaces or of a malformed line.

    Raises:
        InputFormError: A line does not have the expected format.
    """
    rows: list[tuple[str | float, ...]] = []
    lines = data.decode("utf-8", errors="surrogateescape").split("\n")
    unfinished = lines.pop()
    for number, line in enumerate(lines, start=1):
        image, *numbers = line.rstrip("\r").rsplit(" ", len(_NUMBER_COLUMNS))
        try:
            row: tuple[str | float, ...] = (image, *(_number(text) for text in numbers))
        except ValueError:
            row = ()
        if len(row) != len(_COLUMNS):
            raise InputFormError(
                "a malformed line in darknet's detections",
                where=f"{path}:{number}",
                expected=_LINE_FORMAT,
                found=repr(line[:80]),
                remedy="Run `oiyolo evaluate` again",
            )
        rows.append(row)
    if unfinished:
        raise InputFormError(
            "darknet's detections end in the middle of a line",
            where=f"{path}:{len(lines) + 1}",
            expected=_LINE_FORMAT,
            found=repr(unfinished[:80]),
            remedy="Darknet was interrupted, or the disk is full; run `oiyolo evaluate` again",
        )
    return _table(rows)


def _number(text: str) -> float:
    """Parse a number as C prints it, including Windows' ``-nan(ind)``."""
    return float("nan") if text in _NOT_A_NUMBER else float(text)


def _table(rows: list[tuple[str | float, ...]]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  (slow to import)

    columns = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
    table: pd.DataFrame = pd.DataFrame(
        {
            name: pd.Series(list(column), dtype="float64" if name in _NUMBER_COLUMNS else "object")
            for name, column in zip(_COLUMNS, columns, strict=True)
        }
    )
    return table
