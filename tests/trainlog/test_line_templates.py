"""Reading lines by their templates gives the same tables as matching each line."""

from __future__ import annotations

import itertools
import random
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.trainlog import line_reader
from oiyolo.trainlog.dialects import ITERATION_START, LINE_FORMATS, REMARKS
from oiyolo.trainlog.line_matcher import (
    match_parts,
    strip_terminal_codes,
    stripped_positions,
    survey,
)
from oiyolo.trainlog.line_templates import LOADED, OTHER, RegionLines
from oiyolo.trainlog.parse import parse_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.trainlog.line_matcher import Part

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
    " Last accuracy mAP@0.50 = 40.00 %, best = 40.00 % \x1b[H\x1b[J300/300: loss=0.6 best=1.00\x07",
    "1, 0.128: 6.998436, 6.999844 avg, 0.099750 rate, 0.388474 seconds, 128 images",
    "1, 0.128: 7.0, 4.473723 avg, 0.099750 rate, 0.389 seconds, 128 images, 12.345678 hours left",
    (
        "Detection Avg IOU: 0.203333, Pos Cat: 0.4, All Cat: 0.05, Pos Obj: 0.1, "
        "Any Obj: 0.01, count: 7"
    ),
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


STRAY = ("\x00", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\xa0", "\u2028", "\r", "\t")


def randomize_digits(line: str, rng: random.Random) -> str:
    return re.sub(r"\d", lambda _: str(rng.randrange(10)), line)


def test_template_reading_matches_on_every_real_log(
    real_logs: dict[str, bytes], assert_template_reading_matches: Callable[[bytes], None]
) -> None:
    for data in real_logs.values():
        assert_template_reading_matches(data)
    assert_template_reading_matches(b"".join(real_logs.values()))


@pytest.mark.parametrize("line", LINES)
def test_template_reading_matches_for_any_digits(
    line: str, assert_template_reading_matches: Callable[[bytes], None]
) -> None:
    rng = random.Random(1)
    lines = [randomize_digits(line, rng) for _ in range(40)] + [line] * 3
    single_changes = [
        line[: match.start()] + digit + line[match.end() :]
        for match in re.finditer(r"\d", line)
        for digit in "059"
    ]
    end = "\n1: 1.0, 1.0 avg, 0.1 rate, 0.1 seconds, 8 images\n"
    assert_template_reading_matches("\n".join([line, *lines, *single_changes, end]).encode())


def test_plain_lines_are_read_by_their_templates() -> None:
    # Otherwise the tests in this module would not compare two ways of reading.
    region_lines = RegionLines()
    for line in LINES:
        region_lines.learn(line.encode(), match_parts(line.encode()))
    kinds = list(region_lines.kinds.values())
    assert sum(kind >= 0 for kind in kinds) == 9
    assert (kinds.count(OTHER), kinds.count(LOADED)) == (3, 1)
    assert len(region_lines.iterations) == 8
    assert len(region_lines.last_maps) == 1


def test_no_expression_distinguishes_digits() -> None:
    patterns = [line_format.pattern for _, line_format in LINE_FORMATS]
    patterns += [pattern for _, _, pattern in REMARKS] + [ITERATION_START]
    for pattern in patterns:
        without_counts = re.sub(r"\{\d+(?:,\d*)?\}|\(\?P<\w+>", "", pattern.pattern)
        assert re.findall(r"\d", without_counts) == []


@pytest.mark.parametrize("kind", ["error", "warning", "fragment"])
def test_every_text_that_a_pattern_finds_has_one_of_its_markers(kind: str) -> None:
    (remark,) = (remark for remark in REMARKS if remark.kind == kind)

    @given(st.from_regex(remark.pattern))
    def check(text: str) -> None:
        assert any(marker in text for marker in remark.markers)

    check()


@pytest.mark.parametrize("stray", STRAY)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_stray_character_does_not_lose_region_lines(
    stray: str, end: str, assert_template_reading_matches: Callable[[bytes], None]
) -> None:
    first, second = (
        "Region 16 Avg IOU: 0.5, Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  "
        f"count:{space}{count}\n"
        for space, count in ((" ", 3), (" ", 9))
    )
    iteration = "{n}: 1.0, 1.0 avg, 0.1 rate, 0.1 seconds, 8 images\n"
    text = "".join(
        first.replace("0.5,", f"0.{n % 9}5,", 1) * 2
        + second.replace("count: ", f"count:{stray} " if n % 7 == 0 else f"count: {stray}")
        + iteration.format(n=n)
        for n in range(1, 120)
    )
    data = text.removesuffix("\n").encode() + end.encode()
    assert len(data) > 1 << 15
    assert_template_reading_matches(data)


@pytest.mark.parametrize("stray", ["\x00", "\x1c"])
def test_a_stray_byte_after_the_last_count_keeps_the_ious(stray: str) -> None:
    scores = "Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  "
    iteration = "{}: 1.0, 1.0 avg, 0.1 rate, 0.1 seconds, 8 images\n"
    text = (
        "Loaded: 0.000034 seconds\n" * 2000
        + f"Region 16 Avg IOU: 0.9, {scores}count: 3\n" * 2
        + iteration.format(1)
        + f"Region 16 Avg IOU: 0.8, {scores}count: 3\n" * 2
        + f"Region 16 Avg IOU: 0.5, {scores}count:{stray}1\n"
        + iteration.format(2)
    )
    ious = parse_log(text).iterations["iou"].tolist()
    assert ious == pytest.approx([0.9, (6 * 0.8 + 0.5) / 7])


def test_numbers_equal_those_of_float() -> None:
    rng = random.Random(3)
    texts = [
        rng.choice(("", "-")) + f"{rng.randrange(10**whole)}.{rng.randrange(10**part):0{part}}"
        for whole, part in itertools.product(range(1, 9), range(1, 8))
        for _ in range(20)
    ]
    log = parse_log(
        "".join(
            f"Region 7 Avg IOU: 0.5, Class: {text}, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  "
            "count: 3\n"
            for text in texts
        )
    )
    np.testing.assert_array_equal(log.regions["class_score"], np.array(list(map(float, texts))))


@given(text=st.text(alphabet="[]m^G\x07\x1b;0123ab\x00 \\?", max_size=60))
def test_stripped_positions_point_to_the_kept_characters(text: str) -> None:
    stripped = strip_terminal_codes(text)
    positions = stripped_positions(text)
    assert len(positions) == len(stripped)
    kept = [text[position] for position in positions]
    assert all(b in {a, " "} for a, b in zip(kept, stripped, strict=True))


def damage_line(line: str, start: int, length: int, rng: random.Random) -> str:
    """Return a line with other digits, with a stray character or as a part of itself."""
    chance = rng.random()
    if chance < 0.6:
        return randomize_digits(line, rng)
    if chance < 0.8:
        at = rng.choice((start, len(line) - 1, line.find("count:") + 6))
        return line[:at] + rng.choice(STRAY) + line[at + rng.randrange(2) :]
    return line[start // 4 :][:length]


PIECES = st.one_of(
    st.sampled_from([*(f"{line}\n" for line in LINES), "\r", "\r\n", "\n", "\x1b[", *STRAY]),
    st.text(max_size=20),
)


@given(
    pieces=st.lists(
        st.tuples(PIECES, st.integers(0, 150), st.integers(0, 400), st.integers(1, 6)), max_size=25
    ),
    seed=st.integers(0, 1 << 16),
)
@settings(deadline=None, max_examples=30)
def test_template_reading_matches_for_any_mixture_of_lines(
    pieces: list[tuple[str, int, int, int]],
    seed: int,
    assert_template_reading_matches: Callable[[bytes], None],
) -> None:
    rng = random.Random(seed)
    text = "".join(
        damage_line(piece, start, length, rng)
        for piece, start, length, times in pieces
        for _ in range(times)
    )
    assert_template_reading_matches(text.encode(errors="replace"))


def damage_logs(logs: list[bytes], rng: random.Random) -> bytes:
    """Return spliced pieces of logs, with bytes changed, deleted, inserted and repeated."""
    data = bytearray()
    for _ in range(rng.randrange(1, 6)):
        log = rng.choice(logs)
        start = rng.randrange(len(log))
        data += log[start : start + rng.randrange(12_000)]
        data += rng.choice((b"", b"\n", b"\r\n", rng.randbytes(4)))
    for _ in range(rng.choice((0, 3, 60))):
        at = rng.randrange(len(data) + 1)
        change = rng.randrange(4)
        if change == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif change == 1:
            del data[at : at + rng.randrange(60)]
        elif change == 2:
            data[at:at] = rng.choice((b"\n", b"\r", b"0", b"Saving weights to x\n", b"1.#INF"))
        else:
            data[at:at] = data[at : at + rng.randrange(400)]
    return bytes(data)


@pytest.mark.parametrize(
    "rounds", [10, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_template_reading_matches_on_damaged_logs(
    rounds: int,
    real_logs: dict[str, bytes],
    assert_template_reading_matches: Callable[[bytes], None],
) -> None:
    rng = random.Random(rounds)
    logs = list(real_logs.values())
    for _ in range(rounds):
        assert_template_reading_matches(damage_logs(logs, rng))


RAW_PIECES = [
    *(b" avg, ", b"av\x1b[0mg, ", b"Learning Rate: 0.1", b"seconds\x00,", b"\x00avg", b"filters"),
    *(b"416 x 416", b" 12 ", b"\x1b[1;37m", b"\x1b]2;x", b"\x07", b"[31m", b"^[[1m", b"\\u001b[0m"),
    *(b"\r", b"   ", b"\xc2\xa0", b"\xe2\x82", b"\xff\x00", b"xyz", LINES[4].encode()),
]


def test_a_survey_finds_every_line_that_says_something() -> None:
    rng = random.Random(7)
    lines = [b"".join(rng.choices(RAW_PIECES, k=rng.randrange(5))) for _ in range(3000)]
    is_blank, may_say = survey(lines)
    parts = [match_parts(line) for line in lines]
    says = np.array([any(part.matches or part.remark for part in p) for p in parts])
    assert not (says & ~may_say).any()
    assert is_blank.tolist() == [not p for p in parts]
    assert 0 < says.sum() <= may_say.sum() < len(lines)


def test_junk_is_not_matched_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    matched: list[bytes] = []

    def match(line: bytes) -> list[Part]:
        matched.append(line)
        return match_parts(line)

    monkeypatch.setattr(line_reader, "match_parts", match)
    junk = random.Random(7).randbytes(1 << 17).replace(b"\r", b"\n")
    log = parse_log(junk + b"\n" + LINES[4].encode() + b"\n")
    assert log.iterations["iteration"].tolist() == [1]
    assert log.summary.lines == junk.count(b"\n") + 2
    assert len(matched) < log.summary.lines / 5
