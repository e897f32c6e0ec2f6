"""The way to Redis, against servers that answer what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from fairway.errors import FairwayError
from fairway.resp import Address, Faults, Link, Refusal, Wire

PONG, NONE = b"+PONG\r\n", b""
NO_CLUSTER = b"-ERR This instance has cluster support disabled\r\n"


class Gone(FairwayError):
    code = "tests.gone"


class Closed(FairwayError):
    code = "tests.closed"


class NoUrl(FairwayError):
    code = "tests.url"


FAULTS = Faults(service="tests", unavailable=Gone, closed=lambda: Closed("the link is closed"), url=NoUrl)


class Fake:
    """A server that answers each command with what `reply` makes of it; `NONE` keeps it waiting."""

    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self.reply = reply
        self.port = 0
        self.open = 0
        self.asked: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            command = b" ".join(words)
            self.asked.put_nowait(command)
            answer = PONG if command == b"PING" else self.reply(command)
            writer.write(answer)
        writer.close()
        self.open -= 1
        if not self.open:
            self.left.set()


@asynccontextmanager
async def serving(reply: Callable[[bytes], bytes]) -> AsyncIterator[Fake]:
    fake = Fake(reply)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    async with server, asyncio.timeout(10):
        yield fake


def link_to(*fakes: Fake, greeting: Callable[[Wire], asyncio.Future[object]] | None = None) -> Link:
    hosts = ",".join(f"127.0.0.1:{fake.port}" for fake in fakes)
    return Link(Address.parse(f"redis://{hosts}/0", FAULTS), greeting=greeting)


def test_a_url_that_cannot_be_read_is_the_services_error() -> None:
    with pytest.raises(NoUrl, match="expected a URL such as redis://"):
        Address.parse("redis://u:hidden@host:port/0", FAULTS)


async def test_a_connecting_that_is_cancelled_leaves_no_connection() -> None:
    async with serving(lambda _: NONE) as fake:  # which never says what nodes there are
        link = link_to(fake)
        call = asyncio.ensure_future(link.command("ECHO", "x"))
        while await fake.asked.get() != b"CLUSTER SLOTS":
            continue
        call.cancel()
        await asyncio.wait({call})
        await link.close()
        await fake.left.wait()
        with pytest.raises(Closed):
            await link.command("ECHO", "x")


async def test_a_redirection_is_followed() -> None:
    async with serving(lambda command: NO_CLUSTER if command.startswith(b"CLUSTER") else b"+here\r\n") as owner:

        def elsewhere(command: bytes) -> bytes:
            return NO_CLUSTER if command.startswith(b"CLUSTER") else b"-MOVED 7 127.0.0.1:%d\r\n" % owner.port

        async with serving(elsewhere) as first:
            link = link_to(first)
            assert await link.command("ECHO", "x") == b"here"
            assert link.address.port == owner.port
            await first.left.wait()
            await link.close()


@pytest.mark.parametrize("place", ["nonsense", "host:", "host:0", "host:65536", "host:-1", "host:80:x", "host:²"])
@pytest.mark.parametrize("word", ["MOVED", "ASK"])
async def test_a_redirection_to_nowhere_is_an_error_that_says_so(word: str, place: str) -> None:
    def reply(command: bytes) -> bytes:
        return NO_CLUSTER if command.startswith(b"CLUSTER") else f"-{word} 7 {place}\r\n".encode()

    async with serving(reply) as fake:
        link = link_to(fake)
        with pytest.raises(Gone, match="expected HOST:PORT of a node, got") as caught:
            await link.command("ECHO", "x")
        assert repr(place) in str(caught.value)
        await link.close()


async def test_a_greeting_that_is_redirected_to_nowhere_leaves_no_connection() -> None:
    def reply(command: bytes) -> bytes:
        return NO_CLUSTER if command.startswith(b"CLUSTER") else b"-MOVED 7 nowhere\r\n"

    async with serving(reply) as fake:
        link = link_to(fake, greeting=lambda wire: wire.call(("GET", "x")))
        with pytest.raises(Gone, match="expected HOST:PORT of a node, got 'nowhere'"):
            await link.command("ECHO", "x")
        await fake.left.wait()
        await link.close()


async def test_a_greeting_that_is_redirected_leads_to_the_other_server() -> None:
    async with serving(lambda command: NO_CLUSTER if command.startswith(b"CLUSTER") else b"+here\r\n") as owner:
        async with serving(lambda _: b"-MOVED 7 127.0.0.1:%d\r\n" % owner.port) as first:
            link = link_to(first, greeting=lambda wire: wire.call(("GET", "x")))
            assert await link.command("ECHO", "x") == b"here"
            assert link.address.port == owner.port
            await link.close()


async def test_a_greeting_that_is_refused_is_the_callers_refusal() -> None:
    async with serving(lambda command: NO_CLUSTER if command.startswith(b"CLUSTER") else b"-LOADING wait\r\n") as fake:
        link = link_to(fake, greeting=lambda wire: wire.call(("GET", "x")))
        with pytest.raises(Refusal, match="LOADING"):
            await link.command("ECHO", "x")
        await fake.left.wait()
        await link.close()


@pytest.mark.parametrize("slots", [b":1\r\n", b"*1\r\n:5\r\n", b"*1\r\n*3\r\n:0\r\n:9\r\n*1\r\n:7\r\n", b"+OK\r\n"])
async def test_nodes_that_make_no_sense_are_an_error_and_leave_no_connection(slots: bytes) -> None:
    async with serving(lambda command: slots if command.startswith(b"CLUSTER") else b"+here\r\n") as fake:
        link = link_to(fake)
        with pytest.raises(Gone, match="no answer to CLUSTER SLOTS"):
            await link.command("ECHO", "x")
        await fake.left.wait()
        await link.close()


async def test_the_other_nodes_are_asked_when_the_own_has_died() -> None:
    async with serving(lambda command: NO_CLUSTER if command.startswith(b"CLUSTER") else b"+other\r\n") as other:

        def reply(command: bytes) -> bytes:
            if command.startswith(b"CLUSTER"):
                nodes = [b"*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\nx\r\n" % port for port in (fake.port, other.port)]
                return b"*1\r\n*4\r\n:0\r\n:16383\r\n" + b"".join(nodes)
            return b"+own\r\n"

        async with serving(reply) as fake:
            link = link_to(fake)
            assert await link.command("ECHO", "x") == b"own"
            assert {place.port for place in link.places()} == {fake.port, other.port}
            link._drop()
            await fake.left.wait()
        assert await link.command("ECHO", "x") == b"other"
        await link.close()


async def test_what_is_no_answer_ends_the_connection_and_every_call() -> None:
    async with serving(lambda command: NO_CLUSTER if command.startswith(b"CLUSTER") else b"?\r\n") as fake:
        link = link_to(fake)
        calls = await asyncio.gather(*(link.command("ECHO", str(n)) for n in range(3)), return_exceptions=True)
        assert [type(one) for one in calls] == [Gone] * 3
        assert "no answer" in str(calls[0])
        await fake.left.wait()
        await link.close()


async def test_calls_of_one_turn_get_each_its_own_answer_also_beside_a_cancelled_one() -> None:
    def echo(command: bytes) -> bytes:
        return NO_CLUSTER if command.startswith(b"CLUSTER") else b"+" + command.split()[1] + b"\r\n"

    async with serving(echo) as fake:
        link = link_to(fake)
        assert await link.command("ECHO", "first") == b"first"
        calls = [asyncio.ensure_future(link.command("ECHO", str(n))) for n in range(20)]
        await asyncio.sleep(0)
        for call in calls[::5]:
            call.cancel()
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert [one for n, one in enumerate(told) if n % 5] == [str(n).encode() for n in range(20) if n % 5]
        assert repr(link) == f"<Link 127.0.0.1:{fake.port} [up]>"
        await link.close()
        assert repr(link).endswith("[closed]>")
