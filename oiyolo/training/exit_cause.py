"""Determine from darknet's output why a run ended too early; its exit code is unreliable."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.darknet.build import failures
from oiyolo.trainlog.cuda_errors import spell_out
from oiyolo.trainlog.parse import complaints

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAP_BEGINS: Final = re.compile(r"calculat(?:ion|ing) mAP", re.IGNORECASE)
_MAP_ENDS: Final = re.compile(r"mean[_ ]average[_ ]precision \(mAP@", re.IGNORECASE)
_GPU_LIBRARY: Final = re.compile(r"cudnn|cuda|cublas", re.IGNORECASE)
_CRASHES: Final = frozenset({-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE})
_LAST_WORDS: Final = re.compile(
    # error() in AlexeyAB's src/utils.c; darknet_fatal_error() in hank-ai's src-lib/utils.cpp
    r"^Darknet error location: .*\n\s*(.+)|\bError message: +(.+)",
    re.MULTILINE,
)


class ExitCause(NamedTuple):
    """Why a run ended.

    Attributes:
        name: The cause in a few words; empty if the output matches no known cause.
        remedy: What to do.
        line: The line of darknet's output that shows the cause, quoted; empty without output.
    """

    name: str
    remedy: str
    line: str


class _Cause(NamedTuple):
    pattern: str
    name: str
    remedy: str


_RESUME: Final = "then run the same command again to resume from the last saved weights"
_CAUSES: Final = (
    _Cause(
        r"l\.outputs == params\.inputs|filters= in the \[convolutional\]",
        "the filters before a [yolo] layer do not match its classes and mask",
        "Set filters to (classes + 5) times the length of mask, or set [train] network to a "
        "built-in name",
    ),
    _Cause(
        r"(?:Couldn't open file|[Cc](?:an't|annot|ouldn't) (?:load|open)).*\.(?:backup|weights)\b",
        "weights cannot be written or read",
        "Check that the run's folder weights/ exists and is writable, " + _RESUME,
    ),
    _Cause(
        r"invalid device ordinal",
        "the GPU or its driver is missing",
        "Check nvidia-smi and [train] gpus, " + _RESUME,
    ),
    _Cause(
        r"[MCmcR]?e?alloc error|bad_alloc|out of CPU RAM|pinned memory on CPU-RAM|^\s*Killed\b",
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
        r"|uncorrectable ECC|CUDA Error\W.*unknown error|cudaErrorUnknown|device-side assert"
        r"|an illegal instruction was encountered|CUDNN_STATUS_EXECUTION_FAILED",
        "the GPU failed",
        "Look for NVRM messages in dmesg, and at nvidia-smi; restart the machine if the GPU fails "
        "again, " + _RESUME,
    ),
)
_DATA_CAUSES: Final = (
    _Cause(
        r"(?:Couldn't open file|[Cc]an't (?:load|open)(?: file)?).*\.txt\b|[Cc]an't open label file"
        r"|Failed to (?:infer|open) label",
        "a label is missing",
        "Run `oiyolo prepare` and `oiyolo split`, " + _RESUME,
    ),
    _Cause(
        r"[Cc](?:annot|an't|ouldn't) load image|[Cc]annot load|failed to load image",
        "an image cannot be read",
        "Run `oiyolo prepare` and `oiyolo split`, " + _RESUME,
    ),
)
"""Causes only if there is no other one: AlexeyAB's darknet goes on after some of these lines."""
_KILLED: Final = _Cause(
    "",
    "it was killed, probably because memory ran out",
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
    text = spell_out("\n".join(log))
    cause = (
        _named_cause(_CAUSES, text)
        or _explained_cause(failures.explain(text, is_built=is_built))
        or _named_cause(_DATA_CAUSES, text)
    )
    if cause is not None:
        return cause
    line = _last_words(log)
    if exit_code == -signal.SIGKILL:
        return ExitCause(_KILLED.name, _KILLED.remedy, line)
    by_signal = _explained_cause(failures.explain("", exit_code, is_built=is_built))
    if by_signal is not None:
        return by_signal._replace(line=line)
    name = "" if iterations else "nothing was trained"
    return ExitCause(name, "Fix the cause, " + _RESUME, line)


def _named_cause(causes: Sequence[_Cause], text: str) -> ExitCause | None:
    for cause in causes:
        if match := re.search(cause.pattern, text, re.MULTILINE):
            return ExitCause(cause.name, cause.remedy, failures.quoted_line(match))
    return None


def _explained_cause(failure: failures.Failure | None) -> ExitCause | None:
    if failure is None:
        return None
    return ExitCause(failure.what, f"{failure.remedy}, {_RESUME}", failure.line)


def _last_words(log: Sequence[str]) -> str:
    """Return the line in which a program says why it ends, quoted; empty if it printed nothing."""
    if last_words := _LAST_WORDS.search("\n".join(log)):
        return failures.complaint(last_words[1] or last_words[2])
    return failures.complaint("\n".join(complaints(log) or log))
