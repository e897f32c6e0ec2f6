"""Finding mistakes: who waits where, deadlocks, and tasks that were left behind.

`dump()` reads the frames of suspended coroutines and blocked threads; nothing is recorded while the program runs,
so that it costs nothing until somebody asks. `detect_deadlocks()` looks when the event loop is about to wait: no
task is ready, no timer is set, no file or signal is watched, and no other thread can wake it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, TypeVar

from fairway.concurrency import notify, registry
from fairway.concurrency.errors import ConcurrencyError, Deadlock, WrongLoop
from fairway.concurrency.timing import require_loop

T = TypeVar("T")
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Functions of the library that only call the user's: what waits below them is not the library.
_CALLERS = frozenset({"ErrGroup._run", "WaitGroup._run", "Flight._drive", "_TaskCall.wait", "_call", "_map"})
# Turns of the loop that cancelled tasks get to end before they count as left behind.
_TURNS = 20
# How often a loop with living threads beside it looks whether they can still wake it, seconds.
_POLL_S = 0.05


class Leaked(ConcurrencyError):
    """Tasks or threads were started and not ended.

    Attributes:
        waiters: Who, and where they wait.
    """

    code = "concurrency.leaked"

    def __init__(self, waiters: list[Waiter]) -> None:
        super().__init__(f"{len(waiters)} left behind:\n{_lines(waiters)}")
        self.waiters: list[Waiter] = waiters


@dataclass(frozen=True, slots=True)
class Waiter:
    """A task or thread that waits.

    Attributes:
        name: Of the task or thread.
        operation: What it waits in, such as ``Chan.recv`` or ``select``; empty if it is none of this library.
        on: The channel, the cases or the group, in their short form.
        location: ``file:line`` of the caller's code that waits.
        function: The function that this line stands in.
    """

    name: str
    operation: str
    on: str
    location: str
    function: str

    def __str__(self) -> str:
        """Return one line: who, where, in which operation on what."""
        what = f"in {self.operation}" if self.operation else "outside the library"
        return f"{self.name} at {self.location} ({self.function}) {what}{f' on {self.on}' if self.on else ''}"


def waiters(*, everyone: bool = False) -> list[Waiter]:
    """Return every task and thread of the process that is blocked in an operation of this library.

    Args:
        everyone: Include suspended tasks that wait for something else.
    """
    found = [waiter for task in _tasks() if (waiter := _of_task(task)) and (everyone or waiter.operation)]
    return sorted(found + _threads(), key=str)


def dump() -> str:
    """Return a line for every task and thread blocked on a channel, select or wait group, with where it waits."""
    return _lines(waiters()) or "nobody is blocked on a channel, select or wait group"


# -- deadlocks -----------------------------------------------------------------------------------------------


@contextmanager
def detect_deadlocks(
    loop: asyncio.AbstractEventLoop | None = None, *, ignore: Iterable[threading.Thread] = ()
) -> Iterator[None]:
    """While the block lasts, raise `Deadlock` out of `loop` as soon as nothing can wake any task of it.

    The error comes out of ``asyncio.run`` (or whatever runs the loop) and carries the dump. What counts as able
    to wake: a timer, a watched file or signal, a thread that neither waits on a channel nor idles in an executor.

    Args:
        loop: The running one if left out; a loop of `asyncio`, for others do not show what they wait for.
        ignore: Threads that are known to wake nobody, such as a library's own in the background.

    Raises:
        WrongLoop: The loop is of another kind, such as uvloop's.

    Source: Go, ``runtime.checkdead``: "all goroutines are asleep - deadlock!".
    """
    loop = loop or require_loop("detect_deadlocks")
    selector: Any = getattr(loop, "_selector", None)
    if selector is None:
        raise WrongLoop(
            f"expected a selector event loop of asyncio, got: {loop!r}", hint="run this program without uvloop"
        )
    select = selector.select
    ignored = frozenset(ignore)

    def watched(timeout: float | None = None) -> Any:
        if timeout is not None or not check_asleep(loop, ignored):
            return select(timeout)
        return select(_POLL_S)

    selector.select = watched
    try:
        yield
    finally:
        selector.select = select


def check_asleep(loop: asyncio.AbstractEventLoop, ignore: frozenset[threading.Thread] = frozenset()) -> bool:
    """Raise `Deadlock` if nothing can wake the idle `loop`; return whether only threads can. Internal."""
    inner: Any = loop
    own = inner._ssock.fileno() if getattr(inner, "_ssock", None) is not None else -1
    watched = [key.fd for key in inner._selector.get_map().values() if key.fd != own]
    if watched or notify._handlers or getattr(inner, "_signal_handlers", None):
        return False
    # A thread may have woken the loop and ended since the loop decided to wait.
    if _awake_threads(ignore) or inner._ready:
        return True
    tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
    if not tasks:
        return False
    found = [waiter for task in tasks if (waiter := _of_task(task))] + _threads()
    raise Deadlock(f"all tasks are asleep - deadlock!\n{_lines(sorted(found, key=str))}")


def run(main: Coroutine[Any, Any, T], *, ignore: Iterable[threading.Thread] = ()) -> T:
    """Run `main` as `asyncio.run` does, on asyncio's own loop and with deadlocks detected.

    Args:
        main: The program.
        ignore: Threads that are known to wake nobody; see `detect_deadlocks`.
    """

    async def watched() -> T:
        with detect_deadlocks(ignore=ignore):
            return await main

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(watched())


# -- leaks ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Raise `Leaked` if tasks that were started in the block, or threads it left blocked, outlive it.

    Tasks that were cancelled get some turns of the loop to end. Nothing is raised over a failure of the block.
    """
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks(loop)
    threads = {waiter.name for waiter in _threads()}
    yield
    left = asyncio.all_tasks(loop) - before
    for _ in range(_TURNS):
        if not left:
            break
        await asyncio.sleep(0)
        left = asyncio.all_tasks(loop) - before
    found = [waiter for task in left if (waiter := _of_task(task))]
    found += [waiter for waiter in _threads() if waiter.name not in threads]
    if found:
        raise Leaked(sorted(found, key=str))


# -- reading frames --------------------------------------------------------------------------------------------


def _tasks() -> list[asyncio.Task[Any]]:
    """Return the unfinished tasks of every loop of the process."""
    # asyncio offers the tasks of one loop only, and no list of loops.
    found = {id(o): o for o in gc.get_objects() if issubclass(type(o), asyncio.Task)}
    loop = asyncio._get_running_loop()
    if loop is not None:
        found.update({id(task): task for task in asyncio.all_tasks(loop)})
    return [t for t in found.values() if not t.done() and not t.get_loop().is_closed()]


def _of_task(task: asyncio.Task[Any]) -> Waiter | None:
    """Return where a suspended task waits; None for the one that runs or has not started."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        frame = frame or getattr(awaited, "ag_frame", None)
        if frame is not None:
            frames.append(frame)
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
        )
    if not frames or (asyncio._get_running_loop() is not None and task is asyncio.current_task()):
        return None
    return _describe(task.get_name(), frames)


def _threads() -> list[Waiter]:
    """Return the threads that are blocked on a shared channel."""
    blocked = {entry.thread for entry in registry.blocked() if entry.thread is not None}
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, top in sys._current_frames().items():
        if ident in blocked:
            frames = []
            frame: FrameType | None = top
            while frame is not None:
                frames.append(frame)
                frame = frame.f_back
            found.append(_describe(f"thread {names.get(ident, ident)}", frames[::-1]))
    return found


def _describe(name: str, frames: list[FrameType]) -> Waiter:
    """Describe a wait by its frames, outermost first: the caller's last line and the operation it called."""
    ours = [_is_ours(frame.f_code) for frame in frames]
    last = max((i for i, own in enumerate(ours) if own), default=-1)
    if (
        last < 0
        or frames[last].f_code.co_qualname in _CALLERS
        or any(not _is_stdlib(frame.f_code) for frame in frames[last + 1 :])
    ):
        # No operation of the library, or one that has called the user's function, which waits for something else.
        return _waiter(name, _nearest_caller(frames), ("", ""))
    before = [i for i in range(last) if not ours[i]]
    if before:
        return _waiter(name, _nearest_caller(frames[: before[-1] + 1]), _operation(frames[before[-1] + 1]))
    # A task of the library's own, such as a pool's worker: its innermost public operation.
    public = [i for i in range(1, last + 1) if _is_public(frames[i].f_code)]
    at = public[-1] if public else last
    return _waiter(name, frames[max(0, at - 1)], _operation(frames[at]))


def _is_public(code: CodeType) -> bool:
    return not code.co_name.startswith("_") or code.co_name.endswith("__")


def _nearest_caller(frames: list[FrameType]) -> FrameType:
    """Return the innermost frame outside the standard library."""
    return next((f for f in reversed(frames) if not _is_stdlib(f.f_code)), frames[-1])


def _waiter(name: str, caller: FrameType, operation: tuple[str, str]) -> Waiter:
    where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    return Waiter(name, operation[0], operation[1], where, caller.f_code.co_qualname)


def _operation(frame: FrameType) -> tuple[str, str]:
    """Return the name of the library's operation and what it works on."""
    variables = frame.f_locals
    if "cases" in variables:
        return frame.f_code.co_name.lstrip("_"), ", ".join(map(repr, variables["cases"]))
    owner = variables.get("self")
    return frame.f_code.co_qualname, "" if owner is None else repr(owner)


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_HERE)


def _is_stdlib(code: CodeType) -> bool:
    return (
        code.co_filename.startswith(os.path.dirname(os.__file__) + os.sep) and "site-packages" not in code.co_filename
    )


def _awake_threads(ignore: frozenset[threading.Thread]) -> bool:
    """Whether another thread can still do something: it neither waits on a channel nor idles in an executor."""
    blocked = {entry.thread for entry in registry.blocked() if entry.thread is not None}
    me = threading.get_ident()
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread in ignore or thread.ident in (me, None) or thread.ident in blocked:
            continue
        if not _idles(frames.get(thread.ident or 0)):
            return True
    return False


def _idles(frame: FrameType | None) -> bool:
    """Whether a thread waits for work in a thread pool executor, or for its own end."""
    return frame is None or (frame.f_code.co_name == "_worker" and "concurrent" in frame.f_code.co_filename)


def _lines(found: list[Waiter]) -> str:
    return "\n".join(f"  {waiter}" for waiter in found)
