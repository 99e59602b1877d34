"""Many lines at once: lines that are alike but for their digits are read as one matrix.

Darknet prints a million region lines in a handful of shapes: the shape of a line is the line with
every digit as 0. What a line is depends on its shape (``dialects.LITERAL_DIGITS`` lists the few
digits that the expressions ask for), so one line of each shape goes through the expressions, and
its groups tell where in all the others the numbers stand. Their digits times powers of ten give
whole numbers, which doubles hold exactly; divided once by a power of ten they are the doubles
that ``float`` reads, to the last bit.

What is left to the careful path: shapes that are rare, numbers of more than 15 digits, lines with
letters outside ASCII, and every line that is more than a number's line (events, torn lines).
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
    LITERAL_DIGITS,
    LOOKS_BROKEN,
    NETWORK_SHOWN,
    SIZE,
    WORD_GROUPS,
    number,
    numbers_of_iteration,
)
from oiyolo.trainlog.line_matcher import event, places_without_codes, recognised, without_codes
from oiyolo.trainlog.records import REGION_NUMBERS
from oiyolo.trainlog.rows import NO_LAYER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.trainlog.dialects import Dialect, Form

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_ZEROS_IN_TEXT = str.maketrans("123456789", "0" * 9)
_NEWLINE = 10
_WORD = 8
_LONGEST_LINE = 512
_LEARNT_FROM = 2  # lines of one shape in one block: a shape that comes once may never come again
_MOST_SHAPES = 4096
_MOST_DIGITS = 15  # a double holds every whole number of as many digits
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

# Weights of a hash over a line's words; odd, and fixed so that a log is always read in one way.
_HASH = np.random.default_rng(0).integers(
    0, 1 << 63, _LONGEST_LINE // _WORD, dtype=np.uint64
) * np.uint64(2) + np.uint64(1)


class Kind(enum.IntEnum):
    """What becomes of a line."""

    CAREFUL = 0
    """It goes through the expressions by itself."""
    BLANK = 1
    OTHER = 2
    """It holds nothing for the tables."""
    REGION = 3
    ITERATION = 4


COLUMNS: dict[Kind, tuple[str, ...]] = {
    Kind.REGION: ("layer", "count", *REGION_NUMBERS, "met"),
    Kind.ITERATION: (
        *("iteration", "images", "loss", "avg_loss", "rate", "seconds", "hours_left"),
        "dialect",
    ),
}
"""Rows of ``Scanned.values``; ``met`` is the number of objects that an IOU is a mean over."""

_WIDTH = max(map(len, COLUMNS.values()))


class Scanned(NamedTuple):
    """A block of whole lines.

    Attributes:
        starts: Where each line starts.
        ends: Where its newline stands.
        kinds: Its ``Kind``.
        values: Shape (columns, lines): what it says, rows by ``COLUMNS`` of its kind.
        dialects: The dialects in it, and the index of the first line of each.
    """

    starts: Places
    ends: Places
    kinds: Bytes
    values: Floats
    dialects: dict[Dialect, int]


class _Number(NamedTuple):
    """How a number is put together: the value of each word times its power of ten, over all.

    Attributes:
        name: The group.
        words: Rows of ``_Reading.places``; the first has the last digits.
        powers: A power of ten for each; 1 for the first.
        divisor: A power of ten that makes a fraction of the whole number; negative after a minus.
    """

    name: str
    words: tuple[int, ...]
    powers: tuple[float, ...]
    divisor: float

    def of(self, values: Floats) -> Floats:
        """Put the values of all words together; shape (words, lines)."""
        whole = values[self.words[0]]
        for word, power in zip(self.words[1:], self.powers[1:], strict=True):
            whole = whole + values[word] * power
        value: Floats = whole / np.float64(self.divisor)
        return value


@dataclass(frozen=True)
class _Reading:
    """Where the numbers of a shape stand: in words of eight bytes that end with a digit.

    Attributes:
        places: Where each word begins within the line.
        shifts: Shape (words, 1): bits by which a word is moved up that would begin before it.
        before: Shape (words, 1): which bits of a word are digits before the point.
        after: The same for those behind it, or all where there is no point.
        numbers: How words become numbers.
        constants: The groups without digits: nan and inf.
        units: The groups that hold no number.
    """

    places: tuple[int, ...]
    shifts: Words
    before: Words
    after: Words
    numbers: tuple[_Number, ...]
    constants: dict[str, float]
    units: dict[str, str]

    def read(self, lines: Bytes) -> dict[str, Floats]:
        """Read lines of this shape; shape (lines, width)."""
        words = np.empty((len(self.places), len(lines)), "<u8")
        for word, place in zip(words, self.places, strict=True):
            word[:] = np.ndarray(
                len(lines), "<u8", lines, offset=place, strides=(lines.strides[0],)
            )
        if self.shifts.any():
            words <<= self.shifts
        whole = _whole_numbers(((words & self.before) << _BYTE) | (words & self.after))
        values = whole.view(np.int64).astype(np.float64)  # signed ones are converted in vectors
        found = {number.name: number.of(values) for number in self.numbers}
        constants = {name: np.full(len(lines), value) for name, value in self.constants.items()}
        return {**found, **constants}


def _whole_numbers(words: Words) -> Words:
    """Read eight digits in each word, the last in its highest byte; changes ``words``.

    Digits become numbers of two, of four, then of eight, each step in all their places at once.
    """
    for factor, bits, mask in _ROUNDS:
        upper = words >> bits
        words *= factor
        words += upper
        words &= mask
    return words


@dataclass(frozen=True)
class _Shape:
    """One shape of lines.

    Attributes:
        kind: What such lines are.
        words: The line, digits as zeros.
        fixed: Places of the digits that must be those of the line it was learnt from.
        fixed_digits: Those digits.
    """

    kind: Kind
    words: Words
    fixed: Places
    fixed_digits: Bytes
    dialect: Dialect | None = None
    form: Form | None = None
    reading: _Reading | None = None


@dataclass
class Shapes:
    """Reads blocks of lines; remembers the shapes that it has learnt.

    Attributes:
        regions: Whether region lines are read, or only told apart.
    """

    regions: bool = True
    _known: dict[tuple[int, int], _Shape] = field(default_factory=dict)

    def scan(self, block: bytes) -> Scanned:
        """Read what can be read at once; ``block`` ends with a newline."""
        text = np.frombuffer(block + b"\n" * _WORD, np.uint8)
        shape_text = np.frombuffer(block.translate(_ZEROS) + b"\n" * _WORD, np.uint8)
        ends = np.flatnonzero(text[:-_WORD] == _NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1])
        n = len(ends)
        found = Scanned(
            starts, ends, np.zeros(n, np.uint8), np.full((_WIDTH, n), np.nan), dialects={}
        )
        lengths = np.minimum(ends - starts, _LONGEST_LINE + 1).astype(np.uint16)
        by_length = np.argsort(lengths, kind="stable")
        for lines in np.split(by_length, np.flatnonzero(np.diff(lengths[by_length])) + 1):
            length = int(lengths[lines[0]])
            if length == 0:
                found.kinds[lines] = Kind.BLANK
            elif length <= _LONGEST_LINE:
                self._scan_length(found, text, shape_text, lines, length)
        return found

    def _scan_length(
        self, found: Scanned, text: Bytes, shape_text: Bytes, lines: Places, length: int
    ) -> None:
        """Read lines of one length."""
        words = _gather(shape_text, found.starts[lines], length).view("<u8")
        if length % _WORD:  # what follows the line is not part of it
            words[:, -1] &= np.uint64((1 << (8 * (length % _WORD))) - 1)
        hashes = np.einsum("ij,j->i", words, _HASH[: words.shape[1]])
        order = np.argsort(hashes, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(hashes[order])) + 1):
            key = length, int(hashes[group[0]])
            shape = self._known.get(key)
            if shape is None:
                if len(group) < _LEARNT_FROM or len(self._known) >= _MOST_SHAPES:
                    continue
                start = int(found.starts[lines[group[0]]])
                line = text[start : start + length].tobytes()
                shape = self._known[key] = _learn(line, words[group[0]].copy())
            if shape.kind is not Kind.CAREFUL:
                same = (words[group] == shape.words).all(axis=1)
                self._scan_shape(found, text, lines[group[same]], shape, length)

    def _scan_shape(
        self, found: Scanned, text: Bytes, lines: Places, shape: _Shape, length: int
    ) -> None:
        """Read lines of one shape."""
        wanted = shape.reading is not None and (self.regions or shape.kind is not Kind.REGION)
        if wanted or len(shape.fixed):
            rows = _gather(text, found.starts[lines], length)
            if len(shape.fixed):
                same = (rows[:, shape.fixed] == shape.fixed_digits).all(axis=1)
                rows, lines = rows[same], lines[same]
        if not len(lines):
            return
        found.kinds[lines] = shape.kind
        if shape.dialect is None:
            return
        first = int(lines.min())
        found.dialects[shape.dialect] = min(first, found.dialects.get(shape.dialect, first))
        if wanted and shape.reading is not None and shape.form is not None:
            values = shape.reading.read(rows)
            columns = (
                _region_columns(values, zero_is_empty=shape.form.zero_is_empty)
                if shape.kind is Kind.REGION
                else {
                    **values,
                    **numbers_of_iteration(values, shape.reading.units),
                    "dialect": DIALECTS.index(shape.dialect),
                }
            )
            for row, name in enumerate(COLUMNS[shape.kind]):
                if name in columns:
                    found.values[row, lines] = columns[name]


def _gather(text: Bytes, starts: Places, length: int) -> Bytes:
    """Copy lines into the rows of a matrix, as wide as whole words."""
    width = -(-length // _WORD) * _WORD
    windows = np.ndarray((len(text) - width + 1,), f"V{width}", text, strides=(1,))
    return windows[starts].view(np.uint8).reshape(len(starts), width)


def _region_columns(values: dict[str, Floats], *, zero_is_empty: bool) -> dict[str, Floats]:
    count, iou = values["count"], values["iou"]
    empty = count == 0
    if zero_is_empty:
        empty |= (count == 1) & (iou == 0)
    layer = values.get("layer", np.full(len(count), float(NO_LAYER)))
    return {
        **values,
        "layer": layer,
        "iou": np.where(empty, np.nan, iou),
        "met": np.where(empty, 0.0, count),
    }


def _learn(line: bytes, words: Words) -> _Shape:
    """Tell what the lines of a shape are, by one of them."""
    careful = _Shape(Kind.CAREFUL, words, np.zeros(0, np.intp), np.zeros(0, np.uint8))
    raw = line.decode("ascii", errors="replace").removesuffix("\r")
    if "\r" in raw or not line.isascii():
        return careful
    text = without_codes(raw)
    if not text or text.isspace():
        return replace(careful, kind=Kind.BLANK)
    places = places_without_codes(raw)
    zeros = text.translate(_ZEROS_IN_TEXT)
    literal = list(LITERAL_DIGITS.finditer(zeros))
    if any("#" in match[0] for match in literal):
        return careful
    fixed = np.array(
        [places[i] for match in literal for i in range(*match.span()) if zeros[i] == "0"], np.intp
    )
    shape = replace(careful, fixed=fixed, fixed_digits=np.frombuffer(line, np.uint8)[fixed])
    found = recognised(text)
    if not found:
        return careful if _is_something(text) else replace(shape, kind=Kind.OTHER)
    dialect, form, match = found[0]
    rest = text[match.end() :]
    reading = _reading(match, places)
    if len(found) > 1 or form in dialect.maps or reading is None or (rest and not rest.isspace()):
        return careful
    kind = Kind.ITERATION if form is dialect.iteration else Kind.REGION
    return replace(shape, kind=kind, dialect=dialect, form=form, reading=reading)


def _is_something(text: str) -> bool:
    """Tell whether text that is no number's line is more than other text all the same."""
    return bool(
        event(text)
        or NETWORK_SHOWN.match(text)
        or SIZE.fullmatch(text)
        or LOOKS_BROKEN.search(text)
    )


def _reading(match: re.Match[str], places: list[int]) -> _Reading | None:
    """Tell where the numbers of a match stand; ``None`` where they are more than plain digits."""
    constants: dict[str, float] = {}
    units: dict[str, str] = {}
    numbers: list[_Number] = []
    words: list[_Word] = []
    for name, text in match.groupdict().items():
        if text is None:
            continue
        if name in WORD_GROUPS:
            units[name] = text
        elif not any(letter.isdigit() for letter in text):
            constants[name] = number(text)
        else:
            plain = _PLAIN.fullmatch(text)
            start = places[match.start(name)]
            together = places[match.end(name) - 1] - start == len(text) - 1
            if plain is None or not together or len(plain[2] + plain[3]) > _MOST_DIGITS:
                return None
            own = list(_words(start, plain))
            sign = -1.0 if plain[1] == "-" else 1.0
            numbers.append(
                _Number(
                    name,
                    tuple(range(len(words), len(words) + len(own))),
                    tuple(word.power for word in own),
                    sign * 10.0 ** len(plain[3]),
                )
            )
            words += own
    return _Reading(
        tuple(max(0, word.end - _WORD) for word in words),
        np.array([[max(0, _WORD - word.end) * 8] for word in words], np.uint64),
        np.array([[word.before] for word in words], np.uint64),
        np.array([[word.after] for word in words], np.uint64),
        tuple(numbers),
        constants,
        units,
    )


class _Word(NamedTuple):
    """Up to eight digits of a number; see ``_Reading``."""

    end: int
    before: int
    after: int
    power: float


def _words(start: int, plain: re.Match[str]) -> Iterator[_Word]:
    """Cut a number into words.

    Args:
        start: Where it stands in its line.
        plain: Sign, digits before and digits after the point.
    """
    whole, fraction = len(plain[2]), len(plain[3])
    end_of_whole, end = start + plain.end(2), start + plain.end()
    if fraction and whole + fraction < _WORD:
        yield _Word(end, _digits(whole, above=fraction + 1), _digits(fraction), 1.0)
        return
    for first, n, power in ((end, fraction, 0), (end_of_whole, whole, fraction)):
        for taken in range(0, n, _WORD):
            digits = min(_WORD, n - taken)
            yield _Word(first - taken, 0, _digits(digits), 10.0 ** (power + taken))


def _digits(n: int, above: int = 0) -> int:
    """Give the bits of ``n`` digits in a word that stand before its last ``above`` bytes."""
    last = _WORD - above
    return sum(0x0F << (8 * byte) for byte in range(last - n, last))
