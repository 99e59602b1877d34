"""predict: detect objects in images, folders, globs, URLs and videos.

Needs neither darknet nor a GPU, and no project: any network of darknet or ONNX model will do.
Writes annotated pictures, JSON, CSV or YOLO labels to ``predictions/``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, overload

from PIL import Image

from oiyolo.core import disks
from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, pluralize
from oiyolo.inference.detected import Failed
from oiyolo.net.retry import RetryPolicy
from oiyolo.operations.detectors import load_detector
from oiyolo.operations.predict.items import PixelReader, known_rotations
from oiyolo.operations.predict.outputs import DISK_REMEDY, parse_formats, plan_outputs
from oiyolo.operations.predict.result import Predicted
from oiyolo.operations.predict.sources import find_sources, output_names
from oiyolo.project.project import open_or_default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Literal

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self, Unpack

    from oiyolo.core.progress import Progress
    from oiyolo.inference.detected import Detected
    from oiyolo.inference.detector import Detector
    from oiyolo.inference.facts import InputFit
    from oiyolo.net.client import HttpClient
    from oiyolo.operations.predict.items import Entry
    from oiyolo.operations.predict.outputs import Outputs
    from oiyolo.operations.predict.sources import MediaSource
    from oiyolo.operations.predict.writers import Writer
    from oiyolo.project.project import ProjectLike

    Rgb = npt.NDArray[np.uint8]

__all__ = ["FOLDER", "Predicted", "predict"]

FOLDER: Final = "predictions"
_RETRY_POLICY: Final = RetryPolicy(max_attempts=3, read_timeout_s=15.0, total_timeout_s=60.0)
"""A photograph is small, and a user may be waiting for it."""
_log = logging.getLogger("oiyolo")


class _Options(TypedDict, total=False):
    """Options of ``predict`` that do not change the type of its result."""

    project: ProjectLike
    run: str | None
    model: str | Path | None
    cfg: str | Path | None
    weights: str | Path | None
    names: str | Path | Sequence[str] | None
    formats: str | Iterable[str]
    out: str | Path | None
    threshold: float | None
    nms: float | None
    fit: InputFit | None
    tile: bool
    batch: int | None
    device: Literal["auto", "cpu", "cuda"]
    tolerance: float | None
    exif: Literal["apply", "ignore"]


_Sources = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@overload
def predict(
    sources: _Sources, *, dry_run: Literal[False] = ..., **options: Unpack[_Options]
) -> Predicted: ...


@overload
def predict(sources: _Sources, *, dry_run: Literal[True], **options: Unpack[_Options]) -> Plan: ...


@overload
def predict(
    sources: _Sources, *, dry_run: bool, **options: Unpack[_Options]
) -> Predicted | Plan: ...


def predict(
    sources: _Sources,
    *,
    project: ProjectLike = ".",
    run: str | None = None,
    model: str | Path | None = None,
    cfg: str | Path | None = None,
    weights: str | Path | None = None,
    names: str | Path | Sequence[str] | None = None,
    formats: str | Iterable[str] = "pictures",
    out: str | Path | None = None,
    threshold: float | None = None,
    nms: float | None = None,
    fit: InputFit | None = None,
    tile: bool = False,
    batch: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    tolerance: float | None = None,
    exif: Literal["apply", "ignore"] = "apply",
    dry_run: bool = False,
) -> Predicted | Plan:
    """Detect objects in images and videos, and write what was found.

    Args:
        sources: One or several paths of images, videos and folders, globs, and http(s) URLs. A
            folder is searched with its subfolders.
        project: An open project or its folder; a folder without a project will do if the detector
            is named.
        run: Name of the run whose detector is used; by default the newest finished run.
        model: An ONNX model to use instead.
        cfg: A network of darknet to use instead, with ``weights`` and ``names``.
        weights: Weights of ``cfg``.
        names: Class names of ``cfg`` or ``model``: a file with one in each line.
        formats: Some of "pictures", "json", "csv" and "yolo", separated by commas; empty to write
            nothing.
        out: Folder of the outputs; ``predictions`` in the project's folder by default. Only
            outputs of earlier predictions are replaced.
        threshold: Lowest confidence to report; the detector's own by default.
        nms: IoU above which the less confident of two boxes of a class is dropped; the detector's
            own by default.
        fit: How an image is fitted to the network's input; what the detector says by default.
        tile: Whether to look for small objects in overlapping tiles, too.
        batch: Number of images that the network processes at once.
        device: Where the network runs.
        tolerance: Share of the sources that may fail; ``[images] tolerance`` by default.
        exif: "ignore" leaves images as they are stored; "apply" turns them upright, by Open Images'
            Rotation if they are the project's.
        dry_run: Whether to only report what would be done.

    Returns:
        The detections in the pixels of the images; its ``exit_code`` is 3 if more sources failed
        than the tolerance allows.

    Raises:
        UsageError: There are no sources, an output would replace a file that no earlier prediction
            wrote or that changed since, or an option is invalid.
        InputFormError: The detector's files are damaged or do not belong together.
        UnavailableError: The disk is full.
    """
    words = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources or ())
    opened = open_or_default(project, {"tolerance": tolerance})
    format_names = parse_formats(formats)
    if exif not in {"apply", "ignore"}:
        raise UsageError(f"invalid exif {exif!r}", expected='"apply" or "ignore"')
    folder = opened.folder / FOLDER if out is None else Path(out)
    media = find_sources(words)
    output_of = output_names(media)
    outputs = plan_outputs(folder, format_names, media, output_of)
    detector = load_detector(
        opened,
        run=run,
        model=model,
        cfg=cfg,
        weights=weights,
        names=names,
        device=device,
        fit=fit,
        threshold=threshold,
        nms=nms,
    )
    rotations = known_rotations(opened, media) if exif == "apply" else {}
    job = _Job(detector, media, output_of, outputs, tile=tile, batch=batch)
    if dry_run:
        return job.plan(rotations)
    reader = PixelReader(
        _client(media),
        use_exif=exif == "apply",
        rotations=rotations,
        keeps_pixels="pictures" in format_names,
    )
    return job.run(reader, opened.config.images.tolerance)


@dataclass(frozen=True)
class _Job:
    """A prediction.

    Attributes:
        detector: The detector.
        sources: The sources.
        names: Name of the outputs of each source.
        outputs: The outputs.
        tile: Whether to detect in tiles, too.
        batch: Size of a batch; ``None`` for that of the detector.
    """

    detector: Detector
    sources: Sequence[MediaSource]
    names: Sequence[str]
    outputs: Outputs
    tile: bool
    batch: int | None

    def plan(self, rotations: Mapping[Path, int]) -> Plan:
        """Return what ``run`` would do; ``rotations`` are those of ``PixelReader``."""
        detector, total = self.detector, len(self.sources)
        videos = [source for source in self.sources if source.is_video]
        urls = [source for source in self.sources if source.url]
        parts = [
            pluralize(len(group), noun)
            for group, noun in (
                ([None] * (total - len(videos) - len(urls)), "image file"),
                (urls, "URL"),
                (videos, "video"),
            )
            if group
        ]
        what = " and ".join(parts)
        settings = (
            f"threshold {detector.threshold:g}, NMS {detector.nms_iou:g}, {detector.fit}"
            f"{', with tiles' if self.tile else ''}"
        )
        actions = [f"detect objects in {what} with {detector.origin} ({settings})"]
        if turned := sum(map(bool, rotations.values())):
            what = f"{pluralize(turned, 'image')} of the project"
            actions.append(f"turn {what} upright as Open Images' Rotation says")
        if written := self.outputs.planned:
            replaced = len(self.outputs.replaced)
            note = f", replacing {replaced:,} of an earlier prediction" if replaced else ""
            what = f"{pluralize(len(written), 'file')} ({', '.join(self.outputs.formats)})"
            actions.append(f"write {what} to {self.outputs.folder}{note}")
        return Plan("predict", actions, {"sources": [source.label for source in self.sources]})

    def run(self, reader: PixelReader, tolerance: float) -> Predicted:
        """Detect objects in all sources, and write the outputs."""
        _log.info("predict: %s", self.detector.origin)
        folder = self.outputs.folder
        failed: dict[str, str] = {}
        started_s = time.monotonic()
        with (
            disks.convert_disk_full_error(folder, what="the predictions", remedy=DISK_REMEDY),
            warnings.catch_warnings(),
            contextlib.ExitStack() as stack,
        ):
            # By default Pillow only warns about images that are too large to decode.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if reader.client is not None:
                stack.callback(reader.client.close)
            self.outputs.record(complete=False)
            writers = [stack.enter_context(w) for w in _writers(self.outputs, self.detector)]
            bar = stack.enter_context(progress("predict", total=self._count(), unit="img"))
            images = list(self._detect(reader, writers, failed, bar))
            for writer in writers:
                writer.finish(failed)
        self.outputs.record(complete=True)
        result = Predicted(
            images,
            failed,
            len(self.sources),
            tolerance,
            self.detector.origin,
            self.detector.threshold,
            self.outputs,
            time.monotonic() - started_s,
        )
        if result.exit_code:
            _log.error("predict: %s", result.failure_lines()[0])
        return result

    def _detect(
        self,
        reader: PixelReader,
        writers: Sequence[Writer],
        failed: dict[str, str],
        bar: Progress,
    ) -> Iterator[Detected]:
        """Yield the detections of each image after writing them; add failures to ``failed``."""
        items = _Items(reader, self.sources, self.names)
        results = self.detector.stream(items, batch=self.batch, tile=self.tile)
        started_s, done = time.monotonic(), 0
        with contextlib.closing(results):
            for result in results:
                entry = items.waiting.popleft()
                if isinstance(result, Failed):
                    failed[entry.source.label] = result.reason
                    self.outputs.discard(entry.name)
                else:
                    detected = _located(result, entry, reader)
                    for writer in writers:
                        writer.write(entry, detected)
                    yield detected
                done += 1
                bar.set_postfix(**{"img/s": f"{done / (time.monotonic() - started_s):.1f}"})
                bar.advance()

    def _count(self) -> int:
        """Return the number of images and frames; a video without a known number counts as one."""
        videos = [source.path for source in self.sources if source.is_video and source.path]
        count = len(self.sources) - len(videos)
        if videos:
            from oiyolo.operations.predict.video import count_frames  # noqa: PLC0415

            count += sum(max(1, count_frames(path)) for path in videos)
        return count


class _Items:
    """Iterator of the images as the detector takes them; it closes it before it waits for them.

    Attributes:
        waiting: Entries of the images whose detections are still to come, in order.
    """

    def __init__(
        self, reader: PixelReader, sources: Sequence[MediaSource], names: Sequence[str]
    ) -> None:
        self.waiting: deque[Entry] = deque()
        self._client = reader.client
        self._entries = reader.iter_entries(sources, names)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, Callable[[], Rgb]]:
        entry, load = next(self._entries)
        self.waiting.append(entry)
        return entry.source.label, load

    def close(self) -> None:
        """End downloads and their pauses: after an interrupt, no server is waited for."""
        if self._client is not None:
            self._client.stop.set()


def _client(sources: Sequence[MediaSource]) -> HttpClient | None:
    """Return a client if there are URLs."""
    if not any(source.url for source in sources):
        return None
    from oiyolo.net.client import HttpClient  # noqa: PLC0415  (takes long to import)

    return HttpClient(_RETRY_POLICY)


def _located(detected: Detected, entry: Entry, reader: PixelReader) -> Detected:
    """Return detections with what is known of their image; those of an image file can be drawn."""
    source = entry.source
    can_load = source.path is not None and entry.frame is None
    return replace(
        detected,
        source=source.label,
        frame=entry.frame,
        time_s=entry.time_s,
        load=partial(reader.read, source) if can_load else None,
    )


def _writers(outputs: Outputs, detector: Detector) -> Iterator[Writer]:
    """Yield a writer for each format."""
    from oiyolo.operations.predict import writers  # noqa: PLC0415  (needs Pillow and OpenCV)

    folder = outputs.folder
    for name in outputs.formats:
        if name == "pictures":
            yield writers.PictureWriter(folder)
        elif name == "json":
            yield writers.JsonWriter(folder)
        elif name == "csv":
            yield writers.CsvWriter(folder)
        else:
            yield writers.LabelWriter(folder, detector.names)
