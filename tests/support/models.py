"""Small models in ONNX that detect given boxes, with scores in proportion to an image's mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

SIZE_WH: Final = (64, 32)
BOXES: Final = ((0.25, 0.5, 0.25, 0.5), (0.75, 0.5, 0.125, 0.25))
"""Centres and sizes as fractions of the input."""
SCORES: Final = ((0.875, 0.0, 0.5), (0.25, 0.75, 0.0))
"""Scores of three classes of each box, in a white image."""


def detector_model(
    outputs: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None = None,
    input_shape: Sequence[int | str] = ("batch", 3, SIZE_WH[1], SIZE_WH[0]),
    input_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return a model with the given outputs, which it multiplies by the mean of each image.

    Args:
        outputs: For each output an array without the batch's axis; one that is called ``boxes`` is
            not multiplied.
        metadata: Metadata of the model.
        input_shape: Shape of the input.
        input_type: Type of the input.
    """
    mean_axes = [1, 2, 3]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=mean_axes, keepdims=1),
    ]
    constants, described = [], []
    for name, values in outputs.items():
        array = np.asarray(values, np.float32)[np.newaxis]
        constants.append(numpy_helper.from_array(array, f"{name}_values"))
        aligned = np.array([-1, *[1] * (array.ndim - 1)])
        constants.append(numpy_helper.from_array(aligned, f"{name}_shape"))
        nodes.append(helper.make_node("Reshape", ["mean", f"{name}_shape"], [f"{name}_mean"]))
        if name == "boxes":  # the mean only sets the size of the batch
            nodes.append(helper.make_node("Sub", [f"{name}_mean"] * 2, [f"{name}_zero"]))
            sources = ("Add", [f"{name}_values", f"{name}_zero"])
        else:
            sources = ("Mul", [f"{name}_values", f"{name}_mean"])
        nodes.append(helper.make_node(*sources, [name]))
        shape = (input_shape[0], *array.shape[1:])
        described.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", input_type, input_shape)],
        described,
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def plain_model(**options: Any) -> onnx.ModelProto:
    """Return a model with the layout of our own exports, which detects ``BOXES``."""
    return detector_model({"boxes": BOXES, "scores": SCORES}, **options)
