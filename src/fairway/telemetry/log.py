"""Structured logging of Fairway itself: JSON lines for files, a readable form on a terminal, never a secret.

`configure` is called once a process, by whoever starts it; without it, warnings and worse go to stderr as JSON.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

from fairway.lean import import_without

if TYPE_CHECKING:
    from types import ModuleType

_SECRET_WORDS = ("token", "secret", "password", "passwd", "authorization", "cookie", "api_key", "apikey", "private_key")
_MASK = "***"


class _Settings(NamedTuple):
    """What `configure` was told, until the first line is written."""

    target: TextIO
    as_json: bool
    level: int


_asked: _Settings | None = None
_first = threading.RLock()  # whoever writes the first line; importing may make a library write one too


def configure(*, stream: TextIO | None = None, json: bool | None = None, level: int = logging.INFO) -> None:
    """Set up structlog for this process.

    Args:
        stream: Where lines go; None takes stderr, looked up at each line.
        json: One JSON object a line; None decides by whether `stream` is a terminal.
        level: Lowest level that is written, as `logging` numbers them.
    """
    target = stream if stream is not None else cast(TextIO, _CurrentStderr())
    as_json = not target.isatty() if json is None else json
    global _asked  # noqa: PLW0603  # one configuration a process
    _asked = _Settings(target, as_json, level)
    if "structlog" in sys.modules:  # there may be loggers already
        with _first:
            _apply(_load())
    _join_libraries(level)


def get(component: str, **values: Any) -> Any:
    """Return a logger whose lines carry ``component`` and `values`; its methods are `debug` … `error`."""
    with _first:
        structlog = _load()
        if _asked is None and not structlog.is_configured():
            configure(json=True, level=logging.WARNING)
        _apply(structlog)
    return structlog.get_logger(component=component, **values)


def _load() -> ModuleType:
    """Import structlog: at the first line, for it takes longer than all else that a start without trouble does here.

    Its console renderer imports Rich, and with it Pygments, for tracebacks that are not wanted here: 5 MiB in every
    process that logs. Hidden from this one import, Rich is there for whoever imports it later.
    """
    return import_without("structlog", "rich")


def _apply(structlog: ModuleType) -> None:
    """Give structlog what `configure` was told last, once."""
    global _asked  # one configuration a process
    if _asked is None:
        return
    asked, _asked = _asked, None
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        mask_secrets,
        structlog.processors.EventRenamer("msg"),
    ]
    if asked.as_json:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        processors.append(
            structlog.dev.ConsoleRenderer(
                event_key="msg",
                timestamp_key="time",
                # The default shows local variables, which may be secrets, and imports Rich.
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(asked.level),
        logger_factory=structlog.PrintLoggerFactory(asked.target),
        cache_logger_on_first_use=False,
    )


class _CurrentStderr:
    """Whatever `sys.stderr` is at the time of each line: it may be replaced, and the one of before be closed."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class _ThroughStructlog(logging.Handler):
    """Takes what libraries say through `logging` the way of Fairway's own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = get(record.name)
        logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def _join_libraries(level: int) -> None:
    """Send libraries' warnings and worse where everything else goes; once a process, whoever calls it again."""
    root = logging.getLogger()
    if not any(isinstance(handler, _ThroughStructlog) for handler in root.handlers):
        root.addHandler(_ThroughStructlog(max(level, logging.WARNING)))


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: replace every value whose key sounds like a secret, in nested mappings too."""
    for key, value in event.items():
        if any(word in key.lower() for word in _SECRET_WORDS):
            event[key] = _MASK
        elif isinstance(value, dict):
            event[key] = mask_secrets(None, "", dict(value))
    return event
