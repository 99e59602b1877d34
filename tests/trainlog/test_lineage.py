"""The training as it stands: dead ends left out, steps, saved weights and resumes found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.trainlog.lineage import lineage, number_text
from oiyolo.trainlog.parse import parse_log
from oiyolo.trainlog.smoothing import DRAWN_MOST, smooth_curve, thinned


def lines(first: int, last: int, *, loss: float = 1.0, rate: float = 0.001) -> str:
    return "".join(
        f"{i}: {loss:f}, {loss:f} avg, {rate:f} rate, 0.5 seconds, {i * 8} images\n"
        for i in range(first, last + 1)
    )


BEGINS = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"


def test_a_resume_that_goes_back_replaces_what_was_after_it() -> None:
    led = lineage(parse_log(BEGINS + lines(1, 100) + BEGINS + lines(81, 90, loss=2)))
    assert led.table["iteration"].tolist() == list(range(1, 91))
    assert led.table["loss"].tolist() == [1.0] * 80 + [2.0] * 10
    assert led.replaced["iteration"].tolist() == list(range(81, 101))
    assert led.resumed == (81,)


def test_resumed_twice_and_begun_anew() -> None:
    twice = BEGINS + lines(1, 100) + BEGINS + lines(81, 90) + BEGINS + lines(50, 60)
    led = lineage(parse_log(twice))
    assert led.table["iteration"].tolist() == list(range(1, 61))
    assert led.resumed == (50,)
    forward = BEGINS + lines(1, 20) + BEGINS + lines(21, 30) + BEGINS + lines(31, 40)
    assert lineage(parse_log(forward)).resumed == (21, 31)
    anew = lineage(parse_log(twice + BEGINS + lines(1, 5)))
    assert anew.table["iteration"].tolist() == [1, 2, 3, 4, 5]
    assert anew.resumed == ()
    assert len(anew.replaced) == 121


def test_an_empty_log_has_an_empty_lineage() -> None:
    led = lineage(parse_log("nothing\n"))
    assert (len(led), led.saved, led.resumed, led.rate_steps, led.ended) == (0, (), (), (), False)


def test_saved_weights_are_where_their_names_say() -> None:
    text = lines(1, 100) + (
        "Saving weights to backup/x_100.weights\n"
        "Saving weights to backup/x.backup\n"
        "Saving weights to backup/x_final.weights\n"
    )
    early = "Saving weights to backup/x_416_50.weights\n" + text
    led = lineage(parse_log(early))
    assert led.saved == (50, 100)
    assert led.ended


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
    ids=["steps", "a step up", "burn-in", "exponential", "not held yet", "none"],
)
def test_steps_of_the_learning_rate(rates: list[float], expected: list[tuple[int, float]]) -> None:
    text = "".join(lines(i, i, rate=rate) for i, rate in enumerate(rates, 1))
    assert [tuple(step) for step in lineage(parse_log(text)).rate_steps] == expected


def test_images_per_second_survive_the_overflow_of_darknets_counter() -> None:
    text = lines(1, 10) + "11: 1, 1 avg, 0.1 rate, 0.25 seconds, -2147483000 images\n"
    text += "12: 1, 1 avg, 0.1 rate, 0.000000 seconds, 96 images\n"
    speed = lineage(parse_log(text)).column("images_per_s")
    assert speed[:11].tolist() == [16.0] * 10 + [32.0]
    assert np.isnan(speed[11])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (0.52, "0.520"), (12.3456, "12.346"), (1234.5, "1,234"), (7e33, "7e+33"),
     (2e-5, "2e-05"), (float("nan"), "nan")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert number_text(value) == text


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=200),
    st.integers(1, 60),
)
def test_thinned_curves_keep_their_highest_and_lowest(values: list[float], times: int) -> None:
    y = np.repeat(np.array(values), times)
    x = np.arange(len(y), dtype=np.float64)
    thin_x, thin_y = thinned(x, y)
    assert len(thin_x) == len(thin_y) <= max(DRAWN_MOST, 1)
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
    assert len(smooth_x) == DRAWN_MOST
    assert (smooth_x[0], smooth_x[-1]) == (0, 99_999)
    assert window == 499
    inner = slice(20, -20)
    np.testing.assert_allclose(smooth_y[inner], smooth_x[inner] / 1000, atol=0.2)
