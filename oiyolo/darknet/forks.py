"""The three forks of darknet in use, and how their command lines, paths and outputs differ.

pjreddie's (also packaged by Debian), AlexeyAB's and hank-ai's darknet share their commands but not
their flags. They look for labels in different places, name their weights files differently, print
to different streams and exit differently. ``identify_fork`` recognises a program's fork by its own
output. The formats of their logs are in ``trainlog/dialects.py``;
``tests/darknet/test_forks_live.py`` checks each entry against installed programs.

One difference cannot be tested on a machine with a single GPU and is therefore not listed: with
n GPUs, pjreddie's iteration numbers advance by 4(n - 1) + 1 each time the GPUs exchange weights
(src/network.c), and those of the other forks by n.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.networks.lint import ForkName

Stream = Literal["stdout", "stderr"]

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")
_LONG_INTERVAL: Final = 10_000
"""Iterations between two numbered checkpoints in the long run, in every fork."""


# Only the tests with installed programs read iteration_stream, region_stream,
# missing_file_exit_code, ignores_unknown_flags, names_missing_file and trains_without_labels. They
# complete the specification of each fork, and the tests keep it true.
@dataclass(frozen=True)
class Fork:
    """A fork of darknet.

    Attributes:
        name: Its key.
        title: Its name in messages.
        usage_marker: Text in the output of ``darknet detector`` (without arguments) that identifies
            the fork.
        iteration_stream: The stream on which it prints iteration lines.
        region_stream: The stream on which it prints the lines of detection layers.
        missing_file_exit_code: Its exit code when an input file is missing, as
            ``subprocess`` reports it (negative for a signal).
        last_weights: Suffix of the checkpoint to resume from, which it overwrites.
        short_interval: Iterations between two numbered checkpoints while it saves frequently.
        short_interval_below: It saves frequently below this number of iterations.
        short_interval_by: The number that is compared: iterations done so far, or the length of
            the whole run.
        revision_pattern: Regular expression for its revision in the output of ``darknet detector``;
            empty if it prints none.
        train_flags: Flags for every run: no windows, complete log lines.
        no_colour_flags: Those of ``train_flags`` that suppress colour codes.
        map_flags: Flags that measure mAP on the valid list during training; empty if
            unsupported.
        confirmation: Text that it reads from stdin before it trains.
        ignores_unknown_flags: Whether it ignores unknown flags; otherwise it takes them for the
            name of a weights file.
        names_missing_file: Whether it prints the name of a missing input file.
        path_replacements: Words (old, new) that it replaces in an image's path to find the label:
            the first occurrence of each, in this order.
        image_extensions: Extensions that it replaces by ``.txt``; ``None``: any extension.
        trains_without_labels: Whether it treats an image without a label file as a negative;
            otherwise a missing label file ends training.
        last_weights_interval: Iterations between two writes of ``last_weights``.
        best_weights: Suffix of the checkpoint with the best mAP; empty if it keeps none.
    """

    name: ForkName
    title: str
    usage_marker: str
    iteration_stream: Stream
    region_stream: Stream
    missing_file_exit_code: int
    last_weights: str
    short_interval: int
    short_interval_below: int
    short_interval_by: Literal["iteration", "max_batches"]
    revision_pattern: str = ""
    train_flags: tuple[str, ...] = ()
    no_colour_flags: tuple[str, ...] = ()
    map_flags: tuple[str, ...] = ()
    confirmation: str = ""
    ignores_unknown_flags: bool = False
    names_missing_file: bool = True
    path_replacements: tuple[tuple[str, str], ...] = ()
    image_extensions: tuple[str, ...] | None = ()
    trains_without_labels: bool = False
    last_weights_interval: int = 100
    best_weights: str = ""

    def parse_revision(self, output: str) -> str:
        """Return the revision in the output of ``darknet detector``; empty if it has none."""
        if not self.revision_pattern:
            return ""
        match = re.search(self.revision_pattern, _ESCAPES.sub("", output))
        return match[1] if match else ""

    def label_path(self, image_path: str) -> str:
        """Return the path where this fork looks for an image's label."""
        label = image_path
        for old, new in self.path_replacements:
            label = label.replace(old, new, 1)
        if self.image_extensions is None:
            return (label.rpartition(".")[0] or label) + _LABEL_EXTENSION
        for extension in self.image_extensions:
            if label.endswith(extension):
                return label.removesuffix(extension) + _LABEL_EXTENSION
        return label

    def checkpoint_iterations(self, max_batches: int) -> list[int]:
        """Return the iterations after which this fork saves weights named after the iteration."""
        if self.short_interval_by == "max_batches":
            interval = (
                self.short_interval if max_batches < self.short_interval_below else _LONG_INTERVAL
            )
            return list(range(interval, max_batches + 1, interval))
        early = range(
            self.short_interval,
            min(max_batches + 1, self.short_interval_below),
            self.short_interval,
        )
        return [*early, *range(_LONG_INTERVAL, max_batches + 1, _LONG_INTERVAL)]


_LABEL_EXTENSION: Final = ".txt"

# pjreddie's darknet takes an unknown flag for the name of a weights file (examples/detector.c,
# run_detector), so none are passed. Labels: src/data.c, fill_truth_detection.
_PJREDDIE: Final = Fork(
    name="pjreddie",
    title="pjreddie's darknet",
    usage_marker="[train/test/valid] [cfg] [weights (optional)]",
    iteration_stream="stdout",
    region_stream="stdout",
    missing_file_exit_code=0,
    path_replacements=(
        ("images", "labels"),
        ("JPEGImages", "labels"),
        ("raw", "labels"),
        *((extension, _LABEL_EXTENSION) for extension in (".jpg", ".png", ".JPG", ".JPEG")),
    ),
    last_weights=".backup",
    short_interval=100,
    short_interval_below=1000,
    short_interval_by="iteration",
)
# Labels: src/utils.c, replace_image_to_label.
_ALEXEYAB: Final = Fork(
    name="alexeyab",
    title="AlexeyAB's darknet",
    usage_marker="[train/test/valid/demo/map] [data] [cfg]",
    train_flags=("-dont_show",),
    map_flags=("-map",),
    iteration_stream="stdout",
    region_stream="stderr",
    missing_file_exit_code=1,
    path_replacements=(
        ("/images/train2017/", "/labels/train2017/"),
        ("/images/val2017/", "/labels/val2017/"),
        ("/JPEGImages/", "/labels/"),
        ("/images/train2014/", "/labels/train2014/"),
        ("/images/val2014/", "/labels/val2014/"),
    ),
    image_extensions=(
        *(".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG"),
        *(".bmp", ".BMP", ".ppm", ".PPM", ".tiff", ".TIFF"),
    ),
    trains_without_labels=True,
    last_weights="_last.weights",
    best_weights="_best.weights",
    short_interval=1000,
    short_interval_below=_LONG_INTERVAL,
    short_interval_by="max_batches",
)
# On a CPU it asks for a confirmation before it trains (src-lib/detector.cpp, train_detector), and
# exits without one. Labels: src-lib/utils.cpp, replace_image_to_label.
_HANK: Final = Fork(
    name="hank",
    title="hank-ai's darknet",
    usage_marker="Darknet V",
    revision_pattern=r'Darknet V\d+ "[^"]*" (\S+)',
    train_flags=("-dont_show", "-nocolour", "-verbose"),
    no_colour_flags=("-nocolour",),
    map_flags=("-map",),
    confirmation="yes\n",
    iteration_stream="stdout",
    region_stream="stdout",
    ignores_unknown_flags=True,
    missing_file_exit_code=-signal.SIGABRT,
    names_missing_file=False,
    image_extensions=None,
    last_weights="_last.weights",
    best_weights="_best.weights",
    short_interval=1000,
    short_interval_below=_LONG_INTERVAL + 1,
    short_interval_by="max_batches",
)
FORKS: Final[Mapping[ForkName, Fork]] = {fork.name: fork for fork in (_ALEXEYAB, _HANK, _PJREDDIE)}
FINAL_WEIGHTS: Final = "_final.weights"
"""Suffix of the weights that every fork writes after the last iteration."""


def identify_fork(output: str) -> Fork | None:
    """Return the fork that printed this for ``darknet detector``; ``None`` if none of them did."""
    for fork in FORKS.values():
        if fork.usage_marker in output:
            return fork
    return None
