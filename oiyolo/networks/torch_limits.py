"""What the torch engine cannot train, found in a .cfg alone: PyTorch is not needed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.networks.graph import graph
from oiyolo.networks.layers import HEAD_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from oiyolo.networks.cfg import Cfg, Section
    from oiyolo.networks.lint import ForkName

_REMEDY: Final = 'Remove it, or train with darknet ([train] engine = "darknet")'
_ZEROS: Final = frozenset({"", "0", "0.0", "0."})
_LAYERS: Final = ("dont_update", "burnin_update", "onlyforward", "train_only_bn", "clip")
_UNSUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "net": ("adam",),
    "convolutional": ("assisted_excitation", "angle", "grad_centr", "reverse"),
    "dropout": ("dropblock",),
    "yolo": ("map",),
    "Gaussian_yolo": ("map", "objectness_smooth"),
    "region": ("map", "classfix", "focal_loss"),
}
"""Options that change training and are not supported, by kind of section."""
_ALEXEYABS: Final = ("track", "contrastive", "blur", "gaussian_noise")
"""Options of [net] that are not supported; pjreddie's fork ignores them."""


def check_trainable(cfg: Cfg, fork: ForkName) -> None:
    """Raise if the torch engine does not train a network as a fork of darknet does.

    Args:
        cfg: The network.
        fork: The fork whose rules it follows.

    Raises:
        CfgError: A layer, an option or a value is not supported; the error names its line.
    """
    graph(cfg)
    for section in cfg.sections:
        for key in _unsupported_keys(section, fork):
            if section.has(key) and section.text(key) not in _ZEROS:
                raise section.error(
                    f"{key} of [{section.kind}] is not supported in training with torch",
                    key,
                    found=f"{key}={section.text(key)}",
                    remedy=_REMEDY,
                )
        if section.kind in HEAD_KINDS and fork != "pjreddie":
            _check_head(section)
    if cfg.net.text("policy", "") == "random":
        raise cfg.net.error(
            "the learning rate policy random is not supported in training with torch",
            "policy",
            remedy='Set policy=steps, or train with darknet ([train] engine = "darknet")',
        )
    if fork != "pjreddie" and all(cfg.net.integer(key, 0) for key in ("mosaic", "letter_box")):
        raise cfg.net.error(
            "mosaic and letter_box cannot be combined, as in darknet",
            "letter_box",
            remedy="Set one of them to 0",
        )


def _unsupported_keys(section: Section, fork: ForkName) -> Iterator[str]:
    yield from _UNSUPPORTED.get(section.kind, ())
    if section.kind != "net":
        yield from _LAYERS
    elif fork != "pjreddie":
        yield from _ALEXEYABS


def _check_head(section: Section) -> None:
    """Check what only AlexeyAB's fork and its successors read."""
    if section.kind == "region":
        return
    if section.integer("objectness_smooth", 0) and section.number("truth_thresh", 1) < 1:
        raise section.error(
            "objectness_smooth with a truth_thresh below 1 is not supported with torch",
            "truth_thresh",
            expected="truth_thresh=1",
            remedy=_REMEDY,
        )
    counts, classes = section.integers("counters_per_class"), section.integer("classes", 20)
    if counts and len(counts) != classes:
        raise section.error(
            f"counters_per_class of [{section.kind}] does not fit the classes",
            "counters_per_class",
            expected=f"{classes} numbers",
            found=str(len(counts)),
        )
