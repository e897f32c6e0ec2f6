"""HTTPS for the platform's door: where its certificates come from, and when its workers read them again.

Three sources, one folder of pairs: files that the operator keeps, a development authority for names under
``localhost``, and an ACME authority for public names. What is decided here is which name needs a pair now; the pairs
themselves are made by `fairway.proxy.devca` and `fairway.proxy.acme`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fairway.concurrency import Ticker, select
from fairway.errors import FairwayError
from fairway.platform.errors import PlatformError
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.concurrency import Context

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LOOK_EVERY = 1.0
"""Seconds between two looks at the operator's files and at the names that need a certificate."""

_RETRY_FIRST, _RETRY_CAP = 300.0, 6 * 3600.0
_RENEWAL_CHECK = 12 * 3600.0
T = TypeVar("T")


class TlsError(PlatformError):
    """The certificate or key that was given cannot be used."""

    code = "tls.files"


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How the door serves HTTPS.

    Attributes:
        host: Address to listen on.
        port: Port to listen on.
        certificate: PEM file of a certificate and its chain that serves every name, or None.
        key: Its key; given exactly when `certificate` is.
        acme: Contact address for the ACME authority, which is asked for names outside of ``localhost``; None asks none.
        directory: URL of that authority's directory.
        acme_trust: PEM file with the root of that authority's own server, or None for the system's.
        authority: Folder of the development authority; None for the user's own, which all projects share.
    """

    host: str = "127.0.0.1"
    port: int = 8443
    certificate: Path | None = None
    key: Path | None = None
    acme: str | None = None
    directory: str = LETS_ENCRYPT
    acme_trust: Path | None = None
    authority: Path | None = None

    @property
    def root(self) -> Path | None:
        """The certificate to trust for names under ``localhost``; None where the operator's own files serve."""
        if self.certificate is not None:
            return None
        return (self.authority or authority_folder()) / "authority.crt"


def authority_folder(source: Mapping[str, str] | None = None) -> Path:
    """Return the folder of the user's development authority, below ``XDG_DATA_HOME`` or ``~/.local/share``."""
    source = os.environ if source is None else source
    base = source.get("XDG_DATA_HOME") or os.path.join(source.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return Path(base) / "fairway" / "authority"


class Certificates:
    """The pairs that the door's workers read, kept up to date. Calls block but for `follow`.

    Args:
        config: Where they come from.
        folder: Where they go; made 0700, keys 0600.
    """

    def __init__(self, config: TlsConfig, folder: Path) -> None:
        self.config = config
        self.challenges = folder / "challenges"
        self._account_key = folder / "account.key"
        # A folder a source: what another one has left must not be served.
        source = "given" if config.certificate else "acme" if config.acme else "development"
        self.folder = folder / source
        self._authority = config.authority or authority_folder()
        self._seen: tuple[object, ...] = ()
        self._covered: set[str] = set()
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._renewing = time.monotonic() + _RENEWAL_CHECK

    def __repr__(self) -> str:
        return f"<Certificates {self.folder} [{len(self._covered)} names]>"

    def check(self) -> None:
        """Make sure that the operator's files can be used, where there are any.

        Raises:
            TlsError: They cannot; the message names them.
        """
        certificate, key = self.config.certificate, self.config.key
        if certificate is None:
            return
        if key is None:
            raise TlsError("expected a key beside the certificate, got none", hint="Give --tls-key too.")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise TlsError(
                f"expected a certificate in PEM at {certificate} and its key at {key}, got: {error}",
                hint="The first certificate of the file has to be the one of the key; keys have no passphrase.",
            ) from error

    def prepare(self) -> None:
        """Make sure that there is a pair to begin with: a door without one does not start.

        Raises:
            TlsError: The operator's files cannot be used.
            CertificateError: The development authority cannot be written.
        """
        for folder in (self.folder.parent, self.folder, self.challenges):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.config.certificate is not None:
            self._seen = self._stamps()
            self._copy()
        else:
            self.cover(["localhost"])

    def cover(self, hosts: Iterable[str]) -> bool:
        """Make certificates for the names under ``localhost``; returns whether there are new ones to read."""
        wanted = sorted({h for h in hosts if is_local(h)} - self._covered) if self.config.certificate is None else []
        if not wanted:
            return False
        from fairway.proxy.errors import CertificateError
        from fairway.run.child import run_module

        # In a process of its own: cryptography would cost the daemon 10 MiB for good.
        with _alone(self._authority):
            failure = run_module("fairway.proxy.devca", str(self._authority), str(self.folder), *wanted)
        if failure:
            raise CertificateError(failure)
        self._covered.update(wanted)
        return True

    async def ensure(self, hosts: Iterable[str], reload: Callable[[], Awaitable[None]]) -> None:
        """Do what `cover` does, in a thread, and let the door read what is new; a failure costs HTTPS, not HTTP."""
        names = self.needs(hosts)
        if not names:
            return
        try:
            await asyncio.to_thread(self.cover, names)
        except (FairwayError, OSError) as error:
            log.get("platform").error("no certificate", hosts=names, error=str(error))
            return
        await reload()

    def needs(self, hosts: Iterable[str]) -> list[str]:
        """Return the names of `hosts` that `cover` has not seen, so that an unchanged set costs nothing."""
        if self.config.certificate is not None:
            return []
        return [h for h in hosts if is_local(h) and h not in self._covered]

    def changed(self) -> bool:
        """Take the operator's files over if they have changed; returns whether there is something new to read.

        Files that are half-written or do not fit each other change nothing; they are looked at again.
        """
        if self.config.certificate is None or (stamps := self._stamps()) == self._seen:
            return False
        try:
            self.check()
        except TlsError as error:
            if stamps[0] is not None:
                log.get("platform").warning("the certificate has changed and cannot be used", error=str(error))
            return False
        self._seen = stamps
        self._copy()
        return True

    async def follow(
        self, ctx: Context, hosts: Callable[[], Iterable[str]], reload: Callable[[], Awaitable[None]]
    ) -> None:
        """Keep the pairs up to date until `ctx` is done: the operator's files, and orders at the ACME authority.

        Args:
            ctx: Ends it.
            hosts: Names that the door serves now.
            reload: Lets the door read the pairs again.
        """
        ticker = Ticker(LOOK_EVERY)
        try:
            while True:
                match await select(ctx.done().on_recv(), ticker.on_recv()):
                    case 0, _, _:
                        return
                if self.config.certificate is not None:
                    if await asyncio.to_thread(self.changed):
                        await reload()
                    continue
                if self._renewing <= time.monotonic():
                    self._renewing = time.monotonic() + _RENEWAL_CHECK
                    self._covered.clear()
                    await self.ensure(hosts(), reload)
                if self.config.acme is not None:
                    for host in self.due(hosts(), time.monotonic()):
                        if await self._order(host):
                            await reload()
        finally:
            ticker.stop()

    def due(self, hosts: Iterable[str], now: float) -> list[str]:
        """Return the public names to be looked at now: new ones, failed ones after a pause, the others twice a day."""
        return sorted(h for h in hosts if is_public(h) and self._due.get(h, 0.0) <= now)

    # -- inside ----------------------------------------------------------------------------------------------

    async def _order(self, host: str) -> bool:
        """Order a certificate for a public name if it needs one; returns whether there is a new one."""
        from fairway.proxy.acme import AcmeOptions, needs_renewal, obtain_certificate

        logger = log.get("platform")
        if not needs_renewal(self.folder / f"{host}.crt"):
            self._due[host] = time.monotonic() + _RENEWAL_CHECK
            return False
        options = AcmeOptions(
            directory=self.config.directory,
            challenges=self.challenges,
            certificates=self.folder,
            account_key=self._account_key,
            email=self.config.acme,
            trust=self.config.acme_trust,
        )
        try:
            await _in_thread(lambda: obtain_certificate([host], options))
        except (FairwayError, OSError) as error:
            failures = self._failures[host] = self._failures.get(host, 0) + 1
            pause = retry_pause(failures)
            self._due[host] = time.monotonic() + pause
            logger.error("no certificate", host=host, error=str(error), next_try_s=pause)
            return False
        self._failures.pop(host, None)
        self._due[host] = time.monotonic() + _RENEWAL_CHECK
        logger.info("certificate obtained", host=host, authority=self.config.directory)
        return True

    def _stamps(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self.config.certificate, self.config.key):
            try:
                stat = os.stat(path) if path is not None else None
            except OSError:
                stat = None
            found.append(None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def _copy(self) -> None:
        from fairway.proxy.devca import write_private

        for source, name in ((self.config.key, "given.key"), (self.config.certificate, "given.crt")):
            assert source is not None, "check() has seen both"
            write_private(self.folder / name, source.read_bytes())


def retry_pause(failures: int) -> float:
    """Return the seconds until an order that has failed so many times in a row is tried again.

    min(6 h, 5 min · 2^(failures-1)): 5, 10, 20 … minutes, as an authority that counts failures an hour allows.
    """
    return min(_RETRY_CAP, _RETRY_FIRST * 2.0 ** min(failures - 1, 16))


def is_local(host: str) -> bool:
    """Tell whether a name is ``localhost`` or under it."""
    return host == "localhost" or host.endswith(".localhost")


def is_public(host: str) -> bool:
    """Tell whether an ACME authority can prove a name over HTTP: a full domain name, no wildcard, no address."""
    last = host.rpartition(".")[2]
    return "." in host and not is_local(host) and "*" not in host and not last.isdigit() and ":" not in host


def _no_password() -> str:
    raise ValueError("a key with a passphrase")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the authority's lock: two projects that start at once must not make two authorities of one folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def _in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread that nobody waits for when the daemon ends: an order may take minutes."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return  # whoever asked has left
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # a T where there is no error

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = work()
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, result, failed)

    threading.Thread(target=run, name="certificate order", daemon=True).start()
    return await done
