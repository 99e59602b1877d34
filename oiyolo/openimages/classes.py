"""Class names, MIDs and the hierarchy: which labels a class name stands for."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.errors import InputFormError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

ROOT_NAME: Final = "Entity"
"""What the hierarchy's root is called; no box bears it, and no file of descriptions lists it."""
RENAMED: Final = (
    ("Organ", "Organ (Musical Instrument)"),
    ("Drill", "Drill (Tool)"),
    ("Bat", "Bat (Animal)"),
    ("Dairy", "Dairy Product"),
    ("Ratchet", "Ratchet (Device)"),
    ("Volleyball", "Volleyball (Ball)"),
    ("Horn", "French horn"),
    ("Egg", "Egg (Food)"),
    ("Jaguar", "Jaguar (Animal)"),
    ("Lavender", "Lavender (Plant)"),
    ("Pitcher", "Pitcher (Container)"),
    ("Lifejacket", "Personal flotation device"),
    ("Nail", "Nail (Construction)"),
    ("Asparagus", "Garden Asparagus"),
    ("Squash", "Squash (Plant)"),
    ("Sunflower", "Common sunflower"),
    ("Doughnut", "Donut"),
)
"""Display names that changed while the MID stayed: in v4, and since v5."""
_MID_STARTS: Final = ("/m/", "/g/", "/t/")
_NEAREST: Final = 3
_NEAR_ENOUGH: Final = 0.6
"""Likeness (``difflib``'s ratio, 0 to 1) from which a name is worth suggesting: three of four
random five-letter words are less like any of the 601 names."""
_MUCH_LESS_NEAR: Final = 0.25
"""So far behind the best suggestion, another one is only noise."""
_SHORTEST_PLURAL: Final = 4


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
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFormError(
            "class descriptions cannot be read", where=str(path), found=str(error)
        ) from None
    names: dict[str, str] = {}
    for number, row in _rows(text, path):
        if not row or (number == 1 and row[0] == "LabelName"):
            continue
        mid, name = (row[0], row[1].strip()) if len(row) == 2 else ("", "")  # noqa: PLR2004  (a pair)
        # A quote that is never closed swallows the lines below it.
        if not (mid.startswith(_MID_STARTS) and name and len(name.splitlines()) == 1):
            raise _broken(path, number, ",".join(row))
        if names.setdefault(mid, name) != name:
            raise _broken(path, number, f"{mid},{name}", f"one name for {mid}, {names[mid]}")
    if not names:
        raise InputFormError("no class descriptions in this file", where=str(path))
    return names


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give the rows of a CSV text with the number of the line each begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for row in reader:
            yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        line = text.split("\n")[number - 1]
        raise _broken(path, number, f"{error}: {line.rstrip()}") from None


def _broken(
    path: Path, number: int, found: str, expected: str = "a MID and a name, as /m/019jd,Boat"
) -> InputFormError:
    return InputFormError(
        "class descriptions: a broken line",
        where=f"{path}:{number}",
        expected=expected,
        found=repr(found[:80]),
        remedy="Remove the file, so that it is fetched again",
    )


def read_children(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the class hierarchy: what stands directly below each MID, in the file's order.

    A MID may stand at several nodes; its children are those of all of them together. Children are
    subcategories ("a canoe is a boat"). The file's "Part" ("a wheel is of a car") makes no child,
    but what stands below a part is below it here too.

    Returns:
        The MIDs of the children by MID, the root first, for every MID of the file.

    Raises:
        InputFormError: The file is not the hierarchy's JSON.
    """
    try:
        below: dict[str, dict[str, None]] = {}
        _collect(json.loads(path.read_text(encoding="utf-8")), below)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputFormError(
            "the class hierarchy cannot be read",
            where=str(path),
            expected='JSON nodes with "LabelName" and "Subcategory"',
            found=f"{type(error).__name__}: {error}",
            remedy="Remove the file, so that it is fetched again",
        ) from None
    return {mid: tuple(mids) for mid, mids in below.items()}


def read_hierarchy(path: Path) -> dict[str, frozenset[str]]:
    """Read the class hierarchy: all that stands below each MID, at whatever depth.

    Returns:
        The MIDs of all descendants by MID, for every MID that has some.

    Raises:
        InputFormError: As ``read_children``.
    """
    children = read_children(path)
    below = {mid: frozenset(_below(mid, children)) for mid in children}
    return {mid: mids for mid, mids in below.items() if mids}


def _collect(node: dict[str, Any], below: dict[str, dict[str, None]]) -> str:
    """Enter a node and all under it; give its MID."""
    mid = node["LabelName"]
    if not isinstance(mid, str):
        raise TypeError(f"a LabelName is {mid!r}")
    own = below.setdefault(mid, {})
    for child in node.get("Subcategory", ()):
        own[_collect(child, below)] = None
    for part in node.get("Part", ()):
        _collect(part, below)
    return mid


def _below(mid: str, children: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [mid]
    while waiting:
        new = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(new)
        waiting += new
    return found - {mid}


def select_classes(
    wanted: Sequence[str],
    names: Mapping[str, str],
    descendants: Mapping[str, frozenset[str]],
    *,
    include_descendants: bool,
) -> tuple[SelectedClass, ...]:
    """Find classes by name or MID, and fold their descendants in.

    A descendant that was asked for too stays a class of its own, with what is below it. One that
    the descriptions do not name still counts, under its MID.

    Args:
        wanted: Names or MIDs, as ``find_class`` takes them, in the order of class ids.
        names: Display names by MID.
        descendants: The MIDs of all descendants by MID.
        include_descendants: Whether to fold descendants in.

    Raises:
        UsageError: As ``find_class``; or a class is named twice.
    """
    mids = [find_class(word, names) for word in wanted]
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
        named = {m: names.get(m, m) for m in folded - taken}
        in_order = dict(sorted(named.items(), key=lambda pair: (pair[1], pair[0])))
        taken.update(in_order)
        chosen.append(SelectedClass(class_id, names[mid], mid, in_order))
    return tuple(chosen)


def find_class(word: str, names: Mapping[str, str]) -> str:
    """Find the class that a word names, and give its MID.

    Args:
        word: A MID, or a name in any case, with spaces, underscores or other signs between its
            words, with or without brackets; also the name that another release has for it.
        names: Display names by MID.

    Raises:
        UsageError: No class has this name (the message has the nearest ones), or several.
    """
    if word in names:
        return word
    by_plain_name: dict[str, list[str]] = {}
    for mid, name in names.items():
        by_plain_name.setdefault(_plain(name), []).append(mid)
    for plain in _also_called(_plain(word)):
        mids = by_plain_name.get(plain, [])
        if len(mids) > 1:
            raise UsageError(
                f"{len(mids)} classes are called {word!r}", remedy=f"Name one of {', '.join(mids)}"
            )
        if mids:
            return mids[0]
    if _plain(word) == _plain(ROOT_NAME):
        raise UsageError(
            f"{word!r} is the root above all classes, and no class with boxes",
            remedy="`oiyolo classes --tree` shows what stands below it",
        )
    near = nearest(word, names.values())
    raise UsageError(
        f"Open Images has no class {word!r} with boxes",
        remedy="Nearest are " + ", ".join(near) if near else "`oiyolo classes` lists all of them",
    )


def containing(word: str, names: Iterable[str]) -> list[str]:
    """Give the names that contain a word: those that begin with it, those of which a word does."""
    plain = _plain(word)
    place_of = {name: f" {_plain(name)}".find(f" {plain}") for name in names if plain}
    found = [name for name in place_of if plain in _plain(name)]
    return sorted(found, key=lambda name: (place_of[name] != 0, place_of[name] < 0, name))


def nearest(word: str, names: Iterable[str]) -> list[str]:
    """Give the few names that are most like a word; none, if none is much like it.

    A whole word in common, in singular or plural, weighs more than letters in common. Nothing is
    near to a MID.
    """
    if word.startswith(_MID_STARTS):
        return []
    scored = sorted((-_likeness(_plain(word), _plain(name)), name) for name in names)
    least = max(_NEAR_ENOUGH, -scored[0][0] - _MUCH_LESS_NEAR) if scored else 0.0
    return [name for score, name in scored[:_NEAREST] if -score >= least]


def _likeness(word: str, name: str) -> float:
    if not word:
        return 0.0
    shared = {_singular(w) for w in word.split()} & {_singular(w) for w in name.split()}
    whole = difflib.SequenceMatcher(None, word, name).ratio()
    by_word = max((difflib.SequenceMatcher(None, word, w).ratio() for w in name.split()), default=0)
    return bool(shared) + max(whole, 0.9 * by_word)


def _singular(word: str) -> str:
    return word[:-1] if len(word) >= _SHORTEST_PLURAL and word.endswith("s") else word


def _also_called(plain: str) -> Iterator[str]:
    """Give a plain name, and then what other releases call the same class."""
    yield plain
    for pair in RENAMED:
        before, since = map(_plain, pair)
        if plain in {before, since}:
            yield since if plain == before else before


def _plain(name: str) -> str:
    """Give a name as words in lower case: all that is no letter or digit parts them."""
    return " ".join(re.sub(r"[\W_]+", " ", name).casefold().split())
