"""Finds the web application object in Python source by reading its syntax tree; nothing is imported or run."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Literal

from fairway.build.facts import Facts

Interface = Literal["asgi", "wsgi"]

CONSTRUCTORS: dict[str, Interface] = {
    "FastAPI": "asgi", "Starlette": "asgi", "Litestar": "asgi", "Quart": "asgi", "Flask": "wsgi", "Bottle": "wsgi",
    "APIFlask": "wsgi", "get_asgi_application": "asgi", "get_wsgi_application": "wsgi", "WsgiToAsgi": "asgi",
    "Connexion": "wsgi", "FlaskApp": "wsgi", "AsyncApp": "asgi", "BlackSheep": "asgi",
}  # fmt: skip
# Names too common to stand alone: taken only with the module they come from.
_QUALIFIED: dict[str, Interface] = {"falcon.App": "wsgi", "falcon.asgi.App": "asgi", "falcon.API": "wsgi"}
_WORTH_PARSING = re.compile("|".join([*CONSTRUCTORS, "falcon", r"create_app|make_app|get_app\w*|create_application"]))
_MAX_FOUND = 20
_FACTORIES = ("create_app", "make_app", "get_app", "get_application", "create_application", "build_app", "init_app")
_OBJECT_NAMES = ("app", "application", "api", "server")
_FILE_NAMES = ("asgi", "wsgi", "main", "app", "server", "api", "application", "autoapp", "run", "__init__")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the application object is.

    Attributes:
        module: Dotted module as imported from `folder`.
        attribute: Name in the module.
        interface: How a server calls it.
        factory: `attribute` is a function that returns the application.
        folder: Folder to import from, relative, ``.`` for the root.
        file: File it was found in.
    """

    module: str
    attribute: str
    interface: Interface
    factory: bool
    folder: str
    file: str


@dataclass(frozen=True, slots=True)
class _Found:
    attribute: str
    interface: Interface
    factory: bool


def find_entry(facts: Facts, names: frozenset[str]) -> Entry | None:
    """Return the application object of a Python app, the likeliest first, or None.

    Args:
        facts: The folder with the text of its Python files.
        names: Packages that it depends on, normalised; they decide what an imported factory returns.
    """
    best: tuple[tuple[int, ...], Entry] | None = None
    asgi_named = bool(names & {"fastapi", "starlette", "litestar", "quart", "channels", "daphne"})
    for path, text in facts.texts.items():
        if not path.endswith(".py") or not _WORTH_PARSING.search(text):
            continue
        module = _parse(text)
        if module is None:
            continue
        for found in _scan(module, asgi_named)[:_MAX_FOUND]:
            folder, dotted = _import_path(facts, path, module)
            rank = _rank(path, found, names)
            if best is None or rank < best[0]:
                best = rank, Entry(dotted, found.attribute, found.interface, found.factory, folder, path)
    return best[1] if best else None


def _rank(path: str, found: _Found, names: frozenset[str]) -> tuple[int, ...]:
    stem = path.rpartition("/")[2].removesuffix(".py")
    django = "django" in names
    servers = {"asgi": names & {"uvicorn", "hypercorn", "daphne", "granian"}, "wsgi": names & {"gunicorn", "waitress"}}
    fits_server = 0 if servers[found.interface] or not (servers["asgi"] or servers["wsgi"]) else 1
    file_rank = _FILE_NAMES.index(stem) if stem in _FILE_NAMES else len(_FILE_NAMES)
    name_rank = _OBJECT_NAMES.index(found.attribute) if found.attribute in _OBJECT_NAMES else len(_OBJECT_NAMES)
    prefer_wsgi = 1 if django and not servers["asgi"] and found.interface == "asgi" else 0
    return (int(found.factory), fits_server, prefer_wsgi, path.count("/"), file_rank, name_rank)


def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Python 2, a template or hostile nesting: not the entry of an app that could start.
        return None


def _scan(module: ast.Module, asgi_named: bool) -> list[_Found]:
    functions = {n.name: n for n in module.body if isinstance(n, ast.FunctionDef)}
    aliases = _imported(module)
    found: list[_Found] = []
    for node in _statements(module.body):
        target = _assigned(node)
        if target is None:
            continue
        name, call = target
        interface = _interface(call, aliases, functions, asgi_named)
        if interface:
            found.append(_Found(name, interface, False))
    if not found:
        for name in _FACTORIES:
            function = functions.get(name)
            if function is not None and _callable_bare(function):
                interface = _returned(function, aliases)
                if interface:
                    found.append(_Found(name, interface, True))
    return found


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements that run at import: the body, and what stands under ``if``, ``try`` and ``with``."""
    found: list[ast.stmt] = []
    for node in body:
        found.append(node)
        if isinstance(node, ast.If) and not _is_main_guard(node):
            found += [*node.body, *node.orelse]
        elif isinstance(node, (ast.Try, ast.With)):
            found += node.body
    return found


def _is_main_guard(node: ast.If) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))


def _assigned(node: ast.stmt) -> tuple[str, ast.Call] | None:
    value: ast.expr | None = None
    target: ast.expr | None = None
    if isinstance(node, ast.Assign) and node.targets:
        target, value = node.targets[0], node.value
    elif isinstance(node, ast.AnnAssign):
        target, value = node.target, node.value
    if isinstance(target, ast.Name) and isinstance(value, ast.Call):
        return target.id, value
    return None


def _imported(module: ast.Module) -> dict[str, str]:
    """Map local names to what they were imported as: ``{"FA": "fastapi.FastAPI"}``."""
    found: dict[str, str] = {}
    for node in _statements(module.body):
        if isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            found.update({a.asname or a.name: f"{prefix}.{a.name}" for a in node.names})
        elif isinstance(node, ast.Import):
            found.update({a.asname or a.name: a.name for a in node.names})
    return found


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
        return ".".join(reversed(parts))
    return ""


def _constructed(call: ast.Call, aliases: dict[str, str]) -> Interface | None:
    written = _dotted(call.func)
    if not written:
        return None
    first, _, rest = written.partition(".")
    full = ".".join(filter(None, (aliases.get(first, first), rest)))
    if full in _QUALIFIED:
        return _QUALIFIED[full]
    return CONSTRUCTORS.get(full.rpartition(".")[2])


def _interface(
    call: ast.Call, aliases: dict[str, str], functions: dict[str, ast.FunctionDef], asgi_named: bool
) -> Interface | None:
    direct = _constructed(call, aliases)
    if direct:
        return direct
    name = _dotted(call.func)
    if name in functions:
        return _returned(functions[name], aliases)
    last = aliases.get(name, name).rpartition(".")[2]
    if name in aliases and last in _FACTORIES:
        return "asgi" if asgi_named else "wsgi"
    return None


def _returned(function: ast.FunctionDef, aliases: dict[str, str]) -> Interface | None:
    if function.returns is not None:
        annotated = CONSTRUCTORS.get(_dotted(function.returns).rpartition(".")[2])
        if annotated:
            return annotated
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and (interface := _constructed(node, aliases)):
            return interface
    return None


def _callable_bare(function: ast.FunctionDef) -> bool:
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional == len(arguments.defaults) and all(d is not None for d in arguments.kw_defaults)


def _import_path(facts: Facts, path: str, module: ast.Module) -> tuple[str, str]:
    """Return the folder to import from and the dotted module.

    A module's imports tell which folder its author started it from: where a name that it imports lies beside the
    module but not in the root, the module's own folder is the one.
    """
    parts = path.removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    if not parts:
        return ".", "__init__"
    base = "/".join(parts[:-1])
    if path.startswith("src/") and len(parts) > 1 and (facts.has(f"src/{parts[1]}/__init__.py") or len(parts) == 2):
        root = "src"
    else:
        root = "."
    if base and base != root and not path.endswith("__init__.py") and not facts.has(f"{base}/__init__.py"):
        root = base if _imports_from(facts, module, base) and not _imports_from(facts, module, root) else root
    elif base == "src" and _imports_from(facts, module, ".", only="src"):
        root = "."
    start = 0 if root == "." else root.count("/") + 1
    return root, ".".join(parts[start:])


def _imports_from(facts: Facts, module: ast.Module, folder: str, only: str = "") -> bool:
    prefix = "" if folder == "." else f"{folder}/"
    names = {v.split(".")[0] for v in _imported(module).values() if not v.startswith(".")}
    if only:
        names &= {only}
    tops = {f[len(prefix) :].split("/")[0].removesuffix(".py") for f in facts.files if f.startswith(prefix)}
    return bool(names & tops)
