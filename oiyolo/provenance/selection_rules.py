"""The options that selected and split a dataset, in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.escaping import one_line
from oiyolo.core.results import pluralize
from oiyolo.project.config import as_dict
from oiyolo.project.keys import DatasetOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.provenance.dataset import Dataset

_FLAGS: Final = {
    "group_of": "around a group of more than five objects",
    "occluded": "of partly hidden objects",
    "truncated": "of objects that the edge of the image cuts off",
    "depiction": "of drawings, toys and statues",
    "inside": "of pictures taken from inside the object",
    "difficult": "that are marked as difficult",
}
_FLAG_ACTIONS: Final = {
    "drop-box": "are not labels",
    "drop-image": "exclude the image",
    "mask": "are not labels; their regions are filled with grey",
}


def selection_rules(options: Mapping[str, Any]) -> list[str]:
    """Return the rules by which images and boxes were selected, a sentence each.

    Args:
        options: Options of ``[dataset]`` by name; those that have their default and exclude nothing
            are not mentioned.
    """
    values = {**as_dict(DatasetOptions()), "difficult": "keep", **options}
    rules = []
    if values["subsets"]:
        rules.append(f"Subsets of the image list: {', '.join(values['subsets'])}.")
        rules.append(
            "A box of a subclass counts as the class that was asked for."
            if values["include_descendants"]
            else "Boxes of subclasses are not used."
        )
    else:
        rules.append("All images were imported.")
    rules += [
        f"Boxes {_FLAGS[name]} {_FLAG_ACTIONS[values[name]]}."
        for name in _FLAGS
        if values[name] in _FLAG_ACTIONS
    ]
    rules += _area_rules(values["min_box_area"], values["max_box_area"])
    if values["require_verified"]:
        rules.append("Only images in which humans verified every class, present or absent.")
    if values["limit"]:
        rules.append(f"At most {values['limit']:,} images with boxes, chosen by a hash of the id.")
    if values["negatives"]:
        ratio = f"{values['negatives']:g} for each image with boxes"
        rules.append(f"Images that were verified to lack the classes: {ratio}.")
    return rules


def _area_rules(smallest: float, largest: float) -> list[str]:
    rules = []
    if smallest > 0:
        rules.append(f"Boxes smaller than {smallest:g} of the image's area are not labels.")
    if largest < 1:
        rules.append(f"Boxes larger than {largest:g} of the image's area are not labels.")
    return rules


def split_rules(dataset: Dataset) -> list[str]:
    """Return how images were assigned to splits, a sentence each."""
    options = dataset.split_options
    if options.official:
        return ["The splits are Open Images' own subsets."]
    sizes = Counter(dataset.group_by_id[image_id] for image_id in dataset.split_by_id)
    shares = f"{options.train:.0%}, {options.valid:.0%} and {options.test:.0%}"
    rules = [f"Target shares of train, valid and test: {shares}; seed {options.seed}."]
    kept = [
        text
        for kind, text in (
            ("duplicate", "identical files and near-duplicates (by a perceptual hash)"),
            ("author", "images by the same author"),
        )
        if kind in options.group_by
    ]
    if kept:
        groups, largest = pluralize(len(sizes), "group"), max(sizes.values(), default=0)
        rules.append(
            f"Never in two splits: {' and '.join(kept)}. There are {groups}; the largest has "
            f"{pluralize(largest, 'image')}."
        )
    rules += [
        f"Images of the import {one_line(name)} have the splits of their source."
        for name in dataset.imported_names
        if dataset.imports[name].keeps_splits
    ]
    rules.append("An image keeps its split when the dataset grows.")
    return rules
