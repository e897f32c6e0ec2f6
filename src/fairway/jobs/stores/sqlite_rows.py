"""Between jobs and rows of the SQLite store: the rarely set fields, the statements for many rows, the reader's view."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from fairway.jobs.job import DEFAULT_BACKOFF, Backoff, Job, Lease, NewJob
from fairway.jobs.stores.sqlite_schema import CANCELLED, COMPLETED, DISCARDED, STATE_NAMES

DEFAULT_TTL_S = 86_400.0


class Extra(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What few jobs set; NULL in the row where all is at its default."""

    backoff: Backoff = DEFAULT_BACKOFF
    unique_key: str | None = None
    unique_for_s: float | None = None
    concurrency_limit: int = 1
    result_ttl_s: float = DEFAULT_TTL_S
    keep_s: float | None = None
    then: tuple[NewJob, ...] = ()
    meta: dict[str, str] = {}
    previous: Raw | UnsetType = UNSET
    batch: int | None = None
    counted: bool = False  # the batch has counted this job as final
    parent: int | None = None


NO_EXTRA = Extra()
_extra_decoder = msgspec.json.Decoder(Extra)
encode = msgspec.json.encode
decode_leases = msgspec.json.Decoder(list[Lease]).decode
decode_extras = msgspec.json.Decoder(list[tuple[int, Extra]]).decode


def text(value: bytes | Raw) -> str:
    """Return JSON bytes as the string that SQLite stores."""
    return str(value, "utf-8")


def make_extra(
    job: NewJob, batch: int | None = None, parent: int | None = None, previous: Raw | UnsetType = UNSET
) -> str | None:
    """Return the `extra` column for a new job."""
    if (
        batch is None
        and parent is None
        and previous is UNSET
        and job.backoff is DEFAULT_BACKOFF
        and job.unique_key is None
        and job.concurrency_key is None
        and job.result_ttl_s == DEFAULT_TTL_S
        and job.keep_s is None
        and not job.then
        and not job.meta
    ):
        return None
    extra = Extra(
        backoff=job.backoff,
        unique_key=job.unique_key,
        unique_for_s=job.unique_for_s,
        concurrency_limit=job.concurrency_limit,
        result_ttl_s=job.result_ttl_s,
        keep_s=job.keep_s,
        then=job.then,
        meta=job.meta,
        previous=previous,
        batch=batch,
        parent=parent,
    )
    return text(encode(extra))


def read_extra(column: str | None) -> Extra:
    """Return the `extra` column as a value."""
    return NO_EXTRA if column is None else _extra_decoder.decode(column)


# Statements for many rows ---------------------------------------------------------------------------------------
# One step of one statement writes many rows: each step gives up the interpreter's lock and has to win it back, which
# costs up to a switch interval when the event loop is busy.

INSERT_COLUMNS = (
    "id, queue, kind, state, priority, max_attempts, args, created_at, run_at, timeout_s, ckey, extra, "
    "fence, attempt, started_at, worker"
)
INSERT_WIDTH = 16
MAX_CHUNK = 256
EXACT = 64  # up to so many rows have a statement of their own, prepared when first needed and kept


@cache
def insert_sql(rows: int) -> str:
    """Return the statement that inserts `rows` jobs."""
    row = "(" + ",".join("?" * INSERT_WIDTH) + ")"
    return f"INSERT INTO jobs ({INSERT_COLUMNS}) VALUES " + ",".join([row] * rows)  # noqa: S608 - no data in it


@cache
def complete_sql(rows: int) -> str:
    """Return the statement that completes `rows` jobs: pairs of (id, result), then finished_at and keep_until."""
    pairs = ",".join(["(?,?)"] * rows)
    return (
        f"WITH v(id, result) AS (VALUES {pairs}) "  # noqa: S608 - no data in it
        f"UPDATE jobs SET state = {COMPLETED}, result = v.result, finished_at = ?, keep_until = ? "
        "FROM v WHERE jobs.id = v.id"
    )


def chunks(total: int) -> Sequence[tuple[int, int]]:
    """Return ``(start, size)``: as few statements as possible, of few different sizes above `EXACT`.

    >>> chunks(31)
    [(0, 31)]
    >>> chunks(300)
    [(0, 256), (256, 44)]
    >>> chunks(200)
    [(0, 64), (64, 64), (128, 64), (192, 8)]
    """
    parts = []
    start = 0
    while start < total:
        left = total - start
        size = MAX_CHUNK if left >= MAX_CHUNK else min(left, EXACT)
        parts.append((start, size))
        start += size
    return parts


# Leases come out of SQLite as JSON and msgspec decodes them in one call; what few jobs set comes in a second column.
CLAIM = """
SELECT
    json_group_array(json_object(
        'id', id, 'fence', fence + 1, 'queue', ?1, 'kind', kind, 'args', json(args), 'attempt', attempt + 1,
        'max_attempts', max_attempts, 'created_at', created_at, 'timeout_s', timeout_s)),
    json_group_array(json_array(id, json(extra))) FILTER (WHERE extra IS NOT NULL)
FROM (SELECT * FROM jobs WHERE queue = ?2 AND state = 1 ORDER BY priority, id LIMIT ?3)
"""
START = """
UPDATE jobs SET state = 2, fence = fence + 1, attempt = attempt + 1, started_at = ?, worker = ?
WHERE id IN (SELECT value FROM json_each(?))
"""

START_RANGE = """
UPDATE jobs SET state = 2, fence = fence + 1, attempt = attempt + 1, started_at = ?, worker = ? WHERE id BETWEEN ? AND ?
"""

# Readers --------------------------------------------------------------------------------------------------------

VIEW_COLUMNS = (
    "jobs.id, queues.name, kind, state, args, priority, attempt, fence, max_attempts, created_at, run_at, started_at, "
    "finished_at, worker, timeout_s, result, error, cancel, ckey, extra"
)
VIEW = f"SELECT {VIEW_COLUMNS} FROM jobs JOIN queues ON queues.id = jobs.queue "  # noqa: S608 - no data in it


def view(row: Sequence[Any], now: float) -> Job:
    """Return a row of `VIEW` as a `Job`, without what only the owner's memory knows."""
    (
        job_id, queue, kind, state, args, priority, attempt, fence, max_attempts, created_at, run_at, started_at,
        finished_at, worker, timeout_s, result, error, cancel, ckey, column,
    ) = row  # fmt: skip
    extra = read_extra(column)
    shown: Raw | UnsetType = UNSET
    if state == COMPLETED and result is not None and now < finished_at + extra.result_ttl_s:
        shown = Raw(result.encode())
    return Job(
        id=job_id,
        queue=queue,
        kind=kind,
        state=STATE_NAMES[state],  # type: ignore[arg-type]  # a tuple of the literals
        args=Raw(args.encode()),
        priority=priority,
        attempt=attempt,
        fence=fence,
        max_attempts=max_attempts,
        created_at=created_at,
        run_at=run_at,
        started_at=started_at,
        finished_at=finished_at if state in {COMPLETED, CANCELLED, DISCARDED} else None,
        worker=worker,
        timeout_s=timeout_s,
        result=shown,
        error=error,
        cancel_requested=bool(cancel),
        unique_key=extra.unique_key,
        concurrency_key=ckey,
        batch=extra.batch,
        parent=extra.parent,
        meta=extra.meta,
    )
