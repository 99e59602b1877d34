"""A training log into tables: ``read_log``, ``parse_log``, and ``LogParser`` while it grows.

How lines belong together: darknet prints one region line per detection layer and subdivision,
then the line of the iteration they were part of. AlexeyAB's region lines go to stderr at once
and its iteration line to stdout at the end of the iteration, so that order holds in a log taken
with ``2>&1`` as well (a region line's total_loss there is the loss of the iteration after it).

Nothing in a log is an error: what cannot be read is skipped and counted in the summary.
"""

from __future__ import annotations

import codecs
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.errors import InputFormError
from oiyolo.trainlog.dialects import (
    EVENTS,
    FORMS,
    ITERATION_BEGINS,
    LOOKS_BROKEN,
    NETWORK_SHOWN,
    SIZE,
    number,
    seconds,
)
from oiyolo.trainlog.tables import (
    NO_LAYER,
    UNASSIGNED,
    Event,
    Iteration,
    MapPoint,
    Records,
    Summary,
    TrainLog,
    write_metrics_csv,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from oiyolo.trainlog.dialects import Dialect, EventKind, Form

    _Found = tuple[Dialect, Form, re.Match[str]]

__all__ = [
    "NO_LAYER",
    "Event",
    "Iteration",
    "LogParser",
    "MapPoint",
    "Summary",
    "TrainLog",
    "complaints",
    "parse_log",
    "read_log",
    "write_metrics_csv",
]

_READ_BLOCK_BYTES = 1 << 20
_LONGEST_PART = 1 << 16  # characters; darknet's own lines stay below 500
_LONGEST_EVENT_TEXT = 500
_MOST_GPUS = 16  # with n GPUs a training from scratch may begin with iteration n
_TORN_SHOWN = 5

# Terminal codes: titles and links (OSC), colours and cursor (CSI), and colours in logs that
# lost the escape character or show it as ^[.
_TERMINAL_CODES = re.compile(
    r"(?:\x1b|\^\[)\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\|\^G)"
    r"|\x1b\[[0-9;?]{0,64}[ -/]?[@-~]"
    r"|(?:\^\[)?\[\d[\d;]{0,32}m",
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class LogParser:
    """Reads a log piece by piece, each piece once, so that a growing log can be followed.

    ``feed`` takes text as it comes, ``feed_line`` whole lines; both return the iterations that
    the piece completed, and ``log`` gives tables of everything so far.
    """

    def __init__(self) -> None:
        self._records = Records()
        self._unfinished = ""  # the last line, until its end comes
        self._torn_head: tuple[str, int] | None = None
        self._pending_from = 0  # first region line that waits for its iteration
        self._iou_sum = 0.0
        self._iou_weight = 0
        self._run = 0
        self._run_is_new = False  # a training was announced and has no iteration yet
        self._network_shown = False  # a process has begun since the latest iteration
        self._size_follows = False  # after "Resizing"

    @property
    def latest(self) -> Iteration | None:
        """The iteration line read last."""
        return self._records.iterations[-1] if self._records.iterations else None

    def feed(self, text: str) -> list[Iteration]:
        """Take the next piece of a log, cut anywhere.

        Returns:
            The iterations whose lines ended within the piece.
        """
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        before = len(self._records.iterations)
        for line in lines:
            self._take(line)
        if len(self._unfinished) > _LONGEST_PART:  # no log of darknet: junk without line ends
            self._take(self._unfinished, ends=False)
            self._unfinished = ""
        return self._records.iterations[before:]

    def feed_line(self, line: str) -> list[Iteration]:
        """Take one whole line, with or without its line end."""
        return self.feed(line if line.endswith("\n") else line + "\n")

    def close(self) -> list[Iteration]:
        """Take what stands after the last line end; the log has come to its end."""
        before = len(self._records.iterations)
        if self._unfinished:
            self._take(self._unfinished)
            self._unfinished = ""
        self._give_up_torn_head()
        return self._records.iterations[before:]

    def log(self, name: str = "") -> TrainLog:
        """Give the tables of all that was read so far; they do not change when more is fed."""
        return TrainLog(self._records.copy(), name)

    def _take(self, line: str, *, ends: bool = True) -> None:
        """Take one line; progress within it is apart by carriage returns."""
        self._records.lines += ends
        blank, used = True, False
        for part in line.split("\r"):
            for start in range(0, len(part), _LONGEST_PART):
                text = _without_codes(part[start : start + _LONGEST_PART])
                if text and not text.isspace():
                    blank = False
                    used |= self._take_part(text)
        self._records.other += not (blank or used)

    def _take_part(self, text: str) -> bool:
        """Take one piece of a line; tell whether it held anything for the tables."""
        if self._torn_head is not None and not text.startswith("Saving weights to"):
            head, line = self._torn_head
            whole = head + text
            found = _recognised(whole)
            if found:
                self._torn_head = None
                self._records.mended += 1
                self._take_found(found, line)
                return True
            self._give_up_torn_head()
        line = self._records.lines
        found = _recognised(text)
        rest = text
        if found:
            self._take_found(found, line)
            rest = text[found[-1][2].end() :]
        used = bool(found)
        if rest and not rest.isspace():
            used |= self._take_event(rest, line)
        if not used and LOOKS_BROKEN.search(text):
            self._take_torn(text, line)
            used = True
        return used

    def _take_found(self, found: Sequence[_Found], line: int) -> None:
        for dialect, form, match in found:
            if dialect not in self._records.dialects:
                self._records.dialects.append(dialect)
            if form is dialect.iteration:
                self._take_iteration(match, line)
            elif form in dialect.regions:
                self._take_region(form, match, line)
            else:
                self._take_map(match, line)

    def _take_iteration(self, match: re.Match[str], line: int) -> None:
        values = match.groupdict()
        n = int(values["iteration"])
        latest = self.latest
        announced = self._run_is_new
        if latest is not None and (announced or n <= latest.iteration):
            self._run += 1
        self._run_is_new = False
        self._network_shown = False
        if (announced and n > _MOST_GPUS) or (
            not announced and latest is not None and 1 < n <= latest.iteration
        ):
            self._add_event("resume", match[0], line)
        in_seconds = values.get("seconds")
        left = values.get("hours_left")
        self._records.regions.assign(self._pending_from, n, self._run)
        self._records.iterations.append(
            Iteration(
                iteration=n,
                loss=number(values["loss"]),
                avg_loss=number(values["avg_loss"]),
                rate=number(values["rate"]),
                seconds=number(in_seconds)
                if in_seconds
                else seconds(values.get("time"), values.get("unit")),
                images=int(values["images"]),
                hours_left=number(left)
                if left
                else seconds(values.get("left"), values.get("left_unit")) / 3600,
                iou=self._iou_sum / self._iou_weight if self._iou_weight else math.nan,
                run=self._run,
                line=line,
            )
        )
        self._drop_pending()

    def _take_region(self, form: Form, match: re.Match[str], line: int) -> None:
        iou, count = self._records.regions.add(match, form, line)
        self._records.regions_empty += count == 0
        if math.isfinite(iou):
            self._iou_sum += iou * count
            self._iou_weight += count

    def _take_map(self, match: re.Match[str], line: int) -> None:
        values = match.groupdict()
        latest = self.latest
        value = number(values["map"])
        point = MapPoint(
            iteration=UNASSIGNED if latest is None else latest.iteration,
            map=value / 100 if values["percent"] else value,
            threshold=number(values["threshold"]),
            run=self._run,
            line=line,
        )
        if not self._records.maps or not _same_measure(self._records.maps[-1], point):
            self._records.maps.append(point)

    def _take_event(self, text: str, line: int) -> bool:
        if self._size_follows and SIZE.fullmatch(text):
            resize = self._records.events[-1]
            self._records.events[-1] = resize._replace(text=f"{resize.text} {text.strip()}")
            self._size_follows = False
            return True
        if NETWORK_SHOWN.match(text):
            self._network_shown = True
            self._drop_pending()
            return False
        found = _event(text)
        if found is None:
            return False
        kind, match = found
        self._size_follows = kind == "resize"
        words = text
        if kind == "saved":
            head, words = text[: match.start()], text[match.start() :]
            if LOOKS_BROKEN.search(head) or ITERATION_BEGINS.search(head):
                self._torn_head = (head, line)
        elif kind == "start":
            self._run_is_new = True
            # Region lines of a training that was killed are not those of the one that begins.
            # Where the network was shown they are gone already; what came since belongs to the
            # new training, whose buffered "Learning Rate" may come after its region lines.
            if self.latest is not None and not self._network_shown:
                self._drop_pending()
        self._add_event(kind, words, line)
        return True

    def _add_event(self, kind: EventKind, words: str, line: int) -> None:
        iteration = UNASSIGNED if self.latest is None else self.latest.iteration
        text = words.strip()[:_LONGEST_EVENT_TEXT]
        self._records.events.append(Event(line, iteration, kind, text))

    def _take_torn(self, text: str, line: int) -> None:
        self._records.torn += 1
        if len(self._records.torn_lines) < _TORN_SHOWN:
            self._records.torn_lines.append(line)
        if ITERATION_BEGINS.search(text):  # its region lines are not those of the next iteration
            self._drop_pending()

    def _give_up_torn_head(self) -> None:
        if self._torn_head is not None:
            text, line = self._torn_head
            self._torn_head = None
            self._take_torn(text, line)

    def _drop_pending(self) -> None:
        """Have the next iteration begin with no region lines."""
        self._pending_from = len(self._records.regions)
        self._iou_sum = 0.0
        self._iou_weight = 0


def _without_codes(text: str) -> str:
    """Take terminal codes out, and blanks in the place of other control characters."""
    if text.isprintable() and "[" not in text:  # nearly every line
        return text
    return _CONTROL.sub(" ", _TERMINAL_CODES.sub("", text))


def _recognised(text: str) -> list[_Found]:
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


def _event(text: str) -> tuple[EventKind, re.Match[str]] | None:
    """Tell what else a piece of text is about."""
    for kind, pattern in EVENTS:
        if match := pattern.search(text):
            return kind, match
    return None


def _same_measure(a: MapPoint, b: MapPoint) -> bool:
    """Tell whether darknet only printed a measure twice, as AlexeyAB's does."""
    same_threshold = a.threshold == b.threshold or math.isnan(a.threshold + b.threshold)
    return (a.run, a.iteration) == (b.run, b.iteration) and same_threshold and a.map == b.map


def parse_log(source: str | bytes | Iterable[str | bytes], *, name: str = "") -> TrainLog:
    """Parse a log that is already here: its text, its bytes, or its lines.

    Args:
        source: A whole text, or lines (or pieces that end in line ends) of any of the dialects.
        name: What to call it.
    """
    parser = LogParser()
    if isinstance(source, (str, bytes)):
        parser.feed(_text(source))
    else:
        for line in source:
            parser.feed_line(_text(line))
    parser.close()
    return parser.log(name)


def _text(piece: str | bytes) -> str:
    return piece if isinstance(piece, str) else piece.decode(_encoding(piece), errors="replace")


def _encoding(head: bytes) -> str:
    """Tell the encoding of a log; PowerShell's ``>`` writes UTF-16."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8"


def read_log(path: str | os.PathLike[str]) -> TrainLog:
    """Read a training log of any of the dialects.

    Args:
        path: The log: darknet's stdout, or stdout and stderr together (``2>&1``).

    Raises:
        InputFormError: There is no file, or it cannot be read. What stands in it is no error.
    """
    path = Path(path)
    parser = LogParser()
    try:
        with path.open("rb") as file:
            encoding = _encoding(file.read(4))
            file.seek(0)
            decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
            while block := file.read(_READ_BLOCK_BYTES):
                parser.feed(decoder.decode(block))
            parser.feed(decoder.decode(b"", final=True))
    except OSError as error:
        raise InputFormError(
            "cannot read the training log",
            where=str(path),
            found=error.strerror or type(error).__name__,
            expected="the text that darknet printed while training",
            remedy="Train first, or give the path of a log",
        ) from error
    parser.close()
    return parser.log(str(path))


def complaints(source: TrainLog | str | bytes | Iterable[str | bytes]) -> list[str]:
    """Give darknet's own words for what went wrong, each once; empty when it says nothing.

    Args:
        source: A log that is already parsed, or its text or lines (stderr alone will do).
    """
    log = source if isinstance(source, TrainLog) else parse_log(source)
    return log.complaints()
