"""What a stage returns: an object that a person, a notebook and ``--json`` can each read."""

from __future__ import annotations

import base64
import html
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


class Result(ABC):
    """The base: a text for a person, an object for ``--json``, a table for a notebook."""

    @abstractmethod
    def as_dict(self) -> dict[str, object]:
        """Give the result as JSON knows it."""

    @abstractmethod
    def __str__(self) -> str: ...

    def _repr_html_(self) -> str:
        # Some notebook pages give <pre> a proportional font.
        return f'<pre style="font-family: monospace">{html.escape(str(self))}</pre>'


@dataclass(frozen=True)
class Plan(Result):
    """What a command would do (``--dry-run``); nothing was changed.

    Attributes:
        command: The command.
        actions: What it would do, in order, in words; empty means nothing.
        facts: The same as values.
    """

    command: str
    actions: Sequence[str]
    facts: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {"command": self.command, "would": list(self.actions), **self.facts}

    def __str__(self) -> str:
        if not self.actions:
            return f"{self.command}: nothing to do"
        return "\n".join(f"{self.command} would {action}" for action in self.actions)


def data_url(path: Path) -> str:
    """Give a picture's file as a URL that holds it, so that a page needs no other file."""
    kind = {".png": "png", ".jpg": "jpeg"}[path.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def shown(pictures: Iterable[Path]) -> str:
    """Give pictures as HTML for a notebook."""
    return "".join(
        f'<img alt="{html.escape(path.stem)}" style="max-width:100%" src="{data_url(path)}">'
        for path in pictures
    )


def columns(rows: Sequence[Sequence[object]], *, right: bool = True) -> str:
    """Lay rows of values out in aligned columns: the first to the left, the others to the right."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        cells = [row[0].ljust(widths[0])]
        for text, width in zip(row[1:], widths[1:], strict=True):
            cells.append(text.rjust(width) if right else text.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def count(number: int, noun: str) -> str:
    """Give "1 image", "2,000 images"."""
    if number == 1:
        return f"1 {noun}"
    plural = noun + "es" if noun.endswith(("x", "ss")) else noun + "s"
    return f"{number:,} {plural}"
