"""The detections in one image: a small table, and the picture with the boxes drawn on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core.output import printable
from oiyolo.core.results import TERMINAL_WIDTH, Picture, Result, format_table, table_html, text_html
from oiyolo.imagery.decode import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from PIL import Image

    from oiyolo.boxes import Boxes

    Rgb = npt.NDArray[np.uint8]
    """An image, shape (height, width, 3)."""

_SHOWN_ROWS: Final = 20
_SHOWN_CLASSES: Final = 6
_PIXEL_DECIMALS, _CONFIDENCE_DECIMALS = 2, 6


class Detection(NamedTuple):
    """One detected object.

    Attributes:
        name: Name of its class.
        class_id: Position of the class in the detector's names.
        confidence: From 0 to 1.
        xyxy: Left, top, right, bottom in pixels of the upright image.
    """

    name: str
    class_id: int
    confidence: float
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Failed:
    """An image that could not be read.

    Attributes:
        source: What was read: a path, a URL, or a number.
        reason: Why not, in a few words.
    """

    source: str
    reason: str


@dataclass(frozen=True, eq=False)
class Detected(Result):
    """The detections in one image, by falling confidence.

    Attributes:
        source: What was read: a path, a URL, or a number.
        width: Width of the upright image, in pixels.
        height: Height of the upright image, in pixels.
        class_id: Class of each detection, shape (n,).
        confidence: Confidence of each detection, from 0 to 1, shape (n,).
        xyxy: Left, top, right, bottom in pixels of the upright image, shape (n, 4).
        names: Names of the detector's classes.
        frame: Position of the image in its video, from 0; ``None`` for a photograph.
        time_s: Time of the image in its video; ``None`` for a photograph.
        load: Returns the pixels of the upright image; ``None`` if they are not available.
    """

    source: str
    width: int
    height: int
    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    xyxy: Boxes
    names: tuple[str, ...]
    frame: int | None = None
    time_s: float | None = None
    load: Callable[[], Rgb] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.class_id)

    def __bool__(self) -> bool:
        return True  # also without detections

    def __iter__(self) -> Iterator[Detection]:
        for class_id, confidence, (left, top, right, bottom) in zip(
            self.class_id.tolist(), self.confidence.tolist(), self.xyxy.tolist(), strict=True
        ):
            yield Detection(self.names[class_id], class_id, confidence, (left, top, right, bottom))

    def as_dict(self) -> dict[str, object]:
        """Return source, size and detections as JSON-compatible values."""
        values: dict[str, object] = {
            "source": self.source,
            "width": self.width,
            "height": self.height,
        }
        if self.frame is not None:
            values |= {"frame": self.frame, "time_s": self.time_s}
        detections = [
            {
                "class": detection.name,
                "class_id": detection.class_id,
                "confidence": round(detection.confidence, _CONFIDENCE_DECIMALS),
                "xyxy": [round(value, _PIXEL_DECIMALS) for value in detection.xyxy],
            }
            for detection in self
        ]
        return {**values, "detections": detections}

    @property
    def table(self) -> pd.DataFrame:
        """The detections: ``class``, ``class_id``, ``confidence`` and the corners in pixels."""
        import pandas as pd  # noqa: PLC0415  (takes long to import)

        columns = {
            "class": [self.names[class_id] for class_id in self.class_id.tolist()],
            "class_id": self.class_id,
            "confidence": self.confidence,
        }
        corners = dict(zip(("left", "top", "right", "bottom"), self.xyxy.T, strict=True))
        return pd.DataFrame({**columns, **corners})

    def plot(self) -> Image.Image:
        """Return the picture with the boxes and their labels.

        Raises:
            ValueError: The pixels are not available.
            UnreadableImageError: The image file has been damaged since.
            OSError: The image file cannot be read any more.
        """
        if self.load is None:
            raise ValueError(f"the pixels of {self.source} are not available")
        return self.draw_on(self.load())

    def draw_on(self, rgb: Rgb) -> Image.Image:
        """Return a copy of the upright image with the boxes and their labels."""
        from oiyolo.inference.picture import draw_detections  # noqa: PLC0415  (needs Pillow)

        class_ids, confidences = self.class_id.tolist(), self.confidence.tolist()
        return draw_detections(rgb, self.xyxy, class_ids, confidences, self.names)

    @property
    def summary(self) -> str:
        """The number of objects of each class: "2 Boat, 1 Person"."""
        return count_objects([self])

    def __str__(self) -> str:
        if not len(self):
            return printable(self._headline)
        shown = format_table(self._rows()[: _SHOWN_ROWS + 1], max_width=TERMINAL_WIDTH)
        return "\n".join(filter(None, (printable(self._headline), shown, self._rest_note())))

    @property
    def _headline(self) -> str:
        return f"{self.source} ({self.width}x{self.height}): {self.summary}"

    def _rows(self) -> list[tuple[str, ...]]:
        """Return the heading of a table, and a row for each detection."""
        rows: list[tuple[str, ...]] = [("class", "confidence", "left", "top", "right", "bottom")]
        for detection in self:
            corners = (f"{value:.0f}" for value in detection.xyxy)
            rows.append((printable(detection.name), f"{detection.confidence:.2f}", *corners))
        return rows

    def _rest_note(self) -> str:
        rest = len(self) - _SHOWN_ROWS
        return f"and {rest} more" if rest > 0 else ""

    def _repr_html_(self) -> str:
        text = text_html(printable(self._headline)) + table_html(self._rows()[: _SHOWN_ROWS + 1])
        text += text_html(self._rest_note())
        try:
            picture = Picture(self.plot(), printable(f"{self.source}: {self.summary}"))
        except (ValueError, OSError, UnreadableImageError):  # the file may be gone by now
            return text
        return picture.html + text


def count_objects(images: Iterable[Detected]) -> str:
    """Return the number of objects of each class, the most frequent first: "2 Boat, 1 Person"."""
    counts = Counter(d.names[class_id] for d in images for class_id in d.class_id.tolist())
    shown = [f"{count:,} {name}" for name, count in counts.most_common(_SHOWN_CLASSES)]
    rest = len(counts) - len(shown)
    return ", ".join([*shown, *([f"{rest:,} more classes"] if rest > 0 else [])]) or "nothing"
