"""Compare ``oiyolo fetch`` with a ThreadPool of requests Sessions at the same concurrency.

``python benchmarks/fetch.py`` serves JPEGs of 100 kB with a latency of 50 to 100 ms each from a
separate process on loopback, and measures, each in its own process,

- the baseline: a ThreadPool with one ``requests.Session`` per thread that checks the MD5, writes
  and renames each file, without a ledger;
- ``oiyolo fetch`` at the same concurrency and with the default ``jobs``, which verifies and writes
  the files and records them in the ledger. The selection is made in advance;
- a second ``oiyolo fetch`` with nothing to do, by default on 26,000 images (``--again``).

CPU time and memory are those of whole processes; the rates cover only the fetching, and the time
of the second fetch is that of the whole process. ``--floor`` also measures bare sockets, to show
that the server is not the bottleneck.
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
    from _measure import Measurement

_CONCURRENCY: Final = 128
_RUNS: Final = 2


def _baseline(url: str, folder: str, count: int) -> None:
    """Run the baseline, and print its seconds, which include the import as those of oiyolo do."""
    start_s = time.monotonic()
    import requests  # noqa: PLC0415  (part of the measurement)

    thread_local = threading.local()

    def fetch(image_id: str) -> None:
        if not hasattr(thread_local, "session"):
            thread_local.session = requests.Session()
        response = thread_local.session.get(f"{url}/train/{image_id}.jpg", timeout=60)
        response.raise_for_status()
        md5 = hashlib.md5(response.content, usedforsecurity=False).hexdigest()
        if response.headers["ETag"] != f'"{md5}"':
            raise ValueError(image_id)
        part = Path(folder, f".{image_id}.part")
        part.write_bytes(response.content)
        part.replace(Path(folder, f"{image_id}.jpg"))

    with multiprocessing.pool.ThreadPool(_CONCURRENCY) as pool:
        for _ in pool.imap_unordered(fetch, image_ids(count)):
            pass
    print(json.dumps({"seconds": time.monotonic() - start_s}))


def _bare_sockets(url: str, count: int) -> None:
    """Read the same images from bare sockets without using them, and print the seconds."""

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

    start_s = time.monotonic()
    asyncio.run(all_readers())
    print(json.dumps({"seconds": time.monotonic() - start_s}))


def _oiyolo(project: Path, url: str, command: str, *options: str) -> Measurement:
    arguments = (
        *("--class", "Boat", "--cache", f"{project}-cache", "--base-url", url),
        *(("--mirror-url", url, "--sources", "mirror") if command == "fetch" else ()),
        *options,
    )
    program = [sys.executable, "-m", "oiyolo", command, "--json", "-q", "--project", str(project)]
    return run([*program, *arguments])


def _row(name: str, runs: list[Measurement], count: int) -> tuple[str, float, float, float]:
    """Return name, best files/s, best CPU seconds per 1,000 files, and peak MB of some runs."""
    rate = max(count / json.loads(measurement.output)["seconds"] for measurement in runs)
    cpu_s = min(measurement.cpu_s for measurement in runs) * 1000 / count
    return name, rate, cpu_s, max(measurement.peak_mb for measurement in runs)


def _measure(work: Path, count: int, again: int, *, floor: bool) -> None:
    script = [sys.executable, __file__]
    rows = []
    with slow_site(max(count, 1)) as url:
        baseline, same_jobs, default_jobs = [], [], []
        for number in range(_RUNS):
            folder = work / f"baseline-{number}"
            folder.mkdir()
            baseline.append(run([*script, "--baseline", url, str(folder), str(count)]))
            for name, runs, options in (
                ("same", same_jobs, ("--jobs", str(_CONCURRENCY))),
                ("auto", default_jobs, ()),
            ):
                project = work / f"{name}-{number}"
                _oiyolo(project, url, "select")
                runs.append(_oiyolo(project, url, "fetch", *options))
        rows = [
            _row(f"ThreadPool({_CONCURRENCY}) of requests Sessions", baseline, count),
            _row(f"oiyolo fetch --jobs {_CONCURRENCY}", same_jobs, count),
            _row("oiyolo fetch", default_jobs, count),
        ]
        if floor:
            rows.append(_row("bare sockets", [run([*script, "--bare", url, str(count)])], count))
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
        print(f"nothing to do, {again:,} images, whole process: {seconds:.2f} s")


def main() -> None:
    """Run the benchmark and print its table."""
    if sys.argv[1:2] == ["--baseline"]:
        _baseline(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["--bare"]:
        _bare_sockets(sys.argv[2], int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument(
        "--again", type=int, default=26_000, help="images of the second fetch; 0 skips it"
    )
    parser.add_argument("--floor", action="store_true")
    arguments = parser.parse_args()
    os.environ.pop("OIYOLO_IMAGES_JOBS", None)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        _measure(Path(work), arguments.images, arguments.again, floor=arguments.floor)


if __name__ == "__main__":
    main()
