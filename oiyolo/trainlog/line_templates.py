"""Read lines that differ only in their digits together.

A million region lines of darknet follow a handful of templates. A line's template is the line with
every digit replaced by 0. No expression in ``dialects`` distinguishes one digit from another, so
all lines of a template match the same expressions at the same positions. One line per template is
therefore matched as any other line, and its groups locate the digits of all the others.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.trainlog.dialects import is_bottleneck, parse_number
from oiyolo.trainlog.line_matcher import stripped_positions, survey
from oiyolo.trainlog.rows import NO_LAYER, REGION_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from oiyolo.trainlog.dialects import Dialect
    from oiyolo.trainlog.line_matcher import LineMatch, Part

UNKNOWN: Final = -1
"""Kind of a line that must be matched on its own."""
BLANK: Final = -2
OTHER: Final = -3
"""Kind of a line with nothing for the tables."""
LOADED: Final = -4
"""Kind of a line that says how long an iteration waited for its images."""

DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
"""``line.translate(DIGITS_TO_ZERO)`` is the template of a line."""

_COLUMNS = ("layer", "count", *REGION_NUMBERS, "line", "zero_is_empty")
_DECIMAL = re.compile(r"([-+]?)(\d+)(?:\.(\d+))?", re.ASCII)
_MAX_DIGITS = 15  # a double represents every whole number of this many digits exactly
_MAX_LINE_BYTES = 512
_MAX_TEMPLATES = 4096
_MAX_NEW_TEMPLATES = 32  # in a block; nearly all of a log are in its first lines


@dataclass(frozen=True)
class _RegionTemplate:
    """The positions of the numbers on region lines that differ only in their digits.

    Attributes:
        constants: Numbers that are the same on all lines.
        columns: Indices into ``_COLUMNS`` of the other numbers, shape (numbers, 1).
        digits: Positions of their digits in the line, shape (digits, numbers), in reading order;
            -1 above the first digit of a number that is shorter than the longest.
        divisors: Power of ten by which each whole number is divided, shape (numbers, 1); negative
            after a minus sign.
    """

    constants: Mapping[str, float]
    columns: npt.NDArray[np.intp]
    digits: npt.NDArray[np.intp]
    divisors: npt.NDArray[np.float64]

    def read(self, lines: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """Return the numbers on lines of this template, shape (numbers, lines).

        The digits of a number form a whole number of at most 15 digits, which is exact. One
        division by a power of ten then gives the same double as ``float``, to the last bit.
        """
        # The zero after each line is the digit above the first one of shorter numbers.
        characters = np.frombuffer(b"0".join([*lines, b""]), np.uint8).reshape(len(lines), -1)
        powers = 10.0 ** np.arange(len(self.digits))[::-1]
        numbers: npt.NDArray[np.float64] = np.einsum(
            "d,d...->...", powers, characters.T[self.digits] & 15
        )
        return numbers / self.divisors


class RegionLines:
    """Region lines whose numbers are read later, many at once, and the templates of a log's lines.

    Attributes:
        kinds: Kind of all lines with the same template, by template: ``BLANK``, ``OTHER``,
            ``LOADED`` or, for region lines, 0 or greater. Other lines must be matched on their own.
        iterations: Dialect and positions of the groups of iteration lines, by template.
        last_maps: Position of the mAP on lines that repeat the last one, by template.
    """

    def __init__(self) -> None:
        self.kinds: dict[bytes, int] = {}
        self.iterations: dict[bytes, tuple[Dialect, dict[str, slice]]] = {}
        self.last_maps: dict[bytes, slice] = {}
        self._templates: list[_RegionTemplate] = []
        self._pending_lines: list[bytes] = []
        self._pending_kinds: list[npt.NDArray[np.intp]] = []
        self._pending_numbers: list[npt.NDArray[np.intp]] = []
        self._pending_rows: list[Mapping[str, float]] = []

    def __len__(self) -> int:
        return len(self._pending_lines) + len(self._pending_rows)

    def kinds_of(self, lines: Sequence[bytes]) -> npt.NDArray[np.intp]:
        """Return the kind of each line of a block, ``UNKNOWN`` if it must be matched on its own.

        If the templates of many are new, most may be junk, which is recognised at once. The first
        ones are matched on their own, so that their templates are known from then on.
        """
        keys = list(map(bytes.translate, lines, itertools.repeat(DIGITS_TO_ZERO)))
        known = map(self.kinds.get, keys, itertools.repeat(UNKNOWN))
        kinds = np.fromiter(known, np.intp, len(lines))
        new = [
            index
            for index in np.flatnonzero(kinds == UNKNOWN).tolist()
            if keys[index] not in self.iterations and keys[index] not in self.last_maps
        ][_MAX_NEW_TEMPLATES:]
        if new:
            is_blank, may_say = survey([lines[index] for index in new])
            kinds[new] = np.where(may_say, UNKNOWN, np.where(is_blank, BLANK, OTHER))
        return kinds

    def learn(self, line: bytes, parts: Sequence[Part]) -> None:
        """Determine the kind of all lines with the template of ``line``, given its parts.

        They are matched on their own unless they have nothing for the tables, only say how long
        loading took, or consist of a region line with plain decimals.
        """
        if len(line) > _MAX_LINE_BYTES:
            return
        if len(self.kinds) + len(self.iterations) + len(self.last_maps) >= _MAX_TEMPLATES:
            self.kinds.clear()
            self.iterations.clear()
            self.last_maps.clear()
        if not any(part.matches or part.remark for part in parts):
            self.kinds[line.translate(DIGITS_TO_ZERO)] = OTHER if parts else BLANK
        elif len(parts) == 1 and not parts[0].matches:
            remark = parts[0].remark
            if remark is not None and remark[0] == "load" and not is_bottleneck(remark[1].string):
                self.kinds[line.translate(DIGITS_TO_ZERO)] = LOADED
        elif len(parts) == len(parts[0].matches) == 1 and parts[0].remark is None:
            self._learn_match(line, parts[0].matches[0])

    def _learn_match(self, line: bytes, line_match: LineMatch) -> None:
        raw = line.rstrip(b"\r")
        if b"\r" in raw or not raw.isascii():
            return
        dialect, line_format, match = line_match
        positions = stripped_positions(raw.decode())
        groups = {
            name: (text, positions[slice(*match.span(name))])
            for name, text in match.groupdict().items()
            if text is not None
        }
        key = line.translate(DIGITS_TO_ZERO)
        slices = {name: slice(at[0], at[-1] + 1) for name, (_, at) in groups.items()}
        is_plain = all(line[slices[name]] == text.encode() for name, (text, _) in groups.items())
        if line_format in dialect.iterations:
            if is_plain:
                self.iterations[key] = dialect, slices
        elif "last_map" in groups:
            if is_plain:
                self.last_maps[key] = slices["last_map"]
        elif line_format in dialect.regions:
            template = _region_template(groups, zero_is_empty=line_format.zero_is_empty)
            if template is not None:
                self.kinds[key] = len(self._templates)
                self._templates.append(template)

    def add(
        self, lines: Sequence[bytes], kinds: npt.NDArray[np.intp], first_line_number: int
    ) -> None:
        """Add the region lines among some lines, given the kind of each."""
        indices = np.flatnonzero(kinds >= 0)
        self._pending_lines += [lines[index] for index in indices.tolist()]
        self._pending_kinds.append(kinds[indices])
        self._pending_numbers.append(indices + first_line_number)

    def add_row(self, numbers: Mapping[str, float]) -> None:
        """Add a region line that was matched on its own."""
        self._pending_rows.append(numbers)

    def take(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the numbers on the pending region lines by column, in order of their lines."""
        n = len(self._pending_lines)
        table = np.full((len(_COLUMNS), len(self)), np.nan)
        columns = dict(zip(_COLUMNS, table, strict=True))
        columns["layer"].fill(NO_LAYER)
        if n:
            columns["line"][:n] = np.concatenate(self._pending_numbers)
            kinds = np.concatenate(self._pending_kinds)
            order = np.argsort(kinds, kind="stable")
            for rows in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):
                template = self._templates[kinds[rows[0]]]
                lines = [self._pending_lines[row] for row in rows.tolist()]
                table[template.columns, rows] = template.read(lines)
                for name, value in template.constants.items():
                    columns[name][rows] = value
        for row, numbers in enumerate(self._pending_rows, n):
            for name, number in numbers.items():
                columns[name][row] = number
        for pending in (self._pending_lines, self._pending_kinds, self._pending_numbers):
            pending.clear()
        if not self._pending_rows:
            return columns
        self._pending_rows.clear()
        order = np.argsort(columns["line"], kind="stable")
        return {name: column[order] for name, column in columns.items()}


def _region_template(
    groups: Mapping[str, tuple[str, list[int]]], *, zero_is_empty: bool
) -> _RegionTemplate | None:
    """Return the template of a region line; ``None`` unless its numbers are plain decimals.

    Args:
        groups: Text and positions in the line of each group, by name.
        zero_is_empty: As in ``LineFormat``.
    """
    constants: dict[str, float] = {"zero_is_empty": zero_is_empty}
    columns: list[int] = []
    digits: list[list[int]] = []
    divisors: list[float] = []
    for name, (text, positions) in groups.items():
        decimal = _DECIMAL.fullmatch(text)
        if decimal is not None:
            sign, _, fraction = decimal.groups(default="")
            columns.append(_COLUMNS.index(name))
            digits.append([at for at, c in zip(positions, text, strict=True) if c.isdigit()])
            divisors.append((-1.0 if sign == "-" else 1.0) * 10.0 ** len(fraction))
        elif any(character.isdigit() for character in text):
            return None
        else:
            constants[name] = parse_number(text)
    most_digits = max(map(len, digits))
    if most_digits > _MAX_DIGITS:
        return None
    padded_digits = [[-1] * (most_digits - len(number)) + number for number in digits]
    return _RegionTemplate(
        constants,
        np.array(columns)[:, None],
        np.array(padded_digits).T,
        np.array(divisors)[:, None],
    )
