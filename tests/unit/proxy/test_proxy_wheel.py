"""The door's one timer: it turns fast while there are connections, and rests while there are none."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fairway.proxy.wheel import NEVER, REST_S, SLOTS, TURN_S, Wheel

TICK_S = TURN_S / SLOTS


class Loop:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []
        self.ticks = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Any) -> Any:
        timer = (self.now + delay, call)
        self.timers.append(timer)
        loop = self

        class Handle:
            def cancel(self) -> None:
                loop.timers.remove(timer)

        return Handle()

    def pass_s(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and min(self.timers)[0] <= end + 1e-9:
            timer = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = timer[0]
            self.ticks += 1
            timer[1]()
        self.now = end


class Member:
    def __init__(self, deadline: float = NEVER) -> None:
        self.deadline = deadline
        self.expired: list[float] = []

    def expire(self, now: float) -> None:
        self.expired.append(now)
        self.deadline = NEVER


@pytest.fixture
def loop() -> Loop:
    return Loop()


def wheel_on(loop: Loop, residents: int) -> Wheel:
    return Wheel(cast("asyncio.AbstractEventLoop", loop), residents)


def test_a_wheel_without_connections_ticks_once_a_second(loop: Loop) -> None:
    wheel = wheel_on(loop, residents=1)
    wheel.add(Member())
    wheel.start()
    loop.pass_s(TICK_S)
    loop.ticks = 0
    loop.pass_s(10 * REST_S)
    assert loop.ticks == 10


def test_a_resident_expires_while_the_wheel_rests(loop: Loop) -> None:
    wheel = wheel_on(loop, residents=1)
    resident = Member(deadline=loop.now + 5.0)
    wheel.add(resident)
    wheel.start()
    loop.pass_s(10.0)
    assert len(resident.expired) == 1
    assert 105.0 <= resident.expired[0] <= 105.0 + REST_S


def test_the_first_connection_wakes_it_and_finds_a_fresh_time(loop: Loop) -> None:
    wheel = wheel_on(loop, residents=1)
    wheel.add(Member())
    wheel.start()
    loop.pass_s(5.0 + REST_S / 2)
    member = Member()
    slot = wheel.add(member)
    assert wheel.now == loop.now
    member.deadline = wheel.now + 1.0
    loop.pass_s(2.0)
    assert len(member.expired) == 1
    assert member.expired[0] - (105.0 + REST_S / 2) <= 1.0 + TURN_S + TICK_S
    wheel.remove(member, slot)
    loop.pass_s(TURN_S)
    loop.ticks = 0
    loop.pass_s(4 * REST_S)
    assert loop.ticks == 4


def test_stopped_it_ticks_no_more_and_is_not_woken(loop: Loop) -> None:
    wheel = wheel_on(loop, residents=0)
    wheel.start()
    loop.pass_s(2.0)
    wheel.stop()
    wheel.add(Member())
    assert not loop.timers
