"""Names and forms of what the Redis store keeps: ids, keys, the immutable part of a job, the answer to a reader.

An id is ``seq << 12 | number``. `seq` grows within a queue: from milliseconds since 2025, which it is brought up to
now and then, by one a job (41 bits, until 2094). `number` names the queue: drawn once from 1 to 4095 in the registry,
so that an id alone leads to its queue. Because both parts start elsewhere when everything was flushed, an id of before
does not come again.

All keys carry one tag, ``{namespace:jobs}``, and so lie in one slot of a cluster: a call may be about several queues.
Those of a queue go on with its name and a colon (which cannot be in the name).
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from fairway.jobs.job import DEFAULT_BACKOFF, Backoff, Job, Lease, NewJob, State

NUMBER_BITS = 12
MAX_NUMBER = (1 << NUMBER_BITS) - 1
_PLAIN_PRIORITY, _PLAIN_ATTEMPTS = 5, 10
WHOLE = 16_384
"""Bytes of a body up to which a job of defaults is an entry of the stream of fresh jobs: a claim reads up to 1,000
before it sees how large they are, and its answer holds 16 MiB."""

STATE_OF: dict[bytes, State] = {
    b"s": "scheduled",
    b"a": "available",
    b"r": "running",
    b"y": "retryable",
    b"c": "completed",
    b"x": "cancelled",
    b"d": "discarded",
}
"""Letter of a state in the hashes and in the names of sets."""
CODE_OF: dict[State, str] = {state: code.decode() for code, state in STATE_OF.items()}


def join_id(seq: int, number: int) -> int:
    """Return the id of a queue's job (or batch)."""
    return seq << NUMBER_BITS | number


def split_id(job_id: int) -> tuple[int, int]:
    """Return ``(seq, number)`` of an id."""
    return job_id >> NUMBER_BITS, job_id & MAX_NUMBER


class Keys:
    """The keys outside any queue, and the first key of each queue; scripts make the others from that."""

    __slots__ = ("created", "names", "namespace", "numbers", "root", "schedules", "ticks")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.root = root = f"{{{namespace}:jobs}}:"
        self.names = root + "names"  # hash: queue -> number
        self.numbers = root + "numbers"  # hash: number -> queue
        self.schedules = root + "schedules"  # hash: name -> Schedule
        self.created = root + "created"  # hash: name -> when the schedule was stored first
        self.ticks = root + "ticks"  # hash: name -> last tick

    def queue(self, name: str) -> str:
        """Return the key of a queue's own hash; every other key of the queue begins as it does."""
        return f"{self.root}{name}:q"

    def fresh(self, name: str, number: int) -> str:
        """Return the key of a queue's fresh jobs and newest seq, under the number that its ids carry."""
        return f"{self.root}{name}:f:{number}"

    def ready(self, name: str) -> str:
        """Return the key of what waits in a queue besides fresh jobs, in the order of dispatch."""
        return f"{self.root}{name}:ready"

    def blocked(self, name: str) -> str:
        """Return the key of what waits for others of its concurrency key."""
        return f"{self.root}{name}:blocked"

    def wake(self, name: str) -> str:
        """Return the key of a queue's stream of news for claims that wait."""
        return f"{self.root}{name}:wake"

    def ended(self, name: str) -> str:
        """Return the key of a queue's stream of ends that somebody waits for."""
        return f"{self.root}{name}:ended"

    def __repr__(self) -> str:
        return f"<Keys {self.namespace}>"


class Body(Struct, array_like=True, frozen=True):
    """What of a job never changes and no script looks at: one field of its hash, in MessagePack."""

    kind: str
    args: bytes
    max_attempts: int
    priority: int
    timeout_s: float | None = None
    result_ttl_s: float = 86_400.0
    backoff: Backoff | None = None
    unique_key: str | None = None
    concurrency_key: str | None = None
    meta: dict[str, str] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode


def body(job: NewJob) -> bytes:
    """Return `job`'s immutable part."""
    return _encode(
        Body(
            job.kind,
            bytes(job.args),
            job.max_attempts,
            job.priority,
            job.timeout_s,
            job.result_ttl_s,
            None if job.backoff is DEFAULT_BACKOFF else job.backoff,
            job.unique_key,
            job.concurrency_key,
            job.meta or None,
        )
    )


def is_plain(job: NewJob) -> bool:
    """Whether `extras` of the job is empty; a little sooner than by making it."""
    return (
        job.priority == _PLAIN_PRIORITY
        and job.max_attempts == _PLAIN_ATTEMPTS
        and job.delay_s is None
        and job.run_at is None
        and job.concurrency_key is None
        and job.unique_key is None
        and job.keep_s is None
        and not job.then
    )


def extras(job: NewJob) -> bytes:
    """Return what the scripts have to know about `job`, in MessagePack; empty for a job of defaults."""
    fields = _extras(job)
    return _encode(fields) if fields else b""


def _extras(job: NewJob) -> dict[str, object]:
    fields: dict[str, object] = {}
    if job.priority != _PLAIN_PRIORITY:
        fields["p"] = job.priority
    if job.max_attempts != _PLAIN_ATTEMPTS:
        fields["m"] = job.max_attempts
    if job.delay_s is not None:
        fields["delay"] = job.delay_s
    elif job.run_at is not None:
        fields["at"] = job.run_at
    if job.concurrency_key is not None:
        fields["ck"], fields["cl"] = job.concurrency_key, job.concurrency_limit
    if job.unique_key is not None:
        fields["uk"] = job.unique_key
        if job.unique_for_s is not None:
            fields["uf"] = job.unique_for_s
    if job.keep_s is not None:
        fields["ks"] = job.keep_s
    if job.then:
        # Pairs that the completing script hands to the same insertion.
        fields["th"] = [[_text(extras(link)), _text(body(link))] for link in job.then]
    return fields


def _text(data: bytes) -> Raw:
    """Return `data` as MessagePack's text, which need not be UTF-8 here: Redis's decoder knows no binary."""
    return Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)


def lease(row: list[bytes | int], queue: str, number: int) -> Lease:
    """Return a lease from ``[seq, fence, attempt, created, body, previous]`` of the claiming script."""
    seq, fence, attempt, created, packed, previous = row
    data = _decode(packed)  # type: ignore[arg-type]  # bytes by the script
    return Lease(
        id=join_id(int(seq), number),
        fence=int(fence),
        queue=queue,
        kind=data.kind,
        args=Raw(data.args),
        attempt=int(attempt),
        max_attempts=data.max_attempts,
        created_at=float(created),
        timeout_s=data.timeout_s,
        previous=Raw(previous) if previous else UNSET,  # type: ignore[arg-type]  # bytes by the script
        meta=data.meta or {},
    )


def backoff(packed: bytes) -> Backoff:
    """Return the backoff of a job from its body."""
    return _decode(packed).backoff or DEFAULT_BACKOFF


def kind(packed: bytes) -> str:
    """Return the kind of a job from its body."""
    return _decode(packed).kind


def job(row: tuple[bytes, bytes, bytes, list[bytes]], queue: str, number: int) -> Job:
    """Return a reader's job from ``[seq, now, lease_until or '', fields and values]`` of the reading scripts."""
    seq, now, until, flat = row
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    data = _decode(fields[b"b"])
    state, fence = STATE_OF[fields[b"s"]], int(fields.get(b"f", 0))
    created, finished = float(fields[b"c"]), _float(fields.get(b"e"))
    progress, note = _progress(fields, fence)
    return Job(
        id=join_id(int(seq), number),
        queue=queue,
        kind=data.kind,
        state=state,
        args=Raw(data.args),
        priority=data.priority,
        attempt=int(fields.get(b"n", 0)),
        fence=fence,
        max_attempts=data.max_attempts,
        created_at=created,
        run_at=float(fields.get(b"t", created)),
        started_at=_float(fields.get(b"v")),
        finished_at=finished,
        lease_until=float(until) if until and state == "running" else None,
        worker=fields[b"w"].decode() if b"w" in fields else None,
        timeout_s=data.timeout_s,
        progress=progress,
        note=note,
        result=_result(fields, state, finished, data.result_ttl_s, float(now)),
        error=fields[b"err"].decode() if b"err" in fields else None,
        cancel_requested=b"k" in fields,
        unique_key=data.unique_key,
        concurrency_key=data.concurrency_key,
        batch=int(fields[b"bi"]) if b"bi" in fields else None,
        parent=int(fields[b"pa"]) if b"pa" in fields else None,
        meta=data.meta or {},
    )


def _float(value: bytes | None) -> float | None:
    return None if value is None else float(value)


def _progress(fields: dict[bytes, bytes], fence: int) -> tuple[float | None, str | None]:
    """Return what the newest attempt reported; what an earlier one left does not count."""
    reported = fields.get(b"g", b"").split(b" ", 2)
    if len(reported) != 3 or int(reported[0]) != fence:
        return None, None
    note: str | None = msgspec.json.decode(reported[2])
    return float(reported[1]), note


def _result(
    fields: dict[bytes, bytes], state: State, finished: float | None, ttl_s: float, now: float
) -> Raw | UnsetType:
    if state != "completed" or finished is None or now >= finished + ttl_s:
        return UNSET
    return Raw(fields.get(b"res", b"null"))
