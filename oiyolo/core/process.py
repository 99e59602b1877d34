"""Run other programs and capture what they print.

``stream`` passes on a program's stdout and stderr as whole lines, in the order in which they were
written. Two pipes would lose that order, and one shared pipe would mix parts of lines, because
darknet prints one line in several writes. Both streams are therefore datagram sockets with a
common receiver: the kernel queues the writes in order, and the sender's address identifies the
stream.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_log = logging.getLogger("oiyolo")

_GUARD: Final = Path(__file__).with_name("guard.py")
_PACKAGE_PARENT: Final = Path(__file__).parents[2]
_STREAMS: Final = ("stdout", "stderr")
_WRITE_BYTES: Final = 1 << 18  # the default upper limit for a datagram on Linux
_WAIT_S: Final = 0.2
_GRACE_S: Final = 5.0


@dataclass(frozen=True)
class ProcessResult:
    """The exit code and the output of a program that has ended."""

    exit_code: int
    output: str

    @property
    def exit_description(self) -> str:
        """How it ended, in words: "exit code 3" or "signal SIGSEGV"."""
        return describe_exit(self.exit_code)


def describe_exit(exit_code: int) -> str:
    """Return an exit code of ``subprocess`` in words: "exit code 3" or "signal SIGSEGV"."""
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str | None] | None = None,
    timeout_s: float | None = None,
    stdin_text: str = "",
) -> ProcessResult:
    """Run a program to its end without a terminal; return stdout and stderr combined.

    Args:
        argv: The program and its arguments.
        cwd: Its working folder.
        environment: Variables to set in addition to those of this process; ``None`` unsets one.
        timeout_s: Time after which it is killed; the exit code is then that of SIGKILL.
        stdin_text: Content of its stdin; a few words at most.
    """
    _log.debug("run: %s", " ".join(argv))
    with (
        _stdin(stdin_text) as stdin,
        subprocess.Popen(
            _with_guard(argv),
            cwd=cwd,
            env=_environment(environment or {}),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its own children can be terminated too
        ) as child,
    ):
        try:
            output, _ = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as expired:
            terminate(child, kill=True)
            return ProcessResult(-signal.SIGKILL, _text(expired.output))
        finally:
            terminate(child)
    return ProcessResult(child.returncode, _text(output))


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")


def stream(
    argv: Sequence[str],
    on_line: Callable[[str, bytes], None],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str | None] | None = None,
    stdin_text: str = "",
    should_end: Callable[[float], bool] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> int:
    """Run a program to its end and pass on each line as soon as it is complete.

    The program gets no terminal, and dies with this process. If an exception ends this function
    early (usually an interrupt), the program is terminated, and killed if it does not end.

    Args:
        argv: The program and its arguments.
        on_line: Called with "stdout" or "stderr" and a line without its newline. A last line
            without a newline is passed on when the program has ended.
        cwd: Its working folder.
        environment: Variables to set in addition to those of this process; ``None`` unsets one.
        stdin_text: Content of its stdin; a few words at most.
        should_end: Called after each piece of output, and several times a second without output,
            with the seconds since the last output. If it returns ``True``, the program is
            terminated; what it has written by then is still passed on.
        on_start: Called with the process id of the program, which is the id of its session too.

    Returns:
        The exit code, negative for a signal; 127 if the program could not be started.
    """
    _log.debug("run: %s", " ".join(argv))
    with _stream_sockets() as (receiver, senders), _stdin(stdin_text) as stdin:
        child = subprocess.Popen(
            _with_guard([*_line_buffering(), *argv]),
            cwd=cwd,
            env=_environment(environment or {}),
            stdin=stdin,
            stdout=senders["stdout"].fileno(),
            stderr=senders["stderr"].fileno(),
            start_new_session=True,  # Ctrl-C reaches this process only, which passes it on
        )
        stream_of = {sender.getsockname(): name for name, sender in senders.items()}
        partial = dict.fromkeys(_STREAMS, b"")
        try:
            if on_start is not None:
                on_start(child.pid)
            for name, block in _receive(receiver, stream_of, child, should_end):
                *lines, partial[name] = (partial[name] + block).split(b"\n")
                for line in lines:
                    on_line(name, line)
            for name, rest in partial.items():
                if rest:
                    on_line(name, rest)
        finally:
            terminate(child)
        return child.returncode


def start_detached(
    argv: Sequence[str], *, environment: Mapping[str, str], stdout: int, stderr_path: Path
) -> int:
    """Start a program that outlives this process and its terminal; return its process id.

    Args:
        argv: The absolute path of the program, and its arguments.
        environment: Variables to set in addition to those of this process.
        stdout: Descriptor of the file for its stdout.
        stderr_path: The file to which its stderr is appended.
    """
    stderr = open_regular(stderr_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return os.posix_spawn(
            argv[0],
            list(argv),
            {**os.environ, **environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGHUP, signal.SIGINT, signal.SIGTERM],  # a shell may ignore them
        )
    finally:
        os.close(stderr)


def poll_detached(process_id: int) -> int | None:
    """Return the exit code of a program that ``start_detached`` started; ``None`` if it runs."""
    ended, status = os.waitpid(process_id, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


class BackgroundProcess:
    """A program that runs while this process does other work, and dies with it.

    It gets no terminal. In the lowest priority, Linux runs it only while a processor has nothing
    else to do (SCHED_IDLE), and lets it read and write only while the disk has nothing else to do.
    If memory runs out, it is the first to be killed.
    """

    def __init__(
        self, argv: Sequence[str], *, environment: Mapping[str, str | None], is_idle: bool
    ) -> None:
        """Start the program.

        Args:
            argv: The program and its arguments.
            environment: Variables to set in addition to those of this process; ``None`` unsets one.
            is_idle: Whether it gets the lowest priority.
        """
        _log.debug("run in the background: %s", " ".join(argv))
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (open while it runs)
        self._child = subprocess.Popen(
            _with_guard([*(["--idle"] if is_idle else []), *argv]),
            env=_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def poll(self) -> ProcessResult | None:
        """Return how it ended and what it printed; ``None`` while it runs."""
        if self._child.poll() is None:
            return None
        self._output.seek(0)
        return ProcessResult(self._child.returncode, _text(self._output.read()))

    def kill(self) -> None:
        """End it at once, and wait for that."""
        terminate(self._child, kill=True)
        self._child.wait()
        self._output.close()


def session_cpu_s(session_id: int) -> float:
    """Return the CPU time of all processes of a session so far, in seconds; 0 if unknown.

    Processes that have ended count if a process of the session has waited for them.
    """
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): after the name in parentheses, session is field 4, and utime, stime, cutime
            # and cstime are fields 12 to 15.
            fields = path.read_bytes().rpartition(b")")[2].split()
            if int(fields[3]) == session_id:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def terminate(child: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    """Terminate a program and its children: SIGTERM, then SIGKILL (with ``kill`` SIGKILL only)."""
    for number in (signal.SIGKILL,) if kill else (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)


@contextlib.contextmanager
def _stdin(text: str) -> Iterator[int]:
    """Yield a file descriptor for a program's stdin, from which it reads ``text`` and then EOF."""
    if not text:
        yield subprocess.DEVNULL
        return
    read_end, write_end = os.pipe()  # its buffer holds a few words before anything is read
    with os.fdopen(read_end, "rb"):
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(text.encode())
        yield read_end


@contextlib.contextmanager
def _stream_sockets() -> Iterator[tuple[socket.socket, dict[str, socket.socket]]]:
    """Yield a receiving socket and one sending socket for each stream."""
    with contextlib.ExitStack() as stack:
        # A folder of mode 0700, so that no other user can send to the socket.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="oiyolo-"))
        receiver = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        receiver.bind(f"{folder}/log")
        senders = {}
        for name in _STREAMS:
            sender = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            sender.bind(f"{folder}/{name}")
            sender.connect(f"{folder}/log")
            senders[name] = sender
        yield receiver, senders


def _receive(
    receiver: socket.socket,
    stream_of: Mapping[str, str],
    child: subprocess.Popen[bytes],
    should_end: Callable[[float], bool] | None,
) -> Iterator[tuple[str, bytes]]:
    """Yield what the child writes until it has ended and the receiver's queue is empty."""
    output_at_s = time.monotonic()
    has_ended = False
    while True:
        try:  # usually more is queued; this is then the only system call
            block, address = receiver.recvfrom(_WRITE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if has_ended:  # before this last read: nothing more can come
                return
            readable, _, _ = select.select([receiver], [], [], _WAIT_S)
            has_ended = not readable and child.poll() is not None
        else:
            output_at_s = time.monotonic()
            if address in stream_of:
                yield stream_of[address], block
        if not has_ended and should_end is not None and should_end(time.monotonic() - output_at_s):
            terminate(child)
            should_end = None


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    variables = {**os.environ, **changes}
    return {name: value for name, value in variables.items() if value is not None}


def python_command(statements: str) -> list[str]:
    """Return the command that runs Python statements with this package.

    The current folder must not provide modules; this package must, wherever it was found.
    """
    path = f"sys.path[:] = [*filter(None, sys.path), {str(_PACKAGE_PARENT)!r}]"
    return [sys.executable, "-c", f"import sys; {path}; {statements}"]


def _with_guard(argv: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *argv]


def _line_buffering() -> list[str]:
    # By default Debian's darknet writes its stdout in blocks of 4 kB: the log would lag hours
    # behind, and a kill would lose its end.
    return ["stdbuf", "-oL"] if shutil.which("stdbuf") else []
