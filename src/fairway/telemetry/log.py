"""Structured logging of Fairway itself: JSON lines for files, a readable form on a terminal, never a secret.

`configure` is called once a process, by whoever starts it; without it, warnings and worse go to stderr as JSON.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

# structlog's console renderer imports Rich, and with it Pygments, for tracebacks that are not wanted here: 5 MiB in
# every process that logs. Hidden from this one import, Rich is there for whoever imports it later.
_hidden = "rich" not in sys.modules
if _hidden:
    sys.modules["rich"] = None  # type: ignore[assignment]  # the documented way to make an import fail
try:
    import structlog
finally:
    if _hidden:
        del sys.modules["rich"]

_SECRET_WORDS = ("token", "secret", "password", "passwd", "authorization", "cookie", "api_key", "apikey", "private_key")
_MASK = "***"


def configure(*, stream: TextIO | None = None, json: bool | None = None, level: int = logging.INFO) -> None:
    """Set up structlog for this process.

    Args:
        stream: Where lines go; None takes stderr, looked up at each line.
        json: One JSON object a line; None decides by whether `stream` is a terminal.
        level: Lowest level that is written, as `logging` numbers them.
    """
    target = stream if stream is not None else cast(TextIO, _CurrentStderr())
    as_json = not target.isatty() if json is None else json
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        mask_secrets,
        structlog.processors.EventRenamer("msg"),
    ]
    if as_json:
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
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    _join_libraries(level)


def get(component: str, **values: Any) -> Any:
    """Return a logger whose lines carry ``component`` and `values`; its methods are `debug` … `error`."""
    if not structlog.is_configured():
        configure(json=True, level=logging.WARNING)
    return structlog.get_logger(component=component, **values)


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
