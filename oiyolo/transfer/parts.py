"""The parts of a project that are transferred, and the files that each consists of.

A part is the dataset, some splits of it (usually one), or a run. Each has a folder of its own in
the bucket, in which an object is named by its path in the project. Names that come from a bucket
are untrusted: ``is_valid_name`` says whether a part can have a file of that name.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.image_ids import parse_id
from oiyolo.project import imports
from oiyolo.project.config import FILE_NAME
from oiyolo.project.ledger import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from oiyolo.net.buckets import BucketFolder
    from oiyolo.project.project import Project

OPTIONS: Final = FILE_NAME
LEDGER: Final = "data/ledger.sqlite"
DATASET: Final = "dataset"
OBJECTS: Final = "data/dataset/obj"
SPLIT_TABLE: Final = "data/dataset/split.csv"
SPLIT_RECIPE: Final = "data/dataset/.split-from.json"
"""Without this file no command takes the dataset for a complete one."""
_RECORD: Final = "run.json"
"""Without this file no command takes a folder for a run."""
_FOLDERS: Final = ("data/selection", "data/dataset")
_RECORDS: Final = ("data/withdrawn.csv", "data/review.csv", "data/review/summary.json")
_IMPORTS: Final = "data/imports"
_IMPORT_FILES: Final = (imports.IMAGES, imports.BOXES, imports.PROBLEMS, imports.RECORD)
_SEGMENT: Final = r"[A-Za-z0-9_][A-Za-z0-9._+=@,-]*"
_RUN_NAME: Final = re.compile(_SEGMENT)
_DATASET_NAME: Final = re.compile(
    rf"{re.escape(OPTIONS)}|{re.escape(LEDGER)}|{'|'.join(map(re.escape, _RECORDS))}"
    rf"|{_IMPORTS}/{_SEGMENT}/(?:{'|'.join(map(re.escape, _IMPORT_FILES))})"
    rf"|{OBJECTS}/[0-9a-f]{{16}}\.(?:jpg|txt)"
    rf"|(?:{'|'.join(_FOLDERS)})/\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+"
)
_RUN_FILE: Final = re.compile(rf"(?:{_SEGMENT}/){{0,4}}(?:{_SEGMENT}|\.[A-Za-z0-9_.-]+-from\.json)")
_SKIPPED_RUN_FILE: Final = re.compile(r"weights/.*|detached\.log|.*\.part")
_WEIGHTS: Final = re.compile(r"weights/(?:network_(?:final|best|last)\.weights|network\.backup)")
_KEPT_BEST: Final = re.compile(r"weights/kept/best-[0-9.]+-[0-9]+\.weights")
_UNFINISHED: Final = (files.PART_SUFFIX, ".unfinished")


@dataclass(frozen=True)
class ProjectPart:
    """A part of a project.

    Attributes:
        kind: ``dataset``, ``split`` or ``run``.
        name: Name of the run, or of the splits, with ``+`` in between; empty for the dataset.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}".rstrip()

    @property
    def folder_name(self) -> str:
        """Path of its folder in the bucket, below the prefix."""
        return DATASET if self.kind == DATASET else f"{self.kind}s/{self.name}"

    @property
    def splits(self) -> Sequence[str]:
        """The splits that it is reduced to; empty for the whole dataset and for a run."""
        return self.name.split("+") if self.kind == "split" else ()

    @property
    def is_run(self) -> bool:
        """Whether it is a run, not images."""
        return self.kind == "run"

    def folder(self, destination: BucketFolder) -> BucketFolder:
        """Return its folder in the bucket."""
        return destination.subfolder(self.folder_name)

    def is_valid_name(self, name: str) -> bool:
        """Return whether the part can have a file of this name, a path in the project."""
        if not self.is_run:
            return _DATASET_NAME.fullmatch(name) is not None and not name.endswith(_UNFINISHED)
        folder = f"runs/{self.name}/"
        if not name.startswith(folder):
            return name == OPTIONS
        path = name[len(folder) :]
        is_weights = _WEIGHTS.fullmatch(path) or _KEPT_BEST.fullmatch(path)
        is_other = _RUN_FILE.fullmatch(path) and not _SKIPPED_RUN_FILE.fullmatch(path)
        return bool(is_weights or is_other)


def split_part(splits: Sequence[str]) -> ProjectPart:
    """Return the part of some splits.

    Raises:
        UsageError: There is no such split.
    """
    for split in splits:
        if split not in SPLITS:
            raise UsageError("no such split", expected=", ".join(SPLITS), found=repr(split))
    return ProjectPart("split", "+".join(sorted(set(splits))))


def run_part(run: str) -> ProjectPart:
    """Return the part of a run.

    Raises:
        UsageError: No run can have such a name.
    """
    if not _RUN_NAME.fullmatch(run):
        raise UsageError("a run cannot have this name", found=ascii(run))
    return ProjectPart("run", run)


def part_in(folder_name: str) -> ProjectPart:
    """Return the part that has this folder in a bucket.

    Raises:
        UsageError: No part has.
    """
    if folder_name == DATASET:
        return ProjectPart(DATASET)
    kind, _, name = folder_name.partition("/")
    return run_part(name) if kind == "runs" else split_part(name.split("+"))


def local_names(project: Project, part: ProjectPart) -> list[str]:
    """Return the names of a part's files in a project, without the ledger's.

    Raises:
        InputFormError: An image of the dataset is missing, or a list is damaged.
        OSError: A folder cannot be read.
    """
    found = _run_names(project, part) if part.is_run else _dataset_names(project, part)
    names = [OPTIONS, *sorted(found)]
    check_places(project.folder, names)
    return names


def _run_names(project: Project, part: ProjectPart) -> Iterator[str]:
    folder = project.runs_folder / part.name
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = (path.relative_to(project.folder).as_posix() for path in paths)
    return (name for name in names if part.is_valid_name(name))


def _dataset_names(project: Project, part: ProjectPart) -> Iterator[str]:
    for folder in _FOLDERS:
        for path in (project.folder / folder).iterdir():
            name = f"{folder}/{path.name}"
            if path.is_file() and part.is_valid_name(name):
                yield name
    records = [f"{_IMPORTS}/{name}/{file}" for name in project.imports() for file in _IMPORT_FILES]
    yield from (name for name in (*_RECORDS, *records) if (project.folder / name).is_file())
    with os.scandir(project.objects_folder) as entries:
        present = {entry.name for entry in entries if entry.is_file()}
    for split in part.splits or SPLITS:
        for image_id in _listed_ids(project, split):
            for file_name in (f"{image_id}.jpg", f"{image_id}.txt"):
                if file_name not in present:
                    raise _missing_error(project, split, file_name)
                yield f"{OBJECTS}/{file_name}"


def _missing_error(project: Project, split: str, file_name: str) -> InputFormError:
    return InputFormError(
        f"an image of the {split} split is missing, or its label is",
        where=str(project.objects_folder / file_name),
        remedy="Run `oiyolo fetch` and `oiyolo split`, which prepare it again",
    )


def _listed_ids(project: Project, split: str) -> Iterator[str]:
    path = project.dataset_folder / f"{split}.txt"
    for row, line in enumerate(files.read_text(path).splitlines(), start=1):
        stem = line.rpartition("/")[2].removesuffix(".jpg")
        yield parse_id(stem, where=str(path), row=row, remedy="Run `oiyolo split`")


def check_places(folder: Path, names: Iterable[str]) -> None:
    """Raise if one of a project's files, or a folder that leads to it, is a link or something else.

    Args:
        folder: The project's folder, which may itself be a link.
        names: Paths of the files in it, which need not exist.

    Raises:
        UsageError: A link is in the way.
        NotRegularFileError: A folder or something else is in the place of a file.
    """
    checked: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in checked:
            checked.add(parent)
            places = PurePosixPath(parent)
            for place in (places, *places.parents):
                _check_no_link(folder / place, folder)
        path = f"{folder}/{name}"
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            _check_no_link(Path(path), folder)
            files.check_regular(Path(path))


def _check_no_link(path: Path, folder: Path) -> None:
    if path != folder and path.is_symlink():
        raise UsageError(
            "a link is in the place of a file or folder of the project",
            where=str(path),
            remedy="Replace it by what it points to; nothing is read or written through links",
        )


def _mode(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def order(name: str) -> tuple[int, str]:
    """Return the sort key by which files get their names: those that declare a state come last."""
    last = (LEDGER, "data/dataset/.prepared-from.json", SPLIT_RECIPE, OPTIONS)
    if name in last:
        return 3 + last.index(name), name
    file_name = name.rpartition("/")[2]
    return (2 if file_name == _RECORD else int(file_name.startswith("."))), name
