"""What a GPU needs from an iteration: a form of numbers, and a host that never waits for it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from oiyolo.networks import cfg as cfgs
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.loader import Batch
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.optimizer import sgd
from oiyolo.torch_engine.parallel import Team
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.step import NumberForm, Stepper, form_on_gpu, gradient_scaler
from oiyolo.torch_engine.targets import packed, unpacked

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.lint import ForkName

CPU = torch.device("cpu")
PX = 64
BODY = (
    "[convolutional]\nbatch_normalize=1\nfilters=14\nsize=3\nstride=16\npad=1\nactivation=leaky\n"
)
YOLO = "[yolo]\nclasses=2\nnum=2\nmask=0,1\nanchors=16,16, 32,32\n"
REGION = (
    "[region]\nclasses=2\nnum=2\ncoords=4\nanchors=1,1, 2,2\nbias_match=1\nsoftmax=1\nthresh=.6\n"
)


class _NeverWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails at what makes the host wait for a GPU.

    Such are numbers read from it, results whose shape depends on values, and numbers that are sent
    to it without ``non_blocking`` (``lift_fresh`` is what ``new_tensor`` and ``tensor`` call).
    """

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "_unique2")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        assert name not in self.WAITING, name
        if name in ("index", "index_put", "index_put_"):
            assert all(place is None or place.dtype != torch.bool for place in args[1]), name
        return func(*args, **(kwargs or {}))


def batch_of(truths: list[tuple[float, ...]], images: int = 2) -> Batch:
    rows = torch.zeros(images, 5, 5)
    for place, truth in enumerate(truths):
        rows[0, place] = torch.tensor(truth)
    pictures = torch.rand(images, 3, PX, PX, generator=torch.Generator().manual_seed(1))
    return Batch(pictures, rows, (rows[..., 2] > 0).sum(1), np.arange(images))


@pytest.mark.parametrize("truths", [[], [(0.4, 0.5, 0.3, 0.4, 1), (0.4, 0.5, 0.2, 0.4, 0)]])
@pytest.mark.parametrize(
    "case",
    [
        (YOLO, "pjreddie"),
        (f"{YOLO}iou_loss=ciou\niou_thresh=.2\nlabel_smooth_eps=.1\n", "alexeyab"),
        (f"{YOLO}counters_per_class=3,5\nmax_delta=5\niou_loss=giou\n", "alexeyab"),
        (REGION, "pjreddie"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_iteration_never_waits_for_the_device(
    truths: list[tuple[float, ...]],
    case: tuple[str, ForkName],
    dtype: torch.dtype,
    tmp_path: Path,
) -> None:
    head, fork = case
    cfg = cfgs.parse(
        f"[net]\nwidth={PX}\nheight={PX}\nchannels=3\nbatch=2\nlearning_rate=.01\n{BODY}{head}",
        path="n.cfg",
    )
    network = TorchNetwork(cfg, rules_for(fork, gpu=True)).train()
    heads, form = Heads(network), NumberForm(torch.channels_last, dtype)
    stepper = Stepper(
        network,
        heads,
        sgd(network, fused=True),
        form=form,
        scaler=gradient_scaler(CPU, form),
        should_stop=lambda: False,
        team=Team(0, 1, CPU, tmp_path),
    )
    batches = itertools.repeat(batch_of(truths).with_targets(heads))
    stepper.step(1, batches, 1)  # the first one prepares constants
    with _NeverWaits():  # type: ignore[no-untyped-call]
        result = stepper.step(2, batches, 1)
    loss, (figures,) = result.wait()
    assert loss > 0
    assert bool(figures.count) == bool(truths)


def test_tensors_that_travel_together_arrive_as_they_were() -> None:
    tensors = [
        torch.arange(7),
        torch.rand(3, 5),
        torch.tensor([True, False, True]),
        torch.zeros(0, 4),
        torch.rand(4, 6).t(),
        torch.zeros(0, dtype=torch.long),
    ]
    arrived = unpacked(packed(tensors, pinned=False), tensors)
    assert [tensor.dtype for tensor in arrived] == [tensor.dtype for tensor in tensors]
    assert all(torch.equal(*pair) for pair in zip(arrived, tensors, strict=True))


@pytest.mark.parametrize(
    ("capability", "is_amd", "dtype", "order"),
    [
        ((9, 0), False, torch.bfloat16, torch.channels_last),  # H100
        ((8, 6), False, torch.bfloat16, torch.channels_last),  # RTX 3090
        ((7, 5), False, torch.float16, torch.channels_last),  # T4
        ((7, 0), False, torch.float16, torch.channels_last),  # V100
        ((6, 1), False, torch.float32, torch.contiguous_format),  # GTX 1080
        ((3, 7), False, torch.float32, torch.contiguous_format),  # K80
        ((9, 0), True, torch.bfloat16, torch.channels_last),  # MI200
    ],
)
def test_numbers_fit_the_gpu(
    capability: tuple[int, int], is_amd: bool, dtype: torch.dtype, order: torch.memory_format
) -> None:
    assert form_on_gpu(capability, is_amd=is_amd) == NumberForm(order, dtype)
