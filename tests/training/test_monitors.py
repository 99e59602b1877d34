"""Monitors: which events make them stop a training, and which do not."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from oiyolo.training.live_reader import LiveReader
from oiyolo.training.monitors import (
    STALL_FLOOR_S,
    STALL_START_S,
    DiskFull,
    EarlyStopping,
    ErrorReported,
    Explosion,
    IterationStats,
    MapMeasured,
    NanLoss,
    OutOfMemory,
    Stall,
    WarmUp,
    WeightsSaved,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from oiyolo.training.monitors import Monitor, StopReason, TrainingEvent

NAN = math.nan


def first_stop_reason(monitor: Monitor, events: Iterable[TrainingEvent]) -> StopReason | None:
    for at_s, event in enumerate(events):
        if (reason := monitor.on_event(event, float(at_s))) is not None:
            return reason
    return None


def losses(values: Sequence[float], start: int = 1) -> list[IterationStats]:
    return [IterationStats(n, value, value) for n, value in enumerate(values, start=start)]


@pytest.mark.parametrize(
    ("values", "since"),
    [
        ([1.0, NAN, NAN, NAN], 2),
        ([NAN, 1.0, NAN, NAN, math.inf], 3),
        ([1.0, NAN, NAN, 1.0], None),
        ([1.0] * 5, None),
    ],
)
def test_an_average_loss_that_is_nan_three_times_in_a_row_stops_the_training(
    values: list[float], since: int | None
) -> None:
    stop = first_stop_reason(NanLoss(), losses(values))
    assert (stop and stop.last_good_iteration) == (None if since is None else since - 1)
    assert stop is None or f"since iteration {since}" in stop.message


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_outliers_are_not_an_explosion(seed: int) -> None:
    rng = random.Random(seed)
    falling = [200 / n + rng.lognormvariate(0, 0.5) for n in range(1, 1000)]
    tenfold = [value * (15 if rng.random() < 0.05 else 1) for value in falling]
    assert first_stop_reason(Explosion(100), losses(tenfold)) is None


def test_an_explosion_is_detected_within_five_iterations() -> None:
    values = [2.0] * 300 + [40.0, 90.0, 2000.0, 1e9, 1e12]
    stop = first_stop_reason(Explosion(100), losses(values))
    assert stop is not None
    assert 301 <= stop.iteration <= 305
    assert stop.last_good_iteration < 301


def test_the_loss_is_ignored_during_burn_in() -> None:
    assert first_stop_reason(Explosion(1000), losses([1.0] * 500 + [1e9] * 400)) is None


def test_an_explosion_right_after_a_resume_is_detected_by_the_replayed_losses() -> None:
    after = losses([1e6] * 5, start=101)
    assert first_stop_reason(Explosion(10), after) is None
    monitor = Explosion(10)
    monitor.replay(losses([1.0] * 100 + [1e6] * 50), until=100)
    assert first_stop_reason(monitor, after) is not None


def test_a_reported_lack_of_gpu_memory_stops_the_training() -> None:
    events: list[TrainingEvent] = [
        IterationStats(7, 1, 1),
        ErrorReported("CUDA Error: out of memory", out_of_memory=True),
    ]
    stop = first_stop_reason(OutOfMemory(), events)
    assert stop is not None
    assert (stop.kind, stop.iteration) == ("memory", 7)
    assert first_stop_reason(OutOfMemory(), [ErrorReported("Couldn't open file: x")]) is None


def add_iterations(monitor: Stall, seconds: float, count: int, images_per_s: float = NAN) -> None:
    for n in range(1, count + 1):
        monitor.on_event(IterationStats(n, 1.0, 1.0, images_per_s), n * seconds)


def test_the_stall_limit_adapts_to_the_speed() -> None:
    monitor = Stall()
    assert monitor.limit_s == STALL_START_S  # loading
    add_iterations(monitor, 0.1, 30)
    assert monitor.limit_s == STALL_FLOOR_S
    assert monitor.on_tick(0.0, STALL_FLOOR_S - 1) is None
    stop = monitor.on_tick(0.0, STALL_FLOOR_S + 1)
    assert stop is not None
    assert (stop.kind, stop.iteration) == ("stall", 30)
    slow = Stall()
    add_iterations(slow, 300.0, 30)
    assert slow.limit_s == 20 * 300


def test_measuring_map_is_not_a_stall() -> None:
    monitor = Stall(map_image_count=10_000)
    add_iterations(monitor, 1.0, 30, images_per_s=4.0)
    assert monitor.on_tick(0.0, 10_000 / 4.0) is None
    unknown = Stall(map_image_count=10)
    add_iterations(unknown, 1.0, 30)
    assert unknown.on_tick(0.0, STALL_FLOOR_S + 1) is None


def test_a_fixed_stall_limit_ignores_the_speed() -> None:
    monitor = Stall(5.0)
    assert monitor.on_tick(0.0, 4.9) is None
    assert monitor.on_tick(0.0, 5.0) is not None


def test_the_disk_is_checked_every_ten_seconds() -> None:
    free = [100, 100, 10]
    calls: list[int] = []

    def free_bytes() -> int:
        calls.append(1)
        return free[len(calls) - 1]

    monitor = DiskFull(50, free_bytes)
    reasons = [monitor.on_tick(float(second), 0.0) for second in range(30)]
    assert len(calls) == 3
    assert [second for second, reason in enumerate(reasons) if reason] == [20]


def with_saves(points: Iterable[IterationStats], every: int) -> list[TrainingEvent]:
    events: list[TrainingEvent] = []
    for point in points:
        events.append(point)
        if point.iteration % every == 0:
            events.append(WeightsSaved(f"weights/{point.iteration}"))
    return events


def test_early_stopping_by_loss_stops_at_a_complete_checkpoint() -> None:
    falling = [100.0 / n for n in range(1, 201)]
    events = with_saves(losses(falling + [0.5] * 800), every=100)
    stop = first_stop_reason(EarlyStopping(300, measures_map=False), events)
    assert stop is not None
    # The loss is flat from 200 on: windows are judged at 300, 600 (the first flat one) and 900.
    assert stop.iteration == 900
    assert first_stop_reason(EarlyStopping(2000, measures_map=False), events) is None
    better = losses([1000.0 * 0.99**n for n in range(1, 1001)])
    assert (
        first_stop_reason(EarlyStopping(100, measures_map=False), with_saves(better, 100)) is None
    )


@pytest.mark.parametrize(
    ("maps", "ends_at"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], None),
        ([0.1, 0.5, 0.4, 0.5, 0.502, 0.503], 500),
        ([0.1, 0.5, NAN, 0.4, 0.6, 0.6], None),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 400),
    ],
)
def test_early_stopping_by_map_stops_without_an_improvement(
    maps: list[float], ends_at: int | None
) -> None:
    events: list[TrainingEvent] = []
    for n in range(1, 701):
        events.append(IterationStats(n, 1.0, 1.0))
        if n % 100 == 0 and n <= 600:
            events += [
                MapMeasured(maps[n // 100 - 1]),
                WeightsSaved("best", resumable=False),
                WeightsSaved("last"),
            ]
    stop = first_stop_reason(EarlyStopping(300, measures_map=True), events)
    assert (stop and stop.iteration) == ends_at


def test_early_stopping_forgets_measurements_after_a_rollback() -> None:
    monitor = EarlyStopping(300, measures_map=True)
    monitor.replay(
        [IterationStats(100, 1, 1), MapMeasured(0.5), IterationStats(400, 1, 1), MapMeasured(0.1)]
    )
    events: list[TrainingEvent] = [
        IterationStats(101, 1, 1),
        WeightsSaved("last"),
        IterationStats(102, 1, 1),
    ]
    assert first_stop_reason(monitor, events) is None
    events = [
        IterationStats(400, 1, 1),
        MapMeasured(0.4),
        WeightsSaved("last"),
        IterationStats(401, 1, 1),
    ]
    stop = first_stop_reason(monitor, events)
    assert stop is not None
    assert "mAP 50.00% at iteration 100" in stop.message


@pytest.mark.parametrize(("until", "ends_at"), [(90, 101), (100, 101), (101, 201), (1000, None)])
def test_a_warm_up_ends_at_the_first_checkpoint_at_or_after_its_end(
    until: int, ends_at: int | None
) -> None:
    stop = first_stop_reason(WarmUp(until), with_saves(losses([1.0] * 500), every=100))
    assert (stop and stop.iteration) == ends_at


def test_a_warm_up_does_not_end_at_weights_that_cannot_be_resumed_from() -> None:
    events: list[TrainingEvent] = [
        IterationStats(100, 1, 1),
        WeightsSaved("best", resumable=False),
        IterationStats(101, 1, 1),
    ]
    assert first_stop_reason(WarmUp(50), events) is None


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
def test_real_logs_are_stopped_for_the_right_reason(
    real: Path, name: str, kind: str | None
) -> None:
    path = real / "logs" / name
    monitors: list[Monitor] = [NanLoss(), Explosion(100), OutOfMemory(), Stall()]
    read = LiveReader()
    stop = None
    for at_s, line in enumerate(path.read_bytes().split(b"\n")):
        for event in read(line):
            for monitor in monitors:
                stop = stop or monitor.on_event(event, float(at_s))
    assert (stop and stop.kind) == kind
