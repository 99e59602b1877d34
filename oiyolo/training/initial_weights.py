"""What a training starts from: pretrained weights fetched, the user's own checked, or nothing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import locks
from oiyolo.core.files import sha256_of
from oiyolo.core.progress import progress
from oiyolo.net.client import Web
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.networks.partial import cut, usable
from oiyolo.networks.weights import PRETRAINED, check_weights, obtain, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oiyolo.net.ranges import Version
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.weights import Fetch, Pretrained

NO_WEIGHTS: Final = "none"
_SHOWN_DIGITS: Final = 16


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        path: The weights to give to darknet; ``None`` where it starts from noise.
        filled_layers: The first so many layers of the network are filled by them.
        layer_count: How many layers it has.
        origin: Where they came from, as JSON takes it: ``url`` or ``path``, ``sha256``,
            ``size_bytes``, ``layers``, and ``note`` where there is something to know.
    """

    path: Path | None
    filled_layers: int = 0
    layer_count: int = 0
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The start in a line."""
        if self.path is None:
            return "starts from noise, with no weights"
        whence = self.origin.get("url") or self.origin.get("path") or self.path
        note = f" ({self.origin['note']})" if self.origin.get("note") else ""
        return (
            f"starts from {whence}: the first {self.filled_layers} of {self.layer_count} layers "
            f"are used{note}"
        )


def start_weights(
    weights: str,
    cfg: Cfg,
    *,
    base: Path,
    cache_folder: Path,
    known: Mapping[str, Pretrained] = PRETRAINED,
    web: Web | None = None,
) -> Start:
    """Give what a training starts from; fetches and cuts what is needed for that.

    Args:
        weights: "none", the name of pretrained weights, or a path.
        cfg: The network that will be trained.
        base: A relative path lies below it.
        cache_folder: The folder that all projects share.
        known: The pretrained weights there are.
        web: Connections to use; its own by default.

    Raises:
        UsageError: There is no such file.
        InputFormError: It is no weights file, or one of another network.
        UnavailableError: The pretrained weights cannot be fetched.
    """
    if weights == NO_WEIGHTS:
        return Start(None)
    folder = cache_folder / "weights"
    if weights not in known:
        return _own(base / Path(weights).expanduser(), cfg, folder)
    with contextlib.ExitStack() as stack:
        if web is None:
            web = stack.enter_context(contextlib.closing(Web()))
        lock = locks.exclusive(folder / f"{weights}.lock", what=weights, doing="fetch", wait=True)
        stack.enter_context(lock)
        path = obtain(weights, cache=folder, fetch=_fetch_with(web, weights), known=known)
    report = check_weights(path, cfg)
    filled, count = report.filled_layers or 0, report.layer_count or 0
    known_facts = {k: v for k, v in origin(path).items() if k != "mtime_ns"}
    return Start(path, filled, count, {"name": weights, **known_facts, "layers": filled})


def _fetch_with(web: Web, name: str) -> Fetch:
    def fetch(
        url: str,
        part: Path,
        *,
        held: Version | None,
        expected_bytes: int,
        begin: Callable[[Version, int], None],
    ) -> None:
        here_bytes = part.stat().st_size if held is not None and part.is_file() else 0
        with progress(name, total=expected_bytes, unit="B", initial=here_bytes) as told:
            web.download(
                url,
                part,
                headers={},
                told=told,
                held=held,
                expected_bytes=expected_bytes,
                begin=begin,
            )

    return fetch


def _own(path: Path, cfg: Cfg, folder: Path) -> Start:
    """Take a file of the user's, or the part of it that fits."""
    path = path.absolute()
    fits = usable(path, cfg)
    sha256 = sha256_of(path)
    facts = {
        "path": str(path),
        "sha256": sha256,
        "size_bytes": path.stat().st_size,
        "layers": fits.layers,
    }
    if not fits.must_be_cut:
        return Start(path, fits.layers, fits.layer_count, facts)
    target = folder / "cut" / f"{sha256[:_SHOWN_DIGITS]}-{fits.layers}.weights"
    if not _is_cut(target, cfg, fits.layers):
        cut(path, cfg, fits.layers, target)
    facts["note"] = f"it was trained for {fits.class_count} classes"
    return Start(target, fits.layers, fits.layer_count, facts)


def _is_cut(target: Path, cfg: Cfg, layer_count: int) -> bool:
    """Tell whether the part is there already; its name holds the checksum of the whole."""
    wanted = expected_weight_bytes(cfg, layer_count)
    return target.is_file() and target.stat().st_size == wanted
