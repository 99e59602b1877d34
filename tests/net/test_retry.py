"""The retry policy: which failures are retried, and after which pauses."""

from __future__ import annotations

import pytest

from oiyolo.net.retry import Attempts, HttpFailureError, RetryPolicy


@pytest.mark.parametrize(
    ("attempt", "retry_after_s", "low", "high"),
    [(1, None, 0.25, 0.5), (2, None, 0.5, 1.0), (4, None, 2.0, 4.0), (30, None, 30.0, 60.0),
     (1, 7.0, 7.0, 7.0), (1, 0.0, 0.0, 0.0), (1, 9999.0, 60.0, 60.0)],
)  # fmt: skip
def test_pauses_double_with_jitter_up_to_a_minute_or_are_what_the_server_asks_for(
    attempt: int, retry_after_s: float | None, low: float, high: float
) -> None:
    for _ in range(20):
        assert low <= RetryPolicy().pause_s(attempt, retry_after_s) <= high


@pytest.mark.parametrize(("transient", "number"), [(False, 1), (True, 3)])
def test_a_permanent_failure_and_the_last_attempt_are_final(
    *, transient: bool, number: int
) -> None:
    attempts = Attempts(RetryPolicy(max_attempts=3))
    attempts.number = number
    failure = HttpFailureError("HTTP 500", transient=transient)
    with pytest.raises(HttpFailureError) as caught:
        attempts.pause_after(failure)
    assert (caught.value, caught.value.attempts) == (failure, number)


def test_an_attempt_after_progress_counts_as_the_second_one() -> None:
    attempts = Attempts(RetryPolicy(max_attempts=3))
    failure = HttpFailureError("interrupted", transient=True)
    for _ in range(10):
        attempts.pause_after(failure, made_progress=True)
        assert attempts.number == 2


def test_every_transient_failure_pauses_before_the_next_attempt() -> None:
    attempts = Attempts(RetryPolicy(max_attempts=3, first_pause_s=1.0))
    assert attempts.pause_after(HttpFailureError.of_status(500, "No", "7")) == 7.0
    assert 1.0 <= attempts.pause_after(HttpFailureError.of_status(500, "No")) <= 2.0
    with pytest.raises(HttpFailureError):
        attempts.pause_after(HttpFailureError.of_status(500, "No"))


def test_an_attempt_that_has_no_time_left_is_the_last() -> None:
    attempts = Attempts(RetryPolicy())
    with pytest.raises(HttpFailureError):
        attempts.pause_after(HttpFailureError("stalled", transient=True), is_last=True)


def test_the_detail_of_a_failure_is_one_line_without_secrets() -> None:
    failure = HttpFailureError("HTTP 403", "no\n http://me:s3cr3t@h/a?sign=s3cr3t here")
    assert str(failure) == "no http://h/a here"
