"""An existing download as a source: a folder of ``<ImageID>.jpg``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oiyolo.core import files
from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NoImagesError, NotFetchedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from oiyolo.sources.image import ImageRequest


class Folder:
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def check(self) -> None:
        """Raise if the folder has no image at all.

        Raises:
            NoImagesError: The folder is missing, unreadable, or has no ``.jpg`` file.
        """
        found = "no .jpg file in it"
        try:
            with os.scandir(self._folder) as entries:
                if any(entry.name.endswith(".jpg") for entry in entries):
                    return
        except OSError as error:
            found = error.strerror or str(error)
        raise NoImagesError(
            "this folder is no source of images",
            where=self.name,
            expected="files named <ImageID>.jpg",
            found=found,
            remedy="Correct the folder in [images] sources (--sources), or mount its disk",
        )

    def check_has_any(self, image_ids: Iterable[str]) -> None:
        """Raise if the folder has none of some images; it needs no more looks than until the first.

        Raises:
            NoImagesError: It has none of them, or as for ``check``.
        """
        self.check()
        count = 0
        for image_id in image_ids:
            if (self._folder / f"{image_id}.jpg").exists():
                return
            count += 1
        with os.scandir(self._folder) as entries:
            others = [entry.name for entry in entries if entry.name.endswith(".jpg")]
        raise NoImagesError(
            f"this folder has none of the {count:,} selected images",
            where=self.name,
            expected="files named <ImageID>.jpg, such as those of an earlier fetch",
            found=f"{len(others):,} other .jpg files, such as {min(others, default='')}",
            remedy="No image was changed. Correct or remove the folder in [images] sources "
            "(--sources)",
        )

    def get(self, request: ImageRequest) -> FetchedImage:
        """Return the image's file, verified by the JPEG's markers.

        Only a missing file or its content is a permanent failure; any other error is the machine's.
        """
        path = self._folder / f"{request.image_id}.jpg"
        try:
            content = files.read_bytes(path)
        except files.NotRegularFileError as error:
            raise NotFetchedError("not a file", f"{path}: {error.strerror}") from None
        except FileNotFoundError as error:
            if self._folder.is_dir():
                raise NotFetchedError("not in the folder", f"{path}: {error.strerror}") from None
            raise self._unreadable(error) from None
        except OSError as error:
            raise self._unreadable(error) from None
        if problem := jpeg.find_defect(content):
            raise NotFetchedError(problem, f"{path}: {problem}")
        return FetchedImage(content)

    def _unreadable(self, error: OSError) -> NotFetchedError:
        return NotFetchedError(
            f"unreadable: {error.strerror}",
            f"{error.filename}: {error.strerror}",
            transient=True,
            reached=False,
        )
