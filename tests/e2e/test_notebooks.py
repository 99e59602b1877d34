"""The notebooks: their committed outputs, and runs from top to bottom on the small mirror."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("nbformat")

from tests.support import notebooks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Site

NAMES = (*notebooks.STEPS, notebooks.HOSTED)
MAX_BYTES = 500_000
FORBIDDEN = (
    r"/(tmp|home|root|Users)/",
    re.escape(str(notebooks.FOLDER.parent)),
    r"127\.0\.0\.1",
    r"(MB|img|images)/s\b",
    r"per second\)",
)
"""What would reveal the machine on which the outputs were made."""


def committed(name: str) -> dict[str, Any]:
    value = json.loads((notebooks.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def count_pictures(notebook: dict[str, Any]) -> int:
    """Return the number of pictures in the outputs of a notebook's cells."""
    data = [o.get("data", {}) for cell in code_cells(notebook) for o in cell["outputs"]]
    in_html = ["".join(d.get("text/html", "")) for d in data]
    pictures = [kind for d in data for kind in d if kind.startswith("image/")]
    return len(pictures) + sum(page.count("<img") for page in in_html)


def texts(notebook: dict[str, Any]) -> str:
    """Return all text in the outputs of a notebook, without its pictures."""
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    data = [o.get("data", {}).items() for o in outputs]
    parts = [o.get("text", "") for o in outputs]
    parts += [value for items in data for kind, value in items if not kind.startswith("image/")]
    return re.sub(r"base64,[\w+/=]+", "", json.dumps(parts))


def test_each_step_has_a_notebook() -> None:
    assert tuple(sorted(path.stem for path in notebooks.FOLDER.glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_outputs_are_those_of_the_committed_cells(name: str) -> None:
    cells = code_cells(committed(name))
    changed = [
        "".join(cell["source"])
        for cell in cells
        if cell["metadata"].get(notebooks.RAN) != notebooks.checksum("".join(cell["source"]))
    ]
    assert not changed, "run `make notebooks`"
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_outputs_are_small_and_reveal_no_machine(name: str) -> None:
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < MAX_BYTES
    notebook = committed(name)
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    shown = texts(notebook)
    assert [pattern for pattern in FORBIDDEN if re.search(pattern, shown)] == []
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


@pytest.fixture
def kernel_environment(
    monkeypatch: pytest.MonkeyPatch, site: Site, tmp_path: Path, darknet: Path
) -> None:
    options: dict[str, object] = {
        "train_max_batches": 40,
        "darknet_executable": darknet,
        "dataset_subsets": "train",
        "split_look": "true",
    }
    urls = (site.urls["base_url"], site.urls["mirror_url"])
    for name, value in notebooks.variables(*urls, tmp_path, options).items():
        monkeypatch.setenv(name, value)


def run(name: str, folder: Path) -> dict[str, Any]:
    """Run a notebook; the kernel is restarted between the cells of the one that trains."""
    folder.mkdir(exist_ok=True)
    notebook = notebooks.read(name)
    notebooks.run(notebook, folder, restarts=name == "3_build_and_train")
    cells = code_cells(notebook)
    assert not [o for cell in cells for o in cell["outputs"] if o["output_type"] == "error"], name
    assert not [o for cell in cells for o in cell["outputs"] if o.get("name") == "stderr"], name
    return dict(notebook)


# The warnings are those of the Jupyter client and its sockets.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.darknet
@pytest.mark.slow
@pytest.mark.usefixtures("kernel_environment")
def test_the_notebooks_run_in_order(tmp_path: Path) -> None:
    project = tmp_path / "project"
    executed = {name: run(name, project) for name in notebooks.STEPS}
    assert count_pictures(executed["0_create_dataset"]) == 1
    assert count_pictures(executed["1_prepare_images"]) == 3
    assert count_pictures(executed["3_build_and_train"]) == 1
    assert count_pictures(executed["4_loss_iou_and_test"]) >= 6
    assert [path.name for path in (project / "runs").iterdir()] == ["demo-001"]
    training = texts(executed["3_build_and_train"])
    assert "training demo-001 in the background" in training
    assert "demo-001 is finished" in training
    assert "classes = 1" in training
    assert (project / "runs" / "demo-001" / "report.html").is_file()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.darknet
@pytest.mark.slow
@pytest.mark.usefixtures("kernel_environment")
def test_the_notebook_for_hosted_services_runs(tmp_path: Path) -> None:
    notebook = run(notebooks.HOSTED, tmp_path / "hosted")
    lines = [line for line in texts(notebook).split("train: ") if line.startswith("40/40")]
    assert len(lines) == 1, "one line remains of the progress of the training"
    assert count_pictures(notebook) >= 4
    shutil.rmtree(tmp_path / "hosted")
