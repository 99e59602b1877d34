"""Smooth curves, and downsample them to what a chart can show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

MAX_POINTS: Final = 1600
"""Maximum number of points of a curve, about the width of a chart in pixels."""

_BLOCK_VALUES: Final = 1 << 22


def smooth(values: Values, window: int) -> Values:
    """Return a smoothed curve: a running median, then a short running mean that removes its steps.

    The median comes first because a single iteration with hard images can be ten times higher or
    lower than its neighbours and would distort a mean.

    Args:
        values: Values, shape (n,); NaN for missing ones.
        window: Window size, at least 1; windows are truncated at the ends.

    Returns:
        Smoothed values, shape (n,); NaN where the input is NaN.
    """
    all_indices = np.arange(len(values))
    median = _rolling(np.median, values, window, all_indices)
    mean = _rolling(np.mean, median, window // 3, all_indices)
    return np.where(np.isfinite(values), mean, np.nan)


def smoothing_window(n: int) -> int:
    """Return the window size for a curve of ``n`` points, an odd number of iterations."""
    return max(1, min(301, n // 20), n // 200) | 1


def smooth_curve(x: Values, y: Values) -> tuple[Values, Values, int]:
    """Return a smoothed curve through the finite values, with few enough points to draw.

    Args:
        x: x values, shape (n,).
        y: y values, shape (n,); values that are not finite are ignored.

    Returns:
        x and y, each of shape (m,) with m at most ``MAX_POINTS``, including the first and the last
        point, and the window size.
    """
    is_finite = np.isfinite(y)
    x, y = x[is_finite], y[is_finite]
    window = smoothing_window(len(y))
    if len(y) <= MAX_POINTS:
        return x, smooth(y, window), window
    indices = np.linspace(0, len(y) - 1, MAX_POINTS).astype(np.int64)
    median = _rolling(np.median, y, window, indices)
    step = len(y) / MAX_POINTS
    mean = _rolling(np.mean, median, int(window / 3 / step), np.arange(len(indices)))
    return x[indices], mean, window


def downsample(x: Values, y: Values, limit: int = MAX_POINTS) -> tuple[Values, Values]:
    """Return a curve with fewer points, which keeps the minimum and maximum of each part.

    Args:
        x: x values in ascending order, shape (n,).
        y: y values, shape (n,); NaN interrupts the line, also in the result if a whole part is NaN.
        limit: Maximum number of points, at least 2.

    Returns:
        x and y, each of shape (m,) with m at most ``limit``.
    """
    n = len(y)
    if n <= limit:
        return x, y
    parts = limit // 2
    starts = np.arange(parts) * n // parts
    sizes = np.diff(starts, append=n)
    # Parts differ by one value at most; the shorter ones repeat their last value.
    places = starts[:, None] + np.minimum(np.arange(sizes.max()), sizes[:, None] - 1)
    table = y[places]
    is_finite = np.isfinite(table)
    low = np.where(is_finite, table, np.inf).argmin(axis=1)
    high = np.where(is_finite, table, -np.inf).argmax(axis=1)
    indices = np.unique(places[np.arange(parts)[:, None], np.stack([low, high], axis=1)])
    return x[indices], y[indices]


def _rolling(
    statistic: Callable[..., Values], values: Values, window: int, indices: npt.NDArray[np.int64]
) -> Values:
    """Return a statistic over centred windows around some indices; NaN for empty windows."""
    if not len(values):
        return np.zeros(0)
    half = window // 2
    margin = np.full(half, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.concatenate([margin, values, margin]), 2 * half + 1
    )
    out = np.full(len(indices), np.nan)
    # In blocks, because all windows of a long run would take gigabytes.
    block = max(1, _BLOCK_VALUES // (2 * half + 1))
    for start in range(0, len(indices), block):
        block_windows = windows[indices[start : start + block]]
        is_finite = np.isfinite(block_windows)
        is_complete = is_finite.all(axis=1)
        result = np.full(len(block_windows), np.nan)
        if is_complete.any():
            result[is_complete] = statistic(block_windows[is_complete], axis=1)
        # Row by row is slow, but only windows at the ends and around gaps are incomplete.
        for row in np.flatnonzero(is_finite.any(axis=1) & ~is_complete):
            result[row] = statistic(block_windows[row][is_finite[row]])
        out[start : start + block] = result
    return out
