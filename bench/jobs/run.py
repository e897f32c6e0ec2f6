"""Runs one workload of one contender and reads what it wrote."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import ROOT
from bench.jobs.services import free_port

HERE = Path(__file__).parent


class Producer:
    """A process that enqueues when asked to; see `peers.commands`."""

    def __init__(self, process: subprocess.Popen[bytes], lab: Lab) -> None:
        self._process = process
        self._lab = lab
        self.pid = process.pid
        self._read(60.0)  # it says when it is connected

    def ask(self, what: str, n: int, timeout: float = 120.0) -> float:
        """Have `n` jobs enqueued and return how many a second that was. Raises `RuntimeError`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {n}\n".encode())
        self._process.stdin.flush()
        return float(self._read(timeout)["rate"])

    def _read(self, timeout: float) -> dict[str, Any]:
        pipe, deadline = self._process.stdout, time.monotonic() + timeout
        assert pipe is not None
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            line = pipe.readline()
            if line.startswith(b"RESULT "):
                answer: dict[str, Any] = json.loads(line[7:])
                return answer
            if not line:
                raise RuntimeError(f"the producer exited with {self._process.wait()}; {self._lab.tail()}")
        raise RuntimeError(f"the producer did not answer within {timeout:g} s; {self._lab.tail()}")


class Lab:
    """A folder for results and databases, and the processes started from it.

    Args:
        folder: Emptied by its owner before.
        log: File that takes what the contenders print.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "log").open("ab")
        self._count = 0

    def path(self, name: str) -> Path:
        """Return a path in the folder that was never used before."""
        self._count += 1
        return self.folder / f"{self._count}-{name}"

    def start(self, argv: list[str], out: Path, jobs: int, cwd: Path = ROOT) -> subprocess.Popen[bytes]:
        """Start a contender's process in a group of its own."""
        env = {**os.environ, "BENCH_OUT": str(out), "BENCH_JOBS": str(jobs), "PYTHONWARNINGS": "ignore"}
        return subprocess.Popen(argv, cwd=cwd, env=env, stdout=self._log, stderr=self._log, start_new_session=True)

    @contextmanager
    def producer(self, argv: list[str]) -> Iterator[Producer]:
        """Run a producer, connected."""
        env = {**os.environ, "BENCH_OUT": "", "BENCH_JOBS": "0", "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(
            argv, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield Producer(process, self)
        finally:
            stop(process)

    def finish(self, argv: list[str], jobs: int, *, out: Path | None = None, timeout: float = 150) -> dict[str, Any]:
        """Run a process to its end and return the result it wrote (an empty one where it writes none)."""
        result = out or self.path("result.json")
        process = self.start([str(result) if word == "OUT" else word for word in argv], result, jobs)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{' '.join(argv[:5])} took more than {timeout:g} s; {self.tail()}") from None
        finally:
            stop(process)
        if status != 0:
            raise RuntimeError(f"{' '.join(argv[:5])} exited with {status}; {self.tail()}")
        return read(result) if result.exists() else {}

    def work(self, argv: list[str], jobs: int, *, timeout: float = 100, cwd: Path = ROOT) -> dict[str, Any]:
        """Run a worker until its meter has seen all jobs; check count and sum."""
        out = self.path("meter.json")
        process = self.start([str(out) if word == "OUT" else word for word in argv], out, jobs, cwd)
        try:
            return self.wait_for(out, jobs, process, timeout)
        finally:
            stop(process)

    def wait_for(self, out: Path, jobs: int, process: subprocess.Popen[bytes], timeout: float = 100) -> dict[str, Any]:
        """Wait for a meter's result and check that every job ran once."""
        deadline = time.monotonic() + timeout
        while not out.exists():
            if process.poll() is not None:
                raise RuntimeError(f"the worker exited with {process.returncode}; {self.tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not run {jobs} jobs in {timeout:g} s; {self.tail()}")
            time.sleep(0.05)
        return check(read(out), jobs)

    def tail(self) -> str:
        """Return the last lines of the log, without the folders of this machine: results are published."""
        self._log.flush()
        lines = (self.folder / "log").read_text("utf-8", "replace").strip().splitlines()
        return re.sub(r"(?<![\w.:/])/(?:[^\s/\"']+/)+", "…/", " | ".join(lines[-6:]))[-700:]

    @contextmanager
    def daemon(self, store: str) -> Iterator[tuple[str, int]]:
        """Serve a store over HTTP in a process of its own; yield URL and process id."""
        port = free_port()
        argv = [sys.executable, "-m", "fairway", "serve", "job-queue", "--listen", f"127.0.0.1:{port}"]
        process = self.start([*argv, "--store", store], self.path("unused"), 0)
        try:
            answers(f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            stop(process)

    @contextmanager
    def bare(self) -> Iterator[str]:
        """Serve the bare handler; yield its URL."""
        port = free_port()
        argv = [sys.executable, "-m", "bench.jobs.own", "bare", "1", "unused", str(port)]
        process = self.start(argv, self.path("unused"), 0)
        try:
            answers(f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process)

    def wrk(self, url: str, seconds: float) -> float:
        """POST jobs over 32 connections; return requests a second, all of them accepted."""
        argv = ["wrk", "-t1", "-c32", f"-d{seconds:g}s", "-s", str(HERE / "post.lua"), f"{url}/v1/queues/default/jobs"]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in told or "Socket errors" in told:
            raise RuntimeError(f"not every request was accepted: {told}")
        found = re.search(r"Requests/sec:\s+([0-9.]+)", told)
        assert found is not None, told
        return float(found[1])


def read(path: Path) -> dict[str, Any]:
    """Return a result."""
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def check(result: dict[str, Any], jobs: int) -> dict[str, Any]:
    """Return a meter's result. Raises `RuntimeError` unless every job ran once."""
    if result["count"] != jobs or result["total"] != jobs * (jobs - 1) // 2:
        raise RuntimeError(f"expected {jobs} jobs with the sum of their numbers, got {result['count']}")
    return result


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def answers(url: str) -> None:
    """Wait until something answers HTTP there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
