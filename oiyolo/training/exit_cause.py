"""Determine from darknet's output why a run ended too early; its exit code is unreliable."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.trainlog.parse import complaints

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAST_LINES: Final = 5


class ExitCause(NamedTuple):
    """Why a run ended.

    Attributes:
        name: The cause in a few words; empty if the output matches no known cause.
        remedy: What to do.
        output: The lines of darknet's output that show the cause.
    """

    name: str
    remedy: str
    output: str


class _Cause(NamedTuple):
    pattern: str
    name: str
    remedy: str


_RESUME: Final = "then run `oiyolo train` again to resume from the last saved weights"
_CAUSES: Final = (
    _Cause(
        r"l\.outputs == params\.inputs|filters= in the \[convolutional\]",
        "the filters before a [yolo] layer do not match its classes and mask",
        "Set filters to (classes + 5) times the length of mask, or set [train] network to a "
        "built-in name",
    ),
    _Cause(
        r"(?:Couldn't open file|[Cc]an't (?:load|open)(?: file)?).*\.txt\b|[Cc]an't open label file"
        r"|Failed to (?:infer|open) label",
        "a label is missing",
        "Run `oiyolo prepare` and `oiyolo split`, " + _RESUME,
    ),
    _Cause(
        r"(?:Couldn't open file|[Cc](?:an't|annot|ouldn't) (?:load|open)).*\.(?:backup|weights)\b",
        "weights cannot be written or read",
        "Check that the run's folder weights/ exists and is writable, " + _RESUME,
    ),
    _Cause(
        r"[Cc](?:annot|an't|ouldn't) load image|[Cc]annot load",
        "an image cannot be read",
        "Run `oiyolo prepare` and `oiyolo split`, " + _RESUME,
    ),
    _Cause(
        r"driver version is insufficient|no CUDA-capable device|invalid device ordinal"
        r"|cannot open shared object file",
        "the GPU or its driver is missing",
        "Check nvidia-smi and [train] gpus, " + _RESUME,
    ),
    _Cause(
        r"[MCmcR]?e?alloc error|bad_alloc|out of CPU RAM|^\s*Killed\b",
        "the machine is out of memory",
        "Close other programs that use much memory, " + _RESUME,
    ),
    _Cause(
        r"No space left on device|Disk quota exceeded",
        "the disk is full",
        "Free up space, " + _RESUME,
    ),
)


def find_cause(log: Sequence[str], iterations: int) -> ExitCause:
    """Return why a run ended, judged by the output of its last attempt.

    Args:
        log: The lines of that output.
        iterations: Number of logged iterations.
    """
    output = "\n".join(complaints(log) or log[-_LAST_LINES:])
    text = "\n".join(log)
    for cause in _CAUSES:
        if re.search(cause.pattern, text, re.MULTILINE):
            return ExitCause(cause.name, cause.remedy, output)
    name = "" if iterations else "nothing was trained"
    return ExitCause(name, "Fix the cause, " + _RESUME, output)
