"""What every event store has to do; subclass `EventStoreConformance` and give it a `store` fixture.

Example:
    class TestMemory(EventStoreConformance):
        @pytest.fixture
        def store(self, fake_clock):
            return MemoryEventStore(clock=fake_clock)
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairway.events.errors import BusClosed, EventError, InvalidEvent, InvalidTopic, UnknownGroup
from fairway.events.event import Event
from fairway.events.store import EventStore, RetainedStore

_LEASE = 30.0
_TRIES = 3


def _event(number: int, key: str | None = None) -> Event:
    return Event("made", {"n": number}, id=f"id-{number}", partition_key=key)


class EventStoreConformance:
    """One suite for every `EventStore`; `elapse` moves the store's time, by default with a `FakeClock`."""

    @pytest.fixture
    def elapse(self, fake_clock: Any) -> Any:
        """Return an async function that lets seconds pass for the store."""
        return fake_clock.advance

    async def _fill(self, store: EventStore, count: int, topic: str = "a.b", key: str | None = None) -> list[int]:
        return await store.append([(topic, _event(number, key)) for number in range(1, count + 1)])

    async def _claim(self, store: EventStore, limit: int = 10) -> list[tuple[int, int]]:
        return [(item.stored.offset, item.fence) for item in await store.claim("g", limit, _LEASE, _TRIES)]

    async def test_offsets_ascend_and_reading_gives_what_was_appended(self, store: EventStore) -> None:
        """Append, last and read agree."""
        assert await store.last() == 0
        offsets = await self._fill(store, 3)
        assert offsets == sorted(set(offsets))
        assert await store.last() == offsets[-1]
        stored = await store.read(0, 10)
        assert [item.offset for item in stored] == offsets
        assert [(item.topic, item.event.data) for item in stored] == [("a.b", {"n": n}) for n in (1, 2, 3)]
        assert stored[0].event == Event("made", {"n": 1}, id="id-1", time=stored[0].event.time, partition_key=None)
        assert [item.offset for item in await store.read(offsets[0], 1)] == offsets[1:2]

    async def test_the_log_has_an_identity_that_stays(self, store: EventStore, elapse: Any) -> None:
        """It is known after `last`, and no event changes it."""
        await store.last()
        known = store.log_id
        assert known
        await self._fill(store, 3)
        await elapse(60)
        assert (await store.last(), store.log_id) == (3, known)

    async def test_an_event_survives_the_store_whole(self, store: EventStore) -> None:
        """Every attribute comes back."""
        event = Event("t", [1, "ü", None], source="s", subject="about", partition_key="k", extensions={"ext": "v"})
        page = Event("t", "<a/>", source="s", content_type="application/xml; charset=utf-8")
        image = Event("t", b"\x89PNG", source="s", content_type="image/png")
        await store.append([("x", event), ("x", page), ("x", image)])
        assert [stored.event for stored in await store.read(0, 3)] == [event, page, image]
        await store.join("g", "x", 2)
        [(offset, fence)] = await self._claim(store)
        assert await store.kill("g", offset, fence, "why")
        assert (await store.read(0, 1, "$dead.g"))[0].event.content_type == "image/png"

    async def test_the_same_event_is_stored_once(self, store: EventStore) -> None:
        """(source, id) is the deduplication key, within one call and over several."""
        first = await store.append([("a", _event(1)), ("a", _event(1)), ("a", _event(2))])
        assert first[0] == first[1] < first[2]
        assert await store.append([("a", _event(2))]) == [first[2]]
        other = Event("made", None, id="id-1", source="elsewhere")
        assert (await store.append([("a", other)]))[0] > first[2]
        stored = await store.read(0, 10)
        assert len(stored) == 3
        await store.append([("a", other)])
        assert await store.last() == stored[-1].offset  # else a reader would wait for an event that never comes

    async def test_reading_by_pattern(self, store: EventStore) -> None:
        """Patterns select; system topics only by name."""
        for number, topic in enumerate(("a.b", "a.c", "a.b.c", "x"), 1):
            await store.append([(topic, _event(number))])
        await store.join("g", "x", 0)
        [(offset, fence)] = await self._claim(store)
        assert await store.kill("g", offset, fence, "why")

        async def topics(pattern: str) -> list[str]:
            return [item.topic for item in await store.read(0, 10, pattern)]

        assert await topics("a.*") == ["a.b", "a.c"]
        assert await topics("a.>") == ["a.b", "a.c", "a.b.c"]
        assert await topics("*") == ["x"]
        assert await topics("$dead.g") == ["$dead.g"]

    async def test_bad_events_and_topics_store_nothing(self, store: EventStore) -> None:
        """One bad record of several refuses all."""
        with pytest.raises(InvalidTopic):
            await store.append([("good", _event(1)), ("no good", _event(2))])
        with pytest.raises(InvalidEvent):
            await store.append([("good", _event(1)), ("good", Event("", None))])
        assert await store.last() == 0

    async def test_offset_before_a_time(self, store: EventStore, elapse: Any) -> None:
        """Replay from a time."""
        early = await store.append([("a", _event(1))])
        await elapse(10.0)
        late = await store.append([("a", _event(2))])
        at = (await store.read(early[0], 1))[0].at
        assert await store.offset_before(at - 5.0) == early[0]
        assert await store.offset_before(at + 5.0) == late[0]
        assert await store.offset_before(0.0) < early[0]

    async def test_wait_returns_when_something_is_appended(self, store: EventStore) -> None:
        """A waiter wakes without polling; one with something to read does not wait."""
        waiting = asyncio.ensure_future(store.wait(0, 60.0))
        await asyncio.sleep(0)
        offsets = await self._fill(store, 1)
        assert await waiting
        assert await store.wait(0, 60.0)
        assert not await store.wait(offsets[-1], 0.0)

    async def test_a_group_gives_each_event_to_one_member(self, store: EventStore) -> None:
        """Two claims share; two groups each get all."""
        offsets = await self._fill(store, 4)
        await store.join("g", "a.*", 0)
        await store.join("h", ">", 0)
        first, second = await self._claim(store, 2), await self._claim(store, 10)
        assert first + second == [(offset, 1) for offset in offsets]
        assert await self._claim(store) == []
        assert len(await store.claim("h", 10, _LEASE, _TRIES)) == 4

    async def test_a_group_starts_now_or_in_the_past_and_keeps_its_cursor(self, store: EventStore) -> None:
        """join is idempotent; another pattern is refused."""
        await self._fill(store, 2)
        await store.join("g", ">", None)
        assert await self._claim(store) == []
        later = await store.append([("a", _event(9))])
        await store.join("g", ">", 0)
        assert await self._claim(store) == [(later[0], 1)]
        with pytest.raises(EventError, match="pattern"):
            await store.join("g", "a.*", 0)

    async def test_acknowledged_is_done_and_a_wrong_fence_changes_nothing(self, store: EventStore) -> None:
        """ack, nack, extend and kill are fenced."""
        await self._fill(store, 1)
        await store.join("g", ">", 0)
        [(offset, fence)] = await self._claim(store)
        assert not await store.ack("g", offset, fence + 1)
        assert not await store.nack("g", offset, fence + 1, 0.0, _TRIES)
        assert not await store.extend("g", offset, fence + 1, _LEASE)
        assert not await store.kill("g", offset, fence + 1, "why")
        assert await store.ack("g", offset, fence)
        assert not await store.ack("g", offset, fence)
        assert await self._claim(store) == []

    async def test_given_back_it_is_claimed_again_after_its_delay(self, store: EventStore, elapse: Any) -> None:
        """nack with and without a delay."""
        await self._fill(store, 1)
        await store.join("g", ">", 0)
        [(offset, _)] = await self._claim(store)
        assert await store.nack("g", offset, 1, 0.0, _TRIES)
        assert await self._claim(store) == [(offset, 2)]
        assert await store.nack("g", offset, 2, 5.0, _TRIES)
        assert await self._claim(store) == []
        due = await store.next_due("g")
        assert due is not None
        assert 0.0 < due <= 5.0
        await elapse(5.1)
        assert await self._claim(store) == [(offset, 3)]

    async def test_a_lease_that_runs_out_is_given_to_another_and_the_first_is_fenced_off(
        self, store: EventStore, elapse: Any
    ) -> None:
        """A zombie cannot acknowledge; extend keeps a lease."""
        await self._fill(store, 1)
        await store.join("g", ">", 0)
        [(offset, _)] = await self._claim(store)
        await elapse(_LEASE - 1)
        assert await store.extend("g", offset, 1, _LEASE)
        await elapse(2.0)
        assert await self._claim(store) == []
        await elapse(_LEASE)
        assert await self._claim(store) == [(offset, 2)]
        assert not await store.ack("g", offset, 1)
        assert await store.ack("g", offset, 2)

    async def test_after_the_last_delivery_it_is_a_dead_letter(self, store: EventStore, elapse: Any) -> None:
        """By nack, by expiry and by kill, each exactly once, with its story."""
        await self._fill(store, 3)
        await store.join("g", "a.*", 0)
        for _ in range(_TRIES - 1):
            for offset, fence in await self._claim(store):
                assert await store.nack("g", offset, fence, 0.0, _TRIES)
        nacked, expired, killed = await self._claim(store)
        assert await store.nack("g", *nacked, 0.0, _TRIES)
        assert await store.kill("g", *killed, "hope\nless")
        await elapse(_LEASE + 1)
        assert await self._claim(store) == []
        dead = await store.read(0, 10, "$dead.g")
        assert sorted(item.event.extensions["deadoffset"] for item in dead) == sorted(
            str(offset) for offset, _ in (nacked, expired, killed)
        )
        by_offset = {item.event.extensions["deadoffset"]: item.event for item in dead}
        assert by_offset[str(killed[0])].extensions["deadreason"] == "hope less"
        assert by_offset[str(killed[0])].extensions["deadtopic"] == "a.b"
        assert by_offset[str(expired[0])].data == {"n": 2}
        assert (await store.groups())[0].dead == 3

    async def test_one_partition_key_is_delivered_in_order_one_at_a_time(self, store: EventStore, elapse: Any) -> None:
        """A successor waits for ack or death of the one before, also over nack and delay."""
        await store.append([("a", _event(n, "k")) for n in (1, 2)] + [("a", _event(n)) for n in (3, 4)])
        offsets = [item.offset for item in await store.read(0, 10)]
        await store.join("g", ">", 0)
        assert await self._claim(store) == [(offsets[0], 1), (offsets[2], 1), (offsets[3], 1)]
        assert await self._claim(store) == []
        assert await store.nack("g", offsets[0], 1, 5.0, _TRIES)
        assert await self._claim(store) == []
        await elapse(5.1)
        assert await self._claim(store) == [(offsets[0], 2)]
        assert await store.ack("g", offsets[0], 2)
        assert await self._claim(store) == [(offsets[1], 1)]

    async def test_many_events_that_do_not_match_hide_none_that_does(self, store: EventStore) -> None:
        """A claim looks past what is not the group's."""
        await store.append([("other", _event(number)) for number in range(3000)])
        offsets = await store.append([("mine", _event(5000))])
        await store.join("g", "mine", 0)
        found: list[tuple[int, int]] = []
        while not found and (await store.groups())[0].lag:
            found = await self._claim(store)
        assert found == [(offsets[0], 1)]

    async def test_groups_tell_their_state(self, store: EventStore) -> None:
        """Cursor, lag, waiting, leased."""
        await self._fill(store, 3)
        await store.join("g", ">", 0)
        await self._claim(store, 1)
        [info] = await store.groups()
        assert (info.name, info.pattern, info.leased, info.waiting + info.lag, info.dead) == ("g", ">", 1, 2, 0)
        assert await store.leave("g")
        assert not await store.leave("g")
        assert await store.groups() == []
        with pytest.raises(UnknownGroup):
            await self._claim(store)

    async def test_trim_removes_the_old_and_keeps_what_a_group_needs(self, store: EventStore, elapse: Any) -> None:
        """Retention never outruns a group."""
        offsets = await self._fill(store, 3)
        await store.join("g", ">", offsets[0])
        await elapse(10.0)
        late = await store.append([("a", _event(9))])
        cut = (await store.read(offsets[-1], 1))[0].at - 1.0
        assert await store.trim(cut) == 1
        assert [item.offset for item in await store.read(0, 10)] == offsets[1:] + late
        assert [offset for offset, _ in await self._claim(store)] == offsets[1:] + late

    async def test_a_group_tells_when_it_was_last_read(self, store: EventStore, elapse: Any) -> None:
        """Joining, claiming and extending count; nothing else does."""
        await self._fill(store, 2)
        await store.join("g", ">", 0)
        [first] = await store.groups()
        await elapse(1000.0)
        [(offset, fence)] = await self._claim(store, 1)
        assert (await store.groups())[0].seen == pytest.approx(first.seen + 1000.0, abs=60.0)
        await elapse(20.0)
        assert await store.extend("g", offset, fence, 10_000.0)
        await elapse(1000.0)
        assert await store.ack("g", offset, fence)
        assert (await store.groups())[0].seen == pytest.approx(first.seen + 1020.0, abs=60.0)
        await store.join("g", ">", 0)
        assert (await store.groups())[0].seen == pytest.approx(first.seen + 2020.0, abs=60.0)

    async def test_what_is_removed_is_gone_for_groups_too(self, store: EventStore) -> None:
        """A removed event holds up neither its group nor its partition key; its holder has lost it."""
        if not isinstance(store, RetainedStore):
            pytest.skip("another store does this for it")
        offsets = await self._fill(store, 4, key="k")
        plain = await store.append([("a", Event("t", None, id="plain")), ("a.b", Event("t", None, id="last"))])
        await store.join("g", ">", 0)
        await store.join("h", ">", 0)
        assert await self._claim(store) == [(offsets[0], 1), (plain[0], 1), (plain[1], 1)]
        marks = await store.scan(0, 4)
        assert [(mark.offset, mark.topic) for mark in marks] == [(offset, "a.b") for offset in offsets]
        assert all(mark.size > 0 for mark in marks)
        assert [mark.offset for mark in await store.scan(offsets[3], 10)] == plain
        changes = store.changes
        assert await store.remove([offsets[0], offsets[2], plain[1]]) == 3
        assert await store.remove([offsets[0]]) == 0
        assert store.changes != changes or not store.features.objects
        assert [item.offset for item in await store.read(0, 10)] == [offsets[1], offsets[3], plain[0]]
        assert not await store.ack("g", offsets[0], 1)
        assert not await store.nack("g", plain[1], 1, 0.0, _TRIES)
        assert await store.ack("g", plain[0], 1)
        for offset in (offsets[1], offsets[3]):
            assert await self._claim(store) == [(offset, 1)]
            assert await store.ack("g", offset, 1)
        assert await self._claim(store) == []
        [found] = await store.claim("h", 1, _LEASE, _TRIES)
        assert found.stored.offset == offsets[1]
        assert await store.last() == plain[1]  # an offset is never given twice

    async def test_a_closed_store_says_so(self, store: EventStore) -> None:
        """Waiting calls end, later ones raise."""
        waiting = asyncio.ensure_future(store.wait(0, 60.0))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(BusClosed):
            await waiting
        with pytest.raises(BusClosed):
            await store.append([("a", _event(1))])
