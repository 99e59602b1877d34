"""The exceptions that oiyolo raises, and the exit code of the command line for each.

::

    OiyoloError              1   unexpected
    ├── UsageError           2   wrong usage or configuration
    ├── InputFormError       3   invalid input, or too many bad items in it
    ├── UnavailableError     4   cannot be fetched, or does not fit on the disk
    ├── DarknetError         5   darknet is missing, cannot be built, or failed
    └── LockedError          6   locked by another process

An interrupt (Ctrl-C) is Python's own ``KeyboardInterrupt``; its exit code is 130.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERRUPTED_EXIT_CODE = 130
_MAX_PART = 1000
_SHOWN_HEAD, _SHOWN_TAIL = 300, 100


def shorten(text: str) -> str:
    """Return a text for a message: the beginning and the end of one that is very long."""
    if len(text) <= _MAX_PART:
        return text
    length = f"{len(text):,} characters"
    return f"{text[:_SHOWN_HEAD]} ... ({length}) ... {text[-_SHOWN_TAIL:]}"


class OiyoloError(Exception):
    """Base class: what failed, where, what was expected, what was found, what to do next.

    Args:
        what: What failed, and on which value; a sentence without its full stop.
        where: A path, a path with a line number, or a URL.
        expected: What would have been valid.
        found: What was there instead.
        remedy: What the user can do next; a sentence without its full stop.

    ``str()`` returns one short paragraph. The parts are also attributes, so that ``--json`` can
    print them separately. A very long part is shortened (``shorten``).
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        found: str = "",
        remedy: str = "",
    ) -> None:
        self.what = shorten(what)
        self.where = shorten(where)
        self.expected = shorten(expected)
        self.found = shorten(found)
        self.remedy = shorten(remedy)
        super().__init__(self.what)  # pickle calls the class with args, then restores __dict__

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        details = [f"expected {self.expected}"] if self.expected else []
        if self.found:
            details.append(f"found {self.found}")
        sentences = [head + (": " + ", ".join(details) if details else "")]
        if self.remedy:
            sentences.append(self.remedy)
        return " ".join(s if s.endswith((".", "?", "!", "\n")) else s + "." for s in sentences)

    def as_dict(self) -> dict[str, str]:
        """Return the parts that are not empty, for ``--json``."""
        parts = {
            "error": self.what,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "remedy": self.remedy,
        }
        return {key: text for key, text in parts.items() if text}


class UsageError(OiyoloError):
    """An invalid option, key, value or order of commands."""

    exit_code = 2


class InputFormError(OiyoloError):
    """A file has an invalid format, or too many bad items."""

    exit_code = 3


class NewerVersionError(InputFormError):
    """A file has a form that only a newer version of oiyolo knows; it must not be overwritten."""


class UnavailableError(OiyoloError):
    """Something cannot be fetched (network, too many images missing) or does not fit (disk)."""

    exit_code = 4


class DarknetError(OiyoloError):
    """Darknet is missing, cannot be built, or did not do what it was asked to do."""

    exit_code = 5


class LockedError(OiyoloError):
    """Another process is writing to the same dataset or run."""

    exit_code = 6


def error_of(parts: Mapping[str, object], exit_code: int) -> OiyoloError:
    """Return the error of another oiyolo process.

    Args:
        parts: What it printed with ``--json``.
        exit_code: Its exit code.
    """
    classes = {error.exit_code: error for error in OiyoloError.__subclasses__()}
    details = {name: str(parts.get(name, "")) for name in ("where", "expected", "found", "remedy")}
    return classes.get(exit_code, OiyoloError)(str(parts.get("error", "")), **details)
