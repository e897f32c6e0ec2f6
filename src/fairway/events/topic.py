"""Topics and the patterns that select them.

A topic is dot-separated words of letters, digits, ``_`` and ``-``: ``orders.eu.created``. In a pattern ``*`` stands
for exactly one word and a closing ``>`` for one or more: ``orders.*.created``, ``orders.>``, ``>``.
Source: NATS subjects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from fairway.events.errors import EventError, InvalidTopic

MAX_LENGTH = 255
MAX_GROUP = 200
SYSTEM_GROUPS = "fairway-"  # prefix of the platform's own groups, which no client may touch
_TOPIC = re.compile(r"\$?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z")
_PATTERN = re.compile(r"(?:\$?[A-Za-z0-9_-]+|\*)(?:\.(?:[A-Za-z0-9_-]+|\*))*(?:\.>)?\Z|>\Z")


@lru_cache(4096)
def check_topic(topic: str) -> str:
    """Return `topic` unchanged. Raises `InvalidTopic` where it is malformed or longer than 255 characters."""
    if len(topic) > MAX_LENGTH or not _TOPIC.match(topic):
        raise InvalidTopic(f"expected a topic such as orders.created, got {topic[:80]!r}")
    return topic


def check_group(group: str, pattern: str, after: int | None) -> None:
    """Check what a group is joined with.

    Raises:
        InvalidTopic: The name is no topic, starts with ``$`` or is longer than 200 characters (it becomes part of the
            dead-letter topic), or the pattern is malformed or reads the group's own dead letters.
        EventError: `after` is negative.
    """
    if group.startswith("$") or len(group) > MAX_GROUP:
        raise InvalidTopic(
            f"expected a group's name of at most {MAX_GROUP} characters that does not start with $, got {group[:80]!r}"
        )
    if matcher(pattern)(f"$dead.{check_topic(group)}"):
        raise InvalidTopic(f"group {group!r} would read its own dead letters for ever, got pattern {pattern!r}")
    if after is not None and after < 0:
        raise EventError(f"expected a group to start after an offset >= 0, got {after}")


@lru_cache(4096)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Compile a pattern into a predicate over topics.

    System topics, which start with ``$`` (such as ``$dead.GROUP``), match only patterns that start with ``$``.

    Raises:
        InvalidTopic: The pattern is malformed.
    """
    if len(pattern) > MAX_LENGTH or not _PATTERN.match(pattern):
        raise InvalidTopic(f"expected a topic or a pattern such as orders.* or orders.>, got {pattern[:80]!r}")
    if "*" not in pattern and ">" not in pattern:
        return pattern.__eq__
    words = pattern.split(".")
    rest = words[-1] == ">"
    head = r"\.".join(r"[A-Za-z0-9_-]+" if word == "*" else re.escape(word) for word in words[: -1 if rest else None])
    tail = r"[A-Za-z0-9_.-]+" if rest else ""
    compiled = re.compile(_join(head, tail))
    return lambda topic: compiled.match(topic) is not None


def _join(head: str, tail: str) -> str:
    return (head + r"\." + tail if head and tail else head + tail) + r"\Z"
