"""A detector: a network with its class names, called on images.

Images are read, fitted and suppressed in the thread that runs the network on them, so that every
core is busy with one image, and no thread waits for another. For that, the network computes with
one thread per call. A single image gets all cores instead.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageOps

from oiyolo.core import files
from oiyolo.core.batches import batched
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import pluralize
from oiyolo.imagery.decode import UnreadableImageError, to_rgb
from oiyolo.imagery.threads import single_threaded_libraries
from oiyolo.imagery.upright import decode_upright
from oiyolo.inference.detected import Detected, Failed
from oiyolo.inference.placement import fit_image, to_image, unit_wh
from oiyolo.inference.suppression import suppress
from oiyolo.inference.tiles import TileDetections, merge, tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.inference.facts import InputFit, ModelFacts
    from oiyolo.inference.session import Session
    from oiyolo.inference.suppression import Kept

    Rgb = npt.NDArray[np.uint8]
    """An image, shape (height, width, 3)."""
    Item = tuple[str, Callable[[], Rgb]]
    """The source of an image, and a function that returns its upright pixels; it may raise
    ``UnreadableImageError`` or ``OSError``."""

DEFAULT_THRESHOLD: Final = 0.25
"""Lowest confidence that is reported unless one was chosen for the model."""
_MAX_WORKERS: Final = 8
"""Images that are in work at the same time, at most: each needs memory for the network's layers."""
_QUEUED_BATCHES_PER_WORKER: Final = 2
_BATCHES: Final = {"cpu": 1, "cuda": 8}
"""Images that the network processes in one call, by device."""
_AXES, _CHANNELS = 3, 3


@dataclass(frozen=True)
class _Limits:
    """What is reported.

    Attributes:
        threshold: Confidence that a detection exceeds.
        nms_iou: IoU above which the less confident of two boxes of a class is dropped.
    """

    threshold: float
    nms_iou: float


class Detector:
    """A network that detects objects in images.

    Args:
        session: The network.
        facts: What is known about it.
        origin: Which model it is, and why it was chosen, in words.
        fit: How images are fitted to the input; by default as ``facts`` says, likewise below.
        threshold: Lowest confidence to report.
        nms: IoU above which the less confident of two boxes of a class is dropped.
        threads: Number of threads that are used at the same time; by default one per core.

    Attributes:
        facts: What is known about the network.
        names: Names of the classes; a class id is a position in them.
        size_wh: Width and height of the network's input in pixels.
        device: Where the network runs, ``cpu`` or ``cuda``.
        fit: How images are fitted to the input.
        threshold: Lowest confidence that is reported.
        nms_iou: IoU above which the less confident of two boxes of a class is dropped.
        origin: Which model it is, and why it was chosen, in words.

    Raises:
        UsageError: An option is not from 0 to 1.
    """

    def __init__(
        self,
        session: Session,
        facts: ModelFacts,
        *,
        origin: str,
        fit: InputFit | None = None,
        threshold: float | None = None,
        nms: float | None = None,
        threads: int | None = None,
    ) -> None:
        self.facts = facts
        self.names = facts.names
        self.origin = origin
        self.fit: InputFit = fit or facts.fit
        default = DEFAULT_THRESHOLD if facts.threshold is None else facts.threshold
        self.threshold = _checked("threshold", threshold, default)
        self.nms_iou = _checked("nms", nms, facts.nms_iou)
        self._cores = threads or len(os.sched_getaffinity(0))
        self._sessions = {session.threads: session}
        self._lock = threading.Lock()
        self.size_wh = session.size_wh
        self.device = session.device

    def __repr__(self) -> str:
        width, height = self.size_wh
        classes = pluralize(len(self.names), "class")
        return f"<Detector: {classes}, {width}x{height}, {self.origin}>"

    def __call__(
        self,
        image: str | Path | Image.Image | Rgb,
        *,
        threshold: float | None = None,
        nms: float | None = None,
        tile: bool = False,
    ) -> Detected:
        """Detect the objects in one image.

        Args:
            image: Path of an image file, a Pillow image, both of which are turned upright by their
                EXIF orientation, or upright RGB pixels of shape (height, width, 3), uint8.
            threshold: Lowest confidence to report; by default the detector's, likewise below.
            nms: IoU above which the less confident of two boxes of a class is dropped.
            tile: Whether to look for small objects in overlapping tiles, too.

        Raises:
            UsageError: The file does not exist, or the image or an option is invalid.
            InputFormError: The image cannot be decoded.
        """
        source, load = _item(image)
        limits = self._limits(threshold, nms)
        try:
            rgb = load()
        except UnreadableImageError as error:
            raise InputFormError(
                "the image cannot be read", where=source, found=str(error)
            ) from error
        except OSError as error:
            raise UsageError(
                "the image cannot be read", where=source, found=error.strerror or str(error)
            ) from error
        session = self._session(self._cores)
        (detected,) = self._detect(session, [_Loaded(source, load, rgb)], limits, tile=tile)
        return detected

    def stream(
        self,
        items: Iterable[Item],
        *,
        batch: int | None = None,
        threshold: float | None = None,
        nms: float | None = None,
        tile: bool = False,
    ) -> Generator[Detected | Failed, None, None]:
        """Yield the detections in many images, in their order; keep few of them in memory.

        Args:
            items: The source of each image, and a function that returns its upright RGB pixels; it
                runs in another thread and may raise ``UnreadableImageError`` or ``OSError``.
            batch: Number of images that the network processes in one call; by default 1 on a CPU,
                which is fastest with one call per core.
            threshold: Lowest confidence to report; by default the detector's, likewise below.
            nms: IoU above which the less confident of two boxes of a class is dropped.
            tile: Whether to look for small objects in overlapping tiles, too.

        Raises:
            UsageError: An option is invalid.
            InputFormError: The network fails.
        """
        if batch is None:
            batch = _BATCHES[self.device]
        if batch < 1:
            raise UsageError(f"invalid batch {batch}", expected="1 or more")
        return self._stream(items, batch, self._limits(threshold, nms), tile=tile)

    def _stream(
        self, items: Iterable[Item], batch: int, limits: _Limits, *, tile: bool
    ) -> Generator[Detected | Failed, None, None]:
        remaining = batched(items, batch)
        first = list(itertools.islice(remaining, 2))
        workers = min(self._cores, _MAX_WORKERS) if len(first) > 1 else 1
        session = self._session(max(1, self._cores // workers))
        work = partial(self._read_and_detect, session, limits, tile=tile)
        waiting: deque[Future[list[Detected | Failed]]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="detect")
        try:
            with single_threaded_libraries():
                for part in itertools.chain(first, remaining):
                    waiting.append(pool.submit(work, part))
                    if len(waiting) > workers * _QUEUED_BATCHES_PER_WORKER:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()  # a generator of items can end what its functions wait for
            pool.shutdown(wait=True, cancel_futures=True)

    def _read_and_detect(
        self, session: Session, limits: _Limits, items: Sequence[Item], *, tile: bool
    ) -> list[Detected | Failed]:
        """Return the detections in a batch of images, and those that could not be read."""
        loaded = [_load(source, load) for source, load in items]
        readable = [image for image in loaded if isinstance(image, _Loaded)]
        detected = iter(self._detect(session, readable, limits, tile=tile))
        return [image if isinstance(image, Failed) else next(detected) for image in loaded]

    def _detect(
        self, session: Session, images: Sequence[_Loaded], limits: _Limits, *, tile: bool
    ) -> list[Detected]:
        """Return the detections in images that were read."""
        if tile:
            return [self._detect_in_tiles(session, image, limits) for image in images]
        detections = self._run(session, [image.rgb for image in images], limits)
        return [
            image.detected(self.names, kept.class_id, kept.confidence, xyxy)
            for image, (kept, xyxy) in zip(images, detections, strict=True)
        ]

    def _run(
        self, session: Session, images: Sequence[Rgb], limits: _Limits
    ) -> Iterator[tuple[Kept, Boxes]]:
        """Yield the detections in each image, and their corners in pixels of it."""
        if not images:
            return
        width, height = self.size_wh
        inputs = np.empty((len(images), 3, height, width), np.float32)
        for rgb, planes in zip(images, inputs, strict=True):
            fit_image(rgb, self.size_wh, self.fit, planes)
        for rgb, boxes, scores in zip(images, *session(inputs), strict=True):
            image_wh = rgb.shape[1], rgb.shape[0]
            kept = suppress(
                boxes,
                scores,
                threshold=limits.threshold,
                nms_iou=limits.nms_iou,
                kind=self.facts.nms_kind,
                beta=self.facts.nms_beta,
                unit_wh=unit_wh(image_wh, self.size_wh, self.fit),
            )
            xyxy = to_image(kept.cxcywh, image_wh, self.size_wh, self.fit)
            # A box may be entirely in the border of a letterbox.
            visible = np.flatnonzero((xyxy[:, 2:] > xyxy[:, :2]).all(axis=1))
            yield kept.of(visible), xyxy[visible]

    def _detect_in_tiles(self, session: Session, image: _Loaded, limits: _Limits) -> Detected:
        """Return the detections in an image, and in tiles of it."""
        height, width = image.rgb.shape[:2]
        frames = [(0, 0, width, height), *tiles((width, height), self.size_wh)]
        parts = []
        for group in batched(frames, _BATCHES[self.device]):
            views = [image.rgb[top:bottom, left:right] for left, top, right, bottom in group]
            for frame, (kept, xyxy) in zip(group, self._run(session, views, limits), strict=True):
                shifted = xyxy + np.tile(frame[:2], 2)
                parts.append(TileDetections(frame, kept.class_id, kept.confidence, shifted))
        merged = merge(parts, (width, height), nms_iou=limits.nms_iou)
        return image.detected(self.names, merged.class_id, merged.confidence, merged.xyxy)

    def _session(self, threads: int) -> Session:
        """Return the network with this number of threads per call."""
        with self._lock:
            if threads not in self._sessions:
                opened = next(iter(self._sessions.values()))
                self._sessions[threads] = opened.with_threads(threads)
            return self._sessions[threads]

    def _limits(self, threshold: float | None, nms: float | None) -> _Limits:
        return _Limits(
            _checked("threshold", threshold, self.threshold), _checked("nms", nms, self.nms_iou)
        )


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An image that was read.

    Attributes:
        source: What was read.
        load: Reads it again.
        rgb: Its upright pixels.
    """

    source: str
    load: Callable[[], Rgb]
    rgb: Rgb

    def detected(
        self,
        names: tuple[str, ...],
        class_id: npt.NDArray[np.int64],
        confidence: npt.NDArray[np.float64],
        xyxy: Boxes,
    ) -> Detected:
        """Return the detections in this image."""
        height, width = self.rgb.shape[:2]
        return Detected(
            self.source, width, height, class_id, confidence, xyxy, names, load=self.load
        )


def _checked(name: str, value: float | None, default: float) -> float:
    """Return a value from 0 to 1; raise UsageError if it is not one."""
    if value is None:
        return default
    if not 0 <= value <= 1:
        raise UsageError(f"invalid {name} {value}", expected="a number from 0 to 1")
    return float(value)


def _item(image: str | Path | Image.Image | Rgb) -> Item:
    """Return the source of an image, and a function that returns its upright pixels."""
    if isinstance(image, (str, Path)):
        return str(image), partial(_read, Path(image))
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "image", partial(_convert, image)
    shape: tuple[int, ...] = getattr(image, "shape", ())
    kind = str(getattr(image, "dtype", type(image).__name__))
    if len(shape) != _AXES or shape[-1] != _CHANNELS or not all(shape) or kind != "uint8":
        raise UsageError(
            "invalid image",
            expected="a path, a Pillow image, or RGB pixels of shape (height, width, 3), uint8",
            found=f"{kind} of shape {shape}",
        )
    return "array", lambda: image


def _read(path: Path) -> Rgb:
    return decode_upright(files.read_bytes(path))


def _convert(image: Image.Image) -> Rgb:
    return to_rgb(ImageOps.exif_transpose(image))


def _load(source: str, load: Callable[[], Rgb]) -> _Loaded | Failed:
    try:
        return _Loaded(source, load, load())
    except MemoryError:
        return Failed(source, "out of memory")
    except (UnreadableImageError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Failed(source, reason)
