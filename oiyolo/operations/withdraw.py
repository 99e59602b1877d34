"""withdraw: remove images from a project for good, and name what was made with them."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import files
from oiyolo.core.clock import utc_today
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.operations.image_names import FORM, find_id
from oiyolo.operations.image_uses import uses_of
from oiyolo.project import withdrawn as withdrawn_list
from oiyolo.project.project import open_project
from oiyolo.project.withdrawn import Withdrawal
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import split as split_stage
from oiyolo.training.run import ids_in_use

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Literal

    from oiyolo.operations.image_uses import RunUse
    from oiyolo.project.project import Project, ProjectLike

_STDIN: Final = "-"
_SHOWN: Final = 60
_SIMILAR: Final = 0.8
_MAX_COMPARED: Final = 100_000
"""Number of ids that are compared with a mistyped one; 26,000 take a third of a second."""
_WHY_CHARACTERS: Final = 1000
_WEIGHTS_REMAIN: Final = (
    "The weights of a run that trained on them stay as they are: only a new training, with "
    "`oiyolo train`, forgets an image."
)


@dataclass(frozen=True)
class Withdrawn(Result):
    """Images that were withdrawn.

    Attributes:
        image_ids: Those that this call withdrew.
        earlier: Those that were withdrawn before.
        not_selected: Those of ``image_ids`` that this project has never selected, each with a
            similar id that it has, or an empty text.
        deleted: Number of images whose files were deleted.
        kept: Images whose files a training run in progress uses; the next command that changes the
            dataset deletes them once it has ended.
        uses: The runs that used each image.
        undone: Those that are no longer withdrawn.
    """

    image_ids: Sequence[str]
    earlier: Sequence[str] = ()
    not_selected: Mapping[str, str] = field(default_factory=dict)
    deleted: int = 0
    kept: Sequence[str] = ()
    uses: Mapping[str, Sequence[RunUse]] = field(default_factory=dict)
    undone: Sequence[str] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "withdrawn": list(self.image_ids),
            "earlier": list(self.earlier),
            "not_selected": list(self.not_selected),
            "deleted": self.deleted,
            "kept": list(self.kept),
            "undone": list(self.undone),
            "runs": {
                run: {"uses": uses, "pictures": [str(path) for path in paths]}
                for run, (uses, paths) in _by_run(self.uses).items()
            },
        }

    def __str__(self) -> str:
        if self.undone:
            images = pluralize(len(self.undone), "image")
            return f"no longer withdrawn: {images}; the next `oiyolo fetch` may select them again"
        if not self.image_ids and not self.deleted:
            lines = ["withdraw: nothing to do; they were withdrawn before"]
        else:
            deleted = f"deleted the files of {pluralize(self.deleted, 'image')}"
            lines = [f"withdrew {pluralize(len(self.image_ids), 'image')}; {deleted}"]
        if self.kept:
            lines.append(
                f"the files of {pluralize(len(self.kept), 'image')} are used by a training run in "
                "progress; the next `oiyolo refresh` or `oiyolo split` after it deletes them"
            )
        lines += [_not_selected_text(*pair) for pair in self.not_selected.items()]
        return "\n".join([*lines, *_run_lines(self.uses)])


def _not_selected_text(image_id: str, similar: str) -> str:
    hint = f" (did you mean {similar}?)" if similar else ""
    return f"{image_id} was never selected in this project{hint}; it will not be from now on"


def _by_run(
    uses: Mapping[str, Sequence[RunUse]],
) -> dict[str, tuple[dict[str, int], list[Path]]]:
    """Return for each run the number of images by use, and the files that may show them."""
    by_run: dict[str, tuple[dict[str, int], list[Path]]] = {}
    for run_uses in uses.values():
        for use in run_uses:
            counts, paths = by_run.setdefault(use.run.name, ({}, []))
            paths += [path for path in use.pictures if path not in paths]
            for text in use.uses:
                counts[text] = counts.get(text, 0) + 1
    return by_run


def _run_lines(uses: Mapping[str, Sequence[RunUse]]) -> list[str]:
    """Return what each run did with the images, and what to make again."""
    lines = []
    for run, (counts, paths) in _by_run(uses).items():
        texts = [use.replace(" it", f" {pluralize(n, 'image')}", 1) for use, n in counts.items()]
        lines.append(f"run {run}: {', '.join(texts)}")
        lines += [f"  may show them: {path}" for path in paths]
        if paths:
            again = f"`oiyolo evaluate {run}`, then `oiyolo report --run {run}`"
            lines.append(f"  {again} make them again without these images")
    return [*lines, _WEIGHTS_REMAIN] if lines else []


@overload
def withdraw(
    image_ids: str | Sequence[str] | None = ...,
    project: ProjectLike = ...,
    *,
    why: str = ...,
    file: str | Path | None = ...,
    undo: bool = ...,
    dry_run: Literal[False] = ...,
) -> Withdrawn: ...


@overload
def withdraw(
    image_ids: str | Sequence[str] | None = ...,
    project: ProjectLike = ...,
    *,
    why: str = ...,
    file: str | Path | None = ...,
    undo: bool = ...,
    dry_run: Literal[True],
) -> Plan: ...


@overload
def withdraw(
    image_ids: str | Sequence[str] | None = ...,
    project: ProjectLike = ...,
    *,
    why: str = ...,
    file: str | Path | None = ...,
    undo: bool = ...,
    dry_run: bool,
) -> Withdrawn | Plan: ...


def withdraw(
    image_ids: str | Sequence[str] | None = None,
    project: ProjectLike = ".",
    *,
    why: str = "",
    file: str | Path | None = None,
    undo: bool = False,
    dry_run: bool = False,
) -> Withdrawn | Plan:
    """Remove images from the project for good: files, dataset and splits.

    They are recorded in ``data/withdrawn.csv`` and are never selected again, even if this project
    has not selected them so far. The files of an image that a training in progress uses are deleted
    by the next command that changes the dataset after it has ended.

    Args:
        image_ids: ImageIDs, or names of imported images.
        project: An open project or its folder.
        why: The reason, which is recorded.
        file: A file with further ids or names, one on each line; "-" for standard input.
        undo: Whether to allow these images again instead; the next ``fetch`` selects them.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: No image is named.
        InputFormError: An ImageID is malformed, or a record of the project is damaged.
        LockedError: Another process is changing the dataset.
    """
    opened = open_project(project)
    named = [image_ids] if isinstance(image_ids, str) else list(image_ids or ())
    ids = _checked_ids(opened, [*named, *_ids_in(file)])
    if undo:
        return _undo(opened, ids, dry_run=dry_run)
    reason = " ".join(why.split())[:_WHY_CHARACTERS]
    if dry_run:
        return _plan(opened, ids)
    with opened.data_lock("withdraw"):
        return _withdraw(opened, ids, reason)


def _ids_in(file: str | Path | None) -> list[str]:
    """Return the words in the lines of a file, without empty lines and comments."""
    if file is None:
        return []
    try:
        text = sys.stdin.read() if str(file) == _STDIN else files.read_text(Path(file))
    except UnicodeDecodeError as error:
        raise InputFormError("not a text file", where=str(file), found=error.reason) from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _checked_ids(project: Project, texts: Iterable[str]) -> list[str]:
    """Return the ids that some texts name, each once.

    Raises:
        UsageError: There are none, or a name is ambiguous.
        InputFormError: One of them names no image.
    """
    named = {text: find_id(project, text) for text in texts}
    if not named:
        raise UsageError(
            "no image is named",
            expected="one or more ImageIDs or names of imported images",
            remedy="`oiyolo withdraw ID...`, or `--file FILE` with one on each line",
        )
    for text, image_id in named.items():
        if image_id is None:
            similar = _similar(text.lower(), _selected_ids(project))
            raise InputFormError(
                "invalid ImageID",
                expected=FORM,
                found=ascii(text)[:_SHOWN],
                remedy=f"Did you mean {similar}?" if similar else "Nothing was withdrawn",
            )
    return list(dict.fromkeys(i for i in named.values() if i is not None))


def _selected_ids(project: Project) -> list[str]:
    if not project.ledger_path.is_file():
        return []
    with project.ledger(read_only=True) as ledger:
        return list(ledger.column("state"))


def _similar(text: str, known_ids: Sequence[str]) -> str:
    """Return the known id that is most similar to a text, or an empty text."""
    if len(known_ids) > _MAX_COMPARED:
        return ""
    return next(iter(difflib.get_close_matches(text, known_ids, n=1, cutoff=_SIMILAR)), "")


def _undo(project: Project, ids: Sequence[str], *, dry_run: bool) -> Withdrawn | Plan:
    """Remove images from the list of withdrawn ones; the next selection takes notice."""
    before = project.withdrawals()
    undone = [image_id for image_id in ids if image_id in before]
    if dry_run:
        images = pluralize(len(undone), "image")
        return Plan("withdraw", [f"allow {images} to be selected again"] if undone else [])
    if unknown := [image_id for image_id in ids if image_id not in before]:
        raise InputFormError(
            f"{unknown[0]} is not withdrawn",
            where=str(project.withdrawn_path),
            found=pluralize(len(before), "withdrawn image"),
            remedy="Nothing was changed",
        )
    with project.data_lock("withdraw"):
        withdrawn_list.write(
            project.withdrawn_path, [row for i, row in before.items() if i not in undone]
        )
    return Withdrawn((), undone=undone)


def _plan(project: Project, ids: Sequence[str]) -> Plan:
    before = project.withdrawals()
    new = [image_id for image_id in ids if image_id not in before]
    in_use = ids_in_use(project.runs_folder)
    with_files = [i for i in ids if prepare_stage.image_paths(project, i)]
    deleted = [image_id for image_id in with_files if image_id not in in_use]
    uses, _ = _look_up(project, ids)
    actions = [f"withdraw {pluralize(len(new), 'image')}"] if new else []
    if deleted:
        actions.append(
            f"delete the files of {pluralize(len(deleted), 'image')}, and remove them from the "
            "dataset's tables, lists and contact sheets"
        )
    facts = Withdrawn(new, uses=uses).as_dict()
    return Plan("withdraw", actions, {name: facts[name] for name in ("withdrawn", "runs")})


def _withdraw(project: Project, ids: Sequence[str], why: str) -> Withdrawn:
    """Withdraw images; after a kill, the same call does what is left."""
    before = project.withdrawals()
    in_use = ids_in_use(project.runs_folder)
    new = [image_id for image_id in ids if image_id not in before]
    uses, known_ids = _look_up(project, ids)
    today = utc_today()
    rows = {**before, **{i: Withdrawal(i, today, why) for i in new}}
    if new:
        withdrawn_list.write(project.withdrawn_path, rows.values())
    if project.ledger_path.is_file():
        with project.ledger() as ledger:
            ledger.withdraw({i: rows[i].message for i in ids})
    prepare_stage.remove_boxes(project, ids)
    split_stage.remove_images(project, ids)
    deleted = prepare_stage.remove_files_of(project, ids, in_use)
    split_stage.update_descriptions(project)
    similar_to = _selected_ids(project)
    return Withdrawn(
        new,
        earlier=[image_id for image_id in ids if image_id in before],
        not_selected={i: _similar(i, similar_to) for i in new if i not in known_ids},
        deleted=deleted,
        kept=[i for i in ids if i in in_use],
        uses=uses,
    )


def _look_up(project: Project, ids: Sequence[str]) -> tuple[dict[str, list[RunUse]], set[str]]:
    """Return the runs that used images, and which of the images were ever selected."""
    if not project.ledger_path.is_file():
        return {}, set()
    with project.ledger(read_only=True) as ledger:
        known_ids = {image_id for image_id in ids if ledger.row(image_id) is not None}
        return uses_of(ids, project.runs_folder, ledger), known_ids
