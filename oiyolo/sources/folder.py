"""An existing download as a source: a folder of ``<ImageID>.jpg``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NotFetchedError

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.sources.image import ImageRequest


class Folder:
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def get(self, request: ImageRequest) -> FetchedImage:
        """Return the image's file, verified by the JPEG's markers."""
        path = self._folder / f"{request.image_id}.jpg"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise NotFetchedError("not in the folder", f"{path}: {error.strerror}") from None
        if problem := jpeg.find_defect(content):
            raise NotFetchedError(problem, f"{path}: {problem}")
        return FetchedImage(content)
