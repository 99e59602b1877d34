"""Charts of an evaluation, drawn on matplotlib axes and neither shown nor saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from oiyolo.evaluation.summary import Evaluation

_MAX_NAMED = 10
_MAX_CELLS = 21
_DARK = 0.5


def plot_precision_recall(evaluation: Evaluation, *, ax: Axes | None = None) -> Axes:
    """Draw the precision-recall curve of each class, with a dot at the highest F1.

    Args:
        evaluation: The evaluation.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes. Classes without true boxes have no curve. The ten classes with the most boxes are
        in the legend; all others are grey.
    """
    if ax is None:
        from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)

        ax = Figure(figsize=(6, 5), layout="constrained").subplots()
    rows = sorted((row for row in evaluation.classes if row.boxes), key=lambda row: -row.boxes)
    for rank, row in enumerate(rows):
        is_named = rank < _MAX_NAMED
        # A curve starts at recall 0, with the precision of its first threshold.
        recall = np.concatenate(([0.0], row.curve.recall))
        precision = np.concatenate((row.curve.precision[:1], row.curve.precision))
        if not len(precision):
            continue
        (line,) = ax.plot(
            recall,
            precision,
            color=f"C{rank % 10}" if is_named else "0.8",
            zorder=2 if is_named else 1,
            label=f"{row.name}: {row.map50:.3f}" if is_named else None,
        )
        if is_named and row.true_positives:
            ax.plot(row.recall, row.precision, "o", color=line.get_color(), zorder=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    ax.set_title("Precision and recall at IoU 0.5")
    ax.grid(alpha=0.3)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(title="average precision", loc="lower left")
    return ax


def plot_confusion(evaluation: Evaluation, *, ax: Axes | None = None) -> Axes:
    """Draw how the boxes of each class were detected, with the background as a class.

    Args:
        evaluation: The evaluation.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes. A row is a true class and its colour the share of the row, a column a detected
        class; counts are written in the cells if there are at most twenty classes.
    """
    counts = np.array(evaluation.confusion, dtype=np.float64)
    names = [*(row.name for row in evaluation.classes), "background"][: len(counts)]
    if ax is None:
        from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)

        side = min(4.5 + 0.5 * len(names), 16)
        ax = Figure(figsize=(side, side), layout="constrained").subplots()
    ax.set_title("Confusion matrix at the score thresholds")
    if not len(counts):
        return ax
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(
        range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False
    )
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set(xlabel="detected class", ylabel="true class")
    if len(names) <= _MAX_CELLS:
        for row, column in np.argwhere(counts > 0):
            color = "white" if share[row, column] > _DARK else "black"
            text = f"{counts[row, column]:,.0f}"
            ax.text(column, row, text, ha="center", va="center", color=color)
    return ax
