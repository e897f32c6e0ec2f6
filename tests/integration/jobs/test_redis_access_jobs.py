"""The Redis store of jobs over TLS, with a user of few rights, over a Unix socket; what it says survives."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from fairway.jobs.errors import JobError, StoreUnavailable
from fairway.jobs.job import Completed, JobFilter, NewJob, Verdict
from fairway.jobs.opening import open_store
from fairway.jobs.stores.redis import RedisStore
from fairway.proxy.devca import DevelopmentAuthority
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration
JOB = NewJob(kind="k")


class Access:
    """A server with a TLS port beside its plain one, a socket, and two users of few rights."""

    def __init__(self, server: RedisServer, tls_port: int) -> None:
        self.server = server
        self.folder = server.folder
        self.tls_port = tls_port


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    if RedisServer.binary() is None:
        pytest.skip("no redis-server or valkey-server on this machine: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    certificate = DevelopmentAuthority(folder).issue(["localhost"], folder)
    tls_port = RedisServer(folder).port
    server = RedisServer(
        folder,
        "everysec",
        *("--unixsocket", str(folder / "redis.sock"), "--tls-port", str(tls_port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(certificate.with_suffix(".key"))),
        *("--tls-ca-cert-file", str(folder / "authority.crt")),
    )
    try:
        server.start()
    except AssertionError as error:
        pytest.skip(f"this redis-server has no TLS: {error}")
    server.command("ACL SETUSER app on >s3cret ~{fairway:* +@all -@admin -@dangerous")
    server.command("ACL SETUSER full on >s3cret ~{fairway:* +@all -@admin -@dangerous +info +config|get")
    yield Access(server, tls_port)
    server.kill()


async def roundtrip(url: str) -> str:
    """Enqueue, claim, renew, complete, wait for news; return the durability that the store names."""
    async with open_store(url) as store:
        (i,) = (await store.enqueue([JOB])).ids
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        assert lease.id == i
        assert await asyncio.to_thread(store.renew, [(i, lease.fence)], 30.0) == [Verdict.OK]
        waiting = asyncio.create_task(store.wait(i, 10.0))
        async with asyncio.timeout(10):
            while not store.statistics()["waiting"]:
                await asyncio.sleep(0.005)
        assert await store.settle([Completed(i, lease.fence)]) == [Verdict.OK]
        assert (await waiting).state == "completed"
        await store.maintain()
        answer = await store.enqueue([JOB])
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        assert await store.settle([Completed(lease.id, lease.fence)]) == [Verdict.OK]
        assert answer.durability == store.features.durability
        return answer.durability


async def test_over_tls_with_a_certificate_that_is_checked(access: Access) -> None:
    url = f"rediss://localhost:{access.tls_port}/0"
    assert await roundtrip(f"{url}?ssl_ca_certs={access.folder}/authority.crt") == "process"
    assert await roundtrip(f"valkeys{url[6:]}?ssl_ca_certs={access.folder}/authority.crt") == "process"
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        await roundtrip(url)
    with pytest.raises(StoreUnavailable):
        await roundtrip(f"redis://127.0.0.1:{access.tls_port}/0")


async def test_users_of_few_rights(access: Access) -> None:
    place = f"127.0.0.1:{access.server.port}/0"
    access.server.command("FLUSHALL")
    # This one may not read the configuration: no more is promised than what any Redis keeps.
    assert await roundtrip(f"redis://app:s3cret@{place}") == "memory"
    assert await roundtrip(f"redis://full:s3cret@{place}") == "process"
    with pytest.raises(StoreUnavailable, match="NOPERM"):
        await roundtrip(f"redis://full:s3cret@{place}?namespace=another")
    with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
        await roundtrip(f"redis://full:wrong-one@{place}")
    assert "wrong-one" not in str(caught.value)


async def test_where_the_life_of_the_server_is_not_told_ids_go_on_by_the_time(access: Access) -> None:
    access.server.command("FLUSHALL")
    async with RedisStore(f"redis://app:s3cret@127.0.0.1:{access.server.port}/0") as store:
        ids = [(await store.enqueue([JOB])).ids[0] for _ in range(2)]
        key, saved = f"{{fairway:jobs}}:default:f:{ids[0] & 4095}", "{fairway:jobs}:saved"
        assert access.server.command(f"COPY {key} {saved}") == b":1\r\n"
        ids += [(await store.enqueue([JOB])).ids[0] for _ in range(3)]
        while int((time.time() - 1_735_689_600) * 1000) <= ids[-1] >> 12:
            await asyncio.sleep(0.001)
        # As a crash takes what was not yet written.
        assert access.server.command(f"COPY {saved} {key} REPLACE") == b":1\r\n"
        store._link._drop()
        assert await store.get(ids[0]) is not None  # over another connection
        assert (await store.enqueue([JOB])).ids[0] > ids[-1]
    access.server.command("FLUSHALL")


async def test_over_a_unix_socket_in_a_namespace(access: Access) -> None:
    url = f"unix://{access.folder}/redis.sock?namespace=sock"
    assert await roundtrip(url) == "process"
    async with open_store(url) as mine, open_store(access.server.url) as other:
        (i,) = (await mine.enqueue([JOB])).ids
        assert i not in [job.id for job in await other.find(JobFilter())]


async def test_the_durability_is_named_anew_for_a_server_that_was_told_otherwise(access: Access) -> None:
    for word, durability in (("always", "fsync"), ("everysec", "process")):
        access.server.command(f"CONFIG SET appendfsync {word}")
        assert await roundtrip(access.server.url) == durability


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hidden@h:port/0",
        "redis://u:hidden/part@h/0",
        "redis://u:hidden?part@h/0",
        "redis+cluster://u:hidden@h/0",
        "redis://h/0?namespace=a}b",
    ],
)
def test_a_url_that_is_none_is_an_error_that_hides_the_password(url: str) -> None:
    with pytest.raises(JobError) as caught:
        open_store(url)
    assert "hidden" not in f"{caught.value} {caught.value.hint}"


async def test_events_and_jobs_of_a_namespace_share_no_key(access: Access) -> None:
    """A queue of any name, also of one that the other service's keys have."""
    from fairway.events import Event
    from fairway.events.stores import open_event_store

    events = open_event_store(access.server.url)
    assert await events.append([("a", Event("t", 1))])
    before = await events.last()
    async with open_store(access.server.url) as store:
        for queue in ("events", "jobs", "names", "log"):
            (i,) = (await store.enqueue([NewJob(kind="k", queue=queue)])).ids
            assert [x.id for x in await store.claim([queue], 1, 30.0, "w")] == [i]
    assert await events.append([("a", Event("t", 2))]) == [before + 1]
    await events.close()
