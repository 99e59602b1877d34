"""The notebooks run one after the other in one project folder, on the small mirror."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Site

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = (
    "0_create_dataset",
    "1_prepare_images",
    "2_split_dataset",
    "3_build_and_train",
    "4_loss_iou_and_test",
)


def count_images(notebook: Any) -> int:
    """Return the number of images in the outputs of a notebook's cells."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    data = [output.get("data", {}) for output in outputs]
    in_html = [str(d.get("text/html", "")).count("<img") for d in data]
    return sum("image/png" in d for d in data) + sum(in_html)


def test_each_step_has_a_notebook() -> None:
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_without_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.darknet
# The warnings are those of the Jupyter client and its sockets.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_all_notebooks_run_in_order(
    monkeypatch: pytest.MonkeyPatch, site: Site, tmp_path: Path, darknet: Path
) -> None:
    variables = {
        "OIYOLO_OPENIMAGES_BASE_URL": site.urls["base_url"],
        "OIYOLO_IMAGES_MIRROR_URL": site.urls["mirror_url"],
        "OIYOLO_IMAGES_TOLERANCE": "0.2",
        "OIYOLO_IMAGES_SIZE": "96x96",
        "OIYOLO_TRAIN_NETWORK": "demo",
        "OIYOLO_TRAIN_MAX_BATCHES": "60",
        "OIYOLO_DARKNET_EXECUTABLE": str(darknet),
        # The kernel finds the package under test, and none of the user's settings.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER.parent)])),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    project = tmp_path / "project"
    project.mkdir()
    executed = {}
    for name in NAMES:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        client = nbclient.NotebookClient(
            notebook,
            timeout=120,
            kernel_name="python3",
            resources={"metadata": {"path": str(project)}},
        )
        executed[name] = client.execute()
    for name, notebook in executed.items():
        outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
        assert outputs, name
        assert not [o for o in outputs if o.output_type == "error"], name
    assert count_images(executed["4_loss_iou_and_test"]) >= 3
    assert (project / "runs" / "demo-001" / "report.html").is_file()
