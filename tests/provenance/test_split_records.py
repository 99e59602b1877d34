"""``oiyolo split`` keeps the records of a project current, and its dry run announces them."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.provenance.records import NAMES
from oiyolo.stages.split import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli

    Digests = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def template(make_project: Callable[..., Path]) -> Path:
    folder = make_project(limit=16, negatives=0.2)
    oiyolo.fetch(folder)
    return folder


def test_split_keeps_the_records_current(
    template: Path, tmp_path: Path, cli: Cli, digests: Digests
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    dataset = folder / "data" / "dataset"

    def planned() -> str:
        actions = cli.ok("split", "--dry-run", "--json", project=folder).json["would"]
        return " ".join(action for action in actions if NAMES[0] in action)

    assert planned()
    cli.ok("split", project=folder)
    split = load(oiyolo.open_project(folder))
    with (dataset / "CREDITS.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(split.images.values())
    assert {row["split"] for row in rows} == {name for name, n in split.images.items() if n}
    assert all((dataset / row["file"]).is_file() for row in rows)
    metadata = json.loads((dataset / "croissant.json").read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(metadata)

    assert planned() == ""
    before = digests(dataset)
    cli.ok("split", project=folder)
    assert digests(dataset) == before

    (dataset / "DATASET.md").write_text("mine", encoding="utf-8")
    assert planned()
    cli.ok("split", project=folder)
    assert digests(dataset) == before

    cli.ok("select", "--limit", "8", project=folder)
    cli.ok("split", project=folder)
    after = digests(dataset)
    assert all(after[name] != before[name] for name in NAMES)
