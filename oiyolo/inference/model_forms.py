"""The forms of inputs and outputs that detectors in ONNX have, recognised from names and shapes.

Besides the two layouts of ``inference.convert`` these are: one output (batch, N, 5 + classes) with
objectness, as ultralytics' YOLOv5 has it, and ``boxes`` with corners next to ``confs``, as programs
that convert darknet's networks by way of PyTorch write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

Form = Literal["darknet", "corners", "yolov8", "yolov5"]

_MAX_SIDE_PX: Final = 8192
_CHANNELS: Final = 3
_CORNERS: Final = 4
_MAX_END_TO_END_ROWS: Final = 300
"""Rows that networks with their own suppression return by default (ultralytics' ``max_det``). They
have other columns than YOLOv5's, which returns more rows from 80x80 pixels on."""
_INPUT_TYPES: Final[Mapping[str, type]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
_REMEDY: Final = (
    "Export the network again, as one output of boxes and class scores without suppression "
    "of its own, or pass the .cfg and .weights of a darknet network"
)


class Tensor(NamedTuple):
    """An input or output of a model, as onnxruntime describes it.

    Attributes:
        name: Its name.
        shape: Its sides; a text or ``None`` where a side is free.
        type: Type of its numbers, such as ``tensor(float)``.
    """

    name: str
    shape: tuple[int | str | None, ...]
    type: str

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.type.removeprefix('tensor').strip('()')} ({sides})"


@dataclass(frozen=True)
class InputForm:
    """How images are passed to a model.

    Attributes:
        name: Name of the input.
        size_wh: Width and height in pixels.
        batch: Number of images of every call; 0 if it is free.
        number_type: Type of the numbers: from 0 to 1, or from 0 to 255 for ``uint8``.
        has_channels_last: Whether the shape is (batch, height, width, 3).
    """

    name: str
    size_wh: tuple[int, int]
    batch: int
    number_type: type
    has_channels_last: bool

    def encode(self, images: Floats) -> npt.NDArray[np.generic]:
        """Return images of shape (batch, 3, height, width) from 0 to 1 as this model reads them."""
        if self.has_channels_last:
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        if self.number_type is np.uint8:
            images = np.rint(images * np.float32(255))
        return images.astype(self.number_type, copy=False)


@dataclass(frozen=True)
class OutputForm:
    """How boxes and scores are read from a model's outputs.

    Attributes:
        form: Name of the form.
        names: Names of the outputs, in the order in which the form reads them.
        class_count: Number of classes.
        is_likely: Whether there are more boxes than numbers of a box, as in nearly all networks.
    """

    form: Form
    names: tuple[str, ...]
    class_count: int
    is_likely: bool = True

    def decode(
        self, arrays: Sequence[npt.NDArray[np.floating]], size_wh: tuple[int, int]
    ) -> tuple[Floats, Floats]:
        """Return the boxes and scores in outputs of this form.

        Args:
            arrays: The outputs.
            size_wh: Width and height of the input in pixels.

        Returns:
            Centres and sizes as fractions of the input, shape (batch, N, 4), and scores, shape
            (batch, N, classes).
        """
        floats = [array.astype(np.float32, copy=False) for array in arrays]
        return _DECODERS[self.form](floats, np.tile(np.array(size_wh, np.float32), 2))


def recognise_input(
    inputs: Sequence[Tensor], metadata_size_wh: tuple[int, int] | None, *, where: str
) -> InputForm:
    """Return the form of a model's input.

    Args:
        inputs: The inputs.
        metadata_size_wh: Width and height according to the metadata, for a model whose input has a
            free size; ``None`` if it does not say.
        where: The file, for messages.

    Raises:
        InputFormError: The model does not read one RGB image of a known size.
    """
    problem = "its input is not one RGB image"
    if len(inputs) == 1 and len(inputs[0].shape) == _CORNERS and inputs[0].type in _INPUT_TYPES:
        name, (batch, *sides), number_type = inputs[0]
        has_channels_last = sides[0] != _CHANNELS and sides[2] == _CHANNELS
        height, width = sides[:2] if has_channels_last else sides[1:]
        if has_channels_last or sides[0] == _CHANNELS:
            size_wh = _size_wh((width, height), metadata_size_wh)
            if size_wh is not None:
                return InputForm(
                    name,
                    size_wh,
                    batch if isinstance(batch, int) and batch > 0 else 0,
                    _INPUT_TYPES[number_type],
                    has_channels_last,
                )
            problem = f"the size of its input is not fixed, or not 1 to {_MAX_SIDE_PX} pixels"
    raise InputFormError(
        f"the model cannot be used: {problem}",
        where=where,
        expected="one input of the shape (batch, 3, height, width) with a fixed size",
        found=_describe("input", inputs),
        remedy="Export the network again in this form",
    )


def _size_wh(
    sides: Sequence[int | str | None], metadata_size_wh: tuple[int, int] | None
) -> tuple[int, int] | None:
    fixed = [side for side in sides if isinstance(side, int)]
    size_wh = tuple(fixed) if len(fixed) == len(sides) else metadata_size_wh
    if size_wh is None or not all(0 < side <= _MAX_SIDE_PX for side in size_wh):
        return None
    return size_wh[0], size_wh[1]


def recognise_outputs(
    outputs: Sequence[Tensor], name_count: int | None, *, where: str
) -> OutputForm:
    """Return the form of a model's outputs.

    Args:
        outputs: The outputs.
        name_count: Number of class names; ``None`` if they are not known.
        where: The file, for messages.

    Raises:
        InputFormError: The form is not known, or has another number of classes.
    """
    forms = [*_pair_forms(outputs), *_single_forms(outputs)]
    fitting = [form for form in forms if form.class_count == name_count]
    if fitting:
        return fitting[0]
    likely = [form for form in forms if form.is_likely]
    if not likely:
        raise InputFormError(
            "the model cannot be used: its outputs are not those of a supported detector",
            where=where,
            expected="boxes (batch, N, 4) and scores (batch, N, classes), or one output "
            "(batch, 4 + classes, N) or (batch, N, 5 + classes)",
            found=_describe("output", outputs),
            remedy=_REMEDY,
        )
    if name_count is not None:
        raise InputFormError(
            "the class names do not fit the model",
            where=where,
            expected=f"{likely[0].class_count} names, one per class",
            found=f"{name_count}",
            remedy="Pass the model's class names with --names",
        )
    return likely[0]


def _describe(kind: str, tensors: Sequence[Tensor]) -> str:
    listed = "; ".join(map(str, tensors))
    return f"{pluralize(len(tensors), kind)}: {listed}"


def _pair_forms(outputs: Sequence[Tensor]) -> list[OutputForm]:
    """Return the form of two outputs, boxes and scores."""
    by_name = {output.name: output for output in outputs}
    if len(outputs) != len(by_name) or len(outputs) != 2 or "boxes" not in by_name:  # noqa: PLR2004
        return []
    boxes = by_name.pop("boxes")
    ((name, shape, _),) = by_name.values()
    class_count = shape[-1] if len(shape) == 3 else None  # noqa: PLR2004  (batch, N, classes)
    if boxes.shape[-1] != _CORNERS or not isinstance(class_count, int) or class_count < 1:
        return []
    if name == "scores" and len(boxes.shape) == 3:  # noqa: PLR2004  (batch, N, 4)
        return [OutputForm("darknet", ("boxes", name), class_count)]
    if name == "confs" and boxes.shape[2] in {1, _CORNERS}:
        return [OutputForm("corners", ("boxes", name), class_count)]
    return []


def _single_forms(outputs: Sequence[Tensor]) -> list[OutputForm]:
    """Return the possible forms of one output of shape (batch, _, _)."""
    if len(outputs) != 1 or len(outputs[0].shape) != 3:  # noqa: PLR2004
        return []
    name, (_, rows, columns), _ = outputs[0]
    forms = []
    if isinstance(rows, int) and rows > _CORNERS:
        forms.append(OutputForm("yolov8", (name,), rows - _CORNERS, _is_shorter(rows, columns)))
    is_end_to_end = isinstance(rows, int) and rows <= _MAX_END_TO_END_ROWS
    if isinstance(columns, int) and columns > _CORNERS + 1 and not is_end_to_end:
        count = columns - _CORNERS - 1
        forms.append(OutputForm("yolov5", (name,), count, _is_shorter(columns, rows)))
    return forms


def _is_shorter(side: int, other: int | str | None) -> bool:
    return not isinstance(other, int) or side < other


def _decode_darknet(arrays: Sequence[Floats], _: Floats) -> tuple[Floats, Floats]:
    return arrays[0], arrays[1]


def _decode_corners(arrays: Sequence[Floats], _: Floats) -> tuple[Floats, Floats]:
    xyxy = arrays[0].reshape(len(arrays[0]), -1, _CORNERS)
    start, end = xyxy[..., :2], xyxy[..., 2:]
    return np.concatenate(((start + end) / 2, end - start), axis=-1), arrays[1]


def _decode_yolov8(arrays: Sequence[Floats], size: Floats) -> tuple[Floats, Floats]:
    rows = arrays[0].transpose(0, 2, 1)
    return rows[..., :_CORNERS] / size, np.ascontiguousarray(rows[..., _CORNERS:])


def _decode_yolov5(arrays: Sequence[Floats], size: Floats) -> tuple[Floats, Floats]:
    rows = arrays[0]
    scores = rows[..., _CORNERS + 1 :] * rows[..., _CORNERS : _CORNERS + 1]
    return rows[..., :_CORNERS] / size, scores


_DECODERS: Final[Mapping[Form, Callable[[Sequence[Floats], Floats], tuple[Floats, Floats]]]] = {
    "darknet": _decode_darknet,
    "corners": _decode_corners,
    "yolov8": _decode_yolov8,
    "yolov5": _decode_yolov5,
}
