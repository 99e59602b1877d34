"""The options of a call, for another process or for the command that continues its run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from oiyolo.project import config as project_config
from oiyolo.project.keys import KEYS_BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.project.keys import Config, Key
    from oiyolo.project.project import Project


def option_variables(project: Project) -> dict[str, str]:
    """Return the options that a process with this environment would not have, as variables."""
    saved = project_config.load(project.options_path, {})
    return {
        key.variable: _as_text(value, is_list=key.value_type.is_list)
        for key, value in _differences(project, saved)
    }


def option_words(project: Project) -> list[str]:
    """Return the options of ``[train]`` that are not in the project's file, as on a command line.

    ``oiyolo train`` with these words continues the run that this project would train.
    """
    saved = project_config.load(project.options_path, {}, {})
    words: list[str] = []
    for key, value in _differences(project, saved):
        if key.section != "train" or value is None:
            continue
        if key.value_type.is_flag:
            words.append(f"--{'' if value else 'no-'}{key.option}")
            continue
        values = value if key.value_type.is_list and isinstance(value, tuple) else (value,)
        for item in values:
            words += [f"--{key.option}", _as_text(item, is_list=False)]
    return words


def _differences(project: Project, saved: Config) -> Iterator[tuple[Key, object]]:
    before = asdict(saved)
    for section, values in asdict(project.config).items():
        for name, value in values.items():
            if before[section][name] != value:
                yield KEYS_BY_NAME[name], value


def _as_text(value: object, *, is_list: bool) -> str:
    if is_list:  # its texts may contain commas
        return json.dumps(value)
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
