"""The result of predict: the detections in all images, and what failed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.core.output import printable
from oiyolo.core.results import (
    TERMINAL_WIDTH,
    Result,
    format_table,
    pluralize,
    table_html,
    text_html,
)
from oiyolo.inference.detected import count_objects
from oiyolo.operations.predict.outputs import CSV_NAME, JSON_NAME, LABELS_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.inference.detected import Detected
    from oiyolo.operations.predict.outputs import Outputs

_SHOWN_IMAGES: Final = 20
_SHOWN_FAILURES: Final = 10
_SHOWN_PICTURES: Final = 4
_MIN_PATH_CHARACTERS: Final = 28


@dataclass(frozen=True)
class Predicted(Result):
    """The detections in all images; iterating over it yields a ``Detected`` for each.

    Attributes:
        images: The detections in each image and each frame that could be read.
        failed: Sources that could not be read, or not completely, with reasons.
        source_count: Number of sources.
        tolerance: Share of the sources that may fail.
        origin: Which detector was used, and why.
        threshold: Confidence that a detection exceeds.
        outputs: The files that were written.
        seconds: Duration in seconds, without loading the detector.
    """

    images: Sequence[Detected]
    failed: Mapping[str, str]
    source_count: int
    tolerance: float
    origin: str
    threshold: float
    outputs: Outputs
    seconds: float

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Detected]:
        return iter(self.images)

    def __bool__(self) -> bool:
        return True  # also without images

    @property
    def folder(self) -> Path:
        """The folder of the outputs."""
        return self.outputs.folder

    @property
    def allowed_failures(self) -> int:
        """Number of sources that may fail."""
        return int(self.tolerance * self.source_count)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 3 if more sources failed than the tolerance allows."""
        return InputFormError.exit_code if len(self.failed) > self.allowed_failures else 0

    @property
    def table(self) -> pd.DataFrame:
        """All detections, with the columns of ``predictions.csv``."""
        import pandas as pd  # noqa: PLC0415  (takes long to import)

        from oiyolo.operations.predict.writers import CSV_COLUMNS, table_rows  # noqa: PLC0415

        rows = [row for detected in self.images for row in table_rows(detected)]
        return pd.DataFrame(rows, columns=list(CSV_COLUMNS))

    def as_dict(self) -> dict[str, object]:
        """Return detections and failures as JSON-compatible values."""
        return {
            "images": [detected.as_dict() for detected in self.images],
            "failed": dict(self.failed),
        }

    def __str__(self) -> str:
        lines = [self._headline()]
        if len(self.images) == 1:
            lines.append(str(self.images[0]))
        elif self.images:
            lines.append(self._image_table())
        lines.append(f"detector: {printable(self.origin)}; threshold {self.threshold:g}")
        lines += self._output_lines() + self.failure_lines()
        return "\n".join(lines)

    def _headline(self) -> str:
        rate = len(self.images) / self.seconds if self.seconds else 0.0
        return (
            f"predicted {pluralize(len(self.images), 'image')} in {self.seconds:.1f} s "
            f"({rate:.1f} per second): {printable(count_objects(self.images))}"
        )

    def _image_table(self) -> str:
        return format_table(_with_short_paths(self._image_rows()), right=False)

    def _image_rows(self) -> list[tuple[str, str, str]]:
        """Return the heading of a table, and a row for each of the first images."""
        by_source: dict[str, list[Detected]] = {}
        for detected in self.images:
            by_source.setdefault(detected.source, []).append(detected)
        rows = [("image", "size", "objects")]
        for source, images in itertools.islice(by_source.items(), _SHOWN_IMAGES):
            size = f"{images[0].width}x{images[0].height}"
            frames = "" if images[0].frame is None else f" in {pluralize(len(images), 'frame')}"
            rows.append((_in_one_line(source), size, printable(count_objects(images)) + frames))
        rest = len(by_source) - _SHOWN_IMAGES
        return [*rows, (f"and {rest:,} more", "", "")] if rest > 0 else rows

    def _output_lines(self) -> list[str]:
        outputs = self.outputs
        pictures = sum(detected.frame is None for detected in self.images)
        videos = len({d.source for d in self.images if d.frame is not None})
        written = {
            "pictures": " and ".join(
                pluralize(n, noun) for n, noun in ((pictures, "picture"), (videos, "video")) if n
            ),
            "json": JSON_NAME,
            "csv": CSV_NAME,
            "yolo": f"{LABELS_FOLDER}/",
        }
        names = ", ".join(written[name] for name in outputs.formats if written[name])
        if not names:
            return []
        replaced = len(outputs.replaced)
        note = f" (replaced {pluralize(replaced, 'file')} of an earlier call)" if replaced else ""
        return [f"output: {printable(str(self.folder))}: {names}{note}"]

    def failure_lines(self) -> list[str]:
        """Return how many sources failed, and the first ones with reasons; empty if none did."""
        if not self.failed:
            return []
        head = (
            f"failed: {len(self.failed):,} of {pluralize(self.source_count, 'source')}, where a "
            f"tolerance of {self.tolerance:g} allows {self.allowed_failures:,}"
        )
        items = list(self.failed.items())
        lines = [f"  {_in_one_line(s)}: {printable(r)}" for s, r in items[:_SHOWN_FAILURES]]
        rest = len(items) - len(lines)
        return [head, *lines, *([f"  and {rest:,} more"] if rest else [])]

    def _repr_html_(self) -> str:
        pictures = (d for d in self.images if d.load is not None)
        shown = [d._repr_html_() for d, _ in zip(pictures, range(_SHOWN_PICTURES), strict=False)]
        several = table_html(self._image_rows(), right=False) if len(self.images) > 1 else ""
        note = f"detector: {printable(self.origin)}; threshold {self.threshold:g}"
        failures = text_html(*self.failure_lines())
        return text_html(self._headline(), note) + several + failures + "".join(shown)


def _in_one_line(source: str) -> str:
    return printable(source).replace("\n", "\\n").replace("\t", "\\t")


def _with_short_paths(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, ...]]:
    """Return rows that fit a terminal: of long paths, the end, which distinguishes them."""
    others = max(len(size) + len(objects) for _, size, objects in rows) + 4
    width = max(_MIN_PATH_CHARACTERS, TERMINAL_WIDTH - others)
    return [
        (path if len(path) <= width else f"…{path[1 - width :]}", *others) for path, *others in rows
    ]
