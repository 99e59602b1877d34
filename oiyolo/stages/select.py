"""select: from class names to the tables of wanted images and boxes.

Reads Open Images' official files, leaves ``data/selection/{boxes.csv, images.csv, selection.json,
url-list-0001.tsv, ...}`` and enters the images in the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import Plan, Result, columns, count
from oiyolo.openimages import selection, tables
from oiyolo.openimages.cache import Cache, CachedFile
from oiyolo.openimages.classes import read_hierarchy, read_names, select_classes
from oiyolo.openimages.releases import TABLES, release
from oiyolo.project import config as options_of
from oiyolo.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.openimages.cache import StreamedFile
    from oiyolo.openimages.classes import SelectedClass
    from oiyolo.openimages.csvscan.scan import Found
    from oiyolo.openimages.releases import SubsetFiles
    from oiyolo.project.keys import OpenImagesOptions
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_STAMP: Final = ".made-from.json"
_TABLES: Final = ("boxes.csv", "images.csv")
_URL_LIST_BYTES: Final = 128_000_000
"""Google's Storage Transfer Service takes URL lists up to 128 MB."""
_QUOTED_MARKS: Final = ',"\n\r'
_FLAG_COLUMNS: Final = tuple(selection.FLAG_COLUMNS.values())
_BOX_COLUMNS: Final = (
    *("ImageID", "Subset", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *_FLAG_COLUMNS,
    *("class", "class_id", "used", "dropped_because"),
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
        import pandas as pd  # noqa: PLC0415  (half a second, which nothing new need not take)

        return pd.read_csv(
            self.whole("boxes.csv"),
            dtype=dict.fromkeys(("ImageID", "dropped_because"), str),
            keep_default_na=False,
        )

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image: Open Images' columns, then ``negative``, ``present``, ``absent``."""
        import pandas as pd  # noqa: PLC0415  (half a second, which nothing new need not take)

        return pd.read_csv(
            self.whole("images.csv"),
            dtype=dict.fromkeys((*tables.IMAGE_COLUMNS, "present", "absent"), str)
            | {"Rotation": float},
            keep_default_na=False,
            na_values={"Rotation": ["", "nan"]},
        )

    def damage(self, name: str) -> str:
        """Tell what is wrong with a table: lost, or not as select wrote it; "" if it is whole."""
        path = self.folder / name
        if not path.is_file():
            return "no such file"
        if files.sha256_of(path) == self._written(name).get("sha256"):
            return ""
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        return f"{lines} lines, which are others"

    def _written(self, name: str) -> Mapping[str, Any]:
        written: Mapping[str, Any] = self.summary.get("tables", {}).get(name, {})
        return written

    def whole(self, name: str) -> Path:
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


def load_current(project: Project) -> Selection:
    """Give the selection that lies in the project, if it is what the project's options ask for.

    Nobody is asked whether the official files changed.

    Raises:
        UsageError: There is none, or it is of other options.
    """
    found = load(project)
    reason = staleness.stale_reason(project.selection_folder / _STAMP, _asked_for(project))
    if found is None or reason is not None or not project.ledger_path.is_file():
        raise UsageError(
            "the selection is not up to date",
            where=str(project.selection_folder),
            found=reason or "nothing was selected yet",
            remedy="Run `oiyolo select` first, once",
        )
    return found


def _asked_for(project: Project) -> dict[str, object]:
    """Give that part of what a selection is made from which is on this machine."""
    return {
        "options": options_of.as_dict(project.config.dataset),
        "skip_bad_rows": project.config.openimages.skip_bad_rows,
        "version": __version__,
    }


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
        opened = {
            subset: _Tables(cache, official.subsets[subset], subset, config.openimages)
            for subset in config.dataset.subsets
        }

        def made_from() -> dict[str, object]:
            versions = {used.url: used.version for used in (names_file, hierarchy_file)}
            for of_subset in opened.values():
                versions |= of_subset.versions()
            return {**_asked_for(project), "files": versions}

        stamp_path = project.selection_folder / _STAMP
        reason = staleness.stale_reason(stamp_path, made_from())
        found = load(project)
        if reason is None and found is not None:
            reason = next((f"{n}: {wrong}" for n in _TABLES if (wrong := found.damage(n))), None)
            if not project.ledger_path.is_file():
                reason = "the ledger is gone"
        if reason is None and found is not None:
            _log.info("select: nothing new")
            return found
        _log.info("select: %s", reason or "selection.json is gone")
        stamp_path.unlink(missing_ok=True)
        made = _make(project, classes, opened)
        staleness.write(stamp_path, made_from())
        return made


class _Tables:
    """The three official tables of one subset: on this machine, or read off the net.

    Args:
        cache: Where they are.
        official: Which they are.
        subset: Whose they are.
        options: ``stream`` keeps no copy; ``skip_bad_rows`` counts what is broken.
    """

    def __init__(
        self, cache: Cache, official: SubsetFiles, subset: str, options: OpenImagesOptions
    ) -> None:
        self.bad_rows: dict[str, int] = {}
        self._cache, self._subset, self._options = cache, subset, options
        self._official = {kind: getattr(official, kind) for kind in TABLES}
        self._opened: dict[str, CachedFile | StreamedFile] = {}
        if not options.stream:
            self._opened = {kind: cache.get(file) for kind, file in self._official.items()}

    def versions(self) -> dict[str, str]:
        """Give each table's MD5 by its address; empty where a stream was not read yet."""
        return {
            self._address(kind): (
                self._opened[kind].version
                if kind in self._opened
                else self._cache.version_now(file)
            )
            for kind, file in self._official.items()
        }

    def _address(self, kind: str) -> str:
        return f"{self._cache.base_url}/{self._official[kind].path}"

    def boxes(self, mids: Sequence[str]) -> pd.DataFrame:
        """Read the boxes with one of these labels."""
        return self._read("boxes", tables.read_boxes, mids)

    def labels(self, mids: Sequence[str]) -> pd.DataFrame:
        """Read what humans said about these labels."""
        return self._read("labels", tables.read_labels, mids)

    def images(self, ids: Sequence[str]) -> pd.DataFrame:
        """Read the rows of these images."""
        return self._read("images", tables.read_images, ids)

    def _read(self, kind: str, reader: Callable[..., Found], wanted: Sequence[str]) -> pd.DataFrame:
        file = self._opened.get(kind)
        if file is None:
            file = self._opened[kind] = self._cache.open_stream(self._official[kind])
        checked = isinstance(file, CachedFile) and file.rows_checked
        found = reader(
            file,
            self._subset,
            wanted,
            check_all=not checked,
            skip_bad_rows=self._options.skip_bad_rows,
        )
        if found.bad_rows:
            self.bad_rows[self._address(kind)] = found.bad_rows
        elif isinstance(file, CachedFile) and not checked:
            self._cache.mark_checked(file)
        return found.rows


def _make(
    project: Project, classes: tuple[SelectedClass, ...], opened: Mapping[str, _Tables]
) -> Selection:
    mids = [mid for chosen in classes for mid in chosen.mids]
    boxes_of = [of.boxes(mids) for of in opened.values()]
    # Half a second, which nothing new need not take, and during which a stream has begun to come.
    import pandas as pd  # noqa: PLC0415

    boxes = pd.concat(boxes_of, ignore_index=True)
    del boxes_of
    labels = pd.concat([of.labels(mids) for of in opened.values()], ignore_index=True)
    chosen = selection.decide(boxes, labels, classes, project.config.dataset)
    listed = pd.concat(
        [
            of.images(chosen.images.loc[chosen.images["Subset"] == subset, "ImageID"].tolist())
            for subset, of in opened.items()
        ]
    )
    images = listed.merge(chosen.images.drop(columns="Subset"), on="ImageID")
    images = images.sort_values("ImageID").reset_index(drop=True)
    if len(images) < len(chosen.images):  # their rows were broken, and are skipped
        chosen = selection.only(chosen, set(images["ImageID"]), "no whole row in the image list")

    folder = project.selection_folder
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_parts(folder)
    # Written last, so that no stage takes a half-written selection for a whole one.
    (folder / "selection.json").unlink(missing_ok=True)
    box_columns = [name for name in _BOX_COLUMNS if name in chosen.boxes]
    texts = {
        "boxes.csv": _csv_text(chosen.boxes[box_columns]),
        "images.csv": _csv_text(images),
    }
    written = {}
    for name, text in texts.items():
        content = text.encode()
        files.write_bytes(folder / name, content)
        sha256 = hashlib.sha256(content).hexdigest()
        written[name] = {"lines": content.count(b"\n"), "sha256": sha256}
    _write_url_lists(folder, images)
    summary: dict[str, Any] = {
        "images": len(images),
        "boxes": int(chosen.boxes["used"].sum()),
        "classes": selection.per_class(chosen, classes),
        "negatives": int(images["negative"].sum()),
        "folded_in": _folded_in(chosen.boxes, classes),
        "labels": {c.name: list(c.mids) for c in classes},
        "excluded": chosen.excluded,
        "bad_rows": {url: n for of in opened.values() for url, n in of.bad_rows.items()},
        "tables": written,
        "fingerprint": staleness.fingerprint({name: t["sha256"] for name, t in written.items()}),
    }
    with project.ledger() as ledger:
        ids, subsets = images["ImageID"].tolist(), images["Subset"].tolist()
        changed = ledger.reselect(dict(zip(ids, subsets, strict=True)))
    files.write_json(folder / "selection.json", summary)
    _log.info(
        "select: %s new, %d as before, %d no longer wanted",
        count(changed.added, "image"),
        changed.kept,
        changed.dropped,
    )
    return Selection(folder, summary)


def _csv_text(table: pd.DataFrame) -> str:
    """Write a table as ``to_csv`` would, in a tenth of the time."""
    columns_of = [[*_quoted([str(name)]), *_field_texts(table[name])] for name in table]
    return "\n".join(map(",".join, zip(*columns_of, strict=True))) + "\n"


def _field_texts(column: pd.Series) -> list[str]:
    """Give a column's fields; nothing for what is missing, as in a subset that lacks the column."""
    if column.dtype.kind == "O":
        return _quoted(column.fillna("").tolist())
    # Corners and flags repeat themselves, and to make a number a text takes long.
    places, values = column.factorize()
    # The last one, at -1, is of what is missing.
    texts = np.array([*map(str, values.tolist()), ""], dtype=object)
    of_rows: list[str] = texts[places].tolist()
    return of_rows


def _quoted(texts: list[str]) -> list[str]:
    """Give fields of a CSV: in quotes, and with their own doubled, where they need them."""
    joined = "".join(texts)
    if not any(mark in joined for mark in _QUOTED_MARKS):
        return texts
    must_be_quoted = re.compile(f"[{_QUOTED_MARKS}]").search  # quicker on short texts only
    return ['"' + text.replace('"', '""') + '"' if must_be_quoted(text) else text for text in texts]


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
    columns_of = (with_url[n].tolist() for n in ("OriginalURL", "OriginalSize", "OriginalMD5"))
    # The order of texts in Python is that of their UTF-8 bytes.
    rows = sorted(map("\t".join, zip(*columns_of, strict=True)))
    lines = "".join(f"{row}\n" for row in rows).encode()
    pieces = _pieces(lines, _URL_LIST_BYTES - len(head) - 1)
    for number, piece in enumerate(pieces, start=1):
        files.write_bytes(folder / f"url-list-{number:04}.tsv", head + piece)


def _pieces(lines: bytes, most_bytes: int) -> list[bytes]:
    """Cut lines into pieces of at most so many bytes, which each is far below; one at least."""
    pieces = []
    while len(lines) > most_bytes:
        end = lines.rindex(b"\n", 0, most_bytes) + 1
        pieces.append(lines[:end])
        lines = lines[end:]
    return [*pieces, lines]
