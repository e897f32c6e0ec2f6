"""Which cores a producer and the Redis it talks to run on.

A round trip between two processes takes 20 µs where they share a core, 60 µs where each has one that stays awake and
over 100 µs where theirs fall asleep in between. Left alone, the scheduler decides anew for every process and sticks to
it for a while, so that two contenders of one run may be measured on two different machines, as it were.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ONE_CORE, CORE_EACH = "one core", "a core each"


def placements() -> list[str]:
    """Return the placements that can be asked for here: none without affinity, one with a single core."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return [ONE_CORE, CORE_EACH] if len(os.sched_getaffinity(0)) > 1 else [ONE_CORE]


@contextmanager
def placed(where: str, producer: int, server: int) -> Iterator[None]:
    """Keep two processes, by their ids, on the first two cores of this one for as long as the block runs.

    Of the server only the thread that answers is kept: those that write its files are free.

    Args:
        where: `ONE_CORE` or `CORE_EACH`.
        producer: The process that asks, with all of its threads.
        server: The process that answers.
    """
    free = os.sched_getaffinity(0)
    first, *others = sorted(free)
    theirs = {first if where == ONE_CORE else others[0]}
    _keep(_threads(producer), {first})
    _keep([server], theirs)
    try:
        yield
    finally:
        _keep([*_threads(producer), server], free)


def _threads(process: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{process}/task").iterdir()]


def _keep(threads: list[int], cores: set[int]) -> None:
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            continue  # a thread of a pool that has ended since it was listed
