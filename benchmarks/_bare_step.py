"""Measure the bare training step of a network: what the torch engine could reach at most.

``python benchmarks/_bare_step.py CFG DEVICE SECONDS ITERATIONS`` repeats forward pass, backward
pass and update on one batch that is on the device already, without loading, loss and log, in the
form of numbers that the engine chooses. It prints images per second; then, as JSON in the same
line, how often the host waits for the GPU in an iteration of the engine, which should be never
(``torch.cuda.set_sync_debug_mode``).
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from oiyolo.networks import cfg as cfgs
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.loader import Batch
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.optimizer import sgd
from oiyolo.torch_engine.parallel import Team
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.step import Stepper, choose_form, gradient_scaler

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.torch_engine.step import NumberForm

_WARM_UP: Final = 3
_QUEUED: Final = 4
"""Iterations that the host may be ahead of the GPU."""
_TRUTH: Final = (0.5, 0.5, 0.3, 0.3, 0.0)


def main(cfg_path: str, device_name: str, seconds: str, iterations: str) -> None:
    """Measure, and print the figures."""
    torch.backends.cudnn.benchmark = True
    cfg, device = cfgs.read(Path(cfg_path)), torch.device(device_name)
    rules = rules_for("alexeyab", gpu=device.type == "cuda")
    network = TorchNetwork(cfg, rules).to(device).train()
    parts = cfg.net.integer("subdivisions", 1)
    batch = noise(cfg.net.integer("batch", 1) // parts, cfg.size_wh, device)
    heads = Heads(network)
    form = choose_form(network, heads, batch)
    network.to(memory_format=form.memory_format)  # type: ignore[call-overload]
    images = batch.images.contiguous(memory_format=form.memory_format)
    step = bare_step(network, images, parts, form)
    step_s = timed(step, device, float(seconds), int(iterations))
    waits = math.nan
    if device.type == "cuda":
        waits = count_waits(network, heads, batch._replace(images=images), parts, form)
    figures = {"images_per_s": len(images) * parts / step_s, "waits": waits, "form": str(form)}
    print(json.dumps(figures))


def noise(count: int, size_wh: tuple[int, int], device: torch.device) -> Batch:
    """Return images of noise with one box each."""
    images = torch.rand(count, 3, size_wh[1], size_wh[0], device=device)
    truths = torch.tensor(_TRUTH).repeat(count, 1, 1)
    return Batch(images, truths, torch.ones(count, dtype=torch.int64), np.arange(count))


def bare_step(
    network: TorchNetwork, images: torch.Tensor, parts: int, form: NumberForm
) -> Callable[[], None]:
    """Return a function that trains on a batch, with a loss that costs nothing."""
    optimizer = sgd(network, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for _ in range(parts):
            with form.autocast(images.device):
                outputs = network(images)
            torch.autograd.backward(outputs, [output.detach() * 1e-6 for output in outputs])
        optimizer.step()

    return step


def timed(step: Callable[[], None], device: torch.device, seconds: float, iterations: int) -> float:
    """Return the mean duration of an iteration in seconds, after some that are not counted."""
    for _ in range(_WARM_UP):
        step()
    synchronize(device)
    start_s = time.perf_counter()
    for count in itertools.count(1):
        step()
        if count % _QUEUED == 0 or device.type != "cuda":
            synchronize(device)
            elapsed_s = time.perf_counter() - start_s
            if elapsed_s > seconds or count >= iterations:
                return elapsed_s / count
    raise AssertionError("the loop has no end")


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_waits(
    network: TorchNetwork, heads: Heads, batch: Batch, parts: int, form: NumberForm
) -> float:
    """Return how often the host waits for the GPU in an iteration of the engine."""
    stepper = Stepper(
        network,
        heads,
        sgd(network, fused=True),
        form=form,
        scaler=gradient_scaler(batch.images.device, form),
        should_stop=lambda: False,
        team=Team(0, 1, batch.images.device, Path()),
    )
    batches = itertools.repeat(batch.with_targets(heads))
    for iteration in range(1, _WARM_UP + 1):  # the first one prepares constants
        stepper.step(iteration, batches, parts).wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        stepper.step(_WARM_UP + 1, batches, parts)
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


if __name__ == "__main__":
    main(*sys.argv[1:])
