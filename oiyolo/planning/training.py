"""Forecast a training run: iterations, duration and the files that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from oiyolo.core.errors import OiyoloError
from oiyolo.darknet import gpus as gpu_query
from oiyolo.darknet.forks import FORKS
from oiyolo.networks import builders
from oiyolo.networks.cfg import read
from oiyolo.networks.layers import expected_weight_bytes, heads_of
from oiyolo.networks.partial import pretrained_for
from oiyolo.networks.schedule import schedule_of
from oiyolo.networks.weights import PRETRAINED
from oiyolo.planning import estimates, training_speed
from oiyolo.planning.run_plan import TrainingEstimate
from oiyolo.project.value_types import AUTO
from oiyolo.stages.train.engine import chosen_engine
from oiyolo.training.initial_weights import find_file
from oiyolo.training.pretrained import is_cached
from oiyolo.training.run import FINISHED, runs_in
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.darknet.program import Engine
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import ForkName
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run


@dataclass(frozen=True)
class TrainingForecast:
    """The estimate for a training run and the files that it writes.

    Attributes:
        training: Network, iterations and duration.
        all_parts: Bytes of all files that a run writes into the project, by kind.
        new_parts: Bytes that are still to be written into the project, by kind.
        cached_parts: Bytes that will be downloaded into the cache, by file name.
    """

    training: TrainingEstimate
    all_parts: Mapping[str, float]
    new_parts: Mapping[str, float]
    cached_parts: Mapping[str, float]


def plan_training(
    project: Project,
    *,
    class_count: int,
    image_count: int,
    is_new: bool,
    user_rate_s: float | None,
    gpu_name: str | None,
) -> TrainingForecast:
    """Return the forecast of the configured training run, without changing anything.

    Args:
        project: The project.
        class_count: Number of classes in the dataset.
        image_count: Number of training images.
        is_new: Whether the dataset will differ from that of earlier runs.
        user_rate_s: Seconds per iteration as set by the user; ``None`` if not set.
        gpu_name: The GPU to plan for; ``None`` for this machine.

    Raises:
        UsageError: An unknown network.
        InputFormError: The user's network file is invalid.
    """
    options = project.config.train
    network = options.network
    network = builders.network_path(network, project.folder)
    size_wh = project.config.images.size if isinstance(options.size_wh, str) else options.size_wh
    numbers = {name: getattr(options, name) for name in ("max_batches", "batch", "subdivisions")}
    schedule = builders.default_schedule(
        network,
        class_count=class_count,
        image_count=image_count,
        **{name: value for name, value in numbers.items() if isinstance(value, int)},
    )
    cfg = builders.build(network, class_count=class_count, size_wh=size_wh, schedule=schedule)
    name = Path(network).stem
    all_runs = runs_in(project.runs_folder)
    runs = [run for run in all_runs if _is_comparable(run, name, cfg)]
    parts = _parts(cfg, _forks(all_runs, network))
    rate_s, rate_from = (user_rate_s, "as given")
    if rate_s is None:
        is_for_gpu = project.config.darknet.build_gpu != "no"
        engine = _engine(project, gpu_name)
        measured = None if gpu_name else _measured_rate(runs, engine)
        rate_s, rate_from = measured or training_speed.estimate(
            cfg, gpu_query.gpus() if is_for_gpu else (), gpu_name, engine=engine
        )
    training = TrainingEstimate(
        network=name,
        size=cfg.size_wh,
        images=image_count,
        batch=schedule.batch,
        iterations=schedule.max_batches,
        seconds_per_iteration=rate_s,
        rate_from=rate_from,
        seconds=None if rate_s is None else schedule.max_batches * rate_s,
    )
    new_parts = parts if is_new else _remaining(parts, runs, schedule.max_batches)
    return TrainingForecast(training, parts, new_parts, _to_download(project, network, cfg))


def _is_comparable(run: Run, name: str, cfg: Cfg) -> bool:
    """Return whether a run trained this network with the same input size and batch."""
    if run.record.get("network") != name:
        return False
    try:
        run_cfg = read(run.cfg_path)
        return (run_cfg.size_wh, schedule_of(run_cfg).batch) == (
            cfg.size_wh,
            schedule_of(cfg).batch,
        )
    except OiyoloError:
        return False


def _engine(project: Project, gpu_name: str | None) -> Engine:
    """Return what trains the project; with ``auto`` on another machine, it is darknet."""
    option = project.config.train.engine
    if option != AUTO:
        return cast("Engine", option)
    try:
        return "darknet" if gpu_name else chosen_engine(project).engine
    except OiyoloError:  # a darknet that cannot be used, which train reports
        return "darknet"


def _measured_rate(runs: Sequence[Run], engine: Engine) -> tuple[float, str] | None:
    """Return the seconds per iteration of an engine's latest run that has any, and its name."""
    for run in reversed(runs):
        if run.record.get("darknet", {}).get("engine", "darknet") != engine:
            continue
        try:
            seconds = read_log(run.log_path).metrics()["seconds"].median()
        except (OiyoloError, OSError):
            continue
        if seconds > 0:
            return float(seconds), f"the median of {run.name}"
    return None


def _forks(runs: Sequence[Run], network: str) -> tuple[ForkName, ...]:
    """Return the forks of darknet that may be used: the last run's, else all that support it."""
    for run in reversed(runs):
        darknet = run.record.get("darknet", {})
        last = darknet.get("fork", darknet.get("line"))  # older files have "line"
        if last in FORKS:
            return (last,)
    builtin = builders.find_network(network)
    return builtin.forks if builtin else tuple(FORKS)


def _parts(cfg: Cfg, forks: Sequence[ForkName]) -> dict[str, float]:
    schedule = schedule_of(cfg)
    file_count = max(estimates.weights_file_count(fork, schedule.max_batches) for fork in forks)
    heads = len(heads_of(cfg))
    weights_bytes = file_count * expected_weight_bytes(cfg)
    return {
        f"weights, up to {file_count} files": estimates.on_disk(weights_bytes, file_count),
        "log": estimates.log_bytes(schedule.max_batches, heads, schedule.subdivisions),
    }


def _remaining(
    parts: Mapping[str, float], runs: Sequence[Run], max_batches: int
) -> dict[str, float]:
    """Return the bytes still to be written, given the latest run with as many iterations.

    A finished run needs nothing more.
    """
    same = [run for run in runs if run.record.get("max_batches") == max_batches]
    if not same:
        return dict(parts)
    if same[-1].record.get("state") == FINISHED:
        return dict.fromkeys(parts, 0.0)
    written = sum(p.stat().st_size for p in same[-1].weights_folder.glob("*") if p.is_file())
    (weights, size), *others = parts.items()
    return {weights: max(0.0, size - written), **dict(others)}


def _to_download(project: Project, network: str, cfg: Cfg) -> dict[str, float]:
    """Return name and size of pretrained weights that are not in the cache.

    The size is the largest that may be downloaded: a mirror may only have the whole network.
    """
    name = project.config.train.weights
    if name == AUTO:
        builtin = builders.find_network(network)
        name = (builtin.pretrained if builtin else pretrained_for(cfg)) or ""
    if name not in PRETRAINED or find_file(name, project.folder) is not None:
        return {}
    pretrained = PRETRAINED[name]
    if is_cached(project.cache_folder / "weights" / name, pretrained):
        return {}
    whole_networks = (mirror.full_network_bytes for mirror in pretrained.mirrors)
    return {name: float(max(pretrained.size_bytes, *whole_networks))}
