"""The manifest of a pushed part: all its files, with sizes and checksums.

It is uploaded last. What it lists is either complete in the bucket, or a push is unfinished.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import records
from oiyolo.core.clock import utc_now
from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.core.files import parse_json
from oiyolo.core.results import pluralize
from oiyolo.net.buckets import FileFacts
from oiyolo.net.retry import HttpFailureError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.net.gcs import BucketClient
    from oiyolo.transfer.parts import ProjectPart

NAME: Final = "oiyolo-manifest.json"
_FORMAT: Final = 1
_LIMIT_BYTES: Final = 1 << 30
_DEADLINE_S: Final = 600.0
IDENTITY: Final = re.compile(r"[0-9a-f]{32}")
"""The form of a project's identity."""
_CRC32C: Final = re.compile(r"[A-Za-z0-9+/]{6}==")
_MAX_BYTES: Final = 1 << 50
_NOT_FOUND: Final = "HTTP 404"
_REMEDY: Final = "Push again from the project"


class _Fields(TypedDict):
    format: int
    project: str
    part: str
    pushed_at: str
    files: dict[str, list[Any]]


@dataclass(frozen=True)
class Manifest:
    """A pushed part.

    Attributes:
        project: Identity of the project.
        part: Name of the part.
        pushed_at: When it was pushed (ISO 8601, UTC).
        files: Size and checksum of each file, by its path in the project.
    """

    project: str
    part: str
    pushed_at: str
    files: Mapping[str, FileFacts]

    def as_bytes(self) -> bytes:
        """Return the manifest as JSON, with a file on each line."""
        fields = {
            "format": _FORMAT,
            "oiyolo": __version__,
            "project": self.project,
            "part": self.part,
            "pushed_at": self.pushed_at,
        }
        head = ",\n".join(f"{json.dumps(key)}: {json.dumps(fields[key])}" for key in fields)
        rows = ",\n".join(f"{json.dumps(n)}: {json.dumps(f)}" for n, f in self.files.items())
        return f'{{\n{head},\n"files": {{\n{rows}\n}}\n}}\n'.encode()


def new(project: str, part: ProjectPart, files: Mapping[str, FileFacts]) -> Manifest:
    """Return the manifest of a part that is pushed now."""
    return Manifest(project, part.folder_name, utc_now(), files)


def parse(content: bytes, part: ProjectPart, *, where: str) -> Manifest:
    """Return a manifest that was read from a bucket or a file.

    Args:
        content: Its bytes.
        part: The part that it has to describe.
        where: Where it was read from.

    Raises:
        InputFormError: It was written by a newer oiyolo, is damaged, or names files that such a
            part cannot have.
    """
    try:
        fields = parse_json(content.decode())
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise _damaged_error(where, "something other than a JSON object")
    if isinstance(fields.get("format"), int) and fields["format"] > _FORMAT:
        raise InputFormError(
            "the manifest was written by a newer version of oiyolo",
            where=where,
            expected=f"format {_FORMAT}",
            found=f"format {fields['format']}",
            remedy="Install that version here too",
        )
    if problem := records.mismatch(fields, _Fields) or _problem(fields, part):
        raise _damaged_error(where, problem)
    files = {name: FileFacts(*facts) for name, facts in fields["files"].items()}
    return Manifest(fields["project"], fields["part"], fields["pushed_at"], files)


def _problem(fields: Mapping[str, Any], part: ProjectPart) -> str:
    """Return what is wrong with a manifest; empty if nothing is."""
    if not IDENTITY.fullmatch(fields["project"]):
        return "an invalid identity of the project"
    if fields["part"] != part.folder_name:
        return f"the manifest of {fields['part']!a}"
    for name, facts in fields["files"].items():
        if not part.is_valid_name(name):
            return f"a file that {part} cannot have: {name!a}"
        if not _are_facts(facts):
            return f"an invalid size or checksum of {name}"
    return ""


def _are_facts(values: object) -> bool:
    match values:
        case [int(size), str(checksum)] if not isinstance(size, bool):
            return 0 <= size < _MAX_BYTES and _CRC32C.fullmatch(checksum) is not None
    return False


def _damaged_error(where: str, found: str) -> InputFormError:
    return InputFormError(
        "the manifest is damaged",
        where=where,
        expected="what `oiyolo push` writes",
        found=found,
        remedy=_REMEDY,
    )


def read(client: BucketClient, part: ProjectPart) -> tuple[Manifest, bytes] | None:
    """Return the manifest in a part's folder, and its bytes; ``None`` if there is none.

    Raises:
        UnavailableError: The bucket does not respond, or refuses this user.
        UsageError: There is no such bucket.
        InputFormError: The manifest is damaged, or was written by a newer oiyolo.
    """
    try:
        content, _ = client.read(NAME, limit_bytes=_LIMIT_BYTES, deadline_s=_DEADLINE_S)
    except HttpFailureError as failure:
        if failure.reason == _NOT_FOUND:
            client.has_objects()  # raises if the bucket is what is missing
            return None
        raise client.user_error(failure, "read") from failure
    return parse(content, part, where=f"{client.folder}/{NAME}"), content


def check_complete(manifest: Manifest, stored: Mapping[str, FileFacts], *, where: str) -> None:
    """Raise unless the bucket has every file that the manifest lists, as it lists it.

    Args:
        manifest: The manifest.
        stored: Size and checksum of each object in the folder.
        where: The folder.

    Raises:
        UnavailableError: Objects are missing or have another content.
    """
    wrong = [name for name, facts in manifest.files.items() if stored.get(name) != facts]
    if not wrong:
        return
    missing = sum(name not in stored for name in wrong)
    raise UnavailableError(
        "the bucket does not have what its manifest lists",
        where=where,
        expected=f"{pluralize(len(manifest.files), 'file')} as pushed on {manifest.pushed_at}",
        found=f"{missing:,} missing, {len(wrong) - missing:,} with another content, for example "
        f"{wrong[0]}",
        remedy="A newer push is unfinished, or objects were changed: run `oiyolo push` again where "
        "the project is, then pull",
    )


def missing_error(part: ProjectPart, client: BucketClient, *, is_begun: bool) -> UsageError:
    """Return the error for a part without a manifest.

    Args:
        part: The part.
        client: Client for its folder.
        is_begun: Whether there are objects in the folder.
    """
    if is_begun:
        return UsageError(
            f"the first push of {part} is unfinished",
            where=str(client.folder),
            remedy="Run `oiyolo push` again where the project is; it sends the rest",
        )
    return UsageError(
        f"{part} was not pushed there",
        where=str(client.folder),
        remedy="Check the address, or push it with `oiyolo push` where the project is",
    )


def find_saved(path: Path, part: ProjectPart) -> Manifest | None:
    """Return a manifest that an earlier transfer saved; ``None`` if it is missing or damaged."""
    try:
        return parse(path.read_bytes(), part, where=str(path))
    except (OSError, InputFormError):
        return None
