"""The lineage of a training: replaced iterations, rate steps, saved weights and resumes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.trainlog.lineage import build_lineage, format_number
from oiyolo.trainlog.parse import parse_log
from oiyolo.trainlog.smoothing import MAX_POINTS, downsample, smooth_curve


def lines(first: int, last: int, *, loss: float = 1.0, rate: float = 0.001) -> str:
    return "".join(
        f"{i}: {loss:f}, {loss:f} avg, {rate:f} rate, 0.5 seconds, {i * 8} images\n"
        for i in range(first, last + 1)
    )


START = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"


def test_a_resume_from_an_earlier_iteration_replaces_later_ones() -> None:
    lineage = build_lineage(parse_log(START + lines(1, 100) + START + lines(81, 90, loss=2)))
    assert lineage.table["iteration"].tolist() == list(range(1, 91))
    assert lineage.table["loss"].tolist() == [1.0] * 80 + [2.0] * 10
    assert lineage.replaced_rows["iteration"].tolist() == list(range(81, 101))
    assert lineage.resumed_iterations == (81,)


def test_repeated_resumes_and_a_restart_from_scratch() -> None:
    twice = START + lines(1, 100) + START + lines(81, 90) + START + lines(50, 60)
    lineage = build_lineage(parse_log(twice))
    assert lineage.table["iteration"].tolist() == list(range(1, 61))
    assert lineage.resumed_iterations == (50,)
    forward = START + lines(1, 20) + START + lines(21, 30) + START + lines(31, 40)
    assert build_lineage(parse_log(forward)).resumed_iterations == (21, 31)
    restarted = build_lineage(parse_log(twice + START + lines(1, 5)))
    assert restarted.table["iteration"].tolist() == [1, 2, 3, 4, 5]
    assert restarted.resumed_iterations == ()
    assert len(restarted.replaced_rows) == 121


def test_an_empty_log_has_an_empty_lineage() -> None:
    lineage = build_lineage(parse_log("nothing\n"))
    assert (
        len(lineage),
        lineage.saved_iterations,
        lineage.resumed_iterations,
        lineage.rate_steps,
        lineage.has_final_weights,
    ) == (0, (), (), (), False)


def test_saved_iterations_come_from_file_names() -> None:
    text = lines(1, 100) + (
        "Saving weights to backup/x_100.weights\n"
        "Saving weights to backup/x.backup\n"
        "Saving weights to backup/x_final.weights\n"
    )
    early = "Saving weights to backup/x_416_50.weights\n" + text
    lineage = build_lineage(parse_log(early))
    assert lineage.saved_iterations == (50, 100)
    assert lineage.has_final_weights


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.001] * 10 + [0.0001] * 10 + [0.00001] * 10, [(11, 0.0001), (21, 0.00001)]),
        ([0.001] * 10 + [0.01] * 10, [(11, 0.01)]),
        ([0.001 * (i / 30) ** 4 for i in range(30)], []),
        ([0.001 * 0.9**i for i in range(60)], []),
        ([0.001] * 10 + [0.0001], []),
        ([0.0] * 30, []),
    ],
    ids=["steps", "a step up", "burn-in", "exponential", "not stable yet", "zero"],
)
def test_learning_rate_steps_are_detected(
    rates: list[float], expected: list[tuple[int, float]]
) -> None:
    text = "".join(lines(i, i, rate=rate) for i, rate in enumerate(rates, 1))
    assert [tuple(step) for step in build_lineage(parse_log(text)).rate_steps] == expected


def test_images_per_second_survive_the_overflow_of_darknets_counter() -> None:
    text = lines(1, 10) + "11: 1, 1 avg, 0.1 rate, 0.25 seconds, -2147483000 images\n"
    text += "12: 1, 1 avg, 0.1 rate, 0.000000 seconds, 96 images\n"
    speed = build_lineage(parse_log(text)).column("images_per_s")
    assert speed[:11].tolist() == [16.0] * 10 + [32.0]
    assert np.isnan(speed[11])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (0.52, "0.520"), (12.3456, "12.346"), (1234.5, "1,234"), (7e33, "7e+33"),
     (2e-5, "2e-05"), (float("nan"), "nan")],
)  # fmt: skip
def test_numbers_are_formatted_briefly(value: float, text: str) -> None:
    assert format_number(value) == text


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=200),
    st.integers(1, 60),
    st.sampled_from([2, 5, 50, MAX_POINTS]),
)
def test_downsampled_curves_keep_their_extremes(
    values: list[float], times: int, limit: int
) -> None:
    y = np.repeat(np.array(values), times)
    x = np.arange(len(y), dtype=np.float64)
    thin_x, thin_y = downsample(x, y, limit)
    assert len(thin_x) == len(thin_y) <= limit
    assert (np.diff(thin_x) > 0).all()
    if np.isfinite(y).any():
        assert np.nanmax(thin_y) == np.nanmax(y)
        assert np.nanmin(thin_y) == np.nanmin(y)
    np.testing.assert_array_equal(thin_y, y[thin_x.astype(int)])


def test_a_long_curve_is_smoothed_with_few_points() -> None:
    x = np.arange(100_000.0)
    y = x / 1000 + np.where(x % 7 == 0, 50, 0)
    y[500:900] = np.nan
    smooth_x, smooth_y, window = smooth_curve(x, y)
    assert len(smooth_x) == MAX_POINTS
    assert (smooth_x[0], smooth_x[-1]) == (0, 99_999)
    assert window == 499
    inner = slice(20, -20)
    np.testing.assert_allclose(smooth_y[inner], smooth_x[inner] / 1000, atol=0.2)
