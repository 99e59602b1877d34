"""The door to other programs: whole lines, in order, and nobody left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import process

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 4.0


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-S", "-c", textwrap.dedent(script), *arguments]


def lines_of(argv: list[str]) -> tuple[int, list[tuple[str, str]]]:
    lines: list[tuple[str, str]] = []
    code = process.stream(argv, lambda name, line: lines.append((name, line.decode())))
    return code, lines


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def soon(happened: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def test_lines_of_both_streams_come_whole_in_the_order_in_which_they_were_written() -> None:
    script = """
        import os
        for n in range(40):
            os.write(1, b"out %d be" % n)
            os.write(2, b"err %d " % n)
            os.write(1, b"gins and ends\\n")
            os.write(2, b"too\\nerr %d again\\n" % n)
    """
    code, lines = lines_of(python(script))
    assert code == 0
    assert lines == [
        expected
        for n in range(40)
        for expected in (
            ("stdout", f"out {n} begins and ends"),
            ("stderr", f"err {n} too"),
            ("stderr", f"err {n} again"),
        )
    ]


def test_the_end_without_a_newline_comes_last() -> None:
    script = "import os; os.write(2, b'half an error'); os.write(1, b'one\\n\\nhalf a line')"
    code, lines = lines_of(python(script))
    assert code == 0
    assert lines == [
        ("stdout", "one"),
        ("stdout", ""),
        ("stdout", "half a line"),
        ("stderr", "half an error"),
    ]


def test_a_flood_is_not_lost() -> None:
    script = """
        import os
        for n in range(300):
            os.write(1, (b"%05d " % n) * 1000 + b"\\n")
    """
    code, lines = lines_of(python(script))
    assert code == 0
    assert [line.split(" ", 1)[0] for _, line in lines] == [f"{n:05}" for n in range(300)]
    assert {len(line) for _, line in lines} == {6000}


def test_a_line_comes_while_the_program_runs(tmp_path: Path) -> None:
    flag = tmp_path / "seen"
    script = """
        import os, sys, time
        print("first")  # a C program's stdout, made line by line
        sys.stdout.flush()
        end = time.time() + 5
        while not os.path.exists(sys.argv[1]) and time.time() < end:
            time.sleep(0.01)
        print("seen" if os.path.exists(sys.argv[1]) else "not seen")
    """
    lines: list[bytes] = []

    def on_line(_: str, line: bytes) -> None:
        lines.append(line)
        flag.touch()

    assert process.stream(python(script, str(flag)), on_line) == 0
    assert lines == [b"first", b"seen"]


def test_the_program_has_no_terminal_and_no_input_and_runs_where_it_is_told(
    tmp_path: Path,
) -> None:
    script = "import os, sys; print(os.getcwd(), os.environ['A'], sys.stdin.read() == '')"
    lines: list[bytes] = []
    process.stream(
        python(script), lambda _, line: lines.append(line), cwd=tmp_path, environment={"A": "b"}
    )
    assert lines == [f"{tmp_path} b True".encode()]
    done = process.run(python(script), cwd=tmp_path, environment={"A": "b"})
    assert done.output == f"{tmp_path} b True\n"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("", 0, "exit code 0"),
        ("raise SystemExit(3)", 3, "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", -11, "signal SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", -9, "signal SIGKILL"),
        ("import os; os.abort()", -6, "signal SIGABRT"),
    ],
)
def test_how_a_program_ended_is_told_in_words(script: str, code: int, words: str) -> None:
    done = process.run(python(script))
    assert (done.exit_code, done.ended) == (code, words)
    assert process.stream(python(script), lambda *_: None) == code


def test_a_signal_that_has_no_name_is_told_by_its_number() -> None:
    assert process.how_ended(-250) == "exit code -250"


def test_a_program_that_is_not_found_gives_127_and_says_so(tmp_path: Path) -> None:
    absent = str(tmp_path / "darknet")
    done = process.run([absent, "detector"])
    assert done.exit_code == 127
    assert "darknet" in done.output
    assert "No such file" in done.output
    assert done.argv == (absent, "detector")
    code, lines = lines_of([absent])
    assert code == 127
    assert "No such file" in lines[0][1]


def test_a_file_that_is_no_program_gives_an_error_code(tmp_path: Path) -> None:
    (tmp_path / "darknet").write_text("")
    assert process.run([str(tmp_path / "darknet")]).exit_code in {126, 127}


def test_both_streams_come_back_together() -> None:
    script = "import os; os.write(1, b'a'); os.write(2, b'b'); os.write(1, b'\\xff')"
    assert process.run(python(script)).output == "ab\ufffd"


def test_a_program_that_takes_too_long_is_killed_and_what_it_wrote_is_kept() -> None:
    script = "import os, time; os.write(1, b'so far'); time.sleep(30)"
    started_s = time.monotonic()
    done = process.run(python(script), timeout_s=0.5)
    assert done.ended == "signal SIGKILL"
    assert done.output == "so far"
    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_ends_the_program(tmp_path: Path, error: type[BaseException]) -> None:
    script = """
        import os, sys, time
        print(os.getpid(), flush=True)
        time.sleep(60)
    """
    pids: list[int] = []

    def on_line(_: str, line: bytes) -> None:
        pids.append(int(line))
        raise error

    with pytest.raises(error):
        process.stream(python(script), on_line, cwd=tmp_path)
    assert not is_alive(pids[0])


def test_a_program_that_ignores_the_request_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE_S", 0.2)
    script = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        time.sleep(60)
    """
    pids: list[int] = []

    def on_line(_: str, line: bytes) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.stream(python(script), on_line)
    assert soon(lambda: not is_alive(pids[0]))


def test_what_the_program_started_ends_with_it() -> None:
    script = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
        time.sleep(60)
    """
    pids: list[int] = []

    def on_line(_: str, line: bytes) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.stream(python(script), on_line)
    assert soon(lambda: not is_alive(pids[0]))


@pytest.mark.parametrize("door", ["stream", "run"])
def test_a_program_dies_when_we_are_killed(tmp_path: Path, door: str) -> None:
    note = tmp_path / "pid"
    script = """
        import sys
        from oiyolo.core import process
        child = [sys.executable, "-S", "-c",
                 "import os, sys, time; open(sys.argv[1] + '.part', 'w').write(str(os.getpid()));"
                 "os.rename(sys.argv[1] + '.part', sys.argv[1]); time.sleep(60)", sys.argv[2]]
        if sys.argv[1] == "run":
            process.run(child)
        else:
            process.stream(child, lambda *_: None)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script), door, str(note)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        try:
            assert soon(note.exists)
            child = int(note.read_text())
            assert is_alive(child)
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
    try:
        assert soon(lambda: not is_alive(child))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
