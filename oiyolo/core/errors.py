"""Every way oiyolo says no, and the exit code the command line gives for it.

::

    OiyoloError              1   unexpected
    ├── UsageError           2   usage or configuration
    ├── InputFormError       3   input in a wrong form, or too many bad items
    ├── UnavailableError     4   cannot be fetched, or does not fit on the disk
    ├── DarknetError         5   darknet: not found, build, run
    └── LockedError          6   another run holds the lock

An interrupt is Python's own ``KeyboardInterrupt`` and ends in 130.
"""

from __future__ import annotations

INTERRUPTED_EXIT_CODE = 130


class OiyoloError(Exception):
    """The root: what failed, where, what was expected, what was found, what to do next.

    Args:
        what: What failed, with the value it failed on. A sentence without its full stop.
        where: A path, path and line, or URL.
        expected: What would have been right.
        found: What was there instead.
        remedy: What the user can do next. A sentence without its full stop.

    ``str()`` of it is one short paragraph; the parts stay readable as attributes, so that
    ``--json`` can hand them on.
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
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(what)  # so that pickle, which hands on the rest, can make it again

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        facts = [f"expected {self.expected}"] if self.expected else []
        if self.found:
            facts.append(f"found {self.found}")
        sentences = [head + (": " + ", ".join(facts) if facts else "")]
        if self.remedy:
            sentences.append(self.remedy)
        return " ".join(s if s.endswith((".", "?", "!", "\n")) else s + "." for s in sentences)

    def as_dict(self) -> dict[str, str]:
        """Give the parts that are not empty, for ``--json``."""
        parts = {
            "error": self.what,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "remedy": self.remedy,
        }
        return {key: text for key, text in parts.items() if text}


class UsageError(OiyoloError):
    """A wrong option, key, value or order of commands."""

    exit_code = 2


class InputFormError(OiyoloError):
    """A file that is not in the form it should have, or too many bad items in it."""

    exit_code = 3


class UnavailableError(OiyoloError):
    """Something cannot be fetched (network, too many images missing) or does not fit (disk)."""

    exit_code = 4


class DarknetError(OiyoloError):
    """Darknet was not found, could not be built, or did not do what it was told."""

    exit_code = 5


class LockedError(OiyoloError):
    """Another run is writing to the same dataset or training run."""

    exit_code = 6
