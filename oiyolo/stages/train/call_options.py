"""The options of a call, for another process or for the command that continues its run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from oiyolo.net.urls import display_url
from oiyolo.project import config as project_config
from oiyolo.project.keys import KEYS_BY_NAME, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from oiyolo.project.keys import Key
    from oiyolo.project.project import Project

_SECTIONS: Final = ("train", "darknet")
"""Sections of which `oiyolo train` takes the keys as options."""


def option_variables(project: Project) -> dict[str, str]:
    """Return the options that a process with this environment would not have, as variables."""
    saved = asdict(project_config.load(project.options_path, {}))
    return {
        key.variable: _as_text(value, is_list=key.value_type.is_list)
        for section, values in asdict(project.config).items()
        for key, value in _differences(values, saved[section])
    }


def option_words(project: Project) -> list[str]:
    """Return the options of ``oiyolo train`` that are not in the project's file, as words.

    ``oiyolo train`` with these words continues the run that this project would train. An address
    with a password is left out.
    """
    path = project.options_path
    saved = project_config.read_file(path) if path.is_file() else {}
    words: list[str] = []
    for section in _SECTIONS:
        before = asdict(SECTIONS[section](**saved.get(section, {})))
        now = asdict(getattr(project.config, section))
        for key, value in _differences(now, before):
            words += _words(key, value)
    return words


def _words(key: Key, value: object) -> list[str]:
    if key.value_type.is_flag:
        return [f"--{'' if value else 'no-'}{key.option}"]
    if key.name == "source_url" and value is not None and display_url(str(value)) != value:
        return []
    values = value if key.value_type.is_list and isinstance(value, tuple) else (value,)
    return [word for item in values for word in (f"--{key.option}", _as_text(item, is_list=False))]


def _differences(
    now: Mapping[str, object], before: Mapping[str, object]
) -> Iterator[tuple[Key, object]]:
    for name, value in now.items():
        if before[name] != value:
            yield KEYS_BY_NAME[name], value


def _as_text(value: object, *, is_list: bool) -> str:
    if is_list:  # its texts may contain commas
        return json.dumps(value)
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
