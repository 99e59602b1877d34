"""Curves for a person: smoothed, and thinned to what a picture can show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

DRAWN_MOST: Final = 1600
"""Points of a drawn line, about as many as a chart is wide."""

_BLOCK_VALUES: Final = 1 << 22


def smoothed(values: Values, window: int) -> Values:
    """Smooth a curve: a running median, and a short running mean that takes its steps away.

    Args:
        values: Shape (n,); nan where there is none.
        window: Values per window, at least 1; at the ends, windows are cut off.

    Returns:
        Shape (n,), nan where there was nan. A median first, because single iterations with hard
        images stand out tenfold in both directions and would pull a mean along.
    """
    everywhere = np.arange(len(values))
    median = _running(np.median, values, window, everywhere)
    mean = _running(np.mean, median, window // 3, everywhere)
    return np.where(np.isfinite(values), mean, np.nan)


def smoothing_window(n: int) -> int:
    """Give the window, an odd number of iterations, that suits a curve of ``n`` points."""
    return max(1, min(301, n // 20), n // 200) | 1


def smooth_curve(x: Values, y: Values) -> tuple[Values, Values, int]:
    """Give a smoothed curve through the values that there are, with few enough points to draw.

    Args:
        x: Shape (n,).
        y: Shape (n,); values that are not finite are left out.

    Returns:
        x and y, shape (m,), m at most ``DRAWN_MOST``, the first and the last among them; and the
        values per window.
    """
    known = np.isfinite(y)
    x, y = x[known], y[known]
    window = smoothing_window(len(y))
    if len(y) <= DRAWN_MOST:
        return x, smoothed(y, window), window
    places = np.linspace(0, len(y) - 1, DRAWN_MOST).astype(np.int64)
    median = _running(np.median, y, window, places)
    step = len(y) / DRAWN_MOST
    mean = _running(np.mean, median, int(window / 3 / step), np.arange(len(places)))
    return x[places], mean, window


def thinned(x: Values, y: Values) -> tuple[Values, Values]:
    """Leave out points that a picture cannot show; the highest and lowest of each part stay.

    Args:
        x: Shape (n,), rising.
        y: Shape (n,); nan breaks the line, and still does where a whole part is nan.

    Returns:
        x and y, shape (m,), m at most ``DRAWN_MOST``.
    """
    n = len(y)
    if n <= DRAWN_MOST:
        return x, y
    parts = DRAWN_MOST // 2
    size = -(-n // parts)
    padded = np.full(size * parts, np.nan)
    padded[:n] = y
    table = padded.reshape(parts, size)
    known = np.isfinite(table)
    low = np.where(known, table, np.inf).argmin(axis=1)
    high = np.where(known, table, -np.inf).argmax(axis=1)
    places = np.sort(np.stack([low, high], axis=1), axis=1) + np.arange(parts)[:, None] * size
    chosen = np.unique(np.minimum(places, n - 1))
    return x[chosen], y[chosen]


def _running(
    statistic: Callable[..., Values], values: Values, window: int, places: npt.NDArray[np.int64]
) -> Values:
    """Give a statistic over a centred window around some places; nan where it holds no value."""
    if not len(values):
        return np.zeros(0)
    half = window // 2
    margin = np.full(half, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.concatenate([margin, values, margin]), 2 * half + 1
    )
    out = np.full(len(places), np.nan)
    # By blocks: all windows of a training of weeks at once would be gigabytes.
    block = max(1, _BLOCK_VALUES // (2 * half + 1))
    for start in range(0, len(places), block):
        chosen = windows[places[start : start + block]]
        known = np.isfinite(chosen)
        whole = known.all(axis=1)
        result = np.full(len(chosen), np.nan)
        if whole.any():
            result[whole] = statistic(chosen[whole], axis=1)
        # Row by row is slow, but only windows at the ends and around gaps are not whole.
        for row in np.flatnonzero(known.any(axis=1) & ~whole):
            result[row] = statistic(chosen[row][known[row]])
        out[start : start + block] = result
    return out
