"""Parser and editor for darknet ``.cfg`` files that preserves comments, order and line numbers.

The syntax is that of darknet's ``read_cfg`` and ``read_option`` (src/parser.c, src/option_list.c):
``[kind]`` opens a section, ``key=value`` is an option, and a line that starts with ``#`` or ``;``
is a comment. All blanks are ignored, and the first occurrence of a repeated key wins. Comments,
order and unknown keys are preserved: a file that is not edited is written back byte for byte,
except that a byte order mark, which darknet would take for a part of the first line, is dropped and
UTF-16 becomes UTF-8. Copies and edits keep the line numbers of the file that was read.
"""

from __future__ import annotations

import codecs
import copy
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Value = str | int | float | list[int] | list[float]
"""A value of an option; ``True`` and ``False`` are written as 1 and 0."""

# Short and legacy names of section kinds (string_to_layer_type in src/parser.c).
_ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "local_avg": "local_avgpool",
    "soft": "softmax",
    "lrn": "normalization",
    "silence": "empty",
}
_CONFLICT_MARKER = re.compile(r"<{7}(?: .*)?|\|{7}(?: .*)?|={7}|>{7}(?: .*)?")
_HEADER = re.compile(r"\[(\w+)\]")
_AFTER_EQUALS = re.compile(r"(?P<gap>[ \t]*)(?P<value>.*?)(?P<rest>\s*(?:#.*)?)", re.DOTALL)
# What atoi and atof accept; Python's float would also accept 1_000, nan and non-ASCII digits.
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_MAX_MAGNITUDE = 1e15
"""Far above any option of a network; larger values would also overflow darknet's 32 bits."""

_MAX_SHOWN_CHARACTERS = 60
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
"""Byte order marks that editors write, and the encodings that they announce."""


class CfgError(InputFormError):
    """An invalid or contradictory .cfg file; ``line`` is where.

    Args:
        what: What is wrong, with the value.
        path: Path of the file, as shown to the user.
        line: Line number in the file, from 1.
        **details: ``expected``, ``found`` and ``remedy``, as for ``OiyoloError``.
    """

    def __init__(self, what: str, *, path: str, line: int, **details: str) -> None:
        self.line = line
        super().__init__(what, where=f"{path}:{line}", **details)


@dataclass(slots=True)
class _Line:
    """A line with its newline; ``key`` is empty for a comment, a blank line or a header."""

    text: str
    number: int
    key: str = ""
    value: str = ""


@dataclass
class Section:
    """A ``[kind]`` section with its options.

    Attributes:
        kind: Long name of the section's kind: ``convolutional`` also for ``[conv]``.
        path: Path of the file, for messages.
    """

    kind: str
    path: str
    _lines: list[_Line] = field(repr=False)

    @property
    def line(self) -> int:
        """Line number of the header in the file as it was read."""
        return self._lines[0].number

    def line_of(self, key: str) -> int:
        """Return the line number of an option in the file as it was read.

        It is that of the header if the option is missing or was added later.
        """
        line = self._find(key)
        return line.number if line else self.line

    def has(self, key: str) -> bool:
        """Return whether an option is set."""
        return self._find(key) is not None

    def option_keys(self) -> list[str]:
        """Return the keys in the order of the file, repeated keys included."""
        return [line.key for line in self._lines if line.key]

    def text(self, key: str, default: str = "") -> str:
        """Return a value without blanks, as darknet's ``option_find_str`` does."""
        line = self._find(key)
        return line.value if line else default

    def integer(self, key: str, default: int) -> int:
        """Return an integer; ``1.0`` is 1, as for ``atoi``.

        Raises:
            CfgError: The value is not an integer.
        """
        value = self.number(key, default)
        if value != int(value):
            raise self._value_error(key, "an integer")
        return int(value)

    def number(self, key: str, default: float) -> float:
        """Return a number.

        Raises:
            CfgError: The value is not a single number.
        """
        numbers = self._numbers(key, "a number")
        if len(numbers) > 1:
            raise self._value_error(key, "one number")
        return numbers[0] if numbers else default

    def integers(self, key: str) -> list[int]:
        """Return a comma-separated list of integers; empty where the option is missing.

        Raises:
            CfgError: An item is not an integer.
        """
        numbers = self._numbers(key, "comma-separated integers")
        if any(number != int(number) for number in numbers):
            raise self._value_error(key, "comma-separated integers")
        return [int(number) for number in numbers]

    def numbers(self, key: str) -> list[float]:
        """Return a comma-separated list of numbers; empty where the option is missing.

        Raises:
            CfgError: An item is not a number.
        """
        return self._numbers(key, "comma-separated numbers")

    def canonical(self) -> dict[str, list[float] | str]:
        """Return each option as a list of numbers, or else as text, sorted by key."""
        return {key: _canonical_value(self.text(key)) for key in sorted(set(self.option_keys()))}

    def set(self, key: str, value: Value) -> None:
        """Set an option: in place where it is already set, otherwise after the last option.

        A value that is already equal keeps its notation (``.1`` stays ``.1``).
        """
        text = _format_value(value)
        line = self._find(key)
        if line is None:
            self._append(key, text)
        elif line.value != _without_blanks(text) and (
            _canonical_value(line.value) != _canonical_value(text)
        ):
            head, _, tail = line.text.partition("=")
            parts = _AFTER_EQUALS.fullmatch(tail)
            gap, rest = (parts["gap"], parts["rest"]) if parts else ("", "\n")
            line.text = f"{head}={gap}{text}{rest}"
            line.value = _without_blanks(text)

    def copy(self) -> Section:
        """Return an independent copy with the same line numbers."""
        return Section(self.kind, self.path, [copy.copy(line) for line in self._lines])

    def unset(self, key: str) -> None:
        """Remove all occurrences of an option."""
        self._lines = [line for line in self._lines if line.key != key]

    def error(self, what: str, key: str = "", **details: str) -> CfgError:
        """Return an error in the line of an option, or of the header if it has no such option.

        Args:
            what: What is wrong, with the value.
            key: The option.
            **details: ``expected``, ``found`` and ``remedy``, as for ``OiyoloError``.
        """
        return CfgError(what, path=self.path, line=self.line_of(key), **details)

    def _find(self, key: str) -> _Line | None:
        return next((line for line in self._lines if line.key == key), None)

    def _append(self, key: str, text: str) -> None:
        last = max(i for i, line in enumerate(self._lines) if line.key or i == 0)
        before = self._lines[last]
        newline = "\r\n" if before.text.endswith("\r\n") else "\n"
        if not before.text.endswith("\n"):
            before.text += newline
        new = _Line(f"{key}={text}{newline}", self.line, key, _without_blanks(text))
        self._lines.insert(last + 1, new)

    def _numbers(self, key: str, expected: str) -> list[float]:
        line = self._find(key)
        if line is None:
            return []
        try:
            return _parse_numbers(line.value)
        except ValueError:
            raise self._value_error(key, expected) from None

    def _value_error(self, key: str, expected: str) -> CfgError:
        what = f"invalid value for {key} in [{self.kind}]"
        return self.error(what, key, expected=expected, found=_shown(self.text(key)))


@dataclass
class Cfg:
    """A parsed ``.cfg`` file.

    Attributes:
        path: Path of the file, for messages.
        sections: ``[net]``, then one section per layer, in the order of the file.
    """

    path: str
    sections: list[Section]
    _preamble: list[_Line] = field(repr=False)

    @property
    def net(self) -> Section:
        """The ``[net]`` section: input size, batch, schedule."""
        return self.sections[0]

    @property
    def layers(self) -> list[Section]:
        """The layer sections; their positions are darknet's layer indices."""
        return self.sections[1:]

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the input in pixels; 0 where the file does not set them."""
        return self.net.integer("width", 0), self.net.integer("height", 0)

    def render(self) -> str:
        """Return the text, with its original newlines."""
        lines = [*self._preamble, *(line for section in self.sections for line in section._lines)]  # noqa: SLF001  (one module)
        return "".join(line.text for line in lines)

    def canonical(self) -> list[list[Any]]:
        """Return what darknet reads from the file, in a form that does not depend on notation.

        Returns:
            A JSON-compatible ``[kind, {key: value}]`` for each section: without comments, blanks
            and repeated keys, sorted by key, with numbers parsed.
        """
        return [[section.kind, section.canonical()] for section in self.sections]

    def encode(self) -> bytes:
        """Return the bytes to write; bytes that are not valid UTF-8 are preserved."""
        return self.render().encode("utf-8", "surrogateescape")

    def copy(self) -> Cfg:
        """Return an independent copy with the same line numbers."""
        sections = [section.copy() for section in self.sections]
        return Cfg(self.path, sections, [copy.copy(line) for line in self._preamble])


def read(path: Path) -> Cfg:
    """Read a ``.cfg`` file.

    Raises:
        UsageError: The file does not exist, is not a file, or cannot be read.
        CfgError: It is not a valid ``.cfg`` file.
    """
    try:
        data = files.read_bytes(path)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise UsageError(
            "network file not found" if is_missing else "the network file cannot be read",
            where=str(path),
            found="" if is_missing else error.strerror or str(error),
            remedy="Use the path of a darknet .cfg, or the name of one of oiyolo's networks",
        ) from None
    return parse(_decode(data, str(path)), path=str(path))


def _decode(data: bytes, path: str) -> str:
    """Return the text of a file without its byte order mark.

    Raises:
        CfgError: The file is not text.
    """
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, "surrogateescape")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # in each ASCII character of UTF-16, and in most binary files
        raise CfgError(
            "not a text file",
            path=path,
            line=1,
            expected="a darknet network file",
            found=f"bytes that are not {encoding.removesuffix('-sig').upper()} text",
            remedy="Save the file as UTF-8 in a text editor, or choose another file",
        )
    return text


def parse(text: str, *, path: str) -> Cfg:
    """Parse the text of a ``.cfg`` file.

    Args:
        text: The text, with its original newlines.
        path: Name of the file in messages.

    Raises:
        CfgError: A line is not a section, option or comment (a merge conflict marker, for
            example), or the first section is not ``[net]``.
    """
    preamble: list[_Line] = []
    sections: list[Section] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = _read_line(raw + "\n", number, path)
        header = _HEADER.fullmatch(_without_blanks(raw))
        if header and not line.key:
            sections.append(Section(_ALIASES.get(header[1], header[1]), path, [line]))
        elif sections:
            sections[-1]._lines.append(line)  # noqa: SLF001  (one module)
        elif line.key:
            what = "not a darknet network file"
            raise _line_error(what, line, path, expected="[net] before the first option")
        else:
            preamble.append(line)
    # The text after the last newline is a line without one; in most files it is empty.
    last = sections[-1]._lines[-1] if sections else preamble[-1]  # noqa: SLF001  (one module)
    last.text = last.text[:-1]
    if not sections or sections[0].kind != "net":
        raise CfgError(
            "not a darknet network file",
            path=path,
            line=sections[0].line if sections else 1,
            expected="[net] as the first section",
            found=f"[{sections[0].kind}]" if sections else "no section",
        )
    return Cfg(path, sections, preamble)


def _read_line(text: str, number: int, path: str) -> _Line:
    """Parse a line; raise if it is not an option, a header or a comment."""
    line, compact = _Line(text, number), _without_blanks(text)
    if _CONFLICT_MARKER.fullmatch(text.strip()):
        raise _line_error(
            "unresolved merge conflict",
            line,
            path,
            expected="one version of the conflicting lines",
            remedy="Keep one side, and delete the lines that start with <<<<<<<, ======= "
            "and >>>>>>>",
        )
    if not compact or compact[0] in "#;" or _HEADER.fullmatch(compact):
        return line
    line.key, _, line.value = compact.partition("=")
    if not (line.key and line.value) or compact[0] == "[":
        what = "not a valid line of a darknet network file"
        raise _line_error(what, line, path, expected="[section], key=value or # comment")
    return line


def _line_error(what: str, line: _Line, path: str, **details: str) -> CfgError:
    return CfgError(what, path=path, line=line.number, found=_shown(line.text.strip()), **details)


def _shown(text: str) -> str:
    """Return the beginning of a text in quotes, with escapes for unprintable characters."""
    if len(text) > _MAX_SHOWN_CHARACTERS:
        text = text[:_MAX_SHOWN_CHARACTERS] + "..."
    return repr(text)


def _without_blanks(text: str) -> str:
    """Remove all blanks, as darknet's ``strip`` does (src/utils.c)."""
    return re.sub(r"[ \t\r\n]", "", text)


def _parse_numbers(value: str) -> list[float]:
    """Parse the numbers before a trailing comment, which ``atoi`` and ``atof`` ignore too."""
    parts = value.partition("#")[0].split(",")
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError(value)
    numbers = [float(part) for part in parts]
    if any(abs(number) > _MAX_MAGNITUDE for number in numbers):
        raise ValueError(value)
    return numbers


def _canonical_value(value: str) -> list[float] | str:
    try:
        return _parse_numbers(value)
    except ValueError:
        return value


def _format_value(value: Value) -> str:
    if isinstance(value, str):
        return value
    numbers: Sequence[float] = value if isinstance(value, list) else [value]
    return ",".join(f"{number:.10g}" for number in numbers)
