"""The three lines of darknet: how each is known, and how each is called."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from oiyolo.darknet.lines import LINES, line_of
from oiyolo.darknet.program import Darknet, ask, data_file, train_command, valid_command
from oiyolo.errors import DarknetError

DEBIAN = "usage: darknet detector [train/test/valid] [cfg] [weights (optional)]\n"
ALEXEYAB = (
    " GPU isn't used \n"
    "usage: ./darknet detector [train/test/valid/demo/map] [data] [cfg] [weights (optional)]\n"
)
HANK = 'Darknet V5 "Moonlit" v5.1-104 [2026]\nDarknet/YOLO is free software.\n'


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        (DEBIAN, "pjreddie"),
        (DEBIAN.replace("darknet", "./darknet", 1), "pjreddie"),
        (ALEXEYAB, "alexeyab"),
        (HANK, "hank"),
        ("", None),
        ("bash: darknet: command not found\n", None),
        ("error while loading shared libraries: libcudart.so.12", None),
    ],
)
def test_a_line_is_known_by_its_usage(printed: str, name: str | None) -> None:
    line = line_of(printed)
    assert (line.name if line else None) == name


def test_no_line_is_taken_for_another() -> None:
    for line in LINES.values():
        assert [other.name for other in LINES.values() if other.says in line.says] == [line.name]


def darknet(name: str) -> Darknet:
    (line,) = [line for line in LINES.values() if line.name == name]
    return Darknet(Path("/opt/darknet"), line, gpu=False, origin="here")


@pytest.mark.parametrize(
    ("name", "weights", "resume", "gpus", "measure_map", "after_cfg"),
    [
        ("pjreddie", None, False, None, True, []),
        ("pjreddie", "w", False, None, False, ["w", "-clear"]),
        ("pjreddie", "w", True, None, False, ["w"]),
        ("pjreddie", "w", True, "0,1", True, ["w", "-gpus", "0,1"]),
        ("alexeyab", None, False, None, False, ["-dont_show"]),
        ("alexeyab", "w", False, None, True, ["w", "-clear", "-dont_show", "-map"]),
        ("alexeyab", "w", True, "0", True, ["w", "-gpus", "0", "-dont_show", "-map"]),
        ("hank", None, False, None, False, ["-dont_show", "-nocolour", "-verbose"]),
        ("hank", "w", False, None, True,
         ["w", "-clear", "-dont_show", "-nocolour", "-verbose", "-map"]),
    ],
)  # fmt: skip
def test_the_command_that_trains(
    name: str,
    weights: str | None,
    gpus: str | None,
    after_cfg: list[str],
    *,
    resume: bool,
    measure_map: bool,
) -> None:
    argv = train_command(
        darknet(name), data="obj.data", cfg="network.cfg", weights=weights, resume=resume,
        gpus=gpus, measure_map=measure_map,
    )  # fmt: skip
    assert argv == ("/opt/darknet", "detector", "train", "obj.data", "network.cfg", *after_cfg)


@pytest.mark.parametrize("name", [line.name for line in LINES.values()])
def test_the_command_that_writes_detections(name: str) -> None:
    argv = valid_command(darknet(name), data="d", cfg="c", weights="w", prefix="det_")
    assert argv[:6] == ("/opt/darknet", "detector", "valid", "d", "c", "w")
    assert argv[argv.index("-out") + 1] == "det_"


def test_a_data_file_has_a_row_for_each_key() -> None:
    text = data_file(class_count=2, train="t", valid="v", names="n", backup="b", results="r")
    assert text == "classes = 2\ntrain = t\nvalid = v\nnames = n\nbackup = b\nresults = r\n"


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(("usage", "name"), [(DEBIAN, "pjreddie"), (ALEXEYAB, "alexeyab")])
@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_program_is_asked_which_line_it_is(
    tmp_path: Path, usage: str, name: str, stream: str
) -> None:
    (tmp_path / "usage").write_text(usage)
    path = program(
        tmp_path / "darknet", f'[ "$*" = detector ] && cat "{tmp_path}/usage" >&{stream}'
    )
    found = ask(path, "named")
    assert found.line.name == name
    assert found.executable == path
    assert not found.gpu
    assert found.as_dict() == {
        "executable": str(path), "line": name, "gpu": False, "origin": "named",
    }  # fmt: skip
    assert str(path) in str(found)


def test_a_program_that_is_no_darknet_is_refused_with_what_it_said(tmp_path: Path) -> None:
    path = program(tmp_path / "darknet", "echo libcudart.so.12: cannot open; exit 127")
    with pytest.raises(DarknetError) as caught:
        ask(path, "named")
    assert "exit code 127" in caught.value.found
    assert "libcudart" in caught.value.found


@pytest.mark.parametrize("kind", ["absent", "folder", "no program"])
def test_what_cannot_be_started_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "darknet"
    if kind == "folder":
        path.mkdir()
    elif kind == "no program":
        path.write_text("")
    with pytest.raises(DarknetError, match="no executable file") as caught:
        ask(path, "named")
    assert caught.value.exit_code == 5
    assert caught.value.where == str(path)
