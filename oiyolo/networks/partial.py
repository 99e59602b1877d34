"""What of a weights file is of use for a network that is not quite the one it was trained for.

Darknet reads a file layer after layer and asks nothing: behind the first layer of another size it
would fill every layer with numbers that belong elsewhere. A detector trained for other classes has
the same layers up to its first head, so that much of it is a good start (darknet's own ``partial``
cuts files for that, examples/darknet.c).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.errors import InputFormError
from oiyolo.core.files import whole_file
from oiyolo.networks.builders import NETWORKS, adapt, stock
from oiyolo.networks.layers import FLOAT_BYTES, expected_weight_bytes, layers
from oiyolo.networks.weights import PRETRAINED, check_weights, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg

_COPIED_BYTES = 1 << 20
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Usable:
    """How much of a weights file a network can start from.

    Attributes:
        layers: The first so many layers of the network can be filled.
        layer_count: How many it has.
        class_count: The classes that the file was trained for, where they are others; else 0.
    """

    layers: int
    layer_count: int
    class_count: int = 0

    @property
    def must_be_cut(self) -> bool:
        """Whether darknet would read on where nothing fits any more."""
        return self.class_count > 0


def usable(path: Path, cfg: Cfg) -> Usable:
    """Tell how many of a network's layers a weights file can fill.

    Args:
        path: The file: of the same network, of its first layers, or of the same network for
            another number of classes.
        cfg: The network.

    Raises:
        UsageError: There is no such file.
        InputFormError: It is no weights file, or one of another network.
        CfgError: As ``shapes.layers``.
    """
    try:
        report = check_weights(path, cfg)
    except InputFormError:
        class_count = _classes_of(path, cfg)
        if not class_count:
            raise
        theirs = _with_classes(cfg, class_count)
        check_weights(path, theirs)
        return Usable(_alike(cfg, theirs), len(layers(cfg)), class_count)
    return Usable(report.filled_layers or 0, report.layer_count or 0)


def cut(path: Path, cfg: Cfg, layer_count: int, target: Path) -> None:
    """Write the first layers of a weights file into another, which has seen no image yet.

    Args:
        path: A file that fills those layers.
        cfg: The network.
        layer_count: How many layers to keep.
        target: Where to write.
    """
    header = read_header(path)
    fresh = struct.pack("<3iQ", 0, 2, 0, 0)
    left = expected_weight_bytes(cfg, layer_count) - len(fresh)
    with whole_file(target) as part, path.open("rb") as source, part.open("wb") as made:
        source.seek(header.header_bytes)
        made.write(fresh)
        while left and (block := source.read(min(left, _COPIED_BYTES))):
            made.write(block)
            left -= len(block)


def pretrained_for(cfg: Cfg) -> str | None:
    """Give the pretrained weights that a network can start from; ``None`` if there are none.

    It is known by its first layers: a file of the user's that has the backbone of a published
    network starts from what that starts from.

    Raises:
        CfgError: As ``shapes.layers``.
    """
    kept = _kept(cfg)
    found = {
        entry.name: entry.layers
        for network in NETWORKS.values()
        if network.pretrained
        for entry in [PRETRAINED[network.pretrained]]
        if kept[: entry.layers] == _kept(stock(network.name))[: entry.layers]
    }
    return max(found, key=lambda name: found[name], default=None)


def _classes_of(path: Path, cfg: Cfg) -> int:
    """Tell for how many classes a network would have as many numbers as a file; 0 if for none."""
    numbers_bytes = path.stat().st_size - read_header(path).header_bytes
    one, two = (
        sum(layer.parameter_count for layer in layers(_with_classes(cfg, count)))
        for count in (1, 2)
    )
    for_others, rest = divmod(numbers_bytes // FLOAT_BYTES - one, two - one)
    return for_others + 1 if rest == 0 and 0 <= for_others < _MOST_CLASSES else 0


def _with_classes(cfg: Cfg, class_count: int) -> Cfg:
    return adapt(cfg, class_count=class_count, size_wh=cfg.size_wh)


def _alike(mine: Cfg, theirs: Cfg) -> int:
    """Count the layers before the first that keeps other numbers."""
    pairs = zip(layers(mine), layers(theirs), strict=True)
    return next(a.index for a, b in pairs if a.parameter_count != b.parameter_count)


def _kept(cfg: Cfg) -> list[tuple[str, int]]:
    return [(layer.kind, layer.parameter_count) for layer in layers(cfg)]
