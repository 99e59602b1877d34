"""Read the frames of a video, and write a video of pictures."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from oiyolo.core import disks, files
from oiyolo.core.errors import UnavailableError
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.operations.predict.outputs import DISK_REMEDY, VIDEO_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from typing_extensions import Self

    Rgb = npt.NDArray[np.uint8]

_CODEC: Final = "mp4v"
"""MPEG-4 part 2, the one that every build of OpenCV's wheels can write into an MP4 file."""
_FRAMES_PER_CHECK: Final = 64
"""How often the free disk space is checked, because OpenCV does not say that a write failed."""
_RESERVED_BYTES: Final = 8 << 20
_DEFAULT_FPS: Final = 25.0
_MAX_FPS: Final = 240.0
_COMPLETE_SHARE: Final = 0.95
"""A container may announce a few frames more than it has."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame of a video.

    Attributes:
        number: Its position, from 0.
        time_s: Its time.
        rgb: Its pixels, shape (height, width, 3).
    """

    number: int
    time_s: float
    rgb: Rgb


class Video:
    """A video file that is open for reading; use it as a context manager.

    Args:
        path: The file.
        use_exif: Whether to turn frames upright as the file says.

    Attributes:
        frame_count: Number of frames that the file announces; 0 if unknown.
        fps: Frames per second.

    Raises:
        UnreadableImageError: The file is not a video that can be read.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, use_exif: bool = True) -> None:
        os.close(files.open_regular(path))
        _silence()
        # An absolute path: "http:" or "concat:" at the beginning of a name would be a protocol.
        self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise UnreadableImageError("not a video that can be read")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, float(use_exif))
        self.frame_count = max(0, round(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= _MAX_FPS else _DEFAULT_FPS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames in order.

        Raises:
            UnreadableImageError: The file ends before all the frames that it announces.
        """
        number = 0
        while True:
            success, bgr = self._capture.read()
            if not success:
                break
            time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not math.isfinite(time_s) or (number and time_s <= 0):
                time_s = number / self.fps
            rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield VideoFrame(number, round(time_s, 6), rgb)
            number += 1
        if number < self.frame_count * _COMPLETE_SHARE or not number:
            raise UnreadableImageError(f"ends after {number:,} of {self.frame_count:,} frames")


def count_frames(path: Path) -> int:
    """Return the number of frames that a video announces; 0 if it is unknown or unreadable."""
    try:
        with Video(path) as video:
            return video.frame_count
    except (OSError, UnreadableImageError):
        return 0


class VideoWriter:
    """Writes pictures to a video without sound; see ``write_video``.

    Args:
        part: The temporary file.
        fps: Frames per second.
    """

    def __init__(self, part: Path, fps: float) -> None:
        self._part, self._fps = part, fps
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._count = 0

    def write(self, rgb: Rgb) -> None:
        """Append a picture, shape (height, width, 3); all get the size of the first one.

        Raises:
            UnavailableError: OpenCV cannot write videos here, or the disk is full.
        """
        size_wh = (rgb.shape[1], rgb.shape[0])
        if self._writer is None:
            self._writer, self._size_wh = _open_writer(self._part, self._fps, size_wh), size_wh
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if size_wh != self._size_wh:
            bgr = cv2.resize(bgr, self._size_wh, interpolation=cv2.INTER_AREA)
        if self._count % _FRAMES_PER_CHECK == 0:
            disks.check_free_space(
                self._part.parent, _RESERVED_BYTES, what="the annotated video", remedy=DISK_REMEDY
            )
        self._writer.write(bgr)
        self._count += 1

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Raise if the file lacks pictures.

        Raises:
            UnavailableError: It does.
        """
        written = count_frames(self._part)
        if written != self._count:
            raise UnavailableError(
                "the annotated video could not be written completely",
                where=str(self._part.parent),
                expected=f"{self._count:,} frames",
                found=f"{written:,}",
                remedy="Check the free space of the disk, then run the same command again",
            )


@contextlib.contextmanager
def write_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """Yield a writer; the file, which ends in ``VIDEO_SUFFIX``, appears when the block has ended.

    At least one picture must be written.

    Args:
        path: The file.
        fps: Frames per second.

    Raises:
        UnavailableError: The video cannot be written, or not completely.
    """
    with files.atomic_write(path, durable=False) as part:
        writer = VideoWriter(part, fps)
        try:
            yield writer
        finally:
            writer.close()
        writer.check()


def _open_writer(part: Path, fps: float, size_wh: tuple[int, int]) -> cv2.VideoWriter:
    _silence()
    codec = cv2.VideoWriter.fourcc(*_CODEC)
    # OpenCV takes the format from the suffix, which a temporary file does not have.
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"video{VIDEO_SUFFIX}"
        link.symlink_to(part.absolute())
        writer = cv2.VideoWriter(str(link), cv2.CAP_FFMPEG, codec, fps, size_wh)
    if not writer.isOpened():
        raise UnavailableError(
            "the annotated video cannot be written",
            where=str(part.parent),
            expected=f"an OpenCV that can encode {_CODEC} in {size_wh[0]}x{size_wh[1]} pixels",
            remedy="Choose other formats, such as --format json",
        )
    return writer


def _silence() -> None:
    """Keep OpenCV and FFmpeg from writing about damaged files to stderr."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
