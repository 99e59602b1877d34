"""The parameters in a weights file, by layer and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oiyolo.networks.layers import layers
from oiyolo.networks.weights import check_weights

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.networks.cfg import Cfg


def read_parameters(path: Path, cfg: Cfg) -> list[dict[str, npt.NDArray[np.float32]]]:
    """Return the parameters of every layer, by the names of ``layers.Segment``.

    The file is not compared with the published one of the same name, which may have been trained
    further.

    Args:
        path: A weights file that fills the whole network.
        cfg: The network.

    Returns:
        For each layer a one-dimensional array per segment, in the order of darknet; the arrays are
        parts of the mapped file, which is read when they are.

    Raises:
        UsageError: The file does not exist.
        InputFormError: The file is not valid or belongs to another network (``check_weights``).
        CfgError: As for ``layers.layers``.
    """
    report = check_weights(path, cfg, complete=True, checksum=None)
    numbers = np.memmap(path, "<f4", mode="r", offset=report.header.header_bytes)
    parameters: list[dict[str, npt.NDArray[np.float32]]] = []
    start = 0
    for layer in layers(cfg):
        named = {}
        for segment in layer.segments:
            named[segment.name] = numbers[start : start + segment.count]
            start += segment.count
        parameters.append(named)
    return parameters
