"""Bad input: the right exit code and a helpful message, never a traceback."""

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
from tests.support.mirror_facts import boat_image_count

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
    """Return a URL at which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def no_darknet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulate a machine without darknet: not on PATH, no sources, no earlier build."""
    empty_folder = tmp_path / "nothing-on-path"
    empty_folder.mkdir()
    monkeypatch.setenv("PATH", str(empty_folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty-cache"))
    monkeypatch.setattr("oiyolo.darknet.build.tree.has_sources", lambda _: False)


def partial_files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*.part")]


def first_line_with(path: Path, word: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines) if word in line), 1)


# --- unknown names ---------------------------------------------------------------------------


def test_an_unknown_class_exits_2_and_suggests_similar_names(
    cli: Cli, site: Site, tmp_path: Path
) -> None:
    done = cli("fetch", "--class", "Baot", "--base-url", site.urls["base_url"], project=tmp_path)
    assert done.code == 2
    assert "'Baot'" in done.err
    assert "Boat" in done.err.split("Similar names:")[1]
    assert not (tmp_path / "data" / "selection" / "selection.json").exists()


def test_a_misspelt_class_is_not_saved_for_the_next_command(
    cli: Cli, site: Site, tmp_path: Path
) -> None:
    url = site.urls["base_url"]
    assert cli("select", "--class", "Baot", "--base-url", url, project=tmp_path).code == 2
    cli.ok("select", "--class", "Boat", "--base-url", url, project=tmp_path)
    assert '"Boat"' in (tmp_path / "oiyolo.toml").read_text(encoding="utf-8")


def test_without_a_project_the_error_says_how_to_create_one(cli: Cli, tmp_path: Path) -> None:
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
        ("[images\n", 2, ["oiyolo.toml", "line 1"]),
    ],
    ids=["key", "section", "value", "ratios", "size", "not-toml"],
)
def test_an_invalid_oiyolo_toml_fails_with_what_was_expected(
    cli: Cli, tmp_path: Path, text: str, code: int, words: list[str]
) -> None:
    (tmp_path / "oiyolo.toml").write_text(text, encoding="utf-8")
    done = cli("fetch", project=tmp_path)
    assert done.code == code
    for word in words:
        assert word in done.err


def test_an_invalid_environment_variable_is_named(
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


# --- an unreachable site ---------------------------------------------------------------------


def test_an_unreachable_site_exits_4_and_leaves_no_partial_files(
    cli: Cli, tmp_path: Path, dead_url: str
) -> None:
    cache = tmp_path / "cache"
    words = ("--class", "Boat", "--base-url", dead_url, "--cache", str(cache))
    done = cli("fetch", *words, project=tmp_path)
    assert done.code == 4
    assert f"{dead_url}/v7/oidv7-class-descriptions-boxable.csv" in done.err
    assert "attempts: 4" in done.err
    assert not partial_files(tmp_path)
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


def test_a_file_missing_from_the_site_is_named_with_its_url(
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
    # The images that were fetched are kept and counted nevertheless.
    status = cli.ok("status", "--json", project=folder).json
    assert status["states"]["fetched"] == len(list((folder / "data" / "images").glob("*.jpg")))


# --- damaged tables --------------------------------------------------------------------------


def remove_field(lines: list[str], at: int) -> None:
    lines[at] = lines[at].rpartition(",")[0]


def replace_by_junk(lines: list[str], at: int) -> None:
    lines[at] = "\x00\x07 what is this"


def make_xmin_invalid(lines: list[str], at: int) -> None:
    fields = lines[at].split(",")
    fields[4] = "0.1x"
    lines[at] = ",".join(fields)


def make_xmax_infinite(lines: list[str], at: int) -> None:
    fields = lines[at].split(",")
    fields[5] = "1e999"
    lines[at] = ",".join(fields)


def replace_by_html(lines: list[str], at: int) -> None:  # noqa: ARG001  (one signature for all)
    lines[:] = ["<!DOCTYPE html>", "<html><body>Sign in to the hotel's network</body></html>"]


def rename_column(lines: list[str], at: int) -> None:  # noqa: ARG001  (one signature for all)
    lines[0] = lines[0].replace("LabelName", "Label")


def truncate(lines: list[str], at: int) -> None:
    del lines[at + 1 :]
    lines[at] = lines[at][:25]


def make_confidence_invalid(lines: list[str], at: int) -> None:
    lines[at] = lines[at].rpartition(",")[0] + ",maybe"


@pytest.mark.parametrize(
    ("file", "damage", "line_1", "words"),
    [
        (BOXES, replace_by_html, True, ["Open Images boxes: unexpected header", "<!DOCTYPE html>"]),
        (BOXES, rename_column, True, ["Open Images boxes: unexpected header", "LabelName"]),
        (BOXES, remove_field, False, ["malformed row", "21 fields", "20 in"]),
        (BOXES, replace_by_junk, False, ["malformed row", "21 fields", "1 in"]),
        (BOXES, truncate, False, ["malformed row", "21 fields"]),
        (BOXES, make_xmin_invalid, False, ["XMin is not a number", "a finite number", "'0.1x'"]),
        (BOXES, make_xmax_infinite, False, ["XMax is not a number", "a finite number", "'1e999'"]),
        (LABELS, remove_field, False, ["malformed row", "4 fields"]),
        (
            LABELS,
            make_confidence_invalid,
            False,
            ["Confidence is not a number", "a finite number", "'maybe'"],
        ),
        (
            IMAGES,
            replace_by_html,
            True,
            ["Open Images image list: unexpected header", "<!DOCTYPE html>"],
        ),
        (CLASSES, replace_by_html, True, ["class descriptions", "<!DOCTYPE html>"]),
        (
            CLASSES,
            replace_by_junk,
            False,
            ["class descriptions", "a MID and a name", "what is this"],
        ),
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
    assert not partial_files(folder)
    assert not (folder / "data" / "selection" / "selection.json").exists()


def test_a_damaged_table_is_fetched_again_once_the_site_is_repaired(
    cli: Cli, make_project: Callable[..., Path], own_site: Site
) -> None:
    path = own_site.mirror.folder / "openimages" / BOXES
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    folder = make_project(**own_site.urls)
    assert cli("select", project=folder).code == 3
    path.write_bytes(content)
    cli.ok("select", project=folder)


def test_a_damaged_hierarchy_exits_3(
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


def test_an_image_missing_from_the_image_list_is_named(
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
def test_a_damaged_table_of_the_selection_is_detected(
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
    # The suggested remedy works.
    cli.ok("select", project=folder)
    cli.ok("prepare", project=folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "junk"])
def test_a_damaged_table_of_prepared_boxes_is_detected(
    cli: Cli, make_project: Callable[..., Path], damage: str
) -> None:
    folder = make_project(limit=20)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    path = folder / "data" / "dataset" / "boxes.csv"
    original = path.read_text(encoding="utf-8")
    lines = original.splitlines(keepends=True)
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
    assert path.read_text(encoding="utf-8") == original


@pytest.mark.parametrize("name", ["train.txt", "obj.names"])
def test_a_missing_list_is_detected_and_written_again(
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


def test_a_damaged_image_is_excluded_with_a_reason_that_why_prints(
    cli: Cli, make_project: Callable[..., Path], site: Site
) -> None:
    folder = make_project()
    cli.ok("fetch", project=folder)
    path = min((folder / "data" / "images").glob("*.jpg"))
    path.write_bytes(path.read_bytes()[:3000])
    cli.ok("prepare", project=folder)
    done = cli.ok("why", path.stem, project=folder)
    assert "excluded: " in done.out
    status = cli.ok("status", "--json", project=folder).json
    assert sum(status["states"].values()) + sum(status["excluded"].values()) == status["selected"]
    assert status["selected"] == boat_image_count(site.mirror, "train")


# --- darknet ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_darknet")
def test_without_a_darknet_the_error_names_the_ways_to_get_one(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    done = cli("build", project=make_project(executable=None))
    assert done.code == 5
    for way in ("install darknet", "[darknet] executable"):
        assert way in done.err
    assert "build-essential" not in done.err  # nothing would be fetched
    url = "/nowhere/darknet.git"
    done = cli("build", "--source-url", url, project=make_project(executable=None))
    for way in ("install build-essential git", f"sources from {url}", "cannot fetch"):
        assert way in done.err


@pytest.mark.usefixtures("no_darknet")
def test_train_without_a_darknet_exits_5_and_starts_no_run(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(executable=None, limit=20)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    done = cli("train", project=folder)
    assert done.code == 5
    assert "apt-get install darknet" in done.err
    assert "pip install 'oiyolo[torch]'" in done.err
    assert not (folder / "runs").exists()


def test_a_program_that_is_not_darknet_is_rejected(
    cli: Cli, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    done = cli("build", "--executable", str(shutil.which("true")), project=make_project())
    assert done.code == 5
    assert "does not respond as darknet" in done.err
    missing = tmp_path / "no-such-darknet"
    done = cli("build", "--executable", str(missing), project=make_project())
    assert done.code == 5
    assert str(missing) in done.err


def test_build_works_without_a_project(
    cli: Cli, darknet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_OPENIMAGES_CACHE", str(tmp_path / "cache"))
    words = ("--executable", str(darknet))
    (tmp_path / "empty").mkdir()
    out = cli.ok("build", *words, project=tmp_path / "empty").out
    assert "verified by training two iterations" in out
    assert list((tmp_path / "empty").iterdir()) == []
    failed = cli("build", *words, project=tmp_path / "gone")
    assert failed.code == 2
    assert "not an oiyolo project" in failed.err


def test_train_before_split_names_the_missing_step(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    done = cli("train", project=make_project())
    assert done.code == 2
    assert "oiyolo split" in done.err


def test_a_file_that_is_not_a_log_is_rejected(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "train_log.txt"
    page.write_text("<html>not found</html>\n", encoding="utf-8")
    done = cli("plot", page)
    assert done.code == 3
    assert str(page) in done.err
    assert not (tmp_path / "train_log-charts").exists()


# --- two processes ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["select", "fetch", "prepare", "split", "refresh"])
def test_the_second_writer_exits_6_and_names_the_first(
    cli: Cli, make_project: Callable[..., Path], command: str
) -> None:
    folder = make_project(limit=10, sources=["mirror"], tolerance=1.0)
    cli.ok("fetch", project=folder)
    with locks.exclusive(folder / "data" / ".lock", what="the dataset", operation="a long fetch"):
        done = cli(command, project=folder)
        assert done.code == 6
        assert "a long fetch" in done.err
        assert str(os.getpid()) in done.err
        # Reading takes no lock.
        cli.ok("status", project=folder)
    cli.ok(command, project=folder)


def test_a_second_process_exits_6_with_the_id_of_the_first(
    shell: Shell,
    make_project: Callable[..., Path],
    own_site: Site,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    may_continue = threading.Event()
    file_of = own_site.server.file_of

    def wait_for_images(url_path: str) -> Path | None:
        if url_path.endswith(".jpg"):
            may_continue.wait(60)
        return file_of(url_path)

    folder = make_project(**own_site.urls)
    monkeypatch.setattr(own_site.server, "file_of", wait_for_images)
    first = shell.start("fetch", "--project", folder)
    wait_until((folder / "data" / "images").is_dir)
    second = shell("fetch", "--project", folder)
    may_continue.set()
    assert second.code == 6
    assert str(first.pid) in second.err
    assert shell.end_of(first).code == 0


# --- the format of errors --------------------------------------------------------------------


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
    with pytest.raises(oiyolo.UsageError) as raised:
        oiyolo.select(make_project(classes=["Baot"]))
    assert raised.value.exit_code == 2
    assert raised.value.as_dict()["remedy"].startswith("Similar names:")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["fetch"], 2),
        (["build", "--executable", "/bin/true"], 5),
        (["plot", "oiyolo.toml"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_process_without_terminal_and_stdin_prints_one_message(
    shell: Shell, make_project: Callable[..., Path], words: list[str], code: int
) -> None:
    folder = make_project(classes=["Baot"])
    done = shell(*words, cwd=folder)
    assert done.code == code, done.err
    assert "Traceback" not in done.err + done.out
    assert done.err.splitlines()[-1].startswith("oiyolo: ")
    assert not done.out


def test_a_traceback_is_shown_only_with_vv(cli: Cli, make_project: Callable[..., Path]) -> None:
    folder = make_project(classes=["Baot"])
    assert "Traceback" not in cli("select", "-v", project=folder).err
    assert "Traceback" in cli("select", "-vv", project=folder).err
