"""`python -m bench.jobs [--quick] [--json FILE] [--check] [--only NAME,…]`: jobs beside their peers, in one run.

Sections, in every round, with the contenders interleaved:

- enqueue: one producer process a contender, all connected at the same time and asked in turn for a tenth of a second
  of work, again and again; the median of these slices. A round trip's time changes by a factor of three as cores fall
  asleep and wake up, for every contender alike, which only short slices in turn cancel out. Those on Redis are also
  kept on one core with it, and on a core each: where the scheduler puts them is chance, and each one's best counts.
- process: jobs that were enqueued before, one worker process at its best setting; from the first job's start to the
  last one's, so without its enqueue and without the storing of the last results.
- embedded: SQLite in one process: claim + complete, and end to end: 32 or 256 producers enqueue one by one beside a
  worker that is there, from the first call of enqueue to the last stored result.
- end-to-end: the peers' like: producers and worker at the same time, from the first call of enqueue to the last job's
  run. "Producers apart" are in a process beside the worker's (one producer where the library is not async: its threads
  would only share the interpreter's lock); PgQueuer, which can, is also run in one process and loop, as SQLite is.
- latency: 50 jobs a second beside a worker that is there; from the call of enqueue to the handler's first line. The
  first ten jobs of each run are not counted: they pay for imports and connections.
- http-enqueue: POST over 32 connections beside a bare handler on the same server.

And once: idle (CPU of a daemon and a worker that wait) and crowd (a store full of waiting and finished jobs).
"""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import psutil

from bench.harness import CACHE, Report, finish, parser
from bench.jobs.contenders import (
    BULLMQ,
    HTTP,
    ON_REDIS,
    OWN,
    PEERS,
    QUICK_PEERS,
    REDIS,
    SQLITE,
    WORKER,
    Contenders,
    Seat,
)
from bench.jobs.goals import APART, EMPTY, END, ENQUEUES, MANY, WRK, add_goals, waiting
from bench.jobs.peers import REQUIREMENTS
from bench.jobs.placement import placed, placements
from bench.jobs.run import HERE, Lab, Producer, check, stop
from bench.jobs.services import postgres_server, redis_server, server_versions

SECTIONS = ["enqueue", "process", "embedded", "end-to-end", "latency", "http-enqueue", "idle", "crowd"]
SYNC = {"celery", "dramatiq", "rq", "huey"}  # their producers are threads' own: nothing to await 32 of
SLOWER = {"celery": 2_000, "arq": 2_000, "saq": 2_000, "rq": 1_000, "procrastinate": 1_000}  # jobs for a second or more
Parts = dict[str, tuple[str, Callable[[str], None]]]
UNCOUNTED = 10  # jobs at the beginning of a run at 50 a second


class Sizes:
    """How many jobs and how often."""

    def __init__(self, quick: bool) -> None:
        self.rounds = 1 if quick else 3
        self.slices = 7 if quick else 9
        self.slow = 2_000 if quick else 5_000  # a peer's worker
        self.both = 2_000  # a peer's producers and worker at the same time
        # PgQueuer takes 1,000 at a time, and is slower the more wait: this is where it is at its best.
        self.batches = 20_000
        self.fast = 20_000 if quick else 60_000  # Fairway's
        self.latency = 200
        self.warm_s = 1.0 if quick else 2.0
        self.crowd = 50_000 if quick else 1_000_000
        self.wrk_s = 2 if quick else 5
        self.idle_s = 3 if quick else 20

    def jobs(self, name: str) -> int:
        """Return how many jobs a contender's worker gets."""
        if name == "pgqueuer":
            return self.batches
        if name in SLOWER:
            return SLOWER[name]
        return self.slow if name in PEERS else self.fast


class Bench:
    """One run."""

    def __init__(self, sizes: Sizes, sections: list[str], names: list[str], lab: Lab, contenders: Contenders) -> None:
        self.sizes = sizes
        self.sections = sections
        self.names = names
        self.lab = lab
        self.contenders = contenders
        self.report = Report("jobs")
        self._runs: dict[tuple[str, str, str], list[float]] = {}
        self._lags: dict[str, list[float]] = {}
        self._begin = time.monotonic()

    def add(self, name: str, metric: str, unit: str, value: float) -> None:
        """Note one run of a figure."""
        self._runs.setdefault((name, metric, unit), []).append(value)

    def say(self, text: str) -> None:
        """Tell of progress."""
        print(f"{time.monotonic() - self._begin:6.0f} s  {text}", file=sys.stderr, flush=True)

    def attempt(self, section: str, name: str, work: Callable[[str], None]) -> None:
        """Run one contender's part; one that cannot be run is a note, not the end."""
        begin = time.monotonic()
        try:
            work(name)
        except (RuntimeError, OSError, subprocess.SubprocessError, KeyError) as error:
            self._miss(section, name, error)
        else:
            self.say(f"{section}: {name} ({time.monotonic() - begin:.1f} s)")

    def _miss(self, section: str, name: str, error: Exception) -> None:
        self.report.note(f"{section}: {name}: {str(error)[:400]}")
        self.say(f"{section}: {name} FAILED: {str(error)[:200]}")

    # Sections with peers ------------------------------------------------------------------------------------------

    def enqueue(self) -> None:
        """Every contender's producer in turn, a slice at a time."""
        self.contenders.flush()
        with ExitStack() as stack:
            producers: dict[str, Producer] = {}
            sizes: dict[tuple[str, str], int] = {}
            for name in self.names:
                try:
                    seat = stack.enter_context(self.contenders.seat(name))
                    producers[name] = stack.enter_context(self.lab.producer(seat.producer))
                    for what in ("one", "many"):
                        rate = producers[name].ask(what, 300)
                        sizes[name, what] = max(20, min(5_000, int(rate / 10)))
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    producers.pop(name, None)
                    self._miss("enqueue", name, error)
            self.say(f"enqueue: {len(producers)} producers are connected")
            slices: dict[tuple[str, str], list[float]] = {}
            for _ in range(self.sizes.slices):
                for metric in [*ENQUEUES, *(f"{ENQUEUES[0]}, {where}" for where in placements())]:
                    for name, producer in list(producers.items()):
                        what = "many" if metric == ENQUEUES[1] else "one"
                        if metric not in _enqueues(name):
                            continue
                        try:
                            rate = self._slice(producer, what, sizes[name, what], metric)
                        except RuntimeError as error:
                            del producers[name]
                            self._miss("enqueue", name, error)
                        else:
                            slices.setdefault((name, metric), []).append(rate)
            for (name, metric), rates in slices.items():
                self.add(name, metric, "jobs/s", statistics.median(rates))
        self.say("enqueue: done")

    def _slice(self, producer: Producer, what: str, jobs: int, metric: str) -> float:
        """Have one producer enqueue, where the metric says."""
        where = metric.removeprefix(f"{ENQUEUES[0]}, ")
        if where not in placements():
            return producer.ask(what, jobs)
        with placed(where, producer.pid, self.contenders.redis_pid):
            return producer.ask(what, jobs)

    def process(self, name: str) -> None:
        """Let one worker run what was enqueued before."""
        jobs = self.sizes.jobs(name)
        self.contenders.flush()
        with self.contenders.seat(name) as seat:
            with self.lab.producer(seat.producer) as producer:
                producer.ask("fill", jobs)
            done = self.lab.work(_with(seat.worker, jobs), jobs, cwd=seat.worker_cwd)
        self.add(name, "process", "jobs/s", jobs / done["seconds"])

    def latency(self, name: str) -> None:
        """50 jobs a second beside a worker that was there before."""
        jobs = self.sizes.latency + UNCOUNTED
        self.contenders.flush()
        out = self.lab.path("lags.json")
        if name == SQLITE:
            argv = [*OWN, "latency-inside", str(jobs), str(out), f"sqlite:///{self.lab.path('latency.db')}"]
            lags = self.lab.finish(argv, jobs, out=out)["lags"]
        else:
            with self.contenders.seat(name) as seat:
                lags = self._pace(seat, out, jobs)
        lags = sorted(lags[UNCOUNTED:])
        self._lags.setdefault(name, []).extend(lags)
        for quantile in (50, 99):
            self.add(name, f"latency p{quantile}", "ms", _quantile(lags, quantile))

    def _pace(self, seat: Seat, out: Path, jobs: int) -> list[float]:
        worker = self.lab.start(_with(seat.worker, jobs, out), out, jobs, seat.worker_cwd)
        try:
            with self.lab.producer(seat.producer) as producer:
                time.sleep(self.sizes.warm_s)
                producer.ask("pace", jobs)
                lags: list[float] = self.lab.wait_for(out, jobs, worker, 30)["lags"]
                return lags
        finally:
            stop(worker)

    def end_to_end(self, name: str) -> None:
        """Producers and a worker at the same time."""
        if name == "pgqueuer":
            for role, metric in {"inside": END, "inside-256": END + MANY}.items():
                jobs = self.sizes.both
                with self.contenders.seat(name) as seat:
                    argv = _with([role if word == "work" else word for word in seat.worker], jobs)
                    told = self.lab.finish(argv, jobs, out=self.lab.path("inside.json"))
                self.add(name, metric, "jobs/s", check(told, jobs)["rate"])
        self._apart(name, "fill" if name in SYNC else "many", APART)
        if name == "pgqueuer":
            self._apart(name, "many-256", APART + MANY)

    def _apart(self, name: str, what: str, metric: str) -> None:
        jobs = min(self.sizes.both, self.sizes.jobs(name)) if name in PEERS else self.sizes.fast // 3
        self.contenders.flush()
        out = self.lab.path("both.json")
        with self.contenders.seat(name) as seat:
            worker = self.lab.start(_with(seat.worker, jobs, out), out, jobs, seat.worker_cwd)
            try:
                with self.lab.producer(seat.producer) as producer:
                    time.sleep(self.sizes.warm_s)
                    begin = time.time()
                    producer.ask(what, jobs)
                    ended: float = self.lab.wait_for(out, jobs, worker)["ended"]
            finally:
                stop(worker)
        self.add(name, metric, "jobs/s", jobs / (ended - begin))

    # Sections of Fairway alone ------------------------------------------------------------------------------------

    def embedded(self, name: str) -> None:
        """SQLite in one process, every acknowledgement after its commit with synchronous=FULL."""
        roles = {
            "claim": "claim + complete",
            "end-to-end": END,
            "end-to-end-many": END + MANY,
        }
        for role, metric in roles.items():
            url = f"sqlite:///{self.lab.path(f'{role}.db')}"
            told = self.lab.finish([*OWN, role, str(self.sizes.fast), "OUT", url], 0)
            self.add(name, metric, "jobs/s", told["rate"])

    def http_enqueue(self, name: str) -> None:
        """POST a job over 32 connections, beside a bare handler on the same server."""
        lab = self.lab
        with lab.daemon(f"sqlite:///{lab.path('post.db')}") as (url, _), lab.bare() as bare:
            self.add(name, WRK, "1/s", lab.wrk(url, self.sizes.wrk_s))
            self.add("bare Starlette", WRK, "1/s", lab.wrk(bare, self.sizes.wrk_s))

    def idle(self, name: str) -> None:
        """CPU of a daemon and a worker that wait, and the worker's memory after it has worked."""
        lab, jobs = self.lab, 2_000
        with lab.daemon(f"sqlite:///{lab.path('idle.db')}") as (url, pid):
            with lab.producer([*OWN, "produce", "0", "OUT", url]) as producer:
                producer.ask("fill", jobs)
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
                    self.add(name, f"idle {who}", "% CPU", 100 * used / self.sizes.idle_s)
                self.add(name, "worker memory", "MiB", watched["worker"].memory_info().rss / 2**20)
            finally:
                stop(worker)

    def crowd(self, name: str) -> None:
        """As many jobs waiting and as many finished as `Sizes.crowd` says."""
        url = f"sqlite:///{self.lab.path('crowd') / 'crowd.db'}"
        Path(url.removeprefix("sqlite:///")).parent.mkdir()
        told = self.lab.finish([*OWN, "crowd", str(self.sizes.crowd), "OUT", url], 0, timeout=600)
        size = waiting(self.sizes.crowd)
        self.add(name, EMPTY, "jobs/s", told["empty"])
        self.add(name, f"claim + complete, {size}", "jobs/s", told["full"])
        self.add(name, f"start more, {size}", "s", told["full_start"] - told["empty_start"])

    # The whole ----------------------------------------------------------------------------------------------------

    def all(self) -> None:
        """Interleave the contenders, round by round; what needs no median once at the end."""
        own: Parts = {"embedded": (SQLITE, self.embedded), "http-enqueue": (HTTP, self.http_enqueue)}
        last: Parts = {"idle": (HTTP, self.idle), "crowd": (SQLITE, self.crowd)}
        for number in range(self.sizes.rounds):
            self.say(f"round {number + 1} of {self.sizes.rounds}")
            if "enqueue" in self.sections:
                self.enqueue()
            for name in self.names:
                if "process" in self.sections and name != SQLITE:
                    self.attempt("process", name, self.process)
            for name in self.names:
                if "end-to-end" in self.sections and name != SQLITE:
                    self.attempt("end-to-end", name, self.end_to_end)
            for name in self.names:
                if "latency" in self.sections:
                    self.attempt("latency", name, self.latency)
            self._own(own)
        self._own(last)
        self.conclude()

    def _own(self, parts: Parts) -> None:
        for section, (name, work) in parts.items():
            if section in self.sections and name in self.names:
                self.attempt(section, name, work)

    def conclude(self) -> None:
        """Make rows of the runs, quantiles of all rounds' jobs together, and goals of the rows."""
        values: dict[tuple[str, str], float] = {}
        for (name, metric, unit), runs in self._runs.items():
            pooled = None
            if metric.startswith("latency p"):
                pooled = _quantile(sorted(self._lags[name]), int(metric.removeprefix("latency p")))
            values[name, metric] = self.report.row(name, metric, unit, runs=runs, value=pooled)
        add_goals(self.report, values, self.sizes.crowd)


def _enqueues(name: str) -> list[str]:
    """Return what a contender's producer is measured at."""
    found = list(ENQUEUES[:1] if name in SYNC else ENQUEUES)
    if name in (REDIS, "bullmq", *ON_REDIS):
        found += [f"{ENQUEUES[0]}, {where}" for where in placements()]
    return found


def _with(argv: list[str], jobs: int, out: Path | None = None) -> list[str]:
    """Fill in the number of jobs, and the result's file unless the lab does that."""
    filled = [str(jobs) if word == "N" else word for word in argv]
    return filled if out is None else [str(out) if word == "OUT" else word for word in filled]


def _quantile(lags: list[float], percent: int) -> float:
    return lags[min(len(lags) - 1, len(lags) * percent // 100)] * 1000


def _chosen(only: str, quick: bool) -> tuple[list[str], list[str]]:
    """Return sections and contenders; an unknown name ends the program."""
    asked = {name.strip() for name in only.split(",") if name.strip()}
    everyone = [SQLITE, HTTP, REDIS, *PEERS]
    if unknown := asked - set(SECTIONS) - set(everyone):
        names = ", ".join([*SECTIONS, *everyone])
        sys.exit(f"expected --only to name sections or contenders, got {', '.join(sorted(unknown))}; known: {names}")
    sections = [name for name in SECTIONS if name in asked] or SECTIONS
    # The minute and a half of --quick is for those that were the best at something in the long run.
    some = [SQLITE, HTTP, REDIS, *QUICK_PEERS] if quick else everyone
    return sections, [name for name in everyone if name in asked] or some


def _versions(servers: dict[str, str]) -> dict[str, str]:
    """Return who was measured, over what; of a peer on Redis also what parses its replies."""
    used = {"fairway": "fairway", "apsw": "apsw", "redis-py": "redis", "hiredis": "hiredis", "uvloop": "uvloop"}
    versions = {"python": platform.python_version(), **servers}
    versions |= {name: metadata.version(package) for name, package in used.items() if find_spec(package)}
    for name, requirements in REQUIREMENTS.items():
        peer = requirements[0].partition("==")[2]
        replies = any("hiredis" in words for words in requirements)
        versions[name] = f"{peer} with hiredis" if replies else peer
    versions["bullmq"] = f"{BULLMQ} with ioredis"
    return versions


def main() -> int:
    """Run everything and report."""
    options = parser(__doc__ or "")
    options.add_argument("--only", default="", help="sections and contenders by name, comma between them")
    args = options.parse_args()
    sections, names = _chosen(args.only, args.quick)
    folder = CACHE / "jobs-run"
    shutil.rmtree(folder, ignore_errors=True)
    lab = Lab(folder)
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder / "redis"))
        postgres, missing = None, ""
        try:
            postgres = stack.enter_context(postgres_server(folder / "postgres"))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            missing = f"PostgreSQL: {error}"
        bench = Bench(Sizes(args.quick), sections, names, lab, Contenders(lab, redis, postgres))
        if missing:
            bench.report.note(missing)
        bench.all()
    bench.report.versions.update(_versions(server_versions()))
    shutil.rmtree(folder, ignore_errors=True)
    return finish(bench.report, args)


if __name__ == "__main__":
    sys.exit(main())
