"""Build darknet from source, in a temporary folder that is renamed once the build is complete.

The sources and their ``.git`` are not changed: a copy is built. The build folder keeps the
executable, the log and the recipe.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, locks, process, staleness
from oiyolo.core.errors import DarknetError
from oiyolo.darknet.build import cmake, failures, make, tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.darknet.build.flags import Flags
    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.darknet.build.tree import Revision
    from oiyolo.networks.lint import ForkName

_log = logging.getLogger("oiyolo")

EXECUTABLE: Final = "darknet"
BUILD_LOG: Final = "build.log"
RECIPE_FILE: Final = ".built-from.json"
_RECIPE_VERSION: Final = 2
"""Increased whenever a new version of oiyolo builds the same sources and flags differently."""
_TIMEOUT_S: Final = 3600.0
_BYTES_PER_JOB: Final = 2 << 30
"""Memory per compiler process; nvcc and hank-ai's link-time optimisation need the most."""
_STUB: Final = """\
/* Stands in for the driver's library: defines the only one of its functions that darknet calls. */
int cuCtxGetCurrent(void **context) { (void)context; return 3; /* not initialised */ }
"""


@dataclass(frozen=True)
class BuildSpec:
    """What to build, from which sources, and where.

    Attributes:
        source: The source folder, which is not changed.
        folder: The build folder.
        flags: The build flags.
        toolchain: The compilers and libraries of this machine.
        fork: The fork of darknet in the source folder.
        revision: The revision of the sources.
    """

    source: Path
    folder: Path
    flags: Flags
    toolchain: Toolchain
    fork: ForkName
    revision: Revision

    @property
    def executable(self) -> Path:
        """Path of the program."""
        return self.folder / EXECUTABLE

    @property
    def log_path(self) -> Path:
        """Path of the log of the build."""
        return self.folder / BUILD_LOG

    @property
    def recipe(self) -> dict[str, object]:
        """Everything that the build depends on; a change makes the build stale."""
        toolchain, flags = self.toolchain, self.flags
        tools = {"gcc": toolchain.gcc, "g++": toolchain.gxx}
        if self.fork == "hank":
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
            "recipe": _RECIPE_VERSION,
        }

    @property
    def stale_reason(self) -> str | None:
        """Why darknet has to be built; ``None`` if the build in the folder is up to date."""
        reason = staleness.stale_reason(self.folder / RECIPE_FILE, self.recipe)
        if reason is None and not os.access(self.executable, os.X_OK):
            return "the executable is missing"
        return reason

    @property
    def failure_log(self) -> Path:
        """Path of the log that a failed build leaves."""
        return self.folder.with_name(f"{self.folder.name}-failed.log")


def build_spec(source: Path, folder: Path, flags: Flags, toolchain: Toolchain) -> BuildSpec:
    """Return the specification of a build, with the fork and revision found in the source folder.

    Raises:
        DarknetError: The folder contains no darknet sources.
    """
    fork = tree.fork_of(source)
    if fork is None:
        raise DarknetError(
            "this folder contains no darknet sources",
            where=str(source),
            expected="AlexeyAB's, pjreddie's or hank-ai's darknet",
        )
    return BuildSpec(source, folder, flags, toolchain, fork, tree.revision(source))


def build(spec: BuildSpec) -> str | None:
    """Build darknet unless the existing build is up to date.

    Returns:
        Why this call built it; ``None`` if the existing build was up to date.

    Raises:
        DarknetError: A tool is missing, or the build failed; the message explains why.
    """
    reason = spec.stale_reason
    if reason is not None:
        _check_tools(spec)
        lock = spec.folder.with_name(f".{spec.folder.name}.lock")
        with locks.exclusive(lock, what="this build", operation="build", wait=True):
            reason = spec.stale_reason  # another process may have built it meanwhile
            if reason is not None:
                _log.info("build: %s; building %s: %s", reason, spec.source, spec.flags)
                _build(spec)
    return reason


def job_count(toolchain: Toolchain) -> int:
    """Return the number of parallel compiler processes: one per CPU, limited by free memory."""
    by_memory = toolchain.memory_bytes // _BYTES_PER_JOB or 1
    return min(toolchain.cpus, by_memory) if toolchain.memory_bytes else toolchain.cpus


def _check_tools(spec: BuildSpec) -> None:
    """Check for the build tools before anything is copied or compiled.

    Raises:
        DarknetError: A tool is missing.
    """
    toolchain = spec.toolchain
    needed = {"make": toolchain.make, "gcc": toolchain.gcc, "g++": toolchain.gxx}
    for tool, version in needed.items():
        if not version:
            raise DarknetError(
                f"cannot build darknet: {tool} was not found",
                remedy="On Debian or Ubuntu: apt-get install build-essential",
            )
    if spec.fork == "hank":
        if spec.revision.git_error:
            raise failures.explained_error(
                "hank-ai's darknet takes its version from git tags, and git cannot read them",
                spec.revision.git_error,
                where=str(spec.source),
                remedy=cmake.FULL_CLONE,
            )
        cmake.check(toolchain, source=spec.source, git_describe=spec.revision.git_describe)


def _build(spec: BuildSpec) -> None:
    """Build in a temporary folder and rename it when complete; the caller holds the lock."""
    folder = spec.folder
    for stale_part in folder.parent.glob(f"{folder.name}.*{files.PART_SUFFIX}"):
        shutil.rmtree(stale_part)
    part = folder.with_name(f"{folder.name}.{os.getpid()}{files.PART_SUFFIX}")
    output, copy = part / "done", part / "tree"
    output.mkdir(parents=True)
    try:
        tree.copy(spec.source, copy)
        _link_libraries(spec.toolchain, part / "links", spec.flags)
        executable = _compile(spec, copy, part / "links", output / BUILD_LOG)
        shutil.copy2(executable, output / EXECUTABLE)
        staleness.write_recipe(output / RECIPE_FILE, spec.recipe)
        if folder.exists():
            folder.rename(part / "before")
        output.rename(folder)
        spec.failure_log.unlink(missing_ok=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _compile(spec: BuildSpec, copy: Path, links: Path, log_path: Path) -> Path:
    """Build in a copy of the sources, and return the path of the executable in it.

    Raises:
        DarknetError: A command failed, or there is no executable.
    """
    _log.info("build: compiling takes several minutes; log: %s", log_path)
    flags, toolchain = spec.flags, spec.toolchain
    jobs = job_count(toolchain)
    if spec.fork == "hank":
        commands = cmake.commands(flags, toolchain, links=links, jobs=jobs)
        executable = copy / cmake.EXECUTABLE
    else:
        for subfolder in ("obj", "backup", "results"):  # make -j may use them first
            (copy / subfolder).mkdir(exist_ok=True)
        commands = (make.command(flags, toolchain, spec.fork, links=links, jobs=jobs),)
        executable = copy / EXECUTABLE
    environment = _environment(spec, copy)
    for argv in commands:
        failure = _run(argv, copy, environment, log_path)
        if failure is not None:
            raise _build_error(spec, log_path, failure)
    if not executable.is_file():
        raise _build_error(spec, log_path, "exit code 0, but no executable")
    return executable


def _run(
    argv: tuple[str, ...], cwd: Path, environment: Mapping[str, str], log_path: Path
) -> str | None:
    """Run one command, append its output to the log, and return how it failed, or ``None``."""
    with log_path.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(argv)}\n")
    # The shell writes to the file itself, so the log can be followed and survives a kill.
    redirected = ("sh", "-c", 'exec "$@" >>"$0" 2>&1', str(log_path))
    finished = process.run(
        (*redirected, *argv), cwd=cwd, environment=environment, timeout_s=_TIMEOUT_S
    )
    return None if finished.exit_code == 0 else finished.exit_description


def _environment(spec: BuildSpec, copy: Path) -> dict[str, str]:
    """Return the environment of the build tools: locale, no outer make, CUDA's paths, git."""
    environment = {"LC_ALL": "C.UTF-8", "LANGUAGE": "", "MAKEFLAGS": "", "MAKELEVEL": ""}
    if spec.flags.gpu:
        components = spec.toolchain.components.values()
        headers = [str(part.header_folder) for part in components]
        # The linker embeds LD_RUN_PATH if no -rpath is given, so the program finds its libraries.
        libraries = [str(part.library.parent) for part in components]
        environment["LD_RUN_PATH"] = os.pathsep.join(dict.fromkeys(libraries))
        environment["CPATH"] = os.pathsep.join(
            dict.fromkeys([*headers, *filter(None, os.environ.get("CPATH", "").split(os.pathsep))])
        )
    if spec.revision.git_folder is not None:
        index = copy.with_name("git-index")
        if (spec.revision.git_folder / "index").is_file():
            # `git describe --dirty` writes the index regardless of GIT_OPTIONAL_LOCKS.
            shutil.copy2(spec.revision.git_folder / "index", index)
        environment |= {
            "GIT_DIR": str(spec.revision.git_folder),
            "GIT_WORK_TREE": str(copy),
            "GIT_INDEX_FILE": str(index),
        }
    return environment


def _link_libraries(toolchain: Toolchain, links: Path, flags: Flags) -> None:
    """Create a folder with links to CUDA's libraries and to the driver's library or a stub."""
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
    # With the driver's soname, the program loads the real library on machines that have it.
    argv = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so", source.name]
    process.run(argv, cwd=links)


def _build_error(spec: BuildSpec, log_path: Path, failure: str) -> DarknetError:
    """Keep the log and return an error that explains the failure."""
    shutil.copy2(log_path, spec.failure_log)
    output = log_path.read_text(encoding="utf-8", errors="replace")
    for_cpu = "[darknet] build_gpu to no for a CPU build, or " if spec.flags.gpu else ""
    return failures.explained_error(
        f"cannot build darknet ({failure})",
        output,
        where=str(spec.source),
        found=f"{failures.complaint(output)} in {spec.failure_log}",
        remedy=f"Read this log; or set {for_cpu}[darknet] executable to an existing darknet",
    )
