"""What bad input gets: the right exit code, and a sentence that helps; never a traceback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.core import locks
from oiyolo.demo_data.writer import BOX_FILES, CLASS_FILES, HIERARCHY_FILE, IMAGE_FILES
from oiyolo.demo_data.writer import LABEL_FILES as LABELS_OF

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Shell, Site

BOXES = BOX_FILES["train"]
IMAGES = IMAGE_FILES["train"]
LABELS = LABELS_OF["train"]
CLASSES = CLASS_FILES[1]
BOAT = "/m/019jd"


@pytest.fixture
def dead_url() -> str:
    """An address that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def no_darknet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any: nothing on PATH, no sources, nothing built before."""
    nothing = tmp_path / "nothing-on-path"
    nothing.mkdir()
    monkeypatch.setenv("PATH", str(nothing))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty-cache"))
    monkeypatch.setattr("oiyolo.darknet.build.tree.has_sources", lambda _: False)


def left_overs(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*.part")]


def first_line_with(path: Path, word: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines) if word in line), 1)


# --- unknown names ---------------------------------------------------------------------------


def test_an_unknown_class_exits_2_and_names_the_nearest(
    cli: Cli, site: Site, tmp_path: Path
) -> None:
    done = cli("fetch", "--class", "Baot", "--base-url", site.urls["base_url"], project=tmp_path)
    assert done.code == 2
    assert "'Baot'" in done.err
    assert "Boat" in done.err.split("Nearest are")[1]
    assert not (tmp_path / "data" / "selection" / "selection.json").exists()


def test_a_misspelt_class_is_not_kept_for_the_next_command(
    cli: Cli, site: Site, tmp_path: Path
) -> None:
    url = site.urls["base_url"]
    assert cli("select", "--class", "Baot", "--base-url", url, project=tmp_path).code == 2
    cli.ok("select", "--class", "Boat", "--base-url", url, project=tmp_path)
    assert '"Boat"' in (tmp_path / "oiyolo.toml").read_text(encoding="utf-8")


def test_no_project_here_says_how_to_begin_one(cli: Cli, tmp_path: Path) -> None:
    for command in ("fetch", "prepare", "split", "train", "plot", "status", "refresh"):
        done = cli(command, project=tmp_path)
        assert done.code == 2, command
        assert "oiyolo init --class Boat" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[images]\nmiror_url = 'http://x'\n", 2, ["miror_url", "mirror_url"]),
        ("[imags]\njobs = 3\n", 2, ["[imags]", "images"]),
        ("[images]\nfit = 'stretched'\n", 2, ["[images] fit", '"stretch"', "'stretched'"]),
        ("[split]\ntrain = 0.9\n", 2, ["sum of 1", "1.1"]),
        ("[images]\nsize = [400, 416]\n", 2, ["[images] size", "32"]),
        ("[images\n", 3, ["oiyolo.toml", "line 1"]),
    ],
    ids=["key", "section", "value", "ratios", "size", "not-toml"],
)
def test_a_wrong_oiyolo_toml_is_told_with_what_would_be_right(
    cli: Cli, tmp_path: Path, text: str, code: int, words: list[str]
) -> None:
    (tmp_path / "oiyolo.toml").write_text(text, encoding="utf-8")
    done = cli("fetch", project=tmp_path)
    assert done.code == code
    for word in words:
        assert word in done.err


def test_a_wrong_environment_variable_is_named(
    cli: Cli, make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_DATASET_LIMIT", "many")
    done = cli("fetch", project=make_project())
    assert done.code == 2
    assert "OIYOLO_DATASET_LIMIT" in done.err
    assert "'many'" in done.err


def test_an_unknown_option_or_command_exits_2(cli: Cli, tmp_path: Path) -> None:
    done = cli("fetch", "--clas", "Boat", project=tmp_path)
    assert done.code == 2
    assert "--class" in done.err
    assert cli("fetsh").code == 2


# --- a site that is not there ----------------------------------------------------------------


def test_an_unreachable_site_exits_4_and_leaves_nothing_half_written(
    cli: Cli, tmp_path: Path, dead_url: str
) -> None:
    cache = tmp_path / "cache"
    words = ("--class", "Boat", "--base-url", dead_url, "--cache", str(cache))
    done = cli("fetch", *words, project=tmp_path)
    assert done.code == 4
    assert f"{dead_url}/v7/oidv7-class-descriptions-boxable.csv" in done.err
    assert "attempts: 4" in done.err
    assert not left_overs(tmp_path)
    assert not list(cache.rglob("*.csv"))
    assert not (tmp_path / "data" / "selection").exists()
    assert not (tmp_path / "data" / "images").exists()


def test_an_unreachable_mirror_exits_4_and_the_next_run_fetches(
    cli: Cli, make_project: Callable[..., Path], dead_url: str, site: Site
) -> None:
    folder = make_project(mirror_url=dead_url, sources=["mirror"])
    done = cli("fetch", project=folder)
    assert done.code == 4
    assert dead_url in done.err
    assert "in a row" in done.err
    assert not list((folder / "data" / "images").iterdir())
    states = cli.ok("status", "--json", project=folder).json["states"]
    assert states["pending"] > 40
    again = cli("fetch", "--mirror-url", site.urls["mirror_url"], project=folder)
    assert again.code == 0, again.err


def test_a_file_that_the_site_does_not_have_is_named_with_its_address(
    cli: Cli, make_project: Callable[..., Path], own_site: Site
) -> None:
    (own_site.mirror.folder / "openimages" / BOXES).unlink()
    done = cli("fetch", project=make_project(**own_site.urls))
    assert done.code == 3
    assert f"{own_site.urls['base_url']}/{BOXES}" in done.err
    assert "expected one of Open Images' official files, found HTTP 404" in done.err


def test_too_many_missing_images_exit_4_with_reasons(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(tolerance=0.0)
    done = cli("fetch", project=folder)
    assert done.code == 4
    for word in ("HTTP 404", "HTTP 410", "removed by its author", "tolerance"):
        assert word in done.err
    # What could be fetched is here and counted nevertheless.
    status = cli.ok("status", "--json", project=folder).json
    assert status["states"]["fetched"] == len(list((folder / "data" / "images").glob("*.jpg")))


# --- damaged tables --------------------------------------------------------------------------


def lose_a_field(lines: list[str], at: int) -> None:
    lines[at] = lines[at].rpartition(",")[0]


def junk(lines: list[str], at: int) -> None:
    lines[at] = "\x00\x07 what is this"


def no_number(lines: list[str], at: int) -> None:
    fields = lines[at].split(",")
    fields[4] = "0.1x"
    lines[at] = ",".join(fields)


def infinite(lines: list[str], at: int) -> None:
    fields = lines[at].split(",")
    fields[5] = "1e999"
    lines[at] = ",".join(fields)


def html(lines: list[str], at: int) -> None:  # noqa: ARG001  (one form for all)
    lines[:] = ["<!DOCTYPE html>", "<html><body>Sign in to the hotel's network</body></html>"]


def lose_a_column(lines: list[str], at: int) -> None:  # noqa: ARG001  (one form for all)
    lines[0] = lines[0].replace("LabelName", "Label")


def be_cut_off(lines: list[str], at: int) -> None:
    del lines[at + 1 :]
    lines[at] = lines[at][:25]


def another_confidence(lines: list[str], at: int) -> None:
    lines[at] = lines[at].rpartition(",")[0] + ",maybe"


@pytest.mark.parametrize(
    ("file", "damage", "line_1", "words"),
    [
        (BOXES, html, True, ["no Open Images boxes file", "<!DOCTYPE html>"]),
        (BOXES, lose_a_column, True, ["no Open Images boxes file", "LabelName"]),
        (BOXES, lose_a_field, False, ["broken row", "21 fields", "20 in"]),
        (BOXES, junk, False, ["broken row", "21 fields", "1 in"]),
        (BOXES, be_cut_off, False, ["broken row", "21 fields"]),
        (BOXES, no_number, False, ["wrong XMin", "a number", "'0.1x'"]),
        (BOXES, infinite, False, ["wrong XMax", "a number", "'1e999'"]),
        (LABELS, lose_a_field, False, ["broken row", "4 fields"]),
        (LABELS, another_confidence, False, ["wrong Confidence", "a number", "'maybe'"]),
        (IMAGES, html, True, ["no Open Images image list file", "<!DOCTYPE html>"]),
        (CLASSES, html, True, ["class descriptions", "<!DOCTYPE html>"]),
        (CLASSES, junk, False, ["class descriptions", "a MID and a name", "what is this"]),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[-24:],
)
def test_a_damaged_table_exits_3_with_path_line_expected_and_found(
    cli: Cli,
    make_project: Callable[..., Path],
    own_site: Site,
    *,
    file: str,
    damage: Callable[[list[str], int], None],
    line_1: bool,
    words: list[str],
) -> None:
    path = own_site.mirror.folder / "openimages" / file
    lines = path.read_text(encoding="utf-8").splitlines()
    at = first_line_with(path, BOAT)
    damage(lines, at)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = make_project(**own_site.urls)
    done = cli("fetch", project=folder)
    assert done.code == 3, done.err
    where = re.search(r"oiyolo: (\S+?):(\d+): ", done.err)
    assert where is not None, done.err
    assert where[1].endswith(file)
    assert int(where[2]) == (1 if line_1 else at + 1)
    for word in ["expected", "found", *words]:
        assert word in done.err
    assert not left_overs(folder)
    assert not (folder / "data" / "selection" / "selection.json").exists()


def test_a_damaged_table_is_fetched_again_once_the_site_is_mended(
    cli: Cli, make_project: Callable[..., Path], own_site: Site
) -> None:
    path = own_site.mirror.folder / "openimages" / BOXES
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    folder = make_project(**own_site.urls)
    assert cli("select", project=folder).code == 3
    path.write_bytes(whole)
    cli.ok("select", project=folder)


def test_a_broken_hierarchy_exits_3(
    cli: Cli, make_project: Callable[..., Path], own_site: Site
) -> None:
    path = own_site.mirror.folder / "openimages" / HIERARCHY_FILE
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    done = cli("select", project=make_project(**own_site.urls))
    assert done.code == 3
    assert HIERARCHY_FILE in done.err


def test_an_image_id_that_is_a_path_is_refused(
    cli: Cli, make_project: Callable[..., Path], own_site: Site
) -> None:
    path = own_site.mirror.folder / "openimages" / BOXES
    text = path.read_text(encoding="utf-8").splitlines()
    at = first_line_with(path, BOAT)
    text[at] = "../../../evil" + text[at][16:]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    done = cli("fetch", project=make_project(**own_site.urls))
    assert done.code == 3
    assert "'../../../evil'" in done.err


def test_an_image_without_a_row_in_the_list_is_named(
    cli: Cli, make_project: Callable[..., Path], own_site: Site
) -> None:
    path = own_site.mirror.folder / "openimages" / IMAGES
    boxes = own_site.mirror.folder / "openimages" / BOXES
    lines = boxes.read_text(encoding="utf-8").splitlines()
    image_id = lines[first_line_with(boxes, BOAT)][:16]
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if image_id not in line]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    done = cli("select", project=make_project(**own_site.urls))
    assert done.code == 3
    assert image_id in done.err
    assert IMAGES in done.err


@pytest.mark.parametrize("name", ["boxes.csv", "images.csv"])
@pytest.mark.parametrize("damage", ["missing", "cut", "junk"])
def test_our_own_damaged_tables_are_noticed(
    cli: Cli, make_project: Callable[..., Path], name: str, damage: str
) -> None:
    folder = make_project(limit=10, sources=["mirror"], tolerance=1.0)
    cli.ok("fetch", project=folder)
    path = folder / "data" / "selection" / name
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_text("".join(lines[:4])[:-60], encoding="utf-8")
    else:
        lines[3] = "junk\n"
        path.write_text("".join(lines), encoding="utf-8")
    done = cli("prepare", project=folder)
    assert done.code == 3, done.err
    assert str(path) in done.err
    assert "oiyolo select" in done.err
    # The remedy that is named helps.
    cli.ok("select", project=folder)
    cli.ok("prepare", project=folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "junk"])
def test_a_damaged_table_of_prepared_boxes_is_noticed(
    cli: Cli, make_project: Callable[..., Path], damage: str
) -> None:
    folder = make_project(limit=20)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    path = folder / "data" / "dataset" / "boxes.csv"
    whole = path.read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_text("".join(lines[:4])[:-30], encoding="utf-8")
    else:
        lines[3] = "junk\n"
        path.write_text("".join(lines), encoding="utf-8")
    done = cli("train", project=folder)
    assert done.code == 3, done.err
    assert str(path) in done.err
    assert "oiyolo prepare" in done.err
    path.unlink(missing_ok=True)
    cli.ok("prepare", project=folder)
    assert path.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize("name", ["train.txt", "obj.names"])
def test_a_list_that_is_gone_is_noticed_and_written_again(
    cli: Cli, make_project: Callable[..., Path], name: str
) -> None:
    folder = make_project(limit=20)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    path = folder / "data" / "dataset" / name
    text = path.read_text(encoding="utf-8")
    path.unlink()
    done = cli("train", project=folder)
    assert done.code == 2
    assert "oiyolo split" in done.err
    cli.ok("split", project=folder)
    assert path.read_text(encoding="utf-8") == text


# --- images ----------------------------------------------------------------------------------


def test_a_broken_image_is_excluded_with_its_reason_and_why_tells_it(
    cli: Cli, make_project: Callable[..., Path], site: Site
) -> None:
    folder = make_project()
    cli.ok("fetch", project=folder)
    victim = min((folder / "data" / "images").glob("*.jpg"))
    victim.write_bytes(victim.read_bytes()[:3000])
    cli.ok("prepare", project=folder)
    story = cli.ok("why", victim.stem, project=folder)
    assert "excluded: " in story.out
    status = cli.ok("status", "--json", project=folder).json
    assert sum(status["states"].values()) + sum(status["excluded"].values()) == status["selected"]
    assert status["selected"] == site.mirror.boat_images["train"]


# --- darknet ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_darknet")
def test_without_a_darknet_the_three_ways_to_get_one_are_told(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    done = cli("build", project=make_project(executable=None))
    assert done.code == 5
    for way in ("apt-get install darknet", "git submodule update --init darknet", "executable"):
        assert way in done.err


@pytest.mark.usefixtures("no_darknet")
def test_train_without_a_darknet_exits_5_and_begins_no_run(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(executable=None, limit=20)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    done = cli("train", project=folder)
    assert done.code == 5
    assert "apt-get install darknet" in done.err
    assert not (folder / "runs").exists()


def test_a_program_that_is_no_darknet_is_refused(
    cli: Cli, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    done = cli("build", "--executable", str(shutil.which("true")), project=make_project())
    assert done.code == 5
    assert "does not answer as darknet" in done.err
    missing = tmp_path / "no-such-darknet"
    done = cli("build", "--executable", str(missing), project=make_project())
    assert done.code == 5
    assert str(missing) in done.err


def test_a_darknet_is_built_and_proved_without_a_project(
    cli: Cli, darknet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_OPENIMAGES_CACHE", str(tmp_path / "cache"))
    words = ("--executable", str(darknet))
    (tmp_path / "empty").mkdir()
    told = cli.ok("build", *words, project=tmp_path / "empty").out
    assert "trained two iterations as a proof" in told
    assert list((tmp_path / "empty").iterdir()) == []
    gone = cli("build", *words, project=tmp_path / "gone")
    assert gone.code == 2
    assert "is no project" in gone.err


def test_train_before_split_says_so(cli: Cli, make_project: Callable[..., Path]) -> None:
    done = cli("train", project=make_project())
    assert done.code == 2
    assert "oiyolo split" in done.err


def test_a_file_that_is_no_log_is_refused(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "train_log.txt"
    page.write_text("<html>not found</html>\n", encoding="utf-8")
    done = cli("plot", page)
    assert done.code == 3
    assert str(page) in done.err
    assert not (tmp_path / "train_log-charts").exists()


# --- two at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["select", "fetch", "prepare", "split", "refresh"])
def test_the_second_writer_exits_6_and_is_told_who_is_first(
    cli: Cli, make_project: Callable[..., Path], command: str
) -> None:
    folder = make_project(limit=10, sources=["mirror"], tolerance=1.0)
    cli.ok("fetch", project=folder)
    with locks.exclusive(folder / "data" / ".lock", what="the dataset", doing="a long fetch"):
        done = cli(command, project=folder)
        assert done.code == 6
        assert "a long fetch" in done.err
        assert str(os.getpid()) in done.err
        # Reading takes no lock.
        cli.ok("status", project=folder)
    cli.ok(command, project=folder)


def test_two_real_processes_at_once(
    shell: Shell,
    make_project: Callable[..., Path],
    own_site: Site,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    go_on = threading.Event()
    file_of = own_site.server.file_of

    def held(url_path: str) -> Path | None:
        if url_path.endswith(".jpg"):
            go_on.wait(60)
        return file_of(url_path)

    folder = make_project(**own_site.urls)
    monkeypatch.setattr(own_site.server, "file_of", held)
    first = shell.start("fetch", "--project", folder)
    wait_until((folder / "data" / "images").is_dir)
    second = shell("fetch", "--project", folder)
    go_on.set()
    assert second.code == 6
    assert str(first.pid) in second.err
    assert shell.end_of(first).code == 0


# --- the form of an error --------------------------------------------------------------------


def test_an_error_as_json_is_one_object_on_stdout(
    cli: Cli, make_project: Callable[..., Path], own_site: Site
) -> None:
    path = own_site.mirror.folder / "openimages" / BOXES
    path.write_text("<html></html>\n", encoding="utf-8")
    done = cli("fetch", "--json", project=make_project(**own_site.urls))
    assert done.code == 3
    assert done.json["exit_code"] == 3
    assert done.json["where"].endswith(f"{BOXES}:1")
    assert {"error", "expected", "found", "remedy"} <= done.json.keys()
    for words in (["fetch", "--clas", "x"], ["nonsense"], ["status"]):
        done = cli(*words, "--json")
        assert done.code == 2
        assert done.json["exit_code"] == 2


def test_errors_of_the_library_are_exceptions_with_the_same_parts(
    make_project: Callable[..., Path],
) -> None:
    with pytest.raises(oiyolo.UsageError, match="Nearest are") as raised:
        oiyolo.select(make_project(classes=["Baot"]))
    assert raised.value.exit_code == 2
    assert raised.value.as_dict()["remedy"].startswith("Nearest are")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["fetch"], 2),
        (["build", "--executable", "/bin/true"], 5),
        (["plot", "oiyolo.toml"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_real_process_without_terminal_and_stdin_gives_a_sentence(
    shell: Shell, make_project: Callable[..., Path], words: list[str], code: int
) -> None:
    folder = make_project(classes=["Baot"])
    done = shell(*words, cwd=folder)
    assert done.code == code, done.err
    assert "Traceback" not in done.err + done.out
    assert done.err.splitlines()[-1].startswith("oiyolo: ")
    assert not done.out


def test_a_traceback_is_shown_when_asked_for(cli: Cli, make_project: Callable[..., Path]) -> None:
    folder = make_project(classes=["Baot"])
    assert "Traceback" not in cli("select", "-v", project=folder).err
    assert "Traceback" in cli("select", "-vv", project=folder).err
