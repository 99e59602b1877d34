"""The one door to other programs.

``stream`` gives a program's stdout and stderr as whole lines in the order in which they were
written. Two pipes would lose the order and one shared pipe would tear lines, because darknet
prints one line in several writes; so both streams are datagram sockets that send to one receiver:
the kernel queues the writes in order, and the sender's address tells the stream.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_log = logging.getLogger("oiyolo")

_GUARD: Final = Path(__file__).with_name("guard.py")
_STREAMS: Final = ("stdout", "stderr")
_WRITE_BYTES: Final = 1 << 18  # Linux lets no datagram be larger by default
_WAIT_S: Final = 0.2
_GRACE_S: Final = 5.0


@dataclass(frozen=True)
class Finished:
    """A program that ended, with what it wrote."""

    argv: tuple[str, ...]
    exit_code: int
    output: str

    @property
    def ended(self) -> str:
        """How it ended, in words: "exit code 3" or "signal SIGSEGV"."""
        return how_ended(self.exit_code)


def how_ended(exit_code: int) -> str:
    """Put an exit code as ``subprocess`` gives it into words."""
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    typed: str = "",
) -> Finished:
    """Run a program to its end without a terminal; its stdout and stderr come back together.

    Args:
        argv: The program and its arguments.
        cwd: The folder it runs in.
        environment: Variables to set beside ours.
        timeout_s: It is killed after this time, and the exit code is SIGKILL's.
        typed: What it finds on its stdin; a few words at most.
    """
    _log.debug("run: %s", " ".join(argv))
    with (
        _stdin(typed) as stdin,
        subprocess.Popen(
            _guarded(argv),
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it started can be ended with it
        ) as child,
    ):
        try:
            output, _ = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as expired:
            end(child, at_once=True)
            return Finished(tuple(argv), -signal.SIGKILL, _text(expired.output))
        finally:
            end(child)
    return Finished(tuple(argv), child.returncode, _text(output))


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")


def stream(
    argv: Sequence[str],
    on_line: Callable[[str, bytes], None],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    typed: str = "",
    should_end: Callable[[float], bool] | None = None,
) -> int:
    """Run a program to its end and hand on every line as soon as it is whole.

    The program gets no terminal; it dies when we do. On any exception here (an interrupt above all)
    it is asked to end, and killed if it does not.

    Args:
        argv: The program and its arguments.
        on_line: Called with "stdout" or "stderr" and a line without its newline. What a program
            leaves without a newline at its end comes last.
        cwd: The folder it runs in.
        environment: Variables to set beside ours.
        typed: What it finds on its stdin; a few words at most.
        should_end: Asked after everything that was received, and every now and then, with the
            seconds since something was; if it says so, the program is ended, and what it had
            written by then is still handed on.

    Returns:
        The exit code, negative for a signal; 127 when the program could not be started.
    """
    _log.debug("run: %s", " ".join(argv))
    with _mailbox() as (receiver, senders), _stdin(typed) as stdin:
        child = subprocess.Popen(
            _guarded([*_line_buffered(), *argv]),
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=stdin,
            stdout=senders["stdout"].fileno(),
            stderr=senders["stderr"].fileno(),
            start_new_session=True,  # Ctrl-C is ours to hand on
        )
        stream_of = {sender.getsockname(): name for name, sender in senders.items()}
        unfinished = dict.fromkeys(_STREAMS, b"")
        try:
            for name, block in _received(receiver, stream_of, child, should_end):
                *lines, unfinished[name] = (unfinished[name] + block).split(b"\n")
                for line in lines:
                    on_line(name, line)
            for name, rest in unfinished.items():
                if rest:
                    on_line(name, rest)
        finally:
            end(child)
        return child.returncode


def end(child: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """End a program and what it started: ask, wait, kill (or kill at once)."""
    for asked in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, asked)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)


@contextlib.contextmanager
def _stdin(typed: str) -> Iterator[int]:
    """Give what a program gets as its stdin; it holds what was typed, and ends."""
    if not typed:
        yield subprocess.DEVNULL
        return
    reading, writing = os.pipe()  # a few words fit into it before anybody reads
    with os.fdopen(reading, "rb"):
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(typed.encode())
        yield reading


@contextlib.contextmanager
def _mailbox() -> Iterator[tuple[socket.socket, dict[str, socket.socket]]]:
    """Give a receiving socket and one sending socket for each stream."""
    with contextlib.ExitStack() as stack:
        # In a folder that only we can enter, so that nobody else can write to it.
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


def _received(
    receiver: socket.socket,
    stream_of: Mapping[str, str],
    child: subprocess.Popen[bytes],
    should_end: Callable[[float], bool] | None,
) -> Iterator[tuple[str, bytes]]:
    """Give what the child writes until it has ended and the box is empty."""
    heard_s = time.monotonic()
    has_ended = False
    while True:
        try:  # most often there is more: then this is the only call of the system
            block, address = receiver.recvfrom(_WRITE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if has_ended:  # it had before this last look into the box
                return
            waiting, _, _ = select.select([receiver], [], [], _WAIT_S)
            has_ended = not waiting and child.poll() is not None
        else:
            heard_s = time.monotonic()
            if address in stream_of:
                yield stream_of[address], block
        if not has_ended and should_end is not None and should_end(time.monotonic() - heard_s):
            end(child)
            should_end = None


def _guarded(argv: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *argv]


def _line_buffered() -> list[str]:
    # Debian's darknet writes its stdout in blocks of 4 kB unless it is told otherwise; a log
    # that is hours late would be of no use, and a kill would lose its end.
    return ["stdbuf", "-oL"] if shutil.which("stdbuf") else []
