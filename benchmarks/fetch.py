"""Compare ``oiyolo fetch`` with a ThreadPool of requests Sessions at the same concurrency.

``python benchmarks/fetch.py`` serves JPEGs of 100 kB with a latency of 50 to 100 ms each from a
separate process on loopback, and measures, each in its own process,

- the baseline: a ThreadPool with one ``requests.Session`` per thread that checks the MD5, writes
  and renames each file, without a ledger;
- ``oiyolo fetch`` with fixed numbers of concurrent requests and with ``jobs = "auto"``, which
  verifies and writes the files and records them in the ledger. The selection is made in advance;
- a second ``oiyolo fetch`` with nothing to do, by default on 26,000 images (``--again``).

The programs take turns, and each number is the median of ``--rounds``. The steady rate leaves out
the first two seconds and the last 2 % of the files: it shows whether "auto" has found the best
number by then. CPU time and memory are those of whole processes; the other rate covers only the
fetching, and the time of the second fetch is that of the whole process. ``--floor`` also measures
bare sockets, to show that the server is not the bottleneck.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import multiprocessing.pool
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _measure import layout, run
from _slow_site import image_ids, slow_site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _measure import Measurement

_CONCURRENCY: Final = 128
_FIXED: Final = ("32", "64", "128", "256")
_WARM_UP_S: Final = 2.0
_LAST_SHARE: Final = 0.02


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


@dataclass(frozen=True)
class _Round:
    """The measurement of one program in one round."""

    measurement: Measurement
    seconds: float
    steady_rate: float


def _round(measurement: Measurement, images: Path) -> _Round:
    """Return a program's measurement and the rates at which it wrote its images; delete them."""
    written_s = sorted(path.stat().st_mtime for path in images.glob("*.jpg"))
    shutil.rmtree(images)
    from_s = written_s[0] + _WARM_UP_S
    until_s = written_s[int(len(written_s) * (1 - _LAST_SHARE)) - 1]
    steady = [at_s for at_s in written_s if from_s <= at_s <= until_s]
    rate = len(steady) / (until_s - from_s) if steady else math.nan
    return _Round(measurement, json.loads(measurement.output)["seconds"], rate)


def _table(rounds_by_name: Mapping[str, Sequence[_Round]], count: int) -> str:
    """Return the medians of all programs, with their ratios to the first program."""
    lines = [("", "files/s", "ratio", "steady", "ratio", "CPU s / 1000", "peak MB")]
    first_rate, first_steady = 0.0, 0.0
    for name, rounds in rounds_by_name.items():
        rate = count / statistics.median(r.seconds for r in rounds)
        steady = statistics.median(r.steady_rate for r in rounds)
        first_rate, first_steady = first_rate or rate, first_steady or steady
        cpu_s = statistics.median(r.measurement.cpu_s for r in rounds) * 1000 / count
        peak_mb = max(r.measurement.peak_mb for r in rounds)
        rates = f"{rate:.0f}", f"{rate / first_rate:.2f}"
        steady_rates = f"{steady:.0f}", f"{steady / first_steady:.2f}"
        lines.append((name, *rates, *steady_rates, f"{cpu_s:.2f}", f"{peak_mb:.0f}"))
    return layout(lines)


def _auto_against_fixed(rounds_by_name: Mapping[str, Sequence[_Round]]) -> str:
    """Return how the steady rate of "auto" compares with that of the best fixed number."""
    steady = {
        name: statistics.median(r.steady_rate for r in rounds)
        for name, rounds in rounds_by_name.items()
        if name.startswith("oiyolo")
    }
    auto = steady.pop("oiyolo fetch (auto)")
    best = max(steady, key=lambda name: steady[name])
    return f"auto, after {_WARM_UP_S:g} s: {auto / steady[best]:.2f} of {best}"


def _measure(work: Path, count: int, again: int, rounds: int, *, floor: bool) -> None:
    script = [sys.executable, __file__]
    baseline = f"ThreadPool({_CONCURRENCY}) of requests Sessions"
    options_by_name: dict[str, tuple[str, ...]]
    options_by_name = {f"oiyolo fetch --jobs {jobs}": ("--jobs", jobs) for jobs in _FIXED}
    options_by_name["oiyolo fetch (auto)"] = ()
    rounds_by_name: dict[str, list[_Round]] = {name: [] for name in (baseline, *options_by_name)}
    with slow_site(count) as url:
        for number in range(rounds):
            folder = work / f"baseline-{number}"
            folder.mkdir()
            measurement = run([*script, "--baseline", url, str(folder), str(count)])
            rounds_by_name[baseline].append(_round(measurement, folder))
            for index, (name, options) in enumerate(options_by_name.items()):
                project = work / f"{index}-{number}"
                _oiyolo(project, url, "select")
                measurement = _oiyolo(project, url, "fetch", *options)
                rounds_by_name[name].append(_round(measurement, project / "data" / "images"))
        print(_table(rounds_by_name, count))
        print(_auto_against_fixed(rounds_by_name))
        if floor:
            bare = run([*script, "--bare", url, str(count)])
            print(f"bare sockets: {count / json.loads(bare.output)['seconds']:.0f} files/s")
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
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument(
        "--again", type=int, default=26_000, help="images of the second fetch; 0 skips it"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--floor", action="store_true")
    arguments = parser.parse_args()
    os.environ.pop("OIYOLO_IMAGES_JOBS", None)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        _measure(
            Path(work),
            arguments.images,
            arguments.again,
            arguments.rounds,
            floor=arguments.floor,
        )


if __name__ == "__main__":
    main()
