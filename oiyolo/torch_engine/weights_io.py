"""Weights of a network, from and to darknet's files."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import torch

from oiyolo.core.files import atomic_write
from oiyolo.networks.weights import check_weights
from oiyolo.torch_engine.saving import HostCopy

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from oiyolo.torch_engine.network import TorchNetwork


def load_weights(network: TorchNetwork, path: Path) -> tuple[int, int]:
    """Fill the first layers of a network from a weights file.

    Args:
        network: The network; layers that the file does not contain stay as they are.
        path: A file that ends at the end of a layer.

    Returns:
        Number of layers filled, and number of images that the file's network has seen.

    Raises:
        UsageError: The file does not exist.
        InputFormError: It is not valid or belongs to another network (``check_weights``).
    """
    report = check_weights(path, network.cfg, checksum=None)
    numbers = np.memmap(path, "<f4", mode="r", offset=report.header.header_bytes)
    start = 0
    with torch.no_grad():
        for tensor in _segments(network)[: _segment_count(network, report.filled_layers)]:
            part = numbers[start : start + tensor.numel()]
            tensor.copy_(torch.from_numpy(np.array(part, np.float32)).view(tensor.shape))
            start += tensor.numel()
    return report.filled_layers, report.header.seen


class WeightsCopy:
    """All parameters of a network as they are now, to be written at any time.

    Args:
        network: The network.
        seen: Number of images that it has been trained on.
    """

    def __init__(self, network: TorchNetwork, seen: int) -> None:
        self._header = struct.pack("<3iQ", 0, 2, network.rules.revision, seen)
        self._tensors = HostCopy({str(i): part for i, part in enumerate(_segments(network))})

    def save(self, path: Path) -> None:
        """Write a weights file, which appears complete or not at all."""
        with atomic_write(path) as part:
            self.write(part)

    def write(self, path: Path) -> None:
        """Write a weights file."""
        with path.open("wb") as file:
            file.write(self._header)
            for tensor in self._tensors.wait().values():
                file.write(tensor.float().contiguous().numpy().tobytes())


def _segments(network: TorchNetwork) -> list[Tensor]:
    """Return the tensors of a network in the order of a weights file."""
    return [
        getattr(stored, segment.name)
        for node, stored in zip(network.nodes(network.cfg.size_wh), network.layers, strict=True)
        for segment in node.layer.segments
    ]


def _segment_count(network: TorchNetwork, layer_count: int) -> int:
    nodes = network.nodes(network.cfg.size_wh)[:layer_count]
    return sum(len(node.layer.segments) for node in nodes)
