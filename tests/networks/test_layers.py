"""Shapes and parameter counts of layers."""

from __future__ import annotations

import pytest

from oiyolo.networks.builders import build, stock
from oiyolo.networks.cfg import CfgError, parse
from oiyolo.networks.layers import (
    expected_weight_bytes,
    head_channels,
    layers,
    size_multiple,
)

NET = "[net]\nwidth=64\nheight=32\nchannels=3\n"


def test_a_small_network_has_the_shapes_and_parameters_computed_by_hand(small_text: str) -> None:
    computed = layers(parse(small_text, path="n.cfg"))
    assert [layer.output_whc for layer in computed] == [
        (32, 32, 8),
        (16, 16, 8),
        (16, 16, 14),
        (16, 16, 14),
    ]
    # 8 biases, three times 8 for batch normalisation, 8 filters of 3x3x3; then 14 of 1x1x8.
    assert [layer.parameter_count for layer in computed] == [8 + 24 + 216, 0, 14 + 112, 0]
    assert expected_weight_bytes(parse(small_text, path="n.cfg")) == 20 + 4 * (248 + 126)


# Sizes of the published weights files.
@pytest.mark.parametrize(
    ("network", "layer_count", "size_bytes"),
    [
        ("yolov3", None, 248_007_048),
        ("yolov3", 75, 162_482_580),
        ("yolov3-tiny", None, 35_434_956),
        ("yolov3-tiny", 15, 30_973_396),
        ("yolov3-tiny", 11, 6_303_188),
        ("yolov4", None, 257_717_640),
        ("yolov4", 137, 170_038_676),
        ("yolov4-tiny", None, 24_251_276),
        ("yolov4-tiny", 29, 19_789_716),
    ],
)
def test_published_weights_have_the_computed_size(
    network: str, layer_count: int | None, size_bytes: int
) -> None:
    assert expected_weight_bytes(stock(network), layer_count) == size_bytes


@pytest.mark.parametrize("network", ["yolov3", "yolov3-tiny", "yolov4", "yolov4-tiny"])
def test_input_size_and_classes_do_not_change_the_backbone(network: str) -> None:
    pretrained = {"yolov3": 75, "yolov3-tiny": 15, "yolov4": 137, "yolov4-tiny": 29}[network]
    small = build(network, class_count=1, size_wh=(96, 64))
    assert expected_weight_bytes(small, pretrained) == expected_weight_bytes(
        stock(network), pretrained
    )


# The strides of all layers up to the coarsest one; 32 is darknet's own rule.
@pytest.mark.parametrize(
    ("sections", "multiple"),
    [
        ("[convolutional]\nstride=2\n", 32),
        ("[convolutional]\nstride=8\n[maxpool]\nstride=8\n", 64),
        ("[convolutional]\nstride_x=64\nstride_y=2\n", 64),
        ("[maxpool]\nstride=64\n[upsample]\nstride=8\n[reorg]\nstride=2\n", 64),
        ("[maxpool]\nstride=8\n[upsample]\nstride=8\n[maxpool]\nstride=16\n", 32),
        ("[maxpool]\nstride=8\n[maxpool]\nstride=8\n[route]\nlayers=0\n[reorg]\nstride=16\n", 128),
        ("[maxpool]\nstride=16\n[upsample]\nstride=-8\n", 128),
        ("[convolutional]\nstride=3\n", 96),
    ],
)
def test_the_size_multiple_follows_from_the_strides(sections: str, multiple: int) -> None:
    assert size_multiple(parse(NET + sections, path="n.cfg")) == multiple


@pytest.mark.parametrize("network", ["yolov3", "yolov3-tiny", "yolov4", "yolov4-tiny", "demo"])
def test_the_networks_need_multiples_of_32(network: str) -> None:
    assert size_multiple(stock(network)) == 32


@pytest.mark.parametrize(
    "sections",
    [
        "[maxpool]\nstride=0\n",
        "[upsample]\nstride=0\n",
        "[route]\nlayers=3\n",
    ],
)
def test_impossible_strides_and_sources_are_errors(sections: str) -> None:
    for compute in (size_multiple, layers):
        with pytest.raises(CfgError) as caught:
            compute(parse(NET + sections, path="n.cfg"))
        assert caught.value.line == 6


def test_an_implausible_total_stride_is_an_error() -> None:
    cfg = parse(NET + "[maxpool]\nstride=100000\n" * 90, path="n.cfg")
    with pytest.raises(CfgError) as caught:
        size_multiple(cfg)
    assert caught.value.line == 5


@pytest.mark.parametrize(
    ("section", "output_whc", "parameter_count"),
    [
        ("[contrastive]\nclasses=1\nyolo_layer=-2\n", (64, 32, 3), 0),
        # Convolutions of 3 to 2, 2 to 2 and 2 to 4 channels.
        ("[crnn]\nhidden=2\noutput=4\npad=1\n", (64, 32, 4), 8 + 9 * (6 + 4 + 8)),
        (
            "[crnn]\nhidden_filters=2\noutput_filters=4\nbatch_normalize=1\n",
            (64, 32, 4),
            32 + 9 * (6 + 4 + 8),
        ),
        ("[convolutional]\nfilters=4\nsize=3\nstride=1\npadding=2\n", (66, 34, 4), 4 + 108),
        ("[convolutional]\nfilters=6\nsize=1\ngroups=3\n", (64, 32, 6), 6 + 6),
        ("[convolutional]\nfilters=4\nsize=1\nstride_x=2\n", (32, 32, 4), 4 + 12),
        ("[maxpool]\nsize=2\nstride=2\n", (32, 16, 3), 0),
        ("[maxpool]\nsize=13\nstride=1\n", (64, 32, 3), 0),
        ("[maxpool]\nsize=2\nstride=2\npadding=0\n", (32, 16, 3), 0),
        ("[avgpool]\n", (1, 1, 3), 0),
        ("[upsample]\nstride=2\n", (128, 64, 3), 0),
        ("[upsample]\nstride=-2\n", (32, 16, 3), 0),
        ("[reorg]\nstride=2\n", (32, 16, 12), 0),
        ("[connected]\noutput=5\nbatch_normalize=1\n", (1, 1, 5), 5 + 5 * 64 * 32 * 3 + 15),
        ("[local]\nfilters=2\nsize=3\nstride=1\npad=1\n", (64, 32, 2), 64 * 32 * (2 + 54)),
        ("[batchnorm]\n", (64, 32, 3), 12),
        ("[crop]\ncrop_width=28\ncrop_height=30\n", (28, 30, 3), 0),
        ("[dropout]\n", (64, 32, 3), 0),
        ("[softmax]\n", (64, 32, 3), 0),
    ],
)
def test_each_layer_type_has_its_shape_and_parameters(
    section: str, output_whc: tuple[int, int, int], parameter_count: int
) -> None:
    (layer,) = layers(parse(NET + section, path="n.cfg"))
    assert (layer.output_whc, layer.parameter_count) == (output_whc, parameter_count)


def test_routes_and_shortcuts_refer_to_their_sources() -> None:
    text = (
        NET
        + "[convolutional]\nfilters=4\n"
        + "[convolutional]\nfilters=6\n"
        + "[route]\nlayers=-1, 0\n"
        + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
        + "[reorg]\nstride=4\nreverse=1\n[route]\nlayers=3\n"
        + "[shortcut]\nfrom=-4\nactivation=linear\n"
        + "[shortcut]\nfrom=-1,-2\nweights_type=per_channel\n"
        + "[convolutional]\nfilters=2\nshare_index=1\n"
    )
    computed = layers(parse(text.replace("stride=4\nreverse=1", "stride=1"), path="n.cfg"))
    assert [layer.sources for layer in computed[2:4]] == [(1, 0), (2,)]
    assert [layer.output_whc[2] for layer in computed] == [4, 6, 10, 5, 5, 5, 5, 5, 2]
    assert computed[7].parameter_count == 3 * 5
    assert computed[8].parameter_count == 0


@pytest.mark.parametrize(
    ("head", "channels"),
    [
        ("[yolo]\nmask=0,1,2\nnum=9\nclasses=80\n", 255),
        ("[yolo]\nnum=3\nclasses=1\n", 18),
        ("[Gaussian_yolo]\nmask=0,1,2\nnum=9\nclasses=80\n", 267),
        ("[region]\nnum=5\nclasses=20\ncoords=4\n", 125),
    ],
)
def test_a_head_needs_channels_for_its_anchors_and_classes(head: str, channels: int) -> None:
    assert head_channels(parse("[net]\n" + head, path="n.cfg").layers[0]) == channels


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("[net]\nwidth=64\n", 1, "input"),
        (NET + "[nonsense]\n", 5, "[nonsense]"),
        (NET + "[convolutional]\nfilters=0\n", 6, "filters"),
        (NET + "[convolutional]\nfilters=1\nstride=0\n", 7, "stride"),
        (NET + "[convolutional]\nsize=99\n", 5, "layer 0"),
        (NET + "[route]\n", 5, "layers="),
        (NET + "[route]\nlayers=0\n", 6, "layer 0"),
        (NET + "[dropout]\n[route]\nlayers=-2\n", 7, "layers from 0 to 0"),
        (
            NET + "[maxpool]\nsize=2\nstride=2\n[upsample]\n[route]\nlayers=0,1\n",
            10,
            "32x16, 64x32",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_rejected_with_its_line(
    text: str, line: int, named: str
) -> None:
    with pytest.raises(CfgError) as caught:
        layers(parse(text, path="n.cfg"))
    assert caught.value.line == line
    assert named in str(caught.value)
