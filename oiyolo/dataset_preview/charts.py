"""Charts of a dataset: sizes, shapes, places and numbers of boxes, and classes by split.

``plot_...`` functions draw on the axes they are given, or on a new figure's, and return them;
``save_charts`` alone saves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.charts import canvas
from oiyolo.core.results import count
from oiyolo.dataset_preview.statistics import BUCKETS, SIZES, in_buckets, size_shares, split_shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.charts.canvas import Axes
    from oiyolo.dataset_preview.facts import Facts
    from oiyolo.dataset_preview.statistics import Row

NAMES: Final = ("box_sizes", "aspect_ratios", "positions", "boxes_per_image", "classes")
"""The charts' files, without their endings."""

_NOTHING: Final = "There is no box."
_DENSITY: Final = "Blues"
_SIZE_COLOURS: Final = ("#C6DBEF", "#6BAED6", "#2171B5")
_FEWEST_BINS, _MOST_BINS = 20, 56
_RATIO_TICKS: Final = (-3, -2, -1, 0, 1, 2, 3)
_RATIO_STEP: Final = 0.25
_FEWEST_PLACES, _MOST_PLACES = 4, 32
_LEAST_BUCKETS: Final = 4
_ROW_PX: Final = 38
_HEAD_PX: Final = 190
_WRITTEN_FROM: Final = 0.07  # share of a bar's width that has room for a number


def save_charts(facts: Facts, folder: Path) -> list[Path]:
    """Save all charts, each as PNG and SVG; give the paths of both.

    Args:
        facts: The dataset.
        folder: Where the charts go; made when it is missing.
    """
    made = (_sizes(facts), _ratios(facts), _positions(facts), _per_image(facts), _classes(facts))
    return [
        path
        for name, sheet in zip(NAMES, made, strict=True)
        for path in canvas.save(sheet.figure, folder, name)
    ]


def plot_box_sizes(facts: Facts, ax: Axes | None = None) -> Axes:
    """Draw how many boxes there are of each width and height, both logarithmic.

    Dashed lines are COCO's limits between small, medium and large; crosses are the anchors.
    """
    ax = canvas.dressed(ax, "width and height of the boxes")
    w, h = (facts.labels[name].to_numpy() for name in ("w_px", "h_px"))
    if not len(w):
        canvas.say(ax, _NOTHING)
        return ax
    sides = [*w, *h, *(side for anchor in facts.anchors_wh for side in anchor)]
    low = max(0.5, 0.8 * float(min(sides)))
    high = float(max(facts.size_wh)) * 1.1
    bins = int(np.clip(1.3 * np.sqrt(len(w)), _FEWEST_BINS, _MOST_BINS))
    edges = np.geomspace(low, high, bins + 1)
    numbers = np.histogram2d(np.maximum(w, low), np.maximum(h, low), bins=[edges, edges])[0].T
    ax.pcolormesh(
        edges,
        edges,
        np.ma.masked_equal(np.sqrt(numbers), 0.0),
        cmap=_DENSITY,
        vmin=-0.35 * np.sqrt(numbers.max()),
        rasterized=True,
    )
    for limit, _ in SIZES[1:]:
        ax.plot(edges, limit**2 / edges, color=canvas.COLOURS["vermilion"], ls="--", lw=1.6)
        # At the line's upper end, away from the cloud.
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
    if facts.anchors_wh:
        across, down = zip(*facts.anchors_wh, strict=True)
        ax.plot(across, down, "x", color="black", ms=9, mew=2.2, ls="", label="anchors")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    ticks = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048) if low <= n <= high]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks, labels=[str(n) for n in ticks])
        axis.set_ticks([], minor=True)
    ax.set_xlabel("width, px", fontsize=canvas.FONT_PT["label"])
    ax.set_ylabel("height, px", fontsize=canvas.FONT_PT["label"])
    return ax


def plot_size_shares(facts: Facts, ax: Axes | None = None) -> Axes:
    """Draw which share of each split's boxes is small, medium and large, as COCO has it."""
    ax = canvas.dressed(ax, "small, medium, large")
    by_split = {name: size_shares(_of(facts, name)) for name in facts.splits}
    if facts.labels.empty:
        canvas.say(ax, _NOTHING)
        return ax
    _stack(ax, list(by_split), np.array(list(by_split.values())), _SIZE_COLOURS)
    return ax


def plot_aspect_ratios(facts: Facts, ax: Axes | None = None) -> Axes:
    """Draw the boxes' width to height, as the network sees them, for each split."""
    ax = canvas.dressed(ax, "width to height")
    if facts.labels.empty:
        canvas.say(ax, _NOTHING)
        return ax
    ends = (_RATIO_TICKS[0], _RATIO_TICKS[-1])
    edges = np.arange(ends[0], ends[1] + _RATIO_STEP, _RATIO_STEP)
    for name, line in zip(facts.splits, canvas.lines(len(facts.splits)), strict=True):
        labels = _of(facts, name)
        if labels.empty:
            continue
        ratio = np.log2(np.maximum(labels["w_px"], 1e-9) / np.maximum(labels["h_px"], 1e-9))
        numbers = np.histogram(np.clip(ratio, *ends), bins=edges)[0] / len(labels)
        told = f"{name} ({count(len(labels), 'box')})"
        if name == facts.splits[0]:  # lines that lie on each other are told apart
            ax.stairs(numbers, edges, fill=True, color=line.colour, alpha=0.18)
        ax.stairs(numbers, edges, color=line.colour, ls=line.style, lw=2.0, label=told)
    ax.axvline(0, color=canvas.COLOURS["grey"], lw=1.0)
    words = [f"{2**n}:1" if n >= 0 else f"1:{2**-n}" for n in _RATIO_TICKS]
    ax.set_xticks(_RATIO_TICKS, labels=[f"≤ {words[0]}", *words[1:-1], f"≥ {words[-1]}"])
    ax.set_xlim(*ends)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(_percent)
    ax.set_xlabel("tall  ←  width : height  →  wide", fontsize=canvas.FONT_PT["label"])
    ax.set_ylabel("share of boxes", fontsize=canvas.FONT_PT["label"])
    return ax


def plot_positions(facts: Facts, split: str, ax: Axes | None = None) -> Axes:
    """Draw where the centres of a split's boxes lie in the picture; the darker, the more."""
    labels = _of(facts, split)
    ax = canvas.dressed(ax, f"{split} ({count(len(labels), 'box')})")
    if labels.empty:
        canvas.say(ax, _NOTHING)
        ax.set_xticks([])
        return ax
    places = int(np.clip(np.sqrt(len(labels)) / 1.2, _FEWEST_PLACES, _MOST_PLACES))
    cut = np.linspace(0, 1, places + 1)
    numbers = np.histogram2d(labels["cy"], labels["cx"], bins=[cut, cut])[0]
    width, height = facts.size_wh
    ax.imshow(numbers, cmap=_DENSITY, vmin=0, extent=(0, 1, 1, 0), aspect=height / width)
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(True)
    ax.set_xticks([0, 0.5, 1], labels=["left", "middle", "right"])
    ax.set_yticks([0, 0.5, 1], labels=["top", "middle", "bottom"])
    return ax


def plot_boxes_per_image(facts: Facts, ax: Axes | None = None) -> Axes:
    """Draw which share of each split's images has no box, one box, two and so on."""
    ax = canvas.dressed(ax, "boxes in an image")
    names = facts.splits
    shares = np.array([_bucket_shares(facts, name) for name in names])
    last = max(_LEAST_BUCKETS, int(np.flatnonzero(shares.any(axis=0))[-1]) + 1)
    width = 0.8 / len(names)
    for place, (name, line) in enumerate(zip(names, canvas.lines(len(names)), strict=True)):
        at = np.arange(last) + (place - (len(names) - 1) / 2) * width
        told = f"{name} ({count(len(facts.ids_of[name]), 'image')})"
        ax.bar(at, shares[place, :last], width * 0.94, color=line.colour, label=told)
    ax.set_xticks(range(last), labels=[bucket.name for bucket in BUCKETS[:last]])
    ax.yaxis.set_major_formatter(_percent)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("boxes in an image (0: a negative)", fontsize=canvas.FONT_PT["label"])
    ax.set_ylabel("share of images", fontsize=canvas.FONT_PT["label"])
    return ax


def plot_classes(rows: Sequence[Row], splits: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw how each row's images or objects are divided over the splits.

    Args:
        rows: What ``split_shares`` gave.
        splits: Names of the columns.
        ax: Where to draw.

    Returns:
        The axes. The first row's divisions go through all the others: where a class is cut at
        the same places, it has its share in each split.
    """
    ax = canvas.dressed(ax, "")
    shares = np.array([np.array(row.numbers) / max(sum(row.numbers), 1) for row in rows])
    colours = [line.colour for line in canvas.lines(len(splits))]
    numbers = [row.numbers for row in rows]
    _stack(ax, [row.name for row in rows], shares, colours, written=numbers, names=splits)
    for at in np.cumsum(shares[0])[:-1]:
        ax.axvline(at, color="black", lw=1.2, ls=(0, (4, 3)))
    return ax


def _sizes(facts: Facts) -> canvas.Sheet:
    width, height = facts.size_wh
    total = len(facts.labels)
    told = f"{count(total, 'box')} in px of the {width} x {height} that the network sees"
    sheet = canvas.Sheet(
        "box sizes", [told], [["sizes", "sizes", "sizes", "shares", "shares"]], size_px=(1200, 720)
    )
    plot_box_sizes(facts, sheet.panels["sizes"])
    plot_size_shares(facts, sheet.panels["shares"])
    for (limit, name), colour in zip(SIZES, _SIZE_COLOURS, strict=True):
        told = f"{name}: from {limit} x {limit}" if limit else f"{name}"
        sheet.panels["shares"].bar([0], [0], color=colour, label=told)
    sheet.legend()
    return sheet


def _ratios(facts: Facts) -> canvas.Sheet:
    width, height = facts.size_wh
    told = f"of the boxes in the {width} x {height} that the network sees"
    sheet = canvas.Sheet("aspect ratios", [told], [["ratios"]])
    plot_aspect_ratios(facts, sheet.panels["ratios"]).set_title("", loc="left")
    sheet.legend()
    return sheet


def _positions(facts: Facts) -> canvas.Sheet:
    told = "centres of the boxes in the picture; the darker, the more"
    # Three panels in a row are some 340 px wide, whatever their height is.
    height_px = int(np.clip(190 + 340 * facts.size_wh[1] / facts.size_wh[0], 360, 1200))
    sheet = canvas.Sheet("positions", [told], [list(facts.splits)], size_px=(1200, height_px))
    for name, ax in sheet.panels.items():
        plot_positions(facts, name, ax)
        if name != facts.splits[0]:
            ax.set_yticks([])
    return sheet


def _per_image(facts: Facts) -> canvas.Sheet:
    negatives = len(facts.split_by_id) - len(facts.labels_in)
    told = f"{count(len(facts.labels), 'box')} in {count(len(facts.split_by_id), 'image')}"
    told += f", {negatives:,} of them negatives"
    sheet = canvas.Sheet("boxes in an image", [told], [["numbers"]])
    plot_boxes_per_image(facts, sheet.panels["numbers"]).set_title("", loc="left")
    sheet.legend()
    return sheet


def _classes(facts: Facts) -> canvas.Sheet:
    found = split_shares(facts)
    rows = found.images
    told = ["dashed: how all images and all objects are divided; a class cut there has its share"]
    if found.left_out:
        told.append(
            f"shown are the largest classes and those farthest from that, "
            f"not {count(found.left_out, 'other')}"
        )
    height_px = _HEAD_PX + 30 * len(told) + _ROW_PX * max(len(rows), 3)
    panels = [["images", "objects"]]
    sheet = canvas.Sheet("classes in the splits", told, panels, size_px=(1200, height_px))
    plot_classes(rows, facts.splits, sheet.panels["images"])
    plot_classes(found.objects, facts.splits, sheet.panels["objects"]).set_yticklabels([])
    for name, ax in sheet.panels.items():
        ax.set_title(name, loc="left", fontsize=canvas.FONT_PT["panel"], fontweight="bold")
    sheet.legend()
    return sheet


def _bucket_shares(facts: Facts, split: str) -> canvas.Values:
    numbers = facts.label_counts(split)
    return in_buckets(numbers) / len(numbers)


def _of(facts: Facts, split: str) -> pd.DataFrame:
    return facts.labels[facts.labels["split"] == split]


def _stack(
    ax: Axes,
    rows: Sequence[str],
    shares: canvas.Values,
    colours: Sequence[str],
    *,
    written: Sequence[Iterable[int]] | None = None,
    names: Sequence[str] = (),
) -> None:
    """Draw a bar of shares for each row, the first row on top.

    Args:
        ax: Where to draw.
        rows: What to call them.
        shares: Parts of each row, shape (rows, parts), each row's sum 1 or 0.
        colours: One a part.
        written: What to write on the parts; their shares in percent without it.
        names: What the parts are called in the legend; nothing without it.
    """
    at = np.arange(len(rows))
    left = np.zeros(len(rows))
    texts = [[f"{n:,}" for n in row] for row in written] if written else None
    for part, colour in enumerate(colours):
        share = shares[:, part]
        label = names[part] if names else None
        ax.barh(at, share, 0.78, left=left, color=colour, label=label)
        for row in np.flatnonzero(share).tolist():
            told = texts[row][part] if texts else f"{share[row]:.0%}"
            # About as wide as it is long: what has no room is left out rather than run over.
            if share[row] >= _WRITTEN_FROM * (0.4 + 0.25 * len(told)):
                ax.text(
                    left[row] + share[row] / 2,
                    row,
                    told,
                    ha="center",
                    va="center",
                    color="black" if colour == _SIZE_COLOURS[0] else "white",
                    fontsize=canvas.FONT_PT["tick"],
                    fontweight="bold",
                )
        left = left + share
    ax.set_yticks(at, labels=list(rows), parse_math=False)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8])
    ax.xaxis.set_major_formatter(_percent)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:g}%"
