"""What the torch engine cannot train is found in the .cfg, without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.networks import cfg as cfgs
from oiyolo.networks.builders import NETWORKS, stock
from oiyolo.networks.torch_limits import check_trainable

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg


def network(net: str = "", layer: str = "", head: str = "") -> Cfg:
    return cfgs.parse(
        f"[net]\nwidth=32\nheight=32\nchannels=3\n{net or '#'}\n"
        f"[convolutional]\nfilters=14\nsize=1\nactivation=linear\n{layer or '#'}\n"
        f"[yolo]\nmask=0,1\nanchors=8,8, 16,16\nclasses=2\nnum=2\n{head or '#'}\n",
        path="t.cfg",
    )


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_can_be_trained(name: str) -> None:
    check_trainable(stock(name), "alexeyab")


@pytest.mark.parametrize(
    ("place", "option", "line"),
    [
        *[("net", f"{key}=1", 5) for key in ("adam", "track", "contrastive", "blur")],
        ("net", "gaussian_noise=5", 5),
        ("net", "policy=random", 5),
        *[("layer", f"{key}=1", 10) for key in ("train_only_bn", "onlyforward", "angle")],
        ("head", "map=names.map", 16),
        ("head", "dont_update=1", 16),
        ("head", "truth_thresh=.7\nobjectness_smooth=1", 16),
        ("head", "counters_per_class=1,2,3", 16),
    ],
)
def test_what_is_not_supported_is_an_error_with_its_line(
    place: str, option: str, line: int
) -> None:
    with pytest.raises(cfgs.CfgError) as caught:
        check_trainable(network(**{place: option}), "alexeyab")
    assert (caught.value.line, caught.value.exit_code) == (line, 3)


def test_options_that_are_zero_are_no_errors() -> None:
    check_trainable(network(net="adam=0\nblur=0", layer="angle=0", head="map=0"), "alexeyab")


def test_mosaic_and_letter_box_exclude_each_other() -> None:
    cfg = network(net="mosaic=1\nletter_box=1")
    with pytest.raises(cfgs.CfgError) as caught:
        check_trainable(cfg, "alexeyab")
    assert caught.value.line == 6
    check_trainable(cfg, "pjreddie")


def test_options_that_a_fork_ignores_are_no_errors() -> None:
    cfg = network(net="blur=1", head="objectness_smooth=1\ntruth_thresh=.7\ncounters_per_class=1")
    check_trainable(cfg, "pjreddie")


def test_a_layer_that_is_not_supported_is_an_error_with_its_line() -> None:
    cfg = network(layer="\n[crnn]\noutput=4\n")
    with pytest.raises(cfgs.CfgError) as caught:
        check_trainable(cfg, "alexeyab")
    assert caught.value.line == 11
