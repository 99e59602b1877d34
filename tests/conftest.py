"""Shared fixtures: a clean environment, a small Open Images mirror, projects, the command line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import oiyolo
from oiyolo.cli import main
from oiyolo.core import progress
from oiyolo.demo_data.server import serve
from oiyolo.demo_data.writer import write_mirror
from oiyolo.project.keys import KEYS
from tests.support.mirror_facts import fates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.demo_data.server import Server
    from oiyolo.demo_data.writer import DemoMirror

pytest_plugins = ("tests.support.bucket_emulator", "tests.support.failing_site")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without compiled files each of the child processes and workers would compile all modules again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No deadlines: a busy machine must not make a test fail.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]
SEED = 1
SCENES = 60
WAIT_S = 60.0

TINY_CFG = """\
[net]
batch=4
subdivisions=1
width=32
height=32
channels=3
momentum=0.9
decay=0.0005
learning_rate=0.001
burn_in=10
max_batches=500
policy=steps
steps=400,450
scales=.1,.1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=4
stride=4

[convolutional]
size=1
stride=1
pad=1
filters=12
activation=linear

[yolo]
mask=0,1
anchors=8,6, 14,12
classes=1
num=2
jitter=.1
ignore_thresh=.6
truth_thresh=1
random=0
"""


@dataclass(frozen=True)
class Site:
    """A small mirror of Open Images, served on loopback."""

    mirror: DemoMirror
    server: Server

    @property
    def urls(self) -> dict[str, str]:
        """The options that make a project use it."""
        return {"base_url": self.mirror.openimages_url, "mirror_url": self.mirror.images_url}

    @property
    def fates(self) -> dict[str, list[str]]:
        """ImageIDs of the train images by fate."""
        return fates(SEED, SCENES)


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command line that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout, parsed; it must be a single JSON object."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


class Cli:
    """Runs ``oiyolo.cli.main`` in this process and captures its output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str | Path, project: Path | None = None) -> CommandResult:
        arguments = [str(word) for word in words]
        if project is not None:
            arguments += ["--project", str(project)]
        self._capsys.readouterr()
        code = main(arguments)
        written = self._capsys.readouterr()
        return CommandResult(code, written.out, written.err)

    def ok(self, *words: str | Path, project: Path | None = None) -> CommandResult:
        done = self(*words, project=project)
        assert done.code == 0, done.err
        return done


class Shell:
    """Runs ``python -m oiyolo`` in its own process, with stdin closed and without a terminal."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, *words: str | Path, cwd: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "oiyolo", *(str(word) for word in words)]
        process = subprocess.Popen(
            # A closed stdin is stricter than an empty one.
            ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def __call__(
        self, *words: str | Path, cwd: Path | None = None, **environment: str
    ) -> CommandResult:
        return self.end_of(self.start(*words, cwd=cwd, **environment))

    @staticmethod
    def end_of(process: subprocess.Popen[str]) -> CommandResult:
        out, err = process.communicate(timeout=WAIT_S)
        return CommandResult(process.returncode, out, err)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def pytest_configure() -> None:
    """Make matplotlib work without a display."""
    os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove all options from the environment, and use a temporary cache folder."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for key in KEYS:
            patch.delenv(key.variable, raising=False)
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("OIYOLO_DARKNET_SOURCE_URL", "")  # `build` does not download sources
        patch.setenv("OIYOLO_TRAIN_ENGINE", "darknet")  # also where PyTorch is installed
        # Building its list of fonts takes seconds; once a session is enough.
        patch.setenv("MPLCONFIGDIR", str(home / "matplotlib"))
        yield


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a small mirror of Open Images with some of every fault; tests must not change it."""
    folder = tmp_path_factory.mktemp("site")
    with serve(folder) as server:
        mirror = write_mirror(folder, base_url=server.base_url, seed=SEED, scenes=SCENES)
        server.load_overrides()
        yield Site(mirror, server)


@pytest.fixture
def own_site(site: Site, tmp_path: Path) -> Iterator[Site]:
    """Yield a copy of the mirror for a single test, which may damage it or slow it down."""
    folder = tmp_path / "site"
    shutil.copytree(site.mirror.folder, folder)
    with serve(folder) as server:
        mirror = write_mirror(folder, base_url=server.base_url, seed=SEED, scenes=SCENES)
        server.load_overrides()
        yield Site(mirror, server)


@pytest.fixture(scope="session")
def make_project(
    site: Site, tmp_path_factory: pytest.TempPathFactory, tiny_cfg: Path
) -> Callable[..., Path]:
    """Return a function that creates a project: by default of 32x32 pixels, with a tiny network.

    Its options are those of ``oiyolo.init``; ``at`` is the folder.
    """

    def make(at: Path | None = None, **options: Any) -> Path:
        folder = at or tmp_path_factory.mktemp("project")
        defaults: dict[str, Any] = {
            "classes": ["Boat"],
            **site.urls,
            "tolerance": 0.2,
            "size": (32, 32),
            "network": str(tiny_cfg),
            "max_batches": 30,
            "executable": shutil.which("darknet"),
            "look": False,  # drawing takes seconds
            "map": "darknet",  # scoring weights takes seconds, too
        }
        oiyolo.init(folder, **{**defaults, **options})
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_cfg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network of a few hundred weights: hundreds of iterations take some seconds."""
    path = tmp_path_factory.mktemp("networks") / "tiny.cfg"
    path.write_text(TINY_CFG, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def darknet() -> Path:
    """Return a real darknet on PATH."""
    path = shutil.which("darknet")
    if path is None:
        pytest.skip("no darknet on PATH (Debian and Ubuntu: apt-get install darknet)")
    return Path(path)


@pytest.fixture(scope="session")
def real() -> Path:
    """Return the folder of input from real sources."""
    folder = ROOT.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"no real input in {folder}")
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Yield a runner of command lines in this process."""
    log = logging.getLogger("oiyolo")
    before = log.handlers[:], log.propagate, log.level
    token = progress.enabled.set(True)
    yield Cli(capsys)
    progress.enabled.reset(token)
    log.handlers, log.propagate = before[0], before[1]
    log.setLevel(before[2])


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Yield a runner of command lines in processes of their own."""
    runner = Shell()
    with contextlib.closing(runner):
        yield runner


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """Return a function that computes the SHA-256 of every file below a folder, by path.

    Lock files are left out: they name the time of the last lock.
    """

    def digest(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    return digest


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits until a condition is true, and fails after a timeout."""

    def wait(condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end_s, "the condition did not become true in time"
            time.sleep(0.01)

    return wait
