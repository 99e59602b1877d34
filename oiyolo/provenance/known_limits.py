"""Known biases and limits of a dataset from Open Images, from its own pages, papers and tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from oiyolo.openimages.selection import FLAG_COLUMNS, SEPARATOR

if TYPE_CHECKING:
    from oiyolo.provenance.dataset import Dataset

PAPER: Final = (
    'A. Kuznetsova et al., "The Open Images Dataset V4: Unified image classification, object '
    'detection, and visual relationship detection at scale", IJCV 128, 2020'
)
CITE_AS: Final = (
    "@article{OpenImages, author = {Kuznetsova, Alina and Rom, Hassan and Alldrin, Neil and "
    "Uijlings, Jasper and Krasin, Ivan and Pont-Tuset, Jordi and Kamali, Shahab and Popov, Stefan "
    "and Malloci, Matteo and Kolesnikov, Alexander and Duerig, Tom and Ferrari, Vittorio}, "
    "title = {The Open Images Dataset V4: Unified image classification, object detection, and "
    "visual relationship detection at scale}, journal = {International Journal of Computer "
    "Vision}, volume = {128}, year = {2020}}"
)
GEODIVERSITY: Final = (
    'S. Shankar et al., "No Classification without Representation: Assessing Geodiversity Issues '
    'in Open Data Sets for the Developing World", 2017'
)
COLLECTION: Final = (
    f"Open Images' photographs come from Flickr and were published there under CC BY ({PAPER})."
)
ANNOTATION: Final = (
    "Image classifiers proposed labels, which people verified. For each label that was verified as "
    "present, people drew a box around every instance, or one box around a group of more than five "
    "instances that touch or hide each other. In the train subset about one box in ten was drawn "
    f"by a program, and verified by people ({PAPER})."
)
PERSONAL: Final = (
    "The photographs may show people who can be recognised, number plates, homes and other "
    "personal things. The licence of a photograph says nothing about the rights of whom it shows."
)
_BIASES: Final = (
    "Photographs on Flickr are what its users chose to take and to publish.",
    f"Open Images over-represents North America and Europe ({GEODIVERSITY}).",
)
_LIMITS: Final = (
    "A class that nobody verified for an image may be there without a box.",
    "Only the most specific class of an object has a box: a canoe is labelled Canoe, not Boat.",
    "Boxes around groups and of hidden, cut-off or drawn objects are marked in boxes.csv.",
)
_LARGEST_AUTHORS: Final = 10


def known_biases(dataset: Dataset) -> list[str]:
    """Return the known biases of the photographs, a sentence each."""
    facts = list(_BIASES) if dataset.is_open_images else []
    images = dataset.official_images
    names = zip(images["AuthorProfileURL"], images["Author"], strict=True)
    authors = Counter(profile or name for profile, name in names if profile or name)
    if authors:
        largest = sum(count for _, count in authors.most_common(_LARGEST_AUTHORS))
        facts.append(
            f"The photographs are by {len(authors):,} authors, of whom the {_LARGEST_AUTHORS} with "
            f"the most took {largest / len(images):.1%}."
        )
    return facts


def known_limits(dataset: Dataset) -> list[str]:
    """Return the known limits of the annotations, a sentence each."""
    facts = list(_LIMITS) if dataset.is_open_images else []
    unverified = _unverified_images(dataset)
    if unverified:
        facts.append(
            "Images in which people have not verified each of the classes, as present or absent: "
            f"{unverified:,} of {len(dataset.images):,}."
        )
    if dataset.predicted_count:
        facts.append(
            "Labels that a detector predicted and nobody checked: "
            f"{dataset.predicted_count:,} of {len(dataset.labels):,}."
        )
    flags = {
        name: int((dataset.labels[column] == 1).sum())
        for name, column in FLAG_COLUMNS.items()
        if column in dataset.labels
    }
    if any(flags.values()):
        words = ", ".join(f"{name} {count:,}" for name, count in flags.items() if count)
        facts.append(f"Labels by attribute, of {len(dataset.labels):,}: {words}.")
    return facts


def _unverified_images(dataset: Dataset) -> int:
    """Return the number of images in which a class was verified neither as present nor absent."""
    classes = set(dataset.class_names)
    columns = zip(dataset.images["present"], dataset.images["absent"], strict=True)
    return sum(
        not classes.issubset({*present.split(SEPARATOR), *absent.split(SEPARATOR)})
        for present, absent in columns
    )
