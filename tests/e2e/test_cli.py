"""Each command calls the library function of the same name with the same options."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

import oiyolo
from oiyolo.cli import commands
from oiyolo.project.keys import KEYS_BY_NAME
from tests.support import command_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli

COMMANDS = tuple(name for name in oiyolo.__all__ if name in command_line.COMMANDS)
"""All commands, in the order of the pipeline."""
COMMON_OPTIONS = {"as_json", "quiet", "verbose"}

CALLS: dict[str, tuple[str, dict[str, object]]] = {
    "init --class Boat --class Canoe --project p": (
        "init",
        {"classes": ("Boat", "Canoe"), "project": "p"},
    ),
    "init --size 416x416 --fit letterbox": (
        "init",
        {"size": (416, 416), "fit": "letterbox"},
    ),
    "classes boat --tree": ("classes", {"names": ("boat",), "tree": True}),
    "plan --class Boat --bandwidth-mb-s 2 --price-per-hour .9 --currency EUR": (
        "plan",
        {"classes": ("Boat",), "bandwidth_mb_s": 2.0, "price_per_hour": 0.9, "currency": "EUR"},
    ),
    "select --stream --skip-bad-rows": ("select", {"stream": True, "skip_bad_rows": True}),
    "select --class /m/019jd --limit 30 --no-include-descendants": (
        "select",
        {"classes": ("/m/019jd",), "limit": 30, "include_descendants": False},
    ),
    "select --subset train --subset test --negatives .5 --group-of drop-box": (
        "select",
        {"subsets": ("train", "test"), "negatives": 0.5, "group_of": "drop-box"},
    ),
    "fetch --class Boat --jobs 4 --retry failed --tolerance 0.1": (
        "fetch",
        {"classes": ("Boat",), "jobs": 4, "retry": "failed", "tolerance": 0.1},
    ),
    "fetch --sources mirror --sources ./images --mirror-url http://x --base-url http://y": (
        "fetch",
        {
            "sources": ("mirror", "./images"),
            "mirror_url": "http://x",
            "base_url": "http://y",
        },
    ),
    "prepare --size 608x416 --no-keep-originals --dry-run": (
        "prepare",
        {"size": (608, 416), "keep_originals": False, "dry_run": True},
    ),
    "split --check": ("split", {"check": True}),
    "split --train 0.6 --valid 0.2 --test 0.2 --seed 7 --reassign": (
        "split",
        {"train": 0.6, "valid": 0.2, "test": 0.2, "seed": 7, "reassign": True},
    ),
    "build --executable d --build-gpu no": ("build", {"executable": "d", "build_gpu": "no"}),
    "train --network yolov3-tiny --max-batches 500 --batch 8 --gpus 0,1 --again": (
        "train",
        {"network": "yolov3-tiny", "max_batches": 500, "batch": 8, "gpus": "0,1", "again": True},
    ),
    "train --weights none --size-wh 96x96 --subdivisions auto": (
        "train",
        {"weights": "none", "size_wh": (96, 96), "subdivisions": "auto"},
    ),
    "plot": ("plot", {}),
    "plot pyproject.toml": ("plot", {"log": ("pyproject.toml",)}),
    "plot a b --tensorboard events": ("plot", {"log": ("a", "b"), "tensorboard": "events"}),
    "plot --follow --every-s 2 --idle-s 60": (
        "plot",
        {"follow": True, "every_s": 2.0, "idle_s": 60.0},
    ),
    "plot --run tiny-001": ("plot", {"run": "tiny-001"}),
    "evaluate --run a --split valid --weights w": (
        "evaluate",
        {"run": "a", "split": "valid", "weights": "w", "scorer": "onnxruntime"},
    ),
    "evaluate a b --with darknet": (
        "evaluate",
        {"runs": ("a", "b"), "split": "test", "scorer": "darknet"},
    ),
    "evaluate --all-checkpoints --baseline": (
        "evaluate",
        {
            "split": "test",
            "scorer": "onnxruntime",
            "all_checkpoints": True,
            "baseline": "yolo-fastest-xl",
        },
    ),
    "report --run a": ("report", {"run": "a"}),
    "report --with-detector": ("report", {"with_detector": True}),
    "review --run a --limit 9": ("review", {"run": "a", "limit": 9, "port": 0}),
    "review --serve --port 8001": ("review", {"serve": True, "limit": 500, "port": 8001}),
    "review --cross-fit": ("review", {"cross_fit": True, "limit": 500, "port": 0}),
    "report a b": ("report", {"runs": ("a", "b")}),
    "report --follow --every-s 20": ("report", {"follow": True, "every_s": 20.0}),
    "export web --half --runtime r": ("export_web", {"half": True, "runtime_path": "r"}),
    "export onnx": ("export_onnx", {"layout": "darknet"}),
    "export onnx --cfg c --weights w --names n": (
        "export_onnx",
        {"cfg": "c", "weights": "w", "names": "n", "layout": "darknet"},
    ),
    "export onnx --run a --layout yolov8 --half --out b.onnx": (
        "export_onnx",
        {"run": "a", "layout": "yolov8", "half": True, "out": "b.onnx"},
    ),
    "run --class Boat --max-batches 9 --train 1 --valid 0 --test 0": (
        "run",
        {"classes": ("Boat",), "max_batches": 9, "train": 1.0, "valid": 0.0, "test": 0.0},
    ),
    "refresh --project p": ("refresh", {"project": "p"}),
    "refresh --accept-loss --max-loss 0.2": ("refresh", {"accept_loss": True, "max_loss": 0.2}),
    "refresh --print-cron --deadline 6h": ("refresh", {"print_cron": True, "deadline": "6h"}),
    "train --detach": ("train", {"detach": True}),
    "train --attach": ("train", {"attach": True}),
    "stop --run a": ("stop", {"run": "a"}),
    "withdraw 0 1 --why a --undo": (
        "withdraw",
        {"image_ids": ("0", "1"), "why": "a", "undo": True},
    ),
    "freeze --out a": ("freeze", {"out": "a"}),
    "run --from a --until split": ("run", {"frozen": "a", "until": "split"}),
    "status": ("status", {}),
    "why 0123456789abcdef": ("why", {"image_id": "0123456789abcdef"}),
    "doctor": ("doctor", {}),
    "doctor --offline --executable d": ("doctor", {"offline": True, "executable": "d"}),
    "notebooks": ("notebooks", {"folder": "."}),
    "notebooks there --force": ("notebooks", {"folder": "there", "force": True}),
    "demo": ("demo", {"folder": "oiyolo-demo", "seed": 0, "scenes": 760}),
    "demo there --seed 2 --max-batches 9": (
        "demo",
        {"folder": "there", "seed": 2, "scenes": 760, "max_batches": 9},
    ),
}


class CallRecorder:
    """Records the calls of a command in place of the library function."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def __call__(self, **keywords: object) -> CallRecorder:
        self.calls.append(keywords)
        return self

    def as_dict(self) -> dict[str, object]:
        return {"a": 1, "nothing": float("nan"), "Ä": [float("inf")]}

    def __str__(self) -> str:
        return "done"


@pytest.mark.parametrize("words", CALLS)
def test_a_command_makes_one_call(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, words: str
) -> None:
    monkeypatch.chdir(request.config.rootpath)
    name, expected = CALLS[words]
    recorder = CallRecorder()
    monkeypatch.setattr(oiyolo, name, recorder)
    done = cli.ok(*words.split())
    assert done.out == "done\n"
    (call,) = recorder.calls
    defaults: dict[str, object] = {"project": "."} if name not in {"demo", "notebooks"} else {}
    false_flags = {key for key, value in call.items() if value is False and key not in expected}
    assert false_flags <= {
        *("dry_run", "reassign", "again", "check", "tree", "follow", "offline"),
        *("detach", "attach", "accept_loss", "half", "all_checkpoints"),
        *("retrain", "print_cron", "print_systemd", "undo", "with_detector", "force", "serve"),
        "cross_fit",
    }
    options = {k: v for k, v in call.items() if v is not None and k not in false_flags}
    assert options == {**defaults, **expected}


def test_the_commands_are_listed_in_the_order_of_the_work() -> None:
    context = click.Context(commands)
    groups = dict.fromkeys(name.partition("_")[0] for name in COMMANDS)
    assert tuple(commands.list_commands(context)) == tuple(groups)
    assert tuple(command_line.COMMANDS) == COMMANDS
    assert COMMANDS[0] == "init"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_describes_every_option(cli: Cli, name: str) -> None:
    words = command_line.WORDS[name]
    done = cli.ok(*words, "--help")
    assert done.out == cli.ok(*words, "-h").out
    command = command_line.COMMANDS[name]
    assert command.help
    assert command.help in " ".join(done.out.split())
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert option.opts[0] in done.out
    assert words[-1] in cli.ok(*words[:-1], "--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_a_keyword_of_the_function(name: str) -> None:
    function = getattr(oiyolo, name)
    parameters = inspect.signature(function).parameters
    takes_keys = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in command_line.COMMANDS[name].params:
        if option.name in COMMON_OPTIONS:
            continue
        assert option.name in parameters or (takes_keys and option.name in KEYS_BY_NAME)
    own = {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert own <= {option.name for option in command_line.COMMANDS[name].params}


def test_json_output_is_valid_json(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oiyolo, "status", CallRecorder())
    done = cli.ok("status", "--json")
    assert json.loads(done.out) == {"a": 1, "nothing": None, "Ä": [None]}
    assert done.out.count("\n") == 1


def test_a_bare_call_prints_the_whole_help(cli: Cli) -> None:
    done = cli()
    assert done.code == 2
    assert cli.ok("--help").out.strip() in done.err


def test_a_bad_value_of_a_repeatable_option_is_rejected_naming_the_option(cli: Cli) -> None:
    done = cli("select", "--subset", "training", "--json")
    assert (done.code, done.json["where"]) == (2, "--subset")


def test_the_version_is_printed(cli: Cli) -> None:
    assert oiyolo.__version__ in cli.ok("--version").out


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from oiyolo.cli import main; main(['--help']); "
        "print(sorted({n.partition('.')[0] for n in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "matplotlib", "PIL", "requests", "jinja2", "sqlite3", "tqdm"}
    heavy |= {"tensorboard", "mlflow", "wandb"}
    loaded: Any = set(eval(done.stderr))  # noqa: S307  (printed by this test)
    assert heavy & loaded == set()


def test_quiet_output_is_only_the_result(cli: Cli, tmp_path: Path) -> None:
    done = cli.ok("init", "-q", project=tmp_path)
    assert done.err == ""
    assert str(tmp_path / "oiyolo.toml") in done.out
