"""The rows and fields located in a chunk agree with reading it record by record."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.rows import Rows, ValueFilter
from oiyolo.openimages.csvscan.window import MARGIN_BYTES


def rows_of(body: bytes) -> Rows:
    """Locate the rows of a text that is surrounded by bytes which must not affect the result."""
    margin = (b',"\n\rx' * MARGIN_BYTES)[:MARGIN_BYTES]
    text = bytearray(margin + body + margin)
    return Rows(text, MARGIN_BYTES, MARGIN_BYTES + len(body))


def read_records(body: bytes) -> list[record_reader.Record]:
    """Return all records that end in a text, up to the first with a misplaced quote."""
    records = []
    at = 0
    while at < len(body):
        record = record_reader.read_record(body, at)
        if record is None or record.fields is None:
            break
        records.append(record)
        at = record.stop
    return records


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(['"', ",", "\n", "\r\n", "a", "bcd" * 30, '""', ',"', '",'])))
def test_the_rows_agree_with_reading_record_by_record(pieces: list[str]) -> None:
    body = ("".join(pieces) + "\n").encode()
    rows = rows_of(body)
    expected = read_records(body)
    if not rows.quotes_are_regular:  # a quote inside an unquoted field
        assert b'"' in body
        return
    # An error after the last row is left to the next chunk.
    stops = [record.stop for record in expected]
    assert rows.size_bytes in {0, *stops}
    expected = expected[: len(rows.stops)]
    stops = stops[: len(rows.stops)]
    assert (rows.stops - MARGIN_BYTES).tolist() == stops
    assert (rows.starts - MARGIN_BYTES).tolist() == [0, *stops][:-1]
    assert rows.field_counts.tolist() == [len(record.fields or ()) for record in expected]
    assert rows.size_bytes == sum(stops[-1:])
    newlines = [body.count(b"\n", 0, stop) for stop in stops]
    assert rows.count_lines(rows.stops).tolist() == newlines


@settings(max_examples=150, deadline=None)
@given(
    table=st.lists(
        st.lists(st.text("ab9", max_size=90), min_size=9, max_size=9), min_size=1, max_size=20
    ),
    column=st.integers(0, 8),
    count=st.integers(0, 20),
)
def test_no_matching_row_is_missed(table: list[list[str]], column: int, count: int) -> None:
    rows = rows_of("".join(",".join(row) + "\r\n" for row in table).encode())
    assert rows.quotes_are_regular
    values = {row[column] for row in table[:count]}
    candidates = ValueFilter(values, column, 9).candidates(rows)
    matching = {n for n, row in enumerate(table) if row[column] in values}
    assert matching <= set(candidates.tolist())
