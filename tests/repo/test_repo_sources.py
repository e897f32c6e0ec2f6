"""Rules of the Python sources: documented, small, finished, honest about errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

Hold = Callable[[list[str], str], None]
Function = ast.FunctionDef | ast.AsyncFunctionDef

SOURCES = ("src", "services", "scripts")
SIZED = (*SOURCES, "bench", "tests", "examples")
MAX_FILE, HARD_MAX_FILE, MAX_FUNCTION, MAX_ARGUMENTS = 500, 700, 70, 7
# Written in two halves so that this file passes its own rule.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore(\[[\w\-, ]+\])?(\s*#\s*\S+)?")
BLANKET = re.compile(
    r"#\s*(noqa(?!\s*:\s*[A-Z]+\d)|ruff\s*:\s*noqa(?!\s*:\s*[A-Z]+\d)|mypy:\s*ignore-errors|pyright:\s*basic)"
)


def decorators(node: Function | ast.ClassDef) -> list[str]:
    return [ast.unparse(decorator) for decorator in node.decorator_list]


def is_public(path: str) -> bool:
    parts = PurePath(path).with_suffix("").parts
    return not any(part.startswith("_") and part not in ("__init__", "__main__") for part in parts)


def body_without_docstring(node: Function) -> list[ast.stmt]:
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def test_public_names_are_documented(repository: Any, hold: Hold) -> None:
    missing = []
    for module in repository.python(*SOURCES):
        if not is_public(module.path):
            continue
        if module.text.strip() and not ast.get_docstring(module.tree):
            missing.append(f"{module.path}:1: the module has no docstring")
        for node, parents in module.nodes():
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith(("_", "test_")):
                continue  # the name of a test in a conformance suite is a sentence already
            around = [parent for parent in parents if isinstance(parent, Function | ast.ClassDef)]
            if any(isinstance(p, Function) or p.name.startswith("_") for p in around):
                continue
            exempt = ("overload", "override", "typing.overload", "typing.override")
            if any(d in exempt or d.endswith((".setter", ".deleter")) for d in decorators(node)):
                continue
            if not ast.get_docstring(node):
                missing.append(f"{module.path}:{node.lineno}: {node.name} has no docstring")
    hold(missing, "say what it is, its units and bounds, its errors and what a cancellation does (Google style)")


def test_files_are_small(repository: Any, hold: Hold) -> None:
    large = []
    for module in repository.python(*SIZED):
        reason = re.search(r"^Size: \S", ast.get_docstring(module.tree) or "", re.MULTILINE)
        limit = HARD_MAX_FILE if reason else MAX_FILE
        if module.line_count > limit:
            large.append(f"{module.path}:{limit}: {module.line_count} lines, at most {limit}")
    hold(
        large,
        f"one noun a file: split it; up to {HARD_MAX_FILE} lines are for a file whose docstring has a line `Size: why`",
    )


def test_functions_are_small(repository: Any, hold: Hold) -> None:
    large = []
    for module in repository.python(*SIZED):
        for node, _ in module.functions():
            body = body_without_docstring(node)
            if not body:
                continue
            length = (node.end_lineno or 0) - body[0].lineno + 1 + (node.body[0].lineno - node.lineno)
            if length > MAX_FUNCTION:
                large.append(f"{module.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION}")
    hold(large, "make its steps functions with names (the docstring does not count)")


def test_functions_take_few_arguments(repository: Any, hold: Hold) -> None:
    wide = []
    for module in repository.python(*SOURCES, "bench"):
        for node, parents in module.functions():
            if any(re.search(r"\b(command|group|option|argument|pass_context)\b", d) for d in decorators(node)):
                continue  # Click hands over one argument an option
            if any(d.endswith("overload") for d in decorators(node)):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            in_class = bool(parents) and isinstance(parents[-1], ast.ClassDef)
            bound = in_class and "staticmethod" not in decorators(node)
            count = len(arguments) - (1 if bound else 0)
            if count > MAX_ARGUMENTS:
                wide.append(
                    f"{module.path}:{node.lineno}: {node.name} takes {count} arguments, at most {MAX_ARGUMENTS}"
                )
    hold(wide, "gather them in a frozen dataclass or msgspec struct that names what they are together")


def test_nothing_is_left_unfinished(repository: Any, hold: Hold) -> None:
    found = []
    for module in repository.python(*SIZED):
        found += [f"{module.path}:{n}: {text}" for n, text in module.comments if UNFINISHED.search(text)]
        for node, parents in module.nodes():
            if isinstance(node, ast.Raise) and node.exc is not None:
                name = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if isinstance(name, ast.Name) and name.id == "NotImplementedError":
                    found.append(f"{module.path}:{node.lineno}: raises NotImplementedError")
            if isinstance(node, Function) and module.path.startswith(SOURCES) and is_stub(node, parents):
                found.append(f"{module.path}:{node.lineno}: {node.name} has no body")
    hold(found, "finish it, take it out, or make the interface a Protocol or an abstract method")


def is_stub(node: Function, parents: tuple[ast.AST, ...]) -> bool:
    body = body_without_docstring(node)
    empty = bool(body) and all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and s.value.value is ...)
        for s in body
    )
    if not empty or any("overload" in d or "abstractmethod" in d for d in decorators(node)):
        return False
    owners = [base for p in parents if isinstance(p, ast.ClassDef) for base in p.bases]
    return not any(ast.unparse(base).split("[")[0].endswith("Protocol") for base in owners)


def test_no_exception_is_swallowed(repository: Any, hold: Hold) -> None:
    found = []
    for module in repository.python(*SOURCES):
        for node, _ in module.nodes():
            if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and does_nothing(node):
                caught = ast.unparse(node.type) if node.type else "everything"
                found.append(f"{module.path}:{node.lineno}: catches {caught}, does nothing")
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("suppress")
                and any(map(is_broad, node.args))
            ):
                found.append(f"{module.path}:{node.lineno}: suppresses every exception")
    hold(found, "catch what can happen by its own name, or log it, or let it go on")


def is_broad(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(map(is_broad, kind.elts))
    return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))


def does_nothing(handler: ast.ExceptHandler) -> bool:
    """Whether the handler neither raises, nor calls anything, nor looks at what it caught."""
    inside = [node for statement in handler.body for node in ast.walk(statement)]
    acts = any(isinstance(node, ast.Raise | ast.Call | ast.Await | ast.Yield) for node in inside)
    looks = any(isinstance(node, ast.Name) and node.id == handler.name for node in inside)
    return not acts and not looks


def test_no_check_is_turned_off_wholesale(repository: Any, hold: Hold) -> None:
    found = []
    for module in repository.python(*SIZED):
        for line, text in module.comments:
            if BLANKET.search(text):
                found.append(f"{module.path}:{line}: {text}")
            ignore = TYPE_IGNORE.search(text)
            if ignore and not (ignore[1] and ignore[2]) and module.path.startswith(SOURCES):
                found.append(f"{module.path}:{line}: {text}")
    hold(found, "name the rule and the reason: `# type: ignore[code]  # why`, `# noqa: CODE`")


def test_tests_do_not_sleep_to_wait(repository: Any, hold: Hold) -> None:
    found = []
    for module in repository.python("tests"):
        polls = module.path.startswith(("tests/integration/", "tests/e2e/", "tests/conftest.py"))
        for node, parents in module.nodes():
            if isinstance(node, ast.Call) and sleeps(node) and not (polls and is_bounded_poll(parents)):
                found.append(f"{module.path}:{node.lineno}: {ast.unparse(node)}")
    hold(
        found,
        "wait for a signal, an event or a fake clock; a foreign process may be polled in a loop with a deadline; "
        "`asyncio.Event().wait()` is what never ends",
    )


def sleeps(call: ast.Call) -> bool:
    if ast.unparse(call.func) not in ("time.sleep", "asyncio.sleep", "anyio.sleep", "sleep") or not call.args:
        return False
    seconds = call.args[0]
    # Zero yields to the loop; a minute or more stands for ever, until the task is cancelled.
    return not (
        isinstance(seconds, ast.Constant) and isinstance(seconds.value, int | float) and not 0 < seconds.value < 60
    )


def is_bounded_poll(parents: tuple[ast.AST, ...]) -> bool:
    functions = [p for p in parents if isinstance(p, Function)]
    in_loop = any(isinstance(p, ast.While | ast.For | ast.AsyncFor) for p in parents)
    return (
        in_loop
        and bool(functions)
        and bool(re.search(r"deadline|timeout|monotonic|range\(", ast.unparse(functions[-1])))
    )
