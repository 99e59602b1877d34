"""Run as a script before a child program: it makes the child die with its parent.

``python -I -S guard.py PARENT_PID PROGRAM ARGUMENT...`` asks the kernel for SIGKILL at the
parent's death (prctl(2), PR_SET_PDEATHSIG; it survives execve) and then becomes the program. So
a ``kill -9`` of oiyolo leaves no darknet behind that would go on writing into the run's folder.
Imports nothing of oiyolo: it starts in some 15 ms.
"""

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, program, *arguments = sys.argv[1:]
    with contextlib.suppress(OSError, AttributeError):  # Linux has it, others do not
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the request
        sys.exit(1)
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606  (no shell is what we want)
    except OSError as error:
        sys.stderr.write(f"{program}: {error.strerror}\n")
        sys.exit(127)
