"""The commands of the README and of the tutorial do what these pages say."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from oiyolo.project.keys import KEYS_BY_NAME
from tests.support import documented
from tests.support.command_line import parse
from tests.support.mirror_facts import fates

if TYPE_CHECKING:
    from tests.conftest import Site

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
# commands.md is generated from the parser, and tests/deploy reads gcp-vm.md.
OTHERS = {"commands.md", "gcp-vm.md"}
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name not in OTHERS)

# What is not run, by the beginning of the line. The parser reads the oiyolo commands among them.
NOT_RUN = {
    "git clone": "there is no address to clone from",
    "python3 -m venv": "installs from the network; `make demo` in CI does the same",
    ". venv/bin/activate": "as above",
    "pip install": "as above",
    "sudo": "needs root",
    "oiyolo demo": "takes minutes; test_demo.py runs it",
    "oiyolo doctor": "asks sites on the internet; test_doctor.py runs it",
}
# What would take hours is run in a short form.
SHORT = {
    "--network yolov3-tiny": "",
    "oiyolo demo boats --serve": "oiyolo demo boats --serve --scenes 60",
    "8274d9ba6fdebb6c": fates(0, 60)["moved-to-placeholder"][0],
}


def variables(**options: Any) -> dict[str, str]:
    """Return the environment variables that set options."""
    return {KEYS_BY_NAME[name].variable: str(value) for name, value in options.items()}


def shortened(command: str) -> str:
    for long, short in SHORT.items():
        command = command.replace(long, short)
    return command


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda path: path.stem)
def test_pages_use_commands_and_options_that_exist(page: Path) -> None:
    for words in documented.oiyolo_commands(page.read_text(encoding="utf-8")):
        with contextlib.suppress(click.exceptions.Exit):  # --help and --version
            parse(words)


def test_the_readme_and_the_tutorial_have_commands() -> None:
    readme = documented.oiyolo_commands(README.read_text(encoding="utf-8"))
    assert {"demo", "run", "fetch", "split", "train", "predict"} <= {words[0] for words in readme}
    steps = documented.console_steps(TUTORIAL.read_text(encoding="utf-8"))
    assert {"fetch", "split", "train", "evaluate", "predict"} <= {
        step.command.split()[1] for step in steps
    }
    assert all(step.output for step in steps if not step.command.startswith("cd "))


@pytest.mark.parametrize(
    ("documented_lines", "printed", "differs"),
    [
        (["fetched 3 images in 4 s"], ["fetched 1 image in 0.2 s"], False),
        (["fetched 3 images"], ["prepared 3 images"], True),
        (["one", "...", "two"], ["one", "1.5", "2.5", "two"], False),
        (["one", "two"], ["one", "more", "two"], True),
        (["one", "two"], ["one"], True),
        (["see /home/you/boats"], ["see {home}/boats"], False),
        (["see /home/you/boats"], ["see /elsewhere/boats"], True),
    ],
)
def test_output_is_compared_except_for_numbers_and_paths(
    tmp_path: Path, documented_lines: list[str], printed: list[str], differs: bool
) -> None:
    lines = [line.format(home=tmp_path) for line in printed]
    assert bool(documented.differences(documented_lines, lines, tmp_path)) == differs


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.darknet
@pytest.mark.usefixtures("darknet")
def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    terminal = documented.Terminal(tmp_path / "you", variables(max_batches=80))
    with contextlib.ExitStack() as stack:
        for step in documented.console_steps(text):
            command = shortened(step.command)
            if command.startswith("oiyolo demo"):
                printed = stack.enter_context(terminal.serving(command))
            else:
                printed = terminal.run(command)
            differences = documented.differences(step.output, printed, terminal.home)
            assert not differences, "\n".join([f"$ {command}", *differences])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.darknet
def test_the_other_commands_of_both_pages_run(
    tmp_path: Path, site: Site, darknet: Path, tiny_cfg: Path
) -> None:
    options = {"network": tiny_cfg, "max_batches": 20, "size": "32x32", "tolerance": 0.2}
    quick = {"look": "false", "map": "darknet"}  # drawing and scoring take seconds
    environment = variables(**options, **quick, **site.urls, executable=darknet)
    terminal = documented.Terminal(tmp_path / "you", environment)
    photo = next((site.mirror.folder / "open-images-dataset" / "test").glob("*.jpg"))
    done = set()
    for page in (README, TUTORIAL):
        terminal.folder = terminal.home
        for block in documented.blocks(page.read_text(encoding="utf-8"), "sh"):
            for line in documented.commands(block):
                skipped = line.startswith(tuple(NOT_RUN))
                for command in () if skipped else shortened(line).split(" && "):
                    if command not in done:
                        shutil.copy(photo, terminal.folder / "photo.jpg")
                        terminal.run(command)
                        done.add(command)
    assert {"oiyolo run --class Boat --limit 1000", "oiyolo predict photo.jpg"} <= done
