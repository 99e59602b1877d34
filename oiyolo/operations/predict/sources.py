"""What to predict on: image files, folders, globs, URLs and videos; and how outputs are named."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from oiyolo.core.errors import UsageError
from oiyolo.core.output import printable
from oiyolo.imagery.decode import IMAGE_SUFFIXES
from oiyolo.inference.earlier import EarlierOutputs
from oiyolo.net.urls import display_url
from oiyolo.project.value_types import has_home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

VIDEO_SUFFIXES: Final = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".mts"}
)
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_RESERVED_NAMES: Final = frozenset({"classes"})
"""Names that an image's output does not get, because ``labels/classes.txt`` lists the classes."""
_MAX_NAME_BYTES: Final = 180
"""Longest name of an output, without its suffix; temporary files have longer names."""
_UNSAFE_IN_NAMES: Final = re.compile(r"[\x00-\x1f\x7f/\\:]")


@dataclass(frozen=True)
class MediaSource:
    """An image file, a video file, or a URL.

    Attributes:
        label: How it is named in results: the path as it was named or found, or the URL without
            secrets.
        path: The file; ``None`` for a URL.
        url: The URL; empty for a file.
        depth: Number of folders below the folder that was named; 0 for a file that was named.
    """

    label: str
    path: Path | None = None
    url: str = ""
    depth: int = 0

    @property
    def is_video(self) -> bool:
        """Whether it is a video, judged by its name."""
        return self.path is not None and self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def identity(self) -> str:
        """The absolute path, or the URL."""
        return self.url or os.path.abspath(str(self.path))  # noqa: PTH100  (keeps links)

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders and the name of which the name of an output is made; never empty."""
        if self.path is not None:
            return Path(self.identity).parts[1:] or ("image",)
        address = urlsplit(display_url(self.url))
        parts = [address.netloc, *map(unquote, address.path.split("/"))]
        safe = (_UNSAFE_IN_NAMES.sub("_", part) for part in parts if part not in {"", ".", ".."})
        return tuple(safe) or ("image",)


def find_sources(words: Iterable[str | os.PathLike[str]]) -> list[MediaSource]:
    """Return the sources that are named, each once, in the order of the words.

    A folder stands for the images and videos in it and in its subfolders, but for hidden ones and
    outputs of earlier predictions. Files of a folder are in alphabetical order.

    Args:
        words: Paths of files and folders, globs, and http(s) URLs.

    Raises:
        UsageError: There is no source, or a word names none.
    """
    by_identity: dict[str, MediaSource] = {}
    outputs = EarlierOutputs()
    for word in words:
        for source in _sources_of(os.fspath(word), outputs):
            by_identity.setdefault(source.identity, source)
    if not by_identity:
        raise UsageError(
            "no images to predict on",
            expected="image files, folders, globs, URLs or videos",
            remedy="Name at least one, such as `oiyolo predict photo.jpg`",
        )
    return _with_distinct_labels(list(by_identity.values()))


def _with_distinct_labels(sources: list[MediaSource]) -> list[MediaSource]:
    """Number the URLs that differ only in what is not shown of them."""
    seen = Counter[str]()
    result = []
    for source in sources:
        seen[source.label] += 1
        count = seen[source.label]
        label = source.label if count == 1 else f"{source.label} #{count}"
        result.append(MediaSource(label, source.path, source.url, source.depth))
    return result


def _sources_of(word: str, outputs: EarlierOutputs) -> list[MediaSource]:
    if (match := _URL.match(word)) is not None:
        if match[1].lower() not in {"http", "https"} or not _has_host(word):
            raise _no_source_error(word, "not an http(s) URL")
        return [MediaSource(display_url(word), url=word)]
    if not word or "\0" in word:
        raise _no_source_error(word, "not a path")
    path = Path(word).expanduser() if has_home(word) else Path(word)
    if os.path.lexists(path):
        return _sources_at(path, outputs)
    if glob.has_magic(word):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  (absolute, too)
        sources = [s for match in matches for s in _sources_at(Path(match), outputs, is_match=True)]
        if not sources:
            raise _no_source_error(word, "no image or video matches")
        return sources
    raise _no_source_error(word, "no such file or folder")


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _sources_at(
    path: Path, outputs: EarlierOutputs, *, is_match: bool = False
) -> list[MediaSource]:
    """Return the sources at a path.

    Args:
        path: A file or folder.
        outputs: The outputs of earlier predictions.
        is_match: Whether a glob found it, so that it need not contain an image.
    """
    if not path.is_dir():
        is_source = not is_match or (_is_wanted(path.name) and path not in outputs)
        return [MediaSource(str(path), path)] if is_source else []
    sources = list(_iter_folder(path, outputs))
    if not sources and not is_match:
        raise _no_source_error(str(path), "a folder without images and videos")
    return sources


def _iter_folder(folder: Path, outputs: EarlierOutputs) -> Iterator[MediaSource]:
    unreadable: list[OSError] = []
    top = folder.absolute()
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        depth = len(here.absolute().relative_to(top).parts)
        for path in (here / name for name in sorted(filter(_is_wanted, names))):
            if path not in outputs:
                yield MediaSource(str(path), path, depth=depth)
    for error in unreadable:  # reading it fails again, which names it and the reason
        path = Path(os.fsdecode(error.filename))
        yield MediaSource(str(path), path)


def _is_wanted(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return name[0] != "." and (suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES)


def _no_source_error(word: str, found: str) -> UsageError:
    return UsageError(
        "nothing to predict on",
        where=printable(display_url(word)),
        expected="an image file, a folder, a glob, an http(s) URL or a video",
        found=found,
        remedy="Check the path",
    )


def output_names(sources: Sequence[MediaSource]) -> list[str]:
    """Return for each source the name of its outputs: a relative path without suffix.

    It is the source's name, below the subfolders of the folder that was named. Sources whose names
    are equal get parent folders in front; files that differ only in their suffix keep it. Names
    that differ only in case count as equal, because some file systems do not distinguish them.
    """
    stems = _stems(sources)
    folders = [[_shorten(part) for part in source.parts[:-1]] for source in sources]
    depths = [min(source.depth, len(parts)) for source, parts in zip(sources, folders, strict=True)]
    whole = ["/".join([*parts, stem]) for parts, stem in zip(folders, stems, strict=True)]
    same = set(_clashes(whole))  # parent folders cannot distinguish these

    def name(n: int) -> str:
        return "/".join([*folders[n][len(folders[n]) - depths[n] :], stems[n]])

    while clashes := [
        n
        for n in _clashes([name(n) for n in range(len(sources))])
        if depths[n] < len(folders[n]) and n not in same
    ]:
        for n in clashes:
            depths[n] += 1
    return _numbered([name(n) for n in range(len(sources))])


def _stems(sources: Sequence[MediaSource]) -> list[str]:
    """Return each source's name without its suffix, unless a sibling differs only in that."""
    stems = [_shorten(Path(source.parts[-1]).stem) for source in sources]
    paths = ["/".join([*s.parts[:-1], stem]) for s, stem in zip(sources, stems, strict=True)]
    for n in _clashes(paths):
        stems[n] = _shorten(sources[n].parts[-1])
    return stems


def _clashes(names: Sequence[str]) -> list[int]:
    """Return the positions of names that occur more than once, or that are reserved."""
    folded = [name.casefold() for name in names]
    counts = Counter(folded)
    return [n for n, name in enumerate(folded) if counts[name] > 1 or name in _RESERVED_NAMES]


def _numbered(names: list[str]) -> list[str]:
    """Append a number to names that are still not unique: URLs that differ only in their query."""
    taken = {name.casefold() for name in names} | _RESERVED_NAMES
    used: set[str] = set(_RESERVED_NAMES)
    for n, name in enumerate(names):
        candidate, number = name, 1
        while candidate.casefold() in used or (number > 1 and candidate.casefold() in taken):
            number += 1
            candidate = f"{name}-{number}"
        used.add(candidate.casefold())
        names[n] = candidate
    return names


def _shorten(name: str) -> str:
    """Return a name that is short enough for a file system, also with a suffix."""
    while len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = name[:-1]
    return name
