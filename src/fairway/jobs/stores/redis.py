"""Jobs on Redis 7 or Valkey: any number of processes share one store, by Redis's own clock.

The hash of a job is the truth, a sorted set a queue is the order of dispatch, a stream a queue tells who waits that
there is news. Every step is one script (`redis_scripts`), many jobs a call. What an acknowledged job survives is what
Redis was told to survive: with ``appendfsync always`` a power cut, with ``everysec`` the death of Redis but not the
last one to two seconds before a power cut, and after a failover what was not replicated is gone. FLUSHALL empties the
store, which goes on: running fences are answered LOST, and no id comes again.

The clock is Redis's TIME for leases and due times alike, unless `StoreOptions.clock` is one of a test's own. Leases
that ran out while Redis itself was down are not charged: at the first look after its restart they get
`restart_grace_s`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from fairway.clock import SYSTEM_CLOCK
from fairway.jobs import machine
from fairway.jobs.errors import (
    InvalidJob,
    JobConflict,
    JobError,
    JobNotFound,
    QueueNotFound,
    ScheduleNotFound,
    StoreUnavailable,
)
from fairway.jobs.job import (
    DEFAULT_QUEUE_CONFIG,
    STATES,
    Batch,
    Completed,
    Durability,
    Enqueued,
    Failed,
    Job,
    JobFilter,
    Lease,
    NewBatch,
    NewJob,
    OnceVerdict,
    Outcome,
    QueueConfig,
    QueueStatus,
    Released,
    Schedule,
    ScheduleStatus,
    Snoozed,
    Verdict,
)
from fairway.jobs.store import ERROR_LIMIT, Features, Store, StoreOptions
from fairway.jobs.stores import redis_keys as forms
from fairway.jobs.stores import redis_scripts as scripts
from fairway.jobs.stores.redis_keys import CODE_OF, STATE_OF, Keys, join_id, split_id
from fairway.jobs.stores.redis_link import Address, Link, Script
from fairway.jobs.stores.redis_news import Mark, News, Woken, parse_mark
from fairway.jobs.stores.redis_renewal import Renewal
from fairway.telemetry import log

_CHUNK = 1_000  # jobs that one script claims or settles
_MAINTAIN_S = 1.0
_LOOK_AGAIN_S = 5.0  # a wait asks again this often, whatever it hears
_VERDICTS = (Verdict.OK, Verdict.CANCEL, Verdict.LOST)
_FINAL_CODES = frozenset((b"c", b"d", b"x"))
_Argument = str | bytes | int | float


class _Asked:
    """What one round of a claim came to."""

    __slots__ = ("leases", "marks", "nap", "silent")

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.marks: dict[str, Mark] = {}
        self.nap = 30.0
        self.silent = False


class RedisStore(Store):
    """See the module's text. One event loop opens it and calls it; `renew` may come from any thread.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
        options: Bounds, or None for the defaults.
        namespace: First part of every key's tag; stores of different namespaces share nothing.
    """

    features = Features(durability="process", shared=True, cross_queue=False, survives_restart=True)

    def __init__(self, url: str, options: StoreOptions | None = None, *, namespace: str = "fairway") -> None:
        self.options = options or StoreOptions()
        self._keys = Keys(namespace)
        self._address = Address(url)
        self._renewal = Renewal(url, self._keys, self._clock)
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._open = False
        self._opening = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()

    @classmethod
    def from_url(cls, url: str, options: StoreOptions | None = None) -> RedisStore:
        """Return a store, not open, at `url`; ``?namespace=NAME`` sets its namespace.

        Raises:
            JobError: It is the address of a cluster's client, which this store has none for.
        """
        if "+cluster://" in url:
            raise JobError(
                f"expected a URL that starts with redis://, rediss:// or unix://, got {url!r}",
                code="jobs.store_url",
                hint="the keys are ready for a cluster, the connection is not: name one primary that holds all slots",
            )
        address, namespace = _split_namespace(url)
        return cls(address, options, namespace=namespace)

    # Life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:  # noqa: D102 - the interface says it
        async with self._opening:
            if self._open:
                return
            self._link = Link(self._address)
            self._news = News(self._address, self._keys)
            try:
                await self._link.connect()
                self.features = msgspec.structs.replace(self.features, durability=await self._check_server())
                await self._learn_names()
            except BaseException:
                await self._link.close()
                raise
            self._open = True
            self._renewal.open(self._names)
            self._task = asyncio.create_task(self._maintain_on(), name="redis-maintain")

    async def close(self) -> None:  # noqa: D102
        async with self._opening:
            if not self._open:
                return
            self._open = False
            await self._news.close()
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            if self._returning:
                await asyncio.wait(self._returning, timeout=2.0)
            await self._link.finish(5.0)
            await self._link.close()
            await asyncio.to_thread(self._renewal.close)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the redis store is not open")

    async def _check_server(self) -> Durability:
        """Refuse a server that would lose jobs by design; return what this one makes a job survive."""
        settings: dict[bytes, bytes] = {}
        try:
            for name in ("maxmemory-policy", "appendonly", "appendfsync"):
                answer = await self._link.command("CONFIG", "GET", name)
                settings.update(zip(answer[::2], answer[1::2], strict=True))
        except StoreUnavailable as error:
            if "lost" in error.message:
                raise
            log.get("jobs").info("redis does not tell its configuration: maxmemory-policy has to be noeviction")
        policy = settings.get(b"maxmemory-policy", b"noeviction").decode()
        if policy != "noeviction":
            raise StoreUnavailable(
                f"redis would evict jobs: expected maxmemory-policy noeviction, got {policy}",
                hint="CONFIG SET maxmemory-policy noeviction",
            )
        if settings.get(b"appendonly") == b"no":
            return "memory"
        return "fsync" if settings.get(b"appendfsync") == b"always" else "process"

    def _clock(self) -> tuple[_Argument, _Argument]:
        """Return what the scripts take as the time: nothing, for their own, or a test's wall and monotonic."""
        clock = self.options.clock
        return ("", "") if clock is SYSTEM_CLOCK else (repr(clock.time()), repr(clock.monotonic()))

    async def _run(self, script: Script, queue: str, *args: _Argument) -> Any:
        return await self._link.run(script, (self._keys.queue(queue),), (*self._clock(), *args))

    # Queues by number ---------------------------------------------------------------------------------------------

    async def _learn_names(self) -> None:
        """Read the registry; what was flushed away is forgotten here as well."""
        answer = await self._link.command("HGETALL", self._keys.names)
        numbers = {name.decode(): int(number) for name, number in zip(answer[::2], answer[1::2], strict=True)}
        self._numbers.clear()
        self._numbers.update(numbers)
        self._names.clear()
        self._names.update((number, name) for name, number in numbers.items())

    async def _register(self, queue: str) -> int:
        """Return the queue's number, drawing one for a queue that has none."""
        for count in (8, 512, forms.MAX_NUMBER):
            drawn = random.sample(range(1, forms.MAX_NUMBER + 1), count)
            number = int(
                await self._link.run(scripts.REGISTER, (self._keys.names, self._keys.numbers), (queue, *drawn))
            )
            if number:
                self._numbers[queue], self._names[number] = number, queue
                return number
        raise JobError(
            f"expected at most {forms.MAX_NUMBER} queues, {queue!r} is one more", code="jobs.too_many_queues"
        )

    async def _queue_of(self, number: int) -> str | None:
        name = self._names.get(number)
        if name is None:
            answer = await self._link.command("HGET", self._keys.numbers, number)
            if answer is not None:
                name = self._names[number] = answer.decode()
        return name

    async def _locate(self, job_id: int) -> tuple[str, int, int] | None:
        """Return ``(queue, seq, number)`` of an id."""
        seq, number = split_id(job_id)
        queue = await self._queue_of(number) if job_id > 0 else None
        return None if queue is None else (queue, seq, number)

    async def _by_queue(self, ids: Sequence[int]) -> dict[str, list[int]]:
        """Return the positions of `ids` by the queue they are in; those of no queue are left out."""
        places: dict[int, list[int]] = {}
        for n, job_id in enumerate(ids):
            places.setdefault(job_id & forms.MAX_NUMBER, []).append(n)
        found: dict[str, list[int]] = {}
        for number, positions in places.items():
            queue = await self._queue_of(number)
            if queue is not None:
                found[queue] = positions
        return found

    # Producers ----------------------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Enqueued:  # noqa: D102
        machine.check_jobs(jobs, batch, self.options.max_payload)
        machine.check_queues_agree(jobs, batch)
        self._check_open()
        places: dict[str, list[int]] = {}
        for n, job in enumerate(jobs):
            places.setdefault(job.queue, []).append(n)
        head: list[_Argument] = ["0", "", ""]
        if batch is not None:
            callback = batch.callback
            head = ["1", "", ""] if callback is None else ["2", forms.extras(callback), forms.body(callback)]
        packed: dict[str, list[_Argument]] = {}
        for queue, positions in places.items():
            packed[queue] = [part for n in positions for part in (forms.extras(jobs[n]), forms.body(jobs[n]))]
        answer = await self._insert(jobs, head, packed)
        return self._enqueued(answer, places, len(jobs), batch is not None)

    async def _insert(
        self, jobs: Sequence[NewJob], head: list[_Argument], packed: dict[str, list[_Argument]]
    ) -> list[int]:
        keys = [self._keys.queue(queue) for queue in packed]
        fresh: set[str] = set()
        for _ in range(len(packed) + 2):
            args: list[_Argument] = [*self._clock(), *head]
            for queue, parts in packed.items():
                number = self._numbers.get(queue)
                if number is None or queue in fresh:
                    number = await self._register(queue)
                    fresh.add(queue)
                args += (number, 1 if queue in fresh else 0, len(parts) // 2, *parts)
            try:
                answer: list[int] = await self._link.run(scripts.ENQUEUE, keys, args)
            except StoreUnavailable as error:
                if "CROSSSLOT" not in error.message:
                    raise
                at = next(n for n, job in enumerate(jobs) if job.queue != jobs[0].queue)
                message = "expected the jobs of one call in one queue: this Redis is a cluster"
                raise InvalidJob(message, field=f"jobs[{at}].queue") from error
            if answer[0] != 0:
                return answer
            # Everything was flushed since the number was learned: the queue is a new one.
            fresh.add(list(packed)[answer[1] - 1])
        raise StoreUnavailable(
            f"the registry at {self._keys.names} disagrees with its queues", hint="was a part of the keys deleted?"
        )

    def _enqueued(self, answer: list[int], places: dict[str, list[int]], count: int, is_batch: bool) -> Enqueued:
        ids, duplicates = [0] * count, []
        at = 0
        for queue, positions in places.items():
            number = self._numbers[queue]
            for n in positions:
                seq = answer[at]
                at += 1
                ids[n] = join_id(abs(seq), number)
                if seq < 0 and ids[n] not in duplicates:
                    duplicates.append(ids[n])
        batch = join_id(answer[at], number) if is_batch else None
        return Enqueued(ids=ids, duplicates=duplicates, batch=batch, durability=self.features.durability)

    async def cancel(self, job_id: int) -> Job:  # noqa: D102
        _, job = await self._change(job_id, "cancel")
        return job

    async def retry(self, job_id: int) -> Job:  # noqa: D102
        changed, job = await self._change(job_id, "retry")
        if not changed:
            raise JobConflict(f"job {job_id} is {job.state}: only waiting or failed jobs can be retried")
        return job

    async def _change(self, job_id: int, what: str) -> tuple[bool, Job]:
        self._check_open()
        place = await self._locate(job_id)
        if place is not None:
            queue, seq, number = place
            answer = await self._run(scripts.CHANGE, queue, what, seq)
            if answer[0] != 1:
                return answer[0] == 0, forms.job(answer[1], queue, number)
        raise JobNotFound(f"no job has id {job_id}")

    async def replay(self, queue: str | None = None, kind: str | None = None, limit: int = 1000) -> int:  # noqa: D102
        self._check_open()
        done, after = 0, None
        while done < limit:
            size = min(1000, max(100, limit - done))
            page = await self._page(queue, "d", after, size, oldest_first=True)
            dead = [job.id for job in page if kind is None or job.kind == kind][: limit - done]
            for start in range(0, len(dead), 100):
                changes = [self._change(job_id, "dead") for job_id in dead[start : start + 100]]
                answers = await asyncio.gather(*changes, return_exceptions=True)
                for answer in answers:
                    if isinstance(answer, BaseException):
                        if not isinstance(answer, JobNotFound):
                            raise answer
                    else:
                        done += answer[0]
            if len(page) < size:
                break
            after = page[-1].id
        return done

    # Workers ------------------------------------------------------------------------------------------------------

    async def claim(  # noqa: D102
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        machine.check_claim(queues, limit, lease_s, wait_s)
        self._check_open()
        loop = asyncio.get_running_loop()
        end, parked = loop.time() + wait_s, "0"
        while True:
            asked = await self._asking(self._ask(queues, limit, lease_s, worker, parked))
            left = end - loop.time()
            if asked.leases or asked.silent or left <= 0 or not self._open:
                return asked.leases
            woken = await self._news.wait(asked.marks, min(left, asked.nap), worker=worker)
            if woken in (Woken.SILENT, Woken.CLOSED):
                return []
            parked = "1"

    async def _asking(self, asking: Awaitable[_Asked]) -> _Asked:
        """Await `asking`; where the caller is cancelled meanwhile, hand back what it brings."""
        task = asyncio.ensure_future(asking)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            returning = asyncio.create_task(self._hand_back(task))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            with suppress(asyncio.CancelledError):
                await asyncio.wait((returning,), timeout=2.0)
            raise

    async def _hand_back(self, task: asyncio.Future[_Asked]) -> None:
        try:
            asked = await task
            if asked.leases:
                await self._settle([Released(x.id, x.fence) for x in asked.leases])
        except StoreUnavailable as error:
            log.get("jobs").warning("cannot hand back what a cancelled claim got", error=str(error))

    async def _ask(self, queues: Sequence[str], limit: int, lease_s: float, worker: str, parked: str) -> _Asked:
        asked = _Asked()
        grace = self.options.restart_grace_s
        for queue in queues:
            while (room := limit - len(asked.leases)) > 0:
                wanted = min(room, _CHUNK)
                try:
                    answer = await self._run(scripts.CLAIM, queue, wanted, lease_s, worker, parked, grace)
                except StoreUnavailable:
                    if asked.leases:
                        return asked
                    raise
                rows, nap, mark, silent = answer
                if rows:
                    await self._add_leases(asked, rows, queue)
                elif silent:
                    asked.silent = True
                    return asked
                else:
                    asked.marks[queue] = parse_mark(mark)
                    if nap:
                        asked.nap = min(asked.nap, float(nap) + 0.001)
                if len(rows) < 6 * wanted:
                    break
        return asked

    async def _add_leases(self, asked: _Asked, rows: list[bytes | int], queue: str) -> None:
        number = self._numbers.get(queue)
        if number is None:
            number = await self._register(queue)
        make = forms.lease
        asked.leases += [make(rows[at : at + 6], queue, number) for at in range(0, len(rows), 6)]

    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:  # noqa: D102
        return self._renewal.renew(leases, lease_s)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:  # noqa: D102
        self._check_open()
        machine.check_outcomes(outcomes)
        return await self._settle(outcomes)

    async def _settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        verdicts = [Verdict.LOST] * len(outcomes)
        for queue, positions in (await self._by_queue([outcome.id for outcome in outcomes])).items():
            for start in range(0, len(positions), _CHUNK):
                chunk = positions[start : start + _CHUNK]
                args = await self._outcomes(queue, [outcomes[n] for n in chunk])
                answer = await self._run(scripts.SETTLE, queue, *args)
                for n, code in zip(chunk, answer, strict=True):
                    verdicts[n] = _VERDICTS[code]
        return verdicts

    async def _outcomes(self, queue: str, outcomes: list[Outcome]) -> list[_Argument]:
        """Return what the settling script takes, with the failures decided."""
        most = self.options.max_payload
        args: list[_Argument] = []
        failed: list[tuple[int, Failed]] = []
        for outcome in outcomes:
            args += (outcome.id >> forms.NUMBER_BITS, outcome.fence)
            if isinstance(outcome, Completed):
                result = bytes(outcome.result)
                if len(result) <= most:
                    args += ("c", result, "")
                    continue
                outcome = machine.oversize(outcome, most)  # noqa: PLW2901 - the failure takes its place
            if isinstance(outcome, Failed):
                failed.append((len(args), outcome))
                args += ("f", "", outcome.error[:ERROR_LIMIT].encode(errors="replace"))
            elif isinstance(outcome, Released):
                args += ("r", "", "")
            elif isinstance(outcome, Snoozed):
                args += ("z", outcome.delay_s, "")
            else:
                args += ("x", "", "")
        if failed:
            seqs = [outcome.id >> forms.NUMBER_BITS for _, outcome in failed]
            found = await self._link.run(scripts.LOOK, (self._keys.queue(queue),), seqs)
            for (at, outcome), seen in zip(failed, found, strict=True):
                args[at + 1] = _after(outcome, seen)
        return args

    async def progress(self, job_id: int, fence: int, value: float, note: str | None = None) -> Verdict:  # noqa: D102
        machine.check_progress(value)
        self._check_open()
        place = await self._locate(job_id)
        if place is None:
            return Verdict.LOST
        told = f"{value!r} ".encode() + msgspec.json.encode(note)
        return _VERDICTS[await self._run(scripts.PROGRESS, place[0], place[1], fence, told)]

    async def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:  # noqa: D102
        machine.check_key(key)
        self._check_open()
        place = await self._locate(job_id)
        if place is None:
            return OnceVerdict.LOST
        return OnceVerdict((await self._run(scripts.ONCE, place[0], place[1], fence, key)).decode())

    # Readers ------------------------------------------------------------------------------------------------------

    async def get(self, job_id: int) -> Job | None:  # noqa: D102
        self._check_open()
        place = await self._locate(job_id)
        if place is None:
            return None
        queue, seq, number = place
        found = await self._run(scripts.READ, queue, seq)
        return forms.job(found[0], queue, number) if found else None

    async def wait(self, job_id: int, timeout_s: float) -> Job:  # noqa: D102
        self._check_open()
        place = await self._locate(job_id)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while place is not None:
            queue, seq, _ = place
            left = end - loop.time()
            state, mark = await self._run(scripts.AWAIT, queue, seq, max(0.0, left) + 2 * _LOOK_AGAIN_S)
            if not state:
                break
            if state in _FINAL_CODES or left <= 0:
                job = await self.get(job_id)
                if job is None:
                    break
                return job
            await self._news.wait({queue: parse_mark(mark)}, min(left, _LOOK_AGAIN_S), job=(queue, str(seq).encode()))
            self._check_open()
        raise JobNotFound(f"no job has id {job_id}")

    async def find(self, where: JobFilter) -> list[Job]:  # noqa: D102
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
                edge: _Argument = ""
            elif oldest_first:
                edge = (bound - number) // (forms.MAX_NUMBER + 1)
            else:
                edge = (bound - number + forms.MAX_NUMBER) // (forms.MAX_NUMBER + 1)
            rows = await self._run(scripts.FIND, name, state, edge, size, "1" if oldest_first else "")
            return [forms.job(row, name, number) for row in rows]

        parts = await asyncio.gather(*[of(name, number) for name, number in numbers.items()])
        jobs = sorted((job for part in parts for job in part), key=lambda job: job.id, reverse=not oldest_first)
        return jobs[:size]

    async def batch(self, batch_id: int) -> Batch | None:  # noqa: D102
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

    async def queues(self) -> list[QueueStatus]:  # noqa: D102
        self._check_open()
        await self._learn_names()
        names = sorted(self._numbers)
        answers = await asyncio.gather(*[self._link.command("HGETALL", self._keys.queue(name)) for name in names])
        found = []
        for name, flat in zip(names, answers, strict=True):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if b"no" in fields:
                counts: dict[str, int] = dict.fromkeys(STATES, 0)
                counts.update((state, int(fields.get(b"n" + code, 0))) for code, state in STATE_OF.items())
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

    # Operators and schedules --------------------------------------------------------------------------------------

    async def configure(self, queue: str, config: QueueConfig) -> None:  # noqa: D102
        machine.check_queue(queue)
        machine.check_config(config)
        self._check_open()
        number = await self._register(queue)
        rate: _Argument = "" if config.rate is None else config.rate
        told = (msgspec.json.encode(config), rate, config.burst, config.keep_completed_s, config.keep_failed_s)
        if not await self._run(scripts.CONFIGURE, queue, number, 1, "", *told):
            raise StoreUnavailable(f"the registry at {self._keys.names} disagrees with queue {queue!r}")

    async def pause(self, queue: str, paused: bool = True) -> None:  # noqa: D102
        self._check_open()
        if not await self._run(scripts.CONFIGURE, queue, "", 0, int(paused), "", "", "", "", ""):
            raise QueueNotFound(f"no queue is named {queue!r}")

    async def maintain(self) -> None:  # noqa: D102
        self._check_open()
        await self._maintain()

    async def _maintain(self) -> None:
        await self._learn_names()
        grace = self.options.restart_grace_s

        async def keep(queue: str) -> None:
            while await self._run(scripts.MAINTAIN, queue, grace):
                continue

        await asyncio.gather(*[keep(queue) for queue in list(self._numbers)])
        if self.options.clock is not SYSTEM_CLOCK:
            # A clock that is moved by hand may have filled a token bucket, which nothing else would tell of.
            self._news.wake_workers()

    async def _maintain_on(self) -> None:
        pause = _MAINTAIN_S
        while True:
            # More rarely where there are many queues: the work of a second stays about the same.
            await asyncio.sleep(max(pause, len(self._numbers) / 50))
            try:
                await self._maintain()
            except StoreUnavailable as error:
                log.get("jobs").warning("cannot maintain the redis store", error=str(error), again_in_s=pause)
                pause = min(10.0, pause * 2)
            else:
                pause = _MAINTAIN_S

    def _schedule_keys(self) -> tuple[str, str, str]:
        return self._keys.schedules, self._keys.created, self._keys.ticks

    async def put_schedule(self, schedule: Schedule) -> None:  # noqa: D102
        machine.check_schedule(schedule, self.options.max_payload)
        self._check_open()
        args = (*self._clock(), schedule.name, msgspec.json.encode(schedule))
        await self._link.run(scripts.PUT_SCHEDULE, self._schedule_keys(), args)

    async def remove_schedule(self, name: str) -> None:  # noqa: D102
        self._check_open()
        if not await self._link.run(scripts.TICK, self._schedule_keys(), (*self._clock(), name, "")):
            raise ScheduleNotFound(f"no schedule is named {name!r}")

    async def schedules(self) -> list[ScheduleStatus]:  # noqa: D102
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

    async def ticked(self, name: str, tick: float) -> None:  # noqa: D102
        self._check_open()
        await self._link.run(scripts.TICK, self._schedule_keys(), (*self._clock(), name, repr(tick)))

    def statistics(self) -> dict[str, int]:
        """Return how many queues are known here and how many calls wait."""
        waiting = len(self._news) if self._open else 0
        return {"queues": len(self._numbers), "waiting": waiting}

    def __repr__(self) -> str:
        return f"<RedisStore {self._address} {self._keys.namespace} [{'open' if self._open else 'closed'}]>"


def _split_namespace(url: str) -> tuple[str, str]:
    from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    namespace = query.pop("namespace", "fairway")
    machine.check_queue(namespace, "namespace")
    return urlunsplit(parts._replace(query=urlencode(query))), namespace


def _after(outcome: Failed, seen: list[bytes]) -> str:
    """Return what becomes of a failed job as the settling script reads it; that looks at a cancellation itself."""
    if not seen:
        return "d 0"
    attempt, most, packed = seen
    after = machine.after_failure(outcome, int(attempt), int(most), forms.backoff(packed), cancel_requested=False)
    return f"{CODE_OF[after.state]} {after.delay!r}"


def _config(document: bytes) -> QueueConfig:
    return msgspec.json.decode(document, type=QueueConfig)
