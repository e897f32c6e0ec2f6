"""What registry files said when they were read last, by the digest of their bytes.

Reading a file safely takes PyYAML and the checker of every field, most of the time that an unchanged registry costs at
a start. What comes out depends on the bytes and on Fairway's own code alone; so it is kept, under a digest of the one
and the stamps of the other. Everything that depends on the machine or on other files (paths, duplicate names and
domains, dependencies) is not part of it and is checked at every reading. Files with problems are never remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

import fairway
from fairway.apps.problem import Mark
from fairway.apps.spec import (
    AppSpec,
    CanarySpec,
    DeploySpec,
    DoorSpec,
    Endpoint,
    HealthSpec,
    LimitSpec,
    Runtime,
)

# The modules that decide what a file's bytes mean.
_CODE = ("convert.py", "document.py", "form.py", "memory.py", "problem.py", "spec.py", "values.py")
_PLAIN = ("command", "build", "processes", "env", "secrets", "replicas", "depends_on")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A registry file's fields, checked and filled with defaults; its paths as they are written.

    The fields are those of `fairway.apps.spec.AppSpec`.
    """

    name: str
    source: str | None
    compose_file: str | None
    env_file: str | None
    runtime: Runtime
    backend: Endpoint
    frontend: Endpoint | None
    grpc: Endpoint | None
    command: tuple[str, ...] | None
    build: tuple[tuple[str, ...], ...] | None
    processes: dict[str, tuple[str, ...]]
    env: dict[str, str]
    secrets: tuple[str, ...]
    replicas: int
    depends_on: tuple[str, ...]
    health: HealthSpec
    deploy: DeploySpec
    limits: LimitSpec
    door: DoorSpec

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Entry:
        """Return the entry of what `fairway.apps.convert.convert` gave without complaints."""
        deploy = fields["deploy"]
        canary = CanarySpec(**deploy["canary"]) if deploy["canary"] else None
        return cls(
            name=fields["name"],
            source=fields["source"],
            compose_file=fields["compose_file"],
            env_file=fields["env_file"],
            runtime=fields["runtime"],
            backend=Endpoint(**fields["backend"]),
            frontend=Endpoint(**fields["frontend"]) if fields["frontend"] else None,
            grpc=Endpoint(**fields["grpc"]) if fields["grpc"] else None,
            health=HealthSpec(**fields["health"]),
            deploy=DeploySpec(**{**deploy, "canary": canary}),
            limits=LimitSpec(**fields["limits"]),
            door=DoorSpec(**fields["door"]),
            **{name: fields[name] for name in _PLAIN},
        )

    def spec(self, file: Path, source: Path | None, compose_file: Path | None, env_file: Path | None) -> AppSpec:
        """Return the app, with its paths resolved."""
        return AppSpec(
            name=self.name,
            file=file,
            source=source,
            compose_file=compose_file,
            env_file=env_file,
            runtime=self.runtime,
            backend=self.backend,
            frontend=self.frontend,
            grpc=self.grpc,
            health=self.health,
            deploy=self.deploy,
            limits=self.limits,
            door=self.door,
            **{name: getattr(self, name) for name in _PLAIN},
        )


class Known(msgspec.Struct, frozen=True):
    """What one file said, and where each of its fields stands."""

    entry: Entry
    marks: dict[str, Mark]


class _Kept(msgspec.Struct):
    code: str
    files: dict[str, msgspec.Raw]


class Memory:
    """Remembers what registry files said; what cannot be read or is of another Fairway is forgotten.

    Args:
        path: File (0600) that keeps it between runs, in a private folder; None remembers nothing.
    """

    __slots__ = ("_code", "_files", "_kept", "_path")

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._code = _code() if path is not None else None
        self._kept: dict[str, msgspec.Raw] = {}
        self._files: dict[str, msgspec.Raw] = {}
        if path is not None and self._code is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
                self._kept = kept.files if kept.code == self._code else {}

    def recall(self, content: bytes) -> Known | None:
        """Return what a file of these bytes said, or None where nobody knows."""
        if not self._kept:
            return None
        digest = _digest(content)
        raw = self._kept.get(digest)
        if raw is None:
            return None
        try:
            known = msgspec.json.decode(raw, type=Known)
        except msgspec.MsgspecError:
            return None
        self._files[digest] = raw
        return known

    def keep(self, content: bytes, known: Known) -> None:
        """Remember what a file of these bytes says, from the next `save` on."""
        if self._code is not None:
            self._files[_digest(content)] = msgspec.Raw(msgspec.json.encode(known))

    def save(self) -> None:
        """Write what was recalled and kept since this was made, if that differs from what is written.

        A folder that cannot be written costs the next start its time and nothing else.
        """
        if self._path is None or self._code is None or self._files.keys() == self._kept.keys():
            return
        import tempfile

        content = msgspec.json.encode(_Kept(self._code, self._files))
        with contextlib.suppress(OSError):
            fd, staged = tempfile.mkstemp(prefix=".new-", dir=self._path.parent)
            try:
                with open(fd, "wb") as file:
                    file.write(content)
                os.replace(staged, self._path)
            except OSError:
                os.unlink(staged)  # or a disk that is full gets one more at every start
                raise
        self._kept = self._files

    def __repr__(self) -> str:
        return f"<Memory {self._path} [{len(self._kept)} files]>"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _code() -> str | None:
    """Return what changes with the code that reads files; None where it cannot be looked at."""
    folder = Path(__file__).parent
    try:
        stamps = [(s.st_size, s.st_mtime_ns) for s in ((folder / name).stat() for name in _CODE)]
    except OSError:
        return None
    return f"{fairway.__version__} {msgspec.__version__} {stamps}"
