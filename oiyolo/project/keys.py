"""Every configuration key, declared once: its section, default, type and help text.

A key is set in ``oiyolo.toml``, in the environment (``OIYOLO_IMAGES_MIRROR_URL`` for ``[images]
mirror_url``), as a command-line option (``--mirror-url``) or as a keyword of a library function
(``mirror_url=``). All of them are parsed by the same value type.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from oiyolo.core.errors import UsageError
from oiyolo.net.urls import without_secrets
from oiyolo.project.value_types import (
    AUTO,
    INVALID_VALUE_ERRORS,
    anchor_sizes,
    capabilities,
    choice,
    count,
    duration,
    flag,
    git_address,
    http_url,
    number,
    or_auto,
    or_none,
    path,
    text,
    width_height,
    words,
)

if TYPE_CHECKING:
    from oiyolo.project.value_types import ValueType

_MAX_SEED: Final = 2**32 - 1
_MAX_ITERATIONS: Final = 10_000_000
PUBLIC_SOURCES: Final = ("mirror", "original", "thumbnail")
"""Sources of images that every machine has."""
FLAG_CHOICES: Final = ("keep", "drop-box", "drop-image")


def _fraction() -> ValueType:
    return number(0, 1)


def _or_none_text(expected: str) -> ValueType:
    return or_none(text(expected))


def _key(default: Any, value_type: ValueType, help_text: str, option: str = "") -> Any:  # noqa: ANN401
    metadata = {"value_type": value_type, "help_text": help_text, "short_option": option}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DatasetOptions:
    """``[dataset]``: which images and boxes to select."""

    classes: tuple[str, ...] = _key(
        ("Boat",),
        words("a list of class names or MIDs"),
        "class names or MIDs, in the order of their class ids",
        "class",
    )
    include_descendants: bool = _key(
        True, flag(), "include the boxes of a class's subclasses (a canoe is a boat)"
    )
    subsets: tuple[str, ...] = _key(
        ("train",),
        words(
            'some of "train", "validation", "test"',
            choices=("train", "validation", "test"),
            allow_empty=True,
        ),
        "Open Images' own subsets to take images from; an empty list: imported images only",
        "subset",
    )
    limit: int = _key(
        0, count(high=10_000_000), "select at most this many positive images; 0 selects all"
    )
    negatives: float = _key(
        0.0,
        number(0, 1000),
        "images verified to lack the classes, as a ratio of the positive images",
    )
    require_verified: bool = _key(
        False, flag(), "select only images in which humans verified every selected class"
    )
    group_of: str = _key(
        "keep", choice(*FLAG_CHOICES, "mask"), "boxes around a group of more than five objects"
    )
    occluded: str = _key("keep", choice(*FLAG_CHOICES), "boxes of partly hidden objects")
    truncated: str = _key(
        "keep", choice(*FLAG_CHOICES), "boxes of objects cut off by the image's edge"
    )
    depiction: str = _key("keep", choice(*FLAG_CHOICES), "boxes of drawings, toys and statues")
    inside: str = _key(
        "keep", choice(*FLAG_CHOICES), "boxes of pictures taken from inside the object"
    )
    difficult: str = _key(
        "drop-box",
        choice(*FLAG_CHOICES),
        "imported boxes that are marked as difficult, which VOC's scoring ignores",
    )
    min_box_area: float = _key(0.0, _fraction(), "smallest box, as a fraction of the image")
    max_box_area: float = _key(1.0, _fraction(), "largest box, as a fraction of the image")


@dataclass(frozen=True)
class OpenImagesOptions:
    """``[openimages]``: where the annotations come from."""

    release: str = _key("v7", choice("v4", "v5", "v6", "v7"), "Open Images release")
    base_url: str = _key(
        "https://storage.googleapis.com/openimages", http_url(), "base URL of the CSVs"
    )
    cache: str | None = _key(
        None, or_none(path("a folder")), "folder for the CSVs; the user's cache folder if unset"
    )
    stream: bool = _key(False, flag(), "filter the CSVs while downloading, and keep no copy")
    skip_bad_rows: bool = _key(
        False, flag(), "skip and count malformed rows of the CSVs instead of stopping"
    )


@dataclass(frozen=True)
class ImagesOptions:
    """``[images]``: where the images come from and how they are prepared."""

    sources: tuple[str, ...] = _key(
        ("mirror", "original"),
        words('a list of "mirror", "original", "thumbnail", gs://bucket/prefix and folders'),
        'where to get images, tried in this order: "mirror", "original", "thumbnail", '
        "gs://bucket/prefix, or a folder",
    )
    mirror_url: str = _key(
        "https://open-images-dataset.s3.amazonaws.com",
        http_url(),
        "base URL of the public mirror, whose copies have 1,024 px on the long side",
    )
    jobs: int | str = _key(AUTO, or_auto(count(1, high=1024)), "images processed at the same time")
    flickr_per_second: float = _key(
        10.0,
        number(0.01, 1000, or_zero=True),
        "requests to Flickr per second, at most; 0 sets no limit",
    )
    transfer_project: str | None = _key(
        None,
        _or_none_text("the id of a Google Cloud project"),
        "Google Cloud project that runs fetch --transfer; the credentials' own if unset",
    )
    tolerance: float = _key(0.02, _fraction(), "share of the images that may be missing at the end")
    size: tuple[int, int] = _key(
        (416, 416), width_height(), "width and height of the prepared images, in pixels"
    )
    fit: str = _key(
        "stretch", choice("stretch", "letterbox", "none"), "how images are fitted to size"
    )
    keep_originals: bool = _key(True, flag(), "keep the fetched files after they are prepared")


@dataclass(frozen=True)
class SplitOptions:
    """``[split]``: how images are assigned to train, valid and test."""

    train: float = _key(0.8, _fraction(), "share of the images to train on")
    valid: float = _key(0.1, _fraction(), "share of the images to select weights on")
    test: float = _key(0.1, _fraction(), "share of the images that training never sees")
    seed: int = _key(42, count(high=_MAX_SEED), "seed of the split")
    group_by: tuple[str, ...] = _key(
        ("duplicate", "author"),
        words('some of "duplicate", "author"', choices=("duplicate", "author"), allow_empty=True),
        "what keeps images together in one split",
    )
    official: bool = _key(
        False, flag(), "use Open Images' own subsets as splits and ignore the shares"
    )
    look: bool = _key(True, flag(), "write contact sheets and charts of the dataset")


@dataclass(frozen=True)
class DarknetOptions:
    """``[darknet]``: the program that trains."""

    executable: str | None = _key(
        None,
        or_none(path("a path to a darknet executable")),
        "darknet executable to use instead of searching for one",
    )
    source: str | None = _key(
        None,
        or_none(path("a folder with darknet's sources")),
        "folder of the sources to build; darknet/ in the project, else in the checkout, if unset",
    )
    source_url: str | None = _key(
        "https://github.com/AlexeyAB/darknet.git",
        or_none(git_address()),
        "where darknet's sources are cloned from if there are none; empty: never",
    )
    build_gpu: str = _key(AUTO, choice(AUTO, "yes", "no"), "build with CUDA; auto detects it")
    arch: tuple[str, ...] | str = _key(
        AUTO,
        or_auto(capabilities()),
        "compute capabilities to build for; auto detects this machine's GPUs",
    )


@dataclass(frozen=True)
class TrainOptions:
    """``[train]``: the network and its schedule."""

    engine: str = _key(
        AUTO,
        choice(AUTO, "darknet", "torch"),
        "what trains; auto is torch if PyTorch is installed, except where there is a darknet that "
        "uses this machine's GPU",
    )
    network: str = _key(
        "yolov3",
        path("a network's name or the path of a .cfg"),
        "a network's name or the path of a .cfg",
    )
    size_wh: tuple[int, int] | str = _key(
        AUTO,
        or_auto(width_height()),
        "network input width and height in pixels; auto is [images] size",
    )
    weights: str = _key(
        AUTO,
        path('"auto", "none" or a path'),
        'initial weights: "auto" is the network\'s own pretrained file, "none" is random weights',
    )
    max_batches: int | str = _key(
        AUTO, or_auto(count(1, high=_MAX_ITERATIONS)), "number of iterations"
    )
    batch: int | str = _key(AUTO, or_auto(count(1, high=65_536)), "images per iteration")
    subdivisions: int | str = _key(
        AUTO,
        or_auto(count(1, high=65_536)),
        "parts that a batch is split into; auto depends on the GPU's memory",
    )
    learning_rate: float | str = _key(
        AUTO,
        or_auto(number(1e-9, 1)),
        "learning rate after burn-in; auto is the network's own, divided by the number of GPUs",
    )
    burn_in: int | str = _key(
        AUTO, or_auto(count(high=_MAX_ITERATIONS)), "iterations of learning-rate warm-up from 0"
    )
    anchors: tuple[float, ...] | str = _key(
        AUTO,
        anchor_sizes(AUTO, "own", "stock"),
        'anchors: "own" are fitted to the dataset, "stock" the network\'s, "auto" the better '
        "of both, or a list in pixels",
    )
    gpus: str | None = _key(None, _or_none_text('GPU numbers, as "0" or "0,1"'), "GPUs to train on")
    map: str = _key(
        "own",
        choice("own", "darknet"),
        'who measures mAP during training: "own" scores new weights in the background, "darknet" '
        "leaves it to darknet, if it can",
    )
    balance: float = _key(
        0.0,
        _fraction(),
        "repeat images of rare classes: share of the images below which a class counts as rare; 0 "
        "disables it",
    )
    train_seed: int | None = _key(
        None,
        or_none(count(high=_MAX_SEED)),
        "seed of the torch engine, which makes training on the CPU reproducible",
    )
    patience: int = _key(
        0,
        count(high=_MAX_ITERATIONS),
        "early stopping: iterations without a better mAP (or loss); 0 disables it",
    )
    max_rollbacks: int = _key(
        3,
        count(high=1000),
        "rollbacks to good weights, and restarts after a stall, before training fails",
    )
    stall_s: float | str = _key(
        AUTO,
        or_auto(number(1, 604_800, unit="seconds")),
        "seconds without output after which training is restarted",
    )
    colours: bool = _key(False, flag(), "let darknet write colour codes to the log, if it can")
    backup_to: str | None = _key(
        None,
        _or_none_text("a location gs://bucket/prefix"),
        "bucket that weights and run.json are copied to, during training and at the end",
    )
    log_to: tuple[str, ...] = _key(
        (),
        words(
            'a list of "tensorboard", "mlflow" and "wandb"',
            ("tensorboard", "mlflow", "wandb"),
            allow_empty=True,
        ),
        'experiment trackers that the training is logged to: "tensorboard", "mlflow", "wandb"',
    )
    price_per_hour: float | None = _key(
        None, or_none(number(0, 1_000_000)), "price of the machine per hour"
    )
    currency: str | None = _key(None, or_none(text()), "currency of the price")


@dataclass(frozen=True)
class RefreshOptions:
    """``[refresh]``: the unattended update."""

    max_loss: float = _key(
        0.05,
        _fraction(),
        "share of the images that a refresh may drop before it fails; 5 images are always allowed",
    )
    deadline: str | None = _key(
        None,
        or_none(duration()),
        "time after which a refresh stops in an orderly way; the next one continues",
    )
    on_failure: str | None = _key(
        None,
        _or_none_text("a shell command or an http(s) URL"),
        "shell command to run, or URL to send JSON to, when a refresh fails",
    )
    on_new_detector: str | None = _key(
        None,
        _or_none_text("a shell command or an http(s) URL"),
        "shell command to run, or URL to send JSON to, when a better detector was published",
    )
    publish_to: str | None = _key(
        None,
        _or_none_text("a location gs://bucket/prefix"),
        "bucket that `refresh --retrain` copies a better detector to",
    )
    retrain_from: str = _key(
        "pretrained",
        choice("pretrained", "last"),
        'initial weights of `refresh --retrain`: "pretrained" is [train] weights, "last" the '
        "current detector's",
    )


@dataclass(frozen=True)
class Config:
    """All options of a project, each with its value or default."""

    dataset: DatasetOptions
    openimages: OpenImagesOptions
    images: ImagesOptions
    split: SplitOptions
    darknet: DarknetOptions
    train: TrainOptions
    refresh: RefreshOptions


SECTIONS: Final = get_type_hints(Config)
"""The options class of each section."""


@dataclass(frozen=True)
class Key:
    """One key: its section, default, type and help text."""

    section: str
    name: str
    default: object
    value_type: ValueType
    help_text: str
    short_option: str

    @property
    def option(self) -> str:
        """The key's command-line option, without its hyphens."""
        return self.short_option or self.name.replace("_", "-")

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
        except INVALID_VALUE_ERRORS:
            written = repr(list(raw) if isinstance(raw, tuple) else raw)
            shown = without_secrets(written)
            raise UsageError(
                f"invalid value for {self.path}",
                where=where,
                expected=self.value_type.expected,
                found=shown if shown == written else f"{shown}, with credentials or a query",
            ) from None


KEYS: Final = tuple(
    Key(section, key.name, key.default, **key.metadata)
    for section, options in SECTIONS.items()
    for key in fields(options)
)
KEYS_BY_NAME: Final = {key.name: key for key in KEYS}
"""Keys by name: names are unique across sections, so options and keywords need no section."""
