"""Fetch darknet's sources from its public repository, at one pinned commit."""

from __future__ import annotations

import logging
import shutil
import tempfile
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, locks, process
from oiyolo.core.errors import UnavailableError
from oiyolo.darknet.build import tree
from oiyolo.net.urls import display_url, without_secrets

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("oiyolo")

PINNED_COMMIT: Final = "59596d7880f6504768df41d6daa586f5cb2b932f"
"""The submodule's commit of AlexeyAB's fork; it builds unpatched with CUDA 13 and cuDNN 9."""

_TIMEOUT_S: Final = 900.0
_REMOTE: Final = "darknet"
_ENVIRONMENT: Final = {
    **tree.GIT_ENVIRONMENT,
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",  # others may start programs
    "GIT_TERMINAL_PROMPT": "0",  # fail instead of waiting for a password
    "GIT_ASKPASS": "true",
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
        _log.info("build: fetching darknet %s from %s", PINNED_COMMIT[:12], display_url(url))
        try:
            _fetch(url, part)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _fetch(url: str, folder: Path) -> None:
    """Fetch the pinned commit into an empty folder and check it out.

    Raises:
        UnavailableError: A git command failed.
    """
    with tempfile.NamedTemporaryFile("w", prefix="oiyolo-", suffix=".gitconfig") as config:
        # In a file that only this user can read, because a URL may hold a password, and every user
        # can read command lines; a value in the file cannot be taken for an option either.
        value = url.replace("\\", "\\\\").replace('"', '\\"')
        config.write(f'[remote "{_REMOTE}"]\nurl = "{value}"\n')
        config.flush()
        fetch = ("fetch", "--quiet", "--no-tags", "--depth", "1", "--", _REMOTE, PINNED_COMMIT)
        commands = (
            ("init", "--quiet"),
            ("-c", f"include.path={config.name}", *fetch),
            ("-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", PINNED_COMMIT),
        )
        for words in commands:
            finished = process.run(
                ("git", *words), cwd=folder, environment=_ENVIRONMENT, timeout_s=_TIMEOUT_S
            )
            if finished.exit_code != 0:
                raise UnavailableError(
                    f"cannot fetch darknet's sources ({finished.exit_description})",
                    where=display_url(url),
                    expected=f"commit {PINNED_COMMIT}",
                    found=_git_error(finished.output),
                    remedy="Check the network and run the same command again; or set "
                    "[darknet] source to a folder with darknet's sources",
                )


def _git_error(output: str) -> str:
    """Return the error line of git's output, without the hints."""
    lines = without_secrets(output).strip().splitlines() or ["no output"]
    return next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
