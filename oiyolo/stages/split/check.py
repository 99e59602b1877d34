"""split --check: a proof that the split is free of leaks, from what lies on the disk.

It takes no lock and changes nothing; the report runs it, too.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import Result, columns, count
from oiyolo.imagery.duplicates import NEAR_BITS, from_texts, widest_cluster
from oiyolo.project.ledger import SPLITS
from oiyolo.splits.groups import Member, straddling
from oiyolo.stages.split import official, outputs
from oiyolo.stages.split.group_keys import SAME_AUTHOR, SAME_FILE, SAME_LOOK, keys_of, kind_of
from oiyolo.training.run import ids_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oiyolo.project.keys import SplitOptions
    from oiyolo.project.ledger import Assigned
    from oiyolo.project.project import Project

OK: Final = "ok"
TOLD: Final = "told"
FAILED: Final = "failed"
_MARKS: Final = {OK: "ok", TOLD: "note", FAILED: "FAILED"}
_FAILED_EXIT_CODE: Final = InputFormError.exit_code
_NAMED: Final = 3
_RATIO_TOLERANCE: Final = 0.02
"""Shares may be off by so much of all images besides the largest group: groups grow, images go."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        outcome: "ok", "failed", or "told" for what is not asked to be so.
        told: What was found.
    """

    name: str
    outcome: str
    told: str


@dataclass(frozen=True)
class Checked(Result):
    """The outcome of a check.

    Attributes:
        findings: What was looked at, in order.
    """

    findings: Sequence[Finding]

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed."""
        return all(finding.outcome != FAILED for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return 0 if self.is_sound else _FAILED_EXIT_CODE

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        rows = [{"name": f.name, "outcome": f.outcome, "told": f.told} for f in self.findings]
        return {"sound": self.is_sound, "findings": rows}

    def __str__(self) -> str:
        rows = [(_MARKS[f.outcome], f.name, f.told) for f in self.findings]
        end = "the split is sound" if self.is_sound else "the split is NOT sound"
        return "\n".join([columns(rows, right=False), end])


def check_split(project: Project) -> Checked:
    """Compare lists, ``split.csv``, ledger, files and options with each other.

    Raises:
        UsageError: The project has no ledger.
        InputFormError: The ledger cannot be read.
    """
    with project.ledger(read_only=True) as ledger:
        state_by_id = {str(i): str(s) for i, s in ledger.facts("state", *SPLITS).items()}
        rows = [row for row in ledger.assigned() if row.image_id in state_by_id]
    listed = {name: _listed(project, name) for name in SPLITS}
    options = official.dealt_by(project)
    return Checked(
        [
            _lists(listed),
            _ledger(listed, state_by_id, rows),
            *_table(project, state_by_id),
            _files(project, state_by_id),
            *_kin(rows, options),
            _chains(rows),
            _ratios(project, options, listed),
        ]
    )


def _finding(name: str, wrong: Sequence[str], fine: str, *, judged: bool = True) -> Finding:
    """Make a finding of the wrong things that were found; none is fine."""
    if not wrong:
        return Finding(name, OK, fine)
    more = f" and {len(wrong) - _NAMED:,} more" if len(wrong) > _NAMED else ""
    return Finding(name, FAILED if judged else TOLD, "; ".join(wrong[:_NAMED]) + more)


def _listed(project: Project, split: str) -> list[str] | None:
    """Give the ids of a list; ``None`` if it cannot be read."""
    try:
        text = (project.dataset_folder / f"{split}.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return ids_in(text)


def _lists(listed: Mapping[str, list[str] | None]) -> Finding:
    wrong = [f"{split}.txt cannot be read" for split, ids in listed.items() if ids is None]
    places: dict[str, list[str]] = {}
    for split, ids in listed.items():
        for image_id in ids or ():
            places.setdefault(image_id, []).append(split)
    wrong += [
        f"{i} is listed in {' and '.join(where)}" for i, where in places.items() if len(where) > 1
    ]
    return _finding("lists", wrong, f"{count(len(places), 'image')}, each listed once")


def _ledger(
    listed: Mapping[str, list[str] | None],
    state_by_id: Mapping[str, str],
    rows: Iterable[Assigned],
) -> Finding:
    list_of = {i: split for split, ids in listed.items() for i in ids or ()}
    wrong = _differences("the lists", list_of, "the ledger", state_by_id)
    split_of = {row.image_id: row.split for row in rows}
    wrong += _differences("assigned", split_of, "the ledger's state", state_by_id)
    return _finding("ledger", wrong, "the same splits as the lists")


def _differences(
    first: str, of_first: Mapping[str, str], second: str, of_second: Mapping[str, str]
) -> list[str]:
    return [
        f"{i}: {first}: {of_first.get(i, 'none')}, {second}: {of_second.get(i, 'none')}"
        for i in sorted({*of_first, *of_second})
        if of_first.get(i) != of_second.get(i)
    ]


def _table(project: Project, state_by_id: Mapping[str, str]) -> list[Finding]:
    try:
        table = outputs.read_table(project.dataset_folder)
    except InputFormError as error:
        return [Finding(outputs.TABLE, FAILED, str(error))]
    split_of = dict(zip(table["ImageID"], table["split"], strict=True))
    wrong = _differences(outputs.TABLE, split_of, "the ledger", state_by_id)
    wrong += [f"{i} stands twice" for i in table["ImageID"][table["ImageID"].duplicated()]]
    splits_of_group = table.groupby("group")["split"].unique()
    torn = [
        f"group {group} is in {' and '.join(found)}"
        for group, found in splits_of_group.items()
        if len(found) > 1
    ]
    told = f"{count(len(splits_of_group), 'group')}, each in one split"
    return [
        _finding(outputs.TABLE, wrong, "the same splits as the ledger"),
        _finding("groups", torn, told),
    ]


def _files(project: Project, state_by_id: Mapping[str, str]) -> Finding:
    folder = project.objects_folder
    here = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    names = [f"{i}{suffix}" for i in sorted(state_by_id) for suffix in (".jpg", ".txt")]
    wrong = [f"obj/{name} is gone" for name in names if name not in here]
    return _finding("files", wrong, "every picture has its label beside it")


def _kin(rows: Sequence[Assigned], options: SplitOptions) -> list[Finding]:
    """Look for the same bytes, the same look and the same author in different splits."""
    keys = keys_of(rows, ("duplicate", "author"))
    members = [Member(r.image_id, own, r.split) for r, own in zip(rows, keys, strict=True)]
    torn: dict[str, list[str]] = {SAME_FILE: [], SAME_LOOK: [], SAME_AUTHOR: []}
    for key, ids_by_split in sorted(straddling(members).items()):
        told = " and ".join(f"{ids[0]} in {split}" for split, ids in ids_by_split.items())
        if kind_of(key) == SAME_AUTHOR:
            told = f"{key.partition(':')[2]}: {told}"
        torn[kind_of(key)].append(told)
    by_duplicate = "duplicate" in options.group_by and not options.official
    by_author = "author" in options.group_by and not options.official
    unhashed = sum(not row.phash for row in rows)
    looks = _finding(
        "near-duplicates",
        torn[SAME_LOOK],
        f"no two within {NEAR_BITS} of 64 bits are in two splits",
        judged=by_duplicate,
    )
    if unhashed:
        told = f"{count(unhashed, 'image')} without a perceptual hash: `oiyolo split` makes them"
        outcome = looks.outcome if looks.outcome == FAILED else TOLD
        looks = Finding(looks.name, outcome, f"{looks.told}; {told}")
    return [
        _finding("bytes", torn[SAME_FILE], "no file is in two splits", judged=by_duplicate),
        looks,
        _finding("authors", torn[SAME_AUTHOR], "no author is in two splits", judged=by_author),
    ]


def _chains(rows: Sequence[Assigned]) -> Finding:
    """Tell of near-duplicates that are kin only through others between them."""
    size, bits = widest_cluster(from_texts(row.phash for row in rows))
    if bits <= NEAR_BITS:
        return Finding("chains", OK, "all near-duplicates of a group are near each other")
    told = (
        f"the widest row of near-duplicates has {size:,} pictures, of which the farthest differ in "
        f"{bits} of 64 bits; all of them are in one split"
    )
    return Finding("chains", TOLD, told)


def _ratios(
    project: Project, options: SplitOptions, listed: Mapping[str, list[str] | None]
) -> Finding:
    have = {split: len(ids or ()) for split, ids in listed.items()}
    total = sum(have.values())
    shares = ", ".join(f"{split} {n / max(total, 1):.1%}" for split, n in have.items())
    if options.official:
        return Finding("ratios", OK, f"{shares}: Open Images' own")
    try:
        table = outputs.read_table(project.dataset_folder)
        largest = max(Counter(table["group"]).values(), default=0)
    except InputFormError:
        largest = 0
    allowed = max(largest, 1) + _RATIO_TOLERANCE * total
    wrong = [
        f"{split} has {n / max(total, 1):.1%} instead of {getattr(options, split):.1%}, and no "
        f"group is so large; new images will make up for it"
        for split, n in have.items()
        if abs(n - getattr(options, split) * total) > allowed
    ]
    return _finding("ratios", wrong, shares)
