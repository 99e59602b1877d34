"""refresh: bring the dataset up to date, and the detector if asked to, for cron."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, overload

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.net.urls import display_url
from oiyolo.operations import import_data
from oiyolo.operations.refresh import baseline as baseline_of
from oiyolo.operations.refresh import schedule
from oiyolo.operations.refresh.baseline import DatasetState
from oiyolo.operations.refresh.current import due_images, is_current, stamp
from oiyolo.operations.refresh.deadline import Deadline
from oiyolo.operations.refresh.leftovers import Leftovers, count_leftovers, remove_leftovers
from oiyolo.operations.refresh.report import with_report
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_project
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.operations.refresh.baseline import Changes
    from oiyolo.operations.refresh.retrain import Retrained
    from oiyolo.operations.refresh.schedule import RefreshSchedule
    from oiyolo.project.keywords import RefreshKeywords
    from oiyolo.project.ledger import Ledger, SelectionChange
    from oiyolo.project.project import Project, ProjectLike

_ALWAYS_DROPPABLE: Final = 5
"""Number of images that may always be dropped, however small the dataset is."""


@dataclass(frozen=True, kw_only=True)
class Refreshed(Result):
    """The changes since the last refresh.

    Attributes:
        before: Number of images by split before.
        after: Number of images by split now.
        moved: Number of images whose split changed; always 0, counted as a check.
        excluded: Number of excluded images before and now.
        changes: How the dataset changed.
        is_up_to_date: Whether nothing changed.
        retried: Number of images that had failed and were tried again.
        missing: Number of images that could not be fetched, by reason.
        postponed: Number of images with other boxes that wait until no training run uses them.
        leftovers: What became of the files of images that are not selected any more.
        retrained: What became of the detector; ``None`` unless it was asked for.
    """

    shown_if_quiet: ClassVar[bool] = False

    before: Mapping[str, int]
    after: Mapping[str, int]
    moved: int
    excluded: tuple[int, int]
    changes: Changes
    is_up_to_date: bool
    retried: int
    missing: Mapping[str, int]
    postponed: int
    leftovers: Leftovers
    retrained: Retrained | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "before": dict(self.before),
            "after": dict(self.after),
            "moved": self.moved,
            "excluded": {"before": self.excluded[0], "after": self.excluded[1]},
            "up_to_date": self.is_up_to_date,
            **{name: n for name, n in asdict(self.changes).items() if name != "moved"},
            "retried": self.retried,
            "missing": dict(self.missing),
            "postponed": self.postponed,
            "files": asdict(self.leftovers),
            "retrained": None if self.retrained is None else self.retrained.as_dict(),
        }

    def __str__(self) -> str:
        changes = self.changes
        parts = [
            f"+{changes.images:,} images",
            f"{changes.boxes:+,} boxes",
            f"-{changes.withdrawn:,} withdrawn",
            f"{self.moved:,} moved between splits",
        ]
        if changes.changed_boxes:
            parts.append(f"{pluralize(changes.changed_boxes, 'image')} with changed boxes")
        if changes.left_out:
            parts.append(f"{changes.left_out:,} left out")
        line = ", ".join(parts)
        line += "; up to date" if self.is_up_to_date else ""
        return line if self.retrained is None else f"{line}; {self.retrained}"


@overload
def refresh(
    project: ProjectLike = ...,
    *,
    accept_loss: bool = ...,
    retrain: bool = ...,
    print_cron: Literal[False] = ...,
    print_systemd: Literal[False] = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[RefreshKeywords],
) -> Refreshed: ...


@overload
def refresh(
    project: ProjectLike = ...,
    *,
    accept_loss: bool = ...,
    retrain: bool = ...,
    print_cron: Literal[False] = ...,
    print_systemd: Literal[False] = ...,
    dry_run: Literal[True],
    **options: Unpack[RefreshKeywords],
) -> Plan: ...


@overload
def refresh(
    project: ProjectLike = ...,
    *,
    accept_loss: bool = ...,
    retrain: bool = ...,
    print_cron: bool = ...,
    print_systemd: bool = ...,
    dry_run: bool = ...,
    **options: Unpack[RefreshKeywords],
) -> Refreshed | Plan | RefreshSchedule: ...


@takes_keys("refresh")
def refresh(
    project: ProjectLike = ".",
    *,
    accept_loss: bool = False,
    retrain: bool = False,
    print_cron: bool = False,
    print_systemd: bool = False,
    dry_run: bool = False,
    **options: Unpack[RefreshKeywords],
) -> Refreshed | Plan | RefreshSchedule:
    """Bring the dataset up to date: add what is new, drop what was withdrawn, and move nothing.

    Made for cron: it needs no terminal, prints one line and returns a reliable exit code. If more
    images than ``[refresh] max_loss`` are no longer in the annotations, it changes nothing.
    ``data/refresh.log`` has a line about every refresh.

    Args:
        project: An open project or its folder.
        accept_loss: Whether to drop images although they are more than ``max_loss``.
        retrain: Whether to train if the dataset changed, and publish the new detector if it is
            better.
        print_cron: Whether to return a line for cron that runs this refresh, and do nothing else.
        print_systemd: Whether to return units for systemd instead.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[refresh]``.

    Raises:
        InputFormError: Too many of the selected images are no longer in the annotations.
        UnavailableError: The site cannot be reached, or ``[refresh] deadline`` has passed.
        LockedError: Another process is changing the dataset.
        OiyoloError: A stage failed.
    """
    started_s = time.monotonic()
    opened = open_project(project, options)
    if print_cron or print_systemd:
        if accept_loss or (print_cron and print_systemd):
            raise UsageError(
                "--print-cron, --print-systemd and --accept-loss cannot be combined",
                remedy="Use one of them",
            )
        return _schedule(opened, options, retrain=retrain, for_cron=print_cron)
    guard = None if accept_loss else _guard(opened)
    if dry_run:
        return _plan(opened, guard, retrain=retrain)
    deadline = Deadline(opened.config.refresh.deadline, started_s)
    job = _Refresh(opened, guard, deadline)

    def run() -> Refreshed:
        with deadline.enforced():
            return job.run_with_training() if retrain else job.run()

    return with_report(opened, run)


def _schedule(
    project: Project, options: Mapping[str, object], *, retrain: bool, for_cron: bool
) -> RefreshSchedule:
    command = schedule.command_of(project.folder, options, retrain=retrain)
    variables = schedule.environment()
    if for_cron:
        return schedule.cron(command, variables)
    return schedule.systemd(command, variables, project.folder)


@dataclass(frozen=True)
class _Refresh:
    """One refresh of a project.

    Attributes:
        project: The project.
        guard: Function that may reject the new selection.
        deadline: When it is stopped.
    """

    project: Project
    guard: select_stage.Guard | None
    deadline: Deadline

    def run(self) -> Refreshed:
        """Bring the dataset up to date."""
        project = self.project
        with project.data_lock("refresh"):
            saved = baseline_of.read(project)
            before = None if saved is not None else self._observe()
            if project.imports_folder.is_dir():
                self.deadline.begin("import")
                import_data.read_again(project, _import_guard(project, self.guard))
            self.deadline.begin("select")
            select_stage.run(project, guard=self.guard, needs_site=True)
            accepts_loss = self.guard is None  # and so deletes files that were kept
            if saved is not None and not accepts_loss and is_current(project, saved):
                return _unchanged(saved.fields["splits"], saved.fields["excluded"])
            before = before or (saved and saved.load()) or self._observe()
            return self._update(before)

    def _observe(self) -> DatasetState:
        """Return the dataset as it is now."""
        if not self.project.ledger_path.is_file():
            return DatasetState({}, 0)
        with self.project.ledger() as ledger:
            return baseline_of.observe(self.project, ledger)

    def _update(self, before: DatasetState) -> Refreshed:
        """Run the stages after select, and return what changed."""
        project, deadline = self.project, self.deadline
        with project.ledger() as ledger:
            due = due_images(ledger)
        deadline.begin("fetch")
        fetched = fetch_stage.run(project, again=due)
        deadline.begin("prepare")
        prepared = prepare_stage.run(project, postpones=True)
        if prepared.missing_originals:  # deleted, as keep_originals is false, and needed again
            deadline.begin("fetch")
            fetched = fetch_stage.run(project)
            deadline.begin("prepare")
            prepared = prepare_stage.run(project, postpones=True)
        deadline.begin("split")
        split_stage.run(project)
        with project.ledger() as ledger:
            allowed = _deletable(project, ledger, self.guard)
        leftovers = remove_leftovers(project, allowed)
        after, changes = self._compare(before, prepared.postponed + leftovers.in_use)
        return Refreshed(
            before=before.splits,
            after=after.splits,
            moved=changes.moved,
            excluded=(before.excluded, after.excluded),
            changes=changes,
            is_up_to_date=not any(asdict(changes).values()),
            retried=len(due),
            missing=fetched.missing,
            postponed=prepared.postponed,
            leftovers=leftovers,
        )

    def _compare(self, before: DatasetState, waiting: int) -> tuple[DatasetState, Changes]:
        """Return the dataset now, which the next refresh compares with, and what changed."""
        with self.project.ledger() as ledger:
            found = baseline_of.observe(self.project, ledger)
            after = replace(found, stamp=stamp(self.project, ledger), waiting=waiting)
            unselected = {*ledger.unselected_ids(), *ledger.withdrawn_ids()}
        changes = baseline_of.compare(before, after, frozenset(unselected))
        baseline_of.write(self.project, after)
        return after, changes

    def run_with_training(self) -> Refreshed:
        """Bring the dataset up to date, then the detector."""
        from oiyolo.operations.refresh.retrain import (  # noqa: PLC0415  (imports all stages)
            continue_unfinished,
            retrain,
        )

        self.deadline.begin("the training")
        earlier, failure = continue_unfinished(self.project)
        refreshed = self.run()
        if failure is not None:
            raise failure
        self.deadline.begin("the training")
        retrained = retrain(self.project)
        # Where nothing is left to do, what the continued training led to is the news.
        is_news = earlier is None or retrained.run
        return replace(refreshed, retrained=retrained if is_news else earlier)


def _unchanged(splits: Mapping[str, int], excluded: int) -> Refreshed:
    """Return the result of a refresh that has nothing to do."""
    return Refreshed(
        before=splits,
        after=splits,
        moved=0,
        excluded=(excluded, excluded),
        changes=baseline_of.Changes(0, 0, 0, 0, 0, 0),
        is_up_to_date=True,
        retried=0,
        missing={},
        postponed=0,
        leftovers=Leftovers(),
    )


def _plan(project: Project, guard: select_stage.Guard | None, *, retrain: bool) -> Plan:
    fetch_plan = fetch_stage.preview(project, guard=guard, needs_site=True)
    due = leftovers = 0
    if project.ledger_path.is_file():
        with project.ledger(read_only=True) as ledger:
            due = len(due_images(ledger))
            leftovers = count_leftovers(project, ledger, _deletable(project, ledger, guard))
    changed = import_data.changed_names(project)
    actions = [f"import {name} again, whose source has changed" for name in changed]
    actions += fetch_plan.actions
    actions += [f"try {pluralize(due, 'failed image')} again"] if due else []
    if actions:
        actions.append("prepare and split the new images")
    else:
        actions = list(split_stage.split(project, dry_run=True).actions)
    if leftovers:
        images = pluralize(leftovers, "image")
        actions.append(f"delete the files of {images} that are not selected any more")
    if retrain:
        from oiyolo.operations.refresh.retrain import plan_retraining  # noqa: PLC0415  (as above)

        actions += plan_retraining(project, data_changes=bool(actions))
    return Plan("refresh", actions)


def _deletable(project: Project, ledger: Ledger, guard: select_stage.Guard | None) -> int | None:
    """Return of how many unselected images the files may be deleted; ``None`` for any number."""
    max_loss = project.config.refresh.max_loss
    return None if guard is None else max_dropped(ledger.counts().selected, max_loss)


def max_dropped(images: int, max_loss: float) -> int:
    """Return how many of the selected images a refresh may drop."""
    return max(_ALWAYS_DROPPABLE, int(max_loss * images))


def _import_guard(project: Project, guard: select_stage.Guard | None) -> import_data.Guard | None:
    """Return the function that rejects an import with too great a loss; ``None`` if none does."""
    max_loss = project.config.refresh.max_loss

    def check(name: str, before: int, lost: int) -> None:
        allowed = max_dropped(before, max_loss)
        if lost > allowed:
            raise InputFormError(
                f"{lost:,} of the {before:,} images of the import {name} are gone",
                where=project.imports()[name].path,
                expected=f"at most {allowed:,} fewer ([refresh] max_loss = {max_loss:g})",
                remedy="Nothing was changed. If they were removed on purpose, run "
                "`oiyolo refresh --accept-loss` once",
            )

    return None if guard is None else check


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
