"""All of it: what is left in the folder, and when."""

from __future__ import annotations

import dataclasses
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from oiyolo.dataset_preview.charts import NAMES
from oiyolo.dataset_preview.facts import Pair
from oiyolo.dataset_preview.preview import look
from oiyolo.dataset_preview.sampling import by_lot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.dataset_preview.facts import Facts

CHARTS = {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}
BOX = (0.25, 0.25, 0.75, 0.75)
PAIRS = [Pair("0003", "0004", 2)]


def state(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture(scope="module")
def looked(
    many: Callable[..., Facts], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Facts, Path, list[Path]]:
    folder = tmp_path_factory.mktemp("looked")
    facts = many(folder / "obj", 60, rotation_by_id={"0001": 90, "0002": 270}, duplicates=PAIRS)
    return facts, folder / "look", look(facts, folder / "look")


def test_everything_is_there_and_readable(looked: tuple[Facts, Path, list[Path]]) -> None:
    _, folder, made = looked
    sheets = ["train", "valid", "test", "rotated-1", "smallest", "largest", "duplicates"]
    expected = {"index.html", *(f"{name}.jpg" for name in sheets), *CHARTS}
    assert made[0] == folder / "index.html"
    assert {path.name for path in made} == expected
    assert {path.name for path in folder.iterdir()} == {*expected, ".looked-from.json"}
    for path in made:
        if path.suffix in {".jpg", ".png"}:
            with Image.open(path) as image:
                image.load()
                assert image.width == 1200


def test_the_page_shows_every_picture_that_is_there(
    looked: tuple[Facts, Path, list[Path]],
) -> None:
    _, folder, made = looked
    html = (folder / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert set(shown) == {path.name for path in made} - {"index.html"}
    assert "<script" not in html
    assert "http" not in html
    anchors = set(re.findall(r'href="#(\w+)"', html))
    assert anchors == set(re.findall(r'<h2 id="(\w+)"', html))


def test_a_second_look_does_nothing(looked: tuple[Facts, Path, list[Path]]) -> None:
    facts, folder, made = looked
    before = state(folder)
    assert look(facts, folder) == made
    assert state(folder) == before


@pytest.fixture
def copied(looked: tuple[Facts, Path, list[Path]], tmp_path: Path) -> tuple[Facts, Path]:
    """Give what was looked at, for one test alone."""
    facts, folder, _ = looked
    shutil.copytree(folder.parent, tmp_path / "copy")
    images_folder = tmp_path / "copy" / "obj"
    return dataclasses.replace(facts, images_folder=images_folder), tmp_path / "copy" / "look"


def test_a_picture_that_is_gone_is_made_again_to_the_same_bytes(
    looked: tuple[Facts, Path, list[Path]], copied: tuple[Facts, Path]
) -> None:
    facts, folder = copied
    (folder / "classes.svg").unlink()
    (folder / "train.jpg").write_bytes(b"not even looked at")
    for first, second in zip(looked[2], look(facts, folder), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_new_pixels_are_looked_at(copied: tuple[Facts, Path]) -> None:
    facts, folder = copied
    before = (folder / "train.jpg").read_bytes()
    shown = by_lot(facts.ids_of["train"], 1)[0]
    Image.new("RGB", (64, 64), (250, 0, 0)).save(facts.image_path(shown))
    look(facts, folder)
    assert (folder / "train.jpg").read_bytes() != before


def changed_boxes(facts: Facts) -> dict[str, Any]:
    boxes = facts.boxes.copy()
    boxes.loc[0, "XMin"] = 0.0
    return {"boxes": boxes}


CHANGES: dict[str, Callable[[Facts], dict[str, Any]]] = {
    "the boxes": changed_boxes,
    "the splits": lambda facts: {"split_by_id": {**facts.split_by_id, "0000": "test"}},
    "classes": lambda _: {"class_names": ["Ship", "Oar"]},
    "size": lambda _: {"size_wh": (608, 416)},
    "rotations": lambda _: {"rotation_by_id": {"0001": 180}},
    "duplicates": lambda _: {"duplicates": [Pair("0003", "0004", 3)]},
    "original sizes": lambda _: {"original_sizes_wh": {"0001": (640, 480)}},
    "anchors": lambda _: {"anchors_wh": [(10, 13)]},
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_is_shown_is_in_the_fingerprint(
    many: Callable[..., Facts], tmp_path: Path, what: str
) -> None:
    given = {"rotation_by_id": {"0001": 90, "0002": 0}, "duplicates": PAIRS}
    facts = many(tmp_path, 20, **given)
    before = facts.fingerprint()
    changed = dataclasses.replace(facts, **CHANGES[what](facts)).fingerprint()
    assert {name for name in before if before[name] != changed[name]} == {what}
    assert many(tmp_path, 20, **given).fingerprint() == before


def test_a_change_is_looked_at_and_what_is_gone_is_removed(
    many: Callable[..., Facts], tmp_path: Path
) -> None:
    folder = tmp_path / "look"
    look(many(tmp_path / "obj", 12, rotation_by_id={"0001": 90}, duplicates=PAIRS), folder)
    (folder / "my-own.jpg").write_bytes(b"mine")
    (folder / ".train.jpg.1-1.part").write_bytes(b"half")
    names = {path.name for path in look(many(tmp_path / "obj", 12), folder)}
    assert not {"rotated-1.jpg", "duplicates.jpg"} & names
    assert {path.name for path in folder.iterdir()} == {*names, ".looked-from.json", "my-own.jpg"}


def test_a_look_that_was_cut_short_is_made_again(
    many: Callable[..., Facts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "look"
    facts = many(tmp_path / "obj", 12)
    with monkeypatch.context() as patch:
        patch.setattr("oiyolo.dataset_preview.charts.save_charts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            look(facts, folder)
    assert (folder / "train.jpg").is_file()
    assert not {"index.html", ".looked-from.json"} & {path.name for path in folder.iterdir()}
    assert all(path.is_file() for path in look(facts, folder))


def test_without_any_image_there_is_nothing(facts_of: Callable[..., Facts], tmp_path: Path) -> None:
    assert look(facts_of(tmp_path / "obj", [], {}), tmp_path / "look") == []
    assert not (tmp_path / "look").exists()


SCRIPTS = ["Boat & <b>Co</b>", "Лодка", "船", "قارب", "\U0001bc99", "$x_1$", "x" * 200]
EDGES: dict[str, tuple[list[Any], dict[str, str], dict[str, Any], set[str]]] = {
    "one image and one box": ([("a", 0, BOX, True)], {"a": "train"}, {},
                              {"train", "smallest", "largest"}),
    "negatives only": ([], {"a": "train", "b": "valid"}, {}, {"train", "valid"}),
    "names in any script, no test split": (
        [("a", n, BOX, True) for n in range(7)], {"a": "train", "b": "valid"},
        {"class_names": SCRIPTS}, {"train", "valid", "smallest", "largest"}),
    "600 classes": (
        [("a", n, BOX, True) for n in range(600)], {"a": "train"},
        {"class_names": [f"Class {n}" for n in range(600)]}, {"train", "smallest", "largest"}),
    "a wide network, a tiny box, test only": (
        [("a", 0, (0.5, 0.5, 0.5001, 0.5001), True)], {"a": "test"}, {"size_wh": (1216, 32)},
        {"test", "smallest", "largest"}),
}  # fmt: skip


QUICK = {"one image and one box", "names in any script, no test split"}


@pytest.mark.parametrize(
    "case", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in EDGES]
)
def test_small_and_odd_datasets_are_looked_at(
    facts_of: Callable[..., Facts], tmp_path: Path, case: str
) -> None:
    rows, splits, more, sheets = EDGES[case]
    facts = facts_of(tmp_path / "obj", rows, splits, **more)
    made = look(facts, tmp_path / "look")
    assert {path.name for path in made} == {"index.html", *(f"{n}.jpg" for n in sheets), *CHARTS}
    html = made[0].read_text(encoding="utf-8")
    assert "<b>Co" not in html
    for name in facts.class_names:
        if "<" not in name:
            assert name in html
