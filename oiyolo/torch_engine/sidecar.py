"""What a training needs besides the weights to go on as if it had not been interrupted.

It is stored next to the weights in a file with the same stem: ``network_last.weights`` has
``network_last.state``. The file names the weights to which it belongs by their checksum. With other
weights, or without the file, momentum starts at zero, as it does at every start of darknet.
"""

from __future__ import annotations

import logging
import pickle
import zipfile
from typing import TYPE_CHECKING, Any, Final

import torch

from oiyolo.core import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger("oiyolo")

SUFFIX: Final = ".state"
_NEXT_SUFFIX: Final = ".next.state"
_VERSION: Final = 1


def state_path(weights_path: Path) -> Path:
    """Return the path of the state that belongs to weights."""
    return weights_path.with_suffix(SUFFIX)


def save_with_state(
    save_weights: Callable[[Path], None], state: dict[str, Any], weights_path: Path
) -> None:
    """Write weights, and the state of the training next to them.

    Whenever this is killed, the weights that have the final name have their state: that of new
    weights is complete, under another name, before the weights get theirs.

    Args:
        save_weights: Writes the weights to a path.
        state: Tensors, numbers, texts, and lists and dicts of them.
        weights_path: Final path of the weights.
    """
    next_path = weights_path.with_suffix(_NEXT_SUFFIX)
    with files.atomic_write(weights_path) as part:
        save_weights(part)
        content = {"version": _VERSION, "weights_sha256": files.sha256_of(part), "state": state}
        with files.atomic_write(next_path, durable=False) as state_part:
            torch.save(content, state_part)
    next_path.replace(state_path(weights_path))


def load_state(weights_path: Path) -> dict[str, Any] | None:
    """Return the state that was saved with weights; ``None`` if there is none.

    A copy of the weights elsewhere in the folder or one level below it has the same state. Nothing
    in a file is executed: it may only contain tensors and plain values.
    """
    folder = weights_path.absolute().parent
    candidates = [*folder.glob(f"*{SUFFIX}"), *folder.parent.glob(f"*{SUFFIX}")]
    if not candidates:
        return None
    checksum = files.sha256_of(weights_path)
    for path in candidates:
        content = _read(path)
        if content is not None and content["weights_sha256"] == checksum:
            return dict(content["state"])
    _log.warning("no saved optimizer state matches %s: momentum starts at zero", weights_path)
    return None


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a file; ``None``, with a warning, if it cannot be used."""
    try:
        with files.open_binary(path) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
        if content["version"] == _VERSION and {"weights_sha256", "state"} <= content.keys():
            return dict(content)
        reason = "it has another version"
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
    _log.warning("%s is ignored: %s", path, reason)
    return None
