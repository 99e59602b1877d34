"""The images to predict on, one after the other: pixels of files, URLs and frames of videos."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from oiyolo.boxes import RIGHT_ANGLES
from oiyolo.core import files
from oiyolo.core.image_ids import is_image_id
from oiyolo.core.units import format_bytes
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.imagery.upright import decode_upright
from oiyolo.net.retry import HttpFailureError, StoppedError
from oiyolo.sources.image import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from oiyolo.net.client import HttpClient
    from oiyolo.operations.predict.sources import MediaSource
    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

    Rgb = npt.NDArray[np.uint8]

_MAX_FILE_BYTES: Final = 500_000_000
"""More than an uncompressed image of the largest size that is decoded."""
_FULL_TURN: Final = 360


@dataclass(eq=False)
class Entry:
    """An image or a frame on its way through the detector.

    Attributes:
        source: The source.
        name: Name of its outputs (see ``sources.output_names``).
        frame: Position in its video, from 0; ``None`` for an image.
        time_s: Time in its video; ``None`` for an image.
        fps: Frames per second of its video; 0 for an image.
        rgb: Its pixels, shape (height, width, 3), if pictures are written.
    """

    source: MediaSource
    name: str
    frame: int | None = None
    time_s: float | None = None
    fps: float = 0.0
    rgb: Rgb | None = None


@dataclass(frozen=True)
class PixelReader:
    """Reads the upright pixels of sources.

    Attributes:
        client: Client for URLs; ``None`` if there are none.
        use_exif: Whether images are turned upright; otherwise pixels are as stored.
        rotations: Degrees counter-clockwise that make an image file upright, by its path; EXIF is
            ignored for these files.
        keeps_pixels: Whether an entry keeps its pixels, for a picture.
    """

    client: HttpClient | None
    use_exif: bool
    rotations: Mapping[Path, int]
    keeps_pixels: bool

    def read(self, source: MediaSource) -> Rgb:
        """Return the pixels of an image, shape (height, width, 3).

        Raises:
            UnreadableImageError: It is not an image, is damaged, or cannot be downloaded.
            OSError: The file cannot be read.
        """
        if source.path is None:
            return self._read_url(source.url)
        return self._read_file(source.path)

    def _read_file(self, path: Path) -> Rgb:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UnreadableImageError(f"larger than {format_bytes(_MAX_FILE_BYTES)}")
        rotation = self.rotations.get(path) if self.use_exif else None
        if rotation not in {None, *RIGHT_ANGLES}:
            raise UnreadableImageError(f"rotation of {rotation} degrees")
        content = files.read_bytes(path)
        return decode_upright(content, rotation=rotation, use_exif=self.use_exif)

    def _read_url(self, url: str) -> Rgb:
        if self.client is None:
            raise ValueError("a URL needs a client")
        try:
            content, content_type = self.client.get(url, limit_bytes=MAX_IMAGE_BYTES)
        except (HttpFailureError, StoppedError) as failure:
            raise UnreadableImageError(str(failure) or "stopped") from failure
        try:
            return decode_upright(content, use_exif=self.use_exif)
        except UnreadableImageError as error:  # some servers send images as another type
            from oiyolo.sources.web import content_type_problem  # noqa: PLC0415  (rarely needed)

            raise UnreadableImageError(content_type_problem(content_type) or str(error)) from error

    def iter_entries(
        self, sources: Sequence[MediaSource], names: Sequence[str]
    ) -> Iterator[tuple[Entry, Callable[[], Rgb]]]:
        """Yield an entry for each image and each frame, and a function that returns its pixels.

        The function may raise ``UnreadableImageError`` or ``OSError``. A video that cannot be read,
        or that ends too early, has an entry without a frame whose function raises.
        """
        for source, name in zip(sources, names, strict=True):
            if source.is_video:
                yield from self._iter_frames(source, name)
            else:
                entry = Entry(source, name)
                yield entry, partial(self._load, entry)

    def _load(self, entry: Entry) -> Rgb:
        rgb = self.read(entry.source)
        entry.rgb = rgb if self.keeps_pixels else None
        return rgb

    def _iter_frames(
        self, source: MediaSource, name: str
    ) -> Iterator[tuple[Entry, Callable[[], Rgb]]]:
        from oiyolo.operations.predict.video import Video  # noqa: PLC0415  (only for videos)

        if source.path is None:
            raise ValueError("a video is a file")
        try:
            with Video(source.path, use_exif=self.use_exif) as video:
                for frame in video.frames():
                    entry = Entry(source, name, frame.number, frame.time_s, video.fps)
                    entry.rgb = frame.rgb if self.keeps_pixels else None
                    yield entry, partial(_return, frame.rgb)
        except (OSError, UnreadableImageError) as error:
            yield Entry(source, name), partial(_raise, error)


def _return(rgb: Rgb) -> Rgb:
    return rgb


def _raise(error: Exception) -> Rgb:
    raise error


def known_rotations(project: Project, sources: Sequence[MediaSource]) -> dict[Path, int]:
    """Return the degrees counter-clockwise that make the project's own images upright.

    An image is the project's if its name is an ImageID in the ledger. It is turned as ``prepare``
    does: by Open Images' Rotation, which is 0 if it is unknown. A prepared image is upright
    already. The result is empty for a project without a ledger. The ledger is only read.

    Raises:
        InputFormError: The ledger, or the selection that contains the Rotation, is damaged.
    """
    paths = [s.path for s in sources if s.path is not None and is_image_id(s.path.stem)]
    if not (paths and project.ledger_path.is_file()):
        return {}
    with project.ledger(read_only=True) as ledger:
        selected = _known(ledger, {path.stem for path in paths})
    prepared = project.objects_folder.resolve()
    rotation_by_id = _read_rotations(project, selected) if selected else {}
    return {
        path: 0 if path.resolve().parent == prepared else rotation_by_id[path.stem]
        for path in paths
        if path.stem in rotation_by_id
    }


def _known(ledger: Ledger, image_ids: set[str]) -> set[str]:
    return {image_id for image_id in image_ids if ledger.row(image_id) is not None}


def _read_rotations(project: Project, image_ids: set[str]) -> dict[str, int]:
    """Return the Rotation of images of the selection, in degrees from 0 to 359."""
    from oiyolo.stages.select import find  # noqa: PLC0415  (takes long to import)

    selection = find(project)
    if selection is None:
        return {}
    with files.open_text(selection.verified_path("images.csv")) as file:
        return {
            row["ImageID"]: _parse_rotation(row.get("Rotation") or "")
            for row in csv.DictReader(file)
            if row["ImageID"] in image_ids
        }


def _parse_rotation(text: str) -> int:
    try:
        degrees = float(text)
    except ValueError:
        return 0
    return int(degrees % _FULL_TURN) if math.isfinite(degrees) else 0
