"""What readers and operators ask of the Redis store: jobs, batches, queues, schedules."""

from __future__ import annotations

import asyncio

import msgspec

from fairway.jobs import machine
from fairway.jobs.errors import (
    JobNotFound,
    QueueNotFound,
    ScheduleNotFound,
    StoreUnavailable,
)
from fairway.jobs.job import (
    DEFAULT_QUEUE_CONFIG,
    STATES,
    Batch,
    Job,
    JobFilter,
    QueueConfig,
    QueueStatus,
    Schedule,
    ScheduleStatus,
)
from fairway.jobs.stores import redis_keys as forms
from fairway.jobs.stores import redis_queries as queries
from fairway.jobs.stores.redis_keys import CODE_OF, STATE_OF
from fairway.jobs.stores.redis_news import parse_mark
from fairway.jobs.stores.redis_session import RedisSession
from fairway.resp import Argument

_LOOK_AGAIN_S = 5.0  # a wait asks again this often, whatever it hears
_FINAL_CODES = frozenset((b"c", b"d", b"x"))


class RedisViews(RedisSession):
    """The part of `RedisStore` that moves no job."""

    async def get(self, job_id: int) -> Job | None:
        """See `Store.get`."""
        self._check_open()
        place = await self._locate(job_id)
        if place is None:
            return None
        queue, seq, number = place
        found = await self._run(queries.READ, queue, seq)
        return forms.job(found[0], queue, number) if found else None

    async def wait(self, job_id: int, timeout_s: float) -> Job:
        """See `Store.wait`."""
        self._check_open()
        place = await self._locate(job_id)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while place is not None:
            queue, seq, _ = place
            left = end - loop.time()
            state, mark = await self._run(queries.AWAIT, queue, seq, max(0.0, left) + 2 * _LOOK_AGAIN_S)
            if not state:
                break
            if state in _FINAL_CODES or left <= 0:
                job = await self.get(job_id)
                if job is None:
                    break
                return job
            await self._news.wait((queue, str(seq).encode()), parse_mark(mark), min(left, _LOOK_AGAIN_S))
            self._check_open()
        raise JobNotFound(f"no job has id {job_id}")

    async def find(self, where: JobFilter) -> list[Job]:
        """See `Store.find`."""
        self._check_open()
        machine.check_filter(where)
        state = "" if where.state is None else CODE_OF[where.state]
        size = where.limit if where.kind is None else 1000
        found: list[Job] = []
        before = where.before
        while len(found) < where.limit:
            page = await self._page(where.queue, state, before, size)
            found += [job for job in page if where.kind is None or job.kind == where.kind]
            if len(page) < size:
                break
            before = page[-1].id
        return found[: where.limit]

    async def _page(
        self, queue: str | None, state: str, bound: int | None, size: int, oldest_first: bool = False
    ) -> list[Job]:
        """Return `size` jobs of one queue or all by id, below `bound` (or above it)."""
        await self._learn_names()
        numbers = self._numbers if queue is None else {q: n for q, n in self._numbers.items() if q == queue}

        async def of(name: str, number: int) -> list[Job]:
            if bound is None:
                edge: Argument = ""
            elif oldest_first:
                edge = (bound - number) // (forms.MAX_NUMBER + 1)
            else:
                edge = (bound - number + forms.MAX_NUMBER) // (forms.MAX_NUMBER + 1)
            if bound is not None:
                edge = min(max(-1, edge), 1 << 41)
            rows = await self._run(queries.FIND, name, state, edge, size, "1" if oldest_first else "")
            return [forms.job(row, name, number) for row in rows]

        parts = await asyncio.gather(*[of(name, number) for name, number in numbers.items()])
        jobs = sorted((job for part in parts for job in part), key=lambda job: job.id, reverse=not oldest_first)
        return jobs[:size]

    async def batch(self, batch_id: int) -> Batch | None:
        """See `Store.batch`."""
        self._check_open()
        place = await self._locate(batch_id)
        if place is None:
            return None
        key = f"{self._keys.queue(place[0])[:-1]}bt:{place[1]}"
        total, pending, failed, called = await self._link.command("HMGET", key, "total", "pending", "failed", "called")
        if total is None:
            return None
        callback = None if called is None else int(called)
        return Batch(id=batch_id, total=int(total), pending=int(pending), failed=int(failed), callback=callback)

    async def queues(self) -> list[QueueStatus]:
        """See `Store.queues`."""
        self._check_open()
        await self._learn_names()
        names = sorted(self._numbers)
        keys = self._keys
        answers = await asyncio.gather(
            *[
                self._link.run(
                    queries.QUEUE,
                    (keys.queue(name), keys.ready(name), keys.blocked(name), keys.fresh(name, self._numbers[name])),
                    (),
                )
                for name in names
            ]
        )
        found = []
        for name, (flat, available) in zip(names, answers, strict=True):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if b"no" in fields:
                counts: dict[str, int] = dict.fromkeys(STATES, 0)
                counts.update((state, int(fields.get(b"n" + code, 0))) for code, state in STATE_OF.items())
                counts["available"] = available
                config = fields.get(b"cfg")
                found.append(
                    QueueStatus(
                        name=name,
                        paused=fields.get(b"paused") == b"1",
                        counts=counts,
                        config=DEFAULT_QUEUE_CONFIG if config is None else _config(config),
                    )
                )
        return found

    # Operators and schedules ------------------------------------------------------------------------------------------

    async def configure(self, queue: str, config: QueueConfig) -> None:
        """See `Store.configure`."""
        machine.check_queue(queue)
        machine.check_config(config)
        self._check_open()
        number = await self._register(queue)
        rate: Argument = "" if config.rate is None else config.rate
        told = (msgspec.json.encode(config), rate, config.burst, config.keep_completed_s, config.keep_failed_s)
        if not await self._run(queries.CONFIGURE, queue, number, 1, "", *told):
            raise StoreUnavailable(f"the registry at {self._keys.names} disagrees with queue {queue!r}")

    async def pause(self, queue: str, paused: bool = True) -> None:
        """See `Store.pause`."""
        self._check_open()
        if not await self._run(queries.CONFIGURE, queue, "", 0, int(paused), "", "", "", "", ""):
            raise QueueNotFound(f"no queue is named {queue!r}")

    def _schedule_keys(self) -> tuple[str, str, str]:
        return self._keys.schedules, self._keys.created, self._keys.ticks

    async def put_schedule(self, schedule: Schedule) -> None:
        """See `Store.put_schedule`."""
        machine.check_schedule(schedule, self.options.max_payload)
        self._check_open()
        args = (*self._clock(), schedule.name, msgspec.json.encode(schedule))
        await self._link.run(queries.PUT_SCHEDULE, self._schedule_keys(), args)

    async def remove_schedule(self, name: str) -> None:
        """See `Store.remove_schedule`."""
        self._check_open()
        if not await self._link.run(queries.TICK, self._schedule_keys(), (*self._clock(), name, "")):
            raise ScheduleNotFound(f"no schedule is named {name!r}")

    async def schedules(self) -> list[ScheduleStatus]:
        """See `Store.schedules`."""
        self._check_open()
        flats = await asyncio.gather(*[self._link.command("HGETALL", key) for key in self._schedule_keys()])
        documents, created, ticks = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in flats)
        return [
            ScheduleStatus(
                schedule=msgspec.json.decode(document, type=Schedule),
                created_at=float(created[name]),
                last_tick=float(ticks[name]) if name in ticks else None,
            )
            for name, document in sorted(documents.items())
            if name in created
        ]

    async def ticked(self, name: str, tick: float) -> None:
        """See `Store.ticked`."""
        self._check_open()
        await self._link.run(queries.TICK, self._schedule_keys(), (*self._clock(), name, repr(tick)))


def _config(document: bytes) -> QueueConfig:
    return msgspec.json.decode(document, type=QueueConfig)
