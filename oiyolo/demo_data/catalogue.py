"""The classes of the demo mirror: a few dozen Open Images classes with their official MIDs.

The class tree has the structure of ``bbox_labels_600_hierarchy.json``, including parts and a class
with two parents.
"""

from __future__ import annotations

from typing import Any, Final

_ROOT: Final = "Entity"
_ROOT_MID: Final = "/m/0bl9f"

_CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "Flag": ("/m/03120", "Entity"),
    "Toy": ("/m/0138tl", "Entity"),
    "Balloon": ("/m/01j51", "Toy"),
    "Kite": ("/m/02zt3", "Toy"),
    "Building": ("/m/0cgh4", "Entity"),
    "Lighthouse": ("/m/04h7h", "Building"),
    "Tower": ("/m/01fdzj", "Building"),
    "House": ("/m/03jm5", "Building"),
    "Person": ("/m/01g317", "Entity"),
    "Man": ("/m/04yx4", "Person"),
    "Woman": ("/m/03bt1vf", "Person"),
    "Boy": ("/m/01bl7v", "Person"),
    "Girl": ("/m/05r655", "Person"),
    "Plant": ("/m/05s2s", "Entity"),
    "Tree": ("/m/07j7r", "Plant"),
    "Palm tree": ("/m/0cdl1", "Tree"),
    "Flower": ("/m/0c9ph5", "Plant"),
    "Vehicle": ("/m/07yv9", "Entity"),
    "Land vehicle": ("/m/01prls", "Vehicle"),
    "Bicycle": ("/m/0199g", "Land vehicle", "Sports equipment"),
    "Bus": ("/m/01bjv", "Land vehicle"),
    "Train": ("/m/07jdr", "Land vehicle"),
    "Truck": ("/m/07r04", "Land vehicle"),
    "Car": ("/m/0k4j", "Land vehicle"),
    "Van": ("/m/0h2r6", "Car"),
    "Watercraft": ("/m/01rzcn", "Vehicle"),
    "Boat": ("/m/019jd", "Watercraft"),
    "Barge": ("/m/01btn", "Boat"),
    "Gondola": ("/m/02068x", "Boat"),
    "Canoe": ("/m/0ph39", "Boat"),
    "Jet ski": ("/m/01xs3r", "Watercraft"),
    "Submarine": ("/m/074d1", "Watercraft"),
    "Aircraft": ("/m/0k5j", "Vehicle"),
    "Helicopter": ("/m/09ct_", "Aircraft"),
    "Airplane": ("/m/0cmf2", "Aircraft"),
    "Clothing": ("/m/09j2d", "Entity"),
    "Umbrella": ("/m/0hnnb", "Clothing"),
    "Animal": ("/m/0jbk", "Entity"),
    "Bird": ("/m/015p6", "Animal"),
    "Duck": ("/m/09ddx", "Bird"),
    "Goose": ("/m/0dbvp", "Bird"),
    "Swan": ("/m/0dftk", "Bird"),
    "Dolphin": ("/m/02hj4", "Animal"),
    "Whale": ("/m/084zz", "Animal"),
    "Fish": ("/m/0ch_cf", "Animal"),
    "Shark": ("/m/0by6g", "Fish"),
    "Sports equipment": ("/m/05y5lj", "Entity"),
    "Human face": ("/m/0dzct",),
}
"""MID and parents by class name; siblings in the order of the hierarchy."""

MIDS: Final = {name: mid for name, (mid, *_) in _CLASSES.items()}
"""MID by class name."""

_PARTS: Final = {"Person": ("Human face",)}


def hierarchy() -> dict[str, Any]:
    """Return the class tree as nested ``LabelName``, ``Subcategory`` and ``Part`` entries."""
    return _node(_ROOT, _ROOT_MID)


def _node(name: str, mid: str) -> dict[str, Any]:
    node: dict[str, Any] = {"LabelName": mid}
    children = [child for child, (_, *parents) in _CLASSES.items() if name in parents]
    if children:
        node["Subcategory"] = [_node(child, MIDS[child]) for child in children]
    if name in _PARTS:
        node["Part"] = [{"LabelName": MIDS[part]} for part in _PARTS[name]]
    return node
