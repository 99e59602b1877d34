"""Upload the files that a folder in a bucket does not have yet."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.transfer.threads import THREADS, SharedProgress, for_each

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.net.buckets import BucketFolder, FileFacts
    from oiyolo.net.gcs import BucketClient
    from oiyolo.net.retry import RetryPolicy


@dataclass(frozen=True)
class Transferred:
    """What an upload or a download did.

    Attributes:
        files: Number of files that were sent or received.
        size_bytes: Their size.
        unchanged: Number of files that were the same on both sides already.
    """

    files: int
    size_bytes: int
    unchanged: int


def upload_files(
    files: Mapping[str, Path],
    folder: BucketFolder,
    *,
    what: str = "upload",
    retry_policy: RetryPolicy | None = None,
) -> Transferred:
    """Upload files into a folder of a bucket, except those that it has with the same content.

    Each object is complete or absent, so after an interruption the same call sends the rest. The
    bucket verifies each object's checksum. Other objects of the folder are left alone. A user who
    may write, but not list, sends every file.

    Args:
        files: Path of each file by the name that it gets in the folder, which may contain slashes.
        folder: The folder.
        what: Label of the progress bar.
        retry_policy: Attempts, pauses and timeouts.

    Raises:
        UsageError: There is no such bucket, or a file is missing.
        UnavailableError: The bucket does not respond, or refuses this user, or a file was changed
            while it was uploaded.
    """
    from oiyolo.net import gcs  # noqa: PLC0415  (google's libraries are large)

    missing = next((path for path in files.values() if not path.is_file()), None)
    if missing is not None:
        raise UsageError("the file to upload is missing", where=str(missing))
    client = gcs.BucketClient(folder, connections=THREADS, retry_policy=retry_policy)
    with contextlib.closing(client):
        objects = client.list_objects() if client.has_objects() else ()
        stored = {name: facts for name, facts in objects if name in files}
        facts_by_name = {name: gcs.facts_of(path) for name, path in files.items()}
        return send_files(client, files, facts_by_name, stored, what=what)


def send_files(
    client: BucketClient,
    files: Mapping[str, Path],
    facts_by_name: Mapping[str, FileFacts],
    stored: Mapping[str, FileFacts],
    *,
    what: str,
) -> Transferred:
    """Upload the files that differ from the objects stored; the new ones come first.

    Objects that an earlier upload described are thus replaced as late as possible.

    Args:
        client: Client for the folder; its stop event is set if the upload ends early.
        files: Path of each file by its name in the folder.
        facts_by_name: Size and checksum of each file.
        stored: Size and checksum of the objects in the folder.
        what: Label of the progress bar.

    Raises:
        UnavailableError, UsageError: As for ``upload_files``.
    """
    changed = changed_names(facts_by_name, stored)
    total_bytes = sum(facts_by_name[name].size_bytes for name in changed)
    with progress(what, total=total_bytes, unit="B") as display:
        bar = SharedProgress(display)

        def send(name: str) -> None:
            client.send_file(files[name], name, facts_by_name[name], bar)

        for replaces in (False, True):
            names = [name for name in changed if (name in stored) == replaces]
            for_each(names, send, client.stop)
    return Transferred(len(changed), total_bytes, len(files) - len(changed))


def changed_names(wanted: Mapping[str, FileFacts], present: Mapping[str, FileFacts]) -> list[str]:
    """Return the names whose content is not present, in their order."""
    return [name for name, facts in wanted.items() if present.get(name) != facts]
