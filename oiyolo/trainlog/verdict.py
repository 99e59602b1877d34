"""Assess how training is going, in one sentence with the figures behind it.

``verdict`` is a pure function of the log. It assesses the loss of the iterations that led to the
latest one (``lineage``) by medians over windows, because a single iteration with hard images can be
ten times higher or lower than its neighbours:

- The window is a sixth of the iterations, at least 15 and at most 1,000. The *recent* loss is the
  median over the last window, the *previous* loss the median over the window before it. Together
  the two windows are the last third, which the second panel of ``loss.png`` shows.
- **falling**: the recent loss is at least 3 % lower, and the difference exceeds two and a half
  standard errors of both medians together (from their median absolute deviations).
- **rising**: the recent loss is at least 10 % higher, and the difference exceeds four standard
  errors.
- **flat**: neither. Flat since the first iteration from which every window's median is within 5 %
  of the recent loss, or within the noise. It is too early to say so while the learning rate still
  rises (burn-in, and steps up), and in the first tenth of the planned iterations or, if their
  number is unknown, before iteration 300: the loss often falls only later.
- **diverging**: the median loss of the last few iterations (a tenth of a window, at least 5) is at
  least three times the lowest median so far, beyond the noise, and at least 1.5 times the median of
  the window before it; or the recent loss is three times the lowest and not falling. With fewer
  than 15 iterations to compare with, the threshold is a hundred times instead of three times.
- **nan**: at least the last three average losses are not a number. Pjreddie's darknet never
  recovers from that.
- **finished**: the final weights were saved. The sentence also describes the loss at the end.
- **overfitting**: the scores of the checkpoints on valid have fallen, those on train have not
  (``overfitting``).
- **early**: fewer than 30 iterations, too few to compare; or flat, but too early to say so.

If there are scores of checkpoints, the sentence includes the last ones and which checkpoint is the
best. Otherwise, if darknet measured mAP, it includes the last and the best one, and whether it has
fallen since the best; later weights are then no better.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from oiyolo.trainlog.lineage import build_lineage, format_number
from oiyolo.trainlog.overfitting import find_overfitting
from oiyolo.trainlog.scores import score_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from oiyolo.trainlog.lineage import Lineage, MapFacts
    from oiyolo.trainlog.overfitting import Overfitting
    from oiyolo.trainlog.scores import ScoreFacts
    from oiyolo.trainlog.tables import TrainLog

    Values = npt.NDArray[np.float64]

VerdictKind = Literal[
    "early", "falling", "flat", "rising", "overfitting", "diverging", "nan", "finished"
]

WINDOW_SHARE: Final = 6
WINDOW_MIN: Final = 15
WINDOW_MAX: Final = 1000
MIN_CHANGE: Final = 0.03
MIN_RISE: Final = 0.1
FLAT_TOLERANCE: Final = 0.05
DIVERGED_RATIO: Final = 3.0
DIVERGING_RATIO: Final = 1.5
EARLY_DIVERGED_RATIO: Final = 100.0
NAN_MIN_ITERATIONS: Final = 3
FLAT_MIN_SHARE: Final = 0.1
FLAT_MIN_ITERATION: Final = 300
MAP_DROP: Final = 0.02

_NOISE: Final = 2.5
_RISE_NOISE: Final = 4.0
_TAIL_NOISE: Final = 4.5
_MAX_EXPONENT: Final = 700.0  # math.exp overflows above it
_TAIL_MIN: Final = 5
_SECONDS_PER_HOUR: Final = 3600.0
_MAP_DROP_POINTS: Final = 3
_DEVIATION: Final = 1.4826  # standard deviation over median absolute deviation (normal)
_MEDIAN_ERROR: Final = 1.2533  # standard error of a median over that of a mean


@dataclass(frozen=True)
class Verdict:
    """An assessment of how training is going.

    Attributes:
        kind: early, falling, flat, rising, overfitting, diverging, nan or finished.
        trend: The same while a run trains; of a finished one, how it was going at the end.
        sentence: The assessment as one sentence with its figures.
        figures: The figures that matter, by name: iteration; window (iterations); loss and
            loss_before (medians over the last two windows); change (relative, a fraction);
            lowest_loss; since (iteration, of the loss); map, best_map and best_map_iteration;
            valid_map50, train_map50, best_valid_map50 and best_valid_map50_iteration;
            overfitting_since (iteration), valid_map50_before, valid_map50_after and
            train_map50_after (medians over several checkpoints).
    """

    kind: VerdictKind
    sentence: str
    figures: Mapping[str, float] = field(default_factory=dict, repr=False)
    trend: VerdictKind = "early"

    def as_dict(self) -> dict[str, Any]:
        """Return kind, sentence, figures and trend as JSON-compatible values."""
        return asdict(self)

    def __str__(self) -> str:
        return self.sentence


class _LossVerdict(NamedTuple):
    """The part of a verdict that is about the loss."""

    kind: VerdictKind
    sentence: str
    figures: dict[str, float]


class _Median(NamedTuple):
    """A median over a window, and its standard error."""

    value: float
    error: float


def verdict(log: TrainLog, *, max_batches: int | None = None) -> Verdict:
    """Return an assessment of how training is going: falling, flat, rising, diverging and so on.

    Args:
        log: A training log.
        max_batches: Number of iterations that the run is planned to have, if it is known.
    """
    return assess(build_lineage(log, max_batches=max_batches))


def assess(lineage: Lineage) -> Verdict:
    """Return the verdict on a run from its lineage."""
    if not len(lineage):
        return Verdict("early", "no iterations yet")
    iterations, loss = lineage.column("iteration"), lineage.column("loss")
    is_finite = np.isfinite(loss)
    loss_verdict = _assess_nan(lineage) or _assess_trend(iterations[is_finite], loss[is_finite])
    if loss_verdict.kind == "flat" and (reason := _too_early_reason(lineage)):
        loss_verdict = _not_flat_yet(loss_verdict, reason)
    latest = int(iterations[-1])
    kind, sentence = loss_verdict.kind, loss_verdict.sentence
    scores, overfitting = score_facts(lineage.scores), find_overfitting(lineage.scores)
    map_text, map_figures = _assess_map(lineage.map_facts)
    if scores is not None:
        map_text = f"; {scores}"
        map_figures |= _score_figures(scores, overfitting)
    if scores is not None and overfitting is not None and kind not in {"nan", "diverging"}:
        kind, sentence, map_text = "overfitting", str(overfitting), f"; {scores.best_text}"
    trend = kind
    if lineage.has_final_weights and kind not in {"nan", "diverging"}:
        kind, sentence = "finished", f"finished at iteration {latest:,}; {sentence}"
    elif lineage.has_final_weights:
        sentence = f"{sentence}; training has ended"
    return Verdict(
        kind,
        sentence + map_text,
        {"iteration": latest, **loss_verdict.figures, **map_figures},
        trend,
    )


def window_size(n: int) -> int:
    """Return the window size for a run of ``n`` iterations."""
    return min(WINDOW_MAX, max(WINDOW_MIN, n // WINDOW_SHARE))


def _too_early_reason(lineage: Lineage) -> str:
    """Return why a flat loss does not mean anything yet; empty if it does."""
    if lineage.has_final_weights:
        return ""
    latest, planned = int(lineage.column("iteration")[-1]), _planned_iterations(lineage)
    reasons = []
    if planned is None and latest < FLAT_MIN_ITERATION:
        reasons.append(f"this is iteration {latest:,}")
    elif planned is not None and latest < FLAT_MIN_SHARE * planned:
        about = "about " if lineage.max_batches is None else ""
        reasons.append(f"this is iteration {latest:,} of {about}{planned:,}")
    if _rate_is_rising(lineage):
        reasons.append("the learning rate is still rising")
    return " and ".join(reasons)


def _planned_iterations(lineage: Lineage) -> int | None:
    """Return how many iterations are planned, also by darknet's estimate of the hours left."""
    if lineage.max_batches is not None:
        return lineage.max_batches
    latest, log = int(lineage.column("iteration")[-1]), lineage.log
    hours_left = math.nan if log.latest is None else log.latest.hours_left
    seconds = log.column("seconds") + np.nan_to_num(np.maximum(log.load_waits(), 0))
    seconds = seconds[np.isfinite(seconds) & (seconds > 0)]
    if not (len(seconds) and hours_left >= 0):
        return None
    left = hours_left * _SECONDS_PER_HOUR / float(np.median(seconds[-WINDOW_MAX:]))
    planned = latest + round(left)
    return max(latest, round(planned, 2 - len(str(planned))))  # an estimate: two digits of it


def _rate_is_rising(lineage: Lineage) -> bool:
    """Return whether the learning rate rose in the last two windows, or is still printed as 0."""
    rate = lineage.column("rate")
    recent = rate[-2 * window_size(len(rate)) :]
    return bool(recent[-1] > recent[0] or (rate == 0).all())


def _not_flat_yet(flat: _LossVerdict, reason: str) -> _LossVerdict:
    comparison = flat.sentence.partition(": ")[2]
    figures = {name: value for name, value in flat.figures.items() if name != "since"}
    return _LossVerdict("early", f"too early to tell, because {reason}: {comparison}", figures)


def _assess_nan(lineage: Lineage) -> _LossVerdict | None:
    """Return a verdict if the average loss is not a number at the end."""
    finite = np.flatnonzero(np.isfinite(lineage.column("avg_loss")))
    first = int(finite[-1]) + 1 if len(finite) else 0
    if len(lineage) - first < min(NAN_MIN_ITERATIONS, len(lineage)):
        return None
    since = int(lineage.column("iteration")[first])
    rate = float(lineage.column("rate")[first])
    loss = lineage.column("loss")[:first]
    finite_losses = loss[np.isfinite(loss)]
    last_loss = (
        f"last loss {format_number(float(finite_losses[-1]))}, " if len(finite_losses) else ""
    )
    return _LossVerdict(
        "nan",
        f"not a number since iteration {since:,} ({last_loss}learning rate {rate:g}): "
        "training has diverged",
        {
            "since": since,
            **({"loss_before": float(finite_losses[-1])} if len(finite_losses) else {}),
        },
    )


def _assess_trend(iterations: Values, loss: Values) -> _LossVerdict:
    """Return a verdict on the trend of the loss, given the iterations with a finite loss."""
    n = len(loss)
    window = window_size(n)
    tail = _assess_tail(loss, window)
    if tail is not None:
        return tail
    if n < 2 * window:
        text = f"; loss {format_number(float(loss[-1]))}" if n else ""
        return _LossVerdict(
            "early", f"too early to tell: {n} of {2 * WINDOW_MIN} iterations{text}", {}
        )
    recent, previous = _median(loss[-window:]), _median(loss[-2 * window : -window])
    change = _change(previous.value, recent.value)
    error = math.hypot(recent.error, previous.error)
    difference = abs(recent.value - previous.value)
    is_falling = change <= -MIN_CHANGE and difference > _NOISE * error
    is_rising = change >= MIN_RISE and difference > _RISE_NOISE * error
    figures = {
        "window": window,
        "loss": recent.value,
        "loss_before": previous.value,
        "change": change,
    }
    comparison = (
        f"loss {format_number(recent.value)} over the last {window:,} iterations, "
        f"{format_number(previous.value)} over the previous {window:,} ({change:+.0%}"
        + (")" if is_falling or is_rising or abs(change) < MIN_CHANGE else ", within the noise)")
    )
    if is_falling:
        return _LossVerdict("falling", f"falling: {comparison}", figures)
    lowest = _lowest(loss, window)
    if recent.value >= DIVERGED_RATIO * lowest > 0 and recent.value - lowest > _NOISE * error:
        return _LossVerdict(
            "diverging",
            f"diverging: {comparison}; the lowest was {format_number(lowest)}",
            {**figures, "lowest_loss": lowest},
        )
    if is_rising:
        return _LossVerdict("rising", f"rising: {comparison}", figures)
    since = int(iterations[_flat_start(loss, window, recent)])
    return _LossVerdict(
        "flat", f"flat since iteration {since:,}: {comparison}", {**figures, "since": since}
    )


def _assess_tail(loss: Values, window: int) -> _LossVerdict | None:
    """Return a verdict if the loss of the last few iterations is far above all earlier ones."""
    tail_size = max(_TAIL_MIN, window // 10)
    if len(loss) < 2 * tail_size:
        return None
    last = float(np.median(loss[-tail_size:]))
    earlier = loss[-tail_size - window : -tail_size]
    previous = _median(earlier)
    lowest = _lowest(loss[:-tail_size], len(earlier))
    # The noise of the logarithms: losses are skewed upwards, and the last few alone are too few.
    noise = _median(np.log(np.maximum(earlier, np.finfo(np.float64).tiny))).error
    ratio = max(
        DIVERGED_RATIO if len(earlier) >= WINDOW_MIN else EARLY_DIVERGED_RATIO,
        math.exp(min(_TAIL_NOISE * noise * math.sqrt(len(earlier) / tail_size), _MAX_EXPONENT)),
    )
    if not (lowest > 0 and last >= ratio * lowest and last >= DIVERGING_RATIO * previous.value):
        return None
    return _LossVerdict(
        "diverging",
        f"diverging: loss {format_number(last)} over the last {tail_size} iterations, "
        f"{last / lowest:,.0f} times the lowest ({format_number(lowest)})",
        {"window": tail_size, "loss": last, "loss_before": previous.value, "lowest_loss": lowest},
    )


def _flat_start(loss: Values, window: int, recent: _Median) -> int:
    """Return the index from which the medians of all windows match the recent one."""
    start = len(loss) - window
    while start > 0:
        earlier = max(0, start - window)
        if start - earlier < WINDOW_MIN:
            break
        median = _median(loss[earlier:start])
        tolerance = max(
            FLAT_TOLERANCE * abs(recent.value), _NOISE * math.hypot(recent.error, median.error)
        )
        if abs(median.value - recent.value) > tolerance:
            break
        start = earlier
    return start


def _lowest(loss: Values, window: int) -> float:
    """Return the lowest median of consecutive windows, counted back from the last value."""
    starts = range(len(loss) - window, -1, -window)
    return min(float(np.median(loss[start : start + window])) for start in starts)


def _median(values: Values) -> _Median:
    value = float(np.median(values))
    deviation = _DEVIATION * float(np.median(np.abs(values - value)))
    return _Median(value, _MEDIAN_ERROR * deviation / math.sqrt(len(values)))


def _change(previous: float, recent: float) -> float:
    return (recent - previous) / abs(previous) if previous else 0.0


def _assess_map(facts: MapFacts | None) -> tuple[str, dict[str, float]]:
    """Return text and figures of the last and the best mAP."""
    if facts is None:
        return "", {}
    text = f"; {facts}"
    if len(facts.since_best) >= _MAP_DROP_POINTS and max(facts.since_best) < facts.best - MAP_DROP:
        text += " and lower since: later weights are no better"
    return text, {
        "map": facts.last,
        "best_map": facts.best,
        "best_map_iteration": facts.best_iteration,
    }


def _score_figures(scores: ScoreFacts, overfitting: Overfitting | None) -> dict[str, float]:
    last, best = scores.last, scores.best
    figures = {
        "valid_map50": last.valid_map50,
        **({"train_map50": last.train_map50} if math.isfinite(last.train_map50) else {}),
        "best_valid_map50": best.valid_map50,
        "best_valid_map50_iteration": best.iteration,
    }
    if overfitting is not None:
        figures |= {
            "overfitting_since": overfitting.since,
            "valid_map50_before": overfitting.valid_before,
            "valid_map50_after": overfitting.valid,
            "train_map50_after": overfitting.train,
        }
    return figures
