"""Webhooks over HTTP, for administrators: a hosted app's token does not reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fairway.api.operation import operation, read, reply
from fairway.events.webhook import Webhook

if TYPE_CHECKING:
    from fairway.platform.webhooks import Webhooks


class WebhookRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `fairway.events.webhook.Webhook`; the name is the path's."""

    url: str
    pattern: str = ">"
    secret: str = ""
    allow_private: bool = False
    max_attempts: int = 12


class WebhookView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A webhook; its secret is shown once, in the answer that registers it."""

    name: str
    url: str
    pattern: str
    allow_private: bool
    max_attempts: int
    secret: str = ""


def routes(webhooks: Webhooks) -> list[BaseRoute]:
    """Return the routes of the daemon's webhooks."""
    handlers = _Handlers(webhooks)
    return [
        Route("/v1/webhooks", handlers.list, methods=["GET"]),
        Route("/v1/webhooks/{name}", handlers.put, methods=["PUT"]),
        Route("/v1/webhooks/{name}", handlers.remove, methods=["DELETE"]),
    ]


class _Handlers:
    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    @operation("List the webhooks", tag="webhooks", response=list[WebhookView])
    async def list(self, request: Request) -> Response:
        return reply([_view(webhook) for webhook in self._webhooks.list()])

    @operation(
        "Register or replace a webhook", tag="webhooks", body=WebhookRequest, response=WebhookView, errors=(415, 422)
    )
    async def put(self, request: Request) -> Response:
        asked = await read(request, WebhookRequest)
        webhook = await self._webhooks.put(Webhook(name=request.path_params["name"], **msgspec.structs.asdict(asked)))
        return reply(_view(webhook, secret=webhook.secret))

    @operation("Remove a webhook", tag="webhooks", status=204, errors=(404,))
    async def remove(self, request: Request) -> Response:
        await self._webhooks.remove(request.path_params["name"])
        return reply(None)


def _view(webhook: Webhook, secret: str = "") -> WebhookView:
    return WebhookView(
        name=webhook.name,
        url=webhook.url,
        pattern=webhook.pattern,
        allow_private=webhook.allow_private,
        max_attempts=webhook.max_attempts,
        secret=secret,
    )
