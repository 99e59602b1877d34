"""run: run all stages in order."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, overload

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.core.results import Plan, Result
from oiyolo.operations import rebuild
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
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.operations.rebuild import LockComparison
    from oiyolo.project.keywords import AllKeywords
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.provenance.lock_file import DatasetLock

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


_DATA_STAGES: Final = ("select", "fetch", "prepare", "split")
_FINAL_RESULTS: Final = ("evaluate", "report")


@dataclass(frozen=True)
class Ran(Result):
    """The results of all stages, by name.

    Attributes:
        results: The results of the stages.
        comparison: A rebuilt dataset compared with the frozen one; ``None`` without ``frozen``.
    """

    results: Mapping[str, Result]
    comparison: LockComparison | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        results: dict[str, object] = {n: result.as_dict() for n, result in self.results.items()}
        return results if self.comparison is None else results | {"lock": self.comparison.as_dict()}

    def __str__(self) -> str:
        names = [n for n in _FINAL_RESULTS if n in self.results] or [*self.results][-1:]
        compared = [] if self.comparison is None else [str(self.comparison)]
        return "\n".join([*(str(self.results[name]) for name in names), *compared])


@overload
def run(
    project: ProjectLike = ...,
    *,
    until: str | None = ...,
    frozen: str | Path | None = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[AllKeywords],
) -> Ran: ...


@overload
def run(
    project: ProjectLike = ...,
    *,
    until: str | None = ...,
    frozen: str | Path | None = ...,
    dry_run: Literal[True],
    **options: Unpack[AllKeywords],
) -> Plan: ...


@overload
def run(
    project: ProjectLike = ...,
    *,
    until: str | None = ...,
    frozen: str | Path | None = ...,
    dry_run: bool,
    **options: Unpack[AllKeywords],
) -> Ran | Plan: ...


@takes_keys()
def run(
    project: ProjectLike = ".",
    *,
    until: str | None = None,
    frozen: str | Path | None = None,
    dry_run: bool = False,
    **options: Unpack[AllKeywords],
) -> Ran | Plan:
    """Run all stages in order, from class names to a report; each skips what is up to date.

    A run that does not fit on the disk stops after the selection, before any image is fetched.

    Args:
        project: An open project or its folder; with ``classes`` or ``frozen``, a new project is
            created there.
        until: The last stage to run, such as "split"; all by default.
        frozen: A ``dataset.lock`` whose dataset is rebuilt: the same images in the same splits,
            each verified. What differs is listed in ``data/lock_differences.csv``.
        dry_run: Whether to only report what would be done.
        **options: Any key; with ``frozen`` only those that do not decide the dataset.

    Raises:
        UsageError: There is no such stage, or the project contradicts the frozen dataset.
        InputFormError: The lock is damaged or was written by a newer oiyolo, or more images differ
            from it than ``[images] tolerance`` allows.
        UnavailableError: The run does not fit on the disk.
        OiyoloError: A stage failed, or would fail; the results of earlier stages are kept.
    """
    names = _stages_until(until)
    if frozen is None:
        opened = open_project(project, options, may_create=True, dry_run=dry_run)
        return _preview(opened, names) if dry_run else Ran(_run_stages(opened, names))
    opened, lock = rebuild.open_frozen(project, frozen, options, dry_run=dry_run)
    if dry_run:
        plan = _preview(opened, names)
        return replace(plan, actions=[*rebuild.planned_records(opened, lock), *plan.actions])
    rebuild.record_withdrawn(opened, lock)
    rebuild.record_decisions(opened, lock)
    return _run_frozen(opened, names, lock)


def _stages_until(until: str | None) -> list[str]:
    names = list(_STAGES)
    if until is None:
        return names
    if until not in names:
        raise UsageError(f"there is no stage {until!r}", expected=", ".join(names))
    return names[: names.index(until) + 1]


def _run_stages(project: Project, names: Sequence[str]) -> dict[str, Result]:
    results: dict[str, Result] = {}
    for name in names:
        results[name] = _STAGES[name](project)
        if name == "select":
            require_disk_space(project)
        if name not in _FINAL_RESULTS:
            _log.info("%s", results[name])
    return results


def _run_frozen(project: Project, names: Sequence[str], lock: DatasetLock) -> Ran:
    """Rebuild a frozen dataset, compare it, and run the further stages."""
    data_stages = [name for name in names if name in _DATA_STAGES]
    try:
        results = _run_stages(project, data_stages)
    except UnavailableError:
        if project.ledger_path.is_file():  # too many images could not be fetched
            _log.warning("%s", rebuild.compare(project, lock))
        raise
    if "split" not in results:
        return Ran(results)
    comparison = rebuild.compare(project, lock)
    rebuild.check(comparison, project.config.images.tolerance)
    results |= _run_stages(project, [name for name in names if name not in _DATA_STAGES])
    return Ran(results, comparison)


def _preview(project: Project, names: Sequence[str]) -> Plan:
    """Return what the first stage that is not up to date would do, and the names of the others.

    What these would do depends on its result.

    Raises:
        OiyoloError: As ``run`` would raise.
    """
    selected = select_stage.preview(project)
    if names == ["select"]:
        return Plan("run", selected.actions)
    fetched = preview(project, selected=selected)
    actions, following = list(fetched.actions), [*names][2:]
    if not selected.actions:
        forecast(project).check()
    while following and not actions:
        name = following.pop(0)
        actions += _STAGES[name](project, dry_run=True).actions
    if actions and following:
        text = f"{', '.join(following[:-1])} and {following[-1]}"
        actions.append(f"then {text.removeprefix(' and ')}, unless up to date")
    return Plan("run", actions, fetched.facts)
