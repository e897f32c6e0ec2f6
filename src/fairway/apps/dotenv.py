"""Files of variables (``.env``): one ``NAME=value`` a line."""

from __future__ import annotations

import re
from pathlib import Path

from fairway.errors import FairwayError

MAX_BYTES = 256 * 1024
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


class EnvFileError(FairwayError):
    """A file of variables is missing, too large or has a line that is none. Values are never part of the message."""

    code = "registry.env_file"


def read_env_file(path: Path) -> dict[str, str]:
    """Read a file of variables.

    Raises:
        EnvFileError: It cannot be read, or a line is no assignment; names the file and the line, never a value.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise EnvFileError(f"expected a file of variables at {path}, got: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise EnvFileError(f"expected at most {MAX_BYTES >> 10} KiB of variables in {path}, got more")
    try:
        return parse_env(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise EnvFileError(f"expected UTF-8 in {path}, got byte {error.start} that is none") from error


def parse_env(text: str, where: str = "the file") -> dict[str, str]:
    r"""Parse variables: ``export`` in front, quotes, ``# comments`` and ``\n`` in double quotes are understood.

    Nothing is expanded: ``$NAME`` stays as it stands.

    >>> parse_env("A=1\nexport B='x # y' # note\nC=\"two\\nlines\"")
    {'A': '1', 'B': 'x # y', 'C': 'two\nlines'}

    Raises:
        EnvFileError: A line is no assignment.
    """
    found: dict[str, str] = {}
    for number, row in enumerate(text.splitlines(), 1):
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(row)
        if match is None or "\0" in row:
            raise EnvFileError(f"expected NAME=value in {where}, line {number}, got something else")
        found[match[1]] = _value(match[2], where, number)
    return found


def _value(raw: str, where: str, number: int) -> str:
    if raw[:1] in ("'", '"'):
        quote = raw[0]
        pattern = r"'([^']*)'" if quote == "'" else r'"((?:[^"\\]|\\.)*)"'
        match = re.fullmatch(pattern + r"\s*(?:#.*)?", raw)
        if match is None:
            raise EnvFileError(f"expected a closing {quote} in {where}, line {number}, found none")
        if quote == "'":
            return match[1]
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), match[1])
    return re.split(r"\s+#", raw, maxsplit=1)[0].rstrip() if not raw.startswith("#") else ""
