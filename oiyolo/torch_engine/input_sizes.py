"""The input's sizes in multi-scale training (``random=1``), as a function of the iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.torch_engine import samples
from oiyolo.torch_engine.augment import head_of

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg
    from oiyolo.torch_engine.rules import Rules

ITERATIONS_PER_SIZE: Final = 10

_SIZE_SLOT, _INVERSE_SLOT = 20, 21
_DEFAULT_FACTOR: Final = 1.4
_PJREDDIE_STEP_PX: Final = 32
_PJREDDIE_STEPS: Final = range(10, 20)
_PJREDDIE_LAST_PX: Final = 608
_PJREDDIE_LAST: Final = 200
_LAST: Final = 100


def size_at(cfg: Cfg, rules: Rules, iteration: int, *, seed: int) -> tuple[int, int]:
    """Return the input's width and height in pixels for an iteration.

    Without ``random`` it is that of the .cfg. Otherwise it is drawn every ten iterations
    (train_detector in pjreddie's examples/detector.c and in AlexeyAB's src/detector.c): by
    pjreddie's fork from 320 to 608 whatever the .cfg says, by AlexeyAB's up to a factor of
    ``random`` (1 stands for 1.4) in steps of ``resize_step``. The first, which tests whether the
    memory suffices, and the last are the largest. Darknet counts from its own start; here a
    resumed run has the sizes that it would have had.

    Args:
        cfg: The network.
        rules: The fork's rules.
        iteration: Number of iterations before this one, from 0.
        seed: Seed of the run.
    """
    factor = head_of(cfg).number("random", 0)
    if not factor:
        return cfg.size_wh
    block = np.array([iteration // ITERATIONS_PER_SIZE])
    start = int(block[0]) * ITERATIONS_PER_SIZE
    left = cfg.net.integer("max_batches", 0) - start
    drawn, inverse = (
        float(samples.uniform(seed, block, slot)[0]) for slot in (_SIZE_SLOT, _INVERSE_SLOT)
    )
    if rules.fork == "pjreddie":
        side = _PJREDDIE_STEPS[int(drawn * len(_PJREDDIE_STEPS))] * _PJREDDIE_STEP_PX
        side = _PJREDDIE_LAST_PX if left < _PJREDDIE_LAST else side
        return side, side
    largest = _DEFAULT_FACTOR if factor == 1 else factor
    scale = 1 + (largest - 1) * drawn
    if inverse < 0.5:  # noqa: PLR2004  (half of the sizes are smaller)
        scale = 1 / scale
    if start == 0 or left < _LAST:
        scale = largest
    return _scaled(cfg, scale)


def _scaled(cfg: Cfg, scale: float) -> tuple[int, int]:
    """Return the .cfg's size times a factor, rounded up to a multiple of ``resize_step``."""
    step = int(cfg.net.number("resize_step", 32))
    width, height = cfg.size_wh
    scaled = [max(step, int(scale * side / step + 1.5) * step) for side in (width, height)]
    if scale < 1 and (scaled[0] > width or scaled[1] > height):
        return width, height
    return scaled[0], scaled[1]
