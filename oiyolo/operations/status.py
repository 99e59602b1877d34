"""status: count the images by state and report the training runs and the progress of the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.results import Result, format_table, pluralize
from oiyolo.planning.comparison import comparison
from oiyolo.project import journals
from oiyolo.project.project import open_project
from oiyolo.training.live_reader import latest_stats
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.planning.comparison import Comparison
    from oiyolo.project.journals import MergeBacklog
    from oiyolo.project.ledger import Counts
    from oiyolo.project.project import ProjectLike
    from oiyolo.training.run import Run


@dataclass(frozen=True)
class Status(Result):
    """The state of a project.

    Attributes:
        counts: Number of images by state, from the ledger.
        runs: Training runs, the oldest first.
        plan: Planned and actual values; ``None`` without a plan.
        backlog: Results of fetched shards that are not merged into the ledger yet.
    """

    counts: Counts
    runs: Sequence[Run]
    plan: Comparison | None
    backlog: MergeBacklog

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        runs = [{"run": run.name, "state": run.state, **_in_progress(run)} for run in self.runs]
        plan = {} if self.plan is None else {"plan": self.plan.as_dict()}
        return {**self.counts.as_dict(), "runs": runs, **plan, **self._backlog_dict()}

    def _backlog_dict(self) -> dict[str, object]:
        numbers = {
            "not_merged": self.backlog.shards,
            "images_not_merged": self.backlog.images,
            "at_work": self.backlog.active,
        }
        return {"shards": numbers} if any(numbers.values()) else {}

    def __str__(self) -> str:
        rows = [(state, f"{n:,}") for state, n in self.counts.states.items() if n]
        rows += [(f"excluded: {why}", f"{n:,}") for why, n in self.counts.excluded.items()]
        rows += [("selected", f"{self.counts.selected:,}")]
        lines = [format_table(rows)]
        if self.backlog.active:
            lines.append(f"{pluralize(self.backlog.active, 'shard')} being fetched now")
        if self.backlog.shards:
            lines.append(
                f"not merged yet: {pluralize(self.backlog.images, 'image')} of "
                f"{pluralize(self.backlog.shards, 'shard')}; the next `oiyolo fetch` merges them"
            )
        lines += [f"run {run.name}: {_state_text(run)}" for run in self.runs]
        lines += [] if self.plan is None else [str(self.plan)]
        return "\n".join(lines)


def _in_progress(run: Run) -> dict[str, object]:
    """Return the iteration and the process of a run that is being trained; empty for any other."""
    if not run.is_training:
        return {}
    record, latest = run.record, latest_stats(run.log_path)
    return {
        "iteration": latest.iteration if latest else 0,
        **{name: record.get(name) for name in ("max_batches", "process", "host")},
    }


def _state_text(run: Run) -> str:
    now = _in_progress(run)
    if not now:
        return run.state or "unknown"
    iteration, total, number, host = now.values()
    return f"running, iteration {iteration:,} of {total or 0:,} (process {number} on {host})"


def status(project: ProjectLike = ".") -> Status:
    """Return the number of images by state, the training runs and the progress of the plan.

    Raises:
        UsageError: The project has no data yet.
    """
    opened = open_project(project)
    with opened.ledger(read_only=True) as ledger:
        return Status(
            ledger.counts(),
            runs_in(opened.runs_folder),
            comparison(opened, ledger),
            journals.merge_backlog(opened.data_folder, ledger),
        )
