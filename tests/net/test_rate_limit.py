"""How sites are asked: how many at once, how often again, and what is said of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.net.rate_limit import EPOCH_S, Manners, Pace
from oiyolo.net.retry import Patience, may_pass, retry_after_s
from oiyolo.net.urls import shown, site_of, without_secrets
from oiyolo.net.workers import Threads

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.timezone.utc)
SECOND_S = 1.0


class Site:
    """A site with some capacity, asked as often as a pace allows."""

    def __init__(self, pace: Pace, latency_s: float = 0.1) -> None:
        self.pace, self.latency_s = pace, latency_s
        self.now_s = 0.0

    def run(self, seconds: float, capacity: int) -> None:
        """Answer at most so many at once; more wait, which brings no more answers a second."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            at_once = self.pace.window
            self.now_s += self.latency_s * max(1.0, at_once / capacity)
            self.pace.began(self.now_s, at_once)
            for _ in range(at_once):
                self.pace.answered(self.now_s)


def test_it_rises_to_what_the_site_sustains_and_little_further() -> None:
    site = Site(Pace(Manners(most=512, first=4), 0.0))
    site.run(20.0, capacity=64)
    assert 48 <= site.pace.window <= 256


@pytest.mark.parametrize(("most", "first", "window"), [(8, 4, 8), (1, 16, 1), (128, 128, 128)])
def test_it_never_passes_the_ceiling(most: int, first: int, window: int) -> None:
    site = Site(Pace(Manners(most=most, first=first), 0.0))
    site.run(30.0, capacity=10_000)
    assert site.pace.window == window


def test_it_is_halved_by_complaints_once_a_second_and_rises_again() -> None:
    pace = Pace(Manners(most=64, first=64), 0.0)
    for _ in range(64):
        pace.complained(10.0)
    assert pace.window == 32
    for _ in range(64):
        pace.complained(10.5)
    assert pace.window == 32
    pace.complained(11.5)
    assert pace.window == 16
    site = Site(pace)
    site.now_s = 12.0
    site.run(30.0, capacity=10_000)
    assert pace.window == 64


def test_one_complaint_among_many_answers_changes_nothing() -> None:
    pace = Pace(Manners(most=64, first=64), 0.0)
    for step in range(400):
        for _ in range(19):
            pace.answered(step * 0.1)
        pace.complained(step * 0.1)
    assert pace.window == 64


def test_it_never_falls_below_one() -> None:
    pace = Pace(Manners(most=64, first=2), 0.0)
    for second in range(100):
        pace.complained(second * 2.0)
    assert pace.window == 1


def test_where_there_is_little_to_ask_nothing_is_concluded() -> None:
    pace = Pace(Manners(most=64, first=8), 0.0)
    for step in range(1000):
        pace.began(step * EPOCH_S, 1)
        pace.answered(step * EPOCH_S)
    assert pace.window == 8


def test_requests_begin_no_closer_than_the_rate_allows() -> None:
    pace = Pace(Manners(most=64, first=64, per_second=4.0), 0.0)
    begun = []
    now_s = 0.0
    while now_s < 10.0:
        now_s += pace.delay_s(now_s)
        pace.began(now_s, 1)
        begun.append(now_s)
    assert 40 <= len(begun) <= 42
    # A quiet time saves nothing up.
    pace.began(100.0, 1)
    assert pace.delay_s(100.0) == pytest.approx(0.25)


def test_a_pause_that_was_asked_for_is_kept_and_no_shorter_one_ends_it() -> None:
    pace = Pace(Manners(most=8, first=8), 0.0)
    pace.close_for(5.0, 30.0)
    pace.close_for(6.0, 1.0)
    assert pace.closed_s(10.0) == pace.delay_s(10.0) == 25.0
    assert pace.closed_s(35.0) == 0.0


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
def test_any_other_retry_after_is_none_or_some_seconds(text: str) -> None:
    found = retry_after_s(text, lambda: NOW)
    assert found is None or found >= 0.0


@given(st.datetimes(min_value=dt.datetime(1990, 1, 1), max_value=dt.datetime(2100, 1, 1)))  # noqa: DTZ001  (hypothesis takes no zones)
def test_every_date_is_read_to_the_second(at: dt.datetime) -> None:
    at = at.replace(microsecond=0, tzinfo=dt.timezone.utc)
    expected = max(0.0, (at - NOW).total_seconds())
    assert retry_after_s(format_datetime(at, usegmt=True), lambda: NOW) == expected


@pytest.mark.parametrize("attempt", [1, 2, 5, 40])
def test_pauses_double_with_jitter_and_have_an_end(attempt: int) -> None:
    whole_s = min(60.0, 0.5 * 2.0 ** (attempt - 1))
    pauses = [Patience().pause_s(attempt, None) for _ in range(200)]
    assert all(whole_s / 2 <= pause_s <= whole_s for pause_s in pauses)
    assert len(set(pauses)) > 100


def test_which_answers_may_pass() -> None:
    passing = [status for status in range(200, 600) if may_pass(status)]
    assert passing == [408, 425, 429, 500, 502, 503, 504, *range(506, 600)]


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
    ("url", "told"),
    [
        ("https://user:pass@h.org:8/a/b.jpg?token=x#y", "https://h.org:8/a/b.jpg"),
        ("https://h.org/a b.jpg", "https://h.org/a b.jpg"),
        ("http://u:p@[::1/a", "http://[::1/a"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_secrets(url: str, told: str) -> None:
    assert shown(url) == told


@given(st.from_regex(r"[A-Za-z0-9]{1,20}", fullmatch=True))
def test_no_secret_is_left_in_a_text(secret: str) -> None:
    secret = f"Z{secret}Z"
    text = (
        f"cannot ask https://me:{secret}@h.org/x.jpg?sig={secret}&b=1, or http://{secret}@i/ at all"
    )
    assert secret not in without_secrets(text)
    assert without_secrets(text).endswith(" at all")


def test_threads_give_results_and_errors_and_end() -> None:
    before = threading.active_count()

    async def run() -> list[object]:
        threads = Threads(3, "x")

        def fail() -> None:
            raise ZeroDivisionError

        done = await asyncio.gather(
            *(threads.run(lambda n=n: n * n) for n in range(50)),  # type: ignore[misc]
            threads.run(fail),
            return_exceptions=True,
        )
        assert threading.active_count() <= before + 3
        threads.close()
        threads.join(SECOND_S)
        return done

    *squares, error = asyncio.run(run())
    assert squares == [n * n for n in range(50)]
    assert isinstance(error, ZeroDivisionError)
    assert threading.active_count() == before


def test_waiting_for_a_thread_can_be_given_up() -> None:
    begun: list[int] = []

    async def run() -> None:
        threads = Threads(1, "x")
        waiting = [asyncio.create_task(threads.run(lambda n=n: pause(n))) for n in range(3)]  # type: ignore[misc]
        await asyncio.sleep(0.02)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        threads.close()
        threads.join(SECOND_S)

    def pause(number: int) -> None:
        begun.append(number)
        time.sleep(0.1)

    asyncio.run(run())
    assert begun == [0]
