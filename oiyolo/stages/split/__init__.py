"""split: which images train, validate and test, for ever.

Leaves ``data/dataset/{train,valid,test}.txt``, ``split.csv`` and ``obj.names``, and ``look/``:
contact sheets and charts of what darknet will see.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result, columns, count
from oiyolo.dataset_preview.preview import INDEX
from oiyolo.project.ledger import EXCLUDED, PREPARED, SPLITS, Change
from oiyolo.project.project import open_project
from oiyolo.splits.assign import STRADDLES, assign
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages.split import hashes, official, outputs, preview
from oiyolo.stages.split.check import check_split
from oiyolo.stages.split.group_keys import authors_of, members_of, told, told_of_torn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.splits.assign import Assignment
    from oiyolo.stages.split.check import Checked

_log = logging.getLogger("oiyolo")

STAGE: Final = "split"
_STAMP: Final = ".split-from.json"
_NEGATIVES: Final = "negatives"


@dataclass(frozen=True)
class Split(Result):
    """The dataset as darknet reads it.

    Attributes:
        folder: ``data/dataset``.
        images: Images in each split.
        images_of: Images by class and split; an image of two classes counts for both. Those
            without a label are ``negatives``, if there are any.
        objects: Labels by class and split.
        groups: How many groups of images that stay together there are.
        largest_group: How many images the largest of them has.
        notes: What a person should know about the shares, in sentences.
        new: Images that got their split now.
        left_out: Images that would join groups of different splits.
        class_names: Names in the order of their class ids.
    """

    folder: Path
    images: Mapping[str, int]
    images_of: Mapping[str, Mapping[str, int]]
    objects: Mapping[str, Mapping[str, int]]
    groups: int
    largest_group: int
    notes: Sequence[str]
    new: int
    left_out: int
    class_names: Sequence[str]

    @property
    def page(self) -> Path:
        """The page that shows contact sheets and charts, if they were asked for."""
        return self.folder / preview.FOLDER / INDEX

    def list_path(self, split: str) -> Path:
        """Give the list of a split's images."""
        return self.folder / f"{split}.txt"

    @property
    def table(self) -> pd.DataFrame:
        """Images and objects per class and split."""
        import pandas as pd  # noqa: PLC0415  (heavy, and a training runs for days without it)

        rows = [{"": name, **numbers} for name, numbers in self._rows()]
        return pd.DataFrame(rows).set_index("")

    def _rows(self) -> list[tuple[str, Mapping[str, int]]]:
        rows: list[tuple[str, Mapping[str, int]]] = [("images", self.images)]
        rows += [(f"images: {name}", numbers) for name, numbers in self.images_of.items()]
        rows += [(f"objects: {name}", numbers) for name, numbers in self.objects.items()]
        return rows

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "images": dict(self.images),
            "images_of": {name: dict(n) for name, n in self.images_of.items()},
            "objects": {name: dict(n) for name, n in self.objects.items()},
            "groups": self.groups,
            "largest_group": self.largest_group,
            "notes": list(self.notes),
            "new": self.new,
            "left_out": self.left_out,
        }

    def __str__(self) -> str:
        rows: list[Sequence[object]] = [("", *SPLITS, "", *SPLITS)]
        for name, numbers in self._rows():
            total = sum(numbers.values()) or 1
            shares = (f"{numbers[s] / total:.1%}" for s in SPLITS)
            rows.append((name, *(f"{numbers[s]:,}" for s in SPLITS), "", *shares))
        images = sum(self.images.values())
        lines = [f"split: {count(self.new, 'image')} new", columns(rows)]
        lines.append(
            f"{count(images, 'image')} in {count(self.groups, 'group')} that stay together; the "
            f"largest has {self.largest_group:,}"
        )
        if self.left_out:
            lines.append(f"left out: {self.left_out:,} that {STRADDLES}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"see {self.page}"] if self.page.is_file() else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return str(self.table.to_html()) + "".join(f"<p>{note}</p>" for note in self.notes)


def split(
    project: ProjectLike = ".",
    *,
    reassign: bool = False,
    check: bool = False,
    dry_run: bool = False,
    **options: object,
) -> Split | Checked | Plan:
    """Divide the prepared images, preparing first what is not.

    An image that has a split keeps it; what is new goes where the shares lack most.

    Args:
        project: An open project or its folder.
        reassign: Forget all splits and deal anew (other ratios or another seed need this).
        check: Change nothing, and prove that the split that lies there is free of leaks.
        dry_run: Only tell what would be done.
        **options: Keys of ``[split]`` and ``[images]``.

    Raises:
        UsageError: Nothing was fetched yet, other ratios without ``reassign``, or ``check`` of a
            split that is not there.
        LockedError: Another run changes the dataset.
    """
    opened = open_project(project, options)
    if check:
        if reassign:
            raise UsageError("check changes nothing, so it cannot reassign", remedy="Give one")
        if not _was_split(opened):
            raise _not_split_yet(opened)
        return check_split(opened)
    if dry_run:
        return _plan(opened, reassign=reassign)
    with opened.data_lock(STAGE):
        if reason := prepare_stage.stale_reason(opened):
            _log.info("prepare: %s", reason)
            _log.info("%s", prepare_stage.run(opened))
        return run(opened, reassign=reassign)


def _plan(project: Project, *, reassign: bool) -> Plan:
    select_stage.load_or_complain(project)
    with project.ledger(read_only=True) as ledger:
        new = len(ledger.ids(PREPARED))
        dealt = len(ledger.ids(*SPLITS))
    actions = [f"deal {count(dealt, 'image')} anew"] if reassign and dealt else []
    actions += [f"assign {count(new, 'prepared image')}"] if new else []
    return Plan("split", actions, {"images": new, "reassign": reassign})


def load(project: Project) -> Split | None:
    """Give the split that lies in the project; ``None`` if there is none, or a part of one."""
    if not (_was_split(project) and outputs.complete(project.dataset_folder)):
        return None
    class_names = select_stage.load_or_complain(project).class_names
    with project.ledger(read_only=True) as ledger:
        return _summarise(project, ledger, class_names, new=0)


def _was_split(project: Project) -> bool:
    stamp = files.read_json(project.dataset_folder / _STAMP)
    return stamp is not None and project.ledger_path.is_file()


def _not_split_yet(project: Project) -> UsageError:
    return UsageError(
        "the dataset was not split yet",
        where=str(project.folder),
        remedy="Run `oiyolo split` first",
    )


def load_or_complain(project: Project) -> Split:
    """Give the split that lies in the project.

    Raises:
        UsageError: There is none.
    """
    found = load(project)
    if found is None:
        raise _not_split_yet(project)
    return found


@dataclass(frozen=True)
class Listed:
    """The lists of a dataset, without what is told of them.

    Attributes:
        folder: ``data/dataset``.
        class_names: In the order of their class ids.
    """

    folder: Path
    class_names: tuple[str, ...]

    def list_path(self, split: str) -> Path:
        """Give the list of a split's images."""
        return self.folder / f"{split}.txt"


def lists_or_complain(project: Project) -> Listed:
    """Give the lists of the split that lies in the project, in next to no memory.

    Raises:
        UsageError: There is none.
    """
    folder = project.dataset_folder
    if not (_was_split(project) and outputs.are_listed(folder)):
        raise _not_split_yet(project)
    return Listed(folder, tuple(select_stage.load_or_complain(project).class_names))


def run(project: Project, *, reassign: bool = False) -> Split:
    """Split under a lock that the caller holds."""
    selection = select_stage.load_or_complain(project)
    official.check_subsets(project)
    folder = project.dataset_folder
    with project.ledger() as ledger:
        official.check_ratios(project, reassign=reassign, has_splits=ledger.has_splits())
        if reassign:
            ledger.forget_splits()
        official.keep_ratios(project)
        candidates = [*ledger.ids(PREPARED, *SPLITS), *ledger.ids(EXCLUDED, stage=STAGE)]
        if not candidates:
            raise UsageError(
                "there is no prepared image to split",
                where=str(project.folder),
                remedy="Run `oiyolo fetch` and `oiyolo prepare` first",
            )
        hashes.fill_in(project, ledger, STAGE)
        authors = authors_of(selection.images)
        made = _assign(project, ledger, candidates, authors)
        changes = _changes(ledger, made, candidates, authors)
        split_by_id = {i: made.split_by_id[i] for i in candidates if i in made.split_by_id}
        made_from = {
            "options": official.dealing(project),
            "splits": staleness.fingerprint(split_by_id),
            "groups": staleness.fingerprint({i: made.group_by_id[i] for i in split_by_id}),
            "classes": list(selection.class_names),
            "place": str(outputs.place(project)),
            "version": __version__,
        }
        reason = staleness.stale_reason(folder / _STAMP, made_from)
        texts = outputs.render(project, made, candidates, selection.class_names)
        if changes or reason or not outputs.are_there(folder, texts):
            (folder / _STAMP).unlink(missing_ok=True)
            ledger.record(STAGE, changes)
            for name, text in texts.items():
                files.write_text(folder / name, text)
            staleness.write(folder / _STAMP, made_from)
        else:
            _log.info("split: nothing new")
        if project.config.split.look:
            preview.look_at(project, selection, ledger)
        new = sum(change.state in SPLITS for change in changes)
        return _summarise(project, ledger, selection.class_names, new=new)


def _assign(
    project: Project, ledger: Ledger, candidates: Sequence[str], authors: Mapping[str, str]
) -> Assignment:
    options = project.config.split
    used = _used_boxes(project).drop_duplicates(["ImageID", "class"])
    classes_by_id: dict[str, tuple[str, ...]] = {}
    for image_id, name in _pairs(used):
        classes_by_id[image_id] = (*classes_by_id.get(image_id, ()), name)
    members = members_of(ledger, options, candidates, authors, classes_by_id)
    ratios = {name: getattr(options, name) for name in SPLITS}
    return assign(members, ratios, options.seed)


def _changes(
    ledger: Ledger,
    made: Assignment,
    candidates: Sequence[str],
    authors: Mapping[str, str],
) -> list[Change]:
    state_of = ledger.facts("state")
    changes = []
    for image_id in candidates:
        if image_id in made.left_out:
            if state_of[image_id] != EXCLUDED:
                why = told_of_torn(made.left_out[image_id])
                words = f"excluded: it {STRADDLES}: {why}"
                changes.append(Change(image_id, EXCLUDED, words, reason=STRADDLES))
        elif state_of[image_id] != (name := made.split_by_id[image_id]):
            facts = {"split": name, "author": authors.get(image_id, "")}
            words = f"assigned to {name}, group {made.group_by_id[image_id]}"
            if image_id in made.bond_by_id:
                words += f": {told(*made.bond_by_id[image_id])}"
            changes.append(Change(image_id, name, words, facts=facts))
    return changes


def _used_boxes(project: Project) -> pd.DataFrame:
    boxes = prepare_stage.boxes_table(project)
    return boxes[boxes["used"]]


def _pairs(boxes: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Give each box's image and class; lists are several times as quick to go through."""
    return zip(boxes["ImageID"].tolist(), boxes["class"].tolist(), strict=True)


def _summarise(project: Project, ledger: Ledger, class_names: Sequence[str], *, new: int) -> Split:
    states = {name: ledger.facts("state", name) for name in SPLITS}
    images = {name: len(ids) for name, ids in states.items()}
    split_of = {i: name for name, ids in states.items() for i in ids}
    used = _used_boxes(project)
    used = used[used["ImageID"].isin(split_of.keys())]
    objects = _counted(used, split_of, class_names)
    images_of = _counted(used.drop_duplicates(["ImageID", "class"]), split_of, class_names)
    positive = Counter(split_of[image_id] for image_id in used["ImageID"].unique())
    if sum(positive.values()) < len(split_of):
        images_of[_NEGATIVES] = {name: images[name] - positive[name] for name in SPLITS}
    sizes = outputs.read_table(project.dataset_folder)["group"].value_counts()
    largest = int(sizes.max()) if len(sizes) else 0
    return Split(
        folder=project.dataset_folder,
        images=images,
        images_of=images_of,
        objects=objects,
        groups=len(sizes),
        largest_group=largest,
        notes=_notes(project, images, largest),
        new=new,
        left_out=ledger.counts().excluded.get(STRADDLES, 0),
        class_names=class_names,
    )


def _counted(
    rows: pd.DataFrame, split_of: Mapping[str, str], class_names: Sequence[str]
) -> dict[str, dict[str, int]]:
    counted = Counter((name, split_of[image_id]) for image_id, name in _pairs(rows))
    return {chosen: {name: counted[chosen, name] for name in SPLITS} for chosen in class_names}


def _notes(project: Project, images: Mapping[str, int], largest: int) -> list[str]:
    """Tell what keeps the shares from being what was asked for."""
    options, total = official.dealt_by(project), sum(images.values())
    if options.official:
        return ["the splits are Open Images' own subsets, whatever their shares and kin"]
    notes = []
    outgrown = [name for name in SPLITS if 0 < getattr(options, name) * total < largest]
    if outgrown and largest > 1:
        notes.append(
            f"the largest group has {largest:,} images ({largest / total:.1%}), more than the "
            f"whole share of {' and '.join(outgrown)}; split.csv tells what binds it"
        )
    for name in SPLITS:
        share = getattr(options, name)
        if abs(images[name] - share * total) > max(largest, 1):
            notes.append(
                f"{name} has {images[name] / total:.1%} instead of {share:.1%}: groups that grew "
                "or images that went; new groups will make up for it"
            )
    return notes
