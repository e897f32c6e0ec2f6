"""What every `fairway serve` command with an HTTP API shares: its file, its address, its token, its end."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.api.app import Services
    from fairway.concurrency import Context

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class ServiceConfigError(FairwayError):
    """The configuration of a service cannot be used."""

    code = "cli.usage"


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """A service's configuration: its YAML file, over which the command line's options go.

    Attributes:
        host: Address to listen on. port: port, 0 for a free one.
        token: Bearer token that callers need, or None.
        values: The fields of the file.
    """

    host: str
    port: int
    token: str | None
    values: dict[str, Any]

    @classmethod
    def read(
        cls, path: Path | None, known: Mapping[str, Any], listen: str | None, token_file: Path | None
    ) -> ServiceConfig:
        """Read the file and join it with the options.

        Args:
            path: YAML file, or None.
            known: Fields that it may have beside ``listen`` and ``token_file``, and their types.
            listen: ``HOST:PORT`` of the command line, or None.
            token_file: File of the command line, or None.

        Raises:
            ServiceConfigError: Fields that are unknown or of another type, a bad address, an unreadable file, or a
                public address without token.
        """
        values = _fields(path, {**known, "listen": str, "token_file": str})
        address = str(listen or values.get("listen") or "127.0.0.1:7070")
        host, _, port = address.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise ServiceConfigError(f"expected listen as HOST:PORT, got {address!r}")
        host = host.strip("[]")
        secret = token_file or values.get("token_file")
        try:
            token = None if secret is None else Path(secret).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "expected text in UTF-8"
            raise ServiceConfigError(f"cannot read the token file {secret}: {why}") from error
        if not token and host not in _LOOPBACK:
            raise ServiceConfigError(f"expected a token_file for listening on {host}, which others can reach")
        return cls(host, int(port), token or None, values)


def _fields(path: Path | None, known: Mapping[str, Any]) -> dict[str, Any]:
    if path is None:
        return {}
    import msgspec
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506  # both are safe
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ServiceConfigError(f"cannot read {path}: {error}") from error
    unknown = sorted(map(str, set(values) - set(known))) if isinstance(values, dict) else [type(values).__name__]
    if unknown:
        raise ServiceConfigError(f"{path}: expected the fields {', '.join(sorted(known))}, got {', '.join(unknown)}")
    for name, value in values.items():
        try:
            msgspec.convert(value, known[name])
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            raise ServiceConfigError(f"{path}: {name}{where.rstrip('`')}: {message[:1].lower()}{message[1:]}") from None
    result: dict[str, Any] = values
    return result


def _without_secrets(url: str) -> str:
    """Return a store's URL without user, password and query, which may hold one."""
    scheme, slashes, rest = url.partition("://")
    return scheme + slashes + rest.rpartition("@")[2].partition("?")[0]


@asynccontextmanager
async def serving(config: ServiceConfig, services: Services, name: str, store: str) -> AsyncIterator[Context]:
    """Serve the API of `services` for the block; the context ends at SIGINT or SIGTERM."""
    from fairway.api.app import create_app
    from fairway.api.guard import GuardPolicy
    from fairway.api.server import serve
    from fairway.concurrency import notify_context
    from fairway.telemetry import log

    async with notify_context(signal.SIGINT, signal.SIGTERM) as ctx:
        policy = GuardPolicy(token=config.token, hosts=frozenset({config.host}))
        async with serve(create_app(services, policy=policy), host=config.host, port=config.port) as bound:
            log.get(name).info("ready", url=f"http://{bound[0]}:{bound[1]}", store=_without_secrets(store))
            yield ctx
