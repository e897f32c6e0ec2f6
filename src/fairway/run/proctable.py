"""One look at every process of the machine, and which of them belong to an instance: pure over the look."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fairway.run import environment

MARKER = environment.MARKER


class ProcessEntry(NamedTuple):
    """One process: `state` is the kernel's letter (``Z``: zombie), `started` in ticks since boot, `rss` in bytes."""

    pid: int
    ppid: int
    pgrp: int
    session: int
    state: str
    started: int
    rss: int


ProcessTable = Mapping[int, ProcessEntry]
_PAGE = os.sysconf("SC_PAGE_SIZE")


def snapshot() -> dict[int, ProcessEntry]:
    """Read every process that can be seen, about 15 µs each on Linux."""
    if not os.path.exists("/proc/self/stat"):
        return _snapshot_psutil()
    table: dict[int, ProcessEntry] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            entry = read_entry(int(name))
            if entry is not None:
                table[entry.pid] = entry
    return table


def read_entry(pid: int) -> ProcessEntry | None:
    """Read one process, or None if it is gone."""
    if not os.path.exists("/proc/self/stat"):
        return _snapshot_psutil((pid,)).get(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name is in brackets and may itself hold spaces and brackets: fields start after the last one.
    fields = text[text.rfind(b")") + 2 :].split()
    return ProcessEntry(
        pid,
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        fields[0].decode("ascii"),
        int(fields[19]),
        int(fields[21]) * _PAGE,
    )


def marker_of(pid: int) -> str | None:
    """Return the instance marker in a process's environment; None without one, or where it may not be read."""
    if not os.path.exists("/proc/self/stat"):
        return _marker_psutil(pid)
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            text = file.read()
    except OSError:
        return None
    key = MARKER.encode() + b"="
    for entry in text.split(b"\0"):
        if entry.startswith(key):
            return entry[len(key) :].decode("utf-8", "replace")
    return None


def marked(table: ProcessTable, prefix: str) -> dict[int, str]:
    """Return the marker of every live process whose marker begins with `prefix`. Reads their environments."""
    found: dict[int, str] = {}
    for pid, entry in table.items():
        if entry.state != "Z" and entry.rss:  # kernel threads have neither memory nor environment
            marker = marker_of(pid)
            if marker is not None and marker.startswith(prefix):
                found[pid] = marker
    return found


def members(table: ProcessTable, leader: int | None, since: int, seeds: Iterable[int] = ()) -> set[int]:
    """Return the live processes that belong to the instance led by `leader`.

    They are those in its process group or session, those in `seeds` (found by marker or control group), and every
    descendant of one of them. Zombies hold nothing and are left out. Nothing that is older than the instance can be
    part of it, and neither can the caller or an ancestor of the caller: whatever the numbers say, those are left out.

    Args:
        table: A look at all processes.
        leader: Pid of the leader, which is the id of its group and session too; it may be a zombie. None where that id
            may belong to somebody else by now.
        since: When the leader started, in ticks since boot, > 0.
        seeds: Further members that are known.
    """
    if since <= 0 or (leader is not None and leader <= 1):
        # Group and session 0 are the kernel's own and, in a container, everybody's outside of it.
        raise ValueError(f"expected a leader above 1 and its start time, got {leader} and {since}")
    excluded = ancestors(table)
    inside = {p for p, e in table.items() if leader is not None and leader in (p, e.pgrp, e.session)}
    inside.update(p for p in seeds if p in table)
    inside = {p for p in inside if table[p].started >= since} - excluded
    children: dict[int, list[int]] = {}
    for pid, entry in table.items():
        if entry.started >= since and pid not in excluded:
            children.setdefault(entry.ppid, []).append(pid)
    queue = list(inside)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in inside:
                inside.add(child)
                queue.append(child)
    return {p for p in inside if table[p].state not in {"Z", "X"}}


def ancestors(table: ProcessTable, pid: int | None = None) -> set[int]:
    """Return `pid` (None: the caller), its parents up to the root, and what no instance can be: 0 and init."""
    found = {0, 1}
    pid = os.getpid() if pid is None else pid
    while pid not in found:
        found.add(pid)
        entry = table.get(pid)
        pid = entry.ppid if entry is not None else 0
    return found


def resident(table: ProcessTable, pids: Iterable[int]) -> int:
    """Return the resident bytes of `pids` together; pages that they share count for each."""
    return sum(table[p].rss for p in pids if p in table)


def boot_id() -> str:
    """Return an id that changes with every boot, so that start times of an earlier boot are never believed."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def _snapshot_psutil(only: tuple[int, ...] | None = None) -> dict[int, ProcessEntry]:
    import psutil

    table: dict[int, ProcessEntry] = {}
    for pid in psutil.pids() if only is None else only:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "S"
                rss = process.memory_info().rss if state != "Z" else 0
                # Microseconds of the creation time stand in for ticks since boot.
                started = int(process.create_time() * 1e6)
                table[pid] = ProcessEntry(pid, process.ppid(), os.getpgid(pid), os.getsid(pid), state, started, rss)
        except (psutil.Error, OSError):
            continue
    return table


def _marker_psutil(pid: int) -> str | None:
    import psutil

    try:
        return psutil.Process(pid).environ().get(MARKER)
    except (psutil.Error, OSError):
        return None
