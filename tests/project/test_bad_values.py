"""A table of bad values for every key: the exit code and the form of the error.

The values are derived from each key's own type, so a new key is covered without a line here.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from oiyolo.cli import commands
from oiyolo.core.errors import UsageError
from oiyolo.project import config
from oiyolo.project.keys import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.project.keys import Key
    from tests.conftest import Cli

LONGEST_MESSAGE = 3500
"""Each of the five parts of an error is shortened to 1,000 characters; texts have few long ones."""
ESCAPE_SEQUENCE = "\x1b[2J\x1b[31mred\x9b0m"
LONG_TEXT = "x" * 200_000
# TOML of values that no key accepts, whatever its type.
NEVER_VALID = {
    "table": "{a = 1}",
    "date": "2026-01-01",
    "nested": "[" * 50 + "]" * 50,
    "huge": "9" * 4000,
    "negative": "-1" + "0" * 30,
    "nan": "nan",
    "infinite": "inf",
    "mixed": '[true, {a = "b"}]',
    "null": json.dumps("\0"),
    "escapes": json.dumps(ESCAPE_SEQUENCE),
    "blank": '"   "',
    "long": json.dumps(LONG_TEXT),
}
# Files that cannot be read as TOML at all; `{}` is the key.
NOT_TOML = {
    "digits": "{} = " + "9" * 10_000,
    "depth": "{} = " + "[" * 100_000,
    "text": "{} = Boat",
    "open": '{} = "Boat',
    "binary": "{} = \0\x01",
}


def bad_texts(key: Key) -> Iterator[str]:
    """Yield texts that are invalid for a key in the environment or as an option."""
    yield "\x1b[2J"
    yield LONG_TEXT
    yield "a\nb"
    if key.value_type.placeholder in {"N", "NUMBER"}:
        yield from ("x", "nan", "-inf", "1e300", "-1", "9" * 5000, "1,5", "0x10")
    if key.value_type.is_flag:
        yield from ("maybe", "2")


def check(error: UsageError, key: Key) -> None:
    assert error.exit_code == UsageError.exit_code
    assert error.what == f"invalid value for {key.path}"
    assert error.expected == key.value_type.expected
    text = str(error)
    assert "\n" not in text
    assert len(text) < LONGEST_MESSAGE
    assert text.isprintable()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_no_key_accepts_a_value_of_the_wrong_kind_from_the_file(key: Key, tmp_path: Path) -> None:
    path = tmp_path / config.FILE_NAME
    for value in NEVER_VALID.values():
        path.write_text(f"[{key.section}]\n{key.name} = {value}\n", encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            config.load(path, {}, {})
        check(caught.value, key)
        assert caught.value.where == str(path)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_no_key_accepts_a_bad_text_from_the_environment(key: Key, tmp_path: Path) -> None:
    for text in bad_texts(key):
        with pytest.raises(UsageError) as caught:
            config.load(tmp_path / config.FILE_NAME, {}, {key.variable: text})
        check(caught.value, key)
        assert caught.value.where == key.variable


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_no_key_accepts_a_bad_keyword(key: Key, tmp_path: Path) -> None:
    values: list[object] = [object(), {"a": 1}, b"x", math.nan, 10**400, [[["x"]]], "\0", LONG_TEXT]
    for value in values:
        with pytest.raises(UsageError) as caught:
            config.load(tmp_path / config.FILE_NAME, {key.name: value}, {})
        check(caught.value, key)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_bad_option_exits_2_with_one_paragraph(key: Key, cli: Cli, tmp_path: Path) -> None:
    if key.value_type.is_flag:
        pytest.skip("a flag has no value on the command line")
    command = next(
        n for n, c in commands.commands.items() if key.name in {p.name for p in c.params}
    )
    for text in bad_texts(key):
        done = cli(command, f"--{key.option}={text}", project=tmp_path / "absent")
        assert done.code == UsageError.exit_code, text[:40]
        assert done.out == ""
        assert done.err.count("\n") == 1
        assert done.err.strip("\n").isprintable()
        assert len(done.err) < LONGEST_MESSAGE


@pytest.mark.parametrize("text", NOT_TOML.values(), ids=NOT_TOML)
def test_a_file_that_is_not_toml_exits_2_with_one_paragraph(
    cli: Cli, tmp_path: Path, text: str
) -> None:
    for key in KEYS[:: len(KEYS) // 5]:
        path = tmp_path / config.FILE_NAME
        path.write_text(f"[{key.section}]\n{text.replace('{}', key.name)}\n", encoding="utf-8")
        done = cli("status", project=tmp_path)
        assert done.code == UsageError.exit_code
        assert str(path) in done.err
        assert done.err.count("\n") == 1
        assert len(done.err) < LONGEST_MESSAGE


@pytest.mark.parametrize("name", ["ab\x1b[31m", LONG_TEXT, "a\nb", "\u202egnp", ""])
def test_an_unknown_key_is_shown_without_control_characters(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    for text in (f"[images]\n{json.dumps(name)} = 1\n", f"[{json.dumps(name)}]\na = 1\n"):
        (tmp_path / config.FILE_NAME).write_text(text, encoding="utf-8")
        done = cli("status", project=tmp_path)
        assert done.code == UsageError.exit_code
        assert done.err.strip("\n").isprintable()
        assert len(done.err) < LONGEST_MESSAGE
        shown = cli("status", "--json", project=tmp_path)
        assert shown.json["exit_code"] == UsageError.exit_code
