"""Joins events and jobs: each webhook is a consumer group whose events become jobs that deliver them.

The group makes sure that every event becomes a job (once: the job's unique key is webhook and event), the job queue
that every job is tried until the receiver takes it, with exponential backoff, over restarts of the daemon too. What is
given up lies in the dead set of the queue ``fairway-webhooks``, where ``fairway jobs replay`` finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from typing import Any

import msgspec

from fairway.concurrency import CancelContext, Context, WaitGroup, background, with_cancel
from fairway.errors import FairwayError
from fairway.events import Event, EventBus, GroupOptions
from fairway.events.errors import InvalidEventData
from fairway.events.topic import SYSTEM_GROUPS
from fairway.events.webhook import BlockedAddress, Webhook, WebhookError, deliver
from fairway.jobs import Backoff, Discard, JobContext, Tasks, Worker, WorkerConfig
from fairway.jobs.errors import InvalidJob
from fairway.jobs.service import JobService
from fairway.platform.layout import Layout
from fairway.telemetry import log

QUEUE = "fairway-webhooks"
_KIND = "fairway.webhook"
_REMEMBERED = 86_400.0
# While the job store is away an event waits here, however long: only the job's own attempts give a delivery up.
_OPTIONS = GroupOptions(max_deliveries=1_000_000_000, max_backoff=30.0, concurrency=8)


class UnknownWebhook(FairwayError):
    """No webhook of that name is registered."""

    code = "events.unknown_webhook"


class _Enqueue:
    """The handler of one webhook's group: an event in, a job out."""

    def __init__(self, hooks: Webhooks, webhook: Webhook) -> None:
        self._hooks = hooks
        self._webhook = webhook

    async def handle(self, ctx: Context, event: Event) -> None:
        """Enqueue the delivery of one event."""
        await self._hooks.enqueue(self._webhook, event)


class Webhooks:
    """The registered webhooks and what delivers them; ``async with`` runs it.

    Args:
        jobs: Where deliveries are queued.
        bus: Where events come from.
        layout: Where the webhooks are kept, with their secrets, 0600.
    """

    def __init__(self, jobs: JobService, bus: EventBus, layout: Layout) -> None:
        self._jobs = jobs
        self._bus = bus
        self._path = layout.webhooks
        self._hooks: dict[str, Webhook] = {}
        self._groups: dict[str, tuple[CancelContext, WaitGroup]] = {}
        self._stop = with_cancel(background())
        self._workers = WaitGroup()
        self._working = False
        self._changing = asyncio.Lock()  # one registration at a time
        tasks = Tasks()
        backoff = Backoff(base_s=5.0, max_s=3600.0)
        self._task = tasks.task(name=_KIND, queue=QUEUE, backoff=backoff, timeout_s=60.0)(self._deliver)
        self._tasks = tasks

    async def __aenter__(self) -> Webhooks:
        if self._path.exists():
            try:
                kept = msgspec.json.decode(self._path.read_bytes(), type=list[Webhook])
            except (msgspec.DecodeError, OSError, UnicodeDecodeError) as error:
                raise WebhookError(
                    f"expected the list of webhooks in {self._path}: {error}", hint="mend the file, or remove it"
                ) from error
            for webhook in kept:
                self._hooks[webhook.name] = webhook
                self._follow(webhook)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.cancel()
        for ctx, group in self._groups.values():
            ctx.cancel()
            await group.wait()
        await self._workers.wait()

    def list(self) -> list[Webhook]:
        """Return the webhooks by name; their secrets are for the owner's eyes only."""
        return sorted(self._hooks.values(), key=lambda webhook: webhook.name)

    async def put(self, webhook: Webhook) -> Webhook:
        """Register or replace a webhook; it gets what is published from now on.

        Raises:
            WebhookError, InvalidTopic: It is malformed, or its address is not allowed.
        """
        webhook = webhook.check()
        async with self._changing:
            before = self._hooks.get(webhook.name)
            if before is not None:
                await self._unfollow(webhook.name, forget=before.pattern != webhook.pattern)
            else:
                await self._bus.store.leave(_group(webhook.name))  # of a list of webhooks that was lost
            try:
                # Before the answer: what is published right after it belongs to the webhook.
                await self._bus.store.join(_group(webhook.name), webhook.pattern, None)
                await asyncio.to_thread(self._save, {**self._hooks, webhook.name: webhook})
                self._hooks[webhook.name] = webhook
            finally:
                if webhook.name in self._hooks:
                    self._follow(self._hooks[webhook.name])
        return webhook

    async def remove(self, name: str) -> None:
        """Remove a webhook and what it still had to read. Raises `UnknownWebhook`."""
        async with self._changing:
            if name not in self._hooks:
                raise UnknownWebhook(f"expected the name of a webhook, got {name[:80]!r}")
            await asyncio.to_thread(self._save, {key: hook for key, hook in self._hooks.items() if key != name})
            del self._hooks[name]
            await self._unfollow(name, forget=True)

    async def enqueue(self, webhook: Webhook, event: Event) -> None:
        """Queue the delivery of one event, once however often it is asked for."""
        # A digest: source and id may be longer together than a key, and either may hold the other's separator.
        identity = hashlib.sha256(msgspec.json.encode([event.source, event.id])).hexdigest()
        job = self._task.using(
            unique_key=f"{webhook.name}:{identity}", unique_for_s=_REMEMBERED, max_attempts=webhook.max_attempts
        ).job(webhook.name, msgspec.json.decode(event.encode()))
        try:
            await self._jobs.enqueue([job])
        except InvalidJob as error:  # too large for a job: no second try mends that
            raise InvalidEventData(
                f"event {event.id} cannot be delivered to webhook {webhook.name}: {error}"
            ) from error

    async def _deliver(self, ctx: JobContext, name: str, document: dict[str, Any]) -> int:
        webhook = self._hooks.get(name)
        if webhook is None:
            raise Discard(f"webhook {name} was removed")
        try:
            return await deliver(webhook, Event.decode(document), int(time.time()))
        except BlockedAddress as error:
            raise Discard(str(error)) from error

    def _follow(self, webhook: Webhook) -> None:
        if not self._working:
            self._working = True
            config = WorkerConfig(queues={QUEUE: 1}, concurrency=16, prefetch=0, lease_s=90.0)
            self._workers.go(Worker(self._jobs.store, self._tasks, config).run, self._stop)
        ctx, group = with_cancel(self._stop), WaitGroup()
        group.go(self._consume, ctx, webhook)
        self._groups[webhook.name] = ctx, group

    async def _consume(self, ctx: Context, webhook: Webhook) -> None:
        try:
            handler = _Enqueue(self, webhook)
            await self._bus.handle(ctx, webhook.pattern, handler, group=_group(webhook.name), options=_OPTIONS)
        except Exception as error:
            log.get("webhooks").error("webhook stopped", webhook=webhook.name, error=f"{type(error).__name__}: {error}")

    async def _unfollow(self, name: str, *, forget: bool) -> None:
        ctx, group = self._groups.pop(name)
        ctx.cancel()
        await group.wait()
        if forget:
            await self._bus.store.leave(_group(name))

    def _save(self, hooks: dict[str, Webhook]) -> None:
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode([hooks[name] for name in sorted(hooks)]))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def _group(name: str) -> str:
    return f"{SYSTEM_GROUPS}webhook-{name}"  # so that no app's token can claim or delete it
