"""Output: no raw control characters, and streams that are closed, full or unread."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import output
from oiyolo.core.errors import OiyoloError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

FULL = Path("/dev/full")
RUNNER = """\
import os, sys
for number in map(int, sys.argv[1].split(",")):
    os.close(number)
os.execv(sys.executable, [sys.executable, "-m", "oiyolo", *sys.argv[2:]])
"""


class FailingStream(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:  # noqa: ARG002  (a stream's signature)
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain ünïcode 帆船\n\tnext", "plain ünïcode 帆船\n\tnext"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("a\rb\x9b31m\x7f", "a\\x0db\\x9b31m\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
    ],
)
def test_control_characters_are_printed_as_escapes(text: str, printed: str) -> None:
    assert output.printable(text) == printed


def test_json_keeps_every_value_without_raw_control_characters() -> None:
    value = {"a": "\x1b[2J\x9b\u202e", os.fsdecode(b"\xe9"): [1.5, float("nan")], "ü": "\n"}
    for encoding in ("utf-8", "ascii"):
        text = output.to_json(value, encoding)
        assert text.isprintable()
        assert json.loads(text) == {**value, os.fsdecode(b"\xe9"): [1.5, None]}
        text.encode(encoding)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF])
def test_progress_that_cannot_be_written_is_dropped(number: int) -> None:
    stream = output.lossy(FailingStream(number))
    stream.write("text")
    stream.flush()
    assert output.lossy(stream) is stream


def test_a_result_is_an_error_if_it_cannot_be_written_unless_nobody_reads_it() -> None:
    output.for_results(FailingStream(errno.EPIPE)).write("text")
    for number in (errno.ENOSPC, errno.EIO, errno.EBADF):
        with pytest.raises(OiyoloError) as caught:
            output.for_results(FailingStream(number)).write("text")
        assert caught.value.exit_code == 1


def test_a_character_that_the_encoding_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    stream = output.lossy(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("帆")
    stream.flush()
    assert raw.getvalue() == b"\\u5e06"


def run(folder: Path, closed: str, *words: str, **streams: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUNNER, closed, *words, "--project", str(folder)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    if not closed:
        command = [sys.executable, "-m", "oiyolo", *command[4:]]
    return subprocess.run(command, text=True, check=False, **streams)  # type: ignore[call-overload, no-any-return]


def test_streams_that_are_closed_at_the_start(tmp_path: Path) -> None:
    done = run(tmp_path, "0,2", "init")
    assert done.returncode == 0
    assert str(tmp_path) in done.stdout
    unheard = run(tmp_path / "second", "1", "init")
    assert unheard.returncode == 1
    assert "stdout" in unheard.stderr
    assert "Traceback" not in unheard.stderr
    assert (tmp_path / "second" / "oiyolo.toml").is_file()
    assert run(tmp_path / "third", "0,1,2", "init").returncode == 1


def test_a_pipe_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(tmp_path, "", "init", stdout=writer)
        assert (done.returncode, done.stderr) == (0, "")
        assert run(tmp_path / "second", "", "init", stderr=writer).returncode == 0
        assert run(tmp_path / "none", "", "status", stderr=writer).returncode == 2
    finally:
        os.close(writer)


@pytest.mark.skipif(not FULL.exists(), reason=f"there is no {FULL}")
def test_a_full_disk_under_stdout_or_stderr(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        done = run(tmp_path, "", "init", stdout=full.fileno())
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        as_json = run(tmp_path / "none", "", "status", "--json", stdout=full.fileno())
        assert as_json.returncode == 2
        assert as_json.stderr.count("\n") == 1
        assert run(tmp_path / "second", "", "init", stderr=full.fileno()).returncode == 0


NUMBERS = (errno.EACCES, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_path_error_exits_2_if_the_user_named_it_and_4_otherwise(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    def failing(path: Path) -> Callable[..., None]:
        def fail(**_: object) -> None:
            raise OSError(number, os.strerror(number), str(path))

        return fail

    cli.ok("init", "--cache", str(tmp_path / "cache"), project=tmp_path / "p")
    named = [
        tmp_path / "p",
        tmp_path / "p" / "oiyolo.toml",
        tmp_path / "cache" / "x",
        tmp_path / "log",
    ]
    for path in named:
        monkeypatch.setattr("oiyolo.plot", failing(path), raising=False)
        done = cli("plot", str(tmp_path / "log"), project=tmp_path / "p")
        assert done.code == UsageError.exit_code, path
        assert str(path) in done.err
        assert done.err.count("\n") == 1
    for path in (tmp_path / "p" / "data" / "x", Path("/elsewhere")):
        monkeypatch.setattr("oiyolo.plot", failing(path), raising=False)
        done = cli("plot", str(tmp_path / "log"), project=tmp_path / "p")
        assert done.code == UnavailableError.exit_code, path
