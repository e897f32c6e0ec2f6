"""`SharedChan`: what a receive without the lock leaves to others, moment by moment: the room it makes is a sender's."""

from __future__ import annotations

from typing import Any

from fairway.concurrency import SharedChan
from fairway.concurrency.waiters import ThreadWaiter


def test_a_sender_that_queues_while_a_receive_without_the_lock_makes_room_is_served() -> None:
    ch = SharedChan[int](1)
    ch.send_sync(1)
    found_full = ch.put_locked(2)
    assert not isinstance(found_full, bool)
    ch._buf.popleft()  # what a receive of another thread does between a sender's look and its queueing
    waiter = ThreadWaiter()
    with ch.lock:
        ch.enqueue_locked(waiter, True, 2)
    assert waiter.done()
    assert waiter.result is True
    assert ch.try_recv() == (2, True)
    assert ch.try_recv() is None


def test_nobody_overtakes_a_sender_while_its_value_waits_for_the_refill() -> None:
    ch = SharedChan[int](1)
    ch.send_sync(1)
    waiter = ThreadWaiter()
    with ch.lock:
        ch.enqueue_locked(waiter, True, 2)
    ch._buf.popleft()  # a receive that took its value and has yet to look for senders
    assert not ch.try_send(3)
    assert waiter.done()
    assert ch.try_recv() == (2, True)


def test_nobody_overtakes_a_sender_when_a_receive_makes_room_after_the_look_for_it(monkeypatch: Any) -> None:
    ch, refill = SharedChan[int](1), SharedChan.refill_locked
    ch.send_sync(1)
    waiter = ThreadWaiter()
    with ch.lock:
        ch.enqueue_locked(waiter, True, 2)

    def and_a_receive(channel: SharedChan[int]) -> None:
        refill(channel)
        channel._buf.popleft()  # what a receive of another thread does in between

    with monkeypatch.context() as patch:
        patch.setattr(SharedChan, "refill_locked", and_a_receive)
        assert not ch.try_send(3)
    ch._refill()
    assert ch.try_recv() == (2, True)
    assert ch.try_recv() is None
