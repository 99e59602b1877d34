"""The ONNX file of a detector: its metadata, and the check of its form.

The metadata is data only, and nothing in it is evaluated. What oiyolo reads is one JSON object
under ``METADATA_KEY``, and two plain texts. The other keys are for programs that read YOLOv8's
models, in the form that they expect: ``names`` as ``{0: 'person'}``, ``imgsz``, ``stride``...
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, TypedDict, get_args, get_type_hints

from oiyolo import __version__
from oiyolo.core.errors import InputFormError
from oiyolo.core.files import parse_json
from oiyolo.core.records import mismatch
from oiyolo.inference.facts import InputFit, ModelFacts, NmsKind
from oiyolo.networks.graph import graph, heads_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx

    from oiyolo.inference.facts import Layout
    from oiyolo.networks.cfg import Cfg

METADATA_KEY: Final = "oiyolo"
_NAMES_KEY: Final = "names"
_LOCATION: Final = "location"
"""Key of the path in a tensor whose values are in another file."""
_MAX_CHARACTERS: Final = 1 << 20
"""Largest value that is parsed: more than the names of ten thousand classes."""
_ANCHOR_DECIMALS: Final = 4

_FOREIGN_NAME: Final = re.compile(r"""\s*(\d{1,6})\s*:\s*(?:'([^'\\]*)'|"([^"\\]*)")\s*(?:,|$)""")
"""An item of ``{0: 'person'}``, the form in which ultralytics writes names."""

_REMEDY: Final = "Export the model again with `oiyolo export onnx`"


class _OptionalForm(TypedDict, total=False):
    threshold: float
    nms_beta: float
    fork: str
    scores: dict[str, float]


class _Form(_OptionalForm):
    """The form of the object under ``METADATA_KEY`` that is relied on."""

    names: list[str]
    fit: str
    nms_kind: str
    nms_iou: float


def attach(
    model: onnx.ModelProto, cfg: Cfg, facts: ModelFacts, *, layout: Layout, half: bool
) -> None:
    """Write the metadata of a model, in place of any that it has.

    Args:
        model: The network in ONNX.
        cfg: The network file that it was converted from.
        facts: What is known about the detector.
        layout: Layout of the outputs.
        half: Whether the parameters are float16.

    Raises:
        CfgError: As for ``graph.graph``.
    """
    del model.metadata_props[:]
    for key, text in _metadata(cfg, facts, layout=layout, half=half).items():
        # Names from a file may hold characters that UTF-8 cannot represent.
        model.metadata_props.add(key=key, value=text.encode("utf-8", "replace").decode())


def _metadata(cfg: Cfg, facts: ModelFacts, *, layout: Layout, half: bool) -> dict[str, str]:
    width, height = cfg.size_wh
    heads = _heads(cfg)
    own: dict[str, object] = {
        "version": __version__,
        "size_wh": [width, height],
        "layout": layout,
        "half": half,
        "fit": facts.fit,
        "nms_kind": facts.nms_kind,
        "nms_iou": facts.nms_iou,
        "nms_beta": facts.nms_beta,
        "fork": facts.fork,
        "scores": {name: value for name, value in facts.scores.items() if math.isfinite(value)},
        "names": list(facts.names),
        "heads": heads,
    }
    if facts.threshold is not None:
        own["threshold"] = facts.threshold
    return {
        "task": "detect",
        _NAMES_KEY: repr(dict(enumerate(facts.names))),
        "imgsz": _to_json([height, width]),
        "stride": str(max((max(head["stride_xy"]) for head in heads), default=1)),
        "batch": "1",
        "channels": "3",
        "description": facts.description,
        "license": facts.licence,
        "version": __version__,
        METADATA_KEY: _to_json(own),
    }


def _heads(cfg: Cfg) -> list[dict[str, Any]]:
    """Return layer, stride and anchors of each head, in pixels of the input."""
    width, height = cfg.size_wh
    return [
        {
            "layer": node.layer.index,
            "stride_xy": [width // node.layer.input_whc[0], height // node.layer.input_whc[1]],
            "anchors_wh": [
                [round(w * width, _ANCHOR_DECIMALS), round(h * height, _ANCHOR_DECIMALS)]
                for w, h in head.anchors_wh
            ],
        }
        for node, head in heads_in(graph(cfg))
    ]


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def facts_of(metadata: Mapping[str, str], *, where: str = "") -> ModelFacts | None:
    """Return what a model's metadata says about the detector.

    Args:
        metadata: The values by key, as in the file.
        where: The file, for messages.

    Returns:
        The facts; only names and defaults if another program wrote the metadata, and ``None`` if it
        contains no names that can be read either.

    Raises:
        InputFormError: The metadata is ours and damaged; ``found`` names the key.
    """
    if METADATA_KEY not in metadata:
        foreign = _foreign_names(metadata.get(_NAMES_KEY, ""))
        return ModelFacts(foreign) if foreign else None
    try:
        own = _own_values(metadata[METADATA_KEY])
    except ValueError as error:
        raise InputFormError(
            "the metadata of the model is damaged",
            where=where,
            expected=f"{METADATA_KEY} as oiyolo wrote it",
            found=f"{METADATA_KEY}: {error}",
            remedy=_REMEDY,
        ) from None
    licence, description = metadata.get("license", ""), metadata.get("description", "")
    return ModelFacts(**own, licence=licence, description=description)


def _own_values(text: str) -> dict[str, Any]:
    """Return the fields of ``ModelFacts`` in the text under ``METADATA_KEY``.

    Raises:
        ValueError: It is not what ``attach`` writes; the message begins with the key, if one is to
            blame.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"{len(text):,} characters")
    try:
        value = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if problem := mismatch(value, _Form) or _range_problem(value):
        raise ValueError(problem)
    fields = {key: value[key] for key in get_type_hints(_Form) if key in value}
    return {**fields, "names": tuple(value["names"])}


def _range_problem(own: Mapping[str, Any]) -> str:
    """Return which value is not among those that are possible, in words; empty if all are."""
    for key, options in (("fit", get_args(InputFit)), ("nms_kind", get_args(NmsKind))):
        if own[key] not in options:
            return f"{key} is {own[key]!r}, not one of {', '.join(options)}"
    for key in ("threshold", "nms_iou"):
        if not 0 <= own.get(key, 0) <= 1:
            return f"{key} is {own[key]}, not from 0 to 1"
    numbers = {"nms_beta": own.get("nms_beta", 0), **own.get("scores", {})}
    return next((f"{key} is {n}" for key, n in numbers.items() if not math.isfinite(n)), "")


def _foreign_names(text: str) -> tuple[str, ...]:
    """Return names in the form ``{0: 'person', ...}`` of ultralytics; empty in any other form."""
    inner = text.strip()[1:-1]
    if not text.strip().startswith("{") or len(text) > _MAX_CHARACTERS:
        return ()
    items = list(_FOREIGN_NAME.finditer(inner))
    is_whole = "".join(item[0] for item in items) == inner
    ids = [int(item[1]) for item in items]
    if not is_whole or ids != list(range(len(ids))):
        return ()
    return tuple(item[2] if item[2] is not None else item[3] for item in items)


def check_form(path: Path) -> None:
    """Check a file with onnx's own checker, shapes included.

    Raises:
        InputFormError: It is not a valid ONNX model.
    """
    import onnx  # noqa: PLC0415  (takes long to import)

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputFormError(
            "the converted network is not a valid ONNX model",
            where=str(path),
            found=str(error).partition("\n")[0],
        ) from None


def external_locations(content: bytes, *, where: str) -> set[str]:
    """Return the paths of other files that a model reads parameters from, as it names them.

    Args:
        content: Content of the model.
        where: The file, for messages.

    Raises:
        InputFormError: It is not an ONNX model.
    """
    if _LOCATION.encode() not in content:  # spares importing onnx for nearly all models
        return set()
    import onnx  # noqa: PLC0415  (takes long to import)

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise InputFormError(
            "the model is not valid", where=where, found=str(error).partition("\n")[0]
        ) from error
    return {
        entry.value
        for tensor in _tensors_in(model)
        for entry in tensor.external_data
        if entry.key == _LOCATION
    }


def _tensors_in(message: Any) -> Iterator[onnx.TensorProto]:  # noqa: ANN401  (any part of a model)
    """Yield all tensors in a part of a model, also those of nested graphs."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for part in value if field.is_repeated else (value,):
            if part.DESCRIPTOR.name == "TensorProto":
                yield part
            else:
                yield from _tensors_in(part)
