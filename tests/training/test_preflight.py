"""The checks before a training starts: each problem alone, and many at once."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.gpus import Gpu
from oiyolo.darknet.program import data_file
from oiyolo.networks.builders import build
from oiyolo.networks.schedule import Schedule
from oiyolo.training import preflight

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import ForkName

GIB = 1 << 30


class Usage(NamedTuple):
    """The result of ``shutil.disk_usage``."""

    total: int
    used: int
    free: int


class Run:
    """A valid run folder with six images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs" / "demo-001"
        self.objects = folder / "obj"
        self.cfg = small(class_count=2)
        self.objects.mkdir()
        (self.folder / "weights").mkdir(parents=True)
        for number in range(6):
            self.image(number).write_bytes(b"\xff\xd8\xff\xd9")
            self.label(number).write_text("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.05 0.2\n")
        (self.folder / "obj.names").write_text("Boat\nCat\n")
        self.write_list("train", [0, 1, 2, 3, 4, 5])
        self.write_list("valid", [2, 3, 4, 5])
        (self.folder / "obj.data").write_text(
            data_file(
                class_count=2,
                train="train.txt",
                valid="valid.txt",
                names="obj.names",
                backup="weights",
                results="results",
            )
        )

    def image(self, number: int) -> Path:
        return self.objects / f"{number}.jpg"

    def label(self, number: int) -> Path:
        return self.objects / f"{number}.txt"

    def write_list(self, name: str, numbers: list[int]) -> None:
        text = "".join(f"{self.image(number)}\n" for number in numbers)
        (self.folder / f"{name}.txt").write_text(text)

    def check(self, fork: ForkName = "pjreddie", **keys: Any) -> list[str]:
        return preflight.check(self.folder, cfg=self.cfg, fork=FORKS[fork], **keys)

    def refused(self, fork: ForkName = "pjreddie", **keys: Any) -> InputFormError:
        with pytest.raises(InputFormError) as caught:
            self.check(fork, **keys)
        return caught.value


def small(*, class_count: int, batch: int = 4) -> Cfg:
    schedule = Schedule(batch, 1, 0.001, 500, 10, (400,), (0.1,))
    return build("demo", class_count=class_count, size_wh=(96, 96), schedule=schedule)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    # Not tmp_path, which contains the name of the test: words such as "images" matter in a path.
    return Run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("fork", FORKS)
def test_a_valid_run_passes_for_every_fork(run: Run, fork: ForkName) -> None:
    assert run.check(fork, measures_map=True) == []
    assert sorted(path.name for path in (run.folder / "weights").iterdir()) == []


def test_an_empty_label_is_valid(run: Run) -> None:
    run.label(3).write_text("")
    run.label(4).write_text("\n \n")
    run.label(5).write_text("0 0.5 0.5 0.2 0.2")  # no newline at the end
    assert run.check() == []


def test_relative_paths_in_a_list_are_relative_to_the_runs_folder(run: Run) -> None:
    shutil.copytree(run.objects, run.folder / "obj")
    (run.folder / "train.txt").write_text("obj/0.jpg\nobj/1.jpg\nobj/2.jpg\nobj/3.jpg")
    assert run.check() == []


# Each row: how to break the run, and words in the error.
PROBLEMS: list[tuple[Callable[[Run], object], list[str]]] = [
    (lambda run: run.image(2).unlink(), ["train.txt:3", "2.jpg' is not an image file"]),
    (lambda run: run.image(2).write_bytes(b""), ["train.txt:3", "is not an image file"]),
    (lambda run: run.label(1).unlink(), ["train.txt:2", "has no label at", "1.txt"]),
    (lambda run: run.label(0).write_text("2 .5 .5 .1 .1\n"), ["0.txt:1: class 2 does not exist"]),
    (lambda run: run.label(0).write_text("-1 .5 .5 .1 .1\n"), ["class -1 does not exist"]),
    (lambda run: run.label(0).write_text("0.5 .5 .5 .1 .1\n"), ["class 0.5 is not a whole number"]),
    (lambda run: run.label(0).write_text("0 .5 .5 .1 .1\n\n0 .5 1.5 .1 .1\n"),
     ["0.txt:3: a box outside its image, .5 1.5 .1 .1"]),
    (lambda run: run.label(0).write_text("0 .5 .5 0 .1\n"), ["a box outside"]),
    (lambda run: run.label(0).write_text("0 .5 .5 nan .1\n"), ["a box outside"]),
    (lambda run: run.label(0).write_text("0 .5 .5 .1\n"), ["'0 .5 .5 .1' is not class_id"]),
    (lambda run: run.label(0).write_text("Boat .5 .5 .1 .1\n"), ["is not class_id cx cy w h"]),
    (lambda run: run.label(0).write_bytes(b"\xff\xfe\0\0"), ["is not class_id"]),
    (lambda run: run.write_list("train", []), ["train.txt lists no images"]),
    (lambda run: run.write_list("valid", [1, 2, 3]), ["lists 3 images; darknet needs at least 4"]),
    (lambda run: (run.folder / "valid.txt").unlink(), ["the valid list cannot be read"]),
    (lambda run: (run.folder / "train.txt").write_text(f"{run.image(0)}\r\n"),
     ["train.txt:1", "0.jpg\\r' is not an image file"]),
    (lambda run: (run.folder / "train.txt").write_text(f"{run.image(0)}\n\n{run.image(1)}\n"),
     ["train.txt:2: an empty line"]),
    (lambda run: (run.folder / "obj.names").write_text("Boat\n"), ["1 name for 2 classes"]),
    (lambda run: (run.folder / "obj.names").write_text("Boat\n\n"), ["an empty line"]),
    (lambda run: (run.folder / "obj.names").unlink(), ["obj.names (No such file"]),
    (lambda run: (run.folder / "weights").rmdir(), ["cannot write to", "weights"]),
    (lambda run: setattr(run, "cfg", small(class_count=3)), ["classes=3, but"]),
    (lambda run: [run.label(n).write_text("") for n in range(6)], ["nothing to learn"]),
]  # fmt: skip


def test_a_class_that_is_no_whole_number_is_refused_because_darknet_reads_another_box(
    run: Run,
) -> None:
    run.label(0).write_text("0.0 .5 .5 .2 .2\n")
    assert "0.txt:1: class 0.0 " in run.refused().found


def test_an_image_that_was_cut_off_is_refused(run: Run) -> None:
    whole = b"\xff\xd8" + bytes(2000) + b"\xff\xd9"
    run.image(2).write_bytes(whole)
    assert run.check(image_bytes={"2": len(whole)}) == []
    run.image(2).write_bytes(whole[:1000])
    assert "train.txt:3" in run.refused().found
    run.image(2).write_bytes(whole[:1000] + whole[-2:])
    assert "but 2,004 when it was prepared" in run.refused(image_bytes={"2": len(whole)}).found


@pytest.mark.parametrize(("break_run", "words"), PROBLEMS)
def test_each_problem_is_reported_with_its_place(
    run: Run, break_run: Callable[[Run], object], words: list[str]
) -> None:
    break_run(run)
    error = run.refused()
    assert error.where == str(run.folder)
    assert all(word in error.found for word in words), error.found


def test_all_problems_are_counted_and_the_first_few_are_shown(run: Run) -> None:
    numbers = list(range(100, 340))
    for number in numbers:
        run.image(number).write_bytes(b"\xff\xd8\xff\xd9")
    run.write_list("train", numbers)
    error = run.refused()
    assert "240" in error.what
    assert error.found.count("has no label") == 5
    assert error.found.endswith("and 235 more")


@pytest.mark.parametrize(
    ("folder", "fork", "looks_in"),
    [
        ("images", "pjreddie", "labels"),
        ("raw", "pjreddie", "labels"),
        ("JPEGImages", "alexeyab", "labels"),
    ],
)
def test_labels_are_looked_for_where_darknet_looks(
    run: Run, folder: str, fork: ForkName, looks_in: str
) -> None:
    run.objects = run.objects.rename(run.objects.with_name(folder))
    run.write_list("train", [0, 1, 2, 3])
    run.write_list("valid", [0, 1, 2, 3])
    error = run.refused(fork)
    assert (
        f"/{looks_in}/0.txt, where darknet looks for it because of the words in the path"
        in error.found
    )
    shutil.copytree(run.objects, run.objects.with_name(looks_in))
    assert run.check(fork) == []


def test_an_empty_valid_list_is_an_error_only_if_map_is_measured(run: Run) -> None:
    run.write_list("valid", [])
    assert "valid.txt lists no images" in run.refused("alexeyab", measures_map=True).found
    (warning,) = run.check()
    assert "no images to measure mAP on" in warning


def test_fewer_images_than_a_batch_are_a_warning(run: Run) -> None:
    run.cfg = small(class_count=2, batch=64)
    (warning,) = run.check()
    assert "lists 6 images, fewer than a batch of 64" in warning


def test_images_that_are_listed_again_are_checked_and_counted_once(run: Run) -> None:
    run.cfg = small(class_count=2, batch=8)
    run.write_list("train", [0, 1, 2, 3, 4, 5, 0, 0])
    run.label(0).unlink()
    error = run.refused(repeats=2)
    assert error.found.count("0.jpg") == 1
    run.label(0).write_text("")
    assert len(run.check(repeats=2)) == 1  # six images are fewer than a batch


def test_a_folder_without_write_permission_is_reported(run: Run) -> None:
    if os.geteuid() == 0:
        (run.folder / "weights").rmdir()
        (run.folder / "weights").write_text("a file in its place")
    else:
        (run.folder / "weights").chmod(0o500)
    assert "cannot write to" in run.refused().found


def no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_weights_that_will_not_fit_on_the_disk_are_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(GIB, GIB, 1000))
    with pytest.raises(UnavailableError) as caught:
        run.check()
    # Five numbered ones, the last and the final ones, and three kept copies.
    assert "up to 10 files" in caught.value.expected
    assert caught.value.where == str(run.folder / "weights")
    with pytest.raises(UnavailableError) as caught:
        run.check(scores_weights=True)
    assert "up to 11 files" in caught.value.expected  # the one that is scored
    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(UnavailableError) as caught:
        run.check(scores_weights=True)
    assert "up to 12 files" in caught.value.expected  # the next one is a copy, too
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(GIB, 0, GIB))
    assert run.check() == []


def test_a_gpu_with_too_little_memory_is_a_warning(run: Run) -> None:
    gpus = [Gpu(n, "Tiny", GIB, free, "7.5", "580") for n, free in enumerate((GIB, 1000))]
    (warning,) = run.check(gpus=gpus)
    assert "GPU 1 (Tiny) has 0.0 GiB free" in warning
    assert "even one image at a time is too much" in warning


def test_a_run_without_a_data_file_is_refused(run: Run) -> None:
    (run.folder / "obj.data").unlink()
    assert run.refused().where == str(run.folder / "obj.data")


def test_a_data_file_is_read_as_darknet_reads_it(run: Run) -> None:
    text = (run.folder / "obj.data").read_text()
    spaced = "# ours\n\n" + text.replace("train.txt", " tr ain.txt ") + "train = other.txt\n"
    (run.folder / "obj.data").write_text(spaced)
    assert run.check() == []
    (run.folder / "obj.data").write_text(text.replace("classes = 2", "classes = two"))
    assert "2 names for 0 classes" in run.refused().found
