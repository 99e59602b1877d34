"""Fixtures for the tests of training logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oiyolo.trainlog.line_templates import RegionLines
from oiyolo.trainlog.parse import LogParser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.trainlog.parse import TrainLog

TABLES = ("iterations", "regions", "maps", "events", "runs")


@pytest.fixture(scope="session")
def real_logs(real: Path) -> dict[str, bytes]:
    """Logs of real trainings by name."""
    paths = [*sorted((real / "logs").glob("*.log")), real / "seed_project" / "train_log.txt"]
    return {path.stem: path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def assert_same_tables() -> Callable[[TrainLog, TrainLog], None]:
    """Check that two logs have identical tables, to the last bit."""

    def check(first: TrainLog, second: TrainLog) -> None:
        assert first.summary == second.summary
        for name in TABLES:
            pd.testing.assert_frame_equal(
                getattr(first, name), getattr(second, name), check_exact=True
            )
        pd.testing.assert_frame_equal(first.metrics(), second.metrics(), check_exact=True)

    return check


def parse_in_pieces(data: bytes, size: int) -> TrainLog:
    parser = LogParser()
    for start in range(0, len(data), size):
        parser.feed_bytes(data[start : start + size])
    parser.close()
    return parser.log()


@pytest.fixture(scope="session")
def assert_template_reading_matches(
    assert_same_tables: Callable[[TrainLog, TrainLog], None],
) -> Callable[[bytes], None]:
    """Check that reading lines by their templates gives the same tables as matching each line."""

    def check(data: bytes) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RegionLines, "learn", lambda *_: None)
            expected = parse_in_pieces(data, 1 << 18)
        for size in (1 << 18, 3000):
            assert_same_tables(parse_in_pieces(data, size), expected)

    return check
