"""Networks as PyTorch modules: forward pass, normalization, weights, optimizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

import torch

from oiyolo.core.errors import InputFormError
from oiyolo.inference.convert import convert
from oiyolo.inference.facts import ModelFacts
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.cfg import CfgError
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.optimizer import MovingAverage, learning_rate, set_rate, sgd
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.weights_io import WeightsCopy, load_weights
from tests.support.darknet_parity import (
    GOLDEN,
    SEED,
    as_input,
    class_count_of,
    raw_outputs,
    seeded_images,
    seeded_weights,
)

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import ForkName

NETWORKS = sorted(path.stem for path in GOLDEN.glob("*.cfg"))
GPU_RULES = rules_for("alexeyab", gpu=True)


def golden(name: str) -> Cfg:
    return cfgs.read(GOLDEN / f"{name}.cfg")


def filled(cfg: Cfg, folder: Path, fork: ForkName = "alexeyab") -> tuple[TorchNetwork, Path]:
    path = folder / "n.weights"
    path.write_bytes(seeded_weights(cfg, SEED))
    network = TorchNetwork(cfg, rules_for(fork, gpu=False))
    load_weights(network, path)
    return network, path


def onnx_heads(cfg: Cfg, weights: Path, images: Any, fork: str) -> list[Any]:
    """Return the raw outputs of the heads of the converted network."""
    names = tuple(str(number) for number in range(class_count_of(cfg)))
    return raw_outputs(convert(cfg, weights, ModelFacts(names, fork=fork)), images)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fork", ["alexeyab", "pjreddie"])
def test_raw_outputs_are_those_of_the_converted_network(
    name: str, fork: ForkName, tmp_path: Path
) -> None:
    cfg = golden(name)
    network, weights = filled(cfg, tmp_path, fork)
    images = as_input(seeded_images(cfg, SEED, 2))
    with torch.no_grad():
        own = network.eval()(torch.from_numpy(images))
    theirs = onnx_heads(cfg, weights, images, fork)
    assert len(own) == len(theirs)
    for raw, wanted in zip(own, theirs, strict=True):
        np.testing.assert_allclose(raw.numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


def test_images_of_another_size_are_computed_as_a_network_of_that_size(tmp_path: Path) -> None:
    cfg = golden("yolov3")
    network, _ = filled(cfg, tmp_path)
    larger = cfg.copy()
    larger.net.set("width", 160)
    larger.net.set("height", 128)
    other, _ = filled(larger, tmp_path)
    images = torch.rand(2, 3, 128, 160, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        for own, wanted in zip(network.eval()(images), other.eval()(images), strict=True):
            assert torch.equal(own, wanted)


@pytest.mark.parametrize("name", ["yolov4", "rare"])
def test_weights_are_written_as_they_were_read(name: str, tmp_path: Path) -> None:
    network, path = filled(golden(name), tmp_path, "pjreddie")
    WeightsCopy(network, 640).save(tmp_path / "copy.weights")
    copy = (tmp_path / "copy.weights").read_bytes()
    assert copy[20:] == path.read_bytes()[20:]
    assert load_weights(network, tmp_path / "copy.weights") == (len(network.layers), 640)


def test_a_partial_file_fills_the_first_layers(tmp_path: Path) -> None:
    cfg = golden("yolov3")
    network, path = filled(cfg, tmp_path)
    before = network.stored[3].weights.clone()
    size = sum(stored.weights.numel() + 4 * len(stored.biases) for stored in network.stored[:1])
    part = tmp_path / "n.conv.1"
    part.write_bytes(path.read_bytes()[: 20 + 4 * size])
    network.stored[0].weights.data.zero_()
    assert load_weights(network, part) == (2, 0)  # the [maxpool] after it stores nothing
    assert network.stored[0].weights.abs().sum() > 0
    assert torch.equal(network.stored[3].weights, before)
    part.write_bytes(path.read_bytes()[: 20 + 4 * size - 4])
    with pytest.raises(InputFormError):
        load_weights(network, part)


def explicit_norm(values: Any, scales: Any, biases: Any) -> Any:
    mean = values.mean((0, 2, 3), keepdim=True)
    variance = values.var((0, 2, 3), keepdim=True)
    normal = (values - mean) / torch.sqrt(variance + 1e-5)
    return scales.view(1, -1, 1, 1) * normal + biases.view(1, -1, 1, 1)


@pytest.mark.parametrize(("fork", "momentum"), [("alexeyab", 0.1), ("pjreddie", 0.01)])
def test_a_normalization_has_the_variance_and_momentum_of_darknet(
    fork: ForkName, momentum: float
) -> None:
    text = "[net]\nwidth=32\nheight=32\nchannels=3\n[batchnorm]\n[region]\nsoftmax=1\n"
    text += "classes=1\nnum=1\nanchors=1,1\n"
    cfg = cfgs.parse(text.replace("channels=3", "channels=6"), path="n.cfg")
    network = TorchNetwork(cfg, rules_for(fork, gpu=False))
    stored = network.stored[0]
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn(4, 6, 32, 32, generator=generator).requires_grad_()
    weight = torch.randn(4, 6, 32, 32, generator=generator)
    (raw,) = network(images)
    wanted = explicit_norm(images, stored.scales, stored.biases)
    torch.testing.assert_close(raw, wanted, rtol=1e-4, atol=1e-4)
    own = torch.autograd.grad((raw * weight).sum(), [images, stored.scales, stored.biases])
    theirs = torch.autograd.grad((wanted * weight).sum(), [images, stored.scales, stored.biases])
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(stored.means, momentum * images.detach().mean((0, 2, 3)))
    torch.testing.assert_close(stored.variances, momentum * images.detach().var((0, 2, 3)))


def test_layers_up_to_stopbackward_stay_as_they_are() -> None:
    cfg = golden("yolov3")
    cfg.layers[3].set("stopbackward", 1)
    network = TorchNetwork(cfg, GPU_RULES)
    before = [parameter.clone() for parameter in network.parameters()]
    trained = step(network)
    changed = [not torch.equal(*pair) for pair in zip(before, trained, strict=True)]
    frozen = sum(len(list(stored.parameters())) for stored in network.stored[:4])
    assert not any(changed[:frozen])
    assert all(changed[frozen:])


def step(network: TorchNetwork) -> list[Any]:
    """Train for an iteration with a truth in the middle, and return the parameters."""
    heads, optimizer = Heads(network), sgd(network)
    width, height = network.cfg.size_wh
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(SEED))
    rows = torch.tensor([[[0.45, 0.45, 0.3, 0.3, 0.0]]] * 2)
    targets = heads.targets(rows, (width, height), torch.device("cpu"))
    loss, _ = heads.loss(network(images), targets, (width, height), 2)
    torch.autograd.backward(loss / 2)
    set_rate(optimizer, 0.01)
    optimizer.step()
    return list(network.parameters())


@pytest.mark.parametrize(
    ("section", "key"), [(3, "train_only_bn"), (3, "assisted_excitation"), (0, "adam"), (10, "map")]
)
def test_an_option_that_changes_training_is_refused_with_its_line(section: int, key: str) -> None:
    cfg = golden("yolov3")
    place = cfg.sections[section] if section != 10 else cfg.layers[10]
    place.set(key, 1)
    with pytest.raises(CfgError) as caught:
        Heads(TorchNetwork(cfg, GPU_RULES))
    assert caught.value.line == place.line_of(key)


RATES: list[tuple[str, int, float]] = [
    ("burn_in=100", 50, 0.01 * 0.5**4),
    ("burn_in=100\npower=2", 25, 0.01 * 0.25**2),
    ("policy=steps\nsteps=10,20\nscales=.1,.5", 9, 0.01),
    ("policy=steps\nsteps=10,20\nscales=.1,.5", 10, 0.001),
    ("policy=steps\nsteps=10,20\nscales=.1,.5", 25, 0.0005),
    ("policy=step\nstep=10\nscale=.5", 25, 0.0025),
    ("policy=exp\ngamma=.9", 3, 0.00729),
    ("policy=poly\nmax_batches=100\npower=2", 50, 0.0025),
    ("policy=sig\ngamma=.1\nstep=30", 30, 0.005),
    ("policy=sgdr\nsgdr_cycle=10", 5, 0.00001 + 0.5 * (0.01 - 0.00001)),
    ("policy=sgdr\nsgdr_cycle=10", 20, 0.00001 + 0.5 * (0.01 - 0.00001)),
    ("policy=constant", 10**6, 0.01),
]


@pytest.mark.parametrize(("options", "iteration", "rate"), RATES)
def test_the_learning_rate_follows_the_policy(options: str, iteration: int, rate: float) -> None:
    net = cfgs.parse(f"[net]\nlearning_rate=.01\n{options}\n", path="n.cfg").net
    assert learning_rate(net, iteration) == pytest.approx(rate)


def test_a_random_policy_is_refused() -> None:
    net = cfgs.parse("[net]\npolicy=random\n", path="n.cfg").net
    with pytest.raises(CfgError):
        learning_rate(net, 1)


def test_the_average_starts_half_way_and_replaces_the_weights_near_the_end() -> None:
    cfg = golden("yolov3")
    cfg.net.set("max_batches", 3000)
    cfg.net.set("ema_alpha", 0.5)
    network = TorchNetwork(cfg, GPU_RULES)
    average, bias = MovingAverage(network), network.stored[0].biases
    average.update(1499)
    assert not average.values
    for iteration, value in ((1500, 1.0), (1501, 3.0), (2000, 7.0)):
        bias.data.fill_(value)
        average.update(iteration)
    assert bias.tolist() == [2.0] * len(bias)
    bias.data.fill_(math.inf)
    average.update(2500)
    assert average.values["0.biases"].tolist() == [2.0] * len(bias)
