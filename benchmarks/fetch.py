"""The whole of ``oiyolo fetch`` against a ThreadPool of requests Sessions at the same concurrency.

``python benchmarks/fetch.py`` serves JPEGs of 100 kB with a latency of 50 to 100 ms each from a
process of its own on loopback, and measures, each in a process of its own,

- the baseline: a ThreadPool with one ``requests.Session`` a thread; MD5, write, rename; no ledger;
- ``oiyolo fetch`` at the same concurrency, and with ``jobs`` left to itself: verified, written and
  entered in the ledger. The selection is made beforehand;
- a second ``oiyolo fetch``, which finds nothing to do (``--again``: over 26,000 images).

CPU seconds and memory are of whole processes, seconds and rates of the fetching alone but for the
last. ``--floor`` shows what the server gives to bare sockets, so that it can be seen that it is not
the bottleneck.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing.pool
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _measure import layout, run
from _slow_site import image_ids, slow_site

if TYPE_CHECKING:
    from _measure import Measured

_CONCURRENCY: Final = 128
_RUNS: Final = 2


def _baseline(url: str, folder: str, count: int) -> None:
    """Be the baseline, and print the seconds it took, its library's import among them as ours."""
    began_s = time.monotonic()
    import requests  # noqa: PLC0415  (is measured)

    own = threading.local()

    def fetch(image_id: str) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        answer = own.session.get(f"{url}/train/{image_id}.jpg", timeout=60)
        answer.raise_for_status()
        md5 = hashlib.md5(answer.content, usedforsecurity=False).hexdigest()
        if answer.headers["ETag"] != f'"{md5}"':
            raise ValueError(image_id)
        part = Path(folder, f".{image_id}.part")
        part.write_bytes(answer.content)
        part.replace(Path(folder, f"{image_id}.jpg"))

    with multiprocessing.pool.ThreadPool(_CONCURRENCY) as pool:
        for _ in pool.imap_unordered(fetch, image_ids(count)):
            pass
    print(json.dumps({"seconds": time.monotonic() - began_s}))


def _floor(url: str, count: int) -> None:
    """Read the same images off bare sockets, which nobody looks at."""

    async def reader(host: str, port: int, ids: list[str]) -> None:
        streams = await asyncio.open_connection(host, port, limit=1 << 20)
        for image_id in ids:
            streams[1].write(f"GET /train/{image_id}.jpg HTTP/1.1\r\n\r\n".encode())
            head = await streams[0].readuntil(b"\r\n\r\n")
            await streams[0].readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r")[0]))
        streams[1].close()

    async def all_readers() -> None:
        host, port = url.removeprefix("http://").split(":")
        ids = image_ids(count)
        shares = [ids[start::_CONCURRENCY] for start in range(_CONCURRENCY)]
        await asyncio.gather(*(reader(host, int(port), share) for share in shares))

    began_s = time.monotonic()
    asyncio.run(all_readers())
    print(json.dumps({"seconds": time.monotonic() - began_s}))


def _oiyolo(project: Path, url: str, command: str, *options: str) -> Measured:
    words = (
        *("--class", "Boat", "--cache", f"{project}-cache", "--base-url", url),
        *(("--mirror-url", url, "--sources", "mirror") if command == "fetch" else ()),
        *options,
    )
    own = [sys.executable, "-m", "oiyolo", command, "--json", "-q", "--project", str(project)]
    return run([*own, *words])


def _rows(name: str, runs: list[Measured], count: int) -> tuple[str, float, float, float]:
    """Give the best of some runs: name, files a second, CPU seconds a thousand files, peak MB."""
    rate = max(count / json.loads(measured.output)["seconds"] for measured in runs)
    cpu_s = min(measured.cpu_s for measured in runs) * 1000 / count
    return name, rate, cpu_s, max(measured.peak_mb for measured in runs)


def _measure(work: Path, count: int, again: int, *, floor: bool) -> None:
    own = [sys.executable, __file__]
    rows = []
    with slow_site(max(count, 1)) as url:
        baseline, at_most, left_alone = [], [], []
        for number in range(_RUNS):
            folder = work / f"baseline-{number}"
            folder.mkdir()
            baseline.append(run([*own, "--baseline", url, str(folder), str(count)]))
            for name, kept, options in (
                ("most", at_most, ("--jobs", str(_CONCURRENCY))),
                ("auto", left_alone, ()),
            ):
                project = work / f"{name}-{number}"
                _oiyolo(project, url, "select")
                kept.append(_oiyolo(project, url, "fetch", *options))
        rows = [
            _rows(f"ThreadPool({_CONCURRENCY}) of requests Sessions", baseline, count),
            _rows(f"oiyolo fetch --jobs {_CONCURRENCY}", at_most, count),
            _rows("oiyolo fetch", left_alone, count),
        ]
        if floor:
            rows.append(_rows("bare sockets", [run([*own, "--bare", url, str(count)])], count))
    lines = [("", "files/s", "ratio", "CPU s / 1000", "peak MB")]
    for name, rate, cpu_s, peak_mb in rows:
        ratio = f"{rate / rows[0][1]:.2f}"
        lines.append((name, f"{rate:.0f}", ratio, f"{cpu_s:.2f}", f"{peak_mb:.0f}"))
    print(layout(lines))
    if again:
        with slow_site(again) as url:
            project = work / "again"
            _oiyolo(project, url, "fetch", "--jobs", str(_CONCURRENCY))
            seconds = min(_oiyolo(project, url, "fetch").wall_s for _ in range(3))
        print(f"the whole process again over {again:,} fetched images: {seconds:.2f} s")


def main() -> None:
    """Measure, and print a table."""
    if sys.argv[1:2] == ["--baseline"]:
        _baseline(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["--bare"]:
        _floor(sys.argv[2], int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--again", type=int, default=26_000, help="0 leaves it out")
    parser.add_argument("--floor", action="store_true")
    arguments = parser.parse_args()
    os.environ.pop("OIYOLO_IMAGES_JOBS", None)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        _measure(Path(work), arguments.images, arguments.again, floor=arguments.floor)


if __name__ == "__main__":
    main()
