"""A run's folder: its name, its record, its lists and its lock."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError, LockedError, UsageError
from oiyolo.training.run import (
    FINISHED,
    INTERRUPTED,
    RUNNING,
    Run,
    current_run,
    find_run,
    fingerprint_of_images,
    next_name,
    run_at,
    runs_in,
    set_current_run,
)

if TYPE_CHECKING:
    from pathlib import Path


def make_run(folder: Path, name: str, began_at: str) -> Run:
    run = Run(folder / name)
    run.write_record(began_at=began_at, state=RUNNING)
    return run


@pytest.mark.parametrize(
    ("taken", "network", "name"),
    [
        ([], "yolov3", "yolov3-001"),
        (["yolov3-001"], "yolov3", "yolov3-002"),
        (["yolov3-001"], "yolov4-tiny", "yolov4-tiny-002"),
        (["yolov3-001", "demo-007"], "yolov3", "yolov3-008"),
        (["yolov3-999"], "yolov3", "yolov3-1000"),
        (["yolov3-1000", "yolov3-002"], "yolov3", "yolov3-1001"),
        (["mine", "yolov3", "yolov3-1"], "yolov3", "yolov3-001"),
        ([], "my net (2).v1", "my-net-2-v1-001"),
        ([], "été.images", "t-images-001"),
        ([], "...", "network-001"),
    ],
)
def test_a_new_run_is_named_after_the_network_with_the_next_number(
    tmp_path: Path, taken: list[str], network: str, name: str
) -> None:
    for other in taken:
        make_run(tmp_path, other, "1")
    assert next_name(tmp_path, network) == name


def test_the_name_of_a_folder_without_a_record_is_reused(tmp_path: Path) -> None:
    make_run(tmp_path, "demo-001", "1")
    (tmp_path / "demo-002").mkdir()
    assert next_name(tmp_path, "demo") == "demo-002"


def test_the_first_run_has_number_1(tmp_path: Path) -> None:
    assert next_name(tmp_path / "runs", "demo") == "demo-001"


def test_runs_are_sorted_by_their_start(tmp_path: Path) -> None:
    make_run(tmp_path, "b-001", "2026-11-20T10:00:00")
    make_run(tmp_path, "a-002", "2026-11-20T12:00:00")
    make_run(tmp_path, "c-003", "2026-11-20T11:00:00")
    (tmp_path / "not-a-run").mkdir()
    assert [run.name for run in runs_in(tmp_path)] == ["b-001", "c-003", "a-002"]
    assert find_run(tmp_path, None).name == "a-002"
    assert find_run(tmp_path, "b-001").name == "b-001"


def test_an_unknown_run_is_refused_with_the_names_of_the_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_run(tmp_path / "runs", None)
    assert caught.value.where == str(tmp_path / "runs")
    make_run(tmp_path, "a-001", "1")
    with pytest.raises(UsageError) as caught:
        find_run(tmp_path, "a-002")
    assert caught.value.expected == "a-001"


def test_writing_a_record_changes_only_the_given_keys(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a-001", "1")
    run.write_record(state=FINISHED, iterations=5)
    assert run.record == {"began_at": "1", "state": FINISHED, "iterations": 5}


def test_a_missing_record_is_empty(tmp_path: Path) -> None:
    assert Run(tmp_path).record == {}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"state": 1}', "\0"])
def test_a_damaged_record_is_an_error(tmp_path: Path, content: str) -> None:
    run = Run(tmp_path)
    run.record_path.write_text(content)
    with pytest.raises(InputFormError) as caught:
        _ = run.record
    assert caught.value.where == str(run.record_path)


def test_the_image_ids_are_read_from_a_runs_lists(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "train.txt").write_text(f"/a b/obj/{'0a' * 8}.jpg\n/a b/obj/{'0b' * 8}.jpg\n")
    assert run.image_ids("train") == ["0a" * 8, "0b" * 8]


def test_a_list_that_lost_a_line_is_an_error_and_one_that_was_moved_is_not(tmp_path: Path) -> None:
    run = Run(tmp_path)
    ids = ["0a" * 8, "0b" * 8]
    run.write_record(list_fingerprints={"train": fingerprint_of_images(ids)})
    for folder in ("/a b", "/moved"):
        (tmp_path / "train.txt").write_text("".join(f"{folder}/obj/{i}.jpg\n" for i in ids))
        assert run.image_ids("train") == ids
    (tmp_path / "train.txt").write_text(f"/moved/obj/{ids[0]}.jpg\n")
    with pytest.raises(InputFormError) as caught:
        run.image_ids("train")
    assert caught.value.where == str(tmp_path / "train.txt")


def test_the_files_of_a_run_have_the_names_of_the_contract(tmp_path: Path) -> None:
    run = Run(tmp_path / "a-001")
    names = {
        "cfg_path": "network.cfg", "log_path": "train_log.txt", "weights_folder": "weights",
        "charts_folder": "charts", "panels_folder": "panels", "record_path": "run.json",
        "evaluation_path": "evaluation.json",
    }  # fmt: skip
    assert {name: getattr(run, name).name for name in names} == names


def test_a_run_is_locked_while_it_is_trained(tmp_path: Path) -> None:
    run, other = Run(tmp_path / "a-001"), Run(tmp_path / "a-002")
    with (
        run.lock("train"),
        other.lock("train"),
        pytest.raises(LockedError) as caught,
        run.lock("train"),
    ):
        pass
    assert "a-001" in caught.value.what


def test_the_newest_run_that_has_what_is_needed_is_found(tmp_path: Path) -> None:
    for number in range(1, 5):
        make_run(tmp_path, f"a-00{number}", str(number))
    has_any, has_more = {"a-001", "a-003"}, {"a-002"}
    assert find_run(tmp_path, None, lambda run: run.name in has_any).name == "a-003"
    preferences = [lambda run: run.name in has_more, lambda run: run.name in has_any]
    assert find_run(tmp_path, None, *preferences).name == "a-002"
    assert find_run(tmp_path, None, lambda _: False).name == "a-004"
    assert find_run(tmp_path, "a-001", *preferences).name == "a-001"


def test_a_run_is_running_only_while_a_process_holds_its_lock(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a-001", "1")
    assert run.state == INTERRUPTED  # killed: the record says that it is running
    with run.lock("train"):
        assert run.state == RUNNING
    run.write_record(state=FINISHED)
    assert run.state == FINISHED


def test_the_current_run_is_a_relative_link_that_no_list_contains(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    assert current_run(folder) is None
    for number in (1, 2):
        make_run(folder, f"a-00{number}", str(number))
        set_current_run(Run(folder / f"a-00{number}"))
    assert (folder / "current").readlink().as_posix() == "a-002"
    assert current_run(folder) == Run(folder / "a-002") == find_run(folder, "current")
    assert [run.name for run in runs_in(folder)] == ["a-001", "a-002"]
    assert run_at(folder / "current") == run_at(folder / "a-002") == Run(folder / "a-002")
    assert next_name(folder, "a") == "a-003"
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    shutil.rmtree(folder)
    assert find_run(tmp_path / "copy", "current") == Run(tmp_path / "copy" / "a-002")
    assert not [path for path in (tmp_path / "copy").iterdir() if path.suffix == ".part"]


def test_without_a_current_run_the_name_is_unknown(tmp_path: Path) -> None:
    make_run(tmp_path, "a-001", "1")
    with pytest.raises(UsageError) as caught:
        find_run(tmp_path, "current")
    assert caught.value.expected == "a-001"


@pytest.mark.parametrize("target", ["a-009", "../other", "not-a-run", "current", ".", "outside"])
def test_a_link_to_anything_but_a_run_is_an_error_and_stays(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "runs"
    run = make_run(folder, "a-001", "1")
    make_run(tmp_path, "other", "2")
    (folder / "not-a-run").mkdir()
    (folder / "outside").symlink_to("../other")
    link = folder / "current"
    link.symlink_to(target)
    for use in (lambda: find_run(folder, "current"), lambda: set_current_run(run)):
        with pytest.raises(InputFormError) as caught:
            use()
        assert caught.value.where == str(link)
    assert link.readlink().as_posix() == target
    assert find_run(folder, "a-001") == run


def test_a_folder_in_place_of_the_link_is_not_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a-001", "1")
    make_run(tmp_path, "current", "2")
    with pytest.raises(InputFormError):
        set_current_run(run)
    assert Run(tmp_path / "current").record
