"""Import rules: the rows of the table in ARCHITECTURE.md, adapters, and entry points."""

from __future__ import annotations

import ast
import functools
import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import oiyolo

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(oiyolo.__file__).parent
ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"
FILES = sorted(ROOT.rglob("*.py"))

ROWS = {
    "foundation": {"boxes", "core", "drawing"},
    "adapters": {"net"},
    "project": {"project"},
    "domain": {"evaluation", "imagery", "networks", "openimages", "splits", "trainlog"},
    "inference": {"inference"},
    "services": {"charts", "darknet", "interchange", "pages", "sources", "tracking", "transfer"},
    "engine": {"torch_engine"},
    "runs": {"dataset_preview", "label_errors", "provenance", "training"},
    "stages": {"stages"},
    "operations": {"demo_data", "operations", "planning"},
    "edge": {"__main__", "cli"},
}
"""A file imports from its own row and the rows above it; ARCHITECTURE.md shows the same table."""

UNLISTED = {"__init__": "edge"}
"""The module of public names, which is not in the table of ARCHITECTURE.md."""

ROW_ORDER = list(ROWS)
ROW_OF = {unit: row for row, units in ROWS.items() for unit in units} | UNLISTED

INDEPENDENT_ROWS = ("domain", "services")
"""Rows whose packages do not import each other."""

DEFINED_IN_INIT = {"__version__"}
"""Names that ``oiyolo/__init__.py`` defines itself, so that using them imports no other module."""

ADAPTERS = {
    "google": {"net/gcs.py", "net/google_api.py", "net/storage_transfer.py"},
    "google.cloud.storage": {"net/gcs.py", "net/google_api.py"},
    "google.cloud.storage_transfer_v1": {"net/storage_transfer.py"},
    "google_crc32c": {"interchange/tfrecord_writer.py", "net/gcs.py"},
    "requests": {"net/client.py", "net/client_pool.py"},
    "aiohttp": {"net/client_pool.py"},
    "yarl": {"net/client_pool.py"},
    "urllib3": {"net/client.py"},
    "subprocess": {"core/process.py"},
    "sqlite3": {"project/database.py"},
    "distributed": {"net/cluster.py"},
    "dask": set(),
    "fcntl": {"core/locks.py"},
    "tqdm": {"core/progress.py"},
    "click": {"cli.py"},
    "tomllib": {"project/config.py"},
    "yaml": {"interchange/yolo_lists.py"},
    "matplotlib": {"charts/canvas.py", "evaluation/plots.py"},
    "bokeh": {"charts/interactive.py"},
    "tensorboard": {"tracking/tensorboard.py"},
    "mlflow": {"tracking/mlflow.py"},
    "wandb": {"tracking/wandb.py"},
    "onnx": {f"inference/{name}.py" for name in ("convert", "half_weights", "model_file")},
    "onnxruntime": {"inference/session.py"},
    "torch": {
        f"torch_engine/{name}.py"
        for name in (
            *("box_math", "compilation", "heads", "loader", "network", "optimizer", "parallel"),
            *("region_deltas", "render", "saving", "sidecar", "step", "targets", "training"),
            *("validation", "weights_io", "yolo_deltas"),
        )
    },
}
"""The only files that import each external library or service."""

PACKAGES_WITH_CODE = {
    ".",
    *(f"stages/{stage}" for stage in ("evaluate", "fetch", "plot", "prepare", "select", "split")),
    "stages/report",
    "stages/train",
    "operations/import_data",
    "operations/doctor",
    "operations/export_dataset",
    "operations/export_web",
    "operations/predict",
    "operations/refresh",
    "operations/review",
}
"""Packages whose ``__init__`` is a stage or an operation; the others have only a docstring."""

TOP_LEVEL_MODULES = 8
"""Maximum number of files next to the packages, so that the top level is a table of contents."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def unit_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and name of every imported module, also in functions and for type checkers."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if node.module == "oiyolo" and alias.name in DEFINED_IN_INIT:
                    continue
                yield node.lineno, full if full in MODULES else str(node.module)


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imported(path):
        if name.split(".")[0] == "oiyolo":
            yield line, [*name.split("."), "__init__"][1]


def test_every_file_belongs_to_a_row() -> None:
    assert {unit_of(path) for path in FILES} == set(ROW_OF)


def test_the_top_level_is_a_table_of_contents() -> None:
    assert len(list(ROOT.glob("*.py"))) <= TOP_LEVEL_MODULES


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=relative)
def test_the_init_of_a_package_is_a_one_line_docstring_unless_it_is_a_stage(path: Path) -> None:
    has_code = len(path.read_text(encoding="utf-8").splitlines()) > 1
    folder = path.parent.relative_to(ROOT).as_posix()
    assert has_code == (folder in PACKAGES_WITH_CODE)
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_table_in_architecture_md_has_the_same_rows() -> None:
    documented = {
        row: set(units.split())
        for row, units in re.findall(
            r"^\| (\w+) \| `([\w ]+)` \|", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert list(documented.items())[-len(ROWS) :] == list(ROWS.items())


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_imports_nothing_from_a_lower_row(path: Path) -> None:
    own = ROW_OF[unit_of(path)]
    wrong = [
        f"{relative(path)}:{line} ({own}) imports {unit} ({ROW_OF[unit]})"
        for line, unit in own_imports(path)
        if ROW_ORDER.index(ROW_OF[unit]) > ROW_ORDER.index(own)
    ]
    assert not wrong


@pytest.mark.parametrize("row", INDEPENDENT_ROWS)
def test_packages_of_an_independent_row_do_not_import_each_other(row: str) -> None:
    wrong = [
        f"{relative(path)}:{line} imports {unit}"
        for path in FILES
        if unit_of(path) in ROWS[row]
        for line, unit in own_imports(path)
        if unit in ROWS[row] and unit != unit_of(path)
    ]
    assert not wrong


def test_there_are_no_import_cycles() -> None:
    graph = {
        name: {module for _, module in imported(path) if module in MODULES} - {name}
        for name, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(("library", "files"), ADAPTERS.items(), ids=list(ADAPTERS))
def test_a_library_is_imported_by_its_adapters_only(library: str, files: set[str]) -> None:
    users = {
        relative(path)
        for path in FILES
        if any(f"{name}.".startswith(f"{library}.") for _, name in imported(path))
    }
    assert users == files


def test_demo_data_does_not_import_the_pipeline_it_tests() -> None:
    modules = {
        name
        for path in FILES
        if unit_of(path) == "demo_data"
        for _, name in imported(path)
        if name.startswith("oiyolo.") and not name.startswith("oiyolo.demo_data")
    }
    assert modules <= {
        "oiyolo.boxes",
        "oiyolo.core.errors",
        "oiyolo.core.files",
        "oiyolo.core.records",
    }


def test_logs_networks_and_scores_import_no_adapter_and_no_project() -> None:
    modules = {
        name
        for path in FILES
        if unit_of(path) in {"trainlog", "networks", "evaluation"}
        for _, name in imported(path)
    }
    assert not {name for name in modules if name.startswith(("oiyolo.net.", "oiyolo.project."))}
    assert not modules & {"oiyolo.core.process", "oiyolo.core.locks"}


def test_nothing_imports_the_torch_engine_which_is_a_program() -> None:
    users = {
        relative(path)
        for path in FILES
        if any(f"{name}.".startswith("oiyolo.torch_engine.") for _, name in imported(path))
    }
    assert {name.partition("/")[0] for name in users} == {"torch_engine"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
    prints = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    echoes = [c.lineno for c in calls if ast.unparse(c.func) in {"click.echo", "sys.stdout.write"}]
    assert not prints
    assert not echoes or relative(path) in {"cli.py", "torch_engine/__main__.py"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_the_entry_points_end_the_process(path: Path) -> None:
    exits = [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"sys.exit", "exit", "os._exit"}
    ]
    programs = {"__main__.py", "core/guard.py", "torch_engine/__main__.py"}
    assert not exits or relative(path) in programs


def test_every_file_named_in_architecture_md_exists() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.(?:py|j2))`", text))
    roots = (ROOT, ARCHITECTURE.parent)
    assert named
    assert not {name for name in named if not any((root / name).is_file() for root in roots)}
