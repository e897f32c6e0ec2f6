"""Tasks that outlive the call that started them: referenced, named, their failures logged, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fairway.telemetry import log


class Background:
    """Keeps tasks until they end. A failure of one is logged and touches no other."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run `work` in a task of its own and return the task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def cancel(self) -> None:
        """Cancel every task and wait for them, tasks that are started meanwhile too; the caller itself is spared."""
        current = asyncio.current_task()
        while tasks := {t for t in self._tasks if t is not current}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def wait(self, timeout: float) -> bool:
        """Wait for every task to end by itself; False if some are left after `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout)
        return not self._tasks

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.get("platform").error("background task failed", task=task.get_name(), exc_info=error)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Background {len(self._tasks)} tasks>"
