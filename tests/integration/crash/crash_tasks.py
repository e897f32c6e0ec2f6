"""What the workers of the crash tests run: every execution leaves a line in the journal."""

import asyncio
import os

from fairway.jobs import JobContext, Tasks

tasks = Tasks()
_journal = os.open(os.environ["CRASH_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


async def _work(seconds: float) -> None:
    """Be busy for a while: what the job is about, not a wait for something."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, done.set)
    await done.wait()


def _note(ctx: JobContext) -> None:
    os.write(_journal, f"{ctx.id} {ctx.fence} {ctx.attempt}\n".encode())


@tasks.task
async def mark(ctx: JobContext, pause_s: float = 0.0) -> int:
    """Note the execution and return its fence: a stored result of another fence would be a stale completion."""
    _note(ctx)
    await _work(pause_s)
    return ctx.fence


@tasks.task
async def last_word(ctx: JobContext, pause_s: float) -> int:
    """Block the whole process, ignoring cancellation, as a stopped process does."""
    _note(ctx)
    await asyncio.shield(_work(pause_s))
    return ctx.fence
