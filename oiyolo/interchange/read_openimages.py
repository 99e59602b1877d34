"""Read earlier downloads of Open Images: OIDv4's, OIDv6's, FiftyOne's, and official tables.

The name of an image is its ImageID. Its boxes are in a text file in a folder ``Label`` or
``labels`` next to it, or else in the official tables of boxes, as fractions of the stored image.
"""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, cast

from oiyolo.boxes import RIGHT_ANGLES
from oiyolo.core import files, image_ids
from oiyolo.core.errors import InputFormError
from oiyolo.imagery.exif import upright_rotation
from oiyolo.interchange import kinds
from oiyolo.interchange.class_lists import MAX_LIST_BYTES
from oiyolo.interchange.frames import BoxError, LabelledFrame, clip_fractions, parse_number
from oiyolo.interchange.imported import ImportedBox, ImportedImage, Problem
from oiyolo.interchange.source_files import (
    FolderReader,
    find_files,
    folded,
    nothing_found_error,
    read_limited,
    split_of_folders,
    stem_of,
    with_boxes,
)
from oiyolo.openimages.csvscan.scan import BOXES, LABELS, LocalFile, matching_rows

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.imagery.header import ImageHeader
    from oiyolo.interchange.imported import ReadOptions, Rotation
    from oiyolo.interchange.source_files import SourceFiles

_TABLE_SUFFIX: Final = ".csv"
_LABEL_SUFFIX: Final = ".txt"
_LABEL_FOLDERS: Final = ("Label", "labels")
_FLAGS: Final = {
    "IsOccluded": "occluded",
    "IsTruncated": "truncated",
    "IsGroupOf": "group_of",
    "IsDepiction": "depiction",
    "IsInside": "inside",
}
_BOX_COLUMNS: Final = ("ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax", *_FLAGS)
_LABEL_COLUMNS: Final = ("ImageID", "Confidence")
_TABLES: Final = ("boxes", "labels", "images", "classes")
_ROTATION: Final = "Rotation"
_HEAD_BYTES: Final = 4096


class OpenImagesReader(FolderReader):
    """Reads a folder that another tool, or ``oiyolo export openimages``, filled.

    Raises:
        UsageError: It is not a folder.
        InputFormError: It contains no images with the names and annotations of Open Images.
    """

    def __init__(self, folder: Path, options: ReadOptions) -> None:
        del options  # the boxes of Open Images always refer to the stored pixels
        self._source = find_files(folder)
        self._tables = _find_tables(self._source)
        self._by_id: dict[str, list[str]] = defaultdict(list)
        for image in self._source.images:
            if image_ids.is_image_id(stem_of(image).lower()):
                self._by_id[stem_of(image).lower()].append(image)
        texts = {folded(name): name for name in self._source.with_suffix(_LABEL_SUFFIX)}
        self._labels = {
            image: label
            for image in itertools.chain.from_iterable(self._by_id.values())
            if (label := _label_of(image, texts))
        }
        if not self._by_id or not (self._labels or self._tables["boxes"]):
            images = len(self._source.images)
            raise nothing_found_error(
                self.folder,
                "<ImageID>.jpg with text files in Label/ or labels/, or tables of boxes (.csv)",
                f"{images:,} images, {len(self._by_id):,} of them with ImageIDs as names",
            )

    def class_order(self) -> Sequence[str]:
        """Return nothing: Open Images has no order of classes."""
        return []

    def read(self) -> Iterator[ImportedImage | Problem]:
        """Yield each image once, with its boxes from the folders of all classes, and problems."""
        yield from self._source.problems
        rotations = _read_rotations(self._source, self._tables["images"], self._by_id)
        rows: dict[str, list[Any]] = {}
        without = [i for i, images in self._by_id.items() if not any(map(self._has_label, images))]
        if without:
            yield from self._read_tables(without, rows)
            yield from self._read_negatives([i for i in without if i not in rows], rows)
        for image_id, images in sorted(self._by_id.items()):
            yield from self._read_one(image_id, images, rows.pop(image_id, None), rotations)
        used = set(self._labels.values())
        for name in self._source.with_suffix(_LABEL_SUFFIX):
            if name not in used and image_ids.is_image_id(stem_of(name).lower()):
                yield Problem(
                    kinds.NO_IMAGE, self._source.path(name), 0, "no image has its name", "file"
                )

    def _has_label(self, image: str) -> bool:
        return image in self._labels

    def _read_one(
        self,
        image_id: str,
        images: Sequence[str],
        rows: Sequence[Any] | None,
        rotations: Mapping[str, Rotation],
    ) -> Iterator[ImportedImage | Problem]:
        """Yield an image, which may be in the folders of several classes, and its problems."""
        path = self._source.path(images[0])
        labels = [self._labels[image] for image in images if image in self._labels]
        if not labels and rows is None:
            yield Problem(
                kinds.NO_LABEL, path, 0, "neither a text file nor a row of a table", "image"
            )
            return
        header = self._source.header(images[0])
        if isinstance(header, Problem):
            yield header
            return
        items = list(map(_convert_row, rows or ()))
        for label in labels:
            items += _read_label(self._source.path(label), header)
        rotation = rotations.get(image_id, upright_rotation(header.orientation))
        image = ImportedImage(
            path,
            images[0],
            header.stored_wh,
            cast("Rotation", rotation),
            split_of_folders(images[0]),
            image_id=image_id,
        )
        yield from with_boxes(image, items)

    def _read_tables(self, ids: Sequence[str], rows: dict[str, list[Any]]) -> Iterator[Problem]:
        """Add the rows of some images to ``rows``, and yield the tables that cannot be read."""
        names = _read_class_names(self._source, self._tables["classes"])
        for table in self._tables["boxes"]:
            path = self._source.path(table)
            try:
                scan = matching_rows(LocalFile(path), BOXES, "ImageID", ids, keep=_BOX_COLUMNS)
            except InputFormError as error:
                yield Problem(kinds.BROKEN, path, 0, str(error), "file")
                continue
            found = scan.rows.reindex(columns=list(_BOX_COLUMNS), fill_value=-1)
            for row in found.itertuples(index=False, name=None):
                image_id, label, *values = row
                rows.setdefault(image_id, []).append((path, names.get(label, label), values))

    def _read_negatives(self, ids: Sequence[str], rows: dict[str, list[Any]]) -> Iterator[Problem]:
        """Add no rows for the images whose human-verified labels are all of absent classes."""
        verified: dict[str, bool] = {}
        for table in self._tables["labels"] if ids else ():
            path = self._source.path(table)
            try:
                scan = matching_rows(LocalFile(path), LABELS, "ImageID", ids, keep=_LABEL_COLUMNS)
            except InputFormError as error:
                yield Problem(kinds.BROKEN, path, 0, str(error), "file")
                continue
            for image_id, confidence in scan.rows[list(_LABEL_COLUMNS)].itertuples(index=False):
                verified[image_id] = verified.get(image_id, True) and confidence == 0
        rows.update({image_id: [] for image_id, is_negative in verified.items() if is_negative})


def _convert_row(row: tuple[Path, str, Sequence[float]]) -> ImportedBox | Problem:
    """Return the box of a row of a table, or why it is skipped."""
    path, name, (x1, y1, x2, y2, *flags) = row
    try:
        xyxy = clip_fractions((x1, y1, x2, y2))
    except BoxError as error:
        return Problem(error.kind, path, 0, f"{name}: {error}", "box")
    known = {field: int(value) for field, value in zip(_FLAGS.values(), flags, strict=True)}
    return ImportedBox(name, xyxy, **cast("dict[str, Any]", known))


def _read_label(path: Path, header: ImageHeader) -> list[ImportedBox | Problem]:
    """Return the boxes of a text file, with lines such as ``Traffic light 10 20.5 30 40``.

    OIDv4 multiplies fractions of the stored image by the size that OpenCV returns, which is that of
    the image as EXIF turns it.
    """
    try:
        content = read_limited(path, MAX_LIST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return [Problem(kinds.BROKEN, path, 0, str(error.strerror), "file")]
    is_sideways = upright_rotation(header.orientation) in {90, 270}
    frame = LabelledFrame(header.stored_wh[::-1] if is_sideways else header.stored_wh)
    lines = enumerate(content.splitlines(), start=1)
    return [_read_line(path, number, line, frame) for number, line in lines if line.strip()]


def _read_line(path: Path, number: int, line: str, frame: LabelledFrame) -> ImportedBox | Problem:
    *words, x1, y1, x2, y2 = ["", "", "", "", *line.split()][-max(5, len(line.split())) :]
    name = " ".join(words).strip()
    if not name:
        return Problem(
            kinds.MALFORMED, path, number, f"{line[:60]!r} is not a class and a box", "box"
        )
    corners = (parse_number(x1), parse_number(y1), parse_number(x2), parse_number(y2))
    try:
        return ImportedBox(name, frame.to_stored(corners), line=number)
    except BoxError as error:
        return Problem(error.kind, path, number, f"{name}: {error}", "box")


def _label_of(image: str, texts: Mapping[str, str]) -> str:
    """Return the text file of an image: in the folder ``Label`` or ``labels`` next to it."""
    folder, stem = image.rpartition("/")[0], stem_of(image)
    for name in _LABEL_FOLDERS:
        place = f"{folder}/{name}/{stem}{_LABEL_SUFFIX}".lstrip("/")
        if label := texts.get(folded(place), ""):
            return label
    return ""


def _find_tables(source: SourceFiles) -> dict[str, list[str]]:
    """Return the tables of each kind, by their first lines."""
    tables: dict[str, list[str]] = {kind: [] for kind in _TABLES}
    for name in source.with_suffix(_TABLE_SUFFIX):
        try:
            with files.open_binary(source.path(name)) as file:
                head = file.read(_HEAD_BYTES).decode("utf-8-sig", "replace")
        except OSError:
            continue
        columns = next(csv.reader(head.splitlines()[:1]), [])
        if {"ImageID", "LabelName", "XMin"} <= set(columns):
            tables["boxes"].append(name)
        elif set(LABELS.required) <= set(columns):
            tables["labels"].append(name)
        elif {"ImageID", _ROTATION} <= set(columns):
            tables["images"].append(name)
        elif len(columns) == 2 and "class" in stem_of(name).lower():  # noqa: PLR2004  (MID, name)
            tables["classes"].append(name)
    return tables


def _read_class_names(source: SourceFiles, tables: Sequence[str]) -> dict[str, str]:
    """Return the names of classes by MID."""
    names: dict[str, str] = {}
    for table in tables:
        names.update((row[0], row[1]) for row in _rows(source.path(table)) if len(row) > 1)
    return names


def _read_rotations(
    source: SourceFiles, tables: Sequence[str], ids: Container[str]
) -> dict[str, Rotation]:
    """Return the rotations that the lists of images state for some images."""
    rotations: dict[str, Rotation] = {}
    for table in tables:
        rows = _rows(source.path(table))
        columns = next(rows, [])
        id_at, rotation_at = columns.index("ImageID"), columns.index(_ROTATION)
        for row in rows:
            if len(row) == len(columns) and row[id_at] in ids:
                value = parse_number(row[rotation_at])
                if value in RIGHT_ANGLES:
                    rotations[row[id_at]] = cast("Rotation", int(value))
    return rotations


def _rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a table.

    Raises:
        InputFormError: It is not CSV.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        try:
            yield from reader
        except csv.Error as error:
            raise InputFormError(
                "cannot read the table", where=f"{path}:{reader.line_num}", found=str(error)
            ) from None
