"""What `fairway up` was told: its flags, what each may say, and what is made of them. Needs no Click to be imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.platform.doorplan import DoorSetup
    from fairway.platform.tls import TlsConfig

LISTEN = "127.0.0.1:8080"
API = "127.0.0.1:7070"
ACCESS_LOG = "1"
MOST_WORKERS = 64


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, ``:PORT`` or ``PORT``; an IPv6 host in brackets. Raises `ValueError`, a sentence."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not int(port) <= 65535:
        raise ValueError(f"expected HOST:PORT with a port from 0 to 65535, got {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def parse_share(text: str) -> float | None:
    """Read a share of requests from 0 to 1, or ``off``, which is None. Raises `ValueError`, a sentence."""
    if text == "off":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"expected a share from 0 to 1, or off, got {text!r}")
    return share


class UpOptions(msgspec.Struct, frozen=True):
    """The flags of `fairway up`, checked one by one."""

    apps: tuple[str, ...] = ()
    detach: bool = False
    listen: tuple[str, int] = parse_address(LISTEN)
    api: tuple[str, int] = parse_address(API)
    workers: int = 1
    watch: bool = True
    as_json: bool = False
    background: bool = False
    tls: bool = False
    tls_listen: tuple[str, int] | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    acme: str | None = None
    acme_directory: str | None = None
    acme_trust: Path | None = None
    access_log: float | None = parse_share(ACCESS_LOG)
    trusted: tuple[str, ...] = ()

    def door(self) -> DoorSetup:
        """Return what the door is started with.

        Raises:
            click.UsageError: Options that do not go together, or a network that is none.
        """
        from fairway.platform.doorplan import DoorSetup

        return DoorSetup(tls=self._tls(), access_log=self.access_log, trusted=self._networks() if self.trusted else ())

    def _networks(self) -> tuple[str, ...]:
        from click import BadParameter

        from fairway.proxy.options import parse_networks, split_networks

        trusted = split_networks(self.trusted)
        try:
            parse_networks(trusted)
        except FairwayError as error:
            raise BadParameter(str(error), param_hint="--trusted") from None
        return trusted

    def _tls(self) -> TlsConfig | None:
        if not (self.tls or self.tls_listen or self.tls_cert or self.tls_key or self._names_an_authority()):
            return None
        from click import UsageError

        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key go together: a certificate is of no use without its key.")
        if self.tls_cert is not None and self.acme is not None:
            raise UsageError("--tls-cert and --acme do not go together: who is to make the certificates?")
        if self.acme is None and (self.acme_directory is not None or self.acme_trust is not None):
            raise UsageError("--acme-directory and --acme-trust go with --acme EMAIL.")
        from fairway.platform.tls import LETS_ENCRYPT, TlsConfig

        host, port = self.tls_listen or (self.listen[0], 8443)
        return TlsConfig(
            host=host,
            port=port,
            certificate=self.tls_cert,
            key=self.tls_key,
            acme=self.acme,
            directory=self.acme_directory or LETS_ENCRYPT,
            acme_trust=self.acme_trust,
        )

    def _names_an_authority(self) -> bool:
        return self.acme is not None or self.acme_directory is not None or self.acme_trust is not None

    def words(self) -> list[str]:
        """Return the arguments that give another process the same flags."""
        return [
            f"--listen={_address(self.listen)}",
            f"--api={_address(self.api)}",
            f"--workers={self.workers}",
            "--watch" if self.watch else "--no-watch",
            f"--access-log={'off' if self.access_log is None else f'{self.access_log:g}'}",
            *(f"--trusted={network}" for network in self.trusted),
            *self._tls_words(),
            "--",
            *self.apps,
        ]

    def _tls_words(self) -> list[str]:
        given = {
            "--tls-listen": _address(self.tls_listen) if self.tls_listen else None,
            "--tls-cert": self.tls_cert,
            "--tls-key": self.tls_key,
            "--acme": self.acme,
            "--acme-directory": self.acme_directory,
            "--acme-trust": self.acme_trust,
        }
        return [*(["--tls"] if self.tls else []), *(f"{name}={value}" for name, value in given.items() if value)]


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
