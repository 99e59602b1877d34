"""Initial weights of a run: download pretrained ones or check the user's own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import locks
from oiyolo.core.files import sha256_of
from oiyolo.net.client import HttpClient
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.networks.partial import find_transferable_layers, write_partial_weights
from oiyolo.networks.weights import PRETRAINED, check_weights
from oiyolo.training.pretrained import obtain, origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.weights import Pretrained

NO_WEIGHTS: Final = "none"
_SHOWN_DIGITS: Final = 16


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run starts from.

    Attributes:
        path: The weights file for darknet; ``None`` to start from random weights.
        filled_layers: Number of layers, counted from the first, that the file fills.
        layer_count: Number of layers of the network.
        origin: Where the weights come from, as JSON-compatible values: ``url`` or ``path``,
            ``sha256``, ``size_bytes``, ``layers``, and an optional ``note``.
    """

    path: Path | None
    filled_layers: int = 0
    layer_count: int = 0
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The weights in one line."""
        if self.path is None:
            return "starts from random weights"
        source = self.origin.get("url") or self.origin.get("path") or self.path
        note = f" ({self.origin['note']})" if self.origin.get("note") else ""
        return (
            f"starts from {source}: the first {self.filled_layers} of {self.layer_count} layers "
            f"are used{note}"
        )


def prepare_initial_weights(
    weights: str,
    cfg: Cfg,
    *,
    base: Path,
    cache_folder: Path,
    pretrained: Mapping[str, Pretrained] = PRETRAINED,
    client: HttpClient | None = None,
) -> InitialWeights:
    """Return the initial weights of a run, after downloading or truncating them if necessary.

    Args:
        weights: "none", the name of pretrained weights, or a path.
        cfg: The network to train.
        base: The folder that a relative path starts from.
        cache_folder: The cache folder, which all projects share.
        pretrained: The pretrained weights by name.
        client: The HTTP client to use; by default a new one.

    Raises:
        UsageError: There is no such file.
        InputFormError: The file is not a weights file, or belongs to another network.
        UnavailableError: The pretrained weights cannot be downloaded.
    """
    if weights == NO_WEIGHTS:
        return InitialWeights(None)
    folder = cache_folder / "weights"
    if weights not in pretrained:
        return _user_weights(base / Path(weights).expanduser(), cfg, folder)
    with contextlib.ExitStack() as stack:
        if client is None:
            client = stack.enter_context(contextlib.closing(HttpClient()))
        lock = locks.exclusive(
            folder / f"{weights}.lock", what=weights, operation="fetch", wait=True
        )
        stack.enter_context(lock)
        path = obtain(weights, cache=folder, client=client, pretrained=pretrained)
    report = check_weights(path, cfg)
    source = {k: v for k, v in origin(path).items() if k != "mtime_ns"}
    source |= {"name": weights, "layers": report.filled_layers}
    return InitialWeights(path, report.filled_layers, report.layer_count, source)


def _user_weights(path: Path, cfg: Cfg, folder: Path) -> InitialWeights:
    """Return the user's file, or a copy of its first layers if only those fit."""
    path = path.absolute()
    report = find_transferable_layers(path, cfg)
    sha256 = sha256_of(path)
    source = {
        "path": str(path),
        "sha256": sha256,
        "size_bytes": path.stat().st_size,
        "layers": report.filled_layers,
    }
    if report.class_count:
        source["note"] = f"it was trained for {report.class_count} classes"
        full_path = path
        path = folder / "cut" / f"{sha256[:_SHOWN_DIGITS]}-{report.filled_layers}.weights"
        size_bytes = expected_weight_bytes(cfg, report.filled_layers)
        if not path.is_file() or path.stat().st_size != size_bytes:
            write_partial_weights(full_path, cfg, report.filled_layers, path)
    return InitialWeights(path, report.filled_layers, report.layer_count, source)
