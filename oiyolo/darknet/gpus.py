"""The GPUs of this machine, as the driver's own ``nvidia-smi`` tells them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Final

from oiyolo.core import process

_TIMEOUT_S: Final = 30.0
_ASKED: Final = ("index", "name", "memory.total", "memory.free", "compute_cap", "driver_version")
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Its number, as ``-gpus`` takes it.
        name: What its maker calls it.
        memory_bytes: Its memory.
        free_bytes: How much of that is free now.
        compute_capability: Such as "8.6".
        driver_version: The driver's version, such as "580.65.06".
    """

    index: int
    name: str
    memory_bytes: int
    free_bytes: int
    compute_capability: str
    driver_version: str


def gpus() -> list[Gpu]:
    """Give the GPUs that the driver knows; none where it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits"]
    answer = process.run(asked, timeout_s=_TIMEOUT_S)
    return parse(answer.output) if answer.exit_code == 0 else []


def parse(answer: str) -> list[Gpu]:
    """Read the answer of ``nvidia-smi``; what is no line of it is passed over."""
    found = []
    for line in answer.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(_ASKED) or not cells[0].isdigit():
            continue
        index, name, total, free, capability, driver = cells
        if total.isdigit() and free.isdigit():
            memory = int(total) * _MIB, int(free) * _MIB
            found.append(Gpu(int(index), name, *memory, capability, driver))
    return found
