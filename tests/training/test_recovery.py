"""What a training tries next: decisions as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.networks import cfg as cfgs
from oiyolo.networks.schedule import Schedule, schedule_of
from oiyolo.training.monitors import Verdict
from oiyolo.training.recovery import Again, GiveUp, Tuning, decide, fitted, for_one_gpu, warm_up_of

if TYPE_CHECKING:
    from oiyolo.training.monitors import Kind

TEXT = """\
[net]
batch=64
subdivisions=16
learning_rate={rate}
burn_in={burn_in}
max_batches={max_batches}
policy=steps
steps=4800,5400
scales=.1,.1

[convolutional]
filters=18
size=1
stride=1
"""


def network(rate: float = 0.001, burn_in: int = 1000, max_batches: int = 6000) -> cfgs.Cfg:
    text = TEXT.format(rate=rate, burn_in=burn_in, max_batches=max_batches)
    return cfgs.parse(text, path="network.cfg")


def schedule(batch: int = 64, subdivisions: int = 16) -> Schedule:
    return Schedule(batch, subdivisions, 0.001, 6000, 1000, (4800, 5400), (0.1, 0.1))


def verdict(kind: Kind) -> Verdict:
    return Verdict(kind, "told", iteration=1250, good_until=1240)


@pytest.mark.parametrize("kind", ["nan", "explosion"])
def test_a_lost_loss_goes_back_and_slower(kind: Kind) -> None:
    found = decide(verdict(kind), Tuning(0.5, 32, 1), schedule(), 3)
    assert found == Again(Tuning(0.25, 32, 2), 1240, "halves the learning rate to 0.00025")


def test_a_stall_goes_on_from_the_newest_at_the_same_rate() -> None:
    assert decide(verdict("stall"), Tuning(0.5), schedule(), 3) == Again(
        Tuning(0.5, 0, 1), None, "begins darknet anew"
    )


@pytest.mark.parametrize("kind", ["nan", "explosion", "stall"])
def test_it_is_taken_back_so_often_and_no_more(kind: Kind) -> None:
    assert isinstance(decide(verdict(kind), Tuning(rollbacks=2), schedule(), 3), Again)
    assert isinstance(decide(verdict(kind), Tuning(rollbacks=3), schedule(), 3), GiveUp)
    assert isinstance(decide(verdict(kind), Tuning(), schedule(), 0), GiveUp)


@pytest.mark.parametrize(
    ("batch", "cut", "tuned", "then"),
    [(64, 16, 0, 32), (64, 16, 32, 64), (64, 64, 0, None), (6, 1, 0, 2), (6, 2, 0, 6), (9, 3, 0, 9),
     (64, 16, 64, None), (1, 1, 0, None), (12, 4, 0, 12)],
)  # fmt: skip
def test_memory_doubles_subdivisions_as_far_as_they_divide(
    batch: int, cut: int, tuned: int, then: int | None
) -> None:
    tuning = Tuning(0.5, tuned, 3)
    found = decide(verdict("memory"), tuning, schedule(batch, cut), 3)
    if then is None:
        assert isinstance(found, GiveUp)
        assert "size_wh" in found.remedy
    else:
        assert isinstance(found, Again)
        # It is no rollback: the training itself is well.
        assert found.tuning == Tuning(0.5, then, 3)
        assert batch % then == 0


def test_a_full_disk_is_not_darknets_fault() -> None:
    found = decide(verdict("disk"), Tuning(), schedule(), 3)
    assert isinstance(found, GiveUp)
    assert found.is_disk


def test_only_what_was_changed_changes_the_file() -> None:
    cfg = network()
    assert fitted(cfg, Tuning()) is cfg
    assert fitted(cfg, Tuning(subdivisions=8)) is cfg  # this machine cuts finer already
    found = schedule_of(fitted(cfg, Tuning(0.25, 64)))
    before = schedule_of(cfg)
    assert (found.learning_rate, found.subdivisions) == (0.00025, 64)
    assert (found.burn_in, found.steps, found.batch) == (before.burn_in, before.steps, before.batch)
    assert schedule_of(cfg) == before


@pytest.mark.parametrize("gpus", [2, 3, 4, 7])
def test_one_gpu_has_the_rate_that_several_have_together(gpus: int) -> None:
    several = network(rate=0.001 / gpus, burn_in=1000 * gpus)
    alone = schedule_of(for_one_gpu(several, gpus))
    assert alone.learning_rate == 0.001
    assert alone.burn_in == 1000
    assert for_one_gpu(several, 1) is several


@pytest.mark.parametrize(
    ("burn_in", "max_batches", "warm_up"),
    [(1000, 6000, 1000), (600, 6000, 600), (0, 6000, 600), (0, 20_000, 1000), (5, 100, 10)],
)
def test_a_warm_up_is_a_burn_in_but_long_enough(
    burn_in: int, max_batches: int, warm_up: int
) -> None:
    assert warm_up_of(network(burn_in=burn_in, max_batches=max_batches)) == warm_up


def test_what_was_changed_is_read_from_the_record() -> None:
    assert Tuning.of({}) == Tuning()
    assert Tuning.of({"tuning": None}) == Tuning()
    assert Tuning.of({"tuning": {"rate_factor": 0.5, "subdivisions": 32, "rollbacks": 1}}) == (
        Tuning(0.5, 32, 1)
    )
