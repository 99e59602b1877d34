"""The rate limiter, the retry policy, URLs in messages, and worker threads."""

from __future__ import annotations

import asyncio
import datetime as dt
import heapq
import itertools
import random
import threading
import time
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.net.rate_limit import EPOCH_S, AimdLimiter, RateLimit
from oiyolo.net.retry import RetryPolicy, is_retryable, retry_after_s
from oiyolo.net.urls import display_url, site_of, without_secrets
from oiyolo.net.workers import WorkerThreads

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.timezone.utc)
SECOND_S = 1.0


class Site:
    """A simulated site, loaded as much as a limiter allows.

    Args:
        limiter: The limiter.
        capacity: Maximum number of responses per second; more requests only wait longer.
        latency_s: Shortest and longest time of a request, besides waiting.
        stalls_s: Times at which the site stalls for 0.2 s.
    """

    def __init__(
        self,
        limiter: AimdLimiter,
        capacity: float,
        latency_s: tuple[float, float] = (0.05, 0.1),
        stalls_s: tuple[float, ...] = (),
    ) -> None:
        self.limiter, self.capacity, self.latency_s = limiter, capacity, latency_s
        self.now_s = self.free_s = 0.0
        self.stalls_s = list(stalls_s)
        self.responses_s: list[float] = []
        self.windows: list[int] = []
        self._waiting: list[float] = []
        self._rng = random.Random(1)

    def run(self, until_s: float) -> None:
        """Respond until a time."""
        while self.now_s < until_s:
            while len(self._waiting) < self.limiter.window:
                at_s = self.now_s + self._rng.uniform(*self.latency_s)
                heapq.heappush(self._waiting, at_s)
                self.limiter.on_start(self.now_s, len(self._waiting))
            self.free_s = max(self.free_s, heapq.heappop(self._waiting)) + 1.0 / self.capacity
            if self.stalls_s and self.free_s > self.stalls_s[0]:
                self.free_s += 0.2
                del self.stalls_s[0]
            self.now_s = max(self.now_s, self.free_s)
            self.limiter.on_response(self.now_s)
            self.responses_s.append(self.now_s)
            self.windows.append(self.limiter.window)

    def rate(self, since_s: float) -> float:
        """Return the responses per second from a time until now."""
        return sum(s >= since_s for s in self.responses_s) / (self.now_s - since_s)


def adaptive(most: int = 256, first: int = 16) -> AimdLimiter:
    return AimdLimiter(RateLimit(max_concurrency=most, initial_concurrency=first), 0.0)


def fixed(jobs: int) -> AimdLimiter:
    return adaptive(jobs, jobs)


@pytest.mark.parametrize(
    ("latency_s", "capacity", "since_s"),
    [
        ((0.05, 0.1), 1600, 1.0),
        ((0.05, 0.1), 800, 1.0),
        ((0.05, 0.1), 5000, 1.0),
        ((0.015, 0.025), 3000, 1.0),
        ((0.3, 0.6), 400, 4.0),
    ],
)
@pytest.mark.parametrize("stalls_s", [(), (0.12, 0.5, 0.9)], ids=["smooth", "stalls"])
def test_it_soon_equals_the_best_fixed_number(
    latency_s: tuple[float, float], capacity: float, since_s: float, stalls_s: tuple[float, ...]
) -> None:
    rates = []
    for limiter in (adaptive(), *map(fixed, (16, 32, 64, 128, 256))):
        site = Site(limiter, capacity, latency_s, stalls_s)
        site.run(since_s + 4.0)
        rates.append(site.rate(since_s))
    assert rates[0] >= 0.95 * max(rates[1:])


def test_the_window_rises_to_what_the_site_sustains_and_little_further() -> None:
    site = Site(adaptive(512, 4), capacity=800)  # 60 concurrent requests sustain it
    site.run(20.0)
    assert min(site.windows[8000:]) >= 48
    assert max(site.windows) <= 3 * 60


def test_a_wider_window_that_brings_nothing_is_undone() -> None:
    site = Site(adaptive(), capacity=800)
    site.run(20.0)
    changes = [window for window, _ in itertools.groupby(site.windows[8000:])]
    low, high = min(changes), max(changes)
    assert set(changes) == {low, high}
    assert len(changes) > 4
    assert site.windows[8000:].count(low) > 2 * site.windows[8000:].count(high)


def test_the_window_rises_again_when_the_site_becomes_faster() -> None:
    site = Site(adaptive(), capacity=400)
    site.run(5.0)
    assert site.limiter.window <= 64
    site.capacity = 10_000.0
    site.run(25.0)
    assert site.limiter.window == 256


@pytest.mark.parametrize(("most", "first", "window"), [(8, 4, 8), (1, 16, 1), (128, 128, 128)])
def test_the_window_never_exceeds_the_maximum(most: int, first: int, window: int) -> None:
    site = Site(adaptive(most, first), capacity=10_000)
    site.run(8.0)
    assert site.limiter.window == max(site.windows) == window


def test_overloads_halve_the_window_once_a_second_and_it_rises_again() -> None:
    limiter = adaptive(64, 64)
    for _ in range(64):
        limiter.on_overload(10.0)
    assert limiter.window == 32
    for _ in range(64):
        limiter.on_overload(10.5)
    assert limiter.window == 32
    limiter.on_overload(11.5)
    assert limiter.window == 16
    site = Site(limiter, capacity=10_000)
    site.now_s = 12.0
    site.run(30.0)
    assert limiter.window == 64


def test_a_rare_overload_changes_nothing() -> None:
    limiter = adaptive(64, 64)
    for step in range(400):
        for _ in range(19):
            limiter.on_response(step * 0.1)
        limiter.on_overload(step * 0.1)
    assert limiter.window == 64


def test_the_window_never_falls_below_one() -> None:
    limiter = adaptive(64, 2)
    for second in range(100):
        limiter.on_overload(second * 2.0)
    assert limiter.window == 1


def test_the_window_stays_while_too_few_requests_fill_it() -> None:
    limiter = adaptive(64, 8)
    for step in range(1000):
        limiter.on_start(step * EPOCH_S, 1)
        limiter.on_response(step * EPOCH_S)
    assert limiter.window == 8


def test_requests_start_no_faster_than_the_rate_allows() -> None:
    limiter = AimdLimiter(
        RateLimit(max_concurrency=64, initial_concurrency=64, per_second=4.0), 0.0
    )
    starts_s = []
    now_s = 0.0
    while now_s < 10.0:
        now_s += limiter.delay_s(now_s)
        limiter.on_start(now_s, 1)
        starts_s.append(now_s)
    assert 40 <= len(starts_s) <= 42
    # Idle time is not saved up for a burst.
    limiter.on_start(100.0, 1)
    assert limiter.delay_s(100.0) == pytest.approx(0.25)


def test_a_requested_pause_is_kept_and_no_shorter_one_ends_it() -> None:
    limiter = adaptive(8, 8)
    limiter.pause_for(5.0, 30.0)
    limiter.pause_for(6.0, 1.0)
    assert limiter.pause_left_s(10.0) == limiter.delay_s(10.0) == 25.0
    assert limiter.pause_left_s(35.0) == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Wed, 04 Mar 2026 05:07:07 GMT", 60.0),
        ("Wed, 04 Mar 2026 05:00:00 GMT", 0.0),
        ("Wednesday, 04-Mar-26 05:06:37 GMT", 30.0),
        ("Wed, 04 Mar 2026 05:06:17 -0000", 10.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Wed, 99 Mar 2026 05:07:07 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, lambda: NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_none_or_not_negative(text: str) -> None:
    pause_s = retry_after_s(text, lambda: NOW)
    assert pause_s is None or pause_s >= 0.0


@given(st.datetimes(min_value=dt.datetime(1990, 1, 1), max_value=dt.datetime(2100, 1, 1)))  # noqa: DTZ001  (hypothesis takes no zones)
def test_every_retry_after_date_is_parsed_to_the_second(at: dt.datetime) -> None:
    at = at.replace(microsecond=0, tzinfo=dt.timezone.utc)
    expected = max(0.0, (at - NOW).total_seconds())
    assert retry_after_s(format_datetime(at, usegmt=True), lambda: NOW) == expected


@pytest.mark.parametrize("attempt", [1, 2, 5, 40])
def test_pauses_double_with_jitter_up_to_a_maximum(attempt: int) -> None:
    max_s = min(60.0, 0.5 * 2.0 ** (attempt - 1))
    pauses = [RetryPolicy().pause_s(attempt, None) for _ in range(200)]
    assert all(max_s / 2 <= pause_s <= max_s for pause_s in pauses)
    assert len(set(pauses)) > 100


def test_which_statuses_are_retryable() -> None:
    retryable = [status for status in range(200, 600) if is_retryable(status)]
    assert retryable == [408, 425, 429, 500, 502, 503, 504, *range(506, 600)]


@pytest.mark.parametrize(
    ("host", "port", "site"),
    [
        ("c7.staticflickr.com", None, "flickr"),
        ("FARM2.StaticFlickr.com", 443, "flickr"),
        ("www.flickr.com.", None, "flickr"),
        ("flickr.com", None, "flickr"),
        ("notflickr.com", None, "notflickr.com"),
        ("flickr.com.example.org", 80, "flickr.com.example.org:80"),
        ("127.0.0.1", 8080, "127.0.0.1:8080"),
    ],
)
def test_all_hosts_of_flickr_are_one_site(host: str, port: int | None, site: str) -> None:
    assert site_of(host, port) == site


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:pass@h.org:8/a/b.jpg?token=x#y", "https://h.org:8/a/b.jpg"),
        ("https://h.org/a b.jpg", "https://h.org/a b.jpg"),
        ("http://u:p@[::1/a", "http://[::1/a"),
        ("", ""),
    ],
)
def test_a_url_is_displayed_without_secrets(url: str, expected: str) -> None:
    assert display_url(url) == expected


@given(st.from_regex(r"[A-Za-z0-9]{1,20}", fullmatch=True))
def test_no_secret_of_a_url_is_left_in_a_text(secret: str) -> None:
    secret = f"Z{secret}Z"
    text = (
        f"cannot ask https://me:{secret}@h.org/x.jpg?sig={secret}&b=1, or http://{secret}@i/ at all"
    )
    assert secret not in without_secrets(text)
    assert without_secrets(text).endswith(" at all")


def test_worker_threads_return_results_raise_errors_and_end() -> None:
    before = threading.active_count()

    async def run() -> list[object]:
        threads = WorkerThreads(3, "x")

        def fail() -> None:
            raise ZeroDivisionError

        results = await asyncio.gather(
            *(threads.run(lambda n=n: n * n) for n in range(50)),  # type: ignore[misc]
            threads.run(fail),
            return_exceptions=True,
        )
        assert threading.active_count() <= before + 3
        threads.close()
        threads.join(SECOND_S)
        return results

    *squares, error = asyncio.run(run())
    assert squares == [n * n for n in range(50)]
    assert isinstance(error, ZeroDivisionError)
    assert threading.active_count() == before


def test_a_cancelled_task_that_has_not_started_is_not_run() -> None:
    started: list[int] = []

    async def run() -> None:
        threads = WorkerThreads(1, "x")
        tasks = [asyncio.create_task(threads.run(lambda n=n: pause(n))) for n in range(3)]  # type: ignore[misc]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        threads.close()
        threads.join(SECOND_S)

    def pause(number: int) -> None:
        started.append(number)
        time.sleep(0.1)

    asyncio.run(run())
    assert started == [0]
