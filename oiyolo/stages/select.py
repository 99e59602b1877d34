"""select: from class names to the tables of wanted images and boxes.

Reads Open Images' official files, leaves ``data/selection/{boxes.csv, images.csv, selection.json,
url-list-0001.tsv, ...}`` and enters the images in the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from oiyolo import __version__, files, stamps
from oiyolo import config as options_of
from oiyolo.errors import InputFormError, UsageError
from oiyolo.openimages import scan, selection
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.classes import read_hierarchy, read_names, select_classes
from oiyolo.openimages.releases import release
from oiyolo.project import open_project
from oiyolo.results import Plan, Result, columns, count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.openimages.cache import CachedFile
    from oiyolo.openimages.classes import SelectedClass
    from oiyolo.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_STAMP: Final = ".made-from.json"
_TABLES: Final = ("boxes.csv", "images.csv")
_URL_LIST_BYTES: Final = 128_000_000
"""Google's Storage Transfer Service takes URL lists up to 128 MB."""
_NUMBER_COLUMNS: Final = ("Confidence", *selection.CORNERS)
_FLAG_COLUMNS: Final = tuple(selection.FLAG_COLUMNS.values())
_BOX_COLUMNS: Final = (
    *("ImageID", "Subset", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *_FLAG_COLUMNS,
    *("class", "class_id", "used", "dropped_because"),
)
_IMAGE_COLUMNS: Final = (
    *("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL"),
    *("Author", "Title", "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation"),
)


@dataclass(frozen=True)
class Selection(Result):
    """The wanted images and boxes, as they lie in ``data/selection``.

    Attributes:
        folder: Where they lie.
        summary: ``selection.json``: images, boxes, classes, what was folded in, what was excluded.
    """

    folder: Path
    summary: Mapping[str, Any]

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """Every box of the selected classes in the selected images, the dropped ones too.

        Open Images' columns (corners are fractions of the image as stored), then ``class``,
        ``class_id``, ``used`` and ``dropped_because``.
        """
        return pd.read_csv(
            self._whole("boxes.csv"),
            dtype=dict.fromkeys(("ImageID", "dropped_because"), str),
            keep_default_na=False,
        )

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image: Open Images' columns, then ``negative``, ``present``, ``absent``."""
        return pd.read_csv(
            self._whole("images.csv"),
            dtype=dict.fromkeys((*_IMAGE_COLUMNS, "present", "absent"), str) | {"Rotation": float},
            keep_default_na=False,
            na_values={"Rotation": ["", "nan"]},
        )

    def damage(self, name: str) -> str:
        """Tell what is wrong with a table: lost, or not as select wrote it; "" if it is whole."""
        path = self.folder / name
        if not path.is_file():
            return "no such file"
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == self._written(name).get("sha256"):
            return ""
        lines = content.count(b"\n")
        return f"{lines} lines, which are others"

    def _written(self, name: str) -> Mapping[str, Any]:
        written: Mapping[str, Any] = self.summary.get("tables", {}).get(name, {})
        return written

    def _whole(self, name: str) -> Path:
        """Give the path of a table as select wrote it.

        Raises:
            InputFormError: It is missing, or was changed since.
        """
        path = self.folder / name
        if found := self.damage(name):
            raise InputFormError(
                "this is not the table that select wrote",
                where=str(path),
                expected=f"its {self._written(name).get('lines', '?')} lines",
                found=found,
                remedy="Run `oiyolo select`, which writes it anew",
            )
        return path

    @property
    def fingerprint(self) -> str:
        """Changes when the tables do."""
        return str(self.summary["fingerprint"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of their class ids."""
        return tuple(self.summary["classes"])

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return dict(self.summary)

    def __str__(self) -> str:
        rows: list[Sequence[object]] = [("class", "images", "boxes", "counted as it")]
        for name, numbers in self.summary["classes"].items():
            folded = ", ".join(self.summary["folded_in"].get(name, ())) or "-"
            rows.append((name, f"{numbers['images']:,}", f"{numbers['boxes']:,}", folded))
        told = [
            (
                f"selected {count(self.summary['images'], 'image')}, "
                f"{count(self.summary['boxes'], 'box')}"
            ),
            columns(rows),
        ]
        told += [f"left out: {n:,} {why}" for why, n in self.summary["excluded"].items()]
        return "\n".join(told)


def select(
    project: ProjectLike = ".", *, dry_run: bool = False, **options: object
) -> Selection | Plan:
    """Select images and boxes by class.

    A second call with nothing new asks the site once a file whether it changed, and is done.

    Args:
        project: An open project or its folder; ``classes`` begins a new one there.
        dry_run: Only tell what would be done.
        **options: Keys of ``[dataset]`` and ``[openimages]``.

    Raises:
        UsageError: An unknown class or option.
        UnavailableError: The site cannot be reached and nothing is cached.
        InputFormError: An official file is damaged.
        LockedError: Another run changes the dataset.
    """
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    if dry_run:
        found = load(opened)
        wanted = ", ".join(opened.config.dataset.classes)
        actions = [f"look for {wanted} in {opened.config.openimages.base_url}"]
        return Plan("select", actions, {"selected_before": found.summary if found else None})
    with opened.data_lock("select"):
        return run(opened)


def load(project: Project) -> Selection | None:
    """Give the selection that lies in the project, however old; ``None`` if there is none."""
    summary = files.read_json(project.selection_folder / "selection.json")
    if summary is None:
        return None
    return Selection(project.selection_folder, summary)


def load_or_complain(project: Project) -> Selection:
    """Give the selection that lies in the project.

    Raises:
        UsageError: There is none.
    """
    found = load(project)
    if found is None:
        raise UsageError(
            "nothing was selected yet",
            where=str(project.folder),
            remedy="Run `oiyolo fetch` first",
        )
    return found


def run(project: Project) -> Selection:
    """Select under a lock that the caller holds."""
    config = project.config
    with contextlib.closing(Cache(project.cache_folder, config.openimages.base_url)) as cache:
        official = release(config.openimages.release)
        names_file, hierarchy_file = cache.get(official.classes), cache.get(official.hierarchy)
        try:
            classes = select_classes(
                config.dataset.classes,
                read_names(names_file.path),
                read_hierarchy(hierarchy_file.path),
                include_descendants=config.dataset.include_descendants,
            )
        except UsageError:
            project.take_back()  # a misspelt class must not stay in the file of a new project
            raise
        tables = {
            subset: {
                kind: cache.get(getattr(official.subsets[subset], kind))
                for kind in ("boxes", "images", "labels")
            }
            for subset in config.dataset.subsets
        }
    made_from = {
        "options": options_of.as_dict(config.dataset),
        "files": {
            used.url: used.version
            for used in (
                names_file,
                hierarchy_file,
                *(f for t in tables.values() for f in t.values()),
            )
        },
        "version": __version__,
    }
    stamp_path = project.selection_folder / _STAMP
    reason = stamps.stale_reason(stamp_path, made_from)
    found = load(project)
    if reason is None and found is not None:
        reason = next((f"{n}: {wrong}" for n in _TABLES if (wrong := found.damage(n))), None)
    if reason is None and found is not None:
        _log.info("select: nothing new")
        return found
    _log.info("select: %s", reason or "selection.json is gone")
    stamp_path.unlink(missing_ok=True)
    made = _make(project, classes, tables)
    stamps.write(stamp_path, made_from)
    return made


def _make(
    project: Project,
    classes: tuple[SelectedClass, ...],
    tables: Mapping[str, Mapping[str, CachedFile]],
) -> Selection:
    boxes = pd.concat([_read_boxes(t["boxes"].path, s, classes) for s, t in tables.items()])
    labels = pd.concat([_read_labels(t["labels"].path, s, classes) for s, t in tables.items()])
    chosen = selection.decide(
        boxes.reset_index(drop=True),
        labels.reset_index(drop=True),
        classes,
        project.config.dataset,
    )
    _check_ids(chosen.images["ImageID"], tables)
    listed = pd.concat(
        [_read_images(t["images"].path, s, chosen.images) for s, t in tables.items()]
    )
    images = listed.merge(chosen.images.drop(columns="Subset"), on="ImageID")
    images = images.sort_values("ImageID").reset_index(drop=True)

    folder = project.selection_folder
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_parts(folder)
    # Written last, so that no stage takes a half-written selection for a whole one.
    (folder / "selection.json").unlink(missing_ok=True)
    box_columns = [name for name in _BOX_COLUMNS if name in chosen.boxes]
    texts = {
        "boxes.csv": chosen.boxes[box_columns].to_csv(index=False),
        "images.csv": images.to_csv(index=False),
    }
    for name, text in texts.items():
        files.write_text(folder / name, text)
    _write_url_lists(folder, images)
    summary: dict[str, Any] = {
        "images": len(images),
        "boxes": int(chosen.boxes["used"].sum()),
        "classes": selection.per_class(chosen, classes),
        "negatives": int(images["negative"].sum()),
        "folded_in": _folded_in(chosen.boxes, classes),
        "labels": {c.name: list(c.mids) for c in classes},
        "excluded": chosen.excluded,
        "tables": {
            name: {
                "lines": text.count("\n"),
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
            for name, text in texts.items()
        },
        "fingerprint": stamps.fingerprint(texts),
    }
    with project.ledger() as ledger:
        changed = ledger.reselect(dict(zip(images["ImageID"], images["Subset"], strict=True)))
    files.write_json(folder / "selection.json", summary)
    _log.info(
        "select: %s new, %d as before, %d no longer wanted",
        count(changed.added, "image"),
        changed.kept,
        changed.dropped,
    )
    return Selection(folder, summary)


def _read_boxes(path: Path, subset: str, classes: Sequence[SelectedClass]) -> pd.DataFrame:
    rows = scan.matching_rows(path, scan.BOXES, "LabelName", _mids(classes))
    numeric = [*_NUMBER_COLUMNS, *(name for name in _FLAG_COLUMNS if name in rows)]
    rows = scan.numbers(rows, numeric, path, scan.BOXES, "a number")
    return rows.assign(Subset=subset)


def _read_labels(path: Path, subset: str, classes: Sequence[SelectedClass]) -> pd.DataFrame:
    rows = scan.matching_rows(path, scan.LABELS, "LabelName", _mids(classes))
    rows = rows[~rows["Source"].eq("machine")].reset_index(drop=True)
    rows = scan.numbers(rows, ["Confidence"], path, scan.LABELS, "0 or 1")
    return rows.assign(Subset=subset)


def _read_images(path: Path, subset: str, chosen: pd.DataFrame) -> pd.DataFrame:
    wanted = set(chosen.loc[chosen["Subset"] == subset, "ImageID"])
    rows = scan.matching_rows(path, scan.IMAGES, "ImageID", wanted)
    rows = rows.drop_duplicates("ImageID").reindex(columns=list(_IMAGE_COLUMNS), fill_value="")
    if missing := sorted(wanted - set(rows["ImageID"])):
        raise InputFormError(
            f"{scan.IMAGES.name}: {count(len(missing), 'image')} with boxes or labels not in it",
            where=str(path),
            expected=f"a row for {missing[0]}",
            found="none",
            remedy="Remove the file, so that it is fetched again",
        )
    rotation = rows["Rotation"].replace("nan", "")
    wrong = ~rotation.isin(["", "0", "0.0", "90", "90.0", "180", "180.0", "270", "270.0"])
    if wrong.any():
        row = rows[wrong].iloc[0]
        raise InputFormError(
            f"{scan.IMAGES.name}: wrong Rotation of {row['ImageID']}",
            where=str(path),
            expected="0.0, 90.0, 180.0, 270.0, or nothing",
            found=repr(row["Rotation"]),
        )
    return rows.assign(Rotation=rotation)


def _check_ids(ids: pd.Series[str], tables: Mapping[str, Mapping[str, CachedFile]]) -> None:
    """Refuse ids that are none: they become file names."""
    wrong = ids[~ids.str.fullmatch(r"[0-9a-f]{16}")]
    if len(wrong):
        raise InputFormError(
            f"{scan.BOXES.name}: wrong ImageID",
            where=", ".join(str(kinds["boxes"].path) for kinds in tables.values()),
            expected="16 hexadecimal digits",
            found=repr(wrong.iloc[0]),
        )


def _mids(classes: Sequence[SelectedClass]) -> list[str]:
    return [mid for chosen in classes for mid in chosen.mids]


def _folded_in(boxes: pd.DataFrame, classes: Sequence[SelectedClass]) -> dict[str, dict[str, int]]:
    """Count, for each class, the boxes of descendants that count as it."""
    folded: dict[str, dict[str, int]] = {}
    for chosen in classes:
        labels = boxes.loc[boxes["class_id"] == chosen.class_id, "LabelName"].value_counts()
        folded[chosen.name] = {
            name: int(labels[mid]) for mid, name in chosen.folded.items() if mid in labels
        }
    return folded


def _write_url_lists(folder: Path, images: pd.DataFrame) -> None:
    """Write the lists that Google's Storage Transfer Service takes as they are.

    First line ``TsvHttpData-1.0``; then URL, size and base64 MD5, sorted by the URL's UTF-8 bytes.
    (https://cloud.google.com/storage-transfer/docs/create-url-list)
    """
    for old in folder.glob("url-list-*.tsv"):
        old.unlink()
    head = b"TsvHttpData-1.0\n"
    with_url = images[images["OriginalURL"] != ""]
    columns_of = (with_url[name] for name in ("OriginalURL", "OriginalSize", "OriginalMD5"))
    rows = sorted("\t".join(row).encode() + b"\n" for row in zip(*columns_of, strict=True))
    parts, size_bytes = [[head]], len(head)
    for row in rows:
        if size_bytes + len(row) >= _URL_LIST_BYTES:
            parts.append([head])
            size_bytes = len(head)
        parts[-1].append(row)
        size_bytes += len(row)
    for number, part in enumerate(parts, start=1):
        files.write_bytes(folder / f"url-list-{number:04}.tsv", b"".join(part))
