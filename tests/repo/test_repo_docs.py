"""Rules of the documentation: nothing lost, nothing twice, no dead link."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest

Hold = Callable[[list[str], str], None]

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^\s*(```|~~~)")


def links(repository: Any, path: str) -> list[tuple[int, str]]:
    """Line and target of every Markdown link outside code."""
    found, fenced = [], False
    for number, line in repository.lines(path):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            bare = re.sub(r"`[^`]*`", "", line) if "](" not in line else line
            found += [(number, target) for target in LINK.findall(bare)]
    return found


def resolve(path: str, target: str) -> str | None:
    """Repository path that a link leads to, or None where it leads out."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target) or target.startswith("#"):
        return None
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / target.split("#")[0]).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            return f"../{target}"
    return "/".join(parts)


def test_every_page_is_in_the_contents_once(repository: Any, hold: Hold) -> None:
    pages = set(repository.under("docs", suffix=".md")) - {"docs/toc.md"}
    listed = Counter(resolve("docs/toc.md", target) for _, target in links(repository, "docs/toc.md"))
    found = [f"{page}:1: not in docs/toc.md" for page in pages if not listed[page]]
    found += [f"docs/toc.md:1: {page} is listed {count} times" for page, count in listed.items() if page and count > 1]
    found += [
        f"docs/toc.md:{number}: {target} does not exist"
        for number, target in links(repository, "docs/toc.md")
        if (page := resolve("docs/toc.md", target)) and page.startswith("docs/") and page not in pages
    ]
    hold(found, "docs/toc.md links every page below docs/ exactly once")


def test_pages_are_numbered(repository: Any, hold: Hold) -> None:
    wrong = [
        f"{path}:1: expected a name such as 12-deploy.md"
        for path in repository.under("docs", suffix=".md")
        if PurePosixPath(path).parent == PurePosixPath("docs")
        and path != "docs/toc.md"
        and not re.fullmatch(r"docs/\d\d-[a-z0-9-]+\.md", path)
    ]
    hold(wrong, "00-09 tutorials, 10-49 how-to, 50-79 reference, 80-99 explanation")


def test_decisions_are_numbered_without_gaps(repository: Any, hold: Hold) -> None:
    names = [PurePosixPath(path).name for path in repository.under("docs/adr", suffix=".md")]
    wrong = [f"docs/adr/{n}:1: expected NNNN-title.md" for n in names if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", n)]
    numbers = sorted(int(name[:4]) for name in names if name[:4].isdigit())
    expected = list(range(1, len(numbers) + 1))
    if not wrong and numbers != expected:
        wrong.append(f"docs/adr:1: expected the numbers 1 to {len(numbers)}, each once, got {numbers}")
    hold(wrong, "a decision gets the next free number and keeps it")


def test_links_lead_somewhere(repository: Any, hold: Hold) -> None:
    dead = [
        f"{path}:{number}: {target}"
        for path in repository.files
        if path.endswith(".md")
        for number, target in links(repository, path)
        if (found := resolve(path, target)) is not None and not repository.exists(found)
    ]
    hold(dead, "correct the link; it is relative to the page")


@pytest.mark.parametrize(
    ("page", "target", "expected"),
    [
        ("docs/toc.md", "01-start.md#first", "docs/01-start.md"),
        ("docs/adr/0001-x.md", "../toc.md", "docs/toc.md"),
        ("README.md", "../elsewhere", "../../elsewhere"),
        ("README.md", "https://example.org/x", None),
        ("README.md", "#top", None),
    ],
)
def test_links_are_resolved_as_browsers_do(page: str, target: str, expected: str | None) -> None:
    assert resolve(page, target) == expected
