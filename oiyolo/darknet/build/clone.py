"""Fetch darknet's sources from its public repository, at one pinned commit."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, locks, process
from oiyolo.core.errors import UnavailableError
from oiyolo.darknet.build import tree

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("oiyolo")

PINNED_COMMIT: Final = "59596d7880f6504768df41d6daa586f5cb2b932f"
"""The submodule's commit of AlexeyAB's fork; it builds unpatched with CUDA 13 and cuDNN 9."""

_TIMEOUT_S: Final = 900.0
_ENVIRONMENT: Final = {
    "GIT_TERMINAL_PROMPT": "0",  # fail instead of waiting for a password
    "GIT_ASKPASS": "true",
    "LC_ALL": "C.UTF-8",
}


def clone_folder(cache_folder: Path) -> Path:
    """Return the path of the clone, whether or not it exists."""
    return cache_folder / "sources" / f"darknet-{PINNED_COMMIT[:12]}"


def clone(url: str, cache_folder: Path) -> Path:
    """Fetch the pinned commit into the cache folder unless it is there already; return its folder.

    Git verifies the content by the commit's hash, so any mirror of the repository can be used.

    Raises:
        UnavailableError: git is not installed, or the URL does not provide the commit.
    """
    folder = clone_folder(cache_folder)
    if tree.has_sources(folder):
        return folder
    if shutil.which("git") is None:
        raise UnavailableError(
            "cannot fetch darknet's sources: git was not found",
            remedy="On Debian or Ubuntu: apt-get install git",
        )
    part = folder.with_name(folder.name + files.PART_SUFFIX)
    with locks.exclusive(
        folder.with_name(f".{folder.name}.lock"),
        what="darknet's sources",
        operation="clone",
        wait=True,
    ):
        if tree.has_sources(folder):
            return folder
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _log.info("build: fetching darknet %s from %s", PINNED_COMMIT[:12], url)
        commands = (
            ("init", "--quiet"),
            ("fetch", "--quiet", "--depth", "1", url, PINNED_COMMIT),
            ("-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", PINNED_COMMIT),
        )
        try:
            for words in commands:
                finished = process.run(
                    ("git", *words), cwd=part, environment=_ENVIRONMENT, timeout_s=_TIMEOUT_S
                )
                if finished.exit_code != 0:
                    raise UnavailableError(
                        f"cannot fetch darknet's sources ({finished.exit_description})",
                        where=url,
                        expected=f"commit {PINNED_COMMIT}",
                        found=_git_error(finished.output),
                        remedy="Check the network and run the same command again; or set "
                        "[darknet] source to a folder with darknet's sources",
                    )
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _git_error(output: str) -> str:
    """Return the error line of git's output, without the hints."""
    lines = output.strip().splitlines() or ["no output"]
    return next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
