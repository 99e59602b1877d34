"""A refresh stops before a suspicious or unreachable site makes it drop images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.demo_data.writer import BOX_FILES
from oiyolo.operations.refresh import max_dropped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Site


@pytest.mark.parametrize(
    ("images", "max_loss", "expected"),
    [(0, 0.05, 5), (20, 0.05, 5), (100, 0.05, 5), (1000, 0.05, 50), (1000, 0.0, 5), (10, 1, 10)],
)
def test_a_share_of_the_images_may_be_dropped_and_five_always(
    images: int, max_loss: float, expected: int
) -> None:
    assert max_dropped(images, max_loss) == expected


@pytest.fixture
def fetched(make_project: Callable[..., Path], own_site: Site, tmp_path: Path) -> Path:
    folder = make_project(**own_site.urls, cache=str(tmp_path / "cache"))
    oiyolo.refresh(folder)
    return folder


def keep_boxes(site: Site, share: float) -> None:
    """Keep the boxes of a share of the images in the site's table."""
    path = site.mirror.folder / "openimages" / BOX_FILES["train"]
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    ids = sorted({line.partition(",")[0] for line in lines})
    kept = set(ids[: round(share * len(ids))])
    path.write_text(
        head + "".join(line for line in lines if line.partition(",")[0] in kept), encoding="utf-8"
    )


def content(folder: Path, digests: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    ignored = (".lock", "sqlite-", "refresh.log")
    return {p: d for p, d in digests(folder).items() if not any(word in p for word in ignored)}


@pytest.mark.parametrize("share", [0.5, 0.0], ids=["half", "no annotations"])
def test_a_suspicious_site_stops_a_refresh_before_anything_is_dropped(
    fetched: Path,
    own_site: Site,
    cli: Cli,
    digests: Callable[[Path], dict[str, str]],
    share: float,
) -> None:
    keep_boxes(own_site, share)
    before = content(fetched, digests)
    for words in (("refresh",), ("refresh",)):
        refused = cli(*words, project=fetched)
        assert refused.code == 3, refused.err
        assert "--accept-loss" in refused.err
    assert cli("refresh", "--dry-run", project=fetched).code == 3
    assert content(fetched, digests) == before
    accepted = cli("refresh", "--accept-loss", project=fetched)
    assert accepted.code == (0 if share else 2), accepted.err
    if not share:
        assert content(fetched, digests) == before


def test_a_small_loss_is_accepted(fetched: Path, own_site: Site, cli: Cli) -> None:
    selected = cli.ok("status", "--json", project=fetched).json["selected"]
    keep_boxes(own_site, 0.97)
    cli.ok("refresh", project=fetched)
    assert selected - 5 <= cli.ok("status", "--json", project=fetched).json["selected"] < selected


def test_max_loss_of_the_project_applies(fetched: Path, own_site: Site, cli: Cli) -> None:
    keep_boxes(own_site, 0.5)
    cli.ok("refresh", "--max-loss", "0.9", project=fetched)


@pytest.mark.slow
def test_a_refresh_of_an_unreachable_site_exits_4_although_all_files_are_cached(
    fetched: Path, own_site: Site, cli: Cli
) -> None:
    cli.ok("refresh", project=fetched)
    own_site.server.shutdown()
    own_site.server.server_close()
    for words in (("refresh",), ("refresh", "--accept-loss"), ("refresh", "--dry-run")):
        assert cli(*words, project=fetched).code == 4
    # Commands that a person runs continue with the copies, and say so.
    assert "not reached" in cli.ok("select", project=fetched).err
