"""The fixture of the crash tests; `crash_cluster` is beside this file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from crash_cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Yield a cluster over a SQLite file; its processes end with the test."""
    made = Cluster(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path)
    yield made
    made.close()
