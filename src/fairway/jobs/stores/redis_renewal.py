"""Renewing leases on Redis from any thread, with a blocking client of its own and no help of an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import Verdict
from fairway.jobs.stores.redis_keys import MAX_NUMBER, NUMBER_BITS, Keys
from fairway.jobs.stores.redis_scripts import RENEW

if TYPE_CHECKING:
    from redis import Redis

_VERDICTS = (Verdict.OK, Verdict.CANCEL, Verdict.LOST)
_CHUNK = 1_000  # leases that one script renews


class Renewal:
    """`Store.renew` of the Redis store.

    Args:
        url: Where Redis is.
        keys: The store's names.
        clock: Gives the scripts' two time arguments.
    """

    def __init__(self, url: str, keys: Keys, clock: Callable[[], tuple[Any, Any]]) -> None:
        self._url = url
        self._keys = keys
        self._clock = clock
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()
        self._client: Redis | None = None
        self._open = False

    def open(self, names: dict[int, str]) -> None:
        """Begin; `names` maps numbers to queues and is kept by the store."""
        self._names = names
        self._open = True

    def close(self) -> None:
        """Wait for a renewal under way and drop the connection. Idempotent."""
        with self._lock:
            self._open = False
            if self._client is not None:
                self._client.close()
                self._client = None

    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
        """See `Store.renew`."""
        from redis.exceptions import RedisError

        with self._lock:
            if not self._open:
                raise StoreUnavailable("the redis store is not open")
            try:
                return self._renew(leases, lease_s)
            except (RedisError, OSError) as error:
                raise StoreUnavailable(f"redis: {error}") from error

    def _renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
        verdicts = [Verdict.LOST] * len(leases)
        places: dict[int, list[int]] = {}
        for n, (job_id, _) in enumerate(leases):
            places.setdefault(job_id & MAX_NUMBER, []).append(n)
        for number, positions in places.items():
            queue = self._queue_of(number)
            if queue is None:
                continue
            for start in range(0, len(positions), _CHUNK):
                chunk = positions[start : start + _CHUNK]
                pairs = [part for n in chunk for part in (leases[n][0] >> NUMBER_BITS, leases[n][1])]
                for n, code in zip(chunk, self._run(queue, lease_s, pairs), strict=True):
                    verdicts[n] = _VERDICTS[code]
        return verdicts

    def _queue_of(self, number: int) -> str | None:
        name = self._names.get(number)
        if name is None:
            execute: Any = self._redis().execute_command  # untyped there
            answer = execute("HGET", self._keys.numbers, number)
            name = None if answer is None else answer.decode()
        return name

    def _run(self, queue: str, lease_s: float, pairs: list[int]) -> list[int]:
        from redis.exceptions import NoScriptError

        execute: Any = self._redis().execute_command  # untyped there
        args = (1, self._keys.queue(queue), *self._clock(), lease_s, *pairs)
        try:
            answer: list[int] = execute("EVALSHA", RENEW.sha, *args)
        except NoScriptError:
            answer = execute("EVAL", RENEW.text, *args)
        return answer

    def _redis(self) -> Redis:
        if self._client is None:
            from redis import Redis

            self._client = Redis.from_url(
                self._url, protocol=2, socket_timeout=10.0, socket_connect_timeout=5.0, socket_keepalive=True
            )
        return self._client

    def __repr__(self) -> str:
        return f"<Renewal [{'open' if self._open else 'closed'}]>"
