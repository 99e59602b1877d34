"""Darknet's optimizer and learning rates.

Darknet adds the deltas of a batch to a buffer, subtracts ``decay * batch`` times the weights, moves
the weights by ``rate / batch`` times the buffer, and multiplies the buffer by the momentum
(update_convolutional_layer in src/convolutional_layer.c). Divided by the batch, that is what
``torch.optim.SGD`` computes from the mean gradient, with a decay of the weights alone.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import torch

from oiyolo.networks.graph import Convolution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from oiyolo.networks.cfg import Cfg, Section
    from oiyolo.torch_engine.network import TorchNetwork

_EMA_TAIL = 1000
"""Iterations at the end that train on the averaged weights."""


def sgd(network: TorchNetwork, *, fused: bool = False) -> torch.optim.SGD:
    """Return the optimizer of a network; ``set_rate`` sets its rates.

    Gradients must be those of the loss divided by ``batch``.

    Args:
        network: The network, on its device.
        fused: Whether to update all parameters in one kernel.
    """
    net = network.cfg.net
    decay = net.number("decay", 0.0001)
    groups = []
    for node, stored in zip(network.nodes(network.cfg.size_wh), network.layers, strict=True):
        factor = node.layer.section.number("learning_rate", 1)
        for name, parameter in stored.named_parameters():
            if parameter.requires_grad:
                own_decay = decay if name == "weights" else 0.0
                groups.append(((factor, own_decay), parameter))
    merged: dict[tuple[float, float], list[Tensor]] = {}
    for key, parameter in groups:
        merged.setdefault(key, []).append(parameter)
    return torch.optim.SGD(
        [
            {"params": parameters, "weight_decay": own_decay, "factor": factor}
            for (factor, own_decay), parameters in merged.items()
        ],
        lr=0.0,
        momentum=net.number("momentum", 0.9),
        fused=fused,
    )


def set_rate(optimizer: torch.optim.SGD, rate: float) -> None:
    """Set the learning rate, times the factor of each layer."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def learning_rate(net: Section, iteration: int) -> float:
    """Return the learning rate of an iteration (get_current_rate in src/network.c).

    Args:
        net: [net] of the cfg.
        iteration: Its number, from 1.

    Raises:
        CfgError: A policy that is not supported.
    """
    rate, burn_in = net.number("learning_rate", 0.001), net.integer("burn_in", 0)
    if iteration < burn_in:
        return float(rate * (iteration / burn_in) ** net.number("power", 4))
    name = net.text("policy", "constant").partition("#")[0]
    if name not in _POLICIES:
        raise net.error(
            f"the learning rate policy {name} is not supported in training with torch",
            "policy",
            expected=", ".join(sorted(_POLICIES)),
        )
    return rate * _POLICIES[name](net, iteration)


def _constant(_: Section, __: int) -> float:
    return 1.0


def _step(net: Section, iteration: int) -> float:
    return float(net.number("scale", 1) ** (iteration // max(net.integer("step", 1), 1)))


def _steps(net: Section, iteration: int) -> float:
    factors = zip(net.integers("steps"), net.numbers("scales"), strict=False)
    return float(math.prod(scale for step, scale in factors if step <= iteration))


def _exponential(net: Section, iteration: int) -> float:
    return float(net.number("gamma", 1) ** iteration)


def _polynomial(net: Section, iteration: int) -> float:
    progress = iteration / max(net.integer("max_batches", 0), 1)
    return float(max(1 - progress, 0.0) ** net.number("power", 4))


def _sigmoid(net: Section, iteration: int) -> float:
    return 1 / (1 + math.exp(net.number("gamma", 1) * (iteration - net.integer("step", 1))))


def _cosine_cycles(net: Section, iteration: int) -> float:
    """Return the factor of ``sgdr``, AlexeyAB's: from 1 down to a minimum in longer cycles."""
    rate, lowest = net.number("learning_rate", 0.001), net.number("learning_rate_min", 0.00001)
    start, size = 0, net.integer("sgdr_cycle", net.integer("max_batches", 0))
    while 0 < start + size < iteration:
        start += size
        size *= net.integer("sgdr_mult", 2)
    cosine = math.cos((iteration - start) * math.pi / max(size, 1))
    return (lowest + 0.5 * (rate - lowest) * (1 + cosine)) / rate


_POLICIES: dict[str, Callable[[Section, int], float]] = {
    "constant": _constant,
    "step": _step,
    "steps": _steps,
    "exp": _exponential,
    "poly": _polynomial,
    "sig": _sigmoid,
    "sgdr": _cosine_cycles,
}


class MovingAverage:
    """The moving average of the convolutions' parameters that AlexeyAB's fork keeps.

    It starts after half of the iterations. 1000 iterations before the end it replaces the
    parameters, and training continues with it (train_network_waitkey in src/network.c). Rolling
    statistics are not averaged.

    Args:
        network: The network.

    Attributes:
        values: The averages by name of the parameter; empty before they start.
    """

    def __init__(self, network: TorchNetwork) -> None:
        self._network = network
        self._alpha, self._start, self._end = _average_span(network.cfg)
        self.values: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Follow the parameters after an iteration (its number, from 1), or replace them."""
        if not self._alpha or iteration < self._start:
            return
        averaged = self._averaged()
        if not self.values:
            self.values = {name: parameter.clone() for name, parameter in averaged.items()}
        if iteration == self._end:
            self._copy(self.values)
        elif iteration < self._end:
            torch._foreach_lerp_(
                [self.values[name] for name in averaged], list(averaged.values()), 1 - self._alpha
            )

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Have the network compute with the averages."""
        averaged = self._averaged()
        before = {name: parameter.detach().clone() for name, parameter in averaged.items()}
        self._copy(self.values)
        yield
        self._copy(before)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._averaged().items():
            parameter.copy_(values[name])

    def _averaged(self) -> dict[str, Tensor]:
        nodes = self._network.nodes(self._network.cfg.size_wh)
        return {
            f"{node.layer.index}.{name}": parameter
            for node, stored in zip(nodes, self._network.layers, strict=True)
            if isinstance(node.operation, Convolution)
            for name, parameter in stored.named_parameters()
        }


def _average_span(cfg: Cfg) -> tuple[float, int, int]:
    """Return the share of the past in the average, and its first and last iteration."""
    iterations = cfg.net.integer("max_batches", 0)
    return cfg.net.number("ema_alpha", 0), iterations // 2, iterations - _EMA_TAIL
