"""Rules of the tree: what has to be where, under which names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import yaml

Hold = Callable[[list[str], str], None]

FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
SERVICE_FILES = ("README.md", "Dockerfile", "main.py", "config.yaml")
SAMPLES = ("go-api", "fastapi-api", "express-api", "csharp-api")
SAMPLE_FILES = ("README.md", "Dockerfile", "docker-compose.yml", ".dockerignore")
# Halves, so that this file passes its own rule.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(ho" r"me/[A-Za-z_][\w.-]*|ro" r"ot(?![\w-])|Us" r"ers/[A-Za-z_][\w.-]*)")


def test_scripts_stay_thin(repository: Any, hold: Hold) -> None:
    thick = [
        f"{module.path}:{module.line_count}: {module.line_count} lines, at most 15"
        for module in repository.python("scripts")
        if module.line_count > 15
    ]
    hold(thick, "a script calls the command line interface; move the logic into src/fairway")


def test_services_are_complete_and_thin(repository: Any, hold: Hold) -> None:
    found = []
    for name in sorted({path.split("/")[1] for path in repository.under("services") if path.count("/") > 1}):
        found += [
            f"services/{name}/{file}:1: missing"
            for file in SERVICE_FILES
            if not repository.exists(f"services/{name}/{file}")
        ]
    for module in repository.python("services"):
        if module.line_count > 30:
            found.append(f"{module.path}:{module.line_count}: {module.line_count} lines, at most 30")
    hold(found, f"a service is {', '.join(SERVICE_FILES)}; main.py only wires what src/fairway has")


def test_samples_have_the_files_of_their_contract(repository: Any, hold: Hold) -> None:
    found = []
    present = {path.split("/")[1] for path in repository.under("apps") if path.count("/") > 1}
    found += [f"apps/{name}:1: not in the contract's list of samples" for name in present - set(SAMPLES)]
    for name in SAMPLES:
        needed = [*(f"apps/{name}/{file}" for file in SAMPLE_FILES), f"compose/app-registry/{name}.yaml"]
        found += [f"{path}:1: missing" for path in needed if not repository.exists(path)]
    hold(found, "see apps/CONTRACT.md, section Files; a new sample is added to SAMPLES here and to the contract test")


def test_sample_images_follow_the_contract(repository: Any, hold: Hold) -> None:
    found = []
    for name in SAMPLES:
        path = f"apps/{name}/Dockerfile"
        text = repository.read(path)
        for number, line in repository.lines(path):
            if line.startswith("FROM ") and not re.match(r"FROM \$\{\w+\}", line):
                found.append(f"{path}:{number}: a base image that is no ARG: {line}")
            if re.match(r"(CMD|ENTRYPOINT)\b(?!\s*\[)", line):
                found.append(f"{path}:{number}: a shell stands between Docker's SIGTERM and the program: {line}")
        if not re.search(r"^USER (?!0|root)", text, re.MULTILINE):
            found.append(f"{path}:1: no USER other than root")
        compose = f"apps/{name}/docker-compose.yml"
        [service] = yaml.safe_load(repository.read(compose))["services"].values()
        if not any("${PORT:-" in str(port) for port in service["ports"]):
            found.append(f"{compose}:1: the published port is not ${{PORT:-…}}")
    hold(found, "see apps/CONTRACT.md, section Files")


def test_registry_entries_point_to_what_is_there(repository: Any, hold: Hold) -> None:
    found = []
    names: dict[str, str] = {}
    for path in repository.under("compose/app-registry", suffix=".yaml"):
        entry = yaml.safe_load(repository.read(path))
        for key in ("source", "compose_file"):
            if key in entry and not (repository.root / path).parent.joinpath(entry[key]).exists():
                found.append(f"{path}:1: {key} {entry[key]} does not exist")
        if entry["name"] != PurePath(path).stem:
            found.append(f"{path}:1: the file of {entry['name']} should be {entry['name']}.yaml")
        if names.setdefault(entry["name"], path) != path:
            found.append(f"{path}:1: {entry['name']} is in {names[entry['name']]} already")
    hold(found, "correct the entry; paths are relative to the file")


def test_names_say_what_is_inside(repository: Any, hold: Hold) -> None:
    code = repository.under("src", "pkg", "bench", "services", "scripts", "tests", "apps")
    vague = [
        f"{path}:1: the name {part} says nothing"
        for path in code
        for part in PurePath(path).with_suffix("").parts
        if part.lower().strip("_") in FORBIDDEN_NAMES
    ]
    hold(vague, "name the file after the one noun that it holds")


def test_no_path_of_somebodys_machine(repository: Any, hold: Hold) -> None:
    found = [
        f"{path}:{number}: {match[0]}"
        for path in repository.files
        for number, line in repository.lines(path)
        if (match := MACHINE_PATH.search(line))
    ]
    hold(found, "use a path relative to the repository, a temporary folder, or ~")


def test_lock_files_name_no_registry(repository: Any, hold: Hold) -> None:
    found = []
    for path in (p for p in repository.files if p.endswith("package-lock.json")):
        packages = json.loads(repository.read(path))["packages"]
        found += [f"{path}:1: {name} has `resolved`" for name, package in packages.items() if "resolved" in package]
        found += [
            f"{path}:1: {name} has no `integrity`" for name, p in packages.items() if name and "integrity" not in p
        ]
    hold(found, "npm install --package-lock-only --omit-lockfile-registry-resolved")


def test_every_make_target_has_help(repository: Any, hold: Hold) -> None:
    silent = [
        f"Makefile:{number}: {line}"
        for number, line in repository.lines("Makefile")
        if re.match(r"[a-zA-Z0-9_%-]+\s*:(?!=)", line) and "## " not in line
    ]
    hold(silent, "end the line with `## what it does`: make help lists it")


def test_continuous_integration_runs_what_people_run(repository: Any, hold: Hold) -> None:
    path = ".github/workflows/ci.yml"
    jobs = yaml.safe_load(repository.read(path))["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    wanted = ("make check", "make test", "go vet ./...", "go test -race")
    hold([f"{path}:1: does not run {command}" for command in wanted if command not in commands], "add it")
