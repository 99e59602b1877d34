"""Match one line against the known formats, without context."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from oiyolo.trainlog.dialects import LINE_FORMATS, REMARKS

if TYPE_CHECKING:
    from oiyolo.trainlog.dialects import Dialect, LineFormat, RemarkKind

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
    code_positions = {i for code in _TERMINAL_CODES.finditer(text) for i in range(*code.span())}
    return [position for position in range(len(text)) if position not in code_positions]


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


class Part(NamedTuple):
    """A part of a line and what it says; carriage returns separate progress updates within a line.

    Attributes:
        text: The part without terminal codes.
        matches: All iteration, region and mAP lines in it.
        remark: What the rest of the text says, and where; ``None`` if nothing for the tables.
    """

    text: str
    matches: list[LineMatch]
    remark: tuple[RemarkKind, re.Match[str]] | None


def match_parts(line: bytes) -> list[Part]:
    """Return the parts of a line that are not blank."""
    texts = (
        strip_terminal_codes(part.decode("utf-8", errors="replace")) for part in line.split(b"\r")
    )
    return [_match_part(text) for text in texts if text and not text.isspace()]


def _match_part(text: str) -> Part:
    matches = find_matches(text)
    rest = text[matches[-1][2].end() :] if matches else text
    remark = None if not rest or rest.isspace() else _find_remark(rest)
    if matches and remark is not None and remark[0] == "fragment":
        remark = None
    return Part(text, matches, remark)


def _find_remark(text: str) -> tuple[RemarkKind, re.Match[str]] | None:
    for kind, pattern in REMARKS:
        if match := pattern.search(text):
            return kind, match
    return None
