"""plan: estimate images, bytes, disk space, hours and cost of a run before fetching any image.

Writes ``data/plan.json``, which ``oiyolo status`` compares with the actual values.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.planning.forecast import forecast
from oiyolo.planning.official import official_files
from oiyolo.planning.training_speed import check_gpu_name
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_project
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.planning.run_plan import RunPlan
    from oiyolo.project.keywords import AllKeywords
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_LARGEST_ESTIMATE: Final = 1_000_000


@overload
def plan(
    project: ProjectLike = ...,
    *,
    bandwidth_mb_s: float | None = ...,
    seconds_per_iteration: float | None = ...,
    gpu_name: str | None = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[AllKeywords],
) -> RunPlan: ...


@overload
def plan(
    project: ProjectLike = ...,
    *,
    bandwidth_mb_s: float | None = ...,
    seconds_per_iteration: float | None = ...,
    gpu_name: str | None = ...,
    dry_run: Literal[True],
    **options: Unpack[AllKeywords],
) -> Plan: ...


@overload
def plan(
    project: ProjectLike = ...,
    *,
    bandwidth_mb_s: float | None = ...,
    seconds_per_iteration: float | None = ...,
    gpu_name: str | None = ...,
    dry_run: bool,
    **options: Unpack[AllKeywords],
) -> RunPlan | Plan: ...


@takes_keys()
def plan(
    project: ProjectLike = ".",
    *,
    bandwidth_mb_s: float | None = None,
    seconds_per_iteration: float | None = None,
    gpu_name: str | None = None,
    dry_run: bool = False,
    **options: Unpack[AllKeywords],
) -> RunPlan | Plan:
    """Estimate what a run will fetch, store, take and cost, before any image is fetched.

    Selects first if the selection is stale. Bandwidth and iteration time default to those of
    earlier downloads and runs; before the first run, the iteration time is estimated from figures
    for the GPU.

    Args:
        project: An open project or its folder; with ``classes``, a new project is created there.
        bandwidth_mb_s: Expected bandwidth in megabytes (10^6 bytes) per second.
        seconds_per_iteration: Expected seconds per training iteration.
        gpu_name: The GPU to plan for, such as "T4"; by default that of this machine.
        dry_run: Whether to only report which official files the selection would fetch.
        **options: Any key, such as ``price_per_hour``.

    Raises:
        UnavailableError: The run does not fit on the disk, or the site cannot be reached.
        UsageError: A class or option is unknown, or a number is invalid.
        InputFormError: An official file or a network file is malformed.
        LockedError: Another process is changing the dataset.
    """
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    try:
        _check_estimates(opened, bandwidth_mb_s, seconds_per_iteration)
        check_gpu_name(gpu_name)
    except UsageError:
        opened.discard_if_new()
        raise
    official = official_files(opened)
    if dry_run:
        official.check()
        return Plan("plan", official.actions, official.as_dict())
    with opened.data_lock("plan"):
        if official.missing:
            _log.info("plan: %s", official.actions[0])
        official.check()
        select_stage.run(opened)
        run_plan = forecast(opened, bandwidth_mb_s, seconds_per_iteration, gpu_name)
        files.write_json(opened.plan_path, run_plan.as_dict())
    run_plan.check()
    return run_plan


def require_disk_space(project: Project) -> None:
    """Raise if a run does not fit on the disk.

    If images are still to be fetched and the user has not planned this selection, the forecast is
    stored as its plan, for ``status`` to compare with.

    Raises:
        UnavailableError: The run does not fit.
        LockedError: Another process is changing the dataset.
    """
    with project.data_lock("plan"):
        run_plan = forecast(project)
        stored = files.read_json(project.plan_path)
        is_stored = isinstance(stored, dict) and stored.get("selection") == run_plan.selection
        if run_plan.pending and not is_stored:
            files.write_json(project.plan_path, run_plan.as_dict())
    run_plan.check()


def _check_estimates(
    project: Project, bandwidth_mb_s: float | None, seconds_per_iteration: float | None
) -> None:
    """Raise if a user's estimate is not a number above 0, or a currency has no price."""
    for option, value in (
        ("--bandwidth-mb-s", bandwidth_mb_s),
        ("--seconds-per-iteration", seconds_per_iteration),
    ):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value <= _LARGEST_ESTIMATE):
            raise UsageError(
                f"invalid value for {option}",
                expected=f"a number above 0, {_LARGEST_ESTIMATE:,} at most",
                found=repr(value),
            )
    options = project.config.train
    if options.currency is not None and options.price_per_hour is None:
        raise UsageError("--currency needs a price", remedy="Pass --price-per-hour as well")
