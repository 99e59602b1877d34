"""Notebooks as pages of the site: their text, their code and the outputs in their files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BACKTICKS: Final = re.compile("`{3,}")
_ESCAPE_SEQUENCE: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LOCAL_LINK: Final = re.compile(r'<a href="(?![a-z]+:)[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
"""A link to a file on the machine that ran the notebook."""
_SHELL: Final = re.compile(r"^\s*!", re.MULTILINE)


def markdown(notebook: Mapping[str, Any]) -> str:
    """Return the cells of a notebook (format 4) and their outputs as MyST."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _cell(cell)) + "\n"


def _cell(cell: Mapping[str, Any]) -> Iterator[str]:
    text = _joined(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
    elif cell["cell_type"] == "code" and text:
        yield _block("text" if _SHELL.search(text) else "python", text)
        for output in cell["outputs"]:
            yield from _output(output)


def _output(output: Mapping[str, Any]) -> Iterator[str]:
    """Yield an output in the richest of the forms that it has."""
    if "text" in output:
        yield _block("text", _ESCAPE_SEQUENCE.sub("", _joined(output["text"])))
        return
    data = output.get("data", {})
    images = [kind for kind in ("image/png", "image/jpeg") if kind in data]
    if "text/html" in data:
        text = _LOCAL_LINK.sub(r"\1", _joined(data["text/html"]))
        html = f'<div class="cell-output">{text}</div>'
        yield _block("{raw} html", html)
    elif images:
        yield f"![output](data:{images[0]};base64,{''.join(_joined(data[images[0]]).split())})"
    elif "text/plain" in data:
        yield _block("text", _joined(data["text/plain"]))


def _block(language: str, text: str) -> str:
    """Return a fenced block, whose fence is longer than any in the text."""
    fence = "`" * max([3, *(len(found) + 1 for found in _BACKTICKS.findall(text))])
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _joined(lines: str | Sequence[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)
