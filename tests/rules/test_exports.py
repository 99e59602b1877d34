"""The public names: what they are, their signatures, and the cost of importing them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import pydoc
import re
import subprocess
import sys
import types
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.project import keywords
from oiyolo.project.keys import KEYS, KEYS_BY_NAME, SECTIONS
from tests.support.command_line import COMMANDS

if TYPE_CHECKING:
    from oiyolo.project.keys import Key

ROOT = Path(__file__).parents[2]
MORE_EXAMPLES = """
plan: oiyolo.Plan = oiyolo.select("boats", dry_run=True)
shard: oiyolo.FetchedShard = oiyolo.fetch("boats", shard="0/4")
check: oiyolo.Checked = oiyolo.split("boats", check=True)
log: oiyolo.TrainLog = oiyolo.read_log("train_log.txt", regions=False)
oiyolo.fetch("boats", limt=3)
"""
"""More examples for mypy, which must reject the last line only."""

KEYWORDS_BY_SECTION = {
    "dataset": keywords.DatasetKeywords,
    "openimages": keywords.OpenImagesKeywords,
    "images": keywords.ImagesKeywords,
    "split": keywords.SplitKeywords,
    "darknet": keywords.DarknetKeywords,
    "train": keywords.TrainKeywords,
    "refresh": keywords.RefreshKeywords,
}
HEAVY = (
    *("numpy", "pandas", "matplotlib", "requests", "PIL", "faster_coco_eval", "tqdm", "sqlite3"),
    *("onnx", "onnxruntime"),
)


NAMES = [name for name in oiyolo.__all__ if name != "__version__"]
RESULTS = [
    name
    for name in NAMES
    if isinstance(value := getattr(oiyolo, name), type)
    and issubclass(value, oiyolo.Result)
    and value is not oiyolo.Result
]


@pytest.mark.parametrize("name", NAMES)
def test_accessing_a_public_name_twice_returns_the_same_callable(name: str) -> None:
    first = getattr(oiyolo, name)
    importlib.import_module(f"oiyolo.{oiyolo._MODULE_BY_NAME[name]}")
    second = getattr(oiyolo, name)
    assert first is second
    assert callable(first)
    assert not isinstance(first, types.ModuleType)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(oiyolo, name))


def test_all_and_the_table_of_modules_have_the_same_names() -> None:
    assert sorted(NAMES) == sorted(oiyolo._MODULE_BY_NAME)
    assert len(set(oiyolo.__all__)) == len(oiyolo.__all__)


def test_dir_lists_only_the_public_names() -> None:
    assert dir(oiyolo) == sorted(oiyolo.__all__)


def leaves(base: type) -> set[type]:
    """Return the subclasses that no other class is derived from; the others are only shared."""
    children: list[type] = base.__subclasses__()
    return set().union(*map(leaves, children)) if children else {base}


def modules() -> list[str]:
    """Return all modules of the package; those of an engine whose library is missing are not."""
    names = [module.name for module in pkgutil.walk_packages(oiyolo.__path__, "oiyolo.")]
    if importlib.util.find_spec("torch") is None:
        names = [name for name in names if not name.startswith("oiyolo.torch_engine.")]
    return names


def test_every_result_class_is_public() -> None:
    for name in modules():
        importlib.import_module(name)
    results = leaves(oiyolo.Result)
    own = {result.__name__ for result in results if result.__module__.startswith("oiyolo.")}
    assert own == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_the_repr_of_a_result_is_short_even_if_its_text_is_long(name: str) -> None:
    result_type = getattr(oiyolo, name)
    long_text = type("Long", (result_type,), {"__str__": lambda _: "x" * 5000 + "\nmore"})
    result: object = object.__new__(long_text)
    assert repr(result).startswith("<Long: xxx")
    assert len(repr(result)) <= 100
    assert result_type.__repr__ is oiyolo.Result.__repr__


@pytest.mark.parametrize(
    ("public_type", "long_fields"),
    [
        (oiyolo.Project, {"config", "frozen"}),
        (oiyolo.Evaluation, {"classes", "confusion"}),
        (oiyolo.Verdict, {"figures"}),
    ],
)
def test_a_repr_leaves_out_long_fields(public_type: Any, long_fields: set[str]) -> None:
    assert {field.name for field in fields(public_type) if not field.repr} == long_fields


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = oiyolo.trian


def test_no_module_hides_a_public_function() -> None:
    script = (
        "import importlib, types, oiyolo\n"
        f"for name in {modules()}:\n"
        "    importlib.import_module(name)\n"
        "hidden = [n for n in oiyolo.__all__ if isinstance(getattr(oiyolo, n), types.ModuleType)]\n"
        "print(hidden)\n"
    )
    assert run(script) == "[]"


def test_every_command_is_a_public_function_of_the_same_name() -> None:
    assert set(COMMANDS) <= set(oiyolo.__all__)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_options_of_a_command_are_keywords_in_the_signature_of_its_function(name: str) -> None:
    general = {"as_json", "quiet", "verbose"}
    parameters = inspect.signature(getattr(oiyolo, name)).parameters
    assert not any(p.kind in {p.VAR_KEYWORD, p.VAR_POSITIONAL} for p in parameters.values())
    for option in COMMANDS[name].params:
        assert option.name is not None
        assert option.name in parameters or option.name in general, option.name


def test_each_section_has_one_keyword_per_key() -> None:
    for section in SECTIONS:
        names = {key.name for key in KEYS if key.section == section}
        assert set(KEYWORDS_BY_SECTION[section].__annotations__) == names
    assert set(keywords.AllKeywords.__annotations__) == set(KEYS_BY_NAME)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_the_type_of_a_keyword_includes_every_type_that_its_key_accepts(key: Key) -> None:
    annotation = KEYWORDS_BY_SECTION[key.section].__annotations__[key.name].__forward_arg__
    options = {field.name: field.type for field in fields(SECTIONS[key.section])}
    declared = set(str(options[key.name]).split(" | "))
    annotated = set(annotation.split(" | "))
    for member in declared:
        assert member in annotated or any(
            word.startswith("Sequence[") for word in annotated if member.startswith("tuple[")
        )
    assert key.value_type.check(key.default) == key.default


def test_the_help_of_a_function_lists_its_keys_with_their_defaults() -> None:
    text = pydoc.plain(pydoc.render_doc(oiyolo.fetch))
    assert "limit: int = 0" in text
    assert "tolerance: float = 0.02" in text
    assert "limit: " + KEYS_BY_NAME["limit"].help_text in text
    assert "**options" not in text


@pytest.mark.slow
def test_mypy_accepts_the_examples_of_the_readme_and_infers_the_result_types(
    tmp_path: Path,
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert examples
    script = tmp_path / "examples.py"
    script.write_text("\n".join(examples) + MORE_EXAMPLES, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", str(script)],
        capture_output=True, text=True, check=False, timeout=280, cwd=ROOT,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    last_line = len(script.read_text(encoding="utf-8").splitlines())
    assert errors, "the last line has a misspelled keyword"
    assert all(f"{script.name}:{last_line}:" in line for line in errors), done.stdout


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
def test_fast_actions_import_nothing_heavy(action: str) -> None:
    printed = run(f"{action}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])")
    assert printed.splitlines()[-1] == "[]"
