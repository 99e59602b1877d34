"""The base class of what stages return, and helpers that format results."""

from __future__ import annotations

import base64
import html
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


_REPR_CHARACTERS: Final = 100


class Result(ABC):
    """Base class of results: text for a person, an object for ``--json``, HTML for a notebook."""

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


def format_table(rows: Sequence[Sequence[object]], *, right: bool = True) -> str:
    """Return rows of values as text in aligned columns.

    Args:
        rows: The rows, all of the same length.
        right: Whether all columns but the first are aligned to the right.
    """
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        cells = [row[0].ljust(widths[0])]
        for text, width in zip(row[1:], widths[1:], strict=True):
            cells.append(text.rjust(width) if right else text.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def pluralize(number: int, noun: str) -> str:
    """Return the number and its noun: "1 image", "2,000 images"."""
    if number == 1:
        return f"1 {noun}"
    plural = noun + "es" if noun.endswith(("x", "ss")) else noun + "s"
    return f"{number:,} {plural}"
