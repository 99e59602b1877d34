"""Real sources, really built: for a CPU and proved, and for CUDA as far as goes without a GPU.

Debian's package of pjreddie's darknet is fetched with apt. AlexeyAB's is the submodule, or the tree
that ``OIYOLO_TEST_ALEXEYAB`` names; hank-ai's is the clone that ``OIYOLO_TEST_HANK`` names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet.build import builder, flags, toolchain, tree
from oiyolo.darknet.forks import LINES
from oiyolo.darknet.program import ask
from oiyolo.darknet.build.proof import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.darknet.build.builder import Made

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[3]
ARCHITECTURES = ("75", "80", "86", "89", "90")


@pytest.fixture(scope="session")
def debian_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's source package, fetched with lists and sources of our own; the system's stay."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-source") is None:
        pytest.skip("no apt-get with dpkg-source (apt-get install dpkg-dev)")
    folder = tmp_path_factory.mktemp("debian")
    for name in ("lists/partial", "sources", "cache"):
        (folder / name).mkdir(parents=True)
    kept = 0
    for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        text = path.read_text() if path.is_file() else ""
        if re.search(r"\S/(?:debian|ubuntu)\b", text):
            text = re.sub(r"^Types: .*$", "Types: deb-src", text, flags=re.MULTILINE)
            text = re.sub(r"^deb ", "deb-src ", text, flags=re.MULTILINE)
            name = path.name if path.suffix else f"{path.name}.list"
            (folder / "sources" / name).write_text(text)
            kept += 1
    if not kept:
        pytest.skip("apt knows no repository of Debian's or Ubuntu's")
    told = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(folder / "sources"),
        "Dir::State::Lists": str(folder / "lists"),
        "Dir::Cache": str(folder / "cache"),
    }
    options = [word for name, value in told.items() for word in ("-o", f"{name}={value}")]
    for words in (["update"], ["source", "darknet"]):
        done = subprocess.run(
            ["apt-get", *options, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"apt-get {words[0]} does not bring the sources: {done.stderr[-200:]}")
    return next(path for path in folder.glob("darknet-*") if path.is_dir())


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Path:
    """The sources that the test names."""
    if request.param == "debian":
        found = request.getfixturevalue("debian_source")
        assert isinstance(found, Path)
        return found
    variable = f"OIYOLO_TEST_{request.param.upper()}"
    named = os.environ.get(variable)
    folder = Path(named) if named else ROOT / "darknet"
    if tree.line_of(folder) != request.param:
        pytest.skip(f"no sources of {LINES[request.param].title} ({variable} names none)")
    return folder


@pytest.fixture(scope="session")
def cuda_libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """cuBLAS and cuRAND for the CUDA that is here, out of PyPI's packages."""
    cuda = toolchain.find().cuda
    if not cuda:
        pytest.skip("no nvcc")
    major = toolchain.numbers(cuda)[0]
    if major < 12:
        pytest.skip(f"PyPI has no cuBLAS with headers for CUDA {cuda}")
    ending = "" if major >= 13 else f"-cu{major}"
    folder = tmp_path_factory.mktemp("wheels")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder),
            *(f"nvidia-cublas{ending}", f"nvidia-curand{ending}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"PyPI's packages cannot be had: {done.stderr[-200:]}")
    yield folder
    shutil.rmtree(folder)  # a gigabyte, which pytest would keep for three sessions


def build(source: Path, folder: Path, *, gpu: bool) -> Made:
    here = toolchain.find()
    line = tree.line_of(source)
    assert line is not None
    if line == "hank" and not here.opencv:
        pytest.skip("no OpenCV with headers (apt-get install libopencv-dev)")
    known = flags.known_architectures(here)
    arch = tuple(a for a in ARCHITECTURES if a in known) if gpu else ()
    wish = "yes" if gpu else "no"
    choice = flags.choose(here, line, build_gpu=wish, arch=arch)
    assert choice.flags.architectures == arch
    return builder.build(builder.order(source, folder, choice.flags, here))


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("source", ["debian", "alexeyab", "hank"], indirect=True)
def test_it_is_built_for_a_cpu_and_trains(source: Path, tmp_path: Path) -> None:
    before = files_of(source)
    made = build(source, tmp_path / "build", gpu=False)
    assert files_of(source) == before
    darknet = ask(made.executable, "built here")
    assert (darknet.line.name, darknet.gpu) == (made.line, False)
    prove(darknet)
    assert build(source, tmp_path / "build", gpu=False).reason is None


@pytest.mark.parametrize("source", ["debian", "alexeyab", "hank"], indirect=True)
def test_it_is_compiled_for_todays_gpus_and_linked(
    source: Path, tmp_path: Path, cuda_libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(cuda_libraries))
    before = files_of(source)
    made = build(source, tmp_path / "build", gpu=True)
    assert files_of(source) == before
    said = made.log.read_text(encoding="utf-8")
    for architecture in made.flags.architectures:
        assert re.search(rf"sm_{architecture}|[;=]{architecture}\b", said)
    needed = subprocess.run(
        ["readelf", "-d", made.executable], capture_output=True, text=True, check=True
    ).stdout
    for name in ("cudart", "cublas", "curand"):
        assert re.search(rf"\(NEEDED\).*\[lib{name}\.so", needed)
    assert str(cuda_libraries / "nvidia") in needed  # where it finds them when it starts
