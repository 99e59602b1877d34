"""What a training tries next after it was stopped, and the network's file for that; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from oiyolo.networks.schedule import divisors

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.schedule import Schedule
    from oiyolo.training.monitors import Verdict

RATE_STEP: Final = 0.5
_USUAL_WARM_UP: Final = 1000
_WARM_UP_SHARE: Final = 10


@dataclass(frozen=True)
class Tuning:
    """What was changed of a training on its way; it stands in ``run.json``.

    Attributes:
        rate_factor: Of the learning rate.
        subdivisions: Instead of the network's, which needed too much memory; 0 leaves them.
        rollbacks: How often it was taken back since it was begun, or since it gave up.
    """

    rate_factor: float = 1.0
    subdivisions: int = 0
    rollbacks: int = 0

    @classmethod
    def of(cls, record: dict[str, Any]) -> Tuning:
        """Read it from a run's record; what was never changed is not there."""
        found = record.get("tuning")
        known = found if isinstance(found, dict) else {}
        return cls(
            float(known.get("rate_factor", 1.0)),
            int(known.get("subdivisions", 0)),
            int(known.get("rollbacks", 0)),
        )


@dataclass(frozen=True)
class Again:
    """Try once more.

    Attributes:
        tuning: With these changes.
        until: From weights with at most so many iterations; ``None`` takes the newest.
        told: What is done, for a person.
    """

    tuning: Tuning
    until: int | None
    told: str


@dataclass(frozen=True)
class GiveUp:
    """It cannot be mended from here.

    Attributes:
        remedy: What a person can do.
        is_disk: It is the disk's fault, not darknet's.
    """

    remedy: str
    is_disk: bool = False


def decide(
    verdict: Verdict, tuning: Tuning, schedule: Schedule, max_rollbacks: int
) -> Again | GiveUp:
    """Tell what to do after a training was stopped for one of the faults."""
    if verdict.kind == "disk":
        return GiveUp("Make room, then `oiyolo train` goes on", is_disk=True)
    if verdict.kind == "memory":
        return _with_less_memory(tuning, schedule)
    if tuning.rollbacks >= max_rollbacks:
        return GiveUp(_REMEDIES[verdict.kind] + f"; it was taken back {tuning.rollbacks} times")
    if verdict.kind == "stall":
        return Again(replace(tuning, rollbacks=tuning.rollbacks + 1), None, "begins darknet anew")
    slower = replace(
        tuning, rate_factor=tuning.rate_factor * RATE_STEP, rollbacks=tuning.rollbacks + 1
    )
    rate = schedule.learning_rate * slower.rate_factor
    return Again(slower, verdict.good_until, f"halves the learning rate to {rate:.6g}")


_DIVERGED: Final = (
    "Look at the labels (`oiyolo split` leaves contact sheets), or begin a new run with a lower "
    "--learning-rate"
)
_REMEDIES: Final = {
    "nan": _DIVERGED,
    "explosion": _DIVERGED,
    "stall": "Look at nvidia-smi and dmesg; set [train] stall_s if it only was slow",
}


def _with_less_memory(tuning: Tuning, schedule: Schedule) -> Again | GiveUp:
    batch, now = schedule.batch, tuning.subdivisions or schedule.subdivisions
    more = next((d for d in divisors(batch) if d >= 2 * now), batch)
    if now >= batch:
        return GiveUp(
            f"Subdivisions are {now} already, one image at a time: set a smaller [train] size_wh, "
            "a smaller network, or end what else uses the GPU"
        )
    return Again(
        replace(tuning, subdivisions=more), None, f"sets subdivisions from {now} to {more}"
    )


def fitted(cfg: Cfg, tuning: Tuning) -> Cfg:
    """Give the network's file for an attempt; the course's own where nothing was changed."""
    fewest = cfg.net.integer("subdivisions", 1)
    if tuning.rate_factor == 1.0 and tuning.subdivisions <= fewest:
        return cfg
    new = cfg.copy()
    if tuning.rate_factor != 1.0:
        new.net.set("learning_rate", _rate(cfg) * tuning.rate_factor)
    if tuning.subdivisions > fewest:
        new.net.set("subdivisions", tuning.subdivisions)
    return new.copy()


def for_one_gpu(cfg: Cfg, gpu_count: int) -> Cfg:
    """Give a network's file as one GPU has to have it that was made for several.

    Darknet multiplies the rate by the number of GPUs, and so ``schedule.for_gpus`` divides it, and
    has burn-in take as many times as long.
    """
    if gpu_count <= 1:
        return cfg
    new = cfg.copy()
    # Six digits: a third of it, written out and taken three times, is the same again.
    new.net.set("learning_rate", float(f"{_rate(cfg) * gpu_count:.6g}"))
    new.net.set("burn_in", cfg.net.integer("burn_in", 0) // gpu_count)
    return new.copy()


def warm_up_of(cfg: Cfg) -> int:
    """Give the iterations that have to be done on one GPU before there may be several.

    With several from the beginning, darknet's gradients run away
    (https://github.com/AlexeyAB/darknet#how-to-train-with-multi-gpu): first about 1,000 on one,
    then the weights of that on all; from pretrained weights too.

    Args:
        cfg: The network as one GPU has it.
    """
    usual = min(_USUAL_WARM_UP, cfg.net.integer("max_batches", 0) // _WARM_UP_SHARE)
    return max(cfg.net.integer("burn_in", 0), usual)


def _rate(cfg: Cfg) -> float:
    return cfg.net.number("learning_rate", 0.001)
