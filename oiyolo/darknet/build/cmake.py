"""What CMake is told to build hank-ai's darknet; pure.

It wants OpenCV, and its version from ``git describe --tags``, which it calls in the folder that it
builds in. We build a copy, so git is told by its own variables where the repository is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.darknet.build.toolchain import numbers
from oiyolo.core.errors import DarknetError

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.darknet.build.flags import Flags
    from oiyolo.darknet.build.toolchain import Toolchain

MINIMUM: Final = "3.24"
FOLDER: Final = "build"
EXECUTABLE: Final = f"{FOLDER}/src-cli/darknet"
TARGET: Final = "darknetcli"


def commands(
    flags: Flags, toolchain: Toolchain, *, links: Path, jobs: int
) -> tuple[tuple[str, ...], ...]:
    """Give the commands that configure and build; they run in the folder of the sources.

    Args:
        flags: The switches.
        toolchain: Where CUDA is.
        links: A folder with links to CUDA's libraries by the names that the linker looks for.
        jobs: How many compilers run at the same time.
    """
    switches = {
        "DARKNET_TRY_CUDA": flags.gpu,
        "DARKNET_TRY_ROCM": False,
        "DARKNET_TRY_ONNX": False,
        "ENABLE_SSE_AND_AVX": flags.avx,
    }
    # Its own run path would lead to our links, which are gone once it is built.
    given = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_SKIP_RPATH=ON"]
    given += [f"-D{name}={'ON' if on else 'OFF'}" for name, on in switches.items()]
    if flags.gpu:
        folders = sorted({str(part.header_folder) for part in toolchain.components.values()})
        given += [
            f"-DDARKNET_CUDA_ARCHITECTURES={';'.join(flags.architectures)}",
            f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(flags.architectures)}",
            f"-DCMAKE_CUDA_COMPILER={toolchain.nvcc}",
            f"-DCMAKE_LIBRARY_PATH={links}",
            f"-DCMAKE_INCLUDE_PATH={';'.join(folders)}",
        ]
    return (
        ("cmake", "-S", ".", "-B", FOLDER, *given),
        ("cmake", "--build", FOLDER, "--target", TARGET, "--parallel", str(jobs)),
    )


def check(toolchain: Toolchain, *, source: Path, described: str | None) -> None:
    """Refuse, before minutes pass, what would end in an error.

    Args:
        toolchain: What the machine has.
        source: The sources, for the message.
        described: What ``git describe --tags`` says of them; ``None`` where it says nothing.

    Raises:
        DarknetError: CMake is too old, OpenCV is absent, or git knows no tag.
    """
    if numbers(toolchain.cmake) < numbers(MINIMUM):
        raise DarknetError(
            "hank-ai's darknet cannot be built by this CMake",
            expected=f"CMake {MINIMUM} or newer",
            found=toolchain.cmake or "none",
            remedy="Install a newer one, for instance with `pip install cmake`",
        )
    if not toolchain.opencv:
        raise DarknetError(
            "hank-ai's darknet needs OpenCV with its headers, and pkg-config finds none",
            remedy="On Debian or Ubuntu: apt-get install libopencv-dev",
        )
    if described is None:
        raise DarknetError(
            "hank-ai's darknet takes its version from git's tags, and there are none",
            where=str(source),
            expected="a git clone with its history",
            remedy="In a clone: `git fetch --tags --unshallow`; else clone it with git, in full, "
            "rather than unpack an archive",
        )
