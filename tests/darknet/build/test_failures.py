"""Known failures of a build are explained, tested with real output of the tools."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from oiyolo.darknet.build.failures import complaint, explain

FILE = Path(__file__).with_name("failures.txt")
CASE = re.compile(r"^== (.+)\n((?:(?!> ).*\n)+)> (.+)\n! (.+)\n", re.MULTILINE)
CASES = {found[1]: found.groups()[1:] for found in CASE.finditer(FILE.read_text(encoding="utf-8"))}
MAKE_ERROR = "make: *** [Makefile:170: all] Error 1\n"


def test_the_file_of_cases_is_read_completely() -> None:
    assert len(CASES) == FILE.read_text(encoding="utf-8").count("\n== ") > 30


@pytest.mark.parametrize("case", CASES)
def test_a_known_failure_is_explained_with_its_remedy(case: str) -> None:
    output, what, remedy = CASES[case]
    for text in (output, f"gcc -c a.c\n{output}{MAKE_ERROR}"):
        failure = explain(text)
        assert failure is not None
        assert what in failure.what
        assert remedy in failure.remedy
        assert len(str(failure).splitlines()) == 2


@pytest.mark.parametrize(
    "output",
    [
        "",
        "src/utils.c:3:1: error: expected ';'\n",
        # Warnings of builds that succeed.
        "src/gemm.c:232:9: warning: implicit declaration of function 'cudaThreadSynchronize'\n",
        "nvcc warning : incompatible redefinition for option 'compiler-bindir'\n",
        '  printf("CUDA Error: %s\\n", s);\n',
        "CMake Warning at CM_dependencies.cmake:80 (MESSAGE):\n  cuDNN not found.\n",
        "/usr/bin/ld: cannot find -lcudalike: No such file or directory\n",
    ],
)
def test_an_unknown_failure_is_not_explained(output: str) -> None:
    assert explain(output) is None
    assert explain(output + MAKE_ERROR) is None


@pytest.mark.parametrize(
    ("exit_code", "what"),
    [
        (-signal.SIGILL, "illegal instruction"),
        (128 + signal.SIGILL, "illegal instruction"),
        (-signal.SIGSEGV, "segmentation fault"),
        (-signal.SIGKILL, "was killed"),
    ],
)
def test_a_signal_is_explained_if_the_output_names_no_failure(exit_code: int, what: str) -> None:
    failure = explain("Loading weights\n", exit_code)
    assert failure is not None
    assert what in failure.what
    failure = explain(CASES["another GPU (as users report it)"][0], exit_code)
    assert failure is not None
    assert what not in failure.what


def test_remedies_name_options_only_where_they_help() -> None:
    cases = [(CASES[case][0], 0) for case in CASES] + [("", -signal.SIGILL)]
    for output, exit_code in cases:
        failure = explain(output, exit_code, is_built=False)
        assert failure is not None
        assert "{" not in failure.remedy
    for case in ("a program for CUDA without a driver", "another GPU (as users report it)"):
        failure = explain(CASES[case][0], is_built=False)
        assert failure is not None
        assert "[darknet] executable" in failure.remedy
        assert "build_gpu" not in failure.remedy
        assert "arch" not in failure.remedy


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("", ""),
        ("one\ntwo\n", "'two'"),
        (
            "gcc -Wfatal-errors -c a.c\na.c:1: error: x\nmake: *** [all] Error 1\n",
            "'a.c:1: error: x'",
        ),
        ("$ make -j2\noh no\nmake: *** [all] Error 1\n", "'oh no'"),
        ("nvcc fatal   : x\nmake[1]: *** Error 1", "'nvcc fatal   : x'"),
    ],
)
def test_the_line_that_names_a_failure_is_found(output: str, line: str) -> None:
    assert complaint(output) == line


def test_a_cause_takes_precedence_over_its_consequences() -> None:
    output = CASES["no driver to link"][0] + CASES["a compiler that was killed"][0]
    failure = explain(output)
    assert failure is not None
    assert "ran out of memory" in failure.what
