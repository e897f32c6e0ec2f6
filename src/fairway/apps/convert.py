"""Turns a document into plain values by the types of `fairway.apps.form`, collecting every problem with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from msgspec import NODEFAULT, inspect

from fairway.apps import values
from fairway.apps.document import Mapping, Node, Scalar, Sequence
from fairway.apps.form import EntryForm
from fairway.apps.problem import Complaint, Mark, nearest, shown, suggestion

_MAX_ITEMS = 500


@dataclass(slots=True)
class Converted:
    """What a document says.

    Attributes:
        fields: Values of the fields, nested as in the form, defaults filled in.
        marks: Where each field stands, by its path.
        complaints: All that is wrong.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)


@cache
def entry_type() -> inspect.StructType:
    """Return the type of a whole registry file."""
    found = inspect.type_info(EntryForm)
    assert isinstance(found, inspect.StructType), "the form is a struct"
    return found


def convert(node: Node) -> Converted:
    """Check a document against the form; never raises for what a file says."""
    out = Converted()
    if isinstance(node, Mapping):
        out.fields = _struct(node, entry_type(), "", out)
    else:
        out.complaints.append(
            Complaint(node.mark, "", f"expected the fields of an app, got {_kind(node)}", "Begin with `name: NAME`.")
        )
    return out


def _kind(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return "nothing" if node.is_null else shown(node.text)


def _join(path: str, name: str) -> str:
    safe = name if name.isprintable() and name.isascii() and len(name) <= 60 else shown(name)
    return f"{path}.{safe}" if path else safe


def _complain(out: Converted, mark: Mark | None, path: str, message: str, *, hint: str = "", code: str) -> None:
    out.complaints.append(Complaint(mark, path, message, hint, code))


def _struct(node: Mapping, kind: inspect.StructType, path: str, out: Converted) -> dict[str, Any]:
    known = {f.encode_name: f for f in kind.fields}
    found: dict[str, Any] = {}
    for key, value in node.items.items():
        here = _join(path, key)
        out.marks[here] = node.keys[key]
        if key not in known:
            _complain(
                out, node.keys[key], here, "unknown field", hint=nearest(key, known), code="registry.unknown_field"
            )
        else:
            found[key] = _value(value, known[key].type, here, out)
    for name, information in known.items():
        if name in found:
            continue
        if information.required:
            here = _join(path, name)
            _complain(out, node.mark, here, "expected this field, it is missing", code="registry.missing_field")
        else:
            found[name] = _default(information)
    return found


def _default(information: inspect.Field) -> Any:
    if information.default is None:
        return None
    kind = _unwrapped(information.type)[0]
    if isinstance(kind, inspect.StructType):
        return {f.encode_name: _default(f) for f in kind.fields}
    default = information.default if information.default is not NODEFAULT else information.default_factory()
    form = _unwrapped(information.type)[1].get("form")
    return values.FORMS[form](default) if form in ("duration", "positive_duration") and default is not None else default


def _unwrapped(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any], bool]:
    """Return a type without its annotations, what they say, and whether nothing is allowed in its place."""
    extra: dict[str, Any] = {}
    optional = False
    while True:
        if isinstance(kind, inspect.Metadata):
            extra = {**(kind.extra or {}), **extra}
            kind = kind.type
            continue
        if isinstance(kind, inspect.UnionType) and "form" not in extra:
            rest = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
            optional = optional or len(rest) < len(kind.types)
            if len(rest) == 1:
                kind = rest[0]
                continue
            # A union of text and numbers carries its form beside it.
            return inspect.UnionType(tuple(rest)), extra, optional
        return kind, extra, optional


def _value(node: Node, declared: inspect.Type, path: str, out: Converted) -> Any:
    kind, extra, optional = _unwrapped(declared)
    form = extra.get("form")
    if isinstance(node, Scalar) and node.is_null and (optional or not isinstance(kind, inspect.StrType)):
        if optional:
            return None
        if isinstance(kind, (inspect.DictType, inspect.VarTupleType)):
            return {} if isinstance(kind, inspect.DictType) else ()
        if isinstance(kind, inspect.StructType):
            return {f.encode_name: _default(f) for f in kind.fields}
    if form == "words":
        return _words(node, path, out)
    if form is not None:
        return _scalar(node, values.FORMS[form], path, out)
    if isinstance(kind, inspect.StructType):
        return _struct(node, kind, path, out) if isinstance(node, Mapping) else _mismatch(node, "fields", path, out)
    if isinstance(kind, inspect.DictType):
        return _dict(node, kind, path, out)
    if isinstance(kind, inspect.VarTupleType):
        return _list(node, kind.item_type, path, out)
    if isinstance(kind, inspect.LiteralType):
        return _literal(node, tuple(map(str, kind.values)), path, out)
    if isinstance(kind, inspect.IntType):
        least, most = kind.ge if kind.ge is not None else 0, kind.le if kind.le is not None else 2**31
        return _scalar(node, lambda text: values.whole(text, least, most), path, out)
    if isinstance(kind, inspect.FloatType):
        low, high = kind.ge if kind.ge is not None else 0.0, kind.le if kind.le is not None else 1e12
        return _scalar(node, lambda text: values.number(text, low, high), path, out)
    raise AssertionError(f"a field of the form has a type that nothing converts: {kind}")


def _mismatch(node: Node, wanted: str, path: str, out: Converted) -> None:
    _complain(out, node.mark, path, f"expected {wanted}, got {_kind(node)}", code="registry.wrong_type")


def _scalar(node: Node, read: Callable[[str], Any], path: str, out: Converted) -> Any:
    if not isinstance(node, Scalar):
        return _mismatch(node, "a single value", path, out)
    if node.is_null and read is not values.multi_line:
        return _mismatch(node, "a value", path, out)
    try:
        return read(node.text)
    except ValueError as error:
        got = "" if isinstance(error, values.WithheldError) else f", got {shown(node.text)}"
        _complain(out, node.mark, path, f"{error}{got}", code="registry.invalid_value")
        return None


def _words(node: Node, path: str, out: Converted) -> tuple[str, ...] | None:
    if isinstance(node, Scalar):
        found: tuple[str, ...] | None = _scalar(node, values.words, path, out)
        return found
    if not isinstance(node, Sequence) or not node.items:
        _mismatch(node, "a command line or a list of words", path, out)
        return None
    items = [_scalar(item, values.multi_line, f"{path}[{at}]", out) for at, item in enumerate(node.items[:_MAX_ITEMS])]
    return tuple(str(item) for item in items)


def _dict(node: Node, kind: inspect.DictType, path: str, out: Converted) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        if _unwrapped(kind.value_type)[1].get("form") == "password_hash":  # it may be a password: not repeated
            _complain(out, node.mark, path, "expected users and the hashes of their passwords, got something else",
                      code="registry.wrong_type")  # fmt: skip
            return {}
        _mismatch(node, "names and values", path, out)
        return {}
    form = _unwrapped(kind.key_type)[1]["form"]
    found: dict[str, Any] = {}
    for key, value in list(node.items.items())[:_MAX_ITEMS]:
        here = _join(path, key)
        out.marks[here] = node.keys[key]
        try:
            name = str(values.FORMS[form](key))
        except ValueError as error:
            _complain(out, node.keys[key], path, f"{error}, got {shown(key)}", code="registry.invalid_value")
            continue
        found[name] = _value(value, kind.value_type, here, out)
    return found


def _list(node: Node, item: inspect.Type, path: str, out: Converted) -> tuple[Any, ...]:
    if not isinstance(node, Sequence):
        _mismatch(node, "a list", path, out)
        return ()
    if len(node.items) > _MAX_ITEMS:
        _complain(
            out, node.mark, path, f"expected at most {_MAX_ITEMS} items, got {len(node.items)}", code="registry.size"
        )
        return ()
    for at, value in enumerate(node.items):
        out.marks[f"{path}[{at}]"] = value.mark
    return tuple(_value(value, item, f"{path}[{at}]", out) for at, value in enumerate(node.items))


def _literal(node: Node, valid: tuple[str, ...], path: str, out: Converted) -> str | None:
    if isinstance(node, Scalar) and node.text in valid:
        return node.text
    text = node.text if isinstance(node, Scalar) else ""
    got = _kind(node)
    hint = suggestion(text, valid)
    message = f"expected {' or '.join(valid)}, got {got}"
    _complain(out, node.mark, path, message, hint=hint, code="registry.invalid_value")
    return None
