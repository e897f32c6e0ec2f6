"""What every benchmark shares: facts of the machine, rows and goals, the table, JSON, and environments for peers.

args = arguments("channels beside their peers")
report = Report("concurrency")
report.row("fairway", "buffered 1→1", "ops/s", runs=[1.0e6, 1.1e6, 0.9e6])
report.goal("buffered 1→1 over asyncio.Queue", 2.1, 2.0)
sys.exit(finish(report, args))
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
Op = Literal[">=", "<=", "=="]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure: `value` is the median of `runs` unless it was given."""

    name: str
    metric: str
    unit: str
    value: float
    runs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that has to be reached."""

    name: str
    value: float
    goal: float
    op: Op = ">="

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        if self.op == ">=":
            return self.value >= self.goal
        if self.op == "<=":
            return self.value <= self.goal
        return self.value == self.goal

    def line(self) -> str:
        """Return the line that is printed for the goal."""
        verdict = "holds" if self.holds else "falls short"
        return f"goal {self.name}: {show(self.value)} (goal {self.op} {show(self.goal)}): {verdict}"


def show(value: float) -> str:
    """Return a number as a table shows it: four significant digits, thousands apart."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


@dataclass(slots=True)
class Report:
    """The rows and goals of one benchmark run.

    Attributes:
        subsystem: Name of the benchmark, as in ``python -m bench.<subsystem>``.
        versions: Versions of what was measured, by name.
        notes: Sentences printed under the table, such as a peer that is missing and why.
    """

    subsystem: str
    versions: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(
        self, name: str, metric: str, unit: str, *, runs: Iterable[float] = (), value: float | None = None
    ) -> float:
        """Add a figure, the median of `runs` or `value`; return it."""
        runs = tuple(runs)
        if value is None:
            if not runs:
                raise ValueError(f"row {name}/{metric}: expected runs or a value, got neither")
            value = statistics.median(runs)
        self.rows.append(Row(name, metric, unit, value, runs))
        return value

    def goal(self, name: str, value: float, goal: float, op: Op = ">=") -> bool:
        """Add a goal; return whether it holds."""
        added = Goal(name, value, goal, op)
        self.goals.append(added)
        return added.holds

    def note(self, text: str) -> None:
        """Add a sentence under the table."""
        self.notes.append(text)

    def print(self) -> None:
        """Print the machine, the table (one line a metric and unit, one column a name), notes and goal lines."""
        facts = machine_facts()
        print(f"\n{self.subsystem}: {facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['date']}")
        if self.versions:
            print(", ".join(f"{name} {version}" for name, version in self.versions.items()))
        print()
        for line in table(self.rows):
            print(line)
        for note in self.notes:
            print(f"note: {note}")
        if self.goals:
            print()
        for goal in self.goals:
            print(goal.line())

    def to_json(self) -> dict[str, Any]:
        """Return ``{machine, versions, rows, goals, notes}``."""
        return {
            "subsystem": self.subsystem,
            "machine": machine_facts(),
            "versions": self.versions,
            "rows": [{**asdict(row), "runs": list(row.runs)} for row in self.rows],
            "goals": [{**asdict(goal), "holds": goal.holds} for goal in self.goals],
            "notes": self.notes,
        }

    def exit_code(self, check: bool) -> int:
        """Return 1 if `check` is asked for and a goal falls short, else 0."""
        return 1 if check and not all(goal.holds for goal in self.goals) else 0


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table: metrics down, names across, as wide as needed."""
    metrics = list(dict.fromkeys((row.metric, row.unit) for row in rows))
    names = list(dict.fromkeys(row.name for row in rows))
    cells = {(row.metric, row.unit, row.name): show(row.value) for row in rows}
    grid = [["metric", "unit", *names]]
    grid += [[metric, unit, *(cells.get((metric, unit, name), "–") for name in names)] for metric, unit in metrics]
    widths = [max(len(line[column]) for line in grid) for column in range(len(grid[0]))]
    lines = []
    for number, line in enumerate(grid):
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return lines


def machine_facts() -> dict[str, Any]:
    """Return what a reader needs to judge a figure: CPU, cores, memory, system, Python, date."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_mib": _memory_mib(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def _memory_mib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError):
        return 0


def arguments(description: str) -> argparse.Namespace:
    """Parse the options that every benchmark has: ``--quick``, ``--json FILE``, ``--check``."""
    return parser(description).parse_args()


def parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of `arguments`, for a benchmark that adds options of its own."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="smaller runs, done within 60 s; figures are rougher")
    made.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions, rows and goals as JSON")
    made.add_argument("--check", action="store_true", help="exit with 1 if a goal falls short")
    return made


def finish(report: Report, args: argparse.Namespace) -> int:
    """Print the report, write its JSON if asked for, and return the exit status."""
    report.print()
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report.exit_code(args.check)


def peer_venv(name: str, requirements: Sequence[str], python: str | Path | None = None) -> Path:
    """Return the interpreter of a virtual environment that holds `requirements`, made on first use.

    Args:
        name: Folder under ``.cache/bench/venvs``; one name, one set of requirements.
        requirements: What pip installs, such as ``"janus==2.0.0"`` or a folder for an editable install (``-e``).
        python: Interpreter to build on; the running one if None.

    Raises:
        RuntimeError: pip failed; the message ends with what it said.
    """
    base = str(python or sys.executable)
    folder = CACHE / "venvs" / name
    interpreter = folder / "bin" / "python"
    stamp = folder / ".requirements"
    wanted = hashlib.sha256("\n".join([base, *requirements]).encode()).hexdigest()
    if interpreter.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    run([base, "-m", "venv", str(folder)])
    words = [word for requirement in requirements for word in requirement.split()]
    if words:
        run([str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words])
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter


def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 600) -> str:
    """Run a command and return what it printed.

    Raises:
        RuntimeError: It exited with another status than 0; the message ends with its last lines.
    """
    done = subprocess.run(
        list(argv),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env={**os.environ, **env} if env else None,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise RuntimeError(f"{' '.join(argv)} exited with {done.returncode}:\n{tail}")
    return done.stdout


def pythons() -> list[Path]:
    """Return the interpreters to measure on: the running one and the newest other one found, oldest first.

    Looked for on PATH and beside pyenv's versions as ``python3.N``; a version counts once.
    """
    found: dict[tuple[int, int], Path] = {sys.version_info[:2]: Path(sys.executable)}
    folders = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    for folder in folders:
        for minor in range(11, 20):
            candidate = folder / f"python3.{minor}"
            if (3, minor) not in found and _answers(candidate, minor):
                found[3, minor] = candidate
    newest = max(found)
    chosen = {sys.version_info[:2]: found[sys.version_info[:2]], newest: found[newest]}
    return [chosen[version] for version in sorted(chosen)]


def _answers(interpreter: Path, minor: int) -> bool:
    """Whether `interpreter` exists, runs and is Python 3.`minor` (a version manager's shim may not be)."""
    if not os.access(interpreter, os.X_OK):
        return False
    code = "import sys; print(sys.version_info[1])"
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    return done.returncode == 0 and done.stdout.strip() == str(minor)
