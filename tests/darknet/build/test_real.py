"""Builds of real sources: for a CPU, with a training, and for CUDA, compiled and linked only.

Debian's package of pjreddie's darknet is fetched with apt. AlexeyAB's is the submodule or the tree
in ``OIYOLO_TEST_ALEXEYAB``; hank-ai's is the clone in ``OIYOLO_TEST_HANK``.
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
from oiyolo.darknet.build.proof import verify
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.program import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.darknet.build.builder import BuildSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[3]
ARCHITECTURES = ("75", "80", "86", "89", "90")


@pytest.fixture(scope="session")
def debian_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's source package, fetched with separate apt lists and sources, not the system's."""
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
        pytest.skip("apt has no Debian or Ubuntu repository")
    apt_options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(folder / "sources"),
        "Dir::State::Lists": str(folder / "lists"),
        "Dir::Cache": str(folder / "cache"),
    }
    options = [word for name, value in apt_options.items() for word in ("-o", f"{name}={value}")]
    for words in (["update"], ["source", "darknet"]):
        done = subprocess.run(
            ["apt-get", *options, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"apt-get {words[0]} cannot fetch the sources: {done.stderr[-200:]}")
    return next(path for path in folder.glob("darknet-*") if path.is_dir())


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Path:
    """The sources of the fork that the test names."""
    if request.param == "debian":
        found = request.getfixturevalue("debian_source")
        assert isinstance(found, Path)
        return found
    variable = f"OIYOLO_TEST_{request.param.upper()}"
    named = os.environ.get(variable)
    folder = Path(named) if named else ROOT / "darknet"
    if tree.fork_of(folder) != request.param:
        pytest.skip(f"no sources of {FORKS[request.param].title} ({variable} names none)")
    return folder


@pytest.fixture(scope="session")
def cuda_libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """cuBLAS and cuRAND for the installed CUDA, from PyPI's packages."""
    cuda = toolchain.find().cuda
    if not cuda:
        pytest.skip("no nvcc")
    major = toolchain.version_tuple(cuda)[0]
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
        pytest.skip(f"PyPI's packages cannot be installed: {done.stderr[-200:]}")
    yield folder
    shutil.rmtree(folder)  # a gigabyte, which pytest would keep for three sessions


def build(source: Path, folder: Path, *, gpu: bool) -> tuple[BuildSpec, str | None]:
    here = toolchain.find()
    fork = tree.fork_of(source)
    assert fork is not None
    if fork == "hank" and not here.opencv:
        pytest.skip("no OpenCV with headers (apt-get install libopencv-dev)")
    known = flags.supported_architectures(here)
    arch = tuple(a for a in ARCHITECTURES if a in known) if gpu else ()
    build_gpu = "yes" if gpu else "no"
    choice = flags.choose(here, fork, build_gpu=build_gpu, arch=arch)
    assert choice.flags.architectures == arch
    spec = builder.build_spec(source, folder, choice.flags, here)
    return spec, builder.build(spec)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("source", ["debian", "alexeyab", "hank"], indirect=True)
def test_a_cpu_build_trains(source: Path, tmp_path: Path) -> None:
    before = files_of(source)
    output, _ = build(source, tmp_path / "build", gpu=False)
    assert files_of(source) == before
    darknet = probe(output.executable, "built here")
    assert (darknet.fork.name, darknet.gpu) == (output.fork, False)
    verify(darknet)
    assert build(source, tmp_path / "build", gpu=False)[1] is None


@pytest.mark.parametrize("source", ["debian", "alexeyab", "hank"], indirect=True)
def test_a_cuda_build_compiles_for_current_gpus_and_links(
    source: Path, tmp_path: Path, cuda_libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(cuda_libraries))
    before = files_of(source)
    output, _ = build(source, tmp_path / "build", gpu=True)
    assert files_of(source) == before
    log = output.log_path.read_text(encoding="utf-8")
    for architecture in output.flags.architectures:
        assert re.search(rf"sm_{architecture}|[;=]{architecture}\b", log)
    needed = subprocess.run(
        ["readelf", "-d", output.executable], capture_output=True, text=True, check=True
    ).stdout
    for name in ("cudart", "cublas", "curand"):
        assert re.search(rf"\(NEEDED\).*\[lib{name}\.so", needed)
    assert str(cuda_libraries / "nvidia") in needed  # where the program finds them at start
