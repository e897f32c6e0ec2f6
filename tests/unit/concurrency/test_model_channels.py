"""Channels and select against a model, driven by hypothesis: 10,000 steps, with cancels at every suspension point.

The model is Go's specification in a few lines: buffers, queues of waiters, and for every operation whether it is
waiting, decided, or cancelled. A step either starts an operation as a task, acts at once (try_send, try_recv,
close, cancel), or lets the loop turn. Between two turns the steps act within the hand-off windows. After each
step the channels' own counts are compared with the model, after each turn every operation's outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairway.concurrency import Chan, Closed, CloseOfClosed, SendOnClosed, SharedChan, nil, select

CHANNELS = 3
which = st.integers(0, CHANNELS - 1)
NIL = CHANNELS


@dataclass(eq=False)
class Operation:
    """One operation: its task, what its task saw, and what the model says."""

    task: asyncio.Task[None] | None = None
    seen: list[Any] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)
    waiting: bool = False
    in_window: bool = False  # decided, but its task has not run since
    cases: list[tuple[bool, int]] = field(default_factory=list)  # of a select: (is a send, channel)

    def plainly(self, outcomes: list[Any]) -> list[Any]:
        """Return the outcomes with the first of like cases in place of any.

        Which of several like cases a waiting select is served by is its own choice.
        """
        plain = []
        for got in outcomes:
            chosen = isinstance(got, tuple) and len(got) == 3 and got[0] >= 0
            plain.append((self.cases.index(self.cases[got[0]]), *got[1:]) if chosen else got)
        return plain


@dataclass(eq=False)
class Entry:
    """One place of a waiting operation in a queue: the case of a select, or None for a plain operation."""

    operation: Operation
    case: int | None
    value: Any = None


@dataclass
class Model:
    """One channel as the specification has it."""

    cap: int
    buffer: list[Any] = field(default_factory=list)
    receivers: list[Entry] = field(default_factory=list)
    senders: list[Entry] = field(default_factory=list)
    closed: bool = False

    def can_send(self) -> bool:
        return self.closed or bool(self.receivers) or len(self.buffer) < self.cap

    def can_recv(self) -> bool:
        return self.closed or bool(self.buffer) or bool(self.senders)


class Channels(RuleBasedStateMachine):
    """Three channels, one loop, any number of operations on them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.operations: list[Operation] = []
        self.value = 0

    @initialize(kind=st.sampled_from([Chan, SharedChan]), caps=st.tuples(*[st.integers(0, 2)] * CHANNELS))
    def make(self, kind: type[Any], caps: tuple[int, ...]) -> None:
        self.channels = [kind(cap) for cap in caps]
        self.models = [Model(cap) for cap in caps]

    def teardown(self) -> None:
        for operation in self.operations:
            if operation.task is not None:
                operation.task.cancel()
        self._turn()
        self.loop.close()

    # -- the model's moves -----------------------------------------------------------------------------------

    def _leave_queues(self, operation: Operation) -> None:
        operation.waiting = False
        for model in self.models:
            model.receivers = [entry for entry in model.receivers if entry.operation is not operation]
            model.senders = [entry for entry in model.senders if entry.operation is not operation]

    def _decide(self, entry: Entry, result: Any, *, plain: Any) -> None:
        operation = entry.operation
        self._leave_queues(operation)
        operation.in_window = True
        operation.expected.append(plain if entry.case is None or plain is SendOnClosed else (entry.case, *result))

    def _model_recv(self, model: Model) -> Any:
        """(value, True) or (None, False); only called when it can proceed."""
        if model.buffer:
            value = model.buffer.pop(0)
            if model.senders:
                entry = model.senders[0]
                model.buffer.append(entry.value)
                self._decide(entry, (None, True), plain="sent")
            return value, True
        if model.senders:
            entry = model.senders[0]
            self._decide(entry, (None, True), plain="sent")
            return entry.value, True
        return None, False

    def _model_send(self, model: Model, value: Any) -> Any:
        """True, or SendOnClosed; only called when it can proceed."""
        if model.closed:
            return SendOnClosed
        if model.receivers:
            self._decide(model.receivers[0], (value, True), plain=(value, True))
        else:
            model.buffer.append(value)
        return True

    # -- running ---------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        async def turns() -> None:
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for operation in self.operations:
            operation.in_window = False

    def _start(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Operation:
        """Start an operation in a task that notes the outcome and then waits until it is cancelled."""
        operation = Operation()

        async def run() -> None:
            try:
                operation.seen.append(await make())
            except (Closed, SendOnClosed) as error:
                operation.seen.append(type(error))
            except asyncio.CancelledError:
                operation.seen.append("cancelled")
                raise
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                operation.seen.append("cancelled later")
                raise

        operation.task = self.loop.create_task(run())
        self.operations.append(operation)
        return operation

    def _next_value(self) -> int:
        self.value += 1
        return self.value

    # -- rules: operations that may wait ---------------------------------------------------------------------

    @rule(channel=which, form=st.sampled_from(["recv", "recv_ok", "__anext__"]))
    def recv(self, channel: int, form: str) -> None:
        model, ch = self.models[channel], self.channels[channel]

        async def recv() -> Any:
            try:
                got = await getattr(ch, form)()
            except (Closed, StopAsyncIteration):
                return None, False
            return got if form == "recv_ok" else (got, True)

        operation = self._start(recv)
        if model.can_recv():
            operation.expected.append(self._model_recv(model))
        else:
            operation.waiting = True
            model.receivers.append(Entry(operation, None))
        self._turn()

    @rule(channel=which)
    def send(self, channel: int) -> None:
        model, value, ch = self.models[channel], self._next_value(), self.channels[channel]

        async def send() -> str:
            await ch.send(value)
            return "sent"

        operation = self._start(send)
        if model.can_send():
            sent = self._model_send(model, value)
            operation.expected.append("sent" if sent is True else SendOnClosed)
        else:
            operation.waiting = True
            model.senders.append(Entry(operation, None, value))
        self._turn()

    @rule(channel=which, n=st.integers(1, 3))
    def recv_many(self, channel: int, n: int) -> None:
        model = self.models[channel]
        if not model.can_recv():
            return
        operation = self._start(lambda: self.channels[channel].recv_many(n))
        got: list[Any] = []
        while len(got) < n and model.can_recv():
            value, ok = self._model_recv(model)
            if not ok:
                break
            got.append(value)
        operation.expected.append(got)
        self._turn()

    @rule(cases=st.lists(st.tuples(st.booleans(), st.integers(0, NIL)), max_size=4), default=st.booleans())
    def select(self, cases: list[tuple[bool, int]], default: bool) -> None:
        one_each = {channel: self._next_value() for _, channel in cases}
        values = [one_each[channel] for _, channel in cases]
        made: list[Any] = []
        for (is_send, channel), value in zip(cases, values, strict=True):
            ch = nil if channel == NIL else self.channels[channel]
            made.append(ch.on_send(value) if is_send else ch.on_recv())
        ready = []
        for index, (is_send, channel) in enumerate(cases):
            if channel != NIL:
                model = self.models[channel]
                if model.can_send() if is_send else model.can_recv():
                    ready.append(index)
        operation = self._start(lambda: select(*made, default=default))
        operation.cases = cases
        waits = not ready and not default
        if waits:
            self._enqueue(operation, cases, values)
        self._turn()
        if waits:
            return
        assert len(operation.seen) == 1
        self._follow(operation, cases, values, ready)

    def _enqueue(self, operation: Operation, cases: list[tuple[bool, int]], values: list[int]) -> None:
        operation.waiting = True
        for index, (is_send, channel) in enumerate(cases):
            if channel != NIL:
                model = self.models[channel]
                (model.senders if is_send else model.receivers).append(Entry(operation, index, values[index]))

    def _follow(self, operation: Operation, cases: Any, values: list[int], ready: list[int]) -> None:
        """Make the model take the choice that the select made, if it was one of those that it had."""
        seen = operation.seen[0]
        if not ready:
            assert seen == (-1, None, False)
            operation.expected.append(seen)
            return
        closed_sends = [i for i in ready if cases[i][0] and self.models[cases[i][1]].closed]
        if seen is SendOnClosed:
            assert closed_sends
            operation.expected.append(SendOnClosed)
            return
        index = seen[0]
        assert index in ready
        assert index not in closed_sends
        is_send, channel = cases[index]
        if is_send:
            assert self._model_send(self.models[channel], values[index]) is True
            operation.expected.append((index, None, True))
        else:
            operation.expected.append((index, *self._model_recv(self.models[channel])))
        self._turn()

    # -- rules: what acts at once ----------------------------------------------------------------------------

    @rule(channel=which)
    def try_recv(self, channel: int) -> None:
        model = self.models[channel]
        expected = self._model_recv(model) if model.can_recv() else None
        assert self.channels[channel].try_recv() == expected

    @rule(channel=which)
    def try_send(self, channel: int) -> None:
        model, value = self.models[channel], self._next_value()
        expected = self._model_send(model, value) if model.can_send() else False
        try:
            assert self.channels[channel].try_send(value) is expected
        except SendOnClosed:
            assert expected is SendOnClosed

    @rule(channel=which, really=st.integers(0, 5))
    def close(self, channel: int, really: int) -> None:
        model = self.models[channel]
        if really:  # closed channels are dull; most walks keep most of theirs open
            return
        if model.closed:
            try:
                self.channels[channel].close()
            except CloseOfClosed:
                return
            raise AssertionError("a second close was accepted")
        self.channels[channel].close()
        model.closed = True
        while model.receivers:
            self._decide(model.receivers[0], (None, False), plain=(None, False))
        while model.senders:
            self._decide(model.senders[0], (), plain=SendOnClosed)

    @precondition(lambda self: self.operations)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        operation = data.draw(st.sampled_from(self.operations[-12:]))
        if operation.task is None or operation.task.done():
            return
        operation.task.cancel()
        if operation.waiting:
            self._leave_queues(operation)
            operation.expected.append("cancelled")
        elif operation.expected[-1] not in ("cancelled", "cancelled later"):
            operation.expected.append("cancelled later")

    @rule(channel=which, is_send=st.booleans())
    def cancel_before_the_first_step(self, channel: int, is_send: bool) -> None:
        ch = self.channels[channel]
        task = self.loop.create_task(ch.send(0) if is_send else ch.recv())
        task.cancel()
        self._turn()
        assert task.cancelled()

    @rule()
    def turn(self) -> None:
        self._turn()
        for operation in self.operations:
            assert operation.plainly(operation.seen) == operation.plainly(operation.expected), operation

    # -- always ----------------------------------------------------------------------------------------------

    @invariant()
    def counts_agree(self) -> None:
        for ch, model in zip(getattr(self, "channels", []), getattr(self, "models", []), strict=True):
            statistics = ch.statistics()
            assert len(ch) == statistics.len == len(model.buffer)
            assert statistics.closed == model.closed
            assert statistics.blocked_receivers == len(model.receivers)
            assert statistics.blocked_senders == len(model.senders)


# 200 walks of 50 steps: 10,000 steps.
Channels.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestChannelsAgainstTheModel = Channels.TestCase
