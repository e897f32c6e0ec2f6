"""The one base of every error that Fairway raises on purpose."""

from __future__ import annotations

from typing import ClassVar


class FairwayError(Exception):
    """Base of Fairway's errors: a sentence for a person and a stable code for a program.

    A message says what was expected, where, and what came. Only `fairway.cli` maps codes to exit
    statuses and only `fairway.api` maps them to HTTP statuses.

    Attributes:
        code: Stable, dotted, lower-case name of the error, such as ``registry.unknown_field``. Subclasses set
            a default; an instance may carry a narrower one.
        hint: What to do about it, one sentence, or an empty string.
    """

    code: str = "fairway.error"
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message: str = message
        if code is not None:
            self.code = code
        self.hint: str = self.default_hint if hint is None else hint

    def __str__(self) -> str:
        return self.message
