"""What an artifact was made from, written beside it, so that a stage knows why it is stale."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from oiyolo.core import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def fingerprint(value: object) -> str:
    """Give a short digest of a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(path: Path, made_from: Mapping[str, object]) -> None:
    """Write a stamp; the last thing a stage does, so that a stamp means a complete artifact."""
    files.write_json(path, made_from)


def stale_reason(path: Path, made_from: Mapping[str, object]) -> str | None:
    """Compare a stamp with what the artifact would be made from now.

    Args:
        path: The stamp.
        made_from: Names of inputs and their values, as JSON knows them.

    Returns:
        Why the artifact must be made again, in words; ``None`` when it is up to date.
    """
    before = files.read_json(path)
    if not isinstance(before, dict):
        return "it was not made yet"
    now = json.loads(json.dumps(made_from))
    for name, value in now.items():
        if name not in before:
            return f"{name} was not recorded"
        if before[name] != value:
            return f"{name} changed" + _difference(before[name], value)
    return None


def _difference(before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        told = ", ".join(f"{n} from {before.get(n)!r} to {now.get(n)!r}" for n in names[:3])
        return f": {told}"
    if isinstance(before, (int, float)) and isinstance(now, (int, float)):
        return f" from {before} to {now}"
    return ""
