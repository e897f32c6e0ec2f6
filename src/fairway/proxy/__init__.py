"""The door: a reverse proxy on asyncio Protocols. Names are imported on first use, to keep the worker small."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairway.proxy.control import DoorClient
    from fairway.proxy.library import ReverseProxy
    from fairway.proxy.middleware import Headers, Middleware, ProxyRequest, ProxyResponse
    from fairway.proxy.routes import Route, RouteTable, Target

_WHERE = {
    "DoorClient": "control",
    "Headers": "middleware",
    "Middleware": "middleware",
    "ProxyRequest": "middleware",
    "ProxyResponse": "middleware",
    "ReverseProxy": "library",
    "Route": "routes",
    "RouteTable": "routes",
    "Target": "routes",
}

__all__ = [
    "DoorClient",
    "Headers",
    "Middleware",
    "ProxyRequest",
    "ProxyResponse",
    "ReverseProxy",
    "Route",
    "RouteTable",
    "Target",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"fairway.proxy.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
