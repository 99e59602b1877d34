"""Every configuration key, declared once: its section, default, type and help text.

A key is set in ``oiyolo.toml``, in the environment (``OIYOLO_IMAGES_MIRROR_URL`` for ``[images]
mirror_url``), as a command-line option (``--mirror-url``) or as a keyword of a library function
(``mirror_url=``). All of them are parsed by the same value type.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.errors import UsageError
from oiyolo.project.value_types import (
    AUTO,
    Anchors,
    Capabilities,
    Choice,
    Flag,
    Number,
    OrAuto,
    OrNone,
    SizeWh,
    Text,
    Words,
    WrongValueError,
)

if TYPE_CHECKING:
    from oiyolo.project.value_types import ValueType

FLAG_CHOICES: Final = ("keep", "drop-box", "drop-image")


def _choice(*words: str) -> Choice:
    return Choice("one of " + ", ".join(f'"{word}"' for word in words), words)


def _fraction() -> Number:
    return Number("a number from 0 to 1", low=0.0, high=1.0)


def _count(low: int = 0) -> Number:
    return Number(f"a whole number, {low} or more", whole=True, low=low)


def _or_auto(value_type: ValueType) -> OrAuto:
    return OrAuto(f'"auto" or {value_type.expected}', value_type)


def _or_none(value_type: ValueType) -> OrNone:
    return OrNone(value_type.expected + ", or nothing", value_type)


def _key(default: Any, value_type: ValueType, help_text: str, option: str = "") -> Any:  # noqa: ANN401
    metadata = {"value_type": value_type, "help_text": help_text, "option": option}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DatasetOptions:
    """``[dataset]``: which images and boxes to select."""

    classes: tuple[str, ...] = _key(
        ("Boat",),
        Words("a list of Open Images class names or MIDs"),
        "class names or MIDs, in the order of their class ids",
        "class",
    )
    include_descendants: bool = _key(
        True, Flag(), "include the boxes of a class's subclasses (a canoe is a boat)"
    )
    subsets: tuple[str, ...] = _key(
        ("train",),
        Words('some of "train", "validation", "test"', choices=("train", "validation", "test")),
        "Open Images' own subsets to take images from",
        "subset",
    )
    limit: int = _key(0, _count(), "select at most this many positive images; 0 selects all")
    negatives: float = _key(
        0.0,
        Number("a number, 0 or more"),
        "images verified to lack the classes, as a ratio of the positive images",
    )
    require_verified: bool = _key(
        False, Flag(), "select only images in which humans verified every selected class"
    )
    group_of: str = _key(
        "keep", _choice(*FLAG_CHOICES, "mask"), "boxes around a group of more than five objects"
    )
    occluded: str = _key("keep", _choice(*FLAG_CHOICES), "boxes of partly hidden objects")
    truncated: str = _key(
        "keep", _choice(*FLAG_CHOICES), "boxes of objects cut off by the image's edge"
    )
    depiction: str = _key("keep", _choice(*FLAG_CHOICES), "boxes of drawings, toys and statues")
    inside: str = _key(
        "keep", _choice(*FLAG_CHOICES), "boxes of pictures taken from inside the object"
    )
    min_box_area: float = _key(0.0, _fraction(), "smallest box, as a fraction of the image")
    max_box_area: float = _key(1.0, _fraction(), "largest box, as a fraction of the image")


@dataclass(frozen=True)
class OpenImagesOptions:
    """``[openimages]``: where the annotations come from."""

    release: str = _key("v7", _choice("v4", "v5", "v6", "v7"), "Open Images release")
    base_url: str = _key(
        "https://storage.googleapis.com/openimages", Text("an http(s) URL"), "base URL of the CSVs"
    )
    cache: str | None = _key(
        None, _or_none(Text("a folder")), "folder for the CSVs; the user's cache folder if unset"
    )
    stream: bool = _key(False, Flag(), "filter the CSVs while downloading, and keep no copy")
    skip_bad_rows: bool = _key(
        False, Flag(), "skip and count malformed rows of the CSVs instead of stopping"
    )


@dataclass(frozen=True)
class ImagesOptions:
    """``[images]``: where the images come from and how they are prepared."""

    sources: tuple[str, ...] = _key(
        ("mirror", "original"),
        Words('a list of "mirror", "original", "thumbnail", gs://bucket/prefix and folders'),
        'where to get images, tried in this order: "mirror", "original", "thumbnail", '
        "gs://bucket/prefix, or a folder",
    )
    mirror_url: str = _key(
        "https://open-images-dataset.s3.amazonaws.com",
        Text("an http(s) URL"),
        "base URL of the public mirror, whose copies have 1,024 px on the long side",
    )
    jobs: int | str = _key(AUTO, _or_auto(_count(1)), "images processed at the same time")
    flickr_per_second: float = _key(
        10.0,
        Number("a number, 0 or more"),
        "requests to Flickr per second, at most; 0 sets no limit",
    )
    transfer_project: str | None = _key(
        None,
        _or_none(Text("the id of a Google Cloud project")),
        "Google Cloud project that runs fetch --transfer; the credentials' own if unset",
    )
    tolerance: float = _key(0.02, _fraction(), "share of the images that may be missing at the end")
    size: tuple[int, int] = _key(
        (416, 416), SizeWh(), "width and height of the prepared images, in pixels"
    )
    fit: str = _key(
        "stretch", _choice("stretch", "letterbox", "none"), "how images are fitted to size"
    )
    keep_originals: bool = _key(True, Flag(), "keep the fetched files after they are prepared")


@dataclass(frozen=True)
class SplitOptions:
    """``[split]``: how images are assigned to train, valid and test."""

    train: float = _key(0.8, _fraction(), "share of the images to train on")
    valid: float = _key(0.1, _fraction(), "share of the images to select weights on")
    test: float = _key(0.1, _fraction(), "share of the images that training never sees")
    seed: int = _key(42, _count(), "seed of the split")
    group_by: tuple[str, ...] = _key(
        ("duplicate", "author"),
        Words('some of "duplicate", "author"', choices=("duplicate", "author"), allow_empty=True),
        "what keeps images together in one split",
    )
    official: bool = _key(
        False, Flag(), "use Open Images' own subsets as splits and ignore the shares"
    )
    look: bool = _key(True, Flag(), "write contact sheets and charts of the dataset")


@dataclass(frozen=True)
class DarknetOptions:
    """``[darknet]``: the program that trains."""

    executable: str | None = _key(
        None,
        _or_none(Text("a path to a darknet executable")),
        "darknet executable to use instead of searching for one",
    )
    source: str | None = _key(
        None,
        _or_none(Text("a folder with darknet's sources")),
        "folder of the sources to build; darknet/ in the project, else in the checkout, if unset",
    )
    source_url: str | None = _key(
        "https://github.com/AlexeyAB/darknet.git",
        _or_none(Text("a URL that git can fetch from")),
        "where `build` clones darknet's sources from if there are none; empty: never",
    )
    build_gpu: str = _key(AUTO, _choice(AUTO, "yes", "no"), "build with CUDA; auto detects it")
    arch: tuple[str, ...] | str = _key(
        AUTO,
        _or_auto(Capabilities()),
        "compute capabilities to build for; auto detects this machine's GPUs",
    )


@dataclass(frozen=True)
class TrainOptions:
    """``[train]``: the network and its schedule."""

    engine: str = _key(AUTO, _choice(AUTO, "darknet"), "training engine")
    network: str = _key(
        "yolov3",
        Text("a network's name or the path of a .cfg"),
        "a network's name or the path of a .cfg",
    )
    size_wh: tuple[int, int] | str = _key(
        AUTO, _or_auto(SizeWh()), "network input width and height in pixels; auto is [images] size"
    )
    weights: str = _key(
        AUTO,
        Text('"auto", "none" or a path'),
        'initial weights: "auto" is the network\'s own pretrained file, "none" is random weights',
    )
    max_batches: int | str = _key(AUTO, _or_auto(_count(1)), "number of iterations")
    batch: int | str = _key(AUTO, _or_auto(_count(1)), "images per iteration")
    subdivisions: int | str = _key(
        AUTO,
        _or_auto(_count(1)),
        "parts that a batch is split into; auto depends on the GPU's memory",
    )
    learning_rate: float | str = _key(
        AUTO,
        _or_auto(Number("a number above 0, 1 at most", low=1e-9, high=1.0)),
        "learning rate after burn-in; auto is the network's own, divided by the number of GPUs",
    )
    burn_in: int | str = _key(
        AUTO, _or_auto(_count()), "iterations of learning-rate warm-up from 0"
    )
    anchors: tuple[float, ...] | str = _key(
        AUTO,
        Anchors(),
        'anchors: "own" are fitted to the dataset, "stock" the network\'s, "auto" the better '
        "of both, or a list in pixels",
    )
    gpus: str | None = _key(
        None, _or_none(Text('GPU numbers, as "0" or "0,1"')), "GPUs to train on"
    )
    patience: int = _key(
        0, _count(), "early stopping: iterations without a better mAP (or loss); 0 disables it"
    )
    max_rollbacks: int = _key(
        3, _count(), "rollbacks to good weights, and restarts after a stall, before training fails"
    )
    stall_s: float | str = _key(
        AUTO,
        _or_auto(Number("a number of seconds, 1 or more", low=1.0)),
        "seconds without output after which darknet is restarted",
    )
    colours: bool = _key(False, Flag(), "let darknet write colour codes to the log, if it can")
    backup_to: str | None = _key(
        None,
        _or_none(Text("a location gs://bucket/prefix")),
        "bucket that weights and run.json are copied to, during training and at the end",
    )
    price_per_hour: float | None = _key(
        None, _or_none(Number("a number, 0 or more")), "price of the machine per hour"
    )
    currency: str | None = _key(None, _or_none(Text()), "currency of the price")


@dataclass(frozen=True)
class Config:
    """All options of a project, each with its value or default."""

    dataset: DatasetOptions
    openimages: OpenImagesOptions
    images: ImagesOptions
    split: SplitOptions
    darknet: DarknetOptions
    train: TrainOptions


SECTIONS: Final[dict[str, Any]] = {
    "dataset": DatasetOptions,
    "openimages": OpenImagesOptions,
    "images": ImagesOptions,
    "split": SplitOptions,
    "darknet": DarknetOptions,
    "train": TrainOptions,
}


@dataclass(frozen=True)
class Key:
    """One key: its section, default, type and help text."""

    section: str
    name: str
    default: object
    value_type: ValueType
    help_text: str
    option: str

    @property
    def path(self) -> str:
        """The key as shown to users: ``[images] mirror_url``."""
        return f"[{self.section}] {self.name}"

    @property
    def variable(self) -> str:
        """The key's environment variable."""
        return f"OIYOLO_{self.section}_{self.name}".upper()

    def value(self, raw: object, *, where: str, is_text: bool = False) -> object:
        """Check a raw value; return it in the form that the program uses.

        Args:
            raw: A value from TOML or Python, or a text.
            where: Where it was written, for the error message.
            is_text: Whether ``raw`` is the text of an environment variable or option.

        Raises:
            UsageError: The value is of the wrong type or out of bounds.
        """
        try:
            return self.value_type.parse(str(raw)) if is_text else self.value_type.check(raw)
        except WrongValueError:
            raise UsageError(
                f"invalid value for {self.path}",
                where=where,
                expected=self.value_type.expected,
                found=repr(raw),
            ) from None


def _all_keys() -> tuple[Key, ...]:
    return tuple(
        Key(
            section,
            option_field.name,
            option_field.default,
            option_field.metadata["value_type"],
            option_field.metadata["help_text"],
            option_field.metadata["option"] or option_field.name.replace("_", "-"),
        )
        for section, options in SECTIONS.items()
        for option_field in fields(options)
    )


KEYS: Final = _all_keys()
KEYS_BY_NAME: Final = {key.name: key for key in KEYS}
"""Keys by name: names are unique across sections, so options and keywords need no section."""
