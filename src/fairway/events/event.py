"""The event, and its form on the wire: CloudEvents 1.0 in JSON."""

from __future__ import annotations

import base64
import binascii
import os
import re
from datetime import UTC, datetime
from itertools import accumulate
from typing import Annotated, Any, Final

import msgspec

from fairway.events.errors import InvalidEvent

SPEC_VERSION: Final = "1.0"
MAX_ATTRIBUTE: Final = 1024  # characters of any attribute but data
MAX_DEPTH: Final = 490  # levels of JSON: readers have less room for them than the writer, and a webhook's job has 500
# One that does not end goes to the end of the text: whatever comes is read once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("]"): -1}
_KNOWN = {"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "data", "data_base64"}
_AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
_EXTENSION = re.compile(r"[a-z0-9]{1,40}\Z")
_JSON: Final = "application/json"
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+[ \t]*(?:;.*)?\Z", re.ASCII)


def _now() -> datetime:
    return datetime.now(UTC)


_IDS: list[str] = []  # made a hundred at a time: asking the system for randomness costs more than an event
os.register_at_fork(after_in_child=_IDS.clear)


def _new_id() -> str:
    try:
        return _IDS.pop()  # atomic: each id goes to one thread
    except IndexError:
        return _fresh_id()


def _fresh_id() -> str:
    text = os.urandom(1600).hex()
    _IDS.extend(text[start : start + 32] for start in range(32, 3200, 32))
    return text[:32]


class Event(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        type: What happened, such as ``resource_flow_created``; handlers are registered by it.
        data: Any value that JSON can carry, or that msgspec can turn into it (dataclass, Struct, datetime, bytes …).
        time: When, with a time zone. id: unique within `source`; the two together are the deduplication key.
        source: Who says so: an app's name or a URI.
        subject: What it is about, within the source, or None.
        partition_key: Events with one key are delivered in order, one at a time in a group; None for no order.
        extensions: Further CloudEvents attributes: lower-case names, string values.
        content_type: Media type of the data where it is not the JSON that `data` is: ``application/xml`` for a string,
            ``image/png`` for bytes. It is kept and handed on; nobody looks whether the data fits.

    Source: CloudEvents 1.0 (``partitionkey`` is its partitioning extension).
    """

    type: str
    data: Any = None
    time: datetime = msgspec.field(default_factory=_now)
    id: str = msgspec.field(default_factory=_new_id)
    source: str = "fairway"
    subject: str | None = None
    partition_key: str | None = None
    extensions: dict[str, str] = {}
    content_type: str | None = None

    def check(self) -> Event:
        """Return itself. Raises `InvalidEvent`, which names the attribute that is missing, too long or of the wrong
        form.
        """
        for name, value in (
            ("type", self.type),
            ("id", self.id),
            ("source", self.source),
            ("subject", self.subject),
            ("partitionkey", self.partition_key),
        ):
            if value is None and name in ("subject", "partitionkey"):
                continue
            if not isinstance(value, str) or not value or len(value) > MAX_ATTRIBUTE or not value.isprintable():
                raise InvalidEvent(
                    f"expected {name} to be 1 to {MAX_ATTRIBUTE} printable characters, got {str(value)[:80]!r}",
                    field=name,
                )
        kind = self.content_type
        if kind is not None and (
            not isinstance(kind, str)
            or len(kind) > MAX_ATTRIBUTE
            or not kind.isprintable()
            or not _MEDIA_TYPE.match(kind)
        ):
            raise InvalidEvent(
                f"expected datacontenttype to be a media type such as application/xml, got {str(kind)[:80]!r}",
                field="datacontenttype",
            )
        if not isinstance(self.time, datetime) or self.time.tzinfo is None:
            raise InvalidEvent(f"event {self.type!r}: expected time with a time zone, got {self.time}", field="time")
        for name, value in self.extensions.items():
            if not isinstance(value, str) or len(value) > MAX_ATTRIBUTE:
                raise InvalidEvent(
                    f"event {self.type!r}: expected {name!r} to be at most {MAX_ATTRIBUTE} characters, "
                    f"got {str(value)[:80]!r}",
                    field=str(name),
                )
            if not _EXTENSION.match(name) or name in _KNOWN or name == "partitionkey":
                raise InvalidEvent(
                    f"event {self.type!r}: expected extension names of a-z and 0-9, got {name!r}", field=name
                )
        return self

    def encode(self, *, stored: bool = False) -> bytes:
        """Return the event as CloudEvents JSON.

        Args:
            stored: It was taken by a store, perhaps before there was a bound: it is not refused for its depth any more.

        Raises:
            InvalidEvent: The data cannot become JSON, or is nested deeper than 490 levels.
        """
        self.check()
        document: dict[str, Any] = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": self.time,
        }
        if self.subject is not None:
            document["subject"] = self.subject
        if self.partition_key is not None:
            document["partitionkey"] = self.partition_key
        document.update(self.extensions)
        if isinstance(self.data, bytes | bytearray | memoryview):
            if self.content_type is not None:
                document["datacontenttype"] = self.content_type
            document["data_base64"] = base64.b64encode(self.data).decode()
        else:
            document["datacontenttype"] = self.content_type or _JSON
            document["data"] = self.data
        try:
            encoded = msgspec.json.encode(document)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise InvalidEvent(
                f"event {self.type!r} ({self.id}): expected data that JSON can carry: {error}", field="data"
            ) from error
        if not stored:
            check_depth(encoded)
        return encoded

    @classmethod
    def decode(cls, document: bytes | str | dict[str, Any]) -> Event:
        """Read CloudEvents JSON.

        Raises:
            InvalidEvent: It is not JSON, not CloudEvents 1.0, or an attribute is missing or of the wrong form.
        """
        if not isinstance(document, dict):
            try:
                document = msgspec.json.decode(document, type=dict[str, Any])
            except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
                raise InvalidEvent(f"expected a CloudEvents object in JSON: {error}", field="") from error
        if (version := document.get("specversion", SPEC_VERSION)) != SPEC_VERSION:
            raise InvalidEvent(f"expected specversion 1.0, got {version!r}", field="specversion")
        if "type" not in document:
            raise InvalidEvent("expected type, what happened, got none", field="type")
        fields: dict[str, Any] = {"type": document["type"], "data": _data(document)}
        for name, attribute in (("id", "id"), ("source", "source"), ("subject", "subject")):
            if document.get(name) is not None:
                fields[attribute] = document[name]
        if document.get("partitionkey") is not None:
            fields["partition_key"] = document["partitionkey"]
        if document.get("time") is not None:
            fields["time"] = _time(document["time"])
        kind = document.get("datacontenttype")
        if kind is not None and (kind != _JSON or "data_base64" in document):
            fields["content_type"] = kind
        fields["extensions"] = {
            name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in document.items()
            if name not in _KNOWN and name != "partitionkey"
        }
        return cls(**fields).check()


def check_depth(encoded: bytes, around: int = 0) -> None:
    """Raise `InvalidEvent` where JSON is nested deeper than `MAX_DEPTH`: one such event would hold up its readers.

    Args:
        encoded: An event, or what holds events.
        around: Levels of what holds them.
    """
    if len(encoded) <= 2 * MAX_DEPTH or encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", encoded).translate(_BRACKETS, _NO_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH + around:
        raise InvalidEvent(f"expected data nested at most {MAX_DEPTH} levels, got more", field="data")


def _data(document: dict[str, Any]) -> Any:
    if "data_base64" in document:
        try:
            return base64.b64decode(document["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise InvalidEvent(f"expected base64 in data_base64: {error}", field="data_base64") from error
    return document.get("data")


def _time(value: Any) -> datetime:
    try:
        return msgspec.convert(value, type=_AwareTime)
    except msgspec.ValidationError as error:
        raise InvalidEvent(
            f"expected time such as 2026-01-31T12:00:00Z, got {str(value)[:80]!r}", field="time"
        ) from error
