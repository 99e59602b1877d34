"""`oiyolo select`: from the official files on a local site to the tables that it writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import oiyolo
from oiyolo.openimages.releases import SUBSETS, release
from oiyolo.openimages.tables import read_boxes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.openimages.tables import TableSource
    from tests.conftest import Cli, Site

TABLES = ("boxes", "images", "labels")


def tables_of(project: Path) -> dict[str, bytes]:
    folder = project / "data" / "selection"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}


def summary_of(project: Path) -> dict[str, Any]:
    text = (project / "data" / "selection" / "selection.json").read_text(encoding="utf-8")
    summary: dict[str, Any] = json.loads(text)
    return summary


def official(site: Site, kind: str, subset: str = "train", version: str = "v7") -> Path:
    file = getattr(release(version).subsets[subset], kind)
    return site.mirror.folder / "openimages" / str(file.path)


@pytest.mark.parametrize("subsets", [["train"], ["validation"], ["test"], list(SUBSETS)])
def test_the_boxes_equal_those_of_a_plain_filter(
    site: Site, make_project: Callable[..., Path], subsets: list[str]
) -> None:
    selected = oiyolo.select(make_project(subsets=subsets, include_descendants=False))
    assert not isinstance(selected, oiyolo.core.results.Plan)
    boxes = pd.concat([pd.read_csv(official(site, "boxes", subset)) for subset in subsets])
    expected = boxes[boxes["LabelName"] == "/m/019jd"].sort_values("ImageID", kind="stable")
    columns = ["ImageID", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"]
    pd.testing.assert_frame_equal(
        selected.boxes[columns].reset_index(drop=True), expected[columns].reset_index(drop=True)
    )
    assert selected.summary["images"] == expected["ImageID"].nunique()
    assert set(selected.images["Subset"]) == set(subsets)


def test_streaming_gives_the_same_selection_and_keeps_no_copy(
    own_site: Site, make_project: Callable[..., Path], tmp_path: Path, cli: Cli
) -> None:
    cache = tmp_path / "cache"
    kept = make_project(**own_site.urls, negatives=0.5)
    streamed = make_project(**own_site.urls, negatives=0.5, stream=True, cache=str(cache))
    cli.ok("select", project=kept)
    cli.ok("select", project=streamed)
    assert tables_of(streamed) == tables_of(kept)
    names = {path.name for path in cache.rglob("*.csv")}
    assert not names & {official(own_site, kind).name for kind in TABLES}

    own_site.server.requests.clear()
    done = cli.ok("select", project=streamed)
    assert "select: up to date" in done.err
    assert {served.status for served in own_site.server.requests} == {304}

    path = official(own_site, "boxes")
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n")
    done = cli.ok("select", project=streamed)
    assert "select: up to date" not in done.err
    cli.ok("select", project=kept)
    assert tables_of(streamed) == tables_of(kept)


@pytest.mark.parametrize("max_bytes", [400, 1000, 128_000_000])
def test_the_url_lists_have_the_format_of_storage_transfer(
    make_project: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    max_bytes: int,
) -> None:
    monkeypatch.setattr("oiyolo.stages.select._URL_LIST_BYTES", max_bytes)
    selected = oiyolo.select(make_project())
    assert not isinstance(selected, oiyolo.core.results.Plan)
    lists = [path.read_bytes() for path in sorted(selected.folder.glob("url-list-*.tsv"))]
    assert len(lists) > 1 or max_bytes == 128_000_000
    assert max(map(len, lists)) < max_bytes
    assert {text.partition(b"\n")[0] for text in lists} == {b"TsvHttpData-1.0"}
    rows = [line.split(b"\t") for text in lists for line in text.splitlines()[1:]]
    assert [url for url, _, _ in rows] == sorted(url for url, _, _ in rows)
    originals = selected.images[["OriginalURL", "OriginalSize", "OriginalMD5"]]
    with_url = originals[originals["OriginalURL"] != ""]
    assert {tuple(text.decode() for text in row) for row in rows} == set(
        with_url.itertuples(index=False, name=None)
    )
    assert len(rows) == len(with_url)


BROKEN = {
    "too few fields": ("boxes", b"0123456789abcdef,xclick,/m/019jd,1,0.1\n"),
    "not a number": (
        "boxes",
        b"0123456789abcdef,xclick,/m/019jd,1,.1,x,.1,.2,0,0,0,0,0" + b",0" * 8 + b"\n",
    ),
    "too many fields": ("labels", b"0123456789abcdef,verification,/m/019jd,1,1\n"),
    "cut off": ("images", b"0123456789abcdef,train\n"),
}


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_malformed_row_is_an_error_with_its_line_or_is_skipped_and_counted(
    own_site: Site, make_project: Callable[..., Path], cli: Cli, broken: str, stream: str
) -> None:
    kind, row = BROKEN[broken]
    project = make_project(**own_site.urls)
    cli.ok("select", stream, project=project)
    whole = tables_of(project)
    path = official(own_site, kind)
    lines = path.read_bytes().splitlines(keepends=True)
    if kind == "boxes" and len(lines[1].split(b",")) == 13:  # without the click columns
        row = row.replace(b",0" * 8 + b"\n", b"\n")
    lines.insert(7, row)
    path.write_bytes(b"".join(lines))
    done = cli("select", stream, project=project)
    assert done.code == 3
    assert f"{path.name}:8" in done.err
    assert "--skip-bad-rows" in done.err
    assert (
        not (project / "data" / "selection" / "selection.json").exists()
        or tables_of(project) == whole
    )

    done = cli.ok("select", stream, "--skip-bad-rows", project=project)
    assert list(summary_of(project)["bad_rows"].values()) == [1]
    again = tables_of(project)
    assert {k: again[k] for k in ("boxes.csv", "images.csv")} == {
        k: whole[k] for k in ("boxes.csv", "images.csv")
    }


def test_all_rows_of_a_file_version_are_checked_only_once(
    own_site: Site, make_project: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    checks: list[bool] = []

    def spy(source: TableSource, mids: Any) -> Any:
        checks.append(source.check_all)
        return read_boxes(source, mids)

    monkeypatch.setattr("oiyolo.openimages.tables.read_boxes", spy)
    options = {**own_site.urls, "cache": str(tmp_path / "cache")}
    oiyolo.select(make_project(**options))
    oiyolo.select(make_project(**options, classes=["Duck"]))
    path = official(own_site, "boxes")
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0])  # without its last newline
    oiyolo.select(make_project(**options))
    assert checks == [True, False, True]


def test_the_row_index_of_an_earlier_version_is_deleted(
    own_site: Site, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    options = {**own_site.urls, "cache": str(tmp_path / "cache")}
    oiyolo.select(make_project(**options))
    cached = next((tmp_path / "cache").rglob(official(own_site, "boxes").name))
    index = cached.with_name(f"{cached.name}.rows")
    index.write_bytes(b"{}")
    oiyolo.select(make_project(**options, classes=["Duck"]))
    assert cached.is_file()
    assert not index.exists()


def test_v4_has_its_own_files_and_accepts_new_class_names(
    own_site: Site, make_project: Callable[..., Path], cli: Cli
) -> None:
    old, new = release("v4"), release("v7")
    folder = own_site.mirror.folder / "openimages"
    for subset in SUBSETS:
        for kind in TABLES:
            source = official(own_site, kind, subset)
            target = folder / getattr(old.subsets[subset], kind).path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    names = (folder / new.classes.path).read_text(encoding="utf-8").splitlines()[1:]
    (folder / old.classes.path).write_text("\n".join(names) + "\n", encoding="utf-8")
    project = make_project(**own_site.urls, release="v4")
    cli.ok("select", project=project)
    assert tables_of(project) == tables_of_v7(own_site, make_project, cli)


def tables_of_v7(site: Site, make_project: Callable[..., Path], cli: Cli) -> dict[str, bytes]:
    project = make_project(**site.urls)
    cli.ok("select", project=project)
    return tables_of(project)


def test_a_missing_ledger_is_written_again(make_project: Callable[..., Path], cli: Cli) -> None:
    project = make_project()
    cli.ok("select", project=project)
    before = cli.ok("status", "--json", project=project).json
    for path in (project / "data").glob("ledger.sqlite*"):
        path.unlink()
    done = cli.ok("select", project=project)
    assert "the ledger is missing" in done.err
    assert cli.ok("status", "--json", project=project).json == before


def test_what_a_limit_leaves_out_is_said_wherever_images_are_counted(
    make_project: Callable[..., Path], cli: Cli
) -> None:
    folder = make_project(limit=5)
    cli.ok("select", project=folder)
    summary = summary_of(folder)
    note = f"limited to 5 by [dataset] limit; {summary['excluded']['beyond the limit']:,} more"
    for command in ("select", "fetch", "status"):
        assert note in cli.ok(command, project=folder).out
    cli.ok("select", "--limit", "0", project=folder)
    assert "limited" not in cli.ok("status", project=folder).out
