"""Fixtures and conformance suites, for users of the library and for its own tests."""

from fairway.testing.clock import FakeClock

__all__ = ["FakeClock"]
