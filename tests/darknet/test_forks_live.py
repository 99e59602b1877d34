"""The table of each line of darknet, held against the programs that are installed here.

That is ``darknet`` on PATH and those that ``OIYOLO_TEST_DARKNETS`` names, with colons between them.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from PIL import Image

from oiyolo.core import process
from oiyolo.darknet.forks import FINAL_WEIGHTS, LINES
from oiyolo.darknet.program import ask, data_file, revision, train_command, valid_command
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.weights import check_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.darknet.program import Darknet

pytestmark = pytest.mark.darknet

PROGRAMS: Final = [
    *filter(None, [shutil.which("darknet")]),
    *filter(None, os.environ.get("OIYOLO_TEST_DARKNETS", "").split(os.pathsep)),
]
PICTURES: Final = 4
ITERATIONS: Final = 110
"""So many that the first of the weights that are saved on the way are there."""
TIMEOUT_S: Final = 60.0
NETWORK: Final = """[net]
batch=4
subdivisions=1
width=32
height=32
channels=3
learning_rate=0.001
max_batches={iterations}
policy=constant

[convolutional]
batch_normalize=1
filters=4
size=3
stride=8
pad=1
activation=leaky

[convolutional]
filters=6
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=0
anchors=16,16
classes=1
num=1
jitter=.1
random=0
"""
ITERATION: Final = re.compile(r"(?:^|\s)(\d+): .*images")
REGION: Final = re.compile(r"Region \d+ .*count: (\d+)")


@dataclass(frozen=True)
class Said:
    """What a darknet said, by its streams, and how it ended."""

    exit_code: int
    lines: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def streams_of(self, form: re.Pattern[str]) -> set[str]:
        return {stream for stream, line in self.lines if form.search(line)}

    @property
    def iterations(self) -> list[int]:
        return [int(found[1]) for _, line in self.lines if (found := ITERATION.search(line))]

    @property
    def objects(self) -> int:
        counts = [int(found[1]) for _, line in self.lines if (found := REGION.search(line))]
        return max(counts, default=0)


def prepare(
    folder: Path, darknet: Darknet, *, images: str = "obj", iterations: int = 2, labels: bool = True
) -> None:
    """Make four pictures with an object in each, their labels where this line looks for them."""
    (folder / images).mkdir(parents=True)
    (folder / "out").mkdir()
    paths = [str(folder / images / f"{number}.jpg") for number in range(PICTURES)]
    for number, path in enumerate(paths):
        Image.new("RGB", (32, 32), (60 * number, 90, 120)).save(path)
        if labels:
            label = Path(darknet.line.label_of(path))
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    (folder / "obj.names").write_text("thing\n")
    (folder / "tiny.cfg").write_text(NETWORK.format(iterations=iterations))
    lists = {"train": "list.txt", "valid": "list.txt"}
    (folder / "obj.data").write_text(
        data_file(class_count=1, names="obj.names", backup="out", results="out", **lists)
    )


def say(argv: Sequence[str], folder: Path, typed: str) -> Said:
    lines: list[tuple[str, str]] = []
    exit_code = process.stream(
        ["timeout", "-s", "KILL", f"{TIMEOUT_S:g}", *argv],
        lambda stream, line: lines.append((stream, line.decode(errors="replace"))),
        cwd=folder,
        typed=typed,
    )
    return Said(exit_code, tuple(lines))


def train(
    darknet: Darknet,
    folder: Path,
    *more: str,
    data: str = "obj.data",
    weights: str | None = None,
    measure_map: bool = False,
) -> Said:
    argv = train_command(
        darknet, data=data, cfg="tiny.cfg", weights=weights, resume=True, measure_map=measure_map
    )
    return say([*argv, *more], folder, darknet.line.typed)


def final_of(folder: Path) -> Path:
    return folder / "out" / f"tiny{FINAL_WEIGHTS}"


@pytest.fixture(scope="module", params=PROGRAMS or [""])
def program(request: pytest.FixtureRequest) -> Darknet:
    if not request.param:
        pytest.skip("no darknet on PATH (Debian and Ubuntu: apt-get install darknet)")
    return ask(Path(request.param), "installed")


@dataclass(frozen=True)
class Training:
    folder: Path
    said: Said


@pytest.fixture(scope="module")
def training(program: Darknet, tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder = tmp_path_factory.mktemp("trained")
    prepare(folder, program, iterations=ITERATIONS)
    return Training(folder, train(program, folder, measure_map=True))


def test_a_program_is_of_one_line(program: Darknet) -> None:
    printed = process.run([str(program.executable), "detector"]).output
    assert [line for line in LINES.values() if line.says in printed] == [program.line]
    assert bool(program.line.revision_in(printed)) == bool(program.line.revision_says)
    assert "\x1b" not in revision(program)


def test_it_trains_to_the_end_and_leaves_the_weights_of_the_table(
    program: Darknet, training: Training
) -> None:
    line = program.line
    numbered = {f"_{n}.weights" for n in line.numbered(ITERATIONS)}
    best = {line.best_weights} - {""}
    expected = numbered | best | {line.last_weights, FINAL_WEIGHTS}
    found = {path.name.removeprefix("tiny") for path in (training.folder / "out").glob("tiny*")}
    assert found == expected, training.said.text[-2000:]
    assert training.said.iterations == list(range(1, ITERATIONS + 1))
    assert bool(line.map_flags) == ("mAP@0.50" in training.said.text)


def test_iterations_and_regions_come_on_the_streams_of_the_table(
    program: Darknet, training: Training
) -> None:
    assert training.said.streams_of(ITERATION) == {program.line.iterations_on}
    assert training.said.streams_of(REGION) == {program.line.regions_on}
    assert "\x1b]" not in training.said.text or program.line.map_flags


def test_the_last_weights_are_gone_on_from(program: Darknet, training: Training) -> None:
    weights = training.folder / "out" / f"tiny{program.line.last_weights}"
    cfg = cfgs.parse((training.folder / "tiny.cfg").read_text(), path="tiny.cfg")
    assert check_weights(weights, cfg).header.iteration(4) == program.line.last_every
    again = train(program, training.folder, weights=str(weights))
    assert again.iterations == list(range(program.line.last_every + 1, ITERATIONS + 1))


def test_finished_weights_are_not_trained_on(program: Darknet, training: Training) -> None:
    again = train(program, training.folder, weights=str(final_of(training.folder)))
    assert again.iterations == []


def test_detections_go_where_they_are_told_to_go(program: Darknet, training: Training) -> None:
    argv = valid_command(
        program,
        data="obj.data",
        cfg="tiny.cfg",
        weights=str(final_of(training.folder)),
        prefix="d_",
    )
    said = say(argv, training.folder, "")
    assert (training.folder / "out" / "d_thing.txt").is_file(), said.text


def test_a_flag_that_it_does_not_know(program: Darknet, tmp_path: Path) -> None:
    prepare(tmp_path, program)
    said = train(program, tmp_path, "-a_flag_of_nobody")
    assert final_of(tmp_path).is_file() == program.line.takes_flags, said.text
    assert ("Couldn't open file: -a_flag_of_nobody" in said.text) != program.line.takes_flags


def test_a_file_that_is_not_there_ends_it_in_its_own_way(program: Darknet, tmp_path: Path) -> None:
    prepare(tmp_path, program)
    said = train(program, tmp_path, data="absent.data")
    assert said.exit_code == program.line.ends_on_missing_file
    assert ("absent.data" in said.text) == program.line.names_missing_file


def test_it_trains_only_if_its_question_is_answered(program: Darknet, tmp_path: Path) -> None:
    prepare(tmp_path, program)
    silent = dataclasses.replace(program, line=dataclasses.replace(program.line, typed=""))
    train(silent, tmp_path)
    asks = bool(program.line.typed) and not program.gpu
    assert final_of(tmp_path).is_file() != asks


FOLDERS: Final = (
    *("obj", "images", "my-images/raw", "JPEGImages", "drawings", "images/val2014"),
    *("images/train2017", "a.jpg", "b.png/images", "c.JPEG", "d.jpeg", "e.PNG"),
)


@pytest.mark.parametrize("images", FOLDERS)
def test_labels_are_where_the_table_says(program: Darknet, tmp_path: Path, images: str) -> None:
    prepare(tmp_path, program, images=images)
    said = train(program, tmp_path)
    assert final_of(tmp_path).is_file(), said.text
    assert said.objects == PICTURES, said.text


def test_a_missing_label_ends_it_or_goes_unnoticed(program: Darknet, tmp_path: Path) -> None:
    prepare(tmp_path, program, labels=False)
    said = train(program, tmp_path)
    assert final_of(tmp_path).is_file() == program.line.trains_without_labels, said.text
    assert said.objects < PICTURES
