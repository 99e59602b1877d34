"""review: decisions change the labels, the ledger says so, and undoing them restores everything."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from PIL import Image

import oiyolo
from oiyolo.core.errors import DarknetError, InputFormError, UsageError
from oiyolo.darknet import lists
from oiyolo.label_errors import decisions, summary
from oiyolo.label_errors.candidates import Candidate
from oiyolo.label_errors.decisions import ReviewRow
from oiyolo.label_errors.summary import Searched, SearchSummary
from oiyolo.operations.review.listing import Shape
from oiyolo.operations.review.server import ReviewServer
from oiyolo.pages.gallery import Item, Overlay
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages.split import image_paths
from oiyolo.stages.split.halves import HALVES, ids_of_half
from oiyolo.training import exit_cause, recovery
from oiyolo.training.run import runs_in
from tests.support.browser import browser, wait_until
from tests.support.finished_runs import make_run, true_boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from oiyolo.evaluation.tables import Detections
    from oiyolo.training.run import Run


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Path:
    folder = make_project(train=0.4, valid=0.3, test=0.3, executable="no/darknet")
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


def used_boxes(project: Path) -> pd.DataFrame:
    boxes = oiyolo.select(project).boxes
    with oiyolo.open_project(project).ledger() as ledger:
        ids = ledger.ids("train", "valid", "test")
    return boxes[boxes["used"] & boxes["ImageID"].isin(ids)]


def row_of(box: pd.Series, decision: str) -> ReviewRow:
    corners = tuple(box[name] for name in ("XMin", "YMin", "XMax", "YMax"))
    return ReviewRow(box["ImageID"], box["class"], corners, decision=decision)


def labels(project: Path, image_id: str) -> list[str]:
    path = project / "data" / "dataset" / "obj" / f"{image_id}.txt"
    return path.read_text().splitlines()


@pytest.fixture
def decided(project: Path) -> tuple[str, str, str]:
    """Decide about three images, and return their ids: of one that keeps a box, and two others."""
    boxes = used_boxes(project)
    counts = boxes["ImageID"].value_counts()
    several = str(counts[counts > 1].index[0])
    single, rejected = map(str, counts[counts == 1].index[:2])
    first, alone = (boxes[boxes["ImageID"] == i].iloc[0] for i in (several, single))
    rows = [
        row_of(first, "drop"),
        ReviewRow(several, "Boat", (0.0, 0.0, 0.05, 0.07), decision="add"),
        row_of(alone, "drop"),
        ReviewRow(rejected, "Boat", (0.0, 0.0, 1.0, 1.0), decision="drop_image"),
        ReviewRow("f" * 16, "Boat", (0.0, 0.0, 1.0, 1.0), decision="drop"),
    ]
    decisions.write(project / "data" / "review.csv", rows)
    return several, single, rejected


def test_decisions_change_the_labels(project: Path, decided: tuple[str, str, str]) -> None:
    several, *excluded = decided
    before = labels(project, several)
    assert any("3 images" in action for action in oiyolo.prepare(project, dry_run=True).actions)
    result = oiyolo.prepare(project)
    assert result.new == 1
    assert [row.image_id for row in result.review_not_applied] == ["f" * 16]
    assert "1 decision in data/review.csv no longer applies" in str(result)
    assert f"\n  {'f' * 16} Boat: drop" in str(result)
    assert result.as_dict()["review_not_applied"] == [
        {"ImageID": "f" * 16, "class": "Boat", "decision": "drop"}
    ]
    assert result.dropped_boxes["review"] == 1  # the other one is of an excluded image
    oiyolo.split(project)
    changed = labels(project, several)
    assert len(changed) == len(before)
    assert len(set(changed) & set(before)) == len(before) - 1
    events = oiyolo.why(several, project).events
    assert any("1 box dropped and 1 box added by review" in event[2] for event in events)
    for image_id in excluded:
        assert oiyolo.why(image_id, project).row["reason"] == "review"
        assert not (project / "data" / "dataset" / "obj" / f"{image_id}.jpg").exists()
    card = (project / "data" / "dataset" / "DATASET.md").read_text()
    assert "Boxes added by review: 1; dropped by review: 1." in card
    counts = oiyolo.status(project).counts
    assert counts.excluded["review"] == len(excluded)
    assert sum(counts.states.values()) + sum(counts.excluded.values()) == counts.selected
    exported = oiyolo.export_openimages(project)  # which needs the boxes before they were placed
    assert isinstance(exported, oiyolo.DatasetExported)
    tables = exported.path.rglob("*annotations-bbox.csv")
    assert sum(path.read_text().count(several) for path in tables) == len(changed)


def test_a_refresh_keeps_the_decisions(
    project: Path,
    decided: tuple[str, str, str],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    several, single, _ = decided
    oiyolo.split(project)
    objects = project / "data" / "dataset" / "obj"
    before = digests(objects)
    oiyolo.refresh(project)
    assert digests(objects) == before
    (project / "data" / "dataset" / "boxes.csv").unlink()  # as if new images had come
    oiyolo.refresh(project)
    assert digests(objects) == before
    assert oiyolo.why(single, project).row["reason"] == "review"
    assert several in {path.stem for path in objects.glob("*.txt")}


def test_decisions_can_be_undone(
    project: Path,
    decided: tuple[str, str, str],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    objects = project / "data" / "dataset" / "obj"
    before = digests(objects)
    oiyolo.split(project)
    assert len(digests(objects)) == len(before) - 2 * len(decided[1:])
    (project / "data" / "review.csv").unlink()
    oiyolo.split(project)
    assert digests(objects) == before
    assert "review" not in oiyolo.status(project).counts.excluded


def test_a_damaged_file_of_decisions_stops_prepare(project: Path) -> None:
    path = project / "data" / "review.csv"
    path.write_text("ImageID,decision\n")
    with pytest.raises(InputFormError) as caught:
        oiyolo.prepare(project)
    assert caught.value.where == str(path)


def test_a_list_is_written_and_decisions_in_it_are_kept(project: Path) -> None:
    with pytest.raises(UsageError):
        oiyolo.review(project)  # there is no run yet
    opened = oiyolo.open_project(project)
    run = make_run(opened, "tiny-001", ["Boat"])
    actions = oiyolo.review(project, dry_run=True).actions
    assert [action.split()[0] for action in actions] == ["run", "run", "write"]
    assert not opened.review_path.exists()
    own = ReviewRow("f" * 16, "Boat", (0.1, 0.1, 0.2, 0.2), decision="drop")
    decisions.write(opened.review_path, [own])
    result = oiyolo.review(project)
    assert (result.path, result.decided) == (opened.review_path, 1)
    assert [(part.split, part.run) for part in result.searched] == [
        ("valid", run.name),
        ("test", run.name),
    ]
    assert result.page.is_file()
    assert decisions.read(opened.review_path)[-1] == own
    again = oiyolo.review(project, dry_run=True).actions  # the detections are kept
    assert [action.split()[0] for action in again] == ["read", "read", "write"]
    with pytest.raises(UsageError):
        oiyolo.review(project, limit=0)


def make_halves(project: Path) -> list[Run]:
    """Make a finished run of each half of train, as ``review --cross-fit`` would train them."""
    opened = oiyolo.open_project(project)
    facts: dict[str, object] = {
        "network": Path(opened.config.train.network).stem,
        "max_batches": opened.config.train.max_batches,
        "classes": ["Boat"],
        "made_from": {"images": prepare_stage.prepared_options(opened)},
    }
    runs = []
    for half in HALVES:
        run = make_run(opened, f"tiny-half-{half}-00{half}", ["Boat"])
        ids = ids_of_half(opened, half)
        lines = (run.folder / "train.txt").read_text().splitlines(keepends=True)
        kept = [line for line in lines if any(image_id in line for image_id in ids)]
        (run.folder / "train.txt").write_text("".join(kept))
        run.write_record(half=half, **facts)
        runs.append(run)
    return runs


def test_a_report_shows_the_first_suspected_errors(project: Path) -> None:
    opened = oiyolo.open_project(project)
    run = make_run(opened, "tiny-001", ["Boat"])
    run.write_record(network="tiny", darknet={})
    image_id = used_boxes(project)["ImageID"].iloc[0]
    oiyolo.report(project)
    decisions.write(opened.review_path, [replace(ROWS[0], image_id=image_id)])
    overlays = [Overlay("new", "Boat", (0.1, 0.1, 0.4, 0.4))]
    items = [
        Item(name, f"{name}.jpg", (300, 200), f"no box: {name}", overlays)
        for name in (image_id, "f" * 16)
    ]
    first = SearchSummary([Searched("train", "half-1", 7)], items)
    summary.write(opened.review_folder / summary.NAME, first)
    page = oiyolo.report(project).path.read_text()
    assert "Searched: 7 images of train, judged by half-1." in page
    gallery = page.partition('id="suspected"')[2]
    assert f"no box: {image_id}" in gallery
    assert "f" * 16 not in page  # its image is not there
    assert gallery.partition("data:image/jpeg;base64,")[1]


def test_each_half_is_judged_by_the_detector_of_the_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_halves(project)
    asked: dict[str, set[str]] = {}

    def detect(run: Run, _weights: Path, paths: Sequence[str]) -> Detections:
        asked.setdefault(run.name, set()).update(lists.ids_of(paths))
        opened = oiyolo.open_project(project)
        return true_boxes(opened, run, paths, classes=["Boat"], blind=())

    monkeypatch.setattr("oiyolo.stages.evaluate.kept_detections.detect", detect)
    with pytest.raises(UsageError):  # these are no detectors for other commands
        oiyolo.review(project)
    actions = oiyolo.review(project, cross_fit=True, dry_run=True).actions
    assert actions[0] == f"use {runs[0].name} and {runs[1].name} again"
    result = oiyolo.review(project, cross_fit=True)
    opened = oiyolo.open_project(project)
    halves = [set(ids_of_half(opened, half)) for half in HALVES]
    assert asked[runs[1].name] == halves[0]
    others = {i for name in ("valid", "test") for i in lists.ids_of(image_paths(opened, name))}
    assert asked[runs[0].name] == halves[1] | others
    assert all(halves)
    assert not halves[0] & halves[1]
    assert [part.split for part in result.searched] == ["train", "train", "valid", "test"]
    assert "judged by tiny-half-1-001 and tiny-half-2-002, each on the half" in str(result)
    again = oiyolo.review(project, cross_fit=True, dry_run=True).actions
    counts = [f"{len(half):,} images of train" for half in reversed(halves)]
    assert again[1:3] == [f"read the kept detections in {count}" for count in counts]
    assert "each on the half that it has not seen" in result.page.read_text()


def test_two_detectors_are_trained_on_the_halves(
    make_project: Callable[..., Path], darknet: Path
) -> None:
    project = make_project(train=0.8, valid=0.0, test=0.2, executable=darknet, max_batches=10)
    oiyolo.fetch(project)
    oiyolo.split(project)
    planned = oiyolo.review(project, cross_fit=True, dry_run=True).actions
    assert [action.split(":")[0] for action in planned[:2]] == [
        "train on half 1 of train",
        "train on half 2 of train",
    ]
    assert "run the first of them on valid and test" in planned
    result = oiyolo.review(project, cross_fit=True)
    opened = oiyolo.open_project(project)
    runs = [*runs_in(opened.runs_folder, half=1), *runs_in(opened.runs_folder, half=2)]
    assert [part.run for part in result.searched] == [
        run.name for run in (runs[0], runs[1], runs[0])
    ]
    halves = [set(run.image_ids("train")) for run in runs]
    assert set.union(*halves) == set(lists.ids_of(image_paths(opened, "train")))
    assert not set.intersection(*halves)
    again = oiyolo.review(project, cross_fit=True, dry_run=True).actions
    assert again[0] == f"use {runs[0].name} and {runs[1].name} again"
    report = oiyolo.report(project, run=runs[0].name)
    assert "by <code>oiyolo review --cross-fit</code>" in report.path.read_text()
    assert {run.name for run in oiyolo.status(project).runs} == {run.name for run in runs}
    some_id = min(halves[1])
    assert set(oiyolo.why(some_id, project).training_runs) == {runs[1].name}
    oiyolo.train(project)  # which does not take a half for the run to resume
    (own,) = runs_in(opened.runs_folder)
    assert set(own.image_ids("train")) == set.union(*halves)
    assert oiyolo.review(project).searched[0].run == own.name


def test_what_stops_a_review_is_said_before_any_training(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = oiyolo.open_project(project)
    make_run(opened, "tiny-001", ["Car"])
    monkeypatch.setattr("oiyolo.stages.train.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(UsageError, match="the classes of the dataset differ"):
        oiyolo.review(project, cross_fit=True)
    run = make_halves(project)[0]
    (run.folder / "train.txt").unlink()
    with pytest.raises(InputFormError) as caught:
        run.image_ids("train")
    assert f"Delete {run.folder}" in str(caught.value.remedy)


def test_what_follows_a_failed_training_holds_for_a_half_too() -> None:
    """`oiyolo train` does not resume a half."""
    causes = (*exit_cause._CAUSES, *exit_cause._DATA_CAUSES, exit_cause._KILLED)
    for text in (*(cause.remedy for cause in causes), *recovery._REMEDIES.values()):
        assert "oiyolo train" not in text
    assert all("the same command" in cause.remedy for cause in causes[1:])


def test_halves_are_trained_again_for_another_dataset(project: Path) -> None:
    runs = make_halves(project)

    def first_action() -> str:
        return str(oiyolo.review(project, cross_fit=True, dry_run=True).actions[0])

    assert first_action().startswith("use ")
    opened = oiyolo.open_project(project)
    record = runs[1].record
    changes: list[dict[str, object]] = [
        {"network": "other"},
        {"max_batches": 7},
        {"classes": ["Car"]},
        {"state": "interrupted"},
        {"made_from": {"images": {}}},
    ]
    for change in changes:
        runs[1].write_record(**change)
        with pytest.raises(DarknetError):  # the program to train with is missing
            first_action()
        runs[1].write_record(**{name: record[name] for name in change})
    with pytest.raises(DarknetError):  # the number of iterations is auto, so more than 30
        oiyolo.review(
            oiyolo.open_project(project, {"max_batches": "auto"}), cross_fit=True, dry_run=True
        )
    final = runs[1].final_weights_path
    content = final.read_bytes()
    final.write_bytes(content[:100])
    with pytest.raises(DarknetError):
        first_action()
    final.write_bytes(content)
    assert first_action().startswith("use ")
    # Both have seen an image, if only to choose the best weights.
    some_line = (opened.dataset_folder / "train.txt").read_text().splitlines()[0]
    for run in runs:
        (run.folder / "valid.txt").write_text(f"{some_line}\n")
    with pytest.raises(DarknetError):
        first_action()
    for run in runs:
        (run.folder / "valid.txt").write_text("")
    # Both have learned an image: a label that both have learned looks right.
    whole = (opened.dataset_folder / "train.txt").read_text()
    (runs[1].folder / "train.txt").write_text(whole)
    with pytest.raises(DarknetError):
        first_action()


def test_a_detection_in_the_border_of_a_letterbox_is_not_listed(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project(
        train=0.4, valid=0.3, test=0.3, executable="no/darknet", fit="letterbox", size="416x416"
    )
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    opened = oiyolo.open_project(folder)
    make_run(opened, "tiny-001", ["Boat"])

    def find(detections: Detections, *_: object) -> list[Candidate]:
        boxes = [(0.0, 0.0, 1.0, 0.001), (0.0, 0.0, 0.001, 1.0), (0.0, 0.0, 1.0, 1.0)]
        return [
            Candidate(image_id, "missing", 0, None, 0.9, "", 0, box)
            for image_id in detections.image_ids
            for box in boxes
        ]

    monkeypatch.setattr("oiyolo.operations.review.listing.find_candidates", find)
    oiyolo.review(folder)
    rows = decisions.read(opened.review_path)  # which refuses a box without an area
    boxes = {row.image_id: [r.xyxy for r in rows if r.image_id == row.image_id] for row in rows}
    assert all((0.0, 0.0, 1.0, 1.0) in found for found in boxes.values())
    assert any(len(found) < 3 for found in boxes.values())


ROWS = [
    ReviewRow("a" * 16, "Boat", (0.1, 0.1, 0.4, 0.4), kind="missing", score=0.9),
    ReviewRow("b" * 16, "Boat", (0.1, 0.1, 0.4, 0.4), kind="location", score=0.8,
              new_class="Boat", new_xyxy=(0.2, 0.2, 0.5, 0.5)),
]  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReviewServer]:
    """Serve two rows, next to one of the user's own in the file."""
    oiyolo.init(tmp_path, classes=["Boat"])
    opened = oiyolo.open_project(tmp_path)
    sizes = dict.fromkeys(["a" * 16, "b" * 16], (400, 300))
    monkeypatch.setattr("oiyolo.stages.prepare.source_sizes_wh", lambda *_: sizes)
    with opened.ledger():
        pass
    opened.objects_folder.mkdir(parents=True)
    Image.linear_gradient("L").save(opened.objects_folder / f"{'a' * 16}.jpg")
    own = ReviewRow("f" * 16, "Boat", (0.1, 0.1, 0.2, 0.2), decision="drop")
    decisions.write(opened.review_path, [*ROWS, own])
    shape = Shape("test", None, (0.1, 0.1, 0.4, 0.4), [])
    with ReviewServer(
        opened, [Searched("test", "tiny-001", 2)], [(row, shape) for row in ROWS], 0
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def post(server: ReviewServer, body: object, **headers: str) -> int:
    own = {"X-Token": server.token, **{k.replace("_", "-"): v for k, v in headers.items()}}
    url = f"http://{server.address}/decision"
    return requests.post(url, json=body, headers=own, timeout=10).status_code


def test_a_decision_is_saved_at_once_next_to_others(server: ReviewServer) -> None:
    path = server.project.review_path
    assert post(server, {"row": 1, "decision": "replace"}) == 200
    assert [row.decision for row in decisions.read(path)] == ["", "replace", "drop"]
    assert post(server, {"row": 1, "decision": ""}) == 200
    assert post(server, {"row": 0, "decision": "add"}) == 200
    assert [row.decision for row in decisions.read(path)] == ["add", "", "drop"]
    assert '"add"]' in requests.get(server.url, timeout=10).text


@pytest.mark.parametrize(
    "body",
    [
        {"row": 2, "decision": "keep"},
        {"row": -1, "decision": "keep"},
        {"row": 0, "decision": "drop"},
        {"row": 0, "decision": "x"},
        {"row": "a", "decision": "keep"},
        {},
        [],
        "x" * 2_000,
    ],
)
def test_what_is_no_decision_is_refused(server: ReviewServer, body: object) -> None:
    before = server.project.review_path.read_bytes()
    assert post(server, body) == 400
    assert server.project.review_path.read_bytes() == before


def test_other_pages_cannot_use_the_server(server: ReviewServer) -> None:
    decision = {"row": 0, "decision": "keep"}
    wrong = {"X_Token": "wrong", "Origin": "http://evil.example", "Host": "evil.example"}
    for name, value in wrong.items():
        assert post(server, decision, **{name: value}) == 403
    base = f"http://{server.address}"
    assert requests.get(base, timeout=10).status_code == 403
    token = f"token={server.token}"
    image = requests.get(f"{base}/obj/{'a' * 16}.jpg?{token}", timeout=10)
    assert (image.status_code, image.headers["Content-Type"]) == (200, "image/jpeg")
    for path in ("/obj/../../ledger.sqlite", "/obj/" + "b" * 16 + ".jpg", "/data/review.csv"):
        assert requests.get(f"{base}{path}?{token}", timeout=10).status_code == 404


def test_a_dataset_that_is_being_changed_saves_nothing(server: ReviewServer) -> None:
    with server.project.data_lock("another"):
        assert post(server, {"row": 0, "decision": "keep"}) == 409
    assert post(server, {"row": 0, "decision": "keep"}) == 200


@pytest.mark.slow
def test_keys_decide_in_the_browser(server: ReviewServer, tmp_path: Path) -> None:
    path = server.project.review_path
    with browser(tmp_path) as driver:
        driver.get(server.url)
        driver.execute_script("document.querySelector('button.picture').click()")

        def press(key: str) -> None:
            for kind in ("keyDown", "keyUp"):
                event = {"type": kind, "key": key, "text": key if kind == "keyDown" else ""}
                driver.execute_cdp_cmd("Input.dispatchKeyEvent", event)

        press("a")
        wait_until(lambda: decisions.read(path)[0].decision == "add", timeout_s=10)
        title = "return document.querySelector('dialog .title').textContent"
        wait_until(lambda: "(2 of 2)" in driver.execute_script(title), timeout_s=10)
        press("r")
        wait_until(lambda: decisions.read(path)[1].decision == "replace", timeout_s=10)
        status = "return document.getElementById('saved').textContent"
        assert driver.execute_script(status) == "2 of 2 decided"
        errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert [entry for entry in errors if "obj/bbbb" not in entry["message"]] == []
