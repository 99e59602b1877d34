"""The commands of the command line by the names of their functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oiyolo.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterator


def _leaves(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from _leaves(command)
        else:
            assert command.callback is not None
            yield command.callback.__name__, command


COMMANDS = dict(_leaves(commands))
"""Each command, in the order of the help; ``export onnx`` has the name ``export_onnx``."""
