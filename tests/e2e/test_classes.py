"""``oiyolo classes``: with and without a project, lookup, search, tree and counts."""

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

    from tests.conftest import Cli, CommandResult, Site


@pytest.fixture(scope="module")
def selected(make_project: Callable[..., Path]) -> Path:
    """Return a project of boats, with canoes as a class of their own."""
    folder = make_project(classes=["Boat", "Canoe"], subsets=["train", "validation"])
    oiyolo.select(folder)
    return folder


@pytest.fixture
def run_classes(cli: Cli, site: Site, tmp_path: Path) -> Callable[..., CommandResult]:
    """Return a function that runs ``oiyolo classes`` in a folder that is not a project."""

    def run_classes(*words: str) -> CommandResult:
        url = site.mirror.openimages_url
        done = cli("classes", *words, "--base-url", url, project=tmp_path)
        assert list(tmp_path.iterdir()) == []  # nothing was written
        return done

    return run_classes


def test_without_a_project_all_classes_are_listed_by_name(
    run_classes: Callable[..., CommandResult],
) -> None:
    lines = run_classes().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == sorted(MIDS, key=str.casefold)
    assert {line.split()[-1] for line in lines} == set(MIDS.values())


def test_a_class_is_shown_with_its_parents_and_children(
    run_classes: Callable[..., CommandResult],
) -> None:
    assert run_classes("boat").out.splitlines() == [
        "Boat (/m/019jd)",
        "  parents   Entity > Vehicle > Watercraft",
        "  children  Barge, Canoe, Gondola",
    ]


def test_a_class_at_two_places_has_two_lines_of_parents(
    run_classes: Callable[..., CommandResult],
) -> None:
    output = run_classes("Bicycle").out
    assert "parents  Entity > Vehicle > Land vehicle\n" in output
    assert "parents  Entity > Sports equipment\n" in output
    assert "children" not in output


def test_a_part_is_not_a_child(run_classes: Callable[..., CommandResult]) -> None:
    assert "children  Boy, Girl, Man, Woman\n" in run_classes("person").out
    assert run_classes("human_face").out == "Human face (/m/0dzct)\n"


def test_a_tree_shows_all_descendants(run_classes: Callable[..., CommandResult]) -> None:
    assert [line.rstrip() for line in run_classes("boat", "--tree").out.splitlines()] == [
        "Boat       /m/019jd",
        "  Barge    /m/01btn",
        "  Canoe    /m/0ph39",
        "  Gondola  /m/02068x",
    ]
    whole = run_classes("--tree").out.splitlines()
    assert whole[0].startswith("Entity ")
    assert next(line for line in whole if line.strip().startswith("Canoe ")).startswith(6 * " ")
    assert sum("Bicycle" in line for line in whole) == 2


def test_json_contains_the_same_data(run_classes: Callable[..., CommandResult]) -> None:
    found = run_classes("boat", "--tree", "--json").json
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
    everything = run_classes("--json").json
    assert {c["name"]: c["mid"] for c in everything["classes"]} == MIDS
    assert "tree" not in everything


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["boats"], ["'boats' is not a class", "  similar names: Boat"]),
        (["vehicl"], ["'vehicl' is not a class", "  names that contain it: Vehicle, Land vehicle"]),
        (["tree", "umbrela"], ["Tree (/m/07j7r)", "  similar names: Umbrella"]),
        (["boat", "canoo", "--tree"], ["Boat       /m/019jd", "  similar names: Canoe"]),
    ],
)
def test_a_word_that_is_not_a_class_lists_the_names_that_contain_it_and_similar_names(
    run_classes: Callable[..., CommandResult], words: list[str], lines: list[str]
) -> None:
    done = run_classes(*words)
    assert done.code == 0
    output = [line.rstrip() for line in done.out.splitlines()]
    assert set(lines) <= set(output)


@pytest.mark.parametrize("words", [["qqq"], ["boat", "xyzzy"], ["/m/nothing"], [""], ["Entity"]])
def test_a_word_without_similar_names_exits_2(
    run_classes: Callable[..., CommandResult], words: list[str]
) -> None:
    done = run_classes(*words)
    assert done.code == 2
    assert repr(words[-1]) in done.err
    assert done.out == ""


def test_counts_are_shown_for_the_labels_in_the_selection(cli: Cli, selected: Path) -> None:
    boxes = pd.read_csv(selected / "data" / "selection" / "boxes.csv", keep_default_na=False)
    used = boxes[boxes["used"]]
    (tree,) = cli.ok("classes", "boat", "--tree", "--json", project=selected).json["tree"]
    for branch in (tree, *tree["children"]):
        rows = used[used["LabelName"] == branch["mid"]]
        assert (branch["boxes"], branch["images"]) == (len(rows), rows["ImageID"].nunique())
    assert tree["boxes"] > 0
    output = cli.ok("classes", "boat", project=selected).out.splitlines()[0]
    assert output == f"Boat (/m/019jd): {tree['images']} images, {tree['boxes']} boxes"
    vehicle = cli.ok("classes", "vehicle", "--json", project=selected).json["classes"][0]
    assert "boxes" not in vehicle


def test_a_projects_own_release_and_base_url_are_used(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(release="v5")
    assert cli.ok("classes", "boat", "--json", project=folder).json["release"] == "v5"
    assert not (folder / "data").exists()
    other = cli.ok("classes", "boat", "--json", "--release", "v6", project=folder).json
    assert other["release"] == "v6"


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["--release", "v9"], "release"),
        (["--base-url", "nowhere://x"], "nowhere://x"),
        (["--project", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_invalid_options_are_rejected(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("classes", *words, "--cache", tmp_path / "cache")
    assert done.code in {2, 4}
    assert output in done.err


def test_the_library_function_accepts_one_name_or_several(site: Site, tmp_path: Path) -> None:
    url = site.mirror.openimages_url
    one = oiyolo.classes("doughnut boat", tmp_path, base_url=url)
    assert json.loads(json.dumps(one.as_dict()))["searches"][0]["nearest"] == ["Boat"]
    several: Any = oiyolo.classes(["boat", "/m/0ph39", "BOAT"], tmp_path, base_url=url)
    assert [c["name"] for c in several.as_dict()["classes"]] == ["Boat", "Canoe"]
