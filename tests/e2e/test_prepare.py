"""``oiyolo prepare``: difficult files, deleted originals, runs in progress, a full disk."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile

from oiyolo.core import files
from oiyolo.core.errors import LockedError, UnavailableError, UsageError
from oiyolo.imagery import labels
from oiyolo.imagery.placement import place_boxes
from oiyolo.project.ledger import Change
from oiyolo.project.project import open_project
from oiyolo.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oiyolo.imagery.placement import PlacedBoxes
    from tests.conftest import Cli, Shell

    Digests = Callable[[Path], dict[str, str]]

DAMAGED = "damaged or truncated JPEG"
TOO_MANY_PIXELS = "absurd dimensions (over 89 megapixels)"
PREPARED = None
"""Expected reason of a file that is prepared."""


class DifficultFile(NamedTuple):
    """A file called .jpg, and the reason for which it must be excluded; ``PREPARED`` for none."""

    content: bytes
    expected_reason: str | None


def photograph(wh: tuple[int, int] = (160, 120)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(wh, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def middle_replaced(content: bytes, by: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + by + content[at + len(by) :]


def with_dimensions(content: bytes, width: int, height: int) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[at + 4 :]


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def difficult_files() -> dict[str, DifficultFile]:
    plain = photograph()
    jpeg = encoded(plain)
    large = encoded(photograph((640, 480)), quality=95)
    sixteen = Image.fromarray(np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64))
    clear = plain.convert("RGBA")
    clear.putalpha(90)
    used = {
        "plain": jpeg,
        "grey": encoded(plain.convert("L")),
        "CMYK": encoded(plain.convert("CMYK")),
        "progressive": encoded(plain, progressive=True),
        "progressive grey": encoded(plain.convert("L"), progressive=True),
        "no subsampling": encoded(plain, subsampling=0),
        "restarts": encoded(plain, restart_marker_rows=1),
        "EXIF turned": encoded(plain, exif=exif(6)),
        "EXIF mirrored": encoded(plain, exif=exif(2)),
        "junk EXIF": encoded(plain, exif=b"Exif\0\0junk"),
        "junk profile": encoded(plain, icc_profile=b"junk" * 50),
        "long comment": encoded(plain, comment=b"x" * 60_000),
        "tail of zeros": jpeg + b"\0" * 500,
        "tail of HTML": jpeg + b"<html>",
        "quality 1": encoded(plain, quality=1),
        "one pixel": encoded(plain.resize((1, 1))),
        "a line": encoded(plain.resize((1, 400))),
        "a long line": encoded(plain.resize((5000, 1))),
        "a strip": encoded(plain.resize((3000, 20))),
        "PNG": encoded(plain, "PNG"),
        "PNG of 16 bits": encoded(sixteen, "PNG"),
        "PNG with palette": encoded(plain.convert("P"), "PNG"),
        "PNG, palette, transparency": encoded(plain.convert("P"), "PNG", transparency=3),
        "PNG with alpha": encoded(clear, "PNG"),
        "PNG, grey, alpha": encoded(clear.convert("LA"), "PNG"),
        "PNG of 1 bit": encoded(plain.convert("1"), "PNG"),
        "GIF": encoded(plain.convert("P"), "GIF"),
        "GIF that moves": encoded(plain, "GIF", save_all=True, append_images=[clear] * 2),
        "WebP": encoded(plain, "WEBP"),
        "WebP with alpha": encoded(clear, "WEBP", lossless=True),
        "BMP": encoded(plain, "BMP"),
        "TIFF": encoded(plain, "TIFF"),
    }
    excluded = {
        "empty": (b"", "not an image"),
        "HTML": (b"<!DOCTYPE html><html><body>gone</body></html>", "not an image"),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
        "only a start": (jpeg[:3], "not an image"),
        "cut in the head": (jpeg[:100], "cannot be decoded"),
        "cut in the middle": (large[: len(large) // 2], DAMAGED),
        "cut at the end": (large[:-40], DAMAGED),
        "zeros in the middle": (middle_replaced(large, b"\0" * 3000), DAMAGED),
        "another's middle": (middle_replaced(large, jpeg[200:1200]), "cannot be decoded"),
        "PNG cut": (encoded(plain, "PNG")[:900], "cannot be decoded"),
        "PNG damaged": (middle_replaced(encoded(plain, "PNG"), b"\0" * 99), "cannot be decoded"),
        "WebP cut": (encoded(plain, "WEBP")[:300], "cannot be decoded"),
        "bomb": (with_dimensions(jpeg, 20_000, 20_000), TOO_MANY_PIXELS),
        "no width": (with_dimensions(jpeg, 0, 100), "not an image"),
    }
    return {name: DifficultFile(content, PREPARED) for name, content in used.items()} | {
        name: DifficultFile(*file) for name, file in excluded.items()
    }


def fetched_ids(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "data" / "images").glob("*.jpg"))


def objects_of(folder: Path) -> Path:
    return folder / "data" / "dataset" / "obj"


def boxes_csv(folder: Path) -> Path:
    return folder / "data" / "dataset" / "boxes.csv"


@pytest.fixture
def fetched(make_project: Callable[..., Path], cli: Cli) -> Path:
    """Return a project whose images are fetched but not prepared."""
    folder = make_project(tolerance=0.5)
    cli.ok("fetch", project=folder)
    return folder


def excluded_ids(folder: Path) -> list[str]:
    """Return the ids of the images that prepare excluded."""
    with open_project(folder).ledger(read_only=True) as ledger:
        return ledger.ids("excluded", stage="prepare")


def states(cli: Cli, folder: Path) -> dict[str, Any]:
    status = cli.ok("status", "--json", project=folder).json
    status.pop("runs", None)
    assert sum(status["states"].values()) + sum(status["excluded"].values()) == status["selected"]
    return status


# --- difficult files -------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "none"])
def test_forty_difficult_files_are_prepared_or_excluded_and_none_stops_the_run(
    cli: Cli, fetched: Path, fit: str
) -> None:
    difficult = difficult_files()
    assert len(difficult) >= 40
    ids = fetched_ids(fetched)
    found: dict[str, str | None] = {}
    while len(found) < len(difficult):  # one file per image of the project at a time
        names = list(difficult)[len(found) : len(found) + len(ids)]
        by_id = dict(zip(ids, names, strict=False))
        for image_id, name in by_id.items():
            path = fetched / "data" / "images" / f"{image_id}.jpg"
            path.write_bytes(difficult[name].content)
        with open_project(fetched).ledger() as ledger:
            mark_as_fetched(ledger, ids)
        cli.ok("prepare", "--fit", fit, project=fetched)
        for image_id, name in by_id.items():
            found[name] = exclusion_reason(fetched, image_id, (32, 32) if fit != "none" else None)
        assert not list(objects_of(fetched).glob("*.part"))
    assert found == {name: file.expected_reason for name, file in difficult.items()}


def mark_as_fetched(ledger: Any, ids: list[str]) -> None:
    changes = [Change(i, "fetched", "replaced by the test") for i in ids]
    ledger.record("fetch", changes)


def exclusion_reason(folder: Path, image_id: str, size_wh: tuple[int, int] | None) -> str | None:
    """Return why an image was excluded; ``None`` if it was prepared, after checking its files."""
    with open_project(folder).ledger(read_only=True) as ledger:
        row = ledger.row(image_id)
    assert row is not None
    path = objects_of(folder) / f"{image_id}.jpg"
    if row["state"] == "excluded":
        assert not path.exists()
        assert not path.with_suffix(".txt").exists()
        return str(row["reason"])
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert size_wh is None or image.size == size_wh
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        image.load()
    assert path.with_suffix(".txt").is_file()
    assert len(str(row["phash"])) == 16
    return None


# --- faults of the machine ------------------------------------------------------------------


def replace_by(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir(parents=True)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(path.with_name("gone"))


def test_what_is_no_file_is_refused_and_stops_no_other_image(cli: Cli, fetched: Path) -> None:
    names = ("images/{}.jpg", "dataset/obj/{}.jpg", "dataset/obj/{}.txt")
    cases = [(name, kind) for name in names for kind in ("folder", "FIFO", "dangling link")]
    ids = [i for i in fetched_ids(fetched)[: len(cases) + 5] if i not in damaged_ids(cli, fetched)]
    refused = {}
    for image_id, (name, kind) in zip(ids, cases, strict=False):
        path = fetched / "data" / name.format(image_id)
        replace_by(path, kind)
        # What is in the place of a prepared file is replaced, unless it is a folder.
        if "images" in name or kind == "folder":
            refused[image_id] = path
    with open_project(fetched).ledger() as ledger:
        mark_as_fetched(ledger, ids)
    cli.ok("prepare", project=fetched)
    with open_project(fetched).ledger(read_only=True) as ledger:
        assert ledger.ids("pending", stage="prepare") == sorted(refused)
    states(cli, fetched)
    for path in refused.values():
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    cli.ok("fetch", project=fetched)
    cli.ok("prepare", project=fetched)
    for image_id in ids[: len(cases)]:
        assert exclusion_reason(fetched, image_id, (32, 32)) is None


def damaged_ids(cli: Cli, folder: Path) -> list[str]:
    """Return the ids of the images that cannot be prepared; the others are prepared."""
    cli.ok("prepare", project=folder)
    return excluded_ids(folder)


def test_a_read_error_leaves_images_pending_and_the_next_run_continues(
    cli: Cli, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes = files.read_bytes
    codes = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES)
    code_by_id = dict(zip(fetched_ids(fetched)[1:], codes * 100, strict=False))

    def fail(path: Path) -> bytes:
        if path.parent.name == "images" and path.stem in code_by_id:
            code = code_by_id[path.stem]
            raise OSError(code, os.strerror(code), str(path))
        return read_bytes(path)

    before = states(cli, fetched)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", fail)
        failed = cli("prepare", "--tolerance", "0.02", "--json", project=fetched)
        assert failed.code == UnavailableError.exit_code
        assert all(os.strerror(code) in failed.json["error"] for code in codes)
        now = states(cli, fetched)
        assert now["excluded"] == before["excluded"]
        assert now["states"]["pending"] == before["states"]["pending"] + len(code_by_id)
        assert cli("split", "--tolerance", "0.02", project=fetched).code == 4
        # Within the tolerance the others can be used.
        assert cli("prepare", "--tolerance", "1", project=fetched).code == 0
    assert cli.ok("fetch", "--json", project=fetched).json["fetched"] == 0
    assert states(cli, fetched)["states"]["fetched"] == len(code_by_id)
    cli.ok("prepare", project=fetched)
    assert states(cli, fetched)["states"]["pending"] == before["states"]["pending"]


def test_a_folder_of_images_that_is_briefly_missing_excludes_none(
    cli: Cli, fetched: Path, digests: Digests
) -> None:
    images = fetched / "data" / "images"
    away = images.rename(images.with_name("away"))
    assert cli("prepare", project=fetched).code == UnavailableError.exit_code
    away.rename(images)
    before = digests(images)
    done = cli.ok("prepare", "--json", project=fetched).json
    assert done["prepared"] + len(excluded_ids(fetched)) == len(fetched_ids(fetched))
    assert digests(images) == before


# --- lost files ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["prepare", "split"])
def test_the_next_run_prepares_a_lost_image_or_label_again(
    cli: Cli, fetched: Path, digests: Digests, command: str
) -> None:
    cli.ok("split", project=fetched)
    before = digests(fetched / "data" / "dataset")
    lost, unlabelled, short = sorted(objects_of(fetched).glob("*.jpg"))[:3]
    lost.unlink()
    unlabelled.with_suffix(".txt").unlink()
    short.write_bytes(short.read_bytes()[:300])
    checked = cli("split", "--check", "--json", project=fetched)
    assert checked.code == 3
    (item,) = [row for row in checked.json["findings"] if row["outcome"] == "failed"]
    assert item["name"] == "files"
    assert "`oiyolo split`" in item["message"]
    planned = cli.ok("split", "--dry-run", project=fetched).out
    assert "prepare 3 images" in planned
    cli.ok(command, project=fetched)
    if command == "prepare":
        cli.ok("split", project=fetched)
    assert digests(fetched / "data" / "dataset") == before
    cli.ok("split", "--check", project=fetched)


def test_fetch_gets_the_original_of_a_lost_image_again(cli: Cli, fetched: Path) -> None:
    cli.ok("split", "--no-keep-originals", project=fetched)
    before = states(cli, fetched)
    lost = min(objects_of(fetched).glob("*.jpg"))
    content = lost.read_bytes()
    lost.unlink()
    assert cli.ok("fetch", "--json", project=fetched).json["fetched"] == 1
    cli.ok("split", "--no-keep-originals", project=fetched)
    assert lost.read_bytes() == content
    assert states(cli, fetched) == before


# --- labels ----------------------------------------------------------------------------------


def test_labels_boxes_csv_and_the_selection_agree(cli: Cli, fetched: Path) -> None:
    cli.ok("prepare", "--fit", "letterbox", "--size", "64x96", project=fetched)
    table = pd.read_csv(fetched / "data" / "dataset" / "boxes.csv", keep_default_na=False)
    selected = pd.read_csv(fetched / "data" / "selection" / "boxes.csv", keep_default_na=False)
    with_files = {path.stem for path in objects_of(fetched).glob("*.jpg")}
    assert set(table["ImageID"]) <= with_files
    assert len(table) == selected["ImageID"].isin(with_files).sum()
    assert (table["used"] == (table["dropped_because"] == "")).all()
    for image_id in with_files:
        rows = table[(table["ImageID"] == image_id) & table["used"]]
        class_ids, xyxy = labels.read(objects_of(fetched) / f"{image_id}.txt")
        assert class_ids.tolist() == rows["class_id"].tolist()
        np.testing.assert_allclose(xyxy, rows[["XMin", "YMin", "XMax", "YMax"]], atol=1e-6)


def test_boxes_are_placed_once_per_image(
    cli: Cli, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed_wh: list[tuple[int, int]] = []

    def count(*arrays: Any, source_wh: tuple[int, int], **options: Any) -> PlacedBoxes:
        placed_wh.append(source_wh)
        return place_boxes(*arrays, source_wh=source_wh, **options)

    monkeypatch.setattr("oiyolo.stages.prepare.tasks.place_boxes", count)
    cli.ok("prepare", "--fit", "letterbox", project=fetched)
    with open_project(fetched).ledger(read_only=True) as ledger:
        prepared_ids = ledger.ids("prepared")
    first_wh, table = sorted(placed_wh), boxes_csv(fetched).read_bytes()
    assert len(first_wh) == len(prepared_ids)
    # The boxes of images that are already prepared are placed from the recorded sizes.
    boxes_csv(fetched).unlink()
    cli.ok("prepare", "--fit", "letterbox", project=fetched)
    assert sorted(placed_wh) == sorted(first_wh * 2)
    assert boxes_csv(fetched).read_bytes() == table


# --- deleted originals -----------------------------------------------------------------------


def test_originals_are_deleted_and_this_is_recorded(cli: Cli, fetched: Path) -> None:
    ids = fetched_ids(fetched)
    (fetched / "data" / "images" / f"{ids[0]}.jpg").write_bytes(b"junk")
    cli.ok("prepare", "--no-keep-originals", project=fetched)
    # Originals that could not be prepared are kept.
    assert fetched_ids(fetched) == excluded_ids(fetched)
    made = sorted(path.stem for path in objects_of(fetched).glob("*.jpg"))
    assert ids[0] not in made
    assert sorted([*made, *excluded_ids(fetched)]) == ids
    assert "original deleted" in cli.ok("why", made[0], project=fetched).out
    assert "deleted" not in cli.ok("why", ids[0], project=fetched).out
    assert "nothing to do" in cli.ok("prepare", "--no-keep-originals", project=fetched).out
    cli.ok("split", "--size", "32x32", project=fetched)


def test_originals_that_remain_after_a_kill_are_deleted_by_the_next_run(
    cli: Cli, fetched: Path
) -> None:
    cli.ok("split", project=fetched)
    before = states(cli, fetched)
    assert fetched_ids(fetched)
    cli.ok("prepare", "--no-keep-originals", project=fetched)
    assert fetched_ids(fetched) == excluded_ids(fetched)
    assert states(cli, fetched) == before


def test_an_original_is_deleted_only_after_its_prepared_files_are_on_disk(
    cli: Cli, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    fsync, unlink = os.fsync, type(fetched).unlink

    def recording_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    def checking_unlink(path: Path, **options: bool) -> None:
        if path.parent.name == "images":
            objects = objects_of(fetched)
            assert {objects / f"{path.stem}.jpg", objects / f"{path.stem}.txt", objects} <= synced
        unlink(path, **options)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(type(fetched), "unlink", checking_unlink)
    cli.ok("prepare", "--no-keep-originals", project=fetched)
    assert fetched_ids(fetched) == excluded_ids(fetched)


def test_other_options_need_the_deleted_originals_again(
    cli: Cli, fetched: Path, digests: Digests
) -> None:
    cli.ok("prepare", "--no-keep-originals", project=fetched)
    ids = sorted(path.stem for path in objects_of(fetched).glob("*.jpg"))
    first = digests(objects_of(fetched))
    planned = cli.ok("prepare", "--size", "64x64", "--dry-run", project=fetched)
    assert f"need {len(ids)} originals again" in planned.out
    done = cli.ok("prepare", "--size", "64x64", project=fetched)
    assert f"{len(ids)} originals needed again (deleted because" in done.out
    assert states(cli, fetched)["states"]["pending"] == len(ids)
    assert "original missing, to be fetched again" in cli.ok("why", ids[0], project=fetched).out
    # With the previous options the prepared files are up to date again.
    cli.ok("prepare", project=fetched)
    assert states(cli, fetched)["states"]["prepared"] == len(ids)
    assert digests(objects_of(fetched)) == first
    # With the new options and the originals they are prepared again.
    cli.ok("prepare", "--size", "64x64", project=fetched)
    cli.ok("fetch", project=fetched)
    cli.ok("prepare", "--size", "64x64", project=fetched)
    assert states(cli, fetched)["states"]["prepared"] == len(ids)
    with Image.open(objects_of(fetched) / f"{ids[0]}.jpg") as image:
        assert image.size == (64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_prepare_without_keeping_originals_survives_kills_at_random_times(
    cli: Cli,
    shell: Shell,
    make_project: Callable[..., Path],
    digests: Digests,
    *,
    seed: int,
) -> None:
    folder, whole = (make_project(jobs=1, size=(640, 640), tolerance=0.5) for _ in range(2))
    for project in (folder, whole):
        cli.ok("fetch", project=project)
    rng = random.Random(seed)
    words = ["prepare", "--no-keep-originals", "--project", str(folder)]
    for _ in range(4):
        victim = shell.start(*words)
        time.sleep(rng.uniform(0.8, 2.5))
        victim.kill()
        victim.communicate()
        # At any time an image exists as an original or as a complete prepared file.
        prepared = {path.stem for path in objects_of(folder).glob("*.jpg")}
        assert prepared.union(fetched_ids(folder)) == set(fetched_ids(whole))
    assert shell(*words).code == 0
    cli.ok("prepare", project=whole)
    assert digests(objects_of(folder)) == digests(objects_of(whole))
    assert states(cli, folder) == states(cli, whole)
    assert fetched_ids(folder) == excluded_ids(folder)


# --- training runs in progress ---------------------------------------------------------------


def make_running_training(folder: Path, image_ids: list[str]) -> Run:
    run = Run(folder / "runs" / "tiny-001")
    run.write_record(name=run.name)
    for name in ("train", "valid"):
        text = "".join(f"obj/{image_id}.jpg\n" for image_id in image_ids)
        (run.folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return run


@pytest.mark.parametrize(
    "options",
    [("--size", "64x64"), ("--fit", "letterbox"), ("--size", "64x64", "--dry-run")],
    ids=" ".join,
)
def test_files_used_by_a_running_training_are_not_changed(
    cli: Cli, fetched: Path, digests: Digests, options: tuple[str, ...]
) -> None:
    cli.ok("split", project=fetched)
    before, states_before = digests(objects_of(fetched)), states(cli, fetched)
    ids = sorted(path.stem for path in objects_of(fetched).glob("*.jpg"))
    run = make_running_training(fetched, ids[:2])
    with run.lock("train"):
        done = cli("prepare", *options, project=fetched)
        assert done.code == LockedError.exit_code
        assert "tiny-001" in done.err
        assert "size from" in done.err or "fit from" in done.err
        assert digests(objects_of(fetched)) == before
        assert states(cli, fetched) == states_before
        # The same options, a lost file and new images are harmless.
        for image_id in (ids[0], ids[5]):
            (objects_of(fetched) / f"{image_id}.jpg").unlink()
        with open_project(fetched).ledger() as ledger:
            mark_as_fetched(ledger, ids[6:9])
        cli.ok("prepare", project=fetched)
        assert digests(objects_of(fetched)) == before
    cli.ok("prepare", *options, project=fetched)
    assert (digests(objects_of(fetched)) == before) == ("--dry-run" in options)


def test_files_used_by_a_running_training_are_kept_until_it_ends(cli: Cli, fetched: Path) -> None:
    cli.ok("split", project=fetched)
    lost, other = sorted(path.stem for path in objects_of(fetched).glob("*.jpg"))[:2]
    for image_id in (lost, other):
        (fetched / "data" / "images" / f"{image_id}.jpg").write_bytes(b"not an image any more")
    with open_project(fetched).ledger() as ledger:
        mark_as_fetched(ledger, [lost, other])
    with make_running_training(fetched, [lost]).lock("train"):
        cli.ok("prepare", project=fetched)
        assert (objects_of(fetched) / f"{lost}.jpg").is_file()
        assert (objects_of(fetched) / f"{lost}.txt").is_file()
        assert not (objects_of(fetched) / f"{other}.jpg").exists()
    assert cli.ok("why", lost, "--json", project=fetched).json["state"] == "excluded"
    cli.ok("prepare", project=fetched)
    assert not (objects_of(fetched) / f"{lost}.jpg").exists()
    assert not (objects_of(fetched) / f"{lost}.txt").exists()


# --- a full disk, and nothing to do ----------------------------------------------------------


def test_a_full_disk_exits_4_and_leaves_only_complete_files(
    cli: Cli, fetched: Path, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Semaphore(25)
    write_bytes = type(fetched).write_bytes

    def until_full(path: Path, data: bytes) -> int:
        if path.parent.name == "obj" and not left.acquire(blocking=False):
            write_bytes(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(type(fetched), "write_bytes", until_full)
        done = cli("prepare", project=fetched)
    assert done.code == 4
    assert "No space left" in done.err
    assert not list(objects_of(fetched).glob("*.part"))
    for path in objects_of(fetched).glob("*.jpg"):
        with Image.open(path) as image:
            image.load()
    states(cli, fetched)
    cli.ok("prepare", project=fetched)
    whole = digests(objects_of(fetched))
    again = files.read_json(fetched / "data" / "dataset" / ".prepared-from.json")
    assert again["options"]["size"] == [32, 32]
    assert len(whole) == 2 * states(cli, fetched)["states"]["prepared"]
    # The table is the same as that of a run that was not interrupted.
    table = boxes_csv(fetched).read_bytes()
    shutil.rmtree(objects_of(fetched))
    cli.ok("prepare", project=fetched)
    assert digests(objects_of(fetched)) == whole
    assert boxes_csv(fetched).read_bytes() == table


def test_a_second_prepare_opens_no_image(
    cli: Cli, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("prepare", project=fetched)
    monkeypatch.setattr("oiyolo.stages.prepare.pending.SelectedBoxes", None)
    assert "nothing to do" in cli.ok("prepare", project=fetched).out
    assert "nothing to do" in cli.ok("prepare", project=fetched).out


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_number_of_threads_does_not_affect_the_result(
    cli: Cli, fetched: Path, digests: Digests, jobs: int
) -> None:
    cli.ok("prepare", "--jobs", str(jobs), project=fetched)
    first = digests(objects_of(fetched))
    for path in objects_of(fetched).iterdir():
        path.unlink()
    cli.ok("prepare", "--jobs", "2", project=fetched)
    assert digests(objects_of(fetched)) == first


def test_images_of_an_older_method_are_prepared_again(cli: Cli, fetched: Path) -> None:
    cli.ok("prepare", project=fetched)
    with open_project(fetched).ledger() as ledger:
        ids = ledger.ids("prepared")
        facts: Mapping[str, object] = {"prepared_from": "what an older one wrote"}
        old = [Change(i, "prepared", "made older", facts=facts) for i in ids]
        ledger.record("prepare", old)
    recipe_path = fetched / "data" / "dataset" / ".prepared-from.json"
    saved = files.read_json(recipe_path)
    files.write_json(recipe_path, {**saved, "the way of preparing": 1})
    assert f"prepared {len(ids)} images" in cli.ok("prepare", project=fetched).out


def test_without_a_selection_prepare_exits_2(cli: Cli, make_project: Callable[..., Path]) -> None:
    done = cli("prepare", project=make_project())
    assert done.code == UsageError.exit_code
    assert "oiyolo fetch" in done.err


def test_pillow_never_accepts_truncated_files() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
