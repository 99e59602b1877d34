"""The GPUs of this machine, as ``nvidia-smi`` reports them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Final

from oiyolo.core import process

_TIMEOUT_S: Final = 30.0
_QUERY: Final = "index,name,memory.total,memory.free,compute_cap,driver_version"
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: Its number, as darknet's ``-gpus`` takes it.
        name: Its product name.
        memory_bytes: Its total memory.
        free_bytes: Its free memory.
        compute_capability: Its compute capability, such as "8.6".
        driver_version: The driver's version, such as "580.65.06".
    """

    index: int
    name: str
    memory_bytes: int
    free_bytes: int
    compute_capability: str
    driver_version: str


def gpus() -> list[Gpu]:
    """Return the GPUs that the driver lists; empty if there is no driver or it does not respond."""
    if shutil.which("nvidia-smi") is None:
        return []
    argv = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    finished = process.run(argv, timeout_s=_TIMEOUT_S)
    return parse(finished.output) if finished.exit_code == 0 else []


def parse(output: str) -> list[Gpu]:
    """Parse the CSV output of ``nvidia-smi``; lines of any other form are skipped."""
    parsed_gpus = []
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(_QUERY.split(",")) or not cells[0].isdigit():
            continue
        index, name, total, free, capability, driver = cells
        if total.isdigit() and free.isdigit():
            memory = int(total) * _MIB, int(free) * _MIB
            parsed_gpus.append(Gpu(int(index), name, *memory, capability, driver))
    return parsed_gpus
