"""One training iteration: forward and backward passes of all parts of a batch, and the update."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch

from oiyolo.networks.graph import Convolution
from oiyolo.torch_engine.optimizer import learning_rate, set_rate
from oiyolo.torch_engine.parallel import RollingStatistics
from oiyolo.torch_engine.saving import HostCopy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor

    from oiyolo.torch_engine.heads import HeadResult, Heads
    from oiyolo.torch_engine.loader import Batch
    from oiyolo.torch_engine.network import TorchNetwork
    from oiyolo.torch_engine.parallel import Team

_TRIALS_S: Final = 0.5
"""How long a form of numbers is measured, after a first pass; at least one more pass."""
_MAX_TRIALS: Final = 10
_SMALL_PASS: Final = 500_000_000
"""Multiplications of a forward pass below which threads wait for each other more than they gain,
as soon as anything else runs on the machine."""


@dataclass(frozen=True)
class NumberForm:
    """How numbers are stored and computed with.

    Attributes:
        memory_format: Order of the values of an image in memory.
        dtype: Number type of convolutions; ``torch.float32`` for no other than the weights'.
    """

    memory_format: torch.memory_format
    dtype: torch.dtype

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return a context in which convolutions use the number type."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def __str__(self) -> str:
        order = "channels last" if self.memory_format == torch.channels_last else "channels first"
        return f"{str(self.dtype).removeprefix('torch.')}, {order}"


PLAIN: Final = NumberForm(torch.contiguous_format, torch.float32)
REPRODUCIBLE: Final = NumberForm(torch.channels_last, torch.float32)
"""The form that does not depend on measured times."""
_BFLOAT16: Final = NumberForm(torch.channels_last, torch.bfloat16)
"""Fast on a CPU that computes with it, and ten times slower than float32 on any other."""
_FLOAT16: Final = NumberForm(torch.channels_last, torch.float16)
_AMPERE: Final = (8, 0)
_VOLTA: Final = (7, 0)
_TRIAL_PRODUCTS: Final = 20_000_000_000
"""Multiplications of a forward pass that is measured; more images are not used."""


class StopAsked(Exception):  # noqa: N818  (no error)
    """Training was asked to stop before the iteration was complete; it has not been counted."""


class StepResult:
    """The figures of an iteration, which may still be computed on the device.

    Attributes:
        rate: The learning rate.
        wait_s: Time that the iteration waited for its images.
    """

    def __init__(
        self, loss: Tensor, heads: list[HeadResult], *, rate: float, wait_s: float, team: Team
    ) -> None:
        self.rate, self.wait_s = rate, wait_s
        self._heads = heads
        rows = torch.stack([head.sums.detach().float() for head in heads])
        self._has_counts = team.size > 1
        if self._has_counts:  # what the other processes report differs in the count as well
            counts = rows.new_tensor([head.count for head in heads])
            rows = torch.cat([counts.view(-1, 1), rows], 1)
        rows = torch.cat(team.gather(rows))
        numbers = torch.cat([team.add(loss).view(1).float(), rows.view(-1)])
        self._copy = HostCopy({"": numbers})

    def wait(self) -> tuple[float, list[HeadResult]]:
        """Wait for the device.

        Returns:
            The loss of the whole batch as darknet prints it, and what each head reports about each
            part, process by process.
        """
        numbers = self._copy.wait()[""]
        width = len(self._heads[0].sums) + self._has_counts
        heads = []
        for head, row in zip(itertools.cycle(self._heads), numbers[1:].view(-1, width)):
            count = int(row[0]) if self._has_counts else head.count
            heads.append(replace(head, count=count, sums=row[self._has_counts :]))
        return float(numbers[0]), heads


class Stepper:
    """Trains a network one iteration after another.

    Args:
        network: The network, on its device.
        heads: Its heads.
        optimizer: Its optimizer.
        form: How numbers are stored and computed with.
        scaler: Scales the loss where the number type is float16.
        should_stop: Asked before each part of a batch; with several processes, before each batch.
        team: The processes that train together.
    """

    def __init__(
        self,
        network: TorchNetwork,
        heads: Heads,
        optimizer: torch.optim.SGD,
        *,
        form: NumberForm,
        scaler: torch.amp.GradScaler,
        should_stop: Callable[[], bool],
        team: Team,
    ) -> None:
        self._compute, self._heads, self._optimizer = team.join(network), heads, optimizer
        self._compiled: dict[tuple[int, int], Callable[[Tensor], list[Tensor]]] = {}
        self._form, self._scaler, self._should_stop = form, scaler, should_stop
        self._device = next(network.parameters()).device
        self._net = network.cfg.net
        self._batch = self._net.integer("batch", 1)
        self._team = team
        self._statistics = RollingStatistics(network, team)

    def use(self, compute: Callable[[Tensor], list[Tensor]], size_wh: tuple[int, int]) -> None:
        """Let a compiled network compute the outputs for a size of the input from now on."""
        self._compiled[size_wh] = compute

    def step(self, iteration: int, batches: Iterator[Batch], parts: int) -> StepResult:
        """Train on the next parts of a batch.

        Args:
            iteration: Number of the iteration, from 1.
            batches: The parts of this process.
            parts: Number of the parts of all processes.

        Raises:
            StopAsked: It was asked to stop; the network is as before.
        """
        if self._team.size > 1 and self._team.any(flag=self._should_stop()):
            raise StopAsked
        rate = learning_rate(self._net, iteration)
        set_rate(self._optimizer, rate)
        self._optimizer.zero_grad(set_to_none=True)
        self._statistics.begin()
        losses: list[Tensor] = []
        heads: list[HeadResult] = []
        wait_s, seen = 0.0, (iteration - 1) * self._batch
        for part in range(self._team.rank, parts, self._team.size):
            if self._team.size == 1 and self._should_stop():
                self._statistics.restore()
                raise StopAsked
            started_s = time.monotonic()
            batch = next(batches)
            wait_s += time.monotonic() - started_s
            seen_now = seen + (part + 1) * len(batch.images)
            with self._team.part(is_last=part + self._team.size >= parts):
                loss, results = self._backward(batch, seen_now)
            self._statistics.end_part(parts - 1 - part)
            losses.append(loss)
            heads += results
        self._statistics.end(parts)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        total = torch.stack(losses).sum() / self._batch
        return StepResult(total, heads, rate=rate, wait_s=wait_s, team=self._team)

    def _backward(self, batch: Batch, seen: int) -> tuple[Tensor, list[HeadResult]]:
        with self._form.autocast(self._device):
            raws = self._compiled.get(batch.size_wh, self._compute)(batch.images)
        loss, results = self._heads.loss(raws, batch.targets, batch.size_wh, seen)
        # DistributedDataParallel divides the sum of the gradients by the number of processes.
        share = self._team.size / self._batch
        self._scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), results


def choose_form(network: TorchNetwork, heads: Heads, batch: Batch) -> NumberForm:
    """Return the fastest form of numbers on the network's device.

    On a GPU it is known; on a CPU a few passes are measured. The network stays as it is.

    Args:
        network: The network, on its device.
        heads: Its heads.
        batch: Images as large as those of the training.
    """
    device = next(network.parameters()).device
    if device.type == "cuda":
        return form_on_gpu(
            torch.cuda.get_device_capability(device), is_amd=torch.version.hip is not None
        )
    if device.type != "cpu":
        return PLAIN
    images = max(1, _TRIAL_PRODUCTS // max(1, products(network)))
    batch = batch.part(slice(images))
    forms = [REPRODUCIBLE, PLAIN, *([_BFLOAT16] if _has_bfloat16() else [])]
    with unchanged(network):
        seconds = {form: measure_passes(network, heads, batch, form) for form in forms}
    return min(seconds, key=lambda form: seconds[form])


@contextlib.contextmanager
def unchanged(network: TorchNetwork) -> Iterator[None]:
    """Restore statistics and the random state after passes in the block, and clear gradients."""
    buffers = list(network.buffers())
    saved = [buffer.clone() for buffer in buffers]
    device = next(network.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for buffer, value in zip(buffers, saved, strict=True):
            buffer.copy_(value)
        network.zero_grad(set_to_none=True)


def form_on_gpu(capability: tuple[int, int], *, is_amd: bool) -> NumberForm:
    """Return the fastest form of numbers on a GPU.

    NVIDIA's GPUs have tensor cores for float16 since Volta, and for bfloat16, which needs no
    scaling of the loss, since Ampere. PyTorch reports bfloat16 on older ones as well, which emulate
    it slowly. Before Volta, channels last and float16 gain nothing.

    Args:
        capability: Compute capability of an NVIDIA GPU.
        is_amd: Whether it is an AMD GPU, where PyTorch reports the capability in another way.
    """
    if is_amd or capability >= _AMPERE:
        return _BFLOAT16
    return _FLOAT16 if capability >= _VOLTA else PLAIN


def measure_passes(
    network: TorchNetwork,
    heads: Heads,
    batch: Batch,
    form: NumberForm,
    *,
    compute: Callable[[Tensor], list[Tensor]] | None = None,
    passes: int = 1,
) -> float:
    """Return the duration of the fastest of a few forward and backward passes, in seconds.

    Args:
        network: The network, whose weights stay; its statistics and gradients do not.
        heads: Its heads.
        batch: The images.
        form: How numbers are stored and computed with.
        compute: What computes the network's outputs; by default the network itself.
        passes: Fewest passes that are measured, after a first one.
    """
    device, compute = batch.images.device, network if compute is None else compute
    network.to(memory_format=form.memory_format)  # type: ignore[call-overload]
    images = batch.images.contiguous(memory_format=form.memory_format)
    batch = batch.with_targets(heads)
    times_s: list[float] = []
    for _ in range(1 + _MAX_TRIALS):
        started_s = time.perf_counter()
        with form.autocast(device):
            raws = compute(images)
        loss, _ = heads.loss(raws, batch.targets, batch.size_wh, len(images))
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times_s.append(time.perf_counter() - started_s)
        if len(times_s) > passes and sum(times_s[1:]) > _TRIALS_S:
            break
    return min(times_s[1:])


def _has_bfloat16() -> bool:
    """Return whether the CPU computes with bfloat16."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return is_supported is not None and bool(is_supported())


def thread_count(network: TorchNetwork, image_count: int) -> int:
    """Return how many threads of the CPU to train with: one for a small pass, else all.

    Args:
        network: The network.
        image_count: Images of a pass.
    """
    return 1 if products(network) * image_count < _SMALL_PASS else torch.get_num_threads()


def products(network: TorchNetwork) -> int:
    """Return the number of multiplications of a forward pass of one image."""
    total = 0
    for node in network.nodes(network.cfg.size_wh):
        if isinstance(node.operation, Convolution):
            width, height, _ = node.layer.output_whc
            weights = next(part for part in node.layer.segments if part.name == "weights")
            total += weights.count * width * height
    return total


def gradient_scaler(device: torch.device, form: NumberForm) -> torch.amp.GradScaler:
    """Return what scales the loss; it does nothing unless the number type is float16."""
    return torch.amp.GradScaler(device.type, enabled=form.dtype == torch.float16)
