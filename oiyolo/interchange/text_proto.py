"""Edit a message in protobuf's text format in place, without knowing its schema.

Comments, order and layout of everything else stay as they are. A path is a sequence of field names
from the outermost message; ``ANY`` matches every name
(https://protobuf.dev/reference/protobuf/textformat-spec/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Path = tuple[str, ...]
    """Names of fields from the outermost message, or ``ANY``."""

ANY: Final = "*"
_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>[-+.\w]+)
    |(?P<mark>[][{}<>,;:])""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING: Final = {"{": "}", "<": ">", "[": "]"}
_INDENT: Final = "  "


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Field:
    """A field of a message.

    Attributes:
        name: Its name.
        start: Where its name begins.
        value: Where its value begins and ends.
        fields: The fields of a message; ``None`` for a scalar or a list.
    """

    name: str
    start: int
    value: tuple[int, int]
    fields: tuple[Field, ...] | None


class TextProto:
    """A message in text format.

    Args:
        text: The text.
        where: Path of its file, for messages.

    Attributes:
        text: The text, which the methods edit.

    Raises:
        InputFormError: The text is not of this format.
    """

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self.text = text
        self._fields = _Parser(text, where).fields()

    def find(self, *path: str) -> list[Field]:
        """Return all fields with a path."""
        return list(_matching(self._fields, path))

    def scalar_paths(self, *path: str) -> list[Path]:
        """Return the path of each scalar or list in the messages with a path, at any depth."""
        paths = (own for field in self.find(*path) for own in _scalar_paths(field, path))
        return list(dict.fromkeys(paths))

    def value(self, *path: str) -> str | None:
        """Return the value of the last field with a path, without quotes; ``None`` if missing."""
        found = self.find(*path)
        if not found:
            return None
        raw = self.text[slice(*found[-1].value)]
        return raw[1:-1] if raw[:1] in {'"', "'"} else raw

    def set(self, value: str, *path: str) -> None:
        """Set a scalar, written as in the text, in each message of its path; add it if missing.

        The first message of the path is created if it does not exist.
        """
        if not (parents := self.find(*path[:-1])):
            self._edit([(len(self.text), len(self.text), f"\n{path[0]} {{\n}}\n")])
            if len(path) > 2:  # noqa: PLR2004  (a message in a message)
                self._add(self.find(path[0])[-1], f"{path[1]} {{\n{_INDENT}}}")
            parents = self.find(*path[:-1])
        for number in range(len(parents)):
            parent = self.find(*path[:-1])[number]
            own = [f for f in parent.fields or () if f.name == path[-1]]
            if own:
                self._edit([(*field.value, value) for field in own])
            else:
                self._add(parent, f"{path[-1]}: {value}")

    def remove(self, *path: str) -> None:
        """Remove all fields with a path, with their lines if nothing else is on them."""
        self._edit([(*self._lines(field), "") for field in self.find(*path)])

    def _lines(self, field: Field) -> tuple[int, int]:
        start, end = field.start, field.value[1]
        rest = re.compile(r"[ \t]*[,;]?[ \t]*\n").match(self.text, end)
        before = re.compile(r"(?<![^\n])[ \t]*\Z").search(self.text[:start])
        return (before.start(), rest.end()) if before and rest else (start, end)

    def _add(self, parent: Field, text: str) -> None:
        """Add a field at the end of a message."""
        line_start = self.text.rfind("\n", 0, parent.start) + 1
        outer = self.text[line_start : parent.start]
        outer = outer if not outer.strip() else ""
        end = parent.value[1] - 1
        head = self.text[:end].rstrip()
        self._edit([(len(head), end, f"\n{outer}{_INDENT}{text}\n{outer}")])

    def _edit(self, changes: Sequence[tuple[int, int, str]]) -> None:
        for start, end, text in sorted(changes, reverse=True):
            self.text = self.text[:start] + text + self.text[end:]
        self._fields = _Parser(self.text, self._where).fields()


def _matching(fields: Sequence[Field], path: Sequence[str]) -> Iterator[Field]:
    for field in fields:
        if path and path[0] in {ANY, field.name}:
            if len(path) == 1:
                yield field
            else:
                yield from _matching(field.fields or (), path[1:])


def _scalar_paths(field: Field, path: Path) -> Iterator[Path]:
    for inner in field.fields or ():
        own = (*path, inner.name)
        if inner.fields is None:
            yield own
        else:
            yield from _scalar_paths(inner, own)


class _Parser:
    """Reads the fields of a message, and where they are."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where
        self._tokens = self._tokenize()
        self._at = 0

    def _tokenize(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise self._error(at, "a field", repr(self._text[at : at + 20]))
            if match.lastgroup != "blank":
                tokens.append(_Token(str(match.lastgroup), match[0], at))
            at = match.end()
        return tokens

    def fields(self, closing: str = "") -> tuple[Field, ...]:
        """Read fields until a closing mark, which is left, or until the end."""
        fields = []
        while (token := self._peek()) is not None and token.text != closing:
            if token.text in {",", ";"}:
                self._at += 1
            else:
                fields.append(self._field())
        if closing and self._peek() is None:
            raise self._error(len(self._text), f"{closing!r}", "the end of the file")
        return tuple(fields)

    def _field(self) -> Field:
        name = self._next("a field's name")
        if name.text == "[":  # the name of an extension
            self._skip_list()
        elif name.kind != "word":
            raise self._error(name.start, "a field's name", repr(name.text))
        if (colon := self._peek()) is not None and colon.text == ":":
            self._at += 1
        first = self._next("a value")
        inner = None
        if first.text in {"{", "<"}:
            inner = self.fields(_CLOSING[first.text])
            last = self._next("the end of a message")
        elif first.text == "[":
            last = self._skip_list()
        elif first.kind == "mark":
            raise self._error(first.start, f"a value of {name.text}", repr(first.text))
        else:
            last = self._last_text(first)
        return Field(name.text, name.start, (first.start, last.end), inner)

    def _last_text(self, first: _Token) -> _Token:
        """Return the last of adjacent strings, which are one value."""
        last = first
        while first.kind == "text" and (token := self._peek()) and token.kind == "text":
            last = self._next("a string")
        return last

    def _skip_list(self) -> _Token:
        depth = 1
        while True:
            token = self._next("']'")
            depth += (token.text in _CLOSING) - (token.text in _CLOSING.values())
            if not depth:
                return token

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, expected: str) -> _Token:
        token = self._peek()
        if token is None:
            raise self._error(len(self._text), expected, "the end of the file")
        self._at += 1
        return token

    def _error(self, at: int, expected: str, found: str) -> InputFormError:
        line = self._text.count("\n", 0, at) + 1
        return InputFormError(
            "not a message in protobuf's text format",
            where=f"{self._where}:{line}",
            expected=expected,
            found=found,
        )
