"""Weights that were trained for other classes, and backbones known by their layers."""

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
from oiyolo.networks.partial import cut, pretrained_for, usable
from oiyolo.networks.weights import check_weights

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg


def write_weights(path: Path, cfg: Cfg, *, seen: int = 6400, short_header: bool = False) -> Path:
    """Write good weights of a whole network."""
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
    theirs = adapt(cfg, class_count=class_count, size_wh=cfg.size_wh)
    path = write_weights(tmp_path / "w.weights", theirs, short_header=short_header)
    found = usable(path, cfg)
    assert (found.layers, found.layer_count, found.class_count) == (2, 4, class_count)
    assert found.must_be_cut
    cut(path, cfg, found.layers, tmp_path / "cut")
    report = check_weights(tmp_path / "cut", cfg, expected_bytes=expected_weight_bytes(cfg, 2))
    assert (report.filled_layers, report.header.seen) == (2, 0)
    begins = 16 if short_header else 20
    kept = report.size_bytes - 20
    assert (tmp_path / "cut").read_bytes()[20:] == path.read_bytes()[begins : begins + kept]


def test_weights_for_the_same_classes_are_used_whole(tmp_path: Path, cfg: Cfg) -> None:
    found = usable(write_weights(tmp_path / "w.weights", cfg), cfg)
    assert (found.layers, found.layer_count, found.must_be_cut) == (4, 4, False)


@pytest.mark.parametrize("lost_bytes", [4, 4000])
def test_weights_of_no_such_network_are_refused(tmp_path: Path, cfg: Cfg, lost_bytes: int) -> None:
    theirs = adapt(cfg, class_count=80, size_wh=cfg.size_wh)
    path = write_weights(tmp_path / "w.weights", theirs)
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    with pytest.raises(InputFormError, match="cannot be used"):
        usable(path, cfg)
    with pytest.raises(UsageError, match="no such weights file"):
        usable(tmp_path / "none", cfg)


@pytest.mark.parametrize(("name", "first", "of"), [("yolov3", 81, 107), ("yolov4", 138, 162)])
def test_cocos_detectors_keep_all_before_their_first_head(name: str, first: int, of: int) -> None:
    mine, theirs = (layers(build(name, class_count=n, size_wh=(416, 416))) for n in (1, 80))
    differ = [a.index for a, b in zip(mine, theirs, strict=True)
              if a.parameter_count != b.parameter_count]  # fmt: skip
    assert (differ[0], len(mine)) == (first, of)


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
def test_a_backbone_is_known_by_its_layers(name: str, weights: str | None) -> None:
    assert pretrained_for(build(name, class_count=3, size_wh=(608, 352))) == weights
    other = stock(name)
    other.layers[1 if name != "yolov3-tiny" else 2].set("filters", 40)
    with_other_filters = parse(other.render(), path="mine.cfg")
    assert name == "demo" or pretrained_for(with_other_filters) is None


@pytest.mark.darknet
def test_darknet_fills_the_layers_that_were_cut_and_no_other(tmp_path: Path) -> None:
    darknet = shutil.which("darknet")
    if darknet is None:
        pytest.skip("no darknet on PATH (apt-get install darknet)")
    mine, theirs = (build("demo", class_count=n, size_wh=(96, 96)) for n in (1, 3))
    write_weights(tmp_path / "theirs.weights", theirs)
    found = usable(tmp_path / "theirs.weights", mine)
    cut(tmp_path / "theirs.weights", mine, found.layers, tmp_path / "start.weights")
    (tmp_path / "mine.cfg").write_bytes(mine.encode())
    # `partial` loads what it is given and writes the whole network as it then is.
    done = subprocess.run(
        [darknet, "partial", "mine.cfg", "start.weights", "all.weights", str(found.layer_count)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.search(r"Loading weights from start\.weights\.\.\.\s*Done", done.stderr)
    loaded, given = ((tmp_path / f"{n}.weights").read_bytes() for n in ("all", "start"))
    assert loaded[20 : len(given)] == given[20:]
    # The head is noise, as darknet begins: not what stood behind in the other's file.
    behind = (tmp_path / "theirs.weights").read_bytes()[len(given) : len(loaded)]
    assert loaded[len(given) :] != behind
    assert len(loaded) == expected_weight_bytes(mine)
