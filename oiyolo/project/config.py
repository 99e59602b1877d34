"""Load a project's configuration: defaults, ``oiyolo.toml``, environment, then options.

The environment overrides the file, and options (of the command line, or keywords of a library
function) override both. Values are checked the same way wherever they were written.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.net.buckets import is_bucket, parse_bucket_url
from oiyolo.net.urls import without_secrets
from oiyolo.project.keys import KEYS, KEYS_BY_NAME, PUBLIC_SOURCES, SECTIONS, Config, DatasetOptions
from oiyolo.project.value_types import has_home

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FILE_NAME: Final = "oiyolo.toml"


def read_file(path: Path) -> dict[str, dict[str, object]]:
    """Return the checked values of an ``oiyolo.toml``, by section and name.

    Raises:
        UsageError: The file is not valid TOML (the message has the line), or has an unknown
            section or key, or a wrong value.
    """
    raw = _read_toml(path)
    values: dict[str, dict[str, object]] = {}
    where = str(path)
    for section, table in raw.items():
        if section not in SECTIONS:
            raise _unknown(f"section [{_shown(section)}]", section, SECTIONS, where)
        if not isinstance(table, dict):
            raise UsageError(f"{section} is not a section", where=where, expected=f"[{section}]")
        keys_by_name = {key.name: key for key in KEYS if key.section == section}
        for name, value in table.items():
            if name not in keys_by_name:
                raise _unknown(f"key {_shown(name)} in [{section}]", name, keys_by_name, where)
            values.setdefault(section, {})[name] = keys_by_name[name].value(value, where=where)
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(files.read_text(path))
    except RecursionError:
        found = "too deep nesting"
    except ValueError as error:  # also not UTF-8, or a number of thousands of digits
        found = str(error)
    raise UsageError("not valid TOML in UTF-8", where=str(path), found=found)


def _shown(word: str) -> str:
    """Return a name from a file for a message, quoted if it is unusual."""
    return word if word.isprintable() and word.strip() else repr(word)


def _unknown(what: str, word: str, choices: Iterable[str], where: str = "") -> UsageError:
    """Return the error for an unknown word, with the most similar words or all of them."""
    similar = difflib.get_close_matches(word, list(choices), n=3, cutoff=0.5)
    remedy = f"Did you mean {' or '.join(similar)}?" if similar else ""
    remedy = remedy or f"Choose one of: {', '.join(choices)}"
    return UsageError(f"unknown {what}", where=where, remedy=remedy)


def read_environment(environment: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Return the checked values of the ``OIYOLO_...`` variables, by section and name."""
    values: dict[str, dict[str, object]] = {}
    for key in KEYS:
        if key.variable in environment:
            value = key.value(environment[key.variable], where=key.variable, is_text=True)
            values.setdefault(key.section, {})[key.name] = value
    return values


def read_options(options: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Return the checked keywords of a library call, by section and name; ``None`` is ignored.

    Raises:
        UsageError: A keyword is not a key, or its value is invalid.
    """
    values: dict[str, dict[str, object]] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name not in KEYS_BY_NAME:
            raise _unknown(f"option {name}", name, KEYS_BY_NAME)
        key = KEYS_BY_NAME[name]
        values.setdefault(key.section, {})[name] = key.value(value, where=f"option {key.option}")
    return values


def load(
    path: Path, options: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Config:
    """Return the configuration: defaults, then file, then environment, then options.

    Args:
        path: The ``oiyolo.toml``; it need not exist.
        options: Keywords by key name; ``None`` is ignored.
        environment: Environment variables; ``os.environ`` by default.

    Raises:
        UsageError: The file is not valid TOML, a key is unknown, a value is invalid, or two of
            them contradict each other.
    """
    layers = [
        read_file(path) if path.is_file() else {},
        read_environment(os.environ if environment is None else environment),
        read_options(options),
    ]
    sections = {}
    for section, options_type in SECTIONS.items():
        merged: dict[str, Any] = {}
        for layer in layers:
            merged.update(layer.get(section, {}))
        sections[section] = options_type(**merged)
    config = Config(**sections)
    _check_combinations(config)
    return config


def _check_combinations(config: Config) -> None:
    shares = config.split.train + config.split.valid + config.split.test
    if abs(shares - 1.0) > 1e-9 or config.split.train == 0.0:  # noqa: PLR2004
        raise UsageError(
            "[split] train, valid and test do not add up to 1, or train is 0",
            expected="a sum of 1, with train above 0",
            found=f"{config.split.train} + {config.split.valid} + {config.split.test} = {shares:g}",
        )
    if config.dataset.min_box_area > config.dataset.max_box_area:
        raise UsageError(
            "[dataset] min_box_area is larger than max_box_area, which excludes every box",
            found=f"{config.dataset.min_box_area} > {config.dataset.max_box_area}",
        )
    if config.train.backup_to is not None:
        parse_bucket_url(config.train.backup_to, where="[train] backup_to")
    for source in config.images.sources:
        if not _is_source(source):
            raise UsageError(
                f"unknown source {without_secrets(repr(source))} in [images] sources",
                expected='"mirror", "original", "thumbnail", gs://bucket/prefix, or a folder that '
                "starts with /, ~ or .",
                remedy="To use another mirror, set [images] mirror_url" if "://" in source else "",
            )


def _is_source(name: str) -> bool:
    if is_bucket(name):
        parse_bucket_url(name, where="[images] sources")
        return True
    is_folder = name.startswith((".", "/", "~")) and has_home(name)
    return is_folder or name in PUBLIC_SOURCES


def render(options: Mapping[str, object]) -> str:
    """Return the text of a new ``oiyolo.toml``: the options, and where to look up all others."""
    chosen = read_options({"classes": DatasetOptions().classes, **options})
    lines = [
        "# The options of this oiyolo project. All keys and defaults: `oiyolo init --help`",
        "# or docs/configuration.md. A key that is absent has its default value.",
    ]
    for section in (section for section in SECTIONS if section in chosen):
        lines += ["", f"[{section}]"]
        lines += [
            f"{key.name} = {_toml(chosen[section][key.name])}"
            for key in KEYS
            if key.section == section and key.name in chosen[section]
        ]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON writes numbers, texts and booleans as TOML does.
    return json.dumps("" if value is None else value, ensure_ascii=False)


def as_dict(options: object) -> dict[str, object]:
    """Return a section's options as JSON-compatible values: tuples become lists."""
    values: dict[str, object] = json.loads(json.dumps(asdict(options)))  # type: ignore[call-overload]
    return values
