"""The Redis store's connection, its queues by number, and the upkeep that every process does."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from time import monotonic
from typing import Any

import msgspec

from fairway.clock import SYSTEM_CLOCK
from fairway.jobs.errors import (
    JobError,
    StoreUnavailable,
)
from fairway.jobs.job import (
    Durability,
)
from fairway.jobs.store import Features, StoreOptions
from fairway.jobs.stores import redis_keys as forms
from fairway.jobs.stores import redis_scripts as scripts
from fairway.jobs.stores.redis_keys import Keys, split_id
from fairway.jobs.stores.redis_lanes import Lanes
from fairway.jobs.stores.redis_link import FAULTS, Link, Refused
from fairway.jobs.stores.redis_news import News
from fairway.jobs.stores.redis_renewal import Renewal
from fairway.resp import Address, Argument, Script, Wire
from fairway.telemetry import log

_MAINTAIN_S = 1.0
_ROUSE_S = 1.0  # seconds for telling a waiting claim, which ends by itself soon after
_MIN_VERSION = 7


class RedisSession:
    """What `RedisStore` stands on. See there for the arguments."""

    options: StoreOptions
    features: Features

    def __init__(self, url: str, options: StoreOptions | None = None, *, namespace: str = "fairway") -> None:
        self.options = options or StoreOptions()
        self._keys = Keys(namespace)
        self._addresses = Address.parse(url, FAULTS)
        self._link = Link(self._addresses)
        self._renewal = Renewal(self._places, self._keys, self._clock)
        self._checked: Address | None = None  # the server whose settings are known
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._heads: dict[str, tuple[int, bytes]] = {}  # queue -> number, and how the enqueue of one job begins
        self._lead = 0.0  # seconds that Redis's clock is ahead of this process's monotonic one
        self._lanes = Lanes(self._places)
        self._asks: set[asyncio.Future[None]] = set()  # claims that wait
        self._open = False
        self._opening = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()  # hand-backs of cancelled claims

    async def open(self) -> None:
        """See `Store.open`."""
        async with self._opening:
            if self._open:
                return
            self._link = Link(self._addresses, greeting=self._adopt)
            self._news = News(self._places, self._keys)
            self._lanes = Lanes(self._places)
            try:
                await self._learn_names()  # in a cluster: at the node that has the jobs
                await self._check_server()
            except BaseException:
                await self._link.close()
                raise
            self._open = True
            self._renewal.open(self._names)
            self._task = asyncio.create_task(self._maintain_on(), name="redis-maintain")

    async def close(self) -> None:
        """See `Store.close`."""
        async with self._opening:
            if not self._open:
                return
            self._open = False
            await self._news.close()
            await self._rouse()
            if self._asks:
                await asyncio.wait(self._asks, timeout=2.0)  # and each hands back what it got
            await self._lanes.close()
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

    def _places(self) -> list[Address]:
        return self._link.places()

    async def _adopt(self, wire: Wire) -> None:
        """Have ids and fences go on above those of the server's life before: nothing else goes over `wire` first."""
        told = await wire.call(("EVAL", scripts.ADOPT.text, 1, self._keys.names, *self._clock(), self._keys.root))
        self._lead = float(told) - monotonic()

    async def _rouse(self, *wakes: str) -> None:
        """Have the claims that wait at `wakes`, or all that wait, ask again; they do within two seconds anyway."""
        for wake in wakes or self._lanes.wakes():
            try:
                async with asyncio.timeout(_ROUSE_S):
                    await self._link.command("XADD", wake, "MAXLEN", "~", 1000, "*", "w", "1")
            except (StoreUnavailable, TimeoutError) as error:
                log.get("jobs").warning("cannot rouse a waiting claim", error=str(error) or "no answer")

    async def _promised(self) -> Durability:
        """Return what the server that has the jobs makes them survive; no more than is known of it."""
        if self._checked is not self._link.address:
            try:
                await self._check_server()
            except StoreUnavailable as error:  # after the jobs were stored: to raise would deny that
                log.get("jobs").warning("cannot tell what redis keeps", error=str(error))
                return "memory"
        return self.features.durability

    async def _check_server(self) -> None:
        """Refuse a server that would lose jobs by design; note what this one makes a job survive."""
        told, address = b"", self._link.address
        try:
            told = await self._link.command("INFO", "server")
        except Refused as error:
            if "NOPERM" not in error.message:
                raise
            log.get("jobs").warning(
                "redis does not tell its run_id: leases that end while it is down are charged, and after a failover "
                "fences may come again; let the user call +info"
            )
        version = re.search(rb"redis_version:(\d+)", told)
        if version is not None and int(version[1]) < _MIN_VERSION:
            raise StoreUnavailable(
                f"expected Redis {_MIN_VERSION} or newer, or Valkey, got Redis {version[1].decode()}",
                hint="the scripts declare what they may do when memory is out, which older servers do not know",
            )
        settings: dict[bytes, bytes] = {}
        try:
            for name in ("maxmemory-policy", "appendonly", "appendfsync"):
                answer = await self._link.command("CONFIG", "GET", name)
                settings.update(zip(answer[::2], answer[1::2], strict=True))
        except Refused as error:
            if "NOPERM" not in error.message and "unknown command" not in error.message:
                raise
            settings = {b"appendonly": b"no"}  # no more is promised than is known
            log.get("jobs").info("redis does not tell its configuration: maxmemory-policy has to be noeviction")
        policy = settings.get(b"maxmemory-policy", b"noeviction").decode()
        if policy != "noeviction":
            raise StoreUnavailable(
                f"redis would evict jobs: expected maxmemory-policy noeviction, got {policy}",
                hint="CONFIG SET maxmemory-policy noeviction",
            )
        durability: Durability = "fsync" if settings.get(b"appendfsync") == b"always" else "process"
        if settings.get(b"appendonly") == b"no":
            durability = "memory"
        self.features = msgspec.structs.replace(self.features, durability=durability)
        self._checked = address

    def _clock(self) -> tuple[Argument, Argument]:
        """Return what the scripts take as the time: nothing, for their own, or a test's wall and monotonic."""
        clock = self.options.clock
        return ("", "") if clock is SYSTEM_CLOCK else (repr(clock.time()), repr(clock.monotonic()))

    async def _run(self, script: Script, queue: str, *args: Argument) -> Any:
        return await self._link.run(script, (self._keys.queue(queue),), (*self._clock(), *args))

    # Queues by number -------------------------------------------------------------------------------------------------

    async def _learn_names(self) -> None:
        """Read the registry; what was flushed away is forgotten here as well."""
        answer = await self._link.command("HGETALL", self._keys.names)
        numbers = {name.decode(): int(number) for name, number in zip(answer[::2], answer[1::2], strict=True)}
        self._heads.clear()
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
        queue = await self._queue_of(number) if 0 < job_id < 1 << 53 else None
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

    # Upkeep -----------------------------------------------------------------------------------------------------------

    async def maintain(self) -> None:
        """See `Store.maintain`."""
        self._check_open()
        await self._maintain()

    async def _maintain(self) -> None:
        await self._learn_names()
        if self._checked is not self._link.address:
            await self._check_server()
        seconds, micros = await self._link.command("TIME")
        self._lead = int(seconds) + int(micros) / 1e6 - monotonic()
        grace = self.options.restart_grace_s

        async def keep(queue: str) -> None:
            while await self._run(scripts.MAINTAIN, queue, grace):
                continue

        await asyncio.gather(*[keep(queue) for queue in list(self._numbers)])
        if self.options.clock is not SYSTEM_CLOCK:
            # A clock that is moved by hand may have filled a token bucket, which nothing else would tell of.
            await self._rouse()

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

    def statistics(self) -> dict[str, int]:
        """Return how many queues are known here and how many calls wait."""
        waiting = len(self._news) + len(self._lanes) if self._open else 0
        return {"queues": len(self._numbers), "waiting": waiting}

    def __repr__(self) -> str:
        return f"<RedisStore {self._link.address} {self._keys.namespace} [{'open' if self._open else 'closed'}]>"
