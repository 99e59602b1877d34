"""What each layer computes, and the options that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from oiyolo.networks import graph as graphs
from oiyolo.networks.cfg import CfgError, parse, read
from oiyolo.networks.graph import (
    IMAGE,
    Addition,
    Blocks,
    Concatenation,
    Convolution,
    Head,
    Pool,
    graph,
    heads_in,
)
from oiyolo.networks.stock import TEXTS
from oiyolo.networks.vocabulary import ALEXEYAB_KEYS, PJREDDIE_KEYS

DEMO: Final = Path(__file__).parents[2] / "cfg" / "demo.cfg"
NET: Final = "[net]\nwidth=64\nheight=32\nchannels=3\n"
CONV: Final = "[conv]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
HEAD: Final = "[conv]\nfilters=14\nactivation=linear\n[yolo]\nanchors=8,9,20,18\nclasses=2\nnum=2\n"
REGION: Final = (
    "[conv]\nfilters=14\nactivation=linear\n[region]\nanchors=1,2,3,4\nclasses=2\nnum=2\n"
)
NEVER: Final = {"convolutional": {"share_index"}, "region": {"tree"}, "net": {"inputs"}}
"""Options of darknet that are always refused."""


@pytest.mark.parametrize("name", TEXTS)
def test_the_stock_networks_are_described(name: str) -> None:
    nodes = graph(parse(TEXTS[name](), path=name))
    assert [node.layer.index for node in nodes] == list(range(len(nodes)))
    assert all(source < node.layer.index for node in nodes for source in node.inputs)
    assert {head.class_count for _, head in heads_in(nodes)} == {80}


def test_the_network_of_the_demo_is_described() -> None:
    assert len(heads_in(graph(read(DEMO)))) == 1


@pytest.mark.parametrize("kind", graphs._READ)
def test_every_option_of_darknet_is_read_inert_or_refused(kind: str) -> None:
    of_darknet = PJREDDIE_KEYS.get(kind, frozenset()) | ALEXEYAB_KEYS.get(kind, frozenset())
    known = graphs._READ[kind].union(graphs._INERT.get(kind, ()), graphs._OFF.get(kind, ()))
    assert of_darknet - known == NEVER.get(kind, set())


def test_inputs_strides_and_padding_are_those_of_darknet() -> None:
    text = (
        f"{NET}{CONV}[max]\nsize=2\nstride=1\n[max]\nsize=3\nstride_x=2\nstride_y=1\nstride=2\n"
        f"{CONV}stride=2\n[route]\nlayers=0\ngroups=2\ngroup_id=1\n{HEAD}scale_x_y=1.1\n"
    )
    first, pool, uneven, conv, route, _, head = graph(parse(text, path="n.cfg"))
    assert first.inputs == (IMAGE,)
    assert pool.operation == Pool("max", 2, (1, 1), (0, 0), (1, 1))
    assert uneven.operation == Pool("max", 3, (2, 1), (1, 1), (0, 1))
    assert conv.operation == Convolution(3, (2, 2), 1, 1, 1, has_norm=False, activation="leaky")
    assert (route.inputs, route.operation) == ((0,), Concatenation(2, 1))
    anchors = ((8 / 64, 9 / 32), (20 / 64, 18 / 32))
    assert head.operation == Head("yolo", 2, anchors, scale_xy=1.1)


def test_anchors_of_a_region_are_in_cells_and_reorg_has_darknets_order() -> None:
    text = f"{NET}{CONV}[reorg]\nstride=2\n{REGION}softmax=1\n"
    _, reorg, _, head = graph(parse(text, path="n.cfg"))
    assert reorg.operation == Blocks(2, (2, 64, 128))
    assert head.operation == Head("region", 2, ((1 / 32, 2 / 16), (3 / 32, 4 / 16)))


def test_a_shortcut_adds_all_its_sources() -> None:
    text = f"{NET}{CONV * 3}[shortcut]\nfrom=-2,-3\nactivation=mish\n{HEAD}"
    node = graph(parse(text, path="n.cfg"))[3]
    assert (node.inputs, node.operation) == ((2, 1, 0), Addition("mish"))


@pytest.mark.parametrize(
    "text",
    [
        "[cost]  <--\n",
        "[conv]\nfilters=8\nxnor=1  <--\n",
        "[conv]\nfilters=8\nshare_index=0  <--\n",
        "[conv]\nfilters=8\nactvation=leaky  <--\n",
        "[conv]\nfilters=8\nactivation=sine  <--\n",
        "[conv]\nfilters=8\ngroups=3  <--\n",
        "[conv]\nfilters=8\nsize=3\ndilation=2  <--\n",
        "[conv]\nfilters=8\ndontload=1  <--\n",
        "[max]\nsize=2\npadding=4  <--\n",
        "[max]\nsize=2\nmaxpool_depth=1  <--\n",
        "[upsample]\nstride=-2  <--\n",
        "[route]\nlayers=-1\ngroups=2\ngroup_id=2  <--\n",
        "[route]\nlayers=-1\ngroups=3  <--\n",
        "[shortcut]\nfrom=-2\nweights_type=per_channel  <--\n",
        "[shortcut]\nfrom=0  <--\n",
        "[sam]\nfrom=0  <--\n",
        "[reorg]\nstride=2\nreverse=1  <--\n",
        "[reorg]\nstride=3  <--\n",
        f"{HEAD}[maxpool]  <--\nsize=2\n",
        "[yolo]  <--\nanchors=8,9,20,18\nclasses=2\nnum=2\n",
        f"{HEAD}mask=0,2  <--\n",
        f"{HEAD}[route]\nlayers=0\n{HEAD.replace('[yolo]', '[yolo]  <--')}new_coords=1\n",
        REGION.replace("[region]", "[region]  <--"),
        f"{REGION}softmax=0  <--\n",
        f"{REGION}softmax=1\ntree=t.tree  <--\n",
    ],
)
def test_what_is_not_supported_is_refused_with_its_line(text: str) -> None:
    before = f"{NET}{CONV}[max]\nsize=2\nstride=2\n"
    line = next(i for i, each in enumerate((before + text).split("\n"), 1) if "<--" in each)
    tail = "[route]\nlayers=0\n" if "[yolo]" in text or "[region]" in text else ""
    cfg = parse((before + text).replace("  <--", "") + tail + HEAD, path="n.cfg")
    with pytest.raises(CfgError) as caught:
        graph(cfg)
    assert caught.value.line == line


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(CfgError) as caught:
        graph(parse(NET + CONV, path="n.cfg"))
    assert caught.value.line == 1
