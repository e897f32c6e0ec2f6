"""Durable, fenced jobs in memory, on SQLite and on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairway.jobs.context import Discard, JobContext, Retry, Snooze
    from fairway.jobs.job import Backoff, Job, NewBatch, NewJob, QueueConfig, Schedule
    from fairway.jobs.opening import open_store
    from fairway.jobs.queue import JobHandle, Queue
    from fairway.jobs.store import Store, StoreOptions
    from fairway.jobs.tasks import Task, Tasks
    from fairway.jobs.worker import Worker, WorkerConfig

_HOME = {
    "Backoff": "job",
    "Discard": "context",
    "Job": "job",
    "JobContext": "context",
    "JobHandle": "queue",
    "NewBatch": "job",
    "NewJob": "job",
    "Queue": "queue",
    "QueueConfig": "job",
    "Retry": "context",
    "Schedule": "job",
    "Snooze": "context",
    "Store": "store",
    "StoreOptions": "store",
    "Task": "tasks",
    "Tasks": "tasks",
    "Worker": "worker",
    "WorkerConfig": "worker",
    "open_store": "opening",
}

__all__ = [
    "Backoff",
    "Discard",
    "Job",
    "JobContext",
    "JobHandle",
    "NewBatch",
    "NewJob",
    "Queue",
    "QueueConfig",
    "Retry",
    "Schedule",
    "Snooze",
    "Store",
    "StoreOptions",
    "Task",
    "Tasks",
    "Worker",
    "WorkerConfig",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the daemon's store needs no worker, a producer no store."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
