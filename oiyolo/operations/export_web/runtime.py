"""onnxruntime-web, which runs the network in the page: found, downloaded and verified.

It is the package of that name on npm (https://www.npmjs.com/package/onnxruntime-web, licence MIT).
Two of its files are enough, in a version that is pinned by their checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core import files, locks
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.net.client import HttpClient
from oiyolo.networks.weights import Checksum, MirrorUrl, Pretrained
from oiyolo.training.pretrained import is_cached, obtain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACKAGE: Final = "onnxruntime-web"
VERSION: Final = "1.30.0"
SCRIPT: Final = "ort.wasm.bundle.min.mjs"
WASM: Final = "ort-wasm-simd-threaded.wasm"
_CDNS: Final = (
    f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist/",
    f"https://unpkg.com/{PACKAGE}@{VERSION}/dist/",
)
_HOW_TO_GET: Final = f"`npm pack {PACKAGE}@{VERSION}` downloads it; pass the archive with --runtime"
_PLACES: Final = ("", "dist", "package/dist", f"node_modules/{PACKAGE}/dist")
"""Where the files are in a folder: those of the package, of its archive, or of a project's."""


def _file(name: str, size_bytes: int, sha256: str) -> Pretrained:
    mirrors = tuple(MirrorUrl(cdn + name) for cdn in _CDNS)
    return Pretrained(name, size_bytes, 0, mirrors, Checksum((sha256,)))


FILES: Final[Mapping[str, Pretrained]] = {
    SCRIPT: _file(
        SCRIPT, 73_054, "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"
    ),
    WASM: _file(
        WASM, 14_239_897, "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}


class Runtime(NamedTuple):
    """The two files of the runtime."""

    script: bytes
    wasm: bytes


def missing(cache_folder: Path) -> list[str]:
    """Return the URLs of the files that would have to be downloaded."""
    folder = _folder(cache_folder)
    return [
        file.mirrors[0].url for name, file in FILES.items() if not is_cached(folder / name, file)
    ]


def download(
    cache_folder: Path,
    *,
    files_by_name: Mapping[str, Pretrained] = FILES,
    client: HttpClient | None = None,
) -> Runtime:
    """Return the runtime from the cache, to which it is downloaded at the first use.

    Raises:
        UnavailableError: It cannot be downloaded.
    """
    folder = _folder(cache_folder)
    paths = [folder / name for name in (SCRIPT, WASM)]
    if not all(is_cached(path, files_by_name[path.name]) for path in paths):
        with contextlib.ExitStack() as stack:
            if client is None:
                client = stack.enter_context(contextlib.closing(HttpClient()))
            lock = folder / "download.lock"
            stack.enter_context(locks.exclusive(lock, what=PACKAGE, operation="fetch", wait=True))
            for path in paths:
                obtain(
                    path.name,
                    cache=folder,
                    client=client,
                    pretrained=files_by_name,
                    remedy=_HOW_TO_GET,
                )
    return Runtime(*map(files.read_bytes, paths))


def read(path: Path) -> Runtime:
    """Return the runtime in a folder or an archive of the npm package.

    Raises:
        UsageError: There is no such folder or archive.
        InputFormError: It does not contain the files, or those of another version.
    """
    if path.is_dir():
        contents = [_read_from_folder(path, name) for name in (SCRIPT, WASM)]
    elif path.is_file():
        contents = _read_from_archive(path)
    else:
        raise UsageError(
            "the runtime does not exist",
            where=str(path),
            expected=f"a folder or an archive of {PACKAGE} {VERSION}",
            remedy=_HOW_TO_GET,
        )
    for name, content in zip((SCRIPT, WASM), contents, strict=True):
        _check(path, name, content)
    return Runtime(*contents)


def _folder(cache_folder: Path) -> Path:
    return cache_folder / f"{PACKAGE}-{VERSION}"


def _read_from_folder(folder: Path, name: str) -> bytes:
    for place in _PLACES:
        if (folder / place / name).is_file():
            return files.read_bytes(folder / place / name)
    raise _missing_error(folder, name)


def _read_from_archive(path: Path) -> list[bytes]:
    try:
        with tarfile.open(path) as archive:
            return [_member(archive, path, name) for name in (SCRIPT, WASM)]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputFormError(
            "the archive cannot be read",
            where=str(path),
            expected=f"an archive of {PACKAGE} {VERSION}",
            found=str(error),
            remedy=_HOW_TO_GET,
        ) from error


def _member(archive: tarfile.TarFile, path: Path, name: str) -> bytes:
    try:
        file = archive.extractfile(f"package/dist/{name}")
    except KeyError:
        file = None
    if file is None:
        raise _missing_error(path, name)
    return file.read(FILES[name].size_bytes + 1)


def _missing_error(path: Path, name: str) -> InputFormError:
    return InputFormError(
        "the runtime is not complete",
        where=str(path),
        expected=f"{name} of {PACKAGE} {VERSION}",
        remedy=_HOW_TO_GET,
    )


def _check(path: Path, name: str, content: bytes) -> None:
    checksum = FILES[name].checksum
    digest = hashlib.sha256(content).hexdigest()
    if checksum is not None and digest not in checksum.digests:
        raise InputFormError(
            "the runtime has another version, or is damaged",
            where=f"{path}, {name}",
            expected=f"{PACKAGE} {VERSION}, SHA-256 {checksum.digests[0]}",
            found=digest,
            remedy=_HOW_TO_GET,
        )
