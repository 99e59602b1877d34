"""What a project knows of earlier transfers: its identity, and the manifests pushed or pulled.

The manifests tell which side has changed since the last transfer.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Final, TypedDict

from oiyolo.core import files, records, staleness
from oiyolo.core.errors import OiyoloError
from oiyolo.transfer import manifest as manifests
from oiyolo.transfer.parts import LEDGER, part_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.net.buckets import BucketFolder, FileFacts
    from oiyolo.project.project import Project
    from oiyolo.transfer.manifest import Manifest
    from oiyolo.transfer.parts import ProjectPart

_FOLDER: Final = "pushed"
_IDENTITY: Final = "project.json"
_INCOMING: Final = "incoming"
_REMEDY: Final = "Restore it from a copy; without it, push into another folder of the bucket"


class _Identity(TypedDict):
    project: str


def identity(project: Project) -> str | None:
    """Return the identity under which a project was pushed or pulled; ``None`` if never.

    Copies of a project have the same identity.

    Raises:
        InputFormError: The file is damaged.
    """
    path = _folder(project) / _IDENTITY
    content = records.find(path, _Identity, remedy=_REMEDY)
    if content is None:
        return None
    if not manifests.IDENTITY.fullmatch(content["project"]):
        raise records.damaged_error(path, "an invalid identity", _REMEDY)
    return str(content["project"])


def new_identity() -> str:
    """Return the identity of a project that has none."""
    return uuid.uuid4().hex


def save_identity(project: Project, name: str) -> None:
    """Record the identity of a project."""
    if identity(project) != name:
        files.write_json(_folder(project) / _IDENTITY, {"project": name})


def incoming_folder(project: Project, part: ProjectPart) -> Path:
    """Return the folder in which the files of a part are collected until all are there."""
    return _folder(project) / _INCOMING / part.folder_name


def saved(project: Project, folder: BucketFolder, part: ProjectPart) -> Manifest | None:
    """Return the manifest of the last transfer between a project and a folder of a bucket."""
    return manifests.find_saved(_saved_path(project, folder), part)


def save(project: Project, folder: BucketFolder, manifest: Manifest) -> None:
    """Record a transfer that is complete."""
    files.write_bytes(_saved_path(project, folder), manifest.as_bytes())


def known_ledgers(project: Project, part: ProjectPart) -> dict[FileFacts, str]:
    """Return the ledgers of all earlier transfers, and when each was pushed last as this part.

    The time is empty for a ledger that was only transferred as another part.
    """
    pushed_at: dict[FileFacts, str] = {}
    for manifest in _all_saved(project):
        if facts := manifest.files.get(LEDGER):
            at = manifest.pushed_at if manifest.part == part.folder_name else ""
            pushed_at[facts] = max(at, pushed_at.get(facts, ""))
    return pushed_at


def _all_saved(project: Project) -> Iterator[Manifest]:
    for path in sorted(_folder(project).glob("*.json")):
        if path.name == _IDENTITY:
            continue
        try:
            part = part_in(json.loads(path.read_bytes())["part"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OiyoloError):
            continue
        manifest = manifests.find_saved(path, part)
        if manifest is not None:
            yield manifest


def _saved_path(project: Project, folder: BucketFolder) -> Path:
    return _folder(project) / f"{staleness.fingerprint(str(folder))}.json"


def _folder(project: Project) -> Path:
    return project.data_folder / _FOLDER
