"""What the tests of training logs share."""

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
    """The logs of real trainings by their names."""
    paths = [*sorted((real / "logs").glob("*.log")), real / "seed_project" / "train_log.txt"]
    return {path.stem: path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def assert_same() -> Callable[[TrainLog, TrainLog], None]:
    """Fail where two logs do not say the same to the last bit."""

    def check(one: TrainLog, other: TrainLog) -> None:
        assert one.summary == other.summary
        for name in TABLES:
            pd.testing.assert_frame_equal(
                getattr(one, name), getattr(other, name), check_exact=True
            )
        pd.testing.assert_frame_equal(one.metrics(), other.metrics(), check_exact=True)

    return check


@pytest.fixture(scope="session")
def assert_read_alike(
    assert_same: Callable[[TrainLog, TrainLog], None],
) -> Callable[[bytes], None]:
    """Fail where lines that are read at once do not say what they say one by one."""

    def check(data: bytes) -> None:
        logs = []
        for at_once_from_bytes in (0, 1 << 60):
            parser = LogParser(at_once_from_bytes=at_once_from_bytes)
            parser.take(data)
            parser.close()
            logs.append(parser.log())
        assert_same(*logs)

    return check
