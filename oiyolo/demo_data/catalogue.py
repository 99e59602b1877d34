"""The classes of the demo mirror: a few dozen Open Images classes with their official MIDs.

The class tree has the structure of ``bbox_labels_600_hierarchy.json``, including parts and a class
with two parents.
"""

from __future__ import annotations

from typing import Any, Final

ROOT_MID: Final = "/m/0bl9f"

MIDS: Final = {
    "Airplane": "/m/0cmf2",
    "Aircraft": "/m/0k5j",
    "Animal": "/m/0jbk",
    "Balloon": "/m/01j51",
    "Barge": "/m/01btn",
    "Bicycle": "/m/0199g",
    "Bird": "/m/015p6",
    "Boat": "/m/019jd",
    "Boy": "/m/01bl7v",
    "Building": "/m/0cgh4",
    "Bus": "/m/01bjv",
    "Canoe": "/m/0ph39",
    "Car": "/m/0k4j",
    "Clothing": "/m/09j2d",
    "Dolphin": "/m/02hj4",
    "Duck": "/m/09ddx",
    "Fish": "/m/0ch_cf",
    "Flag": "/m/03120",
    "Flower": "/m/0c9ph5",
    "Girl": "/m/05r655",
    "Gondola": "/m/02068x",
    "Goose": "/m/0dbvp",
    "Helicopter": "/m/09ct_",
    "House": "/m/03jm5",
    "Human face": "/m/0dzct",
    "Jet ski": "/m/01xs3r",
    "Kite": "/m/02zt3",
    "Land vehicle": "/m/01prls",
    "Lighthouse": "/m/04h7h",
    "Man": "/m/04yx4",
    "Palm tree": "/m/0cdl1",
    "Person": "/m/01g317",
    "Plant": "/m/05s2s",
    "Shark": "/m/0by6g",
    "Sports equipment": "/m/05y5lj",
    "Submarine": "/m/074d1",
    "Swan": "/m/0dftk",
    "Toy": "/m/0138tl",
    "Tower": "/m/01fdzj",
    "Train": "/m/07jdr",
    "Tree": "/m/07j7r",
    "Truck": "/m/07r04",
    "Umbrella": "/m/0hnnb",
    "Van": "/m/0h2r6",
    "Vehicle": "/m/07yv9",
    "Watercraft": "/m/01rzcn",
    "Whale": "/m/084zz",
    "Woman": "/m/03bt1vf",
}
"""MID by class name."""

_Tree = dict[str, "_Tree"]

_SUBCATEGORIES: Final[_Tree] = {
    "Flag": {},
    "Toy": {"Balloon": {}, "Kite": {}},
    "Building": {"Lighthouse": {}, "Tower": {}, "House": {}},
    "Person": {"Man": {}, "Woman": {}, "Boy": {}, "Girl": {}},
    "Plant": {"Tree": {"Palm tree": {}}, "Flower": {}},
    "Vehicle": {
        "Land vehicle": {"Bicycle": {}, "Bus": {}, "Train": {}, "Truck": {}, "Car": {"Van": {}}},
        "Watercraft": {
            "Boat": {"Barge": {}, "Gondola": {}, "Canoe": {}},
            "Jet ski": {},
            "Submarine": {},
        },
        "Aircraft": {"Helicopter": {}, "Airplane": {}},
    },
    "Clothing": {"Umbrella": {}},
    "Animal": {
        "Bird": {"Duck": {}, "Goose": {}, "Swan": {}},
        "Dolphin": {},
        "Whale": {},
        "Fish": {"Shark": {}},
    },
    "Sports equipment": {"Bicycle": {}},
}
_PARTS: Final = {"Person": ("Human face",)}


def hierarchy() -> dict[str, Any]:
    """Return the class tree as nested ``LabelName``, ``Subcategory`` and ``Part`` entries."""
    return {
        "LabelName": ROOT_MID,
        "Subcategory": [_node(name, children) for name, children in _SUBCATEGORIES.items()],
    }


def _node(name: str, children: _Tree) -> dict[str, Any]:
    node: dict[str, Any] = {"LabelName": MIDS[name]}
    if children:
        node["Subcategory"] = [
            _node(child, grandchildren) for child, grandchildren in children.items()
        ]
    if name in _PARTS:
        node["Part"] = [{"LabelName": MIDS[part]} for part in _PARTS[name]]
    return node
