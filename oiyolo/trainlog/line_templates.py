"""Read many lines at once: lines that differ only in their digits are read as one matrix.

A million region lines of darknet follow a handful of templates, where the template of a line is the
line with every digit replaced by 0. The template determines the type of a line, except for the few
digits in ``dialects.LITERAL_DIGITS``. So only one line per template is matched against the
expressions, and its groups locate the numbers in all the others. The digits are multiplied by
powers of ten and summed to whole numbers, which doubles represent exactly. One division by a power
of ten then gives the same double as ``float``, to the last bit.

``line_reader`` reads the remaining lines: rare templates, numbers of more than 15 digits, non-ASCII
text, and all lines that are neither plain numbers nor plain text (events, torn lines).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from oiyolo.trainlog.dialects import (
    DIALECTS,
    LAYER_TABLE_HEADER,
    LINE_FRAGMENT,
    LITERAL_DIGITS,
    RESIZE_VALUE,
    WORD_GROUPS,
    iteration_values,
    parse_number,
)
from oiyolo.trainlog.line_matcher import (
    find_event,
    find_matches,
    strip_terminal_codes,
    stripped_positions,
)
from oiyolo.trainlog.records import REGION_NUMBERS
from oiyolo.trainlog.rows import NO_LAYER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.trainlog.dialects import Dialect, LineFormat

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_ZEROS_IN_TEXT = str.maketrans("123456789", "0" * 9)
_NEWLINE = 10
_WORD = 8
_MAX_LINE_BYTES = 512
# A line format seen only once in a block may never occur again.
_MIN_LINES_PER_TEMPLATE = 2
_MAX_TEMPLATES = 4096
_MAX_DIGITS = 15  # a double represents every whole number of this many digits exactly
_PLAIN = re.compile(r"([-+]?)(\d+)\.?((?<=\.)\d+|)", re.ASCII)
_BYTE = np.uint64(8)
_ROUNDS = tuple(
    (np.uint64(factor), np.uint64(bits), np.uint64(mask))
    for factor, bits, mask in (
        (10, 8, 0x00FF00FF00FF00FF),
        (100, 16, 0x0000FFFF0000FFFF),
        (10_000, 32, 0x00000000FFFFFFFF),
    )
)

# Weights of a hash over a line's words: odd, and fixed so that parsing is deterministic.
_HASH = np.random.default_rng(0).integers(
    0, 1 << 63, _MAX_LINE_BYTES // _WORD, dtype=np.uint64
) * np.uint64(2) + np.uint64(1)


class LineKind(enum.IntEnum):
    """How a line is read."""

    SLOW = 0
    """The line reader matches it against the expressions."""
    BLANK = 1
    OTHER = 2
    """It contains nothing for the tables."""
    REGION = 3
    ITERATION = 4


COLUMNS: dict[LineKind, tuple[str, ...]] = {
    LineKind.REGION: ("layer", "count", *REGION_NUMBERS, "iou_objects"),
    LineKind.ITERATION: (
        *("iteration", "images", "loss", "avg_loss", "rate", "seconds", "hours_left"),
        "dialect",
    ),
}
"""Rows of ``BlockContents.values``; ``iou_objects`` is the number of objects in a mean IOU."""

_WIDTH = max(map(len, COLUMNS.values()))


class BlockContents(NamedTuple):
    """The contents of a block of whole lines.

    Attributes:
        starts: Offset of each line's first byte.
        ends: Offset of each line's newline.
        kinds: ``LineKind`` of each line.
        values: Numbers of each line, shape (columns, lines); rows as in ``COLUMNS`` of its kind.
        dialects: The dialects in the block, each with the index of its first line.
    """

    starts: Indices
    ends: Indices
    kinds: Bytes
    values: Floats
    dialects: dict[Dialect, int]


class _NumberField(NamedTuple):
    """How to compute a number: the sum of its words times their powers, over the divisor.

    Attributes:
        name: Name of the group.
        words: Indices into ``_FieldLayout.positions``; the first word has the last digits.
        powers: A power of ten for each word; 1 for the first.
        divisor: Power of ten by which the whole number is divided; negative after a minus sign.
    """

    name: str
    words: tuple[int, ...]
    powers: tuple[float, ...]
    divisor: float

    def compute(self, values: Floats) -> Floats:
        """Return the number on each line from the word values, shape (words, lines)."""
        whole = values[self.words[0]]
        for word, power in zip(self.words[1:], self.powers[1:], strict=True):
            whole = whole + values[word] * power
        value: Floats = whole / np.float64(self.divisor)
        return value


@dataclass(frozen=True)
class _FieldLayout:
    """The positions of the numbers in a template, in eight-byte words that end with a digit.

    Attributes:
        positions: Offset of each word in the line.
        shifts: Bits by which to shift up a word that would start before the line; shape (words, 1).
        integer_mask: Mask of the digits before the decimal point, shape (words, 1).
        fraction_mask: Mask of the digits after the point, or of all digits if there is no point.
        numbers: How to compute each number from the words.
        constants: Values of the groups without digits (nan and inf).
        units: Groups that are not numbers.
    """

    positions: tuple[int, ...]
    shifts: Words
    integer_mask: Words
    fraction_mask: Words
    numbers: tuple[_NumberField, ...]
    constants: dict[str, float]
    units: dict[str, str]

    def read(self, lines: Bytes) -> dict[str, Floats]:
        """Return the numbers on lines of this template, shape (lines, width), by group."""
        words = np.empty((len(self.positions), len(lines)), "<u8")
        for word, position in zip(words, self.positions, strict=True):
            word[:] = np.ndarray(
                len(lines), "<u8", lines, offset=position, strides=(lines.strides[0],)
            )
        if self.shifts.any():
            words <<= self.shifts
        whole = _whole_numbers(
            ((words & self.integer_mask) << _BYTE) | (words & self.fraction_mask)
        )
        values = whole.view(np.int64).astype(np.float64)  # conversion from int64 is vectorized
        numbers = {number.name: number.compute(values) for number in self.numbers}
        constants = {name: np.full(len(lines), value) for name, value in self.constants.items()}
        return {**numbers, **constants}


def _whole_numbers(words: Words) -> Words:
    """Return the number in each word of eight digits, the last in its highest byte; in place.

    Digits are combined into numbers of two, then four, then eight digits, in all words at once.
    """
    for factor, bits, mask in _ROUNDS:
        upper = words >> bits
        words *= factor
        words += upper
        words &= mask
    return words


@dataclass(frozen=True)
class _Template:
    """Lines that differ only in their digits.

    Attributes:
        kind: Kind of these lines.
        words: The line with every digit replaced by 0, as words.
        fixed: Positions of the digits that must be the same on all lines.
        fixed_digits: Those digits.
        dialect: Dialect of these lines.
        line_format: Format of these lines.
        layout: Where the numbers are.
    """

    kind: LineKind
    words: Words
    fixed: Indices
    fixed_digits: Bytes
    dialect: Dialect | None = None
    line_format: LineFormat | None = None
    layout: _FieldLayout | None = None


@dataclass
class TemplateScanner:
    """Reads blocks of lines, and keeps their templates for later blocks.

    Attributes:
        regions: Whether the numbers on region lines are read; if not, the lines are only counted.
    """

    regions: bool = True
    _templates: dict[tuple[int, int], _Template] = field(default_factory=dict)

    def scan(self, block: bytes) -> BlockContents:
        """Return the lines of a block that ends with a newline, with the numbers on plain lines."""
        text = np.frombuffer(block + b"\n" * _WORD, np.uint8)
        zeroed_text = np.frombuffer(block.translate(_ZEROS) + b"\n" * _WORD, np.uint8)
        ends = np.flatnonzero(text[:-_WORD] == _NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1])
        n = len(ends)
        contents = BlockContents(
            starts, ends, np.zeros(n, np.uint8), np.full((_WIDTH, n), np.nan), dialects={}
        )
        lengths = np.minimum(ends - starts, _MAX_LINE_BYTES + 1).astype(np.uint16)
        by_length = np.argsort(lengths, kind="stable")
        for lines in np.split(by_length, np.flatnonzero(np.diff(lengths[by_length])) + 1):
            length = int(lengths[lines[0]])
            if length == 0:
                contents.kinds[lines] = LineKind.BLANK
            elif length <= _MAX_LINE_BYTES:
                self._scan_length(contents, text, zeroed_text, lines, length)
        return contents

    def _scan_length(
        self, contents: BlockContents, text: Bytes, zeroed_text: Bytes, lines: Indices, length: int
    ) -> None:
        """Read lines of the same length into ``contents``."""
        words = _gather(zeroed_text, contents.starts[lines], length).view("<u8")
        if length % _WORD:  # clear the bytes after the line
            words[:, -1] &= np.uint64((1 << (8 * (length % _WORD))) - 1)
        hashes = np.einsum("ij,j->i", words, _HASH[: words.shape[1]])
        order = np.argsort(hashes, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(hashes[order])) + 1):
            key = length, int(hashes[group[0]])
            template = self._templates.get(key)
            if template is None:
                if len(group) < _MIN_LINES_PER_TEMPLATE or len(self._templates) >= _MAX_TEMPLATES:
                    continue
                start = int(contents.starts[lines[group[0]]])
                line = text[start : start + length].tobytes()
                template = self._templates[key] = _build_template(line, words[group[0]].copy())
            if template.kind is not LineKind.SLOW:
                same = (words[group] == template.words).all(axis=1)
                self._scan_template(contents, text, lines[group[same]], template, length)

    def _scan_template(
        self, contents: BlockContents, text: Bytes, lines: Indices, template: _Template, length: int
    ) -> None:
        """Read lines of the same template into ``contents``."""
        reads_numbers = template.layout is not None and (
            self.regions or template.kind is not LineKind.REGION
        )
        if reads_numbers or len(template.fixed):
            rows = _gather(text, contents.starts[lines], length)
            if len(template.fixed):
                same = (rows[:, template.fixed] == template.fixed_digits).all(axis=1)
                rows, lines = rows[same], lines[same]
        if not len(lines):
            return
        contents.kinds[lines] = template.kind
        if template.dialect is None:
            return
        first = int(lines.min())
        contents.dialects[template.dialect] = min(
            first, contents.dialects.get(template.dialect, first)
        )
        if reads_numbers and template.layout is not None and template.line_format is not None:
            values = template.layout.read(rows)
            columns = (
                _region_columns(values, zero_is_empty=template.line_format.zero_is_empty)
                if template.kind is LineKind.REGION
                else {
                    **values,
                    **iteration_values(values, template.layout.units),
                    "dialect": DIALECTS.index(template.dialect),
                }
            )
            for row, name in enumerate(COLUMNS[template.kind]):
                if name in columns:
                    contents.values[row, lines] = columns[name]


def _gather(text: Bytes, starts: Indices, length: int) -> Bytes:
    """Return lines as rows of a matrix whose width is a multiple of the word size."""
    width = -(-length // _WORD) * _WORD
    windows = np.ndarray((len(text) - width + 1,), f"V{width}", text, strides=(1,))
    return windows[starts].view(np.uint8).reshape(len(starts), width)


def _region_columns(values: dict[str, Floats], *, zero_is_empty: bool) -> dict[str, Floats]:
    count, iou = values["count"], values["iou"]
    is_empty = count == 0
    if zero_is_empty:
        is_empty |= (count == 1) & (iou == 0)
    layer = values.get("layer", np.full(len(count), float(NO_LAYER)))
    return {
        **values,
        "layer": layer,
        "iou": np.where(is_empty, np.nan, iou),
        "iou_objects": np.where(is_empty, 0.0, count),
    }


def _build_template(line: bytes, words: Words) -> _Template:
    """Return the template of a line."""
    slow_template = _Template(LineKind.SLOW, words, np.zeros(0, np.intp), np.zeros(0, np.uint8))
    raw = line.decode("ascii", errors="replace").removesuffix("\r")
    if "\r" in raw or not line.isascii():
        return slow_template
    text = strip_terminal_codes(raw)
    if not text or text.isspace():
        return replace(slow_template, kind=LineKind.BLANK)
    positions = stripped_positions(raw)
    zeros = text.translate(_ZEROS_IN_TEXT)
    literals = list(LITERAL_DIGITS.finditer(zeros))
    if any("#" in match[0] for match in literals):
        return slow_template
    fixed = np.array(
        [positions[i] for match in literals for i in range(*match.span()) if zeros[i] == "0"],
        np.intp,
    )
    template = replace(
        slow_template, fixed=fixed, fixed_digits=np.frombuffer(line, np.uint8)[fixed]
    )
    matches = find_matches(text)
    if not matches:
        return (
            slow_template if _is_event_or_fragment(text) else replace(template, kind=LineKind.OTHER)
        )
    dialect, line_format, match = matches[0]
    rest = text[match.end() :]
    layout = _field_layout(match, positions)
    if (
        len(matches) > 1
        or line_format in dialect.maps
        or layout is None
        or (rest and not rest.isspace())
    ):
        return slow_template
    kind = LineKind.ITERATION if line_format is dialect.iteration else LineKind.REGION
    return replace(template, kind=kind, dialect=dialect, line_format=line_format, layout=layout)


def _is_event_or_fragment(text: str) -> bool:
    """Return whether text without numbers for the tables still needs the line reader."""
    return bool(
        find_event(text)
        or LAYER_TABLE_HEADER.match(text)
        or RESIZE_VALUE.fullmatch(text)
        or LINE_FRAGMENT.search(text)
    )


def _field_layout(match: re.Match[str], positions: list[int]) -> _FieldLayout | None:
    """Return the positions of a match's numbers; ``None`` unless all are plain decimals."""
    constants: dict[str, float] = {}
    units: dict[str, str] = {}
    numbers: list[_NumberField] = []
    words: list[_DigitWord] = []
    for name, text in match.groupdict().items():
        if text is None:
            continue
        if name in WORD_GROUPS:
            units[name] = text
        elif not any(letter.isdigit() for letter in text):
            constants[name] = parse_number(text)
        else:
            decimal = _PLAIN.fullmatch(text)
            start = positions[match.start(name)]
            is_contiguous = positions[match.end(name) - 1] - start == len(text) - 1
            if decimal is None or not is_contiguous or len(decimal[2] + decimal[3]) > _MAX_DIGITS:
                return None
            field_words = list(_digit_words(start, decimal))
            sign = -1.0 if decimal[1] == "-" else 1.0
            numbers.append(
                _NumberField(
                    name,
                    tuple(range(len(words), len(words) + len(field_words))),
                    tuple(word.power for word in field_words),
                    sign * 10.0 ** len(decimal[3]),
                )
            )
            words += field_words
    return _FieldLayout(
        tuple(max(0, word.end - _WORD) for word in words),
        np.array([[max(0, _WORD - word.end) * 8] for word in words], np.uint64),
        np.array([[word.integer_mask] for word in words], np.uint64),
        np.array([[word.fraction_mask] for word in words], np.uint64),
        tuple(numbers),
        constants,
        units,
    )


class _DigitWord(NamedTuple):
    """Up to eight digits of a number; fields as in ``_FieldLayout`` and ``_NumberField``."""

    end: int
    integer_mask: int
    fraction_mask: int
    power: float


def _digit_words(start: int, decimal: re.Match[str]) -> Iterator[_DigitWord]:
    """Yield the words of a number.

    Args:
        start: Position of the number in its line.
        decimal: Match with the sign, the digits before and the digits after the point.
    """
    integer_digits, fraction_digits = len(decimal[2]), len(decimal[3])
    integer_end, end = start + decimal.end(2), start + decimal.end()
    if fraction_digits and integer_digits + fraction_digits < _WORD:
        yield _DigitWord(
            end,
            _digit_mask(integer_digits, above=fraction_digits + 1),
            _digit_mask(fraction_digits),
            1.0,
        )
        return
    for last_byte, n, power in (
        (end, fraction_digits, 0),
        (integer_end, integer_digits, fraction_digits),
    ):
        for done in range(0, n, _WORD):
            digits = min(_WORD, n - done)
            yield _DigitWord(last_byte - done, 0, _digit_mask(digits), 10.0 ** (power + done))


def _digit_mask(n: int, above: int = 0) -> int:
    """Return the bit mask of the ``n`` digits in a word before its last ``above`` bytes."""
    last = _WORD - above
    return sum(0x0F << (8 * byte) for byte in range(last - n, last))
