"""Every code block of the concurrency pages runs, and prints what the page says it prints.

The Python blocks of a page are executed one after the other, as at the prompt of ``python -m asyncio``, in virtual
time; one marked "alone" is a program of its own. A block that names a file of examples/ is that file, word for
word; the file is executed instead.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from fairway.testing.loop import run_virtual
from fairway.testing.reference import render

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for path in (ROOT / "docs").glob("*.md")
    if re.match(r"(01-go|3\d-|4[01]-|60-concurrency|61-go|85-concurrency)", path.name)
    and "fairway.concurrency" in path.read_text()
)
EXAMPLES = sorted((ROOT / "examples/concurrency").glob("*.py"))
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it repeats, its text and line, and the output that follows it."""

    language: str
    file: str
    text: str
    line: int
    output: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    found = list(FENCE.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        adjacent = following is not None and not text[match.end() : following.start()].strip()
        output = following[3] if following is not None and adjacent and following[1] == "text" else None
        yield Block(match[1], match[2] or "", match[3], text.count("\n", 0, match.start()) + 2, output)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run_and_print_what_the_page_says(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks(page):
            if block.language != "python" or block.file:
                continue
            source = "\n" * (block.line - 1) + block.text
            code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, namespace)
            if inspect.isawaitable(result):
                await result
            printed = capsys.readouterr().out
            assert block.output is None or printed == block.output, f"{page.name}:{block.line}"
            assert block.output is not None or not printed, f"{page.name}:{block.line} prints, the page does not say so"

    run_virtual(run())
    for block in blocks(page):
        if block.file == "alone":
            # A process of its own, too: the threads that other tests have left here could wake somebody.
            done = subprocess.run([sys.executable, "-c", block.text], capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr) == (block.output or "", ""), f"{page.name}:{block.line}"


def test_every_example_has_its_page_and_every_page_its_example() -> None:
    shown = [block.file for page in PAGES for block in blocks(page) if block.file.endswith(".py")]
    assert sorted(shown) == [str(path.relative_to(ROOT)) for path in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_and_their_pages_show_them(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(example.relative_to(ROOT))
    (block,) = [block for page in PAGES for block in blocks(page) if block.file == name]
    assert block.text == example.read_text(), f"{name} and its page differ"
    if "aiohttp" not in block.text:
        # What needs no network needs no time either.
        monkeypatch.setattr(asyncio, "run", run_virtual)
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out == block.output


def test_the_reference_is_what_the_docstrings_say() -> None:
    page = ROOT / "docs/60-concurrency-reference.md"
    assert page.read_text() == render(), "run: python -m fairway.testing.reference docs/60-concurrency-reference.md"


def test_the_reference_has_every_public_name() -> None:
    import fairway.concurrency

    text = render()
    assert [
        name for name in fairway.concurrency.__all__ if not re.search(rf"^### `(await )?{name}\b", text, re.MULTILINE)
    ] == []
