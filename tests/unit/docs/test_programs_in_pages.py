"""The programs in the README and in the how-tos run as they stand and print what they are said to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAMS = {
    "README.md": ["got 0\ngot 1\ngot 2\n"],
    "docs/25-publish-and-handle-events.md": ["1 orders.eu {'id': 7}\n", "order 7\n"],
    "services/event-bus/README.md": ["{'id': 7}\n"],
}


@pytest.mark.parametrize("page", _PROGRAMS)
def test_every_program_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    programs = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    printed = []
    for number, program in enumerate(programs):
        exec(compile(program, f"{page}:{number}", "exec"), {"__name__": "__main__"})
        printed.append(capsys.readouterr().out)
    assert printed == _PROGRAMS[page]
