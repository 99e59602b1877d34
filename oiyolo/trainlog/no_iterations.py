"""Explain why a log has no iteration lines, by what it has instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from oiyolo.core.errors import InputFormError
from oiyolo.trainlog.cuda_errors import spell_out
from oiyolo.trainlog.dialects import OUT_OF_MEMORY
from oiyolo.trainlog.lineage import FINAL_WEIGHTS

if TYPE_CHECKING:
    from oiyolo.trainlog.tables import TrainLog

_MAX_TEXT_CHARS = 200
_CONSEQUENCE = r"\bAssertion\b|Darknet error location|core dumped|^\s*(?:Aborted|Killed)\b"


class _Reason(NamedTuple):
    """Why there are no iterations: the parts of an error."""

    what: str
    found: str
    remedy: str


def no_iterations_error(log: TrainLog) -> InputFormError:
    """Return the error for a log without iteration lines: what was read instead, and the remedy."""
    reason = (
        _reported_error(log)
        or _nothing_to_train(log)
        or _only_started(log)
        or _stdout_missing(log)
        or _not_a_log(log)
    )
    return InputFormError(
        f"no iteration lines in the training log; {reason.what}",
        where=log.name,
        found=reason.found,
        remedy=reason.remedy,
    )


def _reported_error(log: TrainLog) -> _Reason | None:
    """Return a reason if the log has an error; the last one that is not just its consequence."""
    errors = log.events[log.events["kind"] == "error"]
    if errors.empty:
        return None
    errors = errors.assign(text=errors["text"].map(spell_out))
    is_memory = errors["text"].str.contains(OUT_OF_MEMORY)
    causes = errors[is_memory].head(1)
    if causes.empty:
        causes = errors[~errors["text"].str.contains(_CONSEQUENCE)]
    cause = (errors if causes.empty else causes).iloc[-1]
    return _Reason(
        "darknet ended before the first one",
        f"on line {cause['line']}: {cause['text'][:_MAX_TEXT_CHARS]}",
        "Raise subdivisions in the .cfg, so that less is in memory at once"
        if is_memory.any()
        else "Fix the cause, then train again",
    )


def _nothing_to_train(log: TrainLog) -> _Reason | None:
    """Return a reason if darknet started and saved its final weights at once."""
    events = log.events
    saved = events[events["kind"] == "saved"]
    if not (_has_started(log) and len(saved)):
        return None
    if not saved["text"].str.contains(FINAL_WEIGHTS, regex=False).all():
        return None
    return _Reason(
        "darknet saved its final weights before the first one",
        f"on line {int(saved['line'].iloc[0])}: {saved['text'].iloc[0]}",
        "The weights that it began with had been trained to max_batches already: raise "
        "max_batches, or add -clear to count iterations from 0",
    )


def _only_started(log: TrainLog) -> _Reason | None:
    """Return a reason if the log begins as darknet's stdout does."""
    if not _has_started(log):
        return None
    start = log.events[log.events["kind"] == "start"].iloc[0]
    return _Reason(
        "it ends before the first one",
        f"the start of training on line {start['line']}, and no error",
        "Darknet was stopped, is still in its first iteration, or has not written its output yet "
        "(stdbuf -oL makes it write each line at once)",
    )


def _stdout_missing(log: TrainLog) -> _Reason | None:
    """Return a reason if there is something that darknet prints on stderr."""
    summary, events = log.summary, log.events
    parts = [
        f"{n:,} {name}"
        for n, name in (
            (summary.regions, "region lines"),
            (int((events["kind"] == "saved").sum()), "lines about saved weights"),
            (int((events["kind"] == "loaded").sum()), "lines about loaded weights"),
        )
        if n
    ]
    if not parts:
        return None
    return _Reason(
        "darknet's stdout seems to be missing",
        f"{' and '.join(parts)} in {summary.lines:,} lines",
        "Capture stdout too: darknet detector train ... > train_log.txt 2>&1",
    )


def _not_a_log(log: TrainLog) -> _Reason:
    summary = log.summary
    broken = f", {summary.torn:,} of them broken iteration or region lines" if summary.torn else ""
    return _Reason(
        "it has nothing that darknet prints while training",
        f"{summary.lines:,} lines{broken}" if summary.lines else "an empty file",
        "Pass a file with the output of `darknet detector train`, which has lines such as "
        "'187: 0.774826, 1.089855 avg, 0.002000 rate, ...'",
    )


def _has_started(log: TrainLog) -> bool:
    return bool((log.events["kind"] == "start").any())
