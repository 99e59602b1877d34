"""Charts: drawn on any axes, saved whole, the same bytes for the same log, never blank."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo import charts
from oiyolo.errors import InputFormError
from oiyolo.trainlog.parse import parse_log, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from oiyolo.trainlog.parse import TrainLog

REAL = Path(__file__).parents[2] / "shared" / "real"


def log_text(n: int, *, layers: tuple[int, ...] = (16, 23), nan_from: int = 10**9) -> str:
    lines = []
    for i in range(1, n + 1):
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


def is_drawn(path: Path) -> bool:
    with Image.open(path) as image:
        assert image.size == charts.SIZE_PX
        pixels = np.asarray(image.convert("L"))
    return float((pixels < 250).mean()) > 0.005


def test_saved_charts(tmp_path: Path) -> None:
    paths = charts.save_charts(parse_log(log_text(200)), tmp_path / "charts", title="boats")
    assert [path.name for path in paths] == ["loss.png", "iou.png", "map.png"]
    assert all(is_drawn(path) for path in paths)
    assert sorted(path.name for path in (tmp_path / "charts").iterdir()) == [
        "iou.png", "loss.png", "map.png",
    ]  # fmt: skip


def test_same_log_same_bytes(tmp_path: Path) -> None:
    log = parse_log(log_text(60, layers=(16,)))
    first = [path.read_bytes() for path in charts.save_charts(log, tmp_path / "a", title="x")]
    second = [path.read_bytes() for path in charts.save_charts(log, tmp_path / "b", title="x")]
    assert first == second
    assert b"Software" not in first[0]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(log_text(1), id="one iteration"),
        pytest.param(log_text(2), id="two iterations"),
        pytest.param(log_text(40, nan_from=5), id="nan from 5 on"),
        pytest.param(log_text(3, nan_from=1), id="nan throughout"),
        pytest.param(log_text(40, layers=()), id="no region lines"),
        pytest.param(log_text(40, layers=tuple(range(70))), id="seventy layers"),
        pytest.param(
            "1: 0.0, 0.0 avg, 0.0 rate, 0.0 seconds, 8 images\n" * 3, id="nothing but zeros"
        ),
        pytest.param(
            f"1: {'9' * 60}, -{'9' * 39} avg, 0.0 rate, 0.0 seconds, 8 images\n"
            f"2: {'3' * 38}, 0.000001 avg, 0.0 rate, 0.0 seconds, 8 images\n",
            id="huge numbers",
        ),
        pytest.param("9" * 12 + ": 1, 1 avg, 1 rate, 1 seconds, 1 images\n", id="huge iteration"),
    ],
)
def test_odd_logs_still_give_charts(tmp_path: Path, text: str) -> None:
    paths = charts.save_charts(parse_log(text), tmp_path, title="$odd_{run} 船")
    assert all(is_drawn(path) for path in paths)


@pytest.mark.parametrize("plot", [charts.plot_loss, charts.plot_iou])
def test_empty_log_is_refused(plot: type, tmp_path: Path) -> None:
    log = parse_log("Loading weights from x...Done!\n", name="some.log")
    with pytest.raises(InputFormError, match=r"some\.log: no iteration lines"):
        plot(log)
    with pytest.raises(InputFormError):
        charts.save_charts(log, tmp_path / "charts", title="x")
    assert not (tmp_path / "charts").exists()


def test_draws_on_given_axes() -> None:
    log = parse_log(log_text(100))
    ax = charts.new_figure().subplots()
    assert charts.plot_loss(log, ax=ax, title="boats") is ax
    assert "boats" in texts(ax)
    assert "iteration 100 · loss 10.000 · average 10.000" in texts(ax)
    assert ax.get_yscale() == "log"
    late = charts.plot_loss(log, since=67)
    assert late.get_yscale() == "linear"
    assert late.get_xlim()[0] > 60


def test_iou_axis_and_layers() -> None:
    text = log_text(100) + log_text(1, layers=(99,)).replace("count: 1", "count: 0")
    ax = charts.plot_iou(parse_log(text.replace("1: 1000", "101: 1000")))
    assert ax.get_ylim() == (0, 1)
    legend = ax.get_legend()
    assert legend is not None
    labels = [label.get_text() for label in legend.get_texts()]
    assert labels[:3] == ["each iteration", "layer 16", "layer 23"]


def test_charts_say_what_is_wrong() -> None:
    assert "without 2>&1" in texts(
        charts.plot_iou(parse_log("1: 1.0, 1.0 avg loss, 0.1 rate, 0.1 seconds, 64 images"))
    )
    assert "diverged" in texts(charts.plot_loss(parse_log(log_text(5, nan_from=1))))
    legend = charts.plot_loss(parse_log(log_text(40, nan_from=5))).get_legend()
    assert legend is not None
    assert "nan or inf (36, first at 5)" in [text.get_text() for text in legend.get_texts()]


def test_map_chart() -> None:
    ax = charts.plot_map(parse_log(log_text(200)))
    assert "mAP 1.000 · best 1.000 at 200" in texts(ax)
    with pytest.raises(InputFormError, match="no mean average precision"):
        charts.plot_map(parse_log(log_text(10)))


def test_smoothed() -> None:
    values = np.array([1.0, 1.0, 100.0, 1.0, np.nan, 1.0, 1.0])
    out = charts.smoothed(values, 5)
    np.testing.assert_allclose(out, [1, 1, 1, 1, np.nan, 1, 1])
    np.testing.assert_array_equal(charts.smoothed(values, 1), values)
    assert len(charts.smoothed(np.array([]), 5)) == 0
    long = np.arange(10_000.0)
    np.testing.assert_allclose(charts.smoothed(long, 31)[100:-100], long[100:-100])


def test_smoothing_windows_are_odd() -> None:
    windows = [charts.smoothing_window(n) for n in range(0, 20_000, 7)]
    assert all(window % 2 == 1 for window in windows)
    assert (min(windows), max(windows)) == (1, 301)


@pytest.mark.skipif(not REAL.is_dir(), reason="there are no real logs at ../shared/real")
def test_real_logs_give_charts(tmp_path: Path) -> None:
    def saved(log: TrainLog, name: str) -> list[str]:
        paths = charts.save_charts(log, tmp_path / name, title=name)
        assert all(is_drawn(path) for path in paths)
        return [path.name for path in paths]

    seed = read_log(REAL / "seed_project" / "train_log.txt")
    assert saved(seed, "seed") == ["loss.png", "iou.png"]
    nan = read_log(REAL / "logs" / "debian_diverges_to_nan.log")
    assert saved(nan, "nan") == ["loss.png", "iou.png"]
    hank = read_log(REAL / "logs" / "hank_colour_map.log")
    assert saved(hank, "hank") == ["loss.png", "iou.png", "map.png"]
