"""status: count the images by state and report the training runs and the progress of the plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import Result, format_table, pluralize, table_html, text_html
from oiyolo.darknet.forks import FORKS
from oiyolo.project import journals
from oiyolo.project.project import open_project
from oiyolo.stages import select as select_stage
from oiyolo.stages.plan_comparison import comparison
from oiyolo.training.live_reader import latest_stats
from oiyolo.training.run import current_run, survey_runs
from oiyolo.training.score_monitor import map_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.journals import MergeBacklog
    from oiyolo.project.ledger import Counts, Ledger
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.stages.plan_comparison import Comparison
    from oiyolo.training.run import Run


@dataclass(frozen=True)
class Status(Result):
    """The state of a project.

    Attributes:
        counts: Number of images by state, from the ledger.
        runs: Training runs, the oldest first.
        plan: Planned and actual values; ``None`` without a plan.
        backlog: Results of fetched shards that are not merged into the ledger yet.
        damaged: The errors of records that cannot be read; what they contain is missing above.
        limit_note: How many more images there are than ``[dataset] limit``; empty if none.
        current: Name of the run of the current detector; empty if there is none.
        sources: Number of images that are not excluded by the name of their import, "" for those of
            Open Images; empty without imports.
        class_maps: For each import, the new names of classes by their names in the source.
    """

    counts: Counts
    runs: Sequence[Run]
    plan: Comparison | None
    backlog: MergeBacklog
    damaged: Sequence[InputFormError] = field(default=())
    limit_note: str = ""
    current: str = ""
    sources: Mapping[str, int] = field(default_factory=dict)
    class_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 3 if a record is damaged."""
        return InputFormError.exit_code if self.damaged else 0

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        runs = [{"run": run.name, "state": run.state, **_in_progress(run)} for run in self.runs]
        plan = {} if self.plan is None else {"plan": self.plan.as_dict()}
        damaged = {"damaged": [error.as_dict() for error in self.damaged]} if self.damaged else {}
        current = {"current": self.current} if self.current else {}
        counts = self.counts.as_dict()
        imports = {"sources": dict(self.sources)} if self.sources else {}
        return {
            **counts,
            **imports,
            "runs": runs,
            **current,
            **plan,
            **self._backlog_dict(),
            **damaged,
        }

    def _backlog_dict(self) -> dict[str, object]:
        numbers = {
            "not_merged": self.backlog.shards,
            "images_not_merged": self.backlog.images,
            "at_work": self.backlog.active,
        }
        return {"shards": numbers} if any(numbers.values()) else {}

    def __str__(self) -> str:
        lines = [format_table(self._count_rows()), *self._notes()]
        lines += [f"run {self._run_name(run)}: {_state_text(run)}" for run in self.runs]
        lines += [] if self.plan is None else [str(self.plan)]
        lines += map(str, self.damaged)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        runs = [(self._run_name(run), _state_text(run)) for run in self.runs]
        plan = "" if self.plan is None else self.plan._repr_html_()
        return (
            table_html([("state", "images"), *self._count_rows()])
            + text_html(*self._notes())
            + table_html([("run", "state"), *runs], right=False)
            + plan
            + text_html(*map(str, self.damaged))
        )

    def _count_rows(self) -> list[tuple[str, str]]:
        rows = [(state, f"{n:,}") for state, n in self.counts.states.items() if n]
        rows += [(f"excluded: {why}", f"{n:,}") for why, n in self.counts.excluded.items()]
        return [*rows, ("selected", f"{self.counts.selected:,}")]

    def _run_name(self, run: Run) -> str:
        return run.name + (" (current)" if run.name == self.current else "")

    def _notes(self) -> list[str]:
        """Return what else there is to say about the images, line by line."""
        lines = [self.limit_note] if self.limit_note else []
        total = sum(self.sources.values()) or 1
        for name, count in self.sources.items():
            source = f"the import {name}" if name else "Open Images"
            lines.append(f"from {source}: {count:,} ({count / total:.1%})")
            renamed = self.class_maps.get(name, {})
            pairs = ", ".join(f"{theirs} as {ours}" for theirs, ours in renamed.items())
            lines += [f"  classes: {pairs}"] if pairs else []
        if self.backlog.active:
            lines.append(f"{pluralize(self.backlog.active, 'shard')} being fetched now")
        if self.backlog.shards:
            lines.append(
                f"not merged yet: {pluralize(self.backlog.images, 'image')} of "
                f"{pluralize(self.backlog.shards, 'shard')}; the next `oiyolo fetch` merges them"
            )
        return lines


def _in_progress(run: Run) -> dict[str, Any]:
    """Return how far a run in training is, and its process; empty for any other run."""
    if not run.is_training:
        return {}
    record, latest = run.record, latest_stats(run.log_path)
    return {
        "iteration": latest.iteration if latest else 0,
        **{name: record.get(name) for name in ("max_batches", "process", "host")},
        "map": run.map_source(),
        "best": record.get("best"),
    }


def _state_text(run: Run) -> str:
    now = _in_progress(run)
    if not now:
        return run.state or "unknown"
    iteration, total, number, host, source, best = now.values()
    program = run.record.get("darknet", {})
    fork, engine = FORKS.get(program.get("fork")), program.get("engine", "darknet")
    text = f"running, iteration {iteration:,} of {total or 0:,} (process {number} on {host})"
    if fork is not None:
        text += f"; will {map_text(source, fork, engine)}"
    return text + (f"; best {best['map']:.2%} at iteration {best['iteration']:,}" if best else "")


def status(project: ProjectLike = ".") -> Status:
    """Return the number of images by state, the training runs and the progress of the plan.

    Raises:
        UsageError: The project has no data yet.
    """
    opened = open_project(project)
    runs, damaged = survey_runs(opened.runs_folder)
    current = _current_name(opened.runs_folder, damaged)
    with opened.ledger(read_only=True) as ledger:
        plan, limit_note = None, ""
        try:
            selection = select_stage.find(opened)
            limit_note = "" if selection is None else selection.limit_note
            plan = comparison(opened, ledger, [run for run in runs if not run.half])
        except InputFormError as error:
            damaged.append(error)
        backlog = journals.merge_backlog(opened.data_folder, ledger)
        counts = ledger.counts(), runs, plan, backlog, damaged, limit_note, current
        return Status(*counts, *_sources(opened, ledger, damaged))


def _sources(
    project: Project, ledger: Ledger, damaged: list[InputFormError]
) -> tuple[dict[str, int], dict[str, Mapping[str, str]]]:
    """Return the number of images by source and the imports' class maps; empty without imports.

    If a record of an import is damaged, append the error.
    """
    try:
        records = project.imports()
    except InputFormError as error:
        damaged.append(error)
        return {}, {}
    maps = {name: record.class_map for name, record in records.items()}
    return (ledger.counts_by_origin() if records else {}), maps


def _current_name(runs_folder: Path, damaged: list[InputFormError]) -> str:
    """Return the name of the current detector's run; if that is wrong, append the error."""
    try:
        run = current_run(runs_folder)
    except InputFormError as error:
        damaged.append(error)
        return ""
    return run.name if run else ""
