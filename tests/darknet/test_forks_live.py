"""The table of each fork of darknet, compared with the programs that are installed here.

These are ``darknet`` on PATH and the programs in ``OIYOLO_TEST_DARKNETS``, separated by colons.
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
from oiyolo.darknet.build.proof import TINY_NETWORK
from oiyolo.darknet.forks import FINAL_WEIGHTS, FORKS
from oiyolo.darknet.program import data_file, probe, revision, train_command, valid_command
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
IMAGES: Final = 4
ITERATIONS: Final = 110
"""Enough that each fork saves weights during the training."""
TIMEOUT_S: Final = 60.0
ITERATION: Final = re.compile(r"(?:^|\s)(\d+): .*images")
REGION: Final = re.compile(r"Region \d+ .*count: (\d+)")


@dataclass(frozen=True)
class Output:
    """The output of a darknet by stream, and its exit code."""

    exit_code: int
    lines: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def streams_of(self, pattern: re.Pattern[str]) -> set[str]:
        return {stream for stream, line in self.lines if pattern.search(line)}

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
    """Write four images with an object in each, and labels where this fork looks for them."""
    (folder / images).mkdir(parents=True)
    (folder / "out").mkdir()
    paths = [str(folder / images / f"{number}.jpg") for number in range(IMAGES)]
    for number, path in enumerate(paths):
        Image.new("RGB", (32, 32), (60 * number, 90, 120)).save(path)
        if labels:
            label = Path(darknet.fork.label_path(path))
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    (folder / "obj.names").write_text("thing\n")
    network = TINY_NETWORK.replace("max_batches=2\n", f"max_batches={iterations}\n")
    (folder / "tiny.cfg").write_text(network)
    lists = {"train": "list.txt", "valid": "list.txt"}
    (folder / "obj.data").write_text(
        data_file(class_count=1, names="obj.names", backup="out", results="out", **lists)
    )


def run_darknet(argv: Sequence[str], folder: Path, stdin_text: str) -> Output:
    lines: list[tuple[str, str]] = []
    exit_code = process.stream(
        ["timeout", "-s", "KILL", f"{TIMEOUT_S:g}", *argv],
        lambda stream, line: lines.append((stream, line.decode(errors="replace"))),
        cwd=folder,
        stdin_text=stdin_text,
    )
    return Output(exit_code, tuple(lines))


def train(
    darknet: Darknet,
    folder: Path,
    *more: str,
    data: str = "obj.data",
    weights: str | None = None,
    measure_map: bool = False,
) -> Output:
    argv = train_command(
        darknet, data=data, cfg="tiny.cfg", weights=weights, resume=True, measure_map=measure_map
    )
    return run_darknet([*argv, *more], folder, darknet.fork.confirmation)


def final_weights(folder: Path) -> Path:
    return folder / "out" / f"tiny{FINAL_WEIGHTS}"


@pytest.fixture(scope="module", params=PROGRAMS or [""])
def program(request: pytest.FixtureRequest) -> Darknet:
    if not request.param:
        pytest.skip("no darknet on PATH (Debian and Ubuntu: apt-get install darknet)")
    return probe(Path(request.param), "installed")


@dataclass(frozen=True)
class Training:
    folder: Path
    output: Output


@pytest.fixture(scope="module")
def training(program: Darknet, tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder = tmp_path_factory.mktemp("trained")
    prepare(folder, program, iterations=ITERATIONS)
    return Training(folder, train(program, folder, measure_map=True))


def test_a_program_is_of_exactly_one_fork(program: Darknet) -> None:
    printed = process.run([str(program.executable), "detector"]).output
    assert [fork for fork in FORKS.values() if fork.usage_marker in printed] == [program.fork]
    assert bool(program.fork.parse_revision(printed)) == bool(program.fork.revision_pattern)
    assert "\x1b" not in revision(program)


def test_a_training_writes_the_weights_of_the_table(program: Darknet, training: Training) -> None:
    fork = program.fork
    numbered = {f"_{n}.weights" for n in fork.checkpoint_iterations(ITERATIONS)}
    best = {fork.best_weights} - {""}
    expected = numbered | best | {fork.last_weights, FINAL_WEIGHTS}
    found = {path.name.removeprefix("tiny") for path in (training.folder / "out").glob("tiny*")}
    assert found == expected, training.output.text[-2000:]
    assert training.output.iterations == list(range(1, ITERATIONS + 1))
    assert bool(fork.map_flags) == ("mAP@0.50" in training.output.text)


def test_iteration_and_region_lines_are_on_the_streams_of_the_table(
    program: Darknet, training: Training
) -> None:
    assert training.output.streams_of(ITERATION) == {program.fork.iteration_stream}
    assert training.output.streams_of(REGION) == {program.fork.region_stream}
    assert "\x1b]" not in training.output.text or program.fork.map_flags


def test_a_training_resumes_from_the_last_weights(program: Darknet, training: Training) -> None:
    weights = training.folder / "out" / f"tiny{program.fork.last_weights}"
    cfg = cfgs.parse((training.folder / "tiny.cfg").read_text(), path="tiny.cfg")
    assert check_weights(weights, cfg).header.iteration(4) == program.fork.last_weights_interval
    again = train(program, training.folder, weights=str(weights))
    assert again.iterations == list(range(program.fork.last_weights_interval + 1, ITERATIONS + 1))


def test_final_weights_are_not_trained_further(program: Darknet, training: Training) -> None:
    again = train(program, training.folder, weights=str(final_weights(training.folder)))
    assert again.iterations == []


def test_detections_are_written_to_the_results_folder(program: Darknet, training: Training) -> None:
    argv = valid_command(
        program,
        data="obj.data",
        cfg="tiny.cfg",
        weights=str(final_weights(training.folder)),
        prefix="d_",
    )
    output = run_darknet(argv, training.folder, "")
    assert (training.folder / "out" / "d_thing.txt").is_file(), output.text


def test_an_unknown_flag_is_ignored_or_taken_for_a_weights_file(
    program: Darknet, tmp_path: Path
) -> None:
    prepare(tmp_path, program)
    output = train(program, tmp_path, "-a_flag_of_nobody")
    assert final_weights(tmp_path).is_file() == program.fork.ignores_unknown_flags, output.text
    assert (
        "Couldn't open file: -a_flag_of_nobody" in output.text
    ) != program.fork.ignores_unknown_flags


def test_a_missing_file_ends_the_training_with_the_exit_code_of_the_table(
    program: Darknet, tmp_path: Path
) -> None:
    prepare(tmp_path, program)
    output = train(program, tmp_path, data="absent.data")
    assert output.exit_code == program.fork.missing_file_exit_code
    assert ("absent.data" in output.text) == program.fork.names_missing_file


def test_a_fork_that_asks_for_confirmation_does_not_train_without_it(
    program: Darknet, tmp_path: Path
) -> None:
    prepare(tmp_path, program)
    silent = dataclasses.replace(program, fork=dataclasses.replace(program.fork, confirmation=""))
    train(silent, tmp_path)
    asks = bool(program.fork.confirmation) and not program.gpu
    assert final_weights(tmp_path).is_file() != asks


FOLDERS: Final = (
    *("obj", "images", "my-images/raw", "JPEGImages", "drawings", "images/val2014"),
    *("images/train2017", "a.jpg", "b.png/images", "c.JPEG", "d.jpeg", "e.PNG"),
)


@pytest.mark.parametrize("images", FOLDERS)
def test_labels_are_found_where_the_table_says(
    program: Darknet, tmp_path: Path, images: str
) -> None:
    prepare(tmp_path, program, images=images)
    output = train(program, tmp_path)
    assert final_weights(tmp_path).is_file(), output.text
    assert output.objects == IMAGES, output.text


def test_a_missing_label_ends_the_training_or_counts_as_a_negative(
    program: Darknet, tmp_path: Path
) -> None:
    prepare(tmp_path, program, labels=False)
    output = train(program, tmp_path)
    assert final_weights(tmp_path).is_file() == program.fork.trains_without_labels, output.text
    assert output.objects < IMAGES
