"""The engine that trains: darknet, or PyTorch in its place (``torch_engine``)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.core.errors import UsageError
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.program import Darknet
from oiyolo.project.value_types import AUTO

if TYPE_CHECKING:
    from oiyolo.darknet.program import Engine
    from oiyolo.networks.lint import ForkName

DEFAULT_FORK: Final[ForkName] = "alexeyab"
_PROGRAM: Final = "from oiyolo.torch_engine.__main__ import main; sys.exit(main(sys.argv[1:]))"
_CPU_BUILD: Final = "+cpu"


@dataclass(frozen=True)
class EngineChoice:
    """An engine and why it trains.

    Attributes:
        engine: Its key.
        reason: Why, in a few words.
    """

    engine: Engine
    reason: str


def torch_version() -> str:
    """Return the version of PyTorch, which is not imported; empty if it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return ""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "?"


def choose_engine(
    option: str, *, torch: str, has_gpu: bool, darknet_uses_gpu: bool
) -> EngineChoice:
    """Return the engine for this machine.

    Args:
        option: ``[train] engine``.
        torch: Version of the installed PyTorch; empty if there is none.
        has_gpu: Whether this machine has a GPU.
        darknet_uses_gpu: Whether there is a darknet that uses it.

    Raises:
        UsageError: It is torch, which is not installed.
    """
    requested = f'[train] engine = "{option}" is set'
    if option == "darknet":
        return EngineChoice("darknet", requested)
    if option == "torch" and not torch:
        raise UsageError(
            "PyTorch is not installed",
            where="[train] engine",
            found=f"no torch for {sys.executable}",
            remedy="Install the extra: pip install 'oiyolo[torch]'; or set engine to darknet",
        )
    if option != AUTO:
        return EngineChoice("torch", requested)
    if not torch:
        return EngineChoice("darknet", "PyTorch is not installed")
    if has_gpu and darknet_uses_gpu:
        return EngineChoice("darknet", "it uses this machine's GPU")
    why = "no darknet uses this machine's GPU" if has_gpu else "this machine has no GPU"
    return EngineChoice("torch", f"{why}, and PyTorch is installed")


def torch_program(
    version: str, fork: ForkName = DEFAULT_FORK, *, has_gpu: bool, seed: int | None = None
) -> Darknet:
    """Return the program that trains with PyTorch as a fork of darknet does.

    Args:
        version: Version of PyTorch.
        fork: The fork whose rules and file names are used.
        has_gpu: Whether this machine has a GPU.
        seed: Seed of the training; ``None`` for a random one.
    """
    executable, *arguments = process.python_command(_PROGRAM)
    options = ["--fork", fork] + ([] if seed is None else ["--seed", str(seed)])
    return Darknet(
        Path(executable),
        # It measures no mAP, asks nothing and prints no colours.
        replace(
            FORKS[fork],
            train_flags=(),
            no_colour_flags=(),
            map_flags=(),
            confirmation="",
            best_weights="",
        ),
        gpu=has_gpu and not version.endswith(_CPU_BUILD),
        origin=f"PyTorch {version}",
        engine="torch",
        arguments=tuple(arguments),
        options=tuple(options),
    )
