"""The folders of imports as sources: each has the images of its own import, under their names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.imagery import jpeg
from oiyolo.imagery.decode import FORMATS
from oiyolo.project.imports import is_inside
from oiyolo.sources.image import FetchedImage, NotFetchedError

if TYPE_CHECKING:
    from oiyolo.project.imports import Import
    from oiyolo.sources.image import ImageRequest

_JPEG_START: Final = b"\xff\xd8"


class ImportFolder:
    """The folder of an import.

    A file is copied as it is, never linked: its owner may edit it in place.

    Args:
        record: The import.
    """

    note: Final = ""

    def __init__(self, record: Import) -> None:
        self.name, self._import_name = record.source, record.name
        self._folder = Path(record.folder)

    def get(self, request: ImageRequest) -> FetchedImage:
        """Return the image's file, which must be as large as when it was imported.

        A missing file is a permanent failure, and so is damaged content; any other error is the
        machine's.

        Raises:
            NotFetchedError: The file is missing, damaged, or was changed since the import.
        """
        path = self._folder / request.name
        if not is_inside(request.name):
            raise NotFetchedError("not in the folder", f"{request.name!a}: leads out of it")
        try:
            content = files.read_bytes(path)
        except files.NotRegularFileError as error:
            raise NotFetchedError("not a file", f"{path}: {error.strerror}") from None
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            is_gone = is_missing and self._folder.is_dir()
            reason = "no longer in its folder" if is_gone else f"unreadable: {error.strerror}"
            detail = f"{path}: {error.strerror}"
            if is_missing and not is_gone:
                reason = "the folder of the import is missing"
                detail = (
                    f"{self._folder} is not on this machine; import it from where it is now with "
                    f"--name {self._import_name}"
                )
            raise NotFetchedError(reason, detail, transient=not is_gone, reached=is_gone) from None
        # Open Images lists the size of the author's file, and most downloads are smaller copies.
        if not request.is_copy and request.original_size_bytes not in {None, len(content)}:
            detail = f"{path}: changed since it was imported; `oiyolo refresh` imports it again"
            raise NotFetchedError("changed since the import", detail, transient=True)
        if problem := _find_defect(content):
            raise NotFetchedError(problem, f"{path}: {problem}")
        return FetchedImage(content)


def _find_defect(content: bytes) -> str | None:
    """Return why a file is not a complete image, in a few words; ``None`` if it is one."""
    if content.startswith(_JPEG_START) or not content:
        return jpeg.find_defect(content)
    from PIL import Image  # noqa: PLC0415  (slow to import, and most images are JPEGs)

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.verify()
    except Exception:  # noqa: BLE001  (whatever Pillow raises for damaged files)
        return "not an image, or a damaged one"
    return None
