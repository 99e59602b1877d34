"""Lines that are too long to be read at once: nothing is lost or invented where they are cut."""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.trainlog.line_matcher import MAX_PART_BYTES
from oiyolo.trainlog.parse import LogParser, parse_log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oiyolo.trainlog.tables import TrainLog

REGION: Final = (
    "Region 16 Avg IOU: 0.25, Class: 0.5, Obj: 0.5, No Obj: 0.1, .5R: 0.0, .75R: 0.0,  count: 3"
)
RECORDS: Final = {
    "pjreddie": REGION + "\\n{n}: 1.5, 1.25 avg, 0.001 rate, 1.0 seconds, {images} images",
    "alexeyab": (
        " {n}: 1.5, 1.25 avg loss, 0.001 rate, 1.0 seconds, {images} images, 0.5 hours left"
    ),
    "hank": (
        "\x1b]2;{n}/9: loss=2.3 time=unknown\x07\x1b[1;37m{n}\x1b[0m: loss=\x1b[1;36m1.5\x1b[0m, "
        "avg loss=\x1b[0;36m1.25\x1b[0m, mAP=100, rate=0.001, load 8=2 milliseconds, train=131.7 "
        "milliseconds, {images} images, time remaining=3 minutes"
    ),
    "classifier": "{n}, 0.5: 1.5, 1.25 avg, 0.001 rate, 1.0 seconds, {images} images",
}
BETWEEN: Final = ("\\n", " ", '\\n", "', "\t", "\\r\\n", " \u8239\u8239 ", "'", " \x1b[0m")


def feed(pieces: Iterable[bytes]) -> TrainLog:
    parser = LogParser()
    for piece in pieces:
        parser.feed_bytes(piece)
    parser.close()
    return parser.log()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def one_line(form: str, n: int, *, before: str = "", between: str = "\\n") -> bytes:
    records = (RECORDS[form].format(n=i, images=i * 64) for i in range(1, n + 1))
    return ('{"text": "' + before + " " + between.join(records) + '"}').encode()


@pytest.mark.parametrize("form", RECORDS)
def test_a_cut_loses_and_invents_nothing_wherever_it_is(form: str) -> None:
    record_bytes = len(RECORDS[form])
    n = 5 * MAX_PART_BYTES // 4 // record_bytes
    for padding in range(0, 2 * record_bytes, 17):
        log = parse_log(one_line(form, n, before="p" * padding))
        assert log.iterations["iteration"].tolist() == list(range(1, n + 1)), padding
        assert log.summary.regions == (n if form == "pjreddie" else 0)
        assert (log.summary.runs, log.summary.cut, log.summary.cut_lines) == (1, 1, (1,))


@settings(max_examples=12, deadline=None)
@given(
    form=st.sampled_from(sorted(RECORDS)),
    between=st.sampled_from(BETWEEN),
    junk=st.lists(
        st.tuples(st.sampled_from("p9 x.\r\x1b\u8239"), st.integers(0, 90_000)), max_size=3
    ),
    size=st.sampled_from([997, 65_536, 70_000, 1 << 18]),
    seed=st.integers(0, 99),
)
def test_any_line_gives_the_same_iterations_in_any_pieces(
    form: str, between: str, junk: list[tuple[str, int]], size: int, seed: int
) -> None:
    rng = random.Random(seed)
    text = one_line(form, 700, between=between).decode()
    for character, length in junk:
        at = text.index(" ", rng.randrange(len(text) // 2))
        at = text.rindex(" images", 0, at + 400) + len(" images")
        text = f"{text[:at]} {character * length} {text[at:]}"
    line = text.encode()
    whole = feed([line + b"\n"])
    in_pieces = feed(cut(line + b"\n", size))
    assert whole.iterations.equals(in_pieces.iterations)
    assert whole.summary == in_pieces.summary
    assert whole.iterations["iteration"].tolist() == list(range(1, 701))
    assert whole.summary.lines == 1


def test_a_number_in_the_middle_of_a_word_begins_no_record_after_a_cut() -> None:
    torn = "x" * 9000 + "a28: 1.5, 1.25 avg, 0.001 rate, 1.0 seconds, 64 images "
    assert len(parse_log(torn * 40)) == 0


def test_progress_within_a_line_is_not_skipped() -> None:
    progress = "".join(f"\r rank = {n} of ranks = 9000 " for n in range(9000))
    text = (
        f"{progress}\rSaving weights to a.weights\r{'9' * 150_000}\rSaving weights to b.weights\n"
    )
    for size in (10_000, len(text)):
        log = feed(cut(text.encode(), size))
        assert log.events["kind"].tolist() == ["saved", "saved"]
        assert (log.summary.cut, log.summary.lines) == (1, 1)


def test_memory_stays_bounded_in_a_line_without_end() -> None:
    block = b"p" * (1 << 18)
    parser = LogParser()
    parser.feed_bytes(block)
    tracemalloc.start()
    try:
        for _ in range(40):
            parser.feed_bytes(block)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 * len(block)
    assert parser.log().summary.cut == 1
