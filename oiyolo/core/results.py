"""The base class of what stages return, and helpers that format results."""

from __future__ import annotations

import base64
import html
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from PIL import Image


TERMINAL_WIDTH: Final = 80
"""Columns that tables and texts for people fit into."""
_REPR_CHARACTERS: Final = 100
_MIN_NAME: Final = 8
_NOTEBOOK_WH: Final = (900, 1800)
"""Maximum size of a picture in a notebook, in pixels."""
_CHART_COLOURS: Final = 64
_CHART_MIN_BACKGROUND: Final = 0.4
"""Share of the pixels that have the colour of the background, which a photograph does not have."""
_SAMPLE_PX: Final = 200
_JPEG: Final = {"quality": 72, "optimize": True}


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
        text = str(self)
        return _block(text) if "\n" in text else text_html(text)


@dataclass(frozen=True)
class Plan(Result):
    """What a command would do: the result of ``--dry-run``, which changes nothing.

    Attributes:
        command: Name of the command.
        actions: What it would do, in order, in words; empty if there is nothing to do.
        facts: Further values for ``--json``.
        table: A heading and rows, which a notebook shows in place of further lines of an action.
    """

    command: str
    actions: Sequence[str]
    facts: Mapping[str, object] = field(default_factory=dict)
    table: Sequence[Sequence[str]] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the command, its actions and the facts as JSON-compatible values."""
        return {"command": self.command, "would": list(self.actions), **self.facts}

    def __str__(self) -> str:
        if not self.actions:
            return f"{self.command}: nothing to do"
        return "\n".join(f"{self.command} would {action}" for action in self.actions)

    def _repr_html_(self) -> str:
        if not self.actions:
            return super()._repr_html_()
        lines = (action.partition("\n") for action in self.actions)
        items = (
            html.escape(first) + (_block(rest) if rest and not self.table else "")
            for first, _, rest in lines
        )
        listed = "".join(f"<li>{item}</li>" for item in items)
        table = table_html(self.table, right=False) if self.table else ""
        return f"{text_html(f'{self.command} would')}<ul>{listed}</ul>{table}"


def _block(text: str) -> str:
    """Return lines of text as HTML that keeps their columns."""
    # Some notebook front ends show <pre> in a proportional font.
    return f'<pre style="font-family: monospace">{html.escape(text)}</pre>'


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that a notebook shows; it takes little space in the notebook's file.

    Attributes:
        image: The picture.
        title: What it shows.
    """

    image: Image.Image
    title: str

    @classmethod
    def open(cls, path: Path) -> Picture:
        """Return the picture in a file.

        Raises:
            OSError: The file is missing or no picture.
        """
        from PIL import Image  # noqa: PLC0415  (only where pictures are shown)

        with Image.open(path) as image:
            return cls(image.convert("RGB"), path.stem.replace("_", " "))

    @classmethod
    def of(cls, figure: Any, title: str = "chart") -> Picture:  # noqa: ANN401  (matplotlib's)
        """Return a figure of matplotlib as a picture."""
        from PIL import Image  # noqa: PLC0415  (only where pictures are shown)

        file = io.BytesIO()
        figure.savefig(file, format="png")
        with Image.open(file) as image:
            return cls(image.convert("RGB"), title)

    @property
    def html(self) -> str:
        """The picture as HTML, without reference to a file."""
        kind, content = self._encoded()
        alt = html.escape(self.title)
        return f'<p><img alt="{alt}" style="max-width:100%" src="data:{kind};base64,{content}"></p>'

    def __repr__(self) -> str:
        return f"<Picture: {self.title}, {self.image.width}x{self.image.height}>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        kind, content = self._encoded()
        return {"text/plain": repr(self), kind: content}

    def _encoded(self) -> tuple[str, str]:
        """Return media type and content in base64: PNG for a chart, JPEG for a photograph."""
        small, file = self.image.convert("RGB"), io.BytesIO()
        small.thumbnail(_NOTEBOOK_WH)
        sample = small.resize((_SAMPLE_PX, _SAMPLE_PX), resample=0)  # the nearest pixels
        background = max(count for count, _ in sample.getcolors(_SAMPLE_PX**2) or [(0, 0)])
        is_chart = background >= _CHART_MIN_BACKGROUND * _SAMPLE_PX**2
        if is_chart:
            small.quantize(_CHART_COLOURS).save(file, "PNG", optimize=True)
        else:
            small.save(file, "JPEG", **_JPEG)
        kind = "image/png" if is_chart else "image/jpeg"
        return kind, base64.b64encode(file.getvalue()).decode()


def find_picture(paths: Iterable[Path], name: str) -> Picture:
    """Return the picture with a name among the pictures of a result.

    Raises:
        UsageError: There is no such picture.
    """
    by_name = {path.stem: path for path in paths if path.suffix in {".png", ".jpg"}}
    if name not in by_name:
        names = ", ".join(sorted(by_name)) or "none"
        raise UsageError("there is no such picture", expected=f"one of {names}", found=name)
    return Picture.open(by_name[name])


def data_url(path: Path) -> str:
    """Return an image file as a ``data:`` URL, so that a page needs no other file."""
    kind = {".png": "png", ".jpg": "jpeg"}[path.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def images_html(paths: Iterable[Path]) -> str:
    """Return image files as HTML for a notebook."""
    return "".join(Picture.open(path).html for path in paths)


def text_html(*lines: str) -> str:
    """Return lines of text as a paragraph of HTML; empty if all are."""
    text = "<br>".join(html.escape(line) for line in lines if line)
    return f"<p>{text}</p>" if text else ""


def table_html(rows: Sequence[Sequence[object]], *, right: bool = True) -> str:
    """Return rows of values as an HTML table; empty if there is only the heading.

    Args:
        rows: The heading, then the rows, all of the same length.
        right: Whether all columns but the first are aligned to the right.
    """
    heading, *body = ([html.escape(str(value)) for value in row] for row in rows)
    if not body:
        return ""
    sides = ["left"] + ["right" if right else "left"] * (len(heading) - 1)

    def line(tag: str, cells: Sequence[str]) -> str:
        parts = (
            f'<{tag} align="{side}" style="text-align:{side}">{cell}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(parts)}</tr>"

    lines = "".join(line("td", row) for row in body)
    return f"<table><thead>{line('th', heading)}</thead><tbody>{lines}</tbody></table>"


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
