"""Class names, MIDs and the class hierarchy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.openimages.classes import (
    RENAMED_CLASSES,
    find_class,
    names_containing,
    nearest_names,
    read_children,
    read_hierarchy,
    read_names,
    select_classes,
)

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


def select(*wanted: str, descendants: bool = True) -> list[tuple[int, str, list[str]]]:
    classes = select_classes(wanted, NAMES, DESCENDANTS, include_descendants=descendants)
    return [(c.class_id, c.name, list(c.merged_subclasses.values())) for c in classes]


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
    assert select(word, descendants=False) == [(0, name, [])]


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("Boot", ["Boat"]),
        ("boats", ["Boat"]),
        ("bota", ["Boat"]),
        ("sail boat", ["Boat"]),
        ("canoo", ["Canoe"]),
        ("tennis racquet", ["Tennis racket"]),
        ("racket", ["Tennis racket"]),
        ("cars", ["Car"]),
        ("water craft", ["Watercraft"]),
        ("zzz", []),
        ("/m/nothing", []),
        ("", []),
        ("_", []),
    ],
)
def test_an_unknown_class_is_rejected_with_suggestions(word: str, near: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        select(word)
    assert caught.value.exit_code == 2
    assert repr(word) in caught.value.what
    expected = "Similar names: " + ", ".join(near) if near else "`oiyolo classes` lists all classes"
    assert caught.value.remedy == expected


V4 = {
    mid: old for (old, _), mid in zip(RENAMED_CLASSES, map("/m/{}".format, range(99)), strict=False)
}
V5 = {
    mid: new for (_, new), mid in zip(RENAMED_CLASSES, map("/m/{}".format, range(99)), strict=False)
}


@pytest.mark.parametrize(("before", "since"), RENAMED_CLASSES)
def test_a_renamed_class_is_found_in_every_release_by_either_name(before: str, since: str) -> None:
    assert len(V4) == len(V5) == 17
    for names in (V4, V5):
        found = {find_class(word, names) for word in (before, since, since.lower())}
        assert [V4[mid] for mid in found] == [before]
        assert [V5[mid] for mid in found] == [since]


def test_a_current_name_takes_precedence_over_a_former_name() -> None:
    names = {"/m/a": "Bat (Animal)", "/m/b": "Baseball bat", "/m/c": "Bat"}
    assert find_class("bat", names) == "/m/c"
    assert find_class("Bat (Animal)", names) == "/m/a"
    assert find_class("baseball_bat", names) == "/m/b"
    del names["/m/c"]
    assert find_class("bat", names) == "/m/a"
    del names["/m/a"]
    with pytest.raises(UsageError) as caught:
        find_class("bat", names)
    assert caught.value.remedy == "Similar names: Baseball bat"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("jack o lantern", "Jack-o'-lantern"),
        ("Organ (Musical Instrument)", "Organ (Musical Instrument)"),
        ("organ_musical_instrument", "Organ (Musical Instrument)"),
        ("kitchen-&-dining room table", "Kitchen & dining room table"),
        ("CAFÉ", "Café"),
    ],
)
def test_punctuation_between_words_is_ignored(word: str, name: str) -> None:
    names = {"/m/a": "Jack-o'-lantern", "/m/b": "Organ (Musical Instrument)",
             "/m/c": "Kitchen & dining room table", "/m/d": "Café"}  # fmt: skip
    assert names[find_class(word, names)] == name


def test_an_ambiguous_name_is_rejected_with_the_mids() -> None:
    names = {"/m/a": "Mouth", "/m/b": "mouth"}
    with pytest.raises(UsageError) as caught:
        find_class("Mouth", names)
    assert caught.value.remedy == "Use one of the MIDs /m/a, /m/b"
    assert find_class("/m/b", names) == "/m/b"


@pytest.mark.parametrize("word", ["Entity", "entity"])
def test_the_root_is_not_a_class(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_class(word, NAMES)
    assert "oiyolo classes --tree" in caught.value.remedy


def test_names_that_contain_a_text_are_sorted_by_where_it_occurs() -> None:
    assert names_containing("at", NAMES.values()) == ["Bat (Animal)", "Boat", "Watercraft"]
    assert names_containing("ca", NAMES.values()) == ["Canoe", "Car"]
    assert names_containing("ra", NAMES.values()) == ["Tennis racket", "Watercraft"]
    assert names_containing("craft", [*NAMES.values(), "Space craft", "Craft", "Crafty"]) == [
        "Craft", "Crafty", "Space craft", "Watercraft"
    ]  # fmt: skip
    assert names_containing("", NAMES.values()) == []


def test_descendants_are_merged_into_the_class_in_order_of_their_names() -> None:
    assert select("Boat") == [(0, "Boat", ["Barge", "Canoe", "Gondola"])]
    (boat,) = select_classes(["Boat"], NAMES, DESCENDANTS, include_descendants=True)
    assert boat.mids == ("/m/019jd", "/m/01btn", "/m/0ph39", "/m/02068x")


def test_a_descendant_that_is_selected_too_is_a_class_of_its_own() -> None:
    assert select("Boat", "Canoe") == [
        (0, "Boat", ["Barge", "Gondola"]),
        (1, "Canoe", []),
    ]
    assert select("Canoe", "Boat") == [
        (0, "Canoe", []),
        (1, "Boat", ["Barge", "Gondola"]),
    ]


def test_a_class_between_two_others_takes_its_own_descendants() -> None:
    assert select("Vehicle", "Boat", "Canoe") == [
        (0, "Vehicle", ["Car", "Submarine", "Watercraft"]),
        (1, "Boat", ["Barge", "Gondola"]),
        (2, "Canoe", []),
    ]


def test_no_label_belongs_to_two_classes() -> None:
    classes = select_classes(
        ["Watercraft", "Vehicle", "Canoe"], NAMES, DESCENDANTS, include_descendants=True
    )
    mids = [mid for c in classes for mid in c.mids]
    assert len(mids) == len(set(mids))


def test_a_label_below_two_classes_belongs_to_the_first_or_to_the_nearer_if_they_are_nested() -> (
    None
):
    below = {"/m/07yv9": frozenset({"/m/0ph39"}), "/m/0k4j": frozenset({"/m/0ph39"})}

    def merged_of(*wanted: str) -> list[list[str]]:
        found = select_classes(wanted, NAMES, below, include_descendants=True)
        return [list(c.merged_subclasses.values()) for c in found]

    assert merged_of("Vehicle", "Car") == [["Canoe"], []]
    assert merged_of("Car", "Vehicle") == [["Canoe"], []]
    below["/m/07yv9"] |= {"/m/0k4j"}
    assert merged_of("Vehicle", "Car") == merged_of("Car", "Vehicle")[::-1] == [[], ["Canoe"]]


def test_a_descendant_without_a_description_is_merged_under_its_mid() -> None:
    names = {mid: name for mid, name in NAMES.items() if name != "Canoe"}
    (boat,) = select_classes(["Boat"], names, DESCENDANTS, include_descendants=True)
    assert boat.merged_subclasses == {
        "/m/0ph39": "/m/0ph39",
        "/m/01btn": "Barge",
        "/m/02068x": "Gondola",
    }


def test_a_class_that_is_listed_twice_under_any_name_is_rejected() -> None:
    with pytest.raises(UsageError) as caught:
        select("boat", "/m/019jd")
    assert "'Boat'" in caught.value.what


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("header", ["", "LabelName,DisplayName"], ids=["bare", "header"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
def test_class_descriptions_are_read_in_every_variant(
    tmp_path: Path, ending: str, header: str, mark: str
) -> None:
    lines = [*([header] if header else []), "/m/019jd,Boat", '/m/0x,"Bat, the (Animal)"', ""]
    path = tmp_path / "classes.csv"
    path.write_bytes((mark + ending.join(lines)).encode())
    assert read_names(path) == {"/m/019jd": "Boat", "/m/0x": "Bat, the (Animal)"}


@pytest.mark.parametrize(
    ("line", "found"),
    [("/m/0x", "/m/0x"), ("/m/0x,", "/m/0x,"), ("0x,Boat", "0x,Boat"), ("/m/0x,a,b", "/m/0x,a,b"),
     ("<html>", "<html>"), ("/m/0x,  ", "/m/0x"), ('/m/0x,"Canoe', "end of data"),
     ('/m/0x,"Canoe\n/m/0y,Car"', "/m/0x,Canoe"), ('/m/0x,"Ca"noe', "expected after"),
     ("/m/019jd,Ship", "/m/019jd,Ship")],
)  # fmt: skip
def test_a_malformed_line_of_class_descriptions_is_reported_with_its_number(
    tmp_path: Path, line: str, found: str
) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(f"/m/019jd,Boat\n\n{line}\n")
    with pytest.raises(InputFormError) as caught:
        read_names(path)
    assert caught.value.where == f"{path}:3"
    assert found in caught.value.found


def test_missing_empty_or_binary_class_descriptions_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    for content in (None, b"LabelName,DisplayName\n", b"\xff\xfe\x00"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputFormError) as caught:
            read_names(path)
        assert caught.value.where == str(path)


def node(mid: str, *below: object) -> dict[str, object]:
    return {"LabelName": mid, **({"Subcategory": list(below)} if below else {})}


def test_a_mid_at_several_nodes_has_the_descendants_of_all_nodes(tmp_path: Path) -> None:
    path = tmp_path / "hierarchy.json"
    path.write_text(
        json.dumps(node("root", node("a", node("b", node("c"))), node("d", node("b", node("e"))),
                        node("b")))
    )  # fmt: skip
    assert read_hierarchy(path) == {
        "root": {"a", "b", "c", "d", "e"},
        "a": {"b", "c", "e"},
        "b": {"c", "e"},
        "d": {"b", "c", "e"},
    }
    assert read_children(path) == {
        "root": ("a", "d", "b"), "a": ("b",), "b": ("c", "e"), "c": (), "d": ("b",), "e": ()
    }  # fmt: skip


def test_a_part_is_not_a_descendant_but_has_descendants_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "hierarchy.json"
    wheel = node("wheel", node("spare wheel"))
    car = {"LabelName": "car", "Subcategory": [node("van")], "Part": [wheel]}
    path.write_text(json.dumps(node("root", car, node("part", node("wheel")))))
    below = read_hierarchy(path)
    assert below["car"] == {"van"}
    assert below["wheel"] == {"spare wheel"}
    assert below["part"] == {"wheel", "spare wheel"}


def test_a_cycle_in_the_hierarchy_terminates_and_no_class_is_its_own_descendant(
    tmp_path: Path,
) -> None:
    path = tmp_path / "hierarchy.json"
    path.write_text(json.dumps(node("a", node("b", node("a", node("c"))))))
    assert read_hierarchy(path) == {"a": {"b", "c"}, "b": {"a", "c"}}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"Subcategory": []}', '{"LabelName": "a", "Subcategory": [{}]}',
     '{"LabelName": "a", "Subcategory": [1]}', "<html></html>", '{"LabelName": 3}',
     '{"LabelName": "a", "Subcategory": null}', '{"LabelName": "a", "Part": [[]]}',
     '{"LabelName":"a","Subcategory":[' * 5000],
    ids=range(12),
)  # fmt: skip
def test_an_invalid_hierarchy_is_rejected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hierarchy.json"
    path.write_text(content)
    with pytest.raises(InputFormError) as caught:
        read_hierarchy(path)
    assert caught.value.where == str(path)
    assert caught.value.expected


def real(name: str) -> Path:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"the real metadata file {name} is missing")
    return path


def test_the_real_hierarchy_contains_the_boats() -> None:
    below = read_hierarchy(real("bbox_labels_600_hierarchy.json"))
    assert below["/m/019jd"] == {"/m/01btn", "/m/02068x", "/m/0ph39"}
    assert len(below["/m/0bl9f"]) == 601
    assert below["/m/019jd"] < below["/m/01rzcn"] < below["/m/07yv9"]


def real_names() -> dict[str, str]:
    """Return the 601 names, of which the file's author altered a few."""
    return read_names(real("class-descriptions-boxable.kushagra414.csv"))


def test_real_descriptions_with_an_empty_name_are_rejected_with_the_line() -> None:
    path = real("class-descriptions-boxable.turpan9076.csv")
    with pytest.raises(InputFormError) as caught:
        read_names(path)
    assert caught.value.where == f"{path}:6"
    assert caught.value.found == "'/m/012n7d,'"


def test_classes_with_damaged_names_in_real_descriptions_are_found_by_mid() -> None:
    names = real_names()
    assert len(names) == 601
    assert find_class("/m/014sv8", names) == find_class("openeye", names)
    with pytest.raises(UsageError):
        find_class("Human eye", names)


def test_every_real_class_is_found_by_its_name_and_its_newer_name() -> None:
    names = real_names()
    renamed = dict(RENAMED_CLASSES)
    assert renamed.keys() <= set(names.values())
    for mid, name in names.items():
        assert find_class(name.upper(), names) == mid
        assert find_class(renamed.get(name, name), names) == mid


@pytest.mark.parametrize(
    ("word", "near"),
    [("boats", "Boat"), ("bota", "Boat"), ("sail boat", "Boat"), ("aeroplane", "Airplane"),
     ("motorbike", "Motorcycle"), ("dog house", "House"), ("sunglass", "Sunglasses"),
     ("racquet", "Racket"), ("humann hand", "Human hand")],
)  # fmt: skip
def test_suggestions_among_the_real_names_are_useful(word: str, near: str) -> None:
    assert near in nearest_names(word, real_names().values())[:2]


def test_the_real_boat_merges_its_three_children() -> None:
    below = read_hierarchy(real("bbox_labels_600_hierarchy.json"))
    (boat,) = select_classes(["boat"], real_names(), below, include_descendants=True)
    assert list(boat.merged_subclasses.values()) == ["Barge", "Canoe", "Gondola"]


def test_the_real_vehicle_boat_and_canoe_share_their_labels() -> None:
    below = read_hierarchy(real("bbox_labels_600_hierarchy.json"))
    vehicle, boat, canoe = select_classes(
        ["Vehicle", "Boat", "Canoe"], real_names(), below, include_descendants=True
    )
    assert list(boat.merged_subclasses.values()) == ["Barge", "Gondola"]
    assert not canoe.merged_subclasses
    every = {mid for c in (vehicle, boat, canoe) for mid in c.mids}
    assert every == {vehicle.mid, *below[vehicle.mid]}
    assert len(every) == sum(len(c.mids) for c in (vehicle, boat, canoe))
