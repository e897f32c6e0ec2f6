"""The pytest plugin: fixtures that anyone who installs Fairway can use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairway.testing.clock import FakeClock


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """Yield a `FakeClock`."""
    yield FakeClock()
