"""Webhooks end to end: from an event over a job to a receiver that fails first, over a restart too."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairway.concurrency import Chan, background
from fairway.events import Event, EventBus, GroupOptions
from fairway.events.webhook import BlockedAddress, DeliveryFailed, Webhook, WebhookError, deliver, verify
from fairway.jobs import open_store
from fairway.jobs.errors import InvalidJob, StoreUnavailable
from fairway.jobs.service import JobService
from fairway.platform.layout import Layout
from fairway.platform.webhooks import QUEUE, UnknownWebhook, Webhooks

pytestmark = pytest.mark.integration
CTX = background()


class Receiver:
    """Answers with the next of its statuses, 200 when there are none left; keeps what came."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.got: Chan[tuple[dict[str, str], bytes]] = Chan(100)
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        status = self.statuses.pop(0) if self.statuses else "200 OK"
        extra = "Location: http://127.0.0.1:1/\r\n" if status.startswith("3") else ""
        writer.write(f"HTTP/1.1 {status}\r\n{extra}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await self.got.send((headers, body))


@asynccontextmanager
async def receiving(*statuses: str) -> AsyncIterator[Receiver]:
    receiver = Receiver(*statuses)
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Webhooks, EventBus, JobService]]:
    layout = Layout(folder)
    layout.create()
    async with (
        JobService(open_store(f"sqlite:///{layout.jobs_database}")) as jobs,
        EventBus(f"sqlite:///{layout.events_database}") as bus,
        Webhooks(jobs, bus, layout) as webhooks,
    ):
        yield webhooks, bus, jobs


def hook(receiver: Receiver, **fields: object) -> Webhook:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    return Webhook(**{"name": "n", "url": url, "pattern": "orders.*", "allow_private": True, **fields})


async def test_an_event_arrives_signed_and_only_of_its_topics(tmp_path: Path) -> None:
    async with receiving() as receiver, running(tmp_path / "s") as (webhooks, bus, _):
        webhook = await webhooks.put(hook(receiver))
        await bus.publish(CTX, Event("other", 0), topic="other")
        await bus.publish(CTX, Event("made", {"n": 1}, id="e1"), topic="orders.eu")
        headers, body = await receiver.got.recv()
        verify(webhook.secret, headers, body, time.time())
        assert json.loads(body)["data"] == {"n": 1}
        assert headers["webhook-id"] == "n.e1"
        assert stat.S_IMODE((tmp_path / "s" / "webhooks.json").stat().st_mode) == 0o600


async def test_a_webhook_goes_on_after_a_restart_and_can_be_removed(tmp_path: Path) -> None:
    async with receiving() as receiver:
        async with running(tmp_path / "s") as (webhooks, bus, _):
            await webhooks.put(hook(receiver))
        async with EventBus(f"sqlite:///{tmp_path}/s/events.db") as bus:
            await bus.publish(CTX, Event("made", 2), topic="orders.eu")
        async with running(tmp_path / "s") as (webhooks, bus, _):
            _, body = await receiver.got.recv()
            assert json.loads(body)["data"] == 2
            await webhooks.remove("n")
            assert webhooks.list() == []
            assert await bus.store.groups() == []
            with pytest.raises(UnknownWebhook):
                await webhooks.remove("n")


async def test_a_failed_delivery_waits_in_the_queue_for_its_next_try(tmp_path: Path) -> None:
    async with receiving("500 Oops") as receiver, running(tmp_path / "s") as (webhooks, bus, jobs):
        await webhooks.put(hook(receiver))
        await bus.publish(CTX, Event("made", 3), topic="orders.eu")
        await receiver.got.recv()
        async with asyncio.timeout(10):
            while (await counts(jobs)).get("retryable") != 1:
                await asyncio.sleep(0)


async def counts(jobs: JobService) -> dict[str, int]:
    return {name: n for queue in await jobs.store.queues() if queue.name == QUEUE for name, n in queue.counts.items()}


@pytest.mark.parametrize("status", ["302 Found", "404 Not Found", "500 Oops"])
async def test_whatever_is_no_success_is_a_failure_and_no_redirect_is_followed(status: str) -> None:
    async with receiving(status) as receiver:
        with pytest.raises(DeliveryFailed, match=status[:3]):
            await deliver(hook(receiver).check(), Event("made"), 1)


async def test_a_name_that_leads_to_this_machine_when_it_is_resolved_for_the_connection_is_blocked(monkeypatch) -> None:
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def rebound(host, *args, **kwargs):
        if host != "rebound.test":
            return resolve(host, *args, **kwargs)
        asked.append(host)
        return resolve("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    async with receiving() as receiver:
        blocked = Webhook(name="n", url=f"http://rebound.test:{receiver.port}/").check()
        with pytest.raises(BlockedAddress):
            await deliver(blocked, Event("made"), 1)
        assert asked
        assert receiver.got.try_recv() is None


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1"])
async def test_other_forms_of_this_machine_are_refused_before_anything_is_looked_up(host: str) -> None:
    with pytest.raises(BlockedAddress):
        Webhook(name="n", url=f"http://{host}/").check()


async def test_nobody_listening_is_a_failure() -> None:
    nobody = Webhook(name="n", url="http://127.0.0.1:1/", allow_private=True).check()
    with pytest.raises(DeliveryFailed):
        await deliver(nobody, Event("made"), 1)


async def test_an_event_whose_source_and_id_are_long_arrives_and_is_queued_once(tmp_path: Path) -> None:
    async with receiving() as receiver, running(tmp_path / "s") as (webhooks, bus, _):
        await webhooks.put(hook(receiver))
        long = Event("made", 1, id="i" * 1000, source="s" * 1000)
        await bus.publish(CTX, long, topic="orders.eu")
        _, body = await receiver.got.recv()
        assert json.loads(body)["id"] == long.id
        assert await bus.store.read(0, 10, "$dead.fairway-webhook-n") == []


async def test_an_event_outlives_a_job_store_that_is_away_and_dies_at_once_where_no_job_can_hold_it(
    tmp_path: Path, monkeypatch
) -> None:
    failures = [StoreUnavailable("away")] * 3 + [InvalidJob("too large", field="args")]
    monkeypatch.setattr("fairway.platform.webhooks._OPTIONS", GroupOptions(max_deliveries=10**9, backoff=0.0))
    async with receiving() as receiver, running(tmp_path / "s") as (webhooks, bus, jobs):
        enqueue = jobs.enqueue

        async def failing(wanted: list[object]) -> object:
            if failures:
                raise failures.pop(0)
            return await enqueue(wanted)

        monkeypatch.setattr(jobs, "enqueue", failing)
        await webhooks.put(hook(receiver))
        async with bus.subscribe("$dead.fairway-webhook-n") as dead:
            await bus.publish(CTX, Event("made", 1, id="e1"), topic="orders.eu")
            letter = (await dead.channel.recv()).event
            assert "too large" in letter.extensions["deadreason"]
            assert letter.extensions["deaddeliveries"] == "4"
        await bus.publish(CTX, Event("made", 2), topic="orders.eu")
        _, body = await receiver.got.recv()
        assert json.loads(body)["data"] == 2


async def test_registering_one_name_many_times_at_once_ends_in_one_webhook(tmp_path: Path) -> None:
    async with receiving() as receiver, running(tmp_path / "s") as (webhooks, bus, _):
        patterns = ["orders.*", "orders.>", "orders.*", "orders.eu"]
        await asyncio.gather(*(webhooks.put(hook(receiver, pattern=pattern)) for pattern in patterns))
        [kept] = webhooks.list()
        [group] = await bus.store.groups()
        assert group.pattern == kept.pattern
        await bus.publish(CTX, Event("made", 3), topic="orders.eu")
        await receiver.got.recv()


async def test_a_broken_list_of_webhooks_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "webhooks.json").write_bytes(b"{")
    with pytest.raises(WebhookError, match=r"webhooks\.json"):
        async with running(tmp_path / "s"):
            raise AssertionError("not reached")
