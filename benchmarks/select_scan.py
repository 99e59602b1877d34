"""Measure how fast some classes are read from all boxes, and some images from the image list.

``python benchmarks/select_scan.py --folder FOLDER`` writes tables of the size of Open Images
(3.3 GB, once) and measures, each in its own process, with a warm page cache, the best of several
interleaved runs:

- boxes of one class, of four and of 50 (2 % of the rows), parsed into a table;
- 26,000 images, by their ids;
- human labels of one class and of four.

The baselines are ``wc -l`` on the same file and pandas in chunks. There are two methods: "all"
checks the number of fields of every row, as the first selection does; "search" checks only the
matching rows, as all later selections do.

Times exclude the start of Python and the imports. Memory is the peak of the process without the
resulting table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from _measure import layout
from big_files import make

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from big_files import BigFiles

_SELECTED_IMAGES: Final = 26_000
_PANDAS_ROWS: Final = 500_000
_TASKS: Final = {
    "boxes": ("one", "four", "fifty"),
    "images": ("ids",),
    "labels": ("one", "four"),
}
_METHODS: Final = ("all", "search", "pandas")


def _ids(files: BigFiles) -> list[str]:
    """Return ids from all over the list, about as many as a selection of boats contains."""
    size = files.images.stat().st_size
    ids = set()
    with files.images.open("rb") as file:
        for number in range(_SELECTED_IMAGES):
            file.seek(size // _SELECTED_IMAGES * number)
            file.readline()
            if line := file.readline():
                ids.add(line[:16].decode())
    return sorted(ids)


def _reader(files: BigFiles, kind: str, keys: str, method: str) -> Callable[[], pd.DataFrame]:
    """Return the function to time, with everything imported and nothing read yet."""
    import pandas as pd  # noqa: PLC0415 (Linux adds the parent's memory, which must stay small)

    from oiyolo.openimages import tables  # noqa: PLC0415 (the same)
    from oiyolo.openimages.csvscan.window import LocalFile  # noqa: PLC0415 (the same)

    path = getattr(files, kind)
    values = _ids(files) if keys == "ids" else getattr(files, keys)
    column = "ImageID" if kind == "images" else "LabelName"
    columns = {"boxes": tables.BOX_COLUMNS, "images": tables.IMAGE_COLUMNS}.get(kind)

    def with_pandas() -> pd.DataFrame:
        chunks = pd.read_csv(path, chunksize=_PANDAS_ROWS, usecols=columns)
        return pd.concat([chunk[chunk[column].isin(set(values))] for chunk in chunks])

    def with_oiyolo() -> pd.DataFrame:
        reader = getattr(tables, f"read_{kind}")
        source = tables.TableSource(LocalFile(path), "train", check_all=method == "all")
        rows: pd.DataFrame = reader(source, values).rows
        return rows

    return with_pandas if method == "pandas" else with_oiyolo


def _child(files: BigFiles, kind: str, keys: str, method: str) -> None:
    """Run one measurement in this process, and print it as JSON."""
    read = _reader(files, kind, keys, method)
    cpu_s, start_s = time.process_time(), time.perf_counter()
    table = read()
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    table_mb = table.memory_usage(deep=True).sum() / 1e6
    print(
        json.dumps(
            {
                "wall_s": wall_s,
                "cpu_s": cpu_s,
                "rows": len(table),
                "table_mb": table_mb,
                "other_mb": peak_kib * 1024 / 1e6 - table_mb,
            }
        )
    )


def _measure(folder: Path, share: float, *task: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--share", str(share)]
    done = subprocess.run(
        [*command, "--child", *task], check=True, stdout=subprocess.PIPE, text=True
    )
    measurement: dict[str, Any] = json.loads(done.stdout)
    return measurement


def _wc_s(path: Path) -> float:
    start_s = time.perf_counter()
    subprocess.run(["wc", "-l", str(path)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start_s


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument(
        "--share", type=float, default=1.0, help="fraction of the official number of rows"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(make(arguments.folder, arguments.share), *arguments.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        files = make(folder, arguments.share)
        lines: list[tuple[str, ...]] = [
            ("", "wall s", "x wc", "CPU s", "rows", "table MB", "other MB")
        ]
        for kind, key_names in _TASKS.items():
            wc_s = min(_wc_s(getattr(files, kind)) for _ in range(3))
            rows: dict[tuple[str, str, str], dict[str, float]] = {}
            for _ in range(arguments.runs):
                wc_s = min(wc_s, _wc_s(getattr(files, kind)))
                for task in ((kind, k, m) for k in key_names for m in _METHODS):
                    if task[2] == "pandas" and task in rows:
                        continue  # the slowest, and its time varies least
                    result = _measure(folder, arguments.share, *task)
                    rows[task] = min(result, rows.get(task, result), key=lambda m: m["wall_s"])
            lines.append((f"wc -l {kind}", f"{wc_s:.2f}", "1.0", "", "", "", ""))
            for task, result in rows.items():
                wall_s = result["wall_s"]
                numbers = (result["table_mb"], result["other_mb"])
                lines.append(
                    (
                        *(" ".join(task), f"{wall_s:.2f}", f"{wall_s / wc_s:.1f}"),
                        *(f"{result['cpu_s']:.2f}", f"{result['rows']:,}"),
                        *(f"{number:.0f}" for number in numbers),
                    )
                )
        print(layout(lines))


if __name__ == "__main__":
    main()
