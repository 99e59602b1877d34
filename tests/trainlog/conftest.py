"""Fixtures for the tests of training logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

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


@pytest.fixture(scope="session")
def assert_block_reading_matches(
    assert_same_tables: Callable[[TrainLog, TrainLog], None],
) -> Callable[[bytes], None]:
    """Check that reading a log in blocks gives the same tables as reading it line by line."""

    def check(data: bytes) -> None:
        logs = []
        for block_threshold_bytes in (0, 1 << 60):
            parser = LogParser(block_threshold_bytes=block_threshold_bytes)
            parser.feed_bytes(data)
            parser.close()
            logs.append(parser.log())
        assert_same_tables(*logs)

    return check
