from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.demo_data.writer import write_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.demo_data.writer import DemoMirror

SEED = 5
SCENES = 32


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> DemoMirror:
    """Return a small mirror; tests must not change it."""
    folder: Path = tmp_path_factory.mktemp("demo") / "mirror"
    return write_mirror(folder, base_url="http://127.0.0.1:1", seed=SEED, scenes=SCENES)
