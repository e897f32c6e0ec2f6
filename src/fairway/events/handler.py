"""Handlers of events, registered by the event's type."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints, runtime_checkable

import msgspec

from fairway.events.errors import EventError, InvalidEventData, UnknownEventType
from fairway.events.event import Event

if TYPE_CHECKING:
    from fairway.concurrency import Context

F = TypeVar("F", bound=Callable[..., Awaitable[None]])


@runtime_checkable
class EventHandler(Protocol):
    """Whoever can be given an event.

    Returning means done: the event is acknowledged. Raising means not done: it is delivered again later, except for
    `UnknownEventType` and `InvalidEventData`, which no second try can mend.
    """

    async def handle(self, ctx: Context, event: Event) -> None:
        """Handle one event; `ctx` ends when the subscription does."""
        ...


class _Registered:
    __slots__ = ("data_type", "function")

    def __init__(self, function: Callable[..., Awaitable[None]], data_type: Any) -> None:
        self.function = function
        self.data_type = data_type


class EventHandlers:
    """An `EventHandler` that looks up a coroutine function by the event's type and gives it checked data.

    Example:
        >>> handlers = EventHandlers()
        >>> @handlers.on("site_created")
        ... async def site_created(ctx, event, data: dict[str, str]) -> None: ...
        >>> handlers
        <EventHandlers [site_created]>
    """

    def __init__(self) -> None:
        self._handlers: dict[str, _Registered] = {}

    def on(self, *types: str) -> Callable[[F], F]:
        """Register ``async def fn(ctx, event)`` or ``async def fn(ctx, event, data: T)`` for one or more types.

        With a third parameter the event's data is converted to its annotation first (msgspec's rules: dataclasses,
        Structs, TypedDicts, built-in types); without an annotation it is passed as it is.

        Raises:
            EventError: No type was given, one has a handler already, or the function takes another shape.
        """
        if not types:
            raise EventError("expected at least one event type, got none")

        def register(function: F) -> F:
            data_type = _data_type(function)
            for name in types:
                if name in self._handlers:
                    raise EventError(f"expected one handler for event type {name!r}, got a second: {function!r}")
                self._handlers[name] = _Registered(function, data_type)
            return function

        return register

    @property
    def types(self) -> tuple[str, ...]:
        """Types that have a handler, sorted."""
        return tuple(sorted(self._handlers))

    async def handle(self, ctx: Context, event: Event) -> None:
        """Call the handler of the event's type.

        Raises:
            UnknownEventType: There is none; the message names the event and the nearest type.
            InvalidEventData: The data does not fit the handler's annotation.
        """
        registered = self._handlers.get(event.type)
        if registered is None:
            near = get_close_matches(event.type, self._handlers, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"known types: {', '.join(self.types) or 'none'}"
            raise UnknownEventType(f"event {event.id} from {event.source}: no handler for type {event.type!r}; {known}")
        if registered.data_type is inspect.Parameter.empty:
            await registered.function(ctx, event)
            return
        await registered.function(ctx, event, _convert(event, registered.data_type))

    def __repr__(self) -> str:
        return f"<EventHandlers [{', '.join(self.types)}]>"


def _convert(event: Event, data_type: Any) -> Any:
    if isinstance(data_type, type) and isinstance(event.data, data_type):
        return event.data  # published in this process as the very object
    try:
        return msgspec.convert(event.data, data_type)
    except msgspec.ValidationError as error:
        raise InvalidEventData(f"event {event.id} of type {event.type!r}: {error}") from error


def _data_type(function: Callable[..., Awaitable[None]]) -> Any:
    """Return the annotation of the third parameter: `Any` without one, `Parameter.empty` without the parameter."""
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if not inspect.iscoroutinefunction(function) or len(parameters) not in (2, 3):
        raise EventError(f"expected async def handler(ctx, event) or handler(ctx, event, data: T), got {function!r}")
    if len(parameters) == 2:
        return inspect.Parameter.empty
    annotation = parameters[2].annotation
    if annotation is inspect.Parameter.empty:
        return Any
    # Only this one: ctx and event are often annotated with names imported for type checkers alone.
    alone = SimpleNamespace(__annotations__={"data": annotation})
    return get_type_hints(alone, globalns=getattr(function, "__globals__", {}), include_extras=True)["data"]
