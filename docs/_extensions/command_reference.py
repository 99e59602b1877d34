"""Write ``docs/commands.md``, the reference of the command line, from its declarations.

``make docs`` runs it; a test compares the page with the declarations.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from oiyolo.cli import commands
from oiyolo.project.keys import KEYS_BY_NAME, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.project.keys import Key

PAGE: Final = Path(__file__).parents[1] / "commands.md"
_COMMON: Final = ("--project", "--dry-run", "--json", "--quiet", "--verbose", "--help")
_COMMON_LINK: Final = "[Options of every command](configuration.md#options-of-every-command)"
_DEFAULT: Final = re.compile(r"\s*\[(?:default: )?(?P<value>[^\[\]]*(?:\[\w+\][^\[\]]*)*)\]$")
_KEY_SUFFIX: Final = re.compile(r"\s*\(\[(?P<section>\w+)\] \w+, default .*$", re.DOTALL)
_INTRODUCTION: Final = """\
# Commands

All commands and their options, as `oiyolo COMMAND --help` prints them. Each command is also a
function in [Python](api.md), with the same options as keywords. An option that is a key can also be
set in `oiyolo.toml` or in the environment; see [configuration](configuration.md), which also lists
the [exit codes](configuration.md#exit-codes).
"""


def page() -> str:
    """Return the page's text."""
    parts = [_INTRODUCTION, _overview()]
    parts += [_entry(context) for context in _leaves(_context(commands, "oiyolo", None))]
    return "\n".join(parts)


def command_names() -> list[str]:
    """Return the names of all commands, such as "train" and "export onnx"."""
    contexts = _leaves(_context(commands, "oiyolo", None))
    return [context.command_path.partition(" ")[2] for context in contexts]


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _leaves(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of each command, in the order of the help; groups are not commands."""
    if not isinstance(context.command, click.Group):
        yield context
        return
    for name, command in context.command.commands.items():
        yield from _leaves(_context(command, name, context))


def _overview() -> str:
    rows = [
        (f"[`{context.command_path}`](#{_anchor(context.command_path)})", context.command.help)
        for context in _leaves(_context(commands, "oiyolo", None))
    ]
    return _table(("command", "what it does"), rows)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _entry(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## `{context.command_path}`\n", f"{command.help}\n", f"```text\n{usage}\n```\n"]
    options = [o for o in command.get_params(context) if isinstance(o, click.Option)]
    own = [o for o in options if not _key(o) and o.opts[-1] not in _COMMON]
    if own:
        rows = [(_names(option, context), _text(option), _default(option)) for option in own]
        columns = 3 if any(default for *_, default in rows) else 2
        heading = ("option", "meaning", "default")
        parts.append(_table(heading[:columns], [row[:columns] for row in rows]))
    parts.append(_keys_part(options, context))
    common = [f"`{o.opts[-1]}`" for o in options if o.opts[-1] in _COMMON]
    parts.append(f"{_COMMON_LINK}: {', '.join(common)}.\n")
    function = getattr(command.callback, "__name__", "")
    parts.append(f"In Python: [`oiyolo.{function}`](api.md).\n")
    return "\n".join(filter(None, parts))


def _keys_part(options: Sequence[click.Option], context: click.Context) -> str:
    """Return the options of a command that are keys; only a link if it takes all of them."""
    keys = [(option, key) for option in options if (key := _key(option))]
    sections = list(dict.fromkeys(key.section for _, key in keys))
    if len(sections) == len(SECTIONS):
        return "It takes every key as an option; see [the keys](configuration.md#keys).\n"
    if not keys:
        return ""
    rows = [
        (_names(option, context), _text(option), _value(key), f"`{key.variable}`")
        for option, key in keys
    ]
    links = [f"[`[{section}]`](configuration.md#{section})" for section in sections]
    return f"Keys of {enumerated(links)}:\n\n" + _table(
        ("option", "meaning", "default", "environment variable"), rows
    )


def enumerated(words: Sequence[str]) -> str:
    """Return words as in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _key(option: click.Option) -> Key | None:
    """Return the key that an option sets; ``None`` if it is not a key."""
    key = KEYS_BY_NAME.get(option.name or "")
    match = _KEY_SUFFIX.search(option.help or "")
    return key if key and match and match["section"] == key.section else None


def _value(key: Key) -> str:
    if key.default is None:
        return "unset"
    if isinstance(key.default, bool):
        return f"`{str(key.default).lower()}`"
    values = key.default if isinstance(key.default, tuple) else (key.default,)
    return ", ".join(f"`{value}`" for value in values) or "none"


def _names(option: click.Parameter, context: click.Context) -> str:
    names = [*option.opts, *option.secondary_opts]
    is_flag = isinstance(option, click.Option) and (option.is_flag or option.count)
    metavar = "" if is_flag else " " + option.make_metavar(context).replace("INTEGER RANGE", "N")
    return ", ".join([*(f"`{name}`" for name in names[:-1]), f"`{names[-1]}{metavar}`"])


def _text(option: click.Parameter) -> str:
    """Return what an option means: its help without the default, which has its own column."""
    text = getattr(option, "help", None) or ""
    text = _DEFAULT.sub("", _KEY_SUFFIX.sub("", text)).strip()
    text = text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
    return text + (" May be repeated." if option.multiple and "repeated" not in text else "")


def _default(option: click.Parameter) -> str:
    if match := _DEFAULT.search(getattr(option, "help", None) or ""):
        return match["value"]
    is_shown = isinstance(option, click.Option) and option.show_default
    return f"`{option.default}`" if is_shown or option.name == "project" else ""


def _table(heading: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(
        "|" + "".join(f" {_cell(c)} |" if c else " |" for c in row) + "\n" for row in lines
    )


def _cell(text: str) -> str:
    """Return a text in which nothing ends the cell, or is an HTML tag outside of code."""
    parts = text.replace("|", r"\|").split("`")
    parts[::2] = [part.replace("<", r"\<") for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
