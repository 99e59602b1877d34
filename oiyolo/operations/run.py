"""run: run all stages in order."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload

from oiyolo.core.results import Plan, Result
from oiyolo.operations.plan import require_disk_space
from oiyolo.planning.forecast import forecast
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_project
from oiyolo.stages import select as select_stage
from oiyolo.stages.evaluate import evaluate
from oiyolo.stages.fetch import fetch, preview
from oiyolo.stages.plot import plot
from oiyolo.stages.prepare import prepare
from oiyolo.stages.report import report
from oiyolo.stages.select import select
from oiyolo.stages.split import split
from oiyolo.stages.train import train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.keywords import AllKeywords
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_STAGES: Final[Mapping[str, Callable[..., Any]]] = {
    "select": select,
    "fetch": fetch,
    "prepare": prepare,
    "split": split,
    "train": train,
    "plot": plot,
    "evaluate": evaluate,
    "report": report,
}


_FINAL_RESULTS: Final = ("evaluate", "report")


@dataclass(frozen=True)
class Ran(Result):
    """The results of all stages, by name."""

    results: Mapping[str, Result]

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {name: result.as_dict() for name, result in self.results.items()}

    def __str__(self) -> str:
        return "\n".join(str(self.results[name]) for name in _FINAL_RESULTS)


@overload
def run(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[AllKeywords]
) -> Ran: ...


@overload
def run(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[AllKeywords]
) -> Plan: ...


@overload
def run(
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[AllKeywords]
) -> Ran | Plan: ...


@takes_keys()
def run(
    project: ProjectLike = ".", *, dry_run: bool = False, **options: Unpack[AllKeywords]
) -> Ran | Plan:
    """Run all stages in order, from class names to a report; each skips what is up to date.

    A run that does not fit on the disk stops after the selection, before any image is fetched.

    Args:
        project: An open project or its folder; with ``classes``, a new project is created there.
        dry_run: Whether to only report what would be done.
        **options: Any key.

    Raises:
        UnavailableError: The run does not fit on the disk.
        OiyoloError: A stage failed, or would fail; the results of earlier stages are kept.
    """
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    if dry_run:
        return _preview(opened)
    results: dict[str, Result] = {}
    for name, stage in _STAGES.items():
        results[name] = stage(opened)
        if name == "select":
            require_disk_space(opened)
        if name not in _FINAL_RESULTS:
            _log.info("%s", results[name])
    return Ran(results)


def _preview(project: Project) -> Plan:
    """Return what the first stage that is not up to date would do, and the names of the others.

    What these would do depends on its result.

    Raises:
        OiyoloError: As ``run`` would raise.
    """
    selected = select_stage.preview(project)
    fetched = preview(project, selected=selected)
    actions, following = list(fetched.actions), [*_STAGES][2:]
    if not selected.actions:
        forecast(project).check()
    while following and not actions:
        name = following.pop(0)
        actions += _STAGES[name](project, dry_run=True).actions
    if actions and following:
        names = f"{', '.join(following[:-1])} and {following[-1]}"
        actions.append(f"then {names.removeprefix(' and ')}, unless up to date")
    return Plan("run", actions, fetched.facts)
