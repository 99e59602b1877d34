"""Whether loading images holds training back, by the log of each fork."""

from __future__ import annotations

import pytest

from oiyolo.trainlog.loading import measure_loading
from oiyolo.trainlog.parse import parse_log


def pjreddie(n: int, wait_s: float, train_s: float) -> str:
    return (
        f"Loaded: {wait_s:f} seconds\n"
        f"{n}: 1.0, 1.0 avg, 0.001 rate, {train_s:f} seconds, {n * 64} images\n"
    )


def alexeyab(n: int, wait_s: float, train_s: float) -> str:
    warning = " - performance bottleneck on CPU or Disk HDD/SSD" if wait_s > 0.1 else ""
    return (
        f"Loaded: {wait_s:f} seconds{warning}\n\n"
        f" {n}: 1.0, 1.0 avg loss, 0.001 rate, {train_s:f} seconds, {n * 64} images, "
        "1.0 hours left\n"
    )


def hank(n: int, wait_s: float, train_s: float) -> str:
    return (
        f"{n}: loss=0.4, avg loss=0.3, last=none, best=none, mAP=100, rate=0.001, "
        f"load 64={(wait_s + train_s) * 1000:.1f} milliseconds, train={train_s:.3f} seconds, "
        f"{n * 64} images, time remaining=3 minutes\n"
    )


@pytest.mark.parametrize("form", [pjreddie, alexeyab, hank])
def test_the_time_that_iterations_waited(form: type) -> None:
    # Nothing can be loaded before the first iteration, which therefore does not count.
    log = parse_log(form(1, 9.0, 0.5) + "".join(form(n, 0.25, 0.5) for n in range(2, 42)))
    loading = measure_loading(log)
    assert loading is not None
    assert (loading.iterations, loading.is_slow) == (40, True)
    assert (loading.wait_s, loading.train_s) == pytest.approx((0.25, 0.5))
    assert loading.share == pytest.approx(1 / 3)
    assert "OpenCV" in str(loading)
    assert loading.as_dict()["message"] == str(loading)


@pytest.mark.parametrize("form", [pjreddie, alexeyab, hank])
def test_fast_loading_has_no_message(form: type) -> None:
    loading = measure_loading(parse_log("".join(form(n, 0.01, 0.5) for n in range(1, 42))))
    assert loading is not None
    assert (loading.is_slow, str(loading)) == (False, "")


def test_a_log_that_does_not_say_so_or_is_short() -> None:
    line = "{0}: 1.0, 1.0 avg, 0.001 rate, 0.5 seconds, 64 images"
    assert measure_loading(parse_log([line.format(n) for n in range(1, 90)])) is None
    assert measure_loading(parse_log(pjreddie(1, 1, 1) + pjreddie(2, 1, 1))) is None
    assert measure_loading(parse_log("")) is None


def test_only_the_latest_run_counts() -> None:
    slow = "".join(pjreddie(n, 2.0, 0.5) for n in range(1, 41))
    fast = "".join(pjreddie(n, 0.0, 0.5) for n in range(1, 41))
    loading = measure_loading(parse_log(slow + fast))
    assert loading is not None
    assert loading.wait_s == 0


def test_lines_about_loading_are_read_and_not_counted_as_other_text() -> None:
    log = parse_log("".join(pjreddie(n, n / 8, 0.5) for n in range(1, 9)))
    assert log.load_waits().tolist() == [n / 8 for n in range(1, 9)]
    assert log.summary.other == 0
