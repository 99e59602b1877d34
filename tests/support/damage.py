"""Ways in which a file of a project may be damaged: by a full disk, an editor, another program."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    2**62,
    10**30,
    1e308,
    float("nan"),
    "../../x",
    "\ud800",
    [1],
    {},
)
_DOCUMENTS: Final = (b"[1]", b"12", b"null", b'"a"', b"NaN", b"{}", b"[" * 100_000, b"9" * 10_000)


def damage(path: Path, content: bytes | None) -> None:
    """Replace a file by another content; ``None`` stands for a folder in its place."""
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content)


def damages(content: bytes, *, is_json: bool) -> Iterator[bytes | None]:
    """Yield what damage makes of a file, with every key of a JSON file in the wrong form once."""
    half = len(content) // 2
    yield from (None, b"", content[:half], content + b"\0\0\n", b"\0" * len(content))
    yield content[:half] + b"\xe4" + content[half:]
    yield content.decode(errors="replace").encode("utf-16")
    if is_json:
        yield from _DOCUMENTS
        yield from _json_damages(json.loads(content))
        return
    head, *lines = content.split(b"\n")
    for rows in (lines, [head, *lines[1:]], [head, *lines[:1], *lines], [head, b"", *lines]):
        yield b"\n".join(rows)
    for column in range(head.count(b",") + 1):
        for value in (b"", b"x", b"nan", b"-5", b"9" * 30):
            cells = lines[0].split(b",")
            cells[column : column + 1] = [value]
            yield b"\n".join([head, b",".join(cells), *lines[1:]])


def _json_damages(document: Any) -> Iterator[bytes]:
    for path in _paths(document):
        for value in (*_VALUES, ...):
            changed = json.loads(json.dumps(document))
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            if value is ...:
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            yield json.dumps(changed).encode()


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value, of a list the first two only."""
    pairs = value.items() if isinstance(value, dict) else []
    pairs = list(enumerate(value))[:2] if isinstance(value, list) else pairs
    for key, item in pairs:
        yield (key,)
        yield from ((key, *rest) for rest in _paths(item))
