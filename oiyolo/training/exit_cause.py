"""Why a training ended too early, by what darknet said, never by its exit code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.trainlog.parse import complaints

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAST_LINES: Final = 5


class Cause(NamedTuple):
    """Why it ended.

    Attributes:
        name: A few words; empty if nothing that is known was said.
        remedy: What to do.
        words: Darknet's own.
    """

    name: str
    remedy: str
    words: str


class _Known(NamedTuple):
    says: re.Pattern[str]
    name: str
    remedy: str


def _known(says: str, name: str, remedy: str) -> _Known:
    return _Known(re.compile(says), name, remedy)


_GO_ON: Final = "then `oiyolo train` goes on from the last weights it saved"
_KNOWN: Final = (
    _known(
        r"l\.outputs == params\.inputs|filters= in the \[convolutional\]",
        "the filters before a [yolo] layer do not fit its classes and mask",
        "Set filters to (classes + 5) times the numbers in mask, or leave [train] network a name",
    ),
    _known(
        r"(?:Couldn't open file|[Cc]an't (?:load|open)(?: file)?).*\.txt\b|[Cc]an't open label file"
        r"|Failed to (?:infer|open) label",
        "a label is missing",
        "Run `oiyolo prepare` and `oiyolo split`, " + _GO_ON,
    ),
    _known(
        r"(?:Couldn't open file|[Cc](?:an't|annot|ouldn't) (?:load|open)).*\.(?:backup|weights)\b",
        "weights could not be written or read",
        "See that the run's folder weights/ is there and can be written to, " + _GO_ON,
    ),
    _known(
        r"[Cc](?:annot|an't|ouldn't) load image|[Cc]annot load",
        "an image could not be read",
        "Run `oiyolo prepare` and `oiyolo split`, " + _GO_ON,
    ),
    _known(
        r"driver version is insufficient|no CUDA-capable device|invalid device ordinal"
        r"|cannot open shared object file",
        "the GPU or its driver was not found",
        "Look whether nvidia-smi answers, and at [train] gpus, " + _GO_ON,
    ),
    _known(
        r"[MCmcR]?e?alloc error|bad_alloc|out of CPU RAM|^\s*Killed\b",
        "the machine's memory is full",
        "End what else uses it, " + _GO_ON,
    ),
    _known(
        r"No space left on device|Disk quota exceeded", "the disk is full", "Make room, " + _GO_ON
    ),
)


def cause_of(log: Sequence[str], iterations: int) -> Cause:
    """Find out why a training ended, from the lines of its last attempt.

    Args:
        log: The lines.
        iterations: How many lines of iterations there were.
    """
    words = "\n".join(complaints(log) or log[-_LAST_LINES:])
    for known in _KNOWN:
        if any(known.says.search(line) for line in log):
            return Cause(known.name, known.remedy, words)
    name = "" if iterations else "nothing was trained"
    return Cause(name, "Mend the cause, " + _GO_ON, words)
