"""CUDA's error codes in words, as ``cudaGetErrorString`` returns them."""

from __future__ import annotations

import re
from typing import Final

_TOO_OLD_DRIVER: Final = "CUDA driver version is insufficient for CUDA runtime version"
_NO_DEVICE: Final = "no CUDA-capable device is detected"
_NO_DEVICE_NUMBER: Final = "invalid device ordinal"
_NO_KERNEL: Final = "no kernel image is available for execution on the device"
_ILLEGAL_ACCESS: Final = "an illegal memory access was encountered"
_UNKNOWN: Final = "unknown error"
# cudaError_t in CUDA's driver_types.h. CUDA before 10.1 used other numbers for some of them; those
# that no later version uses for something else are included.
_MESSAGES: Final = {
    1: "invalid argument",
    2: "out of memory",
    3: "initialization error",
    10: _NO_DEVICE_NUMBER,
    30: _UNKNOWN,
    35: _TOO_OLD_DRIVER,
    38: _NO_DEVICE,
    46: "all CUDA-capable devices are busy or unavailable",
    48: _NO_KERNEL,
    77: _ILLEGAL_ACCESS,
    98: "invalid device function",
    100: _NO_DEVICE,
    101: _NO_DEVICE_NUMBER,
    200: "device kernel image is invalid",
    209: _NO_KERNEL,
    214: "uncorrectable ECC error encountered",
    218: "a PTX JIT compilation failed",
    222: "the provided PTX was compiled with an unsupported toolchain",
    700: _ILLEGAL_ACCESS,
    701: "too many resources requested for launch",
    702: "the launch timed out and was terminated",
    710: "device-side assert triggered",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    719: "unspecified launch failure",
    802: "system not yet initialized",
    803: "system has unsupported display driver / cuda driver combination",
    999: _UNKNOWN,
}
_CODE: Final = re.compile(
    r"\b(?:CUDA (?:status )?[Ee]rror(?: Prev| code)?|cudaError(?:_t)?|cuda[A-Z]\w*(?:\(\))? error)"
    r"(?::| =)? ?(?:status=)?(\d{1,4})\b(?!\.\d)(?P<rest>[^\n]*)"
)


def spell_out(text: str) -> str:
    """Return a program's output with CUDA's message in each line that has only its error code."""
    return _CODE.sub(_with_message, text)


def _with_message(match: re.Match[str]) -> str:
    message = _MESSAGES.get(int(match[1]))
    return match[0] if message is None or message in match["rest"] else f"{match[0]} ({message})"
