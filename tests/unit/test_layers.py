"""Who may import whom: the rows of ARCHITECTURE.md, kept."""

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
    "words": {"boxes", "buckets", "errors", "results"},
    "base": {
        *("addresses", "patience", "politeness", "threads"),
        *("config", "downloads", "drawing", "files", "journals", "ledger", "locks", "progress"),
        *("project", "resuming", "shards", "splits", "stamps"),
    },
    "doors": {"cluster", "gcs", "storage_transfer", "http", "http_many", "process"},
    "fields": {"evaluation", "imagery", "networks", "openimages", "trainlog"},
    "means": {"charts", "darknet", "sources"},
    "runs": {"dataset_look", "training"},
    "stages": {"stages"},
    "operations": {"demo_mirror", "operations", "planning"},
    "edge": {"__main__", "cli"},
}
"""A file imports from its own row and the rows above it; ARCHITECTURE.md shows the same table."""

UNTOLD = {"_guard": "doors", "__init__": "edge"}
"""What the table leaves out: a script of ``process``, and the list of public names."""

PLACES = list(ROWS)
ROW_OF = {unit: row for row, units in ROWS.items() for unit in units} | UNTOLD

FREE_OF_CHARGE = {"__version__"}
"""What stands in ``oiyolo`` itself, before anything is imported."""

DOORS = {
    "google": {"gcs.py", "storage_transfer.py"},
    "google.cloud.storage": {"gcs.py"},
    "google.cloud.storage_transfer_v1": {"storage_transfer.py"},
    "google_crc32c": {"gcs.py"},
    "requests": {"http.py"},
    "aiohttp": {"http_many.py"},
    "yarl": {"http_many.py"},
    "certifi": {"http_many.py"},
    "urllib3": {"http.py"},
    "subprocess": {"process.py"},
    "sqlite3": {"ledger.py"},
    "distributed": {"cluster.py"},
    "dask": set(),
    "fcntl": {"locks.py"},
    "tqdm": {"progress.py"},
    "click": {"cli.py"},
    "tomllib": {"config.py"},
    "matplotlib": {"charts/canvas.py", "evaluation/plots.py"},
}
"""One door for each thing outside."""


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
    """Give every imported module with its line, those for type checkers and in functions too."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if node.module == "oiyolo" and alias.name in FREE_OF_CHARGE:
                    continue
                yield node.lineno, full if full in MODULES else str(node.module)


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imported(path):
        if name.split(".")[0] == "oiyolo":
            yield line, [*name.split("."), "__init__"][1]


def test_every_file_belongs_to_a_row() -> None:
    assert {unit_of(path) for path in FILES} == set(ROW_OF)


def test_the_architecture_shows_the_same_rows() -> None:
    told = {
        row: set(units.split())
        for row, units in re.findall(
            r"^\| (\w+) \| `([\w ]+)` \|", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert list(told.items())[-len(ROWS) :] == list(ROWS.items())


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_imports_nothing_from_a_row_below_its_own(path: Path) -> None:
    own = ROW_OF[unit_of(path)]
    wrong = [
        f"{relative(path)}:{line} ({own}) imports {unit} ({ROW_OF[unit]})"
        for line, unit in own_imports(path)
        if PLACES.index(ROW_OF[unit]) > PLACES.index(own)
    ]
    assert not wrong


@pytest.mark.parametrize("row", ["doors", "fields", "means"])
def test_the_packages_of_a_row_with_one_subject_each_do_not_know_each_other(row: str) -> None:
    wrong = [
        f"{relative(path)}:{line} imports {unit}"
        for path in FILES
        if unit_of(path) in ROWS[row]
        for line, unit in own_imports(path)
        if unit in ROWS[row] and unit != unit_of(path)
    ]
    assert not wrong


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {
        name: {found for _, found in imported(path) if found in MODULES} - {name}
        for name, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(("library", "places"), DOORS.items(), ids=list(DOORS))
def test_a_library_is_used_through_its_one_door(library: str, places: set[str]) -> None:
    users = {
        relative(path)
        for path in FILES
        if any(f"{name}.".startswith(f"{library}.") for _, name in imported(path))
    }
    assert users == places


def test_the_demo_mirror_knows_nothing_of_what_it_is_there_to_try() -> None:
    known = {unit for path in FILES if unit_of(path) == "demo_mirror"
             for _, unit in own_imports(path)}  # fmt: skip
    assert known <= {"demo_mirror", "boxes", "errors", "files"}


def test_training_reads_logs_and_the_logs_know_no_training() -> None:
    pure = {unit for path in FILES if unit_of(path) in {"trainlog", "networks", "evaluation"}
            for _, unit in own_imports(path)}  # fmt: skip
    assert not pure & {"http", "process", "ledger", "project", "locks"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_prints_but_the_command_line(path: Path) -> None:
    calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
    prints = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    echoes = [c.lineno for c in calls if ast.unparse(c.func) in {"click.echo", "sys.stdout.write"}]
    assert not prints
    assert not echoes or relative(path) == "cli.py"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_the_entry_points_end_the_process(path: Path) -> None:
    exits = [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"sys.exit", "exit", "os._exit"}
    ]
    assert not exits or relative(path) in {"__main__.py", "_guard.py"}
