"""The training as it stands: the iterations that led to the latest one, without dead ends.

A log may hold several trainings, and resumes that went back. What a later run of the file took the
place of is no part of the training as it stands: iterations 801 to 1000 of a run that was resumed
at 800 and is now at 850, or all of a training that was begun anew.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from oiyolo.trainlog.tables import TrainLog

    Values = npt.NDArray[np.float64]

_LARGEST: Final = 3.5e38
"""Of a 32-bit float; what is above it was no number of darknet's."""

_NUMBERED: Final = re.compile(r"_(\d{1,9})\.weights\b")
_FINAL: Final = "_final.weights"
_STEP_DOWN, _STEP_UP = 0.6, 1.9
_STEP_HELD: Final = 3
_STEP_FROM: Final = 4e-6  # below it, six printed decimals make steps of their own


class RateStep(NamedTuple):
    """A step of the learning rate.

    Attributes:
        iteration: The first one with the new rate.
        rate: The new rate.
    """

    iteration: int
    rate: float


@dataclass(frozen=True)
class Lineage:
    """The iterations that led to the latest one, and what happened on the way.

    Attributes:
        log: Where it is from.
        table: One row per iteration, rising: ``TrainLog.metrics()`` with run, line and
            images_per_s beside.
        replaced: Rows of ``TrainLog.iterations`` that a later run took the place of.
        maps: Rows of ``TrainLog.maps`` that belong to iterations of ``table`` and have a value.
        saved: Iterations at which weights were saved, rising.
        resumed: Iterations from which the training went on after a break, rising.
        rate_steps: Steps of the learning rate; none for a rate that changes all the time.
        ended: The final weights of the latest run were saved.
    """

    log: TrainLog
    table: pd.DataFrame
    replaced: pd.DataFrame
    maps: pd.DataFrame
    saved: tuple[int, ...]
    resumed: tuple[int, ...]
    rate_steps: tuple[RateStep, ...]
    ended: bool

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> Values:
        """Give a column of ``table`` as numbers; nan for inf and what no 32-bit float holds."""
        return drawable(self.table[name])

    @property
    def layers(self) -> list[str]:
        """The columns of ``table`` that hold one layer's IOU."""
        return [str(name) for name in self.table.columns if str(name).startswith("iou_")]


def drawable(column: pd.Series[float]) -> Values:
    """Give values that can be drawn: nan for inf and what no 32-bit float holds."""
    values = np.asarray(column, dtype=np.float64)
    return np.where(np.abs(values) < _LARGEST, values, np.nan)


def lineage(log: TrainLog) -> Lineage:
    """Find the iterations that led to the latest one of a log."""
    rows = log.iterations
    kept = _kept(rows)
    led_here: pd.DataFrame = rows.loc[kept, ["iteration", "run", "line"]]
    table: pd.DataFrame = log.metrics().merge(led_here, on="iteration")
    table["images_per_s"] = _images_per_s(table)
    points = log.maps.merge(led_here[["iteration", "run"]], on=["iteration", "run"])
    return Lineage(
        log=log,
        table=table,
        replaced=rows[~kept],
        maps=points[np.isfinite(points["map"])],
        saved=_saved(log, table),
        resumed=_resumed(log, table),
        rate_steps=tuple(_rate_steps(table)),
        ended=_ended(log),
    )


def _kept(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Tell which rows no later run of the file took the place of."""
    if rows.empty:
        return np.zeros(0, bool)
    first = rows.groupby("run")["iteration"].min().sort_index()
    first_of_later = first[::-1].cummin()[::-1].shift(-1, fill_value=np.iinfo(np.int64).max)
    kept: npt.NDArray[np.bool_] = np.asarray(
        rows["iteration"] < rows["run"].map(first_of_later), dtype=bool
    )
    return kept


def _images_per_s(table: pd.DataFrame) -> Values:
    """Give the images trained per second; nan where the lines do not tell."""
    iteration, images = table["iteration"].to_numpy(float), table["images"].to_numpy(float)
    seconds = table["seconds"].to_numpy(float)
    known = (iteration > 0) & (images > 0)
    if not known.any():
        return np.full(len(table), np.nan)
    # Darknet counts images in an int, which overflows; the images of one iteration do not change.
    batch = float(np.median(images[known] / iteration[known]))
    out = np.full(len(table), np.nan)
    np.divide(batch, seconds, out=out, where=np.isfinite(seconds) & (seconds > 0))
    return out


def _saved(log: TrainLog, table: pd.DataFrame) -> tuple[int, ...]:
    if table.empty:
        return ()
    latest = int(table["iteration"].iloc[-1])
    events = log.events
    events = events[events["kind"] == "saved"]
    found = set()
    for text, before in zip(events["text"].tolist(), events["iteration"].tolist(), strict=True):
        # The file's number is surer than the place in the log, where stdout may be buffered.
        named = _NUMBERED.search(text)
        iteration = int(named[1]) if named else before
        if 0 < iteration <= latest:
            found.add(iteration)
    return tuple(sorted(found))


def _resumed(log: TrainLog, table: pd.DataFrame) -> tuple[int, ...]:
    events = log.events
    lines = set(events.loc[events["kind"] == "resume", "line"])
    found = table.loc[table["line"].isin(lines), "iteration"]
    return tuple(int(iteration) for iteration in found)


def _rate_steps(table: pd.DataFrame) -> list[RateStep]:
    """Find where the rate changes by much and is held before and after."""
    rate = table["rate"].to_numpy(float)
    n = len(rate)
    if n < 2 * _STEP_HELD:
        return []
    before, after = rate[:-1], rate[1:]
    with np.errstate(all="ignore"):
        ratio = after / before
        steps = np.flatnonzero(
            ((ratio <= _STEP_DOWN) | (ratio >= _STEP_UP))
            & (np.maximum(before, after) >= _STEP_FROM)
            & np.isfinite(ratio)
        )
    iterations = table["iteration"].to_numpy()
    return [
        RateStep(int(iterations[i + 1]), float(rate[i + 1]))
        for i in steps
        if i + 1 >= _STEP_HELD
        and i + 1 + _STEP_HELD <= n
        and (rate[i + 1 - _STEP_HELD : i + 1] == rate[i]).all()
        and (rate[i + 1 : i + 1 + _STEP_HELD] == rate[i + 1]).all()
    ]


def _ended(log: TrainLog) -> bool:
    rows, events = log.iterations, log.events
    if rows.empty:
        return False
    lines = events.loc[
        (events["kind"] == "saved") & events["text"].str.contains(_FINAL, regex=False), "line"
    ]
    # Where stdout was buffered, the last iterations stand below the words about the weights.
    latest_begins = rows.loc[rows["run"] == rows["run"].iloc[-1], "line"].iloc[0]
    return bool((lines > latest_begins).any())


def number_text(value: float) -> str:
    """Give a number as a person reads it: about four digits, thousands apart."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e6:  # noqa: PLR2004  (a number of words)
        return f"{value:.3g}"
    if size >= 100:  # noqa: PLR2004  (the same)
        return f"{value:,.0f}"
    return f"{value:.3f}" if size >= 1e-3 or not size else f"{value:.3g}"  # noqa: PLR2004  (the same)
