"""Match one line against the known formats, without context."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo.trainlog.dialects import ANY_MARKER, ANY_SIZE, LINE_FORMATS, REMARKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from oiyolo.trainlog.dialects import Dialect, LineFormat, RemarkKind

    LineMatch = tuple[Dialect, LineFormat, re.Match[str]]

MAX_PART_BYTES = 1 << 16
"""Longest part of a line that is read at once, in bytes; darknet's own lines are below 500."""

# Terminal codes: titles and links (OSC), colours and cursor movement (CSI), and colours in logs
# where the escape character was lost, is shown as ^[, or is written as \u001b, as in JSON.
# Each alternative begins with a character of its own, which re searches for much faster.
_TITLE = r"\][^\x07\x1b\n]{0,4096}?(?:\x07|\x1b\\|\^G|\\u\d\d\d\d)"
_CURSOR = r"\[[0-9;?]{0,64}[ -/]?[@-~]"
_COLOUR = r"\[\d[\d;]{0,32}m"
_TERMINAL_CODES = re.compile(
    rf"\x1b{_TITLE}|\x1b{_CURSOR}|\^\[{_TITLE}|\^\[{_COLOUR}"
    rf"|\\u\d\d\db{_TITLE}|\\u\d\d\db{_CURSOR}|{_COLOUR}"
)
_CONTROLS = bytes([*range(9), *range(0xB, 0x20), 0x7F])
_CONTROL_TO_SPACE = bytes.maketrans(_CONTROLS, b" " * len(_CONTROLS))
_BOUNDARY = re.compile(r"[\s\\\"']")  # no record begins with one of these
_MAX_RECORD_BYTES = 4096  # darknet's own records are below 500, with colours


def strip_terminal_codes(text: str) -> str:
    """Return text without terminal codes, other control characters replaced by spaces."""
    if text.isprintable() and "[" not in text:  # true of nearly every line
        return text
    if _may_have_codes(text):
        text = _TERMINAL_CODES.sub("", text)
    # Several times faster than a translation of the text, and reversible as in end_of_records.
    raw = text.encode("utf-8", errors="surrogateescape").translate(_CONTROL_TO_SPACE)
    return raw.decode("utf-8", errors="surrogateescape")


def _may_have_codes(text: str) -> bool:
    """Return whether text has a character of every terminal code; much faster than a search."""
    return "[" in text or "\x1b" in text


def stripped_positions(text: str) -> list[int]:
    """Return the index in ``text`` of each character of ``strip_terminal_codes(text)``."""
    code_positions = {i for code in _TERMINAL_CODES.finditer(text) for i in range(*code.span())}
    return [position for position in range(len(text)) if position not in code_positions]


def end_of_records(window: bytes) -> int:
    """Return where to cut a window of a longer line, so that no record or terminal code is cut.

    The cut is at least ``2 * _MAX_RECORD_BYTES`` before the end of the window, so that records
    around it are complete. The character after it begins no record, so that the rest of the line
    contains the same records on its own.
    """
    zone_start = max(0, len(window) - 3 * _MAX_RECORD_BYTES)
    # Reversible, unlike the replacement of invalid bytes.
    text = window[zone_start:].decode("utf-8", errors="surrogateescape")
    earliest = len(text) // 3
    spans = _indivisible_spans(text)
    cut = earliest
    for boundary in _BOUNDARY.finditer(text, earliest, 2 * earliest):
        if not any(start < boundary.start() < end for start, end in spans):
            cut = boundary.start()
            break
    else:
        for start, end in sorted(spans):
            cut = end if start < cut < end else cut
    return zone_start + len(text[:cut].encode("utf-8", errors="surrogateescape"))


def _indivisible_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and end of each terminal code and each record in a piece of text."""
    spans = []
    if _may_have_codes(text):
        spans = [code.span() for code in _TERMINAL_CODES.finditer(text)]
    matches = find_matches(strip_terminal_codes(text))
    if not matches:
        return spans
    positions = stripped_positions(text) if spans else range(len(text))
    spans += [(positions[m.start()], positions[m.end() - 1] + 1) for _, _, m in matches]
    return spans


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


def match_parts(line: bytes, *, remarks: bool = True) -> list[Part]:
    """Return the parts of a line that are not blank; without ``remarks``, only their matches."""
    texts = (
        strip_terminal_codes(part.decode("utf-8", errors="replace")) for part in line.split(b"\r")
    )
    return [_match_part(text, remarks=remarks) for text in texts if text and not text.isspace()]


def survey(lines: Sequence[bytes]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which lines are blank, and which may have a match or a remark.

    Of any other line, ``match_parts`` returns parts that say nothing. Here all lines are searched
    at once, which is many times faster for junk.
    """
    # No code contains a line break, so that here too none reaches from one part into the next.
    block = b"\n".join(lines).replace(b"\r", b"\n").decode("utf-8", errors="replace")
    text = strip_terminal_codes(block)
    parts = text.split("\n")
    ends = np.cumsum([len(part) + 1 for part in parts])
    line_of = np.repeat(np.arange(len(lines)), [1 + line.count(b"\r") for line in lines])
    is_blank = np.ones(len(lines), np.bool_)
    is_blank[line_of[[bool(part) and not part.isspace() for part in parts]]] = False
    found = [match.start() for match in ANY_MARKER.finditer(text)]
    found += [match.start() for match in ANY_SIZE.finditer(f"\n{text}\n")]
    may_say = np.array([len(line) > MAX_PART_BYTES for line in lines])
    may_say[line_of[np.searchsorted(ends, found, side="right")]] = True
    return is_blank, may_say


def _match_part(text: str, *, remarks: bool) -> Part:
    matches = find_matches(text)
    if not remarks:
        return Part(text, matches, None)
    rest = text[matches[-1][2].end() :] if matches else text
    remark = None if not rest or rest.isspace() else _find_remark(rest)
    if matches and remark is not None and remark[0] == "fragment":
        remark = None
    return Part(text, matches, remark)


def _find_remark(text: str) -> tuple[RemarkKind, re.Match[str]] | None:
    for kind, markers, pattern in REMARKS:
        for marker in markers:
            if marker in text:
                if match := pattern.search(text):
                    return kind, match
                break
    return None
