"""Draw charts of a dataset: box sizes, aspect ratios, positions, boxes per image, classes by split.

The ``plot_...`` functions draw on the given axes, or on those of a new figure, and return them.
Only ``save_charts`` writes files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.charts import canvas
from oiyolo.core.results import pluralize
from oiyolo.dataset_preview.statistics import (
    COUNT_BINS,
    SIZES,
    class_rows,
    count_per_bin,
    size_shares,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.charts.canvas import Axes
    from oiyolo.dataset_preview.dataset import PreviewDataset

_NO_BOXES: Final = "no boxes"
_DENSITY_CMAP: Final = "Blues"
_SIZE_COLOURS: Final = ("#C6DBEF", "#6BAED6", "#2171B5")
_MIN_BINS, _MAX_BINS = 20, 56
_RATIO_TICKS: Final = (-3, -2, -1, 0, 1, 2, 3)
_RATIO_STEP: Final = 0.25
_MIN_CELLS, _MAX_CELLS = 4, 32
_MIN_COUNT_BINS: Final = 4
_ROW_PX: Final = 38
_HEADER_PX: Final = 190
_MIN_TEXT_SHARE: Final = 0.07
"""Share of a bar's width that has room for a short number."""


def save_charts(dataset: PreviewDataset, folder: Path) -> list[Path]:
    """Save all charts, each as PNG and SVG, and return the paths of both.

    Args:
        dataset: The dataset.
        folder: Output folder, which is created if it is missing.
    """
    return [
        path
        for name, draw in _SHEETS.items()
        for path in canvas.save(draw(dataset).figure, folder, name)
    ]


def plot_box_sizes(dataset: PreviewDataset, ax: Axes | None = None) -> Axes:
    """Draw the density of box sizes by width and height, on logarithmic axes.

    Dashed lines separate COCO's small, medium and large boxes; crosses mark the anchors.
    """
    ax = canvas.style_axes(ax, "width and height of boxes")
    w, h = (dataset.labels[name].to_numpy() for name in ("w_px", "h_px"))
    if not len(w):
        canvas.show_message(ax, _NO_BOXES)
        return ax
    sides = [*w, *h, *(side for anchor in dataset.anchors_wh for side in anchor)]
    low = max(0.5, 0.8 * float(min(sides)))
    high = float(max(dataset.size_wh)) * 1.1
    bins = int(np.clip(1.3 * np.sqrt(len(w)), _MIN_BINS, _MAX_BINS))
    edges = np.geomspace(low, high, bins + 1)
    counts = np.histogram2d(np.maximum(w, low), np.maximum(h, low), bins=[edges, edges])[0].T
    ax.pcolormesh(
        edges,
        edges,
        np.ma.masked_equal(np.sqrt(counts), 0.0),
        cmap=_DENSITY_CMAP,
        vmin=-0.35 * np.sqrt(counts.max()),
        rasterized=True,
    )
    for limit, _ in SIZES[1:]:
        ax.plot(edges, limit**2 / edges, color=canvas.COLOURS["vermilion"], ls="--", lw=1.6)
        # At the upper end of the line, away from most boxes.
        x = max(low, limit**2 / high) * 1.12
        ax.annotate(
            f"{limit} x {limit}",
            (x, limit**2 / x),
            (5, 0),
            textcoords="offset points",
            color=canvas.COLOURS["vermilion"],
            fontsize=canvas.FONT_PT["label"],
            fontweight="bold",
        )
    if dataset.anchors_wh:
        widths, heights = zip(*dataset.anchors_wh, strict=True)
        ax.plot(widths, heights, "x", color="black", ms=9, mew=2.2, ls="", label="anchors")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    ticks = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048) if low <= n <= high]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks, labels=[str(n) for n in ticks])
        axis.set_ticks([], minor=True)
    ax.set_xlabel("width (px)", fontsize=canvas.FONT_PT["label"])
    ax.set_ylabel("height (px)", fontsize=canvas.FONT_PT["label"])
    return ax


def plot_size_shares(dataset: PreviewDataset, ax: Axes | None = None) -> Axes:
    """Draw the shares of small, medium and large boxes (as COCO defines them) by split."""
    ax = canvas.style_axes(ax, "shares by size")
    if dataset.labels.empty:
        canvas.show_message(ax, _NO_BOXES)
        return ax
    shares = np.array([size_shares(_labels_in(dataset, name)) for name in dataset.splits])
    texts = [[f"{share:.0%}" for share in row] for row in shares]
    _stack(ax, dataset.splits, shares, texts, ((colour, "") for colour in _SIZE_COLOURS))
    return ax


def plot_aspect_ratios(dataset: PreviewDataset, ax: Axes | None = None) -> Axes:
    """Draw the distribution of the boxes' aspect ratios in the network's input, by split."""
    ax = canvas.style_axes(ax, "aspect ratio")
    if dataset.labels.empty:
        canvas.show_message(ax, _NO_BOXES)
        return ax
    ends = (_RATIO_TICKS[0], _RATIO_TICKS[-1])
    edges = np.arange(ends[0], ends[1] + _RATIO_STEP, _RATIO_STEP)
    for name, line in zip(dataset.splits, canvas.line_styles(len(dataset.splits)), strict=True):
        labels = _labels_in(dataset, name)
        if labels.empty:
            continue
        ratio = np.log2(np.maximum(labels["w_px"], 1e-9) / np.maximum(labels["h_px"], 1e-9))
        shares = np.histogram(np.clip(ratio, *ends), bins=edges)[0] / len(labels)
        label = f"{name} ({pluralize(len(labels), 'box')})"
        if name == dataset.splits[0]:  # keeps overlapping lines distinguishable
            ax.stairs(shares, edges, fill=True, color=line.colour, alpha=0.18)
        ax.stairs(shares, edges, color=line.colour, ls=line.dashes, lw=2.0, label=label)
    ax.axvline(0, color=canvas.COLOURS["grey"], lw=1.0)
    tick_labels = [f"{2**n}:1" if n >= 0 else f"1:{2**-n}" for n in _RATIO_TICKS]
    ax.set_xticks(
        _RATIO_TICKS, labels=[f"≤ {tick_labels[0]}", *tick_labels[1:-1], f"≥ {tick_labels[-1]}"]
    )
    ax.set_xlim(*ends)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(_percent)
    ax.set_xlabel("tall  ←  width : height  →  wide", fontsize=canvas.FONT_PT["label"])
    ax.set_ylabel("share of boxes", fontsize=canvas.FONT_PT["label"])
    return ax


def plot_positions(dataset: PreviewDataset, split: str, ax: Axes | None = None) -> Axes:
    """Draw the density of the centres of a split's boxes in the image; darker means more boxes."""
    labels = _labels_in(dataset, split)
    ax = canvas.style_axes(ax, f"{split} ({pluralize(len(labels), 'box')})")
    if labels.empty:
        canvas.show_message(ax, _NO_BOXES)
        ax.set_xticks([])
        return ax
    cells = int(np.clip(np.sqrt(len(labels)) / 1.2, _MIN_CELLS, _MAX_CELLS))
    edges = np.linspace(0, 1, cells + 1)
    counts = np.histogram2d(labels["cy"], labels["cx"], bins=[edges, edges])[0]
    width, height = dataset.size_wh
    ax.imshow(counts, cmap=_DENSITY_CMAP, vmin=0, extent=(0, 1, 1, 0), aspect=height / width)
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(True)
    ax.set_xticks([0, 0.5, 1], labels=["left", "middle", "right"])
    ax.set_yticks([0, 0.5, 1], labels=["top", "middle", "bottom"])
    return ax


def plot_boxes_per_image(dataset: PreviewDataset, ax: Axes | None = None) -> Axes:
    """Draw the distribution of the number of boxes per image, by split."""
    ax = canvas.style_axes(ax, "boxes per image")
    names = dataset.splits
    shares = np.array([_count_shares(dataset, name) for name in names])
    last = max(_MIN_COUNT_BINS, int(np.flatnonzero(shares.any(axis=0))[-1]) + 1)
    width = 0.8 / len(names)
    for number, (name, line) in enumerate(zip(names, canvas.line_styles(len(names)), strict=True)):
        x = np.arange(last) + (number - (len(names) - 1) / 2) * width
        label = f"{name} ({pluralize(len(dataset.ids_by_split[name]), 'image')})"
        ax.bar(x, shares[number, :last], width * 0.94, color=line.colour, label=label)
    ax.set_xticks(range(last), labels=list(COUNT_BINS)[:last])
    ax.yaxis.set_major_formatter(_percent)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("boxes per image (0: negative)", fontsize=canvas.FONT_PT["label"])
    ax.set_ylabel("share of images", fontsize=canvas.FONT_PT["label"])
    return ax


def plot_classes(
    names: Sequence[str],
    counts: npt.NDArray[np.int64],
    splits: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Draw the shares of the splits in the images or objects of each row.

    Dashed lines continue the boundaries of the first row through all others. A class that is
    divided there has its proper share in each split.

    Args:
        names: Names of the rows.
        counts: Number of images or objects of each row, shape (rows, splits).
        splits: Names of the splits.
        ax: Axes to draw on; those of a new figure by default.
    """
    ax = canvas.style_axes(ax, "")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = [[f"{n:,}" for n in row] for row in counts]
    colours = [line.colour for line in canvas.line_styles(len(splits))]
    _stack(ax, names, shares, texts, zip(colours, splits, strict=True))
    for boundary in np.cumsum(shares[0])[:-1]:
        ax.axvline(boundary, color="black", lw=1.2, ls=(0, (4, 3)))
    return ax


def _draw_sizes(dataset: PreviewDataset) -> canvas.ChartSheet:
    width, height = dataset.size_wh
    total = len(dataset.labels)
    subtitle = f"{pluralize(total, 'box')}, in pixels of the network's input ({width} x {height})"
    sheet = canvas.ChartSheet(
        "box sizes",
        [subtitle],
        [["sizes", "sizes", "sizes", "shares", "shares"]],
        size_px=(1200, 720),
    )
    plot_box_sizes(dataset, sheet.panels["sizes"])
    plot_size_shares(dataset, sheet.panels["shares"])
    for (limit, name), colour in zip(SIZES, _SIZE_COLOURS, strict=True):
        label = f"{name}: from {limit} x {limit}" if limit else name
        sheet.panels["shares"].bar([0], [0], color=colour, label=label)
    sheet.legend()
    return sheet


def _draw_ratios(dataset: PreviewDataset) -> canvas.ChartSheet:
    width, height = dataset.size_wh
    subtitle = f"width divided by height of boxes in the network's input ({width} x {height})"
    sheet = canvas.ChartSheet("aspect ratios", [subtitle], [["ratios"]])
    plot_aspect_ratios(dataset, sheet.panels["ratios"]).set_title("", loc="left")
    sheet.legend()
    return sheet


def _draw_positions(dataset: PreviewDataset) -> canvas.ChartSheet:
    subtitle = "box centres in the image; darker: more boxes"
    # Each of three panels in a row is about 340 px wide, whatever its height.
    height_px = int(np.clip(190 + 340 * dataset.size_wh[1] / dataset.size_wh[0], 360, 1200))
    sheet = canvas.ChartSheet(
        "positions", [subtitle], [list(dataset.splits)], size_px=(1200, height_px)
    )
    for name, ax in sheet.panels.items():
        plot_positions(dataset, name, ax)
        if name != dataset.splits[0]:
            ax.set_yticks([])
    return sheet


def _draw_boxes_per_image(dataset: PreviewDataset) -> canvas.ChartSheet:
    negatives = len(dataset.split_by_id) - len(dataset.label_count_by_id)
    boxes = pluralize(len(dataset.labels), "box")
    images = pluralize(len(dataset.split_by_id), "image")
    subtitle = f"{boxes} in {images}, {negatives:,} without boxes"
    sheet = canvas.ChartSheet("boxes per image", [subtitle], [["counts"]])
    plot_boxes_per_image(dataset, sheet.panels["counts"]).set_title("", loc="left")
    sheet.legend()
    return sheet


def _draw_classes(dataset: PreviewDataset) -> canvas.ChartSheet:
    rows = class_rows(dataset)
    subtitles = ["dashed lines: shares of the splits in all images and in all objects"]
    if rows.left_out:
        subtitles.append(
            f"only the largest classes and those furthest from these shares; "
            f"{pluralize(rows.left_out, 'other')} not shown"
        )
    height_px = _HEADER_PX + 30 * len(subtitles) + _ROW_PX * max(len(rows.names), 3)
    panels = [["images", "objects"]]
    sheet = canvas.ChartSheet("classes by split", subtitles, panels, size_px=(1200, height_px))
    plot_classes(rows.names, rows.images, dataset.splits, sheet.panels["images"])
    ax = plot_classes(rows.names, rows.objects, dataset.splits, sheet.panels["objects"])
    ax.set_yticklabels([])
    for name, ax in sheet.panels.items():
        ax.set_title(name, loc="left", fontsize=canvas.FONT_PT["panel"], fontweight="bold")
    sheet.legend()
    return sheet


def _count_shares(dataset: PreviewDataset, split: str) -> canvas.Values:
    counts = dataset.label_counts(split)
    return count_per_bin(counts) / len(counts)


def _labels_in(dataset: PreviewDataset, split: str) -> pd.DataFrame:
    return dataset.labels[dataset.labels["split"] == split]


def _stack(
    ax: Axes,
    rows: Sequence[str],
    shares: canvas.Values,
    texts: Sequence[Sequence[str]],
    parts: Iterable[tuple[str, str]],
) -> None:
    """Draw a stacked bar of shares for each row, the first row on top.

    Args:
        ax: Axes to draw on.
        rows: Names of the rows.
        shares: Shares of each row's parts, shape (rows, parts); they sum to 1, or all are 0.
        texts: Text to write on the parts of each row, where it fits.
        parts: Colours of the parts, and their labels in the legend, if any.
    """
    y = np.arange(len(rows))
    left = np.zeros(len(rows))
    for part, (colour, label) in enumerate(parts):
        share = shares[:, part]
        ax.barh(y, share, 0.78, left=left, color=colour, label=label)
        for row in np.flatnonzero(share).tolist():
            text = texts[row][part]
            # Estimates the width of the text by its length.
            if share[row] >= _MIN_TEXT_SHARE * (0.4 + 0.25 * len(text)):
                ax.text(
                    left[row] + share[row] / 2,
                    row,
                    text,
                    ha="center",
                    va="center",
                    color="black" if colour == _SIZE_COLOURS[0] else "white",
                    fontsize=canvas.FONT_PT["tick"],
                    fontweight="bold",
                )
        left = left + share
    ax.set_yticks(y, labels=list(rows), parse_math=False)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8])
    ax.xaxis.set_major_formatter(_percent)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:g}%"


_SHEETS: Final = {
    "box_sizes": _draw_sizes,
    "aspect_ratios": _draw_ratios,
    "positions": _draw_positions,
    "boxes_per_image": _draw_boxes_per_image,
    "classes": _draw_classes,
}
"""Functions that draw the charts, by the name of their files, without extensions."""
