"""review: list the labels that a run's detector contradicts, for a person to decide.

Writes ``data/review.csv`` and a page that shows each suspected error. ``prepare`` applies the
decisions in the file.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict, overload

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result, format_table, pluralize
from oiyolo.label_errors import decisions
from oiyolo.label_errors.candidates import KIND_WORDS
from oiyolo.operations.review import page
from oiyolo.operations.review.listing import suspected_rows
from oiyolo.project.project import open_project
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.training.run import find_run
from oiyolo.training.run_detector import weights_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.operations.review.listing import Shape
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_FOLDER: Final = "review"
_PAGE: Final = "index.html"
_LIMIT: Final = 500
_SHOWN: Final = 300
"""Maximum number of pictures on the page."""
_MAX_PORT: Final = 65_535


@dataclass(frozen=True)
class ReviewList(Result):
    """Suspected label errors.

    Attributes:
        path: ``data/review.csv``.
        page: The page that shows them.
        run: Name of the run whose detector was asked.
        images: Number of images that were searched.
        kinds: Number of suspected errors by kind, the most frequent first.
        decided: Number of rows with a decision.
    """

    path: Path
    page: Path
    run: str
    images: int
    kinds: Mapping[str, int]
    decided: int

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "path": str(self.path),
            "page": str(self.page),
            "run": self.run,
            "images": self.images,
            "kinds": dict(self.kinds),
            "decided": self.decided,
        }

    def __str__(self) -> str:
        found = sum(self.kinds.values())
        images = f"{pluralize(self.images, 'image')} of valid and test"
        lines = [
            f"{pluralize(found, 'suspected label error')} in {images}, according to {self.run}"
        ]
        lines += [f"decided so far: {self.decided:,}"] if self.decided else []
        rows = [(KIND_WORDS.get(kind, kind), f"{n:,}") for kind, n in self.kinds.items()]
        lines += [format_table(rows)] if rows else []
        lines.append(f"look at {self.page}")
        lines.append(f"decide in {self.path}, then run `oiyolo split`")
        return "\n".join(lines)


class _Options(TypedDict, total=False):
    """Options of ``review`` that do not change the type of its result."""

    run: str | None
    limit: int
    serve: bool
    port: int


@overload
def review(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[_Options]
) -> ReviewList: ...


@overload
def review(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[_Options]
) -> Plan: ...


@overload
def review(
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[_Options]
) -> ReviewList | Plan: ...


def review(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    limit: int = _LIMIT,
    serve: bool = False,
    port: int = 0,
    dry_run: bool = False,
) -> ReviewList | Plan:
    """List the labels of valid and test that a detector contradicts, the most certain first.

    Decisions that the file has already are kept.

    Args:
        project: An open project or its folder.
        run: Name of the run; by default the latest one with weights.
        limit: Maximum number of suspected errors.
        serve: Whether to serve the page on this machine, where decisions are made with keys and
            saved at once, until Ctrl-C.
        port: Port of the server; 0 for a free one.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run or no weights, or the run has seen the images.
        InputFormError: ``data/review.csv`` or a file of the dataset is damaged.
        UnavailableError: The port is in use.
        LockedError: Another process is changing the dataset.
    """
    if limit < 1:
        raise UsageError("--limit is out of range", expected="1 or more", found=str(limit))
    if not 0 <= port <= _MAX_PORT:
        raise UsageError("--port is out of range", expected=f"0 to {_MAX_PORT}", found=str(port))
    opened = open_project(project)
    target = find_run(opened.runs_folder, run, lambda run: weights_of(run) is not None)
    path = opened.data_folder / _FOLDER / _PAGE
    if dry_run:
        decisions.read(opened.review_path)
        actions = [
            *evaluate_stage.scored_splits_actions(opened, target),
            f"write {opened.review_path} and {path}",
        ]
        return Plan("review", [*actions, *(["serve the page until Ctrl-C"] if serve else [])])
    with opened.data_lock("review"):
        before = decisions.read(opened.review_path)
        scored = evaluate_stage.scored_splits(opened, target)
        found = suspected_rows(opened, scored, limit)
        rows = decisions.with_decisions([row for row, _ in found], before)
        decisions.write(opened.review_path, rows)
        shapes = [shape for _, shape in found[:_SHOWN]]
        shown = list(zip(rows, shapes, strict=False))  # rows of the user's own are not shown
        files.remove_abandoned_parts(path.parent)
        files.write_text(path, page.render(opened, target.name, shown))
    if serve:
        _serve(opened, target.name, shown, port)
        rows = decisions.read(opened.review_path)
    return ReviewList(
        opened.review_path,
        path,
        target.name,
        sum(len(part.images.paths) for part in scored),
        dict(Counter(row.kind for row in rows).most_common()),
        sum(row.decision != "" for row in rows),
    )


def _serve(project: Project, run: str, shown: Sequence[tuple[ReviewRow, Shape]], port: int) -> None:
    """Serve the page until Ctrl-C."""
    from oiyolo.operations.review.server import ReviewServer  # noqa: PLC0415  (rarely needed)

    with ReviewServer(project, run, shown, port) as server:
        _log.info("review: open %s, and end with Ctrl-C", server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
