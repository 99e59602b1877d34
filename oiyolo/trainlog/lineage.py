"""The lineage of a log: the iterations that led to the latest one, without abandoned ones.

A log may contain several runs, and resumes from earlier iterations. Iterations that a later run in
the file replaced are not part of the lineage: iterations 801 to 1000 of a run that was resumed at
800 and is now at 850, or everything before a run that started from scratch.
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

    from oiyolo.trainlog.scores import CheckpointScore
    from oiyolo.trainlog.tables import TrainLog

    Values = npt.NDArray[np.float64]

_FLOAT32_LIMIT: Final = 3.5e38
"""Just above the largest 32-bit float; darknet cannot have computed a larger number."""

_WEIGHTS_NUMBER: Final = re.compile(r"_(\d{1,9})\.weights\b")
FINAL_WEIGHTS: Final = "_final.weights"
"""End of the name of the weights that darknet saves when it has reached max_batches."""
_RATE_DROP, _RATE_RISE = 0.6, 1.9
_STABLE_ITERATIONS: Final = 3
_MIN_STEP_RATE: Final = 4e-6  # below, rounding to the six printed decimals looks like steps


class MapFacts(NamedTuple):
    """The last and the best mAP of a run, at the IOU threshold measured last.

    Attributes:
        last: The last mAP, 0 to 1.
        last_iteration: Its iteration.
        best: The highest mAP; of equal ones, the latest.
        best_iteration: Its iteration.
        since_best: The values since the best one, in order.
        measured: Number of values.
    """

    last: float
    last_iteration: int
    best: float
    best_iteration: int
    since_best: tuple[float, ...]
    measured: int

    def __str__(self) -> str:
        if self.since_best:
            best = f"best {self.best:.3f} at iteration {self.best_iteration:,}"
            return f"mAP {self.last:.3f} ({best})"
        return f"mAP {self.last:.3f}" + (", the best so far" if self.measured > 1 else "")


class RateStep(NamedTuple):
    """A step of the learning rate.

    Attributes:
        iteration: First iteration with the new rate.
        rate: The new rate.
    """

    iteration: int
    rate: float


@dataclass(frozen=True)
class Lineage:
    """The iterations that led to the latest one, and the events among them.

    Attributes:
        log: The log.
        table: ``TrainLog.metrics()`` of these iterations, in ascending order, with the additional
            columns run, line and images_per_s.
        replaced_rows: Rows of ``TrainLog.iterations`` that a later run replaced.
        maps: Rows of ``TrainLog.maps`` for iterations in ``table`` that have a value.
        valid_losses: Rows of ``TrainLog.valid_losses`` for iterations in ``table``.
        saved_iterations: Iterations at which weights were saved, in ascending order.
        resumed_iterations: First iteration after each resume, in ascending order.
        rate_steps: Steps of the learning rate; empty if the rate changes continuously.
        has_final_weights: Whether the final weights of the latest run were saved.
        max_batches: Number of iterations that the run is planned to have; ``None`` if unknown.
    """

    log: TrainLog
    table: pd.DataFrame
    replaced_rows: pd.DataFrame
    maps: pd.DataFrame
    valid_losses: pd.DataFrame
    saved_iterations: tuple[int, ...]
    resumed_iterations: tuple[int, ...]
    rate_steps: tuple[RateStep, ...]
    has_final_weights: bool
    max_batches: int | None = None

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> Values:
        """Return a column of ``table``, with NaN for infinite values and beyond 32-bit floats."""
        return plottable_values(self.table[name])

    @property
    def valid_loss_curve(self) -> tuple[Values, Values]:
        """The iterations of ``valid_losses``, and the losses as in ``column``."""
        table = self.valid_losses
        return table["iteration"].to_numpy(float), plottable_values(table["loss"])

    @property
    def map_facts(self) -> MapFacts | None:
        """The last and the best mAP; ``None`` if the log has none."""
        points = self.latest_maps
        if points.empty:
            return None
        values, iterations = points["map"].tolist(), points["iteration"].tolist()
        best = len(values) - 1 - int(np.argmax(values[::-1]))
        return MapFacts(
            values[-1],
            iterations[-1],
            values[best],
            iterations[best],
            tuple(values[best + 1 :]),
            len(values),
        )

    @property
    def scores(self) -> tuple[CheckpointScore, ...]:
        """The scores of checkpoints up to the latest iteration; later ones were replaced."""
        latest = int(self.table["iteration"].iloc[-1]) if len(self) else 0
        return tuple(score for score in self.log.scores if score.iteration <= latest)

    @property
    def has_map(self) -> bool:
        """Whether there is mAP to chart: scores of checkpoints, or darknet's own measurements."""
        return bool(self.scores) or not self.maps.empty

    @property
    def latest_maps(self) -> pd.DataFrame:
        """Rows of ``maps`` at the IOU threshold measured last."""
        threshold = self.maps["threshold"].fillna(-1)
        return self.maps[threshold == threshold.iloc[-1]] if len(threshold) else self.maps

    @property
    def layers(self) -> list[str]:
        """Columns of ``table`` with the IOU of one layer."""
        return [str(name) for name in self.table.columns if str(name).startswith("iou_")]


def plottable_values(column: pd.Series[float]) -> Values:
    """Return values with NaN in place of infinity and of numbers beyond 32-bit floats."""
    values = np.asarray(column, dtype=np.float64)
    return np.where(np.abs(values) < _FLOAT32_LIMIT, values, np.nan)


def build_lineage(log: TrainLog, *, max_batches: int | None = None) -> Lineage:
    """Return the iterations of a log that led to the latest one.

    Args:
        log: The log.
        max_batches: Number of iterations that the run is planned to have, if it is known.
    """
    rows = log.iterations
    is_current = _current_rows_mask(rows)
    current_rows: pd.DataFrame = rows.loc[is_current, ["iteration", "run", "line"]]
    table: pd.DataFrame = log.metrics().merge(current_rows, on="iteration")
    table["images_per_s"] = _images_per_s(table)
    key = ["iteration", "run"]
    points = log.maps.merge(current_rows[key], on=key)
    return Lineage(
        log=log,
        table=table,
        replaced_rows=rows[~is_current],
        maps=points[np.isfinite(points["map"])],
        valid_losses=log.valid_losses.merge(current_rows[key], on=key),
        saved_iterations=_saved_iterations(log, table),
        resumed_iterations=_resumed_iterations(log, table),
        rate_steps=tuple(_rate_steps(table)),
        has_final_weights=_has_final_weights(log),
        max_batches=max_batches,
    )


def _current_rows_mask(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows that no later run in the file replaced."""
    if rows.empty:
        return np.zeros(0, bool)
    run_start = rows.groupby("run")["iteration"].min().sort_index()
    next_run_start = run_start[::-1].cummin()[::-1].shift(-1, fill_value=np.iinfo(np.int64).max)
    is_current: npt.NDArray[np.bool_] = np.asarray(
        rows["iteration"] < rows["run"].map(next_run_start), dtype=bool
    )
    return is_current


def _images_per_s(table: pd.DataFrame) -> Values:
    """Return the images trained per second; NaN where the log has no time or image count."""
    iteration, images = table["iteration"].to_numpy(float), table["images"].to_numpy(float)
    seconds = table["seconds"].to_numpy(float)
    is_known = (iteration > 0) & (images > 0)
    if not is_known.any():
        return np.full(len(table), np.nan)
    # Darknet's image counter is an int that overflows, but the batch size is constant.
    batch = float(np.median(images[is_known] / iteration[is_known]))
    out = np.full(len(table), np.nan)
    np.divide(batch, seconds, out=out, where=np.isfinite(seconds) & (seconds > 0))
    return out


def _saved_iterations(log: TrainLog, table: pd.DataFrame) -> tuple[int, ...]:
    if table.empty:
        return ()
    latest = int(table["iteration"].iloc[-1])
    events = log.events
    events = events[events["kind"] == "saved"]
    saved = set()
    for text, before in zip(events["text"].tolist(), events["iteration"].tolist(), strict=True):
        # The number in the file name is reliable; the position in the log is not if stdout was
        # buffered.
        number = _WEIGHTS_NUMBER.search(text)
        iteration = int(number[1]) if number else before
        if 0 < iteration <= latest:
            saved.add(iteration)
    return tuple(sorted(saved))


def _resumed_iterations(log: TrainLog, table: pd.DataFrame) -> tuple[int, ...]:
    events = log.events
    lines = set(events.loc[events["kind"] == "resume", "line"])
    resumed = table.loc[table["line"].isin(lines), "iteration"]
    return tuple(int(iteration) for iteration in resumed)


def _rate_steps(table: pd.DataFrame) -> list[RateStep]:
    """Return the large changes of the rate with constant rates before and after them."""
    rate = table["rate"].to_numpy(float)
    n = len(rate)
    if n < 2 * _STABLE_ITERATIONS:
        return []
    before, after = rate[:-1], rate[1:]
    with np.errstate(all="ignore"):
        ratio = after / before
        steps = np.flatnonzero(
            ((ratio <= _RATE_DROP) | (ratio >= _RATE_RISE))
            & (np.maximum(before, after) >= _MIN_STEP_RATE)
            & np.isfinite(ratio)
        )
    iterations = table["iteration"].to_numpy()
    return [
        RateStep(int(iterations[i + 1]), float(rate[i + 1]))
        for i in steps
        if i + 1 >= _STABLE_ITERATIONS
        and i + 1 + _STABLE_ITERATIONS <= n
        and (rate[i + 1 - _STABLE_ITERATIONS : i + 1] == rate[i]).all()
        and (rate[i + 1 : i + 1 + _STABLE_ITERATIONS] == rate[i + 1]).all()
    ]


def _has_final_weights(log: TrainLog) -> bool:
    rows, events = log.iterations, log.events
    if rows.empty:
        return False
    lines = events.loc[
        (events["kind"] == "saved") & events["text"].str.contains(FINAL_WEIGHTS, regex=False),
        "line",
    ]
    # If stdout was buffered, the last iterations come after the lines about saved weights.
    latest_run_start = rows.loc[rows["run"] == rows["run"].iloc[-1], "line"].iloc[0]
    return bool((lines > latest_run_start).any())


def format_number(value: float) -> str:
    """Return a number as text with about four digits and thousands separators."""
    if not math.isfinite(value):
        return str(value)
    magnitude = abs(value)
    if magnitude >= 1e6:  # noqa: PLR2004  (display format)
        return f"{value:.3g}"
    if magnitude >= 100:  # noqa: PLR2004  (the same)
        return f"{value:,.0f}"
    return f"{value:.3f}" if magnitude >= 1e-3 or not magnitude else f"{value:.3g}"  # noqa: PLR2004  (the same)
