"""Determine from darknet's output why a run ended too early; its exit code is unreliable."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.darknet.build import failures
from oiyolo.trainlog.parse import complaints

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAST_LINES: Final = 5
_MAP_BEGINS: Final = re.compile(r"calculat(?:ion|ing) mAP", re.IGNORECASE)
_MAP_ENDS: Final = re.compile(r"mean[_ ]average[_ ]precision \(mAP@", re.IGNORECASE)
_GPU_LIBRARY: Final = re.compile(r"cudnn|cuda|cublas", re.IGNORECASE)
_CRASHES: Final = frozenset({-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE})


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
        r"invalid device ordinal",
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
    _Cause(
        r"illegal memory access|unspecified launch failure|launch timed out|misaligned address"
        r"|uncorrectable ECC|CUDA Error: unknown error|CUDNN_STATUS_EXECUTION_FAILED",
        "the GPU failed",
        "Look for NVRM messages in dmesg, and at nvidia-smi; restart the machine if the GPU fails "
        "again, " + _RESUME,
    ),
)
_KILLED: Final = _Cause(
    "",
    "darknet was killed, which the system does when memory runs out",
    'Look for "Out of memory" in dmesg, close other programs that use much memory, ' + _RESUME,
)


def died_measuring_map(log: Sequence[str], exit_code: int) -> bool:
    """Return whether darknet crashed while it measured mAP, as it does with some cuDNN versions.

    AlexeyAB's darknet loads the network a second time for it, and uses cuDNN in another way than
    in training (src/detector.c, validate_detector_map). Programs that end darknet do not count.

    Args:
        log: The lines of darknet's output.
        exit_code: Its exit code, negative for a signal.
    """
    begins = [i for i, line in enumerate(log) if _MAP_BEGINS.search(line)]
    if not begins:
        return False
    rest = "\n".join(log[begins[-1] + 1 :])
    if _MAP_ENDS.search(rest):
        return False
    return exit_code in _CRASHES or _GPU_LIBRARY.search(rest) is not None


def find_cause(
    log: Sequence[str], iterations: int, exit_code: int = 0, *, is_built: bool = False
) -> ExitCause:
    """Return why a run ended, judged by the output and the exit code of its last attempt.

    Args:
        log: The lines of that output.
        iterations: Number of logged iterations.
        exit_code: Darknet's exit code, negative for a signal.
        is_built: Whether oiyolo built this darknet.
    """
    output = "\n".join(complaints(log) or log[-_LAST_LINES:])
    text = "\n".join(log)
    for cause in _CAUSES:
        if re.search(cause.pattern, text, re.MULTILINE):
            return ExitCause(cause.name, cause.remedy, output)
    if exit_code == -signal.SIGKILL:
        return ExitCause(_KILLED.name, _KILLED.remedy, output)
    failure = failures.explain(text, exit_code, is_built=is_built)
    if failure is not None:
        return ExitCause(failure.what, f"{failure.remedy}, {_RESUME}", output)
    name = "" if iterations else "nothing was trained"
    return ExitCause(name, "Fix the cause, " + _RESUME, output)
