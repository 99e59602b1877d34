"""Download pretrained weights and their networks, and verify the cached files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import struct
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.core.files import digest_of, read_json, sha256_of, write_json
from oiyolo.net.download import PARTIAL_SUFFIX, PartialDownload
from oiyolo.networks.weights import check_weights, weights_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.net.client import HttpClient
    from oiyolo.networks.weights import Checksum, MirrorUrl, Pretrained

_log = logging.getLogger("oiyolo")

_SEEN_OFFSET: Final = 12
"""Position of the number of images seen in the header of a weights file."""


TRAIN_REMEDY: Final = (
    "download the file by other means and set [train] weights to its path; or set "
    'weights = "none" to train from scratch'
)


def obtain(
    name: str,
    *,
    cache: Path,
    client: HttpClient,
    pretrained: Mapping[str, Pretrained],
    remedy: str = TRAIN_REMEDY,
) -> Path:
    """Return a file of pretrained weights, downloading it unless it is in the cache.

    Cached files are verified by size and checksum; the checksum is computed again only if the file
    was modified. A file gets its final name after validation. Interrupted downloads are kept next
    to it, one per mirror, and resumed.

    Args:
        name: Name in ``pretrained``.
        cache: Folder of the cached files. Only one process may download into it at a time.
        client: Client that sends the requests.
        pretrained: The available files, by name.
        remedy: What the user can do if it cannot be downloaded, besides trying again.

    Returns:
        Path of the file. ``origin`` returns where it came from.

    Raises:
        UnavailableError: No mirror has the file; the message gives the reason for each.
        KeyError: Unknown name.
    """
    entry = pretrained[name]
    path = cache / name
    record = _verified_record(path, entry)
    if record is not None:
        with contextlib.suppress(OSError):  # a read-only cache is usable too
            _write_record(path, record, path)
        return path
    cache.mkdir(parents=True, exist_ok=True)
    problems = []
    for mirror in entry.mirrors:
        problem = _try_mirror(entry, mirror, path, client)
        if not problem:
            for leftover in cache.glob(f"{name}.*{PARTIAL_SUFFIX}*"):
                leftover.unlink(missing_ok=True)
            return path
        problems.append(f"{mirror.url}: {problem}")
    raise UnavailableError(
        f"the pretrained {'weights' if entry.layers else 'file'} {name} cannot be downloaded",
        expected=f"{entry.size_bytes:,} bytes from one of {len(entry.mirrors)} mirrors",
        found="; ".join(problems),
        remedy=f"Run the command again to resume the download; or {remedy}",
    )


def origin(path: Path) -> dict[str, Any]:
    """Return where weights in the cache came from.

    Returns:
        ``url``, ``sha256``, ``size_bytes`` and, for some mirrors, ``note``; empty for a file that
        ``obtain`` has not seen.
    """
    return {k: v for k, v in _read_record(path).items() if k not in {"mtime_ns", "checked"}}


def _read_record(path: Path) -> dict[str, Any]:
    record = read_json(_sidecar(path))
    return record if isinstance(record, dict) else {}


def _try_mirror(entry: Pretrained, mirror: MirrorUrl, path: Path, client: HttpClient) -> str:
    """Download from a mirror; return the reason for a failure, or an empty string."""
    # Mirrors have different files, so a partial download is useless for another mirror.
    digest = hashlib.sha256(mirror.url.encode()).hexdigest()[:8]
    partial = PartialDownload(path.with_name(f"{path.name}.{digest}{PARTIAL_SUFFIX}"), mirror.url)
    expected_bytes = mirror.full_network_bytes or entry.size_bytes

    def check_size(size_bytes: int) -> None:
        if size_bytes != expected_bytes:
            found = f"{size_bytes:,} bytes"
            remedy = "A different file, or an HTML page"
            raise weights_error(partial.path, found, remedy, expected=f"{expected_bytes:,} bytes")

    def check_file(_: object) -> None:
        checksum = mirror.checksum if mirror.full_network_bytes else entry.checksum
        _check(partial.path, entry, expected_bytes, checksum)
        if mirror.full_network_bytes:
            _truncate(partial.path, entry.size_bytes)
            check_weights(partial.path, expected_bytes=entry.size_bytes)

    try:
        partial.download(
            client,
            label=entry.name,
            expected_bytes=expected_bytes,
            check_size=check_size,
            check_file=check_file,
        )
    except UnavailableError as error:
        return f"{error.what} ({error.found})" if error.found else error.what
    except InputFormError as error:  # its message names the temporary file
        return f"expected {error.expected}, found {error.found}"
    # The record comes first, so that after a kill in between the file is not taken for another one.
    record = {
        "url": mirror.url,
        "sha256": sha256_of(partial.path),
        "size_bytes": entry.size_bytes,
        **({"note": mirror.note} if mirror.note else {"checked": _digest(entry)}),
    }
    _write_record(path, record, partial.path)
    partial.finish(path)
    return ""


def is_cached(path: Path, entry: Pretrained) -> bool:
    """Return whether a file in the cache has been verified, or is valid; change nothing."""
    return _verified_record(path, entry) is not None


def _verified_record(path: Path, entry: Pretrained) -> dict[str, Any] | None:
    """Return the record of a valid file; ``None`` if it has to be downloaded."""
    if not path.is_file() or path.stat().st_size != entry.size_bytes:
        return None
    record = _read_record(path)
    # Layers of another file have no published checksum; older versions did not compare it.
    if "sha256" in record and ("note" in record or record.get("checked", "") == _digest(entry)):
        is_same = record.get("mtime_ns") == path.stat().st_mtime_ns
        return record if is_same or sha256_of(path) == record["sha256"] else None
    try:  # put there by hand, or by an older version
        _check(path, entry, entry.size_bytes, entry.checksum)
    except InputFormError:
        return None
    new_record = {"sha256": sha256_of(path), "size_bytes": entry.size_bytes}
    return {**record, **new_record, "checked": _digest(entry)}


def _check(path: Path, entry: Pretrained, expected_bytes: int, checksum: Checksum | None) -> None:
    """Raise if a file is not the expected one; warn of a doubt about weights."""
    if entry.layers:
        report = check_weights(path, expected_bytes=expected_bytes, checksum=checksum)
        if report.warning:
            _log.warning("%s", report.warning)
    elif checksum is not None:
        digest = digest_of(path, checksum.algorithm)
        if digest not in checksum.digests:
            raise InputFormError(
                "not the published file",
                where=str(path),
                expected=f"{checksum.algorithm} {checksum.digests[0]}",
                found=digest,
            )


def _digest(entry: Pretrained) -> str:
    """Return the published digest that a file is compared with; empty if there is none."""
    return entry.checksum.digests[0] if entry.checksum else ""


def _write_record(path: Path, record: Mapping[str, Any], current: Path) -> None:
    """Write the record of a file that has the name ``current`` at the moment, if it changed."""
    new_record = {**record, "mtime_ns": current.stat().st_mtime_ns}
    if new_record != _read_record(path):
        write_json(_sidecar(path), new_record)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _truncate(path: Path, size_bytes: int) -> None:
    """Truncate a file to its first layers, and reset the images seen to 0."""
    with path.open("r+b") as file:
        file.seek(_SEEN_OFFSET)
        file.write(struct.pack("<Q", 0))
        file.truncate(size_bytes)
