"""Imports a module without a module that it would use if it were there, and does not need."""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # `typing` takes longer to import than all of this; see `fairway.cli.ahead`
if TYPE_CHECKING:
    from types import ModuleType


def import_without(name: str, spared: str) -> ModuleType:
    """Import the module `name` as if `spared` were not installed; where either is imported already, as it is.

    `spared` stays importable for everybody else. To be called before other threads import anything.

    Args:
        name: A module that does without `spared` where that is missing.
        spared: A module that takes time or memory and gives nothing that is wanted here.
    """
    hidden = name not in sys.modules and spared not in sys.modules
    if hidden:
        sys.modules[spared] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        return import_module(name)
    finally:
        if hidden:
            del sys.modules[spared]
