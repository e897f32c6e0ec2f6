"""Control groups of an instance: the one sure way to kill a whole tree, and the only sound way to bound it.

Where they are writable (root, a delegated systemd unit, most containers), an instance gets a group of its own in the
v2 hierarchy, whose ``cgroup.kill`` ends every member at once, setsid or not. Memory and CPU limits come from the v2
controllers, or from v1 hierarchies where a machine still runs those. Where nothing is writable the answer is ``none``,
plainly: ``RLIMIT_AS`` and ``RLIMIT_DATA`` count address space that Go, V8 and .NET merely reserve, so that a limit by
them kills healthy apps long before they have used the memory; no limit is the more honest one.

A process joins by itself, before `exec`: a fixed line of shell writes its own pid (``echo 0``) and execs the program,
so that not even its first fork can escape.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import msgspec

from fairway.command import Command

_PERIOD_US = 100_000  # the kernel's default CPU period
_JOIN = 'for f in $FAIRWAY_CGROUPS; do echo 0 > "$f" || exit 126; done; unset FAIRWAY_CGROUPS f; exec "$@"'


class Hierarchies(msgspec.Struct, frozen=True):
    """Folders that an instance's groups can be made in; None where that is not possible.

    Attributes:
        unified: In the v2 hierarchy.
        controllers: v2 controllers that are usable there.
        memory: In the v1 memory hierarchy.
        cpu: In the v1 cpu hierarchy.
    """

    unified: Path | None = None
    controllers: frozenset[str] = frozenset()
    memory: Path | None = None
    cpu: Path | None = None


def discover(owner: str, *, mounts: str | None = None, own: str | None = None) -> Hierarchies:
    """Find out what this process may do with control groups, by trying.

    Args:
        owner: Name of the folder to make, one per state folder, such as ``fairway-1a2b3c4d``.
        mounts: Contents of ``/proc/self/mounts``; None reads it.
        own: Contents of ``/proc/self/cgroup``; None reads it.
    """
    mounts = _read("/proc/self/mounts") if mounts is None else mounts
    own = _read("/proc/self/cgroup") if own is None else own
    paths = _own_paths(own)
    unified: Path | None = None
    controllers: frozenset[str] = frozenset()
    v1: dict[str, Path | None] = {"memory": None, "cpu": None}
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        mount, kind, options = Path(fields[1]), fields[2], fields[3].split(",")
        if kind == "cgroup2":
            unified, controllers = _make_unified(mount, paths.get("", "/"), owner)
        elif kind == "cgroup":
            for name in v1.keys() & set(options):
                v1[name] = _make(_below(mount, paths.get(name, "/")) / owner)
    return Hierarchies(unified, controllers, v1["memory"], v1["cpu"])


class Cgroup:
    """The control groups of one instance; made by `create`, gone after `remove`.

    Attributes:
        folders: Every folder, the v2 one first where there is one.
        limits: How limits are enforced: ``cgroup v2``, ``cgroup v1`` or ``none``.
    """

    __slots__ = ("_kill", "folders", "limits")

    def __init__(self, folders: tuple[Path, ...], limits: str) -> None:
        self.folders = folders
        self.limits = limits
        first = folders[0] / "cgroup.kill" if folders else None
        self._kill = first if first is not None and first.exists() else None

    @classmethod
    def create(cls, where: Hierarchies, name: str, *, memory: int | None = None, cpus: float | None = None) -> Cgroup:
        """Make the groups of one instance and set its limits; never raises, it does what is possible.

        Args:
            where: What `discover` found.
            name: Folder name, unique among the instances.
            memory: Bytes, or None for no limit.
            cpus: Cores, or None for no limit.
        """
        folders: list[Path] = []
        how: set[str] = set()
        unified = _make(where.unified / name) if where.unified is not None else None
        if unified is not None:
            folders.append(unified)
            if memory is not None and "memory" in where.controllers and _write(unified / "memory.max", str(memory)):
                _write(unified / "memory.swap.max", "0")
                _write(unified / "memory.oom.group", "1")
                how.add("cgroup v2")
                memory = None
            quota = f"{int((cpus or 0) * _PERIOD_US)} {_PERIOD_US}"
            if cpus is not None and "cpu" in where.controllers and _write(unified / "cpu.max", quota):
                how.add("cgroup v2")
                cpus = None
        if memory is not None and where.memory is not None:
            group = _make(where.memory / name)
            if group is not None and _write(group / "memory.limit_in_bytes", str(memory)):
                folders.append(group)
                how.add("cgroup v1")
        if cpus is not None and where.cpu is not None:
            group = _make(where.cpu / name)
            quota = str(int(cpus * _PERIOD_US))
            if group is not None and _write(group / "cpu.cfs_quota_us", quota):  # the period is 100 ms by default
                folders.append(group)
                how.add("cgroup v1")
        return cls(tuple(folders), ", ".join(sorted(how)) or "none")

    @property
    def can_kill(self) -> bool:
        """True where the v2 hierarchy knows, and can end, every member."""
        return self._kill is not None

    def enter(self, command: Command) -> Command:
        """Return a command that joins the groups and then execs `command` under the same pid."""
        if not self.folders:
            return command
        files = " ".join(str(f / "cgroup.procs") for f in self.folders)
        env = {**command.env, "FAIRWAY_CGROUPS": files}
        return Command(("/bin/sh", "-c", _JOIN, "sh", *command.argv), env, command.cwd)

    def pids(self) -> set[int]:
        """Return the live members; the v2 hierarchy knows them all, else those of every folder together."""
        found: set[int] = set()
        for folder in self.folders[:1] if self.can_kill else self.folders:
            try:
                found.update(int(line) for line in _read(str(folder / "cgroup.procs")).split())
            except ValueError:
                continue
        return found

    def kill(self) -> bool:
        """SIGKILL every member at once; False where the kernel cannot (no v2 hierarchy)."""
        return self._kill is not None and _write(self._kill, "1")

    def oom_killed(self) -> bool:
        """Say whether the kernel killed a member for want of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                for line in _read(str(folder / name)).splitlines():
                    if line.startswith("oom_kill ") and line.split()[1] != "0":
                        return True
        return False

    def remove(self) -> bool:
        """Remove the folders; False while a member (a zombie too) is left, to be tried again."""
        done = True
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                done = False
        return done

    def __repr__(self) -> str:
        return f"<Cgroup {len(self.folders)} folders, limits: {self.limits}>"


def sweep(where: Hierarchies, keep: frozenset[str]) -> None:
    """Remove groups of instances that are gone, all but those named in `keep`; those with members stay."""
    for base in (where.unified, where.memory, where.cpu):
        if base is None:
            continue
        try:
            names = [e.name for e in os.scandir(base) if e.is_dir() and e.name not in keep]
        except OSError:
            continue
        for name in names:
            Cgroup((base / name,), "none").remove()


def remove_base(where: Hierarchies, *, timeout: float = 0.5) -> None:
    """Remove the folders that `discover` made, once every instance is gone; waits `timeout` seconds at most."""
    sweep(where, frozenset())
    until = time.monotonic() + timeout
    for base in (where.unified, where.memory, where.cpu):
        while base is not None and not Cgroup((base,), "none").remove() and time.monotonic() < until:
            sweep(where, frozenset())
            time.sleep(0.01)


def _own_paths(text: str) -> dict[str, str]:
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            paths[name] = path
    return paths


def _make_unified(mount: Path, own: str, owner: str) -> tuple[Path | None, frozenset[str]]:
    fallback: tuple[Path | None, frozenset[str]] = (None, frozenset())
    for parent in dict.fromkeys((_below(mount, own), mount)):
        made = _make(parent / owner)
        if made is None:
            continue
        for controller in ("memory", "cpu"):
            # Refused (EBUSY) where the parent holds processes itself: the next candidate may do.
            _write(parent / "cgroup.subtree_control", f"+{controller}")
            _write(made / "cgroup.subtree_control", f"+{controller}")
        usable = frozenset(_read(str(made / "cgroup.subtree_control")).split()) & {"memory", "cpu"}
        if usable or fallback[0] is None:
            if fallback[0] is not None:
                Cgroup((fallback[0],), "none").remove()
            fallback = (made, usable)
        else:
            Cgroup((made,), "none").remove()
        if usable:
            break
    return fallback


def _below(mount: Path, own: str) -> Path:
    inside = mount / own.lstrip("/")
    return inside if inside.is_dir() else mount


def _make(folder: Path) -> Path | None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder / "cgroup.procs", os.W_OK) else None


def _write(path: Path, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(fd, text.encode("ascii"))
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENODEV,
                               errno.EOPNOTSUPP, errno.ENOTSUP, errno.EIO}:  # fmt: skip
            raise
        return False
    finally:
        os.close(fd)
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
