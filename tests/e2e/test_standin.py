"""Faults that a real darknet has but seldom: a stand-in has them on demand."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo import locks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Done

ITERATIONS = 120
PROGRAM = '''\
"""Answers as darknet does, and fails as it is told in behaviour.json."""

import array, json, os, re, signal, struct, sys
from pathlib import Path

here = Path(__file__).resolve().parent
behaviour = json.loads((here / "behaviour.json").read_text())
usages = {
    "pjreddie": "usage: darknet detector [train/test/valid] [cfg] [weights (optional)]",
    "alexeyab": "usage: darknet detector [train/test/valid/demo/map] [data] [cfg] [weights]",
}
if len(sys.argv) < 5:
    print(usages[behaviour["line"]], file=sys.stderr)
    sys.exit(0)
verb, data, cfg = sys.argv[2:5]
is_proof = cfg.startswith("proof")
if not is_proof:
    with (here / "calls.jsonl").open("a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\\n")
text = Path(cfg).read_text()
number = lambda key, where=text: int(re.search(rf"^{key} *= *(\\d+)", where, re.M)[1])
batch, last = number("batch"), number("max_batches")
backup = re.search(r"backup *= *(\\S+)", Path(data).read_text())[1]
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


def say(words, to=sys.stdout):
    to.write(words)
    to.flush()


if verb == "valid":
    sys.exit(behaviour.get("exit_code", 0))
if is_proof:
    write("_final.weights", last)
    sys.exit(0)
first = 1
if len(sys.argv) > 5 and "-clear" not in sys.argv and sys.argv[5][0] != "-":
    first += struct.unpack("<Q", Path(sys.argv[5]).read_bytes()[12:20])[0] // batch
say("Loading weights from nowhere...Done!\\n", sys.stderr)
until = behaviour.get("until", last)
for i in range(first, until + 1):
    say("Region 4 Avg IOU: 0.3, Class: 0.5, Obj: 0.5, No Obj: 0.5, ")
    say(".5R: 0.0, .75R: 0.0,  count: 3\\n")
    loss = behaviour.get("loss", "1.500000")
    say(f"{i}: {loss}, {loss} avg, ")
    if i % 100 == 0:
        name = ".backup" if behaviour["line"] == "pjreddie" else "_last.weights"
        say(f"Saving weights to {backup}/{base}{name}\\n", sys.stderr)
        write(name, i)
    say(f"0.001000 rate, 0.010000 seconds, {i * batch} images\\n")
for stream in ("stdout", "stderr"):
    say(behaviour.get(stream, ""), getattr(sys, stream))
final = behaviour.get("final", "sound")
if final != "none":
    write("_final.weights", until, float("nan") if final == "nan" else 0.01)
if "best" in behaviour:
    write("_best.weights", behaviour["best"])
if "signal" in behaviour:
    os.kill(os.getpid(), behaviour["signal"])
sys.exit(behaviour.get("exit_code", 0))
'''


class StandIn:
    """A program that takes darknet's place in a project of its own."""

    def __init__(self, folder: Path, project: Path, cli: Cli) -> None:
        self.folder = folder
        self.path = folder / "darknet"
        self.project = project
        self.run = project / "runs" / "tiny-001"
        self._cli = cli
        self.path.write_text(f"#!{sys.executable}\n{PROGRAM}", encoding="utf-8")
        self.path.chmod(0o755)

    def behave(self, line: str = "pjreddie", **behaviour: object) -> None:
        text = json.dumps({"line": line, **behaviour})
        (self.folder / "behaviour.json").write_text(text, encoding="utf-8")

    def train(self, *words: str) -> Done:
        return self._cli("train", "--executable", self.path, *words, project=self.project)

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


@pytest.fixture
def stand_in(tmp_path: Path, make_project: Callable[..., Path], cli: Cli) -> StandIn:
    project = make_project(limit=20, max_batches=ITERATIONS)
    cli.ok("fetch", project=project)
    cli.ok("split", project=project)
    return StandIn(tmp_path, project, cli)


def test_a_training_that_ends_well(stand_in: StandIn) -> None:
    stand_in.behave()
    done = stand_in.train()
    assert done.code == 0, done.err
    assert "120 iterations" in done.out
    assert stand_in.record["state"] == "finished"
    # What stderr said in the middle of a line of stdout cut nothing in two.
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
    as_json = stand_in.train("--json")
    assert as_json.code == 5
    assert words in as_json.json["found"]
    assert as_json.json["where"] == str(stand_in.run / "train_log.txt")


def test_a_second_failure_is_explained_by_its_own_words(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=50, stderr="Couldn't open file: first\n")
    assert "Couldn't open file: first" in stand_in.train().err
    stand_in.behave(final="none", until=60, stderr="Couldn't open file: second\n")
    again = stand_in.train()
    assert again.code == 5
    assert "Couldn't open file: second" in again.err
    assert "first" not in again.err
    assert "Couldn't open file: first" in stand_in.log


def test_nothing_trained_at_all_is_a_failure(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=0)
    done = stand_in.train()
    assert done.code == 5
    assert "without having trained to the end" in done.err


def test_final_weights_of_too_few_iterations_are_a_failure(stand_in: StandIn) -> None:
    stand_in.behave(until=60)
    done = stand_in.train()
    assert done.code == 5
    assert "after 120 iterations" in done.err


def test_weights_that_are_no_numbers_are_a_failure(stand_in: StandIn) -> None:
    stand_in.behave(final="nan", loss="nan")
    done = stand_in.train()
    assert done.code == 5
    assert "nan" in done.err
    assert "diverged" in done.err
    assert stand_in.record["state"] == "failed"


def test_sound_weights_are_a_success_whatever_the_exit_code(stand_in: StandIn) -> None:
    stand_in.behave(exit_code=1)
    assert stand_in.train().code == 0


def test_a_signal_is_named(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=30, signal=11)
    done = stand_in.train()
    assert done.code == 5
    assert "SIGSEGV" in done.err


def test_a_line_that_death_cut_off_is_kept_and_the_next_run_begins_a_new_one(
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


def test_a_half_written_backup_is_not_gone_on_with(stand_in: StandIn) -> None:
    stand_in.behave(final="none", until=110)
    assert stand_in.train().code == 5
    backup = stand_in.run / "weights" / "network.backup"
    backup.write_bytes(backup.read_bytes()[:-10])
    stand_in.behave()
    done = stand_in.train()
    assert done.code == 0, done.err
    assert str(backup) in done.err
    assert stand_in.record["resumed_at_iteration"] == 0
    assert len(stand_in.calls[-1]) == 4


def test_pjreddies_line_gets_no_flag_that_it_takes_for_a_file(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    assert stand_in.calls == [["detector", "train", "obj.data", "network.cfg"]]


def test_alexeyabs_line_gets_its_flags_and_goes_on_with_its_last_weights(
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
    # As if it had been killed after the weights were written, and before that was noted.
    path = stand_in.run / "run.json"
    path.write_text(json.dumps({**stand_in.record, "state": "running"}), encoding="utf-8")
    stand_in.behave(final="none")
    done = stand_in.train()
    assert done.code == 0, done.err
    assert len(stand_in.calls) == 1
    assert stand_in.record["state"] == "finished"
    assert "nothing to do" in stand_in.train().out


def test_finished_weights_that_were_lost_are_trained_again(stand_in: StandIn) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    (stand_in.run / "weights" / "network_final.weights").unlink()
    assert stand_in.train().code == 0
    assert len(stand_in.calls) == 2
    assert stand_in.record["state"] == "finished"


def test_a_log_in_no_known_form_is_kept_whole(stand_in: StandIn) -> None:
    stand_in.behave(stdout="\x1b]2;title\x07 rank = 0 \r rank = 100 \r\nÄ" + "x" * 100_000)
    assert stand_in.train().code == 0
    assert stand_in.log[-1] == "Ä" + "x" * 100_000


def test_a_prepared_image_that_is_gone_is_noticed_before_darknet_is(stand_in: StandIn) -> None:
    stand_in.behave()
    train = (stand_in.project / "data" / "dataset" / "train.txt").read_text().splitlines()
    label = train[0].removesuffix(".jpg") + ".txt"
    (stand_in.project / "data" / "dataset" / "obj" / label.split("/")[-1]).unlink()
    done = stand_in.train()
    assert done.code == 3
    assert label in done.err
    assert stand_in.calls == []


def test_valid_that_writes_nothing_is_a_failure_of_evaluate(stand_in: StandIn, cli: Cli) -> None:
    stand_in.behave()
    assert stand_in.train().code == 0
    done = cli("evaluate", "--executable", stand_in.path, project=stand_in.project)
    assert done.code == 5
    assert not (stand_in.run / "evaluation.json").exists()
    assert not list(stand_in.run.glob(".evaluate-*"))


def test_a_darknet_that_does_not_train_fails_its_proof(stand_in: StandIn) -> None:
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
    with locks.exclusive(stand_in.run / ".lock", what="the run", doing="a long training"):
        done = stand_in.train()
        assert done.code == 6
        assert "a long training" in done.err
    assert len(stand_in.calls) == 1


def test_without_stdbuf_it_trains_too(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "stdbuf" else which(name))
    stand_in.behave()
    assert stand_in.train().code == 0
