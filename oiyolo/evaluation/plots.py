"""Charts of an evaluation. They draw on axes and neither show nor save."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from oiyolo.evaluation.summary import Evaluation

_MOST_NAMED = 10


def plot_precision_recall(evaluation: Evaluation, *, ax: Axes | None = None) -> Axes:
    """Draw each class's precision over recall, with a dot where F1 is highest.

    Args:
        evaluation: What ``evaluate_detections`` gave.
        ax: Where to draw; a figure of its own when left out.

    Returns:
        The axes. Classes without a true box have no curve; beyond ten classes only the ten with
        the most boxes are named, the others are grey.
    """
    if ax is None:
        from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)

        ax = Figure(figsize=(6, 5), layout="constrained").subplots()
    rows = sorted((row for row in evaluation.classes if row.boxes), key=lambda row: -row.boxes)
    for place, row in enumerate(rows):
        named = place < _MOST_NAMED
        # A curve begins at recall 0 with the precision of its first threshold.
        recall = np.concatenate(([0.0], row.curve.recall))
        precision = np.concatenate((row.curve.precision[:1], row.curve.precision))
        if not len(precision):
            continue
        (line,) = ax.plot(
            recall,
            precision,
            color=f"C{place % 10}" if named else "0.8",
            zorder=2 if named else 1,
            label=f"{row.name}: {row.map50:.3f}" if named else None,
        )
        if named and row.true_positives:
            ax.plot(row.recall, row.precision, "o", color=line.get_color(), zorder=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    ax.set_title("Precision and recall at IoU 0.5")
    ax.grid(alpha=0.3)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(title="average precision", loc="lower left")
    return ax
