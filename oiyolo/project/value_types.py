"""The types of configuration values: how each is written, parsed and checked.

A type's ``check`` takes a value from TOML or Python and returns it in the form that the program
uses. For an invalid value it raises one of ``INVALID_VALUE_ERRORS``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.net.urls import is_base_url, is_git_url

if TYPE_CHECKING:
    from collections.abc import Callable

AUTO: Final = "auto"
NETWORK_STRIDE_PX: Final = 32
"""Network sizes are multiples of this, the largest of YOLO's three strides."""
INVALID_VALUE_ERRORS: Final = (TypeError, ValueError, LookupError, OverflowError)
_MAX_TEXT_CHARACTERS: Final = 4096
"""The longest path of Linux (``PATH_MAX``); no name or URL needs more."""
_MAX_ITEMS: Final = 1000
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LARGEST_SIDE_PX: Final = 8192
_LARGEST_ANCHOR_PX: Final = 10_000
_DURATION: Final = re.compile(
    r"(?:([0-9]{1,9})d)? ?(?:([0-9]{1,9})h)? ?(?:([0-9]{1,9})m)? ?(?:([0-9]{1,9})s)?"
)
_LONGEST_DURATION_S: Final = 31 * 86_400
_FLAG_TEXTS: Final = (
    *(("true", True), ("1", True), ("yes", True)),
    *(("false", False), ("0", False), ("no", False)),
)


@dataclass(frozen=True)
class ValueType:
    """How one key's value is written, parsed and checked.

    Attributes:
        expected: What a valid value is, for error messages.
        check: Returns the value of a value from TOML or Python.
        placeholder: The metavariable for the value in a command's help.
        check_text: Returns the value of the text of an environment variable or option; ``check``
            if it is ``None``.
        is_flag: Whether the value is true or false.
        is_list: Whether the value is a list of texts.
    """

    expected: str
    check: Callable[[object], object]
    placeholder: str = "TEXT"
    check_text: Callable[[str], object] | None = None
    is_flag: bool = False
    is_list: bool = False

    def parse(self, text: str) -> object:
        """Return the value of the text of an environment variable or option."""
        return (self.check_text or self.check)(text)


def text(expected: str = "a text") -> ValueType:
    """A text that is not blank, of one line, and at most 4,096 characters long."""

    def check(value: object) -> object:
        if isinstance(value, Path):
            value = str(value)
        return _require(value, _is_text(value))

    return ValueType(expected, check)


def _is_text(value: object) -> bool:
    """Return whether a value is a text without control characters that UTF-8 can encode."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= _MAX_TEXT_CHARACTERS
        and not _CONTROLS.search(value)
    )


def path(expected: str) -> ValueType:
    """A path; ``~`` or ``~user`` must have a home folder."""
    return _matching(expected, has_home)


def has_home(text: str) -> bool:
    """Return whether ``~`` or ``~user`` at the beginning of a path can be expanded."""
    try:
        Path(text).expanduser()
    except RuntimeError:
        return False
    return True


def http_url() -> ValueType:
    """An http(s) URL that paths can be appended to."""
    return _matching("an http(s) URL with a host, without a query or ..", is_base_url)


def git_address() -> ValueType:
    """An address that git can fetch from."""
    return _matching("an http(s), ssh, git or file URL, user@host:path, or /a/path", is_git_url)


def _matching(expected: str, is_valid: Callable[[str], bool]) -> ValueType:
    inner = text(expected)

    def check(value: object) -> object:
        address = inner.check(value)
        return _require(address, is_valid(str(address)))

    return replace(inner, check=check)


def choice(*words: str) -> ValueType:
    """One of a fixed set of words."""
    expected = "one of " + ", ".join(f'"{word}"' for word in words)
    return ValueType(expected, lambda value: _require(value, value in words), "|".join(words))


def flag() -> ValueType:
    """True or false."""
    return ValueType(
        "true or false",
        lambda value: _require(value, isinstance(value, bool)),
        check_text=lambda text: dict(_FLAG_TEXTS)[text.strip().lower()],
        is_flag=True,
    )


def number(
    low: float, high: float, *, unit: str = "", whole: bool = False, or_zero: bool = False
) -> ValueType:
    """A finite number within inclusive bounds, or 0; ``whole`` accepts integers only."""
    noun = "a whole number" if whole else "a number"
    expected = f"{noun}{f' of {unit}' if unit else ''} from {low:,g} to {high:,.10g}"
    expected = f"0 or {expected}" if or_zero else expected

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(value)
        is_zero = or_zero and value == 0
        _require(value, is_zero or low <= value <= high)  # false for nan, which TOML has
        _require(value, not whole or value == int(value))
        return int(value) if whole else float(value)

    return ValueType(expected, check, "N" if whole else "NUMBER", lambda text: check(float(text)))


def count(low: int = 0, *, high: int) -> ValueType:
    """A whole number with inclusive bounds."""
    return number(low, high, whole=True)


def duration() -> ValueType:
    """A duration in seconds, minutes, hours and days, such as "6h"; ``duration_s`` reads it."""
    inner = text('a duration such as "90m", "6h" or "1h 30m", of 31 days at most')

    def check(value: object) -> str:
        words = " ".join(str(inner.check(value)).split())
        _require(value, 0 < duration_s(words) <= _LONGEST_DURATION_S)
        return words

    return replace(inner, check=check, placeholder="DURATION")


def duration_s(text: str) -> int:
    """Return the seconds of a duration such as "6h" or "1h 30m".

    Raises:
        ValueError: The text is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(text)
    counts = (int(digits or 0) for digits in match.groups())
    return sum(n * s for n, s in zip(counts, (86_400, 3600, 60, 1), strict=True))


def words(expected: str, choices: tuple[str, ...] = (), *, allow_empty: bool = False) -> ValueType:
    """A list of texts without repetitions; in the environment separated by commas, or in JSON.

    Args:
        expected: What a valid value is, for error messages.
        choices: The allowed texts; empty for any text that is not blank.
        allow_empty: Whether the list may be empty.
    """

    def check(value: object) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not (items or allow_empty):
            raise TypeError(value)
        _require(value, len(items) <= _MAX_ITEMS)
        for item in items:
            _require(item, _is_text(item))
            _require(item, not choices or item in choices)
        return tuple(dict.fromkeys(item.strip() for item in items))

    def check_text(text: str) -> tuple[str, ...]:
        if text.lstrip().startswith("["):
            return check(_from_json(text))
        return check([word for word in text.split(",") if word.strip()])

    return ValueType(expected, check, check_text=check_text, is_list=True)


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(text) from None


def width_height() -> ValueType:
    """Width and height in pixels, multiples of ``NETWORK_STRIDE_PX``."""

    def check(value: object) -> tuple[int, int]:
        sides = value.lower().replace("x", ",").split(",") if isinstance(value, str) else value
        if not isinstance(sides, (list, tuple)):
            raise TypeError(value)
        _require(value, all(isinstance(side, (int, str)) for side in sides))
        width, height = (int(side) for side in sides)
        is_multiple = not (width % NETWORK_STRIDE_PX or height % NETWORK_STRIDE_PX)
        _require(value, is_multiple and min(width, height) >= NETWORK_STRIDE_PX)
        _require(value, max(width, height) <= _LARGEST_SIDE_PX)
        return width, height

    expected = (
        f"a width and height from {NETWORK_STRIDE_PX} to {_LARGEST_SIDE_PX:,} that are multiples "
        f'of {NETWORK_STRIDE_PX}, such as [416, 416] or "416x416"'
    )
    return ValueType(expected, check, "WIDTHxHEIGHT")


def anchor_sizes(*names: str) -> ValueType:
    """The name of a choice of anchors, or a list of widths and heights in pixels."""

    def check(value: object) -> object:
        if value in names:
            return value
        sides = value.split(",") if isinstance(value, str) else value
        if not isinstance(sides, (list, tuple)):
            raise TypeError(value)
        sizes = tuple(float(side) for side in sides)
        _require(value, 0 < len(sizes) <= _MAX_ITEMS and len(sizes) % 2 == 0)
        _require(value, all(0 < side <= _LARGEST_ANCHOR_PX for side in sizes))
        return sizes

    quoted = ", ".join(f'"{name}"' for name in names)
    expected = f"{quoted}, or widths and heights such as [10, 13, 16, 30]"
    return ValueType(expected, check, "|".join((*names, "W,H,W,H...")))


def capabilities() -> ValueType:
    """CUDA compute capabilities: "8.6", "86" or "75;86" becomes ("75", "86")."""

    def check(value: object) -> tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or len(texts) > _MAX_ITEMS:
            raise TypeError(value)
        words = [word for text in texts for word in str(text).replace(";", ",").split(",")]
        numbers = [word.strip().removeprefix("sm_").removeprefix("compute_") for word in words]
        _require(value, len(numbers) <= _MAX_ITEMS)
        _require(value, all(re.fullmatch(r"\d{1,2}\.\d|\d{2,3}", number) for number in numbers))
        return tuple(dict.fromkeys(number.replace(".", "") for number in numbers))

    return ValueType('compute capabilities of GPUs, such as "8.6" or "75;86"', check)


def or_auto(inner: ValueType) -> ValueType:
    """A value of another type, or the word "auto"."""
    return replace(
        inner,
        expected=f'"auto" or {inner.expected}',
        check=lambda value: AUTO if value == AUTO else inner.check(value),
        check_text=lambda text: AUTO if text == AUTO else inner.parse(text),
    )


def or_none(inner: ValueType) -> ValueType:
    """A value of another type, or none (the key is absent or empty)."""
    return replace(
        inner,
        expected=f"{inner.expected}, or nothing",
        check=lambda value: None if value is None or value == "" else inner.check(value),
        check_text=lambda text: None if text == "" else inner.parse(text),
    )


def _require(value: object, is_valid: bool) -> object:
    """Return the value if it is valid, else raise ``ValueError``."""
    if not is_valid:
        raise ValueError(value)
    return value
