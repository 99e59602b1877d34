"""Splits: deterministic and permanent, in whole groups, with the right share of each class."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.splits.assign import Assignment, assign
from oiyolo.splits.groups import Member, keys_across_splits

RATIOS = {"train": 0.8, "valid": 0.1, "test": 0.1}


def members_of(keys: list[list[int]]) -> list[Member]:
    return [
        Member(f"{number:04x}", tuple(f"k{key}" for key in own)) for number, own in enumerate(keys)
    ]


# Each image has up to two keys: its author, and a checksum that duplicates share.
MEMBERS = st.lists(st.lists(st.integers(0, 30), max_size=2), max_size=60).map(members_of)
RATIO_TABLES = st.sampled_from(
    [
        RATIOS,
        {"train": 1.0, "valid": 0.0, "test": 0.0},
        {"train": 0.5, "valid": 0.5, "test": 0.0},
        {"train": 0.6, "valid": 0.2, "test": 0.2},
    ]
)


def splits_by_key(members: list[Member], result: Assignment) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = defaultdict(set)
    for member in members:
        if member.image_id in result.split_by_id:
            for key in member.keys:
                splits[key].add(result.split_by_id[member.image_id])
    return splits


@settings(max_examples=50)
@given(MEMBERS, RATIO_TABLES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(
    members: list[Member], ratios: dict[str, float], seed: int, rng: random.Random
) -> None:
    first = assign(members, ratios, seed)
    reordered = list(members)
    rng.shuffle(reordered)
    assert assign(reordered, ratios, seed) == first


@settings(max_examples=50)
@given(MEMBERS, RATIO_TABLES, st.integers(0, 5))
def test_images_with_a_common_key_are_in_one_split_and_none_conflicts_at_first(
    members: list[Member], ratios: dict[str, float], seed: int
) -> None:
    done = assign(members, ratios, seed)
    assert done.conflicts == {}
    assert done.split_by_id.keys() == {member.image_id for member in members}
    assert set(done.split_by_id.values()) <= {name for name, share in ratios.items() if share}
    assert all(len(splits) == 1 for splits in splits_by_key(members, done).values())
    split_of_group: dict[str, set[str]] = defaultdict(set)
    for image_id, group in done.group_by_id.items():
        split_of_group[group].add(done.split_by_id[image_id])
        assert group <= image_id
    assert all(len(splits) == 1 for splits in split_of_group.values())


@pytest.mark.parametrize("count", [1, 2, 9, 10, 100, 7810])
def test_shares_of_unconnected_images_are_exact_to_within_one_image(count: int) -> None:
    done = assign([Member(f"{n:05}", ()) for n in range(count)], RATIOS, 42)
    have = Counter(done.split_by_id.values())
    for name, share in RATIOS.items():
        assert abs(have[name] - share * count) <= 1


def test_another_seed_leads_to_another_assignment() -> None:
    members = [Member(f"{n:03}", ()) for n in range(100)]
    assignments = {
        tuple(sorted(assign(members, RATIOS, seed).split_by_id.items())) for seed in range(5)
    }
    assert len(assignments) == 5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_in_twenty_refreshes_no_image_moves_and_no_key_is_in_two_splits(seed: int) -> None:
    rng = random.Random(seed)
    members: dict[str, Member] = {}
    split_by_id: dict[str, str] = {}
    deselected: set[str] = set()
    for _ in range(20):
        for _ in range(rng.randrange(8)):
            image_id = f"{rng.randrange(1 << 32):08x}"
            keys = (f"author {rng.randrange(25)}", f"md5 {rng.randrange(400)}")
            classes = tuple(name for name in "xyz" if rng.random() < 0.4)
            members[image_id] = Member(image_id, keys[: rng.randrange(3)], classes=classes)
        # Some are deselected, some selected again; the ledger keeps those that have a split.
        deselected = {
            i for i in members if rng.random() < 0.3 and (i in split_by_id or i in deselected)
        }
        current = [
            Member(m.image_id, m.keys, split_by_id.get(i, ""), is_counted=i not in deselected,
                   classes=m.classes)
            for i, m in members.items()
            if i in split_by_id or i not in deselected
        ]  # fmt: skip
        rng.shuffle(current)
        done = assign(current, RATIOS, 42)
        assert {i: done.split_by_id[i] for i in split_by_id} == split_by_id
        assert not split_by_id.keys() & done.conflicts.keys()
        assert done.split_by_id.keys() | done.conflicts.keys() == {m.image_id for m in current}
        assert not done.split_by_id.keys() & done.conflicts.keys()
        assigned = [
            Member(m.image_id, m.keys, done.split_by_id.get(m.image_id, "")) for m in current
        ]
        assert keys_across_splits(assigned) == {}
        split_by_id = dict(done.split_by_id)


@settings(max_examples=50)
@given(MEMBERS, st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=10))
def test_a_new_image_conflicts_only_if_it_would_join_groups_of_different_splits(
    old: list[Member], new_keys: list[list[int]]
) -> None:
    before = assign(old, RATIOS, 42)
    assigned = [Member(m.image_id, m.keys, before.split_by_id[m.image_id]) for m in old]
    new = [
        Member(f"f{number:04}", tuple(f"k{key}" for key in own))
        for number, own in enumerate(new_keys)
    ]
    done = assign([*assigned, *new], RATIOS, 42)
    # Images are grouped by their keys: one that conflicts shares keys with two splits.
    splits_of: dict[str, set[str]] = defaultdict(set)
    connected: dict[str, set[str]] = defaultdict(set)
    for member in [*assigned, *new]:
        for key in member.keys:
            connected[key] |= set(member.keys)
            if member.image_id in done.split_by_id:
                splits_of[key].add(done.split_by_id[member.image_id])
    for member in new:
        reached = {split for key in member.keys for split in splits_of[key]}
        if member.image_id in done.conflicts:
            assert len(reached) > 1
        else:
            assert len(reached) <= 1


def test_a_new_image_gets_the_split_of_the_group_that_it_joins() -> None:
    assigned = [Member("a", ("x",), "test"), Member("b", ("y",), "train")]
    done = assign([*assigned, Member("c", ("x", "new")), Member("d", ("new",))], RATIOS, 42)
    assert done.split_by_id == {"a": "test", "b": "train", "c": "test", "d": "test"}
    assert done.group_by_id["d"] == "a"


def test_a_new_image_between_two_splits_is_left_out_and_connects_no_others() -> None:
    assigned = [Member("a", ("x",), "test"), Member("b", ("y",), "train")]
    done = assign([*assigned, Member("c", ("x", "y", "z")), Member("d", ("z",))], RATIOS, 42)
    assert done.conflicts == {"c": {"test": "x", "train": "y"}}
    assert "c" not in done.split_by_id
    assert done.group_by_id["d"] == "d"


def test_a_new_image_may_join_two_groups_of_the_same_split() -> None:
    assigned = [Member("a", ("x",), "valid"), Member("b", ("y",), "valid")]
    done = assign([*assigned, Member("c", ("x", "y"))], RATIOS, 42)
    assert done.split_by_id["c"] == "valid"
    assert set(done.group_by_id.values()) == {"a"}


def test_images_in_different_splits_keep_them_when_they_come_to_share_a_key() -> None:
    assigned = [Member("a", ("x",), "test"), Member("b", ("x",), "train")]
    done = assign(assigned, RATIOS, 42)
    assert done.split_by_id == {"a": "test", "b": "train"}
    assert done.conflicts == {}


def test_a_new_image_that_shares_a_key_with_two_splits_is_left_out() -> None:
    assigned = [Member("a", ("x",), "test"), Member("b", ("x",), "train")]
    done = assign([*assigned, Member("c", ("x",)), Member("d", ("y", "x"))], RATIOS, 42)
    assert done.conflicts == {i: {"test": "x", "train": "x"} for i in "cd"}


def test_each_image_is_linked_to_another_one_of_its_group() -> None:
    members = [
        Member("a", ("author:A",)),
        Member("b", ("look:1-2", "author:B")),
        Member("c", ("look:1-2", "author:A")),
        Member("d", ("author:D",)),
    ]
    done = assign(members, RATIOS, 42)
    assert done.group_by_id == {"a": "a", "b": "a", "c": "a", "d": "d"}
    assert done.link_by_id == {
        "a": ("author:A", "c"),
        "b": ("look:1-2", "c"),
        "c": ("look:1-2", "b"),
    }


def test_keys_across_splits_are_found() -> None:
    members = [
        Member("a", ("x", "y"), "train"),
        Member("c", ("x",), "test"),
        Member("b", ("x", "z"), "test"),
        Member("d", ("y", "z")),
    ]
    assert keys_across_splits(members) == {"x": {"test": ["b", "c"], "train": ["a"]}}
    assert keys_across_splits(members[:1]) == {}


@st.composite
def members_with_classes(draw: st.DrawFn) -> list[Member]:
    """Draw images of up to four classes, some of them rare, in one group per author."""
    rng = random.Random(draw(st.integers(0, 10_000)))
    authors = draw(st.integers(1, 400))
    members = []
    for number in range(draw(st.integers(1, 400))):
        odds = {"boat": 0.6, "car": 0.3, "kayak": 0.05, "gondola": 0.01}
        classes = tuple(name for name, odd in odds.items() if rng.random() < odd)
        author = int(rng.paretovariate(1.2)) if rng.random() < 0.5 else rng.randrange(authors)
        members.append(Member(f"{number:04x}", (f"author:{author}",), classes=classes))
    return members


@settings(max_examples=60, deadline=None)
@given(members_with_classes(), RATIO_TABLES, st.integers(0, 5))
def test_the_first_shares_are_exact_to_within_one_group(
    members: list[Member], ratios: dict[str, float], seed: int
) -> None:
    done = assign(members, ratios, seed)
    largest = max(Counter(done.group_by_id.values()).values())
    have = Counter(done.split_by_id.values())
    assert sum(have.values()) == len(members)
    for name, share in ratios.items():
        assert abs(have[name] - share * len(members)) <= largest


def class_counts(members: list[Member], result: Assignment) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for member in members:
        for name in member.classes or ("negative",):
            counts[name][result.split_by_id[member.image_id]] += 1
    return counts


@pytest.mark.parametrize("seed", range(6))
def test_every_class_has_its_share_in_every_split(seed: int) -> None:
    rng = random.Random(seed)
    odds = {"boat": 0.5, "car": 0.2, "kayak": 0.02, "gondola": 0.005}
    members = [
        Member(f"{n:04x}", (), classes=tuple(c for c, odd in odds.items() if rng.random() < odd))
        for n in range(4000)
    ]
    done = assign(members, RATIOS, seed)
    assert Counter(done.split_by_id.values()) == {"train": 3200, "valid": 400, "test": 400}
    for name, counted in class_counts(members, done).items():
        total = sum(counted.values())
        for split, share in RATIOS.items():
            # Rare classes are exact; frequent ones compensate for images of several classes.
            assert abs(counted[split] - share * total) <= 1 + 0.01 * total, (name, split)


@pytest.mark.parametrize("seed", range(6))
def test_every_class_has_nearly_its_share_although_authors_stay_together(seed: int) -> None:
    rng = random.Random(seed)
    odds = {"boat": 0.5, "car": 0.2, "kayak": 0.03}
    members = [
        Member(
            f"{n:04x}",
            (f"author:{int(rng.paretovariate(0.8))}",) if rng.random() < 0.3 else (),
            classes=tuple(c for c, odd in odds.items() if rng.random() < odd),
        )
        for n in range(4000)
    ]
    done = assign(members, RATIOS, seed)
    largest = max(Counter(done.group_by_id.values()).values())
    assert largest > 100
    for counted in class_counts(members, done).values():
        total = sum(counted.values())
        for split, share in RATIOS.items():
            assert abs(counted[split] - share * total) <= 0.02 * total + 1


def test_a_class_missing_from_a_split_gets_its_share_as_the_dataset_grows() -> None:
    assigned = [
        Member(f"a{n:03}", (), "valid" if n < 10 else "train", classes=("boat",))
        for n in range(100)
    ]
    assigned += [Member(f"k{n:02}", (), "train", classes=("kayak",)) for n in range(9)]
    new = [Member(f"n{n:03}", (), classes=("kayak",) if n < 11 else ("boat",)) for n in range(91)]
    done = assign([*assigned, *new], RATIOS, 42)
    counted = class_counts([*assigned, *new], done)
    assert counted["kayak"] == {"train": 16, "valid": 2, "test": 2}
    assert abs(counted["boat"]["test"] - 18) <= 1


def test_a_group_larger_than_a_small_split_goes_to_the_largest_one() -> None:
    members = [Member(f"a{n:03}", ("author:A",)) for n in range(60)]
    members += [Member(f"b{n:03}", ()) for n in range(40)]
    done = assign(members, RATIOS, 42)
    assert {done.split_by_id[f"a{n:03}"] for n in range(60)} == {"train"}
    assert Counter(done.split_by_id.values()) == {"train": 80, "valid": 10, "test": 10}


def test_new_images_go_to_the_splits_with_the_largest_deficits() -> None:
    assigned = [Member(f"a{n:02}", (), "train") for n in range(90)]
    new = [Member(f"b{n:02}", ()) for n in range(10)]
    done = assign([*assigned, *new], RATIOS, 42)
    assert Counter(done.split_by_id[m.image_id] for m in new) == {"valid": 5, "test": 5}


def test_images_that_are_not_counted_do_not_affect_the_ratios() -> None:
    assigned = [Member(f"a{n:02}", (), "test", is_counted=False) for n in range(50)]
    new = [Member(f"b{n:02}", ()) for n in range(10)]
    done = assign([*assigned, *new], RATIOS, 42)
    have = Counter(done.split_by_id[m.image_id] for m in new)
    assert have == {"train": 8, "valid": 1, "test": 1}


def test_no_images_result_in_an_empty_assignment() -> None:
    assert assign([], RATIOS, 42) == Assignment({}, {}, {}, {})
