"""Splits: deterministic, whole groups, for ever."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.splits import Assignment, Member, assign

RATIOS = {"train": 0.8, "valid": 0.1, "test": 0.1}


def members_of(keys: list[list[int]]) -> list[Member]:
    return [
        Member(f"{number:04x}", tuple(f"k{key}" for key in own)) for number, own in enumerate(keys)
    ]


# Each image bears up to two of some keys: an author, and the bytes that it shares.
MEMBERS = st.lists(st.lists(st.integers(0, 30), max_size=2), max_size=60).map(members_of)
RATIO_TABLES = st.sampled_from(
    [
        RATIOS,
        {"train": 1.0, "valid": 0.0, "test": 0.0},
        {"train": 0.5, "valid": 0.5, "test": 0.0},
        {"train": 0.6, "valid": 0.2, "test": 0.2},
    ]
)


def splits_by_key(members: list[Member], done: Assignment) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for member in members:
        if member.image_id in done.split_by_id:
            for key in member.keys:
                found[key].add(done.split_by_id[member.image_id])
    return found


@settings(max_examples=50)
@given(MEMBERS, RATIO_TABLES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(
    members: list[Member], ratios: dict[str, float], seed: int, shuffled: random.Random
) -> None:
    first = assign(members, ratios, seed)
    other = list(members)
    shuffled.shuffle(other)
    assert assign(other, ratios, seed) == first


@settings(max_examples=50)
@given(MEMBERS, RATIO_TABLES, st.integers(0, 5))
def test_images_with_a_common_key_are_in_one_split_and_nobody_is_left_out_at_first(
    members: list[Member], ratios: dict[str, float], seed: int
) -> None:
    done = assign(members, ratios, seed)
    assert done.left_out == []
    assert done.split_by_id.keys() == {member.image_id for member in members}
    assert set(done.split_by_id.values()) <= {name for name, share in ratios.items() if share}
    assert all(len(found) == 1 for found in splits_by_key(members, done).values())
    split_of_group: dict[str, set[str]] = defaultdict(set)
    for image_id, group in done.group_by_id.items():
        split_of_group[group].add(done.split_by_id[image_id])
        assert group <= image_id
    assert all(len(found) == 1 for found in split_of_group.values())


@settings(max_examples=50)
@given(MEMBERS, RATIO_TABLES, st.integers(0, 5))
def test_the_first_shares_are_exact_to_within_the_largest_group(
    members: list[Member], ratios: dict[str, float], seed: int
) -> None:
    done = assign(members, ratios, seed)
    largest = max(Counter(done.group_by_id.values()).values(), default=0)
    have = Counter(done.split_by_id.values())
    for name, share in ratios.items():
        over = have[name] - share * len(members)
        assert over <= largest  # and so the others together lack no more than theirs
        assert over >= -largest * (len(ratios) - 1)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 100, 7810])
def test_images_without_ties_are_divided_to_within_one_image(count: int) -> None:
    done = assign([Member(f"{n:05}", ()) for n in range(count)], RATIOS, 42)
    have = Counter(done.split_by_id.values())
    for name, share in RATIOS.items():
        assert abs(have[name] - share * count) <= 1


def test_another_seed_deals_otherwise() -> None:
    members = [Member(f"{n:03}", ()) for n in range(100)]
    dealt = {tuple(sorted(assign(members, RATIOS, seed).split_by_id.items())) for seed in range(5)}
    assert len(dealt) == 5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_over_twenty_rounds_of_growth_nobody_moves_and_no_key_straddles(seed: int) -> None:
    rng = random.Random(seed)
    members: dict[str, Member] = {}
    split_by_id: dict[str, str] = {}
    for _ in range(20):
        for _ in range(rng.randrange(8)):
            image_id = f"{rng.randrange(1 << 32):08x}"
            keys = (f"author {rng.randrange(25)}", f"md5 {rng.randrange(400)}")
            members[image_id] = Member(image_id, keys[: rng.randrange(3)])
        given_ = [
            Member(m.image_id, m.keys, split_by_id.get(m.image_id), counts=rng.random() < 0.9)
            for m in members.values()
        ]
        rng.shuffle(given_)
        done = assign(given_, RATIOS, 42)
        moved = {i for i, split in split_by_id.items() if done.split_by_id[i] != split}
        assert not moved
        assert not split_by_id.keys() & set(done.left_out)
        assert done.split_by_id.keys() | set(done.left_out) == members.keys()
        assert not done.split_by_id.keys() & set(done.left_out)
        straddling = {k for k, s in splits_by_key(given_, done).items() if len(s) > 1}
        assert not straddling
        split_by_id = dict(done.split_by_id)


@settings(max_examples=50)
@given(MEMBERS, st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=10))
def test_a_new_image_is_left_out_only_when_its_group_would_join_different_splits(
    old: list[Member], new_keys: list[list[int]]
) -> None:
    before = assign(old, RATIOS, 42)
    known = [Member(m.image_id, m.keys, before.split_by_id[m.image_id]) for m in old]
    new = [
        Member(f"f{number:04}", tuple(f"k{key}" for key in own))
        for number, own in enumerate(new_keys)
    ]
    done = assign([*known, *new], RATIOS, 42)
    # What binds images together is the keys: whoever is left out is bound to two splits.
    bound: dict[str, set[str]] = defaultdict(set)
    kin: dict[str, set[str]] = defaultdict(set)
    for member in [*known, *new]:
        for key in member.keys:
            kin[key] |= set(member.keys)
            if member.image_id in done.split_by_id:
                bound[key].add(done.split_by_id[member.image_id])
    for member in new:
        reached = {split for key in member.keys for split in bound[key]}
        if member.image_id in done.left_out:
            assert len(reached) > 1
        else:
            assert len(reached) <= 1


def test_a_new_image_follows_the_group_that_it_joins() -> None:
    known = [Member("a", ("x",), "test"), Member("b", ("y",), "train")]
    done = assign([*known, Member("c", ("x", "new")), Member("d", ("new",))], RATIOS, 42)
    assert done.split_by_id == {"a": "test", "b": "train", "c": "test", "d": "test"}
    assert done.group_by_id["d"] == "a"


def test_a_new_image_between_two_splits_is_left_out_and_binds_nobody() -> None:
    known = [Member("a", ("x",), "test"), Member("b", ("y",), "train")]
    done = assign([*known, Member("c", ("x", "y", "z")), Member("d", ("z",))], RATIOS, 42)
    assert done.left_out == ["c"]
    assert "c" not in done.split_by_id
    assert done.group_by_id["d"] == "d"


def test_a_new_image_may_join_two_groups_of_the_same_split() -> None:
    known = [Member("a", ("x",), "valid"), Member("b", ("y",), "valid")]
    done = assign([*known, Member("c", ("x", "y"))], RATIOS, 42)
    assert done.split_by_id["c"] == "valid"
    assert set(done.group_by_id.values()) == {"a"}


def test_images_assigned_apart_stay_where_they_are_though_they_share_a_key_now() -> None:
    known = [Member("a", ("x",), "test"), Member("b", ("x",), "train")]
    done = assign(known, RATIOS, 42)
    assert done.split_by_id == {"a": "test", "b": "train"}
    assert done.left_out == []


def test_new_images_go_where_the_shares_lack_most() -> None:
    known = [Member(f"a{n:02}", (), "train") for n in range(90)]
    new = [Member(f"b{n:02}", ()) for n in range(10)]
    done = assign([*known, *new], RATIOS, 42)
    assert Counter(done.split_by_id[m.image_id] for m in new) == {"valid": 5, "test": 5}


def test_images_that_do_not_count_do_not_weigh() -> None:
    known = [Member(f"a{n:02}", (), "test", counts=False) for n in range(50)]
    new = [Member(f"b{n:02}", ()) for n in range(10)]
    done = assign([*known, *new], RATIOS, 42)
    have = Counter(done.split_by_id[m.image_id] for m in new)
    assert have == {"train": 8, "valid": 1, "test": 1}


def test_nothing_is_assigned_to_nobody() -> None:
    assert assign([], RATIOS, 42) == Assignment({}, {}, [])
