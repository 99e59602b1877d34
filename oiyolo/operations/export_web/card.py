"""What the page says about its detector."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from oiyolo import __version__
from oiyolo.core import files
from oiyolo.core.results import pluralize
from oiyolo.evaluation.figures import (
    HEADLINES,
    format_figure,
    format_interval,
    interval_from_json,
)
from oiyolo.operations.export_web.page import Card
from oiyolo.provenance.model_card import trained_on

if TYPE_CHECKING:
    from oiyolo.inference.facts import ModelFacts
    from oiyolo.training.run import Run

_SHOWN_CLASSES: Final = 3


def card_of(
    facts: ModelFacts, run: Run | None, size_wh: tuple[int, int], *, made_at: float
) -> Card:
    """Return what the page says about a detector.

    Args:
        facts: What is known about it.
        run: The run that trained it; ``None`` for files from elsewhere.
        size_wh: Width and height of its input in pixels.
        made_at: When its weights were written, in seconds since 1970.
    """
    names = ", ".join(facts.names[:_SHOWN_CLASSES])
    rest = len(facts.names) - _SHOWN_CLASSES
    finds = f"{names} and {rest} other classes" if rest > 0 else names
    date = dt.datetime.fromtimestamp(made_at, dt.timezone.utc).date().isoformat()
    rows = [
        ("Classes", ", ".join(facts.names)),
        ("Description", facts.description),
        *_score_rows(facts, run),
        ("Training", "" if run is None else f"Run {run.name}. {trained_on(run)}"),
        ("Input", f"{size_wh[0]} x {size_wh[1]} pixels ({facts.fit})"),
        ("Licence", facts.licence),
        ("Weights of", date),
        ("Made with", f"oiyolo {__version__}"),
    ]
    return Card(f"Detector: {finds}", finds, [(name, value) for name, value in rows if value])


def _score_rows(facts: ModelFacts, run: Run | None) -> list[tuple[str, str]]:
    """Return the scores that belong to the weights; intervals are in the run's evaluation."""
    saved = {} if run is None else files.read_json(run.evaluation_path)
    evaluation = saved if isinstance(saved, dict) else {}
    rows = []
    for label, key in HEADLINES:
        if key in facts.scores:
            interval = _interval(evaluation.get(f"{key}_interval"))
            rows.append((label, format_figure(facts.scores[key]) + interval))
    if rows and isinstance(evaluation.get("images"), int):
        split, images = evaluation.get("split"), evaluation["images"]
        rows.append(("Scored on", f"{pluralize(images, 'image')} of the {split} split"))
    return rows


def _interval(bounds: Any) -> str:  # noqa: ANN401  (whatever the file contains)
    if not isinstance(bounds, list) or not all(isinstance(bound, float) for bound in bounds):
        return ""
    return f" (95 % interval {format_interval(interval_from_json(bounds))})"
