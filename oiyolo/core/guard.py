"""Launcher script that makes a child program die with its parent.

``python -I -S guard.py PARENT_PID [--idle] PROGRAM ARGUMENT...`` asks the kernel to send SIGKILL
when the parent dies (prctl(2), PR_SET_PDEATHSIG, which survives execve), then replaces itself with
the program. A ``kill -9`` of oiyolo therefore leaves no darknet behind that keeps writing into the
run's folder. With ``--idle``, the program gets the lowest priority, which survives execve too. The
script imports nothing from oiyolo, so it starts in about 15 ms.
"""

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # number of the system call, which libc lacks
_IOPRIO_WHO_PROCESS, _IOPRIO_IDLE = 1, 3 << 13
_LOWEST_NICE = 19


def take_lowest_priority() -> None:
    """Leave the processors and the disk to all other programs, as far as the system allows it.

    This process must have a session of its own: Linux shares the processors among sessions first
    (sched(7), autogroup), and within each by policy and nice value.
    """
    _write("/proc/self/autogroup", str(_LOWEST_NICE))
    _write("/proc/self/oom_score_adj", "1000")  # if memory runs out, not darknet is killed
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, _LOWEST_NICE)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


def _write(path: str, text: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


if __name__ == "__main__":
    parent, *words = sys.argv[1:]
    if words[0] == "--idle":
        take_lowest_priority()
        del words[0]
    program, *arguments = words
    with contextlib.suppress(OSError, AttributeError):  # prctl exists on Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # the parent died before prctl was called
        sys.exit(1)
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606  (no shell is intended)
    except OSError as error:
        sys.stderr.write(f"{program}: {error.strerror}\n")
        sys.exit(127)
