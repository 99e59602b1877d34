"""Initial weights of a run: download pretrained ones or check the user's own.

An existing path is a path: the name of pretrained weights means the download only if the project
has no file of that name.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import locks
from oiyolo.core.errors import InputFormError
from oiyolo.core.files import sha256_of
from oiyolo.core.units import format_bytes
from oiyolo.net.client import HttpClient
from oiyolo.networks.layers import FLOAT_BYTES, HEADER_BYTES, expected_weight_bytes, layers
from oiyolo.networks.partial import find_transferable_layers, write_partial_weights
from oiyolo.networks.weights import PRETRAINED, check_parameter_count, check_weights
from oiyolo.project.value_types import AUTO
from oiyolo.training.pretrained import is_cached, obtain, origin

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
        warning: A doubt about the file, as in ``WeightsReport``.
        is_published: Whether the file has the published checksum of its name.
    """

    path: Path | None
    filled_layers: int = 0
    layer_count: int = 0
    origin: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""
    is_published: bool = False

    @property
    def summary(self) -> str:
        """The weights in one line."""
        if self.path is None:
            return "starts from random weights"
        source = self.origin.get("url") or self.origin.get("path") or self.path
        return f"starts from {source}: {self.use}"

    @property
    def use(self) -> str:
        """How much of the network the weights fill, and what to know about them, in words."""
        note = f" ({self.origin['note']})" if self.origin.get("note") else ""
        return f"the first {self.filled_layers} of {self.layer_count} layers are used{note}"


def find_file(
    weights: str, base: Path, pretrained: Mapping[str, Pretrained] = PRETRAINED
) -> Path | None:
    """Return the file that ``[train] weights`` names; ``None`` for pretrained weights and keywords.

    Args:
        weights: "auto", "none", the name of pretrained weights, or a path.
        base: The folder that a relative path starts from.
        pretrained: The pretrained weights by name.

    Returns:
        An absolute path. The file may be missing unless ``weights`` is a name in ``pretrained``.
    """
    if weights in {AUTO, NO_WEIGHTS}:
        return None
    path = (base / Path(weights).expanduser()).absolute()
    # A dangling link is the user's file too: the error names it.
    exists = path.exists() or path.is_symlink()
    return path if exists or weights not in pretrained else None


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
        weights: "none", the name of pretrained weights, or a path (``find_file``).
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
    user_path = find_file(weights, base, pretrained)
    if user_path is not None:
        start = _user_weights(user_path, cfg, folder)
        if start.path is not None and start.path != user_path:
            _write_first_layers(user_path, cfg, start.filled_layers, start.path)
        return start
    _check_size(pretrained[weights], cfg, folder)
    with contextlib.ExitStack() as stack:
        if client is None:
            client = stack.enter_context(contextlib.closing(HttpClient()))
        lock = locks.exclusive(
            folder / f"{weights}.lock", what=weights, operation="fetch", wait=True
        )
        stack.enter_context(lock)
        path = obtain(weights, cache=folder, client=client, pretrained=pretrained)
    return _pretrained_weights(pretrained[weights], path, cfg)


def plan_initial_weights(
    weights: str, cfg: Cfg, *, base: Path, cache_folder: Path
) -> tuple[InitialWeights, str]:
    """Return what ``prepare_initial_weights`` would return, and what it would do, in words.

    Nothing is downloaded or written.

    Raises:
        UsageError: There is no such file.
        InputFormError: The file is not a weights file, or belongs to another network.
    """
    if weights == NO_WEIGHTS:
        return InitialWeights(None), "start from random weights"
    folder = cache_folder / "weights"
    user_path = find_file(weights, base)
    if user_path is not None:
        start = _user_weights(user_path, cfg, folder)
        is_name = user_path.name in PRETRAINED
        which = ", which is used instead of the pretrained weights of this name" if is_name else ""
        published = " (with the published checksum)" if start.is_published else ""
        return start, f"start from the file {user_path}{published}{which}: {start.use}"
    entry, path = PRETRAINED[weights], folder / weights
    if is_cached(path, entry):
        start = _pretrained_weights(entry, path, cfg)
        return start, f"start from the pretrained weights {path}, already downloaded: {start.use}"
    filled_layers = _check_size(entry, cfg, folder)
    source = {"name": weights, "url": entry.mirrors[0].url, "size_bytes": entry.size_bytes}
    start = InitialWeights(path, filled_layers, len(layers(cfg)), source)
    return start, (
        f"download the pretrained weights {weights} ({format_bytes(entry.size_bytes)}; there is no "
        f"file of this name in {base}): {start.use}"
    )


def _check_size(entry: Pretrained, cfg: Cfg, folder: Path) -> int:
    """Return how many layers pretrained weights fill; raise before the download if they do not."""
    count = (entry.size_bytes - HEADER_BYTES) // FLOAT_BYTES
    path = folder / entry.name
    try:
        return check_parameter_count(path, layers(cfg), count)
    except InputFormError as error:
        raise InputFormError(
            f"the pretrained weights {entry.name} do not fit the network {cfg.path}",
            where=str(path),
            found=error.found,
            remedy='Set [train] weights to "auto", to "none", or to a file for this network',
        ) from None


def _pretrained_weights(entry: Pretrained, path: Path, cfg: Cfg) -> InitialWeights:
    """Return pretrained weights in the cache, whose checksum is already verified."""
    # The cache may hold the first layers of a detector under this name, with another checksum.
    report = check_weights(path, cfg, checksum=None)
    source = {**origin(path), "name": entry.name, "layers": report.filled_layers}
    return InitialWeights(path, report.filled_layers, report.layer_count, source)


def _user_weights(path: Path, cfg: Cfg, folder: Path) -> InitialWeights:
    """Return the user's file, or the path for a copy of its first layers if only those fit."""
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
        path = folder / "cut" / f"{sha256[:_SHOWN_DIGITS]}-{report.filled_layers}.weights"
    return InitialWeights(
        path,
        report.filled_layers,
        report.layer_count,
        source,
        warning=report.warning,
        is_published=report.is_published,
    )


def _write_first_layers(path: Path, cfg: Cfg, layer_count: int, target: Path) -> None:
    """Write the first layers of a file to another file, unless that exists."""
    size_bytes = expected_weight_bytes(cfg, layer_count)
    if not target.is_file() or target.stat().st_size != size_bytes:
        write_partial_weights(path, cfg, layer_count, target)
