"""push: copy the dataset, a split of it, or runs to a bucket."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.core.units import format_bytes
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.project.project import open_project
from oiyolo.stages import split as split_stage
from oiyolo.training.run import Run, current_run, find_run, newest_with, runs_in
from oiyolo.transfer import local, manifest, parts, state
from oiyolo.transfer.direction import Direction, compare_ledgers, unseen_names
from oiyolo.transfer.threads import THREADS
from oiyolo.transfer.upload import changed_names, send_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from oiyolo.net.buckets import BucketFolder, FileFacts
    from oiyolo.net.gcs import BucketClient
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.transfer.manifest import Manifest
    from oiyolo.transfer.parts import ProjectPart
    from oiyolo.transfer.upload import Transferred


@dataclass(frozen=True)
class Pushed(Result):
    """Result of ``oiyolo push``.

    Attributes:
        destination: The folder of the bucket.
        parts: What was sent of each part.
        deleted: Number of objects that were deleted, because the project has no such file any more.
    """

    destination: str
    parts: Mapping[str, Transferred]
    deleted: int

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "destination": self.destination,
            "parts": {name: vars(part) for name, part in self.parts.items()},
            "deleted": self.deleted,
        }

    def __str__(self) -> str:
        lines = [f"pushed to {self.destination}"]
        lines += [f"  {name}: {describe(part)}" for name, part in self.parts.items()]
        if self.deleted:
            lines.append(f"  deleted there: {pluralize(self.deleted, 'file')}")
        return "\n".join(lines)


def describe(part: Transferred) -> str:
    """Return what was transferred, in a line."""
    if not part.files:
        return f"nothing new; {pluralize(part.unchanged, 'file')} unchanged"
    size = format_bytes(part.size_bytes)
    return f"{pluralize(part.files, 'file')}, {size}; {part.unchanged:,} unchanged"


@overload
def push(
    destination: str,
    project: ProjectLike = ...,
    *,
    split: str | Sequence[str] | None = ...,
    run: str | Sequence[str] | None = ...,
    overwrite: bool = ...,
    dry_run: Literal[False] = ...,
) -> Pushed: ...


@overload
def push(
    destination: str,
    project: ProjectLike = ...,
    *,
    split: str | Sequence[str] | None = ...,
    run: str | Sequence[str] | None = ...,
    overwrite: bool = ...,
    dry_run: bool,
) -> Pushed | Plan: ...


def push(
    destination: str,
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    run: str | Sequence[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Pushed | Plan:
    """Copy the dataset, a split of it, or runs to a bucket; only what has changed is sent.

    Without ``split`` and ``run``: the dataset, and the current run or, without one, the newest
    that has weights and is not being trained.

    Args:
        destination: ``gs://bucket/prefix``.
        project: An open project or its folder.
        split: Names of the only splits to push, usually one.
        run: Names of the runs to push.
        overwrite: Whether to replace what was pushed from elsewhere since the last transfer.
        dry_run: Whether to only report what would be sent.

    Raises:
        UsageError: The URL is invalid, there is no such bucket or run, the dataset is not split,
            the bucket's folder holds another project, or changes that this one does not have.
        InputFormError: An image is missing, or the manifest in the bucket cannot be used.
        UnavailableError: The bucket does not respond, or refuses this user.
        LockedError: Another process is changing the dataset, or the run is being trained.
    """
    folder = parse_bucket_url(destination)
    opened = open_project(project)
    chosen = _chosen_parts(opened, split, run)
    plan: list[str] = []
    sent: dict[str, Transferred] = {}
    deleted = 0
    for part in chosen:
        with contextlib.ExitStack() as stack:
            pushing = stack.enter_context(
                _opened(opened, part, folder, overwrite=overwrite, dry_run=dry_run)
            )
            if dry_run:
                plan += pushing.actions()
                continue
            sent[str(part)] = pushing.send()
            deleted += pushing.delete_leftovers()
    if dry_run:
        return Plan("push", plan)
    return Pushed(str(folder), sent, deleted)


def _chosen_parts(
    project: Project, split: str | Sequence[str] | None, run: str | Sequence[str] | None
) -> list[ProjectPart]:
    chosen = [parts.split_part(as_names(split))] if split else []
    runs = [find_run(project.runs_folder, name) for name in as_names(run)]
    chosen += [parts.run_part(found.name) for found in runs]
    if chosen:
        return chosen
    return [parts.ProjectPart(parts.DATASET), *_default_run(project)]


def as_names(names: str | Sequence[str] | None) -> Sequence[str]:
    """Return the names in an option that takes one or several."""
    return [names] if isinstance(names, str) else names or ()


def _default_run(project: Project) -> list[ProjectPart]:
    """Return the current run, else the newest that has weights; none if there is none."""
    current = current_run(project.runs_folder)
    if current is not None and not current.is_training:
        return [parts.run_part(current.name)]
    ready = [run for run in runs_in(project.runs_folder) if run.has_weights and not run.is_training]
    return [parts.run_part(newest_with(ready, ()).name)] if ready else []


@contextlib.contextmanager
def _opened(
    project: Project,
    part: ProjectPart,
    destination: BucketFolder,
    *,
    overwrite: bool,
    dry_run: bool,
) -> Iterator[_Push]:
    """Yield the push of a part, while what it reads is locked."""
    from oiyolo.net.gcs import BucketClient  # noqa: PLC0415  (google's libraries are large)

    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(locked(project, part, "push"))
        paths = {name: project.folder / name for name in _names(project, part)}
        if not part.is_run:
            with project.ledger(read_only=dry_run):
                pass  # an older format is migrated, so that its copies stay the same
            paths |= stack.enter_context(local.derived_files(project, part.splits))
        client = BucketClient(part.folder(destination), connections=THREADS)
        stack.enter_context(contextlib.closing(client))
        pushing = _Push(project, part, client, paths, local.facts_of(paths))
        pushing.check(overwrite=overwrite)
        yield pushing


def _names(project: Project, part: ProjectPart) -> list[str]:
    if not part.is_run:
        split_stage.load_lists(project)
    return parts.local_names(project, part)


@contextlib.contextmanager
def locked(project: Project, part: ProjectPart, operation: str) -> Iterator[None]:
    """Hold the lock of a part while the block runs.

    Raises:
        LockedError: Another process is changing the dataset, or is training the run.
    """
    run = Run(project.runs_folder / part.name)
    with run.lock(operation) if part.is_run else project.data_lock(operation):
        yield


class _Push:
    """The push of one part."""

    def __init__(
        self,
        project: Project,
        part: ProjectPart,
        client: BucketClient,
        paths: Mapping[str, Path],
        facts: Mapping[str, FileFacts],
    ) -> None:
        self._project, self._part, self._client = project, part, client
        self._paths, self._facts = paths, facts
        found = manifest.read(client, part)
        self._remote: Manifest | None = found[0] if found else None
        self._stored = dict(client.list_objects())

    def check(self, *, overwrite: bool) -> None:
        """Raise if the push would replace what this project does not have.

        Raises:
            UsageError: The folder has another project, or changes that this one does not have.
        """
        if self._remote is None:
            return
        check_identity(self._project, self._remote, self._client.folder)
        if overwrite or not self._is_newer(self._remote):
            return
        raise UsageError(
            f"{self._part} was pushed there from elsewhere since the last transfer",
            where=str(self._client.folder),
            expected="what this project pushed or pulled last",
            found=f"a push of {self._remote.pushed_at}",
            remedy="Run `oiyolo pull` first, or `oiyolo push --overwrite` to replace it",
        )

    def _is_newer(self, remote: Manifest) -> bool:
        """Return whether the bucket has changes that this project does not have."""
        before = state.saved(self._project, self._client.folder, self._part)
        if self._part.is_run:
            return bool(unseen_names(self._facts, remote, before))
        known = state.known_ledgers(self._project, self._part)
        found = compare_ledgers(self._facts[parts.LEDGER], remote, before, known)
        return found in {Direction.BEHIND, Direction.CONFLICT}

    def actions(self) -> list[str]:
        """Return what would be done, in words."""
        changed = changed_names(self._facts, self._stored)
        size = format_bytes(sum(self._facts[name].size_bytes for name in changed))
        actions = []
        if changed:
            what = f"{pluralize(len(changed), 'file')} of {self._part}, {size}"
            actions.append(f"send {what}, to {self._client.folder}")
        if leftovers := self._leftovers():
            actions.append(f"delete {pluralize(len(leftovers), 'file')} there that are not here")
        return actions

    def send(self) -> Transferred:
        """Send what has changed, and then the manifest."""
        project_id = state.identity(self._project) or state.new_identity()
        state.save_identity(self._project, project_id)
        what = f"push {self._part.name or self._part.kind}"
        sent = send_files(self._client, self._paths, self._facts, self._stored, what=what)
        pushed = self._remote
        if pushed is None or pushed.files != self._facts:
            pushed = manifest.new(project_id, self._part, self._facts)
            content = pushed.as_bytes()
            self._client.put(content, manifest.NAME, content_type="application/json")
        state.save(self._project, self._client.folder, pushed)
        return sent

    def delete_leftovers(self) -> int:
        """Delete the files of the part that the project does not have; return their number."""
        for name in self._leftovers():
            self._client.delete(name)
        return len(self._leftovers())

    def _leftovers(self) -> list[str]:
        return [n for n in self._stored if self._part.is_valid_name(n) and n not in self._facts]


def check_identity(project: Project, remote: Manifest, folder: BucketFolder) -> None:
    """Raise UsageError if a folder of a bucket was pushed from another project."""
    own = state.identity(project)
    if own != remote.project:
        raise UsageError(
            "this folder of the bucket was pushed from another project",
            where=str(folder),
            expected=f"the project {own}" if own else "a folder without a project",
            found=f"the project {remote.project}",
            remedy="Use another folder of the bucket, or another project",
        )
