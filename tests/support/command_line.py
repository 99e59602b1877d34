"""The commands of the command line by the names of their functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oiyolo.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterator


def _leaves(group: click.Group, prefix: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        words = (*prefix, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, words)
        else:
            yield "_".join(words), command


COMMANDS = dict(_leaves(commands, ()))
"""Each command, in the order of the help; ``export onnx`` has the name ``export_onnx``."""
