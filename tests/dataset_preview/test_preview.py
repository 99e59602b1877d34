"""The files of a preview, and when they are written again."""

from __future__ import annotations

import dataclasses
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from oiyolo.dataset_preview.dataset import Pair
from oiyolo.dataset_preview.preview import write_preview
from oiyolo.dataset_preview.sampling import random_ids

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.dataset_preview.dataset import PreviewDataset

CHARTS = {
    f"{name}.{kind}"
    for name in ("box_sizes", "aspect_ratios", "positions", "boxes_per_image", "classes")
    for kind in ("png", "svg")
}
BOX = (0.25, 0.25, 0.75, 0.75)
PAIRS = [Pair("0003", "0004", 2)]


def modification_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture(scope="module")
def preview(
    make_random_dataset: Callable[..., PreviewDataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreviewDataset, Path, list[Path]]:
    folder = tmp_path_factory.mktemp("preview")
    dataset = make_random_dataset(
        folder / "obj", 60, rotation_by_id={"0001": 90, "0002": 270}, duplicates=PAIRS
    )
    return dataset, folder / "look", write_preview(dataset, folder / "look")


def test_all_sheets_and_charts_are_written_and_readable(
    preview: tuple[PreviewDataset, Path, list[Path]],
) -> None:
    _, folder, paths = preview
    sheets = ["train", "valid", "test", "rotated-1", "smallest", "largest", "duplicates"]
    expected = {"index.html", *(f"{name}.jpg" for name in sheets), *CHARTS}
    assert paths[0] == folder / "index.html"
    assert {path.name for path in paths} == expected
    assert {path.name for path in folder.iterdir()} == {*expected, ".looked-from.json"}
    for path in paths:
        if path.suffix in {".jpg", ".png"}:
            with Image.open(path) as image:
                image.load()
                assert image.width == 1200


def test_the_page_shows_every_image_file(
    preview: tuple[PreviewDataset, Path, list[Path]],
) -> None:
    _, folder, paths = preview
    html = (folder / "index.html").read_text(encoding="utf-8")
    urls = set(re.findall(r'(?:src|href)="([^"#]+)"', html)) - {"data:,"}
    shown = {url for url in urls if url.startswith("../obj/")}
    assert urls - shown == {path.name for path in paths} - {"index.html"}
    assert not re.search(r"https?://", html)
    anchors = set(re.findall(r'href="#(\w+)"', html))
    assert anchors <= set(re.findall(r' id="(\w+)"', html))


def test_an_unchanged_dataset_is_not_drawn_again(
    preview: tuple[PreviewDataset, Path, list[Path]],
) -> None:
    dataset, folder, paths = preview
    before = modification_times(folder)
    assert write_preview(dataset, folder) == paths
    assert modification_times(folder) == before


@pytest.fixture
def preview_copy(
    preview: tuple[PreviewDataset, Path, list[Path]], tmp_path: Path
) -> tuple[PreviewDataset, Path]:
    """Return a copy of the dataset and its preview that a test may change."""
    dataset, folder, _ = preview
    shutil.copytree(folder.parent, tmp_path / "copy")
    images_folder = tmp_path / "copy" / "obj"
    return dataclasses.replace(dataset, images_folder=images_folder), tmp_path / "copy" / "look"


def test_a_missing_file_is_drawn_again_with_identical_bytes(
    preview: tuple[PreviewDataset, Path, list[Path]], preview_copy: tuple[PreviewDataset, Path]
) -> None:
    dataset, folder = preview_copy
    (folder / "classes.svg").unlink()
    (folder / "train.jpg").write_bytes(b"damaged")
    for first, second in zip(preview[2], write_preview(dataset, folder), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_changed_image_is_drawn_again(preview_copy: tuple[PreviewDataset, Path]) -> None:
    dataset, folder = preview_copy
    before = (folder / "train.jpg").read_bytes()
    image_id = random_ids(dataset.ids_by_split["train"], 1)[0]
    Image.new("RGB", (64, 64), (250, 0, 0)).save(dataset.image_path(image_id))
    write_preview(dataset, folder)
    assert (folder / "train.jpg").read_bytes() != before


def changed_boxes(dataset: PreviewDataset) -> dict[str, Any]:
    boxes = dataset.boxes.copy()
    boxes.loc[0, "XMin"] = 0.0
    return {"boxes": boxes}


CHANGES: dict[str, Callable[[PreviewDataset], dict[str, Any]]] = {
    "the boxes": changed_boxes,
    "the splits": lambda dataset: {"split_by_id": {**dataset.split_by_id, "0000": "test"}},
    "classes": lambda _: {"class_names": ["Ship", "Oar"]},
    "size": lambda _: {"size_wh": (608, 416)},
    "rotations": lambda _: {"rotation_by_id": {"0001": 180}},
    "duplicates": lambda _: {"duplicates": [Pair("0003", "0004", 3)]},
    "original sizes": lambda _: {"original_sizes_wh": {"0001": (640, 480)}},
    "anchors": lambda _: {"anchors_wh": [(10, 13)]},
}


@pytest.mark.parametrize("changed_input", CHANGES)
def test_every_input_is_in_the_fingerprint(
    make_random_dataset: Callable[..., PreviewDataset], tmp_path: Path, changed_input: str
) -> None:
    options = {"rotation_by_id": {"0001": 90, "0002": 0}, "duplicates": PAIRS}
    dataset = make_random_dataset(tmp_path, 20, **options)
    before = dataset.fingerprint()
    changed = dataclasses.replace(dataset, **CHANGES[changed_input](dataset)).fingerprint()
    assert {name for name in before if before[name] != changed[name]} == {changed_input}
    assert make_random_dataset(tmp_path, 20, **options).fingerprint() == before


def test_a_changed_dataset_is_drawn_again_and_old_sheets_are_removed(
    make_random_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    folder = tmp_path / "look"
    write_preview(
        make_random_dataset(tmp_path / "obj", 12, rotation_by_id={"0001": 90}, duplicates=PAIRS),
        folder,
    )
    (folder / "my-own.jpg").write_bytes(b"of the user")
    (folder / ".train.jpg.1-1.part").write_bytes(b"half")
    names = {path.name for path in write_preview(make_random_dataset(tmp_path / "obj", 12), folder)}
    assert not {"rotated-1.jpg", "duplicates.jpg"} & names
    assert {path.name for path in folder.iterdir()} == {*names, ".looked-from.json", "my-own.jpg"}


def test_an_interrupted_preview_is_drawn_again(
    make_random_dataset: Callable[..., PreviewDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "look"
    dataset = make_random_dataset(tmp_path / "obj", 12)
    with monkeypatch.context() as patch:
        patch.setattr("oiyolo.dataset_preview.charts.save_charts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_preview(dataset, folder)
    assert (folder / "train.jpg").is_file()
    assert not {"index.html", ".looked-from.json"} & {path.name for path in folder.iterdir()}
    assert all(path.is_file() for path in write_preview(dataset, folder))


def test_a_dataset_without_images_has_no_preview(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    assert write_preview(make_dataset(tmp_path / "obj", [], {}), tmp_path / "look") == []
    assert not (tmp_path / "look").exists()


SCRIPTS = ["Boat & <b>Co</b>", "Лодка", "船", "قارب", "\U0001bc99", "$x_1$", "x" * 200]
EDGE_CASES: dict[str, tuple[list[Any], dict[str, str], dict[str, Any], set[str]]] = {
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
    "case", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in EDGE_CASES]
)
def test_small_and_unusual_datasets_are_drawn(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path, case: str
) -> None:
    rows, splits, options, sheets = EDGE_CASES[case]
    dataset = make_dataset(tmp_path / "obj", rows, splits, **options)
    paths = write_preview(dataset, tmp_path / "look")
    assert {path.name for path in paths} == {"index.html", *(f"{n}.jpg" for n in sheets), *CHARTS}
    html = paths[0].read_text(encoding="utf-8")
    assert "<b>Co" not in html
    for name in dataset.class_names:
        if "<" not in name:
            assert name in html
