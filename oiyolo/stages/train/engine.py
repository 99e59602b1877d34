"""Which engine trains a project, and its program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.darknet.gpus import gpus
from oiyolo.stages import build as build_stage
from oiyolo.training import engine

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.lint import ForkName
    from oiyolo.project.project import Project
    from oiyolo.training.engine import EngineChoice

_WITH_TORCH: Final = "or train with PyTorch instead (`pip install 'oiyolo[torch]'`)"


def chosen_engine(project: Project) -> EngineChoice:
    """Return the engine that trains a project on this machine; nothing is built.

    Raises:
        UsageError: It is torch, which is not installed.
        DarknetError: The configured darknet, which might use the GPU, cannot be used.
    """
    option, torch = project.config.train.engine, engine.torch_version()
    is_open = option == "auto" and bool(torch)
    has_gpu = is_open and bool(gpus())
    built = build_stage.inspect(project)[0] if has_gpu else None
    return engine.choose_engine(
        option,
        torch=torch,
        has_gpu=has_gpu,
        darknet_uses_gpu=built is not None and built.darknet.gpu,
    )


def training_program(project: Project, choice: EngineChoice) -> tuple[Darknet, str]:
    """Return the program that trains, and its revision; darknet is built if necessary.

    Raises:
        DarknetError: There is no darknet, or it cannot be used.
    """
    if choice.engine == "darknet":
        built = build_stage.run(project, alternative=_WITH_TORCH)
        return built.darknet, built.revision
    return torch_program(project), engine.torch_version()


def torch_program(project: Project, fork: ForkName = engine.DEFAULT_FORK) -> Darknet:
    """Return the program that trains with PyTorch as a fork of darknet does."""
    seed = project.config.train.train_seed
    return engine.torch_program(engine.torch_version(), fork, has_gpu=bool(gpus()), seed=seed)
