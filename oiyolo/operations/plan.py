"""plan: images, bytes, disk, hours and money of a run, before the first byte of an image.

Leaves ``data/plan.json``, which ``oiyolo status`` compares with what came of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.planning.forecast import Given, outlook
from oiyolo.planning.official import official_files
from oiyolo.planning.run_plan import plan_path
from oiyolo.project.project import open_project
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from oiyolo.planning.run_plan import Planned
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")


def plan(
    project: ProjectLike = ".",
    *,
    bandwidth_mb_s: float | None = None,
    seconds_per_iteration: float | None = None,
    dry_run: bool = False,
    **options: object,
) -> Planned | Plan:
    """Tell what a run will fetch, store, take and cost, before the first byte of an image.

    Selects first when the selection is stale. Where a bandwidth or a rate is not given, that of
    earlier downloads and runs counts.

    Args:
        project: An open project or its folder; ``classes`` begins a new one there.
        bandwidth_mb_s: Expected megabytes (10^6 bytes) a second.
        seconds_per_iteration: Expected seconds for one iteration of the training.
        dry_run: Only tell what selecting would fetch.
        **options: Any key, such as ``price_per_hour``.

    Raises:
        UnavailableError: It does not fit on the disk, or the site cannot be reached.
        UsageError: An unknown class or option, or a number that means nothing.
        InputFormError: An official file or a network file is damaged.
        LockedError: Another run changes the dataset.
    """
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    given = _given(opened, bandwidth_mb_s, seconds_per_iteration)
    try:
        given.check()
    except UsageError:
        opened.take_back()
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
        planned = outlook(opened, given)
        files.write_json(plan_path(opened), planned.as_dict())
    planned.check()
    return planned


def require_room(project: Project) -> None:
    """Refuse a run that cannot fit.

    Where images are still to come and the user has made no plan of this selection, this one is kept
    for ``status`` to compare with.

    Raises:
        UnavailableError: It does not fit.
        LockedError: Another run changes the dataset.
    """
    with project.data_lock("plan"):
        planned = outlook(project, _given(project))
        kept = files.read_json(plan_path(project))
        is_kept = isinstance(kept, dict) and kept.get("selection") == planned.selection
        if planned.pending and not is_kept:
            files.write_json(plan_path(project), planned.as_dict())
    planned.check()


def _given(
    project: Project,
    bandwidth_mb_s: float | None = None,
    seconds_per_iteration: float | None = None,
) -> Given:
    """Give what the user expects, with the price that the project has."""
    options = project.config.train
    return Given(bandwidth_mb_s, seconds_per_iteration, options.price_per_hour, options.currency)
