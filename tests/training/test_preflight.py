"""What is found before a training begins, each fault alone and many at once."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.darknet.forks import LINES
from oiyolo.darknet.gpus import Gpu
from oiyolo.darknet.program import data_file
from oiyolo.networks.builders import build
from oiyolo.networks.schedule import Schedule
from oiyolo.training import preflight

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import DarknetLine

GIB = 1 << 30


class Usage(NamedTuple):
    """What ``shutil.disk_usage`` gives."""

    total: int
    used: int
    free: int


class Run:
    """A run's folder with six images, in which nothing is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs" / "demo-001"
        self.objects = folder / "obj"
        self.cfg = small(class_count=2)
        self.objects.mkdir()
        (self.folder / "weights").mkdir(parents=True)
        for number in range(6):
            self.image(number).write_bytes(b"\xff\xd8")
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

    def check(self, line: DarknetLine = "pjreddie", **keys: Any) -> list[str]:
        return preflight.check(self.folder, cfg=self.cfg, line=LINES[line], **keys)

    def refused(self, line: DarknetLine = "pjreddie", **keys: Any) -> InputFormError:
        with pytest.raises(InputFormError) as caught:
            self.check(line, **keys)
        return caught.value


def small(*, class_count: int, batch: int = 4) -> Cfg:
    schedule = Schedule(batch, 1, 0.001, 500, 10, (400,), (0.1,))
    return build("demo", class_count=class_count, size_wh=(96, 96), schedule=schedule)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    # A test's own folder has its name, and words such as "images" matter in a path.
    return Run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("line", LINES)
def test_what_is_right_passes_with_every_line(run: Run, line: DarknetLine) -> None:
    assert run.check(line, measures_map=True) == []
    assert sorted(path.name for path in (run.folder / "weights").iterdir()) == []


def test_an_empty_label_is_an_image_without_objects(run: Run) -> None:
    run.label(3).write_text("")
    run.label(4).write_text("\n \n")
    run.label(5).write_text("0 0.5 0.5 0.2 0.2")  # no newline at the end
    assert run.check() == []


def test_a_relative_list_lies_below_the_runs_folder(run: Run) -> None:
    shutil.copytree(run.objects, run.folder / "obj")
    (run.folder / "train.txt").write_text("obj/0.jpg\nobj/1.jpg\nobj/2.jpg\nobj/3.jpg")
    assert run.check() == []


# Each row: what is broken, and words of what is said.
FAULTS: list[tuple[Callable[[Run], object], list[str]]] = [
    (lambda run: run.image(2).unlink(), ["train.txt:3", "2.jpg' is no image file"]),
    (lambda run: run.image(2).write_bytes(b""), ["train.txt:3", "is no image file"]),
    (lambda run: run.label(1).unlink(), ["train.txt:2", "has no label at", "1.txt"]),
    (lambda run: run.label(0).write_text("2 .5 .5 .1 .1\n"), ["0.txt:1: class 2 of 2"]),
    (lambda run: run.label(0).write_text("-1 .5 .5 .1 .1\n"), ["class -1 of 2"]),
    (lambda run: run.label(0).write_text("0.5 .5 .5 .1 .1\n"), ["class 0.5 of 2"]),
    (lambda run: run.label(0).write_text("0 .5 .5 .1 .1\n\n0 .5 1.5 .1 .1\n"),
     ["0.txt:3: a box outside of its image, .5 1.5 .1 .1"]),
    (lambda run: run.label(0).write_text("0 .5 .5 0 .1\n"), ["a box outside"]),
    (lambda run: run.label(0).write_text("0 .5 .5 nan .1\n"), ["a box outside"]),
    (lambda run: run.label(0).write_text("0 .5 .5 .1\n"), ["'0 .5 .5 .1' is no class_id"]),
    (lambda run: run.label(0).write_text("Boat .5 .5 .1 .1\n"), ["is no class_id cx cy w h"]),
    (lambda run: run.label(0).write_bytes(b"\xff\xfe\0\0"), ["is no class_id"]),
    (lambda run: run.write_list("train", []), ["train.txt lists no image"]),
    (lambda run: run.write_list("valid", [1, 2, 3]), ["lists 3 images; darknet reads 4"]),
    (lambda run: (run.folder / "valid.txt").unlink(), ["valid cannot be read"]),
    (lambda run: (run.folder / "train.txt").write_text(f"{run.image(0)}\r\n"),
     ["train.txt:1", "0.jpg\\r' is no image file"]),
    (lambda run: (run.folder / "train.txt").write_text(f"{run.image(0)}\n\n{run.image(1)}\n"),
     ["train.txt:2: an empty line"]),
    (lambda run: (run.folder / "obj.names").write_text("Boat\n"), ["1 names for 2 classes"]),
    (lambda run: (run.folder / "obj.names").write_text("Boat\n\n"), ["an empty line"]),
    (lambda run: (run.folder / "obj.names").unlink(), ["obj.names (No such file"]),
    (lambda run: (run.folder / "weights").rmdir(), ["nothing can be written", "weights"]),
    (lambda run: setattr(run, "cfg", small(class_count=3)), ["classes=3, but"]),
    (lambda run: [run.label(n).write_text("") for n in range(6)], ["nothing to learn"]),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "words"), FAULTS)
def test_each_fault_is_found_where_it_is(
    run: Run, broken: Callable[[Run], object], words: list[str]
) -> None:
    broken(run)
    error = run.refused()
    assert "this training cannot begin" in error.what
    assert all(word in error.found for word in words), error.found


def test_the_first_few_of_many_are_told_and_all_are_counted(run: Run) -> None:
    numbers = list(range(100, 340))
    for number in numbers:
        run.image(number).write_bytes(b"\xff\xd8")
    run.write_list("train", numbers)
    error = run.refused()
    assert "240 things are wrong" in error.what
    assert error.found.count("has no label") == 5
    assert error.found.endswith("and 235 more")


@pytest.mark.parametrize(
    ("folder", "line", "looks_in"),
    [
        ("images", "pjreddie", "labels"),
        ("raw", "pjreddie", "labels"),
        ("JPEGImages", "alexeyab", "labels"),
    ],
)
def test_labels_are_looked_for_where_darknet_looks(
    run: Run, folder: str, line: DarknetLine, looks_in: str
) -> None:
    run.objects = run.objects.rename(run.objects.with_name(folder))
    run.write_list("train", [0, 1, 2, 3])
    run.write_list("valid", [0, 1, 2, 3])
    error = run.refused(line)
    assert f"/{looks_in}/0.txt, where darknet looks for it by the words in the path" in error.found
    shutil.copytree(run.objects, run.objects.with_name(looks_in))
    assert run.check(line) == []


def test_an_empty_valid_list_matters_where_it_is_measured_on(run: Run) -> None:
    run.write_list("valid", [])
    assert "valid.txt lists no image" in run.refused("alexeyab", measures_map=True).found
    (warning,) = run.check()
    assert "to judge the training by" in warning


def test_fewer_images_than_a_batch_are_worth_a_warning(run: Run) -> None:
    run.cfg = small(class_count=2, batch=64)
    (warning,) = run.check()
    assert "lists 6 images, fewer than a batch of 64" in warning


def test_a_folder_without_the_right_to_write_is_told(run: Run) -> None:
    if os.geteuid() == 0:
        (run.folder / "weights").rmdir()
        (run.folder / "weights").write_text("a file in its place")
    else:
        (run.folder / "weights").chmod(0o500)
    assert "nothing can be written into" in run.refused().found


def test_weights_that_do_not_fit_on_the_disk_are_told_beforehand(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(GIB, GIB, 1000))
    with pytest.raises(UnavailableError, match="will not fit on the disk") as caught:
        run.check()
    # Five of each hundred, the backup and the final ones; three copies are kept besides.
    assert "up to 10 files" in caught.value.expected
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(GIB, 0, GIB))
    assert run.check() == []


def test_a_small_gpu_is_worth_a_warning(run: Run) -> None:
    gpus = [Gpu(n, "Tiny", GIB, free, "7.5", "580") for n, free in enumerate((GIB, 1000))]
    (warning,) = run.check(gpus=gpus)
    assert "GPU 1 (Tiny) has 0.0 GiB free" in warning
    assert "even one image at a time is too much" in warning


def test_a_run_without_a_data_file_is_refused(run: Run) -> None:
    (run.folder / "obj.data").unlink()
    assert "no data file" in run.refused().what


def test_a_data_file_is_read_as_darknet_reads_it(run: Run) -> None:
    text = (run.folder / "obj.data").read_text()
    spaced = "# ours\n\n" + text.replace("train.txt", " tr ain.txt ") + "train = other.txt\n"
    (run.folder / "obj.data").write_text(spaced)
    assert run.check() == []
    (run.folder / "obj.data").write_text(text.replace("classes = 2", "classes = two"))
    assert "2 names for 0 classes" in run.refused().found
