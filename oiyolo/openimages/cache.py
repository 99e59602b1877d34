"""Official files on this machine: fetched once, checked, shared by all projects.

A machine with little disk has them streamed instead, and keeps only what is known of them.
``places`` shows what lies where.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.core.progress import progress
from oiyolo.net.client import HttpFailureError, Web
from oiyolo.openimages.cache_entry import Facts, Place
from oiyolo.openimages.csvscan.window import Mapped
from oiyolo.openimages.releases import OFFICIAL_BASE_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.core.errors import OiyoloError
    from oiyolo.core.progress import Progress
    from oiyolo.net.client import Download, Stream
    from oiyolo.net.ranges import Version
    from oiyolo.openimages.releases import OfficialFile

_SPARE_BYTES: Final = 256 << 20
"""What stays free on the disk: a full one stops more than this program."""

_WORTH_MEASURING_BYTES: Final = 5_000_000
_BANDWIDTH: Final = "bandwidth.json"
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class CachedFile(Mapped):
    """An official file on this machine.

    Attributes:
        path: Where it lies.
        version: Its MD5: another version has another one.
        url: Where it came from.
        rows_checked: Every row of this version was once seen to be well-formed.
    """

    url: str
    rows_checked: bool = False


class StreamedFile:
    """An official file that is read off the net once, and not kept.

    Attributes:
        where: Its address.
        version: Its MD5, once it was read to its end; empty until then.
        rows_checked: Nobody knows yet which version it is.
    """

    rows_checked = False

    def __init__(
        self, stream: Stream, total_bytes: int, accept: Callable[[Download], None]
    ) -> None:
        self.where = stream.where
        self.version = ""
        self._stream, self._total_bytes, self._accept = stream, total_bytes, accept

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        """Give all its bytes in order, once, in blocks of about ``size_bytes``.

        What came may be used only after the last block was asked for without an error.

        Raises:
            UnavailableError: It cannot be fetched, or changed while it was read.
            InputFormError: The site does not have it, or what came is not the official file.
        """
        name = self.where.rsplit("/", 1)[-1]
        with (
            _told_plainly(self.where),
            progress(name, total=self._total_bytes or None, unit="B") as told,
            contextlib.closing(self._stream.blocks(size_bytes)) as blocks,
        ):
            for block in blocks:
                told.advance(len(block))
                yield block
        if self._stream.got is None:
            raise AssertionError("a stream that ends without an error has come whole")
        self._accept(self._stream.got)
        self.version = self._stream.got.md5


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

        What an earlier process left unfinished is gone on with. Without an answer, the copy that is
        here serves, with a warning. Two processes that ask at the same time fetch it once.

        Raises:
            UnavailableError: It is not here and the site cannot be reached, or it does not fit on
                the disk.
            InputFormError: The site answers and does not have it, or what came is not the
                official file, by size or MD5.
        """
        place = self._place(official)
        place.path.parent.mkdir(parents=True, exist_ok=True)
        with place.locked():
            place.remove_parts()
            facts = place.copy_facts()
            if not (facts and self._is_offline):
                facts = self._newest(official, place, facts)
        return CachedFile(place.path, facts.md5, place.url, facts.rows_checked)

    def open_stream(self, official: OfficialFile) -> CachedFile | StreamedFile:
        """Give an official file for reading once without keeping it.

        The copy that is here serves, if it is still the newest or nobody answers; one that is not
        goes when the newer one has come to its end. Only a copy is asked after here: whether the
        site has the file shows with the first block.
        """
        place = self._place(official)
        copy = place.copy_facts()
        if copy is not None and self.version_now(official) == copy.md5:
            return CachedFile(place.path, copy.md5, place.url, copy.rows_checked)

        def accept(got: Download) -> None:
            self._check_official(official, place.url, got.size_bytes, got.md5)
            place.path.parent.mkdir(parents=True, exist_ok=True)
            with place.locked():
                place.was_streamed(Facts.of(place.url, got))
            self._measure(got)

        expected_bytes = self._expected_bytes(official)
        stream = self._web.stream(place.url, expected_bytes=expected_bytes)
        return StreamedFile(stream, expected_bytes, accept)

    def version_now(self, official: OfficialFile) -> str:
        """Ask which version the site has, by one request that brings no content.

        Without an answer, the last version that was seen counts, with a warning.

        Returns:
            The MD5 of the version that was seen last, fetched or streamed, if it is still the one;
            empty where it is not, or where none was ever seen (then nobody is asked).
        """
        place = self._place(official)
        facts = place.facts()
        if facts is None:
            return ""
        if self._is_offline:
            return facts.md5
        try:
            newer = self._web.newer_version(place.url, facts.conditions)
        except UnavailableError as error:
            self._go_offline(error)
            return facts.md5
        if newer is None or newer.same_as(facts.as_version):
            return facts.md5
        return newer.md5

    def has(self, official: OfficialFile) -> bool:
        """Tell whether a whole copy is here, without asking anybody whether it is the newest."""
        return self._place(official).copy_facts() is not None

    def missing_bytes(self, official: OfficialFile) -> int:
        """Tell how much of a file is still to be fetched, as far as that is known here; else 0."""
        place = self._place(official)
        if place.copy_facts() is not None:
            return 0
        version, here_bytes = place.unfinished()
        told_bytes = version.size_bytes if version is not None else None
        return max(0, (told_bytes or self._expected_bytes(official)) - here_bytes)

    def mark_checked(self, cached: CachedFile) -> None:
        """Remember that every row of this version was seen to be well-formed."""
        place = Place(cached.path, cached.url)
        with place.locked():
            facts = place.copy_facts()
            if facts is not None and facts.md5 == cached.version:
                place.keep_facts(replace(facts, rows_checked=True))

    def bandwidth_bytes_s(self) -> float | None:
        """Give the rate of the last large download, in bytes a second; ``None`` without one."""
        measured = files.read_json(self.folder / _BANDWIDTH)
        try:
            return float(measured["bytes"] / measured["seconds"])
        except (KeyError, TypeError, ZeroDivisionError):
            return None

    def _place(self, official: OfficialFile) -> Place:
        return Place(self.folder / official.path, f"{self.base_url}/{official.path}")

    def _newest(self, official: OfficialFile, place: Place, facts: Facts | None) -> Facts:
        """Fetch a file if there is a newer one than the copy here; give the facts of what is."""
        try:
            with _told_plainly(place.url):
                fetched = self._fetch(official, place, facts)
        except (UnavailableError, InputFormError) as error:
            of_the_site = isinstance(error.__cause__, HttpFailureError | UnavailableError)
            if not facts or not of_the_site:
                raise
            self._go_offline(error)
            return facts
        if fetched is not None:
            return fetched
        place.drop_unfinished()
        if facts is None:
            raise AssertionError("a conditional request needs a copy here")
        return facts

    def _fetch(self, official: OfficialFile, place: Place, facts: Facts | None) -> Facts | None:
        got = self._download(official, place, facts)
        if got.resumed and not self._is_official(official, got.size_bytes, got.md5):
            # Two halves that do not fit: the second may be of another version, whatever was said.
            _log.warning("%s came damaged after a break; it is fetched anew", place.url)
            place.drop_unfinished()
            got = self._download(official, place, facts)
        if not got.changed:
            return None
        try:
            self._check_official(official, place.url, got.size_bytes, got.md5)
        except InputFormError:
            place.drop_unfinished()
            raise
        fetched = Facts.of(place.url, got)
        place.finish(fetched)
        _log.info("fetched %s (%.1f MB)", place.url, got.size_bytes / 1e6)
        self._measure(got)
        return fetched

    def _download(self, official: OfficialFile, place: Place, facts: Facts | None) -> Download:
        held, here_bytes = place.unfinished()
        if held is None:
            place.drop_unfinished()
        else:
            _log.info("going on with %s after %.1f MB", place.url, here_bytes / 1e6)

        def begin(version: Version, done: int) -> None:
            if version.size_bytes is not None:
                self._check_official(official, place.url, version.size_bytes, "")
                _check_room(place, version.size_bytes - done)
            if not done:
                place.begin(version)

        with self._progress(official, here_bytes) as told:
            try:
                return self._web.download(
                    place.url,
                    place.unfinished_path,
                    headers=facts.conditions if facts else {},
                    told=told,
                    held=held,
                    expected_bytes=self._expected_bytes(official),
                    begin=begin,
                )
            except InputFormError:
                place.drop_unfinished()
                raise
            except OSError as error:
                if error.errno in _NO_SPACE:
                    raise _no_room(place, "more than there is", "nothing free") from error
                raise

    def _progress(
        self, official: OfficialFile, here_bytes: int
    ) -> contextlib.AbstractContextManager[Progress]:
        return progress(
            Path(official.path).name,
            total=self._expected_bytes(official) or None,
            unit="B",
            initial=here_bytes,
        )

    def _go_offline(self, error: OiyoloError) -> None:
        """Ask nobody any more: one warning and one wait are enough."""
        self._is_offline = True
        _log.warning("%s Copies of an earlier run serve.", error)

    def _measure(self, got: Download) -> None:
        if got.came_bytes > _WORTH_MEASURING_BYTES:
            measured = {"bytes": got.came_bytes, "seconds": got.seconds}
            files.write_json(self.folder / _BANDWIDTH, measured)

    def _expected_bytes(self, official: OfficialFile) -> int:
        """Give the size that a file must have; 0 where it is not known, or on another site."""
        return official.size_bytes if self.base_url == OFFICIAL_BASE_URL else 0

    def _is_official(self, official: OfficialFile, size_bytes: int, md5: str) -> bool:
        if self.base_url != OFFICIAL_BASE_URL:
            return True
        right_md5 = not md5 or official.md5 in {"", md5}
        return right_md5 and official.size_bytes in {0, size_bytes}

    def _check_official(self, official: OfficialFile, url: str, size_bytes: int, md5: str) -> None:
        """Refuse what is not the official file; an empty MD5 is not known yet."""
        if self._is_official(official, size_bytes, md5):
            return
        raise InputFormError(
            "this is not the official file",
            where=url,
            expected=f"{official.size_bytes} bytes, MD5 {official.md5}",
            found=f"{size_bytes} bytes" + (f", MD5 {md5}" if md5 else ""),
            remedy="Something between here and the site may have changed it; try again, or from "
            "another network",
        )


@contextlib.contextmanager
def _told_plainly(url: str) -> Iterator[None]:
    """Tell a site that has no such file from one that cannot be reached."""
    try:
        yield
    except UnavailableError as error:
        cause = error.__cause__
        if not isinstance(cause, HttpFailureError) or cause.transient or not cause.reached:
            raise
        raise InputFormError(
            "the site does not have this official file",
            where=url,
            expected="one of Open Images' official files",
            found=cause.detail,
            remedy="Check [openimages] base_url and release",
        ) from error


def _check_room(place: Place, left_bytes: int) -> None:
    free_bytes = shutil.disk_usage(place.path.parent).free
    if left_bytes + min(left_bytes, _SPARE_BYTES) > free_bytes:
        raise _no_room(place, f"{left_bytes:,} bytes, and some to spare", f"{free_bytes:,} free")


def _no_room(place: Place, needed: str, found: str) -> UnavailableError:
    return UnavailableError(
        f"{place.path.name} does not fit on the disk",
        where=str(place.path.parent),
        expected=needed,
        found=found,
        remedy="Make room, give [openimages] cache a larger disk, or take --stream, which keeps "
        "only the rows that are wanted and needs far less",
    )
