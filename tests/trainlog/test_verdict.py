"""Verdicts on synthetic curves and real logs, with the figures behind them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.trainlog.parse import parse_log, read_log
from oiyolo.trainlog.verdict import WINDOW_MAX, WINDOW_MIN, verdict, window_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.trainlog.verdict import Verdict


def log_text(losses: Sequence[float], *, maps: dict[int, float] | None = None) -> str:
    lines = []
    average = math.nan
    for i, loss in enumerate(losses, 1):
        average = loss if i == 1 else 0.9 * average + 0.1 * loss
        lines.append(f"{i}: {loss:f}, {average:f} avg, 0.001 rate, 0.1 seconds, {i * 64} images")
        if maps and i in maps:
            lines.append(f" mean_average_precision (mAP@0.50) = {maps[i]:f} ")
    return "\n".join(lines) + "\n"


def assess_losses(
    losses: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]],
) -> Verdict:
    return verdict(parse_log(log_text(list(losses))))


def noise(n: int, sigma: float, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.exp(np.random.default_rng(seed).normal(0, sigma, n))


X = np.arange(1.0, 1201.0)
POWER_LAW = 1e5 / X**1.5
DOWN_THEN_FLAT = np.maximum(5.0, 50 - X / 8)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sigma", [0.0, 0.4])
@pytest.mark.parametrize(
    ("kind", "curve"),
    [
        pytest.param("falling", POWER_LAW, id="a power of the iteration"),
        pytest.param("falling", 20 * np.exp(-X / 400), id="exponential"),
        pytest.param("flat", DOWN_THEN_FLAT, id="down, then flat"),
        pytest.param("rising", np.where(X > 950, 9.0, 5.0), id="a step up"),
        pytest.param("diverging", np.where(X > 1150, 900.0, POWER_LAW), id="a leap at the end"),
        pytest.param("diverging", np.maximum(1.0, np.exp((X - 900) / 60)), id="growing"),
        pytest.param("diverging", np.where(X > 300, 60.0, 5.0), id="high since long ago"),
        pytest.param("nan", np.where(X > 900, np.nan, 5.0), id="nan"),
        pytest.param("nan", np.where(X > 1100, np.inf, POWER_LAW), id="inf"),
    ],
)
def test_synthetic_curves(
    kind: str, curve: np.ndarray[tuple[int], np.dtype[np.float64]], sigma: float, seed: int
) -> None:
    result = assess_losses(curve * noise(len(curve), sigma, seed))
    assert result.kind == kind, result
    assert result.sentence.startswith("not a number" if kind == "nan" else kind)


def test_single_outliers_do_not_change_the_verdict() -> None:
    losses = 5 * noise(1200, 0.3)
    losses[::37] *= 10
    losses[-3:] *= 10
    assert assess_losses(losses).kind == "flat"


@pytest.mark.parametrize("seed", range(8))
def test_flat_noise_never_diverges(seed: int) -> None:
    for n in (12, 30, 100, 700):
        assert assess_losses(noise(n, 1.0, seed)).kind not in {"diverging", "nan"}


def test_the_sentence_includes_the_figures() -> None:
    result = assess_losses(DOWN_THEN_FLAT)
    assert result.sentence == (
        "flat since iteration 401: loss 5.000 over the last 200 iterations, "
        "5.000 over the previous 200 (+0%)"
    )
    assert result.figures == {
        "iteration": 1200,
        "window": 200,
        "loss": 5.0,
        "loss_before": 5.0,
        "change": 0.0,
        "since": 401,
    }
    assert str(result) == result.sentence
    assert result.as_dict()["kind"] == "flat"


def test_nan_has_a_start_and_a_single_nan_is_ignored() -> None:
    assert assess_losses([3.0] * 50 + [math.nan] * 10).figures["since"] == 51
    assert assess_losses([math.nan]).kind == "nan"
    # AlexeyAB's average starts again after a nan, so the last line alone is not enough.
    text = log_text([3.0] * 60) + "61: -nan, -nan avg loss, 0.001 rate, 0.1 seconds, 64 images\n"
    assert verdict(parse_log(text), max_batches=61).kind == "flat"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no iterations yet"),
        (log_text([4.0]), "too early to tell: 1 of 30 iterations; loss 4.000"),
        (log_text([4.0] * 29), "too early to tell: 29 of 30 iterations; loss 4.000"),
    ],
)
def test_short_logs_are_too_early_to_tell(text: str, expected: str) -> None:
    assert (verdict(parse_log(text)).kind, str(verdict(parse_log(text)))) == ("early", expected)


def rate_log(rates: Sequence[float], *, first: int = 1, hours_left: float | None = None) -> str:
    end = "" if hours_left is None else f", {hours_left:f} hours left"
    return "".join(
        f"{i}: 4.0, 4.0 avg loss, {rate:f} rate, 0.1 seconds, {i * 64} images{end}\n"
        for i, rate in enumerate(rates, first)
    )


CONSTANT = [0.001] * 117


@pytest.mark.parametrize(
    ("text", "max_batches", "kind"),
    [
        pytest.param(rate_log(CONSTANT), 3000, "early", id="the first 4 %"),
        pytest.param(rate_log(CONSTANT), 1000, "flat", id="the first 12 %"),
        pytest.param(rate_log(CONSTANT), None, "early", id="unknown schedule"),
        pytest.param(rate_log(CONSTANT, first=300), None, "flat", id="unknown, but late"),
        pytest.param(rate_log(CONSTANT, hours_left=0.08), None, "early", id="much time left"),
        pytest.param(rate_log(CONSTANT, hours_left=0.01), None, "flat", id="little time left"),
        pytest.param(
            rate_log([1e-3 * (i / 1000) ** 4 for i in range(500)]), 3000, "early", id="burn-in"
        ),
        pytest.param(rate_log([0.0] * 400), 3000, "early", id="burn-in, printed as 0"),
        pytest.param(
            rate_log([1e-4] * 500 + [1e-3] * 50), 3000, "early", id="just after a step up"
        ),
        pytest.param(rate_log([1e-4] * 99 + [1e-3] * 501), 3000, "flat", id="long after a step up"),
        pytest.param(rate_log([1e-3] * 500 + [1e-4] * 50), 3000, "flat", id="after a step down"),
        pytest.param(
            rate_log(CONSTANT) + "Saving weights to x_final.weights\n", 3000, "finished", id="ended"
        ),
    ],
)
def test_a_flat_loss_means_nothing_early_on(text: str, max_batches: int | None, kind: str) -> None:
    result = verdict(parse_log(text), max_batches=max_batches)
    assert result.kind == kind, result
    assert ("since" in result.figures) == (kind != "early")
    assert result.figures["loss"] == 4.0


def test_final_weights_mean_finished() -> None:
    text = log_text(DOWN_THEN_FLAT.tolist()) + "Saving weights to weights/x_final.weights\n"
    result = verdict(parse_log(text))
    assert (result.kind, result.trend) == ("finished", "flat")
    assert result.sentence.startswith("finished at iteration 1,200; flat since iteration 401: ")
    continued = text + log_text([9.0, 9.0])
    assert verdict(parse_log(continued)).kind == "early"
    diverged = log_text([math.nan] * 5) + "Saving weights to weights/x_final.weights\n"
    assert verdict(parse_log(diverged)).kind == "nan"


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ({600: 0.5}, "; mAP 0.500"),
        ({300: 0.5, 600: 0.6}, "; mAP 0.600, the best so far"),
        ({300: 0.6, 600: 0.6}, "; mAP 0.600, the best so far"),
        ({300: 0.9889, 600: 0.9851}, "; mAP 0.985 (best 0.989 at iteration 300)"),
        (
            {300: 0.6, 600: 0.55, 900: 0.5, 1200: 0.52},
            (
                "; mAP 0.520 (best 0.600 at iteration 300) and lower since: later weights are no "
                "better"
            ),
        ),
    ],
)
def test_the_sentence_includes_map(maps: dict[int, float], expected: str) -> None:
    result = verdict(parse_log(log_text(DOWN_THEN_FLAT.tolist(), maps=maps)))
    assert result.sentence.endswith(expected)
    assert result.figures["best_map"] == max(maps.values())
    assert result.figures["map"] == list(maps.values())[-1]


def test_replaced_iterations_are_ignored() -> None:
    restarted = log_text([1.0] * 500) + log_text(POWER_LAW[:200].tolist())
    assert verdict(parse_log(restarted)).kind == "falling"
    assert verdict(parse_log(restarted)).figures["iteration"] == 200


def test_window_sizes() -> None:
    assert [window_size(n) for n in (1, 90, 91, 600, 6000, 10**6)] == [15, 15, 15, 100, 1000, 1000]
    assert (WINDOW_MIN, WINDOW_MAX) == (15, 1000)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.one_of(st.floats(), st.sampled_from([0.0, math.nan, math.inf, 1e38, 1.0])),
        max_size=80,
    )
)
def test_any_losses_have_a_verdict(losses: list[float]) -> None:
    assert assess_losses(losses).sentence


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("logs/debian_diverges_to_nan.log", "nan", "not a number since iteration 4"),
        ("seed_project/train_log.txt", "falling", "loss 0.865 over the last 100 iterations"),
        ("logs/debian_t96_300it.stdout.log", "flat", "flat since iteration"),
        ("logs/alexeyab_t96_map.stdout.log", "flat", "mAP 1.00"),
        ("logs/alexeyab_2020_colab_1028it.log", "falling", "over the last 170 iterations"),
        ("logs/debian_2and1_nostdbuf.log", "finished", "finished at iteration 210"),
        ("logs/hank_colour_map.log", "finished", "mAP 0.468"),
        ("logs/deb_resume.log", "early", "10 of 30 iterations"),
        ("logs/alexeyab_dies_cuda_out_of_memory.log", "early", "no iterations yet"),
    ],
)
def test_verdicts_on_real_logs(real: Path, name: str, kind: str, expected: str) -> None:
    result = verdict(read_log(real / name))
    assert result.kind == kind, result
    assert expected in result.sentence
