"""The Redis and the PostgreSQL that the benchmark starts for itself, on free ports, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from bench.harness import run


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis with an append-only file synced every second, as all of the peers get it; yield its URL."""
    binary = _redis()
    if binary is None:
        raise RuntimeError("expected redis-server or valkey-server on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    argv += ["--appendonly", "yes", "--appendfsync", "everysec", "--loglevel", "warning"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _answers(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL with its own settings except for the port; as another user where this one is root."""
    tools = _initdb()
    if tools is None:
        raise RuntimeError("expected initdb and postgres on PATH")
    user = _other_user() if os.getuid() == 0 else None
    if user is not None:
        # A folder that another user reaches, whatever the modes above the cache.
        folder = Path("/tmp") / f"fairway-bench-pg-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    identity = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data, port = folder / "data", free_port()
    environment = {**os.environ, "HOME": str(folder)}
    subprocess.run(
        [tools, "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment, **identity,
    )  # fmt: skip
    process = subprocess.Popen(
        [tools.with_name("postgres"), "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env=environment, **identity,
    )  # fmt: skip
    try:
        _answers(port)
        time.sleep(0.5)
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def server_versions() -> dict[str, str]:
    """Return the versions of the Redis, the PostgreSQL and the SQLite that are measured, without those not there."""
    programs = {"redis": _redis(), "postgres": tools.with_name("postgres") if (tools := _initdb()) else None}
    versions = {"sqlite": apsw.sqlite_lib_version()}
    for name, program in programs.items():
        if program is not None:
            told = run([str(program), "--version"])
            found = re.search(r"\d+(\.\d+)+", told)
            versions[f"{name} server"] = found[0] if found else told.strip()
    return versions


def _redis() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


def _initdb() -> Path | None:
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    return None if found is None else Path(found)


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("expected a user postgres or nobody to run PostgreSQL as")


def _answers(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
