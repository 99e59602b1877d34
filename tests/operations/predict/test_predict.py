"""predict: from sources to outputs, with a detector of red."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import UsageError
from oiyolo.demo_data.server import serve
from oiyolo.imagery import labels
from oiyolo.operations.predict.video import Video
from tests.operations.predict.conftest import RED_XYXY, SIZE_WH, picture, save, save_video

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

pytestmark = pytest.mark.usefixtures("detector")
EVERYTHING = "pictures,json,csv,yolo"
XYXY = list(RED_XYXY)


def outputs(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_every_format_has_the_detections_of_an_image(here: Path, cli: Cli) -> None:
    save(here / "photos" / "a.jpg")
    save(here / "photos" / "b.png")
    done = cli.ok(
        "predict", "photos", "--format", "pictures,json", "--format", "csv,yolo", "--json"
    )
    expected = {
        "images": [
            {
                "source": f"photos/{name}",
                "width": 64,
                "height": 40,
                "detections": [{"class": "red", "class_id": 0, "confidence": 0.875, "xyxy": XYXY}],
            }
            for name in ("a.jpg", "b.png")
        ],
        "failed": {},
    }
    out = here / "predictions"
    assert json.loads(done.out) == expected
    assert json.loads((out / "predictions.json").read_text()) == expected
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [row["source"] for row in rows] == ["photos/a.jpg", "photos/b.png"]
    assert [float(rows[0][side]) for side in ("left", "top", "right", "bottom")] == XYXY
    class_ids, fractions = labels.read(out / "labels" / "a.txt")
    assert class_ids.tolist() == [0]
    assert np.allclose(fractions * np.tile(SIZE_WH, 2), XYXY, atol=1e-4)
    assert (out / "labels" / "classes.txt").read_text() == "red\nblue\n"
    assert (out / "obj.names").read_text() == "red\nblue\n"
    with Image.open(out / "b.jpg") as drawn:
        assert drawn.size == SIZE_WH
        assert np.abs(np.asarray(drawn).astype(int) - np.asarray(picture())).max() > 100


def test_a_result_iterates_over_its_images_and_has_them_as_a_table(here: Path) -> None:
    paths = [save(here / "a.jpg"), save(here / "b.jpg")]
    result = oiyolo.predict(paths, formats=())
    assert [detected.source for detected in result] == [str(path) for path in paths]
    assert result.table[["left", "top", "right", "bottom"]].to_numpy().tolist() == [XYXY, XYXY]
    assert outputs(here) == {"a.jpg", "b.jpg"}
    assert "data:image/" in result._repr_html_()


@pytest.mark.parametrize(
    ("exif", "width", "xyxy"), [("apply", 40, [8, 8, 32, 16]), ("ignore", 64, XYXY)]
)
def test_coordinates_are_those_of_the_upright_image(
    here: Path, exif: Any, width: int, xyxy: list[float]
) -> None:
    orientation = Image.Exif()
    orientation[0x0112] = 6  # turn clockwise
    save(here / "a.jpg", exif=orientation)
    (detected,) = oiyolo.predict("a.jpg", exif=exif)
    assert detected.width == width
    assert detected.xyxy.tolist() == [xyxy]
    with Image.open(here / "predictions" / "a.jpg") as drawn:
        assert drawn.size == (detected.width, detected.height)


def test_the_projects_own_images_are_turned_by_their_rotation_and_not_by_exif(
    make_project: Callable[..., Path], tmp_path: Path
) -> None:
    project = make_project(at=tmp_path / "project")
    images = oiyolo.select(project).images
    row = images.set_index("ImageID").query("Rotation == 90").iloc[:1]
    (image_id,) = row.index
    orientation = Image.Exif()
    orientation[0x0112] = 3
    original = save(tmp_path / f"{image_id}.jpg", exif=orientation)
    unknown = save(tmp_path / f"{'0' * 16}.jpg", exif=orientation)
    turned, other = oiyolo.predict([original, unknown], project=project, formats=())
    assert (turned.width, turned.xyxy.tolist()) == (40, [[8, 48, 32, 56]])  # counter-clockwise
    assert (other.width, other.xyxy.tolist()) == (64, [[48, 8, 56, 32]])
    prepared = project / "data" / "dataset" / "obj" / f"{image_id}.jpg"
    save(prepared)
    (stored,) = oiyolo.predict(prepared, project=project, formats=())
    assert (stored.width, stored.xyxy.tolist()) == (64, [XYXY])


def test_a_broken_image_is_named_and_the_others_continue(here: Path, cli: Cli) -> None:
    content = save(here / "a.jpg").read_bytes()
    (here / "b.jpg").write_bytes(content[: len(content) // 2])
    (here / "c.jpg").write_text("<html>", encoding="utf-8")
    (here / "d.jpg").touch()
    (here / "e.jpg").symlink_to("nowhere")
    os.mkfifo(here / "f.jpg")
    done = cli("predict", ".", "--json", "--format", "csv")
    assert done.code == 3
    result = json.loads(done.out)
    assert [image["source"] for image in result["images"]] == ["a.jpg"]
    assert set(result["failed"]) == {f"{letter}.jpg" for letter in "bcdef"}
    assert all(result["failed"].values())
    assert cli("predict", ".", "--tolerance", "0.9").code == 0
    assert cli("predict", "a.jpg").code == 0


@pytest.mark.parametrize(("failed", "code"), [(1, 0), (2, 3)])
def test_the_tolerance_is_the_share_of_the_sources_that_may_fail(
    here: Path, failed: int, code: int
) -> None:
    for n in range(50):
        (here / f"{n}.jpg").touch() if n < failed else save(here / f"{n}.jpg")
    assert oiyolo.predict(here, formats=()).exit_code == code


def test_a_video_has_an_entry_for_each_frame_and_an_annotated_video(here: Path) -> None:
    save_video(here / "film.avi.mp4", 4)
    (here / "text.mp4").write_text("no video", encoding="utf-8")
    result = oiyolo.predict(".", formats="pictures,yolo,json")
    assert [detected.frame for detected in result] == [0, 1, 2, 3]
    assert [detected.time_s for detected in result] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert list(result.failed) == ["text.mp4"]
    saved = json.loads((here / "predictions" / "predictions.json").read_text())
    assert [image["frame"] for image in saved["images"]] == [0, 1, 2, 3]
    frame_labels = {f"labels/film.avi/00000{n}.txt" for n in range(4)}
    assert frame_labels < outputs(here / "predictions")
    with Video(here / "predictions" / "film.avi.mp4") as video:
        assert sum(1 for _ in video.frames()) == 4
    save_video(here / "film.avi.mp4", 2)
    oiyolo.predict("film.avi.mp4", formats="yolo")
    assert len(list((here / "predictions" / "labels" / "film.avi").iterdir())) == 2


def test_a_video_that_ends_too_early_has_failed_after_its_frames(here: Path) -> None:
    content = save_video(here / "film.mp4", 20).read_bytes()
    index = content.rindex(b"moov")  # the index stays, half of the frames go
    (here / "film.mp4").write_bytes(
        content[: index // 2] + bytes(index - index // 2) + content[index:]
    )
    result = oiyolo.predict("film.mp4")
    assert 0 < len(result) < 20
    assert list(result.failed) == ["film.mp4"]


def test_urls_are_fetched_and_their_failures_are_named(here: Path) -> None:
    folder = here / "site" / "flickr"
    folder.mkdir(parents=True)
    save(here / "photo.jpg").rename(folder / "photo.jpg")
    (folder / "page.html").write_text("<html>an error</html>", encoding="utf-8")
    with serve(here / "site") as server:
        urls = [
            f"{server.base_url}/flickr/{name}"
            for name in ("photo.jpg?secret=1", "page.html", "missing")
        ]
        result = oiyolo.predict(urls, formats="pictures")
        shown = [
            f"{server.base_url}/flickr/{name}" for name in ("photo.jpg", "page.html", "missing")
        ]
    assert [detected.source for detected in result] == shown[:1]
    assert list(result.failed) == shown[1:]
    assert outputs(here / "predictions") == {"photo.jpg", ".made-by-predict"}


def test_a_second_call_replaces_its_own_outputs_and_nothing_else(here: Path) -> None:
    save(here / "a.jpg")
    assert not oiyolo.predict("a.jpg", formats=EVERYTHING).outputs.replaced
    first = outputs(here / "predictions")
    again = oiyolo.predict("a.jpg", formats=EVERYTHING)
    assert again.outputs.replaced == first - {".made-by-predict"}
    save(here / "b.jpg")
    (here / "predictions" / "b.jpg").write_text("a user's file", encoding="utf-8")
    with pytest.raises(UsageError):
        oiyolo.predict("b.jpg")
    assert (here / "predictions" / "b.jpg").read_text() == "a user's file"


def test_a_corrected_label_is_not_replaced(here: Path) -> None:
    save(here / "a.jpg")
    save_video(here / "film.mp4", 2)
    for source, name in (("a.jpg", "a.txt"), ("film.mp4", "film/000001.txt")):
        oiyolo.predict(source, formats="yolo")
        label = here / "predictions" / "labels" / name
        label.write_text("corrected", encoding="utf-8")
        with pytest.raises(UsageError):
            oiyolo.predict(source, formats="yolo")
        assert label.read_text(encoding="utf-8") == "corrected"


def test_outputs_in_a_copied_folder_are_replaced(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    save(here / "a.jpg")
    oiyolo.predict("a.jpg", formats=EVERYTHING)
    copy = tmp_path_factory.mktemp("copies") / "predictions"
    shutil.copytree(here / "predictions", copy, copy_function=shutil.copyfile)  # without times
    assert oiyolo.predict("a.jpg", formats=EVERYTHING, out=copy).images


def test_outputs_of_an_image_that_has_become_unreadable_are_deleted(here: Path) -> None:
    save(here / "a.jpg")
    oiyolo.predict("a.jpg", formats=EVERYTHING)
    (here / "a.jpg").write_bytes(b"")
    oiyolo.predict("a.jpg", formats=EVERYTHING)
    left = {".made-by-predict", "predictions.json", "predictions.csv"}
    assert outputs(here / "predictions") == {*left, "labels/classes.txt", "obj.names"}


@pytest.mark.parametrize("out", [".", "link", "../here"])
def test_a_source_is_never_replaced(here: Path, out: str) -> None:
    content = save(here / "a.jpg").read_bytes()
    (here / "link").symlink_to(".")
    with pytest.raises(UsageError):
        oiyolo.predict("a.jpg", out=out)
    oiyolo.predict("a.jpg", out=out, formats="json,csv,yolo")
    assert (here / "a.jpg").read_bytes() == content


def test_a_failure_of_the_detector_leaves_no_incomplete_file(
    here: Path, detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(here / "a.jpg")
    save_video(here / "b.mp4", 3)
    stream = detector.stream

    def fail_later(items: Any, **options: Any) -> Any:
        for n, result in enumerate(stream(items, **options)):
            if n == 3:
                raise RuntimeError
            yield result

    monkeypatch.setattr(detector, "stream", fail_later)
    with pytest.raises(RuntimeError):
        oiyolo.predict(["a.jpg", "b.mp4"], formats="pictures,json,csv")
    assert outputs(here / "predictions") == {"a.jpg", ".made-by-predict"}
    monkeypatch.undo()


def test_a_dry_run_writes_nothing(here: Path, cli: Cli) -> None:
    save(here / "a.jpg")
    plan = json.loads(cli.ok("predict", "a.jpg", "--dry-run", "--json").out)
    assert plan["command"] == "predict"
    assert plan["sources"] == ["a.jpg"]
    assert len(plan["would"]) == 2
    assert outputs(here) == {"a.jpg"}


@pytest.mark.parametrize(
    "words",
    [
        ["predict"],
        ["predict", "missing.jpg"],
        ["predict", "a.jpg", "--format", "xml"],
        ["predict", "a.jpg", "--out", "a.jpg"],
        ["predict", "a.jpg", "--tolerance", "2"],
        ["predict", "a.jpg", "--batch", "0"],
    ],
)
def test_wrong_usage_has_exit_code_2(here: Path, cli: Cli, words: list[str]) -> None:
    save(here / "a.jpg")
    assert cli(*words).code == 2
    assert outputs(here) == {"a.jpg"}


def test_names_with_controls_and_invalid_bytes_reach_neither_terminal_nor_json_raw(
    here: Path, cli: Cli
) -> None:
    content = save(here / "a.jpg").read_bytes()
    for name in (b"\x1b[31m.jpg", b"\xff.jpg", b"new\nline.jpg"):
        Path(os.fsdecode(os.path.join(os.fsencode(here), name))).write_bytes(content)  # noqa: PTH118
    done = cli.ok("predict", ".", "--format", EVERYTHING)
    assert "\x1b" not in done.out + done.err
    assert "new\\nline.jpg  64x40" in done.out
    done = cli.ok("predict", ".", "--format", EVERYTHING, "--json")
    sources = [image["source"] for image in json.loads(done.out)["images"]]
    assert sorted(sources) == ["\x1b[31m.jpg", "a.jpg", "new\nline.jpg", "\udcff.jpg"]
    text = (here / "predictions" / "predictions.csv").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert len(list(csv.DictReader(io.StringIO(text)))) == 4
