"""init: begin a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.core.results import Plan, Result
from oiyolo.project.project import create

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Begun(Result):
    """A new project's options.

    Attributes:
        path: Its ``oiyolo.toml``.
    """

    path: Path

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {"options": str(self.path)}

    def __str__(self) -> str:
        return f"wrote {self.path}; next: oiyolo fetch, or oiyolo run"


def init(
    project: str | os.PathLike[str] = ".", *, dry_run: bool = False, **options: object
) -> Begun | Plan:
    """Write the ``oiyolo.toml`` of a new project.

    Args:
        project: Its folder, made if it is missing.
        dry_run: Only tell what would be done.
        **options: Any key; what is given is written.

    Raises:
        UsageError: There is a project already, or an option is wrong.
    """
    folder = Path(project).absolute()
    if dry_run:
        return Plan("init", [f"write {folder / 'oiyolo.toml'}"])
    given = {name: value for name, value in options.items() if value is not None}
    return Begun(create(folder, given))
