"""``croissant.json`` as mlcroissant reads it, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.imagery import labels
from oiyolo.provenance import records
from oiyolo.stages.split import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACKAGES = (
    *("mlcroissant==1.1.1", "etils==1.15.0", "jsonpath-rw==1.4.0", "networkx", "rdflib>=7,<8"),
    *("absl-py", "decorator", "fsspec", "ply", "pyparsing", "six", "zipp"),
)
"""mlcroissant and what it needs that the project does not have; scipy and type stubs it does not
need for these tables."""
EDGES = ("x_min", "y_min", "x_max", "y_max")
SCRIPT = """
import json, sys
import mlcroissant

def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    return list(value.size) if hasattr(value, "size") else value

dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = dataset.metadata.ctx.issues
rows = {
    record_set.id: [
        {key.partition("/")[2]: plain(value) for key, value in record.items()}
        for record in dataset.records(record_set.id)
    ]
    for record_set in dataset.metadata.record_sets
}
rai = [dataset.metadata.data_biases, dataset.metadata.personal_sensitive_information]
found = {"errors": list(issues.errors), "warnings": list(issues.warnings), "rai": rai, "rows": rows}
json.dump(found, sys.stdout)
"""


def read(folder: Path, packages: Path) -> dict[str, Any]:
    """Return what mlcroissant reads, and what it complains about."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "croissant.json")],
        env={"PYTHONPATH": str(packages), "HOME": str(packages), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("mlcroissant")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    installed = subprocess.run(
        [*command, str(target), *PACKAGES], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"mlcroissant cannot be installed: {installed.stderr.strip()[-200:]}")
    return target


@pytest.mark.slow
def test_mlcroissant_loads_the_images_with_their_boxes(
    packages: Path, make_project: Callable[..., Path]
) -> None:
    folder = make_project(limit=30, negatives=0.2, classes=["Boat", "Swan"])
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    dataset = folder / "data" / "dataset"
    found = read(dataset, packages)
    assert found["errors"] == []
    (missing,) = found["warnings"]  # the demo's tables are nobody's to cite
    assert "citeAs" in missing
    assert all(found["rai"])

    rows = found["rows"]
    split = load(oiyolo.open_project(folder))
    assert [row["name"] for row in rows["splits"]] == ["train", "valid", "test"]
    assert [row["name"] for row in rows["classes"]] == ["Boat", "Swan"]
    split_by_id = {row["image_id"]: row["split"] for row in rows["images"]}
    assert len(split_by_id) == sum(split.images.values())
    size_by_id = {row["image_id"]: row["image"] for row in rows["pixels"]}
    for row in rows["images"]:
        assert size_by_id[row["image_id"]] == [row["width_px"], row["height_px"]]
    for image_id, name in split_by_id.items():
        mine = [row for row in rows["boxes"] if row["image_id"] == image_id and row["used"]]
        assert {row["split"] for row in mine} <= {name}
        class_ids, xyxy = labels.read(dataset / "obj" / f"{image_id}.txt")
        assert [row["class_id"] for row in mine] == class_ids.tolist()
        corners = [[row["box"][f"boxes/box/{edge}"] for edge in EDGES] for row in mine]
        assert corners == [pytest.approx(box, abs=1e-5) for box in xyxy.tolist()]


@pytest.mark.slow
def test_mlcroissant_has_nothing_to_say_about_open_images(
    packages: Path, make_dataset: Callable[..., Any]
) -> None:
    dataset = make_dataset()
    for name, text in records.render(dataset).items():
        (dataset.folder / name).write_text(text, encoding="utf-8")
    (dataset.folder / "obj").mkdir()
    found = read(dataset.folder, packages)
    assert (found["errors"], found["warnings"]) == ([], [])
    assert [row["title"] for row in found["rows"]["images"]][1].startswith("'=cmd")
