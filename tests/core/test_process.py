"""Other programs: their output in whole lines and in order, and no process is left running."""

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
    """Return whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def becomes_true(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def test_both_streams_arrive_in_whole_lines_and_in_the_order_of_writing() -> None:
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


def test_last_lines_without_a_newline_arrive_at_the_end() -> None:
    script = "import os; os.write(2, b'partial error'); os.write(1, b'one\\n\\npartial line')"
    code, lines = lines_of(python(script))
    assert code == 0
    assert lines == [
        ("stdout", "one"),
        ("stdout", ""),
        ("stdout", "partial line"),
        ("stderr", "partial error"),
    ]


def test_no_output_is_lost_when_there_is_much_of_it() -> None:
    script = """
        import os
        for n in range(300):
            os.write(1, (b"%05d " % n) * 1000 + b"\\n")
    """
    code, lines = lines_of(python(script))
    assert code == 0
    assert [line.split(" ", 1)[0] for _, line in lines] == [f"{n:05}" for n in range(300)]
    assert {len(line) for _, line in lines} == {6000}


def test_a_line_arrives_while_the_program_is_running(tmp_path: Path) -> None:
    flag = tmp_path / "seen"
    script = """
        import os, sys, time
        print("first")  # like the line-buffered stdout of a C program
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


def test_the_program_gets_its_folder_and_environment_but_no_input(
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
def test_an_exit_code_is_described_in_words(script: str, code: int, words: str) -> None:
    done = process.run(python(script))
    assert (done.exit_code, done.exit_description) == (code, words)
    assert process.stream(python(script), lambda *_: None) == code


def test_a_signal_without_a_name_is_described_by_its_number() -> None:
    assert process.describe_exit(-250) == "exit code -250"


def test_a_missing_program_exits_with_127_and_a_message(tmp_path: Path) -> None:
    missing = str(tmp_path / "darknet")
    done = process.run([missing, "detector"])
    assert done.exit_code == 127
    assert "darknet" in done.output
    assert "No such file" in done.output
    code, lines = lines_of([missing])
    assert code == 127
    assert "No such file" in lines[0][1]


def test_a_file_that_is_not_executable_exits_with_an_error_code(tmp_path: Path) -> None:
    (tmp_path / "darknet").write_text("")
    assert process.run([str(tmp_path / "darknet")]).exit_code in {126, 127}


def test_run_returns_both_streams_combined() -> None:
    script = "import os; os.write(1, b'a'); os.write(2, b'b'); os.write(1, b'\\xff')"
    assert process.run(python(script)).output == "ab\ufffd"


def test_a_program_that_takes_too_long_is_killed_and_its_output_is_kept() -> None:
    script = "import os, time; os.write(1, b'so far'); time.sleep(30)"
    started_s = time.monotonic()
    done = process.run(python(script), timeout_s=0.5)
    assert done.exit_description == "signal SIGKILL"
    assert done.output == "so far"
    assert time.monotonic() - started_s < 10


def interrupt_at_first_line(script: str, error: type[BaseException] = KeyboardInterrupt) -> int:
    """Raise an error at the first line of a script's output, and return that line, a number."""
    numbers: list[int] = []

    def on_line(_: str, line: bytes) -> None:
        numbers.append(int(line))
        raise error

    with pytest.raises(error):
        process.stream(python(script), on_line)
    return numbers[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_terminates_the_program(error: type[BaseException]) -> None:
    script = """
        import os, sys, time
        print(os.getpid(), flush=True)
        time.sleep(60)
    """
    assert not is_alive(interrupt_at_first_line(script, error))


def test_a_program_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE_S", 0.2)
    script = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        time.sleep(60)
    """
    pid = interrupt_at_first_line(script)
    assert becomes_true(lambda: not is_alive(pid))


def test_child_processes_of_the_program_are_terminated_too() -> None:
    script = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
        time.sleep(60)
    """
    pid = interrupt_at_first_line(script)
    assert becomes_true(lambda: not is_alive(pid))


@pytest.mark.parametrize("function", ["stream", "run"])
def test_a_program_dies_when_its_parent_is_killed(tmp_path: Path, function: str) -> None:
    pid_path = tmp_path / "pid"
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
    argv = [sys.executable, "-c", textwrap.dedent(script), function, str(pid_path)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        try:
            assert becomes_true(pid_path.exists)
            child = int(pid_path.read_text())
            assert is_alive(child)
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
    try:
        assert becomes_true(lambda: not is_alive(child))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
