"""Run the notebooks on the drawn Open Images; ``make notebooks`` commits what they show.

A committed notebook holds, for each cell, the checksum of the source that made its outputs, so that
a test notices a cell that was changed without running it again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbclient
import nbformat

from oiyolo.demo_data.server import serve_mirror

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
STEPS = (
    "0_create_dataset",
    "1_prepare_images",
    "2_split_dataset",
    "3_build_and_train",
    "4_loss_iou_and_test",
)
"""The notebooks that follow each other in one folder."""
HOSTED = "hosted"
RAN = "ran"
"""Key of a cell's metadata: the checksum of the source that was run."""

_TIMEOUT_S = 1800
_SCENES = 320
_NO_TIMES = (
    (r"\[\d+:\d\d(:\d\d)?(, )?", "["),  # of a progress bar
    (r"(, )?\b(MB|img)/s=[\d.]+", ""),
    (r" \[\]$", ""),
    (r", \d[\d,]* images/s\)", ")"),
    (r"( MB) in [\d.]+ s", r"\1"),
    (r" in [\d.]+ s \([\d.,]+ per second\)", ""),
    (r" in (\d+ h )?[\d.]+ (min|s)\b", ""),
    (r"127\.0\.0\.1:\d+", "localhost:8000"),
    (r"/[^\s…]*…", "…"),  # a path that was cut off
)
"""What differs from run to run and from machine to machine, and its replacement."""


def checksum(source: str) -> str:
    """Return the checksum of a cell's source."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def read(name: str) -> Any:
    """Return a notebook without its outputs."""
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook: Any = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def variables(
    base_url: str, mirror_url: str, scratch: Path, options: Mapping[str, object]
) -> dict[str, str]:
    """Return the environment of a kernel: the drawn Open Images, and none of the user's settings.

    Args:
        base_url: URL of the tables.
        mirror_url: URL of the images.
        scratch: Folder for Jupyter's own files.
        options: Further keys of ``oiyolo.toml``, as ``SECTION_KEY``.
    """
    return {
        "OIYOLO_OPENIMAGES_BASE_URL": base_url,
        "OIYOLO_OPENIMAGES_CACHE": str(scratch / "cache"),
        "OIYOLO_IMAGES_MIRROR_URL": mirror_url,
        "OIYOLO_IMAGES_TOLERANCE": "0.2",
        "OIYOLO_IMAGES_SIZE": "96x96",
        "OIYOLO_TRAIN_NETWORK": "demo",
        "OIYOLO_DARKNET_EXECUTABLE": shutil.which("darknet") or "",
        **{f"OIYOLO_{name.upper()}": str(value) for name, value in options.items()},
        "PYTHONPATH": str(FOLDER.parent),  # the package under test
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "PIP_NO_INDEX": "1",  # SOURCE is installed already
    }


def run(notebook: Any, folder: Path, *, restarts: bool = False) -> Any:
    """Run a notebook in a folder and return it.

    Args:
        notebook: The notebook, without outputs.
        folder: The working folder of its cells.
        restarts: Whether each cell is run by a new kernel, as if the user had restarted it.
    """
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=_TIMEOUT_S, kernel_name="python3", resources=resources
    )
    if not restarts:
        return client.execute()
    count = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            count += 1
            with client.setup_kernel():
                client.execute_cell(cell, index, execution_count=count)
    return notebook


def clean(notebook: Any, folder: Path) -> None:
    """Remove what is of no use to readers: paths, names and speeds of the machine, times of cells.

    Args:
        notebook: A notebook that was run; it is changed.
        folder: The folder in which it was run.
    """
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type != "code":
            continue
        cell.metadata[RAN] = checksum(cell.source)
        for output in cell.outputs:
            if "metadata" in output:
                output.metadata.clear()
            for container, key in _texts(output):
                container[key] = _cleaned(container[key], folder)


def _texts(output: Any) -> list[tuple[Any, str]]:
    """Return where an output has text: a mapping and a key of it."""
    if output.output_type == "stream":
        return [(output, "text")]
    data = output.get("data", {})
    return [(data, kind) for kind in data if kind.startswith("text/")]


def _cleaned(text: str, folder: Path) -> str:
    """Return text without paths and times; pictures in it are left as they are."""
    parts = re.split(r"(base64,[\w+/=]+)", text)
    for number in range(0, len(parts), 2):
        for path in (folder.resolve(), folder, folder.parent, FOLDER.parent):
            parts[number] = parts[number].replace(f"{path}/", "").replace(str(path), ".")
        for pattern, replacement in _NO_TIMES:
            parts[number] = re.sub(pattern, replacement, parts[number], flags=re.MULTILINE)
    return "".join(parts)


def main(wanted: Sequence[str]) -> None:
    """Run notebooks on the demo's images, and replace the committed ones.

    Args:
        wanted: Names of notebooks; all if empty. The steps are always run together.
    """
    scratch = Path(tempfile.mkdtemp(prefix="oiyolo-notebooks-"))
    steps, hosted = scratch / "boats", scratch / "hosted"
    with serve_mirror(scratch / "mirror", scenes=_SCENES) as mirror:
        urls = (mirror.openimages_url, mirror.images_url, scratch)
        for names, folder, options in (
            (STEPS, steps, {"train_max_batches": 1200}),
            ((HOSTED,), hosted, {"train_max_batches": 1200, "dataset_subsets": "train"}),
        ):
            if wanted and not set(wanted).intersection(names):
                continue
            folder.mkdir()
            os.environ.update(variables(*urls, options))
            for name in names:
                notebook = run(read(name), folder)
                clean(notebook, folder)
                nbformat.validate(notebook)
                text = nbformat.writes(notebook) + "\n"  # type: ignore[no-untyped-call]
                (FOLDER / f"{name}.ipynb").write_text(text, encoding="utf-8")
                sys.stderr.write(f"{name}: {len(text):,} bytes\n")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main(sys.argv[1:])
