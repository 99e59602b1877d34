"""notebooks: copy the notebooks to a folder, in which they work."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import files
from oiyolo.core.packaged import packaged_folder
from oiyolo.core.results import Plan, Result, pluralize

if TYPE_CHECKING:
    import os
    from typing import Literal

_SUFFIX: Final = ".ipynb"


@dataclass(frozen=True)
class NotebooksCopied(Result):
    """The notebooks in a folder.

    Attributes:
        folder: The folder.
        copied: Names of the notebooks that were written.
        kept: Names of those that were left alone, because they differ from those of this version.
        unchanged: Names of those that were there already.
    """

    folder: Path
    copied: list[str]
    kept: list[str]
    unchanged: list[str]

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        names = {name: list(getattr(self, name)) for name in ("copied", "kept", "unchanged")}
        return {"folder": str(self.folder), **names}

    def __str__(self) -> str:
        if not (self.copied or self.kept):
            return f"notebooks: nothing to do; all are in {self.folder}"
        lines = [f"copied {pluralize(len(self.copied), 'notebook')} to {self.folder}"]
        if self.kept:
            names = ", ".join(self.kept)
            lines.append(f"kept, because they were changed: {names} (--force replaces them)")
        first = shlex.join(["jupyter", "notebook", str(self.folder / min(self.copied + self.kept))])
        return "\n".join([*lines, f"next: pip install 'oiyolo[notebook]', then {first}"])


@overload
def notebooks(
    folder: str | os.PathLike[str] = ..., *, force: bool = ..., dry_run: Literal[False] = ...
) -> NotebooksCopied: ...


@overload
def notebooks(
    folder: str | os.PathLike[str] = ..., *, force: bool = ..., dry_run: Literal[True]
) -> Plan: ...


@overload
def notebooks(
    folder: str | os.PathLike[str] = ..., *, force: bool = ..., dry_run: bool
) -> NotebooksCopied | Plan: ...


def notebooks(
    folder: str | os.PathLike[str] = ".", *, force: bool = False, dry_run: bool = False
) -> NotebooksCopied | Plan:
    """Copy the notebooks to a folder, which becomes the folder of a project when they are run.

    A notebook that is there and differs is kept: it may have been run or edited.

    Args:
        folder: The folder, created if missing.
        force: Whether to replace the notebooks that differ.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: The installation lacks the notebooks.
        OSError: The folder cannot be written.
    """
    target = Path(folder).absolute()
    sources = {path.name: path for path in sorted(packaged_folder("notebooks").glob(f"*{_SUFFIX}"))}
    states = {name: _state(source, target / name) for name, source in sources.items()}
    unchanged = [name for name, state in states.items() if state == "same"]
    kept = [name for name, state in states.items() if state == "different" and not force]
    new = [name for name in sources if name not in (*unchanged, *kept)]
    if dry_run:
        actions = [f"copy {name} to {target}" for name in new]
        actions += [f"keep {name}, which was changed" for name in kept]
        return Plan("notebooks", actions)
    target.mkdir(parents=True, exist_ok=True)
    for name in new:
        files.write_bytes(target / name, files.read_bytes(sources[name]))
    return NotebooksCopied(target, new, kept, unchanged)


def _state(source: Path, target: Path) -> Literal["missing", "same", "different"]:
    """Return how a notebook's copy compares with it."""
    try:
        is_same = files.sha256_of(target) == files.sha256_of(source)
    except FileNotFoundError:
        return "missing"
    return "same" if is_same else "different"
