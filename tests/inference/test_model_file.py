"""The metadata of a model: what is written, what other programs read, and damage."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.inference import model_file
from oiyolo.inference.facts import ModelFacts
from oiyolo.networks import cfg as cfg_file
from tests.conftest import TINY_CFG

if TYPE_CHECKING:
    from pathlib import Path

FACTS = ModelFacts(
    ("boat", 'it\'s a "canoe"\n', "船 😀"),
    fit="stretch",
    threshold=0.31,
    nms_kind="diou",
    nms_iou=0.5,
    nms_beta=0.7,
    fork="alexeyab",
    scores={"map50": 0.75},
    licence="CC0-1.0",
    description="Boats, from Open Images",
)
REGION = """\
[net]
width=64
height=32
channels=3
[maxpool]
size=16
stride=16
[convolutional]
filters=12
[region]
anchors=1,2, 0.5,4
classes=1
coords=4
num=2
softmax=1
"""


def metadata(
    text: str = TINY_CFG, facts: ModelFacts = FACTS, *, half: bool = False
) -> dict[str, str]:
    model = onnx.ModelProto()
    model.metadata_props.add(key="old", value="1")
    cfg = cfg_file.parse(text, path="tiny.cfg")
    model_file.attach(model, cfg, facts, layout="yolov8", half=half)
    return {entry.key: entry.value for entry in model.metadata_props}


def test_facts_are_read_as_they_were_written() -> None:
    assert model_file.facts_of(metadata()) == FACTS
    plain = ModelFacts(("a",))
    assert model_file.facts_of(metadata(facts=plain)) == plain


def test_common_readers_of_the_yolov8_layout_find_their_keys() -> None:
    written = metadata()
    assert ast.literal_eval(written["names"]) == dict(enumerate(FACTS.names))
    assert ast.literal_eval(written["imgsz"]) == json.loads(written["imgsz"]) == [32, 32]
    assert (int(written["stride"]), int(written["batch"]), written["task"]) == (8, 1, "detect")


def test_anchors_are_in_pixels_of_the_input_for_each_kind_of_head() -> None:
    own = json.loads(metadata(half=True)["oiyolo"])
    assert own["half"] is True
    assert own["size_wh"] == [32, 32]
    head = {"layer": 3, "stride_xy": [8, 8], "anchors_wh": [[8, 6], [14, 12]]}
    assert own["heads"] == [head]
    region = json.loads(metadata(REGION)["oiyolo"])
    head = {"layer": 2, "stride_xy": [16, 16], "anchors_wh": [[16, 32], [8, 64]]}
    assert region["heads"] == [head]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{0: 'person', 1: \"driver's seat\"}", ("person", "driver's seat")),
        ("{0: __import__('os').getpid()}", None),
        ("{1: 'person'}", None),
        ("{0: 'person'", None),
        ("", None),
    ],
)
def test_names_of_other_programs_are_read_without_evaluating_them(
    names: str, expected: tuple[str, ...] | None
) -> None:
    facts = model_file.facts_of({"names": names})
    assert (facts and facts.names) == expected
    assert facts is None or facts == ModelFacts(facts.names)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("oiyolo", "{"),
        ("oiyolo", "[" * 100_000),
        ("oiyolo", "9" * 5000),
        ("oiyolo", " " * (1 << 20) + "{}"),
        ("oiyolo", "{}"),
        ("oiyolo", '{"nms_iou": NaN}'),
        ("names", {"0": "boat"}),
        ("names", ["boat", 1]),
        ("fit", "crop"),
        ("nms_kind", ["greedy"]),
        ("nms_iou", 1.5),
        ("threshold", -0.1),
        ("threshold", None),
        ("threshold", True),
        ("nms_beta", 10**400),
        ("scores", {"map50": "high"}),
        ("fork", 3),
    ],
)
def test_damage_is_an_error_that_names_the_key(key: str, value: Any) -> None:
    damaged = metadata()
    own = json.loads(damaged["oiyolo"])
    damaged["oiyolo"] = value if key == "oiyolo" else json.dumps({**own, key: value})
    with pytest.raises(InputFormError) as caught:
        model_file.facts_of(damaged, where="model.onnx")
    assert key in caught.value.found
    assert caught.value.where == "model.onnx"


def test_a_file_that_is_no_valid_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    model = onnx.ModelProto(ir_version=8)
    model.graph.name = "broken"
    model.graph.node.add(op_type="Nothing", input=["images"], output=["boxes"])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputFormError):
        model_file.check_form(path)
