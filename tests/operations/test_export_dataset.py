"""export coco, voc, ...: which images and boxes, in which pixels, and what is never overwritten."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import LockedError, UsageError
from oiyolo.operations.export_dataset import DatasetExported, contents, folder
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli

FORMATS = ("coco", "voc", "yolo-yaml", "openimages", "fiftyone", "tfrecord")
CORNERS = ["XMin", "YMin", "XMax", "YMax"]


@pytest.fixture(scope="module")
def split_project(make_project: Callable[..., Path]) -> Path:
    project = make_project(limit=30, negatives=0.2, train=0.6, valid=0.2, test=0.2)
    oiyolo.fetch(project)
    oiyolo.split(project)
    return project


@pytest.fixture
def project(split_project: Path, tmp_path: Path) -> Path:
    return shutil.copytree(split_project, tmp_path / "project")


def coco(project: Path, **options: Any) -> DatasetExported:
    exported = oiyolo.export_coco(project, **options)
    assert isinstance(exported, DatasetExported)
    return exported


def coco_boxes(path: Path) -> dict[str, list[tuple[float, ...]]]:
    """Return the boxes of each image as fractions, by id, and check the sizes of the images."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for file in sorted((path / "annotations").iterdir()):
        content = json.loads(file.read_text())
        pictures = path / file.stem.removeprefix("instances_")
        for image in content["images"]:
            width, height = image["width"], image["height"]
            with Image.open(pictures / image["file_name"]) as picture:
                assert picture.size == (width, height)
                assert picture.getexif().get(0x0112, 1) == 1
            found[image["file_name"][:16]] = [
                (x / width, y / height, (x + w) / width, (y + h) / height)
                for x, y, w, h in (
                    box["bbox"] for box in content["annotations"] if box["image_id"] == image["id"]
                )
            ]
    return found


def prepared_boxes(project: Path) -> dict[str, list[tuple[float, ...]]]:
    table = prepare_stage.boxes_table(oiyolo.open_project(project))
    table = table[table["used"]]
    return {
        str(image_id): [tuple(row) for row in rows[CORNERS].to_numpy().tolist()]
        for image_id, rows in table.groupby("ImageID")
    }


def ids_of(project: Path, split: str) -> list[str]:
    lines = (project / "data" / "dataset" / f"{split}.txt").read_text().split()
    return sorted(line.rpartition("/")[2][:-4] for line in lines)


@pytest.mark.parametrize("form", FORMATS)
def test_a_second_export_does_nothing(
    project: Path, cli: Cli, digests: Callable[[Path], dict[str, str]], form: str
) -> None:
    planned = cli.ok("export", form, "--dry-run", "--json", project=project).json
    assert len(planned["would"]) == 1
    assert not (project / "exports").exists()
    first = cli.ok("export", form, "--json", project=project).json
    folder = project / "exports" / form
    assert (first["path"], first["is_new"]) == (str(folder), True)
    assert (
        first["images"]
        == planned["images"]
        == {split: len(ids_of(project, split)) for split in ("train", "valid", "test")}
    )
    assert first["boxes"] == sum(map(len, prepared_boxes(project).values()))
    assert (folder / "CREDITS.csv").is_file()
    before = digests(folder)
    again = cli.ok("export", form, "--json", project=project).json
    assert again == {**first, "is_new": False}
    assert cli.ok("export", form, "--dry-run", "--json", project=project).json["would"] == []
    assert digests(folder) == before
    assert [path.name for path in (project / "exports").iterdir()] == [form]


def test_originals_are_exported_upright_with_their_boxes(project: Path) -> None:
    exported = coco(project)
    assert exported.pixels["rotated"] > 0
    assert exported.pixels[""] + exported.pixels["rotated"] == sum(exported.images.values())
    found = coco_boxes(exported.path)
    # Prepared images are the upright originals, stretched.
    expected = prepared_boxes(project)
    assert {image_id: boxes for image_id, boxes in found.items() if boxes}.keys() == expected.keys()
    for image_id, boxes in expected.items():
        np.testing.assert_allclose(found[image_id], boxes, atol=2e-6)
    rotated = 0
    for image_id in found:
        original = project / "data" / "images" / f"{image_id}.jpg"
        (copy,) = exported.path.rglob(f"{image_id}.jpg")
        rotated += copy.read_bytes() != original.read_bytes()
    assert rotated == exported.pixels["rotated"]


def test_rotated_pixels_agree_with_the_prepared_image(project: Path) -> None:
    exported = coco(project)
    images = select_stage.load(oiyolo.open_project(project)).images
    rotated = set(images.loc[images["Rotation"] > 0, "ImageID"]) & coco_boxes(exported.path).keys()
    for image_id in rotated:
        (copy,) = exported.path.rglob(f"{image_id}.jpg")
        prepared = project / "data" / "dataset" / "obj" / f"{image_id}.jpg"
        with Image.open(copy) as found, Image.open(prepared) as expected:
            small = np.asarray(found.resize(expected.size, Image.Resampling.LANCZOS)).astype(int)
            assert abs(small - np.asarray(expected)).mean() < 6


def test_prepared_images_are_exported_on_request(project: Path) -> None:
    exported = coco(project, images="prepared", split=["test"])
    assert exported.path.name == "coco-test"
    assert exported.pixels == {contents.PREPARED: exported.images["test"]}
    found = coco_boxes(exported.path)
    assert sorted(found) == ids_of(project, "test")
    for image_id, boxes in prepared_boxes(project).items():
        if image_id in found:
            np.testing.assert_allclose(found[image_id], boxes, atol=1e-6)
            (copy,) = exported.path.rglob(f"{image_id}.jpg")
            prepared = project / "data" / "dataset" / "obj" / copy.name
            assert copy.read_bytes() == prepared.read_bytes()


def test_an_original_that_is_gone_or_damaged_is_replaced_by_the_prepared_image(
    project: Path, cli: Cli
) -> None:
    first, second, *_ = ids_of(project, "train")
    (project / "data" / "images" / f"{first}.jpg").unlink()
    (project / "data" / "images" / f"{second}.jpg").write_bytes(b"\xff\xd8\xffgarbage")
    done = cli.ok("export", "coco", "--json", project=project).json
    assert (done["pixels"]["missing"], done["pixels"]["unreadable"]) == (1, 1)
    found = coco_boxes(project / "exports" / "coco")
    for image_id in (first, second):
        expected = prepared_boxes(project).get(image_id, [])
        np.testing.assert_allclose(found[image_id], expected, atol=2e-6)


def test_open_images_boxes_are_those_of_the_stored_image_with_its_rotation(project: Path) -> None:
    exported = oiyolo.export_openimages(project)
    assert isinstance(exported, DatasetExported)
    selection = select_stage.load(oiyolo.open_project(project))
    turns = selection.images["Rotation"].fillna(0)
    rotations = dict(zip(selection.images["ImageID"], turns, strict=True))
    seen = 0
    for subset, kind in (("train", "boxable-"), ("validation", ""), ("test", "")):
        boxes = pd.read_csv(exported.path / f"{subset}-annotations-bbox.csv")
        for image_id, rows in boxes.groupby("ImageID"):
            stored = selection.boxes[selection.boxes["ImageID"] == image_id]
            np.testing.assert_allclose(rows[CORNERS], stored[CORNERS], atol=1e-6)
            original = project / "data" / "images" / f"{image_id}.jpg"
            assert (exported.path / subset / original.name).read_bytes() == original.read_bytes()
        listed = exported.path / f"{subset}-images-{kind}with-rotation.csv"
        with listed.open(newline="") as file:
            for row in csv.DictReader(file):
                assert float(row["Rotation"]) == rotations[row["ImageID"]]
                seen += float(row["Rotation"]) > 0
    assert seen > 0


@pytest.mark.parametrize(
    ("reason", "ignored"), [("difficult", 1), ("group_of", 1), ("masked", 1), ("occluded", 0)]
)
def test_a_box_dropped_as_difficult_or_a_group_is_exported_as_such(
    project: Path, monkeypatch: pytest.MonkeyPatch, reason: str, ignored: int
) -> None:
    table = prepare_stage.boxes_table(oiyolo.open_project(project))
    row = int(np.flatnonzero(table["used"])[0])
    is_changed = np.arange(len(table)) == row
    flag = "IsDifficult" if reason == "difficult" else "IsGroupOf"
    table["used"] &= ~is_changed
    table["dropped_because"] = np.where(is_changed, reason, table["dropped_because"])
    table[flag] = np.where(is_changed, 1, -1)
    monkeypatch.setattr(prepare_stage, "boxes_table", lambda _: table)
    exported = coco(project)
    assert exported.boxes == table["used"].sum()
    assert exported.ignored_boxes == ignored
    assert sum(map(len, coco_boxes(exported.path).values())) == exported.boxes + ignored
    yolo = oiyolo.export_yolo_yaml(project)
    assert isinstance(yolo, DatasetExported)
    assert (yolo.boxes, yolo.ignored_boxes) == (exported.boxes, 0)


def test_a_folder_of_others_is_never_touched(project: Path, cli: Cli, tmp_path: Path) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(own)
    for out in (own, link, own / "notes.txt"):
        assert cli("export", "coco", "--out", out, project=project).code == UsageError.exit_code
        assert cli("export", "coco", "--out", out, "--dry-run", project=project).code == 2
    assert [path.name for path in own.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["annotations/instances_val.json", "notes.txt"])
def test_an_export_that_was_edited_is_not_replaced(project: Path, name: str) -> None:
    path = coco(project).path
    (path / name).write_text("edited by hand")
    (path / "labels.cache").write_bytes(b"")  # as ultralytics adds
    with pytest.raises(UsageError) as caught:
        coco(project, images="prepared")
    assert name in caught.value.found
    assert (path / name).read_text() == "edited by hand"


def test_a_stale_export_is_replaced_and_a_damaged_one_is_not_up_to_date(project: Path) -> None:
    path = coco(project).path
    shutil.copytree(path, path.with_name("copy"))
    (path / "labels.cache").write_bytes(b"")
    assert coco(project, images="prepared", out=path).is_new
    assert not (path / "labels.cache").exists()
    assert not coco(project, images="prepared", out=path).is_new
    next(path.rglob("*.jpg")).unlink()
    assert coco(project, images="prepared", out=path).is_new
    # A copy has other times: it is up to date, but is not replaced.
    assert not coco(project, out=path.with_name("copy")).is_new


def test_an_interrupted_export_leaves_nothing_and_the_next_one_is_complete(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_record", fail)
        with pytest.raises(KeyboardInterrupt):
            coco(project)
    assert list((project / "exports").iterdir()) == []
    left = project / "exports" / ".coco.part" / "content"  # as after kill -9
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"")
    path = coco(project).path
    assert list(path.rglob("half.jpg")) == []
    assert [entry.name for entry in path.parent.iterdir()] == ["coco"]


def test_two_processes_cannot_write_the_same_folder(tmp_path: Path) -> None:
    with (
        folder.replace(tmp_path / "out"),
        pytest.raises(LockedError),
        folder.replace(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out").is_dir()


def test_a_dataset_that_is_not_split_or_out_of_date_is_not_exported(
    project: Path, make_project: Callable[..., Path], cli: Cli
) -> None:
    assert cli("export", "coco", project=make_project()).code == 2
    oiyolo.select(project, limit=20)
    done = cli("export", "coco", project=project)
    assert done.code == UsageError.exit_code
    assert "oiyolo split" in done.err


def test_wrong_options_are_usage_errors(project: Path) -> None:
    with pytest.raises(UsageError):
        coco(project, split="validation")
    wrong: Any = "thumbnails"
    with pytest.raises(UsageError):
        coco(project, images=wrong)


PIPELINE = """\
model { ssd { num_classes: 90 feature_extractor { type: "ssd_mobilenet_v2_keras" } } }
train_config { batch_size: 64 num_steps: 1000 fine_tune_checkpoint: "x" }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "pipeline.config").write_text(PIPELINE)
    for suffix in (".index", ".data-00000-of-00001"):
        (folder / "checkpoint" / f"ckpt-0{suffix}").write_text(suffix)
    return folder


def test_tfod_writes_a_project_from_a_downloaded_model(
    project: Path, cli: Cli, model: Path
) -> None:
    first = cli.ok("export", "tfod", "--pipeline", model, "--json", project=project).json
    path = project / "exports" / "tfod"
    assert '"model/ckpt-0"' in (path / "pipeline.config").read_text()
    assert (path / "model" / "ckpt-0.index").is_file()
    assert len(list(path.glob("*.tfrecord"))) == 3
    again = cli.ok("export", "tfod", "--pipeline", model / "pipeline.config", "--json",
                   project=project).json  # fmt: skip
    assert again == {**first, "is_new": False}
    (path / "training").mkdir()
    (path / "training" / "ckpt-1.index").write_text("trained")
    done = cli("export", "tfod", "--pipeline", model, "--steps", "50", project=project)
    assert done.code == UsageError.exit_code  # the trained detector is not deleted
    assert (path / "training" / "ckpt-1.index").is_file()


@pytest.mark.parametrize("name", ["ckpt-0", "ckpt-0.index", "ckpt-0.data-00000-of-00001", "."])
def test_any_name_of_a_checkpoint_is_understood(project: Path, model: Path, name: str) -> None:
    exported = oiyolo.export_tfod(
        project, pipeline=model, checkpoint=model / "checkpoint" / name, dry_run=True
    )
    assert "would" in exported.as_dict()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--pipeline", "missing"],
        ["--pipeline", "{model}", "--checkpoint", "{model}/checkpoint/ckpt-1"],
        ["--pipeline", "{model}", "--checkpoint", "{model}"],
    ],
)
def test_a_missing_pipeline_or_checkpoint_is_a_usage_error(
    project: Path, cli: Cli, model: Path, options: list[str]
) -> None:
    words = [option.format(model=model) for option in options]
    done = cli("export", "tfod", *words, project=project)
    assert done.code == UsageError.exit_code
    assert not (project / "exports").exists()
