"""What a refresh does when the mirror, the options or a training run change the situation."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core import files
from oiyolo.core.errors import NewerVersionError, UsageError
from oiyolo.operations.refresh import current
from oiyolo.operations.refresh.baseline import Changes, DatasetState, ImageState, compare
from oiyolo.project.project import open_project
from oiyolo.training.run import Run
from tests.support.changing_mirror import ChangingMirror, numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Site

SPLITS = ("train", "valid", "test")


@pytest.fixture
def mirror(own_site: Site) -> ChangingMirror:
    return ChangingMirror(own_site)


@pytest.fixture
def folder(make_project: Callable[..., Path], mirror: ChangingMirror, tmp_path: Path) -> Path:
    cache = str(tmp_path / "cache")
    return make_project(**mirror.site.urls, cache=cache, max_loss=0.5, group_by=[])


def splits_of(folder: Path) -> dict[str, str]:
    """Return the split of each image as darknet's lists have it."""
    lists = ((name, folder / "data" / "dataset" / f"{name}.txt") for name in SPLITS)
    return {
        line.rpartition("/")[2].removesuffix(".jpg"): name
        for name, path in lists
        for line in path.read_text(encoding="utf-8").splitlines()
    }


def files_of(folder: Path, image_id: str) -> list[Path]:
    return sorted(folder.glob(f"data/*/{image_id}.jpg")) + sorted(
        folder.glob(f"data/dataset/obj/{image_id}.*")
    )


def training_on(folder: Path, image_ids: list[str]) -> Run:
    run = Run(folder / "runs" / "tiny-001")
    run.write_record(name=run.name)
    for name in ("train", "valid"):
        text = "".join(f"obj/{image_id}.jpg\n" for image_id in image_ids)
        (run.folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return run


def image_requests(site: Site) -> set[str]:
    return {request.path for request in site.server.requests if request.path.endswith(".jpg")}


def test_the_numbers_of_successive_refreshes_add_up_and_no_image_moves(
    folder: Path, mirror: ChangingMirror, cli: Cli
) -> None:
    first = numbers(cli.ok("refresh", project=folder).out)
    splits = splits_of(folder)
    assert first["images"] == len(splits) > 20
    assert first["boxes"] == mirror.boxes_of(splits)

    gone, changed = set(sorted(splits)[:3]), set(sorted(splits)[3:6])
    mirror.hidden, mirror.moved = gone, changed
    mirror.publish()
    mirror.site.server.requests.clear()
    second = numbers(cli.ok("refresh", project=folder).out)
    assert second.pop("boxes") == -mirror.boxes_of(gone)
    assert {name: n for name, n in second.items() if n} == {"withdrawn": 3, "changed": 3}
    assert image_requests(mirror.site) == set()  # what exists is not fetched again
    assert splits_of(folder) == {i: name for i, name in splits.items() if i not in gone}
    assert [files_of(folder, image_id) for image_id in gone] == [[], [], []]

    mirror.hidden = set()
    mirror.publish()
    third = numbers(cli.ok("refresh", project=folder).out)
    assert (third["images"], third["boxes"]) == (3, mirror.boxes_of(gone))
    assert splits_of(folder) == splits  # an image that returns gets the split that it had

    mirror.site.server.requests.clear()
    unchanged = cli.ok("refresh", project=folder)
    assert unchanged.out.endswith("; up to date\n")
    assert set(numbers(unchanged.out).values()) == {0, 1}
    assert {request.status for request in mirror.site.server.requests} == {304}


def test_the_line_counts_what_happened_since_the_last_refresh_that_succeeded(
    folder: Path, mirror: ChangingMirror, cli: Cli
) -> None:
    cli.ok("refresh", project=folder)
    splits = splits_of(folder)
    oiyolo.withdraw(sorted(splits)[:2], folder)
    mirror.hidden = {sorted(splits)[5]}
    mirror.publish()
    oiyolo.select(folder)
    done = oiyolo.refresh(folder)
    assert isinstance(done, oiyolo.Refreshed)
    assert (done.changes.withdrawn, done.changes.images) == (3, 0)
    assert sum(done.before.values()) == len(splits)
    assert sum(done.after.values()) == len(splits_of(folder)) == len(splits) - 3


def test_files_that_a_live_run_uses_are_dropped_by_the_next_refresh_after_it_ends(
    folder: Path, mirror: ChangingMirror, cli: Cli
) -> None:
    cli.ok("refresh", project=folder)
    gone, other, changed = sorted(splits_of(folder))[:3]
    label = folder / "data" / "dataset" / "obj" / f"{changed}.txt"
    before = label.read_text(encoding="utf-8")
    mirror.hidden, mirror.moved = {gone, other}, {changed}
    mirror.publish()
    with training_on(folder, [gone, changed]).lock("train"):
        for deleted in (1, 0):
            report = cli.ok("refresh", "--json", project=folder).json
            assert report["files"] == {"deleted": deleted, "in_use": 1, "kept": 0}
            assert report["postponed"] == 1
            assert len(files_of(folder, gone)) == 3
            assert files_of(folder, other) == []
            assert label.read_text(encoding="utf-8") == before
            assert gone not in splits_of(folder)
    (action,) = (a for a in oiyolo.refresh(folder, dry_run=True).actions if "delete" in a)
    assert "1 image" in action
    report = cli.ok("refresh", "--json", project=folder).json
    assert report["files"] == {"deleted": 1, "in_use": 0, "kept": 0}
    assert files_of(folder, gone) == []
    assert label.read_text(encoding="utf-8") != before
    assert cli.ok("refresh", project=folder).out.endswith("; up to date\n")


def test_the_files_of_many_unselected_images_are_kept_until_the_loss_is_accepted(
    folder: Path, cli: Cli
) -> None:
    cli.ok("refresh", project=folder)
    splits = splits_of(folder)
    options = folder / "oiyolo.toml"
    text = options.read_text(encoding="utf-8")
    options.write_text(text.replace("[dataset]", "[dataset]\nlimit = 10"), encoding="utf-8")
    selected = set(oiyolo.select(folder).images["ImageID"])
    report = cli.ok("refresh", "--json", project=folder).json
    assert report["withdrawn"] == len(splits.keys() - selected) > 20
    kept = report["files"]["kept"]  # also of an image that could not be prepared
    assert report["files"] == {"deleted": 0, "in_use": 0, "kept": kept}
    assert kept >= report["withdrawn"]
    assert all(files_of(folder, image_id) for image_id in splits)
    accepted = cli.ok("refresh", "--accept-loss", "--json", project=folder).json
    assert accepted["files"]["deleted"] == kept
    assert {i for i in splits if files_of(folder, i)} == splits.keys() & selected


class Clock(dt.datetime):
    """A clock that is ahead by ``ahead``."""

    ahead = dt.timedelta(0)

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Clock:
        return super().now(tz) + cls.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(Clock, "ahead", dt.timedelta(0))
    monkeypatch.setattr(dt, "datetime", Clock)
    return Clock


def test_a_failed_image_is_tried_again_once_a_week(
    folder: Path, mirror: ChangingMirror, cli: Cli, clock: type[Clock]
) -> None:
    site = mirror.site
    cli.ok("refresh", project=folder)
    failed = cli.ok("status", "--json", project=folder).json["excluded"]
    assert sum(failed.values()) > 2
    for days, tried in ((6, False), (8, True), (9, False), (16, True)):
        clock.ahead = dt.timedelta(days=days)
        site.server.requests.clear()
        report = cli.ok("refresh", "--json", project=folder).json
        assert bool(image_requests(site)) == bool(report["retried"]) == tried, days

    # Back on the mirror, and due again: it joins the dataset.
    gone = next(i for i in site.fates["gone-404"] if mirror.boxes_of([i]))
    good = min(splits_of(folder))
    images = site.mirror.folder / "open-images-dataset" / "train"
    (images / f"{gone}.jpg").write_bytes((images / f"{good}.jpg").read_bytes())
    clock.ahead = dt.timedelta(days=24)
    assert numbers(cli.ok("refresh", project=folder).out)["images"] == 1


def test_of_many_failed_images_a_seventh_is_tried_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, clock: type[Clock]
) -> None:
    monkeypatch.setattr(current, "_MIN_RETRIES", 1)
    cli.ok("refresh", project=folder)
    with open_project(folder).ledger() as ledger:
        failed = len(ledger.ids("excluded", stage="fetch"))
    clock.ahead = dt.timedelta(days=8)
    retried = [cli.ok("refresh", "--json", project=folder).json["retried"] for _ in range(2)]
    assert retried == [max(1, failed // 7)] * 2


def test_a_site_that_is_down_changes_nothing_and_the_next_refresh_catches_up(
    folder: Path, mirror: ChangingMirror, cli: Cli
) -> None:
    mirror.hidden = set(sorted(mirror.site.fates["fine"])[:4])
    mirror.publish()
    cli.ok("refresh", project=folder)
    splits = splits_of(folder)
    good = open_project(folder).config.openimages.base_url
    down = cli("refresh", project=replace_url(folder, good, "http://127.0.0.1:1/openimages"))
    assert (down.code, down.out, down.err.count("\n")) == (4, "", 1)
    assert splits_of(folder) == splits
    mirror.hidden = set()
    mirror.publish()
    replace_url(folder, "http://127.0.0.1:1/openimages", good)
    assert numbers(cli.ok("refresh", project=folder).out)["images"] > 0
    assert splits.items() <= splits_of(folder).items()


def replace_url(folder: Path, old: str, new: str) -> Path:
    path = folder / "oiyolo.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return folder


DAMAGED = (
    "not JSON",
    "{}",
    '{"at":"","stamp":{},"excluded":0,"waiting":0,"splits":{},"images":{"x":"y"}}',
)


def test_a_damaged_record_of_the_last_refresh_is_written_again(folder: Path, cli: Cli) -> None:
    cli.ok("refresh", project=folder)
    path = folder / "data" / "refresh.json"
    for damage in DAMAGED:
        path.write_text(damage, encoding="utf-8")
        assert numbers(cli.ok("refresh", project=folder).out)["images"] == 0
        assert len(json.loads(path.read_text(encoding="utf-8"))["images"]) == len(splits_of(folder))


def test_a_record_of_a_newer_version_is_left_alone(folder: Path, cli: Cli) -> None:
    cli.ok("refresh", project=folder)
    path = folder / "data" / "refresh.json"
    newer = json.dumps({files.FORM_KEY: 99})
    path.write_text(newer, encoding="utf-8")
    with pytest.raises(NewerVersionError):
        oiyolo.refresh(folder)
    assert path.read_text(encoding="utf-8") == newer


def remove_page(folder: Path) -> None:
    (folder / "data" / "dataset" / "CREDITS.csv").unlink()


def damage_image(folder: Path) -> None:
    path = next(iter(sorted((folder / "data" / "dataset" / "obj").glob("*.jpg"))))
    path.write_bytes(b"cut")


def damage_list(folder: Path) -> None:
    (folder / "data" / "dataset" / "train.txt").write_text("other", encoding="utf-8")


def lose_ledger(folder: Path) -> None:
    for path in (folder / "data").glob("ledger.sqlite*"):
        path.unlink()


def test_damage_is_repaired_although_nothing_changed(folder: Path, cli: Cli) -> None:
    cli.ok("refresh", project=folder)
    splits = splits_of(folder)
    for damage in (remove_page, damage_image, damage_list, lose_ledger):
        damage(folder)
        cli.ok("refresh", project=folder)
        assert splits_of(folder).keys() == splits.keys()
        assert (folder / "data" / "dataset" / "CREDITS.csv").is_file()
    assert cli.ok("refresh", project=folder).out.endswith("; up to date\n")


def state(split: str, boxes: int = 1, checksum: int = 7) -> ImageState:
    return ImageState(split, boxes, checksum)


def test_changes_are_counted_by_image() -> None:
    before = DatasetState({i: state("train") for i in "abcd"}, 0)
    after = DatasetState({"a": state("test"), "b": state("train", 3, 8), "e": state("valid", 2)}, 0)
    changes = compare(before, after, frozenset("cx"))
    assert changes == Changes(images=1, boxes=2, withdrawn=1, left_out=1, changed_boxes=1, moved=1)


def test_options_that_cannot_be_combined_are_refused(folder: Path) -> None:
    combinations: list[dict[str, Any]] = [
        {"print_cron": True, "accept_loss": True},
        {"print_cron": True, "print_systemd": True},
    ]
    for options in combinations:
        with pytest.raises(UsageError):
            oiyolo.refresh(folder, **options)
