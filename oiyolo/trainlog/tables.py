"""What a training log holds: rows, tables, and the summary that a person reads.

``parse`` fills ``Records`` line by line; ``TrainLog`` makes tables of them when they are asked for.
"""

from __future__ import annotations

import io
import math
from array import array
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from oiyolo.files import write_text
from oiyolo.trainlog.dialects import number

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.trainlog.dialects import Dialect, EventKind, Form

NO_LAYER = -1
"""The layer of a YOLOv2 region line, which does not name one."""

UNASSIGNED = -1
"""The iteration of what stands before or after all iteration lines."""


class Iteration(NamedTuple):
    """One iteration line, and the IOU of the region lines before it.

    Attributes:
        iteration: Its number as printed.
        loss: Loss of this iteration's images.
        avg_loss: The running average that darknet prints: 0.9 of the last and 0.1 of the loss.
        rate: Learning rate.
        seconds: Time the iteration took, without loading images.
        images: Images seen so far as printed (negative above 2^31).
        hours_left: Darknet's own estimate; nan where none is printed.
        iou: Count-weighted mean IOU over the iteration's region lines; nan without any.
        run: 0-based number of the training within the file.
        line: 1-based line in the file.
    """

    iteration: int
    loss: float
    avg_loss: float
    rate: float
    seconds: float
    images: int
    hours_left: float
    iou: float
    run: int
    line: int

    @property
    def images_per_s(self) -> float:
        """Images trained per second; nan where the line does not tell."""
        if self.iteration <= 0 or self.images <= 0 or not self.seconds > 0:
            return math.nan
        return self.images / self.iteration / self.seconds


class MapPoint(NamedTuple):
    """A mean average precision that darknet measured while training.

    Attributes:
        iteration: The iteration line before it; -1 where there is none.
        map: Mean average precision, 0 to 1.
        threshold: IOU from which a detection counts; nan where it is not printed.
        run: 0-based number of the training within the file.
        line: 1-based line in the file.
    """

    iteration: int
    map: float
    threshold: float
    run: int
    line: int


class Event(NamedTuple):
    """Something else that a log tells.

    Attributes:
        line: 1-based line in the file.
        iteration: The iteration line before it in the file; -1 where there is none. (Where
            stdout was buffered, what came through stderr stands earlier than it happened.)
        kind: start, resize, saved, loaded, resume, warning or error.
        text: Darknet's own words.
    """

    line: int
    iteration: int
    kind: EventKind
    text: str


@dataclass(frozen=True)
class Summary:
    """What was found in a log and what was left out; ``str()`` of it is for a person.

    Attributes:
        lines: Lines in the file.
        iterations: Iteration lines.
        first_iteration: Number of the first one in the file; ``None`` without any.
        last_iteration: Number of the last one in the file; ``None`` without any.
        runs: Trainings in the file.
        dialects: Names of the lines of darknet that were recognised.
        regions: Region lines.
        regions_empty: Of those, the ones that no object met (count 0), which carry no IOU.
        regions_unassigned: Of those, the ones without an iteration line after them.
        maps: mAP points.
        mended: Lines that another stream had cut in two and that were put together again.
        torn: Lines that look like a part of an iteration or region line and are skipped.
        torn_lines: The first few of their 1-based numbers.
        other: Lines that hold nothing for the tables (layer tables, times, prose).
        notes: What a reader should know beyond the counts.
    """

    lines: int
    iterations: int
    first_iteration: int | None
    last_iteration: int | None
    runs: int
    dialects: tuple[str, ...]
    regions: int
    regions_empty: int
    regions_unassigned: int
    maps: int
    mended: int
    torn: int
    torn_lines: tuple[int, ...]
    other: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        dialects = f", {' and '.join(self.dialects)} form" if self.dialects else ""
        text = [f"{_count(self.lines, 'line')}{dialects}"]
        if self.first_iteration is None:
            text.append("0 iteration lines")
        else:
            span = f"{self.first_iteration} to {self.last_iteration}"
            runs = f" in {self.runs} runs" if self.runs > 1 else ""
            text.append(f"{_count(self.iterations, 'iteration')}: {span}{runs}")
        if self.regions:
            empty = f", of those {self.regions_empty} with count 0, which carry no IOU"
            text.append(_count(self.regions, "region line") + (empty if self.regions_empty else ""))
        if self.regions_unassigned:
            text.append(
                f"{_count(self.regions_unassigned, 'region line')} not followed by an iteration "
                "line: assigned to none"
            )
        if self.maps:
            text.append(_count(self.maps, "mAP point"))
        if self.mended:
            text.append(f"{_count(self.mended, 'line')} cut in two by another stream: put together")
        if self.torn:
            shown = ", ".join(map(str, self.torn_lines))
            more = ", ..." if self.torn > len(self.torn_lines) else ""
            text.append(f"{_count(self.torn, 'broken line')} skipped (line {shown}{more})")
        if self.other:
            text.append(f"{_count(self.other, 'line')} of other text skipped")
        return "\n".join([*text, *self.notes])


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


class Regions:
    """Region lines, one compact array per column: a long log holds a million of them."""

    NUMBERS = (
        "iou",
        "class_score",
        "obj",
        "no_obj",
        "recall50",
        "recall75",
        "giou",
        "class_loss",
        "iou_loss",
        "total_loss",
    )

    def __init__(self) -> None:
        self.iteration = array("q")
        self.run = array("q")
        self.line = array("q")
        self.layer = array("q")
        self.count = array("q")
        self.numbers = {name: array("d") for name in self.NUMBERS}

    def __len__(self) -> int:
        return len(self.line)

    def add(self, match: re.Match[str], form: Form, line: int) -> tuple[float, int]:
        """Add a line that has no iteration yet; return its IOU (nan: none) and its count."""
        values = match.groupdict()
        layer = values.get("layer")
        count = int(values["count"])
        iou = number(values["iou"])
        if count == 0 or (form.zero_is_empty and count == 1 and iou == 0):
            iou, count_of_objects = math.nan, 0
        else:
            count_of_objects = count
        self.iteration.append(UNASSIGNED)
        self.run.append(UNASSIGNED)
        self.line.append(line)
        self.layer.append(NO_LAYER if layer is None else int(layer))
        self.count.append(count)
        for name, column in self.numbers.items():
            column.append(iou if name == "iou" else number(values.get(name)))
        return iou, count_of_objects

    def assign(self, start: int, iteration: int, run: int) -> None:
        """Give all lines from ``start`` on to an iteration."""
        n = len(self) - start
        if n:
            self.iteration[start:] = array("q", [iteration]) * n
            self.run[start:] = array("q", [run]) * n

    def copy(self) -> Regions:
        """Give the same lines apart from these."""
        other = Regions()
        for name in ("iteration", "run", "line", "layer", "count"):
            setattr(other, name, getattr(self, name)[:])
        other.numbers = {name: column[:] for name, column in self.numbers.items()}
        return other

    def columns(self) -> dict[str, array[int] | array[float]]:
        """Give the columns under the names, and in the order, of ``TrainLog.regions``."""
        return {
            "iteration": self.iteration,
            "layer": self.layer,
            "iou": self.numbers["iou"],
            "count": self.count,
            **{name: column for name, column in self.numbers.items() if name != "iou"},
            "run": self.run,
            "line": self.line,
        }


@dataclass
class Records:
    """Everything that a parser has gathered."""

    iterations: list[Iteration] = field(default_factory=list)
    regions: Regions = field(default_factory=Regions)
    maps: list[MapPoint] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    dialects: list[Dialect] = field(default_factory=list)
    lines: int = 0
    other: int = 0
    regions_empty: int = 0
    mended: int = 0
    torn: int = 0
    torn_lines: list[int] = field(default_factory=list)

    def copy(self) -> Records:
        """Give the same records apart from these."""
        return replace(
            self,
            iterations=self.iterations[:],
            regions=self.regions.copy(),
            maps=self.maps[:],
            events=self.events[:],
            dialects=self.dialects[:],
            torn_lines=self.torn_lines[:],
        )


class TrainLog:
    """The tables of a training log; a notebook shows it as its summary and last iterations.

    Attributes:
        name: Where it was read from; empty for text.
    """

    def __init__(self, records: Records, name: str = "") -> None:
        self._records = records
        self.name = name

    def __len__(self) -> int:
        """Count the iteration lines."""
        return len(self._records.iterations)

    def __repr__(self) -> str:
        return f"TrainLog({self.name!r}, {len(self)} iterations)"

    @property
    def latest(self) -> Iteration | None:
        """The last iteration line of the file."""
        return self._records.iterations[-1] if self._records.iterations else None

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """One row per iteration line, in the order of the file; columns as ``Iteration``'s."""
        return _frame(Iteration, self._records.iterations)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """One row per region line, in the order of the file.

        Columns: iteration (missing where no iteration line follows), layer (-1 in YOLOv2's),
        iou (nan where count is 0), count (objects), class_score, obj, no_obj, recall50,
        recall75, giou, class_loss, iou_loss, total_loss (nan where not printed), run, line.
        """
        import numpy as np  # noqa: PLC0415  (heavy, and following a log needs no tables)
        import pandas as pd  # noqa: PLC0415  (the same)

        columns = {k: np.array(v) for k, v in self._records.regions.columns().items()}
        unassigned = columns["iteration"] == UNASSIGNED
        table: pd.DataFrame = pd.DataFrame(columns)
        for name in ("iteration", "run"):
            table[name] = pd.arrays.IntegerArray(columns[name], unassigned.copy())
        return table

    @cached_property
    def maps(self) -> pd.DataFrame:
        """One row per mean average precision; columns as ``MapPoint``'s."""
        return _frame(MapPoint, self._records.maps)

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event; columns as ``Event``'s."""
        return _frame(Event, self._records.events)

    @cached_property
    def summary(self) -> Summary:
        """What was recognised, what was skipped, and why."""
        found = self._records
        regions = found.regions
        first = found.iterations[0] if found.iterations else None
        last = found.iterations[-1] if found.iterations else None
        return Summary(
            lines=found.lines,
            iterations=len(found.iterations),
            first_iteration=first.iteration if first else None,
            last_iteration=last.iteration if last else None,
            runs=last.run + 1 if last else 0,
            dialects=tuple(dialect.name for dialect in found.dialects),
            regions=len(regions),
            regions_empty=found.regions_empty,
            regions_unassigned=regions.iteration.count(UNASSIGNED),
            maps=len(found.maps),
            mended=found.mended,
            torn=found.torn,
            torn_lines=tuple(found.torn_lines),
            other=found.other,
            notes=tuple(_notes(found)),
        )

    def metrics(self) -> pd.DataFrame:
        """Give one row per iteration, as ``metrics.csv`` holds it.

        Columns: iteration, loss, avg_loss, rate, seconds, images, iou (count-weighted mean over
        the iteration's region lines), iou_<layer> for each layer (the same of its lines; nan
        where no object met it), map (0 to 1; nan but where darknet measured it). Of an iteration
        that stands twice in the log, after a resume, the later one counts.
        """
        rows: pd.DataFrame = self.iterations.drop_duplicates("iteration", keep="last")
        rows = rows.sort_values("iteration")
        key = ["run", "iteration"]
        table: pd.DataFrame = rows[[*key, "loss", "avg_loss", "rate", "seconds", "images", "iou"]]
        for layer_iou in _iou_by_layer(self.regions):
            table = table.join(layer_iou, on=key)
        points = self.maps.drop_duplicates(key, keep="last").set_index(key)["map"]
        whole: pd.DataFrame = table.join(points, on=key).drop(columns="run").reset_index(drop=True)
        return whole

    def complaints(self) -> list[str]:
        """Give darknet's own words for what went wrong, each once, in the order of the log."""
        words = [event.text for event in self._records.events if event.kind == "error"]
        return list(dict.fromkeys(words + _divergence(self._records.iterations)))

    def _repr_html_(self) -> str:
        head = f"<pre>{escape(self.name)}\n{escape(str(self.summary))}</pre>"
        return head + (self.metrics().tail().to_html(index=False) if len(self) else "")


_DTYPES = {
    **dict.fromkeys(("iteration", "images", "run", "line"), "int64"),
    **dict.fromkeys(("kind", "text"), "str"),
}


def _frame(row: type[NamedTuple], rows: Sequence[NamedTuple]) -> pd.DataFrame:
    """Make a table with one column per field, typed also where there are no rows."""
    import pandas as pd  # noqa: PLC0415  (heavy, and following a log needs no tables)

    table: pd.DataFrame = pd.DataFrame(rows, columns=list(row._fields)).astype(
        {name: _DTYPES.get(name, "float64") for name in row._fields}
    )
    return table


def _iou_by_layer(regions: pd.DataFrame) -> Iterator[pd.Series[float]]:
    """Give the count-weighted mean IOU of each (run, iteration): ``iou_<layer>``, by layer."""
    import numpy as np  # noqa: PLC0415  (heavy, and following a log needs no tables)

    regions = regions[regions["iteration"].notna() & (regions["layer"] != NO_LAYER)]
    regions = regions.astype({"run": "int64", "iteration": "int64", "count": "float64"})
    seen = regions[np.isfinite(regions["iou"])]
    seen = seen.assign(weighted=seen["iou"] * seen["count"])
    for layer in sorted(regions["layer"].unique()):
        lines = seen[seen["layer"] == layer]
        sums = lines.groupby(["run", "iteration"])[["weighted", "count"]].sum()
        yield (sums["weighted"] / sums["count"]).rename(f"iou_{layer}")


def _notes(found: Records) -> Iterator[str]:
    """What a reader of the summary should know beyond the counts."""
    if found.iterations and not len(found.regions):
        reasons = dict.fromkeys(dialect.without_regions for dialect in found.dialects)
        yield f"0 region lines: {'; '.join(reasons)}"
    if found.iterations and found.regions_empty < len(
        found.regions
    ) == found.regions.iteration.count(UNASSIGNED):
        yield "no region line stands before an iteration line, so no iteration has an IOU"
    not_finite = sum(not math.isfinite(row.loss) for row in found.iterations)
    if not_finite:
        yield f"{_count(not_finite, 'iteration')} with a loss of nan or inf"
    yield from _divergence(found.iterations)
    errors = [event for event in found.events if event.kind == "error"]
    if errors:
        last = errors[-1]
        yield f"{_count(len(errors), 'error')}, the last in line {last.line}: {last.text}"


def _divergence(iterations: Sequence[Iteration]) -> list[str]:
    """Say since when the average loss is no number, if it is none at the end of the log."""
    first = None
    for row in reversed(iterations):
        if math.isfinite(row.avg_loss):
            break
        first = row
    if first is None:
        return []
    where = f"from iteration {first.iteration} on"
    facts = f"loss {first.loss}, learning rate {first.rate:g}"
    return [f"the average loss is {first.avg_loss} {where} ({facts}): the training has diverged"]


def write_metrics_csv(log: TrainLog, path: Path) -> None:
    """Write ``log.metrics()`` as CSV, whole or not at all; what is not a number stays empty."""
    text = io.StringIO()
    log.metrics().to_csv(text, index=False, lineterminator="\n")
    write_text(path, text.getvalue())
