"""The reference page says what the commands say."""

from __future__ import annotations

from pathlib import Path

from fairway.cli.reference import page

PAGE = Path(__file__).parents[3] / "docs" / "51-command-line.md"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make schema` and look at the difference"
