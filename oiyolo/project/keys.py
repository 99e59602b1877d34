"""Every configuration key: its section, default, type and help text, declared once.

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
    Maybe,
    Number,
    OrAuto,
    SizeWh,
    Text,
    Words,
    WrongValueError,
)

if TYPE_CHECKING:
    from oiyolo.project.value_types import Kind

FLAG_CHOICES: Final = ("keep", "drop-box", "drop-image")


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
        except WrongValueError:
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
        for section, options in SECTIONS.items()
        for declared in fields(options)
    )


KEYS: Final = _declared()
KEYS_BY_NAME: Final = {key.name: key for key in KEYS}
"""Key names are unique over all sections, so that an option or keyword needs no section."""
