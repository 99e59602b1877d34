"""split: assign images to train, valid and test, permanently.

Writes ``data/dataset/{train,valid,test}.txt``, ``split.csv`` and ``obj.names``, and a preview of
the dataset in ``look/``: contact sheets and charts of what darknet will see. Its records say where
it comes from: ``CREDITS.csv``, ``CREDITS.md``, ``DATASET.md`` and ``croissant.json``.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, overload

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import (
    Plan,
    Result,
    find_picture,
    format_table,
    pluralize,
    table_html,
    text_html,
)
from oiyolo.darknet import lists
from oiyolo.dataset_preview.preview import INDEX, remove_preview
from oiyolo.project.keywords import takes_keys
from oiyolo.project.ledger import EXCLUDED, PREPARED, SPLITS, Change
from oiyolo.project.project import open_project
from oiyolo.provenance.records import NAMES as RECORDS
from oiyolo.splits.assign import CONFLICT_REASON, assign
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages.split import hashes, official, outputs, preview, records
from oiyolo.stages.split.check import check_split
from oiyolo.stages.split.group_keys import (
    assigned_splits,
    authors_of,
    build_members,
    describe_conflict,
    describe_link,
)
from oiyolo.stages.split.halves import ids_of_half
from oiyolo.stages.split.imported import given_splits, kept_note, survey_sources
from oiyolo.stages.split.official import recorded_options as recorded_options  # for other commands

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import pandas as pd
    from typing_extensions import Unpack

    from oiyolo.core.results import Picture
    from oiyolo.project.keywords import SplitStageKeywords
    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.splits.assign import Assignment
    from oiyolo.stages.split.check import Checked
    from oiyolo.stages.split.imported import SourceShares

_log = logging.getLogger("oiyolo")

STAGE: Final = "split"
RECIPE_FILE: Final = outputs.RECIPE_FILE
_NEGATIVES: Final = "negatives"


@dataclass(frozen=True)
class Split(Result):
    """Result of ``oiyolo split``: the dataset as darknet reads it.

    Attributes:
        folder: ``data/dataset``.
        images: Number of images by split.
        images_of: Number of images by class and split. An image of two classes counts for both;
            images without a label count as ``negatives``, if there are any.
        objects: Number of labels by class and split.
        groups: Number of groups of images that stay together.
        largest_group: Number of images in the largest group.
        notes: Reasons why the shares differ from the configured ratios.
        new: Number of images that this call assigned to a split.
        left_out: Number of images that have no split, because they would join groups of different
            splits.
        class_names: Class names in the order of their ids.
        sources: The sources of the images; ``None`` if none is imported.
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
    sources: SourceShares | None = None

    @property
    def page(self) -> Path:
        """The page with contact sheets and charts, which exists if ``look`` was true."""
        return self.folder / preview.FOLDER / INDEX

    def list_path(self, split: str) -> Path:
        """Return the path of the list of a split's images."""
        return self.folder / f"{split}.txt"

    @property
    def table(self) -> pd.DataFrame:
        """Images and objects per class and split."""
        import pandas as pd  # noqa: PLC0415  (large, and training does not need it)

        rows = [{"": name, **numbers} for name, numbers in self._rows()]
        return pd.DataFrame(rows).set_index("")

    def _rows(self) -> list[tuple[str, Mapping[str, int]]]:
        rows: list[tuple[str, Mapping[str, int]]] = [("images", self.images)]
        rows += [(f"images: {name}", numbers) for name, numbers in self.images_of.items()]
        rows += [(f"objects: {name}", numbers) for name, numbers in self.objects.items()]
        sources = {} if self.sources is None else self.sources.images
        total = sum(self.images.values()) or 1
        rows += [
            (f"images from {name} ({sum(numbers.values()) / total:.0%})", numbers)
            for name, numbers in sources.items()
        ]
        return rows

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "images": dict(self.images),
            "images_of": {name: dict(n) for name, n in self.images_of.items()},
            "objects": {name: dict(n) for name, n in self.objects.items()},
            "groups": self.groups,
            "largest_group": self.largest_group,
            "notes": list(self.notes),
            "new": self.new,
            "left_out": self.left_out,
            **({} if self.sources is None else {"sources": asdict(self.sources)}),
        }

    @property
    def _headline(self) -> str:
        return f"split: {pluralize(self.new, 'new image')}"

    def _table(self) -> list[Sequence[object]]:
        """Return the number of images and objects in each split, and the shares, with a heading."""
        rows: list[Sequence[object]] = [("", *SPLITS, "", *SPLITS)]
        for name, numbers in self._rows():
            total = sum(numbers.values()) or 1
            shares = (f"{numbers[s] / total:.1%}" for s in SPLITS)
            rows.append((name, *(f"{numbers[s]:,}" for s in SPLITS), "", *shares))
        return rows

    def _notes(self) -> list[str]:
        images = sum(self.images.values())
        lines = [
            (
                f"{pluralize(images, 'image')} in {pluralize(self.groups, 'group')} that stay "
                f"together (largest: {self.largest_group:,})"
            )
        ]
        if self.left_out:
            lines.append(f"left out: {self.left_out:,} ({CONFLICT_REASON})")
        return lines + [f"note: {note}" for note in self.notes]

    def __str__(self) -> str:
        lines = [self._headline, format_table(self._table()), *self._notes()]
        lines += [f"preview: {self.page}"] if self.page.is_file() else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return text_html(self._headline) + table_html(self._table()) + text_html(*self._notes())

    def picture(self, name: str) -> Picture:
        """Return a contact sheet or a chart of the dataset, such as "train" or "positions".

        Raises:
            UsageError: There is no such picture; its message lists those that exist.
        """
        if not self.page.is_file():
            raise UsageError(
                "there are no pictures of the dataset",
                where=str(self.page.parent),
                expected="contact sheets and charts",
                found=name,
                remedy="Set [split] look to true, and run `oiyolo split` again",
            )
        return find_picture(sorted(self.page.parent.glob("*")), name)


@overload
def split(
    project: ProjectLike = ...,
    *,
    reassign: bool = ...,
    check: Literal[False] = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[SplitStageKeywords],
) -> Split: ...


@overload
def split(
    project: ProjectLike = ...,
    *,
    reassign: bool = ...,
    check: Literal[True],
    dry_run: bool = ...,
    **options: Unpack[SplitStageKeywords],
) -> Checked: ...


@overload
def split(
    project: ProjectLike = ...,
    *,
    reassign: bool = ...,
    check: Literal[False] = ...,
    dry_run: Literal[True],
    **options: Unpack[SplitStageKeywords],
) -> Plan: ...


@overload
def split(
    project: ProjectLike = ...,
    *,
    reassign: bool = ...,
    check: bool = ...,
    dry_run: bool = ...,
    **options: Unpack[SplitStageKeywords],
) -> Split | Checked | Plan: ...


@takes_keys("split", "images")
def split(
    project: ProjectLike = ".",
    *,
    reassign: bool = False,
    check: bool = False,
    dry_run: bool = False,
    **options: Unpack[SplitStageKeywords],
) -> Split | Checked | Plan:
    """Assign the prepared images to splits; first prepare images that are not up to date.

    An image that has a split keeps it. New images go to the splits that are furthest below their
    share.

    Args:
        project: An open project or its folder.
        reassign: Whether to discard all splits and assign every image again, which other ratios
            or another seed require.
        check: Whether to verify that the existing split has no leaks, and change nothing.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[split]`` and ``[images]``.

    Raises:
        UsageError: Nothing was fetched yet, the ratios changed without ``reassign``, or there is
            no split to ``check``.
        LockedError: Another process is changing the dataset.
    """
    opened = open_project(project, options)
    if check:
        if reassign:
            raise UsageError(
                "cannot check and reassign at the same time", remedy="Use one of the two options"
            )
        if not _has_split(opened):
            raise _not_split_error(opened)
        return check_split(opened)
    if dry_run:
        return _plan(opened, reassign=reassign)
    with opened.data_lock(STAGE):
        if reason := prepare_stage.stale_reason(opened):
            _log.info("prepare: %s", reason)
            _log.info("%s", prepare_stage.run(opened))
        return run(opened, reassign=reassign)


def _plan(project: Project, *, reassign: bool) -> Plan:
    """Return what ``split`` would do, beginning with ``prepare`` if that is necessary.

    Raises:
        OiyoloError: ``split`` would be refused.
    """
    earlier, prepared_ids = Plan("prepare", []), set[str]()
    if prepare_stage.stale_reason(project):
        earlier, prepared_ids = prepare_stage.make_plan(project)
    official.check_subsets(project)
    with project.ledger(read_only=True) as ledger:
        official.check_ratios(project, reassign=reassign, has_splits=ledger.has_splits())
        candidates = {*ledger.ids(PREPARED, *SPLITS), *prepared_ids}
        with_split = candidates.intersection(row.image_id for row in ledger.split_records())
        excluded = ledger.ids(EXCLUDED, stage=STAGE)
    if not (candidates or excluded):
        raise _nothing_prepared_error(project)
    actions = [f"prepare: {action}" for action in earlier.actions]
    new = len(candidates - with_split)
    if reassign and with_split:
        actions.append(f"assign {pluralize(len(with_split), 'image')} again")
    actions += [f"assign {pluralize(new, 'prepared image')}"] if new else []
    if not actions and (reason := _stale_lists_reason(project)):
        actions = [f"write the lists again ({reason})"]
    actions += _plan_records(project, is_stale=bool(actions))
    return Plan("split", actions, {"images": new, "reassign": reassign})


def _plan_records(project: Project, *, is_stale: bool) -> list[str]:
    """Return what ``split`` would do to the records, which follow whatever else it does."""
    selection, reason = select_stage.load(project), None
    if not is_stale:
        with project.ledger(read_only=True) as ledger:
            reason = records.stale_reason(project, selection, ledger)
    action = f"write the records: {', '.join(RECORDS)}"
    return [f"{action} ({reason})"] if reason else [action] * is_stale


def _stale_lists_reason(project: Project) -> str | None:
    """Return why the lists would be written again although no image has another split."""
    folder = project.dataset_folder
    if not outputs.are_intact(folder):
        return "one of them is missing or damaged"
    return _moved_reason(project)


def _moved_reason(project: Project) -> str | None:
    """Return why the lists are stale, apart from their images; ``None`` if they are not."""
    recipe = {"place": str(outputs.darknet_images_path(project)), "version": __version__}
    return staleness.stale_reason(project.dataset_folder / outputs.RECIPE_FILE, recipe)


def is_intact(project: Project) -> bool:
    """Return whether all that ``split`` wrote is there, and as it was written, for this place.

    This reads no table, and does not find out whether images have to be assigned.
    """
    folder = project.dataset_folder
    has_page = (folder / preview.FOLDER / INDEX).is_file()
    if not outputs.are_unchanged(folder) or not (has_page or not project.config.split.look):
        return False
    with project.ledger() as ledger:
        stale = records.stale_reason(project, select_stage.load(project), ledger)
    return stale is None and _moved_reason(project) is None


def _nothing_prepared_error(project: Project) -> UsageError:
    return UsageError(
        "there are no prepared images to split",
        where=str(project.folder),
        remedy="Run `oiyolo fetch` and `oiyolo prepare` first",
    )


def find(project: Project) -> Split | None:
    """Return the project's split; ``None`` if it does not exist or is incomplete."""
    if not (_has_split(project) and outputs.are_complete(project.dataset_folder)):
        return None
    class_names = select_stage.load(project).class_names
    with project.ledger(read_only=True) as ledger:
        return _summarise(project, ledger, class_names, new=0)


def _has_split(project: Project) -> bool:
    recipe = files.read_json(project.dataset_folder / outputs.RECIPE_FILE)
    return recipe is not None and project.ledger_path.is_file()


def _not_split_error(project: Project) -> UsageError:
    return UsageError(
        "the dataset is not split yet",
        where=str(project.folder),
        remedy="Run `oiyolo split` first",
    )


def load(project: Project) -> Split:
    """Return the project's split.

    Raises:
        UsageError: The split does not exist or is incomplete.
    """
    existing = find(project)
    if existing is None:
        raise _not_split_error(project)
    return existing


def remove_images(project: Project, image_ids: Collection[str]) -> None:
    """Remove withdrawn images from the lists and the table, and all contact sheets."""
    outputs.remove(project.dataset_folder, image_ids)
    remove_preview(project.dataset_folder / preview.FOLDER)


def update_descriptions(project: Project) -> None:
    """Write the preview and the records of a complete split again if they are out of date."""
    if not (_has_split(project) and outputs.are_complete(project.dataset_folder)):
        return
    if (selection := select_stage.find(project)) is not None:
        with project.ledger() as ledger:
            _describe(project, selection, ledger)


def _describe(project: Project, selection: select_stage.Selection, ledger: Ledger) -> None:
    if project.config.split.look:
        preview.update(project, selection, ledger)
    records.update(project, selection, ledger)


@dataclass(frozen=True)
class SplitLists:
    """The lists of a split dataset, without any counts.

    Attributes:
        folder: ``data/dataset``.
        class_names: Class names in the order of their ids.
        train_ids: The images of train to train on; ``None`` for all.
    """

    folder: Path
    class_names: tuple[str, ...]
    train_ids: frozenset[str] | None = None

    def list_path(self, split: str) -> Path:
        """Return the path of the list of a split's images."""
        return self.folder / f"{split}.txt"

    def ids(self, split: str) -> list[str]:
        """Return the ids of a split's images, in the order of the list."""
        ids = lists.read_ids(self.list_path(split))
        if split != "train" or self.train_ids is None:
            return ids
        return [image_id for image_id in ids if image_id in self.train_ids]


def image_paths(project: Project, split: str) -> list[str]:
    """Return the paths of a split's images, as darknet is to read them.

    They are the project's own files, although a list names another place until the next ``split``
    if the project was moved or copied.

    Raises:
        InputFormError: The list is missing or damaged.
    """
    outputs.check_list(project.dataset_folder, split)
    list_path = project.dataset_folder / f"{split}.txt"
    return lists.read(list_path, outputs.darknet_images_path(project))


def load_lists(project: Project) -> SplitLists:
    """Return the lists of the project's split, without reading its tables into memory.

    If the project is to train on half of train, the tables are read to divide it.

    Raises:
        UsageError: The split does not exist, or a list is missing.
        InputFormError: A list is damaged.
    """
    folder = project.dataset_folder
    if not (_has_split(project) and outputs.has_lists(folder)):
        raise _not_split_error(project)
    for split in SPLITS:
        outputs.check_list(folder, split)
    train_ids = ids_of_half(project, project.half) if project.half else None
    return SplitLists(folder, tuple(select_stage.load(project).class_names), train_ids)


def run(project: Project, *, reassign: bool = False) -> Split:
    """Split the dataset; the caller holds its lock."""
    selection = select_stage.load(project)
    official.check_subsets(project)
    files.remove_parts(project.dataset_folder)
    with project.ledger() as ledger:
        official.check_ratios(project, reassign=reassign, has_splits=ledger.has_splits())
        if reassign:
            ledger.forget_splits()
        official.record_options(project)
        candidates = [*ledger.ids(PREPARED, *SPLITS), *ledger.ids(EXCLUDED, stage=STAGE)]
        if not candidates:
            raise _nothing_prepared_error(project)
        hashes.add_missing(project, ledger)
        authors = authors_of(selection.images)
        given = given_splits(project, selection.images)
        assignment = _assign(project, ledger, candidates, authors, given)
        changes = _changes(ledger, assignment, candidates, authors)
        ids_before = {row.image_id for row in ledger.split_records()} if changes else set()
        _write(project, ledger, assignment.of(candidates), changes, selection.class_names)
        _describe(project, selection, ledger)
        # An image that was prepared again gets the split that it had.
        new = sum(c.state in SPLITS and c.image_id not in ids_before for c in changes)
        return _summarise(project, ledger, selection.class_names, new=new)


def _assign(
    project: Project,
    ledger: Ledger,
    candidates: Sequence[str],
    authors: Mapping[str, str],
    given: Mapping[str, str],
) -> Assignment:
    options = project.config.split
    used = _used_boxes(project).drop_duplicates(["ImageID", "class"])
    classes_by_id: dict[str, tuple[str, ...]] = {}
    for image_id, name in _pairs(used):
        classes_by_id[image_id] = (*classes_by_id.get(image_id, ()), name)
    if project.frozen is not None:
        given = project.frozen.split_by_id
    members = build_members(ledger, options, candidates, authors, classes_by_id, given=given)
    ratios = {name: getattr(options, name) for name in SPLITS}
    return assign(members, ratios, options.seed)


def _write(
    project: Project,
    ledger: Ledger,
    assignment: Assignment,
    changes: Sequence[Change],
    class_names: Sequence[str],
) -> None:
    """Record the changes and write the files, if anything is out of date."""
    folder = project.dataset_folder
    recipe = {
        "options": official.assignment_options(project),
        "splits": staleness.fingerprint(assignment.split_by_id),
        "groups": staleness.fingerprint(assignment.group_by_id),
        "classes": list(class_names),
        "place": str(outputs.darknet_images_path(project)),
        "version": __version__,
    }
    texts = outputs.render(project, assignment, class_names)
    is_stale = staleness.stale_reason(folder / outputs.RECIPE_FILE, recipe) is not None
    if not (changes or is_stale) and outputs.are_up_to_date(folder, texts):
        _log.info("split: up to date")
        return
    (folder / outputs.RECIPE_FILE).unlink(missing_ok=True)
    ledger.record(STAGE, changes)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    written = [folder / name for name in texts]
    staleness.write_recipe(folder / outputs.RECIPE_FILE, recipe, written)


def _changes(
    ledger: Ledger,
    assignment: Assignment,
    candidates: Sequence[str],
    authors: Mapping[str, str],
) -> list[Change]:
    state_by_id = ledger.column("state")
    changes = []
    for image_id in candidates:
        if image_id in assignment.conflicts:
            if state_by_id[image_id] != EXCLUDED:
                conflict = describe_conflict(assignment.conflicts[image_id])
                message = f"excluded: it {CONFLICT_REASON}: {conflict}"
                changes.append(Change(image_id, EXCLUDED, message, reason=CONFLICT_REASON))
        elif state_by_id[image_id] != (name := assignment.split_by_id[image_id]):
            facts = {"split": name, "author": authors.get(image_id, "")}
            message = f"assigned to {name}, group {assignment.group_by_id[image_id]}"
            if image_id in assignment.link_by_id:
                message += f": {describe_link(*assignment.link_by_id[image_id])}"
            changes.append(Change(image_id, name, message, facts=facts))
    return changes


def _used_boxes(project: Project) -> pd.DataFrame:
    boxes = prepare_stage.boxes_table(project)
    return boxes[boxes["used"]]


def _pairs(boxes: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Iterate over the image and class of each box; lists are several times faster than columns."""
    return zip(boxes["ImageID"].tolist(), boxes["class"].tolist(), strict=True)


def _summarise(project: Project, ledger: Ledger, class_names: Sequence[str], *, new: int) -> Split:
    split_by_id = assigned_splits(ledger)
    image_counts = Counter(split_by_id.values())
    images = {name: image_counts[name] for name in SPLITS}
    used = _used_boxes(project)
    used = used[used["ImageID"].isin(split_by_id.keys())]
    objects = _counts(used, split_by_id, class_names)
    images_of = _counts(used.drop_duplicates(["ImageID", "class"]), split_by_id, class_names)
    positives = Counter(split_by_id[image_id] for image_id in used["ImageID"].unique())
    if sum(positives.values()) < len(split_by_id):
        images_of[_NEGATIVES] = {name: images[name] - positives[name] for name in SPLITS}
    table = outputs.read_table(project.dataset_folder)
    sizes = table["group"].value_counts()
    sources = survey_sources(project, ledger, split_by_id, table)
    largest = int(sizes.max()) if len(sizes) else 0
    return Split(
        folder=project.dataset_folder,
        images=images,
        images_of=images_of,
        objects=objects,
        groups=len(sizes),
        largest_group=largest,
        notes=[*_notes(project, images, largest), *(sources.notes if sources else ())],
        new=new,
        left_out=ledger.counts().excluded.get(CONFLICT_REASON, 0),
        class_names=class_names,
        sources=sources,
    )


def _counts(
    rows: pd.DataFrame, split_by_id: Mapping[str, str], class_names: Sequence[str]
) -> dict[str, dict[str, int]]:
    counts = Counter((name, split_by_id[image_id]) for image_id, name in _pairs(rows))
    return {
        class_name: {split: counts[class_name, split] for split in SPLITS}
        for class_name in class_names
    }


def _notes(project: Project, images: Mapping[str, int], largest: int) -> list[str]:
    """Return the reasons why the shares differ from the configured ratios."""
    options, total = official.recorded_options(project), sum(images.values())
    if options.official:
        return ["the splits are Open Images' own subsets; ratios and groups do not apply"]
    if kept := kept_note(project):
        return [kept]
    notes = []
    exceeded = [name for name in SPLITS if 0 < getattr(options, name) * total < largest]
    if exceeded and largest > 1:
        notes.append(
            f"the largest group has {largest:,} images ({largest / total:.1%}), more than the "
            f"entire share of {' and '.join(exceeded)}; split.csv has the reasons for its grouping"
        )
    for name in SPLITS:
        share = getattr(options, name)
        if abs(images[name] - share * total) > max(largest, 1):
            notes.append(
                f"{name} has {images[name] / total:.1%} instead of {share:.1%}, because groups "
                "grew or images were removed; new groups will restore the ratio"
            )
    return notes
