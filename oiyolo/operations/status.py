"""status: how many images are in which state, how the runs stand, and what came of the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.results import Result, columns, count
from oiyolo.planning.comparison import comparison
from oiyolo.project import journals
from oiyolo.project.project import open_project
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.planning.comparison import Comparison
    from oiyolo.project.journals import Waiting
    from oiyolo.project.ledger import Counts
    from oiyolo.project.project import ProjectLike
    from oiyolo.training.run import Run


@dataclass(frozen=True)
class Status(Result):
    """How a project stands.

    Attributes:
        counts: The ledger's sums.
        runs: Training runs, the oldest first.
        plan: What was planned, and what came of it; ``None`` without a plan.
        waiting: What shards of a fetch did that the sums do not have yet.
    """

    counts: Counts
    runs: Sequence[Run]
    plan: Comparison | None
    waiting: Waiting

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        runs = [{"run": run.name, "state": run.record.get("state")} for run in self.runs]
        plan = {} if self.plan is None else {"plan": self.plan.as_dict()}
        return {**self.counts.as_dict(), "runs": runs, **plan, **self._waiting()}

    def _waiting(self) -> dict[str, object]:
        numbers = {
            "not_merged": self.waiting.shards,
            "images_not_merged": self.waiting.images,
            "at_work": self.waiting.at_work,
        }
        return {"shards": numbers} if any(numbers.values()) else {}

    def __str__(self) -> str:
        rows = [(state, f"{n:,}") for state, n in self.counts.states.items() if n]
        rows += [(f"excluded: {why}", f"{n:,}") for why, n in self.counts.excluded.items()]
        rows += [("selected", f"{self.counts.selected:,}")]
        told = [columns(rows)]
        if self.waiting.at_work:
            told.append(f"{count(self.waiting.at_work, 'shard')} being fetched now")
        if self.waiting.shards:
            told.append(
                f"not merged yet: {count(self.waiting.images, 'image')} of "
                f"{count(self.waiting.shards, 'shard')}; the next `oiyolo fetch` enters them"
            )
        told += [f"run {run.name}: {run.record.get('state')}" for run in self.runs]
        told += [] if self.plan is None else [str(self.plan)]
        return "\n".join(told)


def status(project: ProjectLike = ".") -> Status:
    """Tell how many images are in which state, how the runs stand, and what came of the plan.

    Raises:
        UsageError: The project has no data yet.
    """
    opened = open_project(project)
    with opened.ledger(read_only=True) as ledger:
        return Status(
            ledger.counts(),
            runs_in(opened.runs_folder),
            comparison(opened, ledger),
            journals.waiting(opened.data_folder, ledger),
        )
