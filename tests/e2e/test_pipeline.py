"""The whole pipeline with a real darknet, through the library and the command line."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pytest
from PIL import Image

import oiyolo
from tests.support.changing_mirror import numbers
from tests.support.mirror_facts import box_counts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Shell, Site

pytestmark = pytest.mark.darknet

ITERATIONS = 60
STAGES = ("select", "fetch", "prepare", "split", "build", "train", "plot", "evaluate", "report")
QUICK_S = 5.0


class FinishedProject(NamedTuple):
    """A project in which every stage has run once through the library."""

    folder: Path
    results: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "demo-001"


@pytest.fixture(scope="module")
def finished(make_project: Callable[..., Path], darknet: Path) -> FinishedProject:
    folder = make_project(
        size=(96, 96),
        network="demo",
        max_batches=ITERATIONS,
        negatives=0.05,
        group_of="drop-box",
        executable=str(darknet),
    )
    return FinishedProject(folder, {stage: getattr(oiyolo, stage)(folder) for stage in STAGES})


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def modification_times(folder: Path) -> dict[str, int]:
    """Return when each file was last written, except locks, the ledger and what refresh records."""
    ignored = ("lock", "ledger", "refresh")
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not any(word in path.name for word in ignored)
    }


# --- the outputs of the stages ---------------------------------------------------------------


def test_every_documented_artifact_exists(finished: FinishedProject) -> None:
    data, run = finished.folder / "data", finished.run
    expected = [
        *(data / "selection" / n for n in ("boxes.csv", "images.csv", "selection.json")),
        data / "selection" / "url-list-0001.tsv",
        data / "images",
        *(data / "dataset" / f"{n}.txt" for n in ("train", "valid", "test")),
        *(data / "dataset" / n for n in ("obj", "boxes.csv", "split.csv", "obj.names")),
        *(run / n for n in ("network.cfg", "obj.data", "obj.names", "train.txt", "valid.txt")),
        *(run / n for n in ("train_log.txt", "weights", "run.json")),
        *(run / "charts" / f"{n}.png" for n in ("loss", "iou")),
        *(run / n for n in ("metrics.csv", "evaluation.json", "panels", "report.html")),
    ]
    assert [path for path in expected if not path.exists()] == []
    assert not list(finished.folder.rglob("*.part"))


def test_selection_json_and_boxes_csv_follow_the_contract(
    finished: FinishedProject, site: Site
) -> None:
    folder = finished.folder / "data" / "selection"
    summary = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
    boxes = rows_of(folder / "boxes.csv")
    used = [row for row in boxes if row["used"] == "True"]
    unused = [row for row in boxes if row["used"] == "False"]
    assert len(used) + len(unused) == len(boxes)
    assert summary["boxes"] == len(used)
    assert summary["images"] == len(rows_of(folder / "images.csv"))
    assert summary["classes"]["Boat"]["boxes"] == len(used)
    assert summary["classes"]["Boat"]["images"] == len({row["ImageID"] for row in used})
    assert summary["excluded"] == {"no box left": 1}
    # The dropped boxes stay in the table, with the reason.
    drawn = box_counts(site.mirror, "train")
    assert {row["dropped_because"] for row in unused} <= {"group_of"}
    lost = sum(drawn[name] for name in ("Boat", "Canoe", "Gondola")) - len(boxes)
    assert 0 < lost <= 2  # of the one image that holds nothing but a group


def test_the_images_are_upright_resized_and_without_exif_and_have_labels(
    finished: FinishedProject,
) -> None:
    objects = finished.folder / "data" / "dataset" / "obj"
    jpegs = sorted(objects.glob("*.jpg"))
    assert [path.stem for path in jpegs] == sorted(path.stem for path in objects.glob("*.txt"))
    images = rows_of(finished.folder / "data" / "selection" / "images.csv")
    negatives = {row["ImageID"] for row in images if row["negative"] == "True"}
    assert negatives
    for path in jpegs:
        with Image.open(path) as image:
            assert image.size == (96, 96)
            assert image.format == "JPEG"
            assert not image.getexif()
        labels = [list(map(float, line.split())) for line in lines_of(path.with_suffix(".txt"))]
        assert bool(labels) == (path.stem not in negatives)
        for class_id, x, y, width, height in labels:
            assert class_id == 0
            for middle, side in ((x, width), (y, height)):
                assert middle - side / 2 >= -1e-6
                assert middle + side / 2 <= 1 + 1e-6


def test_lists_split_csv_and_ledger_agree(finished: FinishedProject, cli: Cli) -> None:
    dataset = finished.folder / "data" / "dataset"
    listed = {
        path.split("/")[-1].removesuffix(".jpg"): name
        for name in ("train", "valid", "test")
        for path in lines_of(dataset / f"{name}.txt")
    }
    table = {row["ImageID"]: row["split"] for row in rows_of(dataset / "split.csv")}
    assert listed == table
    states = cli.ok("status", "--json", project=finished.folder).json["states"]
    for name in ("train", "valid", "test"):
        assert states[name] == sum(split == name for split in listed.values()) > 0
    assert lines_of(dataset / "obj.names") == ["Boat"]


def test_each_author_is_in_one_split(finished: FinishedProject) -> None:
    split_of = {
        row["ImageID"]: row["split"]
        for row in rows_of(finished.folder / "data" / "dataset" / "split.csv")
    }
    splits_of_author: dict[str, set[str]] = {}
    for row in rows_of(finished.folder / "data" / "selection" / "images.csv"):
        if row["ImageID"] in split_of:
            author = splits_of_author.setdefault(row["AuthorProfileURL"], set())
            author.add(split_of[row["ImageID"]])
    assert max(len(splits) for splits in splits_of_author.values()) == 1


def test_the_counts_of_status_add_up(finished: FinishedProject, cli: Cli, site: Site) -> None:
    status = cli.ok("status", "--json", project=finished.folder).json
    assert list(status["states"]) == ["pending", "fetched", "prepared", "train", "valid", "test"]
    total = sum(status["states"].values()) + sum(status["excluded"].values())
    assert total == status["selected"]
    summary = finished.results["select"].as_dict()
    assert status["selected"] == summary["images"]
    dead = {"gone-404", "gone-410", "moved-to-placeholder", "corrupt"}
    lost = sum(len(site.fates[fate]) for fate in dead)
    assert sum(status["excluded"].values()) == lost


def test_why_explains_a_missing_image_and_a_training_image(
    finished: FinishedProject, cli: Cli, site: Site
) -> None:
    (gone,) = site.fates["gone-410"]
    text = cli.ok("why", gone, project=finished.folder).out
    assert "excluded: mirror: HTTP 404, original: HTTP 410" in text
    trained = lines_of(finished.run / "train.txt")[0].split("/")[-1].removesuffix(".jpg")
    story = cli.ok("why", trained, "--json", project=finished.folder).json
    assert [event["stage"] for event in story["events"]] == ["select", "fetch", "prepare", "split"]
    assert all(event.keys() == {"at", "stage", "message"} for event in story["events"])
    assert story["runs"] == {"demo-001": "trained on it"}
    assert cli("why", "0000000000000000", project=finished.folder).code == 2


def test_the_log_has_every_iteration_in_a_complete_line(finished: FinishedProject) -> None:
    lines = lines_of(finished.run / "train_log.txt")
    pattern = r"(\d+): [\d.]+, [\d.]+ avg, [\d.]+ rate, [\d.]+ seconds, (\d+) images"
    matches = [match for line in lines if (match := re.fullmatch(pattern, line))]
    assert [int(match[1]) for match in matches] == list(range(1, ITERATIONS + 1))
    assert [int(match[2]) for match in matches] == list(range(4, 4 * ITERATIONS + 1, 4))
    regions = [line for line in lines if re.fullmatch(r"Region \d+ Avg IOU: .*count: \d+", line)]
    assert len(regions) == ITERATIONS
    # No other line mentions an average: no line is incomplete.
    assert sum("avg" in line.lower() for line in lines) == 2 * ITERATIONS
    assert any(line.startswith("Saving weights to weights") for line in lines)
    summary = finished.results["plot"].log.summary
    assert (summary.torn, summary.mended, summary.runs) == (0, 0, 1)


def test_metrics_csv_follows_the_contract(finished: FinishedProject) -> None:
    table = pd.read_csv(finished.run / "metrics.csv")
    fixed = ["iteration", "loss", "avg_loss", "rate", "seconds", "images", "iou"]
    assert list(table.columns[:7]) == fixed
    assert all(re.fullmatch(r"iou_\d+", name) for name in table.columns[7:-4])
    assert list(table.columns[-4:]) == ["map", "valid_map50", "train_map50", "valid_loss"]
    assert table["iteration"].tolist() == list(range(1, ITERATIONS + 1))
    assert table["avg_loss"].iloc[-1] == finished.results["train"].avg_loss
    assert table["avg_loss"].iloc[-1] < table["avg_loss"].iloc[0]


def test_evaluation_json_follows_the_contract(finished: FinishedProject) -> None:
    evaluation = json.loads((finished.run / "evaluation.json").read_text(encoding="utf-8"))
    scores = ("map50", "map50_95", "openimages_map")
    assert evaluation["split"] == "test"
    assert set(evaluation["classes"]) == {"Boat"}
    for part in (evaluation, evaluation["classes"]["Boat"]):
        assert all(0.0 <= part[name] <= 1.0 for name in scores)
    boat = evaluation["classes"]["Boat"]
    test_ids = {row["ImageID"] for row in split_rows(finished, "test")}
    boxes = rows_of(finished.folder / "data" / "dataset" / "boxes.csv")
    truth = [row for row in boxes if row["ImageID"] in test_ids and row["used"] == "True"]
    assert boat["boxes"] == len(truth)
    assert boat["true_positives"] + boat["false_negatives"] == boat["boxes"]
    assert evaluation["images"] == len(test_ids)
    weights = finished.run / "weights" / "network_final.weights"
    record: dict[str, Any] = {
        "path": str(weights.relative_to(finished.folder)),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "iteration": ITERATIONS,
        "reason": "the final weights",
    }
    assert evaluation["weights"] == record
    assert finished.results["evaluate"].as_dict()["weights"] == record
    page = (finished.run / "report.html").read_text(encoding="utf-8")
    assert record["path"] in page
    assert record["sha256"] in page


def test_all_checkpoints_are_scored_and_the_best_is_evaluated(
    finished: FinishedProject, tmp_path: Path, cli: Cli
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    run = folder / "runs" / "demo-001"
    final = (run / "weights" / "network_final.weights").read_bytes()
    (seen,) = struct.unpack_from("<Q", final, 12)
    earlier = final[:12] + struct.pack("<Q", seen // 2) + final[20:]
    (run / "weights" / "network_30.weights").write_bytes(earlier)
    scored = cli.ok("evaluate", "--all-checkpoints", "--json", project=folder).json
    assert [row["iteration"] for row in scored["checkpoints"]] == [ITERATIONS // 2, ITERATIONS]
    assert scored["checkpoints"][0]["valid_map50"] == scored["checkpoints"][1]["valid_map50"]
    assert scored["best"]["iteration"] == scored["test"]["weights"]["iteration"] == ITERATIONS
    assert scored["valid_images"] == len(split_rows(finished, "valid"))
    assert (run / "charts" / "checkpoints.png").is_file()
    plan = cli.ok("evaluate", "--all-checkpoints", "--dry-run", "--json", project=folder).json
    assert plan["would"] == []


def split_rows(finished: FinishedProject, name: str) -> list[dict[str, str]]:
    rows = rows_of(finished.folder / "data" / "dataset" / "split.csv")
    return [row for row in rows if row["split"] == name]


def test_the_report_is_a_self_contained_file(finished: FinishedProject) -> None:
    page = (finished.run / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"""\b(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert len([s for s in sources if s.startswith("data:image/png;base64,")]) >= 3
    assert not [s for s in sources if s.startswith(("http:", "//", "/", "."))]
    assert "demo-001" in page


def test_every_result_has_json_text_and_html(finished: FinishedProject) -> None:
    for stage, result in finished.results.items():
        assert json.loads(json.dumps(result.as_dict())), stage
        assert str(result), stage
        assert "<" in result._repr_html_(), stage


@pytest.mark.parametrize(
    ("stage", "method", "argument"),
    [
        ("select", "photographs", 4),
        ("prepare", "contact_sheet", "random"),
        ("prepare", "contact_sheet", "smallest"),
        ("prepare", "contact_sheet", "largest"),
        ("plot", "picture", "loss"),
        ("evaluate", "picture", "worst"),
    ],
)
def test_results_have_pictures_for_notebooks(
    finished: FinishedProject, stage: str, method: str, argument: str | int
) -> None:
    picture = getattr(finished.results[stage], method)(argument)
    assert isinstance(picture, oiyolo.Picture)
    assert min(picture.image.size) > 200


@pytest.mark.parametrize(
    ("stage", "method"),
    [
        ("prepare", "contact_sheet"),
        ("split", "picture"),
        ("plot", "picture"),
        ("evaluate", "picture"),
    ],
)
def test_a_picture_that_a_result_does_not_have_is_a_usage_error(
    finished: FinishedProject, stage: str, method: str
) -> None:
    with pytest.raises(oiyolo.UsageError) as raised:
        getattr(finished.results[stage], method)("nothing")
    assert raised.value.found == "nothing"
    assert raised.value.expected


def test_tables_in_html_have_the_figures_of_the_results(finished: FinishedProject) -> None:
    pages = {stage: result._repr_html_() for stage, result in finished.results.items()}
    assert pages["select"].count("<table>") == pages["split"].count("<table>") == 1
    assert "<pre" not in pages["select"] + pages["split"] + pages["plot"] + pages["evaluate"]
    checked = oiyolo.split(finished.folder, check=True)._repr_html_()
    assert checked.count("<tr>") == len(oiyolo.split(finished.folder, check=True).findings) + 1
    assert ">finished<" in oiyolo.status(finished.folder)._repr_html_()
    history = oiyolo.why(split_rows(finished, "train")[0]["ImageID"], finished.folder)
    assert "<td" in history._repr_html_()
    assert "trained on it" in history._repr_html_()


def test_run_json_describes_the_training(finished: FinishedProject, darknet: Path) -> None:
    record = json.loads((finished.run / "run.json").read_text(encoding="utf-8"))
    assert record["state"] == "finished"
    assert record["darknet"]["executable"] == str(darknet)
    assert record["command"][:3] == [str(darknet), "detector", "train"]
    assert record["max_batches"] == ITERATIONS


# --- again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_repeated_stage_does_nothing_quickly_and_says_so(
    finished: FinishedProject, cli: Cli, stage: str
) -> None:
    before = modification_times(finished.folder)
    start_s = time.monotonic()
    done = cli.ok(stage, project=finished.folder)
    assert time.monotonic() - start_s < QUICK_S
    assert modification_times(finished.folder) == before
    phrases = ("nothing to do", "verified before", "up to date")
    assert any(phrase in done.out + done.err for phrase in phrases), done.out + done.err


def test_run_after_all_stages_does_nothing(finished: FinishedProject, cli: Cli) -> None:
    before = modification_times(finished.folder)
    done = cli.ok("run", project=finished.folder)
    assert modification_times(finished.folder) == before
    assert "mAP@0.5" in done.out


def test_a_repeated_refresh_prints_one_line_and_changes_nothing(
    finished: FinishedProject, shell: Shell
) -> None:
    before = modification_times(finished.folder)
    for _ in range(2):
        done = shell("refresh", "--project", finished.folder)
        assert done.code == 0
        assert done.err == ""
        assert set(numbers(done.out).values()) == {0, 1}
        assert done.out.endswith("; up to date\n")
    assert modification_times(finished.folder) == before


def test_a_new_schedule_starts_a_new_run_and_the_old_one_stays(
    make_project: Callable[..., Path], cli: Cli, darknet: Path
) -> None:
    folder = make_project(limit=20, executable=str(darknet), max_batches=10)
    for stage in ("fetch", "split", "train"):
        cli.ok(stage, project=folder)
    done = cli.ok("train", "--max-batches", "12", project=folder)
    assert "tiny-002" in done.out
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["tiny-001", "tiny-002"]
    again = cli.ok("train", "--again", project=folder)
    assert "tiny-003" in again.out
    assert "nothing to do; tiny-002" in cli.ok("train", "--max-batches", "12", project=folder).out


def test_the_network_has_the_size_of_the_prepared_images(
    make_project: Callable[..., Path], cli: Cli, darknet: Path
) -> None:
    folder = make_project(limit=20, executable=str(darknet), max_batches=2)
    cli.ok("fetch", project=folder)
    cli.ok("split", "--size", "64x32", project=folder)
    cli.ok("train", project=folder)
    (run,) = (folder / "runs").iterdir()
    net = (run / "network.cfg").read_text(encoding="utf-8").partition("[convolutional]")[0]
    assert "width=64\nheight=32\n" in net
    assert json.loads((run / "run.json").read_bytes())["made_from"]["images"]["size"] == [64, 32]


# --- growing ---------------------------------------------------------------------------------


def test_growing_the_dataset_moves_no_image(make_project: Callable[..., Path], cli: Cli) -> None:
    folder = make_project(limit=30)

    def splits() -> dict[str, str]:
        rows = rows_of(folder / "data" / "dataset" / "split.csv")
        return {row["ImageID"]: row["split"] for row in rows}

    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    before = splits()
    cli.ok("fetch", "--limit", "50", project=folder)
    cli.ok("split", project=folder)
    after = splits()
    assert len(before) >= 25
    assert len(after) > len(before)
    assert {image_id: after[image_id] for image_id in before} == before
    status = cli.ok("status", "--json", project=folder).json
    assert sum(status["states"].values()) + sum(status["excluded"].values()) == status["selected"]
    # Smaller again: images that are not selected any more keep their split until they return.
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    assert splits() == before
    cli.ok("fetch", "--limit", "50", project=folder)
    cli.ok("split", project=folder)
    assert splits() == after


def test_new_ratios_need_reassign(make_project: Callable[..., Path], cli: Cli) -> None:
    folder = make_project()
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    path = folder / "data" / "dataset" / "split.csv"
    before = path.read_text(encoding="utf-8")
    words = ("--train", "0.6", "--valid", "0.2", "--test", "0.2")
    refused = cli("split", *words, project=folder)
    assert refused.code == 2
    assert "--reassign" in refused.err
    assert path.read_text(encoding="utf-8") == before
    images = cli.ok("split", *words, "--reassign", "--json", project=folder).json["images"]
    assert abs(images["train"] / sum(images.values()) - 0.6) < 0.05
    assert cli("split", project=folder).code == 2
    cli.ok("split", "--reassign", project=folder)
    assert path.read_text(encoding="utf-8") == before


def test_a_dry_run_changes_nothing(make_project: Callable[..., Path], cli: Cli) -> None:
    folder = make_project(limit=20)
    cli.ok("fetch", "--dry-run", project=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["oiyolo.toml"]
    cli.ok("fetch", project=folder)
    before = modification_times(folder)
    for stage in ("select", "fetch", "prepare", "split", "refresh"):
        cli.ok(stage, "--dry-run", project=folder)
    assert modification_times(folder) == before


# --- a first project -------------------------------------------------------------------------


@pytest.mark.slow
def test_fetch_split_train_plot_in_an_empty_folder(
    shell: Shell, site: Site, tmp_path: Path, tiny_cfg: Path, darknet: Path
) -> None:
    environment = {
        "OIYOLO_OPENIMAGES_BASE_URL": site.urls["base_url"],
        "OIYOLO_IMAGES_MIRROR_URL": site.urls["mirror_url"],
        "OIYOLO_IMAGES_TOLERANCE": "0.2",
        "OIYOLO_IMAGES_SIZE": "32x32",
        "OIYOLO_TRAIN_NETWORK": str(tiny_cfg),
        "OIYOLO_TRAIN_MAX_BATCHES": "30",
        "OIYOLO_DARKNET_EXECUTABLE": str(darknet),
    }
    for words in (["fetch", "--class", "Boat"], ["split"], ["train"], ["plot"]):
        done = shell(*words, cwd=tmp_path, **environment)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
    toml = (tmp_path / "oiyolo.toml").read_text(encoding="utf-8")
    assert 'classes = ["Boat"]' in toml
    # Values from the environment are not written to the file.
    assert "127.0.0.1" not in toml
    assert len(rows_of(tmp_path / "runs" / "tiny-001" / "metrics.csv")) == 30
    assert (tmp_path / "runs" / "tiny-001" / "charts" / "loss.png").is_file()


def test_run_runs_all_stages_in_an_empty_folder(
    cli: Cli, site: Site, tmp_path: Path, tiny_cfg: Path, darknet: Path
) -> None:
    words = ["--class", "Boat", "--tolerance", "0.2", "--size", "32x32", "--max-batches", "30"]
    for key, url in site.urls.items():
        words += [f"--{key.replace('_', '-')}", url]
    words += ["--network", str(tiny_cfg), "--executable", str(darknet)]
    done = cli.ok("run", *words, "--json", project=tmp_path).json
    assert set(done) >= {"select", "fetch", "prepare", "split", "train", "plot", "evaluate"}
    assert done["train"]["iterations"] == 30
    report = tmp_path / "runs" / "tiny-001" / "report.html"
    written = report.stat().st_mtime_ns
    assert cli.ok("run", "--dry-run", "--json", project=tmp_path).json["would"] == []
    cli.ok("run", project=tmp_path)
    assert report.stat().st_mtime_ns == written
