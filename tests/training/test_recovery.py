"""Recovery of a stopped training: which retry is chosen for which fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.networks import cfg as cfgs
from oiyolo.networks.schedule import Schedule, schedule_of, with_schedule
from oiyolo.training.monitors import StopReason
from oiyolo.training.recovery import (
    Abort,
    RecoveryState,
    Retry,
    adjust,
    choose_recovery,
    for_one_gpu,
    warm_up_iterations,
)

if TYPE_CHECKING:
    from oiyolo.training.monitors import StopKind

BARE = cfgs.parse("[net]\n\n[convolutional]\nfilters=18\nsize=1\n", path="network.cfg")


def network(rate: float = 0.001, burn_in: int = 1000, max_batches: int = 6000) -> cfgs.Cfg:
    cfg = with_schedule(BARE, schedule())
    cfg.net.set("learning_rate", rate)
    cfg.net.set("burn_in", burn_in)
    cfg.net.set("max_batches", max_batches)
    return cfg


def schedule(batch: int = 64, subdivisions: int = 16) -> Schedule:
    return Schedule(batch, subdivisions, 0.001, 6000, 1000, (4800, 5400), (0.1, 0.1))


def stop(kind: StopKind) -> StopReason:
    return StopReason(kind, "message", iteration=1250, last_good_iteration=1240)


@pytest.mark.parametrize("kind", ["nan", "explosion"])
def test_a_diverged_loss_is_rolled_back_at_half_the_learning_rate(kind: StopKind) -> None:
    recovery = choose_recovery(stop(kind), RecoveryState(0.5, 32, 1), schedule(), 3)
    assert recovery == Retry(
        RecoveryState(0.25, 32, 2), 1240, "halves the learning rate to 0.00025"
    )


def test_a_stall_resumes_from_the_newest_weights_at_the_same_rate() -> None:
    assert choose_recovery(stop("stall"), RecoveryState(0.5), schedule(), 3) == Retry(
        RecoveryState(0.5, 0, 1), None, "restarts the training program"
    )


@pytest.mark.parametrize("kind", ["nan", "explosion", "stall"])
def test_a_training_is_rolled_back_at_most_max_rollbacks_times(kind: StopKind) -> None:
    assert isinstance(choose_recovery(stop(kind), RecoveryState(rollbacks=2), schedule(), 3), Retry)
    last = choose_recovery(stop(kind), RecoveryState(rollbacks=3), schedule(), 3)
    assert isinstance(last, Abort)
    assert last.remedy.endswith("; the run was already rolled back or restarted 3 times")
    never = choose_recovery(stop(kind), RecoveryState(), schedule(), 0)
    assert isinstance(never, Abort)
    assert "already" not in never.remedy


@pytest.mark.parametrize(
    ("batch", "cut", "tuned", "then"),
    [(64, 16, 0, 32), (64, 16, 32, 64), (64, 64, 0, None), (6, 1, 0, 2), (6, 2, 0, 6), (9, 3, 0, 9),
     (64, 16, 64, None), (1, 1, 0, None), (12, 4, 0, 12), (64, 16, 8, 32)],
)  # fmt: skip
def test_a_lack_of_memory_at_least_doubles_subdivisions(
    batch: int, cut: int, tuned: int, then: int | None
) -> None:
    state = RecoveryState(0.5, tuned, 3)
    recovery = choose_recovery(stop("memory"), state, schedule(batch, cut), 3)
    if then is None:
        assert isinstance(recovery, Abort)
        assert "size_wh" in recovery.remedy
    else:
        assert isinstance(recovery, Retry)
        # This is not a rollback: the training itself has not failed.
        assert recovery.state == RecoveryState(0.5, then, 3)
        assert batch % then == 0


def test_a_full_disk_ends_the_training() -> None:
    recovery = choose_recovery(stop("disk"), RecoveryState(), schedule(), 3)
    assert isinstance(recovery, Abort)
    assert recovery.is_disk_full


def test_the_network_is_changed_only_where_necessary() -> None:
    cfg = network()
    assert adjust(cfg, RecoveryState()) is cfg
    assert (
        adjust(cfg, RecoveryState(subdivisions=8)) is cfg
    )  # the network has more subdivisions already
    adjusted = schedule_of(adjust(cfg, RecoveryState(0.25, 64)))
    before = schedule_of(cfg)
    assert (adjusted.learning_rate, adjusted.subdivisions) == (0.00025, 64)
    assert (adjusted.burn_in, adjusted.steps, adjusted.batch) == (
        before.burn_in,
        before.steps,
        before.batch,
    )
    assert schedule_of(cfg) == before


@pytest.mark.parametrize("gpus", [2, 3, 4, 7])
def test_one_gpu_gets_the_total_learning_rate_of_several(gpus: int) -> None:
    several = network(rate=0.001 / gpus, burn_in=1000 * gpus)
    alone = schedule_of(for_one_gpu(several, gpus))
    assert alone.learning_rate == 0.001
    assert alone.burn_in == 1000
    assert for_one_gpu(several, 1) is several


@pytest.mark.parametrize(
    ("burn_in", "max_batches", "warm_up"),
    [(1000, 6000, 1000), (600, 6000, 600), (0, 6000, 600), (0, 20_000, 1000), (5, 100, 10)],
)
def test_a_warm_up_is_at_least_as_long_as_burn_in(
    burn_in: int, max_batches: int, warm_up: int
) -> None:
    assert warm_up_iterations(network(burn_in=burn_in, max_batches=max_batches)) == warm_up


def test_the_recovery_state_is_read_from_the_record() -> None:
    assert RecoveryState.of({}) == RecoveryState()
    assert RecoveryState.of({"tuning": None}) == RecoveryState()
    assert RecoveryState.of(
        {"tuning": {"rate_factor": 0.5, "subdivisions": 32, "rollbacks": 1}}
    ) == (RecoveryState(0.5, 32, 1))
