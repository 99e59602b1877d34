"""Building darknet from its sources: beside, then renamed, so that a build is whole or absent.

The sources and their ``.git`` stay as they are: a copy is built, in the folder of builds. What is
kept of it is the program, the log and the stamp.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, locks, process, staleness
from oiyolo.darknet.build import cmake, failures, make, tree
from oiyolo.core.errors import DarknetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.darknet.build.flags import Flags
    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.darknet.build.tree import Revision
    from oiyolo.networks.lint import DarknetLine

_log = logging.getLogger("oiyolo")

EXECUTABLE: Final = "darknet"
BUILD_LOG: Final = "build.log"
STAMP: Final = ".built-from.json"
_RECIPE: Final = 2
"""Counted up when the same sources and switches would be built otherwise."""
_TIMEOUT_S: Final = 3600.0
_LAST_LINES: Final = 8
_BYTES_A_JOB: Final = 2 << 30
"""What a compiler may take; nvcc and hank-ai's link-time optimisation take the most."""
_STUB: Final = """\
/* Stands in for the driver's library, so that the linker finds its one function that is called. */
int cuCtxGetCurrent(void **context) { (void)context; return 3; /* not initialised */ }
"""


@dataclass(frozen=True)
class Made:
    """A build.

    Attributes:
        executable: The program.
        line: The line of darknet that its sources are.
        revision: Their revision.
        flags: Its switches.
        log: What the build said.
        reason: Why it was built by this call; ``None``: it was built before.
    """

    executable: Path
    line: DarknetLine
    revision: str
    flags: Flags
    log: Path
    reason: str | None


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes:
        source: The sources; they stay as they are.
        folder: Where the build goes.
        flags: The switches.
        toolchain: What the machine has.
        line: The line of darknet that the sources are.
        revision: Their revision.
    """

    source: Path
    folder: Path
    flags: Flags
    toolchain: Toolchain
    line: DarknetLine
    revision: Revision

    @property
    def made_from(self) -> dict[str, object]:
        """All that a build depends on; another build is due when it changes."""
        toolchain, flags = self.toolchain, self.flags
        tools = {"gcc": toolchain.gcc, "g++": toolchain.gxx}
        if self.line == "hank":
            tools["cmake"] = toolchain.cmake
        if flags.opencv:
            tools["OpenCV"] = toolchain.opencv
        if flags.gpu:
            tools["CUDA"] = toolchain.cuda
            tools["toolkit"] = str(toolchain.components["cudart"].header_folder)
        if flags.cudnn:
            tools["cuDNN"] = toolchain.cudnn
        return {
            "flags": flags.as_dict(),
            "revision": self.revision.as_dict(),
            "compiler": tools,
            "recipe": _RECIPE,
        }

    @property
    def stale_reason(self) -> str | None:
        """Why it would be built; ``None`` if what lies in the folder is up to date."""
        reason = staleness.stale_reason(self.folder / STAMP, self.made_from)
        if reason is None and not os.access(self.folder / EXECUTABLE, os.X_OK):
            return "the executable is gone"
        return reason

    @property
    def failed_log(self) -> Path:
        """Where the words of a build that failed are kept."""
        return self.folder.with_name(f"{self.folder.name}-failed.log")


def order(source: Path, folder: Path, flags: Flags, toolchain: Toolchain) -> Order:
    """Look at the sources.

    Raises:
        DarknetError: There are none.
    """
    line = tree.line_of(source)
    if line is None:
        raise DarknetError(
            "this folder holds no sources of darknet",
            where=str(source),
            expected="AlexeyAB's, pjreddie's or hank-ai's darknet",
        )
    return Order(source, folder, flags, toolchain, line, tree.revision(source))


def build(what: Order) -> Made:
    """Build darknet; nothing is done when nothing changed.

    Raises:
        DarknetError: A tool is missing, or the build failed; the message explains it.
    """
    reason = what.stale_reason
    if reason is not None:
        _check_tools(what)
        lock = what.folder.with_name(f".{what.folder.name}.lock")
        with locks.exclusive(lock, what="this build", doing="build", wait=True):
            reason = what.stale_reason  # another may have built it meanwhile
            if reason is not None:
                _log.info("build: %s; building %s: %s", reason, what.source, what.flags)
                _build(what)
    return Made(
        executable=what.folder / EXECUTABLE,
        line=what.line,
        revision=what.revision.name,
        flags=what.flags,
        log=what.folder / BUILD_LOG,
        reason=reason,
    )


def jobs(toolchain: Toolchain) -> int:
    """Give how many compilers may run at the same time: one a processor, as memory allows."""
    by_memory = toolchain.memory_bytes // _BYTES_A_JOB or 1
    return min(toolchain.cpus, by_memory) if toolchain.memory_bytes else toolchain.cpus


def _check_tools(what: Order) -> None:
    """Refuse what would fail at once.

    Raises:
        DarknetError: A tool is missing.
    """
    toolchain = what.toolchain
    needed = {"make": toolchain.make, "gcc": toolchain.gcc, "g++": toolchain.gxx}
    for tool, version in needed.items():
        if not version:
            raise DarknetError(
                f"{tool} is needed to build darknet and was not found",
                remedy="On Debian or Ubuntu: apt-get install build-essential",
            )
    if what.line == "hank":
        cmake.check(toolchain, source=what.source, described=what.revision.described)


def _build(what: Order) -> None:
    """Build beside, and give the folder its name when all is in it; the lock is held."""
    folder, flags, toolchain = what.folder, what.flags, what.toolchain
    for left in folder.parent.glob(f"{folder.name}.*{files.PART_SUFFIX}"):
        shutil.rmtree(left)
    part = folder.with_name(f"{folder.name}.{os.getpid()}{files.PART_SUFFIX}")
    done, copy, links = part / "done", part / "tree", part / "links"
    done.mkdir(parents=True)
    try:
        tree.copy(what.source, copy)
        _link_libraries(toolchain, links, flags)
        log_path = done / BUILD_LOG
        _log.info("build: this takes some minutes; what the compilers say is in %s", log_path)
        at_once = jobs(toolchain)
        if what.line == "hank":
            commands = cmake.commands(flags, toolchain, links=links, jobs=at_once)
            built = copy / cmake.EXECUTABLE
        else:
            for made in ("obj", "backup", "results"):  # with -j it may use them before it has
                (copy / made).mkdir(exist_ok=True)
            commands = (make.command(flags, toolchain, what.line, links=links, jobs=at_once),)
            built = copy / EXECUTABLE
        environment = _environment(what, copy)
        for argv in commands:
            ended = _run(argv, copy, environment, log_path)
            if ended is not None:
                raise _failed(what, log_path, ended)
        if not built.is_file():
            raise _failed(what, log_path, "exit code 0, but it left no program")
        shutil.copy2(built, done / EXECUTABLE)
        staleness.write(done / STAMP, what.made_from)
        if folder.exists():
            folder.rename(part / "before")
        done.rename(folder)
        what.failed_log.unlink(missing_ok=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _run(
    argv: tuple[str, ...], cwd: Path, environment: Mapping[str, str], log_path: Path
) -> str | None:
    """Run one step; its words go into the log as they come. Give how it failed."""
    with log_path.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(argv)}\n")
    # A file of its own, so that a build can be watched, and its words outlive a kill.
    to_log = ("sh", "-c", 'exec "$@" >>"$0" 2>&1', str(log_path))
    done = process.run((*to_log, *argv), cwd=cwd, environment=environment, timeout_s=_TIMEOUT_S)
    return None if done.exit_code == 0 else done.ended


def _environment(what: Order, copy: Path) -> dict[str, str]:
    """Give what the tools are told: English, no outer make, where the libraries are, the tags."""
    environment = {"LC_ALL": "C.UTF-8", "LANGUAGE": "", "MAKEFLAGS": "", "MAKELEVEL": ""}
    if what.flags.gpu:
        parts = what.toolchain.components.values()
        headers = [str(part.header_folder) for part in parts]
        # Read by the linker where no -rpath is given: the program finds its libraries again.
        libraries = [str(part.library.parent) for part in parts]
        environment["LD_RUN_PATH"] = os.pathsep.join(dict.fromkeys(libraries))
        environment["CPATH"] = os.pathsep.join(
            dict.fromkeys([*headers, *filter(None, os.environ.get("CPATH", "").split(os.pathsep))])
        )
    if what.revision.git_folder is not None:
        index = copy.with_name("git-index")
        if (what.revision.git_folder / "index").is_file():
            # `git describe --dirty` writes the index, whatever GIT_OPTIONAL_LOCKS says.
            shutil.copy2(what.revision.git_folder / "index", index)
        environment |= {
            "GIT_DIR": str(what.revision.git_folder),
            "GIT_WORK_TREE": str(copy),
            "GIT_INDEX_FILE": str(index),
        }
    return environment


def _link_libraries(toolchain: Toolchain, links: Path, flags: Flags) -> None:
    """Make a folder in which the linker finds CUDA's libraries, and one for the driver's."""
    links.mkdir()
    if not flags.gpu:
        return
    for name, component in toolchain.components.items():
        (links / f"lib{name}.so").symlink_to(component.library)
    driver = toolchain.driver_library or toolchain.stub_library
    if driver is not None:
        (links / "libcuda.so").symlink_to(driver)
        return
    source = links / "stub.c"
    source.write_text(_STUB)
    # Named as the driver's, so that the program takes the driver's where there is one.
    argv = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so", source.name]
    process.run(argv, cwd=links)


def _failed(what: Order, log_path: Path, ended: str) -> DarknetError:
    """Keep the log, and explain what it says."""
    shutil.copy2(log_path, what.failed_log)
    said = log_path.read_text(encoding="utf-8", errors="replace")
    last = "\n".join(said.strip().splitlines()[-_LAST_LINES:])
    known = failures.explain(said)
    return DarknetError(
        f"darknet could not be built ({ended})" + (f": {known.what}" if known else ""),
        where=str(what.source),
        found=f"at the end of {what.failed_log}:\n{last}\n",
        remedy=known.remedy
        if known
        else "Set [darknet] build_gpu to no for a build without a GPU, or [darknet] executable "
        "to a darknet that works",
    )
