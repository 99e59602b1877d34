"""The types of configuration values: how each is written, parsed and checked."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

AUTO: Final = "auto"
NETWORK_STRIDE_PX: Final = 32
_LARGEST_ANCHOR_PX: Final = 10_000


class WrongValueError(ValueError):
    """A value of the wrong type or out of bounds; its text says what is expected."""


@dataclass(frozen=True)
class ValueType(ABC):
    """How one key's value is written, parsed and checked.

    Attributes:
        expected: What a valid value is, for error messages.
    """

    expected: str

    @property
    def placeholder(self) -> str:
        """The metavariable for the value in a command's help."""
        return "TEXT"

    @abstractmethod
    def check(self, value: object) -> object:
        """Return a value from TOML or Python in the form that the program uses.

        Raises:
            WrongValueError: The value is of the wrong type or out of bounds.
        """

    def parse(self, text: str) -> object:
        """Return the value of the text of an environment variable or option."""
        return self.check(text)

    def error(self) -> WrongValueError:
        """Return the error that says what is expected."""
        return WrongValueError(self.expected)


@dataclass(frozen=True)
class Text(ValueType):
    """Any text that is not blank."""

    expected: str = "a text"

    def check(self, value: object) -> str:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.error()
        return value


@dataclass(frozen=True)
class Choice(ValueType):
    """One of a fixed set of words."""

    expected: str = ""
    words: tuple[str, ...] = ()

    @property
    def placeholder(self) -> str:
        """The metavariable for the value in a command's help."""
        return "|".join(self.words)

    def check(self, value: object) -> str:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        if not isinstance(value, str) or value not in self.words:
            raise self.error()
        return value


@dataclass(frozen=True)
class Flag(ValueType):
    """True or false."""

    expected: str = "true or false"

    def check(self, value: object) -> bool:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        if not isinstance(value, bool):
            raise self.error()
        return value

    def parse(self, text: str) -> bool:
        """Return the value of a text; raise ``WrongValueError`` if it is invalid."""
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.strip().lower() not in words:
            raise self.error()
        return words[text.strip().lower()]


@dataclass(frozen=True)
class Number(ValueType):
    """A number within inclusive bounds; ``whole`` accepts integers only."""

    expected: str = ""
    whole: bool = False
    low: float = 0.0
    high: float = float("inf")

    @property
    def placeholder(self) -> str:
        """The metavariable for the value in a command's help."""
        return "N" if self.whole else "NUMBER"

    def check(self, value: object) -> float:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error()
        if not math.isfinite(value):  # TOML has nan and inf
            raise self.error()
        if (self.whole and value != int(value)) or not self.low <= value <= self.high:
            raise self.error()
        return int(value) if self.whole else float(value)

    def parse(self, text: str) -> float:
        """Return the value of a text; raise ``WrongValueError`` if it is invalid."""
        try:
            return self.check(float(text))
        except (ValueError, OverflowError):
            raise self.error() from None


@dataclass(frozen=True)
class Words(ValueType):
    """A list of texts; separated by commas in the environment."""

    expected: str = "a list of texts"
    choices: tuple[str, ...] = ()
    allow_empty: bool = False

    def check(self, value: object) -> tuple[str, ...]:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)) or not (value or self.allow_empty):
            raise self.error()
        words = []
        for word in value:
            if not isinstance(word, str) or not word.strip():
                raise self.error()
            if self.choices and word not in self.choices:
                raise self.error()
            words.append(word.strip())
        return tuple(dict.fromkeys(words))

    def parse(self, text: str) -> tuple[str, ...]:
        """Return the value of a text; raise ``WrongValueError`` if it is invalid."""
        return self.check([word for word in text.split(",") if word.strip()])


@dataclass(frozen=True)
class SizeWh(ValueType):
    """Width and height in pixels, multiples of 32: the largest of YOLO's three strides."""

    expected: str = 'a width and height that are multiples of 32, such as [416, 416] or "416x416"'

    @property
    def placeholder(self) -> str:
        """The metavariable for the value in a command's help."""
        return "WIDTHxHEIGHT"

    def check(self, value: object) -> tuple[int, int]:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        if isinstance(value, str):
            value = value.lower().replace("x", ",").split(",")
        if not isinstance(value, (list, tuple)) or len(value) != 2:  # noqa: PLR2004
            raise self.error()
        if not all(isinstance(side, (int, str)) for side in value):
            raise self.error()
        try:
            width, height = (int(side) for side in value)
        except ValueError:
            raise self.error() from None
        if min(width, height) < NETWORK_STRIDE_PX or width % 32 or height % 32:
            raise self.error()
        return width, height


@dataclass(frozen=True)
class Anchors(ValueType):
    """Which anchors to use, or a list of widths and heights in pixels."""

    expected: str = '"auto", "own", "stock", or widths and heights such as [10, 13, 16, 30]'
    words: tuple[str, ...] = (AUTO, "own", "stock")

    @property
    def placeholder(self) -> str:
        """The metavariable for the value in a command's help."""
        return "|".join((*self.words, "W,H,W,H..."))

    def check(self, value: object) -> object:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        if isinstance(value, str):
            if value in self.words:
                return value
            value = value.split(",")
        if not isinstance(value, (list, tuple)) or not value or len(value) % 2:
            raise self.error()
        try:
            sizes = tuple(float(side) for side in value)
        except (TypeError, ValueError):
            raise self.error() from None
        if not all(0 < side <= _LARGEST_ANCHOR_PX for side in sizes):
            raise self.error()
        return sizes


@dataclass(frozen=True)
class Capabilities(ValueType):
    """CUDA compute capabilities: "8.6", "86" or "75;86" becomes ("75", "86")."""

    expected: str = 'compute capabilities of GPUs, such as "8.6" or "75;86"'

    def check(self, value: object) -> tuple[str, ...]:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)):
            raise self.error()
        words = [word for text in texts for word in str(text).replace(";", ",").split(",")]
        numbers = [word.strip().removeprefix("sm_").removeprefix("compute_") for word in words]
        if not all(re.fullmatch(r"\d{1,2}\.\d|\d{2,3}", number) for number in numbers):
            raise self.error()
        return tuple(dict.fromkeys(number.replace(".", "") for number in numbers))


@dataclass(frozen=True)
class OrAuto(ValueType):
    """A value of another type, or the word "auto"."""

    expected: str = ""
    value_type: ValueType = field(default_factory=Text)

    def check(self, value: object) -> object:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        return AUTO if value == AUTO else self.value_type.check(value)

    def parse(self, text: str) -> object:
        """Return the value of a text; raise ``WrongValueError`` if it is invalid."""
        return AUTO if text == AUTO else self.value_type.parse(text)


@dataclass(frozen=True)
class OrNone(ValueType):
    """A value of another type, or none (the key is absent or empty)."""

    expected: str = ""
    value_type: ValueType = field(default_factory=Text)

    def check(self, value: object) -> object:
        """Return the checked value; raise ``WrongValueError`` if it is invalid."""
        return None if value is None or value == "" else self.value_type.check(value)

    def parse(self, text: str) -> object:
        """Return the value of a text; raise ``WrongValueError`` if it is invalid."""
        return None if text == "" else self.value_type.parse(text)
