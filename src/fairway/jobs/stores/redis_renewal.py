"""Renewing leases on Redis from any thread, with a blocking client of its own and no help of an event loop.

It follows the slot of a cluster by itself: the loop may be busy with a handler while a replica takes over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import Verdict
from fairway.jobs.stores.redis_keys import MAX_NUMBER, NUMBER_BITS, Keys
from fairway.jobs.stores.redis_scripts import RENEW
from fairway.resp import CONNECT_S, Address

if TYPE_CHECKING:
    from redis import Redis

_VERDICTS = (Verdict.OK, Verdict.CANCEL, Verdict.LOST)
_CHUNK = 1_000  # leases that one script renews
_PLACE = ("connection_class", "host", "port", "path")  # settings that another node has otherwise


class Renewal:
    """`Store.renew` of the Redis store.

    Args:
        places: Tells where Redis may be, the likeliest first; called from the renewing thread.
        keys: The store's names.
        clock: Gives the scripts' two time arguments.
    """

    def __init__(
        self, places: Callable[[], Sequence[Address]], keys: Keys, clock: Callable[[], tuple[Any, Any]]
    ) -> None:
        self._places = places
        self._keys = keys
        self._clock = clock
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()
        self._client: Redis | None = None
        self._address: Address | None = None  # of the client
        self._open = False

    def open(self, names: dict[int, str]) -> None:
        """Begin; `names` maps numbers to queues and is kept by the store."""
        self._names = names
        self._open = True

    def close(self) -> None:
        """Wait for a renewal under way and drop the connection. Idempotent."""
        with self._lock:
            self._open = False
            self._drop()

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
            answer = self._call("HGET", self._keys.numbers, number)
            name = None if answer is None else answer.decode()
        return name

    def _run(self, queue: str, lease_s: float, pairs: list[int]) -> list[int]:
        from redis.exceptions import NoScriptError

        args = (1, self._keys.queue(queue), *self._clock(), lease_s, *pairs)
        try:
            answer: list[int] = self._call("EVALSHA", RENEW.sha, *args)
        except NoScriptError:
            answer = self._call("EVAL", RENEW.text, *args)
        return answer

    def _call(self, *command: Any) -> Any:
        """Carry a command out where the jobs are; to repeat it does no harm."""
        from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisError
        from redis.exceptions import ConnectionError as Lost
        from redis.exceptions import TimeoutError as Late

        candidates = [*self._places()]
        if self._client is not None and self._address is not None:
            candidates.insert(0, self._address)
        tried: set[str] = set()
        failure: RedisError | OSError | None = None
        while candidates:
            address = candidates.pop(0)
            used = self._client is not None and self._address is address
            if str(address) in tried and not used:
                continue
            tried.add(str(address))
            execute: Any = self._at(address).execute_command  # untyped there
            try:
                return execute(*command)
            except MovedError as error:
                # Told where nobody else answers: its owner has died and no replica has taken over yet.
                failure = failure or Lost(
                    f"{address}: the jobs are at {error.host}:{error.port}, which does not answer"
                )
                candidates.insert(0, address.at(error.host or address.host, error.port))
            except AskError as error:
                return _asking(address.at(error.host or address.host, error.port), command)
            except (Lost, Late, ReadOnlyError, OSError) as error:
                failure = failure or error
                self._drop()
                if used:  # the connection may have been of a server before
                    tried.discard(str(address))
                    candidates.insert(0, address)
        raise failure or StoreUnavailable("expected the address of a redis, got none")

    def _at(self, address: Address) -> Redis:
        if self._client is None or self._address is not address:
            self._drop()
            self._client, self._address = _client(address, several=len(self._places()) > 1), address
        return self._client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __repr__(self) -> str:
        return f"<Renewal [{'open' if self._open else 'closed'}]>"


def _client(address: Address, *, several: bool) -> Redis:
    from redis import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection

    settings: dict[str, Any] = {name: value for name, value in address.settings.items() if name not in _PLACE}
    settings.update(protocol=2, socket_timeout=10.0, socket_connect_timeout=CONNECT_S / 2 if several else CONNECT_S)
    if address.path is not None:
        return Redis(connection_pool=ConnectionPool(UnixDomainSocketConnection, path=address.path, **settings))
    settings.update(host=address.host, port=address.port, socket_keepalive=True)
    return Redis(connection_pool=ConnectionPool(SSLConnection if address.secure else Connection, **settings))


def _asking(address: Address, command: tuple[Any, ...]) -> Any:
    """One command to the node that takes the slot over: the slot is not there yet."""
    client = _client(address, several=True)
    try:
        pipe: Any = client.pipeline(transaction=False)  # untyped there
        pipe.execute_command("ASKING")
        pipe.execute_command(*command)
        return pipe.execute()[1]
    finally:
        client.close()
