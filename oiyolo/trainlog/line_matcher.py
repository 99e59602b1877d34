"""What one piece of text in a log is, apart from what stands around it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oiyolo.trainlog.dialects import EVENTS, FORMS

if TYPE_CHECKING:
    from oiyolo.trainlog.dialects import Dialect, EventKind, Form

    Found = tuple[Dialect, Form, re.Match[str]]

# Terminal codes: titles and links (OSC), colours and cursor (CSI), and colours in logs that
# lost the escape character or show it as ^[.
_TERMINAL_CODES = re.compile(
    r"(?:\x1b|\^\[)\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\|\^G)"
    r"|\x1b\[[0-9;?]{0,64}[ -/]?[@-~]"
    r"|(?:\^\[)?\[\d[\d;]{0,32}m",
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def without_codes(text: str) -> str:
    """Take terminal codes out, and put blanks in the place of other control characters."""
    if text.isprintable() and "[" not in text:  # nearly every line
        return text
    return _CONTROL.sub(" ", _TERMINAL_CODES.sub("", text))


def places_without_codes(text: str) -> list[int]:
    """Give the place in ``text`` of every character of ``without_codes(text)``."""
    places: list[int] = []
    end = 0
    for code in _TERMINAL_CODES.finditer(text):
        places.extend(range(end, code.start()))
        end = code.end()
    places.extend(range(end, len(text)))
    return places


def recognised(text: str) -> list[Found]:
    """Find the iteration, region and mAP lines within a piece of text, in their order."""
    found = [
        (dialect, form, match)
        for dialect, form in FORMS
        if form.marker in text
        for match in form.pattern.finditer(text)
    ]
    if len(found) > 1:
        found.sort(key=lambda item: item[2].start())
    return found


def event(text: str) -> tuple[EventKind, re.Match[str]] | None:
    """Tell what else a piece of text is about."""
    for kind, pattern in EVENTS:
        if match := pattern.search(text):
            return kind, match
    return None
