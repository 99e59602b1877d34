"""init: create a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from oiyolo.core.results import Plan, Result
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import create

if TYPE_CHECKING:
    import os
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.keywords import AllKeywords


@dataclass(frozen=True)
class Begun(Result):
    """A new project.

    Attributes:
        path: Path of its ``oiyolo.toml``.
    """

    path: Path

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {"options": str(self.path)}

    def __str__(self) -> str:
        return f"wrote {self.path}; next: oiyolo fetch, or oiyolo run"


@overload
def init(
    project: str | os.PathLike[str] = ...,
    *,
    dry_run: Literal[False] = ...,
    **options: Unpack[AllKeywords],
) -> Begun: ...


@overload
def init(
    project: str | os.PathLike[str] = ..., *, dry_run: Literal[True], **options: Unpack[AllKeywords]
) -> Plan: ...


@overload
def init(
    project: str | os.PathLike[str] = ..., *, dry_run: bool, **options: Unpack[AllKeywords]
) -> Begun | Plan: ...


@takes_keys()
def init(
    project: str | os.PathLike[str] = ".", *, dry_run: bool = False, **options: Unpack[AllKeywords]
) -> Begun | Plan:
    """Write the ``oiyolo.toml`` of a new project.

    Args:
        project: The project's folder, created if missing.
        dry_run: Whether to only report what would be done.
        **options: Any key; those that are passed are written to the file.

    Raises:
        UsageError: The folder is a project already, or an option is invalid.
    """
    folder = Path(project).absolute()
    if dry_run:
        return Plan("init", [f"write {folder / 'oiyolo.toml'}"])
    configured = {name: value for name, value in options.items() if value is not None}
    return Begun(create(folder, configured))
