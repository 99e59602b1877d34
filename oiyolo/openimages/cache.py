"""Official files on this machine: fetched once, checked, shared by all projects."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oiyolo import files, locks
from oiyolo.errors import InputFormError, UnavailableError
from oiyolo.http import HttpFailureError, Web
from oiyolo.openimages.releases import OFFICIAL_BASE_URL
from oiyolo.progress import progress

if TYPE_CHECKING:
    from oiyolo.openimages.releases import OfficialFile

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class CachedFile:
    """An official file on this machine.

    Attributes:
        path: Where it lies.
        url: Where it came from.
        version: Its MD5: another version has another one.
    """

    path: Path
    url: str
    version: str


class Cache:
    """Official files below one address.

    Args:
        folder: The cache folder of all projects.
        base_url: The address above the files.
    """

    def __init__(self, folder: Path, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        address = urlsplit(self.base_url)
        self.folder = folder / "openimages" / address.netloc.replace(":", "_")
        if address.path.strip("/"):
            self.folder /= address.path.strip("/")
        self._web = Web()
        self._is_offline = False

    def close(self) -> None:
        """Close the connections."""
        self._web.close()

    def get(self, official: OfficialFile) -> CachedFile:
        """Give an official file, asking its server once whether it has changed.

        Without an answer, the copy that is here serves, with a warning. Two processes that ask
        at the same time fetch it once.

        Raises:
            UnavailableError: It is not here and the site cannot be reached.
            InputFormError: The site answers and does not have it, or what came is not the
                official file, by size or MD5.
        """
        path = self.folder / official.path
        url = f"{self.base_url}/{official.path}"
        facts_path = path.with_name(path.name + ".facts.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(
            path.with_name(path.name + ".lock"), what=official.path, doing="fetch", wait=True
        ):
            files.remove_parts(path.parent)
            facts = files.read_json(facts_path) if path.is_file() else None
            if facts and path.stat().st_size != facts["size_bytes"]:
                facts = None
            headers = {}
            if facts and facts["etag"]:
                headers["If-None-Match"] = facts["etag"]
            elif facts and facts["last_modified"]:
                headers["If-Modified-Since"] = facts["last_modified"]
            fetched = None
            try:
                if not (facts and self._is_offline):
                    fetched = self._fetch(official, url, path, headers)
            except UnavailableError as error:
                if not facts:
                    raise _missing(url, error) or error from None
                self._is_offline = True  # one warning and one wait are enough
                _log.warning("%s Copies of an earlier run serve.", error)
            if fetched is not None:
                facts = fetched
                files.write_json(facts_path, facts)
            if facts is None:
                raise AssertionError("a conditional request needs a copy here")
        return CachedFile(path, url, facts["md5"])

    def _fetch(
        self, official: OfficialFile, url: str, path: Path, headers: dict[str, str]
    ) -> dict[str, object] | None:
        total = official.size_bytes if self.base_url == OFFICIAL_BASE_URL else 0
        name = Path(official.path).name
        with progress(name, total=total or None, unit="B") as told, files.part_beside(path) as part:
            got = self._web.download(url, part, headers=headers, told=told)
            if not got.changed:
                return None
            if self.base_url == OFFICIAL_BASE_URL:
                _check_official(official, url, got.size_bytes, got.md5)
            part.replace(path)
        _log.info("fetched %s (%.1f MB)", url, got.size_bytes / 1e6)
        return {
            "url": url,
            "size_bytes": got.size_bytes,
            "md5": got.md5,
            "etag": got.etag,
            "last_modified": got.last_modified,
        }


def _missing(url: str, error: UnavailableError) -> InputFormError | None:
    """Give the error for a site that answers, and answers for good that it has no such file."""
    cause = error.__cause__
    if not isinstance(cause, HttpFailureError) or cause.transient or not cause.reached:
        return None
    return InputFormError(
        "the site does not have this official file",
        where=url,
        expected="one of Open Images' official files",
        found=cause.detail,
        remedy="Check [openimages] base_url and release",
    )


def _check_official(official: OfficialFile, url: str, size_bytes: int, md5: str) -> None:
    if official.size_bytes not in {0, size_bytes} or official.md5 not in {"", md5}:
        raise InputFormError(
            "this is not the official file",
            where=url,
            expected=f"{official.size_bytes} bytes, MD5 {official.md5}",
            found=f"{size_bytes} bytes, MD5 {md5}",
            remedy="Something between here and the site may have changed it; try again, or from "
            "another network",
        )
