"""Compile the network while it is trained, where the time that this takes pays off.

``torch.compile`` takes about a minute for each size of the input, in which nothing is trained. So a
training begins without, and the network is compiled once it is known how long the rest would take.
Whether that is faster is measured. If a network cannot be compiled, for example because the machine
has no C++ compiler, training goes on as before.
"""

from __future__ import annotations

import math
import time
import traceback
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from oiyolo.torch_engine.step import measure_passes, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from torch import Tensor

    from oiyolo.torch_engine.heads import Heads
    from oiyolo.torch_engine.loader import Batch
    from oiyolo.torch_engine.network import TorchNetwork
    from oiyolo.torch_engine.options import Choice
    from oiyolo.torch_engine.step import NumberForm

ERROR_PATH: Final = Path("compilation_error.txt")
"""Why the network could not be compiled; in the run's folder."""
_PASSES: Final = 2
_WARM_UP: Final = 10
"""Iterations that are slower than others, and iterations whose duration tells that of the rest."""
_COMPILE_S: Final = 60.0
"""Typical duration for a size: 69 s for yolov3 on an H200, 40 to 55 s on two CPU cores."""
_EXPECTED_GAIN: Final = 0.15
"""Share of the time that compiling saves: 22 % with yolov3 on an H200, and less where loading
images takes part of it."""
_MARGIN: Final = 2.0
_MIN_SPEEDUP: Final = 1.03


def pays_off(remaining_s: float, size_count: int) -> bool:
    """Return whether compiling saves clearly more time than it takes.

    Args:
        remaining_s: Time that the rest of the training takes without, in seconds.
        size_count: Number of sizes of the input to compile for.
    """
    return remaining_s * _EXPECTED_GAIN >= _MARGIN * _COMPILE_S * size_count


class Pace:
    """How long an iteration takes, without the first ones, in which libraries warm up.

    Args:
        iteration: Number of completed iterations.
    """

    def __init__(self, iteration: int) -> None:
        self.restart(iteration)

    def restart(self, iteration: int) -> None:
        """Measure again from here, after a pause or a change."""
        self._first, self._started_s = iteration + _WARM_UP, math.nan

    def seconds(self, iteration: int) -> float:
        """Return the mean duration; NaN as long as there are too few iterations.

        Args:
            iteration: Number of completed iterations; this is asked after each of them.
        """
        if iteration == self._first:
            self._started_s = time.monotonic()
        count = iteration - self._first
        return (time.monotonic() - self._started_s) / count if count >= _WARM_UP else math.nan


class Compiler:
    """Compiles a network for the sizes of its input, one after another.

    Args:
        network: The network, on its device.
        heads: Its heads.
        form: How numbers are stored and computed with.
        sizes_wh: Returns all sizes of the input in the training; finding them takes seconds.
        choice: "auto" for where it pays off, or "always" or "never".
        trial_batch: Returns a batch of a size, for measuring.
        write: Writes text to the log.
    """

    def __init__(
        self,
        network: TorchNetwork,
        heads: Heads,
        form: NumberForm,
        *,
        sizes_wh: Callable[[], Collection[tuple[int, int]]],
        choice: Choice,
        trial_batch: Callable[[tuple[int, int]], Batch],
        write: Callable[[str], None],
    ) -> None:
        self._network, self._heads, self._form = network, heads, form
        self._find_sizes_wh, self._tried = sizes_wh, set[tuple[int, int]]()
        self._choice, self._trial_batch, self._write = choice, trial_batch, write
        self._is_given_up = choice == "never"

    @cached_property
    def _sizes_wh(self) -> Collection[tuple[int, int]]:
        sizes_wh = self._find_sizes_wh()
        for size_wh in sizes_wh:  # a compiled network depends on which are known
            self._network.nodes(size_wh)
        return sizes_wh

    def is_due(self, size_wh: tuple[int, int], remaining_s: float) -> bool:
        """Return whether the network is to be compiled for a size now.

        Args:
            size_wh: Width and height of the input in pixels.
            remaining_s: Time that the rest of the training takes as it is, in seconds.
        """
        if self._is_given_up or size_wh in self._tried:
            return False
        if self._choice == "always":
            return True
        return pays_off(remaining_s, 1) and pays_off(remaining_s, len(self._sizes_wh))

    def compile(self, size_wh: tuple[int, int]) -> Callable[[Tensor], list[Tensor]] | None:
        """Return the compiled network for a size; ``None`` if it is not faster or impossible.

        The network stays as it is.

        Args:
            size_wh: Width and height of the input in pixels.
        """
        self._tried.add(size_wh)
        shown = f"{size_wh[0]}x{size_wh[1]}"
        self._write(f"Compiling the network for {shown}, which takes about a minute\n")
        started_s = time.monotonic()
        compiled: Callable[[Tensor], list[Tensor]] | None = None
        try:
            with unchanged(self._network):
                compiled, speedup = self._try(size_wh)
        except Exception as error:  # noqa: BLE001  (whatever a compiler may raise)
            # Not in the log, where the supervisor would take it for an error of the training.
            ERROR_PATH.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            self._write(f"Compilation failed; training continues without it: see {ERROR_PATH}\n")
            self._is_given_up = True
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # it may have been too little memory
            return None
        took = f"Compiled in {time.monotonic() - started_s:.0f} s"
        if self._choice == "auto" and speedup < _MIN_SPEEDUP:
            self._write(f"{took}, but that is no faster ({speedup:.2f} times): not used\n")
            self._is_given_up = True
            return None
        self._write(f"{took}: {speedup:.2f} times as fast, not counting image loading\n")
        return compiled

    def _try(self, size_wh: tuple[int, int]) -> tuple[Callable[[Tensor], list[Tensor]], float]:
        """Return the compiled network, and how many times as fast its passes are."""
        measure = partial(
            measure_passes,
            self._network,
            self._heads,
            self._trial_batch(size_wh),
            self._form,
            passes=_PASSES,
        )
        as_is_s = measure()
        config: Any = torch._dynamo.config  # noqa: SLF001  (where PyTorch documents it)
        config.cache_size_limit = max(config.cache_size_limit, 1 + len(self._sizes_wh))
        compiled: Any = torch.compile(self._network, dynamic=False)
        compiled_s = measure(compute=compiled)
        # The loader was busy when the first was measured.
        return compiled, min(as_is_s, measure()) / compiled_s
