"""Which engine trains, and the command line of PyTorch in darknet's place."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import UsageError
from oiyolo.darknet.program import train_command
from oiyolo.training import engine

if TYPE_CHECKING:
    from oiyolo.networks.lint import ForkName


@pytest.mark.parametrize(
    ("option", "torch", "has_gpu", "darknet_uses_gpu", "expected"),
    [
        ("auto", "", False, False, "darknet"),
        ("auto", "", True, False, "darknet"),
        ("auto", "", True, True, "darknet"),
        ("auto", "2.6.0", False, False, "torch"),
        ("auto", "2.6.0", True, False, "torch"),
        ("auto", "2.6.0", True, True, "darknet"),
        ("auto", "2.6.0", False, True, "torch"),  # built for a GPU that this machine lacks
        ("darknet", "2.6.0", False, False, "darknet"),
        ("darknet", "", False, False, "darknet"),
        ("torch", "2.6.0", True, True, "torch"),
    ],
)
def test_the_engine_depends_on_the_machine(
    *, option: str, torch: str, has_gpu: bool, darknet_uses_gpu: bool, expected: str
) -> None:
    choice = engine.choose_engine(
        option, torch=torch, has_gpu=has_gpu, darknet_uses_gpu=darknet_uses_gpu
    )
    assert choice.engine == expected
    assert choice.reason


def test_asking_for_torch_without_torch_is_an_error() -> None:
    with pytest.raises(UsageError) as raised:
        engine.choose_engine("torch", torch="", has_gpu=False, darknet_uses_gpu=False)
    assert "oiyolo[torch]" in raised.value.remedy


def test_torch_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert engine.torch_version() == ""


@pytest.mark.parametrize(
    ("version", "has_gpu", "gpu"),
    [("2.6.0", True, True), ("2.6.0", False, False), ("2.6.0+cpu", True, False)],
)
def test_the_build_of_pytorch_tells_whether_it_uses_the_gpu(
    *, version: str, has_gpu: bool, gpu: bool
) -> None:
    assert engine.torch_program(version, has_gpu=has_gpu).gpu == gpu


@pytest.mark.parametrize("fork", ["alexeyab", "hank", "pjreddie"])
def test_the_command_line_is_darknets_with_the_fork_and_the_seed(fork: ForkName) -> None:
    program = engine.torch_program("2.6.0", fork, has_gpu=False, seed=7)
    command = train_command(
        program, data="obj.data", cfg="n.cfg", weights="w.weights", resume=False, measure_map=True
    )
    words = ["detector", "train", "obj.data", "n.cfg", "w.weights", "-clear"]
    assert list(command[3:]) == [*words, "--fork", fork, "--seed", "7"]
    assert command[1] == "-c"
