"""Parameters by layer and name."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.networks.cfg import parse
from oiyolo.networks.parameters import read_parameters

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 8 * 4 + 8 * 27 + 14 + 14 * 8
"""Parameters of the small network: a normalized convolution, and one with biases alone."""


@pytest.mark.parametrize(
    "header", [struct.pack("<3iQ", 0, 2, 0, 7), struct.pack("<3iI", 0, 1, 0, 7)]
)
def test_parameters_are_named_in_the_order_of_the_file(
    tmp_path: Path, small_text: str, header: bytes
) -> None:
    path = tmp_path / "n.weights"
    path.write_bytes(header + np.arange(1, COUNT + 1, dtype="<f4").tobytes())
    first, pool, last, head = read_parameters(path, parse(small_text, path="n.cfg"))
    assert {name: numbers[0] for name, numbers in first.items()} == {
        "biases": 1,
        "scales": 9,
        "means": 17,
        "variances": 25,
        "weights": 33,
    }
    assert (pool, head) == ({}, {})
    assert list(last) == ["biases", "weights"]
    assert last["weights"][-1] == COUNT


def test_weights_need_not_be_the_published_ones_of_their_name(
    tmp_path: Path, small_text: str
) -> None:
    path = tmp_path / "yolov4-tiny.weights"
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, 7) + np.ones(COUNT, "<f4").tobytes())
    read_parameters(path, parse(small_text, path="n.cfg"))


@pytest.mark.parametrize("surplus", [-1, 1, -14 - 14 * 8])
def test_weights_of_another_size_are_refused(tmp_path: Path, small_text: str, surplus: int) -> None:
    path = tmp_path / "n.weights"
    numbers = np.ones(COUNT + surplus, "<f4")
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, 7) + numbers.tobytes())
    with pytest.raises(InputFormError):
        read_parameters(path, parse(small_text, path="n.cfg"))
