"""Recovery of a stopped run: choose how to retry and adjust the network for it.

These functions read and write no files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.results import pluralize
from oiyolo.networks.schedule import divisors

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.schedule import Schedule
    from oiyolo.training.monitors import StopReason

RATE_STEP: Final = 0.5
MAP_REMEDY: Final = (
    '`oiyolo evaluate` measures it after the training, and a new run with [train] map = "own" '
    "during the training"
)
_USUAL_WARM_UP: Final = 1000
_WARM_UP_SHARE: Final = 10


@dataclass(frozen=True)
class RecoveryState:
    """The changes that recovery made to a run; ``run.json`` stores them under ``tuning``.

    Attributes:
        rate_factor: Factor on the learning rate.
        subdivisions: Subdivisions that fit into memory; 0 if the network's own do.
        rollbacks: How often the run was rolled back since its start or its last failure.
        measures_map: Whether darknet may measure mAP; it died while doing so if not.
    """

    rate_factor: float = 1.0
    subdivisions: int = 0
    rollbacks: int = 0
    measures_map: bool = True

    @classmethod
    def of(cls, record: dict[str, Any]) -> RecoveryState:
        """Return the state in a run's record; defaults if nothing was changed."""
        value = record.get("tuning")
        saved = value if isinstance(value, dict) else {}
        return cls(
            float(saved.get("rate_factor", 1.0)),
            int(saved.get("subdivisions", 0)),
            int(saved.get("rollbacks", 0)),
            bool(saved.get("measures_map", True)),
        )


@dataclass(frozen=True)
class Retry:
    """Train again from a checkpoint.

    Attributes:
        state: The changes to make.
        max_iteration: Resume from the newest weights with at most this many iterations; ``None``
            for the newest of all.
        action: What is changed, in words.
    """

    state: RecoveryState
    max_iteration: int | None
    action: str


@dataclass(frozen=True)
class Abort:
    """End the run with an error, because a retry would not help.

    Attributes:
        remedy: What the user can do.
        is_disk_full: Whether the cause is a full disk and not darknet.
    """

    remedy: str
    is_disk_full: bool = False


def choose_recovery(
    reason: StopReason, state: RecoveryState, schedule: Schedule, max_rollbacks: int
) -> Retry | Abort:
    """Return what to do after a monitor has stopped a run because of a fault."""
    if reason.kind == "disk":
        return Abort("Free up space, then run the same command again to resume", is_disk_full=True)
    if reason.kind == "memory":
        return _increase_subdivisions(state, schedule)
    if reason.kind == "map":
        action = f"does not measure mAP any more: {MAP_REMEDY}"
        return Retry(replace(state, measures_map=False), None, action)
    if state.rollbacks >= max_rollbacks:
        times = f"the run was already rolled back or restarted {pluralize(state.rollbacks, 'time')}"
        return Abort(_REMEDIES[reason.kind] + (f"; {times}" if state.rollbacks else ""))
    if reason.kind == "stall":
        restarted = replace(state, rollbacks=state.rollbacks + 1)
        return Retry(restarted, None, "restarts the training program")
    slower = replace(
        state, rate_factor=state.rate_factor * RATE_STEP, rollbacks=state.rollbacks + 1
    )
    rate = schedule.learning_rate * slower.rate_factor
    return Retry(slower, reason.last_good_iteration, f"halves the learning rate to {rate:.6g}")


_DIVERGED: Final = (
    "Check the labels (`oiyolo split` draws contact sheets), or start a new run with a lower "
    "--learning-rate"
)
_REMEDIES: Final = {
    "nan": _DIVERGED,
    "explosion": _DIVERGED,
    "stall": "Check nvidia-smi and dmesg; set a larger [train] stall_s if training was only slow",
}


def _increase_subdivisions(state: RecoveryState, schedule: Schedule) -> Retry | Abort:
    # A plan for another machine may have more subdivisions than an earlier recovery chose.
    batch, now = schedule.batch, max(state.subdivisions, schedule.subdivisions)
    more = next((d for d in divisors(batch) if d >= 2 * now), batch)
    if now >= batch:
        return Abort(
            f"Subdivisions are {now} already, one image at a time: set a smaller [train] size_wh, "
            "a smaller network, or close other programs that use the GPU"
        )
    return Retry(
        replace(state, subdivisions=more), None, f"raises subdivisions from {now} to {more}"
    )


def adjust(cfg: Cfg, state: RecoveryState) -> Cfg:
    """Return the network for an attempt; ``cfg`` itself if recovery has changed nothing."""
    fewest = cfg.net.integer("subdivisions", 1)
    if state.rate_factor == 1.0 and state.subdivisions <= fewest:
        return cfg
    new = cfg.copy()
    if state.rate_factor != 1.0:
        new.net.set("learning_rate", _rate(cfg) * state.rate_factor)
    if state.subdivisions > fewest:
        new.net.set("subdivisions", state.subdivisions)
    return new


def for_one_gpu(cfg: Cfg, gpu_count: int) -> Cfg:
    """Return a network that was adapted to several GPUs, adapted to one GPU instead.

    Darknet multiplies the learning rate by the number of GPUs. ``schedule.for_gpus`` therefore
    divides the rate by that number and multiplies burn-in by it; this function reverts both.
    """
    if gpu_count <= 1:
        return cfg
    new = cfg.copy()
    # Six digits, so that a third of the rate, written to a file, times three is the rate again.
    new.net.set("learning_rate", float(f"{_rate(cfg) * gpu_count:.6g}"))
    new.net.set("burn_in", cfg.net.integer("burn_in", 0) // gpu_count)
    return new


def warm_up_iterations(cfg: Cfg) -> int:
    """Return how many iterations to train on one GPU before several may be used.

    With several GPUs from the start, darknet's gradients diverge
    (https://github.com/AlexeyAB/darknet#how-to-train-with-multi-gpu). It must train about 1,000
    iterations on one GPU first, and resume on all of them, even with pretrained weights.

    Args:
        cfg: The network adapted to one GPU.
    """
    usual = min(_USUAL_WARM_UP, cfg.net.integer("max_batches", 0) // _WARM_UP_SHARE)
    return max(cfg.net.integer("burn_in", 0), usual)


def _rate(cfg: Cfg) -> float:
    return cfg.net.number("learning_rate", 0.001)
