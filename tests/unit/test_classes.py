"""Class names, MIDs, and what lies below them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oiyolo.errors import InputFormError, UsageError
from oiyolo.openimages.classes import read_hierarchy, read_names, select_classes

REAL = Path(__file__).parents[3] / "shared" / "real" / "metadata"

NAMES = {
    "/m/07yv9": "Vehicle",
    "/m/01rzcn": "Watercraft",
    "/m/019jd": "Boat",
    "/m/0ph39": "Canoe",
    "/m/02068x": "Gondola",
    "/m/01btn": "Barge",
    "/m/074d1": "Submarine",
    "/m/0k4j": "Car",
    "/m/0h8my_4": "Tennis racket",
    "/m/01j5ks": "Bat (Animal)",
}
DESCENDANTS = {
    "/m/07yv9": frozenset({"/m/01rzcn", "/m/019jd", "/m/0ph39", "/m/02068x", "/m/01btn",
                           "/m/074d1", "/m/0k4j"}),
    "/m/01rzcn": frozenset({"/m/019jd", "/m/0ph39", "/m/02068x", "/m/01btn", "/m/074d1"}),
    "/m/019jd": frozenset({"/m/0ph39", "/m/02068x", "/m/01btn"}),
}  # fmt: skip


def chosen(*wanted: str, descendants: bool = True) -> list[tuple[int, str, list[str]]]:
    classes = select_classes(wanted, NAMES, DESCENDANTS, include_descendants=descendants)
    return [(c.class_id, c.name, list(c.folded.values())) for c in classes]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Boat", "Boat"),
        ("boat", "Boat"),
        ("BOAT", "Boat"),
        (" boat ", "Boat"),
        ("/m/019jd", "Boat"),
        ("tennis_racket", "Tennis racket"),
        ("Tennis  Racket", "Tennis racket"),
        ("bat (animal)", "Bat (Animal)"),
        ("Bat_(animal)", "Bat (Animal)"),
    ],
)
def test_a_class_is_found_in_any_case_with_spaces_or_underscores_or_by_mid(
    word: str, name: str
) -> None:
    assert chosen(word, descendants=False) == [(0, name, [])]


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("Boot", "Boat"), ("canoo", "Canoe"), ("tennis racquet", "Tennis racket"), ("zzz", ""),
     ("/m/nothing", ""), ("", "")],
)  # fmt: skip
def test_an_unknown_class_is_refused_with_the_nearest_names(word: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(word)
    assert caught.value.exit_code == 2
    assert repr(word) in caught.value.what
    assert caught.value.remedy.startswith("Nearest are ")
    assert nearest in caught.value.remedy
    assert caught.value.remedy.count(",") == 2


def test_descendants_count_as_the_class_in_order_of_their_names() -> None:
    assert chosen("Boat") == [(0, "Boat", ["Barge", "Canoe", "Gondola"])]
    (boat,) = select_classes(["Boat"], NAMES, DESCENDANTS, include_descendants=True)
    assert boat.mids == ("/m/019jd", "/m/01btn", "/m/0ph39", "/m/02068x")


def test_a_descendant_that_was_asked_for_too_is_a_class_of_its_own() -> None:
    assert chosen("Boat", "Canoe") == [
        (0, "Boat", ["Barge", "Gondola"]),
        (1, "Canoe", []),
    ]
    assert chosen("Canoe", "Boat") == [
        (0, "Canoe", []),
        (1, "Boat", ["Barge", "Gondola"]),
    ]


def test_a_class_between_takes_what_is_below_it() -> None:
    assert chosen("Vehicle", "Boat", "Canoe") == [
        (0, "Vehicle", ["Car", "Submarine", "Watercraft"]),
        (1, "Boat", ["Barge", "Gondola"]),
        (2, "Canoe", []),
    ]


def test_no_label_counts_as_two_classes() -> None:
    classes = select_classes(
        ["Watercraft", "Vehicle", "Canoe"], NAMES, DESCENDANTS, include_descendants=True
    )
    mids = [mid for c in classes for mid in c.mids]
    assert len(mids) == len(set(mids))


def test_a_class_named_twice_is_refused_whatever_it_was_called() -> None:
    with pytest.raises(UsageError, match="'Boat' is named twice"):
        chosen("boat", "/m/019jd")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("header", ["", "LabelName,DisplayName"], ids=["bare", "header"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
def test_class_descriptions_are_read_in_every_form(
    tmp_path: Path, ending: str, header: str, mark: str
) -> None:
    lines = [*([header] if header else []), "/m/019jd,Boat", '/m/0x,"Bat, the (Animal)"', ""]
    path = tmp_path / "classes.csv"
    path.write_bytes((mark + ending.join(lines)).encode())
    assert read_names(path) == {"/m/019jd": "Boat", "/m/0x": "Bat, the (Animal)"}


@pytest.mark.parametrize(
    ("line", "found"),
    [("/m/0x", "/m/0x"), ("/m/0x,", "/m/0x,"), ("0x,Boat", "0x,Boat"), ("/m/0x,a,b", "/m/0x,a,b"),
     ("<html>", "<html>"), ("/m/0x,  ", "/m/0x")],
)  # fmt: skip
def test_a_broken_line_of_class_descriptions_is_told_with_its_number(
    tmp_path: Path, line: str, found: str
) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(f"/m/019jd,Boat\n\n{line}\n")
    with pytest.raises(InputFormError) as caught:
        read_names(path)
    assert caught.value.where == f"{path}:3"
    assert found in caught.value.found


def test_class_descriptions_that_are_absent_empty_or_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    with pytest.raises(InputFormError, match="cannot be read"):
        read_names(path)
    path.write_text("LabelName,DisplayName\n")
    with pytest.raises(InputFormError, match="no class descriptions in this file"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputFormError, match="cannot be read"):
        read_names(path)


def node(mid: str, *below: object) -> dict[str, object]:
    return {"LabelName": mid, **({"Subcategory": list(below)} if below else {})}


def test_a_mid_at_several_nodes_has_the_descendants_of_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "hierarchy.json"
    path.write_text(
        json.dumps(node("root", node("a", node("b", node("c"))), node("d", node("b", node("e"))),
                        node("b")))
    )  # fmt: skip
    assert read_hierarchy(path) == {
        "root": {"a", "b", "c", "d", "e"},
        "a": {"b", "c"},
        "b": {"c", "e"},
        "d": {"b", "e"},
    }


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"Subcategory": []}', '{"LabelName": "a", "Subcategory": [{}]}',
     '{"LabelName": "a", "Subcategory": [1]}', "<html></html>"],
)  # fmt: skip
def test_what_is_no_hierarchy_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hierarchy.json"
    path.write_text(content)
    with pytest.raises(InputFormError, match="hierarchy cannot be read") as caught:
        read_hierarchy(path)
    assert caught.value.where == str(path)
    assert caught.value.expected


def real(name: str) -> Path:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{name} of the real metadata is not here")
    return path


def test_the_real_hierarchy_has_the_boats() -> None:
    below = read_hierarchy(real("bbox_labels_600_hierarchy.json"))
    assert below["/m/019jd"] == {"/m/01btn", "/m/02068x", "/m/0ph39"}
    assert len(below["/m/0bl9f"]) == 601
    assert below["/m/019jd"] < below["/m/01rzcn"] < below["/m/07yv9"]


def test_real_class_descriptions_that_were_damaged_are_read_or_refused_with_the_line() -> None:
    outcomes = []
    for name in ("kushagra414", "turpan9076"):
        path = real(f"class-descriptions-boxable.{name}.csv")
        try:
            outcomes.append(read_names(path)["/m/019jd"])
        except InputFormError as error:
            number = int(error.where.rpartition(":")[2])
            line = path.read_text(encoding="utf-8").splitlines()[number - 1]
            assert line.endswith(",")
            outcomes.append("refused")
    assert sorted(outcomes) == ["Boat", "refused"]


def test_the_real_boat_folds_its_three_children_in() -> None:
    names = {}
    for name in ("kushagra414", "turpan9076"):
        path = real(f"class-descriptions-boxable.{name}.csv")
        try:
            names = read_names(path)
        except InputFormError:
            continue
    below = read_hierarchy(real("bbox_labels_600_hierarchy.json"))
    (boat,) = select_classes(["boat"], names, below, include_descendants=True)
    assert sorted(boat.folded.values()) == ["Barge", "Canoe", "Gondola"]
