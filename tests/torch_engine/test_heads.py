"""Deltas of heads, computed by hand, and gradients of overlaps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

import torch

from oiyolo.networks import cfg as cfgs
from oiyolo.networks.cfg import CfgError
from oiyolo.torch_engine.box_math import OverlapKind, ious, overlap_gradients, overlaps
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.rules import rules_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.networks.lint import ForkName

CELLS, PX, CLASSES = 4, 128, 3
ANCHORS = "20,20, 60,60"
CPU = torch.device("cpu")


def head_cfg(options: str = "", net: str = "") -> cfgs.Cfg:
    return cfgs.parse(
        f"[net]\nwidth={PX}\nheight={PX}\nchannels=3\n{net}\n"
        "[convolutional]\nfilters=16\nsize=1\nstride=32\nactivation=linear\n"
        f"[yolo]\nclasses={CLASSES}\nnum=2\nmask=0,1\nanchors={ANCHORS}\n{options}\n",
        path="n.cfg",
    )


def deltas(
    truths: Sequence[tuple[float, ...]],
    options: str = "",
    fork: ForkName = "alexeyab",
    raw: float = 0.0,
) -> tuple[Any, float, Any]:
    """Return deltas (anchors, numbers, rows, columns), the loss, and the figures of the log."""
    heads = Heads(TorchNetwork(head_cfg(options), rules_for(fork, gpu=False)))
    output = torch.full((1, 16, CELLS, CELLS), raw, requires_grad=True)
    rows = torch.zeros(1, 10, 5)
    for place, truth in enumerate(truths):
        rows[0, place] = torch.tensor(truth)
    targets = heads.targets(rows, (PX, PX), CPU)
    loss, (result,) = heads.loss([output], targets, (PX, PX), 1)
    (gradient,) = torch.autograd.grad(loss, [output])
    return -gradient.view(2, 8, CELLS, CELLS), float(loss.detach()), result.figures()


BOX = (0.40, 0.65, 0.5, 0.4)
"""A truth in column 1 and row 2, nearest to the second anchor."""


def test_an_assigned_box_learns_its_truth_and_the_others_learn_to_be_silent() -> None:
    found, loss, figures = deltas([(*BOX, 1)], fork="pjreddie")
    weight = 2 - 0.5 * 0.4
    wanted = [
        weight * (0.40 * CELLS - 1 - 0.5),
        weight * (0.65 * CELLS - 2 - 0.5),
        weight * math.log(0.5 * PX / 60),
        weight * math.log(0.4 * PX / 60),
        0.5,
        -0.5,
        0.5,
        -0.5,
    ]
    assert found[1, :, 2, 1].tolist() == pytest.approx(wanted, abs=1e-6)
    silent = found.clone()
    silent[1, :, 2, 1] = 0
    assert silent[:, 4].sum() == pytest.approx(-0.5 * (2 * CELLS**2 - 1))
    silent[:, 4] = 0
    assert not silent.any()
    assert loss == pytest.approx(float((found**2).sum()), rel=1e-6)
    assert (figures.count, figures.class_score, figures.obj, figures.no_obj) == (1, 0.5, 0.5, 0.5)


def test_several_truths_of_a_box_add_up_in_one_fork_and_replace_each_other_in_the_other() -> None:
    second = (0.45, 0.60, 0.4, 0.4)
    alone = [deltas([(*box, 1)], "iou_normalizer=1")[0][1, :4, 2, 1] for box in (BOX, second)]
    both = [(*BOX, 1.0), (*second, 2.0)]
    summed = deltas(both, "iou_normalizer=1")[0][1, :, 2, 1]
    replaced = deltas(both, fork="pjreddie")[0][1, :, 2, 1]
    torch.testing.assert_close(summed[:4], alone[0] + alone[1])
    torch.testing.assert_close(replaced[:4], alone[1])
    for found in (summed, replaced):
        assert found[4:].tolist() == [0.5, -0.5, 0.5, 0.5]
    averaged = deltas(both, "iou_normalizer=1\niou_thresh=.99")[0][1, :, 2, 1]
    torch.testing.assert_close(averaged[:4], (alone[0] + alone[1]) / 2)


def test_iou_thresh_assigns_further_anchors() -> None:
    shape = (0.40, 0.65, 0.3, 0.3)  # between the two anchors
    only_best, also_others = (deltas([(*shape, 0)], f"iou_thresh={t}")[2].count for t in (1, 0.1))
    assert (only_best, also_others) == (1, 2)


@pytest.mark.parametrize(
    ("fork", "raw_class", "is_spared"),
    [("pjreddie", -3.0, True), ("alexeyab", -3.0, False), ("alexeyab", -1.0, True)],
)
def test_an_unassigned_box_is_spared_by_its_overlap_and_class(
    fork: ForkName, raw_class: float, is_spared: bool
) -> None:
    heads = Heads(TorchNetwork(head_cfg("ignore_thresh=.3"), rules_for(fork, gpu=False)))
    output = torch.zeros(1, 2, 8, CELLS, CELLS)
    output[:, :, 5:] = raw_class
    output = output.view(1, 16, CELLS, CELLS).requires_grad_()
    rows = torch.tensor([[[0.40, 0.62, 0.47, 0.47, 0.0]]])  # its neighbours overlap, too
    loss, _ = heads.loss([output], heads.targets(rows, (PX, PX), CPU), (PX, PX), 1)
    (gradient,) = torch.autograd.grad(loss, [output])
    assert (float(gradient.view(2, 8, CELLS, CELLS)[1, 4, 2, 2]) == 0) == is_spared


def test_truths_end_at_an_x_of_zero_and_unknown_classes_are_skipped() -> None:
    found = deltas([(*BOX, 7), (*BOX, 1), (0.0, 0.5, 0.2, 0.2, 0), (*BOX, 2)])[2]
    assert found.count == 1


def test_a_batch_without_truths_is_all_background() -> None:
    found, loss, figures = deltas([])
    assert (figures.count, math.isnan(figures.iou)) == (0, True)
    assert loss == pytest.approx(0.25 * 2 * CELLS**2)
    assert found[:, 4].eq(-0.5).all()


def test_the_gradient_has_the_number_type_of_the_output_and_scales_with_the_loss() -> None:
    heads = Heads(TorchNetwork(head_cfg(), rules_for("alexeyab", gpu=True)))
    output = torch.zeros(1, 16, CELLS, CELLS, dtype=torch.bfloat16, requires_grad=True)
    rows = torch.tensor([[[*BOX, 1.0]]])
    loss, _ = heads.loss([output], heads.targets(rows, (PX, PX), CPU), (PX, PX), 1)
    one, eight = (torch.autograd.grad(loss * k, [output], retain_graph=True)[0] for k in (1, 8))
    assert one.dtype == torch.bfloat16
    torch.testing.assert_close(eight, 8 * one)


@pytest.mark.parametrize("option", ["map=names.map", "objectness_smooth=1\ntruth_thresh=.7"])
def test_an_unsupported_option_of_a_head_is_refused_with_its_line(option: str) -> None:
    cfg = head_cfg(option)
    with pytest.raises(CfgError) as caught:
        Heads(TorchNetwork(cfg, rules_for("alexeyab", gpu=False)))
    assert caught.value.line > cfg.layers[1].line


PAIRS = torch.tensor(
    [
        [[0.5, 0.5, 0.2, 0.3], [0.55, 0.48, 0.25, 0.2]],
        [[0.5, 0.5, 0.4, 0.4], [0.5, 0.55, 0.1, 0.1]],
        [[0.3, 0.4, 0.1, 0.2], [0.35, 0.4, 0.12, 0.5]],
    ]
)


def derivative(kind: OverlapKind) -> Any:
    """Return the derivatives of an overlap by autograd, with width and height doubled."""
    boxes = PAIRS[:, 0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(overlaps(boxes, PAIRS[:, 1], kind).sum(), [boxes])
    return gradient * torch.tensor([1, 1, 2, 2])


@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_gradients_of_overlaps_are_derivatives_with_sizes_doubled(kind: OverlapKind) -> None:
    own = overlap_gradients(PAIRS[:, 0], PAIRS[:, 1], kind)
    torch.testing.assert_close(own, derivative(kind), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in get_args(OverlapKind) if kind != "mse"])
def test_the_gradient_of_boxes_apart_draws_them_together(kind: OverlapKind) -> None:
    box, truth = torch.tensor([[0.2, 0.2, 0.1, 0.1]]), torch.tensor([[0.7, 0.6, 0.2, 0.2]])
    x, y, _, _ = overlap_gradients(box, truth, kind)[0].tolist()
    assert ious(box, truth).tolist() == [0.0]
    if kind != "iou":  # darknet takes the product of two negative sides for an intersection
        assert x > 0
        assert y > 0
