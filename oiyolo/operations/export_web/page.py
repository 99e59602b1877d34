"""Compose the page: its script from modules, the detector's facts, and the packed files."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from oiyolo.core import staleness
from oiyolo.inference.detector import DEFAULT_THRESHOLD
from oiyolo.operations.export_web.packing import pack
from oiyolo.pages.inline import hash_source, join_modules, json_data, policy, read_asset, trusted
from oiyolo.pages.template import make_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.inference.facts import ModelFacts
    from oiyolo.operations.export_web.packing import Packed
    from oiyolo.operations.export_web.runtime import Runtime

_MODULES: Final = ("unpack", "placement", "suppression", "detector", "picture", "app")
"""Each imports from those before it only."""
_PACKAGE: Final = "oiyolo.operations.export_web"
_SCRIPT_SOURCES: Final = ("blob:", "'wasm-unsafe-eval'")
_IMAGES: Final = "img-src blob: data:; "
_STYLE: Final = "page.css"
_TEMPLATE: Final = "page.html.j2"
_LOWEST_THRESHOLD: Final = 0.05
_FLOAT_BYTES: Final = {False: 4, True: 2}


class Card(NamedTuple):
    """What the page says about its detector.

    Attributes:
        title: Its heading.
        finds: What it finds, in words.
        rows: Names and values of a table.
    """

    title: str
    finds: str
    rows: Sequence[tuple[str, str]]


def render(
    model: bytes,
    facts: ModelFacts,
    size_wh: tuple[int, int],
    card: Card,
    runtime: Runtime,
    *,
    half: bool,
) -> Iterator[bytes]:
    """Yield the page in pieces.

    Args:
        model: The network in ONNX, with the outputs ``boxes`` and ``scores``.
        facts: What is known about it.
        size_wh: Width and height of its input in pixels.
        card: What the page says about it.
        runtime: What runs it.
        half: Whether its weights are float16.
    """
    packed = {
        "runtime-script": pack(runtime.script),
        "runtime-wasm": pack(runtime.wasm),
        "model": pack(model, width=_FLOAT_BYTES[half]),
    }
    marker = secrets.token_hex(16)  # no name of a class contains it
    text = _fill_template(packed, facts, size_wh, card, marker)
    head, *parts = text.split(f"{marker}-")
    yield head.encode()
    for part in parts:
        name, _, rest = part.partition(";")
        yield packed[name].text
        yield rest.encode()


def script() -> str:
    """Return the modules of the page as one."""
    return join_modules(_PACKAGE, _MODULES)


def fingerprint() -> str:
    """Return the fingerprint of the page's own files."""
    names = (*(f"{name}.mjs" for name in _MODULES), _STYLE, _TEMPLATE)
    return staleness.fingerprint([read_asset(_PACKAGE, name) for name in names])


def _fill_template(
    packed: dict[str, Packed],
    facts: ModelFacts,
    size_wh: tuple[int, int],
    card: Card,
    marker: str,
) -> str:
    environment = make_environment(f"{_PACKAGE}.assets")
    code, style = script(), read_asset(_PACKAGE, _STYLE)
    known = _facts(facts, size_wh)
    return environment.get_template(_TEMPLATE).render(
        card=card,
        facts=json_data(known),
        lowest=min(_LOWEST_THRESHOLD, known["threshold"]),
        marker=marker,
        packed=packed,
        policy=policy(
            scripts=[hash_source(code), *_SCRIPT_SOURCES],
            styles=[hash_source(style)],
            more=_IMAGES,
        ),
        script=trusted(code),
        style=trusted(style),
        threshold=known["threshold"],
    )


def _facts(facts: ModelFacts, size_wh: tuple[int, int]) -> dict[str, Any]:
    return {
        "names": facts.names,
        "size_wh": size_wh,
        "fit": facts.fit,
        "threshold": DEFAULT_THRESHOLD if facts.threshold is None else facts.threshold,
        "nms_kind": facts.nms_kind,
        "nms_iou": facts.nms_iou,
        "nms_beta": facts.nms_beta,
    }
