"""The error for a log without iterations names what was read instead."""

from __future__ import annotations

import pytest

from oiyolo.charts.training import require_lineage
from oiyolo.core.errors import InputFormError
from oiyolo.trainlog.parse import parse_log

START = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"
MEMORY = "CUDA Error: out of memory\ndarknet: ./src/cuda.c:36: check_error: Assertion `0' failed.\n"


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        pytest.param(
            " 106 yolo\nError: l.outputs == params.inputs\n",
            "on line 2: Error: l.outputs == params.inputs",
            "Fix the cause",
            id="error",
        ),
        pytest.param(START + MEMORY, "on line 2: CUDA Error", "subdivisions", id="GPU memory"),
        pytest.param(
            START + "CUDA Error: 209\n",
            "on line 2: CUDA Error: 209 (no kernel image",
            "Fix the cause",
            id="CUDA error code",
        ),
        pytest.param(
            START + "CUDA Error: 2\n", "(out of memory)", "subdivisions", id="GPU memory, as a code"
        ),
        pytest.param(
            "Can't open label file. obj/x.txt\nCouldn't open file: valid.txt\nAborted\n",
            "on line 2: Couldn't open file: valid.txt",
            "Fix the cause",
            id="the last error, not its consequence",
        ),
        pytest.param(
            f"Loading weights from a.weights...Done!\n{START}Saving weights to b/n_final.weights\n",
            "on line 3: Saving weights to b/n_final.weights",
            "-clear",
            id="weights were trained to the end",
        ),
        pytest.param(START, "line 1", "stdbuf", id="only the start"),
        pytest.param(
            "Saving weights to b/n_100.weights\nSaving weights to b/n_final.weights\n",
            "2 lines about saved weights",
            "2>&1",
            id="stderr alone",
        ),
        pytest.param("", "empty", "darknet detector train", id="empty"),
        pytest.param("a\nb\n", "2 lines", "darknet detector train", id="not a log"),
    ],
)
def test_the_reason_is_named(text: str, found: str, remedy: str) -> None:
    with pytest.raises(InputFormError) as caught:
        require_lineage(parse_log(text, name="some.log"))
    error = caught.value
    assert error.where == "some.log"
    assert found in error.found
    assert remedy in error.remedy
    assert ("stdout" in error.what) == (remedy == "2>&1")
