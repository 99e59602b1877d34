"""Store the weights of a network in float16, in half the space; it computes in float32."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

_SUFFIX: Final = "_float16"
_MIN_NUMBERS: Final = 64
"""Shorter arrays, such as shapes and scales, are not worth a node."""


def with_half_weights(content: bytes) -> bytes:
    """Return a model in ONNX whose weights are float16, converted when it is loaded.

    Args:
        content: The model, whose weights are float32.
    """
    import onnx  # noqa: PLC0415  (takes long to import)
    from onnx import numpy_helper  # noqa: PLC0415

    model = onnx.load_model_from_string(content)
    stored: list[Any] = []
    casts: list[Any] = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != onnx.TensorProto.FLOAT or values.size < _MIN_NUMBERS:
            stored.append(tensor)
            continue
        name = tensor.name + _SUFFIX
        largest = np.finfo(np.float16).max
        half = np.clip(values, -largest, largest).astype(np.float16)
        stored.append(numpy_helper.from_array(half, name))
        casts.append(
            onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(stored)
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())
