"""Both ways of an enqueue into the daemon: what one answers, the other answers; HTTP's own rules hold on both.

Size: one server, looked at by what its two ways do with the same bytes.
"""

import asyncio
import contextlib
import dataclasses
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fairway.api.app import Services, create_app
from fairway.api.guard import Guard, GuardPolicy
from fairway.api.protocol import Protocol
from fairway.api.server import serve
from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import JobFilter
from fairway.jobs.service import JobService
from fairway.jobs.store import Store, StoreOptions
from fairway.jobs.stores.memory import MemoryStore
from fairway.jobs.stores.sqlite import SqliteStore

pytestmark = pytest.mark.integration

JOB = b'{"kind":"send","args":{"to":"ann"}}'
PATH = "/v1/queues/mail/jobs"


class Peer:
    """A raw connection: what is sent is sent as it stands."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Read one answer."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, json.loads(body)

    async def ended(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read(1) == b""


class Api:
    """A served store, and which way requests went."""

    def __init__(self, store: Store, port: int, guard: Guard) -> None:
        self.store = store
        self.port = port
        self.guard = guard
        self.long = 0
        inner = guard.app

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.long += 1
            await inner(scope, receive, send)

        guard.app = counted

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Peer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        async with self.connect() as peer:
            await peer.send(request)
            return await peer.answer()

    async def count(self) -> int:
        return len(await self.store.find(JobFilter()))


@contextlib.asynccontextmanager
async def served(store: Store, *, short: bool = True, **policy: Any) -> AsyncIterator[Api]:
    async with JobService(store) as service:
        app = create_app(Services(jobs=service), policy=GuardPolicy(**policy))
        assert isinstance(app, Guard)
        if not short:
            app.short = None
        async with serve(app, host="127.0.0.1", port=0) as (_, port):
            yield Api(store, port, app)
            service.drain()


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    options = StoreOptions(max_payload=1_000)
    return SqliteStore(tmp_path / "jobs.db", options) if request.param == "sqlite" else MemoryStore(options)


def post(body: bytes = JOB, path: str = PATH, *lines: str, plain: bool = True) -> bytes:
    """Return a request; `plain` gives it the headers that the short way wants."""
    head = [f"POST {path} HTTP/1.1", "host: 127.0.0.1"]
    if plain:
        head += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*head, *lines, "", ""]).encode() + body


CASES = {
    "plain": (post(), 201),
    "everything set": (
        post(b'{"kind":"send","queue":"mail","priority":1,"delay_s":5,"max_attempts":2,"meta":{"a":"b"},'
             b'"unique_key":"k","concurrency_key":"c"}'),
        201,
    ),
    "no arguments": (post(b'{"kind":"send"}'), 201),
    "no UTF-8 in what is handed on": (post(b'{"kind":"send","args":"\xff"}'), 400),
    "beyond ASCII": (post('{"kind":"send","args":"grüße"}'.encode()), 201),
    "another queue in the body": (post(b'{"kind":"send","queue":"other"}'), 422),
    "a field that is not there": (post(b'{"kind":"send","nonsense":1}'), 422),
    "a field of another type": (post(b'{"kind":"send","priority":"high"}'), 422),
    "a field out of bounds": (post(b'{"kind":"send","delay_s":-1}'), 422),
    "a kind that is none": (post(b'{"kind":"a b"}'), 422),
    "no JSON": (post(b'{"kind": '), 400),
    "no UTF-8": (post(b'{"kind":"\xff"}'), 400),
    "nothing": (post(b""), 400),
    "too many arguments": (post(b'{"kind":"send","args":"' + b"x" * 1_000 + b'"}'), 413),
    "deep": (post(b'{"kind":"send","args":' + b"[" * 5_000 + b"]" * 5_000 + b"}"), None),
    "a body beyond the guard's bound": (post(b'{"kind":"send","args":"' + b"x" * 20_000 + b'"}'), 413),
    "other content": (post(JOB, PATH, "content-type: text/plain", f"content-length: {len(JOB)}", plain=False), 415),
    "no content type": (post(JOB, PATH, f"content-length: {len(JOB)}", plain=False), 415),
    "no token": (post(JOB, PATH), 401),
    "a wrong token": (post(JOB, PATH, "authorization: Bearer wrong"), 401),
    "a foreign origin": (post(JOB, PATH, "authorization: Bearer t0ken", "origin: http://evil.example"), 403),
    "its own origin": (post(JOB, PATH, "authorization: Bearer t0ken", "origin: http://127.0.0.1"), 201),
    "the app's token": (post(JOB, PATH, "authorization: Bearer app"), 201),
    "a rebound host": (post(JOB, PATH, "authorization: Bearer t0ken").replace(b"127.0.0.1", b"evil.example"), 403),
    "a bad queue": (post(JOB, "/v1/queues/a%20b/jobs"), 422),
    "a query": (post(JOB, PATH + "?x=1"), 201),
    "another path": (post(JOB, "/v1/queues/jobs"), 405),
    "another method": (post().replace(b"POST", b"PUT"), 405),
}  # fmt: skip
WITH_TOKEN = ("no token", "a wrong token", "a foreign origin", "its own origin", "the app's token", "a rebound host")


async def answers(store: Store, *, short: bool) -> dict[str, tuple[Any, ...]]:
    """Return what a server says to every case, and how many jobs it stored for it."""
    told = {}
    for with_token in (False, True):
        policy = {"token": "t0ken", "app_token": "app"} if with_token else {}
        async with served(store, short=short, max_body=15_000, **policy) as api:
            for case, (request, _) in CASES.items():
                if (case in WITH_TOKEN) != with_token:
                    continue
                before, api.long = await api.count(), 0
                code, headers, body = await api.ask(request)
                del headers["date"], headers["content-length"]  # the latter with the name of the durability
                body.pop("durability", None)
                stored = await api.count() - before
                told[case] = (code, sorted(headers.items()), body, stored)
                assert stored == (code == 201), f"{case}: what is refused stores nothing"
                if code == 201:
                    assert api.long == (not short or case == "a query"), f"{case}: which way it went"
        if isinstance(store, MemoryStore):
            store = MemoryStore(store.options)
    return told


async def test_both_ways_answer_the_same(tmp_path: Path) -> None:
    options = StoreOptions(max_payload=1_000)
    told = []
    for short in (True, False):
        told.append(await answers(SqliteStore(tmp_path / f"{short}.db", options), short=short))
        told.append(await answers(MemoryStore(options), short=short))
    for case, (_, status) in CASES.items():
        first, *others = (answer[case] for answer in told)
        assert status is None or first[0] == status, (case, first)
        assert [answer[:2] for answer in others] == [first[:2]] * 3, case
        assert first[2].keys() == others[0][2].keys() == others[1][2].keys() == others[2][2].keys(), case
        if first[0] >= 400:
            assert [answer[2] for answer in others] == [first[2]] * 3, case


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post(JOB, PATH, "content-type: application/json; charset=utf-8", "content-length: 35", plain=False), 201),
        (post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOB), JOB), PATH, "content-type: application/json",
              "transfer-encoding: chunked", plain=False), 201),
        (post(JOB, PATH, "content-type: application/json"), 201),  # twice
    ],
    ids=["charset", "chunked", "a header twice"],
)  # fmt: skip
async def test_what_is_unusual_goes_the_long_way(store: Store, request_bytes: bytes, status: int) -> None:
    async with served(store) as api:
        code, _, body = await api.ask(request_bytes)
        assert (code, api.long) == (status, 1), body
        assert await api.count() == 1


async def test_a_long_body_is_read_with_back_pressure(tmp_path: Path) -> None:
    body = b'{"kind":"send","args":"' + b"x" * 200_000 + b'"}'
    async with served(SqliteStore(tmp_path / "jobs.db")) as api:
        assert (await api.ask(post(body)))[0] == 201
        assert api.long == 1


@pytest.mark.parametrize("path", [PATH, "/v1/jobs:replay"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_who_sends_far_too_much_is_told_so_and_not_cut_off(tmp_path: Path, path: str, chunked: bool) -> None:
    size = 8_000_000  # more than sockets hold
    length = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else b"x" * size
    async with served(SqliteStore(tmp_path / "jobs.db"), max_body=15_000) as api, api.connect() as peer:
        await peer.send(post(b"", path, "content-type: application/json", length, plain=False) + body)
        status, _, problem = await peer.answer()
        assert (status, problem["code"]) == (413, "request.too_large")


async def test_a_connection_is_kept_and_its_ways_mix(store: Store) -> None:
    async with served(store) as api, api.connect() as peer:
        for n in range(3):
            await peer.send(post())
            assert (await peer.answer())[2]["ids"] == [2 * n + 1]
            await peer.send(post(JOB, PATH + "?long"))
            assert (await peer.answer())[2]["ids"] == [2 * n + 2]
            await peer.send(b"GET /v1/queues/mail HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert (await peer.answer())[2]["counts"]["available"] == 2 * n + 2
            await peer.send(post(b"{"))
            assert (await peer.answer())[0] == 400
        assert api.long == 9


class Parsed:
    """Counts the requests that the parser saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests = 0
        begin = Protocol.on_message_begin

        def counted(protocol: Protocol) -> None:
            self.requests += 1
            begin(protocol)

        monkeypatch.setattr(Protocol, "on_message_begin", counted)


async def test_a_head_that_is_known_is_not_parsed_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = Parsed(monkeypatch)
    async with served(store) as api, api.connect() as peer:
        for n in range(5):
            await peer.send(post(b'{"kind":"send","args":"%b"}' % (b"x" * 5**n,)))
            assert (await peer.answer())[2]["ids"] == [n + 1]
        assert (parsed.requests, api.long) == (1, 0)
        await peer.send(post(JOB, PATH.replace("mail", "sms")))
        assert (await peer.answer())[0] == 201
        assert parsed.requests == 2
        assert {status.name for status in await store.queues()} == {"mail", "sms"}
        async with api.connect() as other:
            await other.send(post())
            assert (await other.answer())[0] == 201
        assert parsed.requests == 3, "every connection knows its own"


async def test_a_known_head_is_guarded_anew(store: Store) -> None:
    async with served(store, token="t0ken") as api, api.connect() as peer:
        for token, status in (("t0ken", 201), ("t0ken", 201), ("wrong", 401)):
            await peer.send(post(JOB, PATH, f"authorization: Bearer {token}"))
            assert (await peer.answer())[0] == status
        assert await peer.ended()
    async with served(store, token="t0ken") as api, api.connect() as peer:
        request = post(JOB, PATH, "authorization: Bearer t0ken")
        for status in (201, 401):
            await peer.send(request)
            assert (await peer.answer())[0] == status
            api.guard.policy = dataclasses.replace(api.guard.policy, token="an0ther")


@pytest.mark.parametrize("size", [1, 7, 150, 170, 10_000])
async def test_requests_may_be_cut_anywhere_and_joined(store: Store, size: int) -> None:
    bodies = [JOB, JOB, b"{", JOB, b"\r\n" + JOB, JOB + b"\r\n", JOB, JOB, b"", JOB]
    async with served(store) as api, api.connect() as peer:
        await peer.send(post())
        await peer.send(post())  # its head is known, or it waits in the parser
        data = b"\r\n".join(post(body) for body in bodies)
        for start in range(0, len(data), size):
            await peer.send(data[start : start + size])
            await asyncio.sleep(0)
        answers = [await peer.answer() for _ in range(len(bodies) + 2)]
        assert [status for status, _, _ in answers[2:]] == [400 if body in {b"{", b""} else 201 for body in bodies]
        assert await api.count() == len(bodies)


async def test_pipelined_requests_are_answered_in_order(store: Store) -> None:
    async with served(store) as api, api.connect() as peer:
        await peer.send(post() * 5 + post(b"{") + post() * 4)
        answers = [await peer.answer() for _ in range(10)]
        assert [status for status, _, _ in answers] == [201] * 5 + [400] + [201] * 4
        ids = [body["ids"][0] for status, _, body in answers if status == 201]
        assert ids == sorted(ids)
        assert await api.count() == 9


async def test_a_body_may_come_in_pieces(store: Store) -> None:
    async with served(store) as api, api.connect() as peer:
        request = post()
        for start in range(0, len(request), 7):
            await peer.send(request[start : start + 7])
            await asyncio.sleep(0)
        assert (await peer.answer())[0] == 201
        assert api.long == 0


class HeldTimers:
    """A loop whose timers run when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Any) -> asyncio.TimerHandle:
        self.timers.append((self.now + delay, call))
        return asyncio.TimerHandle(self.now + delay, call, (), asyncio.get_running_loop())

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, call in due:
            call()


async def test_an_idle_connection_is_closed_after_its_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldTimers()
    made = Protocol.connection_made

    def with_held_timers(protocol: Protocol, transport: Any) -> None:
        made(protocol, transport)
        protocol.loop = cast(asyncio.AbstractEventLoop, held)

    monkeypatch.setattr(Protocol, "connection_made", with_held_timers)
    store = Slow()
    store.answers.set()
    async with served(store) as api, api.connect() as peer:
        for _ in range(3):
            held.advance(4.0)
            await peer.send(post())
            assert (await peer.answer())[0] == 201
            assert len(held.timers) == 1, "one for all"
        store.answers.clear()
        store.begun.clear()
        await peer.send(post())
        await store.begun.wait()
        held.advance(60.0)  # a slow answer is not idleness
        store.answers.set()
        assert (await peer.answer())[0] == 201
        held.advance(4.9)
        await peer.send(post())
        assert (await peer.answer())[0] == 201
        held.advance(4.9)
        held.advance(0.2)
        assert await peer.ended()


async def test_the_client_may_ask_to_close(store: Store) -> None:
    async with served(store) as api, api.connect() as peer:
        await peer.send(post(JOB, PATH, "connection: close"))
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (201, "close")
        assert await peer.ended()
        assert api.long == 0


async def test_http_1_0_is_answered_and_closed(store: Store) -> None:
    async with served(store) as api, api.connect() as peer:
        await peer.send(post().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await peer.answer())[0] == 201
        assert await peer.ended()


class Slow(MemoryStore):
    """Answers an enqueue when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.answers = asyncio.Event()
        self.error: Exception | None = None

    async def enqueue(self, jobs: Any, batch: Any = None) -> Any:
        self.begun.set()
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return await super().enqueue(jobs, batch)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreUnavailable("the job store cannot write: FullError"), 503, "jobs.store_unavailable"),
        (RuntimeError("a secret inside"), 500, "api.internal"),
    ],
)
async def test_what_fails_later_is_a_problem(
    error: Exception, status: int, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Slow()
    async with served(store) as api, api.connect() as peer:
        store.answers.set()
        store.error = error
        await peer.send(post())
        got, headers, body = await peer.answer()
        assert (got, body["code"], headers["content-type"]) == (status, code, "application/problem+json")
        assert "secret" not in str(body)
        assert ("RuntimeError" in capsys.readouterr().err) == (status == 500)
        store.error = None
        await peer.send(post())
        assert (await peer.answer())[0] == 201


class Broken(MemoryStore):
    """Has a bug where jobs are taken in."""

    def enqueue_soon(self, jobs: Any, batch: Any = None) -> Any:
        raise RuntimeError("a secret at once")

    async def enqueue(self, jobs: Any, batch: Any = None) -> Any:
        raise RuntimeError("a secret inside")


async def test_a_bug_at_once_is_logged_and_told_without_details(capsys: pytest.CaptureFixture[str]) -> None:
    async with served(Broken()) as api, api.connect() as peer:
        await peer.send(post())
        status, _, body = await peer.answer()
        assert (status, body["code"], api.long) == (500, "api.internal", 1)
        assert "secret" not in str(body)
        assert "a secret inside" in capsys.readouterr().err


async def test_a_request_leaves_nothing_to_the_garbage_collector() -> None:
    def cycles() -> int:
        return sum(isinstance(found, RequestResponseCycle) for found in gc.get_objects())

    body = b'{"worker":"w","limit":1,"lease_s":5}'
    gc.collect()
    gc.disable()
    try:
        async with served(MemoryStore()) as api, api.connect() as peer:
            before = cycles()
            for _ in range(20):
                await peer.send(post(body, "/v1/queues/mail:lease"))
                status, _, told = await peer.answer()
                assert (status, told) == (200, {"jobs": []})
            assert api.long == 20
            # One connection knows its last request; a long pause for the rest would come when a job least needs it.
            assert cycles() - before <= 2
    finally:
        gc.enable()


async def test_a_client_that_goes_away_disturbs_nobody() -> None:
    store = Slow()
    async with served(store) as api:
        async with api.connect() as peer:
            await peer.send(post())
            await store.begun.wait()
        async with api.connect() as other:
            await other.send(post())
            store.answers.set()
            assert (await other.answer())[0] == 201
        assert await api.count() == 2, "the job of the one that went was accepted"


async def test_a_server_that_stops_answers_what_it_has_begun() -> None:
    store = Slow()
    async with JobService(store) as service:
        app = create_app(Services(jobs=service))
        stack = contextlib.AsyncExitStack()
        _, port = await stack.enter_async_context(serve(app, host="127.0.0.1", port=0))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer = Peer(reader, writer)
        await peer.send(post())
        await store.begun.wait()
        stopping = asyncio.create_task(stack.aclose())
        await asyncio.sleep(0)
        store.answers.set()
        status, _, _ = await peer.answer()
        assert status == 201
        assert await peer.ended()
        await stopping
        writer.close()
