"""Writes the reference of `fairway.concurrency` from its docstrings: ``python -m fairway.testing.reference FILE``."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, TypeVar

_HEAD = """# Reference: fairway.concurrency

Written from the docstrings by `python -m fairway.testing.reference`; a test compares the two. Times are seconds.
Imports: `from fairway.concurrency import …`, and `from fairway.concurrency import debug`.
"""
# A name belongs to the first group that lists its module.
_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Channels", ("chan", "shared", "nil", "views", "cases")),
    ("Select", ("select", "shared_select")),
    ("Context", ("context", "binding", "afterfunc")),
    ("Waiting for one another", ("waitgroup", "once", "errgroup", "semaphore", "singleflight")),
    ("Rate and time", ("ratelimit", "ticker")),
    ("Signals and shutdown", ("notify", "shutdown")),
    ("Pools and pipelines", ("pool", "runners", "pipeline", "flow")),
    ("Errors", ("errors",)),
)
# What the package's modules call on one another's objects, and nobody else does.
_HOOKS = frozenset({"add_receiver", "add_sender", "blocked", "lock", "queue_for"})
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")


def render() -> str:
    """Return the page as Markdown."""
    import fairway.concurrency as package
    from fairway.concurrency import debug

    names = {name: getattr(package, name) for name in package.__all__}
    parts = [_HEAD]
    for title, modules in _GROUPS:
        members = [name for name, value in names.items() if _module(value) in modules]
        for name in members:
            names[name] = None
        if members:
            parts.append(f"## {title}\n")
            parts += [_entry(name, getattr(package, name)) for name in sorted(members, key=str.lower)]
    rest = [name for name, value in names.items() if value is not None]
    if rest:
        parts.append("## More\n")
        parts += [_entry(name, getattr(package, name)) for name in sorted(rest, key=str.lower)]
    parts.append("## Finding mistakes: fairway.concurrency.debug\n")
    public = [
        n
        for n, v in vars(debug).items()
        if getattr(v, "__module__", "") == debug.__name__ and n[0] != "_" and not _is_internal(v)
    ]
    parts += [_entry(f"debug.{name}", getattr(debug, name)) for name in sorted(public, key=str.lower)]
    return "\n".join(parts).rstrip() + "\n"


def _is_internal(value: Any) -> bool:
    return isinstance(value, TypeVar) or "Internal." in (value.__doc__ or "")


def _module(value: Any) -> str:
    owner = value if hasattr(value, "__module__") else type(value)
    return str(owner.__module__).rpartition(".")[2]


def _entry(name: str, value: Any) -> str:
    """Return one name's section: signature, text and, for a class, its public members."""
    if inspect.isclass(value):
        lines = [f"### `{name}{_signature(value)}`\n", _text(value)]
        lines += [_member(member, attribute) for member, attribute in _members(value)]
    elif inspect.isroutine(value):
        prefix = "await " if inspect.iscoroutinefunction(inspect.unwrap(value)) else ""
        lines = [f"### `{prefix}{name}{_signature(value)}`\n", _text(value)]
    else:
        lines = [f"### `{name}`\n", _text(type(value))]
    return "\n".join(lines)


def _members(cls: type[Any]) -> list[tuple[str, Any]]:
    """Return the public members that the class itself or a private base defines, in their order."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base is not cls and not (base.__name__.startswith("_") and base.__module__.startswith("fairway.")):
            continue
        for name, attribute in vars(base).items():
            plain = isinstance(attribute, (property, classmethod, staticmethod)) or inspect.isfunction(attribute)
            internal = name.startswith("_") or name.endswith("_locked") or name in _HOOKS
            if plain and not internal:
                found.setdefault(name, attribute)
    return list(found.items())


def _member(name: str, attribute: Any) -> str:
    if isinstance(attribute, property):
        return f"**`.{name}`** {_one_paragraph(attribute)}\n"
    function = attribute.__func__ if isinstance(attribute, (classmethod, staticmethod)) else attribute
    prefix = "await " if inspect.iscoroutinefunction(function) else ""
    return f"**`{prefix}.{name}{_signature(function)}`** {_one_paragraph(function)}\n"


def _one_paragraph(value: Any) -> str:
    return _sections(inspect.getdoc(value) or "").strip()


def _signature(value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):
        return ""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    kept = [p for p in parameters if p.name != "self" and not p.name.startswith("_")]
    text = str(inspect.Signature(kept))
    # Defaults that are objects print their address: their kind is enough.
    return re.sub(r"<([\w.]+)[^>]*>", r"\1", text)


def _text(value: Any) -> str:
    return _sections(inspect.getdoc(value) or "") + "\n"


def _sections(doc: str) -> str:
    """Turn Google-style sections into lists and double backquotes into single ones."""
    out: list[str] = []
    lines = doc.replace("``", "`").splitlines()
    index = 0
    while index < len(lines):
        match = _SECTION.match(lines[index])
        index += 1
        if match is None:
            out.append(lines[index - 1])
            continue
        body = []
        while index < len(lines) and (not lines[index] or lines[index].startswith(" ")):
            body.append(lines[index])
            index += 1
        out += ["", f"{match[1]}:", "", *_items(textwrap.dedent("\n".join(body)).strip()), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).rstrip()


def _items(body: str) -> list[str]:
    """Return a section's entries as a list; text that names nothing stays a paragraph."""
    items: list[str] = []
    for line in body.splitlines():
        match = re.match(r"([\w.*]+): (.*)", line)
        if match:
            items.append(f"- `{match[1]}`: {match[2]}")
        elif items and line.startswith(" "):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return items


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render())
