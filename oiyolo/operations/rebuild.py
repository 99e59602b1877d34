"""Rebuild a frozen dataset (``oiyolo run --from``), and list what differs from it."""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo import __version__
from oiyolo.core import files
from oiyolo.core.clock import utc_today
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import format_value, pluralize
from oiyolo.label_errors import decisions
from oiyolo.project import withdrawn
from oiyolo.project.config import FILE_NAME, as_dict
from oiyolo.project.frozen import FrozenDataset
from oiyolo.project.keys import KEYS
from oiyolo.project.ledger import SPLITS, WITHDRAWN
from oiyolo.project.project import Project, open_project
from oiyolo.provenance import lock_file
from oiyolo.sources.event_loop import OTHER_BYTES
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.project.project import ProjectLike
    from oiyolo.provenance.lock_file import DatasetLock, LockedImage

_log = logging.getLogger("oiyolo")

NAME: Final = "lock_differences.csv"
_COLUMNS: Final = ("ImageID", "split", "difference", "detail")
MISSING: Final = "missing"
OTHER_FILE: Final = "another file"
OTHER_ROTATION: Final = "another rotation"
OTHER_BOXES: Final = "other boxes"
OTHER_PIXELS: Final = "prepared differently"
_WHY_WITHDRAWN: Final = "withdrawn from the frozen dataset"


@dataclass(frozen=True)
class LockDifference:
    """How an image differs from the frozen dataset.

    Attributes:
        image_id: The image.
        split: Its split in the frozen dataset.
        kind: What differs.
        detail: Why, or what is there instead; may be empty.
    """

    image_id: str
    split: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class LockComparison:
    """A rebuilt dataset compared with the frozen one.

    Attributes:
        images: Number of images in the frozen dataset.
        differences: The images that differ.
        notes: What else differs, in sentences.
        path: The table of the differences, which exists if there are any.
    """

    images: int
    differences: Sequence[LockDifference]
    notes: Sequence[str]
    path: Path

    def as_dict(self) -> dict[str, object]:
        """Return the comparison as JSON-compatible values."""
        return {
            "images": self.images,
            "identical": self.images - len(self.differences),
            "differences": dict(self._counts().most_common()),
            "notes": list(self.notes),
        }

    def _counts(self) -> Counter[str]:
        return Counter(difference.kind for difference in self.differences)

    def __str__(self) -> str:
        if not self.differences:
            lines = [f"all {self.images:,} images and labels are those of the lock, byte for byte"]
        else:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in self._counts().most_common())
            differing = f"{len(self.differences):,} of {pluralize(self.images, 'image')}"
            lines = [f"{differing} of the lock differ: {kinds} (see {self.path})"]
        return "\n".join([*lines, *self.notes])


def open_frozen(
    project: ProjectLike, path: str | Path, options: Mapping[str, object], *, dry_run: bool
) -> tuple[Project, DatasetLock]:
    """Open a project in which a frozen dataset is to be rebuilt, and read its lock.

    A folder without a project gets one with the options of the lock.

    Args:
        project: An open project or its folder.
        path: The lock.
        options: Values by key name, which may not decide the dataset.
        dry_run: Whether to write nothing.

    Raises:
        UsageError: The project's options or splits contradict the lock.
        InputFormError: The lock is damaged, or was written by a newer oiyolo.
    """
    lock = lock_file.read(Path(path))
    if own := sorted(lock_file.DECISIVE & {n for n, value in options.items() if value is not None}):
        raise UsageError(
            f"--from cannot be combined with --{own[0].replace('_', '-')}",
            where=str(path),
            remedy="The lock decides it; omit the option",
        )
    if not isinstance(project, Project) and not (Path(project) / FILE_NAME).is_file():
        defaults = {key.name: as_json(key.default) for key in KEYS}
        locked = {n: v for n, v in lock.options.items() if v != defaults[n] or n == "classes"}
        options = {**locked, **{n: v for n, v in options.items() if v is not None}}
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    _check_options(opened, lock)
    _check_imports(opened, lock)
    _check_splits(opened, lock)
    _check_decisions(opened, lock)
    frozen = FrozenDataset(
        lock.fingerprint,
        {image.image_id: image.split for image in lock.images},
        {image.image_id: image.md5 for image in lock.images},
    )
    return replace(opened, frozen=frozen), lock


def as_json(value: object) -> object:
    """Return a value as JSON has it: a tuple as a list."""
    return list(value) if isinstance(value, tuple) else value


def _check_options(project: Project, lock: DatasetLock) -> None:
    for section in ("dataset", "openimages", "images", "split"):
        for name, value in as_dict(getattr(project.config, section)).items():
            if name in lock_file.DECISIVE and value != lock.options.get(name, value):
                raise UsageError(
                    f"[{section}] {name} is not that of the frozen dataset",
                    where=str(project.options_path),
                    expected=format_value(lock.options[name]),
                    found=format_value(value),
                    remedy="Use an empty folder (--project), or change the option",
                )


def _check_imports(project: Project, lock: DatasetLock) -> None:
    """Raise if the project lacks an import of the lock, whose images only its folder has."""
    present = project.imports()
    for name, source_format in lock.imports.items():
        if name not in present:
            project.discard_if_new()
            raise UsageError(
                f"the frozen dataset has images of the import {name}, which is missing here",
                where=str(project.folder),
                found=", ".join(present) or "no import",
                remedy=f"Import its folder first: `oiyolo import {source_format} FOLDER --name "
                f"{name}`, then run the same command again",
            )


def _check_splits(project: Project, lock: DatasetLock) -> None:
    """Raise if an image of the lock has another split in the project, which it would keep."""
    if not project.ledger_path.is_file():
        return
    with project.ledger(read_only=True) as ledger:
        split_by_id = {row.image_id: row.split for row in ledger.split_records()}
    others = [i for i in lock.images if split_by_id.get(i.image_id, i.split) != i.split]
    if others:
        raise UsageError(
            f"{pluralize(len(others), 'image')} of the frozen dataset have another split in this "
            "project, and an image keeps its split",
            where=str(project.folder),
            found=f"{others[0].image_id} is in {split_by_id[others[0].image_id]}, "
            f"not in {others[0].split}",
            remedy="Use an empty folder (--project)",
        )


def _check_decisions(project: Project, lock: DatasetLock) -> None:
    """Raise if the project has decisions about labels of the lock's images that the lock lacks."""
    ids, known = {image.image_id for image in lock.images}, set(lock.review)
    own = [
        row
        for row in decisions.effective(decisions.read(project.review_path))
        if row.image_id in ids and row not in known
    ]
    if own:
        raise UsageError(
            f"{pluralize(len(own), 'decision')} about labels of the frozen dataset "
            f"{'is' if len(own) == 1 else 'are'} not part of it",
            where=str(project.review_path),
            found=f"for example {own[0].decision} in {own[0].image_id}",
            remedy="Use an empty folder (--project), or delete these decisions",
        )


def record_decisions(project: Project, lock: DatasetLock) -> None:
    """Add the lock's decisions about labels to the project's; takes the dataset's lock."""
    if new := _new_decisions(project, lock):
        with project.data_lock("run"):
            before = decisions.read(project.review_path)
            decisions.write(project.review_path, [*before, *new])


def _new_decisions(project: Project, lock: DatasetLock) -> list[ReviewRow]:
    known = set(decisions.effective(decisions.read(project.review_path)))
    return [row for row in lock.review if row not in known]


def record_withdrawn(project: Project, lock: DatasetLock) -> None:
    """Withdraw the images that are withdrawn from the frozen dataset; takes the dataset's lock."""
    if new := _new_withdrawals(project, lock):
        today = utc_today()
        with project.data_lock("run"):
            rows = [withdrawn.Withdrawal(i, today, _WHY_WITHDRAWN) for i in new]
            withdrawn.write(project.withdrawn_path, [*project.withdrawals().values(), *rows])


def _new_withdrawals(project: Project, lock: DatasetLock) -> list[str]:
    before = project.withdrawals()
    return [i for i in lock.withdrawn if i not in before]


def planned_records(project: Project, lock: DatasetLock) -> list[str]:
    """Return what ``record_withdrawn`` and ``record_decisions`` would do, in words."""
    images, rows = _new_withdrawals(project, lock), _new_decisions(project, lock)
    actions = [f"withdraw {pluralize(len(images), 'image')} of the lock"] if images else []
    if rows:
        decided = pluralize(len(rows), "decision")
        actions.append(f"add {decided} about labels to {project.review_path}")
    return actions


def compare(project: Project, lock: DatasetLock) -> LockComparison:
    """Compare a project's dataset with a lock, and write the table of differences.

    Without differences, the table of an earlier comparison is removed.
    """
    differences = list(_differences(project, lock))
    path = project.data_folder / NAME
    if differences:
        files.write_text(path, _render(differences))
    else:
        path.unlink(missing_ok=True)
    return LockComparison(
        len(lock.images), differences, list(_notes(project, lock, differences)), path
    )


def check(comparison: LockComparison, tolerance: float) -> None:
    """Raise if more images differ than allowed; warn if some do.

    Raises:
        InputFormError: More images differ than ``[images] tolerance`` allows.
    """
    differing, allowed = len(comparison.differences), int(tolerance * comparison.images)
    if differing > allowed:
        raise InputFormError(
            f"the rebuilt dataset is not the frozen one: {comparison}",
            expected=f"at most {allowed:,} images that differ ([images] tolerance = {tolerance:g})",
            remedy="With a higher tolerance (--tolerance) the run continues with this dataset",
        )
    if differing:
        _log.warning("%s", comparison)


def _differences(project: Project, lock: DatasetLock) -> Iterator[LockDifference]:
    selection = select_stage.load(project)
    rotations = selection.rotation_by_id
    with project.ledger(read_only=True) as ledger:
        for image in lock.images:
            row = ledger.row(image.image_id)
            found = _difference(project, image, row or {}, rotations.get(image.image_id))
            if found is not None:
                yield LockDifference(image.image_id, image.split, *found)


def _difference(
    project: Project, image: LockedImage, row: Mapping[str, Any], rotation: int | None
) -> tuple[str, str] | None:
    """Return in which respect an image differs first, and its detail; ``None`` if it does not."""
    if rotation is None or row.get("state") not in SPLITS:
        return _why_missing(row, is_selected=rotation is not None)
    if image.md5 not in {"", row["md5"]}:
        return OTHER_FILE, f"MD5 {row['md5']}, expected {image.md5}"
    if rotation != image.rotation:
        return OTHER_ROTATION, f"{rotation} degrees, expected {image.rotation}"
    prepared, label = prepare_stage.prepared_paths(project, image.image_id)
    if files.sha256_of(label) != image.label_sha256:
        return OTHER_BOXES, ""
    return None if files.sha256_of(prepared) == image.image_sha256 else (OTHER_PIXELS, "")


def _why_missing(row: Mapping[str, Any], *, is_selected: bool) -> tuple[str, str]:
    reason = str(row.get("reason") or "")
    if reason == WITHDRAWN:
        return MISSING, "withdrawn in this project"
    if not is_selected:
        return MISSING, "the annotations no longer have it, or no box of it that the options keep"
    if OTHER_BYTES in reason:
        return OTHER_FILE, reason
    return MISSING, reason or str(row.get("state"))


def _render(differences: Sequence[LockDifference]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((d.image_id, d.split, d.kind, d.detail) for d in differences)
    return text.getvalue()


def _notes(
    project: Project, lock: DatasetLock, differences: Sequence[LockDifference]
) -> Iterator[str]:
    """Yield what else differs, and what may explain the differences."""
    _, tables = select_stage.recorded_inputs(project)
    changed = [t.path for t in lock.tables if not _has_table(tables, t.path, t.md5)]
    if changed:
        yield f"the annotation files changed since the dataset was frozen: {', '.join(changed)}"
    if not differences:
        names = [n for n, d in lock.files.items() if _sha256(project, n) != d]
        if names:
            yield f"not identical: {', '.join(names)}"
    method = prepare_stage.METHOD_VERSION
    if lock.method != method or (differences and lock.version != __version__):
        yield (
            f"frozen by oiyolo {lock.version} (preparation {lock.method}); this is oiyolo "
            f"{__version__} (preparation {method})"
        )


def _has_table(md5_by_url: Mapping[str, str], path: str, md5: str) -> bool:
    versions = [version for url, version in md5_by_url.items() if url.endswith(f"/{path}")]
    return md5 == "" or md5 in versions or not any(versions)


def _sha256(project: Project, name: str) -> str:
    path = project.dataset_folder / Path(name).name
    return files.sha256_of(path) if path.is_file() else ""
