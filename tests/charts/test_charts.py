"""Charts: drawn on any axes, saved reproducibly, and never blank."""

from __future__ import annotations

import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.charts import canvas, comparison, training
from oiyolo.charts.training import overview_sheet
from oiyolo.core.errors import InputFormError
from oiyolo.trainlog import smoothing
from oiyolo.trainlog.lineage import build_lineage
from oiyolo.trainlog.metrics_json import build_metrics
from oiyolo.trainlog.parse import parse_log, read_log
from oiyolo.trainlog.scores import CheckpointScore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    from oiyolo.trainlog.parse import TrainLog

REAL = Path(__file__).parents[3] / "shared" / "real"


START = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"


def log_text(
    n: int, *, first: int = 1, layers: tuple[int, ...] = (16, 23), nan_from: int = 10**9
) -> str:
    lines = []
    for i in range(first, n + 1):
        loss = math.nan if i >= nan_from else 1000 / i
        lines += [
            f"Region {layer} Avg IOU: {min(0.9, 0.1 + i / n / 2):f}, Class: 0.5, Obj: 0.5, "
            f"No Obj: 0.1, .5R: 0.0, .75R: 0.0,  count: {i % 2}"
            for layer in layers
        ]
        lines.append(f"{i}: {loss:f}, {loss:f} avg, 0.001000 rate, 0.1 seconds, {i * 8} images")
        if i % 50 == 0:
            lines.append(f" mean average precision (mAP@0.50) = {i / n:f}, or 1 % ")
    return "\n".join(lines) + "\n"


def texts(ax: Axes) -> str:
    return "\n".join([ax.get_title(loc="left"), *(text.get_text() for text in ax.texts)])


def labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def is_drawn(path: Path) -> bool:
    with Image.open(path) as image:
        assert image.width == canvas.SIZE_PX[0]
        assert image.height in {canvas.SIZE_PX[1], training.OVERVIEW_PX[1]}
        pixels = np.asarray(image.convert("L"))
    ET.parse(path.with_suffix(".svg"))  # noqa: S314  (the test has just written it)
    return float((pixels < 250).mean()) > 0.005


def test_all_charts_are_saved(tmp_path: Path) -> None:
    paths = training.save_charts(parse_log(log_text(200)), tmp_path / "charts", title="boats")
    assert [path.name for path in paths] == ["loss.png", "iou.png", "map.png", "overview.png"]
    assert all(is_drawn(path) for path in paths)
    names = {path.name for path in (tmp_path / "charts").iterdir()}
    assert names == {f"{n}.{e}" for n in ("loss", "iou", "map", "overview") for e in ("png", "svg")}


def test_the_same_log_gives_the_same_bytes(
    tmp_path: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    log = parse_log(log_text(60, layers=(16,)))
    for name in ("a", "b"):
        training.save_charts(log, tmp_path / name, title="x")
        comparison.save_comparison({"x": log, "y": log}, tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert b"Software" not in (tmp_path / "a" / "loss.png").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a" / "loss.svg").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(log_text(1), id="one iteration"),
        pytest.param(log_text(2), id="two iterations"),
        pytest.param(log_text(40, nan_from=5), id="nan from 5 on"),
        pytest.param(log_text(3, nan_from=1), id="nan throughout", marks=pytest.mark.slow),
        pytest.param(log_text(40, layers=()), id="no region lines", marks=pytest.mark.slow),
        pytest.param(
            log_text(40, layers=tuple(range(70))), id="seventy layers", marks=pytest.mark.slow
        ),
        pytest.param("1: 0.0, 0.0 avg, 0.0 rate, 0.0 seconds, 8 images\n" * 3, id="only zeros"),
        pytest.param(
            f"1: {'9' * 60}, -{'9' * 39} avg, 0.0 rate, 0.0 seconds, 8 images\n"
            f"2: {'3' * 38}, 0.000001 avg, 0.0 rate, 0.0 seconds, 8 images\n",
            id="huge numbers",
        ),
        pytest.param(log_text(40) + START + log_text(20), id="restarted from scratch"),
        pytest.param(
            START + log_text(60) + (START + log_text(60, first=31)) * 2,
            id="resumed twice",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            log_text(40).replace("0.1 seconds", "0.0 seconds"),
            id="no iteration times",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            log_text(120).replace("(mAP@0.50)", "(mAP@0.75)", 1),
            id="two thresholds",
            marks=pytest.mark.slow,
        ),
        pytest.param("9" * 12 + ": 1, 1 avg, 1 rate, 1 seconds, 1 images\n", id="huge iteration"),
    ],
)
def test_unusual_logs_still_give_charts(tmp_path: Path, text: str) -> None:
    paths = training.save_charts(parse_log(text), tmp_path, title="$odd_{run} 船")
    assert all(is_drawn(path) for path in paths)


@pytest.mark.parametrize("plot", [training.plot_loss, training.plot_iou, training.plot_map])
def test_a_log_without_iterations_is_an_error(plot: type, tmp_path: Path) -> None:
    log = parse_log("Loading weights from x...Done!\n", name="some.log")
    with pytest.raises(InputFormError) as caught:
        plot(log)
    assert caught.value.where == "some.log"
    with pytest.raises(InputFormError):
        training.save_charts(log, tmp_path / "charts", title="x")
    assert not (tmp_path / "charts").exists()


def test_charts_are_drawn_on_given_axes() -> None:
    log = parse_log(log_text(100))
    ax = canvas.new_figure().subplots()
    assert training.plot_loss(log, ax, title="boats") is ax
    assert "boats" in texts(ax)
    assert "iteration 100 · loss 10.000 · average loss 10.000" in texts(ax)
    assert ax.get_yscale() == "log"
    last_third = training.plot_loss(log, since=67)
    assert last_third.get_yscale() == "linear"
    assert last_third.get_xlim()[0] > 60
    with pytest.raises(InputFormError, match="101"):
        training.plot_loss(log, since=101)
    other = canvas.new_figure().subplots()
    assert training.plot_iou(log, ax=other) is other


def test_pyplot_is_not_imported() -> None:
    code = (
        "import sys; from oiyolo.charts import training;"
        "from oiyolo.trainlog.parse import parse_log;"
        f"training.plot_loss(parse_log({log_text(5)!r}));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_each_kind_of_event_has_one_legend_entry() -> None:
    text = START + log_text(100)
    text += "".join(f"Saving weights to backup/x_{i}.weights\n" for i in range(1, 101))
    text += START + log_text(180, first=81).replace("0.001000 rate", "0.000100 rate")
    ax = training.plot_loss(parse_log(text))
    assert {"learning-rate step", "resumed (1)", "weights saved (100)"} <= set(labels(ax))
    assert "earlier runs (replaced)" in labels(ax)
    assert len(labels(ax)) == len(set(labels(ax)))
    assert "0.0001" in texts(ax).splitlines()
    (ticks,) = [line for line in ax.lines if str(line.get_label()).startswith("weights")]
    assert len(np.asarray(ticks.get_xdata())) <= 60


def test_the_iou_chart_has_a_curve_per_layer() -> None:
    text = log_text(100) + log_text(1, layers=(99,)).replace("count: 1", "count: 0")
    ax = training.plot_iou(parse_log(text.replace("1: 1000", "101: 1000")))
    assert ax.get_ylim() == (0, 1)
    assert labels(ax)[:3] == ["each iteration", "layer 16", "layer 23"]
    many = labels(training.plot_iou(parse_log(log_text(40, layers=tuple(range(70))))))
    assert "and 64 more layers" in many
    assert len(many) < 12


def test_charts_without_data_show_the_reason() -> None:
    assert "without 2>&1" in texts(
        training.plot_iou(parse_log("1: 1.0, 1.0 avg loss, 0.1 rate, 0.1 seconds, 64 images"))
    ).replace("\n", " ")
    assert "diverged" in texts(training.plot_loss(parse_log(log_text(5, nan_from=1))))
    diverged = labels(training.plot_loss(parse_log(log_text(40, nan_from=5))))
    assert "nan or inf (36, first at 5)" in diverged


def test_a_long_log_gives_few_points_and_small_files(tmp_path: Path) -> None:
    n = 30_000
    lines = [
        f"{i}: {900 if i == 12_345 else 1 + i % 7:f}, 4.0 avg, 0.001 rate, 0.1 seconds, {i} images"
        for i in range(1, n + 1)
    ]
    log = parse_log("\n".join(lines) + "\n")
    ax = training.plot_loss(log)
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]
    assert max(len(values) for values in drawn) <= 1600
    assert max(values.max() for values in drawn) == 900  # the outlier is kept
    for path in training.save_charts(log, tmp_path, title="long"):
        assert path.with_suffix(".svg").stat().st_size < 400_000


def test_the_overview_includes_the_verdict() -> None:
    log = START + log_text(200)
    sheet = overview_sheet(build_lineage(parse_log(log)), "boats")
    text = " ".join(item.get_text() for item in sheet.figure.texts)
    assert text.startswith("boats iteration 200 · loss 5.000")
    assert "falling: loss 5.435 over the last 33 iterations" in text
    assert set(sheet.panels) == {"loss", "iou", "map", "rate", "speed"}
    without = overview_sheet(build_lineage(parse_log(log_text(20))), "boats")
    assert "map" not in without.panels


def test_a_comparison_of_many_runs_is_saved(tmp_path: Path) -> None:
    logs = {f"run-{i}": parse_log(log_text(30 * i, layers=(16,) * (i % 2))) for i in range(1, 10)}
    (path,) = comparison.save_comparison(logs, tmp_path)
    with Image.open(path) as image:
        assert image.width == canvas.SIZE_PX[0]
    assert path.with_suffix(".svg").is_file()
    with pytest.raises(InputFormError):
        comparison.save_comparison({**logs, "none": parse_log("")}, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_map_chart_shows_the_latest_map() -> None:
    ax = training.plot_map(parse_log(log_text(200)))
    assert "iteration 200 · mAP 1.000" in texts(ax)
    assert ax.get_ylim() == (0, 1)
    with pytest.raises(InputFormError):
        training.plot_map(parse_log(log_text(10)))


SCORES = [
    CheckpointScore(20 * i, 0.05 * i, 0.08 * i, (0.05 * i - 0.03, 0.05 * i + 0.03))
    for i in range(1, 11)
]
NO_MAP = log_text(200).replace("mean average precision", "")


def test_the_map_chart_shows_scores_with_their_interval_and_darknets_map() -> None:
    ax = training.plot_map(parse_log(NO_MAP).with_scores(SCORES))
    assert "iteration 200 · valid mAP 0.500 (the best so far), train 0.800" in texts(ax)
    assert {"valid mAP", "95 % interval of valid", "train mAP"} < set(labels(ax))
    assert [line.get_ydata()[-1] for line in ax.lines[:2]] == [0.5, 0.8]  # type: ignore[index]
    assert ax.get_xlim()[0] < 1  # the log begins before the scores
    assert "mAP@0.50 (darknet)" in labels(
        training.plot_map(parse_log(log_text(200)).with_scores(SCORES))
    )


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param(SCORES, id="several"),
        pytest.param(SCORES[:1], id="one", marks=pytest.mark.slow),
        pytest.param(
            [CheckpointScore(20, 0.5, math.nan, (math.nan, math.nan))],
            id="valid alone",
            marks=pytest.mark.slow,
        ),
        pytest.param([CheckpointScore(i, 0.5, 0.5, (0.4, 0.6)) for i in range(1, 201)], id="many"),
    ],
)
def test_scores_give_a_map_chart_without_darknets_map(
    tmp_path: Path, scores: list[CheckpointScore]
) -> None:
    log = parse_log(NO_MAP).with_scores(scores)
    paths = training.save_charts(log, tmp_path, title="boats")
    assert [path.name for path in paths] == ["loss.png", "iou.png", "map.png", "overview.png"]
    assert all(is_drawn(path) for path in paths)
    comparison.save_comparison({"a": log, "b": parse_log(log_text(20)), "c": log}, tmp_path)


def test_the_start_of_overfitting_is_marked() -> None:
    falling = [
        CheckpointScore(20 * i, v, 0.9, (v - 0.02, v + 0.02))
        for i, v in enumerate([0.7, 0.8, 0.8, 0.7, 0.5, 0.4, 0.3, 0.3, 0.2], 1)
    ]
    ax = training.plot_map(parse_log(NO_MAP).with_scores(falling))
    assert "overfitting since 60" in labels(ax)
    assert "best: valid mAP 0.800 at 60" in labels(ax)


def excerpt(maps: Mapping[int, float], first: int = 3043, last: int = 4000) -> str:
    """Return a log that begins late, with learning-rate steps near its end."""
    return "".join(
        f"{i}: 0.25, 0.25 avg loss, {0.001 if i < 3960 else 0.0001:f} rate, 0.1 seconds, "
        f"{i * 8} images\n" + (f" mean_average_precision (mAP@0.50) = {m} \n" if m else "")
        for i in range(first, last + 1)
        for m in [maps.get(i)]
    )


def boxes_by_axes(figure: Figure) -> list[tuple[Bbox, list[Bbox]]]:
    """Return the extent of each axes and of the labels on it, as drawn."""
    figure.draw_without_rendering()
    return [
        (ax.get_window_extent(), [text.get_window_extent() for text in ax.texts])
        for ax in figure.axes
    ]


@pytest.mark.parametrize("step", [1, 13, 100, 400])
def test_labels_neither_overlap_nor_leave_the_axes(step: int) -> None:
    maps = {i: 0.9 + 0.09 * math.sin(i) for i in range(3100, 4001, step)}
    lineage = build_lineage(parse_log(excerpt(maps)))
    sheet = overview_sheet(lineage, "late")
    for axes_box, boxes in boxes_by_axes(sheet.figure):
        for index, box in enumerate(boxes):
            assert axes_box.x0 <= box.x0 < box.x1 <= axes_box.x1
            assert axes_box.y0 <= box.y0 < box.y1 <= axes_box.y1
            assert not any(box.overlaps(other) for other in boxes[:index])
    shown = texts(sheet.panels["map"]).splitlines()
    assert f"{maps[max(maps)]:.3f}" in shown
    assert "0.0001" in texts(sheet.panels["loss"]).splitlines()
    assert len(shown) <= 9


def test_panels_share_the_range_of_the_log_and_the_facts_about_map() -> None:
    log = parse_log(excerpt({3100: 0.9889, 3500: 0.98, 4000: 0.9851}))
    sheet = overview_sheet(build_lineage(log), "late")
    assert len({ax.get_xlim() for ax in sheet.panels.values()}) == 1
    header = [text.get_text() for text in sheet.figure.texts]
    said = [line for line in " ".join(header).split("mAP ")[1:] if line.startswith("0.985 (best")]
    assert len(said) == 1
    figures = build_metrics(log, name="late")
    assert figures["last"]["map"] == figures["verdict"]["figures"]["map"] == 0.9851
    assert figures["best"]["map"] == {"value": 0.9889, "iteration": 3100}
    assert figures["verdict"]["figures"]["best_map"] == 0.9889
    assert {"0.989", "0.985"} <= set(texts(sheet.panels["map"]).splitlines())


def test_smoothing_removes_outliers_and_keeps_gaps() -> None:
    values = np.array([1.0, 1.0, 100.0, 1.0, np.nan, 1.0, 1.0])
    out = smoothing.smooth(values, 5)
    np.testing.assert_allclose(out, [1, 1, 1, 1, np.nan, 1, 1])
    np.testing.assert_array_equal(smoothing.smooth(values, 1), values)
    assert len(smoothing.smooth(np.array([]), 5)) == 0
    long = np.arange(10_000.0)
    np.testing.assert_allclose(smoothing.smooth(long, 31)[100:-100], long[100:-100])


def test_smoothing_windows_are_odd_and_bounded() -> None:
    windows = [smoothing.smoothing_window(n) for n in range(0, 60_000, 7)]
    assert all(window % 2 == 1 for window in windows)
    assert (min(windows), max(windows)) == (1, 301)
    assert smoothing.smoothing_window(500_000) == 2501


@pytest.mark.skipif(not REAL.is_dir(), reason="there are no real logs in ../shared/real")
@pytest.mark.slow
def test_charts_of_real_logs(tmp_path: Path) -> None:
    def saved(log: TrainLog, name: str) -> list[str]:
        paths = training.save_charts(log, tmp_path / name, title=name)
        assert all(is_drawn(path) for path in paths)
        return [path.name for path in paths]

    seed = read_log(REAL / "seed_project" / "train_log.txt")
    assert saved(seed, "seed") == ["loss.png", "iou.png", "overview.png"]
    nan = read_log(REAL / "logs" / "debian_diverges_to_nan.log")
    assert saved(nan, "nan") == ["loss.png", "iou.png", "overview.png"]
    hank = read_log(REAL / "logs" / "hank_colour_map.log")
    assert saved(hank, "hank") == ["loss.png", "iou.png", "map.png", "overview.png"]


def test_long_names_in_a_comparison_are_shortened_but_unique() -> None:
    prefix, suffix = "a" * 30, "z" * 30
    labels = comparison._labels(
        ["short", f"{prefix}1{suffix}", f"{prefix}2{suffix}", f"b{prefix}{suffix}"]
    )
    assert labels[0] == "short"
    assert len(set(labels)) == 4
    assert all(len(label) < 50 for label in labels)
    assert labels[1].startswith("aaa")
    assert labels[1].endswith("zzz")


def test_the_loss_of_valid_images_is_a_curve_of_its_own() -> None:
    with_it = log_text(60).replace("\n40: ", "\nValidation loss: 30.5 (40 images)\n40: ")
    with_it += "Validation loss: 20.5 (40 images)\n"
    curves = {}
    for text in (log_text(60), with_it):
        ax = training.plot_loss(parse_log(text))
        curves[text] = {line.get_label(): line for line in ax.get_lines()}
    label = (curves[with_it].keys() - curves[log_text(60)].keys()).pop()
    assert len(curves[with_it]) == len(curves[log_text(60)]) + 1
    points = np.asarray(curves[with_it][label].get_xydata())
    assert points.tolist() == [[39, 30.5], [60, 20.5]]
    figures = build_metrics(parse_log(with_it), name="x")
    assert (figures["last"]["valid_loss"], figures["best"]["valid_loss"]["iteration"]) == (20.5, 60)
