"""Class names, MIDs and the class hierarchy: find the labels that belong to a class name."""

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
"""Name of the hierarchy's root, which no box has and which the class descriptions do not list."""
RENAMED_CLASSES: Final = (
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
"""Display names in v4 and since v5 of the classes that were renamed; their MIDs did not change."""
_MID_STARTS: Final = ("/m/", "/g/", "/t/")
_MAX_SUGGESTIONS: Final = 3
_MIN_SIMILARITY: Final = 0.6
"""Minimum similarity of a suggestion (``difflib``'s ratio, 0 to 1): three of four random
five-letter words are less similar to any of the 601 names."""
_MAX_SIMILARITY_GAP: Final = 0.25
"""A suggestion that is less similar than the best one by more than this is noise."""
_SHORTEST_PLURAL: Final = 4


@dataclass(frozen=True)
class SelectedClass:
    """A class of the dataset.

    Attributes:
        class_id: 0-based position in ``obj.names``.
        name: Display name.
        mid: The class's own label, such as ``/m/019jd``.
        merged_subclasses: Names of the descendants whose boxes count as this class, by MID.
    """

    class_id: int
    name: str
    mid: str
    merged_subclasses: Mapping[str, str]

    @property
    def mids(self) -> tuple[str, ...]:
        """All labels that count as this class, its own first."""
        return (self.mid, *self.merged_subclasses)


def read_names(path: Path) -> dict[str, str]:
    """Read the class descriptions: lines of ``MID,name``, with or without a header.

    Returns:
        Display names by MID, in the file's order.

    Raises:
        InputFormError: The file cannot be read, is empty, or has a malformed line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFormError(
            "cannot read the class descriptions", where=str(path), found=str(error)
        ) from None
    names: dict[str, str] = {}
    for number, row in _rows(text, path):
        if not row or (number == 1 and row[0] == "LabelName"):
            continue
        mid, name = (row[0], row[1].strip()) if len(row) == 2 else ("", "")  # noqa: PLR2004  (a pair)
        # An unclosed quote makes the lines after it part of the name.
        if not (mid.startswith(_MID_STARTS) and name and len(name.splitlines()) == 1):
            raise _malformed_line(path, number, ",".join(row))
        if names.setdefault(mid, name) != name:
            raise _malformed_line(
                path, number, f"{mid},{name}", f"one name for {mid}, {names[mid]}"
            )
    if not names:
        raise InputFormError("no class descriptions in this file", where=str(path))
    return names


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV text, each with the number of the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for row in reader:
            yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        line = text.split("\n")[number - 1]
        raise _malformed_line(path, number, f"{error}: {line.rstrip()}") from None


def _malformed_line(
    path: Path, number: int, found: str, expected: str = "a MID and a name, such as /m/019jd,Boat"
) -> InputFormError:
    return InputFormError(
        "class descriptions: malformed line",
        where=f"{path}:{number}",
        expected=expected,
        found=repr(found[:80]),
        remedy="Delete the file to download it again",
    )


def read_children(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the children of each MID from the class hierarchy, in the file's order.

    A MID may occur at several nodes; its children are those of all these nodes. Children are
    subcategories ("a canoe is a boat"). The file's "Part" relation ("a wheel is part of a car")
    makes no children, but the subcategories of a part are included as children of the part.

    Returns:
        MIDs of the children by MID, the root first, for every MID in the file.

    Raises:
        InputFormError: The file is not the hierarchy's JSON.
    """
    try:
        children: dict[str, dict[str, None]] = {}
        _collect(json.loads(path.read_text(encoding="utf-8")), children)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputFormError(
            "cannot read the class hierarchy",
            where=str(path),
            expected='JSON nodes with "LabelName" and "Subcategory"',
            found=f"{type(error).__name__}: {error}",
            remedy="Delete the file to download it again",
        ) from None
    return {mid: tuple(mids) for mid, mids in children.items()}


def read_hierarchy(path: Path) -> dict[str, frozenset[str]]:
    """Read the descendants of each MID, at any depth, from the class hierarchy.

    Returns:
        MIDs of all descendants by MID, for every MID that has descendants.

    Raises:
        InputFormError: The file is not the hierarchy's JSON.
    """
    children = read_children(path)
    by_mid = {mid: frozenset(mids_below(mid, children)) for mid in children}
    return {mid: mids for mid, mids in by_mid.items() if mids}


def _collect(node: dict[str, Any], children: dict[str, dict[str, None]]) -> str:
    """Add a node and all nodes below it to ``children``; return its MID."""
    mid = node["LabelName"]
    if not isinstance(mid, str):
        raise TypeError(f"LabelName is {mid!r}")
    own = children.setdefault(mid, {})
    for child in node.get("Subcategory", ()):
        own[_collect(child, children)] = None
    for part in node.get("Part", ()):
        _collect(part, children)
    return mid


def mids_below(mid: str, children: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the MIDs below a MID, at any depth, without itself."""
    below: set[str] = set()
    to_visit = [mid]
    while to_visit:
        unseen = [child for child in children.get(to_visit.pop(), ()) if child not in below]
        below.update(unseen)
        to_visit += unseen
    return below - {mid}


def select_classes(
    names_or_mids: Sequence[str],
    names: Mapping[str, str],
    descendants: Mapping[str, frozenset[str]],
    *,
    include_descendants: bool,
) -> tuple[SelectedClass, ...]:
    """Return the classes with the given names or MIDs, each with its merged subclasses.

    A descendant that is selected itself remains a class of its own, with its own descendants. A
    descendant without a class description is included too, with its MID as its name.

    Args:
        names_or_mids: Names or MIDs (see ``find_class``), in the order of class ids.
        names: Display names by MID.
        descendants: MIDs of all descendants by MID.
        include_descendants: Whether to merge descendants into the classes.

    Raises:
        UsageError: A name matches no class or several classes, or a class is listed twice.
    """
    mids = [find_class(query, names) for query in names_or_mids]
    if repeated := [names[mid] for i, mid in enumerate(mids) if mid in mids[:i]]:
        raise UsageError(f"class {repeated[0]!r} is listed twice in [dataset] classes")
    selected: list[SelectedClass] = []
    assigned_mids = set(mids)
    for class_id, mid in enumerate(mids):
        subclasses: set[str] = set()
        if include_descendants:
            subclasses = set(descendants.get(mid, ()))
            for other in mids:
                if other in subclasses:
                    subclasses -= {other, *descendants.get(other, ())}
        # A label that is below two of the classes counts as the first of them.
        name_by_mid = {m: names.get(m, m) for m in subclasses - assigned_mids}
        ordered = dict(sorted(name_by_mid.items(), key=lambda pair: (pair[1], pair[0])))
        assigned_mids.update(ordered)
        selected.append(SelectedClass(class_id, names[mid], mid, ordered))
    return tuple(selected)


def find_class(name_or_mid: str, names: Mapping[str, str]) -> str:
    """Return the MID of the class with a name or MID.

    Args:
        name_or_mid: A MID, or a name from any release. Case and punctuation are ignored:
            ``tennis_racket`` is "Tennis racket", and ``bat animal`` is "Bat (Animal)".
        names: Display names by MID.

    Raises:
        UsageError: No class has this name (the message suggests similar ones), or several have it.
    """
    if name_or_mid in names:
        return name_or_mid
    mids_by_name: dict[str, list[str]] = {}
    for mid, name in names.items():
        mids_by_name.setdefault(_normalize(name), []).append(mid)
    for normalized in _names_in_releases(_normalize(name_or_mid)):
        mids = mids_by_name.get(normalized, [])
        if len(mids) > 1:
            raise UsageError(
                f"{len(mids)} classes have the name {name_or_mid!r}",
                remedy=f"Use one of the MIDs {', '.join(mids)}",
            )
        if mids:
            return mids[0]
    if _normalize(name_or_mid) == _normalize(ROOT_NAME):
        raise UsageError(
            f"{name_or_mid!r} is the root of the class hierarchy and has no boxes",
            remedy="`oiyolo classes --tree` lists the classes below it",
        )
    similar = nearest_names(name_or_mid, names.values())
    raise UsageError(
        f"Open Images has no class {name_or_mid!r} with boxes",
        remedy="Similar names: " + ", ".join(similar)
        if similar
        else "`oiyolo classes` lists all classes",
    )


def mids_of_names(wanted: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the MIDs of those of many names that are classes, by name.

    Args:
        wanted: Names from any release; case and punctuation are ignored, as in ``find_class``.
        names: Display names by MID.
    """
    mids = {_normalize(name): mid for mid, name in names.items()}
    return {
        name: mids[spelling]
        for name in wanted
        for spelling in reversed(list(_names_in_releases(_normalize(name))))
        if spelling in mids
    }


def names_containing(text: str, names: Iterable[str]) -> list[str]:
    """Return the names that contain a text.

    First come those that begin with it, then those in which a word begins with it, then the others.
    """
    normalized = _normalize(text)
    position_of = {
        name: f" {_normalize(name)}".find(f" {normalized}") for name in names if normalized
    }
    matches = [name for name in position_of if normalized in _normalize(name)]
    return sorted(matches, key=lambda name: (position_of[name] != 0, position_of[name] < 0, name))


def nearest_names(text: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that are similar to a text, the most similar first.

    A shared word, in singular or plural, counts more than shared letters. No name is similar to a
    MID.
    """
    if text.startswith(_MID_STARTS):
        return []
    scored = sorted((-_similarity(_normalize(text), _normalize(name)), name) for name in names)
    threshold = max(_MIN_SIMILARITY, -scored[0][0] - _MAX_SIMILARITY_GAP) if scored else 0.0
    return [name for score, name in scored[:_MAX_SUGGESTIONS] if -score >= threshold]


def _similarity(text: str, name: str) -> float:
    if not text:
        return 0.0
    shared = {_singular(w) for w in text.split()} & {_singular(w) for w in name.split()}
    whole = difflib.SequenceMatcher(None, text, name).ratio()
    by_word = max((difflib.SequenceMatcher(None, text, w).ratio() for w in name.split()), default=0)
    return bool(shared) + max(whole, 0.9 * by_word)


def _singular(word: str) -> str:
    return word[:-1] if len(word) >= _SHORTEST_PLURAL and word.endswith("s") else word


def _names_in_releases(normalized: str) -> Iterator[str]:
    """Yield a normalized name, then the normalized names of the same class in other releases."""
    yield normalized
    for pair in RENAMED_CLASSES:
        before, after = map(_normalize, pair)
        if normalized in {before, after}:
            yield after if normalized == before else before


def _normalize(name: str) -> str:
    """Return the words of a name in lower case; anything but letters and digits separates them."""
    return " ".join(re.sub(r"[\W_]+", " ", name).casefold().split())
