"""The worker processes of a `WorkerPool`: each is its own, so that one that takes too long can be killed alone.

`concurrent.futures.ProcessPoolExecutor` is not used: it cannot stop a running call, and a worker that dies
breaks the whole executor. Processes are spawned, never forked: the parent has threads and an event loop.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from fairway.concurrency.runners import RemoteFailure, WorkerDied


class ProcessRunner:
    """Runs a plain function in one of `workers` processes; a thread each talks to one, so that no loop blocks."""

    __slots__ = ("_fn", "_idle", "_threads")

    def __init__(self, fn: Callable[[Any], Any], workers: int) -> None:
        self._fn = fn
        self._idle: list[Worker] = []
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="WorkerPool")

    def call(self, item: Any) -> _ProcessCall:
        """Return a call of the function with `item`."""
        return _ProcessCall(self, item)

    async def close(self) -> None:
        """End the processes and wait for them."""
        loop = asyncio.get_running_loop()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(loop.run_in_executor(self._threads, worker.end) for worker in idle))
        self._threads.shutdown(wait=False)

    def take(self) -> Worker:
        """Return an idle worker, or a new one that is not yet started."""
        return self._idle.pop() if self._idle else Worker(self._fn)

    def give_back(self, worker: Worker) -> None:
        """Keep a worker for the next item."""
        self._idle.append(worker)

    async def in_thread(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run `fn` in a thread and wait for its end even if cancelled meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, fn, *args)


class _ProcessCall:
    __slots__ = ("_item", "_runner", "_worker")

    def __init__(self, runner: ProcessRunner, item: Any) -> None:
        self._runner = runner
        self._item = item
        self._worker = runner.take()

    async def prepare(self) -> None:
        await self._ask(self._worker.start)

    async def wait(self) -> Any:
        ok, value = await self._ask(self._worker.ask, self._item)
        self._runner.give_back(self._worker)
        if not ok:
            raise value
        return value

    async def _ask(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking method of the worker in a thread; a cancel kills the process."""
        worker = self._worker
        answer = asyncio.ensure_future(self._runner.in_thread(fn, *args))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            worker.kill()
            # The pipe breaks with the process, which ends the thread.
            await asyncio.wait([answer])
            answer.exception()
            raise
        except WorkerDied:
            worker.kill()
            raise

    def orphan(self) -> None:
        return None


class Worker:
    """One process and the pipe to it. Its methods block: call them in a thread."""

    __slots__ = ("_fn", "_killed", "_pipe", "_process")

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self._fn = fn
        self._process: Any = None
        self._pipe: Connection | None = None
        self._killed = False

    def ask(self, item: Any) -> tuple[bool, Any]:
        """Send `item` and return (True, value) or (False, error). Raises `WorkerDied`."""
        try:
            payload = pickle.dumps(item)
        except Exception as exc:
            return False, RemoteFailure(f"expected an item that can be pickled, got: {item!r}: {exc}")
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(payload)
            answer: tuple[bool, Any] = pickle.loads(self._pipe.recv_bytes())  # noqa: S301  # from our own child
            return answer
        except (EOFError, OSError) as exc:
            raise self._died() from exc

    def kill(self) -> None:
        """End the process at once; does not wait."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """Let the process end and wait for it."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join()
            self._process.close()

    def _died(self) -> WorkerDied:
        self._process.join()
        return WorkerDied(f"the worker process ended with exit code {self._process.exitcode}")

    def start(self) -> None:
        """Start the process unless it runs, and wait until it is ready. Raises `WorkerDied`."""
        if self._pipe is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._fn), daemon=True, name="WorkerPool")
        self._process.start()
        theirs.close()
        if self._killed:
            # Cancelled while it was being started.
            self._process.kill()
        try:
            self._pipe.recv_bytes()
        except (EOFError, OSError) as exc:
            raise self._died() from exc


def _serve(pipe: Connection, fn: Callable[[Any], Any]) -> None:
    """Answer items until the pipe is closed; the process's main function."""
    # The terminal's Ctrl-C reaches the whole process group: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send_bytes(b"ready")
    while True:
        try:
            payload = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(_answer(fn, payload))


def _answer(fn: Callable[[Any], Any], payload: bytes) -> bytes:
    """Run `fn` on the pickled item and return the pickled answer."""
    try:
        value = fn(pickle.loads(payload))  # noqa: S301  # from our own parent
    except Exception as exc:
        text = "".join(traceback.format_exception(exc))
        exc.add_note(f"In the worker process:\n{text}")
        try:
            data = pickle.dumps((False, exc))
            pickle.loads(data)  # noqa: S301  # what cannot be read back must not reach the parent
            return data
        except Exception:
            return pickle.dumps((False, RemoteFailure(text)))
    try:
        return pickle.dumps((True, value))
    except Exception as exc:
        return pickle.dumps((False, RemoteFailure(f"expected a value that can be pickled, got: {value!r}: {exc}")))
