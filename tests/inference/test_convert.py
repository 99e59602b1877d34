"""Networks in ONNX: detections equal darknet's, forms of the outputs, and bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnxruntime
import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.inference.convert import INPUT, _write_activation, _Writer, convert
from oiyolo.inference.facts import ModelFacts
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.graph import ACTIVATIONS
from tests.support.darknet_parity import (
    GOLDEN,
    GOLDEN_IMAGES,
    SEED,
    class_count_of,
    compare,
    model_rows,
    seeded_images,
    seeded_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.networks.cfg import Cfg

KINDS: Final = sorted(path.stem for path in GOLDEN.glob("*.cfg"))
TWO: Final = ModelFacts(("a", "b"))


def prepared(kind: str, folder: Path) -> tuple[Cfg, Path]:
    """Return a golden network, and the path of its weights."""
    cfg = cfgs.read(GOLDEN / f"{kind}.cfg")
    weights = folder / "n.weights"
    weights.write_bytes(seeded_weights(cfg, SEED))
    return cfg, weights


def outputs(
    model: onnx.ModelProto, pixels: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return list(session.run(None, {"images": pixels}))


def pixels_of(cfg: Cfg) -> npt.NDArray[np.float32]:
    images = seeded_images(cfg, SEED, GOLDEN_IMAGES)
    return np.divide(images.transpose(0, 3, 1, 2), 255, dtype=np.float32)


def kernel(model: onnx.ModelProto, name: str) -> npt.NDArray[np.float32]:
    (found,) = (constant for constant in model.graph.initializer if constant.name == name)
    return onnx.numpy_helper.to_array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_those_of_alexeyabs_darknet(kind: str, tmp_path: Path) -> None:
    cfg, weights = prepared(kind, tmp_path)
    rows = np.loadtxt(GOLDEN / f"{kind}.txt")
    boxes, scores = model_rows(cfg, weights, seeded_images(cfg, SEED, GOLDEN_IMAGES))
    found = compare(rows, boxes, scores, cfg.size_wh)
    assert found.count == len(rows) > 0
    assert found.box_px < 0.01
    assert found.confidence < 1e-5


def test_the_model_says_what_it_needs_and_gives(tmp_path: Path) -> None:
    cfg, weights = prepared("yolov4", tmp_path)
    model = convert(cfg, weights, TWO)
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    count = 3 * (24 * 16 + 12 * 8)
    assert shapes == {
        "images": ["batch", 3, 96, 64],
        "boxes": ["batch", count, 4],
        "scores": ["batch", count, 2],
    }


def test_the_other_layout_has_the_same_boxes_in_pixels(tmp_path: Path) -> None:
    cfg, weights = prepared("yolov4", tmp_path)
    pixels = pixels_of(cfg)
    boxes, scores = outputs(convert(cfg, weights, TWO), pixels)
    (joined,) = outputs(convert(cfg, weights, TWO, layout="yolov8"), pixels)
    assert joined.shape == (GOLDEN_IMAGES, 4 + 2, boxes.shape[1])
    np.testing.assert_allclose(joined[:, :4].transpose(0, 2, 1), boxes * [64, 96, 64, 96], 1e-5)
    np.testing.assert_array_equal(joined[:, 4:].transpose(0, 2, 1), scores)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_near_and_float32_outside(kind: str, tmp_path: Path) -> None:
    cfg, weights = prepared(kind, tmp_path)
    names = tuple("abc"[: class_count_of(cfg)])
    pixels = pixels_of(cfg)
    whole, half = (convert(cfg, weights, ModelFacts(names), half=half) for half in (False, True))
    onnx.checker.check_model(half, full_check=True)
    assert kernel(half, "layer_0_weights").dtype == np.float16
    for exact, rounded in zip(outputs(whole, pixels), outputs(half, pixels), strict=True):
        assert rounded.dtype == np.float32
        assert np.abs(rounded - exact).max() < 0.02


def test_a_parameter_beyond_float16_is_refused_only_in_half_precision(tmp_path: Path) -> None:
    cfg, weights = prepared("yolov4", tmp_path)
    data = bytearray(weights.read_bytes())
    data[-4:] = np.float32(1e5).tobytes()
    weights.write_bytes(data)
    convert(cfg, weights, TWO)
    with pytest.raises(InputFormError):
        convert(cfg, weights, TWO, half=True)


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c")])
def test_names_that_do_not_fit_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    cfg, weights = prepared("yolov4", tmp_path)
    with pytest.raises(InputFormError) as caught:
        convert(cfg, weights, ModelFacts(names))
    assert caught.value.found == str(len(names))


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data + data[-4:]])
def test_weights_of_another_size_are_refused(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    cfg, weights = prepared("yolov4", tmp_path)
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(InputFormError):
        convert(cfg, weights, TWO)


def test_the_deviations_are_those_of_the_fork(tmp_path: Path) -> None:
    cfg, weights = prepared("yolov4", tmp_path)
    data = np.frombuffer(weights.read_bytes(), "<f4").copy()
    header, filters = 5, 8
    data[header + 3 * filters : header + 4 * filters] = 1e-6
    weights.write_bytes(data.tobytes())
    kernels = {
        fork: kernel(convert(cfg, weights, ModelFacts(("a", "b"), fork=fork)), "layer_0_weights")
        for fork in ("", "pjreddie", "alexeyab")
    }
    np.testing.assert_array_equal(kernels[""], kernels["alexeyab"])
    ratio = np.sqrt(1e-6 + 1e-5) / (np.sqrt(1e-6) + 1e-6)
    np.testing.assert_allclose(kernels["pjreddie"], kernels[""] * ratio, 1e-5)
    on_gpu = ModelFacts(("a", "b"), fork="pjreddie", was_trained_on_gpu=True)
    np.testing.assert_array_equal(
        kernel(convert(cfg, weights, on_gpu), "layer_0_weights"), kernels[""]
    )


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_no_activation_overflows_in_half_precision(name: str) -> None:
    writer = _Writer(half=True)
    half = writer.cast(INPUT, half=True)
    out = _write_activation(writer, half, name)
    writer.add("Cast", out, name="y", to=onnx.TensorProto.FLOAT)
    writer.declare({INPUT: ("n",)}, {"y": ("n",)})
    x = np.array([-6e4, -300, -20, -2.5, -1, 0, 1, 5.5, 7, 20, 300, 6e4], np.float32)
    session = onnxruntime.InferenceSession(writer.model.SerializeToString())
    (y,) = session.run(None, {INPUT: x})
    assert np.isfinite(y).all()
    if name == "relu6":  # AlexeyAB's darknet lacks it on the CPU, where it returns 0
        np.testing.assert_array_equal(y, np.clip(x, 0, 6))
