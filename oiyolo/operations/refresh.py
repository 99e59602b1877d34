"""refresh: bring the dataset up to date, for cron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import Plan, Result
from oiyolo.net.urls import display_url
from oiyolo.project.keywords import takes_keys
from oiyolo.project.ledger import EXCLUDED, SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.keywords import RefreshKeywords
    from oiyolo.project.ledger import SelectionChange
    from oiyolo.project.project import Project, ProjectLike

_ALWAYS_DROPPABLE: Final = 5
"""Number of images that may always be dropped, however small the dataset is."""


@dataclass(frozen=True)
class Refreshed(Result):
    """The changes of a refresh.

    Attributes:
        before: Number of images by split before.
        after: Number of images by split now.
        moved: Number of images whose split changed; always 0, counted as a check.
        excluded: Number of excluded images before and now.
    """

    before: Mapping[str, int]
    after: Mapping[str, int]
    moved: int
    excluded: tuple[int, int]

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "before": dict(self.before),
            "after": dict(self.after),
            "moved": self.moved,
            "excluded": {"before": self.excluded[0], "after": self.excluded[1]},
        }

    def __str__(self) -> str:
        changes = {name: self.after[name] - self.before[name] for name in SPLITS}
        changes_text = [f"{name} {n:+,}" for name, n in changes.items() if n] or ["up to date"]
        excluded_change = self.excluded[1] - self.excluded[0]
        changes_text += [f"excluded {excluded_change:+,}"] if excluded_change else []
        total = sum(self.after.values())
        return f"refresh: {', '.join(changes_text)}; {self.moved} moved; {total:,} images in all"


@overload
def refresh(
    project: ProjectLike = ...,
    *,
    accept_loss: bool = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[RefreshKeywords],
) -> Refreshed: ...


@overload
def refresh(
    project: ProjectLike = ...,
    *,
    accept_loss: bool = ...,
    dry_run: Literal[True],
    **options: Unpack[RefreshKeywords],
) -> Plan: ...


@overload
def refresh(
    project: ProjectLike = ...,
    *,
    accept_loss: bool = ...,
    dry_run: bool,
    **options: Unpack[RefreshKeywords],
) -> Refreshed | Plan: ...


@takes_keys("refresh")
def refresh(
    project: ProjectLike = ".",
    *,
    accept_loss: bool = False,
    dry_run: bool = False,
    **options: Unpack[RefreshKeywords],
) -> Refreshed | Plan:
    """Run the data stages again: add new images and keep existing ones in their splits.

    Made for cron: it needs no terminal, prints one line and returns a reliable exit code. If more
    images than ``[refresh] max_loss`` are no longer in the annotations, it changes nothing.

    Args:
        project: An open project or its folder.
        accept_loss: Whether to drop images although they are more than ``max_loss``.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[refresh]``.

    Raises:
        InputFormError: Too many of the selected images are no longer in the annotations.
        UnavailableError: The site cannot be reached.
        LockedError: Another process is changing the dataset.
        OiyoloError: A stage failed.
    """
    opened = open_project(project, options)
    guard = None if accept_loss else _guard(opened)
    if dry_run:
        return _plan(opened, guard)
    with opened.data_lock("refresh"):
        before, excluded_before = _split_state(opened)
        select_stage.run(opened, guard=guard, needs_site=True)
        fetch_stage.run(opened)
        prepare_stage.run(opened)
        split_stage.run(opened)
        after, excluded_after = _split_state(opened)
    moved = sum(before[i] != after[i] for i in before.keys() & after.keys())
    return Refreshed(_by_split(before), _by_split(after), moved, (excluded_before, excluded_after))


def _plan(project: Project, guard: select_stage.Guard | None) -> Plan:
    fetch_plan = fetch_stage.preview(project, guard=guard, needs_site=True)
    if fetch_plan.actions:
        return Plan("refresh", [*fetch_plan.actions, "prepare and split the new images"])
    return Plan("refresh", split_stage.split(project, dry_run=True).actions)


def max_dropped(images: int, max_loss: float) -> int:
    """Return how many of the selected images a refresh may drop."""
    return max(_ALWAYS_DROPPABLE, int(max_loss * images))


def _guard(project: Project) -> select_stage.Guard:
    """Return the function that rejects a selection with too great a loss."""
    max_loss = project.config.refresh.max_loss

    def check(change: SelectionChange) -> None:
        before = change.before
        allowed = max_dropped(before, max_loss)
        if change.dropped > allowed:
            raise InputFormError(
                f"{change.dropped:,} of the {before:,} selected images are no longer selected",
                where=display_url(project.config.openimages.base_url),
                expected=f"at most {allowed:,} fewer ([refresh] max_loss = {max_loss:g})",
                remedy="Nothing was changed. If the annotations or your options are meant to drop "
                "them, run `oiyolo refresh --accept-loss` once",
            )

    return check


def _split_state(project: Project) -> tuple[dict[str, str], int]:
    with project.ledger() as ledger:
        split_by_id = {i: str(s) for i, s in ledger.column("state", *SPLITS).items()}
        return split_by_id, len(ledger.ids(EXCLUDED))


def _by_split(split_by_id: Mapping[str, str]) -> dict[str, int]:
    counts = dict.fromkeys(SPLITS, 0)
    for name in split_by_id.values():
        counts[name] += 1
    return counts
