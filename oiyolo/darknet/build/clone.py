"""darknet's sources out of its public repository, at the one commit that we know."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, locks, process
from oiyolo.darknet.build import tree
from oiyolo.core.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("oiyolo")

PINNED_COMMIT: Final = "59596d7880f6504768df41d6daa586f5cb2b932f"
"""AlexeyAB's, as the submodule has it: it builds unpatched with CUDA 13 and cuDNN 9."""

_TIMEOUT_S: Final = 900.0
_ENVIRONMENT: Final = {
    "GIT_TERMINAL_PROMPT": "0",  # nobody is there to be asked
    "GIT_ASKPASS": "true",
    "LC_ALL": "C.UTF-8",
}


def folder_in(cache_folder: Path) -> Path:
    """Give where the clone lies, or would."""
    return cache_folder / "sources" / f"darknet-{PINNED_COMMIT[:12]}"


def clone(url: str, cache_folder: Path) -> Path:
    """Bring the pinned commit, alone, into the cache folder; nothing is done if it is there.

    Git verifies what comes by the commit's own name, so any address that has it will do.

    Raises:
        UnavailableError: There is no git, or the address does not give the commit.
    """
    folder = folder_in(cache_folder)
    if tree.has_sources(folder):
        return folder
    if shutil.which("git") is None:
        raise UnavailableError(
            "git is needed to fetch darknet's sources and was not found",
            remedy="On Debian or Ubuntu: apt-get install git",
        )
    part = folder.with_name(folder.name + files.PART_SUFFIX)
    with locks.exclusive(
        folder.with_name(f".{folder.name}.lock"), what="darknet's sources", doing="clone", wait=True
    ):
        if tree.has_sources(folder):
            return folder
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _log.info("build: fetching darknet %s from %s", PINNED_COMMIT[:12], url)
        try:
            for words in (
                ("init", "--quiet"),
                ("fetch", "--quiet", "--depth", "1", url, PINNED_COMMIT),
                (
                    "-c",
                    "advice.detachedHead=false",
                    "checkout",
                    "--quiet",
                    "--force",
                    PINNED_COMMIT,
                ),
            ):
                done = process.run(
                    ("git", *words), cwd=part, environment=_ENVIRONMENT, timeout_s=_TIMEOUT_S
                )
                if done.exit_code != 0:
                    raise UnavailableError(
                        f"darknet's sources cannot be fetched ({done.ended})",
                        where=url,
                        expected=f"commit {PINNED_COMMIT}",
                        found=_reason(done.output),
                        remedy="Give the same command again where there is a network; or set "
                        "[darknet] source to a folder with darknet's sources",
                    )
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _reason(said: str) -> str:
    """Give the line in which git says why, without its advice."""
    lines = said.strip().splitlines() or ["nothing was said"]
    return next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
