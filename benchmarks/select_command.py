"""The whole of ``oiyolo select``, from the start of the process to its end, on files of true size.

``python benchmarks/select_command.py --folder FOLDER`` makes the files (3.3 GB, once), serves them
on loopback from a process of its own, and measures

- ``oiyolo select --class Boat`` in a new project when the files are in the cache, beside ``wc -l``
  on the boxes alone;
- the same again, when nothing is new;
- ``oiyolo select --stream`` off a socket that gives 100 MB/s, beside a bare download of the same
  files from it, which reads them and does nothing else.
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
from _measure import best, run, table
from big_files import BOAT_FAMILY, make

from oiyolo.openimages.releases import release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _measure import Measured
    from big_files import BigFiles

_MB_S: Final = 100
_BLOCK_BYTES: Final = 1 << 18
_RUNS: Final = 3


class _Files(BaseHTTPRequestHandler):
    """Gives files by path, no quicker than it is told to; 304 to every conditional request."""

    protocol_version = "HTTP/1.1"
    paths: ClassVar[dict[str, str]] = {}
    bytes_a_second: ClassVar[float] = float("inf")

    def do_GET(self) -> None:
        """Answer."""
        if "If-None-Match" in self.headers:
            self.send_response(304)
            self.end_headers()
            return
        with Path(self.paths[self.path]).open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.send_header("ETag", '"1"')
            self.end_headers()
            began_s, sent = time.monotonic(), 0
            while block := file.read(_BLOCK_BYTES):
                self.wfile.write(block)
                sent += len(block)
                ahead_s = sent / self.bytes_a_second - (time.monotonic() - began_s)
                if ahead_s > 0:
                    time.sleep(ahead_s)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base's name)
        """Say nothing."""


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


def _paths(folder: Path, made: BigFiles) -> dict[str, str]:
    """Give what is served, by path."""
    names = {mid: f"Class {number}" for number, mid in enumerate(made.fifty)}
    names |= dict(zip(BOAT_FAMILY, ("Boat", "Barge", "Gondola", "Canoe"), strict=True))
    (folder / "classes.csv").write_text("".join(f"{mid},{name}\n" for mid, name in names.items()))
    below = ", ".join(f'{{"LabelName": "{mid}"}}' for mid in BOAT_FAMILY[1:])
    (folder / "hierarchy.json").write_text(
        f'{{"LabelName": "/m/0bl9f", "Subcategory": [{{"LabelName": "{BOAT_FAMILY[0]}", '
        f'"Subcategory": [{below}]}}]}}'
    )
    official = release("v7")
    train = official.subsets["train"]
    return {
        f"/{official.classes.path}": str(folder / "classes.csv"),
        f"/{official.hierarchy.path}": str(folder / "hierarchy.json"),
        f"/{train.boxes.path}": str(made.boxes),
        f"/{train.images.path}": str(made.images),
        f"/{train.labels.path}": str(made.labels),
    }


def _select(project: Path, cache: Path, url: str, *options: str) -> Measured:
    words = ("--class", "Boat", "--cache", str(cache), "--base-url", url, *options)
    return run([sys.executable, "-m", "oiyolo", "select", "-q", "--project", str(project), *words])


def _bare(url: str, paths: dict[str, str]) -> float:
    began_s = time.monotonic()
    for path in paths:
        with requests.get(url + path, stream=True, timeout=60) as answer:
            for _ in answer.iter_content(1 << 20):
                pass
    return time.monotonic() - began_s


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the true number of rows")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = make(folder, arguments.share)
        paths = _paths(folder, made)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        rows: list[tuple[str, Measured | float]] = []
        with _serving(paths, float("inf")) as url:
            _select(work / "first", work / "cache", url)  # fills the cache, checks every row
            subprocess.run(["wc", "-l", made.boxes], check=True, stdout=subprocess.DEVNULL)
            rows.append(("wc -l, boxes only", best(["wc", "-l", str(made.boxes)])))
            timed = [_select(work / str(n), work / "cache", url) for n in range(_RUNS)]
            rows.append(("select, files in the cache", min(timed, key=lambda m: m.wall_s)))
            again = [_select(work / "0", work / "cache", url) for _ in range(_RUNS)]
            rows.append(("the same again", min(again, key=lambda m: m.wall_s)))
            shutil.rmtree(work / "cache")
        with _serving(paths, _MB_S * 1e6) as url:
            rows.append((f"bare download at {_MB_S} MB/s", _bare(url, paths)))
            rows.append(
                (
                    f"select --stream at {_MB_S} MB/s",
                    _select(work / "s", work / "c2", url, "--stream"),
                )
            )
        print(table(rows))


if __name__ == "__main__":
    main()
