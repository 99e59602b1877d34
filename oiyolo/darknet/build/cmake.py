"""CMake command lines for hank-ai's darknet. No side effects.

This fork requires OpenCV and takes its version from ``git describe --tags``, called in the build
folder. Since a copy is built, git finds the repository by its environment variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import DarknetError
from oiyolo.darknet.build.toolchain import version_tuple

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.darknet.build.flags import Flags
    from oiyolo.darknet.build.toolchain import Toolchain

MIN_VERSION: Final = "3.24"
BUILD_FOLDER: Final = "build"
EXECUTABLE: Final = f"{BUILD_FOLDER}/src-cli/darknet"
TARGET: Final = "darknetcli"
NEWER_CMAKE: Final = "Install a newer CMake, for example with `pip install cmake`"
FULL_CLONE: Final = (
    "In a git clone, run `git fetch --tags --unshallow`; an unpacked archive does not work: clone "
    "the repository with git, in full"
)


def commands(
    flags: Flags, toolchain: Toolchain, *, links: Path, jobs: int
) -> tuple[tuple[str, ...], ...]:
    """Return the commands that configure and build, to be run in the source folder.

    Args:
        flags: The build flags.
        toolchain: The toolchain, with the location of CUDA.
        links: A folder with links to CUDA's libraries by the names that the linker looks for.
        jobs: Number of compilers that run in parallel.
    """
    switches = {
        "DARKNET_TRY_CUDA": flags.gpu,
        "DARKNET_TRY_ROCM": False,
        "DARKNET_TRY_ONNX": False,
        "ENABLE_SSE_AND_AVX": flags.avx,
    }
    # CMake's run path would point to `links`, which is deleted after the build.
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_SKIP_RPATH=ON"]
    options += [f"-D{name}={'ON' if on else 'OFF'}" for name, on in switches.items()]
    if flags.gpu:
        folders = sorted({str(part.header_folder) for part in toolchain.components.values()})
        options += [
            f"-DDARKNET_CUDA_ARCHITECTURES={';'.join(flags.architectures)}",
            f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(flags.architectures)}",
            f"-DCMAKE_CUDA_COMPILER={toolchain.nvcc}",
            f"-DCMAKE_LIBRARY_PATH={links}",
            f"-DCMAKE_INCLUDE_PATH={';'.join(folders)}",
        ]
    return (
        ("cmake", "-S", ".", "-B", BUILD_FOLDER, *options),
        ("cmake", "--build", BUILD_FOLDER, "--target", TARGET, "--parallel", str(jobs)),
    )


def check(toolchain: Toolchain, *, source: Path, git_describe: str | None) -> None:
    """Check the requirements of hank-ai's darknet before minutes of compiling.

    Args:
        toolchain: The toolchain of this machine.
        source: The source folder, for the message.
        git_describe: Output of ``git describe --tags`` for the sources; ``None`` if it failed.

    Raises:
        DarknetError: CMake is too old, OpenCV is missing, or the sources have no git tags.
    """
    if version_tuple(toolchain.cmake) < version_tuple(MIN_VERSION):
        raise DarknetError(
            "hank-ai's darknet cannot be built by this CMake",
            expected=f"CMake {MIN_VERSION} or newer",
            found=toolchain.cmake or "none",
            remedy=NEWER_CMAKE,
        )
    if not toolchain.opencv:
        raise DarknetError(
            "hank-ai's darknet requires OpenCV with its headers, and pkg-config finds none",
            remedy="On Debian or Ubuntu: apt-get install libopencv-dev",
        )
    if git_describe is None:
        raise DarknetError(
            "hank-ai's darknet takes its version from git tags, and this folder has none",
            where=str(source),
            expected="a git clone with its history",
            remedy=FULL_CLONE,
        )
