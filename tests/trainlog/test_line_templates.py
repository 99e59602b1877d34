"""Lines that are read at once say what they say one by one, whatever stands around them."""

from __future__ import annotations

import itertools
import random
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.trainlog.line_matcher import places_without_codes, without_codes
from oiyolo.trainlog.line_templates import COLUMNS, Kind, Shapes

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = [
    "Region 16 Avg IOU: 0.25, Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  count: 3",
    "Region 16 Avg IOU: -nan, Class: -nan, Obj: nan, No Obj: 0.3, .5R: -nan, .75R: inf,  count: 0",
    "Region Avg IOU: 0.25, Class: 0.5, Obj: 0.5, No Obj: 0.1, Avg Recall: 0.2,  count: 12",
    (
        "Region 30 Avg IOU: 0.4, Class: 0.5, Obj: 0.5, No Obj: 0.1, .5R: 0.4, .75R: 0.1,  "
        "count: 7, class_loss = 1.20, iou_loss = -0.30, total_loss = 1.50"
    ),
    "1: 8.500000, 12345678.500000 avg, 0.000001 rate, 0.500000 seconds, 8 images",
    "12: 123456789012.125, -8.5 avg, 0.000001 rate, 0.500000 seconds, -64 images",
    "13: 7002178813310485729616039835074560.000000, -nan avg, 1e-06 rate, .5 seconds, 8 images",
    "14: -1.#IND00, 1.#INF avg, 0.001 rate, 0.5 seconds, 8 images\r",
    (
        "v3 (giou loss, Normalizer: (iou: 0.75, obj: 1.00, cls: 1.00) Region 30 Avg (IOU: "
        "0.250000), count: 4, class_loss = 2.5, iou_loss = 0.5, total_loss = 3.000000 "
    ),
    (
        "v3 (mse loss, Normalizer: (iou: 0.75, cls: 1.00) Region 16 Avg (IOU: 0.6, GIOU: "
        "-0.574251), Class: 0.5, Obj: 0.5, No Obj: 0.5, .5R: 1.0, .75R: 0.0, count: 5, "
        "class_loss = 1.5"
    ),
    (
        "v3 (iou loss, Normalizer: (iou: 0.07, obj: 1.00, cls: 1.00) Region 139 Avg (IOU: "
        "0.000000), count: 1, total_loss = 4.5"
    ),
    (
        "v3 mse loss, Normalizer: (iou: 0.75, obj: 1.00, cls: 1.00) Region 10 Avg (IOU: "
        "0.133612), count: 11, class_loss: 25.4, iou_loss: 12.6, total_loss: 38.0"
    ),
    (
        " 300: 0.604102, 0.521056 avg loss, 0.000020 rate, 0.125164 seconds, 2400 images, "
        "0.004530 hours left"
    ),
    (
        "\x1b]2;29/30: loss=2.3 time=unknown\x07\x1b[1;37m29\x1b[0m: "
        "loss=\x1b[1;36m2.326\x1b[0m, avg loss=\x1b[0;36m7.252\x1b[0m, "
        "last=\x1b[0m46.79%\x1b[0m, best=\x1b[0mnone\x1b[0m, mAP=100, rate=0.00002000, "
        "load 8=22.2 milliseconds, train=131.7 milliseconds, 232 images, time remaining=3 "
        "minutes"
    ),
    "5989: loss=0.444, avg loss=0.329, rate=0.000026, 64.424 milliseconds, 383296 images",
    " (next mAP calculation at 100 iterations) \x1b[H\x1b[J300/300: loss=0.6 map=1.00\x07",
    " total_bbox = 11, rewritten_bbox = 0.000000 % ",
    " mean average precision (mAP@0.50) = 0.937500, or 93.75 % ",
    "Loaded: 0.000034 seconds",
    "Loaded: 0.043975 seconds - performance bottleneck on CPU or Disk HDD/SSD",
    "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005",
    "layer     filters    size              input                output",
    "Saving weights to backup/tm_100.weights",
    "Resizing",
    "448",
    " 544 x 544 ",
    "187: 0.774826, 1.089855 avg, 0.05Saving weights to backup/tm.backup",
    "0605 seconds, 2400 images",
    "Region 10 Avg IOU: 0.1",
    "\x1b[31m",
    "",
    "caf\u00e9 1: 2.0, 2.0 avg, 0.1 rate, 0.1 seconds, 8 images",
    "\r rank = 0 of ranks = 31 \r rank = 30 of ranks = 31 \rclass_id = 0, name = Boat, ap = 1.00%",
]


def other_digits(line: str, chance: random.Random) -> str:
    return re.sub(r"\d", lambda _: str(chance.randrange(10)), line)


def test_every_real_log(
    real_logs: dict[str, bytes], assert_read_alike: Callable[[bytes], None]
) -> None:
    for data in real_logs.values():
        assert_read_alike(data)
    assert_read_alike(b"".join(real_logs.values()))


@pytest.mark.parametrize("line", LINES)
def test_a_line_with_any_digits_in_their_places(
    line: str, assert_read_alike: Callable[[bytes], None]
) -> None:
    chance = random.Random(1)
    lines = [other_digits(line, chance) for _ in range(40)] + [line] * 3
    one_digit = [
        line[: match.start()] + digit + line[match.end() :]
        for match in re.finditer(r"\d", line)
        for digit in "059"
    ]
    end = "\n1: 1.0, 1.0 avg, 0.1 rate, 0.1 seconds, 8 images\n"
    assert_read_alike("\n".join([line, *lines, *one_digit, end]).encode())


def test_plain_lines_do_not_take_the_slow_path() -> None:
    # Otherwise nothing here would compare two ways of reading.
    plain = {Kind.REGION: 0, Kind.ITERATION: 0, Kind.OTHER: 0}
    for line in LINES:
        kind = Kind(int(Shapes().scan(f"{line}\n".encode() * 3).kinds[0]))
        if kind in plain:
            plain[kind] += 1
    assert plain == {Kind.REGION: 8, Kind.ITERATION: 5, Kind.OTHER: 3}


def test_numbers_are_those_that_float_reads() -> None:
    chance = random.Random(3)
    texts = [
        chance.choice(("", "-"))
        + f"{chance.randrange(10**whole)}.{chance.randrange(10**part):0{part}}"
        for whole, part in itertools.product(range(1, 9), range(1, 8))
        for _ in range(20)
    ]
    block = "".join(f"1: {text}, 1.0 avg, 0.1 rate, 0.1 seconds, 8 images\n" for text in texts)
    found = Shapes().scan(block.encode())
    taken = found.kinds == Kind.ITERATION
    assert taken.mean() > 0.8
    loss = found.values[COLUMNS[Kind.ITERATION].index("loss")]
    np.testing.assert_array_equal(loss[taken], np.array(list(map(float, texts)))[taken])


@given(text=st.text(alphabet="[]m^G\x07\x1b;0123ab\x00 \\?", max_size=60))
def test_places_are_those_of_what_is_left(text: str) -> None:
    left = without_codes(text)
    places = places_without_codes(text)
    assert len(places) == len(left)
    same = [text[place] for place in places]
    assert all(b in {a, " "} for a, b in zip(same, left, strict=True))


PIECES = st.one_of(
    st.sampled_from([*(f"{line}\n" for line in LINES), "\r", "\n", "\x1b["]),
    st.text(max_size=20),
)


@given(
    pieces=st.lists(
        st.tuples(PIECES, st.integers(0, 150), st.integers(0, 400), st.integers(1, 6)), max_size=25
    ),
    seed=st.integers(0, 1 << 16),
)
@settings(deadline=None)
def test_any_mixture(
    pieces: list[tuple[str, int, int, int]],
    seed: int,
    assert_read_alike: Callable[[bytes], None],
) -> None:
    chance = random.Random(seed)
    text = "".join(
        other_digits(piece, chance) if chance.random() < 0.7 else piece[start // 4 :][:length]
        for piece, start, length, times in pieces
        for _ in range(times)
    )
    assert_read_alike(text.encode(errors="replace"))


def damaged(logs: list[bytes], chance: random.Random) -> bytes:
    """Splice pieces of logs, with bytes changed, lost and doubled, and lines in another order."""
    data = bytearray()
    for _ in range(chance.randrange(1, 6)):
        log = chance.choice(logs)
        start = chance.randrange(len(log))
        data += log[start : start + chance.randrange(12_000)]
        data += chance.choice((b"", b"\n", b"\r\n", chance.randbytes(4)))
    for _ in range(chance.choice((0, 3, 60))):
        at = chance.randrange(len(data) + 1)
        way = chance.randrange(4)
        if way == 0:
            data[at : at + 1] = chance.randbytes(1)
        elif way == 1:
            del data[at : at + chance.randrange(60)]
        elif way == 2:
            data[at:at] = chance.choice((b"\n", b"\r", b"0", b"Saving weights to x\n", b"1.#INF"))
        else:
            data[at:at] = data[at : at + chance.randrange(400)]
    return bytes(data)


@pytest.mark.parametrize(
    "rounds", [30, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_damaged_logs(
    rounds: int, real_logs: dict[str, bytes], assert_read_alike: Callable[[bytes], None]
) -> None:
    chance = random.Random(rounds)
    logs = list(real_logs.values())
    for _ in range(rounds):
        assert_read_alike(damaged(logs, chance))
