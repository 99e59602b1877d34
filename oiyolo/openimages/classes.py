"""Class names, MIDs and the hierarchy: which labels a class name stands for."""

from __future__ import annotations

import csv
import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.errors import InputFormError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_MID_STARTS: Final = ("/m/", "/g/", "/t/")
_NEAREST: Final = 3


@dataclass(frozen=True)
class SelectedClass:
    """A class of the dataset.

    Attributes:
        class_id: Its 0-based place in ``obj.names``.
        name: Its display name.
        mid: Its own label, such as ``/m/019jd``.
        folded: Names of the descendants that count as it, by MID.
    """

    class_id: int
    name: str
    mid: str
    folded: Mapping[str, str]

    @property
    def mids(self) -> tuple[str, ...]:
        """All labels that count as this class, its own first."""
        return (self.mid, *self.folded)


def read_names(path: Path) -> dict[str, str]:
    """Read class descriptions, ``MID,name`` a line, with or without a header.

    Returns:
        Display names by MID, in the file's order.

    Raises:
        InputFormError: A line is not of this form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFormError(
            "class descriptions cannot be read", where=str(path), found=str(error)
        ) from None
    names: dict[str, str] = {}
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        if not row or (number == 1 and row[0] == "LabelName"):
            continue
        if len(row) != 2 or not row[0].startswith(_MID_STARTS) or not row[1].strip():  # noqa: PLR2004
            raise InputFormError(
                "class descriptions: a broken line",
                where=f"{path}:{number}",
                expected="a MID and a name, as /m/019jd,Boat",
                found=repr(",".join(row)[:80]),
                remedy="Remove the file, so that it is fetched again",
            )
        names[row[0]] = row[1].strip()
    if not names:
        raise InputFormError("no class descriptions in this file", where=str(path))
    return names


def read_hierarchy(path: Path) -> dict[str, frozenset[str]]:
    """Read the class hierarchy.

    A MID may stand at several nodes; its descendants are those of all of them together.

    Returns:
        The MIDs of all descendants by MID, for every MID that has some.

    Raises:
        InputFormError: The file is not the hierarchy's JSON.
    """
    try:
        root = json.loads(path.read_text(encoding="utf-8"))
        below: dict[str, set[str]] = {}
        _collect(root, below)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputFormError(
            "the class hierarchy cannot be read",
            where=str(path),
            expected='JSON nodes with "LabelName" and "Subcategory"',
            found=f"{type(error).__name__}: {error}",
            remedy="Remove the file, so that it is fetched again",
        ) from None
    return {mid: frozenset(mids) for mid, mids in below.items() if mids}


def _collect(node: dict[str, Any], below: dict[str, set[str]]) -> set[str]:
    mid = node["LabelName"]
    found: set[str] = set()
    for child in node.get("Subcategory", ()):
        found.add(child["LabelName"])
        found |= _collect(child, below)
    below.setdefault(mid, set()).update(found)
    return found


def select_classes(
    wanted: Sequence[str],
    names: Mapping[str, str],
    descendants: Mapping[str, frozenset[str]],
    *,
    include_descendants: bool,
) -> tuple[SelectedClass, ...]:
    """Find classes by name or MID, and fold their descendants in.

    A descendant that was asked for too stays a class of its own, with what is below it.

    Args:
        wanted: Names (any case, spaces or underscores) or MIDs, in the order of class ids.
        names: Display names by MID.
        descendants: The MIDs of all descendants by MID.
        include_descendants: Whether to fold descendants in.

    Raises:
        UsageError: No class has such a name; the message has the nearest ones.
    """
    mids = [_find(word, names) for word in wanted]
    if repeated := [names[mid] for place, mid in enumerate(mids) if mid in mids[:place]]:
        raise UsageError(f"class {repeated[0]!r} is named twice in [dataset] classes")
    chosen: list[SelectedClass] = []
    taken = set(mids)
    for class_id, mid in enumerate(mids):
        folded: set[str] = set()
        if include_descendants:
            folded = set(descendants.get(mid, ()))
            for other in mids:
                if other in folded:
                    folded -= {other, *descendants.get(other, ())}
        # Below two of the classes at once, a label counts as the first of them.
        in_order = sorted((folded & names.keys()) - taken, key=lambda m: names[m])
        taken.update(in_order)
        chosen.append(SelectedClass(class_id, names[mid], mid, {m: names[m] for m in in_order}))
    return tuple(chosen)


def _find(word: str, names: Mapping[str, str]) -> str:
    if word in names:
        return word
    by_plain_name = {_plain(name): mid for mid, name in names.items()}
    if _plain(word) in by_plain_name:
        return by_plain_name[_plain(word)]
    raise UsageError(
        f"Open Images has no class {word!r} with boxes",
        remedy="Nearest are " + ", ".join(_nearest(word, names.values())),
    )


def _nearest(word: str, names: Iterable[str]) -> list[str]:
    by_plain_name = {_plain(name): name for name in names}
    close = difflib.get_close_matches(_plain(word), by_plain_name, n=_NEAREST, cutoff=0.0)
    return [by_plain_name[plain] for plain in close]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
