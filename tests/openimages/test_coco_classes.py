"""Which classes of a detector count as ours: by name, by hierarchy, or as the nearest ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from oiyolo.openimages.classes import find_class, mids_below, read_children, read_names
from oiyolo.openimages.coco_classes import (
    COCO_CLASSES,
    Counterparts,
    match_classes,
    mids_of_detector,
)

REAL = Path(__file__).parents[3] / "shared" / "real" / "metadata"

CHILDREN = {
    "root": ("animal", "boat", "tree"),
    "animal": ("mammal", "bird"),
    "mammal": ("sheep", "goat", "alpaca", "carnivore"),
    "carnivore": ("dog",),
    "boat": ("canoe",),
}
DETECTOR = [{"sheep"}, {"dog"}, {"bird"}, {"boat"}]
SHEEP, DOG, BIRD, BOAT = range(4)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([["sheep"]], [Counterparts((SHEEP,), is_same=True)]),
        ([["boat", "canoe"]], [Counterparts((BOAT,), is_same=True)]),
        ([["animal", "mammal", "sheep", "dog", "bird"]], [Counterparts((0, 1, 2), is_same=True)]),
        ([["canoe"]], [Counterparts((BOAT,), is_same=False)]),
        ([["alpaca"]], [Counterparts((SHEEP, DOG), is_same=False)]),
        ([["tree"]], [Counterparts((), is_same=False)]),
        # What is the same as another class of ours is not counted as a second one.
        (
            [["alpaca"], ["sheep"]],
            [Counterparts((DOG,), is_same=False), Counterparts((SHEEP,), is_same=True)],
        ),
        (
            [["alpaca"], ["goat"]],
            [Counterparts((SHEEP, DOG), is_same=False), Counterparts((SHEEP, DOG), is_same=False)],
        ),
        (
            [["canoe"], ["boat"]],
            [Counterparts((BOAT,), is_same=False), Counterparts((BOAT,), is_same=True)],
        ),
    ],
)
def test_a_class_is_matched_by_name_by_kind_or_by_its_nearest_relatives(
    own: list[list[str]], expected: list[Counterparts]
) -> None:
    assert list(match_classes(own, DETECTOR, CHILDREN)) == expected


def test_a_node_below_itself_ends_the_search() -> None:
    children = {"root": ("a",), "a": ("b",), "b": ("a",)}
    assert match_classes([["b"]], [{"x"}], children) == (Counterparts((), is_same=False),)


def test_names_of_open_images_are_themselves_and_cocos_mouse_is_no_animal() -> None:
    names = {"/m/1": "Mouse", "/m/2": "Computer mouse", "/m/3": "Donut"}
    own = mids_of_detector(["mouse", "Doughnut", "gnat"], names)
    assert [set(mids) for mids in own] == [{"/m/1"}, {"/m/3"}, set()]
    darknet = ["aeroplane" if name == "airplane" else name for name in COCO_CLASSES]
    mids = mids_of_detector(darknet, names)
    assert mids[darknet.index("mouse")] == {"/m/2"}
    assert mids[darknet.index("donut")] == {"/m/3"}


needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real/metadata")


@needs_real
def test_every_class_of_coco_contains_classes_of_open_images() -> None:
    names = read_names(REAL / "class-descriptions-boxable.kushagra414.csv")
    mids = {name: find_class(name, names) for part in COCO_CLASSES.values() for name in part}
    assert len(COCO_CLASSES) == 80
    assert len(set(mids.values())) == len(mids)


@needs_real
def test_an_alpaca_is_found_by_other_mammals_and_a_boat_by_boats() -> None:
    names = read_names(REAL / "class-descriptions-boxable.kushagra414.csv")
    children = read_children(REAL / "bbox_labels_600_hierarchy.json")
    detector = mids_of_detector(list(COCO_CLASSES), names)
    boat = find_class("Boat", names)
    alpaca, boats, face = match_classes(
        [
            [find_class("Alpaca", names)],
            [boat, *mids_below(boat, children)],
            [find_class("Human nose", names)],
        ],
        detector,
        children,
    )
    coco = list(COCO_CLASSES)
    assert {coco[i] for i in alpaca.class_ids} == {
        *("cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
        "teddy bear",
    }
    assert ([coco[i] for i in boats.class_ids], boats.is_same) == (["boat"], True)
    assert face.class_ids == ()
