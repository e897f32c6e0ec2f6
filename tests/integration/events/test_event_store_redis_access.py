"""The Redis store over TLS, with a user of few rights, over a Unix socket; what it says survives."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.events import Event
from fairway.events.errors import EventError, EventStoreUnavailable
from fairway.events.stores import open_event_store
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration


def certify(folder: Path) -> None:
    """Write ca.crt, server.crt and server.key: a certificate for 127.0.0.1 and who signed it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key, issuer: str, signer, *extensions) -> bytes:
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(hours=1),
            not_valid_after=now + datetime.timedelta(hours=1),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = (x509.BasicConstraints(ca=True, path_length=None), True)
    names = (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    (folder / "ca.crt").write_bytes(certificate("tests", authority, "tests", authority, ca))
    (folder / "server.crt").write_bytes(certificate("redis", server, "tests", authority, names))
    (folder / "server.key").write_bytes(
        server.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RedisServer]:
    """A server with a TLS port beside its plain one, a socket, and a user that may do no more than the store needs."""
    if RedisServer.binary() is None:
        pytest.skip("no redis-server or valkey-server on this machine: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    certify(folder)
    tls = RedisServer(folder)  # for its free port
    server = RedisServer(
        folder,
        "everysec",
        *("--unixsocket", str(folder / "redis.sock"), "--tls-port", str(tls.port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(folder / "server.crt"), "--tls-key-file", str(folder / "server.key")),
        *("--tls-ca-cert-file", str(folder / "ca.crt")),
    )
    try:
        server.start()
    except AssertionError as error:
        pytest.skip(f"this redis-server has no TLS: {error}")
    server.command("ACL SETUSER app on >s3cret ~{fairway:* +@all -@admin -@dangerous")
    server.tls_port = tls.port
    yield server
    server.kill()


async def roundtrip(url: str) -> str:
    """Append, claim, acknowledge, wait; return the durability that the store names."""
    store = open_event_store(url)
    try:
        event = Event("t", {"n": 1})
        [offset] = await store.append([("a", event)])
        await store.join("g", "a", offset - 1)
        [claimed] = await store.claim("g", 1, 30.0, 5)
        assert claimed.stored.event == event
        assert await store.ack("g", offset, 1)
        assert not await store.wait(offset, 0.01)
        assert await store.leave("g")
        return store.features.durability
    finally:
        await store.close()


async def test_over_tls_with_a_certificate_that_is_checked(server) -> None:
    url = f"rediss://127.0.0.1:{server.tls_port}/0"
    assert await roundtrip(f"{url}?ssl_ca_certs={server.folder}/ca.crt") == "process"
    with pytest.raises(EventStoreUnavailable, match=r"(?i)certificate"):
        await roundtrip(url)
    assert await roundtrip(f"{url.replace('rediss', 'valkeys')}?ssl_ca_certs={server.folder}/ca.crt") == "process"


async def test_plain_on_a_tls_port_is_an_error_and_no_hang(server) -> None:
    with pytest.raises(EventStoreUnavailable):
        await roundtrip(f"redis://127.0.0.1:{server.tls_port}/0")


async def test_a_user_of_few_rights_and_a_wrong_password(server) -> None:
    place = f"127.0.0.1:{server.port}/0"
    # It may not read the configuration: then no more is promised than what any Redis keeps.
    assert await roundtrip(f"redis://app:s3cret@{place}") == "memory"
    with pytest.raises(EventStoreUnavailable, match="WRONGPASS") as caught:
        await roundtrip(f"redis://app:wrong-one@{place}")
    assert "wrong-one" not in str(caught.value)
    with pytest.raises(EventStoreUnavailable, match="NOPERM"):
        await roundtrip(f"redis://app:s3cret@{place}?namespace=another")


async def test_a_password_for_everybody(server) -> None:
    server.command("CONFIG SET requirepass sesame")
    try:
        assert await roundtrip(f"redis://:sesame@127.0.0.1:{server.port}/0") == "process"
        with pytest.raises(EventStoreUnavailable, match="NOAUTH"):
            await roundtrip(server.url)
    finally:
        store = open_event_store(f"redis://:sesame@127.0.0.1:{server.port}/0")
        await store._link.command("CONFIG", "SET", "requirepass", "")
        await store.close()


async def test_over_a_unix_socket(server) -> None:
    assert await roundtrip(f"unix://{server.folder}/redis.sock") == "process"


@pytest.mark.parametrize(
    ("settings", "durability"),
    [
        ({"appendonly": "yes", "appendfsync": "everysec"}, "process"),
        ({"appendonly": "yes", "appendfsync": "always"}, "fsync"),
        ({"appendonly": "no"}, "memory"),
    ],
)
async def test_the_durability_is_what_the_server_was_told(server, settings, durability) -> None:
    for name, value in settings.items():
        server.command(f"CONFIG SET {name} {value}")
    try:
        assert await roundtrip(server.url) == durability
    finally:
        server.command("CONFIG SET appendonly yes")
        server.command("CONFIG SET appendfsync everysec")


async def test_namespaces_share_nothing(server) -> None:
    one, two = (open_event_store(f"{server.url}?namespace={name}") for name in ("one", "two"))
    assert await one.append([("a", Event("t", 1))]) == [1]
    assert await two.last() == 0
    await one.close()
    await two.close()
    with pytest.raises(EventError, match="namespace"):
        open_event_store(f"{server.url}?namespace=a}}b")
