"""Open a detector in ONNX with onnxruntime, and run it.

A model may come from anywhere. It is data: operators that onnxruntime does not have are refused,
and numbers are only read from files in the model's own folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import numpy as np

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, OiyoloError, UsageError
from oiyolo.core.units import format_bytes
from oiyolo.inference.model_file import external_locations, facts_of
from oiyolo.inference.model_forms import Tensor, recognise_input, recognise_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy.typing as npt
    import onnxruntime

    Floats = npt.NDArray[np.float32]

_log = logging.getLogger("oiyolo")

Device = Literal["auto", "cpu", "cuda"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SUFFIX: Final = "ExecutionProvider"
_AZURE: Final = "Azure"
_MAX_BYTES: Final = 2 << 30
"""Largest message that protobuf reads."""
_NO_LOG: Final = 4  # only fatal errors; others are raised
_TASK: Final = "detect"
_CODES: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_CUDA_REMEDY: Final = (
    "Replace onnxruntime by onnxruntime-gpu (pip uninstall onnxruntime; pip install "
    "'onnxruntime-gpu[cuda,cudnn]'), or use --device cpu"
)
_NOT_LOADED: Final = "onnxruntime cannot load CUDA or cuDNN"
_DAMAGED: Final = "The file is damaged or not an ONNX model; copy, download or export it again"
_NOT_LOADABLE: Final = (
    "The file is damaged, not an ONNX model, or has operators that onnxruntime lacks; copy, "
    "download or export it again"
)


class Session:
    """A detector in ONNX, ready to run; it can be called from several threads.

    Args:
        model: Content of the model, or its path if it consists of several files.
        where: The file, for messages.
        device: Where it runs.
        threads: Number of threads of the CPU that work on one call.
        name_count: Number of class names; ``None`` for those in the model.

    Attributes:
        size_wh: Width and height of the input in pixels.
        facts: What the model says about itself; ``None`` if it does not.
        layout: Form of the outputs (``model_forms``).
        is_plain: Whether it reads one float32 image with channels first, and its layout is
            ``darknet``, as in files of ``export onnx``.
        class_count: Number of classes.
        device: Where it runs, ``cpu`` or ``cuda``.
        threads: Number of threads of the CPU that work on one call.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        where: str,
        device: Device,
        threads: int,
        name_count: int | None = None,
    ) -> None:
        self.threads = threads
        self._where = where
        self._with_threads = partial(
            Session, model, where=where, device=device, name_count=name_count
        )
        self._runtime = _load(model, where=where, device=device, threads=threads)
        metadata = self._runtime.get_modelmeta().custom_metadata_map
        self.facts = facts_of(metadata, where=where)
        if name_count is None and self.facts is not None:
            name_count = len(self.facts.names)
        _check_task(metadata.get("task", _TASK), where)
        inputs, outputs = self._runtime.get_inputs(), self._runtime.get_outputs()
        self._input = recognise_input(_tensors(inputs), _metadata_size_wh(metadata), where=where)
        self._output = recognise_outputs(_tensors(outputs), name_count, where=where)
        self.size_wh = self._input.size_wh
        self.layout = self._output.form
        self.class_count = self._output.class_count
        self.device = "cuda" if _CUDA in self._runtime.get_providers() else "cpu"
        self.is_plain = (
            self.layout == "darknet"
            and self._input.number_type is np.float32
            and not self._input.has_channels_last
            and self._input.batch in {0, 1}
        )
        # Concurrent calls would compete for the memory of a GPU, and gain nothing.
        self._turn: AbstractContextManager[object] = (
            threading.Lock() if self.device == "cuda" else nullcontext()
        )

    def with_threads(self, threads: int) -> Session:
        """Return the same model with another number of threads per call."""
        return self if self.device == "cuda" else self._with_threads(threads=threads)

    def __call__(self, images: Floats) -> tuple[Floats, Floats]:
        """Return all boxes and scores of images.

        Args:
            images: RGB from 0 to 1, shape (batch, 3, height, width).

        Returns:
            Centres and sizes as fractions of the input, shape (batch, N, 4), and scores, shape
            (batch, N, classes).

        Raises:
            InputFormError: The model fails on this input.
        """
        size = self._input.batch or len(images)
        parts = [self._run(images[i : i + size], size) for i in range(0, len(images), size)]
        if len(parts) == 1:
            return parts[0]
        boxes, scores = zip(*parts, strict=True)
        return np.concatenate(boxes), np.concatenate(scores)

    def _run(self, images: Floats, size: int) -> tuple[Floats, Floats]:
        count = len(images)
        if count < size:
            images = np.concatenate((images, np.zeros((size - count, *images.shape[1:]), "f4")))
        try:
            with self._turn:
                arrays = self._runtime.run(
                    list(self._output.names), {self._input.name: self._input.encode(images)}
                )
        except Exception as error:
            raise self._error(error) from error
        boxes, scores = self._output.decode(arrays, self.size_wh)
        if boxes.shape[:2] != scores.shape[:2] or scores.shape[2] != self.class_count:
            raise InputFormError(
                "the model cannot be used: its outputs do not have the shapes that it declares",
                where=self._where,
                found=f"boxes of shape {boxes.shape}, scores of shape {scores.shape}",
            )
        return boxes[:count], scores[:count]

    def _error(self, error: Exception) -> OiyoloError:
        reason = _first_line(error)
        if "memory" in reason.lower() or "allocat" in reason.lower():
            return OiyoloError(
                "there is not enough memory to run the model",
                where=self._where,
                found=reason,
                remedy="Use a smaller --batch, or --device cpu",
            )
        return InputFormError("the model cannot be run", where=self._where, found=reason)


def open_model(
    model: Path | bytes,
    *,
    device: Device = "auto",
    threads: int | None = None,
    name_count: int | None = None,
) -> Session:
    """Open a detector in ONNX.

    Args:
        model: Its path, or its content.
        device: Where it runs; ``auto`` is the GPU if onnxruntime can use it.
        threads: Number of threads of the CPU that work on one call; by default one per core.
        name_count: Number of class names that are known from elsewhere; ``None`` for those in the
            model.

    Raises:
        UsageError: The file does not exist, or the device is not available.
        InputFormError: The model is damaged, not a detector in a form that is known, or does not
            have this number of classes.
    """
    where = str(model) if isinstance(model, Path) else "the converted network"
    content = _read(model) if isinstance(model, Path) else model
    if threads is None:
        threads = len(os.sched_getaffinity(0))
    return Session(content, where=where, device=device, threads=threads, name_count=name_count)


def available_providers() -> list[str]:
    """Return the kinds of devices that the installed onnxruntime can use: "CPU", "CUDA", ..."""
    import onnxruntime  # noqa: PLC0415  (takes long to import)

    return _device_names(onnxruntime.get_available_providers())


def _device_names(providers: Sequence[str]) -> list[str]:
    names = (name.removesuffix(_SUFFIX) for name in providers)
    return [name for name in names if name != _AZURE]


def _read(path: Path) -> bytes | Path:
    """Return the content of a model, or its path if it refers to other files in its folder."""
    if not path.exists():
        raise UsageError("model not found", where=str(path), expected="an ONNX file")
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _MAX_BYTES:
            _refuse(path, format_bytes(size_bytes), expected=f"at most {format_bytes(_MAX_BYTES)}")
        content = files.read_bytes(path)
    except OSError as error:
        _refuse(path, error.strerror or str(error), expected="an ONNX file")
    if not content:
        _refuse(path, "0 bytes", expected="an ONNX file")
    return path if _has_external_parameters(path, content) else content


def _refuse(path: Path, found: str, *, expected: str, remedy: str = _DAMAGED) -> NoReturn:
    raise InputFormError(
        "the model cannot be read", where=str(path), expected=expected, found=found, remedy=remedy
    )


def _has_external_parameters(path: Path, content: bytes) -> bool:
    """Return whether a model refers to other files; raise if one is outside its folder."""
    folder = path.parent.resolve()
    locations = external_locations(content, where=str(path))
    for location in locations:
        target = (folder / location).resolve()
        if not target.is_relative_to(folder) or not target.is_file():
            _refuse(
                path,
                f"parameters in {location}",
                expected="parameters in the model, or in files of its own folder",
                remedy="Export the network again as a single file",
            )
    return bool(locations)


def _load(
    model: bytes | Path, *, where: str, device: Device, threads: int
) -> onnxruntime.InferenceSession:
    import onnxruntime  # noqa: PLC0415  (takes long to import)

    onnxruntime.set_default_logger_severity(_NO_LOG)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _NO_LOG
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    providers = _providers(device, onnxruntime.get_available_providers())
    if _CUDA in providers and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries that pip installed
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(model) if isinstance(model, Path) else model, options, providers=providers
        )
    except Exception as error:
        raise InputFormError(
            "the model cannot be loaded",
            where=where,
            found=_first_line(error),
            remedy=_NOT_LOADABLE,
        ) from error
    if _CUDA in providers and _CUDA not in session.get_providers():
        if device == "cuda":
            raise UsageError("the GPU cannot be used", found=_NOT_LOADED, remedy=_CUDA_REMEDY)
        _log.warning("the GPU is not used: %s", _NOT_LOADED)
    return session


def _providers(device: Device, available: Sequence[str]) -> list[str]:
    """Return the providers to use, the preferred first."""
    if device == "cuda" and _CUDA not in available:
        raise UsageError(
            "the GPU cannot be used",
            expected="an onnxruntime that can use CUDA",
            found=f"one for {', '.join(_device_names(available))}",
            remedy=_CUDA_REMEDY,
        )
    return [_CUDA, _CPU] if device != "cpu" and _CUDA in available else [_CPU]


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    return [Tensor(each.name, tuple(each.shape), each.type) for each in arguments]


def _check_task(task: str, where: str) -> None:
    """Raise if a model says that it does something else, such as ``segment`` or ``pose``."""
    if task != _TASK:
        raise InputFormError(
            "the model cannot be used: it is not a detector of upright boxes",
            where=where,
            expected=f"a model for the task {_TASK}",
            found=f"one for {task}",
        )


def _metadata_size_wh(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the size in ``imgsz``, which other programs write as [height, width]."""
    try:
        size = json.loads(metadata.get("imgsz", ""))
    except (ValueError, RecursionError):
        return None
    is_pair = isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)  # noqa: PLR2004
    return (size[1], size[0]) if is_pair else None


def _first_line(error: Exception) -> str:
    """Return what an error says first, without onnxruntime's codes."""
    line = str(error).strip().partition("\n")[0]
    return _CODES.sub("", line) or type(error).__name__
