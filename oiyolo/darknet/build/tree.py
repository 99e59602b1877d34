"""A folder with darknet's sources: its fork, its revision, and a copy of it to build in."""

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

    from oiyolo.networks.lint import ForkName

_MARKER_FILES: Final[tuple[tuple[ForkName, tuple[str, ...]], ...]] = (
    ("hank", ("CMakeLists.txt", "src-lib/CMakeLists.txt", "src-cli/CMakeLists.txt")),
    ("pjreddie", ("Makefile", "src/gemm.c", "examples/detector.c")),
    ("alexeyab", ("Makefile", "src/gemm.c", "src/detector.c")),
)
"""Files that identify a fork: pjreddie's has its commands in examples/, AlexeyAB's in src/."""

_SOURCE_SUFFIXES: Final = (
    *(".c", ".cu", ".h", ".cpp", ".hpp", ".cuh", ".cmake", ".in", ".txt", ".cc"),
)
_SOURCE_FOLDERS: Final = ("src", "include", "examples", "3rdparty")
_BUILD_SUFFIXES: Final = (".o", ".so", ".a", ".d")
_BUILD_NAMES: Final = ("darknet", "obj", "build.log")
_TIMEOUT_S: Final = 60.0
GIT_ENVIRONMENT: Final[dict[str, str | None]] = {
    **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")),
    "LC_ALL": "C.UTF-8",
}
"""git's environment for a repository that it finds by its working folder. A git hook that runs
oiyolo has variables that point to another repository."""


@dataclass(frozen=True)
class Revision:
    """The revision of a source folder.

    Attributes:
        commit: Hash of the commit; empty if the folder is not a git repository.
        git_describe: Output of ``git describe --tags``; ``None`` without tags.
        digest: Digest of the sources' content, local changes included.
        git_folder: The repository, as git's ``GIT_DIR`` takes it.
        git_error: What git says if there is a repository that it does not read.
    """

    commit: str
    git_describe: str | None
    digest: str
    git_folder: Path | None = None
    git_error: str = ""

    @property
    def name(self) -> str:
        """Its name in messages: the commit, or else the digest."""
        return self.commit or f"sources {self.digest[:12]}"

    def as_dict(self) -> dict[str, str]:
        """Return the values that make a build stale when they change."""
        return {"commit": self.commit, "digest": self.digest}


def fork_of(folder: Path) -> ForkName | None:
    """Return the fork whose sources a folder contains; ``None`` if none (an empty submodule)."""
    for fork, files in _MARKER_FILES:
        if all((folder / name).is_file() for name in files):
            return fork
    return None


def has_sources(folder: Path) -> bool:
    """Return whether a folder contains darknet's sources."""
    return fork_of(folder) is not None


def revision(folder: Path) -> Revision:
    """Return the revision of a source folder; nothing is written, not even in ``.git``."""
    digest = _digest(folder)
    # A subfolder of another repository has no revision of its own.
    found = _run_git(folder, "rev-parse", "--show-prefix")
    if found is None or found.exit_code != 0 or found.output.strip():
        return Revision("", None, digest, git_error=_refusal(found) if found else "")
    git_folder = _git(folder, "rev-parse", "--absolute-git-dir")
    return Revision(
        commit=_git(folder, "rev-parse", "HEAD") or "",
        git_describe=_git(folder, "describe", "--tags", "--long"),
        digest=digest,
        git_folder=Path(git_folder) if git_folder else None,
    )


def _refusal(finished: process.ProcessResult) -> str:
    if finished.exit_code == 0 or "not a git repository" in finished.output:
        return ""
    return finished.output


def copy(source: Path, target: Path) -> None:
    """Copy the sources, but neither ``.git`` nor the outputs of earlier builds."""

    def names_to_skip(folder: str, names: list[str]) -> set[str]:
        is_top = Path(folder) == source
        return {
            name
            for name in names
            if name == ".git" or name.endswith(_BUILD_SUFFIXES) or (is_top and name in _BUILD_NAMES)
        }

    shutil.copytree(source, target, ignore=names_to_skip, symlinks=True)


def _git(folder: Path, *words: str) -> str | None:
    """Return what a git command prints; ``None`` if it fails, or if there is no git."""
    finished = _run_git(folder, *words)
    return finished.output.strip() if finished and finished.exit_code == 0 else None


def _run_git(folder: Path, *words: str) -> process.ProcessResult | None:
    if shutil.which("git") is None:
        return None
    return process.run(
        ["git", "-C", str(folder), *words],
        environment={**GIT_ENVIRONMENT, "GIT_OPTIONAL_LOCKS": "0"},
        timeout_s=_TIMEOUT_S,
    )


def _digest(folder: Path) -> str:
    digest = sha256()
    for path in sorted(_source_files(folder)):
        digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _source_files(folder: Path) -> Iterator[Path]:
    """Yield the files that a build reads: at the top level and in the source folders."""
    for entry in folder.iterdir():
        if entry.is_file() and (entry.name == "Makefile" or _is_source(entry.name)):
            yield entry
        elif entry.is_dir() and entry.name.startswith(_SOURCE_FOLDERS):
            for subfolder, _, names in os.walk(entry):
                yield from (
                    path
                    for name in names
                    if _is_source(name) and (path := Path(subfolder, name)).is_file()
                )


def _is_source(name: str) -> bool:
    return name.endswith(_SOURCE_SUFFIXES)
