"""`python -m bench.jobs [--quick] [--json FILE] [--check] [--only NAME,…]`: jobs beside their peers, in one run."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.harness import CACHE, Report, finish, parser, peer_venv, run
from bench.jobs.peers import POSTGRES, REQUIREMENTS
from bench.jobs.run import HERE, Lab
from bench.jobs.services import postgres_server, redis_server

ON_REDIS = [name for name in REQUIREMENTS if name not in POSTGRES]
QUICK_PEERS = ["dramatiq", "taskiq", "huey", "saq", "pgqueuer"]
OWN = [sys.executable, "-m", "bench.jobs.own"]
WORKER = [sys.executable, "-m", "fairway", "worker", "bench_tasks", "-c", "64", "--url"]


class Sizes:
    """How many jobs and how often."""

    def __init__(self, quick: bool) -> None:
        self.rounds = 1 if quick else 3
        self.slow = 2_000 if quick else 5_000  # a peer's worker
        self.fast = 20_000 if quick else 60_000  # Fairway's
        self.latency = 50 if quick else 500
        self.warm_s = 1.0 if quick else 3.0
        self.crowd = 50_000 if quick else 1_000_000
        self.wrk_s = 2 if quick else 5
        self.idle_s = 3 if quick else 20
        # The minute of --quick is for those that were the best at something in the long run.
        self.peers = QUICK_PEERS if quick else list(REQUIREMENTS)


class Bench:
    """One run."""

    def __init__(self, quick: bool, only: set[str], lab: Lab, redis: str, postgres: str | None) -> None:
        self.sizes = Sizes(quick)
        self.only = only
        self.lab = lab
        self.redis = redis
        self.postgres = postgres
        self.report = Report("jobs")
        self.runs: dict[tuple[str, str, str], list[float]] = {}
        self.best: dict[tuple[str, str], float] = {}

    def add(self, name: str, metric: str, unit: str, value: float) -> None:
        """Note one run of a figure."""
        self.runs.setdefault((name, metric, unit), []).append(value)

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """Run one contender's part; one that cannot be run is a note, not the end."""
        if self.only and name not in self.only:
            return
        try:
            work()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self.report.note(f"{name}: {str(error)[:400]}")
        print(f"  {name} done", file=sys.stderr, flush=True)

    def flush_redis(self) -> None:
        """Empty the benchmark's Redis."""
        run(["redis-cli", "-u", self.redis, "flushall"])

    # Peers --------------------------------------------------------------------------------------------------------

    def peer(self, name: str) -> None:
        """Enqueue, process and latency of one Python peer."""
        url = self.postgres if name in POSTGRES else self.redis
        if url is None:
            raise RuntimeError("no PostgreSQL here")
        argv = [str(peer_venv(f"jobs-{name}", REQUIREMENTS[name])), str(HERE / "peers.py"), name]
        if name in POSTGRES:
            run(["psql", url, "-qc", "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"])
            self.lab.finish([*argv, "prepare", "0", "OUT", url], 0)
        else:
            self.flush_redis()
        self.measure(name, argv, url)

    def bullmq(self) -> None:
        """The same of BullMQ."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise RuntimeError("node and npm were not found")
        folder = CACHE / "npm-bullmq"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "node_modules" / "bullmq").exists():
            run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "bullmq@5.61.0"])
        shutil.copy(HERE / "bullmq.js", folder / "bullmq.js")
        self.flush_redis()
        self.measure("bullmq", [node, str(folder / "bullmq.js")], self.redis)

    def measure(self, name: str, argv: list[str], url: str) -> None:
        """Enqueue, then let one worker process what was enqueued, then pace."""
        jobs = self.sizes.slow
        told = self.lab.finish([*argv, "enqueue", str(jobs), "OUT", url], jobs)
        self.add(name, "enqueue one by one", "jobs/s", told["one"])
        if "many" in told:
            self.add(name, "enqueue, 32 producers", "jobs/s", told["many"])
        done = self.lab.work([*argv, "work", str(jobs), "OUT", url], jobs, timeout=60)
        if name == "pgqueuer":
            # It takes 1,000 at a time: what it enqueued one by one would be over in a batch or two.
            jobs = self.sizes.fast
            self.lab.finish([*argv, "fill", str(jobs), "OUT", url], jobs)
            done = self.lab.work([*argv, "work", str(jobs), "OUT", url], jobs)
        self.add(name, "process", "jobs/s", jobs / done["seconds"])
        self.pace(
            name,
            [*argv, "work", str(self.sizes.latency), "OUT", url],
            [*argv, "latency", str(self.sizes.latency), "OUT", url],
        )

    def pace(self, name: str, worker: list[str], producer: list[str], cwd: Path = HERE.parent.parent) -> None:
        """50 jobs a second beside a worker that was there before."""
        jobs = self.sizes.latency
        out = self.lab.path("lags.json")
        process = self.lab.start([str(out) if word == "OUT" else word for word in worker], out, jobs, cwd)
        try:
            time.sleep(self.sizes.warm_s)
            self.lab.finish(producer, jobs)
            lags = sorted(self.lab.wait_for(out, jobs, process, 30)["lags"])
        finally:
            from bench.jobs.run import stop

            stop(process)
        self.add(name, "latency p50", "ms", lags[len(lags) // 2] * 1000)
        self.add(name, "latency p99", "ms", lags[int(len(lags) * 0.99)] * 1000)

    # Fairway ------------------------------------------------------------------------------------------------------

    def sqlite(self) -> None:
        """SQLite in one process, every acknowledgement after its commit with synchronous=FULL."""
        sizes, lab = self.sizes, self.lab
        name = "fairway sqlite"
        told = lab.finish([*OWN, "enqueue", str(sizes.fast), "OUT", f"sqlite:///{lab.path('a.db')}"], 0)
        self.add(name, "enqueue one by one", "jobs/s", told["one"])
        self.add(name, "enqueue, 32 producers", "jobs/s", told["many"])
        told = lab.finish([*OWN, "claim", str(sizes.fast), "OUT", f"sqlite:///{lab.path('b.db')}"], 0)
        self.add(name, "claim + complete", "jobs/s", told["rate"])
        told = lab.finish([*OWN, "end-to-end", str(sizes.fast), "OUT", f"sqlite:///{lab.path('c.db')}"], 0)
        self.add(name, "end to end", "jobs/s", told["rate"])
        jobs = sizes.latency
        out = lab.path("lags.json")
        argv = [*OWN, "latency-inside", str(jobs), str(out), f"sqlite:///{lab.path('d.db')}"]
        lags = sorted(lab.finish(argv, jobs, out=out)["lags"])
        self.add(name, "latency p50", "ms", lags[len(lags) // 2] * 1000)
        self.add(name, "latency p99", "ms", lags[int(len(lags) * 0.99)] * 1000)

    def http(self) -> None:
        """SQLite behind the daemon, worker in another process over HTTP."""
        name, sizes, lab = "fairway http", self.sizes, self.lab
        with lab.daemon(f"sqlite:///{lab.path('e.db')}") as (url, _):
            told = lab.finish([*OWN, "enqueue", str(sizes.slow), "OUT", url], 0)
            self.add(name, "enqueue one by one", "jobs/s", told["one"])
            self.add(name, "enqueue, 32 producers", "jobs/s", told["many"])
            lab.work([*WORKER, url], sizes.slow, cwd=HERE)
            lab.finish([*OWN, "fill", str(sizes.fast), "OUT", url], 0)
            done = lab.work([*WORKER, url], sizes.fast, cwd=HERE)
            self.add(name, "process", "jobs/s", sizes.fast / done["seconds"])
        with lab.daemon(f"sqlite:///{lab.path('f.db')}") as (url, _):
            self.pace(name, [*WORKER, url], [*OWN, "latency", str(sizes.latency), "OUT", url], HERE)

    def redis_store(self) -> None:
        """Fairway's Redis store, worker in another process."""
        if importlib.util.find_spec("fairway.jobs.stores.redis") is None:
            raise RuntimeError("the Redis store is not there")
        name, sizes, lab = "fairway redis", self.sizes, self.lab
        self.flush_redis()
        told = lab.finish([*OWN, "enqueue", str(sizes.slow), "OUT", self.redis], 0)
        self.add(name, "enqueue one by one", "jobs/s", told["one"])
        self.add(name, "enqueue, 32 producers", "jobs/s", told["many"])
        lab.work([*WORKER, self.redis], sizes.slow, cwd=HERE)
        lab.finish([*OWN, "fill", str(sizes.fast), "OUT", self.redis], 0)
        done = lab.work([*WORKER, self.redis], sizes.fast, cwd=HERE)
        self.add(name, "process", "jobs/s", sizes.fast / done["seconds"])
        self.flush_redis()
        self.pace(name, [*WORKER, self.redis], [*OWN, "latency", str(sizes.latency), "OUT", self.redis], HERE)

    def http_enqueue(self) -> None:
        """POST a job over 32 connections, beside a bare handler on the same server."""
        lab = self.lab
        with lab.daemon(f"sqlite:///{lab.path('g.db')}") as (url, _), lab.bare() as bare:
            self.add("fairway http", "HTTP enqueue, 32 connections", "1/s", lab.wrk(url, self.sizes.wrk_s))
            self.add("bare Starlette", "HTTP enqueue, 32 connections", "1/s", lab.wrk(bare, self.sizes.wrk_s))

    def idle(self) -> None:
        """CPU of a daemon and a worker that wait, and the worker's memory after it has worked."""
        lab, jobs = self.lab, 2_000
        with lab.daemon(f"sqlite:///{lab.path('h.db')}") as (url, pid):
            lab.finish([*OWN, "fill", str(jobs), "OUT", url], 0)
            out = lab.path("idle.json")
            worker = lab.start([*WORKER, url], out, jobs, HERE)
            try:
                lab.wait_for(out, jobs, worker, 30)
                time.sleep(self.sizes.warm_s)
                watched = {"daemon": psutil.Process(pid), "worker": psutil.Process(worker.pid)}
                before = {who: sum(process.cpu_times()[:2]) for who, process in watched.items()}
                time.sleep(self.sizes.idle_s)
                for who, process in watched.items():
                    used = sum(process.cpu_times()[:2]) - before[who]
                    self.add("fairway http", f"idle {who}", "% CPU", 100 * used / self.sizes.idle_s)
                self.add("fairway http", "worker memory", "MiB", watched["worker"].memory_info().rss / 2**20)
            finally:
                from bench.jobs.run import stop

                stop(worker)

    def crowd(self) -> None:
        """A million waiting and a million finished."""
        url = f"sqlite:///{self.lab.path('crowd') / 'crowd.db'}"
        Path(url.removeprefix("sqlite:///")).parent.mkdir()
        told = self.lab.finish([*OWN, "crowd", str(self.sizes.crowd), "OUT", url], 0, timeout=300)
        size = f"{self.sizes.crowd:,} waiting and finished"
        self.add("fairway sqlite", "claim + complete, empty", "jobs/s", told["empty"])
        self.add("fairway sqlite", f"claim + complete, {size}", "jobs/s", told["full"])
        self.add("fairway sqlite", f"start more, {size}", "s", told["full_start"] - told["empty_start"])

    # The whole ----------------------------------------------------------------------------------------------------

    def all(self) -> None:
        """Interleave the contenders, round by round; what needs no median once at the end."""
        for number in range(self.sizes.rounds):
            print(f"round {number + 1} of {self.sizes.rounds}", file=sys.stderr, flush=True)
            self.attempt("fairway sqlite", self.sqlite)
            self.attempt("fairway http", self.http)
            self.attempt("fairway redis", self.redis_store)
            for name in self.sizes.peers:
                self.attempt(name, lambda name=name: self.peer(name))  # type: ignore[misc]
            self.attempt("bullmq", self.bullmq)
            self.attempt("http-enqueue", self.http_enqueue)
        self.attempt("idle", self.idle)
        self.attempt("crowd", self.crowd)
        values = {
            (name, metric): self.report.row(name, metric, unit, runs=runs)
            for (name, metric, unit), runs in self.runs.items()
        }
        self.goals(values)

    def goals(self, values: dict[tuple[str, str], float]) -> None:
        """Compare with the best peer of this run."""

        def best(metrics: tuple[str, ...], names: list[str], least: bool = False) -> float | None:
            found = [values[name, metric] for name in names for metric in metrics if (name, metric) in values]
            return None if not found else (min(found) if least else max(found))

        def ratio(goal: str, mine: tuple[str, str], other: float | None, factor: float, op: str = ">=") -> None:
            if mine in values and other:
                self.report.goal(goal, values[mine] / other, factor, op)  # type: ignore[arg-type]

        def absolute(goal: str, mine: tuple[str, str], bound: float) -> None:
            if mine in values:
                self.report.goal(goal, values[mine], bound, "<=")

        enqueues = ("enqueue one by one", "enqueue, 32 producers")
        on_redis = best(("process",), ON_REDIS)
        pgqueuer = values.get(("pgqueuer", "process"))
        peers = [*REQUIREMENTS, "bullmq"]
        sqlite, http, redis = "fairway sqlite", "fairway http", "fairway redis"
        ratio(
            "sqlite enqueue, 32 producers / best Python queue",
            (sqlite, enqueues[1]),
            best(enqueues, [*REQUIREMENTS]),
            5,
        )
        ratio("sqlite claim + complete / PgQueuer process", (sqlite, "claim + complete"), pgqueuer, 3)
        ratio("sqlite end to end / PgQueuer process", (sqlite, "end to end"), pgqueuer, 2)
        ratio("sqlite end to end / best Python queue on Redis", (sqlite, "end to end"), on_redis, 5)
        ratio("http worker / best Python queue on Redis", (http, "process"), on_redis, 2)
        ratio(
            "redis enqueue one by one / best Python on Redis", (redis, enqueues[0]), best(enqueues[:1], ON_REDIS), 1.2
        )
        ratio("redis process / best Python queue on Redis", (redis, "process"), on_redis, 3)
        ratio("redis process / BullMQ", (redis, "process"), values.get(("bullmq", "process")), 1)
        for quantile in ("p50", "p99"):
            metric = f"latency {quantile}"
            ratio(f"http {metric} / best peer", (http, metric), best((metric,), peers, least=True), 1.0, "<=")
            ratio(f"sqlite {metric} / best peer", (sqlite, metric), best((metric,), peers, least=True), 1.0, "<=")
        wrk = "HTTP enqueue, 32 connections"
        ratio("HTTP enqueue / bare Starlette", (http, wrk), values.get(("bare Starlette", wrk)), 0.75)
        absolute("worker memory, MiB", (http, "worker memory"), 45)
        absolute("idle daemon, % of a core", (http, "idle daemon"), 0.5)
        absolute("idle worker, % of a core", (http, "idle worker"), 0.5)
        size = f"{self.sizes.crowd:,} waiting and finished"
        full = (sqlite, f"claim + complete, {size}")
        ratio(f"claim rate with {size} / empty", full, values.get((sqlite, "claim + complete, empty")), 0.8)
        absolute(f"start with {size}, s more", (sqlite, f"start more, {size}"), 1.0)


def main() -> int:
    """Run everything and report."""
    options = parser(__doc__ or "")
    options.add_argument("--only", default="", help="contenders by name, comma between them")
    args = options.parse_args()
    folder = CACHE / "jobs-run"
    shutil.rmtree(folder, ignore_errors=True)
    lab = Lab(folder)
    only = {name for name in args.only.split(",") if name}
    with redis_server(folder / "redis") as redis:
        try:
            with postgres_server(folder / "postgres") as postgres:
                bench = Bench(args.quick, only, lab, redis, postgres)
                bench.all()
        except (RuntimeError, subprocess.CalledProcessError) as error:
            bench = Bench(args.quick, only, lab, redis, None)
            bench.report.note(f"PostgreSQL: {error}")
            bench.all()
    for name, requirements in REQUIREMENTS.items():
        bench.report.versions[name] = requirements[0].partition("==")[2]
    bench.report.versions["bullmq"] = "5.61.0"
    shutil.rmtree(folder, ignore_errors=True)
    return finish(bench.report, args)


if __name__ == "__main__":
    sys.exit(main())
