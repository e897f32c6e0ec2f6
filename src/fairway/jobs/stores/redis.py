"""Jobs on Redis 7 or Valkey: any number of processes share one store, by Redis's own clock.

The hash of a job is the truth, once it was claimed or changed; a sorted set a queue is the order of dispatch, a stream
a queue tells who waits that there is news. Every step is one script (`redis_scripts`), many jobs a call. What an
acknowledged job survives is what Redis was told to survive: with ``appendfsync always`` a power cut, with ``everysec``
the death of Redis but not the last one to two seconds before a power cut. FLUSHALL empties the store, which goes on:
running fences are answered LOST, and no id comes again.

All keys of a namespace lie in one slot of a cluster, and `fairway.resp` follows that slot. A primary acknowledges
before its replicas have a step: after a failover jobs that were not replicated are gone, and steps (a claim, a
completion) undone. Ids and fences of such steps do not come again, so that no completion of before is taken for
another's.

The clock is Redis's TIME for leases and due times alike, unless `StoreOptions.clock` is one of a test's own. Leases
that ran out while Redis itself was down are not charged: at the first look after its restart they get
`restart_grace_s`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from fairway.clock import SYSTEM_CLOCK
from fairway.jobs import machine
from fairway.jobs.errors import (
    JobConflict,
    JobError,
    JobNotFound,
    StoreUnavailable,
)
from fairway.jobs.job import (
    Completed,
    Durability,
    Enqueued,
    Failed,
    Job,
    Lease,
    NewBatch,
    NewJob,
    OnceVerdict,
    Outcome,
    Released,
    Snoozed,
    Verdict,
)
from fairway.jobs.store import ERROR_LIMIT, Features, Store, StoreOptions
from fairway.jobs.stores import redis_keys as forms
from fairway.jobs.stores import redis_queries as queries
from fairway.jobs.stores import redis_scripts as scripts
from fairway.jobs.stores.redis_keys import CODE_OF, join_id
from fairway.jobs.stores.redis_views import RedisViews
from fairway.resp import Argument, Refusal, leads_elsewhere, pack
from fairway.telemetry import log

_ANEW = ("NOMKSTREAM", "0-*")
_CHUNK = 1_000  # jobs that one script claims or settles
_CHUNK_BYTES = 16 * 1024 * 1024
_VERDICTS = (Verdict.OK, Verdict.CANCEL, Verdict.LOST)


class _Asked:
    """What one round of a claim came to."""

    __slots__ = ("leases", "marks", "nap", "silent")

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.marks: dict[str, tuple[str, int, int]] = {}  # of a queue: mark, number, newest; see the script
        self.nap = 30.0
        self.silent = False


class _Claim(NamedTuple):
    queues: Sequence[str]
    limit: int
    lease_s: float
    worker: str


class RedisStore(RedisViews, Store):
    """See the module's text. One event loop opens it and calls it; `renew` may come from any thread.

    Args:
        url: ``redis://user:password@host:port/db``, ``rediss://…?ssl_ca_certs=FILE`` for TLS, ``unix://path``; several
            nodes of a cluster as ``redis://host1:7001,host2:7002``.
        options: Bounds, or None for the defaults.
        namespace: First part of every key's tag; stores of different namespaces share nothing.
    """

    features = Features(durability="process", shared=True, cross_queue=False, survives_restart=True)

    @classmethod
    def from_url(cls, url: str, options: StoreOptions | None = None) -> RedisStore:
        """Return a store, not open, at `url`; ``?namespace=NAME`` sets its namespace.

        Raises:
            JobError: It cannot be read.
        """
        if "+cluster://" in url:
            raise JobError(
                "expected a URL that starts with redis://, rediss:// or unix://, got one with +cluster",
                code="jobs.store_url",
                hint="a cluster needs no other scheme: redis://HOST:PORT of any node, or several with commas between",
            )
        address, namespace = _split_namespace(url)
        return cls(address, options, namespace=namespace)

    # Producers --------------------------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Enqueued:
        """See `Store.enqueue`."""
        machine.check_jobs(jobs, batch, self.options.max_payload)
        self._check_open()
        if len(jobs) == 1 and batch is None:
            job = jobs[0]
            number = self._numbers.get(job.queue)
            if number is not None and (sent := self._send_one(job, number)) is not None:
                try:
                    answer = await sent
                except Refusal as error:
                    if not leads_elsewhere(error):
                        raise self._link.refused(error) from error
                    fresh = self._keys.fresh(job.queue, number)
                    answer = await self._link.command("XADD", fresh, *_ANEW, self._now(), forms.body(job))
                if answer is not None:
                    known = self._checked is self._link.address
                    durability = self.features.durability if known else await self._promised()
                    return Enqueued(ids=[join_id(int(answer[2:]), number)], durability=durability)
        machine.check_queues_agree(jobs, batch)
        places: dict[str, list[int]] = {}
        for n, job in enumerate(jobs):
            places.setdefault(job.queue, []).append(n)
        head: list[Argument] = ["0", "", ""]
        if batch is not None:
            callback = batch.callback
            head = ["1", "", ""] if callback is None else ["2", forms.extras(callback), forms.body(callback)]
        packed: dict[str, list[Argument]] = {}
        for queue, positions in places.items():
            packed[queue] = [part for n in positions for part in (forms.extras(jobs[n]), forms.body(jobs[n]))]
        seqs, numbers = await self._insert(head, packed)
        durability = await self._promised()
        return self._enqueued(seqs, numbers, places, len(jobs), batch is not None, durability=durability)

    def _send_one(self, job: NewJob, number: int) -> asyncio.Future[Any] | None:
        """Send a small job of defaults for a queue that is known; None says that it takes the general way.

        It becomes an entry of the stream of fresh jobs, whose id Redis counts on: one command, which is answered with
        null where that stream is not there (any more).
        """
        if self.options.clock is not SYSTEM_CLOCK or not forms.is_plain(job):
            return None
        body = forms.body(job)
        if len(body) > forms.WHOLE:
            return None
        known = self._heads.get(job.queue)
        if known is None or known[0] != number:
            # What is the same for every job of the queue is packed once.
            head = b"*6\r\n" + pack(("XADD", self._keys.fresh(job.queue, number), *_ANEW))
            known = self._heads[job.queue] = (number, head)
        now = self._now()
        return self._link.send(b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (known[1], len(now), now, len(body), body))

    def _now(self) -> bytes:
        """Return the time by Redis's clock, as far as it is known here: it was asked within the last second or so."""
        return b"%.6f" % (self._lead + monotonic())

    async def _insert(
        self, head: list[Argument], packed: dict[str, list[Argument]]
    ) -> tuple[list[int], dict[str, int]]:
        keys = [self._keys.queue(queue) for queue in packed]
        fresh: set[str] = set()
        for _ in range(len(packed) + 2):
            args: list[Argument] = [*self._clock(), *head]
            numbers: dict[str, int] = {}
            for queue, parts in packed.items():
                number = self._numbers.get(queue)
                if number is None or queue in fresh:
                    number = await self._register(queue)
                    fresh.add(queue)
                numbers[queue] = number
                args += (number, 1 if queue in fresh else 0, len(parts) // 2, *parts)
            answer: list[int] = await self._link.run(scripts.ENQUEUE, keys, args)
            if answer[0] != 0:
                return answer, numbers
            # Everything was flushed since the number was learned: the queue is a new one.
            fresh.add(list(packed)[answer[1] - 1])
        raise StoreUnavailable(
            f"the registry at {self._keys.names} disagrees with its queues", hint="was a part of the keys deleted?"
        )

    def _enqueued(
        self,
        answer: list[int],
        numbers: dict[str, int],
        places: dict[str, list[int]],
        count: int,
        is_batch: bool,
        *,
        durability: Durability,
    ) -> Enqueued:
        ids, duplicates = [0] * count, []
        at = 0
        for queue, positions in places.items():
            number = numbers[queue]
            for n in positions:
                seq = answer[at]
                at += 1
                ids[n] = join_id(abs(seq), number)
                if seq < 0 and ids[n] not in duplicates:
                    duplicates.append(ids[n])
        batch = join_id(answer[at], number) if is_batch else None
        return Enqueued(ids=ids, duplicates=duplicates, batch=batch, durability=durability)

    async def cancel(self, job_id: int) -> Job:
        """See `Store.cancel`."""
        _, job = await self._change(job_id, "cancel")
        return job

    async def retry(self, job_id: int) -> Job:
        """See `Store.retry`."""
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

    async def replay(self, queue: str | None = None, kind: str | None = None, limit: int = 1000) -> int:
        """See `Store.replay`."""
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

    # Workers ----------------------------------------------------------------------------------------------------------

    async def claim(
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        """See `Store.claim`."""
        machine.check_claim(queues, limit, lease_s, wait_s)
        self._check_open()
        loop = asyncio.get_running_loop()
        claim = _Claim(queues, limit, lease_s, worker)
        end = loop.time() + wait_s
        asked = await self._asking(self._ask(claim, {}))
        while True:
            left = end - loop.time()
            if asked.leases or asked.silent or left <= 0 or not self._open:
                return asked.leases
            asked = await self._ask_when_there_is_news(claim, asked.marks, min(left, asked.nap))

    async def _asking(self, asking: Coroutine[Any, Any, _Asked]) -> _Asked:
        """Await `asking`; where the caller is cancelled meanwhile, hand back what it brings."""
        task = asyncio.create_task(asking)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            returning = self._return(task)
            with suppress(asyncio.CancelledError):
                await asyncio.wait((returning,), timeout=2.0)
            raise

    def _return(self, asking: Awaitable[_Asked], *wakes: str) -> asyncio.Task[None]:
        """Begin to hand back what `asking` brings, which waits at `wakes`."""
        returning = asyncio.create_task(self._hand_back(asking, *wakes))
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)
        return returning

    async def _hand_back(self, asking: Awaitable[_Asked], *wakes: str) -> None:
        try:
            if wakes:
                await self._rouse(*wakes)
            asked = await asking
            if asked.leases:
                await self._settle([Released(x.id, x.fence) for x in asked.leases])
        except StoreUnavailable as error:
            log.get("jobs").warning("cannot hand back what a cancelled claim got", error=str(error))

    async def _ask(self, claim: _Claim, marks: dict[str, tuple[str, int, int]]) -> _Asked:
        """Claim now; `marks` are those of the round before, where the claim has waited."""
        asked = _Asked()
        for queue in claim.queues:
            while (room := claim.limit - len(asked.leases)) > 0 and not asked.silent:
                wanted = min(room, _CHUNK)
                args = self._claiming(claim, wanted, marks[queue][0] if marks else "")
                try:
                    answer = await self._link.run(scripts.CLAIM, (self._keys.queue(queue),), args)
                except StoreUnavailable:
                    if asked.leases:
                        return asked
                    raise
                if self._take(asked, queue, answer) < wanted:
                    break
        return asked

    def _claiming(self, claim: _Claim, wanted: int, mark: str) -> tuple[Argument, ...]:
        return (*self._clock(), wanted, claim.lease_s, claim.worker, mark, self.options.restart_grace_s)

    def _take(self, asked: _Asked, queue: str, answer: list[Any]) -> int:
        """Add what the script answered about one queue; return how many jobs it gave."""
        rows, nap, mark, silent, number, newest = answer
        if rows:
            # Not the number known here: everything may have been flushed since.
            self._numbers[queue], self._names[number] = number, queue
            make = forms.lease
            asked.leases += [make(rows[at : at + 6], queue, number) for at in range(0, len(rows), 6)]
        elif silent:
            asked.silent = True
        else:
            asked.marks[queue] = (mark.decode(), number, newest)
            if nap:
                asked.nap = min(asked.nap, float(nap) + 0.001)
        return len(rows) // 6

    async def _ask_when_there_is_news(
        self, claim: _Claim, marks: dict[str, tuple[str, int, int]], timeout_s: float
    ) -> _Asked:
        """Wait for something after `marks`, or the time, and claim then: of one queue in the same round trip."""
        streams = {self._keys.wake(queue): mark for queue, (mark, _, _) in marks.items()}
        for queue, (_, number, newest) in marks.items():
            if newest >= 0:
                streams[self._keys.fresh(queue, number)] = f"0-{newest}"
        command: tuple[Argument, ...] | None = None
        if len(claim.queues) == 1:
            queue = claim.queues[0]
            args = self._claiming(claim, min(claim.limit, _CHUNK), marks[queue][0])
            command = ("EVALSHA", scripts.CLAIM.sha, 1, self._keys.queue(queue), *args)
        queue, asked = claim.queues[0], _Asked()
        returning: list[asyncio.Task[None]] = []

        async def unwanted(answering: Awaitable[Any]) -> _Asked:
            if (answer := await answering) is not None:
                self._take(asked, queue, answer)
            return asked

        busy = asyncio.get_running_loop().create_future()
        self._asks.add(busy)
        try:
            answer = await self._lanes.wait(
                streams,
                timeout_s,
                command,
                lambda rest: returning.append(self._return(unwanted(rest), next(iter(streams)))),
            )
            if answer is not None:
                self._take(asked, queue, answer)
            elif self._open:
                asked = await self._asking(self._ask(claim, marks))
            if asked.leases and not self._open:
                await self._settle([Released(x.id, x.fence) for x in asked.leases])
                asked.leases = []
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(returning, timeout=2.0) if returning else None
            raise
        finally:
            self._asks.discard(busy)
            busy.set_result(None)
        return asked

    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
        """See `Store.renew`."""
        return self._renewal.renew(leases, lease_s)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        """See `Store.settle`."""
        self._check_open()
        machine.check_outcomes(outcomes)
        return await self._settle(outcomes)

    async def _settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        verdicts = [Verdict.LOST] * len(outcomes)
        for queue, positions in (await self._by_queue([outcome.id for outcome in outcomes])).items():
            for chunk in _chunks(positions, outcomes):
                args = await self._outcomes(queue, [outcomes[n] for n in chunk])
                answer = await self._run(scripts.SETTLE, queue, *args)
                for n, code in zip(chunk, answer, strict=True):
                    verdicts[n] = _VERDICTS[code]
        return verdicts

    async def _outcomes(self, queue: str, outcomes: list[Outcome]) -> list[Argument]:
        """Return what the settling script takes, with the failures decided."""
        most = self.options.max_payload
        args: list[Argument] = []
        failed: list[tuple[int, Failed]] = []
        for outcome in outcomes:
            args += (outcome.id >> forms.NUMBER_BITS, outcome.fence)
            if isinstance(outcome, Completed):
                failure = machine.unfit(outcome, most)
                if failure is None:
                    args += ("c", bytes(outcome.result), "")
                    continue
                outcome = failure  # noqa: PLW2901 - it takes its place
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

    async def progress(self, job_id: int, fence: int, value: float, note: str | None = None) -> Verdict:
        """See `Store.progress`."""
        machine.check_progress(value, note)
        self._check_open()
        place = await self._locate(job_id)
        if place is None:
            return Verdict.LOST
        told = f"{value!r} ".encode() + msgspec.json.encode(note)
        return _VERDICTS[await self._run(queries.PROGRESS, place[0], place[1], fence, told)]

    async def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:
        """See `Store.once`."""
        machine.check_key(key)
        self._check_open()
        place = await self._locate(job_id)
        if place is None:
            return OnceVerdict.LOST
        return OnceVerdict((await self._run(queries.ONCE, place[0], place[1], fence, key)).decode())


def _split_namespace(url: str) -> tuple[str, str]:
    from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    namespace = query.pop("namespace", "fairway")
    machine.check_queue(namespace, "namespace")
    return urlunsplit(parts._replace(query=urlencode(query))), namespace


def _chunks(positions: list[int], outcomes: Sequence[Outcome]) -> Iterator[list[int]]:
    """Yield parts of `positions` that one script settles."""
    chunk, size = [], 0
    for n in positions:
        outcome = outcomes[n]
        chunk.append(n)
        size += len(memoryview(outcome.result)) if isinstance(outcome, Completed) else 0
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _after(outcome: Failed, seen: list[bytes]) -> str:
    """Return what becomes of a failed job as the settling script reads it; that looks at a cancellation itself."""
    if not seen:
        return "d 0"
    attempt, most, packed = seen
    after = machine.after_failure(outcome, int(attempt), int(most), forms.backoff(packed), cancel_requested=False)
    return f"{CODE_OF[after.state]} {after.delay!r}"
