"""The files of a source: found once, named by relative paths, and opened only below its folder."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.output import is_utf8, printable
from oiyolo.imagery.decode import IMAGE_SUFFIXES, UnreadableImageError
from oiyolo.imagery.header import read_header
from oiyolo.interchange import kinds
from oiyolo.interchange.imported import ImportedBox, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.imagery.header import ImageHeader
    from oiyolo.interchange.imported import ImportedImage, Split

_Score = TypeVar("_Score", int, tuple[bool, int])

_IGNORED_FOLDERS: Final = frozenset({"__MACOSX"})
_SPLIT_WORDS: Final = {
    "train": ("train", "training", "train2014", "train2017"),
    "valid": ("valid", "val", "validation", "val2014", "val2017"),
    "test": ("test", "testing", "test2014", "test2015", "test2017"),
}
_SPLITS: Final = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
"""Names of folders and lists that stand for a split."""


def split_of_word(word: str) -> Split:
    """Return the split that the name of a folder or list stands for; empty for other names."""
    return cast("Split", _SPLITS.get(word.lower(), ""))


def split_of_folders(name: str) -> Split:
    """Return the split that the folders of a file stand for; empty if they name none or two.

    Args:
        name: Relative path of the file.
    """
    found = {split for part in name.split("/")[:-1] if (split := split_of_word(part))}
    return found.pop() if len(found) == 1 else ""


def folded(name: str) -> str:
    """Return a name as file systems compare it that ignore case and the form of accents."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def stem_of(name: str) -> str:
    """Return the last part of a path without its suffix."""
    return name.rpartition("/")[2].rpartition(".")[0] or name.rpartition("/")[2]


def suffix_of(name: str) -> str:
    """Return the suffix of a path in lower case, such as ".jpg"."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (several times faster for many)


def leads_out(path: str) -> bool:
    """Return whether a relative path with slashes leaves the folder that it starts from."""
    depth = 0
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return False


def with_boxes(
    image: ImportedImage, items: Sequence[ImportedBox | Problem]
) -> Iterator[ImportedImage | Problem]:
    """Yield an image with its boxes after the problems with them.

    An image whose boxes were all skipped has objects, so it must not count as one without any: a
    problem is yielded in its place.
    """
    problems = [item for item in items if isinstance(item, Problem)]
    boxes = tuple(item for item in items if isinstance(item, ImportedBox))
    yield from problems
    skipped = sum(problem.skipped != "" for problem in problems)
    if skipped and not boxes:
        message = f"{skipped:,} skipped"
        yield Problem(kinds.ALL_SKIPPED, image.path, 0, message, "image")
    else:
        yield replace(image, boxes=boxes) if boxes else image


@dataclass(frozen=True)
class SourceFiles:
    """All files below a folder but for hidden ones, by their relative paths with slashes.

    Attributes:
        folder: Absolute path of the folder.
        names: The files in alphabetical order.
        problems: Folders and files that cannot be read.
    """

    folder: Path
    names: Sequence[str]
    problems: Sequence[Problem] = ()

    def path(self, name: str) -> Path:
        """Return the absolute path of a file."""
        return self.folder / name

    @cached_property
    def images(self) -> Sequence[str]:
        """The files that have the suffix of an image."""
        return [name for name in self.names if suffix_of(name) in IMAGE_SUFFIXES]

    @cached_property
    def by_folded(self) -> dict[str, str]:
        """The files by the names that ``folded`` returns."""
        return {folded(name): name for name in reversed(self.names)}

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Return the files that have one of some suffixes in lower case."""
        return [name for name in self.names if suffix_of(name) in suffixes]

    def find(self, name: str) -> str:
        """Return a file as it is spelled on the disk; empty if there is none."""
        return self.by_folded.get(folded(name), "")

    def header(self, name: str) -> ImageHeader | Problem:
        """Return the header of an image, or why the image is skipped."""
        try:
            return read_header(self.path(name))
        except (UnreadableImageError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            return Problem(kinds.BAD_IMAGE, self.path(name), 0, why or str(error), "image")


def find_files(folder: Path) -> SourceFiles:
    """Return the files below a folder.

    Links to folders are followed, each folder once, so that a loop ends.

    Raises:
        UsageError: It is not a folder.
    """
    if not folder.is_dir():
        raise UsageError(
            "nothing to import",
            where=printable(str(folder)),
            expected="a folder with images and their annotations",
            found="a file" if folder.exists() else "no such folder",
            remedy="Check the path",
        )
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (keeps links)
    found = list(_walk(folder))
    problems = [item for item in found if isinstance(item, Problem)]
    return SourceFiles(folder, sorted(item for item in found if isinstance(item, str)), problems)


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: It cannot be read, or is larger than ``max_bytes``.
    """
    descriptor = files.open_regular(path)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes")
        return os.read(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def nothing_found_error(folder: Path, wanted: str, found: str) -> InputFormError:
    """Return the error for a folder that has nothing of a format.

    Args:
        folder: The folder.
        wanted: What was searched for.
        found: What there is instead.
    """
    return InputFormError(
        "nothing to import",
        where=printable(str(folder)),
        expected=wanted,
        found=found,
        remedy="Check the path and the format",
    )


def _walk(folder: Path) -> Iterator[str | Problem]:
    """Yield the relative paths of all files below a folder, and what cannot be read."""
    pending, visited = [""], set[tuple[int, int]]()
    while pending:
        prefix = pending.pop()
        path = f"{folder}/{prefix}"
        try:
            status = os.stat(path)  # noqa: PTH116  (as fast as possible)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                shown = [entry for entry in entries if not _is_ignored(entry.name)]
        except OSError as error:
            yield Problem(kinds.BAD_FOLDER, Path(path), 0, str(error.strerror), "file")
            continue
        for entry in sorted(shown, key=lambda entry: entry.name):
            if not is_utf8(entry.name):
                yield Problem(kinds.BAD_NAME, Path(path), 0, printable(entry.name), "file")
            elif _is_kind(entry.is_dir):
                pending.append(f"{prefix}{entry.name}/")
            elif _is_kind(entry.is_file):
                yield prefix + entry.name


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in _IGNORED_FOLDERS


def _is_kind(check: Callable[[], bool]) -> bool:
    """Return the result of a check of a folder's entry; a loop of links is nothing."""
    try:
        return check()
    except OSError:
        return False


class FolderReader:
    """The base of the readers of a folder, whose files are found once."""

    _source: SourceFiles

    @property
    def folder(self) -> Path:
        """Absolute path of the folder."""
        return self._source.folder


class ImageIndex:
    """Finds the image that an annotation names.

    Args:
        names: Relative paths of the images.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self._by_stem[folded(stem_of(name))].append(name)

    def with_stem(self, stem: str) -> Sequence[str]:
        """Return the images whose name without suffix is ``stem``, in any case."""
        return self._by_stem.get(folded(stem), ())

    def with_name(self, path: str) -> Sequence[str]:
        """Return the images that have the last part of a path as their name, in any case."""
        last = folded(path.rpartition("/")[2])
        candidates = self.with_stem(stem_of(path))
        return [name for name in candidates if folded(name.rpartition("/")[2]) == last]

    def ending_with(self, path: str) -> Sequence[str]:
        """Return the images whose paths have the most last parts in common with a path."""
        wanted = [folded(part) for part in reversed(path.split("/"))]
        return _best(self.with_name(path), lambda name: _common_ends(name, wanted))


def nearest(candidates: Sequence[str], origin: str, file_name: str = "") -> Sequence[str]:
    """Return the candidates that are nearest to another file; more than one if that is unclear.

    These are the ones in the same folder, else those that share the most folder names, and among
    them the ones with a certain name.

    Args:
        candidates: Relative paths of images.
        origin: Relative path of the file that names one of them.
        file_name: Name of the image, as that file says it.
    """
    if len(candidates) < 2:  # noqa: PLR2004  (nothing to choose)
        return candidates
    here = origin.rpartition("/")[0]
    folders = set(folded(here).split("/"))
    best = _best(
        candidates,
        lambda name: (
            name.rpartition("/")[0] == here,
            len(folders.intersection(folded(name).split("/")[:-1])),
        ),
    )
    same = [name for name in best if folded(name.rpartition("/")[2]) == folded(file_name)]
    return same or best


def _common_ends(name: str, wanted: Sequence[str]) -> int:
    """Return how many last parts of a path are equal to those of another, which is reversed."""
    count = 0
    for part, other in zip(reversed(name.split("/")), wanted, strict=False):
        if folded(part) != other:
            break
        count += 1
    return count


def _best(names: Sequence[str], score: Callable[[str], _Score]) -> Sequence[str]:
    """Return the names with the highest score."""
    if not names:
        return names
    scores = [score(name) for name in names]
    highest = max(scores)
    return [name for name, value in zip(names, scores, strict=True) if value == highest]
