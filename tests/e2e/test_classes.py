"""`oiyolo classes`: with and without a project, found, searched, as a tree, with counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import oiyolo
from oiyolo.demo_data.catalogue import MIDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Done, Site


@pytest.fixture(scope="module")
def selected(make_project: Callable[..., Path]) -> Path:
    """A project of boats, with canoes as a class of their own."""
    folder = make_project(classes=["Boat", "Canoe"], subsets=["train", "validation"])
    oiyolo.select(folder)
    return folder


@pytest.fixture
def ask(cli: Cli, site: Site, tmp_path: Path) -> Callable[..., Done]:
    """Ask in a folder that is no project."""

    def ask(*words: str) -> Done:
        url = site.mirror.openimages_url
        done = cli("classes", *words, "--base-url", url, project=tmp_path)
        assert list(tmp_path.iterdir()) == []  # it left the folder alone
        return done

    return ask


def test_without_a_project_all_classes_are_listed_by_name(ask: Callable[..., Done]) -> None:
    lines = ask().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == sorted(MIDS, key=str.casefold)
    assert {line.split()[-1] for line in lines} == set(MIDS.values())


def test_a_class_is_told_with_what_is_above_and_below_it(ask: Callable[..., Done]) -> None:
    assert ask("boat").out.splitlines() == [
        "Boat (/m/019jd)",
        "  parents   Entity > Vehicle > Watercraft",
        "  children  Barge, Canoe, Gondola",
    ]


def test_a_class_at_two_places_has_two_ways_down(ask: Callable[..., Done]) -> None:
    told = ask("Bicycle").out
    assert "parents  Entity > Vehicle > Land vehicle\n" in told
    assert "parents  Entity > Sports equipment\n" in told
    assert "children" not in told


def test_a_part_is_no_child(ask: Callable[..., Done]) -> None:
    assert "children  Boy, Girl, Man, Woman\n" in ask("person").out
    assert ask("human_face").out == "Human face (/m/0dzct)\n"


def test_a_tree_shows_all_that_is_below(ask: Callable[..., Done]) -> None:
    assert [line.rstrip() for line in ask("boat", "--tree").out.splitlines()] == [
        "Boat       /m/019jd",
        "  Barge    /m/01btn",
        "  Canoe    /m/0ph39",
        "  Gondola  /m/02068x",
    ]
    whole = ask("--tree").out.splitlines()
    assert whole[0].startswith("Entity ")
    assert next(line for line in whole if line.strip().startswith("Canoe ")).startswith(6 * " ")
    assert sum("Bicycle" in line for line in whole) == 2


def test_json_gives_the_same_as_data(ask: Callable[..., Done]) -> None:
    found = ask("boat", "--tree", "--json").json
    assert found["release"] == "v7"
    assert found["searches"] == []
    assert found["classes"] == [
        {
            "name": "Boat",
            "mid": "/m/019jd",
            "parents": ["Watercraft"],
            "children": ["Barge", "Gondola", "Canoe"],
        }
    ]
    (tree,) = found["tree"]
    assert [below["name"] for below in tree["children"]] == ["Barge", "Canoe", "Gondola"]
    everything = ask("--json").json
    assert {c["name"]: c["mid"] for c in everything["classes"]} == MIDS
    assert "tree" not in everything


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["boats"], ["'boats' is no class", "  nearest: Boat"]),
        (["vehicl"], ["'vehicl' is no class", "  contained in: Vehicle, Land vehicle"]),
        (["tree", "umbrela"], ["Tree (/m/07j7r)", "  nearest: Umbrella"]),
        (["boat", "canoo", "--tree"], ["Boat       /m/019jd", "  nearest: Canoe"]),
    ],
)
def test_a_word_that_is_no_class_lists_those_that_hold_it_and_those_that_are_near(
    ask: Callable[..., Done], words: list[str], lines: list[str]
) -> None:
    done = ask(*words)
    assert done.code == 0
    told = [line.rstrip() for line in done.out.splitlines()]
    assert set(lines) <= set(told)


@pytest.mark.parametrize("words", [["qqq"], ["boat", "xyzzy"], ["/m/nothing"], [""], ["Entity"]])
def test_a_word_that_nothing_is_near_to_exits_2(ask: Callable[..., Done], words: list[str]) -> None:
    done = ask(*words)
    assert done.code == 2
    assert repr(words[-1]) in done.err
    assert done.out == ""


def test_counts_stand_beside_the_labels_that_a_selection_holds(cli: Cli, selected: Path) -> None:
    boxes = pd.read_csv(selected / "data" / "selection" / "boxes.csv", keep_default_na=False)
    used = boxes[boxes["used"]]
    (tree,) = cli.ok("classes", "boat", "--tree", "--json", project=selected).json["tree"]
    for branch in (tree, *tree["children"]):
        rows = used[used["LabelName"] == branch["mid"]]
        assert (branch["boxes"], branch["images"]) == (len(rows), rows["ImageID"].nunique())
    assert tree["boxes"] > 0
    told = cli.ok("classes", "boat", project=selected).out.splitlines()[0]
    assert told == f"Boat (/m/019jd): {tree['images']} images, {tree['boxes']} boxes"
    vehicle = cli.ok("classes", "vehicle", "--json", project=selected).json["classes"][0]
    assert "boxes" not in vehicle


def test_in_a_project_its_own_release_and_address_count(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(release="v5")
    assert cli.ok("classes", "boat", "--json", project=folder).json["release"] == "v5"
    assert not (folder / "data").exists()
    other = cli.ok("classes", "boat", "--json", "--release", "v6", project=folder).json
    assert other["release"] == "v6"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--release", "v9"], "release"),
        (["--base-url", "nowhere://x"], "nowhere://x"),
        (["--project", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_bad_options_are_refused(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("classes", *words, "--cache", tmp_path / "cache")
    assert done.code in {2, 4}
    assert told in done.err


def test_the_library_takes_one_word_or_several(site: Site, tmp_path: Path) -> None:
    url = site.mirror.openimages_url
    one = oiyolo.classes("doughnut boat", tmp_path, base_url=url)
    assert json.loads(json.dumps(one.as_dict()))["searches"][0]["nearest"] == ["Boat"]
    several: Any = oiyolo.classes(["boat", "/m/0ph39", "BOAT"], tmp_path, base_url=url)
    assert [c["name"] for c in several.as_dict()["classes"]] == ["Boat", "Canoe"]
