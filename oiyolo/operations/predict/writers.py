"""Write predictions: annotated pictures and videos, JSON, CSV, and YOLO labels."""

from __future__ import annotations

import contextlib
import csv
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core import files
from oiyolo.core.output import printable, to_json
from oiyolo.imagery import labels
from oiyolo.imagery.upright import encode_jpeg
from oiyolo.operations.predict.outputs import (
    CLASSES_NAME,
    CSV_NAME,
    JSON_NAME,
    LABELS_FOLDER,
    NAMES_NAME,
    VIDEO_SUFFIX,
)
from oiyolo.operations.predict.video import write_video

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from oiyolo.inference.detected import Detected
    from oiyolo.operations.predict.items import Entry
    from oiyolo.operations.predict.video import VideoWriter

CSV_COLUMNS: Final = (
    *("source", "width", "height", "frame", "time_s", "class", "class_id", "confidence"),
    *("left", "top", "right", "bottom"),
)


class Writer(ABC):
    """Writes the predictions in one format; use it as a context manager.

    Files get their final names when they are complete, and not at all if the block raises.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]  # as this method received it

    @abstractmethod
    def write(self, entry: Entry, detected: Detected) -> None:
        """Write the detections of one image or frame."""

    def finish(self, failed: Mapping[str, str]) -> None:  # noqa: B027  (few have an end to write)
        """Write the end of the files.

        Args:
            failed: Sources that could not be read, with reasons.
        """


class PictureWriter(Writer):
    """Writes a JPEG for each image and a video for each video, with the boxes drawn."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._video: VideoWriter | None = None
        self._video_name = ""

    def write(self, entry: Entry, detected: Detected) -> None:
        """Write a picture, or the next picture of a video."""
        if entry.rgb is None:
            raise ValueError("a picture needs its pixels")
        picture = np.asarray(detected.draw_on(entry.rgb))
        if entry.frame is None:
            path = self._folder / f"{entry.name}.jpg"
            files.write_bytes(path, encode_jpeg(picture), durable=False)
            return
        if self._video is None or self._video_name != entry.name:
            self._stack.close()
            path = self._folder / f"{entry.name}{VIDEO_SUFFIX}"
            self._video = self._stack.enter_context(write_video(path, entry.fps))
            self._video_name = entry.name
        self._video.write(picture)


class _TextWriter(Writer):
    """Writes one text file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        part = self._stack.enter_context(files.atomic_write(path, durable=False))
        self._file = self._stack.enter_context(part.open("w", encoding="utf-8", newline=""))


class JsonWriter(_TextWriter):
    """Writes ``predictions.json``, which has the form of ``--json``, an image in each line."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / JSON_NAME)
        self._separator = '{"images": [\n'

    def write(self, entry: Entry, detected: Detected) -> None:
        """Write an item of ``images``."""
        del entry
        self._file.write(self._separator + to_json(detected.as_dict()))
        self._separator = ",\n"

    def finish(self, failed: Mapping[str, str]) -> None:
        """Write the sources that failed, and close the object."""
        head = self._separator if self._separator != ",\n" else "\n"
        self._file.write(f'{head}], "failed": {to_json(dict(failed))}}}\n')


class CsvWriter(_TextWriter):
    """Writes ``predictions.csv``: one row for each detection, corners in pixels."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / CSV_NAME)
        self._rows = csv.DictWriter(self._file, CSV_COLUMNS, lineterminator="\n")
        self._rows.writeheader()

    def write(self, entry: Entry, detected: Detected) -> None:
        """Write the rows of an image."""
        del entry
        self._rows.writerows(table_rows(detected))


class LabelWriter(Writer):
    """Writes a YOLO label file for each image and each frame, and the names of the classes."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        super().__init__()
        self._folder = folder
        self._cleared: set[Path] = set()
        lines = "".join(f"{_one_line(name)}\n" for name in names)
        for name in (CLASSES_NAME, NAMES_NAME):
            files.write_text(folder / name, lines, durable=False)

    def write(self, entry: Entry, detected: Detected) -> None:
        """Write a label file; that of a frame is in a folder with the name of its video."""
        path = self._folder / LABELS_FOLDER / f"{entry.name}.txt"
        if entry.frame is not None:
            path = path.with_suffix("") / f"{entry.frame:06d}.txt"
            self._clear(path.parent)
        size = (detected.width, detected.height)
        xyxy = np.clip(detected.xyxy / (*size, *size), 0, 1)
        has_area = (xyxy[:, 2:] - xyxy[:, :2] > labels.MIN_SIDE).all(axis=1)
        text = labels.render(detected.class_id[has_area], xyxy[has_area])
        files.write_text(path, text, durable=False)

    def _clear(self, folder: Path) -> None:
        """Delete the labels of frames that an earlier prediction wrote, once."""
        if folder not in self._cleared:
            self._cleared.add(folder)
            for path in folder.glob("[0-9]*.txt"):
                path.unlink()


def table_rows(detected: Detected) -> list[dict[str, object]]:
    """Return one row for each detection, with ``CSV_COLUMNS`` as keys."""
    image = {
        "source": printable(detected.source),
        "width": detected.width,
        "height": detected.height,
        "frame": detected.frame,
        "time_s": detected.time_s,
    }
    rows = []
    for detection in detected.as_dict()["detections"]:  # type: ignore[attr-defined]  # a list
        corners = dict(zip(CSV_COLUMNS[-4:], detection.pop("xyxy"), strict=True))
        rows.append({**image, **detection, "class": printable(detection["class"]), **corners})
    return rows


def _one_line(name: str) -> str:
    return " ".join(printable(name).split()) or "unnamed"
