"""A folder with darknet's sources: which line it is, its revision, and a copy to build in."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.networks.lint import DarknetLine

_SIGNS: Final[tuple[tuple[DarknetLine, tuple[str, ...]], ...]] = (
    ("hank", ("CMakeLists.txt", "src-lib/CMakeLists.txt", "src-cli/CMakeLists.txt")),
    ("pjreddie", ("Makefile", "src/gemm.c", "examples/detector.c")),
    ("alexeyab", ("Makefile", "src/gemm.c", "src/detector.c")),
)
"""Files by which a line is known. pjreddie's has its commands in examples/, AlexeyAB's in src/."""

_SOURCE_SUFFIXES: Final = (
    *(".c", ".cu", ".h", ".cpp", ".hpp", ".cuh", ".cmake", ".in", ".txt", ".cc"),
)
_SOURCE_FOLDERS: Final = ("src", "include", "examples", "3rdparty")
_MADE_SUFFIXES: Final = (".o", ".so", ".a", ".d")
_MADE_NAMES: Final = ("darknet", "obj", "build.log")
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Revision:
    """Which sources they are.

    Attributes:
        commit: Git's name of it; empty where the folder is no git repository.
        described: What ``git describe --tags`` says; ``None`` without tags.
        digest: A digest of the sources' content, with what was changed in them.
        git_folder: The repository, for git's own ``GIT_DIR``.
    """

    commit: str
    described: str | None
    digest: str
    git_folder: Path | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.commit or f"sources {self.digest[:12]}"

    def as_dict(self) -> dict[str, str]:
        """Give what decides whether a build is out of date."""
        return {"commit": self.commit, "digest": self.digest}


def line_of(folder: Path) -> DarknetLine | None:
    """Tell which line of darknet a folder holds; ``None``: no sources (an empty submodule)."""
    for line, files in _SIGNS:
        if all((folder / name).is_file() for name in files):
            return line
    return None


def has_sources(folder: Path) -> bool:
    """Tell whether a folder holds darknet's sources."""
    return line_of(folder) is not None


def revision(folder: Path) -> Revision:
    """Find out which sources a folder holds; nothing is written, in ``.git`` either."""
    digest = _digest(folder)
    # A folder that was unpacked somewhere in another repository has no revision of its own.
    top = _git(folder, "rev-parse", "--show-prefix")
    if top is None or top:
        return Revision("", None, digest)
    git_folder = _git(folder, "rev-parse", "--absolute-git-dir")
    return Revision(
        commit=_git(folder, "rev-parse", "HEAD") or "",
        described=_git(folder, "describe", "--tags", "--long"),
        digest=digest,
        git_folder=Path(git_folder) if git_folder else None,
    )


def copy(source: Path, target: Path) -> None:
    """Copy what can be built; not what was built in place before, and not git's own."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        top = Path(folder) == source
        return {
            name
            for name in names
            if name == ".git" or name.endswith(_MADE_SUFFIXES) or (top and name in _MADE_NAMES)
        }

    shutil.copytree(source, target, ignore=left_out, symlinks=True)


def _git(folder: Path, *words: str) -> str | None:
    if shutil.which("git") is None:
        return None
    done = process.run(
        ["git", "-C", str(folder), *words],
        environment={"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        timeout_s=_TIMEOUT_S,
    )
    return done.output.strip() if done.exit_code == 0 else None


def _digest(folder: Path) -> str:
    digest = sha256()
    for path in sorted(_source_files(folder)):
        digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _source_files(folder: Path) -> Iterator[Path]:
    """Give the files that a build reads: those at the top, and those of the source folders."""
    for entry in folder.iterdir():
        if entry.is_file() and (entry.name == "Makefile" or _is_source(entry.name)):
            yield entry
        elif entry.is_dir() and entry.name.startswith(_SOURCE_FOLDERS):
            for place, _, names in os.walk(entry):
                yield from (
                    path
                    for name in names
                    if _is_source(name) and (path := Path(place, name)).is_file()
                )


def _is_source(name: str) -> bool:
    return name.endswith(_SOURCE_SUFFIXES)
