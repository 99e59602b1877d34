"""Imports of labelled images: ``data/imports/<name>/`` with two tables and a record.

``images.csv`` and ``boxes.csv`` have the columns of Open Images' own tables, so that the stages
read both alike: corners are fractions of the stored image, and ``Rotation`` makes it upright. The
record, ``import.json``, says where the tables come from; it is written last.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.core import files, records
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.image_ids import ImageId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FOLDER: Final = "imports"
IMAGES: Final = "images.csv"
BOXES: Final = "boxes.csv"
PROBLEMS: Final = "problems.csv"
RECORD: Final = "import.json"
SOURCE_PREFIX: Final = "import:"
"""Precedes the name of an import where the ledger says where an image was fetched from."""
IMAGE_COLUMNS: Final = (
    *("ImageID", "Subset", "Name", "Rotation", "OriginalSize", "Modified", "WidthPx", "HeightPx"),
    "OpenImagesID",
)
BOX_COLUMNS: Final = (
    *("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside", "IsDifficult"),
)
OPEN_IMAGES_FORMAT: Final = "openimages"
PREDICTED: Final = "predicted"
"""``Source`` of a box that a detector predicted."""
_NEW: Final = ".new"
_OLD: Final = ".old"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_ID_DIGITS: Final = 16


class _SavedImport(TypedDict):
    name: str
    format: str
    path: str
    folder: str
    options: dict[str, Any]
    class_names: list[str]
    class_map: dict[str, str]
    images: int
    boxes: int
    predicted_boxes: int
    classes: dict[str, dict[str, int]]
    problems: dict[str, int]
    skipped: dict[str, int]
    tables: dict[str, str]
    licence: str
    credit: str
    fingerprint: str


@dataclass(frozen=True)
class Import:
    """A completed import.

    Attributes:
        name: Its name, by which images and messages refer to it.
        format: Format of the source: "voc", "yolo", "coco" or "openimages".
        path: Absolute path that was imported.
        folder: Absolute path of the folder that the images' names are relative to.
        options: How it was read: keywords of ``import_images``, without paths and names.
        class_names: All classes that the source labels, after the class map, in its order.
        class_map: The source's own name of each class that was renamed, with the new name.
        images: Number of images.
        boxes: Number of boxes.
        predicted_boxes: Number of those that a detector predicted.
        classes: Number of images and boxes by class.
        problems: Number of problems by kind.
        skipped: Number of boxes, images and files that were skipped because of problems.
        tables: SHA-256 of each table.
        licence: Licence of the images as the user states it: a URL or a name; may be empty.
        credit: Whom to credit for them; may be empty.
        fingerprint: Digest of the tables, the folder and the classes.
    """

    name: str
    format: str
    path: str
    folder: str
    options: Mapping[str, Any]
    class_names: Sequence[str]
    class_map: Mapping[str, str]
    images: int
    boxes: int
    predicted_boxes: int
    classes: Mapping[str, Mapping[str, int]]
    problems: Mapping[str, int]
    skipped: Mapping[str, int]
    tables: Mapping[str, str]
    licence: str = ""
    credit: str = ""
    fingerprint: str = field(default="")

    @property
    def keeps_splits(self) -> bool:
        """Whether its images keep the splits of the source."""
        return bool(self.options.get("keep_splits"))

    @property
    def source(self) -> str:
        """How the ledger names it as the source of an image."""
        return SOURCE_PREFIX + self.name

    def as_dict(self) -> dict[str, object]:
        """Return the record as JSON-compatible values."""
        return asdict(self)


def image_id_of(import_name: str, image_name: str) -> ImageId:
    """Return the id of an imported image, which does not depend on its content.

    Args:
        import_name: Name of the import.
        image_name: Path of the image, relative to the source's folder, with slashes.
    """
    text = f"{import_name}\0{image_name}".encode(errors="surrogateescape")
    return ImageId(hashlib.sha256(text).hexdigest()[:_ID_DIGITS])


def original_name(import_name: str, image_name: str) -> str:
    """Return the name of an imported image in the ledger, which is unique in the project."""
    return f"{import_name}/{image_name}"


def collision_error(image_id: str, first: str, second: str) -> InputFormError:
    """Return the error for two images with the same id."""
    return InputFormError(
        f"two images have the id {image_id}",
        found=f"{first} and {second}",
        remedy="Nothing was changed. Import one of them under another name (--name)",
    )


def is_import_source(source: object) -> bool:
    """Return whether a source, as the ledger names it, is an import."""
    return isinstance(source, str) and source.startswith(SOURCE_PREFIX)


def is_inside(image_name: str) -> bool:
    """Return whether the name of an image is a relative path that does not leave its folder."""
    path = PurePosixPath(image_name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def check_name(name: str) -> None:
    """Raise UsageError if an import cannot have this name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            "invalid name of an import",
            expected="letters, digits and . _ -, beginning with a letter or digit",
            found=ascii(name)[:60],
        )


def default_name(path: Path) -> str:
    """Return the name of an import of a path: that of the folder, or of the file's folder."""
    folder = path if path.is_dir() else path.parent
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).lstrip(".-")
    return name[:100] or "imported"


def find(imports_folder: Path, name: str) -> Import | None:
    """Return an import; ``None`` if there is none of this name.

    Raises:
        InputFormError: Its record is damaged.
    """
    path = imports_folder / name / RECORD
    remedy = "Import the same folder again with `oiyolo import`, which writes it again"
    saved = records.find(path, _SavedImport, remedy=remedy)
    if saved is None:
        return None
    with records.convert_damage(path, remedy):
        known = _SavedImport.__annotations__
        return Import(**{key: value for key, value in saved.items() if key in known})


def read_all(imports_folder: Path) -> dict[str, Import]:
    """Return the imports of a project by name, in order of names.

    Raises:
        InputFormError: A record is damaged.
    """
    if not imports_folder.is_dir():
        return {}
    names = sorted(path.name for path in imports_folder.iterdir() if _NAME.fullmatch(path.name))
    found = {name: find(imports_folder, name) for name in names}
    return {name: saved for name, saved in found.items() if saved is not None}


def new_folder(imports_folder: Path, name: str) -> Path:
    """Return an empty folder for the tables of an import, until ``install`` renames it."""
    recover(imports_folder)
    folder = imports_folder / f".{name}{_NEW}"
    folder.mkdir(parents=True)
    return folder


def install(imports_folder: Path, name: str, record: Import) -> None:
    """Write the record of a new folder, and give it its final name.

    An earlier import of this name is replaced. A kill in between leaves one of the two complete,
    and ``recover`` restores it.
    """
    new, old, final = (
        imports_folder / f".{name}{_NEW}",
        imports_folder / f".{name}{_OLD}",
        imports_folder / name,
    )
    files.write_json(new / RECORD, record.as_dict())
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def recover(imports_folder: Path) -> None:
    """Remove what killed imports left, and restore an import that was being replaced.

    The caller holds the dataset's lock.
    """
    if not imports_folder.is_dir():
        return
    for old in imports_folder.glob(f".*{_OLD}"):
        final = imports_folder / old.name[1 : -len(_OLD)]
        if not final.exists():
            old.rename(final)
    for left in [*imports_folder.glob(f".*{_OLD}"), *imports_folder.glob(f".*{_NEW}")]:
        shutil.rmtree(left, ignore_errors=True)
