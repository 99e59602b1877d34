"""Random kills over all commands; ``benchmarks/chaos.py`` does hundreds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chaos import chaos

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 30
SEED = 16


@pytest.mark.slow
def test_a_command_that_is_killed_and_repeated_leaves_no_trace_of_the_kill(
    tmp_path: Path, darknet: Path, tiny_cfg: Path
) -> None:
    with chaos(tmp_path / "chaos", darknet=darknet, network=tiny_cfg, seed=SEED) as victim:
        rounds = list(victim.rounds(KILLS))
    assert [done for done in rounds if done.problems] == []
