"""Building published networks and adapting a user's file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oiyolo.core.errors import UsageError
from oiyolo.networks.builders import (
    NETWORKS,
    adapt,
    anchors_of,
    build,
    cfg_folder,
    changes,
    default_schedule,
    diff,
    find_network,
    stock,
    suits_multi_scale,
    without_mosaic,
)
from oiyolo.networks.cfg import CfgError, parse, read
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.lint import lint
from oiyolo.networks.schedule import schedule_for, schedule_of
from oiyolo.networks.stock import TEXTS
from oiyolo.networks.weights import PRETRAINED, check_weights

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg

ROOT = Path(__file__).parents[2]
NAMED = os.environ.get("OIYOLO_TEST_ALEXEYAB")
TREES = (
    *([Path(NAMED) / "cfg"] if NAMED else []),
    ROOT / "darknet/cfg",
    Path("/usr/share/darknet/cfg"),
)


def canonical_layers(cfg: Cfg) -> list[tuple[str, dict[str, Any]]]:
    """Return kind and options of each layer, with the sources of routes as absolute indices."""
    result = []
    for layer in layers(cfg):
        values: dict[str, Any] = dict(layer.section.canonical())
        if layer.sources:
            values["layers" if layer.kind == "route" else "from"] = layer.sources
        result.append((layer.kind, values))
    return result


def installed(name: str) -> Cfg:
    for tree in TREES:
        if (tree / f"{name}.cfg").exists():
            return read(tree / f"{name}.cfg")
    pytest.skip(f"no {name}.cfg in {' or '.join(map(str, TREES))}")


@pytest.mark.parametrize("name", TEXTS)
def test_each_network_equals_darknets_layer_by_layer(name: str) -> None:
    theirs = installed(name)
    ours = stock(name)
    assert canonical_layers(ours) == canonical_layers(theirs)
    net, their_net = ours.net.canonical(), theirs.net.canonical()
    # Some published files are set for testing: batch is 1, and AlexeyAB's yolov3 also has another
    # size. The networks of oiyolo are set for training.
    is_for_testing = their_net["batch"] == [1.0]
    skipped = {"batch", "subdivisions"} if is_for_testing else set()
    if is_for_testing and name == "yolov3":
        skipped |= {"width", "height"}
    assert {k: v for k, v in net.items() if k not in skipped} == {
        k: v for k, v in their_net.items() if k not in skipped
    }


@pytest.mark.parametrize("name", TEXTS)
def test_a_stock_network_at_its_own_size_is_built_unchanged(name: str) -> None:
    own = stock(name)
    assert build(name, class_count=80, size_wh=own.size_wh).render() == own.render()


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("size_wh", [(416, 416), (608, 608), (96, 96), (640, 384)])
@pytest.mark.parametrize("class_count", [1, 7])
def test_built_networks_pass_the_linter(
    name: str, size_wh: tuple[int, int], class_count: int
) -> None:
    schedule = schedule_for(class_count, 3000)
    cfg = build(name, class_count=class_count, size_wh=size_wh, schedule=schedule)
    for fork in NETWORKS[name].forks:
        findings = lint(cfg, class_count=class_count, fork=fork)
        assert [f for f in findings if "mosaic" not in f.what] == []
    assert schedule_of(cfg) == schedule
    assert cfg.size_wh == size_wh
    heads = [layer for layer in layers(cfg) if layer.kind == "yolo"]
    assert {head.output_whc[2] for head in heads} == {3 * (5 + class_count)}


def test_the_sizes_of_pretrained_weights_match_their_networks() -> None:
    for network in NETWORKS.values():
        if network.pretrained:
            entry = PRETRAINED[network.pretrained]
            assert expected_weight_bytes(stock(network.name), entry.layers) == entry.size_bytes


def test_mirrors_of_full_networks_have_the_size_of_the_network() -> None:
    for network in NETWORKS.values():
        for mirror in PRETRAINED[network.pretrained].mirrors if network.pretrained else ():
            if mirror.full_network_bytes:
                assert mirror.full_network_bytes == expected_weight_bytes(stock(network.name))


@pytest.mark.parametrize(
    ("name", "size_wh", "first"),
    [
        # Unscaled from 416 to 608, as their authors used them.
        ("yolov3", (416, 416), [10, 13]),
        ("yolov3", (512, 512), [10, 13]),
        ("yolov3", (608, 608), [10, 13]),
        ("yolov3", (208 - 16, 416), [4.6, 13]),
        ("yolov3", (1216, 608), [20, 13]),
        ("yolov4", (416, 416), [9.8, 13]),
        ("yolov4", (608, 608), [12, 16]),
        ("yolov4-tiny", (832, 832), [20, 28]),
    ],
)
def test_stock_anchors_are_scaled_outside_their_range(
    name: str, size_wh: tuple[int, int], first: list[float]
) -> None:
    cfg = build(name, class_count=1, size_wh=size_wh)
    assert anchors_of(cfg)[0].tolist() == pytest.approx(first)


def test_all_own_anchors_are_used() -> None:
    anchors = np.arange(10.0, 22.0).reshape(6, 2)
    cfg = build("yolov4-tiny", class_count=1, size_wh=(416, 416), anchors=anchors)
    heads = [layer for layer in cfg.layers if layer.kind == "yolo"]
    assert sorted(i for head in heads for i in head.integers("mask")) == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(anchors_of(cfg), anchors)


def test_a_different_number_of_anchors_is_rejected() -> None:
    with pytest.raises(UsageError) as caught:
        build("yolov3", class_count=1, size_wh=(416, 416), anchors=np.ones((6, 2)))
    assert "9 anchors" in caught.value.expected


@pytest.mark.parametrize(
    ("name", "size_wh", "multi_scale", "random"),
    [
        ("yolov3", (416, 416), True, 1),
        ("yolov3", (416, 416), False, 0),
        ("yolov3", (96, 96), True, 0),
        ("yolov3", (416, 608), True, 0),
        ("yolov3", (640, 640), True, 0),
        ("yolov4", (416, 416), True, 1),
        ("yolov4-tiny", (416, 416), True, 0),
    ],
)
def test_multi_scale_training_depends_on_the_input_size(
    name: str, size_wh: tuple[int, int], multi_scale: bool, random: int
) -> None:
    cfg = build(name, class_count=1, size_wh=size_wh, multi_scale=multi_scale)
    assert cfg.layers[-1].integer("random", 0) == random


@pytest.mark.parametrize(
    ("size_wh", "image_count", "expected"),
    [((416, 416), 5000, True), ((416, 416), 300, False), ((96, 96), 5000, False)],
)
def test_multi_scale_training_needs_enough_images(
    size_wh: tuple[int, int], image_count: int, expected: bool
) -> None:
    assert suits_multi_scale(size_wh, image_count) == expected


def test_adapting_a_users_file_changes_only_what_is_necessary(small_text: str) -> None:
    cfg = parse(small_text, path="mine.cfg")
    adapted = adapt(
        cfg, class_count=3, size_wh=(128, 64), schedule=schedule_for(3, 10, batch=8, subdivisions=2)
    )
    assert cfg.render() == small_text
    changed = [line for line in diff(cfg, adapted).splitlines() if line.startswith(("+", "-"))]
    assert changed == [
        "--- mine.cfg",
        "+++ adapted",
        "-width=64",
        "+width=128",
        "-learning_rate=.002",
        "-burn_in=20",
        "-max_batches=400",
        "+learning_rate=0.001",
        "+burn_in=600",
        "+max_batches=6000",
        "-steps=300,360",
        "+steps=4800,5400",
        "-filters=14",
        "+filters=16",
        "-anchors = 8,9,  20.5,18",
        "-classes=2",
        "+anchors = 16,9,  41,18",
        "+classes=3",
    ]
    assert lint(adapted, class_count=3, fork="pjreddie") == []
    assert diff(adapted, adapted) == ""


def test_the_changed_options_name_all_of_their_layers_once() -> None:
    before = stock("yolov3")
    found = changes(before, build("yolov3", class_count=1, size_wh=(416, 416)))
    by_key = {change.key: change for change in found}
    assert len(by_key) == len(found)
    assert by_key["classes"] == ("[yolo] of layers 82, 94, 106", "classes", "80", "1")
    assert by_key["filters"] == ("[convolutional] of layers 81, 93, 105", "filters", "255", "18")
    assert by_key["width"] == ("[net]", "width", "608", "416")
    assert changes(before, before) == []


def test_adapting_a_file_that_already_fits_changes_nothing(small_text: str) -> None:
    cfg = parse(small_text, path="mine.cfg")
    assert adapt(cfg, class_count=2, size_wh=(64, 64)).render() == small_text


def test_region_heads_are_adapted_but_keep_their_anchors() -> None:
    text = (
        "[net]\nwidth=416\nheight=416\nchannels=3\n[convolutional]\nfilters=125\n"
        "[region]\nanchors=1,2\nnum=5\nclasses=20\ncoords=4\n"
    )
    cfg = adapt(parse(text, path="v2.cfg"), class_count=1, size_wh=(416, 416))
    assert cfg.layers[0].integer("filters", 0) == 30
    with pytest.raises(CfgError) as caught:
        anchors_of(cfg)
    assert caught.value.line == 8
    with pytest.raises(UsageError):
        adapt(cfg, class_count=1, size_wh=(416, 416), anchors=np.ones((5, 2)))


@pytest.mark.parametrize(
    ("side", "anchors"), [(96, [0.132168, 0.15632]), (608, [0.837067, 0.990024])]
)
def test_anchors_in_cells_are_scaled_and_not_rounded(side: int, anchors: list[float]) -> None:
    text = (
        "[net]\nwidth=416\nheight=416\nchannels=3\n[convolutional]\nfilters=25\n"
        "[region]\nanchors=0.57273,0.677385\nnum=1\n"
    )
    cfg = adapt(parse(text, path="v2.cfg"), class_count=1, size_wh=(side, side))
    assert cfg.layers[-1].numbers("anchors") == pytest.approx(anchors, rel=1e-5)
    default = text.replace("anchors=0.57273,0.677385\n", "")
    cfg = adapt(parse(default, path="v2.cfg"), class_count=1, size_wh=(side, side))
    assert not cfg.layers[-1].has("anchors")


def test_the_size_must_suit_the_strides_of_the_network(small_text: str) -> None:
    coarse = small_text.replace("size=2\nstride=2", "size=32\nstride=32")
    cfg = parse(coarse.replace("random=0", "random=1"), path="mine.cfg")
    with pytest.raises(UsageError) as caught:
        adapt(cfg, class_count=2, size_wh=(416, 96))
    assert caught.value.where == "mine.cfg"
    assert "multiples of 64 " in caught.value.expected
    assert "384x128" in caught.value.remedy
    # At multiples of 32, which multi-scale training uses, the network would not work.
    adapted = adapt(cfg, class_count=2, size_wh=(448, 448))
    assert adapted.layers[-1].integer("random", 0) == 0


def test_an_adapted_network_keeps_the_line_numbers_of_the_file(small_text: str) -> None:
    text = small_text.replace("subdivisions=2  # two parts\n", "").replace("burn_in=20\n", "")
    cfg = parse(text, path="mine.cfg")
    adapted = adapt(cfg, class_count=3, size_wh=(96, 64), schedule=schedule_for(3, 100))
    assert adapted.net.has("subdivisions")
    lines = text.splitlines()
    for before, after in zip(cfg.sections, adapted.sections, strict=True):
        assert [before.line_of(key) for key in before.option_keys()] == [
            after.line_of(key) for key in before.option_keys()
        ]
    assert lines[adapted.layers[-1].line_of("mask") - 1] == "mask = 0,1"


@pytest.mark.parametrize(
    ("change", "overrides", "key"),
    [
        (("subdivisions=2 ", "subdivisions=16 "), {}, "subdivisions"),
        (("subdivisions=2 ", "subdivisions=0 "), {"batch": 8}, "subdivisions"),
        (("learning_rate=.002", "learning_rate=-1"), {}, "learning_rate"),
        (("batch = 8", "batch = 1e9"), {}, "batch"),
    ],
)
def test_an_invalid_schedule_in_a_file_is_reported_with_its_line(
    small_text: str, tmp_path: Path, change: tuple[str, str], overrides: Any, key: str
) -> None:
    path = tmp_path / "mine.cfg"
    path.write_text(small_text.replace(*change))
    with pytest.raises(CfgError) as caught:
        default_schedule(str(path), class_count=1, image_count=10, **overrides)
    assert caught.value.line == read(path).net.line_of(key)


def test_options_replace_invalid_values_of_a_file(small_text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.cfg"
    text = small_text.replace("subdivisions=2 ", "subdivisions=16 ")
    path.write_text(text.replace("learning_rate=.002", "learning_rate=0"))
    schedule = default_schedule(
        str(path), class_count=1, image_count=10, subdivisions=4, learning_rate=0.01
    )
    assert (schedule.batch, schedule.subdivisions, schedule.learning_rate) == (8, 4, 0.01)


def test_anchors_that_are_not_pairs_cannot_be_scaled(small_text: str) -> None:
    cfg = parse(small_text.replace("8,9,  20.5,18", "8,9,  20.5"), path="mine.cfg")
    with pytest.raises(CfgError) as caught:
        adapt(cfg, class_count=2, size_wh=(128, 64))
    assert caught.value.line == cfg.layers[-1].line_of("anchors")


@pytest.mark.parametrize(
    ("class_count", "size_wh", "suggested"),
    [(0, (416, 416), ""), (1, (400, 416), "[384, 416]"), (1, (0, 32), "[32, 32]")],
)
def test_invalid_arguments_are_rejected(
    class_count: int, size_wh: tuple[int, int], suggested: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build("yolov3", class_count=class_count, size_wh=size_wh)
    assert suggested in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("[net]\n[convolutional]\n", 1, ""),
        ("[net]\n[maxpool]\n[yolo]\n", 3, "[maxpool]"),
        ("[net]\n[yolo]\n", 2, "[net]"),
    ],
)
def test_a_network_that_is_not_a_detector_is_rejected(text: str, line: int, found: str) -> None:
    with pytest.raises(CfgError) as caught:
        adapt(parse(text, path="n.cfg"), class_count=1, size_wh=(32, 32))
    assert (caught.value.line, caught.value.found) == (line, found)


def test_an_unknown_network_is_rejected_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_network("yolov4-tini")
    assert "yolov4-tiny" in caught.value.remedy
    with pytest.raises(UsageError) as caught:
        stock("resnet")
    assert all(name in caught.value.expected for name in NETWORKS)
    with pytest.raises(UsageError) as caught:
        stock(str(tmp_path / "mine.cfg"))
    assert caught.value.where == str(tmp_path / "mine.cfg")


def test_a_path_is_accepted_as_a_network(tmp_path: Path, small_text: str) -> None:
    path = tmp_path / "mine.cfg"
    path.write_text(small_text)
    assert stock(str(path)).render() == small_text
    cfg = build(str(path), class_count=1, size_wh=(64, 64))
    assert cfg.layers[-1].integer("classes", 0) == 1
    schedule = default_schedule(str(path), class_count=1, image_count=10)
    assert (schedule.max_batches, schedule.batch, schedule.subdivisions) == (6000, 8, 2)
    assert schedule.learning_rate == 0.002
    path.write_text(small_text.replace("batch = 8", "batch = 1"))
    schedule = default_schedule(str(path), class_count=1, image_count=10)
    assert (schedule.batch, schedule.subdivisions) == (64, 16)


def test_default_schedules_respect_the_users_values() -> None:
    schedule = default_schedule("yolov4", class_count=5, image_count=100)
    assert (schedule.max_batches, schedule.learning_rate) == (10_000, 0.0013)
    short = default_schedule("yolov3", class_count=5, image_count=1, max_batches=50, batch=8)
    assert (short.max_batches, short.burn_in, short.steps) == (50, 5, (40, 45))
    assert (short.batch, short.subdivisions) == (8, 2)


def test_the_demo_network_keeps_its_schedule() -> None:
    assert cfg_folder() == ROOT / "cfg"
    own = schedule_of(stock("demo"))
    assert default_schedule("demo", class_count=1, image_count=400) == own
    half = default_schedule(
        "demo", class_count=1, image_count=400, max_batches=own.max_batches // 2
    )
    assert half.burn_in == own.burn_in // 2
    demo = build("demo", class_count=2, size_wh=NETWORKS["demo"].size_wh, schedule=half)
    for fork in NETWORKS["demo"].forks:
        assert lint(demo, class_count=2, fork=fork) == []
    assert stock("demo").size_wh == NETWORKS["demo"].size_wh
    assert (own.batch, own.subdivisions) == (NETWORKS["demo"].batch, NETWORKS["demo"].subdivisions)


def test_mosaic_augmentation_can_be_disabled() -> None:
    cfg = without_mosaic(stock("yolov4"))
    assert cfg.net.integer("mosaic", 1) == 0
    assert without_mosaic(stock("yolov3")).render() == stock("yolov3").render()


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov3", "demo"])
def test_darknet_builds_the_computed_layers(name: str, tmp_path: Path) -> None:
    darknet = shutil.which("darknet")
    if darknet is None:
        pytest.skip("no darknet on PATH (apt-get install darknet)")
    cfg = build(name, class_count=2, size_wh=(96, 96))
    (tmp_path / "net.cfg").write_bytes(cfg.encode())
    computed = layers(cfg)
    # `partial` without input weights writes the first layers as initialised.
    layer_count = 16 if name == "yolov3" else len(computed)
    done = subprocess.run(
        [darknet, "partial", "net.cfg", "", "net.weights", str(layer_count)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    table = re.findall(
        r"^\s*(\d+) \w.*->\s*(\d+) x\s*(\d+) x\s*(\d+)\b", done.stderr, flags=re.MULTILINE
    )
    printed = {int(row[0]): tuple(map(int, row[1:])) for row in table}
    expected = {layer.index for layer in computed if layer.kind not in ("route", "yolo")}
    assert expected <= set(printed)
    assert printed == {index: computed[index].output_whc for index in printed}
    weights = tmp_path / "net.weights"
    assert weights.stat().st_size == expected_weight_bytes(cfg, layer_count)
    report = check_weights(weights, cfg)
    assert report.filled_layers == layer_count
    assert (report.header.seen, report.is_complete) == (0, layer_count == len(computed))
