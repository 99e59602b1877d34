"""The class lists of labelling tools: ``classes.txt``, ``obj.names``, label maps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.core.output import printable
from oiyolo.interchange.source_files import read_limited

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.interchange.source_files import SourceFiles

MAX_LIST_BYTES: Final = 4 << 20
_LIST_NAMES: Final = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
"""Names of lists with a class in each line, the best first; other ``*.names`` come after them."""
_OTHER: Final = len(_LIST_NAMES) + 2
_LABEL_MAP: Final = ".pbtxt"
_TOKEN: Final = re.compile(r"""#[^\n]*|"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'|[\w.+-]+|\S""")
_ESCAPE: Final = re.compile(r"\\(['\"\\])")


def is_class_list(name: str) -> bool:
    """Return whether a file is a list of classes, judged by its name."""
    return rank(name) < _OTHER


def rank(name: str) -> int:
    """Return the place of a file among class lists, the best being 0; ``_OTHER`` for no list.

    Args:
        name: Relative path of the file.
    """
    last = name.rpartition("/")[2].lower()
    if last in _LIST_NAMES:
        return _LIST_NAMES.index(last)
    return {"names": _OTHER - 2, "pbtxt": _OTHER - 1}.get(last.rpartition(".")[2], _OTHER)


def read_class_list(path: Path) -> list[str]:
    """Return the names in a class list, in the order of their ids.

    Raises:
        InputFormError: The list cannot be read, or is empty.
    """
    text = read_small_text(path, "a list of classes")
    if path.suffix.lower() == _LABEL_MAP:
        return parse_label_map(text, str(path))
    names = [line.strip() for line in text.split("\n")]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        line = f":{names.index('') + 1}" if names else ""
        raise _list_error(f"{path}{line}", "an empty line" if names else "an empty file")
    return names


def read_small_text(path: Path, what: str) -> str:
    """Return the text of a file that is small unless something is wrong.

    Args:
        path: The file, UTF-8 with or without a byte order mark, else Latin-1.
        what: What the file should be, for messages.

    Raises:
        InputFormError: The file cannot be read, or is too large.
    """
    try:
        content = read_limited(path, MAX_LIST_BYTES)
    except OSError as error:
        raise _list_error(str(path), str(error.strerror), what) from None
    if b"\0" in content:
        raise _list_error(str(path), "a NUL character", what)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def parse_label_map(text: str, where: str) -> list[str]:
    """Return the names in a label map of TensorFlow's Object Detection API, ordered by id.

    Of an item whose name is a MID, the display name is returned.

    Args:
        text: Items with ``name``, ``id`` and ``display_name``, in protobuf's text format.
        where: Path of the file, for messages.

    Raises:
        InputFormError: The text is not a label map, or an id is repeated or less than 1.
    """
    names: dict[int, str] = {}
    for item in _items(text):
        number = item.get("id", "")
        name = item.get("name", "")
        if not name or name.startswith("/"):
            name = item.get("display_name", "") or name
        if not (number.isdecimal() and int(number) > 0 and name) or int(number) in names:
            raise _list_error(where, f"the item {item!r}", "items with a name and an id from 1")
        names[int(number)] = name
    if not names:
        raise _list_error(where, "no item", "items with a name and an id from 1")
    return [names[number] for number in sorted(names)]


def _items(text: str) -> list[dict[str, str]]:
    """Return the fields of each ``item { ... }``; fields of nested blocks are left out."""
    items: list[dict[str, str]] = []
    depth, key = 0, ""
    for match in _TOKEN.finditer(text):
        symbol = match[0]
        if symbol in "{}":
            depth += 1 if symbol == "{" else -1
            if symbol == "{" and depth == 1 and key == "item":
                items.append({})
            key = ""
        elif symbol in ":,;" or symbol[0] == "#":
            continue
        elif depth == 1 and key and items:
            items[-1][key] = _ESCAPE.sub(r"\1", _unquoted(match))
            key = ""
        else:
            key = symbol
    return items


def _unquoted(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group is not None), match[0])


def find_class_lists(source: SourceFiles) -> Sequence[str]:
    """Return the class lists of a source: the best ones first, of equal ones the upper ones."""
    lists = [name for name in source.names if is_class_list(name)]
    return sorted(lists, key=lambda name: (rank(name), name.count("/"), name))


def merge_orders(lists: Sequence[Sequence[str]]) -> list[str]:
    """Return all names of some lists, each once, in the order in which they occur."""
    return list(dict.fromkeys(name for names in lists for name in names))


def _list_error(
    where: str, found: str, expected: str = "a class name in each line"
) -> InputFormError:
    return InputFormError(
        "cannot read a list of classes",
        where=printable(where),
        expected=expected,
        found=printable(found),
        remedy="Correct the file, or remove it",
    )
