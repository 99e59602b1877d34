"""Where an official file lies on this machine, and what is known of it.

Of every file there are, beside one another:

- ``boxes.csv``: the file, whole and checked;
- ``boxes.csv.rows``: where its rows are (``rowmap``), once they were all checked;
- ``boxes.csv.facts.json``: what is known of the version that was seen last. It stays also where the
  file itself was only streamed, so that a later run can ask whether that version is still the one;
- ``boxes.csv.unfinished`` and ``boxes.csv.unfinished.json``: what came of it before a break, and of
  which version that is;
- ``boxes.csv.lock``.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from oiyolo.core import files, locks
from oiyolo.net.ranges import Version
from oiyolo.openimages.csvscan.window import MAP_SUFFIX

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from oiyolo.net.client import Download


@dataclass(frozen=True)
class Facts:
    """What is known of the version of a file that was seen last.

    Attributes:
        url: Where it came from.
        size_bytes: Its size.
        md5: Its MD5 in hexadecimal.
        etag: As the server sent it.
        last_modified: As the server sent it.
        rows_checked: Every row of it was once seen to be well-formed.
    """

    url: str
    size_bytes: int
    md5: str
    etag: str
    last_modified: str
    rows_checked: bool = False

    @classmethod
    def of(cls, url: str, got: Download) -> Facts:
        """Give the facts of what has just come."""
        return cls(url, got.size_bytes, got.md5, got.etag, got.last_modified)

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask only for another version."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified} if self.last_modified else {}

    @property
    def as_version(self) -> Version:
        """The same in the words of a server's answer."""
        return Version(self.etag, self.last_modified, self.size_bytes, self.md5)


class Place:
    """Where one official file lies, with all that belongs to it.

    Args:
        path: The file's final name.
        url: Where it comes from.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self.unfinished_path = path.with_name(path.name + ".unfinished")
        self._unfinished_facts_path = path.with_name(path.name + ".unfinished.json")
        self._map_path = path.with_name(path.name + MAP_SUFFIX)
        self._facts_path = path.with_name(path.name + ".facts.json")
        self._lock_path = path.with_name(path.name + ".lock")

    def locked(self) -> AbstractContextManager[None]:
        """Be the only one who writes here; wait while another does."""
        return locks.exclusive(self._lock_path, what=self.path.name, doing="fetch", wait=True)

    def facts(self) -> Facts | None:
        """Give what is known of the last version, whether it is here or not."""
        known = files.read_json(self._facts_path)
        if not isinstance(known, dict) or known.get("url") != self.url:
            return None
        try:
            facts = Facts(**known)
        except TypeError:  # more or less than these facts
            return None
        texts = (facts.md5, facts.etag, facts.last_modified)
        return facts if all(isinstance(text, str) for text in texts) else None

    def copy_facts(self) -> Facts | None:
        """Give what is known of the copy here; ``None`` where there is no sound one."""
        facts = self.facts()
        if facts is None or not self.path.is_file():
            return None
        return facts if self.path.stat().st_size == facts.size_bytes else None

    def keep_facts(self, facts: Facts) -> None:
        """Remember what is known."""
        files.write_json(self._facts_path, asdict(facts))

    def unfinished(self) -> tuple[Version | None, int]:
        """Give the version of which a part is here, and that part's size in bytes."""
        kept = files.read_json(self._unfinished_facts_path)
        if not isinstance(kept, dict) or not self.unfinished_path.is_file():
            return None, 0
        version = Version.of_dict(kept.get("version"))
        size_bytes = self.unfinished_path.stat().st_size
        if version is None or kept.get("url") != self.url or not size_bytes:
            return None, 0
        if version.size_bytes is not None and size_bytes > version.size_bytes:
            return None, 0
        return version, size_bytes

    def begin(self, version: Version) -> None:
        """Note of which version the unfinished file is."""
        kept = {"url": self.url, "version": version.as_dict()}
        files.write_json(self._unfinished_facts_path, kept)

    def finish(self, facts: Facts) -> None:
        """Give the unfinished file, which is whole and checked, its final name."""
        with self.unfinished_path.open("rb") as file:
            os.fsync(file.fileno())
        # In this order a kill leaves no file with the facts of another, and nothing to fetch again.
        self._drop_copy()
        self.keep_facts(facts)
        self.unfinished_path.replace(self.path)
        self._unfinished_facts_path.unlink(missing_ok=True)

    def was_streamed(self, facts: Facts) -> None:
        """Remember a version that went by; a copy of another one is of no more use."""
        before = self.copy_facts()
        if before is None or before.md5 != facts.md5:
            self._drop_copy()
            self.keep_facts(facts)

    def _drop_copy(self) -> None:
        self._map_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def drop_unfinished(self) -> None:
        """Remove what came of a version that nobody waits for any more."""
        self._unfinished_facts_path.unlink(missing_ok=True)
        self.unfinished_path.unlink(missing_ok=True)

    def remove_parts(self) -> None:
        """Remove what killed runs left of this file; parts of others may be in use."""
        for part in self.path.parent.glob(f".{self.path.name}.*{files.PART_SUFFIX}"):
            part.unlink(missing_ok=True)
