"""The engine's command line, which is that of ``darknet detector train``, with more options."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.networks.lint import ForkName

FORKS: Final = ("alexeyab", "hank", "pjreddie")
Choice = Literal["auto", "always", "never"]
CHOICES: Final = ("auto", "always", "never")
_NEEDED_KEYS: Final = ("train", "backup")


@dataclass(frozen=True)
class Options:
    """What to train.

    Attributes:
        data_path: The ``.data`` file.
        cfg_path: The network.
        weights_path: Weights to start from or to resume; ``None`` for random ones.
        clear: Whether to start at iteration 0 whatever the weights say.
        fork: The fork whose rules, log format and file names are used.
        on_gpu: Whether the rules are those of the fork's build for the GPU.
        device: ``auto``, or a device of PyTorch.
        gpus: Numbers of the GPUs; empty for the first one. Each gets a process; on the CPU, too.
        compilation: Whether to compile the network: "auto" for where that pays off, "always" or
            "never".
        seed: Makes a training on the CPU reproducible; ``None`` for a random one.
        rank: Number of this process among those that train together.
        meeting_path: File through which these find each other; ``None`` in the first process.
    """

    data_path: Path
    cfg_path: Path
    weights_path: Path | None = None
    clear: bool = False
    fork: ForkName = "alexeyab"
    on_gpu: bool = True
    device: str = "auto"
    gpus: tuple[int, ...] = ()
    compilation: Choice = "auto"
    seed: int | None = None
    rank: int = 0
    meeting_path: Path | None = None


def parse(argv: Sequence[str]) -> Options:
    """Return the options of a command line without the program's name."""
    parser = argparse.ArgumentParser(
        prog="python -m oiyolo.torch_engine", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("words", nargs=2, choices=("detector", "train"), metavar="detector train")
    parser.add_argument("data", type=Path, help="the .data file")
    parser.add_argument("cfg", type=Path, help="the network")
    parser.add_argument("weights", type=Path, nargs="?", help="weights to start from")
    parser.add_argument("-clear", action="store_true", help="start at iteration 0")
    parser.add_argument("-gpus", default="", help="numbers of the GPUs, such as 0,1")
    parser.add_argument("-dont_show", action="store_true", help="ignored: there are no windows")
    parser.add_argument("--fork", choices=FORKS, default="alexeyab", help="rules and file names")
    parser.add_argument("--cpu-rules", action="store_true", help="rules of the fork's CPU build")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument(
        "--compile", choices=CHOICES, default="auto", help="whether to compile the network"
    )
    parser.add_argument("--seed", type=int, help="make a training on the CPU reproducible")
    parser.add_argument("--rank", type=int, default=0, help="set by the first of several processes")
    parser.add_argument("--meeting", type=Path, help="set by the first of several processes")
    given = parser.parse_args(argv)
    return Options(
        data_path=given.data,
        cfg_path=given.cfg,
        weights_path=given.weights,
        clear=given.clear,
        fork=cast("ForkName", given.fork),
        on_gpu=not given.cpu_rules,
        device=given.device,
        gpus=tuple(int(number) for number in given.gpus.split(",") if number),
        compilation=given.compile,
        seed=given.seed,
        rank=given.rank,
        meeting_path=given.meeting,
    )


def read_data_file(path: Path) -> dict[str, str]:
    """Return the keys and values of a ``.data`` file (read_data_cfg in src/option_list.c).

    Raises:
        InputFormError: It cannot be read, or a key that training needs is missing.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise InputFormError(
            "cannot open a .data file", where=str(path), found=str(error.strerror)
        ) from None
    pairs = (line.partition("=") for line in lines if "=" in line)
    values = {key.strip(): "".join(value.split()) for key, _, value in pairs}
    if missing := [key for key in _NEEDED_KEYS if not values.get(key)]:
        raise InputFormError(
            "a .data file without a key that training needs",
            where=str(path),
            expected=" and ".join(_NEEDED_KEYS),
            found=f"no {missing[0]}",
        )
    return values
