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
    """A value that a kind does not take; its text says what it would take."""


@dataclass(frozen=True)
class Kind(ABC):
    """How one key's value is written, read and checked."""

    described: str

    @property
    def placeholder(self) -> str:
        """What stands for the value in a command's help."""
        return "TEXT"

    @abstractmethod
    def check(self, value: object) -> object:
        """Give the value as the program uses it, from TOML or Python; ``WrongValueError`` else."""

    def parse(self, text: str) -> object:
        """Give the value from the text of an environment variable or option."""
        return self.check(text)

    def reject(self) -> WrongValueError:
        """Give the error that says what would be taken."""
        return WrongValueError(self.described)


@dataclass(frozen=True)
class Text(Kind):
    """Any text that is not empty."""

    described: str = "a text"

    def check(self, value: object) -> str:
        """See ``Kind``."""
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.reject()
        return value


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    described: str = ""
    words: tuple[str, ...] = ()

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "|".join(self.words)

    def check(self, value: object) -> str:
        """See ``Kind``."""
        if not isinstance(value, str) or value not in self.words:
            raise self.reject()
        return value


@dataclass(frozen=True)
class Flag(Kind):
    """Yes or no."""

    described: str = "true or false"

    def check(self, value: object) -> bool:
        """See ``Kind``."""
        if not isinstance(value, bool):
            raise self.reject()
        return value

    def parse(self, text: str) -> bool:
        """See ``Kind``."""
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.strip().lower() not in words:
            raise self.reject()
        return words[text.strip().lower()]


@dataclass(frozen=True)
class Number(Kind):
    """A number between two bounds, whole or not."""

    described: str = ""
    whole: bool = False
    low: float = 0.0
    high: float = float("inf")

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "N" if self.whole else "NUMBER"

    def check(self, value: object) -> float:
        """See ``Kind``."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.reject()
        if not math.isfinite(value):  # TOML knows nan and inf
            raise self.reject()
        if (self.whole and value != int(value)) or not self.low <= value <= self.high:
            raise self.reject()
        return int(value) if self.whole else float(value)

    def parse(self, text: str) -> float:
        """See ``Kind``."""
        try:
            return self.check(float(text))
        except (ValueError, OverflowError):
            raise self.reject() from None


@dataclass(frozen=True)
class Words(Kind):
    """A list of texts, one or more; in the environment they stand between commas."""

    described: str = "a list of texts"
    choices: tuple[str, ...] = ()
    may_be_empty: bool = False

    def check(self, value: object) -> tuple[str, ...]:
        """See ``Kind``."""
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)) or not (value or self.may_be_empty):
            raise self.reject()
        words = []
        for word in value:
            if not isinstance(word, str) or not word.strip():
                raise self.reject()
            if self.choices and word not in self.choices:
                raise self.reject()
            words.append(word.strip())
        return tuple(dict.fromkeys(words))

    def parse(self, text: str) -> tuple[str, ...]:
        """See ``Kind``."""
        return self.check([word for word in text.split(",") if word.strip()])


@dataclass(frozen=True)
class SizeWh(Kind):
    """Width and height in pixels, multiples of 32 as YOLO's three strides ask."""

    described: str = 'a width and height that 32 divides, as [416, 416] or "416x416"'

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "WIDTHxHEIGHT"

    def check(self, value: object) -> tuple[int, int]:
        """See ``Kind``."""
        if isinstance(value, str):
            value = value.lower().replace("x", ",").split(",")
        if not isinstance(value, (list, tuple)) or len(value) != 2:  # noqa: PLR2004
            raise self.reject()
        if not all(isinstance(side, (int, str)) for side in value):
            raise self.reject()
        try:
            width, height = (int(side) for side in value)
        except ValueError:
            raise self.reject() from None
        if min(width, height) < NETWORK_STRIDE_PX or width % 32 or height % 32:
            raise self.reject()
        return width, height


@dataclass(frozen=True)
class Anchors(Kind):
    """Whose anchors, or a list of widths and heights in pixels."""

    described: str = '"auto", "own", "stock", or widths and heights as [10, 13, 16, 30]'
    words: tuple[str, ...] = (AUTO, "own", "stock")

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "|".join((*self.words, "W,H,W,H..."))

    def check(self, value: object) -> object:
        """See ``Kind``."""
        if isinstance(value, str):
            if value in self.words:
                return value
            value = value.split(",")
        if not isinstance(value, (list, tuple)) or not value or len(value) % 2:
            raise self.reject()
        try:
            sizes = tuple(float(side) for side in value)
        except (TypeError, ValueError):
            raise self.reject() from None
        if not all(0 < side <= _LARGEST_ANCHOR_PX for side in sizes):
            raise self.reject()
        return sizes


@dataclass(frozen=True)
class Capabilities(Kind):
    """Compute capabilities of GPUs, given as "8.6", "86" or "75;86"; kept as ("75", "86")."""

    described: str = 'compute capabilities of GPUs, such as "8.6" or "75;86"'

    def check(self, value: object) -> tuple[str, ...]:
        """See ``Kind``."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)):
            raise self.reject()
        words = [word for text in texts for word in str(text).replace(";", ",").split(",")]
        numbers = [word.strip().removeprefix("sm_").removeprefix("compute_") for word in words]
        if not all(re.fullmatch(r"\d{1,2}\.\d|\d{2,3}", number) for number in numbers):
            raise self.reject()
        return tuple(dict.fromkeys(number.replace(".", "") for number in numbers))


@dataclass(frozen=True)
class OrAuto(Kind):
    """Another kind, or the word "auto"."""

    described: str = ""
    kind: Kind = field(default_factory=Text)

    def check(self, value: object) -> object:
        """See ``Kind``."""
        return AUTO if value == AUTO else self.kind.check(value)

    def parse(self, text: str) -> object:
        """See ``Kind``."""
        return AUTO if text == AUTO else self.kind.parse(text)


@dataclass(frozen=True)
class Maybe(Kind):
    """Another kind, or nothing at all (the key is left out, or empty)."""

    described: str = ""
    kind: Kind = field(default_factory=Text)

    def check(self, value: object) -> object:
        """See ``Kind``."""
        return None if value is None or value == "" else self.kind.check(value)

    def parse(self, text: str) -> object:
        """See ``Kind``."""
        return None if text == "" else self.kind.parse(text)
