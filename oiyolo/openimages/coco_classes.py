"""COCO's 80 classes among those of Open Images, and what a detector for them finds of ours.

A detector that was trained for other classes can be scored on ours. What it detects counts as our
class if that is the same thing under another name, or a kind of it. A class that it does not know
is represented by those nearest to it in the class hierarchy: an alpaca by other mammals.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from oiyolo.openimages.classes import mids_below, mids_of_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

COCO_CLASSES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "person": ("Person",),
        "bicycle": ("Bicycle",),
        "car": ("Car", "Taxi"),
        "motorcycle": ("Motorcycle",),
        "airplane": ("Airplane",),
        "bus": ("Bus",),
        "train": ("Train",),
        "truck": ("Truck",),
        "boat": ("Boat",),
        "traffic light": ("Traffic light",),
        "fire hydrant": ("Fire hydrant",),
        "stop sign": ("Stop sign",),
        "parking meter": ("Parking meter",),
        "bench": ("Bench",),
        "bird": ("Bird",),
        "cat": ("Cat",),
        "dog": ("Dog",),
        "horse": ("Horse",),
        "sheep": ("Sheep",),
        "cow": ("Cattle", "Bull"),
        "elephant": ("Elephant",),
        "bear": ("Bear",),
        "zebra": ("Zebra",),
        "giraffe": ("Giraffe",),
        "backpack": ("Backpack",),
        "umbrella": ("Umbrella",),
        "handbag": ("Handbag",),
        "tie": ("Tie",),
        "suitcase": ("Suitcase",),
        "frisbee": ("Flying disc",),
        "skis": ("Ski",),
        "snowboard": ("Snowboard",),
        "sports ball": ("Ball",),
        "kite": ("Kite",),
        "baseball bat": ("Baseball bat",),
        "baseball glove": ("Baseball glove",),
        "skateboard": ("Skateboard",),
        "surfboard": ("Surfboard",),
        "tennis racket": ("Tennis racket",),
        "bottle": ("Bottle",),
        "wine glass": ("Wine glass",),
        "cup": ("Coffee cup", "Mug"),
        "fork": ("Fork",),
        "knife": ("Knife", "Kitchen knife"),
        "spoon": ("Spoon",),
        "bowl": ("Bowl", "Mixing bowl"),
        "banana": ("Banana",),
        "apple": ("Apple",),
        "sandwich": ("Sandwich",),
        "orange": ("Orange",),
        "broccoli": ("Broccoli",),
        "carrot": ("Carrot",),
        "hot dog": ("Hot dog",),
        "pizza": ("Pizza",),
        "donut": ("Donut",),
        "cake": ("Cake",),
        "chair": ("Chair",),
        "couch": ("Couch", "Studio couch"),
        "potted plant": ("Houseplant",),
        "bed": ("Bed", "Infant bed"),
        "dining table": ("Kitchen & dining room table",),
        "toilet": ("Toilet",),
        "tv": ("Television", "Computer monitor"),
        "laptop": ("Laptop",),
        "mouse": ("Computer mouse",),
        "remote": ("Remote control",),
        "keyboard": ("Computer keyboard",),
        "cell phone": ("Mobile phone",),
        "microwave": ("Microwave oven",),
        "oven": ("Oven",),
        "toaster": ("Toaster",),
        "sink": ("Sink",),
        "refrigerator": ("Refrigerator",),
        "book": ("Book",),
        "clock": ("Clock",),
        "vase": ("Vase",),
        "scissors": ("Scissors",),
        "teddy bear": ("Teddy bear",),
        "hair drier": ("Hair dryer",),
        "toothbrush": ("Toothbrush",),
    }
)
"""Classes of Open Images that each class of COCO contains, in the order of COCO's 80 classes.

Their subclasses in Open Images belong to them, too.
"""

_DARKNET_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "motorbike": "motorcycle",
        "aeroplane": "airplane",
        "sofa": "couch",
        "pottedplant": "potted plant",
        "diningtable": "dining table",
        "tvmonitor": "tv",
    }
)
"""COCO's names by those in darknet's ``coco.names``, which are PASCAL VOC's."""


@dataclass(frozen=True)
class Counterparts:
    """The classes of a detector that count as one of ours.

    Attributes:
        class_ids: Their positions in the detector's names; empty if nothing comes near.
        is_same: Whether they are the same thing or kinds of it, not just the nearest ones.
    """

    class_ids: tuple[int, ...]
    is_same: bool


def mids_of_detector(
    detector_names: Sequence[str], names: Mapping[str, str]
) -> tuple[frozenset[str], ...]:
    """Return the MIDs of the classes that each class of a detector contains.

    Args:
        detector_names: Names of its classes: COCO's 80, as COCO or darknet writes them, or those of
            Open Images.
        names: Display names of Open Images by MID.

    Returns:
        MIDs for each name; empty for a name that is in neither list.
    """
    plain = [name.strip().casefold() for name in detector_names]
    coco = [_DARKNET_NAMES.get(name, name) for name in plain]
    # COCO's mouse is not an animal, so its table is used only if this is a detector for COCO.
    is_coco = COCO_CLASSES.keys() <= set(coco)
    contained = [
        COCO_CLASSES.get(name, ()) if is_coco else (own,)
        for name, own in zip(coco, detector_names, strict=True)
    ]
    mids = mids_of_names({name for part in contained for name in part}, names)
    return tuple(frozenset(mids[name] for name in part if name in mids) for part in contained)


def match_classes(
    class_mids: Sequence[Collection[str]],
    detector_mids: Sequence[Collection[str]],
    children: Mapping[str, Sequence[str]],
) -> tuple[Counterparts, ...]:
    """Return which classes of a detector count as each of our classes.

    Args:
        class_mids: MIDs whose boxes belong to each of our classes, its own first.
        detector_mids: MIDs that each class of the detector contains.
        children: MIDs of the children by MID, the root first (``classes.read_children``).

    Returns:
        A match per class of ours. A class that the detector does not know is represented by those
        below the nearest ancestor that has any, the root excepted; without those that are the same
        as another class of ours, unless there are no others.
    """
    same = [
        tuple(i for i, contained in enumerate(detector_mids) if set(mids) & set(contained))
        for mids in class_mids
    ]
    taken = {i for ids in same for i in ids}
    matches = []
    for mids, ids in zip(class_mids, same, strict=True):
        near = () if ids else _nearest(next(iter(mids)), detector_mids, children)
        free = tuple(i for i in near if i not in taken)
        matches.append(Counterparts(ids or free or near, is_same=bool(ids)))
    return tuple(matches)


def _nearest(
    mid: str, detector_mids: Sequence[Collection[str]], children: Mapping[str, Sequence[str]]
) -> tuple[int, ...]:
    """Return the classes below the nearest ancestor that has any."""
    visited = {next(iter(children), "")}  # the root, which is near to nothing
    ancestors = {mid}
    while ancestors:
        visited |= ancestors
        ancestors = {
            parent for parent, below in children.items() if not ancestors.isdisjoint(below)
        } - visited
        near = ancestors | set().union(*(mids_below(each, children) for each in ancestors))
        if ids := tuple(i for i, mids in enumerate(detector_mids) if not near.isdisjoint(mids)):
            return ids
    return ()
