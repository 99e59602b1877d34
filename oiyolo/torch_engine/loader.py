"""Batches for training: drawn, decoded, augmented and moved to the device before they are needed.

A batch depends on the seed, its position in the stream and the input's size only. One thread
prepares batches ahead of their use. On a CPU it computes without further threads, so that most of
the cores stay with the training; with a GPU it copies and computes on a stream of its own.
"""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np
import torch

from oiyolo.torch_engine import augment as augmentation
from oiyolo.torch_engine import samples as sampling
from oiyolo.torch_engine.cache import ImageCache
from oiyolo.torch_engine.render import Renderer, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    import numpy.typing as npt
    from typing_extensions import Self

    from oiyolo.imagery.decode import Rgb
    from oiyolo.networks.cfg import Cfg
    from oiyolo.torch_engine.augment import Augmentation, BatchPlan
    from oiyolo.torch_engine.heads import Heads, HeadTarget
    from oiyolo.torch_engine.rules import Rules
    from oiyolo.torch_engine.samples import Samples

_BLOCKS_AHEAD: Final = 2
_MAX_BLOCK: Final = 16
_BLOCK_PIXELS: Final = 1 << 20
"""Small batches are made several at once, since planning a batch takes 0.5 ms whatever its size."""
_MAX_THREADS: Final = 16
_GREY: Final = 127.5
_DEFAULT_CLASSES: Final = 20
_BYTES: Final = 4


class Batch(NamedTuple):
    """The images of one forward pass.

    Attributes:
        images: Red, green and blue from 0 to 1, float32 on the device, shape (n, 3, h, w).
        truths: Centre x, y, width, height as fractions, and class, of each image's boxes; zeros
            after the last. On the CPU, shape (n, max_boxes, 5).
        counts: Number of boxes of each image, on the CPU, shape (n,).
        indices: Index in the list of each image, of the first one for mixed images, shape (n,).
        targets: What each head should learn from the images, on the device; nothing if no heads
            were given.
    """

    images: torch.Tensor
    truths: torch.Tensor
    counts: torch.Tensor
    indices: npt.NDArray[np.int64]
    targets: Sequence[HeadTarget] = ()

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the images in pixels."""
        return self.images.shape[3], self.images.shape[2]

    def part(self, rows: slice) -> Batch:
        """Return some images of the batch, without targets."""
        return Batch(self.images[rows], self.truths[rows], self.counts[rows], self.indices[rows])

    def with_targets(self, heads: Heads) -> Batch:
        """Return the batch with what each head should learn."""
        return self._replace(targets=heads.targets(self.truths, self.size_wh, self.images.device))

    def on_device(self) -> Iterator[torch.Tensor]:
        """Yield the tensors on the device."""
        yield self.images
        for target in self.targets:
            yield from target.tensors()


@dataclass(frozen=True)
class BatchMaker:
    """Makes any batch of a stream.

    Attributes:
        options: The augmentation.
        samples: The images and their boxes.
        cache: The decoded images.
        decoders: Threads that decode.
        device: Where the batches are needed.
        seed: Seed of the stream.
        memory_format: Memory format of the images.
        workspace: Tensors for ``make``, which one thread at a time may call.
    """

    options: Augmentation
    samples: Samples
    cache: ImageCache
    decoders: ThreadPoolExecutor
    device: torch.device
    seed: int
    memory_format: torch.memory_format
    workspace: Workspace = field(default_factory=Workspace)

    def make(
        self, positions: npt.NDArray[np.int64], size_wh: tuple[int, int], *, in_order: bool
    ) -> Batch:
        """Return the batch of some positions of the stream.

        Args:
            positions: Positions in the stream, shape (n,).
            size_wh: Width and height of the input in pixels.
            in_order: Whether the positions are indices in the list; otherwise images are drawn.
        """
        sources = augmentation.draw(self.options, self.seed, positions, len(self.samples.paths))
        if in_order:
            sources = sources._replace(images=positions)
        pictures = self.cache.get_many(sources.images.tolist(), self.decoders)
        image_wh = np.array([picture.shape[1::-1] for picture in pictures])
        plan = augmentation.plan(
            self.options,
            self.samples,
            sources,
            image_wh=image_wh,
            size_wh=size_wh,
            seed=self.seed,
        )
        images = self._render(plan, pictures, image_wh)
        truths, counts = torch.from_numpy(plan.truths), torch.from_numpy(plan.counts)
        return Batch(images, truths, counts, sources.images[sources.numbers == 0])

    def _render(
        self, plan: BatchPlan, pictures: Sequence[Rgb], image_wh: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        areas = image_wh.prod(axis=1)
        starts = np.cumsum(areas) - areas
        pixels = torch.empty(
            (int(areas.sum()), _BYTES), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        packed = pixels.numpy()
        for picture, start, area in zip(pictures, starts, areas, strict=True):
            target = packed[start : start + area].reshape(*picture.shape[:2], _BYTES)
            cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA, dst=target)
        renderer = Renderer(
            self.workspace,
            plan,
            starts=starts,
            widths=image_wh[:, 0],
            fill_rgb=self._fill(pictures),
            device=self.device,
        )
        width, height = plan.size_wh
        images = torch.empty(
            (len(plan.mix), 3, height, width),
            device=self.device,
            memory_format=self.memory_format,
        )
        renderer.render(
            pixels.to(self.device, non_blocking=True).view(torch.int32).view(-1), images
        )
        return images

    def _fill(self, pictures: Sequence[Rgb]) -> npt.NDArray[np.float32]:
        """Return the colour from 0 to 255 of what each source does not cover, shape (s, 3)."""
        if self.options.geometry == "crop_mean":
            return np.array([cv2.mean(picture)[:3] for picture in pictures], np.float32)
        return np.full((len(pictures), 3), _GREY, np.float32)


class Loader:
    """An endless stream of batches, or one pass over the list.

    Args:
        list_path: One image per line, its label next to it.
        cfg: The network: size, batch, subdivisions, classes, augmentation.
        rules: The rules of the fork that is followed.
        device: Where the batches are needed.
        seed: Seed of the stream.
        heads: The network's heads, for the targets of each batch; ``None`` for no targets.
        sizes: Returns the input's width and height in pixels for an iteration, from 0; ``None`` for
            those of the .cfg. Batches are prepared ahead of their iteration, so it must be pure.
        position: Number of images of the stream before the first batch.
        augment: Whether to augment; otherwise images are fitted to the input as for detection.
        in_order: Whether to yield each image of the list once; the last batch may be smaller.
        limit: Largest number of images that are used, spread evenly over the list; ``None`` for
            all of them.
        batch_images: Images of a batch; ``None`` for the .cfg's batch / subdivisions.
        threads: Threads that decode; ``None`` for this process's share of the cores.
        rank: Number of this process among those that train together.
        ranks: Number of these processes, which take turns in the stream.
        memory_format: Memory format of the images.

    Raises:
        InputFormError: The list or a label cannot be used; or, from the iteration, an image.
    """

    def __init__(
        self,
        list_path: Path,
        cfg: Cfg,
        rules: Rules,
        *,
        device: torch.device | str,
        seed: int,
        heads: Heads | None = None,
        sizes: Callable[[int], tuple[int, int]] | None = None,
        position: int = 0,
        augment: bool = True,
        in_order: bool = False,
        limit: int | None = None,
        batch_images: int | None = None,
        threads: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        options = augmentation.augmentation_of(cfg, rules)
        head = augmentation.head_of(cfg)
        samples = sampling.read(list_path, head.integer("classes", _DEFAULT_CLASSES), limit)
        cores = len(os.sched_getaffinity(0)) // ranks
        self._maker = BatchMaker(
            options if augment else options.off(),
            samples,
            ImageCache(samples.paths, list_path=str(list_path), processes=ranks),
            ThreadPoolExecutor(threads or max(1, min(_MAX_THREADS, cores)), "decode"),
            torch.device(device),
            seed,
            memory_format,
        )
        self.image_count = len(samples.paths)
        self._in_order, self._heads = in_order, heads
        net = cfg.net
        self._iteration_images = net.integer("batch", 1)
        shares = max(1, self._iteration_images // net.integer("subdivisions", 1))
        self._batch_images = batch_images or shares
        self._rank, self._ranks = rank, ranks
        self._sizes = sizes or (lambda _: cfg.size_wh)
        self._planned = position
        self._pending: deque[Future[list[Batch]]] = deque()
        self._ready: deque[Batch] = deque()
        self._stream: torch.cuda.Stream | None = None
        self._producer = ThreadPoolExecutor(1, "batches")
        self._prepare_device()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self._plan_ahead()
        if not self._ready:
            if not self._pending:
                raise StopIteration
            self._ready.extend(self._pending.popleft().result())
            self._plan_ahead()
        batch = self._ready.popleft()
        if self._stream is not None:
            # The memory belongs to the producer's stream, which would use it again as soon as the
            # batch is dropped here, while the stream that trains may still have to read it.
            reader = torch.cuda.current_stream(self._maker.device)
            for tensor in batch.on_device():
                tensor.record_stream(reader)
        return batch

    def rewind(self) -> None:
        """Start again with the first image of the stream."""
        self._drop_pending()
        self._planned = 0

    def close(self) -> None:
        """Stop the threads; batches that were prepared are dropped."""
        self._drop_pending()
        self._producer.shutdown()
        self._maker.decoders.shutdown()

    def _drop_pending(self) -> None:
        for blocks in self._pending:
            blocks.cancel()
        self._pending.clear()
        self._ready.clear()

    def _plan_ahead(self) -> None:
        """Have batches made, several at once where they are small."""
        while len(self._pending) < _BLOCKS_AHEAD:
            block: list[npt.NDArray[np.int64]] = []
            size_wh = self._next_size()
            pixels = self._batch_images * math.prod(size_wh)
            most = min(_MAX_BLOCK, 1 + _BLOCK_PIXELS // pixels)
            while self._has_more() and len(block) < most and self._next_size() == size_wh:
                start = self._planned + self._rank * self._batch_images
                end = start + self._batch_images
                end = min(end, self.image_count) if self._in_order else end
                block.append(np.arange(start, end))
                self._planned += self._batch_images * self._ranks
            if not block:
                return
            self._pending.append(self._producer.submit(self._make, block, size_wh))

    def _next_size(self) -> tuple[int, int]:
        return self._sizes(self._planned // self._iteration_images)

    def _has_more(self) -> bool:
        first = self._planned + self._rank * self._batch_images
        return not self._in_order or first < self.image_count

    def _make(
        self, block: Sequence[npt.NDArray[np.int64]], size_wh: tuple[int, int]
    ) -> list[Batch]:
        if self._stream is None:
            return self._make_here(block, size_wh)
        with torch.cuda.stream(self._stream):
            batches = self._make_here(block, size_wh)
        # Waiting here costs nothing, and spares the training's stream from waiting.
        self._stream.synchronize()
        return batches

    def _make_here(
        self, block: Sequence[npt.NDArray[np.int64]], size_wh: tuple[int, int]
    ) -> list[Batch]:
        """Make batches on the current stream of the device."""
        whole = self._maker.make(np.concatenate(block), size_wh, in_order=self._in_order)
        ends = np.cumsum([len(part) for part in block]).tolist()
        bounds = zip([0, *ends], ends, strict=False)
        batches = [whole.part(slice(start, end)) for start, end in bounds]
        if self._heads is None:
            return batches
        return [batch.with_targets(self._heads) for batch in batches]

    def _prepare_device(self) -> None:
        """Prepare a CUDA stream for the producer, or leave it one thread of the CPU.

        ``torch.set_num_threads`` acts on the calling thread, and on threads that have not computed
        yet; for the latter, the second call here restores the number.
        """
        if self._maker.device.type == "cuda":
            self._stream = torch.cuda.Stream(self._maker.device)  # type: ignore[no-untyped-call]
        elif self._maker.device.type == "cpu":
            threads = torch.get_num_threads()
            self._producer.submit(torch.set_num_threads, 1).result()
            torch.set_num_threads(threads)
