"""What the repository's rules look at: its files, their lines and their syntax trees."""

from __future__ import annotations

import ast
import io
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A Python source file."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def line_count(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """Line and text of every comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]

    def functions(self) -> Iterator[tuple[Function, tuple[ast.AST, ...]]]:
        """Every function with the nodes around it, outermost first."""
        for node, parents in self.nodes():
            if isinstance(node, Function):
                yield node, parents

    def nodes(self) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
        """Every node with the nodes around it, outermost first."""
        waiting: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(self.tree, ())]
        while waiting:
            node, parents = waiting.pop()
            yield node, parents
            waiting.extend((child, (*parents, node)) for child in ast.iter_child_nodes(node))


@dataclass
class Repository:
    """The files that are tracked, or will be: those that .gitignore does not name."""

    root: Path
    files: list[str]
    _modules: dict[str, Module] = field(default_factory=dict)

    def under(self, *folders: str, suffix: str = "") -> list[str]:
        """Paths below any of `folders` that end in `suffix`."""
        return [f for f in self.files if f.endswith(suffix) and any(f.startswith(f"{x}/") for x in folders)]

    def python(self, *folders: str) -> list[Module]:
        """Every Python file below any of `folders`."""
        for path in self.under(*folders, suffix=".py"):
            if path not in self._modules:
                self._modules[path] = Module(path, self.read(path))
        return [self._modules[path] for path in self.under(*folders, suffix=".py")]

    def read(self, path: str) -> str:
        return (self.root / path).read_text("utf-8")

    def lines(self, path: str) -> Iterator[tuple[int, str]]:
        """Numbered lines of a text file; of a binary one none."""
        try:
            text = self.read(path)
        except UnicodeDecodeError:
            return
        yield from enumerate(text.splitlines(), 1)

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()


@pytest.fixture(scope="session")
def repository() -> Repository:
    """The repository as it stands on disk."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # A deleted file stays listed until the commit.
    files = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return Repository(ROOT, sorted(set(files)))


@pytest.fixture
def hold() -> Callable[[list[str], str], None]:
    """A function that fails with every finding on a line of its own, and what to do about them."""

    def hold_rule(findings: list[str], fix: str) -> None:
        if findings:
            pytest.fail("\n".join([*sorted(findings), f"fix: {fix}"]), pytrace=False)

    return hold_rule
