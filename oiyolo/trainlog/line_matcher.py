"""Match one piece of log text against the known line formats, without context."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oiyolo.trainlog.dialects import EVENTS, LINE_FORMATS

if TYPE_CHECKING:
    from oiyolo.trainlog.dialects import Dialect, EventKind, LineFormat

    LineMatch = tuple[Dialect, LineFormat, re.Match[str]]

# Terminal codes: titles and links (OSC), colours and cursor movement (CSI), and colours in logs
# where the escape character was lost or is shown as ^[.
_TERMINAL_CODES = re.compile(
    r"(?:\x1b|\^\[)\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\|\^G)"
    r"|\x1b\[[0-9;?]{0,64}[ -/]?[@-~]"
    r"|(?:\^\[)?\[\d[\d;]{0,32}m",
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def strip_terminal_codes(text: str) -> str:
    """Return text without terminal codes, other control characters replaced by spaces."""
    if text.isprintable() and "[" not in text:  # true of nearly every line
        return text
    return _CONTROL.sub(" ", _TERMINAL_CODES.sub("", text))


def stripped_positions(text: str) -> list[int]:
    """Return the index in ``text`` of each character of ``strip_terminal_codes(text)``."""
    positions: list[int] = []
    end = 0
    for code in _TERMINAL_CODES.finditer(text):
        positions.extend(range(end, code.start()))
        end = code.end()
    positions.extend(range(end, len(text)))
    return positions


def find_matches(text: str) -> list[LineMatch]:
    """Return all iteration, region and mAP lines in a piece of text, in order of position."""
    matches = [
        (dialect, line_format, match)
        for dialect, line_format in LINE_FORMATS
        if line_format.marker in text
        for match in line_format.pattern.finditer(text)
    ]
    if len(matches) > 1:
        matches.sort(key=lambda item: item[2].start())
    return matches


def find_event(text: str) -> tuple[EventKind, re.Match[str]] | None:
    """Return the kind and match of the event in a piece of text; ``None`` without an event."""
    for kind, pattern in EVENTS:
        if match := pattern.search(text):
            return kind, match
    return None
