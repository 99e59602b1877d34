"""Faults that a real darknet rarely has, produced on demand by a stand-in."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core import locks
from oiyolo.core.process import ProcessResult
from oiyolo.darknet.gpus import Gpu
from oiyolo.stages.train import background, training_loop
from oiyolo.training import supervise
from tests.conftest import TINY_CFG, WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.training.run import Run
    from tests.conftest import Cli, CommandResult, Shell

ITERATIONS = 120
PROGRAM = '''\
"""Behaves like darknet, and fails as configured in behaviour.json."""

import array, json, os, re, signal, struct, sys, time
from pathlib import Path

here = Path(__file__).resolve().parent
behaviour = json.loads((here / "behaviour.json").read_text())
usages = {
    "pjreddie": "usage: darknet detector [train/test/valid] [cfg] [weights (optional)]",
    "alexeyab": "usage: darknet detector [train/test/valid/demo/map] [data] [cfg] [weights]",
}
if len(sys.argv) < 5:
    print(usages[behaviour["fork"]], file=sys.stderr)
    sys.exit(0)
verb, data, cfg = sys.argv[2:5]
is_proof = cfg.startswith("proof")
if not is_proof:
    with (here / "calls.jsonl").open("a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\\n")
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # as nvidia-smi numbers them
text = Path(cfg).read_text()
number = lambda key, where=text: int(re.search(rf"^{key} *= *(\\d+)", where, re.M)[1])
batch, last = number("batch"), number("max_batches")
option = lambda key: re.search(rf"^{key} *= *(\\S+)", Path(data).read_text(), re.M)[1]
backup = option("backup")
images = Path(option("valid" if verb == "valid" else "train")).read_text().splitlines()
if not is_proof:
    with (here / "images.jsonl").open("a") as file:
        file.write(json.dumps(images) + "\\n")
base = Path(cfg).name.split(".")[0]


def write(name, iteration, value=0.01):
    channels, floats = 3, 0
    for section in re.findall(r"^\\[convolutional\\][^\\[]*", text, re.M):
        filters, size = number("filters", section), number("size", section)
        floats += filters * (4 if "batch_normalize" in section else 1)
        floats += channels * filters * size * size
        channels = filters
    head = struct.pack("<3iQ", 0, 2, 0, iteration * batch)
    Path(backup, base + name).write_bytes(head + array.array("f", [value] * floats).tobytes())


def say(text, to=sys.stdout):
    to.write(text)
    to.flush()


if verb == "valid":
    if "detects" in behaviour:
        prefix = Path(option("results"), sys.argv[sys.argv.index("-out") + 1])
        rows = (f"{Path(image).stem} 0.9 5 5 20 20\\n" for image in images)
        Path(f"{prefix}0.txt").write_text("".join(rows))
    sys.exit(behaviour.get("exit_code", 0))
if is_proof:
    write("_final.weights", last)
    sys.exit(0)
first = 1
weights = sys.argv[5] if len(sys.argv) > 5 and sys.argv[5][0] != "-" else ""
if weights and "-clear" not in sys.argv:
    first += struct.unpack("<Q", Path(weights).read_bytes()[12:20])[0] // batch
gpu_count = 1
if "-gpus" in sys.argv:
    gpu_count = len(sys.argv[sys.argv.index("-gpus") + 1].split(","))
rate = gpu_count * float(re.search(r"^learning_rate *= *(\\S+)", text, re.M)[1])
subdivisions = number("subdivisions")
too_fast = rate > behaviour.get("bad_above_rate", 1e9)
last_name = ".backup" if behaviour["fork"] == "pjreddie" else "_last.weights"
best_map = -1.0


def once(name):
    """Return whether a fault that occurs only once occurs now."""
    at = behaviour.get(name)
    mark = here / (name + ".mark")
    if at is None or i < at or mark.exists():
        return False
    mark.touch()
    return True


say("Loading weights from nowhere...CommandResult!\\n", sys.stderr)
until = behaviour.get("until", last)
for i in range(first, until + 1):
    time.sleep(behaviour.get("pace_s", 0))
    if subdivisions < behaviour.get("fits_from_subdivisions", 0) and i > 110:
        say(behaviour["out_of_memory"], sys.stderr)
        sys.exit(1)
    if once("hangs_at"):
        time.sleep(600)
    if once("dies_within_line_at"):
        say(f"{i}: 1.50")
        os.kill(os.getpid(), 9)
    bad = too_fast and i >= behaviour.get("bad_from", 105)
    words = behaviour.get("bad_loss", "-nan") if bad else behaviour.get("loss", "1.500000")
    say("Region 4 Avg IOU: 0.3, Class: 0.5, Obj: 0.5, No Obj: 0.5, ")
    say(".5R: 0.0, .75R: 0.0,  count: 3\\n")
    say("Region 4 Avg IOU: -nan, Class: -nan, Obj: -nan, No Obj: 0.5, ")
    say(".5R: -nan, .75R: -nan,  count: 0\\n")
    ends = "avg loss" if behaviour["fork"] == "alexeyab" else "avg"
    say(f"{i}: {words}, {words} {ends}, ")
    say("Corrupt JPEG data: premature end of data segment\\n", sys.stderr)
    say(f"{rate:f} rate, 0.010000 seconds, {i * batch} images\\n")
    if "-map" in sys.argv and str(i) in behaviour.get("dies_of_map", {}):
        say("\\n calculation mAP (mean average precision)...\\n")
        say(behaviour["dies_of_map"][str(i)], sys.stderr)
        sys.exit(1)
    value = behaviour.get("maps", {}).get(str(i))
    if value is not None:
        say(f"\\n mean_average_precision (mAP@0.50) = {value:f} \\n")
        if value >= best_map:
            best_map = value
            say(f"Saving weights to {backup}/{base}_best.weights\\n", sys.stderr)
            write("_best.weights", i, value)
    for name in [last_name] if i % behaviour.get("saves_every", 100) == 0 else []:
        say(f"Saving weights to {backup}/{base}{name}\\n", sys.stderr)
        write(name, i, float("nan") if bad and "nan" in words else 0.01)
for stream in ("stdout", "stderr"):
    say(behaviour.get(stream, ""), getattr(sys, stream))
final = behaviour.get("final", "valid")
if final != "none":
    write("_final.weights", until, float("nan") if final == "nan" else 0.01)
if "best" in behaviour:
    write("_best.weights", behaviour["best"])
if "signal" in behaviour:
    os.kill(os.getpid(), behaviour["signal"])
sys.exit(behaviour.get("exit_code", 0))
'''


class StandIn:
    """A program that replaces darknet, with a project of its own."""

    def __init__(self, folder: Path, project: Path, cli: Cli) -> None:
        self.folder = folder
        self.path = folder / "darknet"
        self.project = project
        self.run = project / "runs" / "tiny-001"
        self.cli = cli
        if not self.path.exists():
            # Isolated and without site-packages, because it is started hundreds of times.
            self.path.write_text(f"#!{sys.executable} -IS\n{PROGRAM}", encoding="utf-8")
            self.path.chmod(0o755)

    def behave(self, fork: str = "pjreddie", **behaviour: object) -> None:
        text = json.dumps({"fork": fork, **behaviour})
        (self.folder / "behaviour.json").write_text(text, encoding="utf-8")

    def train(self, *words: str) -> CommandResult:
        return self.cli("train", "--executable", self.path, *words, project=self.project)

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def log(self) -> list[str]:
        return (self.run / "train_log.txt").read_text(encoding="utf-8").splitlines()

    @property
    def record(self) -> dict[str, Any]:
        record = json.loads((self.run / "run.json").read_text())
        assert isinstance(record, dict)
        return record


@pytest.fixture(scope="module")
def dataset(make_project: Callable[..., Path]) -> Path:
    """A project whose dataset is split."""
    project = make_project(limit=20, max_batches=ITERATIONS)
    oiyolo.fetch(project)
    oiyolo.split(project)
    return project


@pytest.fixture(scope="module")
def program_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in, which the first training verifies for all tests."""
    return tmp_path_factory.mktemp("stand-in")


@pytest.fixture
def stand_in(program_folder: Path, dataset: Path, cli: Cli) -> StandIn:
    shutil.rmtree(dataset / "runs", ignore_errors=True)
    for path in program_folder.iterdir():
        if path.name != "darknet":
            path.unlink()
    return StandIn(program_folder, dataset, cli)


def test_a_training_writes_a_complete_log_and_final_weights(stand_in: StandIn) -> None:
    stand_in.behave()
    done = stand_in.train()
    assert done.code == 0, done.err
    assert "120 iterations" in done.out
    assert stand_in.record["state"] == "finished"
    # Output on stderr in the middle of a line on stdout does not split that line.
    numbered = [line for line in stand_in.log if " avg, " in line]
    assert [int(line.split(":")[0]) for line in numbered] == list(range(1, ITERATIONS + 1))
    assert all(line.endswith(" images") for line in numbered)
    assert "Saving weights to weights/network.backup" in stand_in.log


def test_exit_code_0_without_final_weights_is_a_failure(stand_in: StandIn) -> None:
    words = "Couldn't open file: weights/network_200.weights"
    stand_in.behave(final="none", until=50, stderr=words + "\n", exit_code=0)
    done = stand_in.train()
    assert done.code == 5
    assert "exit code 0" in done.err
    assert words in done.err
    assert str(stand_in.run / "train_log.txt") in done.err
    assert stand_in.record["state"] == "failed"
    second = stand_in.train("--json")
    assert second.code == 5
    assert words in second.json["found"]
    assert second.json["where"] == str(stand_in.run / "train_log.txt")


def test_a_second_failure_is_explained_by_its_own_output(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=50, stderr="Couldn't open file: first\n")
    assert "Couldn't open file: first" in stand_in.train().err
    stand_in.behave(final="none", until=60, stderr="Couldn't open file: second\n")
    again = stand_in.train()
    assert again.code == 5
    assert "Couldn't open file: second" in again.err
    assert "first" not in again.err
    assert "Couldn't open file: first" in stand_in.log


def test_no_iteration_at_all_is_a_failure(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=0)
    done = stand_in.train()
    assert done.code == 5
    assert "before the end of the training" in done.err


def test_final_weights_of_too_few_iterations_are_a_failure(stand_in: StandIn) -> None:
    stand_in.behave(until=60)
    done = stand_in.train()
    assert done.code == 5
    assert "after 120 iterations" in done.err


def test_nan_weights_are_a_failure(stand_in: StandIn) -> None:
    stand_in.behave(final="nan", loss="nan")
    done = stand_in.train()
    assert done.code == 5
    assert "nan" in done.err
    assert "diverged" in done.err
    assert stand_in.record["state"] == "failed"


def test_valid_weights_are_a_success_whatever_the_exit_code(stand_in: StandIn) -> None:
    stand_in.behave(exit_code=1)
    assert stand_in.train().code == 0


def test_a_signal_is_named(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=30, signal=11)
    done = stand_in.train()
    assert done.code == 5
    assert "SIGSEGV" in done.err
    assert "crashes" in done.err


def test_a_line_cut_off_by_a_signal_is_kept_and_the_next_attempt_starts_a_new_line(
    stand_in: StandIn,
) -> None:
    stand_in.behave(final="none", until=110, stdout="111: 1.5000", signal=9)
    assert stand_in.train().code == 5
    assert stand_in.log[-1] == "111: 1.5000"
    stand_in.behave()
    done = stand_in.train()
    assert done.code == 0, done.err
    assert "111: 1.5000" in stand_in.log
    numbered = [int(line.split(":")[0]) for line in stand_in.log if line.endswith(" images")]
    # From the weights that were saved at 100.
    assert numbered == [*range(1, 111), *range(101, ITERATIONS + 1)]
    assert stand_in.record["resumed_at_iteration"] == 100
    assert stand_in.calls[-1][4] == str(stand_in.run / "weights" / "network.backup")
    assert "-clear" not in stand_in.calls[-1]


def test_an_incomplete_backup_is_not_resumed_from(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=110)
    assert stand_in.train().code == 5
    backup = stand_in.run / "weights" / "network.backup"
    backup.write_bytes(backup.read_bytes()[:-10])
    stand_in.behave()
    done = stand_in.train()
    assert done.code == 0, done.err
    assert str(backup) in done.err
    # A copy of the complete weights was kept.
    assert stand_in.record["resumed_at_iteration"] == 100
    assert stand_in.calls[-1][4] == str(stand_in.run / "weights" / "kept" / "last-100.weights")


def test_a_run_whose_weights_are_all_incomplete_starts_from_scratch(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=110)
    assert stand_in.train().code == 5
    for path in (stand_in.run / "weights").rglob("*.weights"):
        path.write_bytes(path.read_bytes()[:-10])
    backup = stand_in.run / "weights" / "network.backup"
    backup.write_bytes(b"")
    stand_in.behave()
    done = stand_in.train()
    assert done.code == 0, done.err
    assert stand_in.record["resumed_at_iteration"] == 0
    assert len(stand_in.calls[-1]) == 4


def test_pjreddies_fork_gets_no_flag_that_it_would_read_as_a_file(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    assert stand_in.calls == [["detector", "train", "obj.data", "network.cfg"]]


def test_alexeyabs_fork_gets_its_flags_and_resumes_from_its_last_weights(
    stand_in: StandIn,
) -> None:
    stand_in.behave("alexeyab", final="none", until=110, best=110)
    assert stand_in.train().code == 5
    assert stand_in.calls[0] == [
        *("detector", "train", "obj.data", "network.cfg"),
        *("-dont_show", "-map"),
    ]
    stand_in.behave("alexeyab")
    assert stand_in.train().code == 0
    last = str(stand_in.run / "weights" / "network_last.weights")
    assert stand_in.calls[1][4:] == [last, "-dont_show", "-map"]


def test_finished_weights_are_not_trained_again(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    # As if it had been killed after writing the weights and before recording that.
    path = stand_in.run / "run.json"
    path.write_text(json.dumps({**stand_in.record, "state": "running"}), encoding="utf-8")
    stand_in.behave(final="none")
    done = stand_in.train()
    assert done.code == 0, done.err
    assert len(stand_in.calls) == 1
    assert stand_in.record["state"] == "finished"
    assert "nothing to do" in stand_in.train().out


def test_missing_final_weights_are_trained_again(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    (stand_in.run / "weights" / "network_final.weights").unlink()
    assert stand_in.train().code == 0
    assert len(stand_in.calls) == 2
    assert stand_in.record["state"] == "finished"


def test_output_in_an_unknown_form_is_logged_completely(stand_in: StandIn) -> None:
    stand_in.behave(stdout="\x1b]2;title\x07 rank = 0 \r rank = 100 \r\nÄ" + "x" * 100_000)
    assert stand_in.train().code == 0
    assert stand_in.log[-1] == "Ä" + "x" * 100_000


def test_a_missing_label_is_reported_before_darknet_starts(stand_in: StandIn) -> None:
    stand_in.behave()
    train = (stand_in.project / "data" / "dataset" / "train.txt").read_text().splitlines()
    label = train[0].removesuffix(".jpg") + ".txt"
    path = stand_in.project / "data" / "dataset" / "obj" / label.split("/")[-1]
    content = path.read_bytes()
    path.unlink()
    done = stand_in.train()
    path.write_bytes(content)
    assert done.code == 3
    assert label in done.err
    assert stand_in.calls == []


def test_evaluate_fails_if_darknet_writes_no_detections(stand_in: StandIn, cli: Cli) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    words = ("evaluate", "--executable", stand_in.path, "--with", "darknet")
    assert cli(*words, project=stand_in.project).code == 5
    assert not (stand_in.run / "evaluation.json").exists()
    assert not list(stand_in.run.glob(".evaluate-*"))


def test_a_dry_run_warns_and_fails_as_the_training_does(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.behave()
    path = tmp_path / "mine.cfg"
    path.write_text(TINY_CFG.replace("burn_in", "burnin"), encoding="utf-8")
    warning = f"{path}, line {TINY_CFG.splitlines().index('burn_in=10') + 1}: "
    weights = tmp_path / "initial.weights"
    weights.write_bytes(b"<html>")
    for more in (("--dry-run",), ()):
        words = ("--network", str(path), *more)
        assert warning in stand_in.train(*words, "--weights", "none").err
        done = stand_in.train(*words, "--weights", str(weights), "--json")
        assert (done.code, done.json["where"]) == (3, str(weights))


def test_a_dry_run_says_from_which_weights_it_would_resume(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=110)
    new = stand_in.train("--dry-run", "--json").json
    assert "start from random weights" in new["would"]
    assert stand_in.train().code == 5
    plan = stand_in.train("--dry-run", "--json").json
    assert any("resume from" in action and "100" in action for action in plan["would"])
    stand_in.behave()
    assert stand_in.train().code == 0
    assert stand_in.calls[-1] == plan["command"][1:]
    assert stand_in.train("--dry-run", "--json").json["would"] == []


def test_evaluate_refuses_invalid_weights_and_changes_nothing(
    stand_in: StandIn, cli: Cli, tmp_path: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    own = stand_in.run / "weights" / "network_final.weights"
    good = own.read_bytes()
    nan, infinite = (struct.pack("<f", value) for value in (float("nan"), float("inf")))
    contents = {
        "empty": b"",
        "page": b"<!DOCTYPE html><html>",
        "nan": good[:-4] + nan,
        "infinite": good[:-4] + infinite,
        "short": good[:-1],
        "long": good + b"\0",
        "longer": good + good[-4:],
        "half": good[: len(good) // 2],
    }
    (stand_in.run / "evaluation.json").write_text("{}")
    before = digests(stand_in.run)
    words = ("evaluate", "--with", "darknet", "--executable", stand_in.path)
    for name, content in contents.items():
        path = tmp_path / f"{name}.weights"
        path.write_bytes(content)
        for more in ((), ("--dry-run",)):
            done = cli(*words, "--weights", path, *more, "--json", project=stand_in.project)
            assert (done.code, done.json["where"]) == (3, str(path)), name
            assert done.json["remedy"], name
    for path in (tmp_path, tmp_path / "none"):
        assert cli(*words, "--weights", path, project=stand_in.project).code == 2
    assert digests(stand_in.run) == before
    own.write_bytes(good[:-1])
    done = cli(*words, "--json", project=stand_in.project)
    assert (done.code, done.json["where"]) == (3, str(own))
    assert "oiyolo train" in done.json["remedy"]
    assert not [call for call in stand_in.calls if "valid" in call]
    # As the remedy says: the run is resumed from its last checkpoint, and the file is valid again.
    assert stand_in.train().code == 0
    assert len(own.read_bytes()) == len(good)


def test_a_failed_evaluation_keeps_the_earlier_one_up_to_date(
    stand_in: StandIn, cli: Cli, digests: Callable[[Path], dict[str, str]]
) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    for name in ("evaluation.json", ".evaluated-from.json"):
        (stand_in.run / name).write_text("{}")
    before = digests(stand_in.run)
    words = ("evaluate", "--executable", stand_in.path, "--with", "darknet")
    assert cli(*words, project=stand_in.project).code == 5
    after = digests(stand_in.run)
    assert set(after) - set(before) == {"valid_log.txt", ".evaluate.lock"}
    assert {name: after[name] for name in before} == before


def test_a_darknet_that_does_not_train_is_refused(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path, stand_in.project, stand_in.cli)
    stand_in.behave()
    text = stand_in.path.read_text().replace('write("_final.weights", last)', "pass")
    stand_in.path.write_text(text)
    done = stand_in.train()
    assert done.code == 5
    assert "starts but does not train" in done.err
    assert not (stand_in.project / "runs").exists()


def test_the_run_is_locked_while_it_trains(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=10)
    assert stand_in.train().code == 5
    with locks.exclusive(stand_in.run / ".lock", what="the run", operation="a long training"):
        done = stand_in.train()
        assert done.code == 6
        assert "a long training" in done.err
    assert len(stand_in.calls) == 1


def test_training_works_without_stdbuf(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "stdbuf" else which(name))
    stand_in.behave()
    assert stand_in.train().code == 0


# --- faults during a training -----------------------------------------------------------------

OUT_OF_MEMORY = (
    " Try to set subdivisions=64 in your cfg-file. \nCUDA Error: out of memory: File exists\n"
)


def events_of(stand_in: StandIn, kind: str) -> list[dict[str, Any]]:
    return [event for event in stand_in.record["events"] if event["kind"] == kind]


def logged_iterations(stand_in: StandIn) -> list[int]:
    return [int(line.split(":")[0]) for line in stand_in.log if line.endswith(" images")]


def test_out_of_memory_doubles_subdivisions_and_resumes(stand_in: StandIn) -> None:
    stand_in.behave(fits_from_subdivisions=4, out_of_memory=OUT_OF_MEMORY)
    done = stand_in.train("--batch", "4", "--subdivisions", "1")
    assert done.code == 0, done.err
    attempts = stand_in.record["attempts"]
    assert [attempt["subdivisions"] for attempt in attempts] == [1, 2, 4]
    assert [attempt["from_iteration"] for attempt in attempts] == [0, 100, 100]
    assert [attempt["verdict"] for attempt in attempts] == ["memory", "memory", None]
    assert "raises subdivisions from 1 to 2" in done.err
    cfg = (stand_in.run / "attempts" / "3" / "network.cfg").read_text()
    assert "subdivisions=4" in cfg
    # The images per iteration stay the same, and so does the count in the weights.
    assert logged_iterations(stand_in) == [*range(1, 111), *range(101, 111), *range(101, 121)]


def test_out_of_memory_with_one_image_at_a_time_is_an_error_with_advice(stand_in: StandIn) -> None:
    stand_in.behave(fits_from_subdivisions=99, out_of_memory=OUT_OF_MEMORY)
    done = stand_in.train("--batch", "4", "--subdivisions", "2")
    assert done.code == 5
    assert "Subdivisions are 4 already" in done.err
    assert "size_wh" in done.err
    assert len(stand_in.calls) == 2
    assert stand_in.record["state"] == "failed"


@pytest.mark.parametrize(
    ("kind", "loss", "bad_from"),
    [("nan", "-nan", 105), ("nan", "nan", 101), ("explosion", "5675620352.000000", 103)],
)
def test_a_diverged_training_is_rolled_back_at_half_the_learning_rate(
    stand_in: StandIn, kind: str, loss: str, bad_from: int
) -> None:
    stand_in.behave(
        bad_above_rate=0.0003, bad_loss=loss, bad_from=bad_from, saves_every=10, pace_s=0.002
    )
    done = stand_in.train("--learning-rate", "0.001")
    assert done.code == 0, done.err
    assert [attempt["learning_rate"] for attempt in stand_in.record["attempts"]] == [
        0.001,
        0.0005,
        0.00025,
    ]
    first, second = events_of(stand_in, kind)
    assert first["back_to"] == second["back_to"] == 100
    assert "halves the learning rate to 0.0005" in first["done"]
    # The rejected weights are kept, if there were any.
    for event in (first, second):
        if event["evidence"]:
            assert list((stand_in.run / event["evidence"]).iterdir())
    assert logged_iterations(stand_in)[-20:] == list(range(101, 121))
    assert "rolled back 2 times" in done.out
    assert stand_in.record["outcome"] == "trained all 120 iterations"


def test_one_nan_loss_too_many_is_an_error_and_the_next_call_retries(
    stand_in: StandIn,
) -> None:
    stand_in.behave(bad_above_rate=0, pace_s=0.002, saves_every=10)
    done = stand_in.train("--max-rollbacks", "2")
    assert done.code == 5
    assert "has been NaN since iteration 105" in done.err
    assert "already rolled back or restarted 2 times" in done.err
    assert len(stand_in.calls) == 3
    assert stand_in.record["state"] == "failed"
    stand_in.behave()
    assert stand_in.train().code == 0
    # At the reduced rate.
    assert stand_in.record["attempts"][-1]["learning_rate"] == pytest.approx(0.001 / 4)


def test_a_hanging_darknet_is_restarted(stand_in: StandIn) -> None:
    stand_in.behave(hangs_at=115)
    done = stand_in.train("--stall-s", "4")
    assert done.code == 0, done.err
    (event,) = events_of(stand_in, "stall")
    assert "after iteration 114 (limit 4 s)" in event["message"]
    assert [a["learning_rate"] for a in stand_in.record["attempts"]] == [0.001, 0.001]
    assert logged_iterations(stand_in) == [*range(1, 115), *range(101, 121)]


def test_a_nearly_full_disk_stops_the_training_before_it_writes_incomplete_weights(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.behave(pace_s=0.05)
    monkeypatch.setattr(training_loop, "disks", SimpleNamespace(free_bytes=lambda _: 1000))
    done = stand_in.train()
    assert done.code == 4
    assert "the disk is nearly full" in done.err
    assert stand_in.record["state"] == "failed"
    monkeypatch.undo()
    stand_in.behave()
    assert stand_in.train().code == 0


def test_a_line_cut_off_by_a_kill_is_logged_and_the_next_call_resumes(stand_in: StandIn) -> None:
    stand_in.behave(dies_within_line_at=107)
    done = stand_in.train()
    assert done.code == 5
    assert "SIGKILL" in done.err
    assert stand_in.log[-1] == "107: 1.50"
    assert stand_in.train().code == 0
    assert logged_iterations(stand_in) == [*range(1, 107), *range(101, 121)]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("darknet: ./src/parser.c:312: Assertion `l.outputs == params.inputs' failed.", "filters"),
        ("Couldn't open file: weights/network.backup", "weights cannot be written"),
        ("Couldn't open file: /data/obj/0a.txt", "a label is missing"),
        ('Cannot load image "/data/obj/0a.jpg"', "an image cannot be read"),
        ("CUDA Error: invalid device ordinal", "the GPU or its driver"),
        ("Malloc error", "the machine is out of memory"),
        ("", "nothing was trained"),
    ],
)
def test_the_cause_of_a_failure_is_identified_by_darknets_output(
    stand_in: StandIn, words: str, name: str
) -> None:
    stand_in.behave(final="none", until=0, stderr=words + "\n", exit_code=0)
    done = stand_in.train()
    assert done.code == 5
    assert name in done.err
    assert words in done.err
    assert "\n" not in done.err.partition("oiyolo: ")[2].strip()  # one paragraph
    assert name in stand_in.record["outcome"]


def test_the_best_weights_survive_a_resume(stand_in: StandIn) -> None:
    # After a resume darknet has no best mAP, and accepts the first one.
    stand_in.behave("alexeyab", maps={"90": 0.8, "105": 0.7}, final="none", until=110)
    assert stand_in.train().code == 5
    best = stand_in.run / "weights" / "network_best.weights"
    good = best.read_bytes()
    stand_in.behave("alexeyab", maps={"110": 0.5, "115": 0.6}, pace_s=0.002)
    done = stand_in.train()
    assert done.code == 0, done.err
    assert best.read_bytes() == good
    assert stand_in.record["best"] == {"map": 0.8, "iteration": 90}
    assert "best mAP 80.00%" in done.out


def test_better_weights_after_a_resume_become_the_best(stand_in: StandIn) -> None:
    stand_in.behave("alexeyab", maps={"90": 0.8}, final="none", until=110)
    assert stand_in.train().code == 5
    stand_in.behave("alexeyab", maps={"110": 0.5, "115": 0.9}, pace_s=0.002)
    assert stand_in.train().code == 0
    assert stand_in.record["best"] == {"map": 0.9, "iteration": 115}
    kept = sorted(path.name for path in (stand_in.run / "weights" / "kept").glob("best-*"))
    assert kept == ["best-0.900000-115.weights"]


def test_damaged_best_weights_are_restored(
    stand_in: StandIn,
) -> None:
    stand_in.behave("alexeyab", maps={"90": 0.8}, final="none", until=110)
    assert stand_in.train().code == 5
    best = stand_in.run / "weights" / "network_best.weights"
    good = best.read_bytes()
    best.write_bytes(good[:-100])  # cut off by a kill
    stand_in.behave("alexeyab")
    assert stand_in.train().code == 0
    assert best.read_bytes() == good


def test_a_darknet_that_dies_while_it_measures_map_trains_without_it(stand_in: StandIn) -> None:
    stand_in.behave("alexeyab", dies_of_map={"105": "cuDNN Error: CUDNN_STATUS_BAD_PARAM\n"})
    done = stand_in.train("--json")
    assert done.code == 0, done.err
    assert done.json["rollbacks"] == 0
    assert "oiyolo evaluate" in done.err
    assert ["-map" in call for call in stand_in.calls] == [True, False]
    assert [attempt["from_iteration"] for attempt in stand_in.record["attempts"]] == [0, 100]
    (event,) = events_of(stand_in, "map")
    assert event["back_to"] == 100
    assert "CUDNN_STATUS_BAD_PARAM" in event["message"]


def test_a_call_after_it_died_of_map_leaves_map_out_from_the_start(stand_in: StandIn) -> None:
    stand_in.behave(
        "alexeyab", dies_of_map={"50": "CUDA Error: x\n"}, final="none", until=110, exit_code=1
    )
    assert stand_in.train().code == 5
    plan = stand_in.train("--dry-run", "--json").json
    assert "-map" not in plan["command"]
    stand_in.behave("alexeyab", dies_of_map={"105": "CUDA Error: x\n"})
    done = stand_in.train()
    assert done.code == 0, done.err
    assert "oiyolo evaluate" in done.err
    assert len(stand_in.calls) == 3


@pytest.mark.parametrize(
    ("number", "name"),
    [(4, "another processor"), (9, "killed")],
)
def test_the_signal_of_a_darknet_that_died_is_explained(
    stand_in: StandIn, number: int, name: str
) -> None:
    stand_in.behave(final="none", until=30, signal=number)
    done = stand_in.train("--json")
    assert done.code == 5
    assert name in done.json["error"]
    assert "the same command again" in done.json["remedy"]


def test_the_partial_files_of_a_killed_training_are_removed_by_the_next_call(
    stand_in: StandIn,
) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    folders = [stand_in.run, stand_in.run / "weights", stand_in.run / "weights" / "kept"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / ".x.999999999-1.part").touch()
    assert "nothing to do" in stand_in.train().out
    assert not list(stand_in.run.rglob("*.part"))


# --- scores of new weights while it trains -------------------------------------------------------


class Scorer:
    """Scores weights at once, in this process, as configured in behaviour.json."""

    def __init__(self, stand_in: StandIn, weights: Path) -> None:
        behaviour = json.loads((stand_in.folder / "behaviour.json").read_text())
        self.result = ProcessResult(1, behaviour.get("scorer_fails", ""))
        if self.result.output:
            return
        iteration = struct.unpack("<Q", weights.read_bytes()[12:20])[0] // 4
        score = {
            "iteration": iteration,
            "valid_map50": behaviour["scores"].get(str(iteration), 0.5),
        }
        path = stand_in.run / "checkpoint_scores.json"
        content = json.loads(path.read_text()) if path.exists() else {"checkpoints": []}
        entry = {**score, "path": str(weights), "sha256": "", "seconds": 0.1}
        content["checkpoints"] += [{**entry, "valid_map50_interval": None, "train_map50": None}]
        numbers = {"valid_images": 2, "train_images": 2, "made_from": {}}
        path.write_text(json.dumps({**numbers, **content}))
        self.result = ProcessResult(0, json.dumps(score))

    def poll(self) -> ProcessResult:
        return self.result

    def kill(self) -> None:
        """Do nothing: it has ended."""


@pytest.fixture
def scorer(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in with another one for the process that scores weights."""

    def start(*_: object) -> Callable[..., Scorer]:
        return lambda weights, _, is_idle: Scorer(stand_in, weights)  # noqa: ARG005  (by name)

    monkeypatch.setattr(training_loop, "scoring_process", start)
    monkeypatch.setattr(supervise, "_TICK_INTERVAL_S", 0.0)
    monkeypatch.setenv("OIYOLO_TRAIN_MAP", "own")
    return stand_in


def scored_iterations(stand_in: StandIn) -> list[int]:
    scores = json.loads((stand_in.run / "checkpoint_scores.json").read_text())
    return [score["iteration"] for score in scores["checkpoints"]]


def kept_files(stand_in: StandIn) -> list[str]:
    return sorted(path.name for path in (stand_in.run / "weights" / "kept").iterdir())


def test_new_weights_are_scored_while_darknet_trains_without_map(scorer: StandIn) -> None:
    scorer.behave("alexeyab", saves_every=40, pace_s=0.01, scores={"40": 0.25, "80": 0.75})
    plan = scorer.train("--dry-run", "--json").json
    assert (plan["map"], "-map" in plan["command"]) == ("own", False)
    done = scorer.train("--json")
    assert done.code == 0, done.err
    assert "-map" not in scorer.calls[0]
    assert scored_iterations(scorer)[-2:] == [80, 120]
    assert scorer.record["map"] == "own"
    assert scorer.record["best"] == {"map": 0.75, "iteration": 80}
    best = scorer.run / "weights" / "kept" / "best-0.750000-80.weights"
    assert (done.json["best_weights"], done.json["best_map"]) == (str(best), 0.75)
    assert kept_files(scorer) == [best.name, "last-120.weights", "last-80.weights"]
    assert not (scorer.run / "weights" / "network_best.weights").exists()
    assert "nothing to do" in scorer.train().out


def test_a_run_keeps_the_way_in_which_it_measures_map(scorer: StandIn) -> None:
    scorer.behave("alexeyab", final="none", until=110)
    assert scorer.train("--map", "darknet").code == 5
    record = scorer.record
    assert record.pop("map") == "darknet"
    (scorer.run / "run.json").write_text(json.dumps(record))  # as older versions wrote it
    plan = scorer.train("--dry-run", "--json").json
    assert (plan["map"], "-map" in plan["command"]) == ("darknet", True)
    scorer.behave("alexeyab")
    assert scorer.train().code == 0
    assert "-map" in scorer.calls[-1]
    assert not (scorer.run / "checkpoint_scores.json").exists()


def test_patience_uses_the_scores_also_after_a_resume(scorer: StandIn) -> None:
    options = ("--patience", "40", "--max-batches", "4000")
    scores = {"20": 0.9}
    scorer.behave(saves_every=20, pace_s=0.01, scores=scores, until=50, final="none")
    assert scorer.train(*options).code == 5
    assert 20 in scored_iterations(scorer)
    scorer.behave(saves_every=20, pace_s=0.01, scores=scores)
    done = scorer.train(*options)
    assert done.code == 0, done.err
    record = scorer.record
    assert record["stopped_early"]["iteration"] < 4000
    assert "at iteration 20 " in record["stopped_early"]["message"]
    assert record["best"] == {"map": 0.9, "iteration": 20}
    assert scored_iterations(scorer)[-1] == record["stopped_early"]["iteration"]


def test_failed_scores_never_stop_a_training(scorer: StandIn) -> None:
    scorer.behave(saves_every=10, pace_s=0.02, scorer_fails="no luck")
    done = scorer.train()
    assert done.code == 0, done.err
    (event,) = events_of(scorer, "scoring")
    assert event["message"].endswith("3 failures in a row: no luck")
    assert done.err.count("no luck") == 2
    assert scorer.record["state"] == "finished"
    assert "best" not in scorer.record
    assert not any(name.startswith("scoring") for name in kept_files(scorer))


# --- the newest run that has what is needed ------------------------------------------------------


def abort(stand_in: StandIn) -> None:
    """Start a second run that ends before it saves weights or completes an iteration."""
    stand_in.behave(final="none", until=0, exit_code=1)
    assert stand_in.train("--again").code == 5
    assert (stand_in.project / "runs" / "tiny-002" / "run.json").exists()


def test_commands_use_the_newest_run_that_has_what_they_need(stand_in: StandIn, cli: Cli) -> None:
    stand_in.behave(max_batches=ITERATIONS)
    assert stand_in.train().code == 0
    abort(stand_in)
    assert cli.ok("plot", "--json", project=stand_in.project).json["name"] == "tiny-001"
    done = cli.ok("report", "--json", project=stand_in.project)
    assert done.json["run"] == "tiny-001"
    assert "tiny-002" in done.err  # passed over, and named
    plan = cli("evaluate", "--executable", stand_in.path, "--dry-run", project=stand_in.project)
    assert "tiny-001" in plan.out
    assert "nothing to do" in stand_in.train().out
    for name in ("plot", "evaluate"):  # a named run is used whatever it has
        assert cli(name, "--run", "tiny-002", project=stand_in.project).code in {2, 3}


def test_the_same_command_resumes_a_new_run_that_was_interrupted(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    abort(stand_in)
    second = stand_in.project / "runs" / "tiny-002"
    stand_in.behave(final="none", until=110)
    assert stand_in.train("--again").code == 5  # again before the end, but after its first weights
    plan = stand_in.train("--again", "--dry-run")
    assert "resume tiny-002" in plan.out
    assert "is not finished" in plan.err
    stand_in.behave()
    assert stand_in.train("--again", "--json").json["run"] == "tiny-002"
    assert json.loads((second / "run.json").read_text())["resumed_at_iteration"] == 100
    assert stand_in.train("--again", "--json").json["run"] == "tiny-003"  # it is finished


# --- stop, status, attach, detach ----------------------------------------------------------------


@pytest.fixture
def in_training(
    stand_in: StandIn, shell: Shell, wait_until: Callable[[Callable[[], bool]], None]
) -> subprocess.Popen[str]:
    """A training in progress in another process, which does not end by itself."""
    stand_in.behave(pace_s=0.05, saves_every=10, hangs_at=25)
    process = shell.start("train", "--executable", stand_in.path, "--project", stand_in.project)
    wait_until((stand_in.run / "weights" / "network.backup").is_file)
    return process


def test_stop_ends_a_training_and_says_what_is_kept(
    stand_in: StandIn, cli: Cli, shell: Shell, in_training: subprocess.Popen[str]
) -> None:
    plan = cli.ok("stop", "--dry-run", "--json", project=stand_in.project)
    assert str(in_training.pid) in plan.json["would"][0]
    stopped = cli.ok("stop", "--json", project=stand_in.project).json
    assert shell.end_of(in_training).code == 130
    assert (stopped["run"], stopped["state"]) == ("tiny-001", "interrupted")
    saved = stopped["iteration"] - stopped["iterations_lost"]
    assert saved >= 10
    assert saved % 10 == 0
    assert not (stand_in.run / ".stop").exists()
    again = cli.ok("stop", "--json", project=stand_in.project).json
    assert again["run"] is None
    assert cli.ok("stop", "--dry-run", "--json", project=stand_in.project).json["would"] == []
    stand_in.behave()
    assert stand_in.train().code == 0
    assert stand_in.record["resumed_at_iteration"] == saved


def test_a_request_to_stop_from_an_earlier_time_stops_nothing(stand_in: StandIn) -> None:
    stand_in.run.mkdir(parents=True)
    (stand_in.run / ".stop").touch()
    stand_in.behave(pace_s=0.01)
    assert stand_in.train().code == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_saves_the_state(
    stand_in: StandIn, shell: Shell, in_training: subprocess.Popen[str], number: int
) -> None:
    in_training.send_signal(number)
    in_training.send_signal(number)  # a terminal sends its signal twice
    assert shell.end_of(in_training).code == 130
    assert stand_in.record["state"] == "interrupted"
    assert "weights are saved up to iteration" in stand_in.record["outcome"]


def test_status_shows_a_training_in_progress_and_not_one_that_was_killed(
    stand_in: StandIn, cli: Cli, shell: Shell, in_training: subprocess.Popen[str]
) -> None:
    (run,) = cli.ok("status", "--json", project=stand_in.project).json["runs"]
    assert (run["state"], run["process"]) == ("running", in_training.pid)
    assert 10 <= run["iteration"] <= run["max_batches"] == ITERATIONS
    in_training.kill()
    shell.end_of(in_training)
    assert stand_in.record["state"] == "running"  # it could not record its end
    (run,) = cli.ok("status", "--json", project=stand_in.project).json["runs"]
    assert run == {"run": "tiny-001", "state": "interrupted"}


def test_attach_shows_a_training_until_it_ends(
    stand_in: StandIn, cli: Cli, shell: Shell, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    stand_in.behave(pace_s=0.05, saves_every=10)
    shell.start("train", "--executable", stand_in.path, "--project", stand_in.project)
    wait_until((stand_in.run / "weights" / "network.backup").is_file)
    plan = cli.ok("train", "--attach", "--dry-run", "--json", project=stand_in.project)
    assert "tiny-001" in plan.json["would"][0]
    done = cli.ok("train", "--attach", "--json", project=stand_in.project)
    assert (done.json["run"], done.json["iterations"]) == ("tiny-001", ITERATIONS)
    assert cli("train", "--attach", project=stand_in.project).code == 2


def test_attach_fails_if_the_training_does(
    stand_in: StandIn, cli: Cli, in_training: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def dies(_: Run) -> list[bytes]:
        in_training.kill()
        in_training.wait()
        return []

    monkeypatch.setattr(background, "_new_lines", dies)
    done = cli("train", "--attach", project=stand_in.project)
    assert done.code == 5


def test_an_interrupt_ends_attach_and_not_the_training(
    stand_in: StandIn, cli: Cli, in_training: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(background, "_new_lines", interrupted)
    done = cli.ok("train", "--attach", "--json", project=stand_in.project)
    assert (done.json["state"], done.json["process"]) == ("running", in_training.pid)
    assert in_training.poll() is None


@pytest.mark.parametrize("word", ["--detach", "--again"])
def test_attach_refuses_options_that_it_would_ignore(stand_in: StandIn, word: str) -> None:
    assert stand_in.train("--attach", word).code == 2


def test_a_detached_training_outlives_the_command_that_started_it(
    stand_in: StandIn, cli: Cli, shell: Shell
) -> None:
    stand_in.behave(pace_s=0.3, saves_every=10)
    words = ("train", "--executable", stand_in.path, "--project", stand_in.project, "--detach")
    plan = cli.ok(*words, "--dry-run", "--json")
    assert "background" in plan.json["would"][-1]
    done = shell(*words, "--json", "--price-per-hour", "2.5")
    assert done.code == 0, done.err
    assert (done.json["run"], done.json["state"]) == ("tiny-001", "running")
    assert os.getsid(done.json["process"]) == done.json["process"]  # no terminal is its own
    assert stand_in.record["cost"]["price_per_hour"] == 2.5  # the options are passed on
    assert cli(*words).code == 6
    stopped = cli.ok("stop", "--json", project=stand_in.project).json
    assert stopped["state"] == "interrupted"
    assert "stopped" in (stand_in.run / "detached.log").read_text(encoding="utf-8")


TERMINAL_SESSION = """
import fcntl, os, subprocess, sys, termios, time
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
code = subprocess.run([sys.executable, "-m", "oiyolo", *sys.argv[1:]]).returncode
print("ended with", code, flush=True)
time.sleep(600)
"""


def test_a_detached_training_outlives_its_terminal(stand_in: StandIn, cli: Cli) -> None:
    stand_in.behave(pace_s=0.3, saves_every=10)
    words = ("train", "--executable", stand_in.path, "--project", stand_in.project, "--detach")
    terminal, end = pty.openpty()
    argv = [sys.executable, "-c", TERMINAL_SESSION, *map(str, words)]
    session = subprocess.Popen(argv, stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    while b"ended with" not in shown:
        shown += os.read(terminal, 4096)
    process = stand_in.record["process"]
    open_files = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    os.close(terminal)
    assert session.wait(WAIT_S) == -signal.SIGHUP  # the terminal is gone
    assert not [path for path in open_files if path.startswith("/dev/pts")]
    (run,) = cli.ok("status", "--json", project=stand_in.project).json["runs"]
    assert (run["state"], run["process"]) == ("running", process)
    stopped = cli.ok("stop", "--json", project=stand_in.project).json
    assert stopped["state"] == "interrupted"
    assert "stopped" in stand_in.record["outcome"]  # by this command, not by the terminal


def test_a_detached_training_that_cannot_start_fails_with_its_error(
    stand_in: StandIn, cli: Cli
) -> None:
    stand_in.behave()
    image = (stand_in.project / "data/dataset/train.txt").read_text().splitlines()[0]
    label = stand_in.project / "data/dataset/obj" / f"{image.rpartition('/')[2][:-4]}.txt"
    content = label.read_bytes()
    label.unlink()
    words = ("train", "--executable", stand_in.path, "--detach")
    foreground, detached = (cli(*words[:n], "--json", project=stand_in.project) for n in (3, 4))
    label.write_bytes(content)
    assert detached.code == foreground.code == 3
    assert detached.json == foreground.json
    assert not stand_in.calls


@pytest.mark.parametrize("fork", ["pjreddie", "alexeyab"])
def test_early_stopping_ends_the_training_at_a_checkpoint(stand_in: StandIn, fork: str) -> None:
    maps = {str(i): 0.5 for i in range(10, 121, 10)}
    stand_in.behave(fork, maps=maps if fork == "alexeyab" else {}, saves_every=10, pace_s=0.005)
    done = stand_in.train("--patience", "40")
    assert done.code == 0, done.err
    assert "stopped early" in done.out
    ended = stand_in.record["stopped_early"]["iteration"]
    assert 40 < ended < ITERATIONS
    assert ended % 10 == 0
    final = (stand_in.run / "weights" / "network_final.weights").read_bytes()
    assert int.from_bytes(final[12:20], "little") == ended * 4
    assert stand_in.record["state"] == "finished"
    again = stand_in.train("--patience", "40")
    assert "nothing to do" in again.out
    assert len(stand_in.calls) == 1


# --- several GPUs ----------------------------------------------------------------------------


@pytest.fixture
def on_gpus(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in that appears to be linked with CUDA's libraries."""
    ldd = tmp_path / "bin" / "ldd"
    ldd.parent.mkdir()
    ldd.write_text("#!/bin/sh\necho libcudart.so.13\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ldd.parent}:{os.environ['PATH']}")
    return stand_in


def test_several_gpus_train_after_a_warm_up_on_one(on_gpus: StandIn) -> None:
    on_gpus.behave(saves_every=10, pace_s=0.005)
    done = on_gpus.train("--gpus", "0,1")
    assert done.code == 0, done.err
    attempts = on_gpus.record["attempts"]
    assert [attempt["gpus"] for attempt in attempts] == [["0"], ["0", "1"]]
    assert attempts[0]["verdict"] == "warm-up"
    assert attempts[1]["from_iteration"] >= 12
    assert attempts[1]["from_iteration"] % 10 == 0
    # Darknet multiplies the rate by the number of GPUs: the result is the same.
    rates = {line.split(" rate")[0].split(", ")[-1] for line in on_gpus.log if " rate" in line}
    assert rates == {"0.001000"}
    on_gpus.behave()
    assert "nothing to do" in on_gpus.train("--gpus", "0,1").out


def test_a_complete_warm_up_is_not_repeated(on_gpus: StandIn) -> None:
    on_gpus.behave(saves_every=10, pace_s=0.005, final="none", until=60)
    assert on_gpus.train("--gpus", "0,1").code == 5
    on_gpus.behave(saves_every=10)
    assert on_gpus.train("--gpus", "0,1").code == 0
    assert on_gpus.record["attempts"][-1]["gpus"] == ["0", "1"]
    assert on_gpus.record["attempts"][-1]["from_iteration"] == 60


def test_a_darknet_without_gpu_support_gets_no_gpus(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train("--gpus", "0,1").code == 0
    assert stand_in.calls == [["detector", "train", "obj.data", "network.cfg"]]


def test_on_a_machine_with_a_gpu_a_training_on_the_cpu_names_the_way_to_it(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.behave()
    assert "oiyolo build" not in stand_in.train().err
    gpu = Gpu(0, "Tesla T4", 16 << 30, 15 << 30, "7.5", "550.1")
    monkeypatch.setattr(training_loop, "gpus", lambda: [gpu])
    warned = stand_in.train("--again").err
    assert "takes seconds to minutes; `oiyolo build` builds a darknet that uses" in warned


# --- run.json --------------------------------------------------------------------------------


def test_run_json_has_the_command_the_result_and_the_cost(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train("--price-per-hour", "3600", "--currency", "EUR").code == 0
    record = stand_in.record
    (attempt,) = record["attempts"]
    assert attempt["command"] == record["command"]
    assert attempt["command"][1:] == stand_in.calls[0]
    assert (attempt["iterations"], attempt["to_iteration"], attempt["exit"]) == (
        ITERATIONS,
        ITERATIONS,
        "exit code 0",
    )
    assert record["cost"]["currency"] == "EUR"
    assert record["cost"]["amount"] == pytest.approx(record["seconds"], abs=0.1)
    assert record["fit"] == "stretch"
    assert record["size_wh"] == [32, 32]
    assert (
        record["cfg_sha256"]
        == hashlib.sha256((stand_in.run / "network.cfg").read_bytes()).hexdigest()
    )
    assert record["darknet"]["fork"] == "pjreddie"
    assert {"host", "gpus", "began_at", "ended_at", "dataset_fingerprint"} <= record.keys()


def test_a_changed_network_starts_a_new_run_and_the_change_is_logged(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    done = stand_in.train("--max-batches", "130")
    assert done.code == 0
    assert "starting a new run: the network (" in done.err
    assert "max_batches=130" in done.err
    assert (stand_in.project / "runs" / "tiny-002" / "run.json").exists()


def test_a_run_is_resumed_with_the_options_of_its_first_call(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=110)
    assert stand_in.train("--max-batches", "130").code == 5
    words = stand_in.record["options"]
    text = shlex.join(words)
    assert "--max-batches 130" in text
    assert f"--executable {stand_in.path}" in text
    first = stand_in.run
    warned = stand_in.train().err
    assert "starting a new run: the network (" in warned
    assert f"to resume tiny-001 instead, run `oiyolo train {text}`" in warned
    stand_in.behave(until=130)
    assert stand_in.cli("train", *words, project=stand_in.project).code == 0
    assert json.loads((first / "run.json").read_text())["state"] == "finished"


def test_a_machine_with_less_memory_resumes_the_run_with_other_subdivisions(
    stand_in: StandIn,
) -> None:
    stand_in.behave(final="none", until=110)
    assert stand_in.train("--batch", "4", "--subdivisions", "1").code == 5
    stand_in.behave()
    done = stand_in.train("--batch", "4", "--subdivisions", "2")
    assert done.code == 0, done.err
    assert stand_in.record["resumed_at_iteration"] == 100
    assert stand_in.record["name"] == "tiny-001"


def write_as_older_version(stand_in: StandIn) -> None:
    """Rewrite ``run.json`` with the keys that older versions used."""
    record = stand_in.record
    record["darknet"]["line"] = record["darknet"].pop("fork")
    for event in [*record.get("events", []), record.get("stopped_early") or {"message": ""}]:
        event["told"] = event.pop("message")
    (stand_in.run / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_run_of_an_older_version_is_resumed_reported_and_shown(
    stand_in: StandIn, cli: Cli
) -> None:
    stand_in.behave(bad_above_rate=0, pace_s=0.002, saves_every=10)
    assert stand_in.train("--max-rollbacks", "1").code == 5
    write_as_older_version(stand_in)
    assert "told" in stand_in.record["events"][0]
    assert "line" in stand_in.record["darknet"]
    (status,) = cli.ok("status", "--json", project=stand_in.project).json["runs"]
    assert status == {"run": "tiny-001", "state": "failed"}
    cli.ok("report", project=stand_in.project)
    assert "pjreddie&#39;s darknet" in (stand_in.run / "report.html").read_text(encoding="utf-8")
    stand_in.behave()
    done = stand_in.train()
    assert done.code == 0, done.err
    assert "resuming tiny-001 at iteration 100" in done.err
    assert [path.name for path in (stand_in.project / "runs").iterdir()] == ["tiny-001"]
    assert stand_in.record["resumed_at_iteration"] == 100
    assert stand_in.record["darknet"]["fork"] == "pjreddie"
    assert "line" not in stand_in.record["darknet"]


def test_early_stopping_of_an_older_version_is_read(stand_in: StandIn) -> None:
    stand_in.behave(saves_every=10, pace_s=0.005)
    first = stand_in.train("--patience", "40", "--json")
    assert first.code == 0, first.err
    write_as_older_version(stand_in)
    second = stand_in.train("--patience", "40", "--json")
    assert second.code == 0, second.err
    assert second.json["stopped_early"] == first.json["stopped_early"]
    assert second.json["iterations"] == first.json["iterations"]
    assert len(stand_in.calls) == 1
    # Killed before it was recorded that the training is finished.
    record = {**stand_in.record, "state": "running"}
    (stand_in.run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert stand_in.train("--patience", "40").code == 0
    assert stand_in.record["outcome"] == first.json["stopped_early"]
    assert len(stand_in.calls) == 1
