"""The files of the demo mirror have the official formats and match its statistics."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from oiyolo import boxes
from oiyolo.core.errors import UsageError
from oiyolo.demo_data import catalogue, writer
from oiyolo.demo_data.scenes import BOAT_FAMILY, DrawnObject, Scene, SceneKind
from oiyolo.demo_data.writer import Fate, plan_images, write_mirror
from tests.demo_data.conftest import SCENES, SEED
from tests.support.mirror_facts import boat_image_count, fates, table

if TYPE_CHECKING:
    from oiyolo.demo_data.writer import DemoMirror

REAL = Path(__file__).parents[2] / ".." / "shared" / "real" / "metadata"


IDS_BY_FATE = fates(SEED, SCENES)
ROTATED = [plan for plan in plan_images(SEED, SCENES) if plan.rotation]


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_tables_have_the_official_columns(mirror: DemoMirror) -> None:
    train = table(mirror, "v6/oidv6-train-annotations-bbox.csv")
    assert len(train.columns) == 21
    assert list(train.columns[:8]) == [
        "ImageID",
        "Source",
        "LabelName",
        "Confidence",
        "XMin",
        "XMax",
        "YMin",
        "YMax",
    ]
    for name in ("v5/validation-annotations-bbox.csv", "v5/test-annotations-bbox.csv"):
        assert list(table(mirror, name).columns) == list(train.columns[:13])
    for name in writer.IMAGE_FILES.values():
        assert len(table(mirror, name).columns) == 12
    for name in writer.LABEL_FILES.values():
        assert list(table(mirror, name).columns) == list(train.columns[:4])


def test_the_class_descriptions_are_written_without_and_with_a_header(mirror: DemoMirror) -> None:
    folder = mirror.folder / "openimages"
    old, new = ((folder / name).read_bytes() for name in writer.CLASS_FILES)
    assert b"LabelName" not in old
    assert old.count(b"\r\n") == len(catalogue.MIDS)
    assert b"/m/019jd,Boat\r\n" in old
    assert new.startswith(b"LabelName,DisplayName\n")
    assert b"\r" not in new


def test_the_hierarchy_is_a_tree_of_known_classes(mirror: DemoMirror) -> None:
    tree = json.loads((mirror.folder / "openimages" / writer.HIERARCHY_FILE).read_text())
    assert tree["LabelName"] == "/m/0bl9f"
    children: dict[str, set[str]] = {}

    def walk(node: dict[str, object]) -> None:
        nodes = node.get("Subcategory", [])
        assert isinstance(nodes, list)
        children.setdefault(str(node["LabelName"]), set()).update(c["LabelName"] for c in nodes)
        for child in nodes:
            walk(child)

    walk(tree)
    names = {mid: name for name, mid in catalogue.MIDS.items()}
    assert {names[mid] for mid in children["/m/019jd"]} == {"Barge", "Canoe", "Gondola"}
    # A part is in the class list but not a subcategory.
    assert set(children) - {"/m/0bl9f"} == set(names) - {catalogue.MIDS["Human face"]}


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real/metadata")
def test_every_mid_is_official() -> None:
    text = (REAL / "class-descriptions-boxable.turpan9076.csv").read_text(encoding="utf-8")
    official = dict(line.split(",", 1) for line in text.splitlines())
    assert {name: official[mid] for name, mid in catalogue.MIDS.items()} == {
        name: name for name in catalogue.MIDS
    }


def test_boxes_are_sorted_by_image_and_are_fractions_with_six_decimals(mirror: DemoMirror) -> None:
    for subset, name in writer.BOX_FILES.items():
        rows = table(mirror, name)
        assert rows.ImageID.is_monotonic_increasing
        assert rows.ImageID.str.fullmatch("[0-9a-f]{16}").all()
        corners = rows[["XMin", "XMax", "YMin", "YMax"]]
        assert corners.map(lambda text: len(text) == 8).all(axis=None)
        values = corners.astype(float)
        assert values.ge(0).all(axis=None)
        assert values.le(1).all(axis=None)
        assert (values.XMin < values.XMax).all()
        assert (values.YMin < values.YMax).all()
        assert set(rows.IsOccluded) <= ({"0", "1", "-1"} if subset == "train" else {"0", "1"})


def test_the_image_lists_are_sorted_and_complete(mirror: DemoMirror) -> None:
    for subset, name in writer.IMAGE_FILES.items():
        images = table(mirror, name)
        planned = [p.image_id for p in plan_images(SEED, SCENES) if p.subset == subset]
        assert list(images.ImageID) == planned
        assert images.ImageID.is_monotonic_increasing
        assert set(images.Subset) == {subset}


def test_every_flag_occurs_and_most_images_have_boats(mirror: DemoMirror) -> None:
    train = table(mirror, writer.BOX_FILES["train"])
    for flag in ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"):
        assert (train[flag] == "1").any()
    assert 0.7 * SCENES < boat_image_count(mirror, "train") < SCENES


def test_clicks_are_on_the_edges_of_their_box(mirror: DemoMirror) -> None:
    rows = table(mirror, writer.BOX_FILES["train"])
    proposed = rows.Source == "activemil"
    assert (rows[proposed].XClick1X == "-1.000000").all()
    clicked = rows[~proposed]
    assert (clicked.XClick1Y == clicked.YMin).all()
    assert (clicked.XClick2X == clicked.XMin).all()
    assert (clicked.XClick3Y == clicked.YMax).all()
    assert (clicked.XClick4X == clicked.XMax).all()


def test_the_image_list_contains_authors_originals_and_rotations(mirror: DemoMirror) -> None:
    images = table(mirror, writer.IMAGE_FILES["train"])
    assert images.Author.nunique() > 5
    assert images.Author.value_counts().max() <= 6
    assert images.groupby("AuthorProfileURL").Author.nunique().max() == 1
    assert set(images.Rotation) >= {"0.0", "90.0", "180.0", "270.0"}
    assert images.OriginalSize.str.fullmatch(r"\d+").all()
    assert images.OriginalMD5.map(lambda text: len(base64.b64decode(text)) == 16).all()
    assert images.License.eq("https://creativecommons.org/licenses/by/2.0/").all()
    assert images.OriginalURL.str.fullmatch(
        r"http://127\.0\.0\.1:1/flickr/\d/\d{4}/\d{10}_[0-9a-f]{10}_o\.jpg"
    ).all()


def test_the_fate_of_an_image_determines_which_of_its_files_exist(mirror: DemoMirror) -> None:
    ids = {fate: set(IDS_BY_FATE[fate.value]) for fate in Fate if fate is not Fate.FINE}
    assert all(ids.values())
    absent = ids[Fate.GONE_404] | ids[Fate.GONE_410] | ids[Fate.MOVED] | ids[Fate.ORIGINAL_ONLY]
    dead = ids[Fate.GONE_404] | ids[Fate.GONE_410] | ids[Fate.MOVED] | ids[Fate.CORRUPT]
    images = table(mirror, writer.IMAGE_FILES["train"])
    for row in images.itertuples():
        copy = mirror.folder / "open-images-dataset" / "train" / f"{row.ImageID}.jpg"
        assert copy.is_file() == (row.ImageID not in absent)
        original = mirror.folder / urlsplit(str(row.OriginalURL)).path.lstrip("/")
        assert original.is_file() == (row.ImageID not in dead)
        if original.is_file():
            content = original.read_bytes()
            assert len(content) == int(str(row.OriginalSize))
            digest = hashlib.md5(content, usedforsecurity=False).digest()
            assert base64.b64encode(digest).decode() == row.OriginalMD5
            if copy.is_file():
                assert copy.read_bytes() != content
    broken = ids[Fate.CORRUPT] | ids[Fate.CUT_SHORT]
    for path in (mirror.folder / "open-images-dataset" / "train").iterdir():
        if path.stem not in broken:
            with Image.open(path) as image:
                image.load()


def test_the_corrupt_file_has_a_header_and_an_end_but_cannot_be_decoded(mirror: DemoMirror) -> None:
    (corrupt,) = IDS_BY_FATE["corrupt"]
    path = mirror.folder / "open-images-dataset" / "train" / f"{corrupt}.jpg"
    content = path.read_bytes()
    assert content.startswith(b"\xff\xd8\xff")
    assert content.endswith(b"\xff\xd9")
    with Image.open(path) as image:
        assert max(image.size) == 400
        with pytest.raises(OSError, match="broken data stream"):
            image.load()


def test_the_file_that_was_cut_short_has_no_end(mirror: DemoMirror) -> None:
    (cut,) = IDS_BY_FATE["cut-short"]
    path = mirror.folder / "open-images-dataset" / "train" / f"{cut}.jpg"
    assert not path.read_bytes().endswith(b"\xff\xd9")
    with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_classes_with_boxes_are_labelled_present_and_boats_absent_only_without_boats(
    mirror: DemoMirror,
) -> None:
    labels = table(mirror, writer.LABEL_FILES["train"])
    rows = table(mirror, writer.BOX_FILES["train"])
    positive = labels[labels.Confidence == "1"]
    with_boxes = set(zip(rows.ImageID, rows.LabelName, strict=True))
    assert set(zip(positive.ImageID, positive.LabelName, strict=True)) == with_boxes
    without_boats = labels[
        (labels.Confidence == "0") & (labels.LabelName == catalogue.MIDS["Boat"])
    ]
    family = {catalogue.MIDS[name] for name in BOAT_FAMILY}
    with_boats = set(rows[rows.LabelName.isin(family)].ImageID)
    negatives = [p for p in plan_images(SEED, SCENES) if p.kind is SceneKind.NO_BOATS]
    verified = {p.image_id for p in negatives if p.verified and p.subset == "train"}
    assert set(without_boats.ImageID) == verified
    assert verified
    assert not with_boats & verified
    assert not all(plan.verified for plan in negatives)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotating_the_stored_image_makes_image_and_boxes_upright(rotation: int) -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 200))
    image.paste((250, 0, 0), (4, 2, 20, 8))
    xyxy = (0.1, 0.1, 0.5, 0.4)
    clicks = ((0.2, 0.1), (0.1, 0.3), (0.4, 0.4), (0.5, 0.2))
    scene = Scene(image, (DrawnObject("Boat", xyxy, clicks),))
    stored, (item,) = writer._rotate(scene, (360 - rotation) % 360)
    upright = stored.rotate(rotation, expand=True)
    assert upright.tobytes() == image.tobytes()
    assert boxes.rotate_ccw(np.array([item.xyxy]), rotation)[0] == pytest.approx(xyxy)
    # In the stored image, the colour fills the stored box exactly.
    width, height = stored.size
    left, top, right, bottom = (
        round(value * side)
        for value, side in zip(item.xyxy, (width, height, width, height), strict=True)
    )
    inside = np.asarray(stored)[top:bottom, left:right]
    assert (inside[..., 0] == 250).all()
    assert (np.asarray(stored)[..., 0] == 250).sum() == inside[..., 0].size
    at_top, at_left, at_bottom, at_right = item.clicks
    edges = (at_left[0], at_top[1], at_right[0], at_bottom[1])
    assert edges == pytest.approx(item.xyxy)


def test_originals_of_rotated_images_have_an_exif_orientation(mirror: DemoMirror) -> None:
    images = table(mirror, writer.IMAGE_FILES["train"])
    rotated = images[images.Rotation.isin(["90.0", "180.0", "270.0"])]
    assert len(rotated) == len(ROTATED) == 3
    for row in rotated.itertuples():
        path = mirror.folder / urlsplit(str(row.OriginalURL)).path.lstrip("/")
        with Image.open(path) as image:
            assert "exif" in image.info
            assert image.getexif()[0x0112] == {"90.0": 8, "180.0": 3, "270.0": 6}[str(row.Rotation)]


def test_some_mirrored_files_of_rotated_images_keep_their_exif(mirror: DemoMirror) -> None:
    folder = mirror.folder / "open-images-dataset" / "train"
    with_exif = 0
    for path in folder.iterdir():
        with Image.open(path) as image:
            with_exif += "exif" in image.info
    assert 0 < with_exif < len(ROTATED)


def test_a_full_mirror_has_many_authors_and_every_kind_of_image() -> None:
    plans = [plan for plan in plan_images(0, writer.DEFAULT_SCENES) if plan.subset == "train"]
    assert len(plans) == writer.DEFAULT_SCENES
    assert [plan.image_id for plan in plans] == sorted({plan.image_id for plan in plans})
    authors = pd.Series([plan.author for plan in plans]).value_counts()
    assert len(authors) >= 40
    assert authors.max() <= 22
    marinas = sum(plan.kind is SceneKind.MARINA for plan in plans)
    assert 0 < marinas <= 0.03 * len(plans)
    boats = sum(plan.kind is not SceneKind.NO_BOATS and plan.fate is Fate.FINE for plan in plans)
    assert boats >= 640
    rotated = [plan for plan in plans if plan.rotation]
    assert {plan.rotation for plan in rotated} == {90, 180, 270}
    assert 0.02 < len(rotated) / len(plans) < 0.04
    assert all(plan.kind is SceneKind.BOATS and plan.fate is Fate.FINE for plan in rotated)


def test_another_seed_produces_another_mirror() -> None:
    first, second = ({plan.image_id for plan in plan_images(seed, 40)} for seed in (0, 1))
    assert not first & second


def test_too_few_scenes_are_rejected() -> None:
    with pytest.raises(UsageError) as caught:
        plan_images(0, writer.MIN_SCENES - 1)
    assert str(writer.MIN_SCENES) in caught.value.expected
    assert caught.value.found == str(writer.MIN_SCENES - 1)


def test_a_mirror_is_reproducible_and_is_not_rewritten_without_need(
    mirror: DemoMirror, tmp_path: Path
) -> None:
    again = write_mirror(tmp_path / "m", base_url=mirror.base_url, seed=SEED, scenes=SCENES)
    assert replace(again, folder=mirror.folder) == mirror
    assert _content(again.folder) == _content(mirror.folder)
    before = {path: path.stat().st_mtime_ns for path in again.folder.rglob("*")}
    assert write_mirror(tmp_path / "m", base_url=mirror.base_url, seed=SEED, scenes=SCENES) == again
    assert {path: path.stat().st_mtime_ns for path in again.folder.rglob("*")} == before
    # Another base URL changes only the files that contain it.
    moved = write_mirror(
        tmp_path / "m", base_url="http://127.0.0.1:65000", seed=SEED, scenes=SCENES
    )
    assert moved == replace(again, base_url="http://127.0.0.1:65000")
    old, new = _content(mirror.folder), _content(moved.folder)
    changed = {name for name in old if old[name] != new[name]}
    assert changed == {f"openimages/{name}" for name in writer.IMAGE_FILES.values()} | {
        "mirror.json"
    }
    for name in changed:
        assert new[name] == old[name].replace(b"127.0.0.1:1/", b"127.0.0.1:65000/").replace(
            b'127.0.0.1:1"', b'127.0.0.1:65000"'
        )
    # The mirror of a killed run is written again.
    (tmp_path / "m" / "mirror.json").write_text(
        json.dumps(
            {
                "made_from": {
                    "form": writer.FORMAT_VERSION,
                    "seed": SEED,
                    "scenes": SCENES,
                }
            }
        )
    )
    (tmp_path / "m" / "openimages" / writer.HIERARCHY_FILE).unlink()
    write_mirror(tmp_path / "m", base_url=mirror.base_url, seed=SEED, scenes=SCENES)
    assert _content(tmp_path / "m") == old


def test_a_folder_with_other_files_is_rejected_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError) as caught:
        write_mirror(tmp_path, base_url="http://127.0.0.1:1", scenes=20)
    assert caught.value.where == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
