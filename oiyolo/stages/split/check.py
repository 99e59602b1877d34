"""split --check: verify that the split on disk has no leaks.

The check takes no lock and changes nothing. The report runs it as well.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import InputFormError
from oiyolo.core.results import Result, format_table, pluralize, table_html, text_html
from oiyolo.darknet import lists
from oiyolo.darknet.lists import REPAIR, ImageCheck
from oiyolo.imagery.duplicates import NEAR_BITS, hashes_from_texts, widest_cluster
from oiyolo.project.ledger import SPLITS
from oiyolo.splits.groups import Member, keys_across_splits
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages.split import official, outputs
from oiyolo.stages.split.group_keys import (
    NEAR_DUPLICATE,
    SAME_AUTHOR,
    SAME_FILE,
    assigned_splits,
    keys_of,
    kind_of,
)
from oiyolo.stages.split.imported import kept_note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oiyolo.project.keys import SplitOptions
    from oiyolo.project.ledger import SplitRecord
    from oiyolo.project.project import Project

OK: Final = "ok"
NOTE: Final = "note"
FAILED: Final = "failed"
_OUTCOME_TEXTS: Final = {OK: "ok", NOTE: "note", FAILED: "FAILED"}
_MAX_PROBLEMS: Final = 3
_RATIO_TOLERANCE: Final = 0.02
"""Tolerated deviation of a split beyond the size of the largest group, as a share of all images:
groups grow, and images are removed."""


@dataclass(frozen=True)
class CheckItem:
    """The result of one part of the check.

    Attributes:
        name: Name of the part.
        outcome: "ok"; "failed"; or "note" for a violation of a rule that is not configured.
        message: The problems, or what is in order.
    """

    name: str
    outcome: str
    message: str


@dataclass(frozen=True)
class Checked(Result):
    """Result of ``oiyolo split --check``.

    Attributes:
        findings: The results of the parts of the check, in order.
    """

    findings: Sequence[CheckItem]

    @property
    def is_sound(self) -> bool:
        """Whether no part of the check failed."""
        return all(item.outcome != FAILED for item in self.findings)

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return 0 if self.is_sound else InputFormError.exit_code

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {"sound": self.is_sound, "findings": [asdict(item) for item in self.findings]}

    def __str__(self) -> str:
        return "\n".join([format_table(self._rows(), right=False), self._conclusion])

    def _repr_html_(self) -> str:
        rows = [("outcome", "part", "message"), *self._rows()]
        return table_html(rows, right=False) + text_html(self._conclusion)

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(_OUTCOME_TEXTS[item.outcome], item.name, item.message) for item in self.findings]

    @property
    def _conclusion(self) -> str:
        return "the split is sound" if self.is_sound else "the split is NOT sound"


def check_split(project: Project) -> Checked:
    """Compare the lists, ``split.csv``, the ledger, the files and the options with each other.

    Raises:
        UsageError: The project has no ledger.
        InputFormError: The ledger cannot be read.
    """
    with project.ledger(read_only=True) as ledger:
        state_by_id = assigned_splits(ledger)
        rows = [row for row in ledger.split_records() if row.image_id in state_by_id]
    ids_by_split = {name: _read_list(project, name) for name in SPLITS}
    class_count = len(select_stage.load(project).class_names)
    options = official.recorded_options(project)
    table_items, largest_group = _check_table(project, state_by_id)
    return Checked(
        [
            _check_lists(ids_by_split),
            *_check_place(project),
            _check_ledger(ids_by_split, state_by_id, rows),
            *table_items,
            _check_files(project, state_by_id, class_count),
            *_check_groups(rows, options),
            _check_chains(rows),
            _check_ratios(options, ids_by_split, largest_group, kept_note(project)),
        ]
    )


def _item(
    name: str, problems: Sequence[str], ok_message: str, *, is_required: bool = True
) -> CheckItem:
    """Return the result of a part of the check.

    Args:
        name: Name of the part.
        problems: The problems that it found; empty if it passed.
        ok_message: The message if it passed.
        is_required: Whether problems are failures rather than notes.
    """
    if not problems:
        return CheckItem(name, OK, ok_message)
    more = f" and {len(problems) - _MAX_PROBLEMS:,} more" if len(problems) > _MAX_PROBLEMS else ""
    return CheckItem(
        name, FAILED if is_required else NOTE, "; ".join(problems[:_MAX_PROBLEMS]) + more
    )


def _read_list(project: Project, split: str) -> list[str] | None:
    """Return the ids in the list of a split; ``None`` if it is missing or unreadable."""
    try:
        return lists.read_ids(project.dataset_folder / f"{split}.txt")
    except InputFormError:
        return None


def _check_place(project: Project) -> list[CheckItem]:
    """Note the folders other than the project's own that the lists name."""
    places: set[str] = set()
    for split in SPLITS:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = files.read_text(project.dataset_folder / f"{split}.txt")
            places |= {line.rpartition("/")[0] for line in text.splitlines()}
    own = project.objects_folder.resolve()
    others = sorted(place for place in places if Path(place).resolve() != own)
    if not others:
        return []
    message = (
        f"the lists name {others[0]}, from before the project was moved or copied; oiyolo reads "
        "the project's own files, and `oiyolo split` writes the lists again"
    )
    return [CheckItem("place", NOTE, message)]


def _check_lists(ids_by_split: Mapping[str, list[str] | None]) -> CheckItem:
    problems = [f"cannot read {split}.txt" for split, ids in ids_by_split.items() if ids is None]
    splits_by_id: dict[str, list[str]] = {}
    for split, ids in ids_by_split.items():
        for image_id in ids or ():
            splits_by_id.setdefault(image_id, []).append(split)
    problems += [
        f"{i} is listed in {' and '.join(splits)}"
        for i, splits in splits_by_id.items()
        if len(splits) > 1
    ]
    return _item("lists", problems, f"{pluralize(len(splits_by_id), 'image')}, each listed once")


def _check_ledger(
    ids_by_split: Mapping[str, list[str] | None],
    state_by_id: Mapping[str, str],
    rows: Iterable[SplitRecord],
) -> CheckItem:
    listed_split_by_id = {i: split for split, ids in ids_by_split.items() for i in ids or ()}
    problems = _differences("the lists", listed_split_by_id, "the ledger", state_by_id)
    split_by_id = {row.image_id: row.split for row in rows}
    problems += _differences("assigned", split_by_id, "the ledger's state", state_by_id)
    return _item("ledger", problems, "the same splits as the lists")


def _differences(
    first_name: str, first: Mapping[str, str], second_name: str, second: Mapping[str, str]
) -> list[str]:
    return [
        f"{i}: {first_name}: {first.get(i, 'none')}, {second_name}: {second.get(i, 'none')}"
        for i in sorted({*first, *second})
        if first.get(i) != second.get(i)
    ]


def _check_table(project: Project, state_by_id: Mapping[str, str]) -> tuple[list[CheckItem], int]:
    """Check the table and its groups; return the number of images in the largest group as well."""
    try:
        table = outputs.read_table(project.dataset_folder)
    except InputFormError as error:
        return [CheckItem(outputs.TABLE, FAILED, str(error))], 0
    split_by_id = dict(zip(table["ImageID"], table["split"], strict=True))
    problems = _differences(outputs.TABLE, split_by_id, "the ledger", state_by_id)
    problems += [f"{i} occurs twice" for i in table["ImageID"][table["ImageID"].duplicated()]]
    splits_by_group = table.groupby("group")["split"].unique()
    conflicts = [
        f"group {group} is in {' and '.join(splits)}"
        for group, splits in splits_by_group.items()
        if len(splits) > 1
    ]
    ok_message = f"{pluralize(len(splits_by_group), 'group')}, each in one split"
    items = [
        _item(outputs.TABLE, problems, "the same splits as the ledger"),
        _item("groups", conflicts, ok_message),
    ]
    return items, max(Counter(table["group"]).values(), default=0)


def _check_files(project: Project, state_by_id: Mapping[str, str], class_count: int) -> CheckItem:
    """Check the images and labels as ``train`` does before it starts."""
    folder = f"{project.objects_folder}/"
    image_check = ImageCheck(class_count, image_bytes=prepare_stage.prepared_bytes(project))
    blocks = image_check.check((f"{folder}{i}.jpg" for i in sorted(state_by_id)), where="")
    problems = [text.replace(folder, "obj/") for block in blocks for text in block.problems]
    item = _item("files", problems, "every image is complete and has a valid label")
    return replace(item, message=f"{item.message}. {REPAIR}") if problems else item


def _check_groups(rows: Sequence[SplitRecord], options: SplitOptions) -> list[CheckItem]:
    """Check that identical files, near-duplicates and images by one author share a split."""
    keys = keys_of(rows, ("duplicate", "author"))
    members = [Member(row.image_id, own, row.split) for row, own in zip(rows, keys, strict=True)]
    conflicts: dict[str, list[str]] = {SAME_FILE: [], NEAR_DUPLICATE: [], SAME_AUTHOR: []}
    for key, ids_by_split in sorted(keys_across_splits(members).items()):
        conflict = " and ".join(f"{ids[0]} in {split}" for split, ids in ids_by_split.items())
        if kind_of(key) == SAME_AUTHOR:
            conflict = f"{key.partition(':')[2]}: {conflict}"
        conflicts[kind_of(key)].append(conflict)
    by_duplicate = "duplicate" in options.group_by and not options.official
    by_author = "author" in options.group_by and not options.official
    unhashed = sum(not row.phash for row in rows)
    near_duplicates = _item(
        "near-duplicates",
        conflicts[NEAR_DUPLICATE],
        f"no near-duplicates (at most {NEAR_BITS} of 64 bits differ) are in two splits",
        is_required=by_duplicate,
    )
    if unhashed:
        note = f"{pluralize(unhashed, 'image')} without a perceptual hash: run `oiyolo split` once"
        near_duplicates = replace(
            near_duplicates,
            outcome=FAILED if near_duplicates.outcome == FAILED else NOTE,
            message=f"{near_duplicates.message}; {note}",
        )
    return [
        _item("bytes", conflicts[SAME_FILE], "no file is in two splits", is_required=by_duplicate),
        near_duplicates,
        _item(
            "authors", conflicts[SAME_AUTHOR], "no author is in two splits", is_required=by_author
        ),
    ]


def _check_chains(rows: Sequence[SplitRecord]) -> CheckItem:
    """Note near-duplicates that are linked only through others, not near each other."""
    size, bits = widest_cluster(hashes_from_texts(row.phash for row in rows))
    if bits <= NEAR_BITS:
        return CheckItem("chains", OK, "all near-duplicates in a group are near each other")
    message = (
        f"the widest chain of near-duplicates has {size:,} images, which differ in up to {bits} of "
        "64 bits; all of them are in one split"
    )
    return CheckItem("chains", NOTE, message)


def _check_ratios(
    options: SplitOptions,
    ids_by_split: Mapping[str, list[str] | None],
    largest_group: int,
    kept: str,
) -> CheckItem:
    counts = {split: len(ids or ()) for split, ids in ids_by_split.items()}
    total = sum(counts.values())
    shares = ", ".join(f"{split} {n / max(total, 1):.1%}" for split, n in counts.items())
    if options.official:
        return CheckItem("ratios", OK, f"{shares}: the shares of Open Images' own subsets")
    if kept:
        return CheckItem("ratios", OK, f"{shares}: {kept}")
    tolerance = max(largest_group, 1) + _RATIO_TOLERANCE * total
    problems = [
        f"{split} has {n / max(total, 1):.1%} instead of {getattr(options, split):.1%}, more "
        f"than the largest group explains; new images will restore the ratio"
        for split, n in counts.items()
        if abs(n - getattr(options, split) * total) > tolerance
    ]
    return _item("ratios", problems, shares)
