"""How a training goes, in a line that names the figures behind it.

``verdict`` is a pure function of the log. It judges the loss of the iterations that led to the
latest one (``lineage``) by medians over windows, because single iterations with hard images stand
out tenfold in both directions:

- The window is a sixth of the iterations, at least 15 and at most 1,000. The *recent* loss is the
  median over the last window, the loss *before* that over the window before. Together they are the
  last third, which the second panel of ``loss.png`` shows.
- **falling**: the recent loss is lower by 3 % or more, and by more than two and a half standard
  errors of both medians together (from their median absolute deviations).
- **rising**: it is higher by 10 % or more, and by more than four standard errors.
- **flat**: neither. Flat since the first iteration from which on every window's median is within
  5 % of the recent loss, or within what the noise explains.
- **diverging**: the loss over the last few iterations (a tenth of a window, at least 5) is at least
  three times the lowest median so far, more than the noise explains, and half as much again as the
  window before it; or the recent loss is three times the lowest and not falling. Before there are
  15 iterations to compare with, it takes a hundred times.
- **nan**: the last three average losses or more are no numbers. Pjreddie's darknet never recovers.
- **finished**: the final weights were saved. The sentence says how the loss went at the end.
- **early**: fewer than 30 iterations, so there is nothing to compare.

Where darknet measured mAP, the sentence says the last and the best one, and whether it has fallen
since: then later weights are no better than the best ones.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from oiyolo.trainlog.lineage import lineage, number_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

    Values = npt.NDArray[np.float64]

Kind = Literal["early", "falling", "flat", "rising", "diverging", "nan", "finished"]

WINDOW_SHARE: Final = 6
WINDOW_LEAST: Final = 15
WINDOW_MOST: Final = 1000
CHANGE: Final = 0.03
RISE: Final = 0.1
FLAT_WITHIN: Final = 0.05
DIVERGED_RATIO: Final = 3.0
DIVERGING_RATIO: Final = 1.5
BLOWN_UP_RATIO: Final = 100.0
NAN_LEAST: Final = 3
MAP_FALLEN: Final = 0.02
MAP_SAME: Final = 0.005

_NOISE: Final = 2.5
_RISE_NOISE: Final = 4.0
_MUCH_NOISE: Final = 4.5
_LARGEST_EXPONENT: Final = 700.0  # above it, a float has no room
_TAIL_LEAST: Final = 5
_POINTS_TO_FALL: Final = 3
_DEVIATION: Final = 1.4826  # of a normal distribution, over its median absolute deviation
_MEDIAN_ERROR: Final = 1.2533  # of a median, over that of a mean


@dataclass(frozen=True)
class Verdict:
    """How a training goes.

    Attributes:
        kind: early, falling, flat, rising, diverging, nan or finished.
        sentence: The same for a person, with the figures.
        figures: The figures by name: iteration; window (iterations); loss and loss_before (medians
            over the last two windows); change (of the one to the other, a fraction); lowest_loss;
            since (iteration); map, best_map and best_map_iteration. Those that play a part.
    """

    kind: Kind
    sentence: str
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give the parts as JSON knows them."""
        return asdict(self)

    def __str__(self) -> str:
        return self.sentence


class _Part(NamedTuple):
    """What one look at the loss gives: a verdict without what all have in common."""

    kind: Kind
    sentence: str
    figures: dict[str, float]


class _Median(NamedTuple):
    """A median over a window, and its standard error."""

    value: float
    error: float


def verdict(log: TrainLog) -> Verdict:
    """Say how a training goes; see the module for the rules."""
    return judge(lineage(log))


def judge(led: Lineage) -> Verdict:
    """Say how a training goes, of whose log the lineage is known."""
    if not len(led):
        return Verdict("early", "no iterations yet")
    iterations, loss = led.column("iteration"), led.column("loss")
    known = np.isfinite(loss)
    part = _not_a_number(led) or _trend(iterations[known], loss[known])
    latest = int(iterations[-1])
    kind, sentence = part.kind, part.sentence
    if led.ended and kind not in {"nan", "diverging"}:
        kind, sentence = "finished", f"finished at iteration {latest:,}; {sentence}"
    elif led.ended:
        sentence = f"{sentence}; the training has ended"
    map_words, map_figures = _map_part(led)
    return Verdict(
        kind,
        sentence + map_words,
        {"iteration": latest, **part.figures, **map_figures},
    )


def window_of(n: int) -> int:
    """Give the iterations per window for ``n`` of them."""
    return min(WINDOW_MOST, max(WINDOW_LEAST, n // WINDOW_SHARE))


def _not_a_number(led: Lineage) -> _Part | None:
    """Tell since when the average loss is no number, if it is none at the end."""
    fine = np.flatnonzero(np.isfinite(led.column("avg_loss")))
    first = int(fine[-1]) + 1 if len(fine) else 0
    if len(led) - first < min(NAN_LEAST, len(led)):
        return None
    since = int(led.column("iteration")[first])
    rate = float(led.column("rate")[first])
    loss = led.column("loss")[:first]
    before = loss[np.isfinite(loss)]
    was = f", {number_text(float(before[-1]))} before it" if len(before) else ""
    return _Part(
        "nan",
        f"not a number since iteration {since:,}{was} (learning rate {rate:g}): "
        "the training is lost",
        {"since": since, **({"loss_before": float(before[-1])} if len(before) else {})},
    )


def _trend(iterations: Values, loss: Values) -> _Part:
    """Tell how the loss goes, of iterations whose loss is a number."""
    n = len(loss)
    window = window_of(n)
    tail = _tail(loss, window)
    if tail is not None:
        return tail
    if n < 2 * window:
        text = f"; loss {number_text(float(loss[-1]))}" if n else ""
        return _Part("early", f"too early to tell: {n} of {2 * WINDOW_LEAST} iterations{text}", {})
    recent, before = _median(loss[-window:]), _median(loss[-2 * window : -window])
    change = _change(before.value, recent.value)
    error = math.hypot(recent.error, before.error)
    apart = abs(recent.value - before.value)
    falls = change <= -CHANGE and apart > _NOISE * error
    rises = change >= RISE and apart > _RISE_NOISE * error
    figures = {
        "window": window,
        "loss": recent.value,
        "loss_before": before.value,
        "change": change,
    }
    told = (
        f"loss {number_text(recent.value)} over the last {window:,} iterations, "
        f"{number_text(before.value)} over the {window:,} before ({change:+.0%}"
        + (")" if falls or rises or abs(change) < CHANGE else ", within the noise)")
    )
    if falls:
        return _Part("falling", f"falling: {told}", figures)
    lowest = _lowest(loss, window)
    if recent.value >= DIVERGED_RATIO * lowest > 0 and recent.value - lowest > _NOISE * error:
        return _Part(
            "diverging",
            f"diverging: {told}; the lowest was {number_text(lowest)}",
            {**figures, "lowest_loss": lowest},
        )
    if rises:
        return _Part("rising", f"rising: {told}", figures)
    since = int(iterations[_flat_from(loss, window, recent)])
    return _Part("flat", f"flat since iteration {since:,}: {told}", {**figures, "since": since})


def _tail(loss: Values, window: int) -> _Part | None:
    """See whether the last few iterations leave all that was before."""
    short = max(_TAIL_LEAST, window // 10)
    if len(loss) < 2 * short:
        return None
    last = float(np.median(loss[-short:]))
    earlier = loss[-short - window : -short]
    before = _median(earlier)
    lowest = _lowest(loss[:-short], len(earlier))
    # By their logarithms: losses stand out upwards, and the last few alone would say little.
    noise = _median(np.log(np.maximum(earlier, np.finfo(np.float64).tiny))).error
    ratio = max(
        DIVERGED_RATIO if len(earlier) >= WINDOW_LEAST else BLOWN_UP_RATIO,
        math.exp(min(_MUCH_NOISE * noise * math.sqrt(len(earlier) / short), _LARGEST_EXPONENT)),
    )
    if not (lowest > 0 and last >= ratio * lowest and last >= DIVERGING_RATIO * before.value):
        return None
    return _Part(
        "diverging",
        f"diverging: loss {number_text(last)} over the last {short} iterations, "
        f"{last / lowest:,.0f} times the lowest ({number_text(lowest)})",
        {"window": short, "loss": last, "loss_before": before.value, "lowest_loss": lowest},
    )


def _flat_from(loss: Values, window: int, recent: _Median) -> int:
    """Give the index from which on all windows' medians are as the recent one."""
    start = len(loss) - window
    while start > 0:
        earlier = max(0, start - window)
        if start - earlier < WINDOW_LEAST:
            break
        median = _median(loss[earlier:start])
        allowed = max(
            FLAT_WITHIN * abs(recent.value), _NOISE * math.hypot(recent.error, median.error)
        )
        if abs(median.value - recent.value) > allowed:
            break
        start = earlier
    return start


def _lowest(loss: Values, window: int) -> float:
    """Give the lowest median of the windows that end with the last value."""
    starts = range(len(loss) - window, -1, -window)
    return min(float(np.median(loss[start : start + window])) for start in starts)


def _median(values: Values) -> _Median:
    value = float(np.median(values))
    deviation = _DEVIATION * float(np.median(np.abs(values - value)))
    return _Median(value, _MEDIAN_ERROR * deviation / math.sqrt(len(values)))


def _change(before: float, now: float) -> float:
    return (now - before) / abs(before) if before else 0.0


def _map_part(led: Lineage) -> tuple[str, dict[str, float]]:
    """Tell the last and the best mAP, of the threshold that was measured last."""
    points = led.maps
    if points.empty:
        return "", {}
    threshold = points["threshold"].fillna(-1)
    points = points[threshold == threshold.iloc[-1]]
    values = points["map"].to_numpy(float)
    best = int(values.argmax())
    if values[-1] > values[best] - MAP_SAME:
        best = len(values) - 1
    last_map, best_map = float(values[-1]), float(values[best])
    best_at = int(points["iteration"].iloc[best])
    figures = {"map": last_map, "best_map": best_map, "best_map_iteration": best_at}
    if best == len(values) - 1:
        return f"; mAP {last_map:.2f}" + (", the best so far" if best else ""), figures
    words = f"; mAP {last_map:.2f}, best {best_map:.2f} at {best_at:,}"
    since = values[best + 1 :]
    if len(since) >= _POINTS_TO_FALL and (since < best_map - MAP_FALLEN).all():
        words += " and lower since: later weights are no better"
    return words, figures
