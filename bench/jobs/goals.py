"""What `bench.jobs` is to show: the figures of one run beside the best peer's of the same run."""

from __future__ import annotations

from bench.harness import Op, Report
from bench.jobs.contenders import HTTP, ON_REDIS, PEERS, REDIS, SQLITE
from bench.jobs.peers import REQUIREMENTS
from bench.jobs.placement import CORE_EACH, ONE_CORE

ENQUEUES = ("enqueue one by one", "enqueue, 32 producers")
ONE_BY_ONE = (ENQUEUES[0], *(f"{ENQUEUES[0]}, {where}" for where in (ONE_CORE, CORE_EACH)))
END, APART = "end to end", "end to end, producers apart"
MANY = ", 256 producers"
WRK = "HTTP enqueue, 32 connections"
EMPTY = "claim + complete, empty"
Values = dict[tuple[str, str], float]


def waiting(crowd: int) -> str:
    """Name the size of the crowded store."""
    return f"{crowd:,} waiting and finished"


def add_goals(report: Report, values: Values, crowd: int) -> None:
    """Add every goal whose figures were measured."""

    def best(metrics: tuple[str, ...], names: list[str], least: bool = False) -> float | None:
        found = [values[name, metric] for name in names for metric in metrics if (name, metric) in values]
        return None if not found else (min(found) if least else max(found))

    def ratio(goal: str, mine: tuple[str, str], other: float | None, factor: float, op: Op = ">=") -> None:
        if mine in values and other:
            report.goal(goal, values[mine] / other, factor, op)

    def absolute(goal: str, mine: tuple[str, str], bound: float) -> None:
        if mine in values:
            report.goal(goal, values[mine], bound, "<=")

    python = [*REQUIREMENTS]
    on_redis = best(("process",), ON_REDIS)
    pgqueuer = values.get(("pgqueuer", "process"))
    ratio(
        "sqlite enqueue, 32 producers / best Python queue enqueue, 1 or 32 producers",
        (SQLITE, ENQUEUES[1]),
        best((*ONE_BY_ONE, ENQUEUES[1]), python),
        5,
    )
    ratio("sqlite claim + complete / PgQueuer process", (SQLITE, "claim + complete"), pgqueuer, 3)
    for many in ("", MANY):
        # Wherever its producers are better off: in its worker's process or in one of their own.
        other = best((END + many, APART + many), ["pgqueuer"])
        ratio(f"sqlite end to end{many} / PgQueuer end to end{many}", (SQLITE, END + many), other, 2)
        harder = f"harder than asked: sqlite end to end{many} / PgQueuer process, of a backlog"
        ratio(harder, (SQLITE, END + many), pgqueuer, 2)
    apart = best((APART,), ON_REDIS)
    ratio("sqlite end to end / best Python queue on Redis end to end", (SQLITE, END), apart, 5)
    harder = "harder than asked: sqlite end to end / best Python queue on Redis process, of a backlog"
    ratio(harder, (SQLITE, END), on_redis, 5)
    ratio("http worker process / best Python queue on Redis process", (HTTP, "process"), on_redis, 2)
    # Each where it is fastest: left alone, what one gets of the scheduler another may not.
    fastest = max(ONE_BY_ONE, key=lambda metric: values.get((REDIS, metric), 0.0))
    goal = "redis enqueue one by one / best Python queue on Redis one by one, each where it is fastest"
    ratio(goal, (REDIS, fastest), best(ONE_BY_ONE, ON_REDIS), 1.2)
    ratio("redis process / best Python queue on Redis process", (REDIS, "process"), on_redis, 3)
    ratio("redis process / BullMQ process", (REDIS, "process"), values.get(("bullmq", "process")), 1)
    for quantile in ("p50", "p99"):
        metric = f"latency {quantile}"
        least = best((metric,), PEERS, least=True)
        ratio(f"http {metric} / best peer", (HTTP, metric), least, 1.0, "<=")
        ratio(f"sqlite {metric} / best peer", (SQLITE, metric), least, 1.0, "<=")
        # The peers' like: what both have is in Redis' memory, where the other two pay for a disk before they answer.
        ratio(f"redis {metric} / best peer", (REDIS, metric), least, 1.0, "<=")
    ratio("HTTP enqueue / bare Starlette", (HTTP, WRK), values.get(("bare Starlette", WRK)), 0.75)
    absolute("worker memory, MiB", (HTTP, "worker memory"), 45)
    absolute("idle daemon, % of a core", (HTTP, "idle daemon"), 0.5)
    absolute("idle worker, % of a core", (HTTP, "idle worker"), 0.5)
    size = waiting(crowd)
    full, empty = (SQLITE, f"claim + complete, {size}"), values.get((SQLITE, EMPTY))
    ratio(f"claim rate with {size} / empty", full, empty, 0.8)
    absolute(f"start with {size}, s more", (SQLITE, f"start more, {size}"), 1.0)
