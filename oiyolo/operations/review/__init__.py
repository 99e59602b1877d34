"""review: list the labels that a run's detector contradicts, for a person to decide.

Writes ``data/review.csv`` and a page that shows each suspected error. ``prepare`` applies the
decisions in the file.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, TypedDict, overload

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result, format_table, pluralize
from oiyolo.label_errors import decisions, summary
from oiyolo.label_errors.candidates import KIND_WORDS
from oiyolo.label_errors.summary import Searched, SearchSummary, describe
from oiyolo.operations.review import halves, page
from oiyolo.operations.review.listing import suspected_rows
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.stages import split as split_stage
from oiyolo.training.run import find_run, runs_in
from oiyolo.training.run_detector import has_valid_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.operations.review.listing import Shape
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_PAGE: Final = "index.html"
_LIMIT: Final = 500
_SHOWN: Final = 300
"""Maximum number of pictures on the page."""
_FIRST: Final = 12
"""Number of pictures that reports show."""
_MAX_PORT: Final = 65_535


@dataclass(frozen=True)
class ReviewList(Result):
    """Suspected label errors.

    Attributes:
        path: ``data/review.csv``.
        page: The page that shows them.
        searched: The images that were searched, and the run that judged them.
        kinds: Number of suspected errors by kind, the most frequent first.
        decided: Number of rows with a decision.
    """

    path: Path
    page: Path
    searched: Sequence[Searched]
    kinds: Mapping[str, int]
    decided: int

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "path": str(self.path),
            "page": str(self.page),
            "images": sum(part.images for part in self.searched),
            "searched": [asdict(part) for part in self.searched],
            "kinds": dict(self.kinds),
            "decided": self.decided,
        }

    def __str__(self) -> str:
        found = sum(self.kinds.values())
        lines = [pluralize(found, "suspected label error")]
        lines += [f"searched {part}" for part in describe(self.searched)]
        lines += [f"decided so far: {self.decided:,}"] if self.decided else []
        rows = [(KIND_WORDS.get(kind, kind), f"{n:,}") for kind, n in self.kinds.items()]
        lines += [format_table(rows)] if rows else []
        lines.append(f"look at {self.page}")
        lines.append(f"decide in {self.path}, then run `oiyolo split`")
        return "\n".join(lines)


class _Options(TypedDict, total=False):
    """Options of ``review`` that do not change the type of its result."""

    run: str | None
    cross_fit: bool
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
    cross_fit: bool = False,
    limit: int = _LIMIT,
    serve: bool = False,
    port: int = 0,
    dry_run: bool = False,
) -> ReviewList | Plan:
    """List the labels that a detector contradicts, the most certain first.

    A detector has learned the labels of train, errors included, so only valid and test are
    searched. With ``cross_fit``, two more detectors are trained, and train is searched as well.
    Decisions that the file has already are kept.

    Args:
        project: An open project or its folder.
        run: Name of the run that judges valid and test; by default the latest one with weights.
        cross_fit: Whether to search train too: to train a detector on each half of train, with the
            options of ``[train]``, and let each judge the other half.
        limit: Maximum number of suspected errors.
        serve: Whether to serve the page on this machine, where decisions are made with keys and
            saved at once, until Ctrl-C.
        port: Port of the server; 0 for a free one.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run or no weights, the run has seen the images, or train cannot
            be divided.
        InputFormError: ``data/review.csv`` or a file of the dataset is damaged.
        UnavailableError: The port is in use.
        DarknetError: With ``cross_fit``: a training failed.
        LockedError: Another process is changing the dataset, or training on a half.
    """
    if limit < 1:
        raise UsageError("--limit is out of range", expected="1 or more", found=str(limit))
    if not 0 <= port <= _MAX_PORT:
        raise UsageError("--port is out of range", expected=f"0 to {_MAX_PORT}", found=str(port))
    opened = open_project(project)
    target = _find_judge(opened, run, cross_fit=cross_fit)
    path = opened.review_folder / _PAGE
    if dry_run:
        decisions.read(opened.review_path)
        actions = [
            *(halves.planned_actions(opened, judge=target) if cross_fit else ()),
            *_judge_actions(opened, target, cross_fit=cross_fit),
            f"write {opened.review_path}, {path} and {summary.NAME} next to it",
        ]
        return Plan("review", [*actions, *(["serve the page until Ctrl-C"] if serve else [])])
    runs = []
    if cross_fit:  # what would stop it is said before a long training
        decisions.read(opened.review_path)
        _judge_actions(opened, target, cross_fit=True)
        runs = halves.train_halves(opened, judge=target)
    with opened.data_lock("review"):
        searched, rows, shapes = _search(opened, target, runs, limit)
        shown = list(zip(rows, shapes[:_SHOWN], strict=False))  # not the rows of the user's own
        _write(opened, searched, rows, shown)
    if serve:
        _serve(opened, searched, shown, port)
        rows = decisions.read(opened.review_path)
    return ReviewList(
        opened.review_path,
        path,
        searched,
        dict(Counter(row.kind for row in rows).most_common()),
        sum(row.decision != "" for row in rows),
    )


def _search(
    project: Project, judge: Run | None, halves_of_train: Sequence[Run], limit: int
) -> tuple[list[Searched], list[ReviewRow], list[Shape]]:
    """Search for label errors.

    Args:
        project: The project.
        judge: The run that judges valid and test; ``None`` for the first half's.
        halves_of_train: The runs that judge train; empty if it is not searched.
        limit: Maximum number of errors.

    Returns:
        The images that were searched, the rows of the file with the decisions so far, and the
        places of the errors, which are the first rows.
    """
    scored = halves.scored_train(project, halves_of_train) if halves_of_train else []
    if not halves_of_train or _has_unlearned_images(project):
        scored += evaluate_stage.scored_splits(project, judge or halves_of_train[0])
    found = suspected_rows(project, scored, limit)
    rows = decisions.with_decisions([row for row, _ in found], decisions.read(project.review_path))
    searched = [Searched(p.images.split, p.run.name, len(p.images.paths)) for p in scored]
    return searched, rows, [shape for _, shape in found]


def _write(
    project: Project,
    searched: Sequence[Searched],
    rows: Sequence[ReviewRow],
    shown: Sequence[tuple[ReviewRow, Shape]],
) -> None:
    """Write the file, the page and the summary."""
    folder = project.review_folder
    files.remove_abandoned_parts(folder)
    decisions.write(project.review_path, rows)
    items = page.pictures(project, shown)
    files.write_text(folder / _PAGE, page.render(searched, items))
    summary.write(folder / summary.NAME, SearchSummary(searched, items[:_FIRST]))


def _find_judge(project: Project, name: str | None, *, cross_fit: bool) -> Run | None:
    """Return the run that judges valid and test; ``None`` for a detector of cross-fitting."""
    if cross_fit and name is None and not any(map(has_valid_weights, runs_in(project.runs_folder))):
        return None
    return find_run(project.runs_folder, name, has_valid_weights)


def _has_unlearned_images(project: Project) -> bool:
    return any(split_stage.image_paths(project, name) for name in SPLITS[1:])


def _judge_actions(project: Project, judge: Run | None, *, cross_fit: bool) -> list[str]:
    if cross_fit and not _has_unlearned_images(project):
        return []
    if judge is None:
        return ["run the first of them on valid and test"]
    return evaluate_stage.scored_splits_actions(project, judge)


def _serve(
    project: Project,
    searched: Sequence[Searched],
    shown: Sequence[tuple[ReviewRow, Shape]],
    port: int,
) -> None:
    """Serve the page until Ctrl-C."""
    from oiyolo.operations.review.server import ReviewServer  # noqa: PLC0415  (rarely needed)

    with ReviewServer(project, searched, shown, port) as server:
        _log.info("review: open %s, and end with Ctrl-C", server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
