"""Processes that train one network together, each on a GPU of its own.

A batch is computed in parts, as ``subdivisions`` says, and each of n processes takes every n-th
part. PyTorch's DistributedDataParallel adds up their gradients, and here the rolling statistics are
combined in the order of the parts, so that the result is that of one process.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from oiyolo.networks.graph import heads_in

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor, nn

    from oiyolo.torch_engine.network import TorchNetwork

T = TypeVar("T")


class Team:
    """The processes that train together, seen from one of them.

    Args:
        rank: Number of this process, from 0. The first one writes the log and the files.
        size: Number of processes.
        device: Where this process computes.
        meeting_path: File through which the processes find each other; for one process, any.
    """

    def __init__(self, rank: int, size: int, device: torch.device, meeting_path: Path) -> None:
        self.rank, self.size = rank, size
        self._model: DistributedDataParallel | None = None
        self._control: Any = None
        if size == 1:
            return
        # The processes share this machine. Its name in the network may lead to no interface.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=meeting_path.absolute().as_uri(),
            rank=rank,
            world_size=size,
        )
        # What the host must know does not wait for the GPUs.
        self._control = distributed.new_group(backend="gloo")

    @property
    def is_first(self) -> bool:
        """Whether this process writes the log and the files."""
        return self.rank == 0

    def close(self) -> None:
        """End the connections to the other processes."""
        if self.size > 1:
            distributed.destroy_process_group()

    def any(self, *, flag: bool) -> bool:
        """Return whether the flag is set in any process; all must ask."""
        if self.size == 1:
            return flag
        value = torch.tensor(int(flag))
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self._control)
        return bool(value)

    def first(self, value: T) -> T:
        """Return the value of the first process; all must ask."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self._control)
        return values[0]

    def join(self, network: TorchNetwork) -> nn.Module:
        """Return a module that computes as the network does, and adds up the gradients.

        The parameters become those of the first process.
        """
        if self.size == 1:
            return network
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # about the successor of broadcast_buffers
            self._model = DistributedDataParallel(
                network,
                broadcast_buffers=False,
                find_unused_parameters=_has_unused_layers(network),
            )
        return self._model

    def part(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Return a context for a part of a batch: after the last, gradients are added up."""
        if self._model is None or is_last:
            return contextlib.nullcontext()
        return cast("AbstractContextManager[object]", self._model.no_sync())

    def gather(self, values: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, which have the same shape."""
        if self.size == 1:
            return [values]
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(gathered, values)
        return gathered

    def add(self, values: Tensor) -> Tensor:
        """Return the sum of the tensors of all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values


class RollingStatistics:
    """The rolling statistics of a network, to which each part of a batch adds its own.

    Each part moves them by the share m towards its own statistics x: r becomes (1 - m) r + m x. A
    process knows only its own parts, so it collects ``m x`` with the factor that the later parts,
    wherever they are computed, give it.

    Args:
        network: The network, on its device.
        team: The processes that train it.
    """

    def __init__(self, network: TorchNetwork, team: Team) -> None:
        self._team, self._values = team, list(network.buffers())
        self._before = [value.clone() for value in self._values]
        self._sums: list[Tensor] = []
        self._kept = 1 - network.rules.norm.momentum

    def begin(self) -> None:
        """Remember the statistics before a batch."""
        if self._values:
            torch._foreach_copy_(self._before, self._values)
            if self._team.size > 1:
                self._sums = [torch.zeros_like(value) for value in self._values]

    def restore(self) -> None:
        """Return to the statistics before the batch."""
        if self._values:
            torch._foreach_copy_(self._values, self._before)

    def end_part(self, later_parts: int) -> None:
        """Collect what a part has added.

        Args:
            later_parts: Number of parts of the batch after this one, in all processes.
        """
        if self._sums:
            torch._foreach_add_(self._values, self._before, alpha=-self._kept)
            torch._foreach_add_(self._sums, self._values, alpha=self._kept**later_parts)
            self.restore()

    def end(self, parts: int) -> None:
        """Combine what all processes have collected.

        Args:
            parts: Number of parts of the batch, in all processes.
        """
        if self._sums:
            total = self._team.add(torch.cat([value.view(-1) for value in self._sums]))
            sums = torch.split(total, [value.numel() for value in self._values])
            torch._foreach_mul_(self._values, self._kept**parts)
            torch._foreach_add_(
                self._values,
                [part.view_as(value) for part, value in zip(sums, self._values, strict=True)],
            )


def _has_unused_layers(network: TorchNetwork) -> bool:
    """Return whether no head depends on some layer, which gets no gradient then."""
    nodes = network.nodes(network.cfg.size_wh)
    used = {source for node in nodes for source in node.inputs}
    used |= {node.layer.index for node, _ in heads_in(nodes)}
    return any(node.layer.index not in used for node in nodes)
