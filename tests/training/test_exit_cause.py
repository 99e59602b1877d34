"""Why a training ended, judged by darknet's output and exit code."""

from __future__ import annotations

import signal

import pytest

from oiyolo.training.exit_cause import died_measuring_map, find_cause

BEGINS = " calculation mAP (mean average precision)..."
ENDS = " mean_average_precision (mAP@0.50) = 0.800000 "
CUDNN = " cuDNN Error: CUDNN_STATUS_BAD_PARAM"


@pytest.mark.parametrize(
    ("log", "exit_code", "expected"),
    [
        ([BEGINS, CUDNN], 1, True),
        ([BEGINS], -signal.SIGSEGV, True),
        (["Calculating mAP (mean average precision)...", CUDNN], -signal.SIGABRT, True),
        ([BEGINS, ENDS, BEGINS, CUDNN], 1, True),
        ([BEGINS, ENDS, CUDNN], 1, False),
        ([CUDNN], 1, False),
        ([BEGINS], -signal.SIGKILL, False),  # another program ended it
        ([BEGINS], -signal.SIGTERM, False),
        ([BEGINS, "Couldn't open file: x.jpg"], 1, False),
        ([], 0, False),
    ],
)
def test_a_death_while_measuring_map(log: list[str], exit_code: int, expected: bool) -> None:
    assert died_measuring_map(log, exit_code) is expected


@pytest.mark.parametrize(
    ("line", "exit_code", "name"),
    [
        ("", -signal.SIGILL, "another processor"),
        ("", -signal.SIGSEGV, "crashes"),
        ("", -signal.SIGKILL, "killed"),
        ("CUDA Error: no kernel image is available for execution on the device", 1, "this GPU"),
        (" cuDNN Error: CUDNN_STATUS_NOT_INITIALIZED", 1, "CUDNN_STATUS_NOT_INITIALIZED"),
        ("CUDA Error: an illegal memory access was encountered", 1, "the GPU failed"),
        ("CUDA Error: unspecified launch failure", -signal.SIGABRT, "the GPU failed"),
        ("Calloc error - possibly out of CPU RAM", 1, "the machine is out of memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", -6, "out of memory"),
        ("Couldn't open file: /d/obj/0a.txt", -signal.SIGSEGV, "a label is missing"),
        ("CUDA Error: 2", 1, "the GPU has too little free memory"),
        (" cudaStreamCreate error: 2 ", 1, "the GPU has too little free memory"),
        ("CUDA status Error: file a.cu : line: 35 : cudaError 700", 1, "the GPU failed"),
        ("CUDA Error: 48", 1, "this GPU"),
        ("* Error message: current CUDA error: status=222 cudaErrorX", 1, "driver is older"),
        ("* Error message:  CUDA memory allocation failed (1.2 GiB).", 1, "too little free memory"),
        ("CUDA Error: 1234", 1, "CUDA fails: 1234"),
        ("CUDA Error: driver shutting down", 1, "CUDA fails: driver shutting down"),
    ],
)
def test_a_cause_has_a_name_and_a_remedy_that_resumes(line: str, exit_code: int, name: str) -> None:
    cause = find_cause([line], 5, exit_code)
    assert name in cause.name
    assert cause.remedy.endswith("to resume from the last saved weights")


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (["Darknet error location: a.c, f(), line #1", "x: Success", "backtrace"], "'x: Success'"),
        (["* Errno 9", "* Error location: b.cpp", "* Error message:  y", "1/8: main"], "'y'"),
        (["Failed to infer label: a", "CUDA Error: 2"], "'CUDA Error: 2 (out of memory)'"),
        (["1: 2.0, 2.0 avg", "the last line"], "'the last line'"),
        ([], ""),
    ],
)
def test_one_line_shows_the_cause(log: list[str], line: str) -> None:
    assert find_cause(log, 1, 1).line == line


@pytest.mark.parametrize("is_built", [True, False])
def test_the_remedy_suits_the_origin_of_the_program(is_built: bool) -> None:
    remedy = find_cause([], 5, -signal.SIGILL, is_built=is_built).remedy
    assert ("without [darknet] executable" in remedy) is not is_built
