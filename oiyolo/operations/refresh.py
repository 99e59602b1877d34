"""refresh: bring the dataset up to date, for cron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from oiyolo.core.results import Plan, Result
from oiyolo.project.ledger import EXCLUDED, SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from oiyolo.project.project import Project, ProjectLike


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
def refresh(project: ProjectLike = ..., *, dry_run: Literal[False] = ...) -> Refreshed: ...


@overload
def refresh(project: ProjectLike = ..., *, dry_run: Literal[True]) -> Plan: ...


@overload
def refresh(project: ProjectLike = ..., *, dry_run: bool) -> Refreshed | Plan: ...


def refresh(project: ProjectLike = ".", *, dry_run: bool = False) -> Refreshed | Plan:
    """Run the data stages again: add new images and keep existing ones in their splits.

    Made for cron: it needs no terminal, prints one line and returns a reliable exit code.

    Args:
        project: An open project or its folder.
        dry_run: Whether to only report what would be done.

    Raises:
        LockedError: Another process is changing the dataset.
        OiyoloError: A stage failed.
    """
    opened = open_project(project)
    if dry_run:
        return Plan("refresh", ["select, fetch, prepare and split new images"])
    with opened.data_lock("refresh"):
        before, excluded_before = _split_state(opened)
        select_stage.run(opened)
        fetch_stage.run(opened)
        prepare_stage.run(opened)
        split_stage.run(opened)
        after, excluded_after = _split_state(opened)
    moved = sum(before[i] != after[i] for i in before.keys() & after.keys())
    return Refreshed(_by_split(before), _by_split(after), moved, (excluded_before, excluded_after))


def _split_state(project: Project) -> tuple[dict[str, str], int]:
    with project.ledger() as ledger:
        split_by_id = {i: str(s) for i, s in ledger.column("state", *SPLITS).items()}
        return split_by_id, len(ledger.ids(EXCLUDED))


def _by_split(split_by_id: Mapping[str, str]) -> dict[str, int]:
    counts = dict.fromkeys(SPLITS, 0)
    for name in split_by_id.values():
        counts[name] += 1
    return counts
