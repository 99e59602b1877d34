"""freeze: write ``dataset.lock``, from which ``oiyolo run --from`` rebuilds the same dataset."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

from oiyolo import __version__
from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.label_errors import decisions
from oiyolo.net.urls import display_url
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.releases import release
from oiyolo.project.config import as_dict
from oiyolo.project.keys import KEYS, DatasetOptions
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.provenance.lock_file import (
    DECISIVE,
    NAME,
    OF_IMPORTS,
    DatasetLock,
    LockedImage,
    LockedTable,
    is_shared_source,
)
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Literal

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.stages.select import Selection

_FILES: Final = ("boxes.csv", "obj.names")
"""The files of the dataset that do not depend on where the project is."""
_FOLDER: Final = "folder"


@dataclass(frozen=True)
class Frozen(Result):
    """A frozen dataset.

    Attributes:
        path: The file.
        images: Number of images by split.
        changed: Whether the file was written, because its content is new.
    """

    path: Path
    images: Mapping[str, int]
    changed: bool

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {"path": str(self.path), "images": dict(self.images), "changed": self.changed}

    def __str__(self) -> str:
        if not self.changed:
            return f"freeze: nothing to do; {self.path} is up to date"
        counts = ", ".join(f"{split} {n:,}" for split, n in self.images.items())
        total = pluralize(sum(self.images.values()), "image")
        return f"froze {total} ({counts}) in {self.path}"


@overload
def freeze(
    project: ProjectLike = ..., *, out: str | Path | None = ..., dry_run: Literal[False] = ...
) -> Frozen: ...


@overload
def freeze(
    project: ProjectLike = ..., *, out: str | Path | None = ..., dry_run: Literal[True]
) -> Plan: ...


@overload
def freeze(
    project: ProjectLike = ..., *, out: str | Path | None = ..., dry_run: bool
) -> Frozen | Plan: ...


def freeze(
    project: ProjectLike = ".", *, out: str | Path | None = None, dry_run: bool = False
) -> Frozen | Plan:
    """Write a file that decides the dataset: options, images, checksums and splits.

    Args:
        project: An open project or its folder.
        out: The file; ``dataset.lock`` in the project's folder by default.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: The dataset is not split, or not up to date with its own ledger.
        InputFormError: A file of the dataset is missing or damaged.
        LockedError: Another process is changing the dataset.
    """
    opened = open_project(project)
    path = opened.folder / NAME if out is None else Path(out).absolute()
    if dry_run:
        lock = lock_of(opened)
        images = pluralize(len(lock.images), "image")
        return Plan("freeze", [f"write {path} ({images})"] if _is_new(path, lock) else [])
    with opened.data_lock("freeze"):
        lock = lock_of(opened)
        changed = _is_new(path, lock)
        if changed:
            files.write_text(path, lock.render())
    counts = {split: sum(image.split == split for image in lock.images) for split in SPLITS}
    return Frozen(path, counts, changed)


def _is_new(path: Path, lock: DatasetLock) -> bool:
    try:
        return files.read_bytes(path) != lock.render().encode()
    except FileNotFoundError:
        return True


def lock_of(project: Project) -> DatasetLock:
    """Return the dataset of a project as it is on the disk.

    Raises:
        UsageError, InputFormError: As for ``freeze``.
    """
    selection = select_stage.load(project)
    split_by_id = _split_by_id(project)
    recorded, tables = select_stage.recorded_inputs(project)
    options = {**as_dict(DatasetOptions()), **recorded}
    with project.ledger(read_only=True) as ledger:
        images = list(_locked_images(project, selection, ledger, split_by_id))
    return DatasetLock(
        version=__version__,
        method=prepare_stage.METHOD_VERSION,
        options=_options(project, options),
        labels=selection.summary["labels"],
        tables=_tables(project, options["subsets"], tables),
        withdrawn=sorted(project.withdrawals()),
        files={name: files.sha256_of(project.dataset_folder / name) for name in _FILES},
        images=images,
        imports={n: record.format for n, record in project.imports().items()},
        review=_decisions(project, selection, split_by_id),
    )


def _decisions(
    project: Project, selection: Selection, split_by_id: Mapping[str, str]
) -> list[ReviewRow]:
    """Return the decisions about labels that the labels of the images are the result of.

    Raises:
        UsageError: Decisions in ``data/review.csv`` are not applied yet.
    """
    if not prepare_stage.is_review_applied(project):
        raise UsageError(
            "the decisions about labels changed since the images were prepared",
            where=str(project.review_path),
            remedy="Run `oiyolo split` first",
        )
    rows = decisions.changes_of(decisions.read(project.review_path))
    if not rows:
        return []
    left_out = prepare_stage.review_boxes(project, selection).not_applied
    return decisions.effective(
        row for row in rows if row.image_id in split_by_id and row not in left_out
    )


def _split_by_id(project: Project) -> dict[str, str]:
    """Return the split of each image, from the lists.

    Raises:
        UsageError: The lists, the ledger and the prepared files do not agree.
    """
    split_stage.load_lists(project)
    paths = {split: split_stage.image_paths(project, split) for split in SPLITS}
    split_by_id = {Path(path).stem: split for split, own in paths.items() for path in own}
    with project.ledger(read_only=True) as ledger:
        agrees = split_by_id == ledger.column("state", *SPLITS)
        lost = prepare_stage.lost_ids(project, ledger)
    if lost or not agrees:
        raise UsageError(
            "the dataset is not up to date, so it cannot be frozen",
            where=str(project.dataset_folder),
            found=f"the image or label of {pluralize(len(lost), 'image')} is missing or damaged"
            if lost
            else "the lists and the ledger name different images",
            remedy="Run `oiyolo split` first",
        )
    return split_by_id


def _options(project: Project, dataset: Mapping[str, Any]) -> dict[str, object]:
    """Return the options with which the dataset was made, which may be those of single calls."""
    sources = list(filter(is_shared_source, project.config.images.sources))
    config = project.config
    values: dict[str, object] = {
        **dataset,
        **as_dict(config.openimages),
        **prepare_stage.prepared_options(project),
        **as_dict(split_stage.recorded_options(project)),
    }
    places = {
        "base_url": display_url(config.openimages.base_url),
        "mirror_url": display_url(config.images.mirror_url),
        **({"sources": sources} if sources else {}),  # a folder is of this machine only
    }
    decisive = DECISIVE if project.imports() else DECISIVE - OF_IMPORTS
    return {**{key.name: values[key.name] for key in KEYS if key.name in decisive}, **places}


def _tables(
    project: Project, subsets: Sequence[str], md5_by_url: Mapping[str, str]
) -> list[LockedTable]:
    """Return the official files, with the SHA-256 of those of which the cache has a copy."""
    options = project.config.openimages
    tables = []
    with contextlib.closing(Cache(project.cache_folder, options.base_url)) as cache:
        for official in release(options.release).files(subsets) if subsets else ():
            md5 = md5_by_url.get(display_url(f"{cache.base_url}/{official.path}"), "")
            copy = cache.find(official)
            sha256 = files.sha256_of(copy.path) if copy and copy.version == md5 else ""
            tables.append(LockedTable(official.path, md5, sha256))
    return tables


def _locked_images(
    project: Project, selection: Selection, ledger: Ledger, split_by_id: Mapping[str, str]
) -> Iterator[LockedImage]:
    """Yield the images of the dataset, in order of ids."""
    rotations = selection.rotation_by_id
    subsets, sources = ledger.column("subset"), ledger.column("source")
    sizes, digests = ledger.column("bytes"), ledger.column("md5")
    with progress("freeze", total=len(split_by_id), unit="img") as bar:
        for image_id in sorted(split_by_id):
            image, label = prepare_stage.prepared_paths(project, image_id)
            yield LockedImage(
                image_id=image_id,
                subset=str(subsets[image_id]),
                split=split_by_id[image_id],
                source=_public_source(str(sources[image_id] or "")),
                size_bytes=int(str(sizes[image_id] or 0)),
                md5=str(digests[image_id] or ""),
                rotation=rotations.get(image_id, 0),
                image_sha256=files.sha256_of(image),
                label_sha256=files.sha256_of(label),
            )
            bar.advance(1)


def _public_source(name: str) -> str:
    """Return the name of a source without the path of a folder."""
    return _FOLDER if name and Path(name).is_absolute() else name
