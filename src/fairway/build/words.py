"""Command lines as people write them in a Procfile or in package.json, taken apart without a shell where possible."""

from __future__ import annotations

import re
import shlex
from typing import Final

import msgspec

from fairway.build.plan import PlanError

_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
# What only a shell can do. `$PORT` and `${PORT}` are put in when an instance starts; other variables need a shell.
_PORT: Final = re.compile(r"\$\{PORT(?::-?[0-9]*)?\}|\$PORT(?![A-Za-z0-9_])")
_SHELL: Final = re.compile(r"[|&;<>()`*?~\n]|\$")
_OPERATOR: Final = re.compile(r"\s*(?:&&|;)\s*")


MAX_LINE: Final = 4096


class Line(msgspec.Struct, frozen=True):
    """A command line: `words` and `env` where no shell is needed, else `shell` holds the text for ``sh -c``."""

    words: tuple[str, ...] = ()
    env: dict[str, str] = {}
    shell: str = ""


def parse_line(text: str) -> Line:
    """Take a command line apart.

    ``${PORT:-8000}`` becomes ``${PORT}``, leading assignments become `env`, a leading ``exec`` is dropped. Anything
    that needs a shell (pipes, ``&&``, other variables) comes back as `shell`, its last command made an ``exec`` so that
    signals reach the program itself.

    Raises:
        PlanError: The line is longer than `MAX_LINE`.

    >>> parse_line("NODE_ENV=production node server.js --port ${PORT:-3000}")
    Line(words=('node', 'server.js', '--port', '${PORT}'), env={'NODE_ENV': 'production'}, shell='')
    >>> parse_line("cd web && node index.js").shell
    'cd web && exec node index.js'
    """
    if len(text) > MAX_LINE:
        raise PlanError(f"expected a command line of at most {MAX_LINE} characters, got {len(text)}")
    line = _PORT.sub("${PORT}", text.strip())
    bare = re.sub(r"'[^']*'", "''", line.replace("${PORT}", "PORT"))
    # Double quotes protect everything but $ and `.
    bare = re.sub(r'"(?:[^"\\$`]|\\.)*"', '""', bare)
    if _SHELL.search(bare):
        return Line(shell=_exec_last(line))
    try:
        words = shlex.split(line, comments=False)
    except ValueError:
        return Line(shell=_exec_last(line))
    env: dict[str, str] = {}
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        env[match[1]] = match[2]
        words.pop(0)
    if words and words[0] == "exec":
        words.pop(0)
    return Line(tuple(words), env)


def _exec_last(line: str) -> str:
    """Put ``exec`` before the last simple command; leave the text alone where that is not certain to be right."""
    parts = list(_OPERATOR.finditer(line))
    start = parts[-1].end() if parts else 0
    last = line[start:]
    compound = re.search(r"(?:^|[\s;])(?:if|then|else|fi|for|while|until|do|done|case|esac|function)(?:[\s;]|$)", line)
    special = re.match(r"(?:exec|cd)\b|[({]|[A-Za-z_]\w*=", last) or re.search(r"[|()&]", last)
    risky = not last or compound or special
    if risky or "'" in line[:start] or '"' in line[:start]:
        return line
    return f"{line[:start]}exec {last}"


def parse_procfile(text: str) -> dict[str, Line]:
    """Read a Procfile: ``name: command`` a line; comments and blank lines are skipped, as Heroku and foreman do.

    >>> parse_procfile("web: gunicorn app:app\\n# note\\nworker: python jobs.py")["worker"].words
    ('python', 'jobs.py')
    """
    found: dict[str, Line] = {}
    for row in text.splitlines()[:200]:
        match = re.match(r"^([A-Za-z0-9_-]{1,40}):\s*(.+)$", row.strip())
        if match and not row.lstrip().startswith("#"):
            found[match[1]] = parse_line(match[2])
    return found
