"""Decide whether an artifact is stale, by the recipe that is stored next to it.

A recipe is what an artifact was made from: the names of its inputs and their values.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final, TypedDict

from oiyolo.core import files, records
from oiyolo.core.results import format_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_CHECKSUMS: Final = "sha256"
"""The key of a recipe with the checksums of the files that were made."""
_LONG_VALUE: Final = 40
"""Characters of a value above which it is not shown, such as a checksum or a path."""


def fingerprint(value: object) -> str:
    """Return a short digest of a JSON-compatible value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_recipe(path: Path, recipe: Mapping[str, object], artifacts: Sequence[Path] = ()) -> None:
    """Write an artifact's recipe; a stage does this last, so a recipe means a complete artifact.

    Args:
        path: The file of the recipe.
        recipe: Names of inputs and their JSON-compatible values.
        artifacts: Files next to it whose damage must be noticed (``check_intact``).
    """
    checksums = {artifact.name: files.sha256_of(artifact) for artifact in artifacts}
    files.write_json(path, {**recipe, _CHECKSUMS: checksums} if checksums else recipe)


def replace_file(path: Path, artifact: Path, content: bytes) -> None:
    """Write new content to a file, and its checksum to the recipe at ``path``, if there is one.

    A file that was not intact stays so. After a kill in between, the file is not intact, which the
    stage that made it repairs.
    """
    recipe = files.read_json(path)
    checksums = recipe.get(_CHECKSUMS) if isinstance(recipe, dict) else None
    is_recorded = isinstance(checksums, dict) and is_intact(path, artifact)
    files.write_bytes(artifact, content)
    if is_recorded and checksums:
        checksums[artifact.name] = hashlib.sha256(content).hexdigest()
        files.write_json(path, recipe)


class _SavedRecipe(TypedDict):
    sha256: dict[str, str]


def is_intact(path: Path, artifact: Path) -> bool:
    """Return whether a file exists and is as it was when the recipe at ``path`` was written.

    An older version, or a damaged recipe, says nothing about it.
    """
    saved = records.find_intact(path, _SavedRecipe)
    expected = saved and saved[_CHECKSUMS].get(artifact.name)
    return artifact.is_file() and (not expected or files.sha256_of(artifact) == expected)


def check_intact(path: Path, artifact: Path, *, remedy: str) -> None:
    """Raise InputFormError, with the remedy, if a file is not ``is_intact``."""
    if not is_intact(path, artifact):
        found = "other content" if artifact.exists() else "no such file"
        raise records.damaged_error(artifact, found, remedy)


def stale_reason(path: Path, recipe: Mapping[str, object]) -> str | None:
    """Return why an artifact is stale, from its stored recipe and its current one.

    Args:
        path: The file of the stored recipe.
        recipe: The current recipe: names of inputs and their JSON-compatible values.

    Returns:
        The reason in words; ``None`` if the artifact is up to date.
    """
    before = files.read_json(path)
    if not isinstance(before, dict):
        return "no earlier output"
    now = json.loads(json.dumps(recipe))
    for name, value in now.items():
        if name not in before:
            return f"{name} was not recorded"
        if before[name] != value:
            return f"{name} changed" + _difference(before[name], value)
    return None


def _difference(before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        changes = (_change(name, before.get(name), now.get(name)) for name in names[:3])
        return ": " + "; ".join(changes)
    if isinstance(before, (int, float)) and isinstance(now, (int, float)):
        return f" from {before} to {now}"
    return ""


def _change(name: str, before: object, now: object) -> str:
    """Return how an entry changed; of long values such as checksums only that they did."""
    values = format_value(before), format_value(now)
    if max(map(len, values)) > _LONG_VALUE:
        return name
    return f"{name} from {values[0]} to {values[1]}"
