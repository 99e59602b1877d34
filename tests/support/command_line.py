"""The commands of the command line by the names of their functions."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from oiyolo.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def _leaves(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, (*path, name))
        else:
            yield (*path, name), command


def _function_name(command: click.Command) -> str:
    assert command.callback is not None
    return command.callback.__name__


COMMANDS = {_function_name(command): command for _, command in _leaves(commands)}
"""Each command, in the order of the help; ``export onnx`` has the name ``export_onnx``."""
WORDS = {_function_name(command): words for words, command in _leaves(commands)}
"""What is typed for each command, by the same names: ``("export", "onnx")``."""


def parse(words: Sequence[str]) -> None:
    """Raise if the command line refuses the words after ``oiyolo``.

    Commands keep the help option of the first context, so each gets one with its parents.
    """
    command: click.Command = commands
    with contextlib.ExitStack() as contexts:
        context: click.Context | None = None
        name, remaining = "oiyolo", list(words)
        while isinstance(command, click.Group):
            context = contexts.enter_context(
                click.Context(command, context, name, **command.context_settings)
            )
            name, *remaining = remaining
            command = command.commands[name]
        contexts.enter_context(command.make_context(name, remaining, context))
