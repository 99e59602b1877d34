"""The base class of what stages return, and helpers that format results."""

from __future__ import annotations

import base64
import html
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


TERMINAL_WIDTH: Final = 80
"""Columns that tables and texts for people fit into."""
_REPR_CHARACTERS: Final = 100
_MIN_NAME: Final = 8


class Result(ABC):
    """Base class of results: text for a person, an object for ``--json``, HTML for a notebook.

    Attributes:
        shown_if_quiet: Whether the command line prints the text although ``--quiet`` is set.
    """

    shown_if_quiet: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Set here, or dataclass() would generate one that prints whole tables.
        cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        text = f"<{type(self).__name__}: {str(self).partition(chr(10))[0]}"
        return text + ">" if len(text) < _REPR_CHARACTERS else text[: _REPR_CHARACTERS - 2] + "…>"

    @abstractmethod
    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""

    @abstractmethod
    def __str__(self) -> str: ...

    def _repr_html_(self) -> str:
        # Some notebook front ends show <pre> in a proportional font.
        return f'<pre style="font-family: monospace">{html.escape(str(self))}</pre>'


@dataclass(frozen=True)
class Plan(Result):
    """What a command would do: the result of ``--dry-run``, which changes nothing.

    Attributes:
        command: Name of the command.
        actions: What it would do, in order, in words; empty if there is nothing to do.
        facts: Further values for ``--json``.
    """

    command: str
    actions: Sequence[str]
    facts: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the command, its actions and the facts as JSON-compatible values."""
        return {"command": self.command, "would": list(self.actions), **self.facts}

    def __str__(self) -> str:
        if not self.actions:
            return f"{self.command}: nothing to do"
        return "\n".join(f"{self.command} would {action}" for action in self.actions)


def data_url(path: Path) -> str:
    """Return an image file as a ``data:`` URL, so that a page needs no other file."""
    kind = {".png": "png", ".jpg": "jpeg"}[path.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def images_html(paths: Iterable[Path]) -> str:
    """Return image files as HTML for a notebook."""
    return "".join(
        f'<img alt="{html.escape(path.stem)}" style="max-width:100%" src="{data_url(path)}">'
        for path in paths
    )


def format_table(
    rows: Sequence[Sequence[object]], *, right: bool = True, max_width: int | None = None
) -> str:
    """Return rows of values as text in aligned columns.

    Args:
        rows: The rows, all of the same length.
        right: Whether all columns but the first are aligned to the right.
        max_width: Width that the lines should have at most; names in the first column are cut.
    """
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    if max_width is not None:
        widths[0] = min(widths[0], max(_MIN_NAME, max_width - sum(n + 2 for n in widths[1:])))
        for row in texts:
            row[0] = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
    lines = []
    for row in texts:
        cells = [row[0].ljust(widths[0])]
        for text, width in zip(row[1:], widths[1:], strict=True):
            cells.append(text.rjust(width) if right else text.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_value(value: object) -> str:
    """Return an option's value for a message: a list as "a, b", ``None`` as "nothing"."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value)) or "an empty list"
    if value is None or value == "":
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def pluralize(number: int, noun: str) -> str:
    """Return the number and its noun: "1 image", "2,000 images"."""
    if number == 1:
        return f"1 {noun}"
    plural = noun + "es" if noun.endswith(("x", "ss")) else noun + "s"
    return f"{number:,} {plural}"
