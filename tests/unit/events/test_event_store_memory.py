"""The memory store keeps the contract of event stores, and its own bound."""

import pytest

from fairway.events.errors import EventError
from fairway.events.event import Event
from fairway.events.stores.memory import MemoryEventStore
from fairway.testing.event_stores import EventStoreConformance


class TestMemoryEventStore(EventStoreConformance):
    @pytest.fixture
    def store(self, fake_clock):
        return MemoryEventStore(clock=fake_clock)


async def test_the_oldest_go_beyond_the_bound_unless_a_group_needs_them() -> None:
    store = MemoryEventStore(max_events=10)
    for _ in range(100):
        await store.append([("a", Event("t"))])
    assert 10 <= len(await store.read(0, 1000)) <= 13
    await store.join("g", ">", await store.last() - 2)
    for _ in range(80):
        await store.append([("a", Event("t"))])
    assert len(await store.claim("g", 1000, 1.0, 3)) == 82


async def test_a_group_that_nobody_reads_does_not_fill_the_memory(caplog) -> None:
    store = MemoryEventStore(max_events=10)
    await store.join("g", ">", 0)
    for _ in range(1000):
        await store.append([("a", Event("t", partition_key="k"))])
    assert 70 <= len(await store.read(0, 10_000)) <= 101
    assert "groups have not read them" in caplog.text
    [claimed] = await store.claim("g", 1000, 30.0, 3)
    assert claimed.stored.offset >= 900


def test_a_bound_below_one_is_an_error() -> None:
    with pytest.raises(EventError, match="max_events"):
        MemoryEventStore(max_events=0)


def test_repr() -> None:
    assert repr(MemoryEventStore()) == "<MemoryEventStore [0 events, 0 groups, last 0]>"
