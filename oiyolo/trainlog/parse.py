"""A training log into tables: ``read_log``, ``parse_log``, and ``LogParser`` while it grows.

Nothing in a log is an error: what cannot be read is skipped and counted in the summary.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.core.errors import InputFormError
from oiyolo.trainlog.blocks import take_block
from oiyolo.trainlog.line_reader import LONGEST_PART, LineReader, end_of_part
from oiyolo.trainlog.line_templates import Shapes
from oiyolo.trainlog.records import Records
from oiyolo.trainlog.tables import (
    NO_LAYER,
    Event,
    Iteration,
    MapPoint,
    RunRow,
    Summary,
    TrainLog,
    write_metrics_csv,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = [
    "NO_LAYER",
    "Event",
    "Iteration",
    "LogParser",
    "MapPoint",
    "RunRow",
    "Summary",
    "TrainLog",
    "Utf8",
    "complaints",
    "parse_log",
    "read_log",
    "unreadable",
    "write_metrics_csv",
]

BLOCK_BYTES = 1 << 23
_AT_ONCE_FROM_BYTES = 1 << 15  # below, matrices cost more than they save
_LONGEST_BOM = 3


class LogParser:
    """Reads a log piece by piece, each piece once, so that a growing log can be followed.

    ``feed`` takes text as it comes, ``feed_line`` whole lines; both return the iterations that
    the piece completed, and ``log`` gives tables of everything so far.
    """

    def __init__(
        self, *, regions: bool = True, at_once_from_bytes: int = _AT_ONCE_FROM_BYTES
    ) -> None:
        """Begin a log.

        Args:
            regions: Whether region lines become rows; without, they are only counted.
            at_once_from_bytes: From which size on whole lines are read at once. What is read does
                not depend on it.
        """
        self._records = Records(keep_regions=regions)
        self._reader = LineReader(self._records)
        self._shapes = Shapes(regions=regions)
        self._at_once_from_bytes = at_once_from_bytes
        self._unfinished = bytearray()  # the last line, until its end comes

    @property
    def latest(self) -> Iteration | None:
        """The iteration line read last."""
        return self._records.iteration(n - 1) if (n := len(self._records.iterations)) else None

    def feed(self, piece: str | bytes) -> list[Iteration]:
        """Take the next piece of a log, cut anywhere; bytes are UTF-8.

        Returns:
            The iterations whose lines ended within the piece.
        """
        before = len(self._records.iterations)
        self.take(piece.encode("utf-8", errors="replace") if isinstance(piece, str) else piece)
        return self._since(before)

    def feed_line(self, line: str) -> list[Iteration]:
        """Take one whole line, with or without its line end."""
        return self.feed(line if line.endswith("\n") else line + "\n")

    def take(self, piece: bytes) -> None:
        """Take the next piece of a log in UTF-8, cut anywhere."""
        for start in range(0, len(piece), BLOCK_BYTES):
            self._take_block(piece[start : start + BLOCK_BYTES])
        self._records.settle()

    def close(self) -> list[Iteration]:
        """Take what stands after the last line end; the log has come to its end."""
        before = len(self._records.iterations)
        if self._unfinished:
            self._reader.take(bytes(self._unfinished))
            self._unfinished.clear()
        self._reader.end()
        self._records.settle()
        return self._since(before)

    def log(self, name: str = "", *, finished: bool = False) -> TrainLog:
        """Give the tables of all that was read so far; they do not change when more is fed.

        Args:
            name: What to call the log.
            finished: Nothing will be fed any more: tables share the memory of what was read.
        """
        return TrainLog(self._records.until_now(finished=finished), name)

    def _since(self, before: int) -> list[Iteration]:
        return [self._records.iteration(i) for i in range(before, len(self._records.iterations))]

    def _take_block(self, piece: bytes) -> None:
        end = piece.rfind(b"\n") + 1
        if end:
            lines = bytes(self._unfinished) + piece[:end]
            self._unfinished = bytearray(piece[end:])
            if len(lines) >= self._at_once_from_bytes:
                take_block(self._reader, self._shapes, lines)
            else:
                for line in lines.split(b"\n")[:-1]:
                    self._reader.take(line)
        else:
            self._unfinished += piece
        while len(self._unfinished) > LONGEST_PART:
            cut = end_of_part(self._unfinished, 0)
            self._reader.take(bytes(self._unfinished[:cut]), ends=False)
            del self._unfinished[:cut]


class Utf8:
    """Brings the bytes of a log into UTF-8, piece by piece: PowerShell's ``>`` writes UTF-16."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # until it is long enough to tell
        self._decoder: codecs.IncrementalDecoder | None = None

    def __call__(self, piece: bytes, *, final: bool = False) -> bytes:
        """Give the next piece; with ``final``, everything that was held back too."""
        if self._head is not None:
            piece = self._head + piece
            if len(piece) < _LONGEST_BOM and not final:
                self._head = piece
                return b""
            self._head = None
            if piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                self._decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
            piece = piece.removeprefix(codecs.BOM_UTF8)
        if self._decoder is None:
            return piece
        return self._decoder.decode(piece, final).encode("utf-8", errors="replace")


def parse_log(
    source: str | bytes | Iterable[str | bytes], *, name: str = "", regions: bool = True
) -> TrainLog:
    """Parse a log that is already here: its text, its bytes, or its lines.

    Args:
        source: A whole text, or lines (or pieces that end in line ends) of any of the dialects.
        name: What to call it.
        regions: See ``read_log``.
    """
    parser = LogParser(regions=regions)
    if isinstance(source, (str, bytes)):
        parser.take(_utf8(source))
    else:
        for line in source:
            piece = _utf8(line)
            parser.take(piece if piece.endswith(b"\n") else piece + b"\n")
    return _finished(parser, name)


def _utf8(piece: str | bytes) -> bytes:
    if isinstance(piece, str):
        return piece.encode("utf-8", errors="replace")
    return Utf8()(piece, final=True)


def _finished(parser: LogParser, name: str) -> TrainLog:
    """Give the tables of a log that nothing is added to any more."""
    parser.close()
    return parser.log(name, finished=True)


def read_log(path: str | os.PathLike[str], *, regions: bool = True) -> TrainLog:
    """Read a training log of any line of darknet: pjreddie's and Debian's, AlexeyAB's, hank-ai's.

    Each line is recognised by itself, so a file may mix dialects and hold anything else: layer
    tables, prompts, terminal codes, lines torn by another stream, several trainings, junk. What is
    not recognised is skipped, counted, and told by ``summary``.

    Args:
        path: The log: darknet's stdout, or stdout and stderr together (``2>&1``), in UTF-8 or
            UTF-16, with any line ends. AlexeyAB's region lines, and so every IOU, are on stderr.
        regions: Whether the region lines are read, which are most of a log. Without, they are only
            counted, and no iteration has an IOU.

    Returns:
        A log, whose tables are made when they are first asked for:

        - ``iterations``, one row per iteration line: iteration, loss, avg_loss, rate, seconds,
          images, hours_left, iou, run, line;
        - ``regions``, one row per region line: iteration, layer, iou, count, class_score, obj,
          no_obj, recall50, recall75, giou, class_loss, iou_loss, total_loss, run, line;
        - ``maps``, one row per mean average precision: iteration, map (0 to 1), threshold, run,
          line;
        - ``events``: line, iteration, kind (start, resize, saved, loaded, resume, warning or
          error), text (darknet's own words);
        - ``runs``, one row per training: run, dialect, first_iteration, last_iteration,
          iterations, first_line, last_line;
        - ``metrics()``, one row per iteration number as in ``metrics.csv``, with one column
          ``iou_<layer>`` for each layer; of a number that stands twice the later one counts;
        - ``summary``, what was found and what was left out; ``complaints()``, what went wrong.

        An iteration's IOU is the mean over its region lines, weighted by their counts; those are
        the lines between the iteration line before and its own. ``docs/logs.md`` has all of it.

    Raises:
        InputFormError: There is no file, or it cannot be read. What stands in it is no error.
    """
    path = Path(path)
    parser = LogParser(regions=regions)
    utf8 = Utf8()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                parser.take(utf8(block))
            parser.take(utf8(b"", final=True))
    except OSError as error:
        raise unreadable(path, error) from error
    return _finished(parser, str(path))


def unreadable(path: Path, error: OSError) -> InputFormError:
    """Say that a log cannot be read."""
    return InputFormError(
        "cannot read the training log",
        where=str(path),
        found=error.strerror or type(error).__name__,
        expected="the text that darknet printed while training",
        remedy="Train first, or give the path of a log",
    )


def complaints(source: TrainLog | str | bytes | Iterable[str | bytes]) -> list[str]:
    """Give darknet's own words for what went wrong, each once; empty when it says nothing.

    Args:
        source: A log that is already parsed, or its text or lines (stderr alone will do).
    """
    log = source if isinstance(source, TrainLog) else parse_log(source)
    return log.complaints()
