"""The three forks of darknet: how they are recognised, and their command lines."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import DarknetError
from oiyolo.darknet.forks import FORKS, identify_fork
from oiyolo.darknet.program import Darknet, data_file, probe, train_command, valid_command

if TYPE_CHECKING:
    from oiyolo.darknet.forks import Fork

DEBIAN = "usage: darknet detector [train/test/valid] [cfg] [weights (optional)]\n"
ALEXEYAB = (
    " GPU isn't used \n"
    "usage: ./darknet detector [train/test/valid/demo/map] [data] [cfg] [weights (optional)]\n"
)
HANK = (
    'Darknet V5 "Moonlit" \x1b[1;37mv5.1-104-gf684e1d7\x1b[0m \x1b[1;30m[Nov 21 2026]\x1b[0m\n'
    "\x1b[1;33mDarknet is compiled to use the CPU.\x1b[0m  GPU is \x1b[1;31mdisabled\x1b[0m.\n"
)


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
def test_a_fork_is_recognised_by_its_usage(printed: str, name: str | None) -> None:
    fork = identify_fork(printed)
    assert (fork.name if fork else None) == name


def test_no_fork_is_mistaken_for_another() -> None:
    for fork in FORKS.values():
        assert [
            other.name for other in FORKS.values() if other.usage_marker in fork.usage_marker
        ] == [fork.name]


@pytest.mark.parametrize(
    ("name", "printed", "revision"),
    [
        ("hank", HANK, "v5.1-104-gf684e1d7"),
        ("hank", 'Darknet V3 "Jazz" v3.0-1-gabc [Mar 1 2025]', "v3.0-1-gabc"),
        ("hank", "Darknet is compiled to use the CPU.", ""),
        ("alexeyab", ALEXEYAB, ""),
        ("pjreddie", DEBIAN, ""),
    ],
)
def test_a_revision_is_read_from_the_programs_output(
    name: str, printed: str, revision: str
) -> None:
    assert fork_named(name).parse_revision(printed) == revision


@pytest.mark.parametrize(
    ("image", "pjreddie", "alexeyab", "hank"),
    [
        ("/d/obj/a.jpg", "/d/obj/a.txt", "/d/obj/a.txt", "/d/obj/a.txt"),
        ("/d/images/a.png", "/d/labels/a.txt", "/d/images/a.txt", "/d/images/a.txt"),
        ("/images/images/a.jpg", "/labels/images/a.txt", "/images/images/a.txt",
         "/images/images/a.txt"),
        ("/JPEGImages/a.JPEG", "/labels/a.txt", "/labels/a.txt", "/JPEGImages/a.txt"),
        ("/raw/a.JPG", "/labels/a.txt", "/raw/a.txt", "/raw/a.txt"),
        ("/images/val2014/a.jpg", "/labels/val2014/a.txt", "/labels/val2014/a.txt",
         "/images/val2014/a.txt"),
        ("/d.jpg/a.jpg", "/d.txt/a.jpg", "/d.jpg/a.txt", "/d.jpg/a.txt"),
        ("/d/a.jpeg", "/d/a.jpeg", "/d/a.txt", "/d/a.txt"),
        ("/d/a.webp", "/d/a.webp", "/d/a.webp", "/d/a.txt"),
        ("/d/a", "/d/a", "/d/a", "/d/a.txt"),
    ],
)  # fmt: skip
def test_each_fork_derives_label_paths_in_its_own_way(
    image: str, pjreddie: str, alexeyab: str, hank: str
) -> None:
    label_paths = {name: fork.label_path(image) for name, fork in FORKS.items()}
    assert label_paths == {"pjreddie": pjreddie, "alexeyab": alexeyab, "hank": hank}


@pytest.mark.parametrize(
    ("name", "max_batches", "numbered"),
    [
        ("pjreddie", 99, []),
        ("pjreddie", 250, [100, 200]),
        ("pjreddie", 20_000, [*range(100, 1000, 100), 10_000, 20_000]),
        ("alexeyab", 999, []),
        ("alexeyab", 9_999, list(range(1000, 10_000, 1000))),
        ("alexeyab", 10_000, [10_000]),
        ("hank", 10_000, list(range(1000, 10_001, 1000))),
        ("hank", 20_001, [10_000, 20_000]),
    ],
)
def test_each_fork_saves_numbered_weights_at_its_own_iterations(
    name: str, max_batches: int, numbered: list[int]
) -> None:
    assert fork_named(name).checkpoint_iterations(max_batches) == numbered


def fork_named(name: str) -> Fork:
    (fork,) = [fork for fork in FORKS.values() if fork.name == name]
    return fork


def darknet(name: str) -> Darknet:
    return Darknet(Path("/opt/darknet"), fork_named(name), gpu=False, origin="here")


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
def test_the_training_command_has_the_flags_of_its_fork(
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


@pytest.mark.parametrize("name", [fork.name for fork in FORKS.values()])
def test_the_command_that_writes_detections_names_their_prefix(name: str) -> None:
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
def test_probing_a_program_tells_its_fork(
    tmp_path: Path, usage: str, name: str, stream: str
) -> None:
    (tmp_path / "usage").write_text(usage)
    path = program(
        tmp_path / "darknet", f'[ "$*" = detector ] && cat "{tmp_path}/usage" >&{stream}'
    )
    darknet = probe(path, "named")
    assert darknet.fork.name == name
    assert darknet.executable == path
    assert not darknet.gpu
    assert darknet.as_dict() == {
        "engine": "darknet", "executable": str(path), "fork": name, "gpu": False,
        "origin": "named",
    }  # fmt: skip
    assert str(path) in str(darknet)


@pytest.mark.parametrize(
    ("libraries", "gpu", "cudnn"),
    [
        ("libm.so.6", False, False),
        ("libcudart.so.13 libcublas.so.13", True, False),
        ("libcudart.so.13 libcudnn.so.9", True, True),
    ],
)
def test_the_linked_libraries_tell_whether_a_program_uses_a_gpu(
    *, tmp_path: Path, libraries: str, gpu: bool, cudnn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "ldd", f"echo {libraries}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = program(tmp_path / "darknet", f"cat << 'END' >&2\n{DEBIAN}\nEND")
    darknet = probe(path, "named")
    assert (darknet.gpu, darknet.cudnn) == (gpu, cudnn)


def test_a_program_that_is_not_darknet_is_refused_with_its_output(tmp_path: Path) -> None:
    path = program(tmp_path / "darknet", "echo libcudart.so.12: cannot open; exit 127")
    with pytest.raises(DarknetError) as caught:
        probe(path, "named")
    assert "exit code 127" in caught.value.found
    assert "libcudart" in caught.value.found


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable"])
def test_a_path_that_cannot_be_executed_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "darknet"
    if kind == "folder":
        path.mkdir()
    elif kind == "not executable":
        path.write_text("")
    with pytest.raises(DarknetError) as caught:
        probe(path, "named")
    assert caught.value.exit_code == 5
    assert caught.value.where == str(path)
