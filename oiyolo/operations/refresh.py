"""refresh: the data stages once more, for cron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.results import Plan, Result
from oiyolo.project.ledger import EXCLUDED, SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.project.project import Project, ProjectLike


@dataclass(frozen=True)
class Refreshed(Result):
    """What a refresh changed.

    Attributes:
        before: Images by split before.
        after: Images by split now.
        moved: Images whose split changed; 0 always, and counted to prove it.
        excluded: Excluded images before and now.
    """

    before: Mapping[str, int]
    after: Mapping[str, int]
    moved: int
    excluded: tuple[int, int]

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "before": dict(self.before),
            "after": dict(self.after),
            "moved": self.moved,
            "excluded": {"before": self.excluded[0], "after": self.excluded[1]},
        }

    def __str__(self) -> str:
        changes = {name: self.after[name] - self.before[name] for name in SPLITS}
        told = [f"{name} {n:+,}" for name, n in changes.items() if n] or ["nothing new"]
        left_out = self.excluded[1] - self.excluded[0]
        told += [f"excluded {left_out:+,}"] if left_out else []
        total = sum(self.after.values())
        return f"refresh: {', '.join(told)}; {self.moved} moved; {total:,} images in all"


def refresh(project: ProjectLike = ".", *, dry_run: bool = False) -> Refreshed | Plan:
    """Run the data stages once more: add what is new, move nothing.

    Made for cron: no terminal, one line, an exit code that can be trusted.

    Args:
        project: An open project or its folder.
        dry_run: Only tell what would be done.

    Raises:
        LockedError: Another run changes the dataset.
        OiyoloError: What a stage raises.
    """
    opened = open_project(project)
    if dry_run:
        return Plan("refresh", ["select, fetch, prepare and split what is new"])
    with opened.data_lock("refresh"):
        before, excluded_before = _standing(opened)
        select_stage.run(opened)
        fetch_stage.run(opened)
        prepare_stage.run(opened)
        split_stage.run(opened)
        after, excluded_after = _standing(opened)
    moved = sum(before[i] != after[i] for i in before.keys() & after.keys())
    return Refreshed(_by_split(before), _by_split(after), moved, (excluded_before, excluded_after))


def _standing(project: Project) -> tuple[dict[str, str], int]:
    with project.ledger() as ledger:
        split_by_id = {i: str(s) for i, s in ledger.facts("state", *SPLITS).items()}
        return split_by_id, len(ledger.ids(EXCLUDED))


def _by_split(split_by_id: Mapping[str, str]) -> dict[str, int]:
    counted = dict.fromkeys(SPLITS, 0)
    for name in split_by_id.values():
        counted[name] += 1
    return counted
