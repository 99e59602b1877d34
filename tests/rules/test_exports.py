"""The public names: what they give, and what asking for them costs."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import types

import pytest

import oiyolo
from oiyolo.cli import commands

HEAVY = ("numpy", "pandas", "matplotlib", "requests", "PIL", "faster_coco_eval", "tqdm", "sqlite3")


@pytest.mark.parametrize("name", oiyolo.__all__)
def test_a_public_name_is_the_same_callable_at_the_second_access(name: str) -> None:
    first = getattr(oiyolo, name)
    importlib.import_module(f"oiyolo.{oiyolo._PLACES[name]}")
    second = getattr(oiyolo, name)
    assert first is second
    assert callable(first)
    assert not isinstance(first, types.ModuleType)


@pytest.mark.parametrize("name", oiyolo.__all__)
def test_a_public_name_tells_what_it_is_for(name: str) -> None:
    assert inspect.getdoc(getattr(oiyolo, name))


def test_the_list_and_the_table_of_public_names_agree() -> None:
    assert sorted(oiyolo.__all__) == sorted(oiyolo._PLACES)
    assert len(set(oiyolo.__all__)) == len(oiyolo.__all__)
    assert set(oiyolo.__all__) <= set(dir(oiyolo))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = oiyolo.trian


def test_importing_every_module_hides_no_public_function() -> None:
    script = (
        "import pkgutil, importlib, types, oiyolo\n"
        "for found in pkgutil.walk_packages(oiyolo.__path__, 'oiyolo.'):\n"
        "    importlib.import_module(found.name)\n"
        "hidden = [n for n in oiyolo.__all__ if isinstance(getattr(oiyolo, n), types.ModuleType)]\n"
        "print(hidden)\n"
    )
    assert run(script) == "[]"


def test_every_command_is_a_public_function_of_the_same_name() -> None:
    assert set(commands.commands) <= set(oiyolo.__all__)


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_a_commands_own_options_are_keywords_of_its_function(name: str) -> None:
    keys = importlib.import_module("oiyolo.project.config").KEYS_BY_NAME
    general = {"as_json", "quiet", "verbose"}
    parameters = inspect.signature(getattr(oiyolo, name)).parameters
    takes_keys = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in commands.commands[name].params:
        assert option.name is not None
        known = option.name in parameters or option.name in general
        assert known or (takes_keys and option.name in keys), option.name


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "action",
    [
        "import oiyolo",
        "import oiyolo.__main__",
        "import oiyolo; oiyolo.UsageError",
        "from oiyolo.cli import main; assert main(['--help']) == 0",
        "from oiyolo.cli import main; assert main(['train', '--help']) == 0",
        "from oiyolo.cli import main; assert main(['--version']) == 0",
    ],
)
def test_what_must_be_quick_imports_nothing_heavy(action: str) -> None:
    told = run(f"{action}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])")
    assert told.splitlines()[-1] == "[]"
