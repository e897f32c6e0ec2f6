"""Every rule finds what it forbids: each runs over a small tree that breaks it, and over one that does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
SECRET_HOME = "/ho" + "me/ann/x"  # in halves: this file is under the rule too
LATER = "TO" + "DO"
LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 71
DOCKERFILE = 'ARG BASE=x\nFROM ${BASE}\nUSER 1:1\nENTRYPOINT ["x"]\n'
COMPOSE = 'services:\n  x:\n    ports: ["127.0.0.1:${PORT:-1}:1"]\n'
SAMPLE_NAMES = ("go-api", "fastapi-api", "express-api", "csharp-api")
GOOD_SAMPLES = {
    f"apps/{name}/{file}": text
    for name in SAMPLE_NAMES
    for file, text in {
        "README.md": "",
        "Dockerfile": DOCKERFILE,
        "docker-compose.yml": COMPOSE,
        ".dockerignore": "",
    }.items()
} | {f"compose/app-registry/{name}.yaml": f"name: {name}\nsource: ../../apps/{name}\n" for name in SAMPLE_NAMES}

# rule, a tree that breaks it, what the message has to say
BROKEN = [
    ("sources", "test_public_names_are_documented", {"src/a.py": "x = 1\n"}, "src/a.py:1: the module has no docstring"),
    ("sources", "test_public_names_are_documented", {"src/a.py": '"""A."""\nclass B: ...\n'}, "src/a.py:2: B has no"),
    (
        "sources",
        "test_public_names_are_documented",
        {"src/a.py": '"""A."""\nasync def f(): ...\n'},
        "src/a.py:2: f has no",
    ),
    ("sources", "test_files_are_small", {"src/a.py": "x = 1\n" * 501}, "501 lines, at most 500"),
    (
        "sources",
        "test_files_are_small",
        {"src/a.py": '"""A.\n\nSize: one table.\n"""\n' + "x = 1\n" * 700},
        "at most 700",
    ),
    ("sources", "test_functions_are_small", {"tests/a.py": LONG_FUNCTION}, "tests/a.py:1: f has 72 lines"),
    (
        "sources",
        "test_functions_take_few_arguments",
        {"src/a.py": "def f(a, b, c, d, /, e, f, *, g, h): ...\n"},
        "takes 8",
    ),
    ("sources", "test_nothing_is_left_unfinished", {"src/a.py": f"x = 1  # {LATER}: more\n"}, "src/a.py:1"),
    (
        "sources",
        "test_nothing_is_left_unfinished",
        {"src/a.py": "def f():\n    raise NotImplementedError\n"},
        "src/a.py:2",
    ),
    ("sources", "test_nothing_is_left_unfinished", {"src/a.py": 'def f():\n    """F."""\n    pass\n'}, "f has no body"),
    (
        "sources",
        "test_no_exception_is_swallowed",
        {"src/a.py": "try:\n    f()\nexcept Exception:\n    pass\n"},
        "src/a.py:3",
    ),
    (
        "sources",
        "test_no_exception_is_swallowed",
        {"src/a.py": "try:\n    f()\nexcept:\n    x = 1\n"},
        "catches everything",
    ),
    (
        "sources",
        "test_no_exception_is_swallowed",
        {"src/a.py": "with suppress(OSError, Exception):\n    f()\n"},
        "src/a.py:1",
    ),
    ("sources", "test_no_check_is_turned_off_wholesale", {"src/a.py": "f()  # type: " + "ignore\n"}, "src/a.py:1"),
    (
        "sources",
        "test_no_check_is_turned_off_wholesale",
        {"src/a.py": "f()  # type: " + "ignore[arg-type]\n"},
        "src/a.py:1",
    ),
    ("sources", "test_no_check_is_turned_off_wholesale", {"tests/a.py": "f()  # no" + "qa\n"}, "tests/a.py:1"),
    ("sources", "test_tests_do_not_sleep_to_wait", {"tests/unit/a.py": "time.sleep(0.1)\n"}, "time.sleep(0.1)"),
    (
        "sources",
        "test_tests_do_not_sleep_to_wait",
        {"tests/unit/a.py": "async def f():\n    await asyncio.sleep(n)\n"},
        ":2",
    ),
    (
        "sources",
        "test_tests_do_not_sleep_to_wait",
        {"tests/e2e/a.py": "def f():\n    while True:\n        time.sleep(1)\n"},
        ":3",
    ),
    ("layout", "test_scripts_stay_thin", {"scripts/a.py": "x = 1\n" * 16}, "16 lines, at most 15"),
    (
        "layout",
        "test_services_are_complete_and_thin",
        {"services/a/main.py": "x = 1\n"},
        "services/a/Dockerfile:1: missing",
    ),
    ("layout", "test_services_are_complete_and_thin", {"services/a/main.py": "x = 1\n" * 31}, "31 lines, at most 30"),
    (
        "layout",
        "test_samples_have_the_files_of_their_contract",
        {"apps/go-api/README.md": ""},
        "apps/go-api/Dockerfile:1",
    ),
    (
        "layout",
        "test_samples_have_the_files_of_their_contract",
        {**GOOD_SAMPLES, "apps/rust-api/x": ""},
        "apps/rust-api:1",
    ),
    (
        "layout",
        "test_sample_images_follow_the_contract",
        {**GOOD_SAMPLES, "apps/go-api/Dockerfile": "FROM x\n"},
        "no ARG",
    ),
    (
        "layout",
        "test_sample_images_follow_the_contract",
        {**GOOD_SAMPLES, "apps/go-api/Dockerfile": "CMD x\n"},
        "a shell",
    ),
    (
        "layout",
        "test_sample_images_follow_the_contract",
        {**GOOD_SAMPLES, "apps/go-api/Dockerfile": "USER root\n"},
        "no USER",
    ),
    (
        "layout",
        "test_sample_images_follow_the_contract",
        {**GOOD_SAMPLES, "apps/go-api/docker-compose.yml": "services: {x: {ports: ['1:1']}}\n"},
        "the published port",
    ),
    ("layout", "test_registry_entries_point_to_what_is_there", {"compose/app-registry/a.yaml": "name: b\n"}, "b.yaml"),
    (
        "layout",
        "test_registry_entries_point_to_what_is_there",
        {"compose/app-registry/a.yaml": "name: a\nsource: ../nowhere\n"},
        "does not exist",
    ),
    ("layout", "test_names_say_what_is_inside", {"src/utils.py": ""}, "src/utils.py:1"),
    ("layout", "test_names_say_what_is_inside", {"src/common/a.py": ""}, "src/common/a.py:1"),
    ("layout", "test_no_path_of_somebodys_machine", {"README.md": f"see {SECRET_HOME}\n"}, "README.md:1"),
    (
        "layout",
        "test_lock_files_name_no_registry",
        {"package-lock.json": '{"packages": {"a": {"resolved": "x"}}}'},
        "resolved",
    ),
    ("layout", "test_every_make_target_has_help", {"Makefile": "help: ## h\nbuild: x\n"}, "Makefile:2: build"),
    (
        "layout",
        "test_continuous_integration_runs_what_people_run",
        {".github/workflows/ci.yml": "jobs: {a: {steps: [{run: make check}]}}\n"},
        "does not run make test",
    ),
    (
        "docs",
        "test_every_page_is_in_the_contents_once",
        {"docs/toc.md": "", "docs/01-a.md": ""},
        "docs/01-a.md:1: not in",
    ),
    (
        "docs",
        "test_every_page_is_in_the_contents_once",
        {"docs/toc.md": "[a](01-a.md)\n"},
        "docs/toc.md:1: 01-a.md does not",
    ),
    (
        "docs",
        "test_every_page_is_in_the_contents_once",
        {"docs/toc.md": "[a](01-a.md)\n[b](01-a.md)\n", "docs/01-a.md": ""},
        "docs/01-a.md is listed 2 times",
    ),
    ("docs", "test_pages_are_numbered", {"docs/start.md": ""}, "docs/start.md:1"),
    ("docs", "test_decisions_are_numbered_without_gaps", {"docs/adr/1-a.md": ""}, "docs/adr/1-a.md:1"),
    ("docs", "test_decisions_are_numbered_without_gaps", {"docs/adr/0002-a.md": ""}, "got [2]"),
    ("docs", "test_links_lead_somewhere", {"README.md": "\n[a](b.md)\n"}, "README.md:2: b.md"),
]

KEPT = {
    **GOOD_SAMPLES,
    "README.md": "[toc](docs/toc.md#start) [out](https://example.org)\n```\n[x](nowhere)\n```\n",
    "docs/toc.md": "[a](01-a.md)\n[d](adr/0001-a.md)\n",
    "docs/01-a.md": "",
    "docs/adr/0001-a.md": "",
    "Makefile": "VAR := x\nbuild: x ## builds\n",
    "scripts/a.py": '"""A."""\n',
    **{f"services/a/{name}": '"""A."""\n' for name in ("README.md", "Dockerfile", "main.py", "config.yaml")},
    ".github/workflows/ci.yml": "jobs: {a: {steps: [{run: 'make check; make test; go vet ./...; go test -race'}]}}\n",
    "package-lock.json": '{"packages": {"": {}, "a": {"integrity": "x"}}}',
    "src/_private.py": "def undocumented(): return 1\n",
    "src/a.py": (
        '"""A.\n\nSize: why.\n"""\n'
        'class P(Protocol[T]):\n    """P."""\n\n    def f(self, a, b, c, d, e, f, g):\n        """F."""\n        ...\n'
        "\n"
        '@cli.command()\ndef g(a, b, c, d, e, f, g, h):\n    """G."""\n    try:\n        f()\n'
        "    except Exception as error:\n        log(error)\n    f()  # type: "
        + "ignore[arg-type]  # the stub is wrong\n"
    ),
    "tests/unit/a.py": "async def f():\n    await asyncio.sleep(0)\n    await asyncio.sleep(3600)\n",
    "tests/e2e/a.py": "def f(deadline):\n    while time.monotonic() < deadline:\n        time.sleep(0.01)\n",
}


def rules(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rules_{name}", HERE / f"test_repo_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, repository: Any) -> Callable[[dict[str, str]], Any]:
    """A function that writes files and returns them as a repository."""

    def write(files: dict[str, str]) -> Any:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return type(repository)(tmp_path, sorted(files))

    return write


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: f"{case[1]}-{case[3][:30]}")
def test_a_broken_rule_is_found(
    case: tuple[str, str, dict[str, str], str], tree: Callable[[dict[str, str]], Any], hold: Any
) -> None:
    module, rule, files, message = case
    with pytest.raises(pytest.fail.Exception) as failure:
        getattr(rules(module), rule)(tree(files), hold)
    assert message in str(failure.value)
    assert "\nfix: " in str(failure.value)


@pytest.mark.parametrize(("module", "rule"), sorted({(module, rule) for module, rule, _, _ in BROKEN}))
def test_a_kept_rule_is_silent(module: str, rule: str, tree: Callable[[dict[str, str]], Any], hold: Any) -> None:
    getattr(rules(module), rule)(tree(KEPT), hold)


def test_every_rule_is_shown_to_bite() -> None:
    shown = {(module, rule) for module, rule, _, _ in BROKEN}
    for name in ("sources", "layout", "docs"):
        there = {
            rule
            for rule, f in vars(rules(name)).items()
            if rule.startswith("test_") and "hold" in f.__code__.co_varnames
        }
        assert there == {rule for module, rule in shown if module == name}
