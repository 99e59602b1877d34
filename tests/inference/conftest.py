"""The darknet programs that are installed here.

These are ``darknet`` on PATH and the programs in ``OIYOLO_TEST_DARKNETS``, separated by colons.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from oiyolo.darknet.program import probe

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet

PROGRAMS: Final = [
    *filter(None, [shutil.which("darknet")]),
    *filter(None, os.environ.get("OIYOLO_TEST_DARKNETS", "").split(os.pathsep)),
]


@pytest.fixture(scope="session", params=PROGRAMS or [""])
def program(request: pytest.FixtureRequest) -> Darknet:
    if not request.param:
        pytest.skip("no darknet on PATH (Debian and Ubuntu: apt-get install darknet)")
    return probe(Path(request.param), "installed")
