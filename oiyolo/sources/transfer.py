"""Many images at once: threads that ask the sources and write what they get."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo import files
from oiyolo.http import StoppedError
from oiyolo.sources.image import NotFetchedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from oiyolo.sources.image import Source, WantedImage

_STOP_WITHIN_S: Final = 1.5


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        image_id: The image.
        told: What happened, at length.
        attempts: Requests in all.
        source: The source that had it; ``None`` if none had.
        size_bytes: Its size.
        md5: Its MD5 in hexadecimal.
        reason: Why no source had it, in a form that can be counted.
        transient: A later try may go better.
        reached: Some source answered at all.
    """

    image_id: str
    told: str
    attempts: int
    source: str | None = None
    size_bytes: int = 0
    md5: str = ""
    reason: str = ""
    transient: bool = False
    reached: bool = True


def fetch_images(
    wanted: Sequence[WantedImage],
    sources: Sequence[Source],
    folder: Path,
    jobs: int,
    stop: threading.Event,
) -> Iterator[Outcome]:
    """Fetch images into a folder, ``jobs`` at a time, and give each one's outcome as it comes.

    When the caller stops taking outcomes (an exception, Ctrl-C), ``stop`` is set and the threads
    end within moments; what they had not finished stays without a final name.

    Args:
        wanted: The images.
        sources: Where to ask, in this order.
        folder: Where ``<ImageID>.jpg`` are written.
        jobs: Images in work at the same time.
        stop: The event that the sources' connections watch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    todo: queue.SimpleQueue[WantedImage] = queue.SimpleQueue()
    for image in wanted:
        todo.put(image)
    # Daemons, because one that hangs in a read must not hold up a Ctrl-C.
    threads = [
        threading.Thread(target=_work, args=(todo, outcomes, sources, folder, stop), daemon=True)
        for _ in range(min(jobs, len(wanted)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in wanted:
            outcome = outcomes.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        stop.set()
        end_s = time.monotonic() + _STOP_WITHIN_S
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, end_s - time.monotonic()))


def _work(
    todo: queue.SimpleQueue[WantedImage],
    outcomes: queue.SimpleQueue[Outcome | BaseException],
    sources: Sequence[Source],
    folder: Path,
    stop: threading.Event,
) -> None:
    """Be one thread: take an image, fetch it, tell."""
    try:
        while not stop.is_set():
            outcomes.put(_fetch_one(todo.get_nowait(), sources, folder))
    except (queue.Empty, StoppedError):
        return
    except BaseException as error:  # noqa: BLE001  (raised again by the caller's thread)
        outcomes.put(error)


def _fetch_one(image: WantedImage, sources: Sequence[Source], folder: Path) -> Outcome:
    """Try the sources in their order."""
    failures: list[tuple[str, NotFetchedError]] = []
    for source in sources:
        try:
            fetched = source.get(image)
        except NotFetchedError as failure:
            failures.append((source.name, failure))
            continue
        files.write_bytes(folder / f"{image.image_id}.jpg", fetched.content, durable=False)
        size_bytes = len(fetched.content)
        before = "".join(f"; not from {name}: {failure.detail}" for name, failure in failures)
        return Outcome(
            image.image_id,
            f"fetched from {source.name}, {size_bytes:,} bytes{before}",
            fetched.attempts + sum(failure.attempts for _, failure in failures),
            source=source.name,
            size_bytes=size_bytes,
            md5=fetched.md5,
        )
    return Outcome(
        image.image_id,
        "; ".join(f"{name}: {failure.detail}" for name, failure in failures),
        sum(failure.attempts for _, failure in failures),
        reason=", ".join(f"{name}: {failure.reason}" for name, failure in failures),
        transient=any(failure.transient for _, failure in failures),
        reached=any(failure.reached for _, failure in failures),
    )
