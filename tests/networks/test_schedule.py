"""Training schedules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.networks.cfg import CfgError, parse
from oiyolo.networks.schedule import (
    Schedule,
    for_gpus,
    schedule_for,
    schedule_of,
    with_overrides,
    with_schedule,
)


@pytest.mark.parametrize(
    ("class_count", "image_count", "max_batches"),
    [(1, 500, 6000), (3, 500, 6000), (4, 500, 8000), (1, 26000, 26000), (600, 10, 1_200_000)],
)
def test_the_number_of_iterations_follows_classes_and_images(
    class_count: int, image_count: int, max_batches: int
) -> None:
    schedule = schedule_for(class_count, image_count)
    assert schedule.max_batches == max_batches
    assert schedule.steps == (max_batches * 8 // 10, max_batches * 9 // 10)
    assert schedule.scales == (0.1, 0.1)
    assert schedule.burn_in == min(1000, max_batches // 10)


def test_a_short_training_has_a_short_burn_in() -> None:
    schedule = with_overrides(schedule_for(1, 500), max_batches=300)
    assert (schedule.burn_in, schedule.steps) == (30, (240, 270))


@given(st.integers(1, 10**7), st.integers(1, 600), st.integers(0, 10**6))
def test_recommended_schedules_are_consistent(max_batches: int, classes: int, images: int) -> None:
    schedule = with_overrides(schedule_for(classes, images), max_batches=max_batches)
    assert schedule.burn_in <= max_batches / 10
    assert list(schedule.steps) == sorted(schedule.steps)
    assert schedule.steps[-1] <= max_batches


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"batch": 0}, "batch"),
        ({"subdivisions": 3}, "1, 2, 4, 8"),
        ({"subdivisions": -1}, "subdivisions"),
        ({"max_batches": 0}, "max_batches"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"scales": (0.1,)}, "2 scales"),
    ],
)
def test_values_that_darknet_would_misread_are_rejected(wrong: dict[str, int], named: str) -> None:
    good = Schedule(8, 2, 0.001, 1000, 100, (800, 900), (0.1, 0.1))
    with pytest.raises(UsageError) as caught:
        replace(good, **wrong)  # type: ignore[arg-type]
    assert named in str(caught.value)


def test_the_schedule_of_a_file_is_read_and_written(small_text: str) -> None:
    cfg = parse(small_text, path="n.cfg")
    schedule = schedule_of(cfg)
    assert schedule == Schedule(8, 2, 0.002, 400, 20, (300, 360), (0.1, 0.1))
    assert with_schedule(cfg, schedule).render() == small_text
    longer = replace(schedule, max_batches=800)
    assert schedule_of(with_schedule(cfg, longer)) == longer
    assert cfg.render() == small_text


def test_a_schedule_without_steps_is_constant(small_text: str) -> None:
    flat = Schedule(8, 2, 0.002, 400, 20, (), ())
    cfg = with_schedule(parse(small_text, path="n.cfg"), flat)
    assert cfg.net.text("policy") == "constant"
    assert not cfg.net.has("steps")
    assert schedule_of(cfg) == flat


def test_an_invalid_schedule_in_a_file_is_an_error(small_text: str) -> None:
    cfg = parse(small_text.replace("subdivisions=2", "subdivisions=3"), path="n.cfg")
    with pytest.raises(CfgError) as caught:
        schedule_of(cfg)
    assert caught.value.where == "n.cfg:2"


def test_other_values_follow_an_override() -> None:
    own = Schedule(4, 1, 0.002, 2600, 130, (1950, 2392), (0.2, 0.2))
    short = with_overrides(own, max_batches=260)
    assert (short.burn_in, short.steps, short.scales) == (13, (195, 239), (0.2, 0.2))
    assert with_overrides(own) == own
    assert with_overrides(own, learning_rate=0.1).learning_rate == 0.1
    assert with_overrides(own, subdivisions=2).subdivisions == 2
    with pytest.raises(UsageError):
        with_overrides(own, max_batches=0)


@pytest.mark.parametrize(
    ("batch", "subdivisions", "expected"),
    [(32, None, 8), (64, None, 16), (6, None, 2), (7, None, 7), (2, None, 1), (32, 4, 4)],
)
def test_a_new_batch_needs_no_more_memory(
    batch: int, subdivisions: int | None, expected: int
) -> None:
    own = schedule_for(1, 1)  # four images at once
    assert with_overrides(own, batch=batch, subdivisions=subdivisions).subdivisions == expected


@pytest.mark.parametrize(
    ("max_batches", "gpu_count", "learning_rate", "burn_in"),
    [
        (20_000, 1, 0.001, 1000),
        (20_000, 2, 0.0005, 2000),
        (20_000, 4, 0.00025, 4000),
        (20_000, 8, 0.000125, 4000),  # limited to a fifth of all iterations
        (300, 4, 0.00025, 60),
    ],
)
def test_several_gpus_get_a_lower_rate_and_a_longer_burn_in(
    max_batches: int, gpu_count: int, learning_rate: float, burn_in: int
) -> None:
    one = with_overrides(schedule_for(1, 20_000), max_batches=max_batches)
    several = for_gpus(one, gpu_count)
    assert (several.learning_rate, several.burn_in) == (learning_rate, burn_in)
    assert replace(several, learning_rate=0.001, burn_in=one.burn_in) == one
    assert for_gpus(one, gpu_count, keep_learning_rate=True, keep_burn_in=True) == one


@pytest.mark.parametrize("burn_in", [-1, 300, 1000])
def test_a_burn_in_that_covers_all_iterations_is_rejected(burn_in: int) -> None:
    with pytest.raises(UsageError) as caught:
        with_overrides(schedule_for(1, 100), max_batches=300, burn_in=burn_in)
    assert "burn_in = 30" in caught.value.remedy


def test_an_explicit_burn_in_is_kept() -> None:
    schedule = with_overrides(schedule_for(1, 100), max_batches=300, burn_in=7)
    assert (schedule.burn_in, schedule.max_batches) == (7, 300)
