"""The doctor on this machine, on simulated machines, and with programs and servers that hang."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.networks.weights import MirrorUrl, Pretrained
from oiyolo.operations.doctor import collect, reachability
from oiyolo.project import config
from oiyolo.project.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.operations.doctor import Examination
    from tests.conftest import Cli, Shell

HEADER = (
    "| NVIDIA-SMI {driver}   Driver Version: {driver}   CUDA Version: {cuda} |\n"
    "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n"
)
NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {cuda}, V{cuda}.88\n"
GARBAGE = "\\377\\376\\000\\001 release NaN, Driver Version: , compute_\\n,,,,,\\n0,,,,,\\n"
SMI = """\
case "$1" in
--query*) cat "$FAKE/rows" ;;
*) cat "$FAKE/header" ;;
esac
exit $(cat "$FAKE/code")
"""
NVCC_SCRIPT = """\
case "$1" in
--version) cat "$FAKE/nvcc" ;;
--list-gpu-arch) cat "$FAKE/arch" ;;
*) exit 1 ;;
esac
"""
MISBEHAVIOUR = {GARBAGE: f"printf '{GARBAGE}'", "hangs": "exec sleep 600"}
TOOLS = ("gcc", "g++", "make", "git", "cmake", "ldd", "env", "sh", "cat", "sleep", "printf",
         "darknet", "dpkg-query")  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Simulate a machine's NVIDIA tools by programs that print what the real ones print."""
    data = tmp_path / "machine"
    folder = data / "bin"
    folder.mkdir(parents=True)
    for path in filter(None, map(shutil.which, TOOLS)):
        (folder / Path(path).name).symlink_to(path)

    def program(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    def make(
        *, smi: str = "", rows: str = "", nvcc: str = "", arch: str = "", code: int = 0
    ) -> None:
        architectures = "".join(f"compute_{number}\n" for number in arch.split())
        texts = {"header": smi, "rows": rows, "nvcc": nvcc, "arch": architectures, "code": code}
        for name, text in texts.items():
            (data / name).write_text(str(text))
        if smi or rows or code:
            program("nvidia-smi", MISBEHAVIOUR.get(smi, SMI))
        if nvcc:
            program("nvcc", MISBEHAVIOUR.get(smi, NVCC_SCRIPT))
        monkeypatch.setenv("FAKE", str(data))
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setenv("CUDA_HOME", str(data) if nvcc else "")

    return make


def states(examination: Examination) -> dict[str, str]:
    return {result.topic: result.state for result in examination.results}


def text_of(examination: Examination, topic: str) -> str:
    return next(f"{f.found} {f.remedy}" for f in examination.results if f.topic == topic)


def smi(driver: str, cuda: str) -> str:
    return HEADER.format(driver=driver, cuda=cuda)


def row(name: str, mib: int, capability: str, driver: str) -> str:
    return f"0, {name}, {mib}, {mib - 500}, {capability}, {driver}\n"


MACHINES: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, str]]] = {
    "H100": (
        {"smi": smi("580.65.06", "13.0"), "nvcc": NVCC.format(cuda="13.0"), "arch": "75 80 90",
         "rows": row("NVIDIA H100 80GB HBM3", 81559, "9.0", "580.65.06")},
        {"driver": "ok", "GPU 0": "ok", "CUDA": "ok"},
        {"GPU 0": "NVIDIA H100", "driver": "supports CUDA up to 13.0"},
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
        {"GPU 0": "CUDA 11.8 is the last version that supports it"},
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
        {"CUDA": "does not report its version"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_checked_by_the_output_of_its_tools(
    machine: Callable[..., None], tmp_path: Path, darknet: Path, name: str
) -> None:
    prints, expected, words = MACHINES[name]
    machine(**prints)
    examination = oiyolo.doctor(tmp_path, offline=True, executable=str(darknet))
    assert expected.items() <= states(examination).items()
    for topic, part in words.items():
        assert part in text_of(examination, topic)
    assert examination.exit_code == 0, str(examination)  # a CPU is enough to train
    assert str(examination)


def test_a_tool_that_hangs_is_reported_after_the_deadline(
    machine: Callable[..., None], tmp_path: Path, darknet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.operations.doctor._DEADLINE_S", 0.5)
    monkeypatch.setattr("oiyolo.darknet.build.toolchain._TIMEOUT_S", 1.0)
    monkeypatch.setattr("oiyolo.darknet.gpus._TIMEOUT_S", 1.0)
    monkeypatch.setattr(collect, "_TIMEOUT_S", 1.0)
    machine(smi="hangs", nvcc="x")
    examination = oiyolo.doctor(tmp_path, offline=True, executable=str(darknet))
    assert states(examination)["tools"] == "warning"
    assert "no answer within 0.5 s" in text_of(examination, "driver")
    for thread in threading.enumerate():
        if thread.name.startswith("doctor"):
            thread.join(30)  # the program that hung was killed
            assert not thread.is_alive()


def test_the_table_and_the_json_agree_and_nothing_is_changed(
    cli: Cli, make_project: Callable[..., Path], digests: Callable[[Path], dict[str, str]],
    darknet: Path,
) -> None:  # fmt: skip
    folder = make_project()
    before = digests(folder)
    table = cli.ok("doctor", project=folder).out
    output = cli.ok("doctor", "--json", project=folder).json
    assert digests(folder) == before
    assert output["can_train"]
    assert output["darknet"]["executable"] == str(darknet)
    assert {"Python", "packages", "darknet", "git", "disk: project", "annotations", "mirror"} <= {
        result["topic"] for result in output["findings"]
    }
    for result in output["findings"]:
        assert result["topic"] in table
        assert bool(result["remedy"]) == (result["state"] != "ok"), result
    assert table.splitlines()[-1] == output["verdict"]
    assert max(map(len, table.splitlines())) <= 100
    reached = {place["what"]: place["problem"] for place in output["reached"]}
    assert (reached["annotations"], reached["mirror"]) == ("", "")


@pytest.mark.usefixtures("darknet")
def test_the_doctor_works_outside_of_projects(cli: Cli, tmp_path: Path) -> None:
    done = cli.ok("doctor", "--offline", project=tmp_path / "absent")
    assert "none in" in done.out
    assert not list(tmp_path.iterdir())


def test_the_doctor_runs_without_a_terminal(shell: Shell, tmp_path: Path) -> None:
    done = shell("doctor", "--offline", "--json", cwd=tmp_path)
    assert done.code in {0, 5}
    assert done.json["exit_code"] == done.code
    assert done.err == ""


def test_a_verified_darknet_is_distinguished_from_an_unverified_one(
    tmp_path: Path, darknet: Path
) -> None:
    options: dict[str, Any] = {"executable": str(darknet), "cache": str(tmp_path / "cache")}
    first = oiyolo.doctor(tmp_path, offline=True, **options)
    assert "not verified yet" in text_of(first, "darknet")
    oiyolo.init(tmp_path, **options)
    oiyolo.build(tmp_path)
    second = oiyolo.doctor(tmp_path, offline=True)
    assert "not verified" not in text_of(second, "darknet")
    assert second.as_dict()["darknet"]["proved"] is True  # type: ignore[index]


@pytest.mark.parametrize(
    ("toml", "code", "words"),
    [
        ("[images]\nsizes = 3\n", 2, "unknown key sizes"),
        ("[images\n", 2, "not valid TOML"),
        ("[train]\nnetwork = 'yolov9000'\n", 2, "unknown network 'yolov9000'"),
    ],
)
def test_an_invalid_project_file_is_a_result(
    cli: Cli, tmp_path: Path, darknet: Path, *, toml: str, code: int, words: str
) -> None:
    (tmp_path / "oiyolo.toml").write_text(toml)
    done = cli("doctor", "--offline", "--executable", darknet, project=tmp_path)
    assert done.code == code, done.out
    assert words in " ".join(done.out.split())


def test_an_invalid_option_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("doctor", "--jobs", "many", project=tmp_path).code == 2


def test_without_darknet_and_a_compiler_training_is_blocked(
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
    assert "requires g++" in " ".join(done.out.split())
    assert done.out.splitlines()[-1] == "This machine cannot train yet: see darknet."


def test_a_full_disk_blocks_training(
    cli: Cli, tmp_path: Path, darknet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "free_bytes", lambda _: 1000)
    done = cli("doctor", "--offline", "--executable", darknet, project=tmp_path)
    assert done.code == 4
    assert "disk: project" in done.out.splitlines()[-1]


def test_a_program_that_is_not_darknet_blocks_training(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--offline", "--executable", "/bin/true", project=tmp_path)
    assert done.code == 5
    assert "does not respond as darknet does" in " ".join(done.out.split())


def opened(folder: Path, **options: object) -> Project:
    return Project(folder, config.load(folder / "oiyolo.toml", options, {}))


class _Pages(http.server.BaseHTTPRequestHandler):
    """A site whose paths begin with the status to respond with; those with .html are pages."""

    def do_GET(self) -> None:
        kind = "text/html" if self.path.endswith(".html") else "application/octet-stream"
        self.send_response(int(self.path.split("/")[1] or 200))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", "1000000000")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


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
    """A server that accepts connections and then sends one byte at a time, without an end."""
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


def test_servers_that_never_respond_do_not_block_the_doctor(
    black_hole: str, tmp_path: Path
) -> None:
    project = opened(tmp_path, base_url=black_hole, mirror_url=black_hole, sources=["mirror"])
    endpoints = reachability.check_endpoints(project, f"{black_hole}/darknet.git", deadline_s=0.5)
    silent = {
        endpoint.what: endpoint.problem for endpoint in endpoints if endpoint.what != "weights"
    }
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
def test_annotations_must_exist_and_the_mirror_must_respond(
    pages: str, tmp_path: Path, below: str, annotations: str, mirror: str
) -> None:
    url = f"{pages}/{below}"
    project = opened(tmp_path, base_url=url, mirror_url=url, sources=["mirror"], weights="none")
    problems = {
        endpoint.what: endpoint.problem for endpoint in reachability.check_endpoints(project)
    }
    assert problems == {"annotations": annotations, "mirror": mirror}


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (["404/w", "200/w"], ""),
        (["200/w.html", "404/w"], "HTTP 404"),
        (["200/w.html"], "an HTML page instead of the weights"),
    ],
)
def test_one_url_that_provides_the_weights_is_enough(
    pages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], problem: str
) -> None:
    places = tuple(MirrorUrl(f"{pages}/{path}") for path in paths)
    wanted = {"darknet53.conv.74": Pretrained("darknet53.conv.74", 1, 75, places)}
    monkeypatch.setattr(reachability, "PRETRAINED", wanted)
    project = opened(tmp_path, base_url=pages, mirror_url=pages, sources=["mirror"])
    (endpoint,) = [e for e in reachability.check_endpoints(project) if e.what == "weights"]
    assert problem in endpoint.problem
    assert bool(endpoint.problem) == bool(problem)


def test_folders_are_checked_and_cached_weights_are_not_requested(
    pages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reachability, "is_cached", lambda path, _: path.is_file())
    (tmp_path / "here").mkdir()
    kept = tmp_path / "cache" / "weights" / "darknet53.conv.74"
    kept.parent.mkdir(parents=True)
    kept.touch()
    project = opened(
        tmp_path, base_url=f"{pages}/200", sources=["./here", "./gone"], cache="./cache"
    )
    problems = {
        endpoint.place: endpoint.problem for endpoint in reachability.check_endpoints(project)
    }
    assert problems[str(tmp_path / "here")] == ""
    assert problems[str(tmp_path / "gone")] == "no such folder"
    assert problems[str(kept)] == ""
