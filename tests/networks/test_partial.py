"""Transfer of weights trained for other classes, and backbones identified by their layers."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.networks.builders import adapt, build, stock
from oiyolo.networks.cfg import parse
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.partial import find_transferable_layers, pretrained_for, write_partial_weights
from oiyolo.networks.weights import check_weights

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg


def write_weights(path: Path, cfg: Cfg, *, seen: int = 6400, short_header: bool = False) -> Path:
    """Write valid weights of a full network."""
    rng = np.random.default_rng(3)
    count = (expected_weight_bytes(cfg) - 20) // 4
    numbers = np.abs(rng.normal(0, 0.1, count)).astype("<f4")
    header = (
        struct.pack("<3iI", 0, 1, 0, seen) if short_header else struct.pack("<3iQ", 0, 2, 5, seen)
    )
    path.write_bytes(header + numbers.tobytes())
    return path


@pytest.fixture
def cfg(small_text: str) -> Cfg:
    return parse(small_text, path="n.cfg")


@pytest.mark.parametrize("short_header", [False, True])
@pytest.mark.parametrize("class_count", [1, 3, 80])
def test_weights_for_other_classes_are_used_up_to_the_head(
    tmp_path: Path, cfg: Cfg, class_count: int, short_header: bool
) -> None:
    trained = adapt(cfg, class_count=class_count, size_wh=cfg.size_wh)
    path = write_weights(tmp_path / "w.weights", trained, short_header=short_header)
    transfer = find_transferable_layers(path, cfg)
    assert (transfer.filled_layers, transfer.layer_count, transfer.class_count) == (
        2,
        4,
        class_count,
    )
    write_partial_weights(path, cfg, transfer.filled_layers, tmp_path / "partial")
    report = check_weights(tmp_path / "partial", cfg, expected_bytes=expected_weight_bytes(cfg, 2))
    assert (report.filled_layers, report.header.seen) == (2, 0)
    header_bytes = 16 if short_header else 20
    body_bytes = (tmp_path / "partial").stat().st_size - 20
    assert (tmp_path / "partial").read_bytes()[20:] == path.read_bytes()[
        header_bytes : header_bytes + body_bytes
    ]


def test_weights_for_the_same_classes_are_used_completely(tmp_path: Path, cfg: Cfg) -> None:
    transfer = find_transferable_layers(write_weights(tmp_path / "w.weights", cfg), cfg)
    assert (transfer.filled_layers, transfer.layer_count, transfer.class_count) == (4, 4, 0)


@pytest.mark.parametrize("lost_bytes", [4, 4000])
def test_weights_of_another_network_are_rejected(tmp_path: Path, cfg: Cfg, lost_bytes: int) -> None:
    trained = adapt(cfg, class_count=80, size_wh=cfg.size_wh)
    path = write_weights(tmp_path / "w.weights", trained)
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    for file, kind in ((path, InputFormError), (tmp_path / "none", UsageError)):
        with pytest.raises(kind) as caught:
            find_transferable_layers(file, cfg)
        assert caught.value.where == str(file)


@pytest.mark.parametrize(("name", "first", "of"), [("yolov3", 81, 107), ("yolov4", 138, 162)])
def test_detectors_for_coco_transfer_all_layers_before_the_first_head(
    name: str, first: int, of: int
) -> None:
    network, trained = (layers(build(name, class_count=n, size_wh=(416, 416))) for n in (1, 80))
    differ = [layer.index for layer, other in zip(network, trained, strict=True)
              if layer.parameter_count != other.parameter_count]  # fmt: skip
    assert (differ[0], len(network)) == (first, of)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("yolov3", "darknet53.conv.74"),
        ("yolov3-tiny", "yolov3-tiny.conv.15"),
        ("yolov4", "yolov4.conv.137"),
        ("yolov4-tiny", "yolov4-tiny.conv.29"),
        ("demo", None),
    ],
)
def test_a_backbone_is_identified_by_its_layers(name: str, weights: str | None) -> None:
    assert pretrained_for(build(name, class_count=3, size_wh=(608, 352))) == weights
    other = stock(name)
    other.layers[1 if name != "yolov3-tiny" else 2].set("filters", 40)
    with_other_filters = parse(other.render(), path="network.cfg")
    assert name == "demo" or pretrained_for(with_other_filters) is None


@pytest.mark.darknet
def test_darknet_fills_exactly_the_extracted_layers(tmp_path: Path) -> None:
    darknet = shutil.which("darknet")
    if darknet is None:
        pytest.skip("no darknet on PATH (apt-get install darknet)")
    network, trained = (build("demo", class_count=n, size_wh=(96, 96)) for n in (1, 3))
    write_weights(tmp_path / "trained.weights", trained)
    transfer = find_transferable_layers(tmp_path / "trained.weights", network)
    write_partial_weights(
        tmp_path / "trained.weights", network, transfer.filled_layers, tmp_path / "start.weights"
    )
    (tmp_path / "network.cfg").write_bytes(network.encode())
    # `partial` loads the given weights and writes the full network.
    done = subprocess.run(
        [
            darknet,
            "partial",
            "network.cfg",
            "start.weights",
            "all.weights",
            str(transfer.layer_count),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.search(r"Loading weights from start\.weights\.\.\.\s*Done", done.stderr)
    loaded, initial = ((tmp_path / f"{n}.weights").read_bytes() for n in ("all", "start"))
    assert loaded[20 : len(initial)] == initial[20:]
    # The head is initialised randomly, and not with the bytes that follow in the original file.
    following = (tmp_path / "trained.weights").read_bytes()[len(initial) : len(loaded)]
    assert loaded[len(initial) :] != following
    assert len(loaded) == expected_weight_bytes(network)
