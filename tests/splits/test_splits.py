"""Splits: deterministic, whole groups, for ever."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.splits.assign import Assignment, assign
from oiyolo.splits.groups import Member, straddling

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
    assert done.left_out == {}
    assert done.split_by_id.keys() == {member.image_id for member in members}
    assert set(done.split_by_id.values()) <= {name for name, share in ratios.items() if share}
    assert all(len(found) == 1 for found in splits_by_key(members, done).values())
    split_of_group: dict[str, set[str]] = defaultdict(set)
    for image_id, group in done.group_by_id.items():
        split_of_group[group].add(done.split_by_id[image_id])
        assert group <= image_id
    assert all(len(found) == 1 for found in split_of_group.values())


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
def test_over_twenty_refreshes_nobody_moves_and_no_key_straddles(seed: int) -> None:
    rng = random.Random(seed)
    members: dict[str, Member] = {}
    split_by_id: dict[str, str] = {}
    withdrawn: set[str] = set()
    for _ in range(20):
        for _ in range(rng.randrange(8)):
            image_id = f"{rng.randrange(1 << 32):08x}"
            keys = (f"author {rng.randrange(25)}", f"md5 {rng.randrange(400)}")
            classes = tuple(name for name in "xyz" if rng.random() < 0.4)
            members[image_id] = Member(image_id, keys[: rng.randrange(3)], classes=classes)
        # Some go, some come back; an image without a split that goes is not known any more.
        withdrawn = {
            i for i in members if rng.random() < 0.3 and (i in split_by_id or i in withdrawn)
        }
        given_ = [
            Member(m.image_id, m.keys, split_by_id.get(i), counts=i not in withdrawn,
                   classes=m.classes)
            for i, m in members.items()
            if i in split_by_id or i not in withdrawn
        ]  # fmt: skip
        rng.shuffle(given_)
        done = assign(given_, RATIOS, 42)
        assert {i: done.split_by_id[i] for i in split_by_id} == split_by_id
        assert not split_by_id.keys() & done.left_out.keys()
        assert done.split_by_id.keys() | done.left_out.keys() == {m.image_id for m in given_}
        assert not done.split_by_id.keys() & done.left_out.keys()
        placed = [Member(m.image_id, m.keys, done.split_by_id.get(m.image_id)) for m in given_]
        assert straddling(placed) == {}
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
    assert done.left_out == {"c": {"test": "x", "train": "y"}}
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
    assert done.left_out == {}


def test_a_new_image_with_the_key_of_images_assigned_apart_is_left_out() -> None:
    known = [Member("a", ("x",), "test"), Member("b", ("x",), "train")]
    done = assign([*known, Member("c", ("x",)), Member("d", ("y", "x"))], RATIOS, 42)
    assert done.left_out == {i: {"test": "x", "train": "x"} for i in "cd"}


def test_what_binds_an_image_to_its_group_is_told() -> None:
    members = [
        Member("a", ("author:A",)),
        Member("b", ("look:1-2", "author:B")),
        Member("c", ("look:1-2", "author:A")),
        Member("d", ("author:D",)),
    ]
    done = assign(members, RATIOS, 42)
    assert done.group_by_id == {"a": "a", "b": "a", "c": "a", "d": "d"}
    assert done.bond_by_id == {
        "a": ("author:A", "c"),
        "b": ("look:1-2", "c"),
        "c": ("look:1-2", "b"),
    }


def test_keys_in_different_splits_are_found() -> None:
    members = [
        Member("a", ("x", "y"), "train"),
        Member("c", ("x",), "test"),
        Member("b", ("x", "z"), "test"),
        Member("d", ("y", "z")),
    ]
    assert straddling(members) == {"x": {"test": ["b", "c"], "train": ["a"]}}
    assert straddling(members[:1]) == {}


@st.composite
def shown_members(draw: st.DrawFn) -> list[Member]:
    """Images of up to four classes, some of them rare, in groups of an author each."""
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
@given(shown_members(), RATIO_TABLES, st.integers(0, 5))
def test_the_first_shares_are_exact_to_within_one_group(
    members: list[Member], ratios: dict[str, float], seed: int
) -> None:
    done = assign(members, ratios, seed)
    largest = max(Counter(done.group_by_id.values()).values())
    have = Counter(done.split_by_id.values())
    assert sum(have.values()) == len(members)
    for name, share in ratios.items():
        assert abs(have[name] - share * len(members)) <= largest


def class_counts(members: list[Member], done: Assignment) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for member in members:
        for name in member.classes or ("negative",):
            found[name][done.split_by_id[member.image_id]] += 1
    return found


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
            # Rare classes to the image; frequent ones make up for what others bring along.
            assert abs(counted[split] - share * total) <= 1 + 0.01 * total, (name, split)


@pytest.mark.parametrize("seed", range(6))
def test_every_class_has_nearly_its_share_though_authors_stay_together(seed: int) -> None:
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


def test_a_class_that_is_missing_in_a_split_gets_its_share_there_as_the_dataset_grows() -> None:
    known = [
        Member(f"a{n:03}", (), "valid" if n < 10 else "train", classes=("boat",))
        for n in range(100)
    ]
    known += [Member(f"k{n:02}", (), "train", classes=("kayak",)) for n in range(9)]
    new = [Member(f"n{n:03}", (), classes=("kayak",) if n < 11 else ("boat",)) for n in range(91)]
    done = assign([*known, *new], RATIOS, 42)
    counted = class_counts([*known, *new], done)
    assert counted["kayak"] == {"train": 16, "valid": 2, "test": 2}
    assert abs(counted["boat"]["test"] - 18) <= 1


def test_a_group_that_is_larger_than_a_split_goes_to_the_largest_one() -> None:
    members = [Member(f"a{n:03}", ("author:A",)) for n in range(60)]
    members += [Member(f"b{n:03}", ()) for n in range(40)]
    done = assign(members, RATIOS, 42)
    assert {done.split_by_id[f"a{n:03}"] for n in range(60)} == {"train"}
    assert Counter(done.split_by_id.values()) == {"train": 80, "valid": 10, "test": 10}


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
    assert assign([], RATIOS, 42) == Assignment({}, {}, {}, {})
