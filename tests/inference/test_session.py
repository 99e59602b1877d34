"""Models from anywhere: which are recognised, how they are run, and what bad files get."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.inference.model_forms import Tensor, recognise_outputs
from oiyolo.inference.session import available_providers, open_model
from tests.support.models import BOXES, SCORES, SIZE_WH, detector_model, plain_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.inference.session import Session

CORNERS = [[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] for cx, cy, w, h in BOXES]
FILLER_ROWS = 400
"""Boxes without scores that bring a model to a usual number of boxes."""


def rows(objectness: bool = False) -> npt.NDArray[np.float64]:
    """Return boxes in pixels and scores, shape (N, 4 + 3), or (N, 5 + 3) with objectness."""
    pixels = np.array(BOXES) * np.tile(SIZE_WH, 2)
    columns = [pixels, np.ones((2, 1)), np.array(SCORES)]
    found = np.hstack(columns if objectness else [columns[0], columns[2]])
    return np.vstack([found, np.zeros((FILLER_ROWS, found.shape[1]))])


def white(count: int = 1) -> npt.NDArray[np.float32]:
    return np.ones((count, 3, SIZE_WH[1], SIZE_WH[0]), np.float32)


def session_of(model: onnx.ModelProto, **options: Any) -> Session:
    return open_model(model.SerializeToString(), threads=1, **options)


@pytest.mark.parametrize(
    ("outputs", "layout"),
    [
        ({"boxes": BOXES, "scores": SCORES}, "darknet"),
        ({"output0": rows().T}, "yolov8"),
        ({"output": rows(objectness=True)}, "yolov5"),
        ({"boxes": np.array(CORNERS)[:, np.newaxis], "confs": SCORES}, "corners"),
    ],
)
@pytest.mark.parametrize("names", [None, "{0: 'boat', 1: 'buoy', 2: \"gull's nest\"}"])
def test_all_forms_of_outputs_return_the_same_boxes(
    outputs: dict[str, Any], layout: str, names: str | None
) -> None:
    metadata = {} if names is None else {"names": names}
    session = session_of(detector_model(outputs, metadata=metadata))
    assert (session.layout, session.class_count, session.size_wh) == (layout, 3, SIZE_WH)
    boxes, scores = session(white(2))
    np.testing.assert_allclose(boxes[:, :2], [BOXES] * 2, rtol=1e-6)
    np.testing.assert_allclose(scores[:, :2], [SCORES] * 2, rtol=1e-6)
    assert (session.facts is None) == (names is None)
    if session.facts is not None:
        assert session.facts.names == ("boat", "buoy", "gull's nest")


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_fixed_batch_is_filled(batch: int) -> None:
    session = session_of(plain_model(input_shape=(batch, 3, SIZE_WH[1], SIZE_WH[0])))
    images = white(3) * np.array([1, 0.5, 0.25], np.float32).reshape(3, 1, 1, 1)
    boxes, scores = session(images)
    np.testing.assert_allclose(boxes, [BOXES] * 3)
    expected = [np.array(SCORES) * mean for mean in (1, 0.5, 0.25)]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"input_shape": ("batch", SIZE_WH[1], SIZE_WH[0], 3)}, 1),
        ({"input_type": TensorProto.FLOAT16}, 1),
        ({"input_type": TensorProto.UINT8}, 255),
        ({"input_shape": ("batch", 3, "h", "w"), "metadata": {"imgsz": "[32, 64]"}}, 1),
    ],
)
def test_other_inputs_are_served(options: dict[str, Any], scale: float) -> None:
    session = session_of(plain_model(**options))
    assert session.size_wh == SIZE_WH
    _, scores = session(white())
    np.testing.assert_allclose(scores[0], np.array(SCORES) * scale, rtol=1e-3)


@pytest.mark.parametrize(
    "model",
    [
        detector_model({"boxes": BOXES}),  # no scores
        detector_model({"boxes": BOXES, "scores": SCORES, "masks": SCORES}),
        detector_model({"output0": np.zeros((300, 6))}),  # with suppression of its own
        detector_model({"output0": np.zeros((4, 5, 6))}),
        plain_model(input_shape=("batch", 4, 32, 32)),
        plain_model(input_shape=("batch", 3, "h", "w")),  # no size
        plain_model(input_shape=("batch", 3, "h", "w"), metadata={"imgsz": "[1e9, 'x']"}),
        plain_model(input_shape=("batch", 3, 1 << 20, 1 << 20)),
        plain_model(input_type=TensorProto.INT64),
    ],
)
def test_other_models_are_refused_with_what_they_have(model: onnx.ModelProto) -> None:
    with pytest.raises(InputFormError) as caught:
        session_of(model)
    tensors = [*model.graph.input, *model.graph.output]
    assert any(tensor.name in caught.value.found for tensor in tensors)


def test_a_model_for_another_task_is_refused() -> None:
    assert session_of(plain_model(metadata={"task": "detect"})).class_count == 3
    with pytest.raises(InputFormError) as caught:
        session_of(plain_model(metadata={"task": "pose"}))
    assert "pose" in caught.value.found


def test_a_model_with_two_inputs_is_refused() -> None:
    model = plain_model()
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.FLOAT, [1, 2]))
    with pytest.raises(InputFormError) as caught:
        session_of(model)
    assert "shape" in caught.value.found


@pytest.mark.parametrize("outputs", [{"boxes": BOXES, "scores": SCORES}, {"output0": rows().T}])
def test_names_must_fit(outputs: dict[str, Any]) -> None:
    model = detector_model(outputs)
    assert session_of(model, name_count=3).class_count == 3
    with pytest.raises(InputFormError) as caught:
        session_of(model, name_count=80)
    assert ("3 names" in caught.value.expected, caught.value.found) == (True, "80")


def test_outputs_with_other_shapes_than_declared_are_refused() -> None:
    model = plain_model()
    model.graph.node[-1].output[0] = "all"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "start"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "axis"))
    model.graph.node.extend(
        [
            helper.make_node("Reshape", ["mean", "boxes_shape"], ["flat"]),
            helper.make_node("Squeeze", ["flat"], ["scalar"]),
            helper.make_node("Cast", ["scalar"], ["number"], to=TensorProto.INT64),
            helper.make_node("Unsqueeze", ["number", "start"], ["end"]),
            helper.make_node("Slice", ["all", "start", "end", "axis"], ["scores"]),
        ]
    )
    session = session_of(model)
    assert session.class_count == 3
    with pytest.raises(InputFormError) as caught:
        session(white())  # one class, as the mean is 1
    assert "(1, 2, 1)" in caught.value.found


def test_outputs_without_fixed_sides_are_refused() -> None:
    free = [Tensor("output0", ("batch", "rows", None), "tensor(float)")]
    with pytest.raises(InputFormError) as caught:
        recognise_outputs(free, 3, where="model.onnx")
    assert "batch, rows, ?" in caught.value.found


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        replace_by_folder,
        replace_by_pipe,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"<!doctype html><html></html>"),
        lambda path: os.truncate(path, 3 << 30),  # sparse
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(plain_model(), path)
    damage(path)
    with pytest.raises(InputFormError) as caught:
        open_model(path)
    assert caught.value.where == str(path)


def test_an_operator_that_does_not_exist_is_refused() -> None:
    model = plain_model()
    model.graph.node[0].op_type = "RunProgram"
    with pytest.raises(InputFormError):
        session_of(model)


def with_external_parameters(path: Path, location: str) -> None:
    """Write a model whose first parameter is in another file."""
    model = plain_model()
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location, length=len(content))
    tensor.ClearField("raw_data")
    (path.parent / location).write_bytes(content)
    path.write_bytes(model.SerializeToString())


def test_parameters_are_only_read_from_the_models_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "parts").mkdir(parents=True)
    for location in ("weights.bin", "parts/weights.bin"):
        with_external_parameters(folder / "inside.onnx", location)
        boxes, _ = open_model(folder / "inside.onnx", threads=1)(white())
        np.testing.assert_allclose(boxes[0], BOXES)
    (tmp_path / "secret.bin").touch()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    for location in ("../secret.bin", "link.bin", str(tmp_path / "secret.bin")):
        with_external_parameters(folder / "outside.onnx", location)
        with pytest.raises(InputFormError) as caught:
            open_model(folder / "outside.onnx")
        assert location in caught.value.found
    (folder / "weights.bin").unlink()
    with_external_parameters(folder / "inside.onnx", "weights.bin")
    (folder / "weights.bin").unlink()
    with pytest.raises(InputFormError):
        open_model(folder / "inside.onnx")


def test_a_model_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_model(tmp_path / "absent.onnx")


def test_cuda_needs_an_onnxruntime_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain_model()
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["AzureExecutionProvider", "CPUExecutionProvider"],
    )
    assert available_providers() == ["CPU"]
    assert session_of(model, device="auto").device == "cpu"
    with pytest.raises(UsageError) as caught:
        session_of(model, device="cuda")
    assert "onnxruntime-gpu" in caught.value.remedy


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_cannot_be_loaded_is_an_error_only_if_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    assert session_of(plain_model(), device="auto").device == "cpu"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert session_of(plain_model(), device="cpu").device == "cpu"
    assert len(caplog.records) == 1
    with pytest.raises(UsageError) as caught:
        session_of(plain_model(), device="cuda")
    assert "onnxruntime-gpu" in caught.value.remedy
