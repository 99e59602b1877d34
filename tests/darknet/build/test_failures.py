"""Known failures of a build are explained, tested with real output of the tools."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oiyolo.darknet.build.failures import explain

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
        "CMake Warning at CM_dependencies.cmake:80 (MESSAGE):\n  cuDNN not found.\n",
        "/usr/bin/ld: cannot find -lcudalike: No such file or directory\n",
    ],
)
def test_an_unknown_failure_is_not_explained(output: str) -> None:
    assert explain(output) is None
    assert explain(output + MAKE_ERROR) is None


def test_a_cause_takes_precedence_over_its_consequences() -> None:
    output = CASES["no driver to link"][0] + CASES["a compiler that was killed"][0]
    failure = explain(output)
    assert failure is not None
    assert "ran out of memory" in failure.what
