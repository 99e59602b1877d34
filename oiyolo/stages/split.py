"""split: which images train, validate and test, for ever.

Leaves ``data/dataset/{train,valid,test}.txt``, ``split.csv`` and ``obj.names``.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pandas as pd

from oiyolo import __version__, files, stamps
from oiyolo.config import as_dict
from oiyolo.darknet.paths import safe_alias
from oiyolo.errors import UsageError
from oiyolo.ledger import EXCLUDED, PREPARED, SPLITS, Change
from oiyolo.project import open_project
from oiyolo.results import Plan, Result, columns, count
from oiyolo.splits import STRADDLES, Member, assign
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.ledger import Ledger
    from oiyolo.project import Project, ProjectLike
    from oiyolo.splits import Assignment

_log = logging.getLogger("oiyolo")

STAGE: Final = "split"
_STAMP: Final = ".split-from.json"
_RATIOS_OF: Final = ".split-ratios.json"


@dataclass(frozen=True)
class Split(Result):
    """The dataset as darknet reads it.

    Attributes:
        folder: ``data/dataset``.
        images: Images in each split.
        objects: Labels by class and split.
        new: Images that got their split now.
        left_out: Images that would join groups of different splits.
        class_names: Names in the order of their class ids.
    """

    folder: Path
    images: Mapping[str, int]
    objects: Mapping[str, Mapping[str, int]]
    new: int
    left_out: int
    class_names: Sequence[str]

    def list_path(self, split: str) -> Path:
        """Give the list of a split's images."""
        return self.folder / f"{split}.txt"

    @property
    def table(self) -> pd.DataFrame:
        """Images and objects per class and split."""
        rows = [{"": "images", **self.images}]
        rows += [{"": f"objects: {name}", **n} for name, n in self.objects.items()]
        return pd.DataFrame(rows).set_index("")

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "images": dict(self.images),
            "objects": {name: dict(n) for name, n in self.objects.items()},
            "new": self.new,
            "left_out": self.left_out,
        }

    def __str__(self) -> str:
        total = sum(self.images.values()) or 1
        rows: list[Sequence[object]] = [("", *SPLITS)]
        rows.append(("images", *(f"{self.images[s]:,}" for s in SPLITS)))
        rows.append(("share", *(f"{self.images[s] / total:.1%}" for s in SPLITS)))
        rows += [
            (f"objects: {name}", *(f"{n[s]:,}" for s in SPLITS)) for name, n in self.objects.items()
        ]
        told = [f"split: {count(self.new, 'image')} new", columns(rows)]
        if self.left_out:
            told.append(f"left out: {self.left_out:,} that {STRADDLES}")
        return "\n".join(told)

    def _repr_html_(self) -> str:
        return str(self.table.to_html())


def split(
    project: ProjectLike = ".",
    *,
    reassign: bool = False,
    dry_run: bool = False,
    **options: object,
) -> Split | Plan:
    """Divide the prepared images, preparing first what is not.

    An image that has a split keeps it; what is new goes where the ratios lack most.

    Args:
        project: An open project or its folder.
        reassign: Forget all splits and deal anew (other ratios or another seed need this).
        dry_run: Only tell what would be done.
        **options: Keys of ``[split]`` and ``[images]``.

    Raises:
        UsageError: Nothing was fetched yet, or other ratios without ``reassign``.
        LockedError: Another run changes the dataset.
    """
    opened = open_project(project, options)
    if dry_run:
        select_stage.load_or_complain(opened)
        with opened.ledger(read_only=True) as ledger:
            new = len(ledger.ids(PREPARED))
        actions = [f"assign {count(new, 'prepared image')}"] if new else []
        return Plan("split", actions, {"images": new, "reassign": reassign})
    with opened.data_lock(STAGE):
        if reason := prepare_stage.stale_reason(opened):
            _log.info("prepare: %s", reason)
            _log.info("%s", prepare_stage.run(opened))
        return run(opened, reassign=reassign)


def load(project: Project) -> Split | None:
    """Give the split that lies in the project; ``None`` if there is none, or a part of one."""
    folder = project.dataset_folder
    if files.read_json(folder / _STAMP) is None or not _complete(folder):
        return None
    class_names = select_stage.load_or_complain(project).class_names
    with project.ledger(read_only=True) as ledger:
        return _summarise(project, ledger, class_names, new=0)


def load_or_complain(project: Project) -> Split:
    """Give the split that lies in the project.

    Raises:
        UsageError: There is none.
    """
    found = load(project) if project.ledger_path.is_file() else None
    if found is None:
        raise UsageError(
            "the dataset was not split yet",
            where=str(project.folder),
            remedy="Run `oiyolo split` first",
        )
    return found


def run(project: Project, *, reassign: bool = False) -> Split:
    """Split under a lock that the caller holds."""
    selection = select_stage.load_or_complain(project)
    folder = project.dataset_folder
    with project.ledger() as ledger:
        _check_ratios(project, reassign=reassign, has_splits=bool(ledger.assigned()))
        if reassign:
            ledger.forget_splits()
        _keep_ratios(project)
        candidates = [*ledger.ids(PREPARED, *SPLITS), *ledger.ids(EXCLUDED, stage=STAGE)]
        if not candidates:
            raise UsageError(
                "there is no prepared image to split",
                where=str(project.folder),
                remedy="Run `oiyolo fetch` and `oiyolo prepare` first",
            )
        authors = _authors(selection)
        made = _assign(project, ledger, candidates, authors)
        changes = _changes(ledger, made, candidates, authors)
        split_by_id = {i: made.split_by_id[i] for i in candidates if i in made.split_by_id}
        made_from = {
            "options": as_dict(project.config.split),
            "splits": stamps.fingerprint(split_by_id),
            "classes": list(selection.class_names),
            "place": str(_place(project)),
            "version": __version__,
        }
        reason = stamps.stale_reason(folder / _STAMP, made_from)
        if changes or reason or not _complete(folder):
            (folder / _STAMP).unlink(missing_ok=True)
            ledger.record(STAGE, changes)
            _write(project, selection, made, candidates)
            stamps.write(folder / _STAMP, made_from)
        else:
            _log.info("split: nothing new")
        new = sum(change.state in SPLITS for change in changes)
        return _summarise(project, ledger, selection.class_names, new=new)


def _check_ratios(project: Project, *, reassign: bool, has_splits: bool) -> None:
    """Refuse other ratios than those the images were dealt by, unless all are dealt anew."""
    path = project.dataset_folder / _RATIOS_OF
    now = as_dict(project.config.split)
    before = files.read_json(path)
    if has_splits and before is not None and before != now and not reassign:
        changed = [f"{n} from {before.get(n)} to {now[n]}" for n in now if before.get(n) != now[n]]
        raise UsageError(
            f"[split] changed ({', '.join(changed)}), and images keep the split they have",
            where=str(project.options_path),
            remedy="Change it back, or deal all images anew with `oiyolo split --reassign` (what "
            "was trained before has then seen images of the new test split)",
        )


def _keep_ratios(project: Project) -> None:
    """Remember the ratios that images are dealt by; after old splits were forgotten."""
    path = project.dataset_folder / _RATIOS_OF
    now = as_dict(project.config.split)
    if files.read_json(path) != now:
        files.write_json(path, now)


def _authors(selection: select_stage.Selection) -> dict[str, str]:
    """Give a name for each image's author; the profile's address, where there is one."""
    table = selection.images
    named = zip(table["ImageID"], table["AuthorProfileURL"], table["Author"], strict=True)
    return {image_id: profile or author for image_id, profile, author in named}


def _assign(
    project: Project, ledger: Ledger, candidates: Sequence[str], authors: Mapping[str, str]
) -> Assignment:
    options = project.config.split
    md5_by_id = ledger.facts("md5")

    def keys(md5: str, author: str) -> tuple[str, ...]:
        bound = {"duplicate": md5, "author": author}
        return tuple(f"{by}:{bound[by]}" for by in options.group_by if bound[by])

    wanted = set(candidates)
    members = [
        Member(image_id, keys(md5, author), split, counts=image_id in wanted)
        for image_id, split, md5, author in ledger.assigned()
    ]
    has_split = {member.image_id for member in members}
    members += [
        Member(image_id, keys(str(md5_by_id[image_id] or ""), authors.get(image_id, "")))
        for image_id in candidates
        if image_id not in has_split
    ]
    ratios = {name: getattr(options, name) for name in SPLITS}
    return assign(members, ratios, options.seed)


def _changes(
    ledger: Ledger,
    made: Assignment,
    candidates: Sequence[str],
    authors: Mapping[str, str],
) -> list[Change]:
    state_of = ledger.facts("state")
    left_out = set(made.left_out)
    changes = []
    for image_id in candidates:
        if image_id in left_out:
            if state_of[image_id] != EXCLUDED:
                told = f"excluded: it {STRADDLES}"
                changes.append(Change(image_id, EXCLUDED, told, reason=STRADDLES))
        elif state_of[image_id] != (name := made.split_by_id[image_id]):
            facts = {"split": name, "author": authors.get(image_id, "")}
            told = f"assigned to {name}, group {made.group_by_id[image_id]}"
            changes.append(Change(image_id, name, told, facts=facts))
    return changes


def _complete(folder: Path) -> bool:
    names = [f"{name}.txt" for name in SPLITS] + ["split.csv", "obj.names"]
    return all((folder / name).is_file() for name in names)


def _place(project: Project) -> Path:
    """Give the path under which darknet finds the images; a link that is gone is made again."""
    return safe_alias(project.objects_folder, project.cache_folder)


def _write(
    project: Project,
    selection: select_stage.Selection,
    made: Assignment,
    candidates: Sequence[str],
) -> None:
    folder = project.dataset_folder
    objects = _place(project)
    ids = sorted(i for i in candidates if i in made.split_by_id)
    for name in SPLITS:
        paths = [f"{objects}/{i}.jpg\n" for i in ids if made.split_by_id[i] == name]
        files.write_text(folder / f"{name}.txt", "".join(paths))
    table = pd.DataFrame(
        {
            "ImageID": ids,
            "split": [made.split_by_id[i] for i in ids],
            "group": [made.group_by_id[i] for i in ids],
        }
    )
    files.write_text(folder / "split.csv", table.to_csv(index=False))
    files.write_text(folder / "obj.names", "".join(f"{n}\n" for n in selection.class_names))


def _summarise(project: Project, ledger: Ledger, class_names: Sequence[str], *, new: int) -> Split:
    states = {name: ledger.facts("state", name) for name in SPLITS}
    boxes = prepare_stage.boxes_table(project)
    used = boxes[boxes["used"]]
    split_of = {i: name for name, ids in states.items() for i in ids}
    pairs = zip(used["class"], used["ImageID"].map(split_of), strict=True)
    counted = Counter(pairs)
    return Split(
        folder=project.dataset_folder,
        images={name: len(ids) for name, ids in states.items()},
        objects={
            chosen: {name: counted[chosen, name] for name in SPLITS} for chosen in class_names
        },
        new=new,
        left_out=ledger.counts().excluded.get(STRADDLES, 0),
        class_names=class_names,
    )
