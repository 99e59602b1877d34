"""Parse training logs into tables: ``read_log``, ``parse_log``, and ``LogParser`` for growing logs.

No content of a log is an error: lines that cannot be parsed are skipped and counted in the summary.
"""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.core.errors import InputFormError
from oiyolo.core.progress import progress
from oiyolo.trainlog.line_matcher import MAX_PART_BYTES
from oiyolo.trainlog.line_reader import LineReader
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
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from oiyolo.core.progress import Progress

__all__ = [
    "NO_LAYER",
    "Event",
    "Iteration",
    "LogParser",
    "MapPoint",
    "RunRow",
    "Summary",
    "TrainLog",
    "Utf8Converter",
    "complaints",
    "parse_log",
    "read_log",
    "unreadable_log_error",
    "write_metrics_csv",
]

BLOCK_BYTES = 1 << 18
_MAX_BOM_BYTES = 3
_PROGRESS_AFTER_S = 2.0


class LogParser:
    """Parses a log incrementally, so that a growing log can be followed.

    ``feed`` accepts arbitrary pieces of text and returns the iterations that each completed.
    ``log`` returns tables of everything read so far.
    """

    def __init__(self, *, regions: bool = True) -> None:
        """Create a parser for one log.

        Args:
            regions: Whether region lines become rows; if not, they are only counted.
        """
        self._records = Records(keep_regions=regions)
        self._reader = LineReader(self._records)
        self._unfinished = b""  # the last line, while incomplete

    @property
    def latest(self) -> Iteration | None:
        """The last iteration line so far; ``None`` before the first."""
        return self._records.iteration(n - 1) if (n := len(self._records.iterations)) else None

    def feed(self, piece: str | bytes) -> list[Iteration]:
        """Parse the next piece of a log, which may end anywhere; bytes are UTF-8.

        Returns:
            The iterations whose lines ended in this piece.
        """
        before = len(self._records.iterations)
        self.feed_bytes(
            piece.encode("utf-8", errors="replace") if isinstance(piece, str) else piece
        )
        return self._iterations_since(before)

    def feed_bytes(self, piece: bytes) -> None:
        """Parse the next piece of a log in UTF-8, which may end anywhere."""
        for start in range(0, len(piece), BLOCK_BYTES):
            lines = (self._unfinished + piece[start : start + BLOCK_BYTES]).split(b"\n")
            self._unfinished = lines.pop()
            self._reader.read_lines(lines)
            if len(self._unfinished) > MAX_PART_BYTES:
                self._unfinished = self._reader.read_start(self._unfinished)

    def close(self) -> list[Iteration]:
        """Parse the unterminated last line, if any; the log is then complete.

        Returns:
            The iterations that the line completed.
        """
        before = len(self._records.iterations)
        if self._unfinished:
            self._reader.read_line(self._unfinished)
            self._unfinished = b""
        self._reader.finish()
        return self._iterations_since(before)

    def log(self, name: str = "", *, finished: bool = False) -> TrainLog:
        """Return the tables of everything read so far; later pieces do not change them.

        Args:
            name: Name of the log.
            finished: Whether nothing more will be fed; the tables then share the parser's memory.
        """
        return TrainLog(self._records.snapshot(finished=finished), name)

    def _iterations_since(self, before: int) -> list[Iteration]:
        return [self._records.iteration(i) for i in range(before, len(self._records.iterations))]


class Utf8Converter:
    """Converts a log to UTF-8, piece by piece: PowerShell's ``>`` writes UTF-16."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # until long enough to detect a byte order mark
        self._decoder: codecs.IncrementalDecoder | None = None

    def __call__(self, piece: bytes, *, final: bool = False) -> bytes:
        """Return the next piece as UTF-8; with ``final``, also the bytes held back so far."""
        if self._head is not None:
            piece = self._head + piece
            if len(piece) < _MAX_BOM_BYTES and not final:
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
    """Parse a log in memory: its text, bytes or lines.

    Args:
        source: The whole log, or its lines (or pieces that end at line endings), in any dialect.
        name: Name of the log.
        regions: Whether region lines are read, as in ``read_log``.
    """
    parser = LogParser(regions=regions)
    if isinstance(source, (str, bytes)):
        parser.feed_bytes(_to_utf8(source))
    else:
        for line in source:
            piece = _to_utf8(line)
            parser.feed_bytes(piece if piece.endswith(b"\n") else piece + b"\n")
    return _finish(parser, name)


def _to_utf8(piece: str | bytes) -> bytes:
    if isinstance(piece, str):
        return piece.encode("utf-8", errors="replace")
    return Utf8Converter()(piece, final=True)


def _finish(parser: LogParser, name: str) -> TrainLog:
    """Close the parser and return the tables of the complete log."""
    parser.close()
    return parser.log(name, finished=True)


def read_log(path: str | os.PathLike[str], *, regions: bool = True) -> TrainLog:
    """Read a training log of any fork of darknet: pjreddie's and Debian's, AlexeyAB's, hank-ai's.

    Each line is recognised on its own, so a file may mix dialects and contain anything else: layer
    tables, prompts, terminal codes, lines torn by another stream, several runs, junk. Lines that
    are not recognised are skipped, counted and reported by ``summary``.

    Args:
        path: The log: darknet's stdout, or stdout and stderr together (``2>&1``), in UTF-8 or
            UTF-16, with any line endings. AlexeyAB's fork prints its region lines, which contain
            all IOUs, on stderr.
        regions: Whether to read the region lines, which are most of a log. If not, they are only
            counted, and iterations have no IOU.

    Returns:
        A log, whose tables are built on first access:

        - ``iterations``, one row per iteration line: iteration, loss, avg_loss, rate, seconds,
          images, hours_left, iou, run, line;
        - ``regions``, one row per region line: iteration, layer, iou, count, class_score, obj,
          no_obj, recall50, recall75, giou, class_loss, iou_loss, total_loss, run, line;
        - ``maps``, one row per mean average precision: iteration, map (0 to 1), threshold, run,
          line;
        - ``events``: line, iteration, kind (start, resize, saved, loaded, resume, warning or
          error), text (the line as darknet printed it);
        - ``runs``, one row per run in the file: run, dialect, first_iteration, last_iteration,
          iterations, first_line, last_line;
        - ``metrics()``, one row per iteration number as in ``metrics.csv``, with one column
          ``iou_<layer>`` for each layer; of repeated iteration numbers, the last one is kept;
        - ``summary``, counts of what was recognised and skipped; ``complaints()``, the errors that
          darknet reported.

        An iteration's IOU is the mean over its region lines, weighted by their counts. Its region
        lines are those between the previous iteration line and its own. ``docs/logs.md`` has the
        details.

    Raises:
        InputFormError: The file is missing or cannot be read. Its contents are never an error.
    """
    path = Path(path)
    parser = LogParser(regions=regions)
    utf8 = Utf8Converter()
    try:
        with path.open("rb") as file, _reading(path, file) as bar:
            while block := file.read(BLOCK_BYTES):
                parser.feed_bytes(utf8(block))
                bar.advance(len(block))
            parser.feed_bytes(utf8(b"", final=True))
    except OSError as error:
        raise unreadable_log_error(path, error) from error
    return _finish(parser, str(path))


def _reading(path: Path, file: BinaryIO) -> AbstractContextManager[Progress]:
    """Return the progress of reading a log, which only a large one needs."""
    size_bytes = os.fstat(file.fileno()).st_size
    what = f"reading {path.name}"
    return progress(what, total=size_bytes, unit="B", delay_s=_PROGRESS_AFTER_S)


def unreadable_log_error(path: Path, error: OSError) -> InputFormError:
    """Return the error for a log that cannot be read."""
    return InputFormError(
        "cannot read the training log",
        where=str(path),
        found=error.strerror or type(error).__name__,
        expected="the output of darknet while training",
        remedy="Run `oiyolo train` first, or pass the path of a log",
    )


def complaints(source: TrainLog | str | bytes | Iterable[str | bytes]) -> list[str]:
    """Return the errors in a log, each once: darknet's messages, and an unrecovered divergence.

    Args:
        source: A parsed log, or its text or lines (stderr alone is enough for darknet's errors).
    """
    log = source if isinstance(source, TrainLog) else parse_log(source)
    return log.complaints()
