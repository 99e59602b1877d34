"""Find an image by its ImageID or, if it was imported, by its own name."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.image_ids import is_image_id
from oiyolo.core.output import is_utf8
from oiyolo.project.imports import IMAGES, original_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.project.project import Project

FORM: Final = "16 hexadecimal digits, or the name of an imported image, such as bolts/IMG_1.jpg"
_SHOWN: Final = 3


def find_id(project: Project, text: str) -> str | None:
    """Return the id of the image that a text names; ``None`` if there is none.

    Args:
        project: The project.
        text: An ImageID, which need not be in the project; or the name of an imported image, with
            the import's name in front, without it, or as the path of its file.

    Raises:
        UsageError: Several images have this name.
    """
    if is_image_id(text):
        return text
    if not (text and project.ledger_path.is_file() and is_utf8(text)):
        return None
    names = [text, *_names_of_path(project, Path(text).absolute())]
    with project.ledger(read_only=True) as ledger:
        for name in names:
            ids = ledger.ids_of_name(name)
            if len(ids) > 1:
                own_names = ledger.original_names()
                shown = [f"{own_names[i]} ({i})" for i in ids[:_SHOWN]]
                raise UsageError(
                    f"{len(ids)} images are called {text!r}",
                    found=", ".join(shown + ["..."] * (len(ids) > _SHOWN)),
                    remedy="Use the longer name, or the id",
                )
            if ids:
                return ids[0]
    return next((i for name in names for i in _ids_in_tables(project, name)), None)


def _ids_in_tables(project: Project, text: str) -> Iterator[str]:
    """Yield the ids of images with a name that were imported, but never selected."""
    for record in project.imports().values():
        with contextlib.suppress(FileNotFoundError):
            path = project.imports_folder / record.name / IMAGES
            with files.open_text(path) as file:
                for row in csv.DictReader(file):
                    name = original_name(record.name, row["Name"])
                    if f"/{name}".endswith(f"/{text}") and is_image_id(row["ImageID"]):
                        yield row["ImageID"]


def _names_of_path(project: Project, path: Path) -> Iterator[str]:
    """Yield the names that a file may have in the imports."""
    for record in project.imports().values():
        if path.is_relative_to(record.folder):
            yield original_name(record.name, path.relative_to(record.folder).as_posix())
