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
from oiyolo.demo_data.scenes import BOAT_FAMILY, DrawnObject, Kind, Scene
from oiyolo.demo_data.writer import Fate, plan, write_mirror

if TYPE_CHECKING:
    from oiyolo.demo_data.writer import Mirror

REAL = Path(__file__).parents[2] / ".." / "shared" / "real" / "metadata"


def _table(mirror: Mirror, name: str) -> pd.DataFrame:
    return pd.read_csv(mirror.folder / "openimages" / name, dtype=str, keep_default_na=False)


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_tables_have_the_official_columns(mirror: Mirror) -> None:
    train = _table(mirror, "v6/oidv6-train-annotations-bbox.csv")
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
        assert list(_table(mirror, name).columns) == list(train.columns[:13])
    for name in writer.IMAGE_FILES.values():
        assert len(_table(mirror, name).columns) == 12
    for name in writer.LABEL_FILES.values():
        assert list(_table(mirror, name).columns) == list(train.columns[:4])


def test_the_class_descriptions_come_without_and_with_a_header(mirror: Mirror) -> None:
    folder = mirror.folder / "openimages"
    old, new = ((folder / name).read_bytes() for name in writer.CLASS_FILES)
    assert b"LabelName" not in old
    assert old.count(b"\r\n") == len(catalogue.MIDS)
    assert b"/m/019jd,Boat\r\n" in old
    assert new.startswith(b"LabelName,DisplayName\n")
    assert b"\r" not in new


def test_the_hierarchy_is_a_tree_of_known_classes(mirror: Mirror) -> None:
    tree = json.loads((mirror.folder / "openimages" / writer.HIERARCHY_FILE).read_text())
    assert tree["LabelName"] == "/m/0bl9f"
    found: dict[str, set[str]] = {}

    def walk(node: dict[str, object]) -> None:
        below = node.get("Subcategory", [])
        assert isinstance(below, list)
        found.setdefault(str(node["LabelName"]), set()).update(c["LabelName"] for c in below)
        for child in below:
            walk(child)

    walk(tree)
    named = {mid: name for name, mid in catalogue.MIDS.items()}
    assert {named[mid] for mid in found["/m/019jd"]} == {"Barge", "Canoe", "Gondola"}
    # A part is no subcategory: it stands in the class list, but not in the walk.
    assert set(found) - {"/m/0bl9f"} == set(named) - {catalogue.MIDS["Human face"]}


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real/metadata")
def test_every_mid_is_the_official_one() -> None:
    text = (REAL / "class-descriptions-boxable.turpan9076.csv").read_text(encoding="utf-8")
    official = dict(line.split(",", 1) for line in text.splitlines())
    assert {name: official[mid] for name, mid in catalogue.MIDS.items()} == {
        name: name for name in catalogue.MIDS
    }


def test_boxes_are_fractions_in_image_order_with_six_decimals(mirror: Mirror) -> None:
    for subset, name in writer.BOX_FILES.items():
        table = _table(mirror, name)
        assert table.ImageID.is_monotonic_increasing
        assert table.ImageID.str.fullmatch("[0-9a-f]{16}").all()
        corners = table[["XMin", "XMax", "YMin", "YMax"]]
        assert corners.map(lambda text: len(text) == 8).all(axis=None)
        values = corners.astype(float)
        assert values.ge(0).all(axis=None)
        assert values.le(1).all(axis=None)
        assert (values.XMin < values.XMax).all()
        assert (values.YMin < values.YMax).all()
        assert set(table.IsOccluded) <= ({"0", "1", "-1"} if subset == "train" else {"0", "1"})


def test_boxes_and_images_match_what_the_mirror_says_of_itself(mirror: Mirror) -> None:
    named = {mid: name for name, mid in catalogue.MIDS.items()}
    for subset, name in writer.BOX_FILES.items():
        counts = _table(mirror, name).LabelName.map(named).value_counts().to_dict()
        assert counts == mirror.boxes[subset]
        images = _table(mirror, writer.IMAGE_FILES[subset])
        assert len(images) == mirror.images[subset]
        assert images.ImageID.is_monotonic_increasing
        assert set(images.Subset) == {subset}
    train = _table(mirror, writer.BOX_FILES["train"])
    family = train.LabelName.map(named).isin(BOAT_FAMILY)
    assert train[family].ImageID.nunique() == mirror.boat_images["train"]
    assert (train.IsGroupOf == "1").sum() == mirror.flags["IsGroupOf"] > 0
    assert (train.IsDepiction == "1").sum() == mirror.flags["IsDepiction"] > 0
    assert (train.IsInside == "1").sum() == mirror.flags["IsInside"] > 0


def test_clicks_lie_on_the_edges_of_their_box(mirror: Mirror) -> None:
    table = _table(mirror, writer.BOX_FILES["train"])
    proposed = table.Source == "activemil"
    assert (table[proposed].XClick1X == "-1.000000").all()
    clicked = table[~proposed]
    assert (clicked.XClick1Y == clicked.YMin).all()
    assert (clicked.XClick2X == clicked.XMin).all()
    assert (clicked.XClick3Y == clicked.YMax).all()
    assert (clicked.XClick4X == clicked.XMax).all()


def test_the_image_list_names_authors_originals_and_rotations(mirror: Mirror) -> None:
    images = _table(mirror, writer.IMAGE_FILES["train"])
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


def test_each_image_is_where_its_fate_says(mirror: Mirror) -> None:
    ids = {fate: set(mirror.fates[fate.value]) for fate in Fate if fate is not Fate.FINE}
    assert all(ids.values())
    absent = ids[Fate.GONE_404] | ids[Fate.GONE_410] | ids[Fate.MOVED] | ids[Fate.ORIGINAL_ONLY]
    dead = ids[Fate.GONE_404] | ids[Fate.GONE_410] | ids[Fate.MOVED] | ids[Fate.CORRUPT]
    images = _table(mirror, writer.IMAGE_FILES["train"])
    for row in images.itertuples():
        mirrored = mirror.folder / "open-images-dataset" / "train" / f"{row.ImageID}.jpg"
        assert mirrored.is_file() == (row.ImageID not in absent)
        original = mirror.folder / urlsplit(str(row.OriginalURL)).path.lstrip("/")
        assert original.is_file() == (row.ImageID not in dead)
        if original.is_file():
            content = original.read_bytes()
            assert len(content) == int(str(row.OriginalSize))
            digest = hashlib.md5(content, usedforsecurity=False).digest()
            assert base64.b64encode(digest).decode() == row.OriginalMD5
            if mirrored.is_file():
                assert mirrored.read_bytes() != content
    broken = ids[Fate.CORRUPT] | ids[Fate.CUT_SHORT]
    for path in (mirror.folder / "open-images-dataset" / "train").iterdir():
        if path.stem not in broken:
            with Image.open(path) as image:
                image.load()


def test_the_corrupt_file_has_its_head_and_its_end_and_does_not_decode(mirror: Mirror) -> None:
    (corrupt,) = mirror.fates["corrupt"]
    path = mirror.folder / "open-images-dataset" / "train" / f"{corrupt}.jpg"
    content = path.read_bytes()
    assert content.startswith(b"\xff\xd8\xff")
    assert content.endswith(b"\xff\xd9")
    with Image.open(path) as image:
        assert max(image.size) == 400
        with pytest.raises(OSError, match="broken data stream"):
            image.load()


def test_the_cut_file_lacks_its_end(mirror: Mirror) -> None:
    (cut,) = mirror.fates["cut-short"]
    path = mirror.folder / "open-images-dataset" / "train" / f"{cut}.jpg"
    assert not path.read_bytes().endswith(b"\xff\xd9")
    with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_labels_verify_what_has_boxes_and_deny_boats_where_they_say_so(mirror: Mirror) -> None:
    labels = _table(mirror, writer.LABEL_FILES["train"])
    table = _table(mirror, writer.BOX_FILES["train"])
    positive = labels[labels.Confidence == "1"]
    boxed = set(zip(table.ImageID, table.LabelName, strict=True))
    assert set(zip(positive.ImageID, positive.LabelName, strict=True)) == boxed
    denied = labels[(labels.Confidence == "0") & (labels.LabelName == catalogue.MIDS["Boat"])]
    family = {catalogue.MIDS[name] for name in BOAT_FAMILY}
    with_boats = set(table[table.LabelName.isin(family)].ImageID)
    assert len(denied) == mirror.verified_negatives > 0
    assert not with_boats & set(denied.ImageID)
    assert mirror.unverified_negatives > 0


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_turning_by_the_rotation_puts_image_and_boxes_upright(turn: int) -> None:
    picture = Image.new("RGB", (40, 20), (0, 0, 200))
    picture.paste((250, 0, 0), (4, 2, 20, 8))
    xyxy = (0.1, 0.1, 0.5, 0.4)
    clicks = ((0.2, 0.1), (0.1, 0.3), (0.4, 0.4), (0.5, 0.2))
    scene = Scene(picture, (DrawnObject("Boat", xyxy, clicks),), Kind.BOATS)
    stored, (drawn,) = writer._turned(scene, (360 - turn) % 360)
    upright = stored.rotate(turn, expand=True)
    assert upright.tobytes() == picture.tobytes()
    assert boxes.rotate_ccw(np.array([drawn.xyxy]), turn)[0] == pytest.approx(xyxy)
    # In the stored pixels the colour is where the stored box says.
    width, height = stored.size
    left, top, right, bottom = (
        round(value * side)
        for value, side in zip(drawn.xyxy, (width, height, width, height), strict=True)
    )
    inside = np.asarray(stored)[top:bottom, left:right]
    assert (inside[..., 0] == 250).all()
    assert (np.asarray(stored)[..., 0] == 250).sum() == inside[..., 0].size
    at_top, at_left, at_bottom, at_right = drawn.clicks
    edges = (at_left[0], at_top[1], at_right[0], at_bottom[1])
    assert edges == pytest.approx(drawn.xyxy)


def test_originals_of_turned_images_say_so_in_their_exif(mirror: Mirror) -> None:
    images = _table(mirror, writer.IMAGE_FILES["train"])
    turned = images[images.Rotation.isin(["90.0", "180.0", "270.0"])]
    assert len(turned) == sum(mirror.rotated.values()) == 3
    for row in turned.itertuples():
        path = mirror.folder / urlsplit(str(row.OriginalURL)).path.lstrip("/")
        with Image.open(path) as image:
            assert "exif" in image.info
            assert image.getexif()[0x0112] == {"90.0": 8, "180.0": 3, "270.0": 6}[str(row.Rotation)]


def test_few_mirrored_files_kept_their_exif(mirror: Mirror) -> None:
    folder = mirror.folder / "open-images-dataset" / "train"
    kept = 0
    for path in folder.iterdir():
        with Image.open(path) as image:
            kept += "exif" in image.info
    assert 0 < kept < sum(mirror.rotated.values())


def test_a_full_mirror_is_planned_with_many_authors_of_moderate_shares() -> None:
    shots = [shot for shot in plan(0, writer.SCENES) if shot.subset == "train"]
    assert len(shots) == writer.SCENES
    assert [shot.image_id for shot in shots] == sorted({shot.image_id for shot in shots})
    authors = pd.Series([shot.author for shot in shots]).value_counts()
    assert len(authors) >= 40
    assert authors.max() <= 22
    marinas = sum(shot.kind is Kind.MARINA for shot in shots)
    assert 0 < marinas <= 0.03 * len(shots)
    boats = sum(shot.kind is not Kind.NO_BOATS and shot.fate is Fate.FINE for shot in shots)
    assert boats >= 640
    turned = [shot for shot in shots if shot.rotation]
    assert {shot.rotation for shot in turned} == {90, 180, 270}
    assert 0.02 < len(turned) / len(shots) < 0.04
    assert all(shot.kind is Kind.BOATS and shot.fate is Fate.FINE for shot in turned)


def test_another_seed_is_another_mirror() -> None:
    first, second = ({shot.image_id for shot in plan(seed, 40)} for seed in (0, 1))
    assert not first & second


def test_too_few_scenes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 20, found 3"):
        plan(0, 3)


def test_writing_again_gives_the_same_bytes_and_writing_twice_does_nothing(
    mirror: Mirror, tmp_path: Path
) -> None:
    again = write_mirror(
        tmp_path / "m", base_url=mirror.base_url, seed=mirror.seed, scenes=mirror.scenes, workers=1
    )
    assert replace(again, folder=mirror.folder) == mirror
    assert _content(again.folder) == _content(mirror.folder)
    before = {path: path.stat().st_mtime_ns for path in again.folder.rglob("*")}
    assert (
        write_mirror(
            tmp_path / "m", base_url=mirror.base_url, seed=mirror.seed, scenes=mirror.scenes
        )
        == again
    )
    assert {path: path.stat().st_mtime_ns for path in again.folder.rglob("*")} == before
    # Another address changes the lists that hold addresses, and nothing else.
    moved = write_mirror(
        tmp_path / "m", base_url="http://127.0.0.1:65000", seed=mirror.seed, scenes=mirror.scenes
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
    # What a killed run left is written anew.
    (tmp_path / "m" / "mirror.json").write_text(
        json.dumps(
            {"made_from": {"form": writer.FORM, "seed": mirror.seed, "scenes": mirror.scenes}}
        )
    )
    (tmp_path / "m" / "openimages" / writer.HIERARCHY_FILE).unlink()
    write_mirror(tmp_path / "m", base_url=mirror.base_url, seed=mirror.seed, scenes=mirror.scenes)
    assert _content(tmp_path / "m") == old


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="no demo mirror"):
        write_mirror(tmp_path, base_url="http://127.0.0.1:1", scenes=20)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
