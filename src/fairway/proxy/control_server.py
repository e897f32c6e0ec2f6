"""The server half of the control socket (see `fairway.proxy.control` for frames and messages)."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from fairway.errors import FairwayError
from fairway.proxy.control import (
    Ask,
    Drain,
    Metrics,
    Push,
    Reload,
    Reply,
    Request,
    encode_frame,
    read_frame,
)
from fairway.proxy.errors import ControlError
from fairway.proxy.worker import Worker


class ControlServer:
    """Answers control requests for one worker.

    Args:
        worker: What is controlled.
        path: Socket to listen on; its folder is made 0700 if it has to be made.
        stop: Called with the grace of a `Stop` request.
        reload: Reads certificates again and returns their number.
    """

    def __init__(
        self, worker: Worker, path: Path, stop: Callable[[float], None], reload: Callable[[], int] | None = None
    ) -> None:
        self._worker = worker
        self._path = path
        self._stop = stop
        self._reload = reload
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<ControlServer {self._path}>"

    async def start(self) -> None:
        """Listen; a socket that nobody answers on is taken over.

        Raises:
            ControlError: If another process answers there, or the path is no socket.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._clear_stale()
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accept, str(self._path))
        except OSError as error:
            raise ControlError(f"expected to listen on {self._path}, got: {error}") from error
        finally:
            os.umask(before)

    async def _clear_stale(self) -> None:
        if not self._path.exists():
            return
        if not stat.S_ISSOCK(self._path.stat().st_mode):
            raise ControlError(f"expected a socket or nothing at {self._path}, got another kind of file")
        try:
            _, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError:
            self._path.unlink(missing_ok=True)
            return
        writer.close()
        raise ControlError(
            f"expected no other door on {self._path}, got one that answers", hint="stop it, or choose another socket"
        )

    async def close(self) -> None:
        """Stop listening and end what is running."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (frame := await read_frame(reader)) is not None:
                reply = await self._answer(frame)
                writer.write(encode_frame(msgspec.json.encode(reply)))
                await writer.drain()
        except (ControlError, ConnectionError):
            return  # the caller left or speaks something else: nothing to answer to
        finally:
            writer.close()

    async def _answer(self, frame: bytes) -> Reply:
        try:
            request = msgspec.json.decode(frame, type=Request)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return Reply(error=f"expected a control request, got one with this fault: {error}", code=ControlError.code)
        try:
            return Reply(result=msgspec.Raw(msgspec.json.encode(await self._perform(request))))
        except FairwayError as error:
            return Reply(error=str(error), code=error.code)

    async def _perform(self, request: Request) -> object:
        worker = self._worker
        if isinstance(request, Push):
            version = worker.replace_table(request.table)
            await worker.accept()
            return version
        if isinstance(request, Drain):
            return await worker.drain(request.targets, max(0.0, min(request.timeout, 3600.0)))
        if isinstance(request, Ask):
            return worker.statistics()
        if isinstance(request, Metrics):
            from fairway.proxy.metrics import render_metrics

            return render_metrics(worker.statistics())
        if isinstance(request, Reload):
            if self._reload is None:
                raise ControlError("expected a door with certificates, got one that serves plain HTTP only")
            return self._reload()
        self._stop(request.grace)
        return None
