"""The doctor on this machine, on machines that are made up, and where things hang."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.networks.weights import Place, Pretrained
from oiyolo.operations.doctor import collect, reachability
from oiyolo.project import config
from oiyolo.project.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oiyolo.operations.doctor import Examination
    from tests.conftest import Cli, Shell

HEADER = (
    "| NVIDIA-SMI {driver}   Driver Version: {driver}   CUDA Version: {cuda} |\n"
    "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n"
)
NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {cuda}, V{cuda}.88\n"
GARBAGE = "\\377\\376\\000\\001 release NaN, Driver Version: , compute_\\n,,,,,\\n0,,,,,\\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a machine its tools of NVIDIA's: programs that print what theirs do."""
    folder = tmp_path / "machine" / "bin"
    folder.mkdir(parents=True)
    for tool in ("gcc", "g++", "make", "git", "cmake", "ldd", "env", "sh", "cat", "sleep",
                 "printf", "darknet", "dpkg-query"):  # fmt: skip
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)

    def program(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    def make(
        *, smi: str = "", rows: str = "", nvcc: str = "", arch: str = "", code: int = 0
    ) -> None:
        (tmp_path / "header").write_text(smi)
        (tmp_path / "rows").write_text(rows)
        (tmp_path / "nvcc").write_text(nvcc)
        (tmp_path / "arch").write_text("".join(f"compute_{a}\n" for a in arch.split()))
        if smi or rows or code:
            program("nvidia-smi", f'case "$1" in --query*) cat "{tmp_path}/rows";; '
                                  f'*) cat "{tmp_path}/header";; esac; exit {code}')  # fmt: skip
        if nvcc:
            program("nvcc", f'case "$1" in --version) cat "{tmp_path}/nvcc";; --list-gpu-arch) '
                            f'cat "{tmp_path}/arch";; *) exit 1;; esac')  # fmt: skip
        for script in ("nvidia-smi", "nvcc"):
            if (folder / script).is_file() and smi == GARBAGE:
                program(script, f"printf '{GARBAGE}'")
            elif (folder / script).is_file() and smi == "hangs":
                program(script, "exec sleep 600")
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setenv("CUDA_HOME", str(folder.parent) if nvcc else "")

    return make


def states(found: Examination) -> dict[str, str]:
    return {finding.topic: finding.state for finding in found.findings}


def told(found: Examination, topic: str) -> str:
    return next(f"{f.found} {f.remedy}" for f in found.findings if f.topic == topic)


def smi(driver: str, cuda: str) -> str:
    return HEADER.format(driver=driver, cuda=cuda)


def row(name: str, mib: int, capability: str, driver: str) -> str:
    return f"0, {name}, {mib}, {mib - 500}, {capability}, {driver}\n"


MACHINES: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, str]]] = {
    "H100": (
        {"smi": smi("580.65.06", "13.0"), "nvcc": NVCC.format(cuda="13.0"), "arch": "75 80 90",
         "rows": row("NVIDIA H100 80GB HBM3", 81559, "9.0", "580.65.06")},
        {"driver": "ok", "GPU 0": "ok", "CUDA": "ok"},
        {"GPU 0": "NVIDIA H100", "driver": "serves CUDA up to 13.0"},
    ),
    "T4 with an old driver": (
        {"smi": smi("550.54.15", "12.4"), "nvcc": NVCC.format(cuda="13.0"), "arch": "75 80 90",
         "rows": row("Tesla T4", 15360, "7.5", "550.54.15")},
        {"driver": "ok", "GPU 0": "ok", "CUDA": "warning"},
        {"CUDA": "Install a newer driver, or CUDA 12.4"},
    ),
    "K80": (
        {"smi": smi("470.256.02", "11.4"), "nvcc": NVCC.format(cuda="12.2"), "arch": "50 60 75 90",
         "rows": row("Tesla K80", 11441, "3.7", "470.256.02")},
        {"driver": "ok", "GPU 0": "warning", "CUDA": "warning"},
        {"GPU 0": "CUDA 11.8 is the last that serves it"},
    ),
    "no driver": (
        {"smi": "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
         "code": 9, "nvcc": NVCC.format(cuda="12.9"), "arch": "50 75 90"},
        {"driver": "warning", "CUDA": "ok"},
        {"driver": "couldn't communicate"},
    ),
    "nonsense": (
        {"smi": GARBAGE, "nvcc": "x"},
        {"driver": "warning", "CUDA": "warning"},
        {"CUDA": "does not tell its version"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_judged_by_what_its_tools_print(
    machine: Callable[..., None], tmp_path: Path, darknet: Path, name: str
) -> None:
    prints, expected, words = MACHINES[name]
    machine(**prints)
    found = oiyolo.doctor(tmp_path, offline=True, executable=str(darknet))
    assert expected.items() <= states(found).items()
    for topic, part in words.items():
        assert part in told(found, topic)
    assert found.exit_code == 0, str(found)  # a CPU will do
    assert str(found)


def test_a_tool_that_hangs_is_waited_for_some_seconds_only(
    machine: Callable[..., None], tmp_path: Path, darknet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.operations.doctor._LOCAL_S", 0.5)
    monkeypatch.setattr("oiyolo.darknet.build.toolchain._TIMEOUT_S", 1.0)
    monkeypatch.setattr("oiyolo.darknet.gpus._TIMEOUT_S", 1.0)
    monkeypatch.setattr(collect, "_ANSWER_S", 1.0)
    machine(smi="hangs", nvcc="x")
    began_s = time.monotonic()
    found = oiyolo.doctor(tmp_path, offline=True, executable=str(darknet))
    assert time.monotonic() - began_s < 20
    assert states(found)["tools"] == "warning"
    assert "no answer within 0.5 s" in told(found, "driver")
    for thread in threading.enumerate():
        if thread.name.startswith("doctor"):
            thread.join(30)  # what hung was killed
            assert not thread.is_alive()


def test_the_table_and_the_json_say_the_same_and_nothing_is_changed(
    cli: Cli, make_project: Callable[..., Path], digests: Callable[[Path], dict[str, str]],
    darknet: Path,
) -> None:  # fmt: skip
    folder = make_project()
    before = digests(folder)
    table = cli.ok("doctor", project=folder).out
    told_json = cli.ok("doctor", "--json", project=folder).json
    assert digests(folder) == before
    assert told_json["can_train"]
    assert told_json["darknet"]["executable"] == str(darknet)
    assert {"Python", "packages", "darknet", "git", "disk: project", "annotations", "mirror"} <= {
        found["topic"] for found in told_json["findings"]
    }
    for found in told_json["findings"]:
        assert found["topic"] in table
        assert bool(found["remedy"]) == (found["state"] != "ok"), found
    assert table.splitlines()[-1] == told_json["verdict"]
    assert max(map(len, table.splitlines())) <= 100
    reached = {place["what"]: place["problem"] for place in told_json["reached"]}
    assert (reached["annotations"], reached["mirror"]) == ("", "")


@pytest.mark.usefixtures("darknet")
def test_it_needs_no_project(cli: Cli, tmp_path: Path) -> None:
    done = cli.ok("doctor", "--offline", project=tmp_path / "absent")
    assert "none in" in done.out
    assert not list(tmp_path.iterdir())


def test_it_runs_without_a_terminal_in_a_process_of_its_own(shell: Shell, tmp_path: Path) -> None:
    done = shell("doctor", "--offline", "--json", cwd=tmp_path)
    assert done.code in {0, 5}
    assert done.json["exit_code"] == done.code
    assert done.err == ""


def test_a_proved_darknet_is_told_from_one_that_is_not(tmp_path: Path, darknet: Path) -> None:
    options: dict[str, Any] = {"executable": str(darknet), "cache": str(tmp_path / "cache")}
    first = oiyolo.doctor(tmp_path, offline=True, **options)
    assert "not proved yet" in told(first, "darknet")
    oiyolo.init(tmp_path, **options)
    oiyolo.build(tmp_path)
    second = oiyolo.doctor(tmp_path, offline=True)
    assert "not proved" not in told(second, "darknet")
    assert second.as_dict()["darknet"]["proved"] is True  # type: ignore[index]


@pytest.mark.parametrize(
    ("toml", "code", "words"),
    [
        ("[images]\nsizes = 3\n", 2, "unknown key sizes"),
        ("[images\n", 3, "this is not TOML"),
        ("[train]\nnetwork = 'yolov9000'\n", 2, "there is no network 'yolov9000'"),
    ],
)
def test_a_project_that_cannot_be_read_is_a_finding(
    cli: Cli, tmp_path: Path, darknet: Path, *, toml: str, code: int, words: str
) -> None:
    (tmp_path / "oiyolo.toml").write_text(toml)
    done = cli("doctor", "--offline", "--executable", darknet, project=tmp_path)
    assert done.code == code, done.out
    assert words in " ".join(done.out.split())


def test_a_wrong_option_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("doctor", "--jobs", "many", project=tmp_path).code == 2


def test_without_darknet_and_without_a_way_to_one_it_says_so(
    cli: Cli, machine: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    for tool in ("darknet", "g++"):
        (tmp_path / "machine" / "bin" / tool).unlink(missing_ok=True)
    monkeypatch.setattr("oiyolo.stages.build.source_folder", lambda _: None)
    done = cli(
        "doctor", "--offline", "--cache", tmp_path / "cache", "--source-url", "https://a.example/d",
        project=tmp_path,
    )  # fmt: skip
    assert done.code == 5
    assert "g++ would be needed" in " ".join(done.out.split())
    assert done.out.splitlines()[-1] == "No training can start here yet: see darknet."


def test_a_full_disk_is_a_hindrance(
    cli: Cli, tmp_path: Path, darknet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "free_bytes", lambda _: 1000)
    done = cli("doctor", "--offline", "--executable", darknet, project=tmp_path)
    assert done.code == 4
    assert "disk: project" in done.out.splitlines()[-1]


def test_a_program_that_is_no_darknet_is_a_hindrance(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--offline", "--executable", "/bin/true", project=tmp_path)
    assert done.code == 5
    assert "does not answer as darknet does" in " ".join(done.out.split())


def opened(folder: Path, **options: object) -> Project:
    return Project(folder, config.load(folder / "oiyolo.toml", options, {}))


class _Pages(http.server.BaseHTTPRequestHandler):
    """A site: the path begins with the status to answer with; what ends in .html is a page."""

    def do_GET(self) -> None:
        kind = "text/html" if self.path.endswith(".html") else "application/octet-stream"
        self.send_response(int(self.path.split("/")[1] or 200))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", "1000000000")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def pages() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A server that takes every connection, and then says nothing or one letter at a time."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for letter in b"HTTP/1.1 200 OK\r\n" * 100:
                if ended.wait(0.05):
                    return
                connection.send(bytes([letter]))

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    connection, _ = server.accept()
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()


def test_places_that_never_answer_hold_nothing_up(black_hole: str, tmp_path: Path) -> None:
    project = opened(tmp_path, base_url=black_hole, mirror_url=black_hole, sources=["mirror"])
    began_s = time.monotonic()
    found = reachability.reached(project, f"{black_hole}/darknet.git", deadline_s=0.5)
    assert time.monotonic() - began_s < 10
    silent = {place.what: place.problem for place in found if place.what != "weights"}
    assert silent == dict.fromkeys(
        ("annotations", "mirror", "darknet's sources"), "no answer within 0.5 s"
    )


@pytest.mark.parametrize(
    ("below", "annotations", "mirror"),
    [
        ("200", "", ""),
        ("404", "answers HTTP 404", ""),
        ("403", "answers HTTP 403", ""),
        ("503", "answers HTTP 503", "answers HTTP 503"),
    ],
)
def test_annotations_have_to_be_there_and_the_mirror_has_to_answer(
    pages: str, tmp_path: Path, below: str, annotations: str, mirror: str
) -> None:
    url = f"{pages}/{below}"
    project = opened(tmp_path, base_url=url, mirror_url=url, sources=["mirror"], weights="none")
    found = {place.what: place.problem for place in reachability.reached(project)}
    assert found == {"annotations": annotations, "mirror": mirror}


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (["404/w", "200/w"], ""),
        (["200/w.html", "404/w"], "HTTP 404"),
        (["200/w.html"], "a page of HTML in their place"),
    ],
)
def test_weights_are_wanted_from_one_address_at_least(
    pages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], problem: str
) -> None:
    places = tuple(Place(f"{pages}/{path}") for path in paths)
    wanted = {"darknet53.conv.74": Pretrained("darknet53.conv.74", 1, 75, places)}
    monkeypatch.setattr(reachability, "PRETRAINED", wanted)
    project = opened(tmp_path, base_url=pages, mirror_url=pages, sources=["mirror"])
    (found,) = [place for place in reachability.reached(project) if place.what == "weights"]
    assert problem in found.problem
    assert bool(found.problem) == bool(problem)


def test_folders_are_looked_for_and_kept_weights_are_not_asked_for(
    pages: str, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    kept = tmp_path / "cache" / "weights" / "darknet53.conv.74"
    kept.parent.mkdir(parents=True)
    kept.touch()
    project = opened(
        tmp_path, base_url=f"{pages}/200", sources=["./here", "./gone"], cache="./cache"
    )
    found = {place.place: place.problem for place in reachability.reached(project)}
    assert found[str(tmp_path / "here")] == ""
    assert found[str(tmp_path / "gone")] == "no such folder"
    assert found[str(kept)] == ""
