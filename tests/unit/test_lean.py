"""An import that does without a module leaves that module to everybody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fairway.lean import import_without

ASKS = "try:\n    import lean_spared as found\nexcept ImportError:\n    found = None\n"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lean_asks.py").write_text(ASKS)
    (tmp_path / "lean_spared.py").write_text("")
    (tmp_path / "lean_fails.py").write_text("import lean_spared\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("lean_asks", "lean_spared", "lean_fails"):
        sys.modules.pop(name, None)


def test_the_spared_module_is_not_imported_and_can_be_later(modules: None) -> None:
    asks = import_without("lean_asks", "lean_spared")
    assert asks.found is None
    assert "lean_spared" not in sys.modules
    import lean_spared

    assert lean_spared is sys.modules["lean_spared"]


@pytest.mark.parametrize("first", ["lean_asks", "lean_spared"])
def test_what_is_imported_stays_as_it_is(modules: None, first: str) -> None:
    there = __import__(first)
    asks = import_without("lean_asks", "lean_spared")
    assert asks.found is sys.modules["lean_spared"]
    assert sys.modules[first] is there


def test_a_module_that_needs_it_fails_and_hides_nothing(modules: None) -> None:
    with pytest.raises(ImportError):
        import_without("lean_fails", "lean_spared")
    assert "lean_spared" not in sys.modules
    assert __import__("lean_fails").lean_spared is sys.modules["lean_spared"]
