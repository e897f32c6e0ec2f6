"""What ``nginx -t`` said, and about which file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_EMERG = re.compile(r"\[emerg\] (?:\d+#\d+: )?(?P<what>.*?)(?: in (?P<file>/[^\n]*?):(?P<line>\d+))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The first error: a sentence, and the file below the tree with its line where NGINX named one."""

    message: str
    file: str | None
    line: int | None

    def __str__(self) -> str:
        return f"{self.message} ({self.file}:{self.line})" if self.file else self.message


def diagnose(output: str, root: Path) -> Diagnosis:
    """Read the output of a failed ``nginx -t`` on the tree at `root`."""
    match = _EMERG.search(output)
    if match is None:
        return Diagnosis(output.strip()[-500:] or "nginx -t failed without a word", None, None)
    file, line = match["file"], match["line"]
    if file is None or not Path(file).is_relative_to(root):
        return Diagnosis(match["what"] + (f" in {file}:{line}" if file else ""), None, None)
    return Diagnosis(match["what"], str(Path(file).relative_to(root)), int(line))
