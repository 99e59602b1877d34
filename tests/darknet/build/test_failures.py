"""Known failures of a build are explained: each with what the tools really said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oiyolo.darknet.build.failures import explain

FILE = Path(__file__).with_name("failures.txt")
FORM = re.compile(r"^== (.+)\n((?:(?!> ).*\n)+)> (.+)\n! (.+)\n", re.MULTILINE)
SAID = {found[1]: found.groups()[1:] for found in FORM.finditer(FILE.read_text(encoding="utf-8"))}
AFTERWARDS = "make: *** [Makefile:170: all] Error 1\n"


def test_all_cases_of_the_file_are_read() -> None:
    assert len(SAID) == FILE.read_text(encoding="utf-8").count("\n== ") > 30


@pytest.mark.parametrize("case", SAID)
def test_a_known_failure_is_explained_with_its_remedy(case: str) -> None:
    said, what, remedy = SAID[case]
    for text in (said, f"gcc -c a.c\n{said}{AFTERWARDS}"):
        failure = explain(text)
        assert failure is not None
        assert what in failure.what
        assert remedy in failure.remedy
        assert len(str(failure).splitlines()) == 2


@pytest.mark.parametrize(
    "said",
    [
        "",
        "src/utils.c:3:1: error: expected ';'\n",
        # Warnings of builds that end well.
        "src/gemm.c:232:9: warning: implicit declaration of function 'cudaThreadSynchronize'\n",
        "nvcc warning : incompatible redefinition for option 'compiler-bindir'\n",
        "CMake Warning at CM_dependencies.cmake:80 (MESSAGE):\n  cuDNN not found.\n",
        "/usr/bin/ld: cannot find -lcudalike: No such file or directory\n",
    ],
)
def test_what_is_not_known_is_not_explained(said: str) -> None:
    assert explain(said) is None
    assert explain(said + AFTERWARDS) is None


def test_the_cause_is_told_before_what_follows_from_it() -> None:
    said = SAID["no driver to link"][0] + SAID["a compiler that was killed"][0]
    failure = explain(said)
    assert failure is not None
    assert failure.name == "out of memory"
