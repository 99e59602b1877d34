"""Measure the whole ``oiyolo select`` process on tables of the size of Open Images.

``python benchmarks/select_command.py --folder FOLDER`` writes the tables (3.3 GB, once), serves
them on loopback from a separate process, and measures

- ``oiyolo select --class Boat`` in a new project with the tables in the cache, against ``wc -l`` on
  the table of boxes only;
- the same command again, with nothing to do;
- ``oiyolo select --stream`` from a server limited to 100 MB/s, against a bare download of the same
  tables that discards them.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import requests
from _measure import fastest, run, table
from big_files import BOAT_FAMILY, make

from oiyolo.openimages.releases import release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _measure import Measurement
    from big_files import BigFiles

_MB_S: Final = 100
_BLOCK_BYTES: Final = 1 << 18
_RUNS: Final = 3


class _Files(BaseHTTPRequestHandler):
    """Serves files by path at a limited rate; responds with 304 to every conditional request."""

    protocol_version = "HTTP/1.1"
    paths: ClassVar[dict[str, str]] = {}
    bytes_a_second: ClassVar[float] = float("inf")

    def do_GET(self) -> None:
        """Send the requested file."""
        if "If-None-Match" in self.headers:
            self.send_response(304)
            self.end_headers()
            return
        with Path(self.paths[self.path]).open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.send_header("ETag", '"1"')
            self.end_headers()
            start_s, sent = time.monotonic(), 0
            while block := file.read(_BLOCK_BYTES):
                self.wfile.write(block)
                sent += len(block)
                ahead_s = sent / self.bytes_a_second - (time.monotonic() - start_s)
                if ahead_s > 0:
                    time.sleep(ahead_s)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (as in the base class)
        """Print nothing."""


@contextlib.contextmanager
def _serving(paths: dict[str, str], bytes_a_second: float) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    _Files.paths, _Files.bytes_a_second = paths, bytes_a_second
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        process.kill()
        process.join()
        server.server_close()


def _paths(folder: Path, files: BigFiles) -> dict[str, str]:
    """Return the files to serve, by URL path; write the class list and hierarchy."""
    names = {mid: f"Class {number}" for number, mid in enumerate(files.fifty)}
    names |= dict(zip(BOAT_FAMILY, ("Boat", "Barge", "Gondola", "Canoe"), strict=True))
    (folder / "classes.csv").write_text("".join(f"{mid},{name}\n" for mid, name in names.items()))
    children = ", ".join(f'{{"LabelName": "{mid}"}}' for mid in BOAT_FAMILY[1:])
    (folder / "hierarchy.json").write_text(
        f'{{"LabelName": "/m/0bl9f", "Subcategory": [{{"LabelName": "{BOAT_FAMILY[0]}", '
        f'"Subcategory": [{children}]}}]}}'
    )
    official = release("v7")
    train = official.subsets["train"]
    return {
        f"/{official.classes.path}": str(folder / "classes.csv"),
        f"/{official.hierarchy.path}": str(folder / "hierarchy.json"),
        f"/{train.boxes.path}": str(files.boxes),
        f"/{train.images.path}": str(files.images),
        f"/{train.labels.path}": str(files.labels),
    }


def _select(project: Path, cache: Path, url: str, *options: str) -> Measurement:
    words = ("--class", "Boat", "--cache", str(cache), "--base-url", url, *options)
    return run([sys.executable, "-m", "oiyolo", "select", "-q", "--project", str(project), *words])


def _download_s(url: str, paths: dict[str, str]) -> float:
    start_s = time.monotonic()
    for path in paths:
        with requests.get(url + path, stream=True, timeout=60) as response:
            for _ in response.iter_content(1 << 20):
                pass
    return time.monotonic() - start_s


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument(
        "--share", type=float, default=1.0, help="fraction of the official number of rows"
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = make(folder, arguments.share)
        paths = _paths(folder, files)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        rows: list[tuple[str, Measurement | float]] = []
        with _serving(paths, float("inf")) as url:
            _select(work / "first", work / "cache", url)  # fills the cache, checks every row
            subprocess.run(["wc", "-l", files.boxes], check=True, stdout=subprocess.DEVNULL)
            rows.append(("wc -l, boxes only", fastest(["wc", "-l", str(files.boxes)])))
            cached = [_select(work / str(n), work / "cache", url) for n in range(_RUNS)]
            rows.append(("select, tables in the cache", min(cached, key=lambda m: m.wall_s)))
            repeated = [_select(work / "0", work / "cache", url) for _ in range(_RUNS)]
            rows.append(("the same, nothing to do", min(repeated, key=lambda m: m.wall_s)))
            shutil.rmtree(work / "cache")
        with _serving(paths, _MB_S * 1e6) as url:
            rows.append((f"bare download at {_MB_S} MB/s", _download_s(url, paths)))
            rows.append(
                (
                    f"select --stream at {_MB_S} MB/s",
                    _select(work / "s", work / "c2", url, "--stream"),
                )
            )
        print(table(rows))


if __name__ == "__main__":
    main()
