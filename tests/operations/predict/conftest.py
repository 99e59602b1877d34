"""A detector that finds what is red, and files for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.inference.detected import Detected, Failed
from oiyolo.operations import predict as predict_operation
from oiyolo.operations.predict.video import write_video

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from oiyolo.inference.detector import Item

SIZE_WH = (64, 40)
RED_XYXY = (8.0, 8.0, 16.0, 32.0)


class RedDetector:
    """Detects the rectangle that contains all red pixels."""

    names = ("red", "blue")
    threshold, nms_iou, fit = 0.25, 0.45, "letterbox"
    origin = "a detector of red"

    def stream(self, items: Iterable[Item], **_: object) -> Iterator[Detected | Failed]:
        for key, load in items:
            yield self._attempt(key, load)

    def _attempt(self, key: str, load: Any) -> Detected | Failed:
        try:
            return self._detect(key, load())
        except UnreadableImageError as error:
            return Failed(key, str(error))
        except OSError as error:
            return Failed(key, str(error.strerror))

    def _detect(self, key: str, rgb: Any) -> Detected:
        is_red = (rgb[..., 0] > 140) & (rgb[..., 2] < 110)
        rows, columns = np.flatnonzero(is_red.any(axis=1)), np.flatnonzero(is_red.any(axis=0))
        xyxy = np.zeros((0, 4))
        if len(rows):
            xyxy = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=float)
        class_id, confidence = np.zeros(len(xyxy), dtype=np.int64), np.full(len(xyxy), 0.875)
        height, width = rgb.shape[:2]
        return Detected(key, width, height, class_id, confidence, xyxy, self.names)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> RedDetector:
    """Make ``predict`` use a detector of red, and return it."""
    detector = RedDetector()
    monkeypatch.setattr(predict_operation, "load_detector", lambda *_, **__: detector)
    return detector


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def picture() -> Image.Image:
    image = Image.new("RGB", SIZE_WH, (30, 60, 200))
    image.paste((230, 30, 30), (8, 8, 16, 32))  # RED_XYXY
    return image


def save(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    quality: dict[str, Any] = {"quality": 97, "subsampling": 0} if path.suffix == ".jpg" else {}
    picture().save(path, **quality, **options)
    return path


def save_video(path: Path, frames: int) -> Path:
    with write_video(path, 10.0) as video:
        for _ in range(frames):
            video.write(np.asarray(picture()))
    return path
