"""Read and write ``data/review.csv``: suspected label errors, and what people decided about them.

The file can be edited with any editor of tables, copied to another project and kept under version
control. Boxes are in Open Images' frame: fractions of the image as stored, before any rotation.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.boxes import iou
from oiyolo.core import files
from oiyolo.core.errors import InputFormError
from oiyolo.core.image_ids import parse_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.boxes import Corners

KEEP: Final = "keep"
DROP: Final = "drop"
ADD: Final = "add"
REPLACE: Final = "replace"
DROP_IMAGE: Final = "drop_image"
SAME_IOU: Final = 0.9
"""IoU from which two boxes of a class in an image are the same box."""
_DECISIONS: Final = ("", KEEP, DROP, ADD, REPLACE, DROP_IMAGE)
_CORNERS: Final = ("XMin", "XMax", "YMin", "YMax")
_COLUMNS: Final = (
    *("ImageID", "class", *_CORNERS, "kind", "score", "decision"),
    *("new_class", *(f"new_{name}" for name in _CORNERS), "reason"),
)
_NEEDED: Final = ("ImageID", "class", *_CORNERS, "decision")
_DECIMALS: Final = 6
_FIRST_ROW: Final = 2
_REMEDY: Final = "Correct the row, or delete it"


@dataclass(frozen=True)
class ReviewRow:
    """A row of the file.

    Attributes:
        image_id: The image.
        class_name: Class of the box in question, or of the missing one.
        xyxy: That box: left, top, right and bottom as fractions of the stored image.
        kind: What may be wrong, as in ``candidates.Candidate``; empty for a row of the user's own.
        score: How certain that is, 0 to 1.
        decision: "keep" (the label is right), "drop" (the box), "add" (the box), "replace" (the box
            by the new one), "drop_image", or empty if nothing was decided.
        new_class: Class of the box that replaces it; empty if there is none.
        new_xyxy: That box; ``None`` if there is none.
        reason: Why it is suspected, in words.
    """

    image_id: str
    class_name: str
    xyxy: Corners
    kind: str = ""
    score: float = 0.0
    decision: str = ""
    new_class: str = ""
    new_xyxy: Corners | None = None
    reason: str = ""


def read(path: Path) -> list[ReviewRow]:
    """Return the rows of the file; empty if there is none.

    Raises:
        InputFormError: The file has other columns, or an invalid row.
    """
    try:
        text = files.read_text(path).removeprefix("\ufeff")  # some editors of tables write it
        table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise _form_error(path, f"{type(error).__name__}: {error}") from error
    names = table[0] if table else []
    if not set(_NEEDED) <= set(names):
        raise _form_error(path, ",".join(names)[:120])
    return [
        _parse(dict(zip(names, row, strict=False)), f"{path}:{number}")
        for number, row in enumerate(table[1:], start=_FIRST_ROW)
        if any(cell.strip() for cell in row)
    ]


def changes_of(rows: Iterable[ReviewRow]) -> list[ReviewRow]:
    """Return the rows whose decision changes the dataset."""
    return [row for row in rows if row.decision not in {"", KEEP}]


def effective(rows: Iterable[ReviewRow]) -> list[ReviewRow]:
    """Return what decides the dataset: equal lists have the same effect.

    These are the decisions that change it, without what a detector said, in an order that does not
    depend on that of the file.
    """
    bare = (replace(row, kind="", score=0.0, reason="") for row in changes_of(rows))
    return sorted(bare, key=to_cells)


def write(path: Path, rows: Iterable[ReviewRow]) -> None:
    """Write the file, in the order of the rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(map(to_cells, rows))
    files.write_text(path, text.getvalue())


def to_cells(row: ReviewRow) -> tuple[str, ...]:
    """Return a row as the file has it, which ``from_cells`` reads."""
    new = ("",) * len(_CORNERS) if row.new_xyxy is None else _cells(row.new_xyxy)
    facts = (row.kind, f"{row.score:.4f}" if row.kind else "", row.decision)
    box = (row.image_id, row.class_name, *_cells(row.xyxy))
    return (*box, *facts, row.new_class, *new, row.reason)


def from_cells(cells: Sequence[str], where: str) -> ReviewRow:
    """Return a row from the cells of ``to_cells``.

    Raises:
        InputFormError: It is invalid; the error names ``where``.
    """
    return _parse(dict(zip(_COLUMNS, cells, strict=False)), where)


def with_decisions(rows: Iterable[ReviewRow], before: Sequence[ReviewRow]) -> list[ReviewRow]:
    """Return new rows with the decisions of earlier ones, and earlier decisions that remain.

    Args:
        rows: The new rows, which nobody has decided on yet.
        before: The rows of the file so far. A decision belongs to the row of the same image, kind
            of question and class whose box is the same; others are kept at the end.
    """
    result, decided = list(rows), [row for row in before if row.decision]
    by_image: dict[str, list[int]] = {}
    for at, row in enumerate(decided):
        by_image.setdefault(row.image_id, []).append(at)
    pairs = [
        (-shared, new, at)
        for new, row in enumerate(result)
        for at in by_image.get(row.image_id, ())
        if (shared := _shared(row, decided[at])) >= SAME_IOU
    ]
    taken_rows, taken_decisions = set[int](), set[int]()
    for _, new, at in sorted(pairs):  # the most similar first: of two twins each keeps its own
        if new not in taken_rows and at not in taken_decisions:
            row = result[new]
            result[new] = replace(decided[at], kind=row.kind, score=row.score, reason=row.reason)
            taken_rows.add(new)
            taken_decisions.add(at)
    return result + [row for at, row in enumerate(decided) if at not in taken_decisions]


def find_row(rows: Sequence[ReviewRow], row: ReviewRow) -> int | None:
    """Return the position of the row that asks most nearly the same; ``None`` if none does."""
    shares = [_shared(row, other) for other in rows]
    best = max(shares, default=0.0)
    return shares.index(best) if best >= SAME_IOU else None


def _shared(row: ReviewRow, other: ReviewRow) -> float:
    """Return the IoU of the boxes of two rows; 0 if they are about different questions."""
    is_missing = {r.kind == "missing" or r.decision == ADD for r in (row, other)}
    is_same = (row.image_id, row.class_name) == (other.image_id, other.class_name)
    return box_iou(row.xyxy, other.xyxy) if is_same and len(is_missing) == 1 else 0.0


def box_iou(first: Corners, second: Corners) -> float:
    """Return the IoU of two boxes; from ``SAME_IOU`` they mean the same."""
    return float(iou(np.array([first]), np.array([second]))[0])


def to_file_precision(xyxy: Corners) -> Corners | None:
    """Return a box as the file has it; ``None`` if nothing is left of it, so that it is no box."""
    x1, y1, x2, y2 = (round(min(max(value, 0.0), 1.0), _DECIMALS) for value in xyxy)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _cells(xyxy: Corners) -> tuple[str, ...]:
    x1, y1, x2, y2 = (f"{value:.{_DECIMALS}f}" for value in xyxy)
    return x1, x2, y1, y2


def _parse(cells: Mapping[str, str], where: str) -> ReviewRow:
    """Return a row.

    Raises:
        InputFormError: It is invalid.
    """
    # Editors of tables may leave out the empty cells at the end of a row.
    cells = {**dict.fromkeys(_NEEDED, ""), **{name: cell.strip() for name, cell in cells.items()}}
    image_id = parse_id(cells["ImageID"], where=where, remedy=_REMEDY)
    decision = cells["decision"].lower()
    if decision not in _DECISIONS:
        expected = ", ".join(name for name in _DECISIONS if name)
        raise _row_error(where, "unknown decision", f"{expected}, or nothing", decision)
    if decision == DROP_IMAGE and not any(cells[name] for name in _CORNERS):
        cells |= {"XMin": "0", "XMax": "1", "YMin": "0", "YMax": "1"}  # no box is needed
    has_new = any(cells.get(f"new_{name}") for name in _CORNERS)
    new_xyxy = _box(cells, where, "new_") if has_new else None
    if decision == REPLACE and (new_xyxy is None or not cells.get("new_class")):
        raise _row_error(where, "replace needs a new class and box", "new_class, new_XMin...", "")
    return ReviewRow(
        image_id,
        cells["class"],
        _box(cells, where),
        kind=cells.get("kind", ""),
        score=_number(cells.get("score") or "0", where),
        decision=decision,
        new_class=cells.get("new_class", ""),
        new_xyxy=new_xyxy,
        reason=cells.get("reason", ""),
    )


def _box(cells: Mapping[str, str], where: str, prefix: str = "") -> Corners:
    x1, x2, y1, y2 = (_number(cells.get(prefix + name, ""), where) for name in _CORNERS)
    box = to_file_precision((x1, y1, x2, y2)) if min(x1, y1) >= 0 and max(x2, y2) <= 1 else None
    if box is None:
        found = f"{prefix}XMin {x1:g}, XMax {x2:g}, YMin {y1:g}, YMax {y2:g}"
        raise _row_error(
            where, "not a box", "fractions from 0 to 1, XMin < XMax, YMin < YMax", found
        )
    return box


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _row_error(where, "not a number", "a decimal number", text)
    return number


def _row_error(where: str, what: str, expected: str, found: str) -> InputFormError:
    return InputFormError(
        what, where=where, expected=expected, found=ascii(found)[:80], remedy=_REMEDY
    )


def _form_error(path: Path, found: str) -> InputFormError:
    return InputFormError(
        "this is not a table of decisions",
        where=str(path),
        expected=f"CSV in UTF-8 with the columns {', '.join(_NEEDED)}",
        found=found,
        remedy="Correct the file, or delete it; `oiyolo review` writes a new one",
    )
