"""Download objects of a bucket into files, each of which is complete or absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oiyolo.core import files as whole_files
from oiyolo.core.progress import progress
from oiyolo.transfer.threads import SharedProgress, for_each
from oiyolo.transfer.upload import Transferred

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.net.buckets import FileFacts
    from oiyolo.net.gcs import BucketClient


def receive_files(
    client: BucketClient,
    paths: Mapping[str, Path],
    facts_by_name: Mapping[str, FileFacts],
    *,
    what: str,
) -> Transferred:
    """Download objects, and give each file its name when its size and checksum are right.

    Args:
        client: Client for the folder; its stop event is set if the download ends early.
        paths: Where to write each object, by its name in the folder; an existing file is replaced.
        facts_by_name: Size and checksum that each object must have.
        what: Label of the progress bar.

    Raises:
        UsageError: There is no such bucket.
        UnavailableError: The bucket does not respond, or refuses this user, or an object is
            missing or another one.
        OSError: A file cannot be written.
    """
    total_bytes = sum(facts_by_name[name].size_bytes for name in paths)
    with progress(what, total=total_bytes, unit="B") as display:
        bar = SharedProgress(display)

        def receive(name: str) -> None:
            with whole_files.atomic_write(paths[name], durable=False) as part:
                client.receive_file(name, part, facts_by_name[name], bar)

        for_each(paths, receive, client.stop)
    return Transferred(len(paths), total_bytes, 0)
