"""The configuration keys as keywords of library functions: for type checkers, editors and help().

A public function takes ``**options: Unpack[...]`` of one of these typed dictionaries, so that type
checkers know its keywords, and is decorated with ``takes_keys``, so that ``inspect.signature`` and
``help`` list them with their defaults. A test keeps both equal to the keys of ``project.keys``.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar

from oiyolo.project.keys import KEYS, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_Function = TypeVar("_Function", bound="Callable[..., object]")
_OPTIONS_ENTRY: Final = re.compile(r"^( *)\*\*options: .*(?:\n\1 .*)*", re.MULTILINE)


class DatasetKeywords(TypedDict, total=False):
    """The keys of ``[dataset]``."""

    classes: str | Sequence[str]
    include_descendants: bool
    subsets: str | Sequence[str]
    limit: int
    negatives: float
    require_verified: bool
    group_of: str
    occluded: str
    truncated: str
    depiction: str
    inside: str
    difficult: str
    min_box_area: float
    max_box_area: float


class OpenImagesKeywords(TypedDict, total=False):
    """The keys of ``[openimages]``."""

    release: str
    base_url: str
    cache: str | Path | None
    stream: bool
    skip_bad_rows: bool


class ImagesKeywords(TypedDict, total=False):
    """The keys of ``[images]``."""

    sources: str | Sequence[str]
    mirror_url: str
    jobs: int | str
    flickr_per_second: float
    transfer_project: str | None
    tolerance: float
    size: str | Sequence[int]
    fit: str
    keep_originals: bool


class SplitKeywords(TypedDict, total=False):
    """The keys of ``[split]``."""

    train: float
    valid: float
    test: float
    seed: int
    group_by: str | Sequence[str]
    official: bool
    look: bool


class DarknetKeywords(TypedDict, total=False):
    """The keys of ``[darknet]``."""

    executable: str | Path | None
    source: str | Path | None
    source_url: str | None
    build_gpu: str
    arch: str | Sequence[str]


class TrainKeywords(TypedDict, total=False):
    """The keys of ``[train]``."""

    engine: str
    network: str | Path
    size_wh: str | Sequence[int]
    weights: str | Path
    max_batches: int | str
    batch: int | str
    subdivisions: int | str
    learning_rate: float | str
    burn_in: int | str
    anchors: str | Sequence[float]
    gpus: str | None
    map: str
    balance: float
    train_seed: int | None
    patience: int
    max_rollbacks: int
    stall_s: float | str
    colours: bool
    backup_to: str | None
    log_to: str | Sequence[str]
    price_per_hour: float | None
    currency: str | None


class RefreshKeywords(TypedDict, total=False):
    """The keys of ``[refresh]``."""

    max_loss: float
    deadline: str | None
    on_failure: str | None
    on_new_detector: str | None
    publish_to: str | None
    retrain_from: str


class SelectKeywords(DatasetKeywords, OpenImagesKeywords, total=False):
    """The keys that ``select`` takes."""


class FetchKeywords(SelectKeywords, ImagesKeywords, total=False):
    """The keys that ``fetch`` takes."""


class SplitStageKeywords(SplitKeywords, ImagesKeywords, total=False):
    """The keys that ``split`` takes."""


class TrainStageKeywords(TrainKeywords, DarknetKeywords, total=False):
    """The keys that ``train`` and ``demo`` take."""


class AllKeywords(
    FetchKeywords, SplitKeywords, DarknetKeywords, TrainKeywords, RefreshKeywords, total=False
):
    """All keys."""


class _Annotation(str):
    """An annotation that a signature shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def takes_keys(*sections: str) -> Callable[[_Function], _Function]:
    """Return a decorator that lists configuration keys in a function's signature and docstring.

    In the signature, ``**options`` becomes one keyword-only parameter for each key, with its
    default; in the docstring, the entry of ``**options`` becomes one entry for each key. Calls are
    unchanged: a keyword is checked against the keys of all sections by ``project.config``.

    Args:
        sections: The sections of the keys; all sections by default.
    """
    keys = [key for key in KEYS if key.section in (sections or SECTIONS)]

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [
            inspect.Parameter(
                key.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=key.default,
                annotation=_type_of(key.name),
            )
            for key in keys
            if key.name not in signature.parameters
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                *(p.replace(annotation=_Annotation(p.annotation)) for p in own),
                *options,
            ],
            return_annotation=_Annotation(signature.return_annotation),
        )
        entries = [f"{key.name}: {key.help_text} (``{key.path}``)." for key in keys]
        function.__doc__ = _OPTIONS_ENTRY.sub(
            lambda entry: "\n".join(entry[1] + text for text in entries), function.__doc__ or ""
        )
        return function

    return decorate


def _type_of(name: str) -> _Annotation:
    annotation = AllKeywords.__annotations__[name]
    return _Annotation(getattr(annotation, "__forward_arg__", annotation))
