"""What the training of a plan will be: iterations, their rate, and what it leaves on the disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import OiyoloError
from oiyolo.networks import builders
from oiyolo.networks.cfg import read
from oiyolo.networks.layers import HEAD_KINDS, expected_weight_bytes
from oiyolo.networks.partial import pretrained_for
from oiyolo.networks.schedule import schedule_of
from oiyolo.networks.weights import PRETRAINED
from oiyolo.planning import estimates
from oiyolo.planning.run_plan import Rate, Training
from oiyolo.project.value_types import AUTO
from oiyolo.training.run import FINISHED, runs_in
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import DarknetLine
    from oiyolo.project.keys import TrainOptions
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_ANY_LINE: Final[tuple[DarknetLine, ...]] = ("pjreddie", "alexeyab", "hank")
_HOW_TO_LEARN: Final = (
    "unknown; --seconds-per-iteration gives it, and a few minutes of `oiyolo train` show it"
)


@dataclass(frozen=True)
class PlannedTraining:
    """What the training will be, and what it leaves.

    Attributes:
        training: Network, iterations, rate.
        whole_parts: What a run leaves in the project, in bytes.
        new_parts: What of it is still to come.
        cached_parts: What comes into the cache.
    """

    training: Training
    whole_parts: Mapping[str, float]
    new_parts: Mapping[str, float]
    cached_parts: Mapping[str, float]


def plan_training(
    project: Project,
    *,
    class_count: int,
    image_count: int,
    is_new: bool,
    given_rate_s: float | None,
) -> PlannedTraining:
    """Plan the training that is configured; changes nothing.

    Args:
        project: The project.
        class_count: Classes of the dataset.
        image_count: Images that train.
        is_new: The dataset will be another one than that of earlier runs.
        given_rate_s: Seconds an iteration, if the user gave them.

    Raises:
        UsageError: No such network.
        InputFormError: The user's network file is not in order.
    """
    options = project.config.train
    network = options.network
    if network.endswith(builders.CFG_SUFFIX):
        network = str(project.folder / Path(network).expanduser())
    size_wh = project.config.images.size if isinstance(options.size_wh, str) else options.size_wh
    schedule = builders.default_schedule(
        network,
        class_count=class_count,
        image_count=image_count,
        **{
            name: value
            for name in ("max_batches", "batch", "subdivisions")
            if isinstance(value := getattr(options, name), int)
        },
    )
    cfg = builders.build(network, class_count=class_count, size_wh=size_wh, schedule=schedule)
    name = Path(network).stem
    runs = [run for run in runs_in(project.runs_folder) if _is_of(run, name, cfg)]
    whole = _parts(cfg, _lines(project, network))
    return PlannedTraining(
        training=Training(
            network=name,
            size_wh=cfg.size_wh,
            images=image_count,
            batch=schedule.batch,
            iterations=schedule.max_batches,
            rate=_rate(runs, given_rate_s),
        ),
        whole_parts=whole,
        new_parts=whole if is_new else _still_to_come(whole, runs, schedule.max_batches),
        cached_parts=_to_download(project, options, network),
    )


def _is_of(run: Run, name: str, cfg: Cfg) -> bool:
    """Tell whether a run trained this network at this size, in such batches."""
    if run.record.get("network") != name:
        return False
    try:
        trained = read(run.cfg_path)
        same = (trained.size_wh, schedule_of(trained).batch) == (
            cfg.size_wh,
            schedule_of(cfg).batch,
        )
    except OiyoloError:
        return False
    return same


def _rate(runs: Sequence[Run], given_s: float | None) -> Rate:
    """Give the seconds an iteration: as given, or as the latest such run had them."""
    if given_s is not None:
        return Rate(given_s, "as given")
    for run in reversed(runs):
        try:
            seconds = read_log(run.log_path).metrics()["seconds"].median()
        except (OiyoloError, OSError):
            continue
        if seconds > 0:
            return Rate(float(seconds), f"the median of {run.name}")
    return Rate(None, _HOW_TO_LEARN)


def _lines(project: Project, network: str) -> tuple[DarknetLine, ...]:
    """Give the lines of darknet that may train: the last run's, else all that can."""
    for run in reversed(runs_in(project.runs_folder)):
        last = run.record.get("darknet", {}).get("line")
        if last in _ANY_LINE:
            return (last,)
    named = builders.network_named(network)
    return named.lines if named else _ANY_LINE


def _parts(cfg: Cfg, lines: Sequence[DarknetLine]) -> dict[str, float]:
    schedule = schedule_of(cfg)
    weights_files = max(estimates.weights_files(line, schedule.max_batches) for line in lines)
    heads = sum(layer.kind in HEAD_KINDS for layer in cfg.layers)
    weights_bytes = expected_weight_bytes(cfg)
    return {
        f"weights, up to {weights_files} files": estimates.on_disk(
            weights_files * weights_bytes, weights_files
        ),
        "log": estimates.log_bytes(schedule.max_batches, heads, schedule.subdivisions),
    }


def _still_to_come(
    whole: Mapping[str, float], runs: Sequence[Run], max_batches: int
) -> dict[str, float]:
    """Take off what the latest run of the same length left; a finished one needs nothing more."""
    same = [run for run in runs if run.record.get("max_batches") == max_batches]
    if not same:
        return dict(whole)
    if same[-1].record.get("state") == FINISHED:
        return dict.fromkeys(whole, 0.0)
    here = sum(p.stat().st_size for p in same[-1].weights_folder.glob("*") if p.is_file())
    (weights, size), *others = whole.items()
    return {weights: max(0.0, size - here), **dict(others)}


def _to_download(project: Project, options: TrainOptions, network: str) -> dict[str, float]:
    """Give pretrained weights that are not in the cache; a fallback may be the whole network."""
    name = options.weights
    if name == AUTO:
        named = builders.network_named(network)
        name = (named.pretrained if named else pretrained_for(read(Path(network)))) or ""
    if name not in PRETRAINED or (project.cache_folder / "weights" / name).is_file():
        return {}
    wanted = PRETRAINED[name]
    return {name: float(max(wanted.size_bytes, *(p.whole_bytes for p in wanted.places)))}
