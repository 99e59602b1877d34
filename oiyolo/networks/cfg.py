"""The text of a darknet ``.cfg``: read with line numbers, changed in place, written back whole.

The form is that of darknet's ``read_cfg`` and ``read_option`` (src/parser.c, src/option_list.c):
``[kind]`` opens a section, ``key=value`` is an option, a line that starts with ``#`` or ``;`` is a
comment, blanks mean nothing anywhere, and of a key given twice the first counts. Comments, order
and keys that nobody knows stay as they are; a text that is not changed comes back byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oiyolo.core.errors import InputFormError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Value = str | int | float | list[int] | list[float]
"""What an option can be set to; ``True`` and ``False`` become 1 and 0."""

# Short and old names of section kinds (string_to_layer_type in src/parser.c).
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
_CONFLICT = re.compile(r"<{7}(?: .*)?|\|{7}(?: .*)?|={7}|>{7}(?: .*)?")
_HEADER = re.compile(r"\[(\w+)\]")
_AFTER_EQUALS = re.compile(r"(?P<gap>[ \t]*)(?P<value>.*?)(?P<rest>\s*(?:#.*)?)", re.DOTALL)
# What atoi and atof read; Python's float would also take 1_000, nan and digits of other scripts.
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_LARGEST = 1e15
"""No option of a network comes near; what is larger would not survive darknet's 32 bits either."""

_SHOWN_CHARACTERS = 60


class CfgError(InputFormError):
    """A ``.cfg`` that is none, or that contradicts itself; knows the line.

    Args:
        what: What is wrong, with the value.
        path: The file, as the user knows it.
        line: The line in it, counted from 1.
        expected: What would have been right.
        found: What is there.
        remedy: What to do next.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str,
        line: int,
        expected: str = "",
        found: str = "",
        remedy: str = "",
    ) -> None:
        self.line = line
        super().__init__(
            what, where=f"{path}:{line}", expected=expected, found=found, remedy=remedy
        )


@dataclass(slots=True)
class _Line:
    """One line with its newline; ``key`` is empty for a comment, a blank line or a header."""

    text: str
    number: int
    key: str = ""
    value: str = ""


@dataclass
class Section:
    """One ``[kind]`` with its options.

    Attributes:
        kind: Its kind under the long name: ``conv`` and ``convolutional`` are the same.
        path: The file it was read from, for messages.
    """

    kind: str
    path: str
    _lines: list[_Line] = field(repr=False)

    @property
    def line(self) -> int:
        """The line of its header in the file as it was read."""
        return self._lines[0].number

    def line_of(self, key: str) -> int:
        """Give the line of an option; the header's where the option is not given."""
        found = self._find(key)
        return found.number if found else self.line

    def has(self, key: str) -> bool:
        """Tell whether an option is given."""
        return self._find(key) is not None

    def given_keys(self) -> list[str]:
        """Give the keys in the order of the file; one given twice is there twice."""
        return [line.key for line in self._lines if line.key]

    def text(self, key: str, default: str = "") -> str:
        """Give a value as darknet's ``option_find_str`` sees it, all blanks taken out."""
        found = self._find(key)
        return found.value if found else default

    def integer(self, key: str, default: int) -> int:
        """Give a whole number; ``1.0`` is 1, as ``atoi`` has it.

        Raises:
            CfgError: The value is no whole number.
        """
        value = self.number(key, default)
        if value != int(value):
            raise self._bad(key, "a whole number")
        return int(value)

    def number(self, key: str, default: float) -> float:
        """Give a number.

        Raises:
            CfgError: The value is no number.
        """
        numbers = self._numbers(key, "a number")
        if len(numbers) > 1:
            raise self._bad(key, "one number")
        return numbers[0] if numbers else default

    def integers(self, key: str) -> list[int]:
        """Give a comma-separated list of whole numbers; empty where the option is not given.

        Raises:
            CfgError: Something in it is no whole number.
        """
        numbers = self._numbers(key, "whole numbers with commas between them")
        if any(number != int(number) for number in numbers):
            raise self._bad(key, "whole numbers with commas between them")
        return [int(number) for number in numbers]

    def numbers(self, key: str) -> list[float]:
        """Give a comma-separated list of numbers; empty where the option is not given.

        Raises:
            CfgError: Something in it is no number.
        """
        return self._numbers(key, "numbers with commas between them")

    def meaning(self) -> dict[str, list[float] | str]:
        """Give each option as the numbers that it says, or else as its text, sorted by key."""
        return {key: _meant(self.text(key)) for key in sorted(set(self.given_keys()))}

    def set(self, key: str, value: Value) -> None:
        """Give an option a value: in its place where it is given, else after the last option.

        A value that says the same number already keeps its spelling (``.1`` stays ``.1``).
        """
        text = _spelled(value)
        found = self._find(key)
        if found is None:
            self._append(key, text)
        elif not _same(found.value, text):
            head, _, tail = found.text.partition("=")
            parts = _AFTER_EQUALS.fullmatch(tail)
            gap, rest = (parts["gap"], parts["rest"]) if parts else ("", "\n")
            found.text = f"{head}={gap}{text}{rest}"
            found.value = _squeezed(text)

    def unset(self, key: str) -> None:
        """Take an option out, every time it is given."""
        self._lines = [line for line in self._lines if line.key != key]

    def _find(self, key: str) -> _Line | None:
        return next((line for line in self._lines if line.key == key), None)

    def _append(self, key: str, text: str) -> None:
        last = max(i for i, line in enumerate(self._lines) if line.key or i == 0)
        before = self._lines[last]
        newline = "\r\n" if before.text.endswith("\r\n") else "\n"
        if not before.text.endswith("\n"):
            before.text += newline
        new = _Line(f"{key}={text}{newline}", before.number, key, _squeezed(text))
        self._lines.insert(last + 1, new)

    def _numbers(self, key: str, expected: str) -> list[float]:
        found = self._find(key)
        if found is None:
            return []
        try:
            return _parsed_numbers(found.value)
        except ValueError:
            raise self._bad(key, expected) from None

    def _bad(self, key: str, expected: str) -> CfgError:
        return CfgError(
            f"{key} of [{self.kind}] has a wrong value",
            path=self.path,
            line=self.line_of(key),
            expected=expected,
            found=repr(self.text(key)),
        )


@dataclass
class Cfg:
    """A whole ``.cfg``.

    Attributes:
        path: The file it was read from, for messages.
        sections: ``[net]``, then one section a layer, in the order of the file.
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
        """The sections that are layers; a layer's place in the list is darknet's index of it."""
        return self.sections[1:]

    @property
    def size_wh(self) -> tuple[int, int]:
        """The input's width and height in pixels; 0 where the file does not say."""
        return self.net.integer("width", 0), self.net.integer("height", 0)

    def render(self) -> str:
        """Give the text, with the newlines it was read with."""
        lines = [*self._preamble, *(line for section in self.sections for line in section._lines)]  # noqa: SLF001  (one module)
        return "".join(line.text for line in lines)

    def meaning(self) -> list[list[Any]]:
        """Give what darknet takes from the file, the same for all ways to write it.

        Returns:
            A ``[kind, {key: value}]`` for each section, as JSON takes it: without comments, blanks
            and what stands there a second time, keys in the order of the alphabet, numbers as
            numbers.
        """
        return [[section.kind, section.meaning()] for section in self.sections]

    def encode(self) -> bytes:
        """Give the text as the bytes to write; bytes that were no UTF-8 come back as they were."""
        return self.render().encode("utf-8", "surrogateescape")

    def copy(self) -> Cfg:
        """Give an independent copy, its line numbers counted anew."""
        return parse(self.render(), path=self.path)


def read(path: Path) -> Cfg:
    """Read a ``.cfg`` file.

    Raises:
        UsageError: There is no such file.
        CfgError: It is no ``.cfg``, with the line.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(
            "there is no such network file",
            where=str(path),
            remedy="Give the path of a darknet .cfg, or the name of one of oiyolo's networks",
        ) from None
    return parse(data.decode("utf-8", "surrogateescape"), path=str(path))


def parse(text: str, *, path: str) -> Cfg:
    """Take a ``.cfg``'s text apart.

    Args:
        text: The text, newlines as they are.
        path: What to call it in messages.

    Raises:
        CfgError: A line is no section, option or comment (first of all: what a merge left
            behind), or the first section is not ``[net]``.
    """
    preamble: list[_Line] = []
    sections: list[Section] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = _read_line(raw + "\n", number, path)
        header = _HEADER.fullmatch(_squeezed(raw))
        if header and not line.key:
            sections.append(Section(_ALIASES.get(header[1], header[1]), path, [line]))
        elif sections:
            sections[-1]._lines.append(line)  # noqa: SLF001  (one module)
        elif line.key:
            raise CfgError(
                "this is no darknet network file",
                path=path,
                line=number,
                expected="[net] before the first option",
                found=repr(_shown(raw)),
            )
        else:
            preamble.append(line)
    # The text after the last newline is a line without one (and empty in most files).
    last = sections[-1]._lines[-1] if sections else preamble[-1]  # noqa: SLF001  (one module)
    last.text = last.text[:-1]
    if not sections or sections[0].kind != "net":
        raise CfgError(
            "this is no darknet network file",
            path=path,
            line=sections[0].line if sections else 1,
            expected="[net] as the first section",
            found=f"[{sections[0].kind}]" if sections else "no section at all",
        )
    return Cfg(path, sections, preamble)


def _read_line(text: str, number: int, path: str) -> _Line:
    """Sort one line into option or not, and refuse what is neither option, header nor comment."""
    squeezed = _squeezed(text)
    if _CONFLICT.fullmatch(text.strip()):
        raise CfgError(
            "a merge of two versions was left unfinished here",
            path=path,
            line=number,
            expected="one version of these lines",
            found=repr(_shown(text)),
            remedy="Keep one side, and take out the lines that begin with <<<<<<<, ======= "
            "and >>>>>>>",
        )
    if not squeezed or squeezed[0] in "#;" or _HEADER.fullmatch(squeezed):
        return _Line(text, number)
    key, equals, value = squeezed.partition("=")
    if not (key and equals and value) or squeezed[0] == "[":
        raise CfgError(
            "this line is no part of a darknet network file",
            path=path,
            line=number,
            expected="[section], key=value, or a comment after #",
            found=repr(_shown(text)),
        )
    return _Line(text, number, key, value)


def _squeezed(text: str) -> str:
    """Take out every blank, as darknet's ``strip`` does (src/utils.c)."""
    return re.sub(r"[ \t\r\n]", "", text)


def _shown(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _parsed_numbers(value: str) -> list[float]:
    """Read the numbers before a trailing comment, which ``atoi`` and ``atof`` do not see either."""
    parts = value.partition("#")[0].split(",")
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError(value)
    numbers = [float(part) for part in parts]
    if any(abs(number) > _LARGEST for number in numbers):
        raise ValueError(value)
    return numbers


def _meant(value: str) -> list[float] | str:
    try:
        return _parsed_numbers(value)
    except ValueError:
        return value


def _same(old: str, new: str) -> bool:
    try:
        return old == _squeezed(new) or _parsed_numbers(old) == _parsed_numbers(new)
    except ValueError:
        return False


def _spelled(value: Value) -> str:
    if isinstance(value, str):
        return value
    many: Sequence[float] = value if isinstance(value, list) else [value]
    return ",".join(f"{number:.10g}" for number in many)
