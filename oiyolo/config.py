"""The options of a project: declared once here, set in four places.

A key stands in ``oiyolo.toml``; the environment overrides the file (``OIYOLO_IMAGES_MIRROR_URL``
for ``[images] mirror_url``), and a command-line option (``--mirror-url``) or a keyword of a
library function (``mirror_url=``) overrides both. All of them are read by the same ``Kind``, so
that a value means the same, and is refused with the same words, wherever it was written.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.buckets import bucket_place, is_bucket
from oiyolo.errors import InputFormError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "oiyolo.toml"
AUTO: Final = "auto"
NETWORK_STRIDE_PX: Final = 32
_LARGEST_ANCHOR_PX: Final = 10_000
FLAG_CHOICES: Final = ("keep", "drop-box", "drop-image")


class _WrongValueError(ValueError):
    """A value that a kind does not take; its text says what it would take."""


@dataclass(frozen=True)
class Kind(ABC):
    """How one key's value is written, read and checked."""

    described: str

    @property
    def placeholder(self) -> str:
        """What stands for the value in a command's help."""
        return "TEXT"

    @abstractmethod
    def check(self, value: object) -> object:
        """Give the value as the program uses it, from TOML or Python; ``_WrongValueError`` else."""

    def parse(self, text: str) -> object:
        """Give the value from the text of an environment variable or option."""
        return self.check(text)

    def reject(self) -> _WrongValueError:
        """Give the error that says what would be taken."""
        return _WrongValueError(self.described)


@dataclass(frozen=True)
class Text(Kind):
    """Any text that is not empty."""

    described: str = "a text"

    def check(self, value: object) -> str:
        """See ``Kind``."""
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.reject()
        return value


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    described: str = ""
    words: tuple[str, ...] = ()

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "|".join(self.words)

    def check(self, value: object) -> str:
        """See ``Kind``."""
        if not isinstance(value, str) or value not in self.words:
            raise self.reject()
        return value


@dataclass(frozen=True)
class Flag(Kind):
    """Yes or no."""

    described: str = "true or false"

    def check(self, value: object) -> bool:
        """See ``Kind``."""
        if not isinstance(value, bool):
            raise self.reject()
        return value

    def parse(self, text: str) -> bool:
        """See ``Kind``."""
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.strip().lower() not in words:
            raise self.reject()
        return words[text.strip().lower()]


@dataclass(frozen=True)
class Number(Kind):
    """A number between two bounds, whole or not."""

    described: str = ""
    whole: bool = False
    low: float = 0.0
    high: float = float("inf")

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "N" if self.whole else "NUMBER"

    def check(self, value: object) -> float:
        """See ``Kind``."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.reject()
        if not math.isfinite(value):  # TOML knows nan and inf
            raise self.reject()
        if (self.whole and value != int(value)) or not self.low <= value <= self.high:
            raise self.reject()
        return int(value) if self.whole else float(value)

    def parse(self, text: str) -> float:
        """See ``Kind``."""
        try:
            return self.check(float(text))
        except (ValueError, OverflowError):
            raise self.reject() from None


@dataclass(frozen=True)
class Words(Kind):
    """A list of texts, one or more; in the environment they stand between commas."""

    described: str = "a list of texts"
    choices: tuple[str, ...] = ()
    may_be_empty: bool = False

    def check(self, value: object) -> tuple[str, ...]:
        """See ``Kind``."""
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)) or not (value or self.may_be_empty):
            raise self.reject()
        words = []
        for word in value:
            if not isinstance(word, str) or not word.strip():
                raise self.reject()
            if self.choices and word not in self.choices:
                raise self.reject()
            words.append(word.strip())
        return tuple(dict.fromkeys(words))

    def parse(self, text: str) -> tuple[str, ...]:
        """See ``Kind``."""
        return self.check([word for word in text.split(",") if word.strip()])


@dataclass(frozen=True)
class SizeWh(Kind):
    """Width and height in pixels, multiples of 32 as YOLO's three strides ask."""

    described: str = 'a width and height that 32 divides, as [416, 416] or "416x416"'

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "WIDTHxHEIGHT"

    def check(self, value: object) -> tuple[int, int]:
        """See ``Kind``."""
        if isinstance(value, str):
            value = value.lower().replace("x", ",").split(",")
        if not isinstance(value, (list, tuple)) or len(value) != 2:  # noqa: PLR2004
            raise self.reject()
        if not all(isinstance(side, (int, str)) for side in value):
            raise self.reject()
        try:
            width, height = (int(side) for side in value)
        except ValueError:
            raise self.reject() from None
        if min(width, height) < NETWORK_STRIDE_PX or width % 32 or height % 32:
            raise self.reject()
        return width, height


@dataclass(frozen=True)
class Anchors(Kind):
    """Whose anchors, or a list of widths and heights in pixels."""

    described: str = '"auto", "own", "stock", or widths and heights as [10, 13, 16, 30]'
    words: tuple[str, ...] = (AUTO, "own", "stock")

    @property
    def placeholder(self) -> str:
        """See ``Kind``."""
        return "|".join((*self.words, "W,H,W,H..."))

    def check(self, value: object) -> object:
        """See ``Kind``."""
        if isinstance(value, str):
            if value in self.words:
                return value
            value = value.split(",")
        if not isinstance(value, (list, tuple)) or not value or len(value) % 2:
            raise self.reject()
        try:
            sizes = tuple(float(side) for side in value)
        except (TypeError, ValueError):
            raise self.reject() from None
        if not all(0 < side <= _LARGEST_ANCHOR_PX for side in sizes):
            raise self.reject()
        return sizes


@dataclass(frozen=True)
class Capabilities(Kind):
    """Compute capabilities of GPUs, given as "8.6", "86" or "75;86"; kept as ("75", "86")."""

    described: str = 'compute capabilities of GPUs, such as "8.6" or "75;86"'

    def check(self, value: object) -> tuple[str, ...]:
        """See ``Kind``."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)):
            raise self.reject()
        words = [word for text in texts for word in str(text).replace(";", ",").split(",")]
        numbers = [word.strip().removeprefix("sm_").removeprefix("compute_") for word in words]
        if not all(re.fullmatch(r"\d{1,2}\.\d|\d{2,3}", number) for number in numbers):
            raise self.reject()
        return tuple(dict.fromkeys(number.replace(".", "") for number in numbers))


@dataclass(frozen=True)
class OrAuto(Kind):
    """Another kind, or the word "auto"."""

    described: str = ""
    kind: Kind = field(default_factory=Text)

    def check(self, value: object) -> object:
        """See ``Kind``."""
        return AUTO if value == AUTO else self.kind.check(value)

    def parse(self, text: str) -> object:
        """See ``Kind``."""
        return AUTO if text == AUTO else self.kind.parse(text)


@dataclass(frozen=True)
class Maybe(Kind):
    """Another kind, or nothing at all (the key is left out, or empty)."""

    described: str = ""
    kind: Kind = field(default_factory=Text)

    def check(self, value: object) -> object:
        """See ``Kind``."""
        return None if value is None or value == "" else self.kind.check(value)

    def parse(self, text: str) -> object:
        """See ``Kind``."""
        return None if text == "" else self.kind.parse(text)


def _choice(*words: str) -> Choice:
    return Choice("one of " + ", ".join(f'"{word}"' for word in words), words)


def _fraction() -> Number:
    return Number("a number from 0 to 1", low=0.0, high=1.0)


def _count(low: int = 0) -> Number:
    return Number(f"a whole number, {low} or more", whole=True, low=low)


def _or_auto(kind: Kind) -> OrAuto:
    return OrAuto(f'"auto" or {kind.described}', kind)


def _maybe(kind: Kind) -> Maybe:
    return Maybe(kind.described + ", or nothing", kind)


def _key(default: Any, kind: Kind, told: str, option: str = "") -> Any:  # noqa: ANN401
    return field(default=default, metadata={"kind": kind, "told": told, "option": option})


@dataclass(frozen=True)
class DatasetOptions:
    """``[dataset]``: which images and boxes are wanted."""

    classes: tuple[str, ...] = _key(
        ("Boat",),
        Words("a list of Open Images class names or MIDs"),
        "class names or MIDs, in the order of their class ids",
        "class",
    )
    include_descendants: bool = _key(
        True, Flag(), "boxes of a class's children count as that class (a canoe is a boat)"
    )
    subsets: tuple[str, ...] = _key(
        ("train",),
        Words('some of "train", "validation", "test"', choices=("train", "validation", "test")),
        "Open Images' own subsets to take images from",
        "subset",
    )
    limit: int = _key(0, _count(), "at most so many positive images; 0 takes all")
    negatives: float = _key(
        0.0,
        Number("a number, 0 or more"),
        "verified images without the classes, as a ratio of the positive ones",
    )
    require_verified: bool = _key(
        False, Flag(), "only images in which humans verified every selected class"
    )
    group_of: str = _key(
        "keep", _choice(*FLAG_CHOICES, "mask"), "boxes round a group of more than five"
    )
    occluded: str = _key("keep", _choice(*FLAG_CHOICES), "boxes of partly hidden objects")
    truncated: str = _key("keep", _choice(*FLAG_CHOICES), "boxes cut off by the image's edge")
    depiction: str = _key("keep", _choice(*FLAG_CHOICES), "drawings, toys, statues")
    inside: str = _key("keep", _choice(*FLAG_CHOICES), "pictures taken from inside the object")
    min_box_area: float = _key(0.0, _fraction(), "smallest box, as a fraction of the image")
    max_box_area: float = _key(1.0, _fraction(), "largest box, as a fraction of the image")


@dataclass(frozen=True)
class OpenImagesOptions:
    """``[openimages]``: where the annotations come from."""

    release: str = _key("v7", _choice("v4", "v5", "v6", "v7"), "Open Images release")
    base_url: str = _key(
        "https://storage.googleapis.com/openimages", Text("an http(s) URL"), "place of the CSVs"
    )
    cache: str | None = _key(
        None, _maybe(Text("a folder")), "where the CSVs are kept; the user's cache folder if unset"
    )
    stream: bool = _key(
        False, Flag(), "pick the rows out while the CSVs come in, and keep no copy of them"
    )
    skip_bad_rows: bool = _key(
        False, Flag(), "leave broken rows of the CSVs out and count them, rather than stop"
    )


@dataclass(frozen=True)
class ImagesOptions:
    """``[images]``: where the pixels come from and what is made of them."""

    sources: tuple[str, ...] = _key(
        ("mirror", "original"),
        Words('a list of "mirror", "original", "thumbnail", gs://bucket/prefix and folders'),
        'where images are tried, in this order: "mirror", "original", "thumbnail", '
        "gs://bucket/prefix, or a folder",
    )
    mirror_url: str = _key(
        "https://open-images-dataset.s3.amazonaws.com",
        Text("an http(s) URL"),
        "the public mirror of 1024-px copies",
    )
    jobs: int | str = _key(AUTO, _or_auto(_count(1)), "images in work at the same time")
    flickr_per_second: float = _key(
        10.0,
        Number("a number, 0 or more"),
        "images asked of Flickr in a second, at most; 0 sets no limit",
    )
    transfer_project: str | None = _key(
        None,
        _maybe(Text("the id of a Google Cloud project")),
        "the project that runs fetch --transfer; that of the credentials if unset",
    )
    tolerance: float = _key(0.02, _fraction(), "share of images that may be missing in the end")
    size: tuple[int, int] = _key((416, 416), SizeWh(), "width and height of the prepared images")
    fit: str = _key(
        "stretch", _choice("stretch", "letterbox", "none"), "how an image is fitted into size"
    )
    keep_originals: bool = _key(True, Flag(), "keep what was fetched after it was prepared")


@dataclass(frozen=True)
class SplitOptions:
    """``[split]``: which images train, validate and test."""

    train: float = _key(0.8, _fraction(), "share of images to train on")
    valid: float = _key(0.1, _fraction(), "share of images to choose weights by")
    test: float = _key(0.1, _fraction(), "share of images that training never sees")
    seed: int = _key(42, _count(), "another seed gives another split")
    group_by: tuple[str, ...] = _key(
        ("duplicate", "author"),
        Words('some of "duplicate", "author"', choices=("duplicate", "author"), may_be_empty=True),
        "what keeps images together in one split",
    )
    official: bool = _key(
        False, Flag(), "Open Images' own subsets are the splits, whatever the shares above"
    )
    look: bool = _key(True, Flag(), "leave contact sheets and charts of the dataset to look at")


@dataclass(frozen=True)
class DarknetOptions:
    """``[darknet]``: the program that trains."""

    executable: str | None = _key(
        None, _maybe(Text("a path to a darknet executable")), "a darknet to use before any other"
    )
    source: str | None = _key(
        None,
        _maybe(Text("a folder with darknet's sources")),
        "sources to build; darknet/ below the project, else below the checkout, if unset",
    )
    source_url: str | None = _key(
        "https://github.com/AlexeyAB/darknet.git",
        _maybe(Text("an address that git can fetch from")),
        "where `build` fetches darknet's sources where there are none; empty: nowhere",
    )
    build_gpu: str = _key(AUTO, _choice(AUTO, "yes", "no"), "build for CUDA; auto looks for it")
    arch: tuple[str, ...] | str = _key(
        AUTO, _or_auto(Capabilities()), "GPUs to build for; auto asks those of this machine"
    )


@dataclass(frozen=True)
class TrainOptions:
    """``[train]``: the network and its schedule."""

    engine: str = _key(AUTO, _choice(AUTO, "darknet"), "what trains")
    network: str = _key(
        "yolov3", Text("a network's name or the path of a .cfg"), "a network's name or a .cfg"
    )
    size_wh: tuple[int, int] | str = _key(
        AUTO, _or_auto(SizeWh()), "network input; auto is [images] size"
    )
    weights: str = _key(
        AUTO,
        Text('"auto", "none" or a path'),
        'what to start from: "auto" is the network\'s own pretrained file, "none" is noise',
    )
    max_batches: int | str = _key(AUTO, _or_auto(_count(1)), "iterations")
    batch: int | str = _key(AUTO, _or_auto(_count(1)), "images an iteration")
    subdivisions: int | str = _key(
        AUTO, _or_auto(_count(1)), "parts that a batch is cut in; auto asks the GPU's memory"
    )
    learning_rate: float | str = _key(
        AUTO,
        _or_auto(Number("a number above 0, 1 at most", low=1e-9, high=1.0)),
        "the rate after burn-in; auto is the network's own, shared out among several GPUs",
    )
    burn_in: int | str = _key(
        AUTO, _or_auto(_count()), "iterations in which the rate climbs from 0"
    )
    anchors: tuple[float, ...] | str = _key(
        AUTO,
        Anchors(),
        'box sizes to start from: "auto" fits own ones and takes them if they are better, "own", '
        '"stock", or a list in pixels',
    )
    gpus: str | None = _key(None, _maybe(Text('GPU numbers, as "0" or "0,1"')), "GPUs to train on")
    patience: int = _key(
        0, _count(), "iterations without a better mAP (or loss) after which it ends; 0 never does"
    )
    max_rollbacks: int = _key(
        3, _count(), "how often it goes back to good weights, slower, before it gives up"
    )
    stall_s: float | str = _key(
        AUTO,
        _or_auto(Number("a number of seconds, 1 or more", low=1.0)),
        "seconds without a word after which darknet is begun anew",
    )
    colours: bool = _key(False, Flag(), "let darknet write colour codes into the log, if it can")
    backup_to: str | None = _key(
        None,
        _maybe(Text("a place gs://bucket/prefix")),
        "where weights and run.json are copied to on the way and at the end",
    )
    price_per_hour: float | None = _key(
        None, _maybe(Number("a number, 0 or more")), "what the machine costs"
    )
    currency: str | None = _key(None, _maybe(Text()), "what the price is in")


@dataclass(frozen=True)
class Config:
    """All options of a project, each with its value or default."""

    dataset: DatasetOptions
    openimages: OpenImagesOptions
    images: ImagesOptions
    split: SplitOptions
    darknet: DarknetOptions
    train: TrainOptions


_SECTIONS: Final[dict[str, Any]] = {
    "dataset": DatasetOptions,
    "openimages": OpenImagesOptions,
    "images": ImagesOptions,
    "split": SplitOptions,
    "darknet": DarknetOptions,
    "train": TrainOptions,
}


@dataclass(frozen=True)
class Key:
    """One key: where it stands, what it takes, what it means."""

    section: str
    name: str
    default: object
    kind: Kind
    told: str
    option: str

    @property
    def path(self) -> str:
        """The key as a person writes it: ``[images] mirror_url``."""
        return f"[{self.section}] {self.name}"

    @property
    def variable(self) -> str:
        """The key's environment variable."""
        return f"OIYOLO_{self.section}_{self.name}".upper()

    def value(self, raw: object, *, where: str, is_text: bool = False) -> object:
        """Read a raw value, or say what this key takes.

        Raises:
            UsageError: The value is of a wrong kind or out of its bounds.
        """
        try:
            return self.kind.parse(str(raw)) if is_text else self.kind.check(raw)
        except _WrongValueError:
            raise UsageError(
                f"wrong value for {self.path}",
                where=where,
                expected=self.kind.described,
                found=repr(raw),
            ) from None


def _declared() -> tuple[Key, ...]:
    return tuple(
        Key(
            section,
            declared.name,
            declared.default,
            declared.metadata["kind"],
            declared.metadata["told"],
            declared.metadata["option"] or declared.name.replace("_", "-"),
        )
        for section, options in _SECTIONS.items()
        for declared in fields(options)
    )


KEYS: Final = _declared()
KEYS_BY_NAME: Final = {key.name: key for key in KEYS}
"""Key names are unique over all sections, so that an option or keyword needs no section."""


def suggestion(word: str, known: tuple[str, ...]) -> str:
    """Give "Did you mean ...?" with the nearest known words, or list them all."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(near) + "?"
    return "Known are " + ", ".join(known)


def read_file(path: Path) -> dict[str, dict[str, object]]:
    """Read an ``oiyolo.toml`` into checked values, by section and name.

    Raises:
        InputFormError: The file is not TOML; the message has the line.
        UsageError: An unknown section or key, or a wrong value.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputFormError("this is not TOML", where=str(path), found=str(error)) from None
    except UnicodeDecodeError as error:
        raise InputFormError("this is not UTF-8 text", where=str(path), found=str(error)) from None
    values: dict[str, dict[str, object]] = {}
    for section, table in raw.items():
        if section not in _SECTIONS:
            raise UsageError(
                f"unknown section [{section}]",
                where=str(path),
                remedy=suggestion(section, tuple(_SECTIONS)),
            )
        if not isinstance(table, dict):
            raise UsageError(
                f"{section} must be a section", where=str(path), expected=f"[{section}]"
            )
        known = {key.name: key for key in KEYS if key.section == section}
        for name, value in table.items():
            if name not in known:
                raise UsageError(
                    f"unknown key {name} in [{section}]",
                    where=str(path),
                    remedy=suggestion(name, tuple(known)),
                )
            values.setdefault(section, {})[name] = known[name].value(value, where=str(path))
    return values


def read_environment(environment: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Read the ``OIYOLO_...`` variables that name a key."""
    values: dict[str, dict[str, object]] = {}
    for key in KEYS:
        if key.variable in environment:
            value = key.value(environment[key.variable], where=key.variable, is_text=True)
            values.setdefault(key.section, {})[key.name] = value
    return values


def read_options(options: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Check keywords of a library call; one that is ``None`` was not given.

    Raises:
        UsageError: A keyword that is no key, or a wrong value.
    """
    values: dict[str, dict[str, object]] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name not in KEYS_BY_NAME:
            raise UsageError(f"unknown option {name}", remedy=suggestion(name, tuple(KEYS_BY_NAME)))
        key = KEYS_BY_NAME[name]
        values.setdefault(key.section, {})[name] = key.value(value, where=f"option {key.option}")
    return values


def load(
    path: Path, options: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Config:
    """Bring file, environment and options together: the later overrides the earlier.

    Args:
        path: The ``oiyolo.toml``; it need not exist.
        options: Keywords by key name; ``None`` means not given.
        environment: ``os.environ`` if not given.
    """
    layers = [
        read_file(path) if path.is_file() else {},
        read_environment(os.environ if environment is None else environment),
        read_options(options),
    ]
    sections = {}
    for section, options_type in _SECTIONS.items():
        merged: dict[str, Any] = {}
        for layer in layers:
            merged.update(layer.get(section, {}))
        sections[section] = options_type(**merged)
    config = Config(**sections)
    _check_together(config)
    return config


def _check_together(config: Config) -> None:
    shares = config.split.train + config.split.valid + config.split.test
    if abs(shares - 1.0) > 1e-9 or config.split.train == 0.0:  # noqa: PLR2004
        raise UsageError(
            "[split] train, valid and test must be shares of one whole, with some to train on",
            expected="a sum of 1",
            found=f"{config.split.train} + {config.split.valid} + {config.split.test} = {shares:g}",
        )
    if config.dataset.min_box_area > config.dataset.max_box_area:
        raise UsageError(
            "[dataset] min_box_area is above max_box_area, so no box would be left",
            found=f"{config.dataset.min_box_area} > {config.dataset.max_box_area}",
        )
    if config.train.backup_to is not None:
        bucket_place(config.train.backup_to, where="[train] backup_to")
    for source in config.images.sources:
        if not _is_source(source):
            raise UsageError(
                f"unknown source {source!r} in [images] sources",
                expected='"mirror", "original", "thumbnail", gs://bucket/prefix, or a folder that '
                "begins with /, ~ or .",
                remedy="For another mirror set [images] mirror_url" if "://" in source else "",
            )


def _is_source(name: str) -> bool:
    if is_bucket(name):
        bucket_place(name, where="[images] sources")
        return True
    return name in {"mirror", "original", "thumbnail"} or name.startswith((".", "/", "~"))


def render(options: Mapping[str, object]) -> str:
    """Write the ``oiyolo.toml`` of a new project: what was chosen, and where to read on."""
    chosen = read_options({"classes": DatasetOptions().classes, **options})
    lines = [
        "# What this project is made of. Every key and its default: `oiyolo init --help`,",
        "# or docs/configuration.md. A key that is left out has its default.",
    ]
    for section in (section for section in _SECTIONS if section in chosen):
        lines += ["", f"[{section}]"]
        lines += [
            f"{key.name} = {_toml(chosen[section][key.name])}"
            for key in KEYS
            if key.section == section and key.name in chosen[section]
        ]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's numbers, texts and true/false are TOML's too.
    return json.dumps("" if value is None else value, ensure_ascii=False)


def as_dict(options: object) -> dict[str, object]:
    """Give a section's values as JSON knows them (tuples become lists)."""
    values: dict[str, object] = json.loads(json.dumps(asdict(options)))  # type: ignore[call-overload]
    return values
