"""status: how many images are in which state, how the runs stand, and what came of the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.planning.comparison import comparison
from oiyolo.project import open_project
from oiyolo.results import Result, columns
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.ledger import Counts
    from oiyolo.planning.comparison import Comparison
    from oiyolo.project import ProjectLike
    from oiyolo.training.run import Run


@dataclass(frozen=True)
class Status(Result):
    """How a project stands.

    Attributes:
        counts: The ledger's sums.
        runs: Training runs, the oldest first.
        plan: What was planned, and what came of it; ``None`` without a plan.
    """

    counts: Counts
    runs: Sequence[Run]
    plan: Comparison | None

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        runs = [{"run": run.name, "state": run.record.get("state")} for run in self.runs]
        plan = {} if self.plan is None else {"plan": self.plan.as_dict()}
        return {**self.counts.as_dict(), "runs": runs, **plan}

    def __str__(self) -> str:
        rows = [(state, f"{n:,}") for state, n in self.counts.states.items() if n]
        rows += [(f"excluded: {why}", f"{n:,}") for why, n in self.counts.excluded.items()]
        rows += [("selected", f"{self.counts.selected:,}")]
        told = [columns(rows)]
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
        return Status(ledger.counts(), runs_in(opened.runs_folder), comparison(opened, ledger))
