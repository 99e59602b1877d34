"""How often images of rare classes are repeated."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.training.balance import balance_images

IMAGES = st.dictionaries(
    st.integers(0, 2**64 - 1).map("{:016x}".format),
    st.sets(st.sampled_from(["Boat", "Canoe", "Barge"])),
    min_size=1,
    max_size=60,
)


@given(IMAGES, st.floats(0.001, 1))
def test_an_image_is_repeated_as_often_as_its_rarest_class(
    classes: dict[str, set[str]], threshold: float
) -> None:
    ids = sorted(classes)
    balance = balance_images(ids, classes, threshold)
    images = Counter(name for names in classes.values() for name in names)
    for image_id, names in classes.items():
        shares = [images[name] / len(ids) for name in names]
        factor = max([1.0, *(math.sqrt(threshold / share) for share in shares)])
        count = balance.counts[image_id]
        assert math.floor(factor - 1e-9) <= count <= math.ceil(factor + 1e-9)
    listed = [*ids, *balance.repeated(ids)]
    assert Counter(listed) == balance.counts
    assert len(listed) == balance.line_count == len(ids) + balance.repeat_count
    for name, row in balance.classes.items():
        assert row.images == images[name]
        assert row.lines == sum(name in classes[image_id] for image_id in listed)
    assert balance_images(ids[::-1], classes, threshold).counts == balance.counts


def test_a_rare_class_is_repeated_by_the_root_of_its_deficit() -> None:
    ids = [f"{i:016x}" for i in range(10_000)]
    classes = {image_id: {"Canoe"} if i < 100 else {"Boat"} for i, image_id in enumerate(ids)}
    balance = balance_images(ids, classes, 0.0625)
    assert balance.classes["Canoe"].factor == pytest.approx(2.5)
    assert balance.classes["Canoe"].lines == pytest.approx(250, abs=15)
    assert balance.classes["Boat"].lines == 9900
    record = balance.as_dict()
    assert record["lines"] == balance.line_count
    assert record["classes"]["Canoe"]["share_before"] == 0.01
    assert record["classes"]["Canoe"]["share_after"] > 0.02


def test_images_of_frequent_classes_and_negatives_are_listed_once() -> None:
    balance = balance_images(["a", "b", "c"], {"a": {"Boat"}, "b": {"Boat"}}, 0.5)
    assert balance.counts == {"a": 1, "b": 1, "c": 1}
    assert "no images" in str(balance)
