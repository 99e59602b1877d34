"""The three lines of darknet, one table each: what differs in how they are driven.

pjreddie's (and Debian's package of it), AlexeyAB's and hank-ai's take the same verbs but other
flags, keep their last weights under other names, and only some of them know mAP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.networks.lint import DarknetLine


@dataclass(frozen=True)
class Line:
    """One line of darknet.

    Attributes:
        name: Its key.
        title: What a person calls it.
        says: Words in what ``darknet detector`` (without more) prints, by which it is known.
        train_flags: Given to every training: no windows, complete lines.
        map_flags: Make it measure mAP on the valid list while it trains; empty if it cannot.
        last_weights: Suffixes of the weights to resume from, beside the numbered ones.
        best_weights: Suffix of the weights with the best mAP; empty if it keeps none.
    """

    name: DarknetLine
    title: str
    says: str
    train_flags: tuple[str, ...] = ()
    map_flags: tuple[str, ...] = ()
    last_weights: str = ""
    best_weights: str = ""


# An unknown flag is taken for the name of a weights file in pjreddie's line (examples/detector.c,
# run_detector), so it gets none at all.
_PJREDDIE: Final = Line(
    name="pjreddie",
    title="pjreddie's darknet",
    says="[train/test/valid] [cfg] [weights (optional)]",
    last_weights=".backup",
)
_ALEXEYAB: Final = Line(
    name="alexeyab",
    title="AlexeyAB's darknet",
    says="[train/test/valid/demo/map] [data] [cfg]",
    train_flags=("-dont_show",),
    map_flags=("-map",),
    last_weights="_last.weights",
    best_weights="_best.weights",
)
_HANK: Final = Line(
    name="hank",
    title="hank-ai's darknet",
    says="Darknet/YOLO",
    train_flags=("-dont_show", "-nocolour", "-verbose"),
    map_flags=("-map",),
    last_weights="_last.weights",
    best_weights="_best.weights",
)
LINES: Final[Mapping[DarknetLine, Line]] = {
    line.name: line for line in (_ALEXEYAB, _HANK, _PJREDDIE)
}
FINAL_WEIGHTS: Final = "_final.weights"
"""All three lines write it when the last iteration is done."""


def line_of(printed: str) -> Line | None:
    """Tell the line from what ``darknet detector`` printed; ``None`` if it is no darknet."""
    for line in LINES.values():
        if line.says in printed:
            return line
    return None
