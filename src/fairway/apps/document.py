"""Reads YAML that an enemy may have written into a tree that knows its lines; nothing is constructed from tags.

PyYAML's C parser turns the bytes into events; they are looked at one by one before anything grows from them: depth,
number of nodes (those reached through aliases counted each time), tags, duplicate keys. There is no recursion, and the
parser is asked for the next event only while all bounds hold, so a file of 10,000 brackets costs the first 24.

Scalars keep their text: what they mean is decided by the field that they stand in (`fairway.apps.convert`), so that
``country: no`` is the text "no" in a field of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from fairway.apps.problem import MAX_BYTES, DocumentError, Mark, shown

MAX_DEPTH = 24
MAX_NODES = 10_000
MAX_ALIASES = 50
_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = {f"{_CORE}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}


@dataclass(slots=True)
class Scalar:
    """A single value: its text, whether it stood without quotes, and where."""

    text: str
    plain: bool
    mark: Mark

    @property
    def is_null(self) -> bool:
        """True for nothing at all, ``~`` and ``null``."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(slots=True)
class Sequence:
    """A list of nodes."""

    mark: Mark
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Keys and nodes in the order of the file; no key twice."""

    mark: Mark
    items: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


@dataclass(slots=True)
class _Open:
    """A collection that is being filled; `key` waits for its value; `count` is its size in nodes."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None
    count: int = 1


def parse(data: bytes) -> Node:
    """Parse one YAML document.

    Raises:
        DocumentError: It is too large, too deep, no UTF-8, no YAML, uses tags, repeats a key, or is not one document.
    """
    if len(data) > MAX_BYTES:
        raise DocumentError(f"expected at most {MAX_BYTES >> 10} KiB, got {len(data) >> 10} KiB", None, "registry.size")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise DocumentError("expected UTF-8, got a byte that is none", Mark(line, column)) from error
    builder = _Builder()
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _as_document_error(error, text) from error
    if builder.root is None:
        raise DocumentError("expected the fields of an app, got an empty file", None, "registry.empty")
    return builder.root


def _events(text: str) -> Iterator[Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from yaml.parse(text, Loader=loader)


def _as_document_error(error: yaml.YAMLError, text: str) -> DocumentError:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return DocumentError(f"expected YAML, got: {error.problem}", Mark(mark.line + 1, mark.column + 1))  # type: ignore[attr-defined]  # MarkedYAMLError
    position = getattr(error, "position", None)
    if isinstance(position, int):
        at = min(position, len(text))
        column = at - text.rfind("\n", 0, at)
        return DocumentError(
            "expected printable characters, got a control character", Mark(text.count("\n", 0, at) + 1, column)
        )
    return DocumentError(f"expected YAML, got: {shown(str(error), 120)}", None)


class _Builder:
    """Grows the tree from events, checking every bound on the way."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._aliases = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise DocumentError("expected one document, got a second one", mark, "registry.documents")
        elif isinstance(event, yaml.ScalarEvent):
            plain = not event.style and event.tag not in ("!", f"{_CORE}str")
            self._checked_tag(event, mark)
            self._add(Scalar(event.value, plain, mark), 1, event.anchor)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._checked_tag(event, mark)
            if len(self._open) >= MAX_DEPTH:
                raise DocumentError(f"expected at most {MAX_DEPTH} levels, got more", mark, "registry.depth")
            self._count(1, mark)
            node: Sequence | Mapping = Mapping(mark) if isinstance(event, yaml.MappingStartEvent) else Sequence(mark)
            if self._open and isinstance(self._open[-1].node, Mapping) and self._open[-1].key is None:
                raise DocumentError("expected a name as key, got a collection", mark, "registry.key")
            self._open.append(_Open(node, event.anchor))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            done = self._open.pop()
            self._attach(done.node, done.count, done.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor or "", mark)

    def _alias(self, name: str, mark: Mark) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise DocumentError(f"expected at most {MAX_ALIASES} aliases, got more", mark, "registry.aliases")
        if name not in self._anchors:
            raise DocumentError(f"expected an anchor &{name} before, found none", mark, "registry.alias")
        node, count = self._anchors[name]
        self._count(count, mark)
        self._attach(node, count, None, alias_mark=mark)

    def _checked_tag(self, event: Any, mark: Mark) -> None:
        tag = event.tag
        if tag is not None and tag != "!" and tag not in _CORE_TAGS:
            raise DocumentError(
                f"expected plain values, got the tag {shown(tag)}", mark, "registry.tag", "Remove the tag."
            )

    def _count(self, nodes: int, mark: Mark) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise DocumentError(
                f"expected at most {MAX_NODES} values, aliases written out, got more", mark, "registry.aliases"
            )

    def _add(self, node: Scalar, count: int, anchor: str | None) -> None:
        self._count(count, node.mark)
        self._attach(node, count, anchor)

    def _attach(self, node: Node, count: int, anchor: str | None, alias_mark: Mark | None = None) -> None:
        if anchor is not None:
            self._anchors[anchor] = (node, count)
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.count += count
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            parent.key = self._as_key(node, parent.node, alias_mark)
        else:
            parent.node.items[parent.key.text] = node
            parent.key = None

    def _as_key(self, node: Node, mapping: Mapping, alias_mark: Mark | None) -> Scalar:
        mark = alias_mark or node.mark
        if not isinstance(node, Scalar):
            raise DocumentError("expected a name as key, got a collection", mark, "registry.key")
        if node.plain and node.text == "<<":
            raise DocumentError(
                "expected fields, got a merge key `<<`",
                mark,
                "registry.merge",
                "Write the fields out, or alias values.",
            )
        if node.text in mapping.items or node.text in mapping.keys:
            first = mapping.keys[node.text]
            raise DocumentError(
                f"expected every key once, got {shown(node.text)} again (first at line {first.line})",
                mark, "registry.duplicate_key",
            )  # fmt: skip
        mapping.keys[node.text] = mark
        return node
