"""Show texts of strangers, such as titles and names, in Markdown and CSV, as nothing but text.

A title on Flickr may contain HTML, Markdown, line breaks, or a formula that a spreadsheet computes.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_INVISIBLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]+")
"""Control characters, line separators, changes of the writing direction, and halves of characters.

The joiners within emoji and Persian words are not among them.
"""
_MARKDOWN: Final = re.compile(r"[\\`*_{}\[\]()#+.!-]")
"""The characters that a backslash escapes in every kind of Markdown."""
_EXTENSIONS: Final = re.compile(r"[&<>|~$@]|:(?=\S)")
"""Characters of HTML and of extensions, such as GitHub's tables, addresses and formulas."""
_FORMULA_STARTS: Final = ("=", "+", "-", "@")
_URL: Final = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)
_URL_CHARACTERS: Final = "%/:?#[]@!$&'*+,;=~-._"
_SAFE_URL: Final = re.compile(r"https?://\w[\w%/:?#\[\]@!$&'*+,;=~.-]*", re.ASCII)


def one_line(text: str) -> str:
    """Return a text on one line, without invisible characters.

    Open Images' tables have characters such as quotes as HTML entities; these are replaced.
    """
    if not text.isprintable() or "&" in text:
        text = _INVISIBLE.sub(" ", html.unescape(text))
    return " ".join(text.split())


def in_markdown(text: str) -> str:
    """Return Markdown that shows a text as it is, within a line."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", one_line(text))
    return _EXTENSIONS.sub(lambda match: f"&#{ord(match[0])};", escaped)


def in_csv(text: str) -> str:
    """Return a text for a CSV field, which no spreadsheet takes for a formula.

    An apostrophe before the text is what spreadsheets themselves put there for that purpose
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    line = one_line(text)
    return f"'{line}" if line.startswith(_FORMULA_STARTS) else line


def web_url(text: str) -> str:
    """Return an http(s) URL with every unsafe character escaped; empty for any other text."""
    url = text.strip()
    if _SAFE_URL.fullmatch(url):
        return url
    if not _URL.fullmatch(url) or _INVISIBLE.search(url):
        return ""
    return quote(url, safe=_URL_CHARACTERS)


def link(text: str, url: str) -> str:
    """Return a Markdown link; the text alone if the URL is not one of the web."""
    target = web_url(url)
    shown = in_markdown(text)
    return f"[{shown}]({target})" if target else shown


def bullets(lines: Iterable[str]) -> str:
    """Return a Markdown list of lines in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def front_matter(fields: Mapping[str, object], *comments: str) -> str:
    """Return the block of metadata at the beginning of a Markdown file.

    Args:
        fields: JSON-compatible values; as JSON they are YAML, whatever a text contains.
        comments: Lines of YAML to put before them.
    """
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *comments, *lines, "---"])


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; columns of whole numbers are aligned to the right.

    Args:
        header: Names of the columns, in Markdown.
        rows: The cells, in Markdown; whole numbers get separators.
    """
    cells = list(rows)
    columns = zip(*cells, strict=True)
    aligned = ["---:" if all(isinstance(v, int) for v in column) else ":---" for column in columns]
    texts = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in cells]
    lines = (header, aligned or [":---"] * len(header), *texts)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
