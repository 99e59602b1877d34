"""Watchdogs: what they find in what they are told, and what they let pass."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from oiyolo.training.live_reader import Reader
from oiyolo.training.monitors import (
    STALL_FLOOR_S,
    STALL_START_S,
    Complaint,
    DiskFull,
    Explosion,
    Measured,
    NotANumber,
    OutOfMemory,
    Patience,
    Point,
    Saved,
    Stall,
    WarmUp,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from oiyolo.training.monitors import Fact, Rule, Verdict

NAN = math.nan


def first_verdict(rule: Rule, facts: Iterable[Fact]) -> Verdict | None:
    for at_s, fact in enumerate(facts):
        if (found := rule.hear(fact, float(at_s))) is not None:
            return found
    return None


def losses(values: Sequence[float], start: int = 1) -> list[Point]:
    return [Point(n, value, value) for n, value in enumerate(values, start=start)]


@pytest.mark.parametrize(
    ("values", "since"),
    [
        ([1.0, NAN, NAN, NAN], 2),
        ([NAN, 1.0, NAN, NAN, math.inf], 3),
        ([1.0, NAN, NAN, 1.0], None),
        ([1.0] * 5, None),
    ],
)
def test_an_average_that_is_no_number_three_times_is_lost(
    values: list[float], since: int | None
) -> None:
    found = first_verdict(NotANumber(), losses(values))
    assert (found and found.good_until) == (None if since is None else since - 1)
    assert found is None or f"since iteration {since}" in found.sentence


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_what_single_images_do_is_no_explosion(seed: int) -> None:
    rng = random.Random(seed)
    falling = [200 / n + rng.lognormvariate(0, 0.5) for n in range(1, 1000)]
    tenfold = [value * (15 if rng.random() < 0.05 else 1) for value in falling]
    assert first_verdict(Explosion(100), losses(tenfold)) is None


def test_an_explosion_is_found_within_some_iterations() -> None:
    values = [2.0] * 300 + [40.0, 90.0, 2000.0, 1e9, 1e12]
    found = first_verdict(Explosion(100), losses(values))
    assert found is not None
    assert 301 <= found.iteration <= 305
    assert found.good_until < 301


def test_burn_in_may_do_anything() -> None:
    assert first_verdict(Explosion(1000), losses([1.0] * 500 + [1e9] * 400)) is None


def test_an_explosion_just_after_a_break_is_found_by_what_was_before() -> None:
    after = losses([1e6] * 5, start=101)
    assert first_verdict(Explosion(10), after) is None
    rule = Explosion(10)
    rule.replay(losses([1.0] * 100 + [1e6] * 50), until=100)
    assert first_verdict(rule, after) is not None


def test_out_of_memory_is_heard_from_the_words() -> None:
    facts: list[Fact] = [Point(7, 1, 1), Complaint("CUDA Error: out of memory", out_of_memory=True)]
    found = first_verdict(OutOfMemory(), facts)
    assert found is not None
    assert (found.kind, found.iteration) == ("memory", 7)
    assert first_verdict(OutOfMemory(), [Complaint("Couldn't open file: x")]) is None


def told(rule: Stall, pace_s: float, count: int, images_per_s: float = NAN) -> None:
    for n in range(1, count + 1):
        rule.hear(Point(n, 1.0, 1.0, images_per_s), n * pace_s)


def test_a_stall_adapts_to_the_pace() -> None:
    rule = Stall()
    assert rule.limit_s == STALL_START_S  # loading
    told(rule, 0.1, 30)
    assert rule.limit_s == STALL_FLOOR_S
    assert rule.look(0.0, STALL_FLOOR_S - 1) is None
    found = rule.look(0.0, STALL_FLOOR_S + 1)
    assert found is not None
    assert (found.kind, found.iteration) == ("stall", 30)
    slow = Stall()
    told(slow, 300.0, 30)
    assert slow.limit_s == 20 * 300


def test_measuring_map_is_no_stall() -> None:
    rule = Stall(quiet_images=10_000)
    told(rule, 1.0, 30, images_per_s=4.0)
    assert rule.look(0.0, 10_000 / 4.0) is None
    unknown = Stall(quiet_images=10)
    told(unknown, 1.0, 30)
    assert unknown.look(0.0, STALL_FLOOR_S + 1) is None


def test_a_fixed_limit_is_a_stall_whatever_the_pace() -> None:
    rule = Stall(5.0)
    assert rule.look(0.0, 4.9) is None
    assert rule.look(0.0, 5.0) is not None


def test_a_disk_is_asked_now_and_then() -> None:
    free = [100, 100, 10]
    asked: list[int] = []

    def free_bytes() -> int:
        asked.append(1)
        return free[len(asked) - 1]

    rule = DiskFull(50, free_bytes)
    answers = [rule.look(float(second), 0.0) for second in range(30)]
    assert len(asked) == 3
    assert [second for second, found in enumerate(answers) if found] == [20]


def with_saves(points: Iterable[Point], every: int) -> list[Fact]:
    facts: list[Fact] = []
    for point in points:
        facts.append(point)
        if point.iteration % every == 0:
            facts.append(Saved(f"weights/{point.iteration}"))
    return facts


def test_patience_with_the_loss_ends_at_weights_that_are_whole() -> None:
    falling = [100.0 / n for n in range(1, 201)]
    facts = with_saves(losses(falling + [0.5] * 800), every=100)
    found = first_verdict(Patience(300, measures_map=False), facts)
    assert found is not None
    # The loss is flat from 200 on: windows are judged at 300, 600 (the first flat one) and 900.
    assert found.iteration == 900
    assert first_verdict(Patience(2000, measures_map=False), facts) is None
    better = losses([1000.0 * 0.99**n for n in range(1, 1001)])
    assert first_verdict(Patience(100, measures_map=False), with_saves(better, 100)) is None


@pytest.mark.parametrize(
    ("maps", "ends_at"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], None),
        ([0.1, 0.5, 0.4, 0.5, 0.502, 0.503], 500),
        ([0.1, 0.5, NAN, 0.4, 0.6, 0.6], None),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 400),
    ],
)
def test_patience_with_map(maps: list[float], ends_at: int | None) -> None:
    facts: list[Fact] = []
    for n in range(1, 701):
        facts.append(Point(n, 1.0, 1.0))
        if n % 100 == 0 and n <= 600:
            facts += [Measured(maps[n // 100 - 1]), Saved("best", to_go_on=False), Saved("last")]
    found = first_verdict(Patience(300, measures_map=True), facts)
    assert (found and found.iteration) == ends_at


def test_patience_forgets_what_was_taken_back() -> None:
    rule = Patience(300, measures_map=True)
    rule.replay([Point(100, 1, 1), Measured(0.5), Point(400, 1, 1), Measured(0.1)])
    facts: list[Fact] = [Point(101, 1, 1), Saved("last"), Point(102, 1, 1)]
    assert first_verdict(rule, facts) is None
    facts = [Point(400, 1, 1), Measured(0.4), Saved("last"), Point(401, 1, 1)]
    found = first_verdict(rule, facts)
    assert found is not None
    assert "mAP 50.00% of iteration 100" in found.sentence


@pytest.mark.parametrize(("until", "ends_at"), [(90, 101), (100, 101), (101, 201), (1000, None)])
def test_a_warm_up_ends_at_the_first_weights_at_or_past_it(until: int, ends_at: int | None) -> None:
    found = first_verdict(WarmUp(until), with_saves(losses([1.0] * 500), every=100))
    assert (found and found.iteration) == ends_at


def test_a_warm_up_does_not_end_at_weights_that_one_cannot_go_on_from() -> None:
    facts: list[Fact] = [Point(100, 1, 1), Saved("best", to_go_on=False), Point(101, 1, 1)]
    assert first_verdict(WarmUp(50), facts) is None


# --- on real logs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("alexeyab_2020_colab_1028it.log", None),
        ("alexeyab_dies_cuda_out_of_memory.log", "memory"),
        ("alexeyab_dies_filters_mismatch.log", None),
        ("alexeyab_merged_2and1.log", None),
        ("alexeyab_windows_crlf_map_first4000lines.log", None),
        ("deb_resume.log", None),
        ("deb_t64.log", None),
        ("debian_diverges_to_nan.log", "nan"),
        ("debian_t96_300it.stdout.log", None),
        ("hank_colour_map.log", None),
        ("hank_nocolour_verbose.log", None),
        ("../seed_project/train_log.txt", None),
    ],
)
def test_recorded_trainings_are_judged_rightly(real: Path, name: str, kind: str | None) -> None:
    path = real / "logs" / name
    rules: list[Rule] = [NotANumber(), Explosion(100), OutOfMemory(), Stall()]
    read = Reader()
    found = None
    for at_s, line in enumerate(path.read_bytes().split(b"\n")):
        for fact in read(line):
            for rule in rules:
                found = found or rule.hear(fact, float(at_s))
    assert (found and found.kind) == kind
