"""Transfer of weights to a network that differs from the one they were trained for.

Darknet reads a file layer by layer without checking it: after the first layer of another size, it
fills all layers with parameters that belong elsewhere. A detector trained for other classes has the
same layers up to its first head, so those are useful initial weights (darknet's own ``partial``
command extracts them, examples/darknet.c).
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from oiyolo.core.errors import InputFormError
from oiyolo.core.files import atomic_write
from oiyolo.networks.builders import NETWORKS, adapt, stock
from oiyolo.networks.layers import FLOAT_BYTES, expected_weight_bytes, layers
from oiyolo.networks.weights import PRETRAINED, check_weights, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.weights import WeightsReport

_BLOCK_BYTES = 1 << 20
_MAX_CLASSES = 100_000


def find_transferable_layers(path: Path, cfg: Cfg) -> WeightsReport:
    """Return which layers of a network a weights file can fill.

    A file for another number of classes must be truncated, because darknet would read beyond these
    layers.

    Args:
        path: File of the same network, of its first layers, or of the same network for another
            number of classes.
        cfg: The network.

    Raises:
        UsageError: The file does not exist.
        InputFormError: The file is not a weights file, or belongs to another network.
        CfgError: As for ``layers.layers``.
    """
    try:
        return check_weights(path, cfg)
    except InputFormError:
        class_count = _trained_class_count(path, cfg)
        if not class_count:
            raise
        trained = _with_classes(cfg, class_count)
        report = check_weights(path, trained)
        filled_layers = _common_layer_count(cfg, trained)
        return replace(report, filled_layers=filled_layers, class_count=class_count)


def write_partial_weights(path: Path, cfg: Cfg, layer_count: int, target: Path) -> None:
    """Write the first layers of a weights file to another file, with the images seen set to 0.

    Args:
        path: File that fills those layers.
        cfg: The network.
        layer_count: Number of layers to keep.
        target: File to write.
    """
    header = read_header(path)
    new_header = struct.pack("<3iQ", 0, 2, 0, 0)
    remaining = expected_weight_bytes(cfg, layer_count) - len(new_header)
    with atomic_write(target) as part, path.open("rb") as source, part.open("wb") as output:
        source.seek(header.header_bytes)
        output.write(new_header)
        while remaining and (block := source.read(min(remaining, _BLOCK_BYTES))):
            output.write(block)
            remaining -= len(block)


def pretrained_for(cfg: Cfg) -> str | None:
    """Return the name of the pretrained weights that fit a network; ``None`` if there are none.

    Networks are identified by their first layers: a user's file with the backbone of a published
    network starts from the same weights.

    Raises:
        CfgError: As for ``layers.layers``.
    """
    signatures = _layer_signatures(cfg)
    matches = {
        entry.name: entry.layers
        for network in NETWORKS.values()
        if network.pretrained
        for entry in [PRETRAINED[network.pretrained]]
        if signatures[: entry.layers] == _layer_signatures(stock(network.name))[: entry.layers]
    }
    return max(matches, key=lambda name: matches[name], default=None)


def _trained_class_count(path: Path, cfg: Cfg) -> int:
    """Return the number of classes with which a network has the size of a file; 0 if none."""
    parameter_bytes = path.stat().st_size - read_header(path).header_bytes
    with_one, with_two = (
        sum(layer.parameter_count for layer in layers(_with_classes(cfg, count)))
        for count in (1, 2)
    )
    extra_classes, rest = divmod(parameter_bytes // FLOAT_BYTES - with_one, with_two - with_one)
    return extra_classes + 1 if rest == 0 and 0 <= extra_classes < _MAX_CLASSES else 0


def _with_classes(cfg: Cfg, class_count: int) -> Cfg:
    return adapt(cfg, class_count=class_count, size_wh=cfg.size_wh)


def _common_layer_count(network: Cfg, trained: Cfg) -> int:
    """Return the number of layers before the first that differs in its parameters."""
    pairs = zip(layers(network), layers(trained), strict=True)
    return next(
        layer.index for layer, other in pairs if layer.parameter_count != other.parameter_count
    )


def _layer_signatures(cfg: Cfg) -> list[tuple[str, int]]:
    return [(layer.kind, layer.parameter_count) for layer in layers(cfg)]
