"""The linter for network files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError, OiyoloError
from oiyolo.networks.builders import adapt, anchors_of, stock
from oiyolo.networks.cfg import parse, read
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.lint import check, check_own, lint
from oiyolo.networks.memory import choose_subdivisions
from oiyolo.networks.partial import pretrained_for
from oiyolo.networks.schedule import schedule_for, schedule_of
from oiyolo.networks.stock import TEXTS
from tests.support.strange_values import STRANGE_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.networks.lint import ForkName

DEBIAN_CFGS = Path("/usr/share/darknet/cfg")
SMALL_STRANGE = """[net]
width=32
height=32
channels=3
batch=2
max_batches=9
[reorg]
stride=2
[local]
size=3
filters=2
pad=1
[connected]
output=9
[crop]
crop_width=3
crop_height=3
[upsample]
stride=2
[conv]
filters=7
groups=1
[region]
num=1
classes=2
anchors=1,1
"""


def test_a_valid_file_has_no_findings(small_text: str) -> None:
    forks: tuple[ForkName | None, ...] = (None, "pjreddie", "alexeyab", "hank")
    for fork in forks:
        assert lint(parse(small_text, path="n.cfg"), class_count=2, fork=fork) == []


# Each row: a replacement in the file, then the finding's level and line, and words in it.
@pytest.mark.parametrize(
    ("change", "level", "line", "words"),
    [
        (("filters=14", "filters=255"), "error", 28, ["filters=255", "Set filters=14"]),
        (("mask = 0,1", "mask = 0"), "error", 28, ["filters=14", "Set filters=7"]),
        (("mask = 0,1", "mask = 0,2"), "error", 36, ["lists anchor 2", "num=2", "0 to 1"]),
        (("mask = 0,1", "mask = 0,-1"), "error", 36, ["lists anchor -1"]),
        (("  20.5,18", "  20.5,18, 1"), "error", 37, ["num=2, but anchors lists 5 numbers"]),
        (
            ("anchors = 8,9,  20.5,18", "anchors = 8,9"),
            "error",
            37,
            ["lists 2 numbers", "List 4 numbers"],
        ),
        (("20.5,18", "20.5,0"), "error", 37, ["an anchor has no area"]),
        (("20.5,18", "20.5,"), "error", 37, ["comma-separated numbers"]),
        (("classes=2", "classes=80"), "error", 38, ["classes=80", "dataset has 2"]),
        (("width=64", "width=100"), "error", 5, ["not a multiple of 32", "Set width=96"]),
        (("height=64", "height=x"), "error", 6, ["a number", "'x'"]),
        (("batch = 8", "batch = 1"), "error", 3, ["batch=1 is a setting for testing"]),
        (("subdivisions=2", "subdivisions=3"), "error", 4, ["does not divide batch=8"]),
        (("subdivisions=2", "subdivisions=0"), "error", 4, ["does not divide"]),
        (("subdivisions=2", "subdivisions=16"), "error", 4, ["does not divide"]),
        (("burn_in=20", "burn_in=100"), "warning", 9, ["large part", "Set burn_in=40"]),
        (("burn_in=20", "burn_in=1000"), "error", 9, ["covers all of", "max_batches=400"]),
        (("max_batches=400", "max_batches=0"), "error", 10, ["means no training"]),
        (("steps=300,360", "steps=300,400"), "warning", 12, ["steps 400 are never reached"]),
        (("steps=300,360", "steps=360,300"), "error", 12, ["not ascending"]),
        (("steps=300,360", ""), "error", 2, ["0 steps and 2 scales"]),
        (("policy=steps", "policy=stepz"), "error", 11, ["unknown policy stepz"]),
        (("policy=steps", "policy=poly"), "warning", 12, ["no effect with policy=poly"]),
        (("learning_rate=.002", "learning_rate=0"), "error", 8, ["cannot learn"]),
        (("learning_rate=.002", "learning_rate=nan"), "error", 8, ["a number", "'nan'"]),
        (("max_batches=400", "max_batches=1e99"), "error", 10, ["'1e99'"]),
        (("num=2", "num=1e9"), "error", 39, ["num of [yolo] is out of range"]),
        (("num=2", "num=-1"), "error", 39, ["num of [yolo] is out of range"]),
        (("mask = 0,1", "mask = 1,1"), "error", 36, ["anchor 1 more than once"]),
        (("8,9,  20.5,18", "20.5,18, 8,9"), "warning", 37, ["not sorted by area"]),
        (("scales=.1,.1", "scales=.1"), "error", 13, ["2 steps and 1 scales"]),
        (("scales=.1,.1", "scales=.1,.1,.1"), "warning", 13, ["3 scales for 2 steps"]),
        (
            ("activation=linear", "activation=leaky"),
            "warning",
            32,
            ["activation=leaky before [yolo], which expects linear", "Set activation=linear"],
        ),
        (("random=0", "random=0\nnew_coords=1"), "warning", 32, ["Set activation=logistic"]),
        (("pad=1", "pad=1\npad=0"), "warning", 20, ["pad is set 2 times", "first"]),
        (("[maxpool]", "[route]\nlayers=-2\n[maxpool]"), "error", 24, ["does not precede"]),
        (("[maxpool]", "[shortcut]\nfrom=3\n[maxpool]"), "error", 24, ["refers to layer 3"]),
        (("[yolo]", "[dropout]\n[yolo]"), "error", 36, ["follows [dropout]"]),
        (("[yolo]", "[softmax]"), "error", 2, ["no [yolo] section"]),
        (("anchors = 8,9,  20.5,18\n", ""), "error", 35, ["[yolo] has no anchors", "4 numbers"]),
        (("num=2", "num=0"), "error", 39, ["num=0", "no anchor"]),
        (("random=0", "random=-1"), "error", 43, ["invalid random=-1"]),
        (("width=64", "width=64\nresize_step=0"), "error", 6, ["invalid resize_step=0"]),
        (
            ("size=2\nstride=2", "size=64\nstride=64"),
            "error",
            5,
            ["width=64 is not a multiple of 128", "Set width=128"],
        ),
        (("[maxpool]", "[crnn]\nhidden=2\n[maxpool]"), "warning", 23, ["cannot be measured"]),
        (("[maxpool]", "[contrastive]\n[maxpool]"), "warning", 23, ["cannot be measured"]),
    ],
)
def test_each_problem_is_found_in_its_line(
    small_text: str, change: tuple[str, str], level: str, line: int, words: list[str]
) -> None:
    findings = lint(parse(small_text.replace(*change, 1), path="n.cfg"), class_count=2)
    matching = [f for f in findings if all(word in str(f) for word in words)]
    assert [(f.level, f.line) for f in matching] == [(level, line)], findings


@pytest.mark.parametrize(
    ("change", "fork", "level", "words"),
    [
        (("random=0", "random=1"), "pjreddie", "warning", ["320 to 608", "not at 64x64"]),
        (("activation=leaky", "activation=mish"), "pjreddie", "error", ["no activation mish"]),
        (("activation=leaky", "activation=leeky"), "alexeyab", "error", ["no activation leeky"]),
        (("random=0", "scale_x_y=1.1"), "pjreddie", "warning", ["unknown option scale_x_y"]),
        (("jitter", "jiter"), "alexeyab", "warning", ["unknown option jiter", "mean jitter"]),
        (("[maxpool]", "[contrastive]\n[maxpool]"), "pjreddie", "error", ["no [contrastive]"]),
        (("policy=steps", "policy=sgdr"), "pjreddie", "error", ["unknown policy sgdr"]),
        (
            ("[maxpool]", "[dropout]\nprobabilty=.5\n[maxpool]"),
            "pjreddie",
            "warning",
            ["unknown option probabilty in [dropout]"],
        ),
        (("channels=3", "channels=3\nmosaic=1"), "alexeyab", "warning", ["OpenCV"]),
        (("[maxpool]", "[sam]\nfrom=-1\n[maxpool]"), "pjreddie", "error", ["no [sam]"]),
        (
            ("[maxpool]", "[route]\nlayers=-1\ngroups=2\n[maxpool]"),
            "pjreddie",
            "error",
            ["unknown option groups"],
        ),
        (("; a head", "[shortcut]\nfrom=0\n; a head"), "alexeyab", "error", ["different sizes"]),
    ],
)
def test_some_problems_concern_single_forks(
    small_text: str, change: tuple[str, str], fork: ForkName, level: str, words: list[str]
) -> None:
    cfg = parse(small_text.replace(*change, 1), path="n.cfg")
    matching = [f for f in lint(cfg, class_count=2, fork=fork) if all(w in str(f) for w in words)]
    assert [finding.level for finding in matching] == [level]
    if "different sizes" not in words:
        assert not [f for f in lint(cfg, class_count=2) if all(w in str(f) for w in words)]


@pytest.mark.parametrize(
    ("name", "head", "key", "value", "words"),
    [
        ("yolov3-tiny", 0, "mask", "0,1,2", ["smaller anchors than the 26x26 grid"]),
        ("yolov3-tiny", 1, "mask", "3,4,5", []),
        ("yolov3", 1, "anchors", "1,1, " * 8 + "9,9", ["anchors differ from those of the head"]),
    ],
)
def test_heads_share_their_anchors(
    name: str, head: int, key: str, value: str, words: list[str]
) -> None:
    cfg = stock(name)
    heads = [layer for layer in cfg.layers if layer.kind == "yolo"]
    if words and key == "mask":  # exchange the heads
        heads[1].set("mask", "3,4,5")
    heads[head].set(key, value)
    findings = lint(cfg.copy(), class_count=80)
    assert [f.level for f in findings if all(word in f.what for word in words)] == (
        ["warning"] if words else []
    )


def test_multi_scale_training_is_accepted_at_a_suitable_size() -> None:
    assert lint(stock("yolov3"), class_count=80, fork="pjreddie") == []


def test_yolov4_cannot_be_trained_with_pjreddies_fork() -> None:
    findings = lint(stock("yolov4"), class_count=80, fork="pjreddie")
    assert {f.level for f in findings if "mish" in f.what} == {"error"}


def test_check_lists_every_error_at_once(small_text: str) -> None:
    text = small_text.replace("batch = 8", "batch = 1").replace("filters=14", "filters=255")
    with pytest.raises(InputFormError) as caught:
        check(parse(text, path="n.cfg"), class_count=2)
    assert caught.value.where == "n.cfg"
    first, second = caught.value.found.split("; ")
    assert first.startswith("line 3: batch=1")
    assert second.startswith("line 28: filters=255")


def test_long_lists_of_errors_are_cut(small_text: str) -> None:
    text = small_text + "".join(f"\n[route]\nlayers={n}\n[yolo]\nnum=1\n" for n in range(9))
    with pytest.raises(InputFormError) as caught:
        check(parse(text, path="n.cfg"), class_count=2)
    assert len(caught.value.found.split("; line ")) == 5
    assert caught.value.found.endswith(" more")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("anchors = 8,9,  20.5,18\n", ""), 35),
        (("  20.5,18", "  20.5"), 37),
        (("mask = 0,1", "mask = 0,2"), 36),
        (("anchors = 8,9,", "anchors = 8,nine,"), 37),
    ],
)
def test_what_an_adaptation_keeps_is_checked_before_it(
    small_text: str, tmp_path: Path, change: tuple[str, str], line: int
) -> None:
    path = tmp_path / "n.cfg"
    path.write_text(small_text.replace(*change))
    with pytest.raises(InputFormError) as caught:
        stock(str(path))
    assert caught.value.where == str(path)
    assert caught.value.found.startswith(f"line {line}: ")


def test_what_an_adaptation_replaces_is_not_checked_before_it(
    small_text: str, tmp_path: Path
) -> None:
    path = tmp_path / "n.cfg"
    text = small_text.replace("batch = 8", "batch = 1").replace("filters=14", "filters=255")
    path.write_text(text.replace("width=64", "width=100").replace("classes=2", "classes=80"))
    assert check_own(stock(str(path))) == []


def test_filters_of_the_head_in_every_convolution_are_a_warning(small_text: str) -> None:
    once = small_text.replace("filters=8", "filters=14")
    convolution = "[convolutional]\nfilters=14\nsize=1\n"
    everywhere = once.replace("[maxpool]", f"{convolution}[maxpool]")
    assert check_own(parse(once, path="n.cfg")) == []
    (finding,) = check_own(parse(everywhere, path="n.cfg"))
    assert (finding.level, finding.line) == ("warning", 17)
    assert "14 filters" in finding.what
    other = everywhere.replace("filters=14", "filters=16", 1)
    assert check_own(parse(other, path="n.cfg")) == []


def test_check_returns_the_warnings(small_text: str) -> None:
    text = small_text.replace("burn_in=20", "burn_in=100")
    (warning,) = check(parse(text, path="n.cfg"), class_count=2)
    assert warning.level == "warning"


TEXTS_AND_SMALL = [*(stock(name).render() for name in (*TEXTS, "demo")), SMALL_STRANGE]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(TEXTS_AND_SMALL), st.data())
def test_a_damaged_file_raises_only_errors_of_oiyolo(text: str, data: st.DataObject) -> None:
    lines = text.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(lines) - 1))
        lines[index] = data.draw(
            st.one_of(
                st.just(""),
                st.just(lines[index] * 2),
                st.sampled_from(lines),
                st.builds(_with_value(lines[index]), st.sampled_from(STRANGE_VALUES)),
                st.text(max_size=20).map(lambda text: text + "\n"),
            )
        )
    with contextlib.suppress(OiyoloError):
        cfg = parse("".join(lines), path="n.cfg")
        assert cfg.render() == "".join(lines)
        for fork in ("pjreddie", "alexeyab", None):
            lint(cfg, class_count=80, fork=fork)
            with contextlib.suppress(OiyoloError):
                choose_subdivisions(cfg, free_bytes=1 << 33, fork=fork)
        for check_cfg in (layers, expected_weight_bytes, schedule_of, anchors_of, pretrained_for):
            with contextlib.suppress(OiyoloError):
                check_cfg(cfg)
        adapted = adapt(cfg, class_count=2, size_wh=(64, 96), schedule=schedule_for(2, 5))
        lint(adapted, class_count=2)


def _with_value(line: str) -> Callable[[str], str]:
    key = line.partition("=")[0].strip() or "key"
    return lambda value: f"{key}={value}\n"


def test_debians_yolov3_tiny_is_set_for_testing() -> None:
    path = DEBIAN_CFGS / "yolov3-tiny.cfg"
    if not path.exists():
        pytest.skip(f"there is no {path} (apt-get install darknet)")
    findings = lint(read(path), class_count=80, fork="pjreddie")
    assert [f.what for f in findings] == ["batch=1 is a setting for testing"]
