"""Merge the tables of imports with those of Open Images, before images and boxes are selected.

Until then each import counts as a subset of its own, named like the source of its images. A class
that Open Images lacks has its own name in place of a MID.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.image_ids import parse_ids
from oiyolo.openimages import selection, tables
from oiyolo.openimages.classes import mids_of_names, nearest_names, select_classes
from oiyolo.openimages.releases import check_subsets
from oiyolo.project import imports
from oiyolo.project.imports import collision_error, original_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.openimages.classes import SelectedClass
    from oiyolo.project.imports import Import
    from oiyolo.project.project import Project

COLUMNS: Final = ("Import", "Name", "Modified")
"""Columns of ``images.csv`` in a project with imports, empty for an image of Open Images."""
COPY_COLUMN: Final = "CopyIn"
"""The import that has the file ``Name`` of an image of Open Images; only if an import has any."""
_REMEDY: Final = "Import the same folder again with `oiyolo import`, which writes the table again"
_FIRST_ROW: Final = 2
_IMAGE_TYPES: Final = dict.fromkeys(
    ("ImageID", "Subset", "Name", "Rotation", "OriginalSize", "Modified", "OpenImagesID"), str
)
_CORNERS: Final = ("XMin", "XMax", "YMin", "YMax")
_TABLE_NAMES: Final = {"images": imports.IMAGES, "boxes": imports.BOXES}


@dataclass(frozen=True)
class ImportedTables:
    """The imports of a project, in the form of Open Images' tables.

    Attributes:
        records: The imports by name.
        mid_by_class: The MID of each class that an import labels; its name if it has none.
    """

    records: Mapping[str, Import]
    mid_by_class: Mapping[str, str]
    _folder: Path = field(repr=False)
    _tables: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, project: Project, official_names: Mapping[str, str]) -> ImportedTables:
        """Return the imports of a project.

        Args:
            project: The project.
            official_names: Names of Open Images' classes by MID; empty without Open Images.
        """
        records = project.imports()
        names = dict.fromkeys(n for record in records.values() for n in record.class_names)
        mids = mids_of_names(names, official_names)
        mid_by_class = {name: mids.get(name, name) for name in names}
        return cls(records, mid_by_class, project.imports_folder)

    def names_by_mid(self, official_names: Mapping[str, str]) -> dict[str, str]:
        """Return Open Images' names by MID, and the imported classes that it lacks by their name.

        Args:
            official_names: As for ``of``.
        """
        own = {name: name for name, mid in self.mid_by_class.items() if mid == name}
        return {**official_names, **own}

    def boxes(self, mids: Sequence[str]) -> list[pd.DataFrame]:
        """Return the boxes of some labels, a table for each import."""
        found = []
        for record in self.records.values():
            rows = self._read(record, "boxes")
            labels = rows["LabelName"].map(self.mid_by_class)
            kept = labels.isin(mids)
            rows = rows.assign(LabelName=labels, Subset=record.source)[kept]
            found.append(rows.reset_index(drop=True))
        return found

    def labels(self, classes: Sequence[SelectedClass]) -> list[pd.DataFrame]:
        """Return a row for each image and class that the import would have labelled in it.

        They say "absent"; where there is a box, this takes precedence. A detector's boxes that
        nobody has checked do not say what is missing.
        """
        return [self._labels(record, classes) for record in self.records.values()]

    def _labels(self, record: Import, classes: Sequence[SelectedClass]) -> pd.DataFrame:
        import pandas as pd  # noqa: PLC0415  (half a second, not needed if nothing changed)

        covered = {self.mid_by_class[name] for name in record.class_names}
        mids = [selected.mid for selected in classes if selected.mid in covered]
        ids = self._read(record, "images")["ImageID"]
        if record.predicted_boxes:
            boxes = self._read(record, "boxes")
            ids = ids[~ids.isin(boxes.loc[boxes["Source"] == imports.PREDICTED, "ImageID"])]
        columns = {
            "ImageID": np.repeat(ids.to_numpy(dtype=object), len(mids)),
            "LabelName": np.tile(np.array(mids, dtype=object), len(ids)),
        }
        return pd.DataFrame(columns).assign(Confidence=0.0, Subset=record.source)

    def without_copies(
        self, official_ids: Collection[str], mids: Collection[str]
    ) -> tuple[ImportedTables, dict[str, tuple[str, str]]]:
        """Return the imports without the images that Open Images' own tables label.

        An earlier download has the same images, often with the boxes of fewer classes. The official
        boxes count, and only the file is used. An image stays imported if it has a box of a
        selected class that Open Images lacks.

        Args:
            official_ids: Images with official boxes of the selected classes.
            mids: The selected labels.

        Returns:
            The rest of the imports, and by ImageID the import and the name of each copy.
        """
        own_mids = {mid for name, mid in self.mid_by_class.items() if mid == name} & set(mids)
        copies: dict[str, tuple[str, str]] = {}
        kept_tables = dict(self._tables)
        for name, record in self.records.items():
            if record.format != imports.OPEN_IMAGES_FORMAT:
                continue
            images, boxes = (self._read(record, kind) for kind in ("images", "boxes"))
            labels = boxes["LabelName"].map(self.mid_by_class)
            own_ids = set(boxes.loc[labels.isin(own_mids), "ImageID"])
            is_copy = images["OpenImagesID"].isin(official_ids) & ~images["ImageID"].isin(own_ids)
            rows = images[is_copy]
            for official_id, file_name in zip(rows["OpenImagesID"], rows["Name"], strict=True):
                copies.setdefault(official_id, (name, file_name))
            kept_tables[name, "images"] = images[~is_copy]
            kept_tables[name, "boxes"] = boxes[~boxes["ImageID"].isin(rows["ImageID"])]
        return replace(self, _tables=kept_tables), copies

    def official_ids(self) -> set[str]:
        """Return the ImageIDs of the imported images that are Open Images'."""
        tables = (self._read(record, "images") for record in self.records.values())
        return {image_id for table in tables for image_id in table["OpenImagesID"]} - {""}

    def images(self, ids_by_subset: Mapping[str, Sequence[str]]) -> list[pd.DataFrame]:
        """Return the rows of some images with Open Images' columns and ``COLUMNS``.

        ``Subset`` is the one that the image has in the source of its import; empty if none.

        Args:
            ids_by_subset: The images of each import, by its source.
        """
        found = []
        for name, record in self.records.items():
            rows = self._read(record, "images")
            rows = rows[rows["ImageID"].isin(ids_by_subset.get(record.source, ()))]
            rows = rows.reindex(columns=[*tables.IMAGE_COLUMNS, *COLUMNS], fill_value="")
            credit = {"License": record.licence, "Author": record.credit}
            found.append(rows.assign(Import=name, **credit))
        return found

    def check_ids(self, others: Iterator[tuple[str, str]]) -> None:
        """Raise if an imported image has the id of another image.

        Args:
            others: Ids of images of Open Images, each with the name of its subset.

        Raises:
            InputFormError: Two images have the same id.
        """
        name_by_id: dict[str, str] = {}
        for name, record in self.records.items():
            rows = self._read(record, "images")
            for image_id, image in zip(rows["ImageID"], rows["Name"], strict=True):
                own = original_name(name, image)
                if (first := name_by_id.setdefault(image_id, own)) != own:
                    raise collision_error(image_id, first, own)
        for image_id, subset in others:
            if image_id in name_by_id:
                raise collision_error(image_id, name_by_id[image_id], f"Open Images' {subset}")

    def subset_and_name(self, image_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return the subset of each imported image among some, and its name in the ledger."""
        wanted, found = set(image_ids), {}
        for name, record in self.records.items():
            rows = self._read(record, "images")
            rows = rows[rows["ImageID"].isin(wanted)]
            columns = (rows[column].tolist() for column in ("ImageID", "Subset", "Name"))
            for image_id, subset, image in zip(*columns, strict=True):
                found[image_id] = subset, original_name(name, image)
        return found

    def _read(self, record: Import, kind: str) -> pd.DataFrame:
        """Read a table of an import, after verifying that it is as the import wrote it."""
        if (record.name, kind) in self._tables:
            return self._tables[record.name, kind]
        name = _TABLE_NAMES[kind]
        path = self._folder / record.name / name
        if not path.is_file() or files.sha256_of(path) != record.tables.get(name):
            raise InputFormError(
                "the table of an import is missing or was changed",
                where=str(path),
                remedy=_REMEDY,
            )
        return self._tables.setdefault((record.name, kind), _read_table(path, kind))


def _read_table(path: Path, kind: str) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  (half a second, not needed if nothing changed)

    texts = dict.fromkeys(("ImageID", "Source", "LabelName"), str)
    types = _IMAGE_TYPES if kind == "images" else {**texts, **dict.fromkeys(_CORNERS, float)}
    table = pd.read_csv(path, dtype=types, keep_default_na=False)
    parse_ids(table["ImageID"].tolist(), where=str(path), first_row=_FIRST_ROW, remedy=_REMEDY)
    if kind == "images":
        table = table.reindex(columns=[*table.columns.union(["OpenImagesID"])], fill_value="")
        check_subsets(filter(None, table["Subset"].unique()), where=str(path), remedy=_REMEDY)
    return table


def classes_of(
    names: Sequence[str],
    imported: ImportedTables,
    official_names: Mapping[str, str],
    descendants: Mapping[str, frozenset[str]],
    *,
    include_descendants: bool,
) -> tuple[SelectedClass, ...]:
    """Return the classes of a project, of Open Images or of its imports.

    Args:
        names: Value of ``[dataset] classes``.
        imported: The project's imports.
        official_names: Names of Open Images' classes by MID; empty without Open Images.
        descendants: MIDs of the descendants of Open Images' classes by MID.
        include_descendants: Value of ``[dataset] include_descendants``.

    Raises:
        UsageError: A name matches no class or several classes, or a class is listed twice.
    """
    known = imported.names_by_mid(official_names)
    if not official_names:
        _check_imported(names, imported, known)
        found = mids_of_names(names, known)
        known |= {name: name for name in names if name not in {**found, **known}}
    return select_classes(names, known, descendants, include_descendants=include_descendants)


def _check_imported(
    names: Sequence[str], imported: ImportedTables, known: Mapping[str, str]
) -> None:
    """Raise if nothing was imported, or if none of the classes is in an import."""
    if not imported.records:
        raise UsageError(
            "[dataset] subsets is empty and nothing was imported, so there are no images",
            remedy='Import images with `oiyolo import`, or set subsets = ["train"] to select from '
            "Open Images",
        )
    if names_in(imported, names).isdisjoint(known):
        similar = nearest_names(names[0], known.values())
        raise UsageError(
            f"no import has a box of the class {names[0]!r}",
            expected=f"one of {', '.join(known.values())}",
            found=f"[dataset] classes = {list(names)}",
            remedy=f"Did you mean {', '.join(similar)}?"
            if similar
            else 'To select it from Open Images as well, set [dataset] subsets = ["train"]',
        )


def names_in(imported: ImportedTables, classes: Sequence[str]) -> set[str]:
    """Return the names of those imported classes that are among some names, in any spelling."""
    known = {name: name for name in imported.mid_by_class}
    return {*mids_of_names(classes, known).values(), *known.keys() & set(classes)}


def describe_places(subsets: Sequence[str], imported: ImportedTables) -> str:
    """Return the subsets and imports that images are selected from, in words."""
    parts = [f"the subset {', '.join(subsets)}"] if subsets else []
    names = list(imported.records)
    parts += [f"the import{'s' * (len(names) > 1)} {', '.join(names)}"] if names else []
    return " and ".join(parts)


def add_flags(boxes: pd.DataFrame) -> pd.DataFrame:
    """Return boxes in which no flag is missing: those of Open Images cannot be difficult."""
    columns = [name for name in selection.FLAG_COLUMNS.values() if name in boxes]
    return boxes.assign(**{name: boxes[name].fillna(-1).astype(int) for name in columns})


def with_copies(images: pd.DataFrame, copies: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Return a table of images that names the files of Open Images' images that imports have.

    Args:
        images: Rows of the image list.
        copies: As from ``ImportedTables.without_copies``.
    """
    found = [copies.get(image_id) for image_id in images["ImageID"]]
    if not any(found):
        return images
    names = [copy[1] if copy else name for copy, name in zip(found, images["Name"], strict=True)]
    return images.assign(
        **{"Name": names, COPY_COLUMN: [copy[0] if copy else "" for copy in found]}
    )
