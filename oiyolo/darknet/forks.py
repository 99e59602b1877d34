"""The three lines of darknet, one table each: what differs in how they are driven.

pjreddie's (and Debian's package of it), AlexeyAB's and hank-ai's take the same verbs, but other
flags; they look for labels in other places, keep their weights under other names, speak on other
streams, and end in their own ways. Which one a program is, it says itself (``line_of``). What their
logs look like is in ``trainlog/dialects.py``; ``tests/darknet/test_lines_live.py`` tries each row
on the programs themselves.

What none of them can be asked on one machine is no row: with several GPUs, pjreddie's iteration
numbers leap by 4(n - 1) + 1 at each exchange of weights (src/network.c), the others' go on in steps
of n.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.networks.lint import DarknetLine

Stream = Literal["stdout", "stderr"]

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")
_RARELY: Final = 10_000
"""Iterations between two numbered weights of a long training, in all lines."""


@dataclass(frozen=True)
class Line:
    """One line of darknet.

    Attributes:
        name: Its key.
        title: What a person calls it.
        says: Words in what ``darknet detector`` (without more) prints, by which it is known.
        revision_says: Finds its revision in the same text; empty where it does not tell.
        train_flags: Given to every training: no windows, complete lines.
        plain_flags: Those of them that keep colour codes out of what it prints.
        map_flags: Make it measure mAP on the valid list while it trains; empty if it cannot.
        typed: What a person would have to type before it trains.
        takes_flags: It passes over a flag that it does not know; else it takes it for the name of a
            weights file.
        ends_on_missing_file: Its exit code, as ``process`` gives it, where a file that it was given
            is not there.
        names_missing_file: It tells which.
        iterations_on: Where it prints the lines of iterations.
        regions_on: Where it prints the lines of detection layers.
        replaced: Words in an image's path that it replaces, the first of each, in this order, to
            find the label.
        endings: What it then makes ``.txt`` at the end of the path; ``None``: whatever stands
            behind the last full stop.
        trains_without_labels: It goes on, and learns that nothing is there, where a label is
            missing; else it ends.
        last_weights: Suffix of the weights to resume from, beside the numbered ones.
        last_every: Iterations between two of them.
        best_weights: Suffix of the weights with the best mAP; empty if it keeps none.
        often: Iterations between two numbered weights while these are written often.
        often_below: That is so below this many iterations...
        often_by: ... of those that were done, or of the whole training.
    """

    name: DarknetLine
    title: str
    says: str
    iterations_on: Stream
    regions_on: Stream
    ends_on_missing_file: int
    last_weights: str
    often: int
    often_below: int
    often_by: Literal["done", "whole"]
    revision_says: str = ""
    train_flags: tuple[str, ...] = ()
    plain_flags: tuple[str, ...] = ()
    map_flags: tuple[str, ...] = ()
    typed: str = ""
    takes_flags: bool = False
    names_missing_file: bool = True
    replaced: tuple[tuple[str, str], ...] = ()
    endings: tuple[str, ...] | None = ()
    trains_without_labels: bool = False
    last_every: int = 100
    best_weights: str = ""

    def revision_in(self, printed: str) -> str:
        """Give its revision out of what ``darknet detector`` printed; empty if it is not there."""
        if not self.revision_says:
            return ""
        found = re.search(self.revision_says, _ESCAPES.sub("", printed))
        return found[1] if found else ""

    def label_of(self, image: str) -> str:
        """Give the path where it looks for an image's label."""
        label = image
        for old, new in self.replaced:
            label = label.replace(old, new, 1)
        if self.endings is None:
            return (label.rpartition(".")[0] or label) + _LABEL
        for ending in self.endings:
            if label.endswith(ending):
                return label.removesuffix(ending) + _LABEL
        return label

    def numbered(self, max_batches: int) -> list[int]:
        """Give the iterations after which it writes weights with the iteration in their name."""
        if self.often_by == "whole":
            every = self.often if max_batches < self.often_below else _RARELY
            return list(range(every, max_batches + 1, every))
        often = range(self.often, min(max_batches + 1, self.often_below), self.often)
        return [*often, *range(_RARELY, max_batches + 1, _RARELY)]


_LABEL: Final = ".txt"

# An unknown flag is taken for the name of a weights file in pjreddie's line (examples/detector.c,
# run_detector), so it gets none at all. Labels: src/data.c, fill_truth_detection.
_PJREDDIE: Final = Line(
    name="pjreddie",
    title="pjreddie's darknet",
    says="[train/test/valid] [cfg] [weights (optional)]",
    iterations_on="stdout",
    regions_on="stdout",
    ends_on_missing_file=0,
    replaced=(
        ("images", "labels"),
        ("JPEGImages", "labels"),
        ("raw", "labels"),
        *((ending, _LABEL) for ending in (".jpg", ".png", ".JPG", ".JPEG")),
    ),
    last_weights=".backup",
    often=100,
    often_below=1000,
    often_by="done",
)
# Labels: src/utils.c, replace_image_to_label.
_ALEXEYAB: Final = Line(
    name="alexeyab",
    title="AlexeyAB's darknet",
    says="[train/test/valid/demo/map] [data] [cfg]",
    train_flags=("-dont_show",),
    map_flags=("-map",),
    iterations_on="stdout",
    regions_on="stderr",
    ends_on_missing_file=1,
    replaced=(
        ("/images/train2017/", "/labels/train2017/"),
        ("/images/val2017/", "/labels/val2017/"),
        ("/JPEGImages/", "/labels/"),
        ("/images/train2014/", "/labels/train2014/"),
        ("/images/val2014/", "/labels/val2014/"),
    ),
    endings=(
        *(".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG"),
        *(".bmp", ".BMP", ".ppm", ".PPM", ".tiff", ".TIFF"),
    ),
    trains_without_labels=True,
    last_weights="_last.weights",
    best_weights="_best.weights",
    often=1000,
    often_below=_RARELY,
    often_by="whole",
)
# It asks whether one really means to train on a CPU (src-lib/detector.cpp, train_detector), and
# ends if nobody answers. Labels: src-lib/utils.cpp, replace_image_to_label.
_HANK: Final = Line(
    name="hank",
    title="hank-ai's darknet",
    says="Darknet V",
    revision_says=r'Darknet V\d+ "[^"]*" (\S+)',
    train_flags=("-dont_show", "-nocolour", "-verbose"),
    plain_flags=("-nocolour",),
    map_flags=("-map",),
    typed="yes\n",
    iterations_on="stdout",
    regions_on="stdout",
    takes_flags=True,
    ends_on_missing_file=-signal.SIGABRT,
    names_missing_file=False,
    endings=None,
    last_weights="_last.weights",
    best_weights="_best.weights",
    often=1000,
    often_below=_RARELY + 1,
    often_by="whole",
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
