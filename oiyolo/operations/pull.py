"""pull: copy the dataset, a split of it, or runs from a bucket into a project, or a new one."""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import disks
from oiyolo.core.errors import LockedError, UnavailableError, UsageError
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.core.units import format_bytes
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.operations.push import as_names, check_identity, describe, locked
from oiyolo.project import ledger_copy
from oiyolo.project.project import Project, open_or_default
from oiyolo.training.run import ids_in_use
from oiyolo.transfer import local, manifest, parts, state
from oiyolo.transfer.direction import (
    Direction,
    compare_ledgers,
    wanted_names,
    wanted_run_names,
)
from oiyolo.transfer.download import receive_files
from oiyolo.transfer.threads import THREADS
from oiyolo.transfer.upload import Transferred

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Literal

    from oiyolo.net.buckets import BucketFolder, FileFacts
    from oiyolo.net.gcs import BucketClient
    from oiyolo.project.project import ProjectLike
    from oiyolo.transfer.manifest import Manifest
    from oiyolo.transfer.parts import ProjectPart

_log = logging.getLogger("oiyolo")

_MARGIN_BYTES: Final = 64 << 20
"""What stays free on the disk."""
_SHOWN_NAMES: Final = 3


@dataclass(frozen=True)
class Pulled(Result):
    """Result of ``oiyolo pull``.

    Attributes:
        folder: The project's folder.
        parts: What was received of each part.
        kept: Files that were changed here only, and were kept.
        deleted: Number of prepared images and labels that were deleted, because the dataset in the
            bucket does not have them any more.
    """

    folder: Path
    parts: Mapping[str, Transferred]
    kept: Sequence[str]
    deleted: int

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "folder": str(self.folder),
            "parts": {name: vars(part) for name, part in self.parts.items()},
            "kept": list(self.kept),
            "deleted": self.deleted,
        }

    def __str__(self) -> str:
        lines = [f"pulled into {self.folder}"]
        lines += [f"  {name}: {describe(part)}" for name, part in self.parts.items()]
        if self.kept:
            lines.append(f"  kept, because they were changed here: {_shown(self.kept)}")
        if self.deleted:
            lines.append(f"  deleted here: {pluralize(self.deleted, 'file')}")
        return "\n".join(lines)


@overload
def pull(
    source: str,
    project: ProjectLike = ...,
    *,
    split: str | Sequence[str] | None = ...,
    run: str | Sequence[str] | None = ...,
    overwrite: bool = ...,
    dry_run: Literal[False] = ...,
) -> Pulled: ...


@overload
def pull(
    source: str,
    project: ProjectLike = ...,
    *,
    split: str | Sequence[str] | None = ...,
    run: str | Sequence[str] | None = ...,
    overwrite: bool = ...,
    dry_run: bool,
) -> Pulled | Plan: ...


def pull(
    source: str,
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    run: str | Sequence[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Pulled | Plan:
    """Copy the dataset, a split of it, or runs from a bucket; only what differs is received.

    Without ``split`` and ``run``: everything that was pushed there, except single splits. A folder
    without a project becomes one.

    Args:
        source: ``gs://bucket/prefix``, to which a project was pushed.
        project: An open project or its folder, which need not exist.
        split: Names of the only splits to pull, as they were pushed.
        run: Names of the runs to pull.
        overwrite: Whether to replace files that were changed here, too.
        dry_run: Whether to only report what would be received.

    Raises:
        UsageError: The URL is invalid, nothing was pushed there, the folder has another project,
            or both sides were changed.
        InputFormError: A manifest is damaged, or was written by a newer oiyolo.
        UnavailableError: The bucket does not respond, refuses this user, or does not have what its
            manifest lists; or the disk is too small.
        LockedError: Another process is changing the dataset, or a training uses what would change.
    """
    folder = parse_bucket_url(source)
    opened = _open(project)
    with contextlib.ExitStack() as stack:
        pulls = _pulls(opened, folder, _chosen_parts(folder, split, run), stack)
        if dry_run:
            for pulling in pulls:
                pulling.decide(overwrite=overwrite)
            return Plan("pull", [action for pulling in pulls for action in pulling.actions()])
        received: dict[str, Transferred] = {}
        deleted = 0
        for pulling in pulls:
            with locked(opened, pulling.part, "pull"):
                pulling.decide(overwrite=overwrite)
                received[str(pulling.part)] = pulling.receive()
                deleted += pulling.delete_withdrawn()
    kept = [name for pulling in pulls for name in pulling.kept]
    return Pulled(opened.folder, received, kept, deleted)


def _open(project: ProjectLike) -> Project:
    """Open a project, or a folder that is to become one."""
    if isinstance(project, Project) or Path(project).is_dir():
        return open_or_default(project)
    path = Path(project).absolute()
    if path.exists():
        raise UsageError("this is not a folder", where=str(path))
    return Project(path, open_or_default(disks.nearest_folder(path)).config)


def _chosen_parts(
    source: BucketFolder, split: str | Sequence[str] | None, run: str | Sequence[str] | None
) -> list[ProjectPart]:
    """Return the parts to pull, without asking whether they were pushed."""
    chosen = [parts.split_part(as_names(split))] if split else []
    chosen += [parts.run_part(name) for name in as_names(run)]
    if chosen:
        return chosen
    from oiyolo.net.gcs import BucketClient  # noqa: PLC0415  (google's libraries are large)

    client = BucketClient(source.subfolder("runs"))
    with contextlib.closing(client):
        paths = [name.split("/") for name in client.list_names()]
    names = [path[0] for path in paths if path[1:] == [manifest.NAME]]
    return [parts.ProjectPart(parts.DATASET), *(parts.run_part(name) for name in names)]


def _pulls(
    project: Project,
    source: BucketFolder,
    chosen: Sequence[ProjectPart],
    stack: contextlib.ExitStack,
) -> list[_Pull]:
    """Return the pulls of the parts.

    Raises:
        UsageError: A part was not pushed, or the folder has another project.
        UnavailableError: The bucket does not have what a manifest lists.
    """
    from oiyolo.net.gcs import BucketClient  # noqa: PLC0415  (google's libraries are large)

    pulls = []
    for part in chosen:
        client = BucketClient(part.folder(source), connections=THREADS)
        stack.enter_context(contextlib.closing(client))
        found = manifest.read(client, part)
        if found is None:
            raise manifest.missing_error(part, client, is_begun=bool(client.has_objects()))
        stored = dict(client.list_objects())
        manifest.check_complete(found[0], stored, where=str(client.folder))
        pulls.append(_Pull(project, part, client, *found))
    for pulling in pulls:
        pulling.check_project(pulls[0].remote)
    return pulls


class _Pull:
    """The pull of one part.

    Attributes:
        part: The part.
        remote: The manifest in the bucket.
        kept: Files that differ, because they were changed here only.
    """

    def __init__(
        self,
        project: Project,
        part: ProjectPart,
        client: BucketClient,
        remote: Manifest,
        remote_bytes: bytes,
    ) -> None:
        self.part, self.remote = part, remote
        self._project, self._client, self._remote_bytes = project, client, remote_bytes
        self._names: list[str] = []
        self._facts: Mapping[str, FileFacts] = {}
        self.kept: list[str] = []
        self._is_taken = False
        """Whether the dataset becomes the one in the bucket."""
        self._is_ahead = False
        """Whether the project's dataset is newer than the one in the bucket."""

    def check_project(self, first: Manifest) -> None:
        """Raise unless the folder has the same project, or none.

        Args:
            first: The manifest of the first part.

        Raises:
            UsageError: It has another one.
        """
        if self.remote.project != first.project:
            raise UsageError(
                "the parts were pushed from different projects",
                where=str(self._client.folder),
                expected=f"the project {first.project}",
                found=f"the project {self.remote.project}",
                remedy="Pull one of them alone, with --run or --split",
            )
        is_empty = not (self._project.ledger_path.exists() or any(self._runs()))
        if state.identity(self._project) is not None or not is_empty:
            check_identity(self._project, self.remote, self._client.folder)

    def _runs(self) -> Iterator[Path]:
        return self._project.runs_folder.glob("*/run.json")

    def decide(self, *, overwrite: bool) -> None:
        """Find the files to receive; nothing is changed.

        Args:
            overwrite: Whether to replace files that were changed here, too.

        Raises:
            UsageError: Both sides were changed, or a link is in the way.
            LockedError: A training in progress uses images that would change.
        """
        folder = self._project.folder
        incoming = state.incoming_folder(self._project, self.part).relative_to(folder).as_posix()
        parts.check_places(folder, self.remote.files)
        parts.check_places(folder, (f"{incoming}/{name}" for name in self.remote.files))
        before = state.saved(self._project, self._client.folder, self.part)
        self._facts = self._local_facts()
        conflicts: list[str] = []
        if overwrite:
            self._names = self._differing()
            self._is_taken = True
        elif self.part.is_run:
            self._names, conflicts = wanted_run_names(self._facts, self.remote, before)
        else:
            known = state.known_ledgers(self._project, self.part)
            own = self._facts.get(parts.LEDGER)
            ledger = compare_ledgers(own, self.remote, before, known)
            self._check_split(ledger)
            self._note(ledger)
            self._names, conflicts = wanted_names(self._facts, self.remote, before, ledger)
        if conflicts:
            raise self._conflict_error(conflicts)
        wanted = set(self._names)
        self.kept = [n for n in self._differing() if n not in wanted and n in self._facts]
        self._check_runs_in_progress()

    def _note(self, ledger: Direction) -> None:
        """Note whose dataset is newer, by the state of the ledger."""
        self._is_taken = ledger is Direction.BEHIND
        self._is_ahead = ledger is Direction.AHEAD
        if self._is_ahead:
            _log.warning(
                "pull: %s is newer here than in the bucket, and is kept; `oiyolo push` sends it, "
                "and `oiyolo pull --overwrite` replaces it",
                self.part,
            )

    def _differing(self) -> list[str]:
        return [n for n, facts in self.remote.files.items() if self._facts.get(n) != facts]

    def _local_facts(self) -> dict[str, FileFacts]:
        with contextlib.ExitStack() as stack:
            paths = {name: self._project.folder / name for name in self.remote.files}
            if not self.part.is_run and self._project.ledger_path.exists():
                paths |= stack.enter_context(local.derived_files(self._project))
            return local.facts_of(paths)

    def _check_split(self, ledger: Direction) -> None:
        """Raise if a single split would replace a dataset that is more than this split."""
        own = self._facts.get(parts.LEDGER)
        if self.part.kind != "split" or own is None or ledger is Direction.SAME:
            return
        before = state.saved(self._project, self._client.folder, self.part)
        if before is None or before.files.get(parts.LEDGER) != own:
            raise UsageError(
                f"this project has a dataset already, which {self.part} alone would replace",
                where=str(self._project.folder),
                remedy="Pull the whole dataset, without --split; or pull the split into another "
                "folder",
            )

    def _conflict_error(self, conflicts: Sequence[str]) -> UsageError:
        return UsageError(
            f"{self.part} was changed both here and in the bucket",
            where=str(self._project.folder),
            expected=f"no local changes since the last transfer with {self._client.folder}",
            found=f"changes of {_shown(conflicts)}",
            remedy="`oiyolo pull --overwrite` replaces the local files; to keep them, copy them "
            "elsewhere first",
        )

    def _check_runs_in_progress(self) -> None:
        if self.part.is_run or not any(name in self._facts for name in self._names):
            return
        used = ids_in_use(self._project.runs_folder)
        replaced = [name for name in self._names if name in self._facts]
        in_use = [name for name in replaced if Path(name).stem in used]
        if in_use:
            raise LockedError(
                f"{pluralize(len(in_use), 'file')} that a training run in progress uses would "
                "change",
                where=str(self._project.folder / in_use[0]),
                remedy="Wait until the training ends, then run the same command again",
            )

    def actions(self) -> list[str]:
        """Return what would be done, in words."""
        if not self._names:
            return []
        what = f"{pluralize(len(self._names), 'file')} of {self.part}, {format_bytes(self._bytes)}"
        return [f"receive {what}, into {self._project.folder}"]

    @property
    def _bytes(self) -> int:
        return sum(self.remote.files[name].size_bytes for name in self._names)

    def receive(self) -> Transferred:
        """Receive the files, and move them to their places when all are complete.

        Raises:
            UnavailableError: As for ``pull``.
        """
        project = self._project
        state.save_identity(project, self.remote.project)
        paths = {name: self._path(name) for name in self._names}
        staged = local.facts_of(paths)
        rest = {n: p for n, p in paths.items() if staged.get(n) != self.remote.files[n]}
        self._check_space(rest)
        what = f"pull {self.part.name or self.part.kind}"
        retry = "then run the same command again; it continues"
        with disks.convert_disk_full_error(project.folder, what="the pulled files", remedy=retry):
            receive_files(self._client, rest, self.remote.files, what=what)
            self._check_unchanged()
            if parts.LEDGER in paths:
                ledger_copy.check(paths[parts.LEDGER])
            self._install(paths)
        unchanged = len(self.remote.files) - len(self._differing())
        if not self._is_ahead:
            state.save(project, self._client.folder, self.remote)
        return Transferred(len(paths), self._bytes, unchanged)

    def _path(self, name: str) -> Path:
        """Return where a file is received: new images in place, all others aside."""
        is_new_image = name.startswith(f"{parts.OBJECTS}/") and name not in self._facts
        folder = state.incoming_folder(self._project, self.part)
        return self._project.folder / name if is_new_image else folder / name

    def _check_space(self, rest: Mapping[str, Path]) -> None:
        size_bytes = sum(self.remote.files[name].size_bytes for name in rest)
        disks.check_free_space(
            self._project.folder,
            size_bytes + _MARGIN_BYTES if rest else 0,
            what=f"{self.part}",
            remedy="or pull into a folder on a larger disk",
        )

    def _check_unchanged(self) -> None:
        found = manifest.read(self._client, self.part)
        if found is None or found[1] != self._remote_bytes:
            raise UnavailableError(
                f"{self.part} was pushed again while it was pulled",
                where=str(self._client.folder),
                remedy="Run the same command again; files that are the same are kept",
            )

    def _install(self, paths: Mapping[str, Path]) -> None:
        """Move the files to their places, those last that declare the others complete."""
        project = self._project
        recipe = project.folder / parts.SPLIT_RECIPE
        if self._is_taken and not self.part.is_run and recipe.exists():
            # Without its recipe the dataset is incomplete, until all files are in their places.
            aside = self._path(parts.SPLIT_RECIPE)
            if parts.SPLIT_RECIPE not in paths:
                aside.parent.mkdir(parents=True, exist_ok=True)
                recipe.replace(aside)
            recipe.unlink(missing_ok=True)
            paths = {**paths, parts.SPLIT_RECIPE: aside}
        for name in sorted(paths, key=parts.order):
            target = project.folder / name
            if name == parts.LEDGER:
                ledger_copy.install_copy(paths[name], target)
            elif paths[name] != target:
                target.parent.mkdir(parents=True, exist_ok=True)
                paths[name].replace(target)
        shutil.rmtree(state.incoming_folder(project, self.part), ignore_errors=True)

    def delete_withdrawn(self) -> int:
        """Delete prepared files that the new dataset does not have; return their number."""
        if self.part.is_run or not self._is_taken:
            return 0
        used = ids_in_use(self._project.runs_folder)
        deleted = 0
        for path in self._project.objects_folder.iterdir():
            name = f"{parts.OBJECTS}/{path.name}"
            is_ours = self.part.is_valid_name(name) and name not in self.remote.files
            if is_ours and path.stem not in used:
                path.unlink()
                deleted += 1
        return deleted


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
